//! One guest, one slot of the daemon and one RTMP server, joined by simulated networks in virtual time.
//!
//! ```text
//!  loadgen's guest ─▶ netem ─▶ rtc::peer ─▶ relay ─▶ rtmp::Publisher ─▶ TCP ─▶ strict ingest ─▶ ledger
//!        (str0m)   ◀─ netem ◀─                                       ◀─     ◀─
//! ```
//!
//! Everything but the sockets is the daemon's own code, DTLS and SRTP included. What stands between the parts is what
//! `media_loop` does with them, in the same order: whatever is due, then each output until there is none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_relay::relay::{Relay, RelayConfig};
use guest_relay::rtc::dtls::Certificate;
use guest_relay::rtc::peer::{self, AnswerConfig, Answered, Peer};
use guest_relay::rtc::sdp::{OpusSettings, RemoteAddresses};
use guest_relay::rtc::srtp::SrtpProfile;
use guest_relay::rtmp::{self, Target};
use guest_relay_muxer::{AudioConfig, ReorderLimits, TrackKind, VideoConfig};
use loadgen::clip::Clip;
use loadgen::guest::{Guest, GuestConfig};
use loadgen::netem::{Impairments, Netem, NetemStats};
use loadgen::replay::Replay;

use crate::direct::Direct;
use crate::ledger::Ledger;
use crate::server::{Mood, Server};

/// The daemon's defaults (`relay.hold_seconds`, `relay.keyframe_interval_seconds`, `rtc.start_bitrate_kbps`,
/// `rtc.max_bitrate_kbps`).
const HOLD: Duration = Duration::from_secs(15);
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(4);
const START_BITRATE_KBPS: u32 = 1500;
const MAX_BITRATE_KBPS: u32 = 2500;
/// How often the media thread tells the relay of round trip and jitter.
const MEASURE_INTERVAL: Duration = Duration::from_millis(500);
const OPUS: OpusSettings = OpusSettings { max_average_bitrate_bps: 64_000, stereo: false };

/// What a world begins with.
#[derive(Clone, Debug)]
pub struct Setup {
    pub clip: Arc<Clip>,
    pub guest: GuestConfig,
    /// From the guest to the daemon, and back.
    pub up: Impairments,
    pub down: Impairments,
    pub seed: u64,
}

/// A datagram on its way.
#[derive(Clone, Debug)]
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// An IDR picture was wanted, because a gap had been given up, and something came of it.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    pub since: Instant,
    /// The request before this one, of whatever cause: there are two a second at most.
    pub request_before: Option<Instant>,
    /// A request went out, or the picture came, or the run ended.
    pub until: Instant,
}

pub struct World {
    pub now: Instant,
    pub start: Instant,
    setup: Setup,
    certificate: Certificate,
    guest: Option<Guest>,
    guest_address: SocketAddr,
    guests: u16,
    /// Instead of a guest and a peer.
    direct: Option<Direct>,
    peer: Option<Box<Peer>>,
    next_measure: Instant,
    relay: Relay,
    server: Server,
    up: Netem<Datagram>,
    down: Netem<Datagram>,
    ledger: Ledger,
    /// Keyframe requests that earlier guests saw.
    requests_before: u64,
    keyframe_wanted: Option<Instant>,
    requests_sent: u64,
    last_request: Option<Instant>,
    wants: Vec<Want>,
    rtmp_events: Vec<(Instant, rtmp::Event)>,
}

impl World {
    /// A guest that is about to connect.
    pub fn new(setup: Setup) -> World {
        let mut world = World::empty(setup);
        let (clip, guest) = (Arc::clone(&world.setup.clip), world.setup.guest.clone());
        world.join(&clip, guest);
        world
    }

