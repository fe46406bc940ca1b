//! When the media thread wakes up: so seldom that more guests do not mean more wake-ups, so soon that no guest notices.
//!
//! Deadlines are met on one grid of [`GRID`] for all guests, or earlier by a packet that comes after them. Datagrams are taken
//! as they come while few do, as from one or two guests: a sleep would mostly be one more wake-up then. Where they come all
//! the time, the thread sleeps until [`PACE`] has passed since it last took some, so that one wake-up takes the datagrams of
//! all guests. The kernel tells when each of them came, so no estimate is blurred.
//!
//! Input: when datagrams were taken, or a socket failed; deadlines. Output: how long to sleep, when to wake. netsim plays it.

use std::time::{Duration, Instant};

/// Deadlines are met at multiples of this after the start. While no packet is lost hardly any deadline comes before the next
/// packet does, so a coarser grid saves nothing; repeated requests for lost packets do mind: with 5 ms netsim's rows of heavy loss
/// freeze half as often again.
pub const GRID: Duration = Duration::from_millis(1);
/// Between two looks under load; what packets wait for at most on its account.
const PACE: Duration = Duration::from_millis(2);
/// Datagrams that are taken more often than this, on average, mean load.
const BUSY_GAP: Duration = Duration::from_millis(4);
/// A pause counts as this at most: load that returns is seen within some fifteen looks.
const LONGEST_GAP: Duration = Duration::from_millis(16);
/// The average is over about so many.
const SMOOTHING: u32 = 8;
/// After a socket failed for want of something, typically the kernel's memory: trying again at once would only take CPU time.
const RETRY: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Clone, Debug)]
pub struct Pace {
    /// The grid counts from here.
    start: Instant,
    received: Option<Instant>,
    /// The time between two looks that found datagrams, smoothed.
    gap: Duration,
    failed: Option<Instant>,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self { start: now, received: None, gap: LONGEST_GAP, failed: None }
    }

    /// Datagrams are taken.
    pub fn record_received(&mut self, now: Instant) {
        self.failed = None;
        if let Some(before) = self.received.replace(now) {
            let gap = now.saturating_duration_since(before).min(LONGEST_GAP);
            self.gap = (self.gap * (SMOOTHING - 1) + gap) / SMOOTHING;
        }
    }

    /// A socket could not be read just now.
    pub fn record_failed(&mut self, now: Instant) {
        self.failed = Some(now);
    }

    /// How long nothing should be looked for.
    pub fn rest(&self, now: Instant) -> Option<Duration> {
        let paced = self.received.filter(|_| self.gap < BUSY_GAP).map(|at| at + PACE);
        let until = paced.max(self.failed.map(|at| at + RETRY))?;
        until.checked_duration_since(now).filter(|rest| !rest.is_zero())
    }

    /// The first point of the grid that is not before `deadline`.
    pub fn wake_at(&self, deadline: Instant) -> Instant {
        let points = deadline.saturating_duration_since(self.start).as_nanos().div_ceil(GRID.as_nanos());
        self.start + GRID * u32::try_from(points).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the looks at datagrams that come each `gap` lead to after `looks` of them.
    fn rest_after(pace: &mut Pace, now: &mut Instant, gap: Duration, looks: u32) -> Option<Duration> {
        for _ in 0..looks {
            *now += gap;
            pace.record_received(*now);
        }
        pace.rest(*now)
    }

    #[test]
    fn only_under_load_is_there_a_rest() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
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

    #[test]
    fn a_socket_that_failed_is_left_alone_for_a_moment() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.record_failed(now);
        assert_eq!(pace.rest(now), Some(RETRY));
        assert_eq!(pace.rest(now + RETRY), None);
        pace.record_received(now + RETRY);
        assert_eq!(pace.rest(now + RETRY), None, "it has recovered");
    }

    #[test]
    fn deadlines_are_met_at_the_next_point_of_the_grid() {
        let start = Instant::now();
        let pace = Pace::new(start);
        let wake_after = |micros| pace.wake_at(start + Duration::from_micros(micros)) - start;
        assert_eq!([0, 1, 1_000, 1_001].map(wake_after), [Duration::ZERO, GRID, GRID, 2 * GRID]);
    }
}
