//! The envelope of a slot's state that goes on in another process.
//!
//! ```text
//! "GRHO"  version u32   length u32   CRC-32 of the rest u32
//! SHA-256 of the target's URL   clock u64: nanoseconds since the boot   muxer   publisher
//! ```
//! Input: what the parts write of themselves, or bytes from anywhere. Output: sealed bytes, or the parts' share of them and
//! how long ago they were written. A state of another version, for another target or too old is refused: whoever has its
//! socket closes that, and the publication begins anew.
//!
//! Bounds: [`STATE_MAX`], [`AWAY_MAX`].

use std::fmt;
use std::time::Duration;

use guest_relay_muxer::bytes::{Reader, Writer};
use guest_relay_muxer::handover::HandoverError;

use crate::rtmp::Target;

const MAGIC: [u8; 4] = *b"GRHO";
/// Another one for each change of what any part writes of itself.
const VERSION: u32 = 1;
/// The largest state: 4 MiB not written yet, 2 MiB of a picture, 1 MiB of a server's message, and headers.
pub const STATE_MAX: usize = 8 << 20;
/// The oldest state that is gone on with. Servers end a connection that was idle for ten seconds, and the silence of so long
/// a time fits in one go.
pub const AWAY_MAX: Duration = Duration::from_secs(10);

/// Why a publication cannot be gone on in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptError {
    /// The slot has a session or a publication.
    InUse,
    /// It is no state at all, or one that was changed.
    NoState,
    /// Another program wrote it.
    Version(u32),
    /// The slot publishes elsewhere now.
    OtherTarget,
    /// So long ago, or in the future.
    Away(Duration),
    State(HandoverError),
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => f.write_str("the slot is in use"),
            Self::NoState => f.write_str("its state is damaged"),
            Self::Version(version) => write!(f, "its state is of version {version}, this program's is {VERSION}"),
            Self::OtherTarget => f.write_str("relay.output is another one now"),
            Self::Away(away) => write!(f, "it was left {away:.1?} ago, {AWAY_MAX:?} at most are bridged"),
            Self::State(error) => write!(f, "its state makes no sense: {error}"),
        }
    }
}

impl std::error::Error for AdoptError {}

impl From<HandoverError> for AdoptError {
    fn from(error: HandoverError) -> Self {
        Self::State(error)
    }
}

/// The state that `write` writes, sealed; nothing when it returns false, or beyond [`STATE_MAX`].
pub(super) fn seal(
    target: &Target,
    clock: Duration,
    write: impl FnOnce(&mut Writer<&mut Vec<u8>>) -> bool,
) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.bytes(&target.fingerprint());
    writer.u64(u64::try_from(clock.as_nanos()).ok()?);
    if !write(&mut writer) {
        return None;
    }
    let mut sealed = Writer::with_capacity(body.len() + 16);
    sealed.bytes(&MAGIC);
    sealed.u32(VERSION);
    sealed.u32(u32::try_from(body.len()).ok()?);
    sealed.u32(crc32fast::hash(&body));
    sealed.bytes(&body);
    Some(sealed.into_vec()).filter(|sealed| sealed.len() <= STATE_MAX)
}

/// The parts' share of a sealed state, and how long ago it was written.
pub(super) fn open<'a>(
    sealed: &'a [u8],
    target: &Target,
    clock: Duration,
) -> Result<(Reader<'a>, Duration), AdoptError> {
    let mut reader = Reader::new(sealed);
    let damaged = |_| AdoptError::NoState;
    if reader.take_array().map_err(damaged)? != MAGIC {
        return Err(AdoptError::NoState);
    }
    let version = reader.u32().map_err(damaged)?;
    if version != VERSION {
        return Err(AdoptError::Version(version));
    }
    let length = reader.u32().map_err(damaged)?;
    let checksum = reader.u32().map_err(damaged)?;
    let body = reader.rest();
    if usize::try_from(length) != Ok(body.len()) || sealed.len() > STATE_MAX || crc32fast::hash(body) != checksum {
        return Err(AdoptError::NoState);
    }
    if reader.take_array().map_err(damaged)? != target.fingerprint() {
        return Err(AdoptError::OtherTarget);
    }
    let written = Duration::from_nanos(reader.u64().map_err(damaged)?);
    match clock.checked_sub(written).filter(|away| *away <= AWAY_MAX) {
        Some(away) => Ok((reader, away)),
        None => Err(AdoptError::Away(clock.abs_diff(written))),
    }
}

/// Nothing is left of a state that was read.
pub(super) fn end(state: &Reader<'_>) -> Result<(), AdoptError> {
    if state.is_empty() { Ok(()) } else { Err(AdoptError::State(HandoverError::Value("what follows it"))) }
}
