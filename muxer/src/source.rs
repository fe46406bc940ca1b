//! One track's incoming packets: which SSRC is current, where each packet stands in its sequence, what waits.
//!
//! Input: RTP packets in order of arrival. Output: packets in sequence with the number lost before each, and the
//! fact that another stream began. Policy:
//!
//! - The first SSRC, and any SSRC not seen before, is taken at once (who may send was checked before decryption).
//! - A jump of the sequence number, or an SSRC that was current before, has to prove itself with two consecutive
//!   packets and none of the current stream between them (RFC 3550 appendix A.1, probation): a straggler of an
//!   earlier stream does not switch back. The first of the two is kept, nothing is lost.
//! - What still waited behind a gap of the earlier stream is dropped.

use std::time::Duration;

use crate::packet::RtpPacket;
use crate::reorder::{Held, MediaPacket, Pushed, Reorder, ReorderLimits};
use crate::seq::{SeqNo, Step, Unwrapper};
use crate::stats::PacketStats;
use crate::time::MediaTime;

/// Earlier SSRCs remembered.
const MAX_RETIRED: usize = 4;

/// What became of a packet, seen from the track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// Handle it now, then drain [`Source::pop`].
    InOrder,
    /// Drain [`Source::pop`].
    Queued,
    /// Another stream begins; forget the earlier one, then drain [`Source::pop`].
    Restarted(Restart),
    /// Nothing to do.
    Dropped,
}

/// Why a stream began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    /// Another SSRC: another encoder, another clock.
    Ssrc,
    /// The same SSRC goes on elsewhere in its sequence.
    Sequence,
}

#[derive(Debug)]
struct Current {
    ssrc: u32,
    unwrapper: Unwrapper,
}

/// The first packet of a stream on probation.
#[derive(Debug)]
struct Suspect {
    ssrc: u32,
    sequence_number: u16,
    held: Held,
}

#[derive(Debug)]
pub(crate) struct Source {
    current: Option<Current>,
    retired: [Option<u32>; MAX_RETIRED],
    suspect: Option<Suspect>,
    reorder: Reorder,
    pub(crate) stats: PacketStats,
}

impl Source {
    pub(crate) fn new(limits: ReorderLimits) -> Self {
        Self {
            current: None,
            retired: [None; MAX_RETIRED],
            suspect: None,
            reorder: Reorder::new(limits),
            stats: PacketStats::default(),
        }
    }

    /// The stream is over; whatever comes next is another one.
    pub(crate) fn forget(&mut self) {
        self.drop_suspect();
        self.current = None;
        self.retired = [None; MAX_RETIRED];
        self.discard_held(SeqNo(0));
    }

    pub(crate) fn set_max_wait(&mut self, max_wait: Duration) {
        self.reorder.set_max_wait(max_wait);
    }

    pub(crate) fn ssrc(&self) -> Option<u32> {
        self.current.as_ref().map(|current| current.ssrc)
    }

    pub(crate) fn push(&mut self, packet: &RtpPacket<'_>, arrival: MediaTime) -> Arrived {
        self.stats.packets += 1;
        self.stats.bytes += u64::try_from(packet.payload.len()).unwrap_or(u64::MAX);
        self.stats.padding_only += u64::from(packet.payload.is_empty());
        let media = MediaPacket { marker: packet.marker, rtp_time: packet.rtp_time, arrival, payload: packet.payload };
        let Some(current) = &mut self.current else {
            let seq = self.begin(packet.ssrc, packet.sequence_number);
            return self.place(seq, &media);
        };
        if packet.ssrc != current.ssrc {
            if self.retired.contains(&Some(packet.ssrc)) {
                return self.probe(packet, &media);
            }
            return self.restart(Restart::Ssrc, packet, &media);
        }
        match current.unwrapper.step(packet.sequence_number) {
            Step::Ahead(seq) => {
                self.drop_suspect();
                self.place(seq, &media)
            }
            Step::Behind(seq) => {
                self.drop_suspect();
                let arrived = self.place(seq, &media);
                self.stats.recovered += u64::from(arrived != Arrived::Dropped);
                arrived
            }
            Step::Jump => self.probe(packet, &media),
        }
    }

    /// The next packet in sequence at `now` and how many were lost before it.
    pub(crate) fn pop(&mut self, now: MediaTime) -> Option<(u64, Held)> {
        let (lost, held) = self.reorder.pop(now)?;
        self.stats.lost += lost;
        Some((lost, held))
    }

