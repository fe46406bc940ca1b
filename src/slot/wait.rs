//! How long a missing packet is worth waiting for: as long as it can still arrive.
//!
//! A packet that was overtaken comes within the jitter. One that was lost comes by retransmission, where that is
//! negotiated: it is asked for at once and again and again, so what does not come within [`ROUND_TRIPS`] of them
//! will not come. Audio and video each have their own wait. Bounds: [`FLOOR`], and the configured limit.

use std::time::Duration;

use crate::rtc::peer::Delivery;
use crate::rtc::round_trip::INITIAL_ROUND_TRIP;

/// Below this, waking up late would count as loss.
const FLOOR: Duration = Duration::from_millis(20);
/// Round trips that are waited for. At 10 % loss both ways one request in each leaves one packet in a million missing, and
/// the other ones make up for requests that are lost in a run.
const ROUND_TRIPS: u32 = 7;
/// From the gap to the first request.
const REQUEST_AFTER: Duration = Duration::from_millis(5);
/// RFC 3550's jitter is a mean deviation; hardly a packet is later than four of them (RFC 6298 counts on the same).
const DEVIATIONS: u32 = 4;

/// From the first packet behind a gap until the gap is given up.
pub(super) fn max_wait(delivery: &Delivery, limit: Duration) -> Duration {
    let overtaken = delivery.jitter.saturating_mul(DEVIATIONS);
    let repeated = if delivery.retransmits {
        let round_trip = delivery.round_trip.unwrap_or(INITIAL_ROUND_TRIP);
        round_trip.saturating_mul(ROUND_TRIPS).saturating_add(REQUEST_AFTER)
    } else {
        Duration::ZERO
    };
    overtaken.saturating_add(repeated).max(FLOOR).min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_follows_round_trip_and_jitter_between_the_floor_and_the_limit() {
        let ms = Duration::from_millis;
        let wait = |round_trip: Option<u64>, jitter, retransmits| {
            let delivery = Delivery { round_trip: round_trip.map(ms), jitter: ms(jitter), retransmits };
            max_wait(&delivery, ms(400))
        };
        for (name, measured, expected) in [
            ("nothing known", wait(None, 0, false), 20),
            ("no retransmission: the round trip means nothing", wait(Some(300), 3, false), 20),
            ("no retransmission: jitter alone", wait(None, 15, false), 60),
            ("no retransmission: wild jitter", wait(None, 150, false), 400),
            ("retransmission, not measured yet", wait(None, 0, true), 400),
            ("retransmission in a LAN", wait(Some(2), 1, true), 23),
            ("retransmission over 30 ms with 10 ms of jitter", wait(Some(30), 10, true), 255),
            ("retransmission round the world", wait(Some(300), 10, true), 400),
        ] {
            assert_eq!(measured, ms(expected), "{name}");
        }
        let none = Delivery::default();
        assert_eq!(max_wait(&none, ms(5)), ms(5), "a limit below the floor is the user's word");
        let absurd = Delivery { round_trip: Some(Duration::MAX), jitter: Duration::MAX, retransmits: true };
        assert_eq!(max_wait(&absurd, ms(400)), ms(400));
    }
}
