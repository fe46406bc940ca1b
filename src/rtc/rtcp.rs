//! RTCP (RFC 3550 §6) as a receiver of media uses it: a decrypted compound packet -> [`Packet`]s, and the
//! `write_*` functions -> a compound packet.
//!
//! ```text
//! |V=2|P|  count  |  packet type  |   length in words minus one   |  every packet
//! |             SSRC of the packet's sender                       |
//! |             SSRC of the media it is about                     |  feedback packets (RFC 4585 §6.1)
//! ```
//!
//! | type | count | |
//! |---|---|---|
//! | 200 SR, 201 RR, 202 SDES, 203 BYE | number of blocks | RFC 3550 |
//! | 205 RTPFB | 1 NACK, 15 transport-wide feedback | RFC 4585 §6.2.1, [`transport_cc`] |
//! | 206 PSFB | 1 PLI, 4 FIR, 15 REMB | RFC 4585 §6.3.1, RFC 5104 §4.3.1, draft-alvestrand-rmcat-remb-03 |
//! | 207 XR | | [`extended`] |
//!
//! Reading borrows from the datagram and takes time linear in it; a count that promises more than there is ends the
//! compound. Nothing is allocated.

use std::fmt;

use super::bytes::{Reader, Truncated};

pub mod extended;
pub mod transport_cc;
mod write;

use extended::ReferenceDelays;
use transport_cc::TransportFeedback;
pub use write::{
    MAX_NACK_PAIRS, write_bye, write_cname, write_fir, write_nack, write_pli, write_receiver_report, write_remb,
};

/// Packet types.
mod packet_type {
    pub(super) const SENDER_REPORT: u8 = 200;
    pub(super) const RECEIVER_REPORT: u8 = 201;
    pub(super) const SOURCE_DESCRIPTION: u8 = 202;
    pub(super) const BYE: u8 = 203;
    pub(super) const TRANSPORT_FEEDBACK: u8 = 205;
    pub(super) const PAYLOAD_FEEDBACK: u8 = 206;
    pub(super) const EXTENDED_REPORT: u8 = 207;
}

/// Feedback message types, in the count field of types 205 and 206.
mod feedback_type {
    pub(super) const NACK: u8 = 1;
    pub(super) const TRANSPORT_CC: u8 = 15;
    pub(super) const PLI: u8 = 1;
    pub(super) const FIR: u8 = 4;
    pub(super) const APPLICATION: u8 = 15;
}

/// Identifies REMB among application-layer feedback.
const REMB_IDENTIFIER: [u8; 4] = *b"REMB";

/// Why a compound packet could be read no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RtcpError {
    /// It ends within a packet, or a packet within a field.
    Truncated(Truncated),
    /// The version is not 2.
    Version(u8),
    /// The padding's length does not fit the packet.
    Padding(u8),
    /// Transport-wide feedback that contradicts itself or is larger than a path of ours makes it.
    TransportFeedback,
}

impl From<Truncated> for RtcpError {
    fn from(error: Truncated) -> Self {
        Self::Truncated(error)
    }
}

impl fmt::Display for RtcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(t) => write!(f, "truncated: {t}"),
            Self::Version(version) => write!(f, "version {version}"),
            Self::Padding(padding) => write!(f, "{padding} bytes of padding"),
            Self::TransportFeedback => write!(f, "transport-wide feedback contradicts itself"),
        }
    }
}

impl std::error::Error for RtcpError {}

/// A sender's clocks and counters (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport {
    /// Whose report it is.
    pub ssrc: u32,
    /// The sender's wall clock, 32.32 fixed point seconds since 1900.
    pub ntp_time: u64,
    /// The same instant on the media clock.
    pub rtp_time: u32,
    /// Packets sent so far.
    pub packet_count: u32,
    /// Payload bytes sent so far.
    pub octet_count: u32,
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

