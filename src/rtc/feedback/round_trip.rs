//! The path's round trip time: samples in, a smoothed time and how long to wait for an answer out (RFC 6298 section 2).
//!
//! Samples come from retransmissions (NACK to packet), from the sender's answers to our reference times (RFC 3611
//! section 4.5) and, where we check the peer, from ICE.

use std::time::Duration;

/// The round trip time before it was measured.
pub const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(100);
/// No answer is expected sooner, however short the path: senders collect requests.
const MIN_TIMEOUT: Duration = Duration::from_millis(20);
/// A longer sample is a clock's fault or a lie, not a path on which guests talk.
const MAX_SAMPLE: Duration = Duration::from_secs(5);

/// The estimate of one session.
#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    /// Smoothed time and mean deviation.
    measured: Option<(Duration, Duration)>,
}

impl RoundTrip {
    pub(super) fn record(&mut self, sample: Duration) {
        if sample > MAX_SAMPLE {
            return;
        }
        self.measured = Some(match self.measured {
            None => (sample, sample / 2),
            Some((smoothed, deviation)) => {
                ((smoothed * 7 + sample) / 8, (deviation * 3 + smoothed.abs_diff(sample)) / 4)
            }
        });
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.measured.map(|(smoothed, _)| smoothed)
    }

    /// The soonest that an answer can be there.
    pub(super) fn expected(&self) -> Duration {
        self.smoothed().unwrap_or(INITIAL_ROUND_TRIP)
    }

    /// An answer that is not there after so long will not come: a media path forgives no four deviations, as RFC 6298
    /// takes them, and a packet too many costs less than a picture.
    pub(super) fn timeout(&self) -> Duration {
        let timeout = match self.measured {
            None => INITIAL_ROUND_TRIP,
            Some((smoothed, deviation)) => smoothed + deviation * 2,
        };
        timeout.max(MIN_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn samples_are_smoothed_with_the_weights_of_rfc_6298() {
        let mut round_trip = RoundTrip::default();
        assert_eq!((round_trip.smoothed(), round_trip.timeout()), (None, ms(100)));
        round_trip.record(ms(80));
        // RTTVAR = R / 2.
        assert_eq!((round_trip.smoothed(), round_trip.timeout()), (Some(ms(80)), ms(160)));
        round_trip.record(ms(160));
        // SRTT = 7/8 * 80 + 1/8 * 160, RTTVAR = 3/4 * 40 + 1/4 * |80 - 160|.
        assert_eq!((round_trip.smoothed(), round_trip.timeout()), (Some(ms(90)), ms(190)));
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
        assert_eq!(round_trip.timeout(), ms(20));
    }

    #[test]
    fn an_impossible_sample_changes_nothing() {
        let mut round_trip = RoundTrip::default();
        round_trip.record(Duration::from_secs(60_000));
        assert_eq!(round_trip.smoothed(), None);
    }
}
