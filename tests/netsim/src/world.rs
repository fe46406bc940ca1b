//! One guest, one slot of the daemon and one RTMP server, joined by simulated networks in virtual time.
//!
//! ```text
//!  loadgen's guest ─▶ netem ─▶ rtc::peer ─▶ relay ─▶ rtmp::Publisher ─▶ TCP ─▶ strict ingest ─▶ ledger
//!        (str0m)   ◀─ netem ◀─                                       ◀─     ◀─
//! ```
//!
//! Everything but the sockets is the daemon's own code, DTLS and SRTP included: its slot, driven as the media thread drives
//! it, whose pace is the daemon's as well. A datagram is taken when a wake-up comes, and deadlines are met on the grid.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_relay::guest::{SessionKey, Slot};
use guest_relay::media::pace::Pace;
use guest_relay::rtc::demux::{Class, Routes, classify};
use guest_relay::rtc::dtls::Certificate;
use guest_relay::rtc::peer::{self, Answered, PeerConfig, PeerStats};
use guest_relay::rtc::sdp::{OpusSettings, RemoteAddresses};
use guest_relay::rtc::srtp::SrtpProfile;
use guest_relay::rtmp::{self, Target};
use guest_relay::slot::{Event, Joining, Output, RelayConfig, SessionEnd, SessionPeer, SlotMachine};
use guest_relay_muxer::{AudioConfig, AudioStats, ReorderLimits, TrackKind, VideoConfig};
use loadgen::clip::Clip;
use loadgen::guest::{Guest, GuestConfig};
use loadgen::netem::{Impairments, Netem, NetemStats};
use loadgen::replay::Replay;

use crate::checks::{Checks, Passed};
use crate::direct::Direct;
use crate::ledger::Ledger;
use crate::observed::{Observed, Wants};
use crate::plain::{self, KEYFRAME_REQUEST, PlainSession};
use crate::server::{Mood, Server};

pub use crate::observed::Want;

/// The daemon's defaults (`relay.hold_seconds`, `relay.keyframe_interval_seconds`, `rtc.start_bitrate_kbps`,
/// `rtc.max_bitrate_kbps`).
pub const HOLD: Duration = Duration::from_secs(15);
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(2);
const START_BITRATE_KBPS: u32 = 1500;
const MAX_BITRATE_KBPS: u32 = 2500;
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

/// A datagram that waits at the daemon's socket.
struct Waiting {
    arrived: Instant,
    key: SessionKey,
    class: Class,
    from: SocketAddr,
    bytes: Vec<u8>,
}

pub struct World {
    pub now: Instant,
    pub start: Instant,
    setup: Setup,
    certificate: Certificate,
    guest: Option<Guest>,
    guest_address: SocketAddr,
    /// What its NAT makes of that.
    appears_as: SocketAddr,
    checks: Checks,
    /// The daemon's, as its answer has it.
    ice_password: String,
    guests: u16,
    /// Instead of a guest and a peer.
    direct: Option<Direct>,
    slot: SlotMachine<dyn SessionPeer>,
    routes: Routes<SessionKey>,
    /// The socket of a session that is alone on it, as those are which an SFU answers.
    own_socket: Option<(SocketAddr, SessionKey)>,
    /// The newest session.
    key: SessionKey,
    /// At the daemon's socket.
    inbox: VecDeque<Waiting>,
    pace: Pace,
    /// The daemon looks at nothing before.
    rests_until: Instant,
    server: Server,
    up: Netem<Datagram>,
    down: Netem<Datagram>,
    ledger: Ledger,
    /// Keyframe requests that earlier guests saw.
    requests_before: u64,
    wants: Rc<RefCell<Wants>>,
    /// The network was not quiet at some time.
    disturbed: bool,
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

    /// The same, in a slot that was published before anybody came.
    pub fn published_before(setup: Setup) -> World {
        let mut world = World::empty(setup);
        world.slot.set_idle(true, world.now);
        world.run_for(Duration::from_secs(5));
        let (clip, guest) = (Arc::clone(&world.setup.clip), world.setup.guest.clone());
        world.join(&clip, guest);
        world
    }

