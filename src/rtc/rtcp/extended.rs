//! Extended reports (RFC 3611): the two blocks by which a receiver that sends no media learns the round trip time.
//!
//! ```text
//! |V=2|P|reserved |   PT = 207    |            length             |
//! |                             SSRC                              |
//! |    BT = 4     |   reserved    |       block length = 2        |  receiver reference time (§4.4): ours
//! |                 NTP timestamp (64)                            |
//! |    BT = 5     |   reserved    |   block length = 3 per entry  |  its answer, DLRR (§4.5): the sender's
//! |  SSRC that asked  |  LRR: middle of its NTP time  |  delay since, 65536ths of a second  |
//! ```
//!
//! Blocks of other types are stepped over; one that is longer than the packet ends it.

use super::super::bytes::{Reader, Writer};
use super::format::{packet_type, write_packet};

const RECEIVER_REFERENCE_TIME: u8 = 4;
const DELAY_SINCE_LAST_REFERENCE_TIME: u8 = 5;

/// What the sender says about a reference time it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReferenceDelay {
    /// Who asked.
    pub ssrc: u32,
    /// The middle 32 bits of the asker's NTP time; 0: nothing came.
    pub last_reference_time: u32,
    /// Time since it came, in 65536ths of a second.
    pub delay: u32,
}

/// The entries of every DLRR block of an XR.
#[derive(Debug, Clone)]
pub struct ReferenceDelays<'a> {
    blocks: Reader<'a>,
    entries: Reader<'a>,
}

impl<'a> ReferenceDelays<'a> {
    /// `blocks`: what follows the sender's SSRC.
    pub(super) fn new(blocks: Reader<'a>) -> Self {
        Self { blocks, entries: Reader::new(&[]) }
    }

    /// The next block that is a DLRR; `None` at the end, or where a length lies.
    fn next_block(&mut self) -> Option<Reader<'a>> {
        loop {
            let block_type = self.blocks.u8().ok()?;
            self.blocks.u8().ok()?;
            let words = usize::from(self.blocks.u16().ok()?);
            let content = self.blocks.sub(4 * words).ok()?;
            if block_type == DELAY_SINCE_LAST_REFERENCE_TIME {
                return Some(content);
            }
        }
    }
}

impl Iterator for ReferenceDelays<'_> {
    type Item = ReferenceDelay;

    fn next(&mut self) -> Option<ReferenceDelay> {
        while self.entries.len() < 12 {
            self.entries = self.next_block()?;
        }
        Some(ReferenceDelay {
            ssrc: self.entries.u32().ok()?,
            last_reference_time: self.entries.u32().ok()?,
            delay: self.entries.u32().ok()?,
        })
    }
}

/// XR with our reference time, 32.32 fixed point seconds.
pub fn write_reference_time(out: &mut Writer, sender_ssrc: u32, ntp_time: u64) {
    write_packet(out, packet_type::EXTENDED_REPORT, 0, |out| {
        out.u32(sender_ssrc);
        out.u8(RECEIVER_REFERENCE_TIME);
        out.u8(0);
        out.u16(2);
        out.u64(ntp_time);
    });
}
