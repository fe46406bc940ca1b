//! Puts packets back into sequence, bounded in time, packets and bytes.
//!
//! A packet that is next in sequence passes straight through and is never copied. Packets behind a gap are held
//! until the gap is filled, until `max_wait` after the first of them arrived, or until there are too many of them;
//! then the gap counts as lost. Nothing waits when nothing is missing, so the added delay falls back to zero as
//! soon as a burst is over.

use std::collections::VecDeque;
use std::time::Duration;

use crate::seq::SeqNo;
use crate::time::MediaTime;

/// How long and how much to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReorderLimits {
    /// From the arrival of the first packet behind a gap until the gap is given up.
    pub max_wait: Duration,
    /// Packets held.
    pub max_packets: usize,
    /// Payload bytes held.
    pub max_bytes: usize,
}

impl ReorderLimits {
    /// Wait up to 400 ms: several round trips' worth of retransmissions, and what a live mixer forgives.
    /// 512 packets are that much of a 15 Mbit/s stream.
    pub const DEFAULT: ReorderLimits =
        ReorderLimits { max_wait: Duration::from_millis(400), max_packets: 512, max_bytes: 1 << 20 };
}

impl Default for ReorderLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What of an RTP packet matters behind the reorder buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaPacket<'a> {
    /// M.
    pub marker: bool,
    /// Wraps at 2^32.
    pub rtp_time: u32,
    /// When it came.
    pub arrival: MediaTime,
    /// Empty in a padding-only packet, which holds its place in the sequence and nothing else.
    pub payload: &'a [u8],
}

/// A packet that had to wait.
#[derive(Debug)]
pub(crate) struct Held {
    seq: SeqNo,
    marker: bool,
    rtp_time: u32,
    arrival: MediaTime,
    payload: Vec<u8>,
}

impl Held {
    pub(crate) fn packet(&self) -> MediaPacket<'_> {
        MediaPacket { marker: self.marker, rtp_time: self.rtp_time, arrival: self.arrival, payload: &self.payload }
    }
}

/// What became of a pushed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It is next in sequence: the caller handles it now, then drains [`Reorder::pop`].
    InOrder,
    /// It waits behind a gap, or filled part of one.
    Held,
    /// It comes after its place was given up.
    Late,
    /// It was here before.
    Duplicate,
}

/// Payload buffers kept for reuse, and the largest worth keeping.
const MAX_SPARE: usize = 32;
const MAX_SPARE_BYTES: usize = 2048;

/// The buffer of one track.
#[derive(Debug)]
pub(crate) struct Reorder {
    limits: ReorderLimits,
    /// The number that passes straight through.
    next: SeqNo,
    /// Ascending, each above `next` (or equal to it while being drained).
    held: VecDeque<Held>,
    held_bytes: usize,
    /// Arrival of the first packet behind the gap at `next`.
    gap_since: Option<MediaTime>,
    /// Bit n: `next - 1 - n` was handed on.
    handed_on: u128,
    spare: Vec<Vec<u8>>,
}

impl Reorder {
    pub(crate) fn new(limits: ReorderLimits) -> Self {
        Self {
            limits,
            next: SeqNo(0),
            held: VecDeque::new(),
            held_bytes: 0,
            gap_since: None,
            handed_on: 0,
            spare: Vec::new(),
        }
    }

    /// Forgets everything and waits for nothing before `next`. Returns how many held packets that drops.
    pub(crate) fn restart(&mut self, next: SeqNo) -> usize {
        let dropped = self.held.len();
        while let Some(held) = self.held.pop_front() {
            self.recycle(held);
        }
        self.next = next;
        self.held_bytes = 0;
        self.gap_since = None;
        self.handed_on = 0;
        dropped
    }

    pub(crate) fn set_max_wait(&mut self, max_wait: Duration) {
        self.limits.max_wait = max_wait;
    }

    /// Takes one packet in; a packet that has to wait is copied.
    pub(crate) fn push(&mut self, seq: SeqNo, packet: &MediaPacket<'_>) -> Pushed {
        if seq < self.next {
            return if self.was_handed_on(seq) { Pushed::Duplicate } else { Pushed::Late };
        }
        if seq == self.next && self.held.front().is_none_or(|front| front.seq > seq) {
            self.advance_past(seq);
            self.gap_since = self.gap_start();
            return Pushed::InOrder;
        }
        let place = self.held.iter().rposition(|held| held.seq <= seq);
        if place.and_then(|place| self.held.get(place)).is_some_and(|held| held.seq == seq) {
            return Pushed::Duplicate;
        }
        let held = self.hold(seq, packet);
        self.held_bytes += held.payload.len();
        self.held.insert(place.map_or(0, |place| place + 1), held);
        self.gap_since = self.gap_since.or(Some(packet.arrival));
        Pushed::Held
    }

