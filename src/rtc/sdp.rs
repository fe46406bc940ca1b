//! Session descriptions (RFC 8866, RFC 9429, RFC 9725 section 4.4): a WHIP or SFU offer in, what we take of it as
//! [`Offer`], and the answer's text out. The only place that knows the `sdp` crate, which reads the lines; what they
//! mean is decided here.
//!
//! One H.264 video track, one Opus audio track, each the first usable one; every other m-line is refused with port 0.
//! Codecs are picked by their properties, never by payload type. Header extensions and feedback are taken as offered
//! from a short list; `urn:3gpp:video-orientation` is not on it, so phones rotate the picture before they encode it.
//!
//! Bounds, checked before anything is parsed: [`MAX_DESCRIPTION_BYTES`], [`MAX_DESCRIPTION_LINES`]; work is linear in
//! the text.

use std::fmt;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use guest_relay_muxer::TrackKind;
use sdp::SessionDescription;

use super::dtls::FingerprintError;

mod answer;
mod offer;
mod track;
mod trickle;

pub use answer::{Answer, OpusSettings};
pub use offer::Offer;
pub use track::{Feedback, HeaderExtensions, Track};
pub use trickle::{TrickleError, check_trickle};

/// Longest description that is looked at.
pub const MAX_DESCRIPTION_BYTES: usize = 64 * 1024;
/// Most lines of a description that is looked at.
pub const MAX_DESCRIPTION_LINES: usize = 2000;

/// Why an offer was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfferError {
    /// More than [`MAX_DESCRIPTION_BYTES`] or [`MAX_DESCRIPTION_LINES`].
    TooLarge {
        /// Bytes of the offer.
        bytes: usize,
        /// Its lines, counted as far as the bytes allow.
        lines: usize,
    },
    /// The text is no session description.
    Syntax(String),
    /// The `sdp` crate panicked on it.
    ParserPanicked,
    /// No m-line sends audio or video.
    NothingSent,
    /// Video is offered without H.264 in packetization mode 1.
    NoH264,
    /// Audio is offered without `opus/48000/2`.
    NoOpus,
    /// Two tracks that are not in one BUNDLE group.
    NoBundle,
    /// `a=rtcp-mux` is missing.
    NoRtcpMux,
    /// Two m-lines have the same `a=mid`.
    DuplicateMid,
    /// Two codecs have the same payload type, by which we tell them apart.
    DuplicatePayloadType,
    /// `a=ice-ufrag` or `a=ice-pwd` is missing, too short, too long or has other characters than ice-char.
    IceCredentials,
    /// The offer is `ice-lite` and has no candidate that could be checked.
    NoCandidates,
    /// `a=setup` is `active` or missing (which means the same): we are the DTLS client everywhere.
    SetupActive,
    /// `a=setup` is none of the words it may be.
    Setup,
    /// `a=fingerprint` has nothing to hold the peer to.
    Fingerprint(FingerprintError),
}

impl OfferError {
    /// The HTTP status a WHIP endpoint answers with (RFC 9725 section 4.2).
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } => 413,
            Self::Syntax(_)
            | Self::ParserPanicked
            | Self::DuplicateMid
            | Self::DuplicatePayloadType
            | Self::IceCredentials
            | Self::Setup
            | Self::Fingerprint(FingerprintError::Malformed | FingerprintError::TooMany) => 400,
            Self::NoH264 | Self::NoOpus => 406,
            Self::NothingSent
            | Self::NoBundle
            | Self::NoRtcpMux
            | Self::NoCandidates
            | Self::SetupActive
            | Self::Fingerprint(FingerprintError::Missing | FingerprintError::NoSha256) => 422,
        }
    }
}

impl fmt::Display for OfferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, lines } => write!(
                f,
                "the offer has {bytes} bytes and {lines} lines; {MAX_DESCRIPTION_BYTES} and {MAX_DESCRIPTION_LINES} are accepted"
            ),
            Self::Syntax(detail) => write!(f, "the offer is not SDP: {detail}"),
            Self::ParserPanicked => write!(f, "the offer is not SDP"),
            Self::NothingSent => write!(f, "the offer sends neither audio nor video"),
            Self::NoH264 => write!(
                f,
                "the offer's video has no H.264 with packetization-mode=1; this browser cannot send it"
            ),
            Self::NoOpus => write!(f, "the offer's audio has no opus/48000/2"),
            Self::NoBundle => write!(f, "audio and video are not in one BUNDLE group"),
            Self::NoRtcpMux => write!(f, "a=rtcp-mux is missing"),
            Self::DuplicateMid => write!(f, "two m-lines have the same a=mid"),
            Self::DuplicatePayloadType => write!(f, "audio and video share a payload type"),
            Self::IceCredentials => write!(f, "a=ice-ufrag or a=ice-pwd is missing or malformed"),
            Self::NoCandidates => write!(f, "an ice-lite offer needs a UDP candidate"),
            Self::SetupActive => write!(
                f,
                "a=setup:active is not supported; offer actpass or passive"
            ),
            Self::Setup => write!(f, "a=setup is malformed"),
            Self::Fingerprint(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for OfferError {}

/// Reads the lines, after their number and size were checked.
fn parse_lines(text: &str) -> Result<SessionDescription, OfferError> {
    let bytes = text.len();
    let within = text.get(..MAX_DESCRIPTION_BYTES).unwrap_or(text);
    let lines = within.bytes().filter(|byte| *byte == b'\n').count();
    if bytes > MAX_DESCRIPTION_BYTES || lines > MAX_DESCRIPTION_LINES {
        return Err(OfferError::TooLarge { bytes, lines });
    }
    // Parts of the offer come back in the answer: no control character may come back with them.
    let stray_control = text
        .replace("\r\n", "\n")
        .bytes()
        .any(|byte| byte.is_ascii_control() && !matches!(byte, b'\n' | b'\t'));
    if stray_control {
        return Err(OfferError::Syntax("control characters".to_owned()));
    }
    catch_unwind(AssertUnwindSafe(|| {
        SessionDescription::unmarshal(&mut Cursor::new(text.as_bytes()))
    }))
    .map_err(|_| OfferError::ParserPanicked)?
    .map_err(|error| OfferError::Syntax(shortened(&error.to_string())))
}

/// What goes into an error text: printable, one line, not the peer's whole offer.
fn shortened(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .take(80)
        .collect()
}

fn kind_of(media: &str) -> Option<TrackKind> {
    match media {
        "audio" => Some(TrackKind::Audio),
        "video" => Some(TrackKind::Video),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
