//! Redundant audio data (RFC 2198), as browsers send it for Opus: one RTP payload in, the Opus packets in it out.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |1|   block PT  |  timestamp offset (14)    | block length (10) |   each redundant block, the oldest first
//! |0|   block PT  |                                                   the primary block, which has the rest
//! |  redundant data ...           |  primary data ...             |
//! ```
//!
//! A redundant block repeats the payload of an earlier packet and says its time, not its sequence number. That follows
//! where time leaves no room for another packet: a block that ends where the next one begins came one packet before it.
//! Blocks that are not chained to the primary one in this way are left out.
//!
//! Bound: [`MAX_BLOCKS`]; work is linear in the payload, nothing is allocated or copied.

use std::fmt;

use guest_relay_muxer::opus::OpusPacket;

use super::bytes::{Reader, Truncated};

/// Redundant blocks of one packet: the 14 bits of an offset reach back 341 ms, 17 packets of 20 ms.
pub const MAX_BLOCKS: u16 = 17;

/// Why a payload is not taken as redundant audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedError {
    /// Headers or blocks run past the end.
    Truncated(Truncated),
    /// A block holds something else than it was negotiated for; RED within RED is such a thing.
    BlockType(u8),
    /// More than [`MAX_BLOCKS`].
    TooManyBlocks,
}

impl From<Truncated> for RedError {
    fn from(error: Truncated) -> Self {
        Self::Truncated(error)
    }
}

impl fmt::Display for RedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(error) => write!(f, "redundant audio {error}"),
            Self::BlockType(payload_type) => write!(f, "redundant audio of payload type {payload_type}"),
            Self::TooManyBlocks => write!(f, "redundant audio of more than {MAX_BLOCKS} blocks"),
        }
    }
}

impl std::error::Error for RedError {}

/// One payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Red<'a> {
    /// What the packet itself carries.
    pub primary: &'a [u8],
    /// What it repeats.
    pub redundant: Redundant<'a>,
}

/// The repetitions that can be told from which packet they are, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Redundant<'a> {
    headers: &'a [u8],
    blocks: &'a [u8],
    /// How many are left.
    count: u16,
}

/// One repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// How many packets ago it was sent.
    pub distance: u16,
    /// How much earlier its time is, in units of the RTP clock.
    pub time_offset: u32,
    /// The Opus packet.
    pub payload: &'a [u8],
}

impl<'a> Red<'a> {
    /// Reads a payload all of whose blocks have to be of `block_payload_type`.
    pub fn parse(payload: &'a [u8], block_payload_type: u8) -> Result<Self, RedError> {
        const MORE: u8 = 0x80;
        const HEADER_LEN: usize = 4;
        let mut reader = Reader::new(payload);
        let mut count: u16 = 0;
        let mut blocks_len = 0;
        loop {
            let first = reader.u8()?;
            if first & !MORE != block_payload_type {
                return Err(RedError::BlockType(first & !MORE));
            }
            if first & MORE == 0 {
                break;
            }
            if count == MAX_BLOCKS {
                return Err(RedError::TooManyBlocks);
            }
            count += 1;
            blocks_len += usize::try_from(reader.u24()? & 0x3FF).expect("ten bits");
        }
        let blocks = reader.take(blocks_len)?;
        let primary = reader.rest();
        let headers = Reader::new(payload).take(HEADER_LEN * usize::from(count))?;
        let mut redundant = Redundant { headers, blocks, count };
        // Of blocks that are not chained to the next one, the last counts: what is before it is left out.
        let mut chained = redundant;
        while let Some(block) = redundant.next() {
            let samples = OpusPacket::parse(block.payload).map_or(0, |opus| opus.samples);
            let next_offset = redundant.peek().map_or(0, |next| next.time_offset);
            if samples == 0 || block.time_offset != next_offset + samples {
                chained = redundant;
            }
        }
        Ok(Self { primary, redundant: chained })
    }
}

impl<'a> Redundant<'a> {
    fn peek(&self) -> Option<Block<'a>> {
        let mut ahead = *self;
        ahead.next()
    }
}