/// One packet of a compound.
#[derive(Debug, Clone)]
pub enum Packet<'a> {
    /// SR.
    SenderReport(SenderReport, ReportBlocks<'a>),
    /// RR, with its sender.
    ReceiverReport(u32, ReportBlocks<'a>),
    /// SDES; nothing in it matters to us.
    SourceDescription,
    /// BYE of these sources.
    Bye(Ssrcs<'a>),
    /// Generic NACK.
    Nack {
        /// The stream that misses packets.
        media_ssrc: u32,
        /// Which.
        lost: LostSequences<'a>,
    },
    /// Transport-wide congestion control feedback.
    TransportFeedback(TransportFeedback),
    /// PLI.
    PictureLoss {
        /// The stream that needs a keyframe.
        media_ssrc: u32,
    },
    /// FIR.
    FullIntra(FullIntraEntries<'a>),
    /// REMB: the receiver's bandwidth estimate.
    Remb {
        /// Bits per second.
        bitrate_bps: u64,
        /// The streams that share it.
        ssrcs: Ssrcs<'a>,
    },
    /// XR, with what it says of our reference times.
    ExtendedReport(ReferenceDelays<'a>),
    /// Any other type: application-defined, feedback we do not use.
    Other {
        /// Packet type.
        packet_type: u8,
    },
}

/// Report blocks of an SR or RR.
#[derive(Debug, Clone)]
pub struct ReportBlocks<'a>(Reader<'a>);

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        read_report_block(&mut self.0).ok()
    }
}

/// A list of SSRCs.
#[derive(Debug, Clone)]
pub struct Ssrcs<'a>(Reader<'a>);

impl Iterator for Ssrcs<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.0.u32().ok()
    }
}

/// SSRC and sequence number of each FIR entry.
#[derive(Debug, Clone)]
pub struct FullIntraEntries<'a>(Reader<'a>);

impl Iterator for FullIntraEntries<'_> {
    type Item = (u32, u8);

    fn next(&mut self) -> Option<(u32, u8)> {
        let ssrc = self.0.u32().ok()?;
        let sequence = self.0.u8().ok()?;
        self.0.u24().ok()?;
        Some((ssrc, sequence))
    }
}

/// Sequence numbers of a NACK: a packet id and a bit mask of the 16 after it, pair by pair.
#[derive(Debug, Clone)]
pub struct LostSequences<'a> {
    pairs: Reader<'a>,
    next: u16,
    mask: u16,
}

impl Iterator for LostSequences<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.mask == 0 {
            let packet_id = self.pairs.u16().ok()?;
            self.mask = self.pairs.u16().ok()?;
            self.next = packet_id.wrapping_add(1);
            return Some(packet_id);
        }
        let skipped = u16::try_from(self.mask.trailing_zeros()).unwrap_or(0);
        let lost = self.next.wrapping_add(skipped);
        self.mask = self.mask.checked_shr(u32::from(skipped) + 1).unwrap_or(0);
        self.next = lost.wrapping_add(1);
        Some(lost)
    }
}

/// The packets of a decrypted compound; ends after the first that cannot be read.
#[derive(Debug, Clone)]
pub struct Compound<'a> {
    rest: Reader<'a>,
}

impl<'a> Compound<'a> {
    /// Reads `datagram` from its start. Reduced-size compounds (RFC 5506) are taken as they come.
    pub fn new(datagram: &'a [u8]) -> Self {
        Self { rest: Reader::new(datagram) }
    }

    fn read(&mut self) -> Result<Packet<'a>, RtcpError> {
        let first = self.rest.u8()?;
        let packet_type = self.rest.u8()?;
        let words = self.rest.u16()?;
        let mut body = self.rest.take(usize::from(words) * 4)?;
        if first >> 6 != 2 {
            return Err(RtcpError::Version(first >> 6));
        }
        if first & 0x20 != 0 {
            let padding = body.last().copied().unwrap_or(0);
            let kept = body.len().checked_sub(usize::from(padding));
            body =
                kept.filter(|_| padding != 0).and_then(|kept| body.get(..kept)).ok_or(RtcpError::Padding(padding))?;
        }
        read_packet(packet_type, first & 0x1F, Reader::new(body))
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Result<Packet<'a>, RtcpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let packet = self.read();
        if packet.is_err() {
            self.rest = Reader::new(&[]);
        }
        Some(packet)
    }
}