    pub(crate) fn recycle(&mut self, held: Held) {
        self.reorder.recycle(held);
    }

    pub(crate) fn deadline(&self) -> Option<MediaTime> {
        self.reorder.deadline()
    }

    #[cfg(test)]
    pub(crate) fn is_waiting(&self) -> bool {
        self.reorder.waiting().0 > 0
    }

    fn begin(&mut self, ssrc: u32, sequence_number: u16) -> SeqNo {
        let (unwrapper, seq) = Unwrapper::new(sequence_number);
        self.current = Some(Current { ssrc, unwrapper });
        self.discard_held(seq);
        seq
    }

    fn place(&mut self, seq: SeqNo, media: &MediaPacket<'_>) -> Arrived {
        match self.reorder.push(seq, media) {
            Pushed::InOrder => return Arrived::InOrder,
            Pushed::Held => return Arrived::Queued,
            Pushed::Late => self.stats.late += 1,
            Pushed::Duplicate => self.stats.duplicates += 1,
        }
        Arrived::Dropped
    }

    /// A packet that may belong to another stream: the first is kept, its successor confirms it.
    fn probe(&mut self, packet: &RtpPacket<'_>, media: &MediaPacket<'_>) -> Arrived {
        let confirmed = self.suspect.as_ref().is_some_and(|suspect| {
            suspect.ssrc == packet.ssrc && suspect.sequence_number.wrapping_add(1) == packet.sequence_number
        });
        if confirmed {
            let ssrc_changed = self.ssrc() != Some(packet.ssrc);
            let restart = if ssrc_changed { Restart::Ssrc } else { Restart::Sequence };
            return self.restart(restart, packet, media);
        }
        self.drop_suspect();
        let (_, seq) = Unwrapper::new(packet.sequence_number);
        let held = self.reorder.hold(seq, media);
        self.suspect = Some(Suspect { ssrc: packet.ssrc, sequence_number: packet.sequence_number, held });
        Arrived::Dropped
    }

    fn restart(&mut self, restart: Restart, packet: &RtpPacket<'_>, media: &MediaPacket<'_>) -> Arrived {
        self.stats.restarts += 1;
        self.retire(packet.ssrc);
        match self.suspect.take() {
            Some(suspect) if suspect.ssrc == packet.ssrc => {
                self.begin(packet.ssrc, suspect.sequence_number);
                self.reorder.requeue(suspect.held);
            }
            suspect => {
                self.suspect = suspect;
                self.drop_suspect();
                self.begin(packet.ssrc, packet.sequence_number);
            }
        }
        let current = self.current.as_mut().expect("begin() has set it");
        if let Step::Ahead(seq) | Step::Behind(seq) = current.unwrapper.step(packet.sequence_number) {
            let held = self.reorder.hold(seq, media);
            self.reorder.requeue(held);
        }
        Arrived::Restarted(restart)
    }

    /// Remembers the current SSRC as an earlier one, in the place of the one that takes over.
    fn retire(&mut self, successor: u32) {
        let Some(ssrc) = self.ssrc().filter(|ssrc| *ssrc != successor) else {
            return;
        };
        if let Some(slot) = self.retired.iter_mut().find(|retired| **retired == Some(successor)) {
            *slot = Some(ssrc);
            return;
        }
        self.retired.rotate_right(1);
        if let Some(newest) = self.retired.first_mut() {
            *newest = Some(ssrc);
        }
    }

    fn drop_suspect(&mut self) {
        if let Some(suspect) = self.suspect.take() {
            self.stats.rejected += 1;
            self.reorder.recycle(suspect.held);
        }
    }

