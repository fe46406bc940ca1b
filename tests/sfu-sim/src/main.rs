//! `sfu-sim`: the simulated SFU as a program, until it is killed.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::thread;

use sfu_sim::{Options, SfuSim};

const USAGE: &str = "\
sfu-sim --listen HOST:PORT --app-id ID (--secret-env NAME | --secret-file FILE) [--speed N] [--padding-every N]
        [--announce-rtx] [--seed N]
    A simulated Cloudflare Realtime SFU: api_base is http://HOST:PORT/v1; faults by POST /control, what is there by
    GET /control/sessions. --speed divides the service's times.
";

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprint!("sfu-sim: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match SfuSim::start(options) {
        Ok(sfu) => {
            println!("sfu-sim: api_base {}, media {}", sfu.api_base(), sfu.media_address());
            loop {
                thread::park();
            }
        }
        Err(error) => {
            eprintln!("sfu-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    // Session ids of an earlier run must not come again.
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    let seed = since.map_or(0, |since| u64::from(since.subsec_nanos()) ^ since.as_secs());
    let mut options = Options { seed, ..Options::default() };
    let mut secret = None;
    let mut app_id = None;
    while let Some(name) = arguments.next() {
        if name == "--announce-rtx" {
            options.announce_rtx = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let bad = |error: &dyn std::fmt::Display| format!("{name} {value}: {error}");
        match name.as_str() {
            "--listen" => options.listen = value.parse().map_err(|error| bad(&error))?,
            "--app-id" => app_id = Some(value),
            "--secret-env" => secret = Some(std::env::var(&value).map_err(|error| bad(&error))?),
            "--secret-file" => {
                let text = std::fs::read_to_string(&value).map_err(|error| bad(&error))?;
                secret = Some(text.trim().to_owned());
            }
            "--speed" => {
                options.speed = value.parse().map_err(|error| bad(&error))?;
                if options.speed.is_nan() || options.speed <= 0.0 {
                    return Err(bad(&"is to be above 0"));
                }
            }
            "--seed" => options.seed = value.parse().map_err(|error| bad(&error))?,
            "--padding-every" => options.padding_every = Some(value.parse().map_err(|error| bad(&error))?),
            _ => return Err(format!("{name} is unknown")),
        }
    }
    options.app_id = app_id.ok_or("--app-id is missing")?;
    options.secret = secret.ok_or("--secret-env or --secret-file is missing")?;
    Ok(options)
}
