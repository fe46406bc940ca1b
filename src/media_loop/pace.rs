//! How soon the media thread looks for datagrams again: where they come all the time, not before [`PACE`] has passed since
//! it last did, so that one wake-up takes what came from all guests, and wake-ups do not grow with them. When a packet came
//! the kernel tells, so that no estimate is blurred.
//!
//! Input: when datagrams were taken. Output: how long to sleep. Where they come less often, as from one or two guests, a
//! sleep would mostly be one more wake-up: they are taken as they come.

use std::time::{Duration, Instant};

/// Between two looks under load; what packets wait for at most on its account.
const PACE: Duration = Duration::from_millis(2);
/// Datagrams that are taken more often than this, on average, mean load.
const BUSY_GAP: Duration = Duration::from_millis(4);
/// A pause counts as this at most: load that returns is seen within some fifteen looks.
const LONGEST_GAP: Duration = Duration::from_millis(16);
/// The average is over about so many.
const SMOOTHING: u32 = 8;

pub(super) struct Pace {
    received: Option<Instant>,
    /// The time between two looks that found datagrams, smoothed.
    gap: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { received: None, gap: LONGEST_GAP }
    }
}

impl Pace {
    /// Datagrams were taken.
    pub(super) fn note_received(&mut self, now: Instant) {
        if let Some(before) = self.received.replace(now) {
            let gap = now.saturating_duration_since(before).min(LONGEST_GAP);
            self.gap = (self.gap * (SMOOTHING - 1) + gap) / SMOOTHING;
        }
    }

    /// How long nothing should be looked for.
    pub(super) fn rest(&self, now: Instant) -> Option<Duration> {
        let until = self.received.filter(|_| self.gap < BUSY_GAP)? + PACE;
        until.checked_duration_since(now).filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the looks at datagrams that come each `gap` lead to after `looks` of them.
    fn rest_after(pace: &mut Pace, now: &mut Instant, gap: Duration, looks: u32) -> Option<Duration> {
        for _ in 0..looks {
            *now += gap;
            pace.note_received(*now);
        }
        pace.rest(*now)
    }

    #[test]
    fn only_under_load_is_there_a_rest() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        assert_eq!(pace.rest(now), None);
        let (guest, load) = (Duration::from_millis(11), Duration::from_millis(2));
        assert_eq!(rest_after(&mut pace, &mut now, guest, 100), None, "one guest");
        // Its bursts may come close together.
        assert_eq!(rest_after(&mut pace, &mut now, load, 3), None);
        assert_eq!(rest_after(&mut pace, &mut now, guest, 100), None);
        assert_eq!(rest_after(&mut pace, &mut now, load, 16), Some(PACE));
        assert_eq!(pace.rest(now + Duration::from_micros(500)), Some(Duration::from_micros(1_500)));
        assert_eq!(pace.rest(now + PACE), None, "the rest is over");
        assert_eq!(rest_after(&mut pace, &mut now, load, 100), Some(PACE), "the load goes on");
        assert_eq!(rest_after(&mut pace, &mut now, guest, 8), None, "the load is over");
        // However long a pause was.
        assert_eq!(rest_after(&mut pace, &mut now, Duration::from_secs(3600), 1), None);
        assert_eq!(rest_after(&mut pace, &mut now, load, 16), Some(PACE));
    }
}
