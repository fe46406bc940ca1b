//! Which packets to ask for again (RFC 4585 section 6.2.1): sequence numbers in, sequence numbers to request out.
//!
//! A gap is asked for [`REORDER_GRACE`] after it showed, so that mere reordering asks for nothing; again each round
//! trip; given up after [`MAX_AGE`], when the picture could not wait for it any more. Bound: [`MAX_MISSING`] numbers,
//! the oldest make room.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use guest_relay_muxer::seq::SeqNo;

/// Missing packets of one stream that are remembered.
pub const MAX_MISSING: usize = 1000;
/// How long a packet may be late before it is asked for.
pub const REORDER_GRACE: Duration = Duration::from_millis(5);
/// How long a packet is asked for.
pub const MAX_AGE: Duration = Duration::from_millis(500);
/// Requests for one packet.
pub const MAX_REQUESTS: u8 = 10;
/// Shortest time between two requests for one packet, however short the round trip.
const MIN_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy)]
struct Missing {
    sequence: SeqNo,
    since: Instant,
    next_request: Instant,
    requested_at: Option<Instant>,
    requests: u8,
}

/// The missing packets of one stream, in order.
#[derive(Debug, Default)]
pub(super) struct NackList {
    missing: VecDeque<Missing>,
    /// Packets that came after they had been asked for.
    pub(super) recovered: u64,
    /// Packets that were given up.
    pub(super) given_up: u64,
}

impl NackList {
    /// Everything between `previous` and `sequence`, the new highest, is missing.
    pub(super) fn record_gap(&mut self, previous: SeqNo, sequence: SeqNo, now: Instant) {
        let gap = (sequence.0 - previous.0).saturating_sub(1);
        let kept = gap.min(MAX_MISSING as u64);
        self.given_up += gap - kept;
        for number in sequence.0 - kept..sequence.0 {
            if self.missing.len() >= MAX_MISSING {
                self.missing.pop_front();
                self.given_up += 1;
            }
            self.missing.push_back(Missing {
                sequence: SeqNo(number),
                since: now,
                next_request: now + REORDER_GRACE,
                requested_at: None,
                requests: 0,
            });
        }
    }

    /// A packet that is not the highest came. Returns the round trip time if exactly one request led to it.
    pub(super) fn record_arrival(&mut self, sequence: SeqNo, now: Instant) -> Option<Duration> {
        let index = self.missing.binary_search_by_key(&sequence, |missing| missing.sequence).ok()?;
        let missing = self.missing.remove(index)?;
        let requested_at = missing.requested_at?;
        self.recovered += 1;
        (missing.requests == 1).then(|| now.saturating_duration_since(requested_at))
    }

    /// Forgets everything: another run of numbers began.
    pub(super) fn clear(&mut self) {
        self.missing.clear();
    }

    /// When [`NackList::poll_requests`] will have something to ask for or to give up.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.missing.iter().map(|missing| missing.next_request.min(missing.since + MAX_AGE)).min()
    }

    /// Appends the sequence numbers that are due, ascending, `room` at most.
    pub(super) fn poll_requests(&mut self, round_trip: Duration, now: Instant, room: usize, requests: &mut Vec<u16>) {
        let before = self.missing.len();
        self.missing.retain(|missing| now < missing.since + MAX_AGE && missing.requests < MAX_REQUESTS);
        self.given_up += (before - self.missing.len()) as u64;
        let due = self.missing.iter_mut().filter(|missing| missing.next_request <= now);
        for missing in due.take(room) {
            missing.requests += 1;
            missing.requested_at = Some(now);
            missing.next_request = now + round_trip.max(MIN_INTERVAL);
            let [.., high, low] = missing.sequence.0.to_be_bytes();
            requests.push(u16::from_be_bytes([high, low]));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const RTT: Duration = Duration::from_millis(50);

    fn due(list: &mut NackList, now: Instant) -> Vec<u16> {
        let mut requests = Vec::new();
        list.poll_requests(RTT, now, usize::MAX, &mut requests);
        requests
    }

    #[test]
    fn a_gap_is_asked_for_after_the_grace_and_again_each_round_trip() {
        let start = Instant::now();
        let mut list = NackList::default();
        list.record_gap(SeqNo(65_536 + 65_534), SeqNo(2 * 65_536 + 2), start);
        assert_eq!(due(&mut list, start), [0_u16; 0]);
        assert_eq!(list.poll_timeout(), Some(start + REORDER_GRACE));
        let mut now = start + REORDER_GRACE;
        for _ in 0..3 {
            assert_eq!(due(&mut list, now), [65_535, 0, 1]);
            assert_eq!(due(&mut list, now + RTT / 2), [0_u16; 0]);
            assert_eq!(list.poll_timeout(), Some(now + RTT));
            now += RTT;
        }
    }

    #[test]
    fn a_reordered_packet_is_never_asked_for() {
        let start = Instant::now();
        let mut list = NackList::default();
        list.record_gap(SeqNo(100), SeqNo(102), start);
        assert_eq!(list.record_arrival(SeqNo(101), start), None);
        assert_eq!(list.poll_timeout(), None);
        assert_eq!(list.recovered, 0);
    }

    #[test]
    fn only_a_single_request_tells_the_round_trip_time() {
        let start = Instant::now();
        let mut list = NackList::default();
        list.record_gap(SeqNo(100), SeqNo(103), start);
        let asked = start + REORDER_GRACE;
        due(&mut list, asked);
        assert_eq!(list.record_arrival(SeqNo(101), asked + RTT / 2), Some(RTT / 2));
        due(&mut list, asked + RTT);
        assert_eq!(list.record_arrival(SeqNo(102), asked + RTT + RTT / 2), None);
        assert_eq!(list.record_arrival(SeqNo(102), asked + RTT * 2), None);
        assert_eq!(list.recovered, 2);
    }

    #[test]
    fn a_packet_is_given_up_by_age_and_by_number_of_requests() {
        let start = Instant::now();
        let mut list = NackList::default();
        list.record_gap(SeqNo(100), SeqNo(102), start);
        let mut now = start;
        let mut asked = 0;
        while let Some(timeout) = list.poll_timeout() {
            now = timeout;
            asked += due(&mut list, now).len();
        }
        assert_eq!(now, start + MAX_AGE);
        assert_eq!(asked, 10);
        assert_eq!(list.given_up, 1);
    }

    #[test]
    fn the_list_is_bounded_and_keeps_the_newest() {
        let now = Instant::now();
        let mut list = NackList::default();
        list.record_gap(SeqNo(70_000), SeqNo(72_900), now);
        list.record_gap(SeqNo(72_900), SeqNo(72_902), now);
        assert_eq!(list.missing.len(), MAX_MISSING);
        assert_eq!(list.missing.back().unwrap().sequence, SeqNo(72_901));
        assert_eq!(list.given_up, 2899 + 1 - 1000);
        let mut requests = Vec::new();
        list.poll_requests(RTT, now + REORDER_GRACE, 10, &mut requests);
        assert_eq!(requests.len(), 10);
    }
}
