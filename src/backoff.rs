//! How long to wait before the next attempt: 0.5 s doubling, with jitter upwards so that guests do not return in step; and
//! the seeded random numbers for it. State: the number of failures of one kind in a row.
//!
//! | [`Failure`] | steps in s | why not longer |
//! |---|---|---|
//! | `Unreachable` | 0.5, 1, 1.6, 1.6, … | asking costs nothing, and a server is found soon after its return |
//! | `Unanswered` | 0.5, 0.5, … | the attempt has taken seconds already |
//! | `Rejected` | 0.5, 1, 2, 4, 6.4, … | the other side said no |
//! | `TrackMissing` | 0.5, 1, 2, 3.2, … | a guest without picture is as good as absent |
//!
//! Each wait is its step and up to a quarter more. A failure of another kind, and a success, begin at the first step.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(500);

/// The result of the last attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing answers at the address.
    Unreachable,
    /// A deadline passed: stopped, overloaded, or behind a network that is gone.
    Unanswered,
    /// The other side refused, or ended what it had begun.
    Rejected,
    /// One track of a connection that stands is missing.
    TrackMissing,
}

impl Failure {
    /// Longest wait, jitter included.
    const fn max(self) -> Duration {
        Duration::from_millis(match self {
            Self::Unreachable => 2_000,
            Self::Unanswered => 625,
            Self::Rejected => 8_000,
            Self::TrackMissing => 4_000,
        })
    }
}

#[derive(Debug)]
pub(crate) struct Backoff {
    last: Option<Failure>,
    step: u32,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { last: None, step: 0 }
    }

    /// It worked: the next failure starts at the first step.
    pub(crate) fn reset(&mut self) {
        self.last = None;
        self.step = 0;
    }

    /// The wait after a `failure`: between the step and a quarter more.
    pub(crate) fn next(&mut self, failure: Failure, rng: &mut Rng) -> Duration {
        if self.last != Some(failure) {
            self.last = Some(failure);
            self.step = 0;
        }
        // A quarter below the limit, so that the longest waits are spread too.
        let wait = FIRST.saturating_mul(2_u32.saturating_pow(self.step)).min(failure.max() * 4 / 5);
        self.step = self.step.saturating_add(1);
        jittered(wait, rng)
    }

    /// When the next attempt begins, if one that began at `started` met the `failure` at `now`. The waits lie between the
    /// starts: an attempt that took long itself is followed by a shorter pause, but not by less than the first step.
    pub(crate) fn next_start(&mut self, failure: Failure, started: Instant, now: Instant, rng: &mut Rng) -> Instant {
        let spaced = started + self.next(failure, rng);
        spaced.max(now + jittered(FIRST, rng)).min(now + failure.max())
    }
}

/// Up to a quarter more.
fn jittered(wait: Duration, rng: &mut Rng) -> Duration {
    let spread = u64::try_from(wait.as_micros() / 4).expect("seconds fit");
    wait + Duration::from_micros(rng.below(spread + 1))
}

/// Seeded random numbers (SplitMix64, Steele et al. 2014). Not for secrets.
#[derive(Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in `0..bound`; the bias of the remainder does not matter here. 0 when `bound` is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_half_a_second_and_stay_within_their_limits() {
        for (failure, max, steps) in [
            (Failure::Unreachable, 2_000, [500, 1000, 1600, 1600, 1600, 1600]),
            (Failure::Unanswered, 625, [500; 6]),
            (Failure::Rejected, 8_000, [500, 1000, 2000, 4000, 6400, 6400]),
            (Failure::TrackMissing, 4_000, [500, 1000, 2000, 3200, 3200, 3200]),
        ] {
            let max = Duration::from_millis(max);
            for seed in 0..50 {
                let (mut backoff, mut rng) = (Backoff::new(), Rng::new(seed));
                for step in steps {
                    let wait = backoff.next(failure, &mut rng);
                    let step = Duration::from_millis(step);
                    assert!(wait >= step && wait <= (step * 5 / 4).min(max), "{failure:?} seed {seed}: {wait:?}");
                }
                for _ in 0..1000 {
                    assert!(backoff.next(failure, &mut rng) <= max);
                }
            }
        }
    }

    #[test]
    fn jitter_spreads_two_publishers() {
        let wait = |seed| Backoff::new().next(Failure::Rejected, &mut Rng::new(seed));
        assert!((1..20).any(|seed| wait(seed) != wait(0)));
    }

    #[test]
    fn success_and_a_different_failure_start_over() {
        let (mut backoff, mut rng) = (Backoff::new(), Rng::new(1));
        let first_step = Duration::from_millis(625);
        for _ in 0..6 {
            backoff.next(Failure::Unreachable, &mut rng);
        }
        assert!(backoff.next(Failure::Rejected, &mut rng) <= first_step);
        assert!(backoff.next(Failure::Rejected, &mut rng) > first_step);
        backoff.reset();
        assert!(backoff.next(Failure::Rejected, &mut rng) <= first_step);
    }

    #[test]
    fn an_attempt_that_took_long_is_followed_by_a_shorter_pause() {
        let (mut backoff, mut rng) = (Backoff::new(), Rng::new(1));
        let started = Instant::now();
        for _ in 0..4 {
            backoff.next(Failure::Rejected, &mut rng);
        }
        let after = |seconds, backoff: &mut Backoff, rng: &mut Rng| {
            let now = started + Duration::from_secs(seconds);
            backoff.next_start(Failure::Rejected, started, now, rng) - now
        };
        let (quick, slow, longer) =
            (after(0, &mut backoff, &mut rng), after(4, &mut backoff, &mut rng), after(60, &mut backoff, &mut rng));
        assert!(quick >= Duration::from_millis(6_400) && quick <= Failure::Rejected.max(), "{quick:?}");
        assert!(slow >= Duration::from_millis(2_400) && slow <= Failure::Rejected.max() / 2, "{slow:?}");
        assert!(longer >= FIRST && longer <= FIRST * 5 / 4, "{longer:?}");
    }

    #[test]
    fn the_sequence_is_that_of_splitmix64() {
        // First outputs for seed 1234567 as published with the reference implementation.
        let mut rng = Rng::new(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
        assert_eq!(rng.next_u64(), 9_817_491_932_198_370_423);
    }
}
