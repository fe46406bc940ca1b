//! How long to wait before the next connection: 0.5 s doubling, with jitter upwards so that guests do not return in step.
//!
//! A server that is not there costs nothing to ask, so those waits end at 2 s and it is found soon after its return.
//! One that does not answer has taken seconds already: the wait stays at its first step. One that takes the connection
//! and then closes it said no: those waits go up to 8 s.

use std::time::Duration;

use super::rng::Rng;

const FIRST: Duration = Duration::from_millis(500);
/// Longest wait while nothing answers at the address, jitter included.
pub(super) const UNREACHABLE_MAX: Duration = Duration::from_secs(2);
/// Longest wait after a deadline, jitter included.
pub(super) const UNANSWERED_MAX: Duration = Duration::from_millis(625);
/// Longest wait after the server closed or refused, jitter included.
pub(super) const REJECTED_MAX: Duration = Duration::from_secs(8);

/// What the last attempt met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No TCP connection.
    Unreachable,
    /// A deadline passed: stopped, overloaded, or behind a network that is gone.
    Unanswered,
    /// A connection that ended before it was proven live.
    Rejected,
}

pub(super) struct Backoff {
    last: Option<Failure>,
    step: u32,
}

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff { last: None, step: 0 }
    }

    /// The connection was proven: the next failure starts at the first step.
    pub(super) fn reset(&mut self) {
        self.last = None;
        self.step = 0;
    }

    /// The wait after a `failure`: between the step and a quarter more.
    pub(super) fn next(&mut self, failure: Failure, rng: &mut Rng) -> Duration {
        if self.last != Some(failure) {
            self.last = Some(failure);
            self.step = 0;
        }
        let max = match failure {
            Failure::Unreachable => UNREACHABLE_MAX,
            Failure::Unanswered => UNANSWERED_MAX,
            Failure::Rejected => REJECTED_MAX,
        };
        // A quarter below the limit, so that the longest waits are spread too.
        let wait = FIRST.saturating_mul(2_u32.saturating_pow(self.step)).min(max * 4 / 5);
        self.step = self.step.saturating_add(1);
        let spread = u64::try_from(wait.as_micros() / 4).expect("seconds fit");
        wait + Duration::from_micros(rng.below(spread + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_half_a_second_and_stay_within_their_limits() {
        for (failure, max, steps) in [
            (Failure::Unreachable, UNREACHABLE_MAX, [500, 1000, 1600, 1600, 1600, 1600]),
            (Failure::Unanswered, UNANSWERED_MAX, [500; 6]),
            (Failure::Rejected, REJECTED_MAX, [500, 1000, 2000, 4000, 6400, 6400]),
        ] {
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
}
