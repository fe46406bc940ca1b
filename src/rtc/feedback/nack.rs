//! Which packets to ask for again (RFC 4585 §6.2.1): sequence numbers in, sequence numbers to request out.
//!
//! ```text
//!  a missing packet   noticed ──5 ms──▶ asked for ──a round trip──▶ again ──half a round trip──▶ again ...
//!                        │                  │                          │
//!                        └──────────────────┴──────────────────────────┴──▶ came, or given up after max_wait
//! ```
//!
//! A gap is asked for [`REORDER_GRACE`] after it showed, so that mere reordering asks for nothing; again when
//! the answer is overdue, then twice a round trip ([`RoundTrip::interval`]), as long as the answer can still come in
//! time; given up when whoever puts the packets in order does not wait for it any more ([`NackList::set_max_wait`]).
//! Bound: [`MAX_MISSING`] numbers, the oldest make room.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use guest_relay_muxer::seq::SeqNo;

use super::round_trip::RoundTrip;

/// Missing packets of one stream that are remembered.
pub const MAX_MISSING: usize = 1000;
/// How long a packet may be late before it is asked for.
pub const REORDER_GRACE: Duration = Duration::from_millis(5);
/// How long a packet is waited for until [`NackList::set_max_wait`] says otherwise.
pub const DEFAULT_MAX_WAIT: Duration = Duration::from_millis(400);
/// A request that is later than this against its time has the next ones follow later as well.
const LATE_MAX: Duration = Duration::from_millis(5);
/// Requests for one packet.
pub const MAX_REQUESTS: u8 = 16;

#[derive(Debug, Clone, Copy)]
struct Missing {
    sequence: SeqNo,
    since: Instant,
    next_request: Instant,
    requested_at: Option<Instant>,
    requests: u8,
}

/// The missing packets of one stream, in order.
#[derive(Debug)]
pub(super) struct NackList {
    missing: VecDeque<Missing>,
    max_wait: Duration,
    /// Packets that came after they had been asked for.
    pub(super) recovered: u64,
    /// Packets that were given up.
    pub(super) given_up: u64,
}

impl Default for NackList {
    fn default() -> Self {
        Self { missing: VecDeque::new(), max_wait: DEFAULT_MAX_WAIT, recovered: 0, given_up: 0 }
    }
}

impl NackList {
    /// How long a packet is worth waiting for, from when the gap shows.
    pub(super) fn set_max_wait(&mut self, max_wait: Duration) {
        self.max_wait = max_wait;
    }

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

    /// The packet came by another way than a request.
    pub(super) fn forget(&mut self, sequence: SeqNo) {
        if let Ok(index) = self.missing.binary_search_by_key(&sequence, |missing| missing.sequence) {
            self.missing.remove(index);
        }
    }

    /// Forgets everything: another run of numbers began.
    pub(super) fn clear(&mut self) {
        self.missing.clear();
    }

    /// When [`NackList::poll_requests`] will have something to ask for or to give up.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.missing.iter().map(|missing| missing.next_request.min(missing.since + self.max_wait)).min()
    }

    /// Appends the sequence numbers that are due, ascending, `room` at most.
    pub(super) fn poll_requests(&mut self, round_trip: &RoundTrip, now: Instant, room: usize, requests: &mut Vec<u16>) {
        let max_wait = self.max_wait;
        let before = self.missing.len();
        self.missing.retain(|missing| now < missing.since + max_wait && missing.requests < MAX_REQUESTS);
        self.given_up += (before - self.missing.len()) as u64;
        let due = self.missing.iter_mut().filter(|missing| missing.next_request <= now);
        for missing in due.take(room) {
            let given_up_at = missing.since + max_wait;
            // The round trip is an estimate: the first request always goes out.
            if missing.requests > 0 && now + round_trip.expected() > given_up_at {
                missing.next_request = given_up_at;
                continue;
            }
            let first = missing.requests == 0;
            missing.requests += 1;
            missing.requested_at = Some(now);
            // From when it was due: what each wake-up is late would add up to one request fewer.
            let from = missing.next_request.max(now.checked_sub(LATE_MAX).unwrap_or(now));
            missing.next_request = from + if first { round_trip.first_interval() } else { round_trip.interval() };
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

    /// A path that never took another time.
    fn steady() -> RoundTrip {
        let mut round_trip = RoundTrip::default();
        (0..100).for_each(|_| round_trip.record(RTT));
        round_trip
    }

    fn due(list: &mut NackList, now: Instant) -> Vec<u16> {
        let mut requests = Vec::new();
        list.poll_requests(&steady(), now, usize::MAX, &mut requests);
        requests
    }

    #[test]
    fn a_gap_is_asked_for_after_the_grace_again_after_a_round_trip_and_then_twice_in_each() {
        let start = Instant::now();
        let mut list = NackList::default();
        list.record_gap(SeqNo(65_536 + 65_534), SeqNo(2 * 65_536 + 2), start);
        assert_eq!(due(&mut list, start), [0_u16; 0]);
        assert_eq!(list.poll_timeout(), Some(start + REORDER_GRACE));
        let mut now = start + REORDER_GRACE;
        for interval in [RTT, RTT / 2, RTT / 2] {
            assert_eq!(due(&mut list, now), [65_535, 0, 1]);
            assert_eq!(due(&mut list, now + interval / 2), [0_u16; 0]);
            assert_eq!(list.poll_timeout(), Some(now + interval));
            now += interval;
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
    fn a_packet_is_given_up_when_nobody_waits_for_it_and_not_asked_for_when_the_answer_would_come_too_late() {
        let start = Instant::now();
        for (max_wait_ms, last_request_ms, requests) in [(400, 330, 13), (120, 55, 2), (20, 5, 1)] {
            let mut list = NackList::default();
            let max_wait = Duration::from_millis(max_wait_ms);
            list.set_max_wait(max_wait);
            list.record_gap(SeqNo(100), SeqNo(102), start);
            let mut asked_at = Vec::new();
            let mut now = start;
            while let Some(timeout) = list.poll_timeout() {
                now = timeout;
                asked_at.extend(due(&mut list, now).iter().map(|_| now));
            }
            assert_eq!(now, start + max_wait);
            assert_eq!(asked_at.last(), Some(&(start + Duration::from_millis(last_request_ms))));
            assert_eq!((asked_at.len(), list.given_up), (requests, 1), "{max_wait_ms}");
        }
    }

    #[test]
    fn a_packet_is_asked_for_sixteen_times_at_most() {
        let start = Instant::now();
        let mut list = NackList::default();
        list.set_max_wait(Duration::from_secs(60));
        list.record_gap(SeqNo(100), SeqNo(102), start);
        let mut asked = 0;
        while let Some(timeout) = list.poll_timeout() {
            asked += due(&mut list, timeout).len();
        }
        assert_eq!((asked, list.given_up), (16, 1));
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
        list.poll_requests(&steady(), now + REORDER_GRACE, 10, &mut requests);
        assert_eq!(requests.len(), 10);
    }
}
