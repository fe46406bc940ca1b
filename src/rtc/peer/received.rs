//! What one datagram of media brought: the packet, and the missing ones that it repeats.

use guest_relay_muxer::{RtpPacket, TrackKind};

use super::super::red::{Block, Redundant};

/// What one datagram brought for one of the two tracks, decrypted; a retransmission is given as the packet it repeats.
#[derive(Debug)]
pub struct Received<'a> {
    /// Which track.
    pub kind: TrackKind,
    /// The packet.
    pub packet: RtpPacket<'a>,
    /// Missing packets before it that it repeats.
    pub(super) redundant: Missing<'a>,
}

impl<'a> Received<'a> {
    /// A packet that repeats no other one.
    pub fn plain(kind: TrackKind, packet: RtpPacket<'a>) -> Self {
        Self { kind, packet, redundant: Missing::default() }
    }

    /// The packets, in sequence.
    pub fn packets(&self) -> impl Iterator<Item = RtpPacket<'a>> {
        let packet = self.packet;
        let repeated = self.redundant.map(move |block| RtpPacket {
            marker: false,
            sequence_number: packet.sequence_number.wrapping_sub(block.distance),
            rtp_time: packet.rtp_time.wrapping_sub(block.time_offset),
            payload: block.payload,
            ..packet
        });
        repeated.chain(std::iter::once(packet))
    }
}

/// The blocks of a redundant payload whose packets are missing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Missing<'a> {
    blocks: Redundant<'a>,
    /// Bit n: the packet n before is missing.
    distances: u32,
}

impl<'a> Missing<'a> {
    pub(super) fn of(blocks: Redundant<'a>, mut is_missing: impl FnMut(u16) -> bool) -> Self {
        let missing = blocks.filter(|block| is_missing(block.distance));
        let distances = missing.fold(0, |bits, block| bits | bit(block.distance));
        Self { blocks, distances }
    }
}

impl<'a> Iterator for Missing<'a> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Block<'a>> {
        let distances = self.distances;
        self.blocks.find(|block| distances & bit(block.distance) != 0)
    }
}

/// Blocks reach back [`MAX_BLOCKS`](super::super::red::MAX_BLOCKS) packets, fewer than there are bits.
fn bit(distance: u16) -> u32 {
    1_u32.checked_shl(u32::from(distance)).unwrap_or(0)
}