    /// A guest whose packets reach the relay as they are: no network, no WebRTC.
    pub fn without_webrtc(setup: Setup) -> World {
        let mut world = World::empty(Setup { up: Impairments::default(), ..setup });
        let replay = Replay::start(&world.setup.clip, &world.setup.guest.replay, world.now);
        world.direct = Some(Direct::new(replay, world.now));
        world.relay.begin_source(true, world.now);
        world.ledger.begin_session();
        world
    }

    fn empty(setup: Setup) -> World {
        let now = Instant::now();
        World {
            now,
            start: now,
            certificate: Certificate::generate(),
            guest: None,
            guest_address: guest_address(0),
            guests: 0,
            direct: None,
            peer: None,
            next_measure: now,
            relay: Relay::new(relay_config(setup.seed), now),
            server: Server::default(),
            up: Netem::new(setup.up.clone(), setup.seed, now),
            down: Netem::new(setup.down.clone(), setup.seed ^ 0x5555_5555_5555_5555, now),
            ledger: Ledger::new(now, setup.up.delay),
            requests_before: 0,
            keyframe_wanted: None,
            requests_sent: 0,
            last_request: None,
            wants: Vec::new(),
            rtmp_events: Vec::new(),
            setup,
        }
    }

    /// A guest takes the slot: the first one, or the same person on a new session. The old one is told goodbye, if it
    /// still listens; its browser is gone.
    pub fn join(&mut self, clip: &Arc<Clip>, config: GuestConfig) {
        self.leave();
        self.guests += 1;
        self.guest_address = guest_address(self.guests);
        let (mut guest, offer) = Guest::new(clip, config, self.guest_address, self.now);
        let Answered { mut peer, sdp } =
            peer::answer(&offer, &self.answer_config(), self.now).expect("the daemon takes the offer of a guest");
        guest.handle_answer(&sdp, self.now).expect("a guest takes the daemon's answer");
        self.end_session();
        peer.begin_checks(self.now);
        self.relay.begin_source(peer.has_track(TrackKind::Video), self.now);
        self.peer = Some(Box::new(peer));
        (self.requests_sent, self.last_request) = (0, None);
        self.next_measure = self.now;
        self.ledger.begin_session();
        self.guest = Some(guest);
        self.settle();
    }

    /// The guest's browser is gone without a word.
    pub fn leave(&mut self) {
        if let Some(guest) = self.guest.take() {
            self.requests_before += guest.stats().plis + guest.stats().firs;
        }
    }

    fn answer_config(&self) -> AnswerConfig {
        AnswerConfig {
            candidates: vec![daemon_address()],
            start_bitrate_kbps: START_BITRATE_KBPS,
            max_bitrate_kbps: MAX_BITRATE_KBPS,
            opus: OPUS,
            certificate: self.certificate.clone(),
            srtp_profiles: SrtpProfile::OFFERED.to_vec(),
            remote_addresses: RemoteAddresses::Remote,
        }
    }

    /// What the WHIP resource's DELETE, or a newer session, does to the old one.
    fn end_session(&mut self) {
        if let Some(mut peer) = self.peer.take() {
            let last_heard = peer.last_heard();
            peer.close(self.now);
            self.drain_peer(&mut peer);
            self.relay.end_source(last_heard, self.now);
        }
    }

    pub fn guest(&mut self) -> &mut Guest {
        self.guest.as_mut().expect("a guest is there")
    }

