//! How often and how long the picture stood still, as W3C webrtc-stats counts it (`freezeCount`, `totalFreezesDuration`):
//! times at which pictures went out in, two counters out.
//!
//! A gap is a freeze when it is three times the usual one, or 150 ms longer than it, whichever is more. Time in which the
//! guest is away is not one: the relay counts that as held.

use std::time::{Duration, Instant};

/// Pictures before the usual gap is known.
const WARM_UP: u32 = 5;
/// The usual gap is an average over about so many pictures.
const SMOOTHING: u32 = 30;
/// What a gap has to be longer by.
const MARGIN: Duration = Duration::from_millis(150);

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Freezes {
    last: Option<Instant>,
    usual: Duration,
    pictures: u32,
    pub(super) count: u64,
    pub(super) total: Duration,
}

impl Freezes {
    /// A picture went out.
    pub(super) fn record_picture(&mut self, now: Instant) {
        let Some(last) = self.last.replace(now) else {
            return;
        };
        let gap = now.saturating_duration_since(last);
        if self.pictures >= WARM_UP && gap >= (3 * self.usual).max(self.usual + MARGIN) {
            self.count += 1;
            self.total += gap;
            return;
        }
        self.pictures = self.pictures.saturating_add(1);
        let weight = self.pictures.min(SMOOTHING);
        self.usual = (self.usual * (weight - 1) + gap) / weight;
    }

    /// The guest is away, or another session begins: the next gap is not one of the picture.
    pub(super) fn interrupt(&mut self) {
        self.last = None;
        self.pictures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(freezes: &mut Freezes, from: Instant, gaps_ms: &[u64]) -> Instant {
        let mut now = from;
        freezes.record_picture(now);
        for gap in gaps_ms {
            now += Duration::from_millis(*gap);
            freezes.record_picture(now);
        }
        now
    }

    #[test]
    fn a_gap_beyond_both_bounds_is_a_freeze_of_its_length() {
        let start = Instant::now();
        for (name, gaps, expected) in [
            ("30 fps", vec![33; 60], (0, 0)),
            // 33 + 150 = 183 is more than 3 * 33.
            ("just not", [vec![33; 30], vec![182], vec![33; 30]].concat(), (0, 0)),
            ("just so", [vec![33; 30], vec![184], vec![33; 30]].concat(), (1, 184)),
            // 3 * 100 is more than 100 + 150.
            ("10 fps, just not", [vec![100; 30], vec![299]].concat(), (0, 0)),
            ("10 fps, just so", [vec![100; 30], vec![301]].concat(), (1, 301)),
            ("two", [vec![33; 30], vec![500, 33, 33, 700]].concat(), (2, 1200)),
        ] {
            let mut freezes = Freezes::default();
            play(&mut freezes, start, &gaps);
            assert_eq!((freezes.count, freezes.total.as_millis()), expected, "{name}");
        }
    }

    #[test]
    fn the_start_and_the_guests_absence_are_no_freezes() {
        let start = Instant::now();
        let mut freezes = Freezes::default();
        let now = play(&mut freezes, start, &[900, 33, 33, 33]);
        freezes.interrupt();
        play(&mut freezes, now + Duration::from_secs(10), &[33; 10]);
        assert_eq!(freezes.count, 0);
    }
}
