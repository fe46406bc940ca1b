//! The composition root: builds every part, joins them, and runs the control side until a signal ends it.
//!
//! Threads: this one (HTTP, events, signals, one smol executor) and the media thread. Channels: commands to the media
//! thread and events from it, both bounded (see [`crate::media`]).

mod backend;
mod ice_servers;
mod measure;
mod names;
mod problem;
mod profiles;
mod public_address;
mod question;
mod reload;
mod sessions;
mod sfu;
mod supervision;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_signal::{Signal, Signals};
use guest_relay_muxer::{AudioConfig, ReorderLimits, TrackKind, VideoConfig};
use smol::LocalExecutor;
use smol::channel::Receiver;
use smol::stream::StreamExt;

use crate::config::{self, Config, ConfigError};
use crate::guest::id::{GuestId, ResourceId};
use crate::guest::{self, Guest, SessionKey, Slot, State};
use crate::http::backend::{ClientInfo, NoAnswer, Published, Refusal};
use crate::http::{Limits, Site, process, serve};
use crate::journal;
use crate::media::{self, Budget, Command, Event, SlotSnapshot, Transport};
use crate::net::addresses;
use crate::panics;
use crate::rtc::dtls::Certificate;
use crate::rtc::peer::{self, AnswerConfig, Answered};
use crate::rtc::sdp::{OpusSettings, RemoteAddresses};
use crate::rtc::srtp::SrtpProfile;
use crate::rtmp::{self, Target};
use crate::sfu::pull::PeerEvent;
use crate::slot::RelayConfig;
use crate::systemd::Notifier;
use crate::within::within;

use backend::DaemonBackend;
use ice_servers::IceServers;
use public_address::PublicAddresses;
use question::Question;
use sessions::{Session, Sessions};
use sfu::SfuPath;

/// How long a request waits for the media thread, which it wakes.
const MEDIA_ANSWER: Duration = Duration::from_secs(2);

/// How long a snapshot serves those who ask after it was taken.
const SNAPSHOT_KEEPS: Duration = Duration::from_millis(100);

/// What a guest's audio encoder is asked for.
const SPEECH: OpusSettings = OpusSettings { max_average_bitrate_bps: 64_000, stereo: false };

/// Reads the configuration again.
pub type Source = dyn Fn() -> Result<Config, ConfigError>;

/// Why the daemon could not start or go on; says what to do about it.
#[derive(Debug)]
pub enum AppError {
    Listen { what: &'static str, key: &'static str, address: SocketAddr, error: io::Error },
    Output { guest: GuestId, reason: String },
    Signals(io::Error),
    MediaThread(String),
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { what, key, address, error } => {
                write!(f, "cannot listen for {what} on {address}: {error}; free the port or set {key} to another one")
            }
            Self::Output { guest, reason } => {
                write!(f, "cannot publish {guest}: {reason}; check relay.output")
            }
            Self::Signals(error) => write!(f, "cannot listen for signals: {error}"),
            Self::MediaThread(reason) => write!(f, "the media thread ended: {reason}"),
        }
    }
}

impl std::error::Error for AppError {}

/// Runs the daemon until SIGTERM or SIGINT. SIGHUP has it read the configuration again, from `source`.
pub fn run(config: Config, source: &Source) -> Result<(), AppError> {
    process::started();
    journal::start(config.log.level);
    panics::keep_places();
    for notice in &config.notices {
        log::warn!("{notice}");
    }
    // Lives as long as the process; its tasks borrow it.
    let executor: &'static LocalExecutor<'static> = Box::leak(Box::default());
    smol::block_on(executor.run(serve_until_signal(config, source, executor)))
}