    /// A guest whose packets reach the slot as they are: no network, no WebRTC.
    pub fn without_webrtc(setup: Setup) -> World {
        let mut world = World::empty(Setup { up: Impairments::default(), ..setup });
        let replay = Replay::start(&world.setup.clip, &world.setup.guest.replay, world.now);
        world.direct = Some(Direct::new(replay, world.now));
        let peer = Box::new(PlainSession::new(true, plain::Path::default()));
        world.prepare(peer, None, true);
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
            appears_as: guest_address(0),
            checks: Checks::default(),
            ice_password: String::new(),
            guests: 0,
            direct: None,
            slot: SlotMachine::new(Slot(0), relay_config(setup.seed), now),
            routes: Routes::new(),
            own_socket: None,
            key: SessionKey(0),
            inbox: VecDeque::new(),
            pace: Pace::new(now),
            rests_until: now,
            server: Server::default(),
            up: Netem::new(setup.up.clone(), setup.seed, now),
            down: Netem::new(setup.down.clone(), setup.seed ^ 0x5555_5555_5555_5555, now),
            ledger: Ledger::new(now, setup.up.delay),
            requests_before: 0,
            wants: Rc::default(),
            disturbed: false,
            rtmp_events: Vec::new(),
            setup,
        }
    }

    /// A guest takes the slot: the first one, or the same person on a new session. The old one is told goodbye, if it
    /// still listens; its browser is gone.
    pub fn join(&mut self, clip: &Arc<Clip>, config: GuestConfig) {
        self.begin(Some(self.key), clip, config);
    }

    /// Somebody takes the slot who has nothing to do with whoever was there before.
    pub fn join_as_another(&mut self, clip: &Arc<Clip>, config: GuestConfig) {
        self.begin(None, clip, config);
    }

    fn begin(&mut self, continues: Option<SessionKey>, clip: &Arc<Clip>, config: GuestConfig) {
        self.leave();
        self.guests += 1;
        self.guest_address = guest_address(self.guests);
        self.appears_as = self.guest_address;
        self.checks = Checks::default();
        let key = SessionKey(self.key.0 + 1);
        self.own_socket = config.ice_lite.then(|| (own_address(self.guests), key));
        let (mut guest, offer) = Guest::new(clip, config, self.guest_address, self.now);
        let Answered { mut peer, sdp } =
            peer::answer(&offer, &self.answer_config(), self.now).expect("the daemon takes the offer of a guest");
        guest.handle_answer(&sdp, self.now).expect("a guest takes the daemon's answer");
        let password = sdp.lines().find_map(|line| line.strip_prefix("a=ice-pwd:"));
        self.ice_password = password.expect("an answer has a password").to_owned();
        if self.own_socket.is_some() {
            peer.begin_checks(self.now);
        } else {
            assert!(self.routes.insert(peer.local_ufrag(), key), "there is room for a session");
        }
        let video = peer.has_track(TrackKind::Video);
        self.wants.borrow_mut().begin_session();
        self.prepare(Box::new(Observed::new(peer, Rc::clone(&self.wants))), continues, video);
        self.ledger.begin_session();
        self.guest = Some(guest);
        self.turn();
    }

    fn prepare(&mut self, peer: Box<dyn SessionPeer>, continues: Option<SessionKey>, video: bool) {
        self.key = SessionKey(self.key.0 + 1);
        self.slot
            .prepare(Joining { key: self.key, guest: self.key, continues, peer, video, announces: false }, self.now);
    }

    /// The guest's browser is gone without a word.
    pub fn leave(&mut self) {
        if let Some(guest) = self.guest.take() {
            self.requests_before += guest.stats().plis + guest.stats().firs;
        }
    }

    /// The guest's browser closes the connection, which tells the slot.
    pub fn close_session(&mut self) {
        self.leave();
        self.slot.leave(self.key, SessionEnd::Left, self.now);
        self.turn();
    }

    /// The guest says goodbye for good.
    pub fn leave_for_good(&mut self) {
        self.leave();
        self.slot.vacate(self.key, self.now);
        self.turn();
    }

    fn answer_config(&self) -> PeerConfig {
        PeerConfig {
            candidates: vec![self.own_socket.map_or_else(daemon_address, |(address, _)| address)],
            start_bitrate_kbps: START_BITRATE_KBPS,
            max_bitrate_kbps: MAX_BITRATE_KBPS,
            opus: OPUS,
            certificate: self.certificate.clone(),
            srtp_profiles: SrtpProfile::OFFERED.to_vec(),
            remote_addresses: RemoteAddresses::Remote,
        }
    }

    /// How the guest's checks look from now on.
    pub fn set_checks(&mut self, checks: Checks) {
        self.checks = checks;
    }

    /// The guest's NAT gives it another port; what is sent to the old one is lost.
    pub fn change_port(&mut self) -> SocketAddr {
        self.appears_as.set_port(self.appears_as.port() + 1000);
        self.appears_as
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

    /// Network or server held media back at some time: a late clock may be their doing.
    pub fn is_disturbed(&self) -> bool {
        self.disturbed || !is_quiet(&self.setup.up) || !self.server.has_been_well()
    }

    /// Of a guest without WebRTC: its wall clock is set forward.
    pub fn set_wall_clock(&mut self, by: Duration) {
        if let Some(direct) = &mut self.direct {
            direct.set_wall_clock(by);
        }
    }

    /// Of a guest without WebRTC: how many reports of pictures there are to one of sound.
    pub fn set_sound_reports(&mut self, every: u32) {
        if let Some(direct) = &mut self.direct {
            direct.set_sound_reports(every);
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
    pub fn queued(&self) -> Duration {
        self.slot.snapshot(self.now).relay.queued_media
    }

    /// Counters of the publication's sound.
    pub fn sound_stats(&self) -> AudioStats {
        self.slot.snapshot(self.now).relay.media.audio
    }

    /// Counters of the session that has the slot.
    pub fn peer_stats(&self) -> Option<PeerStats> {
        self.slot.peer().map(SessionPeer::stats)
    }

    pub fn network(&self) -> (NetemStats, NetemStats) {
        (self.up.stats(), self.down.stats())
    }

    pub fn rtmp_events(&self) -> &[(Instant, rtmp::Event)] {
        &self.rtmp_events
    }

    /// All wants up to now, the open one too.
    pub fn keyframe_wants(&self) -> Vec<Want> {
        self.wants.borrow().all(self.now)
    }

    /// PLIs and FIRs that reached the guests.
    pub fn keyframe_requests(&self) -> u64 {
        let now = self.guest.as_ref().map_or(0, |guest| guest.stats().plis + guest.stats().firs);
        self.requests_before + now
    }

    pub fn set_mood(&mut self, mood: Mood) {
        self.server.set_mood(mood, &mut self.slot, self.now);
        self.turn();
    }

    /// Changes the network; blackouts count from now.
    pub fn set_network(&mut self, up: Impairments, down: Impairments) {
        self.disturbed |= !is_quiet(&up);
        self.up.set_impairments(up, self.now);
        self.down.set_impairments(down, self.now);
    }

    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    pub fn run_until(&mut self, until: Instant) {
        self.turn();
        self.move_guest_output();
        loop {
            let guest = self.guest.as_ref().map(Guest::poll_timeout);
            let direct = self.direct.as_ref().map(Direct::poll_timeout);
            let networks = [self.up.poll_timeout(), self.down.poll_timeout()];
            let due = [guest, direct, self.wake_at()].into_iter().chain(networks).flatten().min();
            let next = due.filter(|next| *next <= until);
            let Some(next) = next else {
                self.now = self.now.max(until);
                return;
            };
            self.now = self.now.max(next);
            self.step();
        }
    }

    /// When the media thread wakes up: for datagrams, room in the RTMP connection, or a deadline; but it finishes its rest.
    fn wake_at(&self) -> Option<Instant> {
        let datagrams = self.inbox.front().map(|waiting| waiting.arrived);
        let deadline = self.slot.poll_timeout().map(|deadline| self.pace.wake_at(deadline));
        let wake = [datagrams, self.server.poll_timeout(), deadline].into_iter().flatten().min();
        wake.map(|at| at.max(self.rests_until))
    }

    /// Everything that is due at this moment.
    fn step(&mut self) {
        let now = self.now;
        while let Some(datagram) = self.up.poll(now) {
            let routed = match self.own_socket {
                Some((address, key)) if address == datagram.to => Some((key, classify(&datagram.bytes))),
                _ => self.routes.route(&datagram.bytes, datagram.from),
            };
            let Some((key, class)) = routed else { continue };
            if class == Class::Rtp {
                self.ledger.media_came(now);
            }
            let Datagram { from, bytes, .. } = datagram;
            self.inbox.push_back(Waiting { arrived: now, key, class, from, bytes });
        }
        if let Some(direct) = &mut self.direct {
            let (inbox, key) = (&mut self.inbox, self.key);
            direct.step(&mut self.ledger, now, |kind, class, bytes| {
                inbox.push_back(Waiting { arrived: now, key, class, from: plain::source(kind), bytes });
            });
            if !self.inbox.is_empty() {
                self.ledger.media_came(now);
            }
        }
        while let Some(datagram) = self.down.poll(now) {
            let to_us = datagram.to == self.appears_as;
            if let Some(guest) = self.guest.as_mut().filter(|_| to_us) {
                guest.handle_datagram(&datagram.bytes, datagram.from, now);
            }
        }
        if let Some(guest) = &mut self.guest
            && guest.poll_timeout() <= now
        {
            guest.handle_timeout(now);
        }
        self.move_guest_output();
        if self.wake_at().is_some_and(|at| at <= now) {
            self.wake();
        }
    }

    /// A wake-up of the media thread.
    fn wake(&mut self) {
        if !self.inbox.is_empty() {
            self.pace.record_received(self.now);
        }
        for Waiting { arrived, key, class, from, bytes } in self.inbox.drain(..) {
            self.slot.handle_datagram(key, class, &bytes, from, arrived);
        }
        self.turn();
        self.rests_until = self.now + self.pace.rest(self.now).unwrap_or_default();
    }

    /// What a wake-up does when all inputs are in: the slot does what is due, and its outputs go where they belong.
    fn turn(&mut self) {
        let now = self.now;
        loop {
            self.slot.handle_timeout(now);
            while let Some(output) = self.slot.poll_output() {
                self.carry_out(output);
            }
            self.server.pump(&mut self.slot, now);
            if self.slot.poll_timeout().is_none_or(|at| at > now) {
                break;
            }
        }
        for shown in self.server.take_shown() {
            self.ledger.shown(&shown);
        }
        if let Some(stats) = self.peer_stats() {
            self.wants.borrow_mut().record_sent(stats.video.stream.pli + stats.video.stream.fir, now);
        }
    }

    fn carry_out(&mut self, output: Output) {
        let now = self.now;
        match output {
            Output::Transmit { datagram, .. } if datagram == KEYFRAME_REQUEST => {
                if let Some(direct) = &mut self.direct {
                    direct.replay_mut().request_idr();
                }
            }
            Output::Transmit { key, to, datagram } => {
                let bytes = datagram.len();
                let own = self.own_socket.filter(|(_, own)| *own == key).map(|(address, _)| address);
                let from = own.unwrap_or_else(daemon_address);
                self.down.push(Datagram { from, to, bytes: datagram }, bytes, now);
            }
            Output::AddressValidated { key, .. } if self.own_socket.is_some_and(|(_, own)| own == key) => {}
            Output::AddressValidated { key, address } => self.routes.validate(address, key),
            Output::AddressForgotten { key, address } => self.routes.forget(address, key),
            Output::Connect => self.server.connect(&mut self.slot, now),
            Output::Disconnect => {
                self.server.hang_up();
            }
            Output::Event(Event::Ended { key, .. }) => self.routes.remove(key),
            Output::Event(Event::Rtmp(event)) => self.rtmp_events.push((now, event)),
            Output::Event(_) => {}
        }
    }

    fn move_guest_output(&mut self) {
        let Some(guest) = &mut self.guest else { return };
        while let Some(transmit) = guest.poll_transmit() {
            let (from, to) = (self.appears_as, transmit.to);
            match self.checks.pass(transmit.datagram, from, &self.ice_password) {
                Passed::On(bytes) => {
                    let size = bytes.len();
                    self.up.push(Datagram { from, to, bytes }, size, self.now);
                }
                Passed::Answered(bytes) => {
                    let size = bytes.len();
                    self.down.push(Datagram { from: to, to: from, bytes }, size, self.now);
                }
            }
        }
        for unit in guest.take_sent() {
            self.ledger.sent(unit);
        }
    }
}

/// All packets take the same time, if they come.
fn is_quiet(network: &Impairments) -> bool {
    let Impairments { delay, blackouts, .. } = network.clone();
    *network == Impairments { delay, blackouts, ..Impairments::default() }
}

fn guest_address(number: u16) -> SocketAddr {
    ([192, 168, 1, 20], 50_000 + number).into()
}

fn daemon_address() -> SocketAddr {
    ([192, 168, 1, 5], 8189).into()
}

/// Of a session with a socket of its own.
fn own_address(number: u16) -> SocketAddr {
    ([192, 168, 1, 5], 40_000 + number).into()
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
        idle: false,
        still: std::sync::Arc::new(guest_relay_muxer::Still::black()),
        seed,
    }
}
