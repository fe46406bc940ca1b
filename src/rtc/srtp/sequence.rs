//! One SSRC's sequence numbers on the receiving side: which index a packet has, and whether it was seen (RFC 3711 §3.3.1,
//! §3.3.2).
//!
//! Bounds: [`REPLAY_WINDOW_PACKETS`] bits per SSRC.

use super::error::SrtpError;

/// Packets an SSRC may be late by and still be accepted (RFC 3711 §3.3.2 asks for at least 64).
pub const REPLAY_WINDOW_PACKETS: usize = 512;

/// Past this the 48-bit packet index would repeat (RFC 3711 §9.2).
const LAST_INDEX: u64 = (1 << 48) - 1;
const WORD_BITS: u64 = 64;
const WORDS: usize = REPLAY_WINDOW_PACKETS.div_ceil(64);

/// What is known of one SSRC's sequence: its newest packet, and which of those before it came (RFC 3711 §3.3.1, §3.3.2).
pub(super) struct Sequence {
    /// Rollover counter and sequence number of the newest authentic packet.
    newest: u64,
    /// Bit n of all: packet `newest - n` came.
    came: [u64; WORDS],
}

impl Sequence {
    /// Begins with its first authentic packet.
    pub(super) fn beginning(index: u64) -> Self {
        let mut sequence = Self { newest: index, came: [0; WORDS] };
        sequence.record(sequence.newest);
        sequence
    }

    /// The index that a packet with this number has: the nearest to the newest one. An error when it is taken already.
    pub(super) fn index_of(&self, sequence_number: u16) -> Result<u64, SrtpError> {
        let [.., high, low] = self.newest.to_be_bytes();
        let ahead = sequence_number.wrapping_sub(u16::from_be_bytes([high, low])).cast_signed();
        let index = self.newest.checked_add_signed(ahead.into()).ok_or(SrtpError::Replayed)?;
        if index > LAST_INDEX {
            return Err(SrtpError::KeyExhausted);
        }
        match self.newest.checked_sub(index) {
            None => Ok(index),
            Some(age) => match self.came.get(usize::try_from(age / WORD_BITS).unwrap_or(usize::MAX)) {
                Some(word) if word >> (age % WORD_BITS) & 1 == 0 => Ok(index),
                _ => Err(SrtpError::Replayed),
            },
        }
    }

    /// Takes note of an authentic packet.
    pub(super) fn record(&mut self, index: u64) {
        if let Some(steps) = index.checked_sub(self.newest).filter(|steps| *steps > 0) {
            self.shift(steps);
            self.newest = index;
        }
        let age = self.newest - index;
        if let Some(word) = self.came.get_mut(usize::try_from(age / WORD_BITS).unwrap_or(usize::MAX)) {
            *word |= 1 << (age % WORD_BITS);
        }
    }

    /// Makes room for `steps` newer packets.
    fn shift(&mut self, steps: u64) {
        let words = usize::try_from(steps / WORD_BITS).unwrap_or(usize::MAX);
        if words >= WORDS {
            self.came = [0; WORDS];
            return;
        }
        self.came.rotate_right(words);
        self.came.iter_mut().take(words).for_each(|word| *word = 0);
        let bits = steps % WORD_BITS;
        if bits > 0 {
            let mut carry = 0;
            for word in self.came.iter_mut().skip(words) {
                let next = *word >> (WORD_BITS - bits);
                *word = *word << bits | carry;
                carry = next;
            }
        }
    }
}
