//! When to try again: starts of two attempts are 0.5 s apart, doubling to 8 s (4 s for tracks that are asked for on a
//! link that stands), with jitter so that guests do not retry in step. An attempt that took long itself (a call that was held, a connection that never came) is followed by a
//! shorter pause.

use std::time::{Duration, Instant};

/// Shortest pause, and the first spacing.
pub(super) const FIRST: Duration = Duration::from_millis(500);
/// Longest spacing of attempts, jitter included.
pub(super) const ATTEMPTS_MAX: Duration = Duration::from_secs(8);
/// Longest spacing of requests for a missing track: they cost little, and a guest without picture is as good as absent.
pub(super) const TRACKS_MAX: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(super) struct Backoff {
    /// Nothing was tried since the last success.
    is_fresh: bool,
    step: u32,
    max: Duration,
    random: u64,
}

impl Backoff {
    pub(super) fn new(max: Duration, seed: u64) -> Self {
        Self { is_fresh: true, step: 0, max, random: seed }
    }

    /// It worked: the next attempt is the first one.
    pub(super) fn reset(&mut self) {
        self.is_fresh = true;
        self.step = 0;
    }

    /// When the next attempt begins, if the last one began at `started`: the first one at once.
    pub(super) fn next(&mut self, started: Instant, now: Instant) -> Instant {
        if self.is_fresh {
            self.is_fresh = false;
            return now;
        }
        self.after_failure(started, now)
    }

    /// When the next attempt begins, if one that began at `started` failed `now`.
    pub(super) fn after_failure(&mut self, started: Instant, now: Instant) -> Instant {
        // A quarter below the limit, so that the longest spacings are spread too.
        let spacing = FIRST.saturating_mul(2_u32.saturating_pow(self.step)).min(self.max * 4 / 5);
        self.step = self.step.saturating_add(1);
        let until = (started + self.jittered(spacing)).max(now + self.jittered(FIRST));
        until.min(now + self.max)
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