async fn serve_until_signal(
    config: Config,
    source: &Source,
    executor: &'static LocalExecutor<'static>,
) -> Result<(), AppError> {
    let mut signals = Signals::new([Signal::Term, Signal::Int, Signal::Hup]).map_err(AppError::Signals)?;
    let certificate = Certificate::generate();
    let listener = smol::net::TcpListener::bind(config.http.listen).await.map_err(|error| AppError::Listen {
        what: "HTTP",
        key: "http.listen",
        address: config.http.listen,
        error,
    })?;
    let relays = config.guests.iter().map(|guest| relay_config(&config, guest)).collect::<Result<Vec<_>, _>>()?;
    let targets = relays.iter().map(|relay| relay.target.clone());
    let sessions = Sessions::new(config.guests.iter().map(slot_guest).zip(targets));
    let (media, events, thread) = media::spawn(config.rtc.listen, relays, budget(&config)).map_err(|error| {
        AppError::Listen { what: "WebRTC media (UDP)", key: "rtc.listen", address: config.rtc.listen, error }
    })?;
    let http_address = listener.local_addr().unwrap_or(config.http.listen);
    log::info!(
        "guest-relay {} serves http://{http_address}/guest_join; media on UDP {}; publishes to {}",
        env!("CARGO_PKG_VERSION"),
        media.local_addr(),
        config.relay.output,
    );

    let daemon = Rc::new(Daemon::new(config, media, sessions, certificate, executor));
    (0..daemon.sessions.slots()).for_each(|slot| daemon.look_up_server(Slot(slot)));
    sfu::restore(&daemon);
    // Without the way through the SFU there is nothing to choose.
    if let Some(server) = daemon.config.rtc.stun_server.clone().filter(|_| daemon.sfu.is_some()) {
        let daemon = Rc::clone(&daemon);
        executor.spawn(async move { daemon.public_addresses.keep_asking(&server).await }).detach();
    }
    let site = Rc::new(Site::new(DaemonBackend(Rc::clone(&daemon)), &daemon.config));
    let http = executor.spawn(serve(listener, executor, Rc::clone(&site), Limits::default()));
    let notifier = Rc::new(Notifier::from_environment(&|name| std::env::var_os(name), std::process::id()));
    let supervision = executor.spawn({
        let (daemon, notifier) = (Rc::clone(&daemon), Rc::clone(&notifier));
        async move { supervision::run(async || daemon.snapshot().await.ok(), &notifier).await }
    });
    let ended = smol::future::or(
        async {
            while let Some(signal) = signals.next().await {
                match signal {
                    Ok(Signal::Hup) => reload::reload(&daemon, &site, source),
                    Ok(signal) => {
                        log::info!("{signal:?}: unpublishing every guest and ending");
                        return Ok(());
                    }
                    Err(error) => log::warn!("a signal could not be read: {error}"),
                }
            }
            Ok(())
        },
        async {
            loop {
                match events.recv().await {
                    Ok(event) => {
                        if let Event::State { slot, state } = event {
                            site.events.publish_state(&daemon.sessions.name(slot), state);
                        }
                        daemon.handle_event(event)?;
                    }
                    Err(_) => {
                        return Err(AppError::MediaThread("it closed its channel".to_owned()));
                    }
                }
            }
        },
    )
    .await;
    notifier.stopping();
    drop((http, supervision));
    if ended.is_ok() && daemon.media.send(Command::Shutdown).is_ok() {
        // The thread bounds its own shutdown; waiting for it lets the last bytes of every stream out.
        let _ = smol::unblock(move || thread.join()).await;
    }
    ended
}

