//! Wire formats are read through [`Reader`] and written through [`Writer`].
//!
//! Both are big-endian unless the method says `_le`. A `Reader` never reads past its slice: each step either
//! yields what was asked for or [`Truncated`] with the figures. A `Writer` appends to a buffer: the caller's, or its own
//! where lengths and checksums are filled in when the content is known.

use std::borrow::BorrowMut;
use std::fmt;

/// The input ended inside a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// Bytes the field takes.
    pub need: usize,
    /// Bytes that were left.
    pub have: usize,
}

impl fmt::Display for Truncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "needs {} bytes, has {}", self.need, self.have)
    }
}

impl std::error::Error for Truncated {}

/// A cursor over bytes somebody else sent.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether all bytes were read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All bytes not read yet, without reading them.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Truncated> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(Truncated { need: len, have: self.rest.len() })?;
        self.rest = tail;
        Ok(head)
    }

    /// The last `len` bytes; what comes before them stays to be read.
    pub fn take_back(&mut self, len: usize) -> Result<&'a [u8], Truncated> {
        let truncated = Truncated { need: len, have: self.rest.len() };
        let keep = self.rest.len().checked_sub(len).ok_or(truncated)?;
        let (head, tail) = self.rest.split_at_checked(keep).ok_or(truncated)?;
        self.rest = head;
        Ok(tail)
    }

    /// The next `N` bytes by value.
    pub fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(Truncated { need: N, have: self.rest.len() })?;
        self.rest = tail;
        Ok(*head)
    }

    /// A reader over the next `len` bytes alone.
    pub fn sub(&mut self, len: usize) -> Result<Reader<'a>, Truncated> {
        self.take(len).map(Reader::new)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        self.take_array::<1>().map(|[byte]| byte)
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        self.take_array().map(u16::from_be_bytes)
    }

    /// Three bytes, big-endian.
    pub fn u24(&mut self) -> Result<u32, Truncated> {
        self.take_array().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    /// Three bytes, big-endian, two's complement (FLV's SI24).
    pub fn i24(&mut self) -> Result<i32, Truncated> {
        self.take_array().map(|[a, b, c]| i32::from_be_bytes([a, b, c, 0]) >> 8)
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        self.take_array().map(u32::from_be_bytes)
    }

    /// Four bytes, little-endian.
    pub fn u32_le(&mut self) -> Result<u32, Truncated> {
        self.take_array().map(u32::from_le_bytes)
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self) -> Result<u64, Truncated> {
        self.take_array().map(u64::from_be_bytes)
    }

    /// An IEEE 754 double, big-endian.
    pub fn f64(&mut self) -> Result<f64, Truncated> {
        self.take_array().map(f64::from_be_bytes)
    }
}

/// Appends fields to a buffer, which is its own (`Writer`) or the caller's (`Writer<&mut Vec<u8>>`).
#[derive(Debug, Default)]
pub struct Writer<B = Vec<u8>> {
    out: B,
}

impl Writer {
    /// An empty buffer of its own with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { out: Vec::with_capacity(capacity) }
    }

    /// What was written.
    pub fn into_vec(self) -> Vec<u8> {
        self.out
    }
}

impl<'a> Writer<&'a mut Vec<u8>> {
    /// Appends after what `out` already holds.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }
}

impl<B: BorrowMut<Vec<u8>>> Writer<B> {
    fn buffer(&mut self) -> &mut Vec<u8> {
        self.out.borrow_mut()
    }

    /// Bytes in the buffer.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether the buffer is empty.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// What is in the buffer.
    pub fn as_slice(&self) -> &[u8] {
        self.out.borrow()
    }

    /// Zeros up to the next multiple of four bytes.
    pub fn pad_to_word(&mut self) {
        let padded = self.len().next_multiple_of(4);
        self.buffer().resize(padded, 0);
    }

    /// Writes two bytes, big-endian, over those at `at`, if they are there.
    pub fn set_u16(&mut self, at: usize, value: u16) {
        if let Some(field) = self.buffer().get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) {
            *field = value.to_be_bytes();
        }
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.buffer().extend_from_slice(bytes);
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.buffer().push(value);
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    /// Two bytes, little-endian.
    pub fn u16_le(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    /// The low 24 bits of `value`, big-endian. What lies above belongs elsewhere (FLV's extension byte) or is zero.
    pub fn u24(&mut self, value: u32) {
        let [_, low @ ..] = value.to_be_bytes();
        self.bytes(&low);
    }

    /// The low 24 bits of `value` in two's complement, big-endian (FLV's SI24).
    pub fn i24(&mut self, value: i32) {
        let [_, low @ ..] = value.to_be_bytes();
        self.bytes(&low);
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Four bytes, little-endian (the RTMP message stream id).
    pub fn u32_le(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// An IEEE 754 double, big-endian.
    pub fn f64(&mut self, value: f64) {
        self.bytes(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_field_past_the_end_says_what_it_needed_and_leaves_the_cursor() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u32(), Err(Truncated { need: 4, have: 3 }));
        assert_eq!(reader.u16().unwrap(), 0x0102);
        assert_eq!(reader.take(2), Err(Truncated { need: 2, have: 1 }));
        assert_eq!(reader.take_back(2), Err(Truncated { need: 2, have: 1 }));
        assert_eq!(reader.rest(), [3]);
    }

    #[test]
    fn three_byte_fields_keep_their_sign() {
        // Values from the FLV specification's SI24: -1 is FF FF FF, -8388608 is 80 00 00.
        for (value, bytes) in [(-1, [0xff, 0xff, 0xff]), (-8_388_608, [0x80, 0, 0]), (40, [0, 0, 40])] {
            let mut out = Vec::new();
            Writer::new(&mut out).i24(value);
            assert_eq!(out, bytes);
            assert_eq!(Reader::new(&bytes).i24().unwrap(), value);
        }
    }

    #[test]
    fn a_length_is_written_when_its_content_is_known_and_never_outside() {
        let mut writer = Writer::with_capacity(8);
        writer.u16(0);
        writer.bytes(&[1, 2, 3]);
        writer.pad_to_word();
        writer.set_u16(0, 3);
        for beyond in [7, 8, usize::MAX] {
            writer.set_u16(beyond, 0xffff);
        }
        assert_eq!(writer.into_vec(), [0, 3, 1, 2, 3, 0, 0, 0]);
    }

    #[test]
    fn taking_from_the_back_leaves_the_front() {
        let mut reader = Reader::new(&[1, 2, 3, 4]);
        assert_eq!(reader.take_back(1).unwrap(), [4]);
        assert_eq!(reader.rest(), [1, 2, 3]);
    }
}
