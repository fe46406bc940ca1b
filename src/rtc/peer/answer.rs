//! From an offer to a peer and its answer.

use std::net::SocketAddr;
use std::time::Instant;

use super::super::dtls::Certificate;
use super::super::ice;
use super::super::sdp::{Answer, Offer, OfferError, OpusSettings};
use super::super::srtp::SrtpProfile;
use super::media::Media;
use super::{Peer, PeerStats, State};

/// What is ours in every answer.
#[derive(Debug, Clone)]
pub struct AnswerConfig {
    /// Addresses of our socket that the peer may reach, the preferred one first.
    pub candidates: Vec<SocketAddr>,
    /// Where the peer's bandwidth estimate starts.
    pub start_bitrate_kbps: u32,
    /// What its video should not exceed.
    pub max_bitrate_kbps: u32,
    /// For its audio encoder.
    pub opus: OpusSettings,
    /// Ours.
    pub certificate: Certificate,
    /// Offered in the handshake, in this order; the peer picks.
    pub srtp_profiles: Vec<SrtpProfile>,
}

/// An answered offer.
#[derive(Debug)]
pub struct Answered {
    /// Enter [`Peer::local_ufrag`] into the routes before the answer goes out: the first check follows within
    /// milliseconds.
    pub peer: Peer,
    /// The answer.
    pub sdp: String,
}

/// Answers a WHIP client's or an SFU's offer. An `ice-lite` offer makes us the checking side; see
/// [`Peer::begin_checks`].
pub fn answer(offer: &str, config: &AnswerConfig, now: Instant) -> Result<Answered, OfferError> {
    let offer = Offer::parse(offer)?;
    let local = ice::Credentials::generate();
    let sdp = Answer {
        offer: &offer,
        credentials: &local,
        fingerprint: config.certificate.fingerprint(),
        candidates: &config.candidates,
        start_bitrate_kbps: config.start_bitrate_kbps,
        max_bitrate_kbps: config.max_bitrate_kbps,
        opus: config.opus,
    }
    .to_sdp();
    let remote = offer.credentials.clone();
    let remote_ufrag = remote.ufrag.clone();
    let ice = if offer.ice_lite {
        ice::Agent::controlling(local, remote, &offer.candidates, now)
    } else {
        ice::Agent::lite(local, remote, now)
    };
    let tracks = offer.tracks().cloned().collect();
    let peer = Peer {
        state: State::New,
        ice,
        remote_ufrag,
        certificate: config.certificate.clone(),
        fingerprints: offer.fingerprints.clone(),
        profiles: config.srtp_profiles.clone(),
        handshake: None,
        media: Media::new(tracks, config.max_bitrate_kbps),
        srtp_panicked: false,
        outputs: std::collections::VecDeque::new(),
        stats: PeerStats::default(),
    };
    Ok(Answered { peer, sdp })
}
