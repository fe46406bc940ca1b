//! Bounds-checked reading and appending of network byte order fields.
//!
//! Every wire format of `rtc/` goes through these, so that no parser does index arithmetic. Reading is the muxer's;
//! writing here owns its datagram, because lengths are filled in and checksums taken when the content is known.

pub use guest_relay_muxer::bytes::{Reader, Truncated};

/// Appends fields to a datagram under construction.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty datagram with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    /// How many bytes were written.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// The finished datagram.
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// The low three bytes of `value`.
    pub fn u24(&mut self, value: u32) {
        let [_, a, b, c] = value.to_be_bytes();
        self.bytes.extend_from_slice(&[a, b, c]);
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    /// Zeros up to the next multiple of four.
    pub fn pad_to_word(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }

    /// Writes a 16-bit field over the one at `at`: length fields are known only when their content is.
    pub fn set_u16(&mut self, at: usize, value: u16) {
        if let Some(field) = self.bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) {
            *field = value.to_be_bytes();
        }
    }
}
