//! The plain RTMP handshake, client side (RTMP 1.0 §5.2).
//!
//! ```text
//! -> C0 (03)  C1 (time u32, zero u32, 1528 random bytes)
//! <- S0 (03)  S1 (time u32, zero u32, 1528 bytes)  S2 (1536 bytes)
//! -> C2 = S1
//! ```
//! S2 is not compared with C1: servers that try the digest handshake first alter it. Bound: 3073 bytes kept.

use std::fmt;

use crate::backoff::Rng;

const VERSION: u8 = 3;
const BLOCK_LEN: usize = 1536;
/// S0, S1 and S2.
const REPLY_LEN: usize = 1 + 2 * BLOCK_LEN;

/// The server speaks another version: RTMPE (6), or no RTMP at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongVersion(pub u8);

impl fmt::Display for WrongVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answered the handshake with version {}, not {VERSION}", self.0)
    }
}

impl std::error::Error for WrongVersion {}

/// Waits for S0, S1 and S2.
pub(super) struct Handshake {
    received: Vec<u8>,
    replied: bool,
}

impl Handshake {
    /// Appends C0 and C1 to `out`.
    pub(super) fn start(out: &mut Vec<u8>, rng: &mut Rng) -> Handshake {
        out.push(VERSION);
        out.extend([0; 8]);
        for _ in 0..(BLOCK_LEN - 8) / 8 {
            out.extend(rng.next_u64().to_be_bytes());
        }
        Handshake { received: Vec::with_capacity(REPLY_LEN), replied: false }
    }

    /// Takes what belongs to the handshake off the front of `bytes`; true once S2 is complete. Appends C2 to `out`
    /// as soon as S1 is there.
    pub(super) fn handle_bytes(&mut self, bytes: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, WrongVersion> {
        let part = bytes.len().min(REPLY_LEN - self.received.len());
        let (head, rest) = bytes.split_at(part);
        *bytes = rest;
        self.received.extend_from_slice(head);
        let Some((&version, blocks)) = self.received.split_first() else {
            return Ok(false);
        };
        if version != VERSION {
            return Err(WrongVersion(version));
        }
        if !self.replied
            && let Some(s1) = blocks.first_chunk::<BLOCK_LEN>()
        {
            out.extend_from_slice(s1);
            self.replied = true;
        }
        Ok(self.received.len() == REPLY_LEN)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn reply() -> Vec<u8> {
        let s1 = (0..1536_u32).map(|at| at.to_le_bytes()[0]);
        let s2 = (0..1536_u32).map(|_| 0xee);
        [3].into_iter().chain(s1).chain(s2).collect()
    }

    #[test]
    fn c1_has_four_zero_bytes_and_random_filling() {
        let mut out = Vec::new();
        Handshake::start(&mut out, &mut Rng::new(7));
        assert_eq!(out.len(), 1537);
        assert_eq!(out[..9], [3, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut other = Vec::new();
        Handshake::start(&mut other, &mut Rng::new(8));
        assert_ne!(out[9..], other[9..]);
        assert!(out[9..].iter().filter(|byte| **byte == 0).count() < 40);
    }

    #[test]
    fn c2_echoes_s1_and_the_end_of_s2_ends_the_handshake() {
        for piece in [1, 7, 1000, 4000] {
            let mut out = Vec::new();
            let mut handshake = Handshake::start(&mut Vec::new(), &mut Rng::new(1));
            let input = [reply(), vec![0xaa, 0xbb]].concat();
            let mut done_at = None;
            let mut fed = 0;
            for part in input.chunks(piece) {
                let mut bytes = part;
                fed += part.len();
                let done = handshake.handle_bytes(&mut bytes, &mut out).unwrap();
                assert_eq!(out.len(), if fed >= 1537 { 1536 } else { 0 }, "C2 leaves with the end of S1");
                if done {
                    done_at = Some(fed - bytes.len());
                    break;
                }
            }
            assert_eq!(done_at, Some(3073), "what follows S2 is left");
            assert_eq!(out, reply()[1..1537]);
        }
    }

    #[test]
    fn another_version_is_an_error_at_the_first_byte() {
        for version in [0, 6, b'H', 0xff] {
            let mut handshake = Handshake::start(&mut Vec::new(), &mut Rng::new(1));
            let bytes = [version];
            assert_eq!(handshake.handle_bytes(&mut bytes.as_slice(), &mut Vec::new()), Err(WrongVersion(version)));
        }
    }
}
