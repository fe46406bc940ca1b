//! The state of the control thread, and its answers to requests of the direct path and to events of the media thread.
//!
//! ```text
//!  publish ─▶ answer the offer ─▶ Join ══▶ media thread ══▶ ready ─▶ admit: the session has the slot
//!  leave   ─▶ release: the slot is free, what was at the SFU is closed
//!  Ended   ◀══ media thread: the same, for a session that ended by itself
//! ```
//!
//! Bounds: those of [`Sessions`], and of the media thread's queue.

use std::cell::Cell;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_relay_muxer::{AudioConfig, ReorderLimits, TrackKind, VideoConfig};
use smol::LocalExecutor;
use smol::channel::Receiver;

use super::ice_servers::IceServers;
use super::names;
use super::public_address::PublicAddresses;
use super::question::{MEDIA_ANSWER, Question};
use super::sessions::{Session, Sessions};
use super::sfu::{self, SfuPath};
use crate::config::{self, Config};
use crate::guest::id::{GuestId, ResourceId};
use crate::guest::{self, Guest, SessionKey, Slot, State};
use crate::http::backend::{ClientInfo, NoAnswer, Published, Refusal};
use crate::http::status::of_offer;
use crate::media::{self, Budget, Command, Event, SlotSnapshot, UdpSocketKind};
use crate::net::addresses;
use crate::rtc::dtls::Certificate;
use crate::rtc::peer::{self, Answered, PeerConfig};
use crate::rtc::sdp::{OpusSettings, RemoteAddresses};
use crate::rtc::srtp::SrtpProfile;
use crate::rtmp::{self, Target, TargetError};
use crate::sfu::pull::PeerEvent;
use crate::slot::RelayConfig;
use crate::within::within;

/// How long a snapshot serves those who ask after it was taken.
const SNAPSHOT_KEEPS: Duration = Duration::from_millis(100);

/// Settings for a guest's audio encoder.
const SPEECH: OpusSettings = OpusSettings { max_average_bitrate_bps: 64_000, stereo: false };

/// How the media thread ended.
#[derive(Debug)]
pub enum MediaEnd {
    /// As it says itself.
    Failed(String),
    /// Without a word.
    Silent,
}

impl fmt::Display for MediaEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(reason) => f.write_str(reason),
            Self::Silent => f.write_str("it closed its channel"),
        }
    }
}

/// How a guest is published.
pub(super) fn relay_config(config: &Config, guest: &config::Guest) -> Result<RelayConfig, TargetError> {
    let url = config.relay.output.for_guest(&guest.id);
    let target = Target::parse(&url)?;
    let servers = names::addresses(&target);
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).expect("the operating system gives random bytes after boot");
    Ok(RelayConfig {
        target,
        servers,
        muxer: muxer_config(config.relay.reorder),
        hold: config.relay.hold,
        keyframe_interval: config.relay.keyframe_interval,
        // Not before it is known that there is no publication to go on in: `Daemon::publish_idle_slots`.
        idle: false,
        still: Arc::clone(&config.relay.slate),
        seed: u64::from_ne_bytes(seed),
    })
}

fn muxer_config(max_wait: Duration) -> guest_relay_muxer::Config {
    let reorder = ReorderLimits { max_wait, ..ReorderLimits::DEFAULT };
    guest_relay_muxer::Config {
        video: Some(VideoConfig { reorder, ..VideoConfig::default() }),
        audio: Some(AudioConfig { reorder, ..AudioConfig::default() }),
        ..guest_relay_muxer::Config::default()
    }
}

/// Start and limit of a guest's video encoder.
#[derive(Clone, Copy)]
pub(super) struct Bitrates {
    start_kbps: u32,
    max_kbps: u32,
}

impl Bitrates {
    pub(super) fn of(config: &Config) -> Self {
        Self { start_kbps: config.rtc.start_bitrate_kbps, max_kbps: config.rtc.max_bitrate_kbps }
    }
}

