//! The daemon's command line: arguments → [`Config`] → [`app::run`] → exit code.
//!
//! Exit codes: 0 clean end, 1 the daemon could not start or go on, 2 bad arguments or configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use guest_relay::app;
use guest_relay::config::Config;

const USAGE: &str = "\
usage: guest-relay [--config FILE] [--check-config]

  --config FILE    read FILE; without it ./config.yml if there is one, else defaults
  --check-config   say what the configuration means and end (0: good, 2: not)
  --version        print the version
  --help           this text

Environment variables override the file; config.example.yml names them all.";

#[derive(Default)]
struct Arguments {
    config: Option<PathBuf>,
    check_config: bool,
}

enum Invocation {
    Run(Arguments),
    Print(String),
}

fn parse(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> Result<Invocation, String> {
    let mut parsed = Arguments::default();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--config") => {
                parsed.config = Some(arguments.next().ok_or("--config needs a file name")?.into());
            }
            Some("--check-config") => parsed.check_config = true,
            Some("--version") => {
                return Ok(Invocation::Print(format!("guest-relay {}", env!("CARGO_PKG_VERSION"))));
            }
            Some("--help" | "-h") => return Ok(Invocation::Print(USAGE.to_owned())),
            _ => {
                return Err(format!("unknown argument {}\n\n{USAGE}", argument.to_string_lossy()));
            }
        }
    }
    Ok(Invocation::Run(parsed))
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args_os().skip(1)) {
        Ok(Invocation::Run(arguments)) => arguments,
        Ok(Invocation::Print(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("guest-relay: {message}");
            return ExitCode::from(2);
        }
    };
    let config = match Config::load(arguments.config.as_deref(), &|name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("guest-relay: {error}");
            return ExitCode::from(2);
        }
    };
    if arguments.check_config {
        println!("{}", config.check());
        return ExitCode::SUCCESS;
    }
    match app::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
