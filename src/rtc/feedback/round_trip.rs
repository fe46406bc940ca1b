//! When a request for a packet is repeated: samples of the path's round trip time in, intervals out.
//!
//! Samples come from retransmissions (NACK to packet), from the sender's answers to our reference times (RFC 3611
//! §4.5) and, where we check the peer, from ICE.

use std::time::Duration;

use super::super::round_trip::{INITIAL_ROUND_TRIP, Smoothed};

/// Between two requests, however short the path: senders collect them.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// A longer sample is a clock's fault or a lie, not a path on which guests talk.
const MAX_SAMPLE: Duration = Duration::from_secs(5);

/// The estimate of one session.
#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    smoothed: Smoothed,
}

impl RoundTrip {
    pub(super) fn record(&mut self, sample: Duration) {
        if sample > MAX_SAMPLE {
            return;
        }
        self.smoothed.record(sample);
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed.value()
    }

    /// The soonest that an answer can be there.
    pub(super) fn expected(&self) -> Duration {
        self.smoothed.value().unwrap_or(INITIAL_ROUND_TRIP)
    }

    /// From the first request for a packet to the second: until its answer is overdue.
    pub(super) fn first_interval(&self) -> Duration {
        self.expected().max(MIN_INTERVAL)
    }

    /// Between requests after that. What loses one loses several in a run, on the way back too, and nothing tells a lost
    /// request from a lost answer: asking twice a round trip outlasts the run, for some packets that come twice.
    pub(super) fn interval(&self) -> Duration {
        (self.expected() / 2).max(MIN_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn samples_are_smoothed_with_the_weight_of_rfc_6298() {
        let mut round_trip = RoundTrip::default();
        assert_eq!((round_trip.smoothed(), round_trip.first_interval()), (None, ms(100)));
        round_trip.record(ms(80));
        assert_eq!((round_trip.smoothed(), round_trip.first_interval()), (Some(ms(80)), ms(80)));
        round_trip.record(ms(160));
        // SRTT = 7/8 * 80 + 1/8 * 160.
        assert_eq!((round_trip.smoothed(), round_trip.first_interval()), (Some(ms(90)), ms(90)));
    }

    #[test]
    fn requests_come_after_a_round_trip_then_twice_in_each_and_never_faster_than_the_floor() {
        let mut round_trip = RoundTrip::default();
        for _ in 0..100 {
            round_trip.record(ms(50));
        }
        assert_eq!((round_trip.first_interval(), round_trip.interval()), (ms(50), ms(25)));
        for _ in 0..100 {
            round_trip.record(ms(1));
        }
        assert_eq!((round_trip.first_interval(), round_trip.interval()), (ms(10), ms(10)));
    }

    #[test]
    fn an_impossible_sample_changes_nothing() {
        let mut round_trip = RoundTrip::default();
        round_trip.record(Duration::from_secs(60_000));
        assert_eq!(round_trip.smoothed(), None);
    }
}
