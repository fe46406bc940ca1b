//! `guest-relay doctor`: what stands between this machine and a live guest, line by line, each with its remedy.
//!
//! ```text
//! probe (sockets, files, clock) -> Findings -> examine (pure) -> Report -> text, JSON, exit code
//! ```
//! Probes change nothing, with one exception: with SFU credentials an empty session is made there, which ends by itself.
//! They run one after the other, each with a time limit; a machine where everything hangs is done within a minute.
//! Exit code: 0 nothing to do (notes included), 1 warnings, 2 errors.

mod examine;
mod findings;
mod http;
mod ports;
mod probe;
mod report;
mod rtmp;

pub use findings::{
    Api, Clock, Configured, Findings, GuestPath, PathState, Port, Processor, Program, Rtmp, Service, StateFile, Stun,
};
pub use report::{Check, Report, Severity};

use std::path::Path;

use crate::config::Config;

/// Looks at everything and judges it.
pub fn run(config: Option<&Path>, environment: &dyn Fn(&str) -> Option<String>) -> Report {
    let configured = Config::load(config, environment).map(|config| probe::look(&config));
    examine::examine(&Findings { processor: Processor::here(), configured })
}
