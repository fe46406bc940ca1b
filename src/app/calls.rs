//! The path through the SFU: publishes guests there, and hosts the peers of the pull that brings each of them back.
//!
//! One task a guest runs a [`Subscriber`]; [`Host`] gives it peers of the media thread. Once a second, while a peer
//! stands, the task looks at the peer's counters: packets that came are what keeps a pull from starting over.
//!
//! Publications are kept in the state file: after a restart each of them is pulled again, the guest's connection to the
//! SFU having lived on. Bounds: one publication and one task per slot.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;
use smol::LocalExecutor;

use crate::calls::client::Client;
use crate::calls::publish::{self, PublishError};
use crate::calls::pull::{PeerEvent, PeerId, Publication, Pull, PullForm, State, Stats};
use crate::calls::subscriber::{Inputs, PeerHost, Subscriber};
use crate::config::Config;
use crate::guest::id::{GuestId, ResourceId};
use crate::guest::store::{self, Store};
use crate::guest::{SessionKey, Slot};
use crate::http::backend::{Fault, Published, Refusal};
use crate::media_loop::{Command, SessionEnd, Transport};
use crate::rtc::peer::{self, Answered, OfferConfig, Peer, PeerStats};
use crate::rtc::sdp::RemoteAddresses;

use super::Daemon;

/// How often a standing peer is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Looks in a row without a packet or an answered check after which the path counts as lost.
const LOOKS_WITHOUT_LIFE: u32 = 3;

/// The SFU's side of the daemon; there when an app and its secret are configured.
pub(super) struct CallsPath {
    client: Arc<Client>,
    form: PullForm,
    executor: &'static LocalExecutor<'static>,
    store: Option<Arc<Store>>,
    revision: Cell<u64>,
    publications: RefCell<HashMap<Slot, Held>>,
}

/// A guest's publication at the SFU and the task that pulls it.
struct Held {
    key: SessionKey,
    session: store::Session,
    inputs: Inputs,
    host: Rc<Host>,
}

impl CallsPath {
    /// `None` when no app or no secret is configured.
    pub(super) fn new(config: &Config, executor: &'static LocalExecutor<'static>) -> Option<Self> {
        let (app_id, token) = config.cloudflare.app()?;
        Some(Self {
            client: Arc::new(Client::new(&config.cloudflare.api_base, app_id, token.clone())),
            form: config.cloudflare.pull_form,
            executor,
            store: config.relay.state_file.as_ref().map(|path| Arc::new(Store::new(path))),
            revision: Cell::new(0),
            publications: RefCell::default(),
        })
    }

    /// The SFU's session id of the guest in this slot.
    pub(super) fn session(&self, slot: Slot) -> Option<String> {
        self.publications.borrow().get(&slot).map(|held| held.session.session_id.clone())
    }

    /// The registry's key of the guest in this slot.
    pub(super) fn key(&self, slot: Slot) -> Option<SessionKey> {
        self.publications.borrow().get(&slot).map(|held| held.key)
    }

    /// Passes on what became of a pull's peer.
    pub(super) fn tell(&self, slot: Slot, key: SessionKey, event: PeerEvent) {
        if let Some(held) = self.publications.borrow().get(&slot)
            && let Some(peer) = held.host.note(key, &event)
        {
            held.inputs.peer(peer, event);
        }
    }

    /// Ends the slot's publication: its pull stops, its tracks are closed at the SFU. `false`: there was none.
    pub(super) fn end(&self, slot: Slot) -> bool {
        let Some(held) = self.publications.borrow_mut().remove(&slot) else {
            return false;
        };
        held.inputs.stop();
        self.save();
        let client = Arc::clone(&self.client);
        let closing = async move {
            let mids: Vec<String> = held.session.tracks.iter().map(|track| track.mid.clone()).collect();
            if let Err(error) = publish::close(&client, &held.session.session_id, &mids).await {
                log::warn!("{}: closing the tracks at the SFU: {error}; they expire by themselves", held.session.guest);
            }
        };
        self.executor.spawn(closing).detach();
        true
    }

    /// Writes what is published now, on a worker thread.
    fn save(&self) {
        let Some(store) = &self.store else { return };
        let store = Arc::clone(store);
        let sessions: Vec<_> = self.publications.borrow().values().map(|held| held.session.clone()).collect();
        self.revision.set(self.revision.get() + 1);
        let revision = self.revision.get();
        let saving = async move {
            if let Err(error) = smol::unblock(move || store.save(revision, &sessions)).await {
                log::error!("{error}");
            }
        };
        self.executor.spawn(saving).detach();
    }
}