    /// Queues a packet behind all others, after a [`restart`](Self::restart).
    pub(crate) fn requeue(&mut self, held: Held) {
        self.held_bytes += held.payload.len();
        self.held.push_back(held);
    }

    /// The next packet that need not wait any more at `now`, and how many before it are lost.
    pub(crate) fn pop(&mut self, now: MediaTime) -> Option<(u64, Held)> {
        let front = self.held.front()?;
        let lost = front.seq.0 - self.next.0;
        if lost > 0 && !self.is_over(now) {
            return None;
        }
        let held = self.held.pop_front()?;
        self.held_bytes -= held.payload.len();
        self.handed_on = shift(self.handed_on, lost);
        self.advance_past(held.seq);
        self.gap_since = self.gap_start();
        Some((lost, held))
    }

    /// When the gap in front is given up.
    pub(crate) fn deadline(&self) -> Option<MediaTime> {
        self.gap_since.map(|since| since + self.limits.max_wait)
    }

    /// Packets and bytes that wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.held.len(), self.held_bytes)
    }

    /// A copy that can wait; made of a spare buffer when there is one.
    pub(crate) fn hold(&mut self, seq: SeqNo, packet: &MediaPacket<'_>) -> Held {
        let mut payload = self.spare.pop().unwrap_or_default();
        payload.extend_from_slice(packet.payload);
        Held { seq, marker: packet.marker, rtp_time: packet.rtp_time, arrival: packet.arrival, payload }
    }

    /// Takes back the buffer of a handled packet.
    pub(crate) fn recycle(&mut self, held: Held) {
        let mut payload = held.payload;
        if self.spare.len() < MAX_SPARE && payload.capacity() <= MAX_SPARE_BYTES {
            payload.clear();
            self.spare.push(payload);
        }
    }

    fn is_over(&self, now: MediaTime) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
            || self.held.len() > self.limits.max_packets
            || self.held_bytes > self.limits.max_bytes
    }

    /// Every held packet lies behind the gap, so the one that came first started the wait.
    fn gap_start(&self) -> Option<MediaTime> {
        let front = self.held.front()?;
        if front.seq == self.next {
            return None;
        }
        self.held.iter().map(|held| held.arrival).min()
    }

    fn advance_past(&mut self, seq: SeqNo) {
        self.handed_on = self.handed_on << 1 | 1;
        self.next = seq.next();
    }

    fn was_handed_on(&self, seq: SeqNo) -> bool {
        let age = self.next.0 - 1 - seq.0;
        u32::try_from(age).ok().and_then(|age| self.handed_on.checked_shr(age)).is_some_and(|bits| bits & 1 == 1)
    }
}

