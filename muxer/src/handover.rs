//! The wire format of a machine's state that goes on in another process: the steps that [`crate::bytes`] lacks.
//!
//! Input: bytes that may be cut short, changed or of another program. Output: values within their bounds, or a
//! [`HandoverError`]. A machine writes its own state, and reads it into one that is new: where reading fails, that one is
//! thrown away.

use std::borrow::BorrowMut;
use std::fmt;

use crate::bytes::{Reader, Truncated, Writer};
use crate::time::MediaTime;

/// Beyond this no time of ours is: 35 years.
const MICROS_MAX: u64 = 1 << 50;

/// Why a state cannot be gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverError {
    /// It ends inside a field.
    Truncated(Truncated),
    /// The field with this name has a value that it never had when the state was written.
    Value(&'static str),
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(error) => error.fmt(f),
            Self::Value(what) => write!(f, "{what} is out of bounds"),
        }
    }
}

impl std::error::Error for HandoverError {}

impl From<Truncated> for HandoverError {
    fn from(error: Truncated) -> Self {
        Self::Truncated(error)
    }
}

/// A yes or no.
pub fn write_flag<B: BorrowMut<Vec<u8>>>(writer: &mut Writer<B>, flag: bool) {
    writer.u8(u8::from(flag));
}

/// A yes or no, named `what` if it is neither.
pub fn read_flag(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, HandoverError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(HandoverError::Value(what)),
    }
}

/// A value that may be missing.
pub fn write_u32_or_none<B: BorrowMut<Vec<u8>>>(writer: &mut Writer<B>, value: Option<u32>) {
    write_flag(writer, value.is_some());
    writer.u32(value.unwrap_or(0));
}

/// A value that may be missing.
pub fn read_u32_or_none(reader: &mut Reader<'_>, what: &'static str) -> Result<Option<u32>, HandoverError> {
    let there = read_flag(reader, what)?;
    let value = reader.u32()?;
    Ok(there.then_some(value))
}

/// A time at or after the start of the timeline.
pub fn write_time<B: BorrowMut<Vec<u8>>>(writer: &mut Writer<B>, time: MediaTime) {
    writer.u64(u64::try_from(time.micros()).unwrap_or(0));
}

/// A time at or after the start of the timeline, with room for sums.
pub fn read_time(reader: &mut Reader<'_>, what: &'static str) -> Result<MediaTime, HandoverError> {
    let micros = reader.u64()?;
    let bounded = i64::try_from(micros).ok().filter(|_| micros <= MICROS_MAX);
    bounded.map(MediaTime::from_micros).ok_or(HandoverError::Value(what))
}

/// Bytes behind their length.
///
/// # Panics
/// Beyond 4 GiB; what is written is bounded far below.
pub fn write_bytes<B: BorrowMut<Vec<u8>>>(writer: &mut Writer<B>, bytes: &[u8]) {
    writer.u32(u32::try_from(bytes.len()).expect("bounded far below"));
    writer.bytes(bytes);
}

/// At most `max` bytes behind their length.
pub fn read_bytes<'a>(reader: &mut Reader<'a>, max: usize, what: &'static str) -> Result<&'a [u8], HandoverError> {
    let length = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
    if length > max {
        return Err(HandoverError::Value(what));
    }
    Ok(reader.take(length)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_value_out_of_bounds_is_named() {
        let mut written = Writer::<Vec<u8>>::default();
        written.u8(2);
        assert_eq!(read_flag(&mut Reader::new(written.as_slice()), "flag"), Err(HandoverError::Value("flag")));
        let mut written = Writer::<Vec<u8>>::default();
        written.u64(MICROS_MAX + 1);
        assert_eq!(read_time(&mut Reader::new(written.as_slice()), "time"), Err(HandoverError::Value("time")));
        let mut written = Writer::<Vec<u8>>::default();
        write_bytes(&mut written, b"four");
        assert_eq!(read_bytes(&mut Reader::new(written.as_slice()), 3, "bytes"), Err(HandoverError::Value("bytes")));
        assert_eq!(read_bytes(&mut Reader::new(written.as_slice()), 4, "bytes").unwrap(), b"four");
    }
}
