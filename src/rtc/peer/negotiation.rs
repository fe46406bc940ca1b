//! From descriptions to a peer: their offer and our answer, or our offer and their answer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use guest_relay_muxer::TrackKind;

use super::super::dtls::Certificate;
use super::super::ice;
use super::super::sdp::{
    Answer, AnswerError, BundleTransport, Granted, Offer, OfferError, OpusSettings, Origin, RecvOnlyOffer,
    RecvOnlyText, RemoteAddresses, Track,
};
use super::super::srtp::SrtpProfile;
use super::liveness::Liveness;
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
    /// Which candidates of an `ice-lite` peer are checked.
    pub remote_addresses: RemoteAddresses,
}

/// What is ours in an offer.
#[derive(Debug, Clone)]
pub struct OfferConfig {
    /// What to receive; audio has mid `0`, video mid `1`.
    pub kinds: Vec<TrackKind>,
    /// Addresses of our socket that the peer may reach, the preferred one first.
    pub candidates: Vec<SocketAddr>,
    /// What its video should not exceed.
    pub max_bitrate_kbps: u32,
    /// For its audio encoder.
    pub opus: OpusSettings,
    /// Ours.
    pub certificate: Certificate,
    /// Offered in the handshake, in this order; the peer picks.
    pub srtp_profiles: Vec<SrtpProfile>,
    /// Which candidates of the peer are checked.
    pub remote_addresses: RemoteAddresses,
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

/// An offer of ours that waits for its answer.
#[derive(Debug)]
pub struct Offering {
    /// Idle until [`Peer::handle_answer`].
    pub peer: Peer,
    /// The offer.
    pub sdp: String,
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
    config: AnswerConfig,
    origin: Origin,
}

/// Answers a WHIP client's or an SFU's offer. An `ice-lite` offer makes us the checking side; see
/// [`Peer::begin_checks`].
pub fn answer(offer: &str, config: &AnswerConfig, now: Instant) -> Result<Answered, OfferError> {
    let offer = Offer::parse(offer, config.remote_addresses)?;
    let credentials = ice::Credentials::generate();
    let local = Local { config: config.clone(), origin: Origin::generate() };
    let sdp = local.answer(&offer, &credentials);
    let remote = offer.transport.credentials.clone();
    let ice = if offer.transport.ice_lite {
        ice::Agent::controlling(credentials, remote, &offer.transport.candidates, now)
    } else {
        ice::Agent::lite(credentials, remote, now)
    };
    let tracks = received_tracks(&offer.transport, offer.tracks());
    let peer = Peer::new(ice, Negotiation::Stable(offer.transport), local, tracks);
    Ok(Answered { peer, sdp })
}

/// Offers to receive. We become the checking side; the peer says by [`Peer::handle_answer`] where to.
pub fn offer(config: &OfferConfig, now: Instant) -> Offering {
    let offer = RecvOnlyOffer::new(&config.kinds);
    let credentials = ice::Credentials::generate();
    let origin = Origin::generate();
    let sdp = offer.to_sdp(&RecvOnlyText {
        origin,
        credentials: &credentials,
        fingerprint: config.certificate.fingerprint(),
        candidates: &config.candidates,
        max_bitrate_kbps: config.max_bitrate_kbps,
        opus: config.opus,
    });
    let config = AnswerConfig {
        candidates: config.candidates.clone(),
        start_bitrate_kbps: config.max_bitrate_kbps,
        max_bitrate_kbps: config.max_bitrate_kbps,
        opus: config.opus,
        certificate: config.certificate.clone(),
        srtp_profiles: config.srtp_profiles.clone(),
        remote_addresses: config.remote_addresses,
    };
    let ice = ice::Agent::offering(credentials, now);
    let local = Local { config, origin };
    let peer = Peer::new(ice, Negotiation::Offered(offer), local, Vec::new());
    Offering { peer, sdp }
}

impl Local {
    pub(super) fn certificate(&self) -> &Certificate {
        &self.config.certificate
    }

    pub(super) fn srtp_profiles(&self) -> &[SrtpProfile] {
        &self.config.srtp_profiles
    }

    fn answer(&self, offer: &Offer, credentials: &ice::Credentials) -> String {
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
}

impl Peer {
    fn new(ice: ice::Agent, negotiation: Negotiation, local: Local, tracks: Vec<Track>) -> Self {
        let media = Media::new(tracks, local.config.max_bitrate_kbps);
        Self {
            state: State::New,
            ice,
            negotiation,
            local,
            handshake: None,
            media,
            srtp_panicked: false,
            rtp_came: false,
            liveness: Liveness::default(),
            outputs: VecDeque::new(),
            stats: PeerStats::default(),
        }
    }

    /// Takes the answer to our offer and begins to check the peer. An answer that is refused changes nothing.
    pub fn handle_answer(&mut self, answer: &str, now: Instant) -> Result<(), AnswerError> {
        let offer = match &self.negotiation {
            Negotiation::Offered(offer) if !self.is_over() => offer,
            _ => return Err(AnswerError::NoOfferOpen),
        };
        let Granted { transport, tracks } = offer.accept(answer, self.local.config.remote_addresses)?;
        self.ice.set_remote(transport.credentials.clone(), &transport.candidates, transport.ice_lite);
        let tracks = received_tracks(&transport, tracks.iter());
        self.media.set_tracks(tracks, now);
        self.negotiation = Negotiation::Stable(transport);
        self.begin_checks(now);
        Ok(())
    }

    /// Answers a further offer of the same session: m-lines that were added, or closed. ICE and DTLS go on as they
    /// are; an offer with other credentials or another certificate is another session's. One that is refused changes
    /// nothing.
    pub fn handle_offer(&mut self, offer: &str, now: Instant) -> Result<String, OfferError> {
        let Negotiation::Stable(transport) = &self.negotiation else {
            return Err(OfferError::OurOfferIsOpen);
        };
        let offer = Offer::parse(offer, self.local.config.remote_addresses)?;
        let goes_on = offer.transport.credentials == transport.credentials
            && offer.transport.fingerprints == transport.fingerprints;
        if !goes_on {
            return Err(OfferError::OtherTransport);
        }
        self.local.origin = self.local.origin.next();
        let tracks = received_tracks(&offer.transport, offer.tracks());
        self.media.set_tracks(tracks, now);
        let sdp = self.local.answer(&offer, self.ice.local());
        self.drive(now);
        Ok(sdp)
    }
}

/// The tracks as they are received. An SFU that lists no way to ask for a keyframe gets PLIs all the same: it has
/// none of its own to send, so without them the picture would stay dark for as long as chance has it.
fn received_tracks<'a>(transport: &BundleTransport, tracks: impl Iterator<Item = &'a Track>) -> Vec<Track> {
    let adjusted = tracks.cloned().map(|mut track| {
        let asks = track.feedback.pli || track.feedback.fir;
        track.feedback.pli |= transport.ice_lite && !asks && track.kind == TrackKind::Video;
        track
    });
    adjusted.collect()
}
