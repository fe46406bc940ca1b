//! Session descriptions (RFC 8866, RFC 9429, RFC 9725 §4.4): a WHIP or SFU offer in, what we take of it as
//! [`Offer`], and the answer's text out; or our own [`RecvOnlyOffer`] out and the answer to it in. The only place that
//! knows the `sdp` crate, which reads the lines; what they mean is decided here.
//!
//! One H.264 video track, one Opus audio track, each the first usable one; every other m-line is refused with port 0.
//! Codecs are picked by their properties, never by payload type. Header extensions and feedback are taken as offered
//! from a short list; `urn:3gpp:video-orientation` is not on it, so phones rotate the picture before they encode it.
//!
//! Bounds, checked before anything is parsed: [`MAX_DESCRIPTION_BYTES`], [`MAX_DESCRIPTION_LINES`]; work is linear in
//! the text.

use std::fmt;

use guest_relay_muxer::TrackKind;

use super::dtls::FingerprintError;

mod answer;
mod offer;
mod recvonly;
mod text;
mod track;
mod transport;
mod trickle;

pub use answer::{Answer, OpusSettings, Origin};
pub use offer::Offer;
pub use recvonly::{Granted, RecvOnlyOffer, RecvOnlyText};
pub use text::TextError;
pub use track::{Codec, Feedback, Format, HeaderExtensions, Track};
use transport::TransportError;
pub use transport::{RemoteAddresses, Transport};
pub use trickle::{TrickleError, check_trickle};

/// Longest description that is looked at.
pub const MAX_DESCRIPTION_BYTES: usize = 64 * 1024;
/// Most lines of a description that is looked at.
pub const MAX_DESCRIPTION_LINES: usize = 2000;

/// Why an offer was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfferError {
    /// It is no session description.
    Text(TextError),
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
    /// It continues another session: other ICE credentials or another certificate than before.
    OtherTransport,
    /// An offer of ours waits for its answer.
    OurOfferIsOpen,
}

impl OfferError {
    /// The HTTP status a WHIP endpoint answers with (RFC 9725 §4.2).
    pub fn status(&self) -> u16 {
        match self {
            Self::Text(TextError::TooLarge { .. }) => 413,
            Self::Text(_)
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
            | Self::OtherTransport
            | Self::OurOfferIsOpen
            | Self::Fingerprint(FingerprintError::Missing | FingerprintError::NoSha256) => 422,
        }
    }
}

impl fmt::Display for OfferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(error) => write!(f, "{error}"),
            Self::NothingSent => write!(f, "the offer sends neither audio nor video"),
            Self::NoH264 => {
                write!(f, "the offer's video has no H.264 with packetization-mode=1; this browser cannot send it")
            }
            Self::NoOpus => write!(f, "the offer's audio has no opus/48000/2"),
            Self::NoBundle => write!(f, "audio and video are not in one BUNDLE group"),
            Self::NoRtcpMux => write!(f, "a=rtcp-mux is missing"),
            Self::DuplicateMid => write!(f, "two m-lines have the same a=mid"),
            Self::DuplicatePayloadType => write!(f, "audio and video share a payload type"),
            Self::IceCredentials => write!(f, "a=ice-ufrag or a=ice-pwd is missing or malformed"),
            Self::NoCandidates => write!(f, "an ice-lite offer needs a UDP candidate"),
            Self::SetupActive => write!(f, "a=setup:active is not supported; offer actpass or passive"),
            Self::Setup => write!(f, "a=setup is malformed"),
            Self::Fingerprint(error) => write!(f, "{error}"),
            Self::OtherTransport => {
                write!(f, "the offer has other ICE credentials or another certificate than this session")
            }
            Self::OurOfferIsOpen => write!(f, "our own offer waits for its answer"),
        }
    }
}

impl std::error::Error for OfferError {}

impl From<TextError> for OfferError {
    fn from(error: TextError) -> Self {
        Self::Text(error)
    }
}

impl From<TransportError> for OfferError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::IceCredentials => Self::IceCredentials,
            TransportError::NoCandidates => Self::NoCandidates,
            TransportError::Fingerprint(error) => Self::Fingerprint(error),
        }
    }
}

/// Why an answer to an offer of ours was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerError {
    /// It is no session description.
    Text(TextError),
    /// No offer of ours waits for an answer.
    NoOfferOpen,
    /// Its m-lines are not those of the offer.
    OtherMLines,
    /// No m-line sends us anything.
    NothingGranted,
    /// An m-line sends, but not what we take.
    NoCodec(TrackKind),
    /// Two tracks that are not in one BUNDLE group.
    NoBundle,
    /// `a=rtcp-mux` is missing.
    NoRtcpMux,
    /// Two codecs have the same payload type.
    DuplicatePayloadType,
    /// As in [`OfferError::IceCredentials`].
    IceCredentials,
    /// The peer is `ice-lite` and has no candidate that could be checked.
    NoCandidates,
    /// `a=setup` is not `passive`: we are the DTLS client everywhere.
    NotPassive,
    /// `a=fingerprint` has nothing to hold the peer to.
    Fingerprint(FingerprintError),
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(error) => write!(f, "{error}"),
            Self::NoOfferOpen => write!(f, "no offer waits for an answer"),
            Self::OtherMLines => write!(f, "the answer's m-lines are not those of the offer"),
            Self::NothingGranted => write!(f, "the answer sends neither audio nor video"),
            Self::NoCodec(TrackKind::Video) => {
                write!(f, "the answer's video has no H.264 with packetization-mode=1")
            }
            Self::NoCodec(TrackKind::Audio) => {
                write!(f, "the answer's audio has no opus/48000/2")
            }
            Self::NoBundle => write!(f, "audio and video are not in one BUNDLE group"),
            Self::NoRtcpMux => write!(f, "a=rtcp-mux is missing"),
            Self::DuplicatePayloadType => write!(f, "two codecs share a payload type"),
            Self::IceCredentials => write!(f, "a=ice-ufrag or a=ice-pwd is missing or malformed"),
            Self::NoCandidates => write!(f, "an ice-lite answer needs a UDP candidate"),
            Self::NotPassive => write!(f, "a=setup is not passive"),
            Self::Fingerprint(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for AnswerError {}

impl From<TextError> for AnswerError {
    fn from(error: TextError) -> Self {
        Self::Text(error)
    }
}

impl From<TransportError> for AnswerError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::IceCredentials => Self::IceCredentials,
            TransportError::NoCandidates => Self::NoCandidates,
            TransportError::Fingerprint(error) => Self::Fingerprint(error),
        }
    }
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
