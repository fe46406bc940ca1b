//! The path through the SFU: publishes guests there, and hosts the peers of the pull that brings each of them back.
//!
//! One task a guest runs a [`Subscriber`]; a [`Host`] gives it peers of the media thread.
//!
//! Publications are kept in the state file: after a restart each of them is pulled again, the guest's connection to the
//! SFU having lived on. Bounds: one publication and one task per slot.

mod host;
mod problem;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;
use smol::LocalExecutor;
use smol::channel::{Receiver, bounded};

use crate::calls::client::Client;
use crate::calls::publish::{self, PublishError};
use crate::calls::pull::{PeerEvent, Publication, Pull, PullForm};
use crate::calls::subscriber::{Inputs, Subscriber};
use crate::config::Config;
use crate::guest::id::{GuestId, ResourceId};
use crate::guest::store::{self, Store};
use crate::guest::{SessionKey, Slot};
use crate::http::backend::{Fault, Published, Refusal};
use crate::media_loop::SessionEnd;
use crate::rtc::sdp::RemoteAddresses;

use super::Daemon;
use host::Host;
use problem::Problems;

/// How long a goodbye waits for the tracks to be closed: the guest's browser keeps its connection as long, and of a session
/// without a connection tracks can hardly be closed. A dead session takes long, which nobody waits for.
pub(super) const CLOSE_WAIT: Duration = Duration::from_millis(1_500);

/// The SFU's side of the daemon; there when an app and its secret are configured.
pub(super) struct CallsPath {
    client: Arc<Client>,
    form: PullForm,
    executor: &'static LocalExecutor<'static>,
    store: Option<Arc<Store>>,
    revision: Cell<u64>,
    publications: RefCell<HashMap<Slot, Held>>,
    problems: Problems,
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
            problems: Problems::default(),
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

    /// Tracks of the guest in this slot that the SFU has dropped.
    pub(super) fn dropped_tracks(&self, slot: Slot) -> Vec<TrackKind> {
        self.publications.borrow().get(&slot).map(|held| held.host.dropped_tracks()).unwrap_or_default()
    }

    /// What is wrong in this slot, for the producer.
    pub(super) fn problem(&self, slot: Slot) -> Option<String> {
        self.problems.text(slot, Instant::now())
    }

    /// Passes on what became of a pull's peer.
    pub(super) fn tell(&self, slot: Slot, key: SessionKey, event: PeerEvent) {
        if let Some(held) = self.publications.borrow().get(&slot)
            && let Some(peer) = held.host.peer_of(key)
        {
            held.inputs.peer(peer, event);
        }
    }

    /// Ends the slot's publication: its pull stops, its tracks are closed at the SFU, which the receiver hears of by its
    /// channel's end. `None`: there was none.
    pub(super) fn end(&self, slot: Slot) -> Option<Receiver<()>> {
        let held = self.publications.borrow_mut().remove(&slot)?;
        held.inputs.stop();
        self.problems.clear(slot);
        drop(self.save());
        let mids = held.session.tracks.iter().map(|track| track.mid.clone()).collect();
        Some(self.close(held.session.guest, held.session.session_id, mids))
    }

    fn close(&self, guest: GuestId, session_id: String, mids: Vec<String>) -> Receiver<()> {
        let (closed, is_closed) = bounded(1);
        let client = Arc::clone(&self.client);
        let closing = async move {
            if let Err(error) = publish::close(&client, &session_id, &mids).await {
                log::warn!("{guest}: closing the tracks at the SFU: {error}; they expire by themselves");
            }
            drop(closed);
        };
        self.executor.spawn(closing).detach();
        is_closed
    }

    /// Writes what is published now, on a worker thread. The channel's end tells that it is done with, well or not; nobody
    /// need listen.
    fn save(&self) -> Receiver<()> {
        let (written, is_written) = bounded(1);
        let Some(store) = &self.store else { return is_written };
        let store = Arc::clone(store);
        let sessions: Vec<_> = self.publications.borrow().values().map(|held| held.session.clone()).collect();
        self.revision.set(self.revision.get() + 1);
        let revision = self.revision.get();
        let saving = async move {
            if let Err(error) = smol::unblock(move || store.save(revision, &sessions)).await {
                log::error!("{error}");
            }
            drop(written);
        };
        self.executor.spawn(saving).detach();
        is_written
    }
}

/// Takes a guest in through the SFU and starts to pull them back.
pub(super) async fn publish_calls(daemon: &Rc<Daemon>, id: &GuestId, offer: &str) -> Result<Published, Refusal> {
    let Some(calls) = &daemon.calls else {
        let refusal = Refusal::new(503, "the path through the Cloudflare SFU is not configured");
        return Err(refusal.fault(Fault::CallsNotConfigured));
    };
    let slot = daemon.slot(id)?;
    let key = daemon.registry.borrow_mut().next_key();
    let published = publish::publish(&calls.client, offer).await.map_err(|error| {
        log::warn!("{id}: not published at the SFU: {error}");
        calls.problems.note(slot, format!("not published at the SFU: {error}"), Instant::now());
        let mut refusal = Refusal::new(error.status(), error.guest_text());
        refusal.retry_after = error.retry_after();
        match error {
            PublishError::Call(call) if call.is_misconfiguration() => refusal.fault(Fault::CallsMisconfigured),
            PublishError::Call(_) => refusal.fault(Fault::CallsUnreachable),
            _ => refusal,
        }
    })?;
    if daemon.registry.borrow().is_outdated(slot, key) {
        log::info!("{id} {key}: answered by the SFU after a newer session had taken the slot");
        calls.close(id.clone(), published.session_id, published.tracks.into_iter().map(|track| track.mid).collect());
        return Err(Refusal::new(409, format!("a newer session has taken the slot {id}")));
    }
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
    let saved = hold(daemon, calls, slot, key, session);
    log::info!("{id} {key}: joining through the SFU");
    // Once a guest has the answer, a crash must not lose it.
    let _ = saved.recv().await;
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
                let key = daemon.registry.borrow_mut().next_key();
                drop(hold(daemon, calls, slot, key, session));
                log::info!("{id} {key}: was here before the restart, pulling again");
            }
            Err(_) => {
                log::warn!("{id} was here before the restart and is not among the guests any more")
            }
        }
    }
}

/// Gives the slot to a publication and pulls it. Whatever held the slot before ends. The channel's end tells that the state
/// file knows.
fn hold(daemon: &Rc<Daemon>, calls: &CallsPath, slot: Slot, key: SessionKey, session: store::Session) -> Receiver<()> {
    daemon.end_slot(slot);
    daemon.registry.borrow_mut().take(slot, key, session.resource.clone());
    daemon.etags.borrow_mut().insert(key, session.etag.clone());
    let publication = Publication {
        session_id: session.session_id.clone(),
        tracks: session.tracks.iter().map(|track| (track.kind, track.name.clone())).collect(),
    };
    let pull = Pull::new(publication, calls.form, key.0, Instant::now());
    let (subscriber, inputs) = Subscriber::new(session.guest.as_str(), Arc::clone(&calls.client));
    let video = session.tracks.iter().any(|track| track.kind == TrackKind::Video);
    let host = Rc::new(Host::new(daemon, slot, video));
    let held = Held { key, session, inputs, host: Rc::clone(&host) };
    calls.publications.borrow_mut().insert(slot, held);
    let saved = calls.save();
    let pulling = async move {
        subscriber.run(pull, &*host).await;
        if let Some(daemon) = host.daemon.upgrade() {
            daemon.forget_publication(slot, key);
        }
    };
    calls.executor.spawn(pulling).detach();
    saved
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
