//! A configuration file: accepted, or refused with at least one problem.
#![no_main]

use guest_relay::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Config::parse(text, "config.yml", &|_| None) {
        Ok(config) => assert!(!config.guests.is_empty() && !config.check().is_empty()),
        Err(error) => assert!(!error.problems.is_empty()),
    }
});
