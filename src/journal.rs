//! The log's sink: records of `log` in, one line each on stderr.
//!
//! ```text
//! 2026-02-28T23:59:59.123Z WARN guest_relay::app: guest1: …      to a terminal or a file
//! <4>guest_relay::app: guest1: …                                 to the journal, which has the time: sd-daemon(3)
//! ```
//! A record is one line whatever a peer put into it: control characters are escaped. It is written by one call, so that
//! the lines of two threads never mix. What cannot be written is lost; a full disk stops nothing.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::SystemTime;

use log::{LevelFilter, Log, Metadata, Record};

use crate::{systemd, utc};

/// Modules whose records obey the configured level.
const OURS: &str = "guest_relay";
/// Warns twelve times a handshake about extensions that it rightly ignores.
const NOISY: &str = "webrtc_dtls";

/// Writes records up to `log`'s maximum level; of other crates no more than warnings.
#[derive(Debug, Clone, Copy)]
struct Journal {
    /// The reader is systemd's journal.
    structured: bool,
}

/// Sends the records of this process to stderr, for as long as it lives.
pub fn start(level: LevelFilter) {
    let structured = systemd::stderr_is_journal(&|name| std::env::var_os(name));
    // A logger that is there already is one that a test installed.
    if log::set_logger(Box::leak(Box::new(Journal { structured }))).is_ok() {
        set_level(level);
    }
}

/// The least important level that is written from now on.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// The least important level that a module's records are written at, when ours are at `level`.
fn level_of(target: &str, level: LevelFilter) -> LevelFilter {
    let of = |module: &str| target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    if of(OURS) {
        level
    } else if of(NOISY) {
        level.min(LevelFilter::Error)
    } else {
        level.min(LevelFilter::Warn)
    }
}

impl Journal {
    /// The line of a record, with its line feed.
    fn line(&self, record: &Record<'_>, now: SystemTime) -> String {
        let mut line = String::with_capacity(160);
        // Writing to a string cannot fail.
        let _ = if self.structured {
            write!(line, "{}{}: ", systemd::priority_prefix(record.level()), record.target())
        } else {
            write!(line, "{} {} {}: ", utc::millis(now), record.level(), record.target())
        };
        let _ = write!(OneLine(&mut line), "{}", record.args());
        line.push('\n');
        line
    }
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= level_of(metadata.target(), log::max_level())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = self.line(record, SystemTime::now());
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// Appends text with its control characters escaped.
struct OneLine<'a>(&'a mut String);

impl std::fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let mut chars = part.chars();
            match chars.next_back() {
                Some(last) if last.is_control() => {
                    self.0.push_str(chars.as_str());
                    self.0.extend(last.escape_default());
                }
                _ => self.0.push_str(part),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use log::Level;

    use super::*;

    fn line(structured: bool, level: Level, args: std::fmt::Arguments<'_>) -> String {
        let record = Record::builder().level(level).target("guest_relay::app").args(args).build();
        let journal = Journal { structured };
        // `date -u -d @1767225599 +%FT%TZ`
        journal.line(&record, SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_599_042))
    }

    #[test]
    fn a_line_has_time_and_level_unless_the_journal_reads_it() {
        assert_eq!(
            line(false, Level::Warn, format_args!("guest1: {}", 7)),
            "2025-12-31T23:59:59.042Z WARN guest_relay::app: guest1: 7\n"
        );
        for (level, expected) in [
            (Level::Error, "<3>guest_relay::app: x\n"),
            (Level::Warn, "<4>guest_relay::app: x\n"),
            (Level::Info, "<6>guest_relay::app: x\n"),
            (Level::Debug, "<7>guest_relay::app: x\n"),
            (Level::Trace, "<7>guest_relay::app: x\n"),
        ] {
            assert_eq!(line(true, level, format_args!("x")), expected);
        }
    }

    #[test]
    fn nobody_can_forge_a_line() {
        assert_eq!(
            line(true, Level::Info, format_args!("a{}b", "\r\n<2>kernel: \u{1b}[2J\u{85}æ")),
            "<6>guest_relay::app: a\\r\\n<2>kernel: \\u{1b}[2J\\u{85}æb\n"
        );
    }

    #[test]
    fn our_own_records_obey_the_level_and_others_only_warn() {
        for target in ["guest_relay", "guest_relay::media"] {
            assert_eq!(level_of(target, LevelFilter::Debug), LevelFilter::Debug, "{target}");
        }
        for target in ["guest_relay_other", "ureq", "rustls::client"] {
            assert_eq!(level_of(target, LevelFilter::Debug), LevelFilter::Warn, "{target}");
            assert_eq!(level_of(target, LevelFilter::Error), LevelFilter::Error, "{target}");
        }
        assert_eq!(level_of("webrtc_dtls::handshake", LevelFilter::Debug), LevelFilter::Error);
        assert_eq!(level_of("webrtc_dtls", LevelFilter::Off), LevelFilter::Off);
    }
}