    /// What the guest plays, once it is connected.
    pub fn replay(&mut self) -> Option<&mut Replay> {
        match (&mut self.direct, &mut self.guest) {
            (Some(direct), _) => Some(direct.replay_mut()),
            (None, Some(guest)) => guest.replay_mut(),
            (None, None) => None,
        }
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What is sent from now on counts no more.
    pub fn end_count(&mut self) {
        self.ledger.end_count(self.now);
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Media that waits for the RTMP server.
    pub fn queued(&mut self) -> Duration {
        self.relay.publisher().queued_media()
    }

    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_deref()
    }

    pub fn network(&self) -> (NetemStats, NetemStats) {
        (self.up.stats(), self.down.stats())
    }

    pub fn rtmp_events(&self) -> &[(Instant, rtmp::Event)] {
        &self.rtmp_events
    }

    /// All wants up to now, the open one too.
    pub fn keyframe_wants(&self) -> Vec<Want> {
        let open = self.keyframe_wanted.map(|since| self.want(since));
        self.wants.iter().copied().chain(open).collect()
    }

    fn want(&self, since: Instant) -> Want {
        Want { since, request_before: self.last_request, until: self.now }
    }

    /// PLIs and FIRs that reached the guests.
    pub fn keyframe_requests(&self) -> u64 {
        let now = self.guest.as_ref().map_or(0, |guest| guest.stats().plis + guest.stats().firs);
        self.requests_before + now
    }

    pub fn set_mood(&mut self, mood: Mood) {
        self.server.set_mood(mood, self.relay.publisher(), self.now);
        self.settle();
    }

    /// Changes the network; blackouts count from now.
    pub fn set_network(&mut self, up: Impairments, down: Impairments) {
        self.up.set_impairments(up, self.now);
        self.down.set_impairments(down, self.now);
    }

    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    pub fn run_until(&mut self, until: Instant) {
        self.settle();
        loop {
            let guest = self.guest.as_ref().map(Guest::poll_timeout);
            let peer = self.peer.as_ref().and_then(|peer| peer.poll_timeout());
            let networks = [self.up.poll_timeout(), self.down.poll_timeout()];
            let rtmp = [self.relay.poll_timeout(), self.server.poll_timeout()];
            let direct = self.direct.as_ref().map(Direct::poll_timeout);
            let due = [guest, direct, peer].into_iter().chain(networks).chain(rtmp).flatten().min();
            let next = due.filter(|next| *next <= until);
            let Some(next) = next else {
                self.now = self.now.max(until);
                return;
            };
            self.now = self.now.max(next);
            self.step();
        }
    }

    /// Everything that is due at this moment.
    fn step(&mut self) {
        let now = self.now;
        while let Some(datagram) = self.up.poll(now) {
            let Some(peer) = &mut self.peer else { continue };
            if let Some(received) = peer.handle_datagram(&datagram.bytes, datagram.from, now) {
                self.ledger.media_came(now);
                for packet in received.packets() {
                    self.relay.handle_rtp(received.kind, &packet, now);
                }
            }
        }
        while let Some(datagram) = self.down.poll(now) {
            let to_us = datagram.to == self.guest_address;
            if let Some(guest) = self.guest.as_mut().filter(|_| to_us) {
                guest.handle_datagram(&datagram.bytes, datagram.from, now);
            }
        }
        self.measure();
        if let Some(peer) = &mut self.peer
            && peer.poll_timeout().is_some_and(|due| due <= now)
        {
            peer.handle_timeout(now);
        }
        if self.relay.poll_timeout().is_some_and(|due| due <= now) {
            self.relay.handle_timeout(now);
        }
        if let Some(guest) = &mut self.guest
            && guest.poll_timeout() <= now
        {
            guest.handle_timeout(now);
        }
        if let Some(direct) = &mut self.direct {
            direct.step(&mut self.relay, &mut self.ledger, now);
        }
        self.settle();
    }

    fn measure(&mut self) {
        if let Some(peer) = self.peer.as_mut().filter(|_| self.now >= self.next_measure) {
            self.next_measure = self.now + MEASURE_INTERVAL;
            for kind in [TrackKind::Audio, TrackKind::Video] {
                let max_wait = self.relay.set_delivery(kind, peer.delivery(kind));
                peer.set_max_wait(kind, max_wait);
            }
        }
    }

    /// Carries every output to where it belongs.
    fn settle(&mut self) {
        if let Some(mut peer) = self.peer.take() {
            let over = self.drain_peer(&mut peer);
            if over {
                self.relay.end_source(peer.last_heard(), self.now);
            } else {
                self.peer = Some(peer);
            }
        }
        self.drain_relay();
        if let Some(mut peer) = self.peer.take() {
            self.drain_peer(&mut peer);
            self.note_requests(&peer);
            self.peer = Some(peer);
        } else if let Some(direct) = &mut self.direct
            && self.relay.take_keyframe_request()
        {
            direct.replay_mut().request_idr();
        }
        if let Some(guest) = &mut self.guest {
            while let Some(transmit) = guest.poll_transmit() {
                let bytes = transmit.datagram.len();
                let datagram = Datagram { from: self.guest_address, to: transmit.to, bytes: transmit.datagram };
                self.up.push(datagram, bytes, self.now);
            }
            for unit in guest.take_sent() {
                self.ledger.sent(unit);
            }
        }
        for shown in self.server.take_shown() {
            self.ledger.shown(&shown);
        }
    }

    /// Whether the session is over.
    fn drain_peer(&mut self, peer: &mut Peer) -> bool {
        let now = self.now;
        if self.relay.take_keyframe_received() {
            peer.notify_keyframe(now);
            self.end_want();
        }
        if self.relay.take_keyframe_request() {
            self.keyframe_wanted.get_or_insert(now);
            peer.request_keyframe(now);
        }
        let mut over = false;
        while let Some(output) = peer.poll_output() {
            match output {
                peer::Output::Transmit { to, datagram } => {
                    let bytes = datagram.len();
                    self.down.push(Datagram { from: daemon_address(), to, bytes: datagram }, bytes, now);
                }
                peer::Output::Event(peer::Event::SenderReport { kind, ntp_time, rtp_time }) => {
                    self.relay.handle_sender_report(kind, ntp_time, rtp_time, now);
                }
                peer::Output::Event(peer::Event::Ended(_)) => over = true,
                peer::Output::Event(_) => {}
            }
        }
        over
    }

    fn note_requests(&mut self, peer: &Peer) {
        let stream = peer.stats().video.stream;
        let sent = stream.pli + stream.fir;
        if sent != self.requests_sent {
            self.requests_sent = sent;
            self.end_want();
            self.last_request = Some(self.now);
        }
    }

    fn end_want(&mut self) {
        if let Some(since) = self.keyframe_wanted.take() {
            self.wants.push(self.want(since));
        }
    }

    fn drain_relay(&mut self) {
        let now = self.now;
        loop {
            self.server.pump(self.relay.publisher(), now);
            match self.relay.poll_output(now) {
                Some(rtmp::Output::Connect) => self.server.connect(self.relay.publisher(), now),
                Some(rtmp::Output::Disconnect) => {
                    self.server.hang_up();
                }
                Some(rtmp::Output::KeyframeNeeded) => {
                    if let Some(peer) = &mut self.peer {
                        peer.request_keyframe(now);
                    }
                }
                Some(rtmp::Output::Event(event)) => self.rtmp_events.push((now, event)),
                None => return,
            }
        }
    }
}

fn guest_address(number: u16) -> SocketAddr {
    ([192, 168, 1, 20], 50_000 + number).into()
}

fn daemon_address() -> SocketAddr {
    ([192, 168, 1, 5], 8189).into()
}

/// Where the daemon publishes.
pub fn target() -> Target {
    Target::parse("rtmp://127.0.0.1:1935/guest1").expect("a constant")
}

fn relay_config(seed: u64) -> RelayConfig {
    let reorder = ReorderLimits::DEFAULT;
    RelayConfig {
        target: target(),
        servers: vec![([127, 0, 0, 1], 1935).into()],
        muxer: guest_relay_muxer::Config {
            video: Some(VideoConfig { reorder, ..VideoConfig::default() }),
            audio: Some(AudioConfig { reorder, ..AudioConfig::default() }),
            ..guest_relay_muxer::Config::default()
        },
        hold: HOLD,
        keyframe_interval: Some(KEYFRAME_INTERVAL),
        seed,
    }
}
