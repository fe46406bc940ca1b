//! One WebRTC peer that receives a guest's audio and video, sans-IO: datagrams and the time in; RTP packets, datagrams
//! to send and events out.
//!
//! ```text
//!  New ──check──▶ Checking ──nominated──▶ Handshaking ──keys──▶ Connected
//!   └───────┬───────┘                          │                    │ ▲  3 s of silence: Event::Quiet,
//!           │ NeverConnected                   │ FellSilent, Dtls   │ └─ and Event::Heard after it
//!           ▼                                  ▼                    ▼ FellSilent, SrtpPanicked
//!         Ended(reason) ◀──────────────────────┴────────────────────┘ from each by Peer::close: Closed
//!
//!  datagram ─▶ class ─▶ STUN ─▶ ice              from an address without an authenticated check: dropped
//!                       DTLS ─▶ dtls (client; starts when a pair stands)
//!                       RTP  ─▶ srtp ─▶ RTX undone, RED unpacked ─▶ Received
//!                       RTCP ─▶ srtp ─▶ sender reports, BYE      feedback ─▶ srtp ─▶ datagram
//! ```
//!
//! The driver hands in all datagrams that are there, calls [`Peer::handle_batch_end`], drains [`Peer::poll_output`] after each
//! call, and calls [`Peer::handle_timeout`] when [`Peer::poll_timeout`] is due. Nothing is sent before a pair is nominated, or anywhere but to that pair, except
//! replies to authenticated checks; once there is media, feedback goes to where SRTP comes from ([`ice`]). A panic in one of the crates behind `dtls`, `srtp` and `sdp` ends this peer alone.
//!
//! Bounds: those of the parts; the output queue holds what one call produced.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;

use super::demux::Class;
use super::dtls::Handshake;
use super::ice;
use super::sdp::{AnswerError, Granted, Offer, OfferError, RecvOnlyOffer, Track};
use super::srtp::{Keys, SrtpError};
use crate::deadline::earliest;

mod interface;
mod liveness;
mod media;
mod negotiation;
mod received;
mod stats;

pub use super::feedback::nack::DEFAULT_MAX_WAIT;
pub use interface::{EndReason, Event, Output, State};
use liveness::Liveness;
pub use liveness::QUIET_AFTER;
use media::{Arrived, Media};
pub use negotiation::PeerConfig;
use negotiation::{Local, Negotiation, received_tracks};
pub use received::Received;
pub use stats::{Delivery, PeerStats, TrackStats};

/// The state machine; see the module's description.
pub struct Peer {
    state: State,
    ice: ice::Agent,
    negotiation: Negotiation,
    local: Local,
    handshake: Option<Handshake>,
    media: Media,
    /// Set where the borrow of a received packet forbids to end the session at once.
    srtp_panicked: bool,
    /// RTP came that no feedback was looked for since.
    rtp_came: bool,
    liveness: Liveness,
    outputs: VecDeque<Output>,
    stats: PeerStats,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({}, {:?})", self.local_ufrag(), self.state)
    }
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

