//! Why a packet was not taken.

use guest_relay_srtp_transform::Unauthentic;

use super::streams::MAX_SSRCS;
use crate::rtc::bytes::Truncated;

/// Why a packet was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SrtpError {
    /// Shorter than its own header fields and the tag say.
    TooShort {
        /// Bytes the next field takes.
        need: usize,
        /// Bytes that were there.
        have: usize,
    },
    /// The version field is not 2.
    NotVersion2,
    /// SRTCP with a cleared E flag.
    NotEncrypted,
    /// An SSRC nobody announced, and the trials for such are used up for the moment.
    UnknownSsrc,
    /// [`MAX_SSRCS`] other SSRCs are in use.
    TooManySsrcs,
    /// Seen before, or older than the replay window.
    Replayed,
    /// The tag does not fit.
    Unauthentic,
    /// 2^31 RTCP packets were protected with this key.
    KeyExhausted,
    /// A cipher's crate panicked, now or before. The session should end.
    Crashed,
}

impl From<Unauthentic> for SrtpError {
    fn from(Unauthentic: Unauthentic) -> Self {
        Self::Unauthentic
    }
}

impl From<Truncated> for SrtpError {
    fn from(truncated: Truncated) -> Self {
        Self::TooShort { need: truncated.need, have: truncated.have }
    }
}

impl std::fmt::Display for SrtpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooShort { need, have } => write!(f, "{need} bytes needed, {have} there"),
            Self::NotVersion2 => write!(f, "version is not 2"),
            Self::NotEncrypted => write!(f, "SRTCP packet is not encrypted"),
            Self::UnknownSsrc => write!(f, "SSRC was not announced and trials are used up"),
            Self::TooManySsrcs => write!(f, "{MAX_SSRCS} SSRCs are in use"),
            Self::Replayed => write!(f, "packet was seen before or is too old"),
            Self::Unauthentic => write!(f, "authentication tag does not fit"),
            Self::KeyExhausted => write!(f, "key has protected 2^31 packets"),
            Self::Crashed => write!(f, "SRTP implementation panicked"),
        }
    }
}

impl std::error::Error for SrtpError {}