    fn discard_held(&mut self, next: SeqNo) {
        let dropped = self.reorder.restart(next);
        self.stats.discarded += u64::try_from(dropped).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rig {
        source: Source,
        out: Vec<String>,
    }

    impl Rig {
        fn new() -> Self {
            Self { source: Source::new(ReorderLimits::DEFAULT), out: Vec::new() }
        }

        fn push(&mut self, ssrc: u32, sequence_number: u16) -> Arrived {
            let payload = [0x65];
            let packet = RtpPacket {
                payload_type: 96,
                marker: false,
                sequence_number,
                rtp_time: u32::from(sequence_number),
                ssrc,
                extension: None,
                payload: &payload,
            };
            let arrived = self.source.push(&packet, MediaTime::ZERO);
            match arrived {
                Arrived::InOrder => self.out.push(sequence_number.to_string()),
                Arrived::Restarted(_) => self.out.push("|".into()),
                Arrived::Queued | Arrived::Dropped => {}
            }
            while let Some((lost, held)) = self.source.pop(MediaTime::ZERO) {
                assert_eq!(lost, 0);
                self.out.push(held.packet().rtp_time.to_string());
                self.source.recycle(held);
            }
            arrived
        }

        fn out(&self) -> String {
            self.out.join(" ")
        }
    }

    #[test]
    fn a_new_ssrc_takes_over_with_its_first_packet() {
        let mut rig = Rig::new();
        rig.push(1, 100);
        rig.push(1, 101);
        assert_eq!(rig.push(2, 7), Arrived::Restarted(Restart::Ssrc));
        rig.push(2, 8);
        assert_eq!(rig.out(), "100 101 | 7 8");
        assert_eq!(rig.source.stats.restarts, 1);
    }

    #[test]
    fn a_straggler_of_the_earlier_ssrc_does_not_switch_back() {
        let mut rig = Rig::new();
        rig.push(1, 100);
        rig.push(2, 7);
        assert_eq!(rig.push(1, 101), Arrived::Dropped);
        rig.push(2, 8);
        assert_eq!(rig.push(1, 102), Arrived::Dropped);
        rig.push(2, 9);
        assert_eq!(rig.out(), "100 | 7 8 9");
        assert_eq!(rig.source.stats.rejected, 2);
    }

    #[test]
    fn an_earlier_ssrc_comes_back_with_two_packets_in_a_row_and_loses_none() {
        let mut rig = Rig::new();
        rig.push(1, 100);
        rig.push(2, 7);
        rig.push(1, 200);
        assert_eq!(rig.push(1, 201), Arrived::Restarted(Restart::Ssrc));
        rig.push(1, 202);
        assert_eq!(rig.push(2, 8), Arrived::Dropped);
        assert_eq!(rig.out(), "100 | 7 | 200 201 202");
    }

    #[test]
    fn a_sequence_jump_needs_two_packets_and_loses_none() {
        let mut rig = Rig::new();
        rig.push(1, 100);
        assert_eq!(rig.push(1, 30_000), Arrived::Dropped);
        assert_eq!(rig.push(1, 30_001), Arrived::Restarted(Restart::Sequence));
        assert_eq!(rig.push(1, 30_002), Arrived::InOrder);
        assert_eq!(rig.out(), "100 | 30000 30001 30002");
        assert_eq!(rig.source.stats.rejected, 0);
    }

    #[test]
    fn one_stray_number_changes_nothing() {
        let mut rig = Rig::new();
        rig.push(1, 100);
        rig.push(1, 30_000);
        rig.push(1, 101);
        rig.push(1, 30_001);
        rig.push(1, 102);
        assert_eq!(rig.out(), "100 101 102");
        assert_eq!(rig.source.stats.rejected, 2);
    }

    #[test]
    fn a_confirmed_jump_works_across_the_wrap() {
        let mut rig = Rig::new();
        rig.push(1, 30_000);
        rig.push(1, 65_535);
        rig.push(1, 0);
        rig.push(1, 1);
        assert_eq!(rig.out(), "30000 | 65535 0 1");
    }

    #[test]
    fn reordering_counts_as_recovered_and_a_repeat_as_duplicate() {
        let mut rig = Rig::new();
        for sequence_number in [100, 102, 101, 101] {
            rig.push(1, sequence_number);
        }
        assert_eq!(rig.out(), "100 101 102");
        assert_eq!((rig.source.stats.recovered, rig.source.stats.duplicates), (1, 1));
    }

    #[test]
    fn endless_new_ssrcs_keep_no_memory_of_all() {
        let mut rig = Rig::new();
        for ssrc in 0..1000 {
            rig.push(ssrc, 1);
        }
        assert_eq!(rig.source.stats.restarts, 999);
        assert!(!rig.source.is_waiting());
    }

    #[test]
    fn what_waited_behind_a_gap_of_the_earlier_stream_is_dropped() {
        let mut rig = Rig::new();
        rig.push(1, 100);
        rig.push(1, 102);
        assert!(rig.source.is_waiting());
        rig.push(2, 7);
        assert_eq!(rig.out(), "100 | 7");
        assert_eq!(rig.source.stats.discarded, 1);
    }
}
