//! The daemon's command line: arguments → [`Config`] → [`app::run`] → exit code; or [`doctor`].
//!
//! Exit codes: 0 clean end, 1 the daemon could not start or go on, 2 bad arguments or configuration. Of `doctor`: 0
//! nothing to do, 1 warnings, 2 errors.

use std::path::PathBuf;
use std::process::ExitCode;

use guest_relay::app;
use guest_relay::config::Config;
use guest_relay::{doctor, systemd};

const USAGE: &str = "\
usage: guest-relay [--config FILE] [--check-config]
       guest-relay doctor [--config FILE] [--json]

  doctor           look at everything a guest's way needs, and say what to do; changes nothing
                   (0: nothing to do, 1: warnings, 2: errors)
  --config FILE    read FILE; without it ./config.yml if there is one, else defaults
  --check-config   say what the configuration means and end (0: good, 2: not)
  --json           doctor's report for programs
  --version        print the version
  --help           this text

Environment variables override the file; config.example.yml names them all.";

#[derive(Default)]
struct Arguments {
    config: Option<PathBuf>,
    check_config: bool,
    doctor: bool,
    json: bool,
}

enum Invocation {
    Run(Arguments),
    Print(String),
}

fn parse(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> Result<Invocation, String> {
    let mut parsed = Arguments::default();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("doctor") => parsed.doctor = true,
            Some("--json") if parsed.doctor => parsed.json = true,
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
    let check_config = arguments.check_config;
    let variable = |name: &str| std::env::var(name).ok();
    if arguments.doctor {
        let report = doctor::run(arguments.config.as_deref(), &variable);
        println!("{}", if arguments.json { report.json() } else { report.to_string() });
        return ExitCode::from(report.severity().exit_code());
    }
    let source = move || Config::load(arguments.config.as_deref(), &variable);
    let config = match source() {
        Ok(config) => config,
        Err(error) => {
            let journal = systemd::stderr_is_journal(&|name| std::env::var_os(name));
            let prefix = if journal { systemd::priority_prefix(log::Level::Error) } else { "" };
            for line in error.to_string().lines() {
                eprintln!("{prefix}guest-relay: {line}");
            }
            return ExitCode::from(2);
        }
    };
    if check_config {
        println!("{}", config.check());
        return ExitCode::SUCCESS;
    }
    match app::run(config, &source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
