//! The HTTP status that a WHIP endpoint answers with (RFC 9725 §4.2), by what was refused and why.

use crate::rtc::dtls::FingerprintError;
use crate::rtc::sdp::{DescriptionError, OfferError, TextError, TrickleError};
use crate::sfu::error::Cause;
use crate::sfu::publish::PublishError;

/// Of an offer that we cannot answer.
pub fn of_offer(error: &OfferError) -> u16 {
    match error {
        OfferError::Description(error) => of_description(error),
        OfferError::DuplicateMid | OfferError::Setup => 400,
        OfferError::NoH264 | OfferError::NoOpus => 406,
        OfferError::NothingSent | OfferError::SetupActive | OfferError::OtherTransport | OfferError::OurOfferIsOpen => {
            422
        }
    }
}

fn of_description(error: &DescriptionError) -> u16 {
    match error {
        DescriptionError::Text(TextError::TooLarge { .. }) => 413,
        DescriptionError::Text(_)
        | DescriptionError::DuplicatePayloadType
        | DescriptionError::IceCredentials
        | DescriptionError::Fingerprint(FingerprintError::Malformed | FingerprintError::TooMany) => 400,
        DescriptionError::NoBundle
        | DescriptionError::NoRtcpMux
        | DescriptionError::NoCandidates
        | DescriptionError::Fingerprint(FingerprintError::Missing | FingerprintError::NoSha256) => 422,
    }
}

/// Of a fragment with candidates.
pub fn of_trickle(error: TrickleError) -> u16 {
    match error {
        TrickleError::TooLarge => 413,
        TrickleError::Syntax => 400,
        TrickleError::Restart => 422,
    }
}

/// Of an offer that was not published at the SFU.
pub fn of_publication(error: &PublishError) -> u16 {
    match error {
        PublishError::Offer(error) => of_offer(error),
        PublishError::FurtherMedia | PublishError::NoMid => 400,
        PublishError::Call(error) if error.is_misconfiguration() => 503,
        PublishError::Call(error) => match error.cause {
            Cause::Unreachable(_) => 503,
            Cause::Refused { status: 429, .. } => 429,
            // The API found fault with the offer that we passed on.
            Cause::Refused { status: 400, ref code, .. } if code == "invalid_session_description" => 400,
            Cause::Refused { .. } | Cause::ReplyLost(_) | Cause::TimedOut(_) => 502,
        },
        PublishError::Track { .. } | PublishError::NoAnswer(_) => 502,
    }
}