pub(super) fn budget(config: &Config) -> Budget {
    Budget { guest_kbps: config.rtc.max_bitrate_kbps, total_kbps: config.rtc.total_bitrate_kbps }
}

pub(super) fn slot_guest(guest: &config::Guest) -> Guest {
    Guest { id: guest.id.clone(), name: guest.name.clone(), enabled: guest.enabled }
}

/// The state of the control thread.
pub(super) struct Daemon {
    pub(super) config: Config,
    /// Bitrates for encoders; the one part of the configuration that may change.
    pub(super) bitrates: Cell<Bitrates>,
    pub(super) media: media::Handle,
    certificate: Certificate,
    pub(super) sessions: Sessions,
    /// How all slots are.
    snapshot: Rc<Question<Vec<SlotSnapshot>>>,
    /// The path through the SFU, where it is configured.
    pub(super) sfu: Option<SfuPath>,
    pub(super) ice_servers: Rc<IceServers>,
    pub(super) public_addresses: PublicAddresses,
    pub(super) executor: &'static LocalExecutor<'static>,
}

impl Daemon {
    pub(super) fn new(
        config: Config,
        media: media::Handle,
        sessions: Sessions,
        certificate: Certificate,
        executor: &'static LocalExecutor<'static>,
    ) -> Self {
        let sfu = SfuPath::new(&config, executor);
        let ice_servers = Rc::new(IceServers::new(&config, executor));
        Self {
            bitrates: Cell::new(Bitrates::of(&config)),
            config,
            media,
            certificate,
            sessions,
            snapshot: Question::new(SNAPSHOT_KEEPS),
            sfu,
            ice_servers,
            public_addresses: PublicAddresses::default(),
            executor,
        }
    }

    pub(super) fn handle_event(&self, event: Event, now: Instant) -> Result<(), MediaEnd> {
        match event {
            Event::Connected { slot, key } => {
                log::info!("{} {key}: connected", self.sessions.name(slot));
                self.tell_pull(slot, key, PeerEvent::Connected);
            }
            Event::Media { slot, key, kind } => self.tell_pull(slot, key, PeerEvent::Media(kind)),
            Event::Quiet { slot, key } => self.tell_pull(slot, key, PeerEvent::Lost),
            // Without media: a guest who sends nothing has a path all the same.
            Event::Heard { slot, key } => self.tell_pull(slot, key, PeerEvent::Connected),
            Event::Ended { slot, key, reason } => {
                self.release(key);
                self.sessions.record_end(slot, &reason);
                log::info!("{} {key}: session over: {reason}", self.sessions.name(slot));
                if let Some(event) = sfu::ended(&reason) {
                    self.tell_pull(slot, key, event);
                }
            }
            Event::Rtmp { slot, event: rtmp::Event::Lost { reason, retry_in } } => {
                self.look_up_server(slot);
                let (name, level) = (self.sessions.name(slot), self.sessions.record_rtmp_loss(slot, &reason, now));
                log::log!(level, "{name}: RTMP publication interrupted: {reason}; next attempt in {retry_in:.1?}");
            }
            Event::Rtmp { slot, event } => {
                log::debug!("{}: RTMP {event:?}", self.sessions.name(slot));
                if event == rtmp::Event::Live {
                    self.sessions.record_rtmp_well(slot);
                }
            }
            Event::State { slot, state } => {
                log::info!("{}: {state}", self.sessions.name(slot));
                // Nothing is published there, unless the slot idles.
                if state == State::Absent && self.config.relay.idle == config::Idle::Unpublish {
                    self.sessions.record_rtmp_well(slot);
                }
            }
            Event::Adopted { slot, outcome: Ok(()) } => {
                log::info!("{}: the publication of the process before goes on", self.sessions.name(slot));
            }
            Event::Adopted { slot, outcome: Err(reason) } => {
                log::warn!("{}: the publication of the process before is closed: {reason}", self.sessions.name(slot));
            }
            Event::Failed(reason) => return Err(MediaEnd::Failed(reason)),
        }
        Ok(())
    }