/// Answers a WHIP client's or an SFU's offer. An `ice-lite` offer makes us the checking side; see
/// [`Peer::begin_checks`].
pub fn answer(offer: &str, config: &PeerConfig, now: Instant) -> Result<Answered, OfferError> {
    let offer = Offer::parse(offer, config.remote_addresses)?;
    let credentials = ice::Credentials::generate();
    let local = Local::new(config.clone());
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

/// Offers to receive tracks of these kinds; audio has mid `0`, video mid `1`. We become the checking side; the peer says by
/// [`Peer::handle_answer`] where to.
pub fn offer(kinds: &[TrackKind], config: &PeerConfig, now: Instant) -> Offering {
    let offer = RecvOnlyOffer::new(kinds);
    let credentials = ice::Credentials::generate();
    // An offer cannot say where the peer's estimate starts; a later answer of ours does not hold it back.
    let local = Local::new(PeerConfig { start_bitrate_kbps: config.max_bitrate_kbps, ..config.clone() });
    let sdp = local.offer(&offer, &credentials);
    let ice = ice::Agent::offering(credentials, now);
    let peer = Peer::new(ice, Negotiation::Offered(offer), local, Vec::new());
    Offering { peer, sdp }
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

    /// The ufrag that the peer's checks name: for the driver's routes.
    pub fn local_ufrag(&self) -> &str {
        &self.ice.local().ufrag
    }

    /// Where the session stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    /// When something authentic of the peer came last: a STUN message, media or a report.
    pub fn last_heard(&self) -> Option<Instant> {
        self.ice.last_heard()
    }

    /// Begins connectivity checks towards an `ice-lite` peer: call when it has our answer. Towards a browser, which
    /// checks by itself, it does nothing. [`Peer::handle_answer`] begins them itself.
    pub fn begin_checks(&mut self, now: Instant) {
        self.ice.begin_checks(now);
        self.drive(now);
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
        self.local.renew();
        let tracks = received_tracks(&offer.transport, offer.tracks());
        self.media.set_tracks(tracks, now);
        let sdp = self.local.answer(&offer, self.ice.local());
        self.drive(now);
        Ok(sdp)
    }

    /// The peer's own ufrag, once its description is known: another one in a later message is an ICE restart.
    pub fn remote_ufrag(&self) -> Option<&str> {
        match &self.negotiation {
            Negotiation::Stable(transport) => Some(&transport.credentials.ufrag),
            Negotiation::Offered(_) => None,
        }
    }

    /// Packets of a track's own stream so far.
    pub fn packets(&self, kind: TrackKind) -> u64 {
        match kind {
            TrackKind::Audio => self.stats.audio.packets,
            TrackKind::Video => self.stats.video.packets,
        }
    }

    /// Takes a datagram of this class that came from `from` at `now`; gives the RTP packet in it, if it is one of a track.
    /// When all datagrams that are there have been handed in, [`Peer::handle_batch_end`] follows.
    pub fn handle_datagram(
        &mut self,
        class: Class,
        datagram: &[u8],
        from: SocketAddr,
        now: Instant,
    ) -> Option<Received<'_>> {
        if self.is_over() {
            return None;
        }
        match class {
            Class::Stun => {
                match self.ice.handle_datagram(datagram, from, now) {
                    Ok(()) => self.stats.stun_accepted += 1,
                    Err(_) => self.stats.stun_ignored += 1,
                }
                self.drive(now);
            }
            Class::Other => self.stats.unknown_datagrams += 1,
            _ if !self.ice.is_validated(from) => self.stats.from_unvalidated_address += 1,
            Class::Rtp | Class::Rtcp if !self.media.has_keys() => self.stats.untimely_media += 1,
            Class::Dtls => {
                if let Some(handshake) = &mut self.handshake {
                    handshake.handle_datagram(datagram, now);
                    self.drive(now);
                } else {
                    self.stats.untimely_dtls += 1;
                }
            }
            Class::Rtcp => {
                let result = self.media.handle_rtcp(datagram, now, &mut self.outputs, &mut self.stats);
                self.srtp_panicked |= result == Err(SrtpError::Crashed);
                if let Ok(is_newest) = result {
                    self.ice.record_media(from, is_newest, now);
                }
                self.drive(now);
            }
            Class::Rtp => {
                self.rtp_came = true;
                match self.media.handle_rtp(datagram, now, &mut self.outputs, &mut self.stats) {
                    Ok(Arrived { is_newest, received }) => {
                        self.ice.record_media(from, is_newest, now);
                        if self.liveness.is_heard_again(Some(now), now) {
                            self.outputs.push_back(Output::Event(Event::Heard));
                        }
                        return received;
                    }
                    Err(error) => self.srtp_panicked |= error == SrtpError::Crashed,
                }
            }
        }
        None
    }

    /// Whether the offer has a track of this kind that we take.
    pub fn has_track(&self, kind: TrackKind) -> bool {
        self.media.has_track(kind)
    }

    /// How the packets of a track reach us.
    pub fn delivery(&self, kind: TrackKind) -> Delivery {
        self.media.delivery(kind)
    }

    /// Asks for a keyframe now and again until [`Peer::notify_keyframe`], at most twice a second.
    pub fn request_keyframe(&mut self, now: Instant) {
        self.media.request_keyframe(now);
        self.drive(now);
    }

    /// What the peer sends should not exceed this from now on. It heeds that where REMB was negotiated; else what its
    /// description was answered with holds.
    pub fn set_max_bitrate(&mut self, max_bitrate_kbps: u32, now: Instant) {
        self.media.set_max_bitrate(max_bitrate_kbps, now);
        self.drive(now);
    }

    /// A missing packet of this track is worth waiting for so long, from when the gap shows; it is not asked for when the
    /// answer would come later. Until the first call [`DEFAULT_MAX_WAIT`] holds.
    pub fn set_max_wait(&mut self, kind: TrackKind, max_wait: Duration) {
        self.media.set_max_wait(kind, max_wait);
    }

    /// A keyframe came: no more requests.
    pub fn notify_keyframe(&mut self) {
        self.media.notify_keyframe();
    }

    /// All datagrams that were there have been handed in. Feedback that is nearly due leaves now, with the wake-up that a
    /// packet has caused anyway; a packet that one of them brought is not asked for.
    pub fn handle_batch_end(&mut self, now: Instant) {
        if mem::take(&mut self.rtp_came) && self.media.is_ready_to_transmit(now) {
            self.drive(now);
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Peer::handle_timeout`] is due; `None` once the session is over.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let handshake = self.handshake.as_ref().and_then(Handshake::poll_timeout);
        let quiet = match self.state {
            State::Connected => self.liveness.poll_timeout(self.last_heard()),
            _ => None,
        };
        earliest([self.ice.poll_timeout(), handshake, self.media.poll_timeout(), quiet])
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_over() {
            return;
        }
        self.ice.handle_timeout(now);
        if let Some(handshake) = &mut self.handshake {
            handshake.handle_timeout(now);
        }
        if self.state == State::Connected && self.liveness.falls_quiet(self.last_heard(), now) {
            self.push_event(Event::Quiet);
        }
        self.drive(now);
    }

    /// Ends the session and says so to the peer.
    pub fn close(&mut self, now: Instant) {
        if self.is_over() {
            return;
        }
        if let Some(bye) = self.media.bye(now) {
            self.transmit(bye);
        }
        self.end(EndReason::Closed);
    }

    /// Counters and measurements.
    pub fn stats(&self) -> PeerStats {
        let mut stats = self.stats.clone();
        stats.remote_address = self.ice.selected();
        stats.ice_round_trip = self.ice.round_trip();
        self.media.fill_stats(&mut stats);
        stats
    }

    /// Carries what the parts want from one to the other and to the outputs.
    fn drive(&mut self, now: Instant) {
        if self.srtp_panicked {
            self.end(EndReason::SrtpPanicked);
        }
        while let Some(output) = self.ice.poll_output() {
            self.handle_ice_output(output, now);
        }
        self.drive_handshake(now);
        if self.is_over() {
            return;
        }
        if self.liveness.is_heard_again(self.ice.last_heard(), now) {
            self.push_event(Event::Heard);
        }
        while let Some(compound) = self.media.poll_transmit(now) {
            match compound {
                Ok(datagram) => self.transmit(datagram),
                Err(SrtpError::Crashed) => return self.end(EndReason::SrtpPanicked),
                Err(_) => self.stats.rtcp_not_sent += 1,
            }
        }
    }

    fn handle_ice_output(&mut self, output: ice::Output, now: Instant) {
        if self.is_over() {
            return;
        }
        match output {
            ice::Output::Transmit { to, datagram } => {
                self.outputs.push_back(Output::Transmit { to, datagram });
            }
            ice::Output::Validated(address) => {
                if self.state == State::New {
                    self.state = State::Checking;
                }
                self.push_event(Event::AddressValidated(address));
            }
            ice::Output::Forgotten(address) => self.push_event(Event::AddressForgotten(address)),
            ice::Output::Selected(_) => {
                if let Negotiation::Stable(transport) = &self.negotiation
                    && matches!(self.state, State::New | State::Checking)
                {
                    self.state = State::Handshaking;
                    self.handshake = Some(Handshake::new(
                        self.local.certificate(),
                        transport.fingerprints.clone(),
                        self.local.srtp_profiles(),
                        now,
                    ));
                }
            }
            ice::Output::Expired => self.end(match self.state {
                State::New | State::Checking => EndReason::NeverConnected,
                _ => EndReason::FellSilent,
            }),
        }
    }

    fn drive_handshake(&mut self, now: Instant) {
        let Some(mut handshake) = self.handshake.take() else {
            return;
        };
        while let Some(datagram) = handshake.poll_transmit() {
            self.transmit(datagram);
        }
        match handshake.poll_result() {
            None => self.handshake = Some(handshake),
            Some(result) => {
                self.stats.dtls_dropped = handshake.dropped();
                match result {
                    Ok(keys) => self.connect(&keys, now),
                    Err(error) => self.end(EndReason::Dtls(error)),
                }
            }
        }
    }

    fn connect(&mut self, keys: &Keys, now: Instant) {
        self.state = State::Connected;
        self.stats.profile = Some(keys.profile);
        self.media.start(keys, self.ice.round_trip(), now);
        self.push_event(Event::Connected { profile: keys.profile });
    }

    /// Sends to the nominated pair, or nowhere.
    fn transmit(&mut self, datagram: Vec<u8>) {
        if let Some(to) = self.ice.selected() {
            self.outputs.push_back(Output::Transmit { to, datagram });
        }
    }

    fn push_event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn end(&mut self, reason: EndReason) {
        if self.is_over() {
            return;
        }
        self.state = State::Ended(reason.clone());
        self.handshake = None;
        self.media.fill_stats(&mut self.stats);
        self.media.stop();
        self.push_event(Event::Ended(reason));
    }
}
