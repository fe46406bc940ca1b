//! Whether the connected peer is still heard: long before consent ends (RFC 7675), a silence says that the path is
//! lost and another one should be tried. Times in, "silent" once per silence out.

use std::time::{Duration, Instant};

/// A connected peer of which nothing authentic was heard for this long is reported as quiet.
pub const QUIET_AFTER: Duration = Duration::from_secs(5);

/// What was reported so far.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    reported: bool,
}

impl Liveness {
    /// When [`Liveness::falls_quiet`] may say so.
    pub(super) fn poll_timeout(&self, last_heard: Option<Instant>) -> Option<Instant> {
        let last_heard = last_heard.filter(|_| !self.reported)?;
        Some(last_heard + QUIET_AFTER)
    }

    /// Whether the peer has fallen quiet since the last call.
    pub(super) fn falls_quiet(&mut self, last_heard: Option<Instant>, now: Instant) -> bool {
        let is_quiet = last_heard.is_some_and(|heard| now >= heard + QUIET_AFTER);
        let falls_quiet = is_quiet && !self.reported;
        self.reported = is_quiet;
        falls_quiet
    }
}
