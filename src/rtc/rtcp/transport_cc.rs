//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
//!
//! ```text
//! |  base sequence number (16)    |    packet status count (16)   |
//! |        reference time (24, signed, 64 ms)     | fb pkt count  |
//! |  packet chunk (16)            |  packet chunk (16) ...        |
//! |  recv delta (8 or 16) ...     |  zeros up to the word         |
//!
//! chunk: |0|S S|   run length (13)      |   one symbol, repeated
//!        |1|0|  14 symbols of one bit   |   0 not received, 1 received, small delta
//!        |1|1|   7 symbols of two bits  |   0 not received, 1 small delta, 2 large or negative delta
//! ```
//!
//! A delta is the time since the packet received before (the first: since the reference time) in 250 us; a small one
//! is 0 to 255, a large one 16 bits signed. Bound: [`MAX_STATUSES`] packets in one message.

use super::super::bytes::Writer;
use super::format::{feedback_type, packet_type, write_packet};

/// Packets one message may speak about.
pub const MAX_STATUSES: usize = 400;
/// Unit of deltas.
pub const DELTA_MICROS: i64 = 250;
/// Unit of the reference time, in deltas: 64 ms.
pub const REFERENCE_DELTAS: i64 = 256;

const MAX_RUN: usize = 0x1FFF;
const ONE_BIT_SYMBOLS: usize = 14;
const TWO_BIT_SYMBOLS: usize = 7;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportFeedback {
    /// Who received.
    pub sender_ssrc: u32,
    /// Any of the streams it is about.
    pub media_ssrc: u32,
    /// Transport-wide sequence number of the first status.
    pub base_sequence: u16,
    /// In 64 ms, 24 bits signed.
    pub reference_time: i32,
    /// Counts messages, so that lost ones are noticed.
    pub feedback_count: u8,
    /// For each packet from the base on: its delta if it was received.
    pub statuses: Vec<Option<i16>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Symbol {
    NotReceived,
    SmallDelta,
    LargeDelta,
}

impl Symbol {
    fn of(status: Option<i16>) -> Self {
        match status {
            None => Self::NotReceived,
            Some(0..=255) => Self::SmallDelta,
            Some(_) => Self::LargeDelta,
        }
    }

    fn bits(self) -> u16 {
        match self {
            Self::NotReceived => 0,
            Self::SmallDelta => 1,
            Self::LargeDelta => 2,
        }
    }
}

impl TransportFeedback {
    /// Appends the packet; statuses beyond [`MAX_STATUSES`] are left out.
    pub fn write_to(&self, out: &mut Writer) {
        let statuses = self.statuses.get(..MAX_STATUSES).unwrap_or(&self.statuses);
        write_packet(out, packet_type::TRANSPORT_FEEDBACK, feedback_type::TRANSPORT_CC, |out| {
            out.u32(self.sender_ssrc);
            out.u32(self.media_ssrc);
            out.u16(self.base_sequence);
            out.u16(u16::try_from(statuses.len()).expect("MAX_STATUSES fits"));
            out.u24(self.reference_time.cast_unsigned());
            out.u8(self.feedback_count);
            let symbols: Vec<Symbol> = statuses.iter().copied().map(Symbol::of).collect();
            let mut rest = symbols.as_slice();
            while !rest.is_empty() {
                let (chunk, covered) = encode_chunk(rest);
                out.u16(chunk);
                rest = rest.get(covered..).unwrap_or_default();
            }
            for delta in statuses.iter().flatten() {
                match u8::try_from(*delta) {
                    Ok(small) => out.u8(small),
                    Err(_) => out.u16(delta.cast_unsigned()),
                }
            }
        });
    }
}

/// The chunk for the first symbols of `rest`, and how many it covers.
fn encode_chunk(rest: &[Symbol]) -> (u16, usize) {
    let first = rest.first().copied().unwrap_or(Symbol::NotReceived);
    let run = rest.iter().take(MAX_RUN).take_while(|symbol| **symbol == first).count();
    let fits_one_bit = !rest.iter().take(ONE_BIT_SYMBOLS).any(|symbol| *symbol == Symbol::LargeDelta);
    let (flags, width, slots) = if fits_one_bit { (0x8000, 1, ONE_BIT_SYMBOLS) } else { (0xC000, 2, TWO_BIT_SYMBOLS) };
    let covered = slots.min(rest.len());
    if run >= covered {
        let run = u16::try_from(run).expect("MAX_RUN fits 13 bits");
        return ((first.bits() << 13) | run, usize::from(run));
    }
    // The first symbol stands highest; slots past the end stay zero.
    let symbols = (0..slots).fold(0, |bits, slot| (bits << width) | rest.get(slot).map_or(0, |symbol| symbol.bits()));
    (flags | symbols, covered)
}
