//! A warning once, and again while its cause goes on: at level `debug` in between.
//!
//! Input: what happened, and when. Output: the level of its line. State: what was last warned of.

use std::time::{Duration, Instant};

use log::Level;

/// `K` tells one trouble from another: the first line of each is a warning.
#[derive(Debug)]
pub(crate) struct LogOnce<K = ()> {
    remind_after: Option<Duration>,
    warned: Option<(K, Instant)>,
}

impl<K: PartialEq> LogOnce<K> {
    /// Warns again of a trouble that goes on after so long; without it, never.
    pub(crate) const fn new(remind_after: Option<Duration>) -> Self {
        Self { remind_after, warned: None }
    }

    /// The level of a line about `trouble`.
    pub(crate) fn level(&mut self, trouble: K, now: Instant) -> Level {
        if self.warns(trouble, now) { Level::Warn } else { Level::Debug }
    }

    /// True if a line about `trouble` is a warning.
    pub(crate) fn warns(&mut self, trouble: K, now: Instant) -> bool {
        let is_known = self.warned.as_ref().is_some_and(|(warned, at)| {
            let is_due = self.remind_after.is_some_and(|after| now.saturating_duration_since(*at) >= after);
            *warned == trouble && !is_due
        });
        if !is_known {
            self.warned = Some((trouble, now));
        }
        !is_known
    }

    /// All is well: the next line is a warning.
    pub(crate) fn reset(&mut self) {
        self.warned = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn one_trouble_is_warned_of_once_until_it_is_over_or_has_gone_on_for_long() {
        let now = Instant::now();
        let mut log = LogOnce::new(Some(60 * S));
        assert_eq!(log.level("a", now), Level::Warn);
        assert_eq!(log.level("a", now + 59 * S), Level::Debug);
        assert_eq!(log.level("a", now + 60 * S), Level::Warn);
        assert_eq!(log.level("a", now + 119 * S), Level::Debug);
        assert_eq!(log.level("b", now + 119 * S), Level::Warn);
        assert_eq!(log.level("b", now + 119 * S), Level::Debug);
        log.reset();
        assert_eq!(log.level("b", now + 119 * S), Level::Warn);
    }

    #[test]
    fn without_a_reminder_a_trouble_is_warned_of_once() {
        let now = Instant::now();
        let mut log = LogOnce::new(None);
        assert!(log.warns((), now));
        assert!(!log.warns((), now + 100_000 * S));
    }
}
