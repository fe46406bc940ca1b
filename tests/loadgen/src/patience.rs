//! How tests wait: each wait ends, and its failure says what was waited for.
//!
//! [`PATIENCE`] is no verdict about speed. A machine that has other work to do takes long for everything, so what a test
//! says about time is counted in events, in media or in a clock of its own, and real time only bounds the wait.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that is not itself measured.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EACH: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_millis(10);

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

/// Lines of a program's output or of a stream, read by a thread of its own, because such a read has no end.
pub struct Lines(Receiver<String>);

impl Lines {
    pub fn of(input: impl Read + Send + 'static) -> Lines {
        let (to, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(input).lines().map_while(Result::ok) {
                if to.send(line).is_err() {
                    return;
                }
            }
        });
        Lines(lines)
    }

    /// Leaves out lines up to the next one that holds `wanted`.
    ///
    /// # Panics
    /// When there is none, or none within [`PATIENCE`].
    #[track_caller]
    pub fn next_with(&self, wanted: &str) -> String {
        let deadline = Deadline::new(wanted);
        let mut left_out = String::new();
        loop {
            match self.0.recv_timeout(deadline.left()) {
                Ok(line) if line.contains(wanted) => return line,
                Ok(line) => left_out.extend([&line, "\n"]),
                Err(error) => panic!("no line with {wanted:?} ({error}) in\n{left_out}"),
            }
            deadline.check(|| &left_out);
        }
    }

    /// All up to the end of the stream, which somebody has ended.
    pub fn rest(self) -> String {
        self.0.iter().map(|line| line + "\n").collect()
    }
}

/// Measures how long the others took, on a machine that may have other work to do: it counts the ticks of a thread that
/// sleeps. What keeps a thread that is due from running keeps this one as well, and does not count.
pub struct Stopwatch {
    ticks: Arc<AtomicU32>,
    stopped: Arc<AtomicBool>,
}

impl Stopwatch {
    pub fn start() -> Stopwatch {
        let (ticks, stopped) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let (counted, ended) = (Arc::clone(&ticks), Arc::clone(&stopped));
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                thread::sleep(TICK);
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Stopwatch { ticks, stopped }
    }

    pub fn elapsed(&self) -> Duration {
        TICK * self.ticks.load(Ordering::Relaxed)
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
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
    fn a_stopwatch_never_runs_ahead_of_the_clock() {
        let (began, watch) = (Instant::now(), Stopwatch::start());
        wait_for("a few ticks", || watch.elapsed() >= 5 * TICK, || format!("{:?}", watch.elapsed()));
        assert!(watch.elapsed() <= began.elapsed());
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
