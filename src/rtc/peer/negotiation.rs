//! Who has described what: their offer and our answer, or our offer and their answer.
//!
//! ```text
//!  our offer ──▶ Offered ──their answer──▶ Stable ◀──our answer── their offer
//!                                            │  ▲
//!                                            └──┘ a further offer of theirs
//! ```

use std::net::SocketAddr;

use guest_relay_muxer::TrackKind;

use super::super::dtls::Certificate;
use super::super::ice;
use super::super::sdp::{
    Answer, BundleTransport, Offer, OpusSettings, Origin, RecvOnlyOffer, RecvOnlyText, RemoteAddresses, Track,
};
use super::super::srtp::SrtpProfile;

/// What is ours in every description, an offer or an answer.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// Addresses of our socket that the peer may reach, the preferred one first.
    pub candidates: Vec<SocketAddr>,
    /// Where the peer's bandwidth estimate starts: an answer tells it, an offer has no word for it.
    pub start_bitrate_kbps: u32,
    /// What its video should not exceed.
    pub max_bitrate_kbps: u32,
    /// For its audio encoder.
    pub opus: OpusSettings,
    /// Ours.
    pub certificate: Certificate,
    /// Offered in the handshake, in this order; the peer picks.
    pub srtp_profiles: Vec<SrtpProfile>,
    /// Which candidates of an `ice-lite` peer are checked.
    pub remote_addresses: RemoteAddresses,
}

/// How far the descriptions have come.
#[derive(Debug)]
pub(super) enum Negotiation {
    /// Our offer is out.
    Offered(RecvOnlyOffer),
    /// Both sides know each other.
    Stable(BundleTransport),
}

/// What is ours in every description of one session.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) config: PeerConfig,
    origin: Origin,
}

impl Local {
    /// Of a new session.
    pub(super) fn new(config: PeerConfig) -> Self {
        Self { config, origin: Origin::generate() }
    }

    /// Our next description is another version.
    pub(super) fn renew(&mut self) {
        self.origin = self.origin.next();
    }

    pub(super) fn certificate(&self) -> &Certificate {
        &self.config.certificate
    }

    pub(super) fn srtp_profiles(&self) -> &[SrtpProfile] {
        &self.config.srtp_profiles
    }

    /// The text of our answer.
    pub(super) fn answer(&self, offer: &Offer, credentials: &ice::Credentials) -> String {
        let config = &self.config;
        Answer {
            origin: self.origin,
            offer,
            credentials,
            fingerprint: config.certificate.fingerprint(),
            candidates: &config.candidates,
            start_bitrate_kbps: config.start_bitrate_kbps,
            max_bitrate_kbps: config.max_bitrate_kbps,
            opus: config.opus,
        }
        .to_sdp()
    }

    /// The text of our offer.
    pub(super) fn offer(&self, offer: &RecvOnlyOffer, credentials: &ice::Credentials) -> String {
        let config = &self.config;
        offer.to_sdp(&RecvOnlyText {
            origin: self.origin,
            credentials,
            fingerprint: config.certificate.fingerprint(),
            candidates: &config.candidates,
            max_bitrate_kbps: config.max_bitrate_kbps,
            opus: config.opus,
        })
    }
}

/// The tracks as they are received. An SFU that lists no way to ask for a keyframe gets PLIs all the same: it has
/// none of its own to send, so without them the picture would stay dark for as long as chance has it.
pub(super) fn received_tracks<'a>(transport: &BundleTransport, tracks: impl Iterator<Item = &'a Track>) -> Vec<Track> {
    let adjusted = tracks.cloned().map(|mut track| {
        let asks = track.feedback.pli || track.feedback.fir;
        track.feedback.pli |= transport.ice_lite && !asks && track.kind == TrackKind::Video;
        track
    });
    adjusted.collect()
}
