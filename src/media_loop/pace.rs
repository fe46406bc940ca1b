//! How soon the media thread looks for datagrams again: where they come all the time, not before [`PACE`] has passed since
//! it last did, so that one wake-up takes what came from all guests, and wake-ups do not grow with them.
//!
//! Input: when datagrams were taken. Output: how long to sleep. A single guest's bursts are further apart than
//! [`BUSY_GAP`]: they are taken as they come.

use std::time::{Duration, Instant};

/// Between two looks under load; what packets wait for at most on its account.
const PACE: Duration = Duration::from_millis(2);
/// Datagrams that come within this of the last ones mean load.
const BUSY_GAP: Duration = Duration::from_millis(4);

#[derive(Default)]
pub(super) struct Pace {
    received: Option<Instant>,
    busy: bool,
}

impl Pace {
    /// Datagrams were taken.
    pub(super) fn note_received(&mut self, now: Instant) {
        let before = self.received.replace(now);
        self.busy = before.is_some_and(|before| now.saturating_duration_since(before) < BUSY_GAP);
    }

    /// How long nothing should be looked for.
    pub(super) fn rest(&self, now: Instant) -> Option<Duration> {
        let until = self.received.filter(|_| self.busy)? + PACE;
        until.checked_duration_since(now).filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_under_load_is_there_a_rest_and_it_ends_with_the_pace() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let after = |micros| start + Duration::from_micros(micros);
        assert_eq!(pace.rest(start), None);
        // One guest's bursts: they are taken as they come.
        for micros in [0, 5_000, 10_000, 14_000] {
            pace.note_received(after(micros));
            assert_eq!(pace.rest(after(micros)), None, "{micros}");
        }
        pace.note_received(after(15_500));
        assert_eq!(pace.rest(after(15_500)), Some(PACE));
        assert_eq!(pace.rest(after(16_000)), Some(Duration::from_micros(1_500)));
        assert_eq!(pace.rest(after(17_500)), None);
        assert_eq!(pace.rest(after(90_000)), None);
        pace.note_received(after(17_600));
        assert_eq!(pace.rest(after(17_600)), Some(PACE), "the load goes on");
        pace.note_received(after(30_000));
        assert_eq!(pace.rest(after(30_000)), None, "the load is over");
    }
}
