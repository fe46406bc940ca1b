//! The HTTP status that a WHIP endpoint answers with (RFC 9725 §4.2), by what was refused and why.

use crate::rtc::dtls::FingerprintError;
use crate::rtc::sdp::{DescriptionError, OfferError, TextError, TrickleError};

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