fn read_packet(packet_type: u8, count: u8, mut body: Reader<'_>) -> Result<Packet<'_>, RtcpError> {
    const REPORT_BLOCK_LEN: usize = 24;
    let blocks_len = usize::from(count) * REPORT_BLOCK_LEN;
    Ok(match packet_type {
        packet_type::SENDER_REPORT => {
            let report = SenderReport {
                ssrc: body.u32()?,
                ntp_time: body.u64()?,
                rtp_time: body.u32()?,
                packet_count: body.u32()?,
                octet_count: body.u32()?,
            };
            Packet::SenderReport(report, ReportBlocks(body.sub(blocks_len)?))
        }
        packet_type::RECEIVER_REPORT => {
            let sender = body.u32()?;
            Packet::ReceiverReport(sender, ReportBlocks(body.sub(blocks_len)?))
        }
        packet_type::SOURCE_DESCRIPTION => Packet::SourceDescription,
        packet_type::BYE => Packet::Bye(Ssrcs(body.sub(usize::from(count) * 4)?)),
        packet_type::TRANSPORT_FEEDBACK => {
            let sender_ssrc = body.u32()?;
            let media_ssrc = body.u32()?;
            match count {
                feedback_type::NACK => {
                    Packet::Nack { media_ssrc, lost: LostSequences { pairs: body, next: 0, mask: 0 } }
                }
                feedback_type::TRANSPORT_CC => {
                    Packet::TransportFeedback(TransportFeedback::read(sender_ssrc, media_ssrc, &mut body)?)
                }
                _ => Packet::Other { packet_type },
            }
        }
        packet_type::PAYLOAD_FEEDBACK => {
            let _sender_ssrc = body.u32()?;
            let media_ssrc = body.u32()?;
            match count {
                feedback_type::PLI => Packet::PictureLoss { media_ssrc },
                feedback_type::FIR => Packet::FullIntra(FullIntraEntries(body)),
                feedback_type::APPLICATION => read_application_feedback(body)?,
                _ => Packet::Other { packet_type },
            }
        }
        packet_type::EXTENDED_REPORT => {
            let _sender_ssrc = body.u32()?;
            Packet::ExtendedReport(ReferenceDelays::new(body))
        }
        _ => Packet::Other { packet_type },
    })
}

/// `"REMB"`, number of SSRCs (8), exponent (6), mantissa (18), SSRCs: bitrate = mantissa * 2^exponent.
fn read_application_feedback(mut body: Reader<'_>) -> Result<Packet<'_>, RtcpError> {
    if body.take_array()? != REMB_IDENTIFIER {
        return Ok(Packet::Other { packet_type: packet_type::PAYLOAD_FEEDBACK });
    }
    let ssrc_count = usize::from(body.u8()?);
    let bitrate = body.u24()?;
    let mantissa = u64::from(bitrate & 0x3_FFFF);
    let exponent = bitrate >> 18;
    let bitrate_bps =
        mantissa.checked_shl(exponent).filter(|shifted| shifted >> exponent == mantissa).unwrap_or(u64::MAX);
    Ok(Packet::Remb { bitrate_bps, ssrcs: Ssrcs(body.sub(ssrc_count * 4)?) })
}

fn read_report_block(reader: &mut Reader<'_>) -> Result<ReportBlock, Truncated> {
    let ssrc = reader.u32()?;
    let fraction_lost = reader.u8()?;
    let cumulative_lost = reader.u24()?.cast_signed();
    Ok(ReportBlock {
        ssrc,
        fraction_lost,
        // 24 bits signed: shift the sign to the top and back.
        cumulative_lost: (cumulative_lost << 8) >> 8,
        highest_sequence: reader.u32()?,
        jitter: reader.u32()?,
        last_sender_report: reader.u32()?,
        delay_since_last_sender_report: reader.u32()?,
    })
}

#[cfg(test)]
mod tests;
