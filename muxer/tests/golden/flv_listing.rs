//! `flv_listing in.flv`: prints the readable tag listing that stands beside each golden file.

use std::process::ExitCode;

#[path = "listing.rs"]
#[allow(dead_code, reason = "the golden tests use more of it")]
mod listing;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [path] = arguments.as_slice() else {
        eprintln!("usage: flv_listing in.flv");
        return ExitCode::from(2);
    };
    match std::fs::read(path) {
        Ok(flv) => {
            print!("{}", listing::listing(&flv));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("flv_listing: {}: {error}", path.display());
            ExitCode::from(2)
        }
    }
}
