//! Build script: what the linker is told, for this machine and for the board alike.
//!
//! - Relative relocations packed (DT_RELR, glibc 2.36 and newer): 24 bytes each become a bit, some hundred kB in all.
//! - Identical functions folded: generic code that came out the same for several types is there once.
//!
//! Both need LLD. rustup's toolchains bring it; a compiler without it links with what it has, to a larger binary. A binary
//! with packed relocations does not start under an older glibc, so that on such a machine its own are not packed.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// The first glibc that reads packed relocations; the board's.
const PACKED_SINCE: (u32, u32) = (2, 36);

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
    let directory = format!("-B{}", directory.display());
    let mut arguments = vec![directory.as_str(), "-fuse-ld=lld", "-Wl,--icf=all"];
    if env::var_os("HOST") != env::var_os("TARGET") || glibc_here() >= Some(PACKED_SINCE) {
        arguments.push("-Wl,-z,pack-relative-relocs");
    }
    for argument in arguments {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}

/// This machine's glibc: its major and minor version.
fn glibc_here() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Where the compiler's own `ld.lld` is.
fn lld() -> Option<PathBuf> {
    let (rustc, host) = (env::var_os("RUSTC")?, env::var("HOST").ok()?);
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let sysroot = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let directory = sysroot.join("lib/rustlib").join(host).join("bin/gcc-ld");
    directory.join("ld.lld").is_file().then_some(directory)
}
