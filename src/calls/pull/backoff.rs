//! When to try again: starts of two attempts are 0.5 s apart, doubling to 8 s, with jitter so that guests do not retry
//! in step. An attempt that took long itself (a call that was held, a connection that never came) is followed by a
//! shorter pause.

use std::time::{Duration, Instant};

/// Shortest pause, and the first spacing.
pub(super) const FIRST: Duration = Duration::from_millis(500);
/// Longest spacing, jitter included.
pub(super) const MAX: Duration = Duration::from_secs(8);

#[derive(Debug)]
pub(super) struct Backoff {
    step: u32,
    random: u64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            step: 0,
            random: seed,
        }
    }

    /// It worked: the next failure is the first one.
    pub(super) fn reset(&mut self) {
        self.step = 0;
    }

    /// Nothing has failed since the last success.
    pub(super) fn is_fresh(&self) -> bool {
        self.step == 0
    }

    /// An attempt that began at `started` failed `now`: when the next one begins.
    pub(super) fn next(&mut self, started: Instant, now: Instant) -> Instant {
        // A quarter below the limit, so that the longest spacings are spread too.
        let spacing = FIRST
            .saturating_mul(2_u32.saturating_pow(self.step))
            .min(MAX * 4 / 5);
        self.step = self.step.saturating_add(1);
        let until = (started + self.jittered(spacing)).max(now + self.jittered(FIRST));
        until.min(now + MAX)
    }

    /// Up to a quarter more.
    fn jittered(&mut self, wait: Duration) -> Duration {
        // SplitMix64 (Steele et al. 2014).
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let thousandths = u32::try_from((mixed ^ (mixed >> 31)) % 1001).expect("at most 1000");
        wait + wait * thousandths / 4000
    }
}
