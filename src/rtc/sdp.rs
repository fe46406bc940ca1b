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

mod answer;
mod error;
mod offer;
mod recvonly;
mod text;
mod track;
mod transport;
mod trickle;

pub use answer::{Answer, OpusSettings, Origin};
pub use error::{AnswerError, DescriptionError, OfferError};
pub use offer::Offer;
pub use recvonly::{Granted, RecvOnlyOffer, RecvOnlyText};
pub use text::{MAX_DESCRIPTION_BYTES, MAX_DESCRIPTION_LINES, TextError};
pub use track::{Codec, Feedback, Format, HeaderExtensions, Track};
pub use transport::{BundleTransport, RemoteAddresses};
pub use trickle::{TrickleError, check_trickle};

#[cfg(test)]
mod tests;
