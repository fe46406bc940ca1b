//! The path's round trip time: samples in, a time smoothed as RFC 6298 section 2 does, and how long to wait for an answer, out.
//!
//! Samples come from retransmissions (NACK to packet), from the sender's answers to our reference times (RFC 3611
//! section 4.5) and, where we check the peer, from ICE.

use std::time::Duration;

/// The round trip time before it was measured.
pub const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(100);
/// No answer is expected sooner, however short the path: senders collect requests.
const MIN_TIMEOUT: Duration = Duration::from_millis(10);
/// A longer sample is a clock's fault or a lie, not a path on which guests talk.
const MAX_SAMPLE: Duration = Duration::from_secs(5);

/// The estimate of one session.
#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    smoothed: Option<Duration>,
}

impl RoundTrip {
    pub(super) fn record(&mut self, sample: Duration) {
        if sample > MAX_SAMPLE {
            return;
        }
        self.smoothed = Some(self.smoothed.map_or(sample, |smoothed| (smoothed * 7 + sample) / 8));
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The soonest that an answer can be there.
    pub(super) fn expected(&self) -> Duration {
        self.smoothed.unwrap_or(INITIAL_ROUND_TRIP)
    }

    /// An answer that is not there after so long is asked for again. A media path forgives no four deviations, as RFC 6298
    /// takes them: each of them costs requests within the time that a packet is waited for, and a packet too many costs
    /// less than a picture. Senders answer no request that comes sooner than their own round trip after the last.
    pub(super) fn timeout(&self) -> Duration {
        self.expected().max(MIN_TIMEOUT)
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
        assert_eq!((round_trip.smoothed(), round_trip.timeout()), (None, ms(100)));
        round_trip.record(ms(80));
        assert_eq!((round_trip.smoothed(), round_trip.timeout()), (Some(ms(80)), ms(80)));
        round_trip.record(ms(160));
        // SRTT = 7/8 * 80 + 1/8 * 160.
        assert_eq!((round_trip.smoothed(), round_trip.timeout()), (Some(ms(90)), ms(90)));
    }

    #[test]
    fn a_steady_path_is_waited_for_no_longer_than_it_takes_and_never_less_than_the_floor() {
        let mut round_trip = RoundTrip::default();
        for _ in 0..100 {
            round_trip.record(ms(50));
        }
        assert_eq!(round_trip.timeout(), ms(50));
        for _ in 0..100 {
            round_trip.record(ms(1));
        }
        assert_eq!(round_trip.timeout(), ms(10));
    }

    #[test]
    fn an_impossible_sample_changes_nothing() {
        let mut round_trip = RoundTrip::default();
        round_trip.record(Duration::from_secs(60_000));
        assert_eq!(round_trip.smoothed(), None);
    }
}