    /// Passes on what became of a pull's peer; other sessions have no pull.
    fn tell_pull(&self, slot: Slot, key: SessionKey, event: PeerEvent) {
        if let Some((pull, peer)) = self.sessions.pull_of(slot, key) {
            pull.peer(peer, event);
        }
    }

    /// Looks the name of the slot's RTMP server up, if it has one.
    pub(super) fn look_up_server(&self, slot: Slot) {
        if let Some(server) = self.sessions.server(slot) {
            server.look_up(slot, self.executor, &self.media);
        }
    }

    /// Addresses a guest may reach our UDP port at.
    fn candidates(&self, client: &ClientInfo) -> Vec<SocketAddr> {
        let reached_at = Some(client.local_addr.ip());
        addresses::candidates(self.media.local_addr(), reached_at, &self.config.rtc.candidates)
    }

    /// The slot of a guest that may publish.
    pub(super) fn slot(&self, id: &GuestId) -> Result<Slot, Refusal> {
        self.sessions.slot(id).map_err(|refusal| match refusal {
            guest::Refusal::Unknown => Refusal::new(404, format!("there is no guest {id}")),
            guest::Refusal::Disabled => Refusal::new(403, format!("{id} is switched off")),
        })
    }

    /// Gives the slot to a session. What the one before it had at the SFU ends; its connection is replaced by the media
    /// thread, once the new one comes.
    pub(super) fn admit(&self, slot: Slot, key: SessionKey, network: Option<IpAddr>, session: Session) {
        if let Some(former) = self.sessions.take(slot, key, network, session) {
            self.part_with(slot, former);
        }
    }

    /// The session is over, and its slot free, unless a newer session took it: then there is nothing to release. The
    /// channel's end, where there is one, tells that its tracks at the SFU are closed.
    pub(super) fn release(&self, key: SessionKey) -> Option<Option<Receiver<()>>> {
        let (slot, session) = self.sessions.release(key)?;
        Some(self.part_with(slot, session))
    }

    fn part_with(&self, slot: Slot, session: Session) -> Option<Receiver<()>> {
        let (path, publication) = (self.sfu.as_ref()?, session.publication?);
        drop(path.save(self.sessions.stored()));
        Some(path.end(self.sessions.name(slot), publication))
    }

    /// How we answer the SFU. It takes no notice of our candidates: it sees where our checks come from. One whose API
    /// is on this host (the only case of plain HTTP) may be on this host itself.
    pub(super) fn pull_config(&self) -> PeerConfig {
        let is_local = self.config.cloudflare.is_local;
        let remote_addresses = if is_local { RemoteAddresses::Any } else { RemoteAddresses::Remote };
        PeerConfig { remote_addresses, ..self.answer_config(vec![self.media.local_addr()]) }
    }

    fn answer_config(&self, candidates: Vec<SocketAddr>) -> PeerConfig {
        PeerConfig {
            candidates,
            certificate: self.certificate.clone(),
            start_bitrate_kbps: self.bitrates.get().start_kbps,
            max_bitrate_kbps: self.bitrates.get().max_kbps,
            opus: SPEECH,
            srtp_profiles: SrtpProfile::OFFERED.to_vec(),
            remote_addresses: RemoteAddresses::Remote,
        }
    }

