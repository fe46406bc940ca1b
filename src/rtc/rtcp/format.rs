//! The numbers of RTCP, and the header that every packet has.

use super::super::bytes::Writer;

/// Packet types.
pub(super) mod packet_type {
    pub(in super::super) const SENDER_REPORT: u8 = 200;
    pub(in super::super) const RECEIVER_REPORT: u8 = 201;
    pub(in super::super) const SOURCE_DESCRIPTION: u8 = 202;
    pub(in super::super) const BYE: u8 = 203;
    pub(in super::super) const TRANSPORT_FEEDBACK: u8 = 205;
    pub(in super::super) const PAYLOAD_FEEDBACK: u8 = 206;
    pub(in super::super) const EXTENDED_REPORT: u8 = 207;
}

/// Feedback message types, in the count field of types 205 and 206.
pub(super) mod feedback_type {
    pub(in super::super) const NACK: u8 = 1;
    pub(in super::super) const TRANSPORT_CC: u8 = 15;
    pub(in super::super) const PLI: u8 = 1;
    pub(in super::super) const FIR: u8 = 4;
    pub(in super::super) const APPLICATION: u8 = 15;
}

/// What a receiver saw of one source (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source.
    pub ssrc: u32,
    /// Share of packets lost since the last report, in 256ths.
    pub fraction_lost: u8,
    /// Packets lost since the start, 24 bits signed.
    pub cumulative_lost: i32,
    /// Highest sequence number, cycles above it.
    pub highest_sequence: u32,
    /// Interarrival jitter in units of the media clock.
    pub jitter: u32,
    /// The middle 32 bits of the last sender report's NTP time; 0: none came.
    pub last_sender_report: u32,
    /// Time since it came, in 65536ths of a second.
    pub delay_since_last_sender_report: u32,
}

/// Header, then what `body` writes (whole words), then the length.
pub(super) fn write_packet(out: &mut Writer, packet_type: u8, count: u8, body: impl FnOnce(&mut Writer)) {
    let start = out.len();
    out.u8(0x80 | (count & 0x1F));
    out.u8(packet_type);
    out.u16(0);
    body(out);
    out.pad_to_word();
    let words = (out.len() - start) / 4 - 1;
    out.set_u16(start + 2, u16::try_from(words).expect("our packets fit a datagram"));
}