fn relay_config(config: &Config, guest: &config::Guest) -> Result<RelayConfig, AppError> {
    let refused = |reason: String| AppError::Output { guest: guest.id.clone(), reason };
    let url = config.relay.output.for_guest(&guest.id);
    let target = Target::parse(&url).map_err(|error| refused(error.to_string()))?;
    let servers = names::addresses(&target);
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).expect("the operating system gives random bytes after boot");
    Ok(RelayConfig {
        target,
        servers,
        muxer: muxer_config(config.relay.reorder),
        hold: config.relay.hold,
        keyframe_interval: config.relay.keyframe_interval,
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

/// What a guest's video encoder is asked to begin with, and not to exceed.
#[derive(Clone, Copy)]
struct Bitrates {
    start_kbps: u32,
    max_kbps: u32,
}

impl Bitrates {
    fn of(config: &Config) -> Self {
        Self { start_kbps: config.rtc.start_bitrate_kbps, max_kbps: config.rtc.max_bitrate_kbps }
    }
}

fn budget(config: &Config) -> Budget {
    Budget { guest_kbps: config.rtc.max_bitrate_kbps, total_kbps: config.rtc.total_bitrate_kbps }
}

fn slot_guest(guest: &config::Guest) -> Guest {
    Guest { id: guest.id.clone(), name: guest.name.clone(), enabled: guest.enabled }
}

/// What the control thread knows.
struct Daemon {
    config: Config,
    /// What encoders are asked for; the one part of the configuration that may change.
    bitrates: Cell<Bitrates>,
    media: media::Handle,
    certificate: Certificate,
    sessions: Sessions,
    /// How all slots are.
    snapshot: Rc<Question<Vec<SlotSnapshot>>>,
    /// The path through the SFU, where it is configured.
    sfu: Option<SfuPath>,
    ice_servers: Rc<IceServers>,
    public_addresses: PublicAddresses,
    executor: &'static LocalExecutor<'static>,
}

impl Daemon {
    fn new(
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

    fn handle_event(&self, event: Event) -> Result<(), AppError> {
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
                let name = self.sessions.name(slot);
                log::warn!("{name}: RTMP publication interrupted: {reason}; next attempt in {retry_in:.1?}");
            }
            Event::Rtmp { slot, event } => log::debug!("{}: RTMP {event:?}", self.sessions.name(slot)),
            Event::State { slot, state } => log::info!("{}: {state}", self.sessions.name(slot)),
            Event::Failed(reason) => return Err(AppError::MediaThread(reason)),
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
    fn look_up_server(&self, slot: Slot) {
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
    fn slot(&self, id: &GuestId) -> Result<Slot, Refusal> {
        self.sessions.slot(id).map_err(|refusal| match refusal {
            guest::Refusal::Unknown => Refusal::new(404, format!("there is no guest {id}")),
            guest::Refusal::Disabled => Refusal::new(403, format!("{id} is switched off")),
        })
    }

    /// Gives the slot to a session. What the one before it had at the SFU ends; its connection is replaced by the media
    /// thread, once the new one comes.
    fn admit(&self, slot: Slot, key: SessionKey, network: Option<IpAddr>, session: Session) {
        if let Some(former) = self.sessions.take(slot, key, network, session) {
            self.part_with(slot, former);
        }
    }

    /// The session is over, and its slot free, unless a newer session took it: then there is nothing to release. The
    /// channel's end, where there is one, tells that its tracks at the SFU are closed.
    fn release(&self, key: SessionKey) -> Option<Option<Receiver<()>>> {
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
    fn pull_config(&self) -> AnswerConfig {
        let remote_addresses = sfu::remote_addresses(&self.config.cloudflare.api_base);
        AnswerConfig { remote_addresses, ..self.answer_config(vec![self.media.local_addr()]) }
    }

    fn answer_config(&self, candidates: Vec<SocketAddr>) -> AnswerConfig {
        AnswerConfig {
            candidates,
            certificate: self.certificate.clone(),
            start_bitrate_kbps: self.bitrates.get().start_kbps,
            max_bitrate_kbps: self.bitrates.get().max_kbps,
            opus: SPEECH,
            srtp_profiles: SrtpProfile::OFFERED.to_vec(),
            remote_addresses: RemoteAddresses::Remote,
        }
    }

    async fn publish_direct(&self, id: &GuestId, offer: &str, client: &ClientInfo) -> Result<Published, Refusal> {
        let slot = self.slot(id)?;
        let answer_config = AnswerConfig {
            srtp_profiles: self.sessions.srtp_profiles(slot),
            ..self.answer_config(self.candidates(client))
        };
        let Answered { peer, sdp } = peer::answer(offer, &answer_config, Instant::now())
            .map_err(|error| Refusal::new(error.status(), error.to_string()))?;
        let etag = peer.local_ufrag().replace(['+', '/'], "-");
        let ufrag = peer.remote_ufrag().map(str::to_owned);
        let resource = ResourceId::generate();
        let key = self.sessions.next_key();
        let (ready, is_ready) = smol::channel::bounded(1);
        let (video, peer) = (peer.has_track(TrackKind::Video), Box::new(peer));
        let joined = self.media.send(Command::Join { slot, key, peer, video, transport: Transport::Shared, ready });
        // The browser's first check comes milliseconds after the answer: its session must be known by then.
        let is_known = async { matches!(within(MEDIA_ANSWER, is_ready.recv()).await, Some(Ok(()))) };
        if joined.is_err() || !is_known.await {
            // Whoever has the slot keeps it, also from a media thread that comes to this session late.
            let _ = self.media.send(Command::Leave { slot, key });
            return Err(
                Refusal::new(503, "the relay is overloaded, please try again").retry_after(Duration::from_secs(2))
            );
        }
        let session = Session { resource: resource.clone(), etag: etag.clone(), ufrag, publication: None };
        self.admit(slot, key, Some(client.network()), session);
        log::info!("{id} {key}: joining over the direct path from {}", client.remote_ip);
        Ok(Published { resource, etag, answer_sdp: sdp })
    }

    /// How all slots are.
    async fn snapshot(&self) -> Result<Rc<Vec<SlotSnapshot>>, NoAnswer> {
        self.snapshot.ask(self.executor, |reply| self.media.send(Command::Snapshot { reply })).await
    }

    /// How one slot is.
    async fn state(&self, slot: Slot) -> Result<State, NoAnswer> {
        let question = self.sessions.state_question(slot);
        let state = question.ask(self.executor, |reply| self.media.send(Command::State { slot, reply })).await?;
        Ok(self.state_with_pull(slot, *state))
    }

    /// A guest at the SFU is joining before the media thread has anything of it.
    fn state_with_pull(&self, slot: Slot, state: State) -> State {
        let is_pulled = self.sessions.publication(slot, |_, _| ()).is_some();
        if is_pulled && state == State::Absent { State::Joining } else { state }
    }
}

#[cfg(test)]
mod tests;