/// Takes a guest in through the SFU and starts to pull them back.
pub(super) async fn publish_calls(daemon: &Rc<Daemon>, id: &GuestId, offer: &str) -> Result<Published, Refusal> {
    let Some(calls) = &daemon.calls else {
        let refusal = Refusal::new(503, "the path through the Cloudflare SFU is not configured");
        return Err(refusal.fault(Fault::CallsNotConfigured));
    };
    let slot = daemon.slot(id)?;
    let published = publish::publish(&calls.client, offer).await.map_err(|error| {
        log::warn!("{id}: not published at the SFU: {error}");
        let mut refusal = Refusal::new(error.status(), error.guest_text());
        refusal.retry_after = error.retry_after();
        match error {
            PublishError::Call(call) if call.is_misconfiguration() => refusal.fault(Fault::CallsMisconfigured),
            PublishError::Call(_) => refusal.fault(Fault::CallsUnreachable),
            _ => refusal,
        }
    })?;
    let resource = ResourceId::generate();
    let etag = format!("calls-{}", published.session_id);
    let track = |track: publish::PublishedTrack| store::Track { kind: track.kind, mid: track.mid, name: track.name };
    let session = store::Session {
        guest: id.clone(),
        resource: resource.clone(),
        etag: etag.clone(),
        session_id: published.session_id,
        tracks: published.tracks.into_iter().map(track).collect(),
    };
    let key = hold(daemon, calls, slot, session);
    log::info!("{id} {key}: joining through the SFU");
    Ok(Published { resource, etag, answer_sdp: published.answer })
}

/// Pulls again whom a former run of the daemon left at the SFU.
pub(super) fn restore(daemon: &Rc<Daemon>) {
    let Some(calls) = &daemon.calls else { return };
    let Some(store) = &calls.store else { return };
    let loaded = store.load();
    for warning in loaded.warnings {
        log::warn!("{warning}");
    }
    for session in loaded.sessions {
        let id = session.guest.clone();
        match daemon.slot(&id) {
            Ok(slot) => {
                let key = hold(daemon, calls, slot, session);
                log::info!("{id} {key}: was here before the restart, pulling again");
            }
            Err(_) => {
                log::warn!("{id} was here before the restart and is not among the guests any more")
            }
        }
    }
}

/// Gives the slot to a publication and pulls it. Whatever held the slot before ends.
fn hold(daemon: &Rc<Daemon>, calls: &CallsPath, slot: Slot, session: store::Session) -> SessionKey {
    daemon.end_slot(slot);
    let key = daemon.registry.borrow_mut().take(slot, session.resource.clone());
    daemon.etags.borrow_mut().insert(key, session.etag.clone());
    let publication = Publication {
        session_id: session.session_id.clone(),
        tracks: session.tracks.iter().map(|track| (track.kind, track.name.clone())).collect(),
    };
    let pull = Pull::new(publication, calls.form, key.0, Instant::now());
    let (subscriber, inputs) = Subscriber::new(session.guest.as_str(), Arc::clone(&calls.client));
    let host = Rc::new(Host { daemon: Rc::downgrade(daemon), slot, peers: RefCell::default() });
    let held = Held { key, session, inputs: inputs.clone(), host: Rc::clone(&host) };
    calls.publications.borrow_mut().insert(slot, held);
    calls.save();
    let pulling = async move {
        smol::future::or(
            async {
                subscriber.run(pull, &*host).await;
            },
            host.look(&inputs),
        )
        .await;
        if let Some(daemon) = host.daemon.upgrade() {
            daemon.forget_publication(slot, key);
        }
    };
    calls.executor.spawn(pulling).detach();
    key
}

/// A peer that the pull has asked for.
struct PullPeer {
    key: SessionKey,
    /// Until it goes to the media thread.
    waiting: Option<Box<Peer>>,
    connected: bool,
    last: PeerStats,
    silent_looks: u32,
}

/// Gives one guest's pull its peers.
struct Host {
    daemon: Weak<Daemon>,
    slot: Slot,
    peers: RefCell<HashMap<PeerId, PullPeer>>,
}

impl Host {
    /// Remembers an event of the media thread; whose it is.
    fn note(&self, key: SessionKey, event: &PeerEvent) -> Option<PeerId> {
        let mut peers = self.peers.borrow_mut();
        let (id, peer) = peers.iter_mut().find(|(_, peer)| peer.key == key)?;
        match event {
            PeerEvent::Connected => peer.connected = true,
            PeerEvent::Ended(_) => peer.connected = false,
            PeerEvent::Media(_) | PeerEvent::Lost => {}
        }
        Some(*id)
    }

    /// Tells the pull once a second what came, for as long as the daemon is there.
    async fn look(&self, inputs: &Inputs) {
        loop {
            smol::Timer::after(LOOK).await;
            if !self.peers.borrow().values().any(|peer| peer.connected) {
                continue;
            }
            let Some(daemon) = self.daemon.upgrade() else {
                return;
            };
            let Some(slots) = daemon.snapshot().await else {
                continue;
            };
            let Some(session) = slots.into_iter().nth(self.slot.0).and_then(|slot| slot.session) else {
                continue;
            };
            let mut peers = self.peers.borrow_mut();
            let Some((id, peer)) = peers.iter_mut().find(|(_, peer)| peer.key == session.key) else {
                continue;
            };
            for event in peer.news(session.stats) {
                inputs.peer(*id, event);
            }
        }
    }

