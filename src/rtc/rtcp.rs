//! RTCP (RFC 3550 §6) as a receiver of media uses it: a decrypted compound packet -> [`Packet`]s, and the
//! `write_*` functions -> a compound packet.
//!
//! ```text
//! |V=2|P|  count  |  packet type  |   length in words minus one   |  every packet
//! |             SSRC of the packet's sender                       |
//! |             SSRC of the media it is about                     |  feedback packets (RFC 4585 §6.1)
//! ```
//!
//! | type | count | | |
//! |---|---|---|---|
//! | 200 SR, 201 RR, 202 SDES, 203 BYE | number of blocks | RFC 3550 | SR is read, RR and SDES are written, BYE both |
//! | 205 RTPFB | 1 NACK, 15 transport-wide feedback | RFC 4585 §6.2.1, [`transport_cc`] | written |
//! | 206 PSFB | 1 PLI, 4 FIR, 15 REMB | RFC 4585 §6.3.1, RFC 5104 §4.3.1, draft-alvestrand-rmcat-remb-03 | written |
//! | 207 XR | | [`extended`] | reference times are written, the answers to them read |
//!
//! Reading borrows from the datagram, allocates nothing and takes time linear in it; a count that promises more than
//! there is ends the compound. Feedback is not read: who sends no media gets none.

use std::fmt;

use super::bytes::{Reader, Truncated};

pub mod extended;
mod format;
pub mod transport_cc;
mod write;

use extended::ReferenceDelays;
pub use format::ReportBlock;
use format::packet_type;
pub use write::{
    MAX_NACK_PAIRS, write_bye, write_cname, write_fir, write_nack, write_pli, write_receiver_report, write_remb,
};

/// Why a compound packet could be read no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RtcpError {
    /// It ends within a packet, or a packet within a field.
    Truncated(Truncated),
    /// The version is not 2.
    Version(u8),
    /// The padding's length does not fit the packet.
    Padding(u8),
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
    /// XR, with what it says of our reference times.
    ExtendedReport(ReferenceDelays<'a>),
    /// Any other type: application-defined, feedback, of which a receiver gets none.
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
        packet_type::EXTENDED_REPORT => {
            let _sender_ssrc = body.u32()?;
            Packet::ExtendedReport(ReferenceDelays::new(body))
        }
        _ => Packet::Other { packet_type },
    })
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