fn shift(bits: u128, by: u64) -> u128 {
    u32::try_from(by).ok().and_then(|by| bits.checked_shl(by)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(100);

    struct Rig {
        reorder: Reorder,
        out: Vec<String>,
    }

    impl Rig {
        fn new(max_packets: usize, max_bytes: usize) -> Self {
            let mut reorder = Reorder::new(ReorderLimits { max_wait: WAIT, max_packets, max_bytes });
            reorder.restart(SeqNo(10));
            Self { reorder, out: Vec::new() }
        }

        fn push(&mut self, seq: u64, at_ms: i64) -> Pushed {
            let arrival = MediaTime::from_millis(at_ms);
            let payload = [0; 100];
            let packet = MediaPacket { marker: false, rtp_time: 0, arrival, payload: &payload };
            let pushed = self.reorder.push(SeqNo(seq), &packet);
            if pushed == Pushed::InOrder {
                self.out.push(seq.to_string());
            }
            self.drain(at_ms);
            pushed
        }

        fn drain(&mut self, at_ms: i64) {
            while let Some((lost, held)) = self.reorder.pop(MediaTime::from_millis(at_ms)) {
                self.out.push(if lost > 0 { format!("{}(-{lost})", held.seq.0) } else { held.seq.0.to_string() });
                self.reorder.recycle(held);
            }
        }

        fn out(&mut self) -> String {
            std::mem::take(&mut self.out).join(" ")
        }
    }

    #[test]
    fn packets_in_order_pass_without_being_held() {
        let mut rig = Rig::new(8, 10_000);
        for seq in 10..20 {
            assert_eq!(rig.push(seq, 0), Pushed::InOrder);
            assert_eq!(rig.reorder.deadline(), None);
        }
        assert_eq!(rig.out(), "10 11 12 13 14 15 16 17 18 19");
    }

    #[test]
    fn a_filled_gap_releases_what_waited_behind_it() {
        let mut rig = Rig::new(8, 10_000);
        rig.push(10, 0);
        assert_eq!(rig.push(13, 1), Pushed::Held);
        assert_eq!(rig.push(12, 2), Pushed::Held);
        assert_eq!(rig.push(11, 3), Pushed::InOrder);
        assert_eq!(rig.out(), "10 11 12 13");
        assert_eq!(rig.reorder.deadline(), None);
        assert_eq!(rig.reorder.waiting(), (0, 0));
    }

    #[test]
    fn a_gap_is_given_up_max_wait_after_the_first_packet_behind_it() {
        let mut rig = Rig::new(8, 10_000);
        rig.push(10, 0);
        rig.push(13, 20);
        rig.push(12, 50);
        assert_eq!(rig.reorder.deadline(), Some(MediaTime::from_millis(120)));
        rig.drain(119);
        assert_eq!(rig.out(), "10");
        rig.drain(120);
        assert_eq!(rig.out(), "12(-1) 13");
    }

    #[test]
    fn a_second_gap_has_its_own_wait() {
        let mut rig = Rig::new(8, 10_000);
        rig.push(10, 0);
        rig.push(12, 20);
        rig.push(14, 60);
        rig.drain(120);
        assert_eq!(rig.out(), "10 12(-1)");
        assert_eq!(rig.reorder.deadline(), Some(MediaTime::from_millis(160)));
        rig.push(11, 121);
        assert_eq!(rig.push(13, 130), Pushed::InOrder);
        assert_eq!(rig.out(), "13 14");
        assert_eq!(rig.reorder.deadline(), None);
    }

    #[test]
    fn a_second_gap_is_waited_for_since_the_first_packet_behind_it_and_not_since_the_lowest() {
        let mut rig = Rig::new(8, 10_000);
        for (seq, at_ms) in [(10, 0), (15, 20), (12, 30), (14, 50), (11, 60)] {
            rig.push(seq, at_ms);
        }
        assert_eq!(rig.out(), "10 11 12");
        assert_eq!(rig.reorder.deadline(), Some(MediaTime::from_millis(120)));
    }

    #[test]
    fn late_packets_are_told_from_duplicates() {
        let mut rig = Rig::new(8, 10_000);
        rig.push(10, 0);
        rig.push(12, 0);
        assert_eq!(rig.push(12, 1), Pushed::Duplicate);
        rig.drain(100);
        assert_eq!(rig.push(11, 101), Pushed::Late);
        assert_eq!(rig.push(12, 101), Pushed::Duplicate);
        assert_eq!(rig.push(10, 101), Pushed::Duplicate);
        assert_eq!(rig.push(9, 101), Pushed::Late);
    }

    #[test]
    fn one_packet_too_many_gives_the_gap_up() {
        let mut rig = Rig::new(3, 10_000);
        for seq in [10, 12, 13, 14] {
            rig.push(seq, 0);
        }
        assert_eq!(rig.out(), "10");
        rig.push(15, 0);
        assert_eq!(rig.out(), "12(-1) 13 14 15");
    }

    #[test]
    fn one_byte_too_many_gives_the_gap_up() {
        let mut rig = Rig::new(8, 250);
        for seq in [10, 12, 14] {
            rig.push(seq, 0);
        }
        assert_eq!(rig.out(), "10");
        rig.push(16, 0);
        assert_eq!(rig.out(), "12(-1)");
        assert_eq!(rig.reorder.waiting(), (2, 200));
    }

    #[test]
    fn the_memory_of_what_was_handed_on_outlives_a_gap() {
        let mut rig = Rig::new(8, 10_000);
        rig.push(10, 0);
        rig.push(112, 0);
        rig.drain(100);
        assert_eq!(rig.out(), "10 112(-101)");
        assert_eq!(rig.push(10, 101), Pushed::Duplicate);
        assert_eq!(rig.push(111, 101), Pushed::Late);
    }

    #[test]
    fn a_restart_drops_what_waited() {
        let mut rig = Rig::new(8, 10_000);
        rig.push(10, 0);
        rig.push(12, 0);
        assert_eq!(rig.reorder.restart(SeqNo(500)), 1);
        assert_eq!(rig.reorder.deadline(), None);
        assert_eq!(rig.push(500, 1), Pushed::InOrder);
    }

    #[test]
    fn spare_buffers_are_bounded() {
        let mut rig = Rig::new(512, 1 << 20);
        rig.push(10, 0);
        for seq in 12..200 {
            rig.push(seq, 0);
        }
        rig.push(11, 0);
        assert_eq!(rig.reorder.waiting(), (0, 0));
        assert_eq!(rig.reorder.spare.len(), MAX_SPARE);
    }
}