    fn add(&self, id: PeerId, peer: Peer, daemon: &Daemon) {
        let key = daemon.registry.borrow_mut().next_key();
        let waiting = Some(Box::new(peer));
        let peer = PullPeer { key, waiting, connected: false, last: PeerStats::default(), silent_looks: 0 };
        self.peers.borrow_mut().insert(id, peer);
    }
}

impl PullPeer {
    /// What came since the last look.
    fn news(&mut self, stats: PeerStats) -> Vec<PeerEvent> {
        let mut news = Vec::new();
        if stats.audio.packets > self.last.audio.packets {
            news.push(PeerEvent::Media(TrackKind::Audio));
        }
        if stats.video.packets > self.last.video.packets {
            news.push(PeerEvent::Media(TrackKind::Video));
        }
        let alive = !news.is_empty() || stats.stun_accepted > self.last.stun_accepted;
        self.silent_looks = if alive { 0 } else { self.silent_looks + 1 };
        if self.silent_looks == LOOKS_WITHOUT_LIFE {
            news.push(PeerEvent::Lost);
        }
        self.last = stats;
        news
    }
}

impl PeerHost for Host {
    async fn answer(&self, peer: PeerId, offer: &str, renewed: bool) -> Result<String, String> {
        let daemon = self.daemon.upgrade().ok_or("the daemon ends")?;
        if renewed {
            return Err("a standing connection is not described anew".to_owned());
        }
        let Answered { peer: made, sdp } =
            peer::answer(offer, &daemon.pull_config(), Instant::now()).map_err(|error| error.to_string())?;
        self.add(peer, made, &daemon);
        Ok(sdp)
    }

    async fn offer(&self, peer: PeerId, kinds: &[TrackKind]) -> Result<String, String> {
        let daemon = self.daemon.upgrade().ok_or("the daemon ends")?;
        let config = daemon.pull_config();
        let offering = peer::offer(
            &OfferConfig {
                kinds: kinds.to_vec(),
                candidates: config.candidates,
                max_bitrate_kbps: config.max_bitrate_kbps,
                opus: config.opus,
                certificate: config.certificate,
                srtp_profiles: config.srtp_profiles,
                remote_addresses: config.remote_addresses,
            },
            Instant::now(),
        );
        self.add(peer, offering.peer, &daemon);
        Ok(offering.sdp)
    }

    async fn apply_answer(&self, id: PeerId, answer: &str) -> Result<(), String> {
        let mut peers = self.peers.borrow_mut();
        let peer = peers.get_mut(&id).and_then(|peer| peer.waiting.as_mut()).ok_or("the peer is gone")?;
        peer.handle_answer(answer, Instant::now()).map_err(|error| error.to_string())
    }

    fn connect(&self, id: PeerId) {
        let Some(daemon) = self.daemon.upgrade() else {
            return;
        };
        let mut peers = self.peers.borrow_mut();
        let Some(pull_peer) = peers.get_mut(&id) else {
            return;
        };
        let Some(peer) = pull_peer.waiting.take() else {
            return;
        };
        let (ready, _) = smol::channel::bounded(1);
        let command = Command::Join { slot: self.slot, key: pull_peer.key, peer, transport: Transport::Own, ready };
        if daemon.media.send(command).is_err() {
            log::warn!("{}: the media thread takes no commands; the pull tries again", daemon.name(self.slot));
        }
    }

    fn drop_peer(&self, id: PeerId) {
        let Some(peer) = self.peers.borrow_mut().remove(&id) else {
            return;
        };
        if let Some(daemon) = self.daemon.upgrade() {
            let _ = daemon.media.send(Command::Leave { slot: self.slot, key: peer.key });
        }
    }

    fn state_changed(&self, state: &State, _stats: Stats) {
        if let Some(daemon) = self.daemon.upgrade() {
            log::debug!("{}: pull from the SFU: {state:?}", daemon.name(self.slot));
        }
    }
}

/// An SFU on this machine is a simulated one; the real one never sends us to an address of ours.
pub(super) fn remote_addresses(api_base: &str) -> RemoteAddresses {
    let host = api_base.split("://").nth(1).unwrap_or_default();
    if ["127.", "localhost", "[::1]"].iter().any(|local| host.starts_with(local)) {
        RemoteAddresses::Any
    } else {
        RemoteAddresses::Remote
    }
}

/// What a pull is told of the end of its peer; `None` when it asked for it.
pub(super) fn ended(reason: &SessionEnd) -> Option<PeerEvent> {
    match reason {
        SessionEnd::Left | SessionEnd::Shutdown => None,
        reason => Some(PeerEvent::Ended(reason.to_string())),
    }
}