impl<'a> Iterator for Redundant<'a> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Block<'a>> {
        let mut headers = Reader::new(self.headers);
        let mut blocks = Reader::new(self.blocks);
        let _payload_type = headers.u8().ok()?;
        let fields = headers.u24().ok()?;
        let payload = blocks.take(usize::try_from(fields & 0x3FF).ok()?).ok()?;
        let distance = self.count;
        self.count = distance.checked_sub(1)?;
        (self.headers, self.blocks) = (headers.rest(), blocks.rest());
        Some(Block { distance, time_offset: fields >> 10, payload })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Opus of 20 ms that can be told apart.
    const A: [u8; 3] = [0xf8, 1, 1];
    const B: [u8; 3] = [0xf8, 2, 2];
    const C: [u8; 3] = [0xf8, 3, 3];

    /// The header of a redundant block.
    fn header(payload_type: u8, time_offset: u32, length: u32) -> [u8; 4] {
        let [_, fields @ ..] = (time_offset << 10 | length).to_be_bytes();
        let [a, b, c] = fields;
        [0x80 | payload_type, a, b, c]
    }

    /// Distance, time offset and payload of the redundant blocks; the primary one.
    type Unpacked = (Vec<(u16, u32, Vec<u8>)>, Vec<u8>);

    fn unpacked(payload: &[u8]) -> Result<Unpacked, RedError> {
        let red = Red::parse(payload, 111)?;
        let redundant = red.redundant.map(|block| (block.distance, block.time_offset, block.payload.to_vec()));
        Ok((redundant.collect(), red.primary.to_vec()))
    }

    #[test]
    fn a_payload_is_laid_out_as_in_rfc_2198() {
        // Section 3 bit by bit: F, block PT 111; offset 960 = 0b00_0011_1100_0000, length 3 = 0b00_0000_0011.
        let two = [&[0xef, 0b0000_1111, 0b0000_0000, 0b0000_0011][..], &[0x6f], &A, &B].concat();
        assert_eq!(unpacked(&two), Ok((vec![(1, 960, A.to_vec())], B.to_vec())));
        let three = [&header(111, 1920, 3)[..], &header(111, 960, 3), &[0x6f], &A, &B, &C].concat();
        assert_eq!(unpacked(&three), Ok((vec![(2, 1920, A.to_vec()), (1, 960, B.to_vec())], C.to_vec())));
        let alone = [&[0x6f][..], &A].concat();
        assert_eq!(unpacked(&alone), Ok((vec![], A.to_vec())));
    }

    #[test]
    fn blocks_that_do_not_meet_the_next_one_are_left_out() {
        let newer = || Ok((vec![(1, 960, B.to_vec())], C.to_vec()));
        let none = || Ok((vec![], C.to_vec()));
        for (name, offsets, older, expected) in [
            // How many packets lie between is nowhere said.
            ("a level left out", [2880, 960], A, newer()),
            ("overlapping", [1440, 960], A, newer()),
            ("descending", [960, 1920], A, none()),
            ("a pause before the primary", [2400, 1440], A, none()),
            ("no Opus", [1920, 960], [0xfb, 0, 0], newer()),
        ] {
            let [older_offset, newer_offset] = offsets;
            let headers = [header(111, older_offset, 3), header(111, newer_offset, 3)].concat();
            let payload = [&headers[..], &[0x6f], &older, &B, &C].concat();
            assert_eq!(unpacked(&payload), expected, "{name}");
        }
        // Packets of different lengths: 10 ms, then 20 ms.
        let short = [0xf0, 4, 4];
        let mixed = [&header(111, 1440, 3)[..], &header(111, 960, 3), &[0x6f], &short, &B, &C].concat();
        let expected = vec![(2, 1440, short.to_vec()), (1, 960, B.to_vec())];
        assert_eq!(unpacked(&mixed), Ok((expected, C.to_vec())));
    }

    #[test]
    fn lengths_that_lie_nested_redundancy_and_too_many_blocks_are_refused() {
        let truncated = |need, have| Err(RedError::Truncated(Truncated { need, have }));
        let blocks = |count: usize| [header(111, 0, 0).repeat(count), vec![0x6f]].concat();
        for (name, payload, expected) in [
            ("nothing", vec![], truncated(1, 0)),
            ("half a header", vec![0xef, 0], truncated(3, 1)),
            ("no primary header", header(111, 960, 3).to_vec(), truncated(1, 0)),
            ("block beyond the end", [&header(111, 960, 1023)[..], &[0x6f], &A, &B].concat(), truncated(1023, 6)),
            ("RED in RED", [&header(63, 960, 3)[..], &[0x6f], &A, &B].concat(), Err(RedError::BlockType(63))),
            ("RED as primary", [&header(111, 960, 3)[..], &[63], &A, &B].concat(), Err(RedError::BlockType(63))),
            ("at the bound", blocks(17), Ok((vec![], vec![]))),
            ("beyond the bound", blocks(18), Err(RedError::TooManyBlocks)),
        ] {
            assert_eq!(unpacked(&payload), expected, "{name}");
        }
    }
}