    pub(super) async fn publish_direct(
        &self,
        id: &GuestId,
        offer: &str,
        former: Option<&ResourceId>,
        client: &ClientInfo,
    ) -> Result<Published, Refusal> {
        let slot = self.slot(id)?;
        let answer_config = PeerConfig {
            srtp_profiles: self.sessions.srtp_profiles(slot),
            ..self.answer_config(self.candidates(client))
        };
        let Answered { peer, sdp } = peer::answer(offer, &answer_config, Instant::now())
            .map_err(|error| Refusal::new(of_offer(&error), error.to_string()))?;
        let etag = peer.local_ufrag().replace(['+', '/'], "-");
        let ufrag = peer.remote_ufrag().map(str::to_owned);
        let resource = ResourceId::generate();
        let key = self.sessions.next_key();
        let (ready, is_ready) = smol::channel::bounded(1);
        let (video, peer) = (peer.has_track(TrackKind::Video), Box::new(peer));
        let (guest, continues) = (key, self.continued(slot, former));
        let socket = UdpSocketKind::Shared;
        let joined =
            self.media.send(Command::Join { slot, key, guest, continues, peer, video, socket, ready: Some(ready) });
        // The browser's first check comes milliseconds after the answer: its session must be known by then.
        let is_known = joined.is_ok() && matches!(within(MEDIA_ANSWER, is_ready.recv()).await, Some(Ok(())));
        if !is_known {
            // Whoever has the slot keeps it: a media thread that comes to this late finds nobody waiting. One that took
            // the session in just now ends it.
            drop(is_ready);
            let _ = self.media.send(Command::Leave { slot, key });
            return Err(
                Refusal::new(503, "the relay is overloaded, please try again").retry_after(Duration::from_secs(2))
            );
        }
        if self.sessions.is_outdated(slot, key) {
            let _ = self.media.send(Command::Leave { slot, key });
            return Err(Refusal::new(409, format!("a newer session has taken the slot {id}")));
        }
        let session = Session { resource: resource.clone(), etag: etag.clone(), ufrag, publication: None };
        self.admit(slot, key, Some(client.network()), session);
        log::info!("{id} {key}: joining over the direct path from {}", client.remote_ip);
        Ok(Published { resource, etag, answer_sdp: sdp })
    }

    /// Publishes the slots that guests may come to, where that is configured, and ends what idles in the other ones.
    pub(super) fn publish_idle_slots(&self) {
        for (slot, is_open) in self.sessions.open_slots() {
            let idle = self.config.relay.idle == config::Idle::Slate && is_open;
            if self.media.send(Command::Idle { slot, idle }).is_err() {
                log::warn!("the media thread takes no commands: {} goes on as it was", self.sessions.name(slot));
            }
        }
    }

    /// The session that an offer goes on for, by what it says of itself.
    pub(super) fn continued(&self, slot: Slot, former: Option<&ResourceId>) -> Option<SessionKey> {
        self.sessions.last(slot, former?)
    }

    /// The guest is gone for good: the media thread shows nothing more of this session.
    pub(super) fn vacate(&self, slot: Slot, guest: SessionKey) {
        if self.media.send(Command::Vacate { slot, guest }).is_err() {
            let name = self.sessions.name(slot);
            log::warn!("{name} {guest}: left, but the media thread takes no commands; the picture stands for the hold");
        }
    }

    /// How all slots are.
    pub(super) async fn snapshot(&self) -> Result<Rc<Vec<SlotSnapshot>>, NoAnswer> {
        self.snapshot.ask(self.executor, |reply| self.media.send(Command::Snapshot { reply })).await
    }

    /// How one slot is.
    pub(super) async fn state(&self, slot: Slot) -> Result<State, NoAnswer> {
        let question = self.sessions.state_question(slot);
        let state = question.ask(self.executor, |reply| self.media.send(Command::State { slot, reply })).await?;
        Ok(self.state_with_pull(slot, *state))
    }

    /// Asks the guest in this slot for a keyframe; false while no picture of theirs goes out.
    pub(super) async fn request_keyframe(&self, slot: Slot) -> Result<bool, NoAnswer> {
        let (reply, answer) = smol::channel::bounded(1);
        self.media.send(Command::RequestKeyframe { slot, reply }).map_err(|_| NoAnswer)?;
        match within(MEDIA_ANSWER, answer.recv()).await {
            Some(Ok(asked)) => Ok(asked),
            Some(Err(_)) | None => Err(NoAnswer),
        }
    }

    /// A guest at the SFU is joining before the media thread has anything of it.
    pub(super) fn state_with_pull(&self, slot: Slot, state: State) -> State {
        let is_pulled = self.sessions.publication(slot, |_, _| ()).is_some();
        if is_pulled && state == State::Absent { State::Joining } else { state }
    }
}
