//! Whether the connected peer is still heard: long before consent ends (RFC 7675), a silence says that the path is
//! lost and another one should be tried. Times in; "silent" once per silence and "heard again" once after it out.
//!
//! ```text
//!  heard ──nothing for QUIET_AFTER: quiet──▶ reported
//!    ▲───────────anything: heard again──────────┘
//! ```

use std::time::{Duration, Instant};

/// A connected peer of which nothing authentic was heard for this long is reported as quiet.
pub const QUIET_AFTER: Duration = Duration::from_secs(3);

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
        let falls_quiet = !self.reported && is_quiet(last_heard, now);
        self.reported |= falls_quiet;
        falls_quiet
    }

    /// Whether something came after a silence that was reported; `true` once.
    pub(super) fn is_heard_again(&mut self, last_heard: Option<Instant>, now: Instant) -> bool {
        let is_heard_again = self.reported && !is_quiet(last_heard, now);
        self.reported &= !is_heard_again;
        is_heard_again
    }
}

fn is_quiet(last_heard: Option<Instant>, now: Instant) -> bool {
    last_heard.is_some_and(|heard| now >= heard + QUIET_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_told_once_and_its_end_is_told_once() {
        let (mut liveness, start) = (Liveness::default(), Instant::now());
        let almost = start + QUIET_AFTER - Duration::from_millis(1);
        let (quiet, later) = (start + QUIET_AFTER, start + 2 * QUIET_AFTER);
        assert!(!liveness.falls_quiet(None, later), "a peer that was never heard is not quiet, it is not there");
        assert!(!liveness.falls_quiet(Some(start), almost) && !liveness.is_heard_again(Some(start), almost));
        assert_eq!(liveness.poll_timeout(Some(start)), Some(quiet));
        assert!(liveness.falls_quiet(Some(start), quiet));
        assert!(!liveness.falls_quiet(Some(start), later) && !liveness.is_heard_again(Some(start), later));
        assert_eq!(liveness.poll_timeout(Some(start)), None);
        assert!(liveness.is_heard_again(Some(later), later));
        assert!(!liveness.is_heard_again(Some(later), later));
        assert!(liveness.falls_quiet(Some(later), later + QUIET_AFTER), "the next silence is told again");
    }
}
