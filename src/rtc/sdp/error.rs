//! Why a description was refused, the peer's offer or its answer to ours.

use std::fmt;

use guest_relay_muxer::TrackKind;

use super::super::dtls::FingerprintError;
use super::text::TextError;

/// What offers and answers are refused for alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DescriptionError {
    /// It is no session description.
    Text(TextError),
    /// Two tracks that are not in one BUNDLE group.
    NoBundle,
    /// `a=rtcp-mux` is missing.
    NoRtcpMux,
    /// Two codecs have the same payload type, by which we tell them apart.
    DuplicatePayloadType,
    /// `a=ice-ufrag` or `a=ice-pwd` is missing, too short, too long or has other characters than ice-char.
    IceCredentials,
    /// The peer is `ice-lite` and has no candidate that could be checked.
    NoCandidates,
    /// `a=fingerprint` has nothing to hold the peer to.
    Fingerprint(FingerprintError),
}

impl fmt::Display for DescriptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(error) => write!(f, "{error}"),
            Self::NoBundle => write!(f, "audio and video are not in one BUNDLE group"),
            Self::NoRtcpMux => write!(f, "a=rtcp-mux is missing"),
            Self::DuplicatePayloadType => write!(f, "two codecs share a payload type"),
            Self::IceCredentials => write!(f, "a=ice-ufrag or a=ice-pwd is missing or malformed"),
            Self::NoCandidates => write!(f, "an ice-lite peer needs a UDP candidate"),
            Self::Fingerprint(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for DescriptionError {}

/// Why an offer was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfferError {
    /// A fault that an answer could have, too.
    Description(DescriptionError),
    /// No m-line sends audio or video.
    NothingSent,
    /// Video is offered without H.264 that we read.
    NoH264,
    /// Audio is offered without `opus/48000/2`.
    NoOpus,
    /// Two m-lines have the same `a=mid`.
    DuplicateMid,
    /// `a=setup` is `active` or missing (which means the same): we are the DTLS client everywhere.
    SetupActive,
    /// `a=setup` is none of the words it may be.
    Setup,
    /// It continues another session: other ICE credentials or another certificate than before.
    OtherTransport,
    /// An offer of ours waits for its answer.
    OurOfferIsOpen,
}

impl fmt::Display for OfferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Description(error) => write!(f, "{error}"),
            Self::NothingSent => write!(f, "the offer sends neither audio nor video"),
            Self::NoH264 => {
                write!(f, "the offer's video has no H.264 (Baseline, Main or High), the only codec taken here")
            }
            Self::NoOpus => write!(f, "the offer's audio has no opus/48000/2"),
            Self::DuplicateMid => write!(f, "two m-lines have the same a=mid"),
            Self::SetupActive => write!(f, "a=setup:active is not supported; offer actpass or passive"),
            Self::Setup => write!(f, "a=setup is malformed"),
            Self::OtherTransport => {
                write!(f, "the offer has other ICE credentials or another certificate than this session")
            }
            Self::OurOfferIsOpen => write!(f, "our own offer waits for its answer"),
        }
    }
}

impl std::error::Error for OfferError {}

impl From<DescriptionError> for OfferError {
    fn from(error: DescriptionError) -> Self {
        Self::Description(error)
    }
}

/// Why an answer to an offer of ours was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerError {
    /// A fault that an offer could have, too.
    Description(DescriptionError),
    /// No offer of ours waits for an answer.
    NoOfferOpen,
    /// Its m-lines are not those of the offer.
    OtherMLines,
    /// No m-line sends us anything.
    NothingGranted,
    /// An m-line sends, but not what we take.
    NoCodec(TrackKind),
    /// `a=setup` is not `passive`: we are the DTLS client everywhere.
    NotPassive,
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Description(error) => write!(f, "{error}"),
            Self::NoOfferOpen => write!(f, "no offer waits for an answer"),
            Self::OtherMLines => write!(f, "the answer's m-lines are not those of the offer"),
            Self::NothingGranted => write!(f, "the answer sends neither audio nor video"),
            Self::NoCodec(TrackKind::Video) => {
                write!(f, "the answer's video has no H.264 (Baseline, Main or High)")
            }
            Self::NoCodec(TrackKind::Audio) => {
                write!(f, "the answer's audio has no opus/48000/2")
            }
            Self::NotPassive => write!(f, "a=setup is not passive"),
        }
    }
}

impl std::error::Error for AnswerError {}

impl From<DescriptionError> for AnswerError {
    fn from(error: DescriptionError) -> Self {
        Self::Description(error)
    }
}
