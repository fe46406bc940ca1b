//! Build script: what the linker is told, for this machine and for the board alike.
//!
//! - Relative relocations packed (DT_RELR, glibc 2.36 and newer): 24 bytes each become a bit, some hundred kB in all.
//! - Identical functions folded: generic code that came out the same for several types is there once.
//!
//! Both need LLD. rustup's toolchains bring it; a compiler without it links with what it has, to a larger binary.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=cross/link.rs");
    let is = |variable: &str, value: &str| env::var(variable).is_ok_and(|found| found == value);
    if !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        return;
    }
    let Some(directory) = lld() else {
        println!("cargo:warning=this toolchain has no LLD: the binary will be larger than need be");
        return;
    };
    for argument in
        [&format!("-B{}", directory.display()), "-fuse-ld=lld", "-Wl,-z,pack-relative-relocs", "-Wl,--icf=all"]
    {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}

/// Where the compiler's own `ld.lld` is.
fn lld() -> Option<PathBuf> {
    let (rustc, host) = (env::var_os("RUSTC")?, env::var("HOST").ok()?);
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let sysroot = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let directory = sysroot.join("lib/rustlib").join(host).join("bin/gcc-ld");
    directory.join("ld.lld").is_file().then_some(directory)
}
