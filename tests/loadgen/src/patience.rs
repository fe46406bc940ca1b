//! How tests wait: each wait ends, and its failure says what was waited for.
//!
//! [`PATIENCE`] is no verdict about speed. A machine that has other work to do takes long for everything, so what a test
//! says about time is counted in events, in media or in a clock of its own, and real time only bounds the wait.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that is not itself measured.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EACH: Duration = Duration::from_millis(10);

/// The end of a wait, for loops that do something themselves meanwhile.
pub struct Deadline {
    what: String,
    patience: Duration,
    at: Instant,
}

impl Deadline {
    /// `what` is waited for, from now on.
    pub fn new(what: impl Display) -> Deadline {
        Deadline::within(PATIENCE, what)
    }

    /// For what takes longer than [`PATIENCE`] by itself, or for a wait that is the test's own subject.
    pub fn within(patience: Duration, what: impl Display) -> Deadline {
        Deadline { what: what.to_string(), patience, at: Instant::now() + patience }
    }

    /// What a read that blocks may still take: at least a millisecond, because no time at all means for ever there.
    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }

    /// # Panics
    /// Once the time is over, with `seen`: how things stand instead.
    #[track_caller]
    pub fn check<T: Display>(&self, seen: impl FnOnce() -> T) {
        if Instant::now() >= self.at {
            panic!("waited {:?} for {}: {}", self.patience, self.what, seen());
        }
    }
}

/// Looks again and again until `reached`.
///
/// # Panics
/// When that takes longer than [`PATIENCE`], with `seen`: how things stand instead.
#[track_caller]
pub fn wait_for<T: Display>(what: impl Display, mut reached: impl FnMut() -> bool, seen: impl Fn() -> T) {
    let deadline = Deadline::new(what);
    while !reached() {
        deadline.check(&seen);
        thread::sleep(LOOK_EACH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "waited 0ns for a bus: none came")]
    fn a_wait_that_is_over_says_what_it_waited_for_and_how_things_stand() {
        Deadline::within(Duration::ZERO, "a bus").check(|| "none came");
    }

    #[test]
    fn a_wait_ends_as_soon_as_what_is_waited_for_is_there() {
        let mut looks = 0;
        let reached = || {
            looks += 1;
            looks == 3
        };
        wait_for("the third look", reached, || "");
        assert_eq!(looks, 3);
    }
}
