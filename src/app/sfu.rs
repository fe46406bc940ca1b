//! The path through the SFU: publishes guests there, and hosts the peers of the pull that brings each of them back.
//!
//! One task a guest runs a [`Subscriber`]; a [`Host`] gives it peers of the media thread.
//!
//! Publications are kept in the state file: after a restart each of them is pulled again, the guest's connection to the
//! SFU having lived on. Bounds: one publication and one task per slot.

mod host;

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;
use smol::LocalExecutor;
use smol::channel::{Receiver, bounded};

use crate::config::Config;
use crate::guest::id::{GuestId, ResourceId};
use crate::guest::{SessionKey, Slot};
use crate::http::backend::{ClientInfo, Fault, Published, Refusal};
use crate::rtc::sdp::RemoteAddresses;
use crate::sfu::client::Client;
use crate::sfu::publish::{self, PublishError};
use crate::sfu::pull::{self, PeerEvent, PeerId, Pull, PullForm};
use crate::sfu::store::{self, Store};
use crate::sfu::subscriber::{Inputs, Subscriber};
use crate::slot::SessionEnd;

use super::daemon::Daemon;
use super::sessions::Session;
use host::Host;

/// How long a goodbye waits for the tracks to be closed: the guest's browser keeps its connection as long, and of a session
/// without a connection tracks can hardly be closed. A dead session takes long, which nobody waits for.
pub(super) const CLOSE_WAIT: Duration = Duration::from_millis(1_500);

/// The SFU's side of the daemon; there when an app and its secret are configured.
pub(super) struct SfuPath {
    client: Arc<Client>,
    form: PullForm,
    executor: &'static LocalExecutor<'static>,
    store: Option<Arc<Store>>,
    revision: Cell<u64>,
}

/// A guest's publication at the SFU and the other end of the task that pulls it.
pub(super) struct Publication {
    pub(super) session_id: String,
    pub(super) tracks: Vec<store::Track>,
    inputs: Inputs,
    host: Rc<Host>,
}

impl Publication {
    /// One that nothing pulls.
    #[cfg(test)]
    pub(super) fn unpulled(session_id: &str, slot: Slot, key: SessionKey) -> Self {
        let token = crate::secret::Secret::new(String::new());
        let client = Arc::new(Client::new("http://127.0.0.1:1", "app", token));
        let track = store::Track { kind: TrackKind::Audio, mid: "0".to_owned(), name: "audio".to_owned() };
        Self {
            session_id: session_id.to_owned(),
            tracks: vec![track],
            inputs: Subscriber::new("", client).1,
            host: Rc::new(Host::new(std::rc::Weak::new(), slot, key, false)),
        }
    }

    /// Where the pull hears of the peer that is this session of the media thread.
    pub(super) fn pull_of(&self, key: SessionKey) -> Option<(Inputs, PeerId)> {
        Some((self.inputs.clone(), self.host.peer_of(key)?))
    }

    /// Tracks that the SFU has dropped.
    pub(super) fn dropped_tracks(&self) -> Vec<TrackKind> {
        self.host.dropped_tracks()
    }
}

impl SfuPath {
    /// `None` when no app or no secret is configured.
    pub(super) fn new(config: &Config, executor: &'static LocalExecutor<'static>) -> Option<Self> {
        let (app_id, token) = config.cloudflare.app()?;
        Some(Self {
            client: Arc::new(Client::new(&config.cloudflare.api_base, app_id, token.clone())),
            form: config.cloudflare.pull_form,
            executor,
            store: config.relay.state_file.as_ref().map(|path| Arc::new(Store::new(path))),
            revision: Cell::new(0),
        })
    }

    /// Ends a publication: its pull stops, its tracks are closed at the SFU, which the receiver hears of by its channel's
    /// end.
    pub(super) fn end(&self, guest: GuestId, publication: Publication) -> Receiver<()> {
        publication.inputs.stop();
        let mids = publication.tracks.into_iter().map(|track| track.mid).collect();
        self.close(guest, publication.session_id, mids)
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
    pub(super) fn save(&self, sessions: Vec<store::Session>) -> Receiver<()> {
        let (written, is_written) = bounded(1);
        let Some(store) = &self.store else { return is_written };
        let store = Arc::clone(store);
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
pub(super) async fn publish_at_sfu(
    daemon: &Rc<Daemon>,
    id: &GuestId,
    offer: &str,
    client: &ClientInfo,
) -> Result<Published, Refusal> {
    let Some(path) = &daemon.sfu else {
        let refusal = Refusal::new(503, "the path through the Cloudflare SFU is not configured");
        return Err(refusal.fault(Fault::SfuNotConfigured));
    };
    let slot = daemon.slot(id)?;
    let key = daemon.sessions.next_key();
    let published = publish::publish(&path.client, offer).await.map_err(|error| {
        log::warn!("{id}: not published at the SFU: {error}");
        daemon.sessions.record_problem(slot, format!("not published at the SFU: {error}"), Instant::now());
        let mut refusal = Refusal::new(error.status(), error.guest_text());
        refusal.retry_after = error.retry_after();
        match error {
            PublishError::Call(call) if call.is_misconfiguration() => refusal.fault(Fault::SfuMisconfigured),
            PublishError::Call(_) => refusal.fault(Fault::SfuUnreachable),
            _ => refusal,
        }
    })?;
    if daemon.sessions.is_outdated(slot, key) {
        log::info!("{id} {key}: answered by the SFU after a newer session had taken the slot");
        path.close(id.clone(), published.session_id, published.tracks.into_iter().map(|track| track.mid).collect());
        return Err(Refusal::new(409, format!("a newer session has taken the slot {id}")));
    }
    let resource = ResourceId::generate();
    let etag = format!("calls-{}", published.session_id);
    let track = |track: publish::PublishedTrack| store::Track { kind: track.kind, mid: track.mid, name: track.name };
    let session = store::Session {
        guest: id.clone(),
        resource: resource.clone(),
        etag: etag.clone(),
        ufrag: Some(published.ufrag),
        session_id: published.session_id,
        tracks: published.tracks.into_iter().map(track).collect(),
    };
    let saved = hold(daemon, path, slot, key, Some(client.network()), session);
    log::info!("{id} {key}: joining through the SFU");
    // Once a guest has the answer, a crash must not lose it.
    let _ = saved.recv().await;
    Ok(Published { resource, etag, answer_sdp: published.answer })
}

/// Pulls again whom a former run of the daemon left at the SFU.
pub(super) fn restore(daemon: &Rc<Daemon>) {
    let Some(path) = &daemon.sfu else { return };
    let Some(store) = &path.store else { return };
    let loaded = store.load();
    for warning in loaded.warnings {
        log::warn!("{warning}");
    }
    for session in loaded.sessions {
        let id = session.guest.clone();
        match daemon.slot(&id) {
            Ok(slot) => {
                let key = daemon.sessions.next_key();
                drop(hold(daemon, path, slot, key, None, session));
                log::info!("{id} {key}: was here before the restart, pulling again");
            }
            Err(_) => {
                log::warn!("{id} was here before the restart and is not among the guests any more")
            }
        }
    }
}

/// Gives the slot to a publication from `network` and pulls it. Whatever held the slot before ends. The channel's end tells
/// that the state file knows.
fn hold(
    daemon: &Rc<Daemon>,
    path: &SfuPath,
    slot: Slot,
    key: SessionKey,
    network: Option<IpAddr>,
    session: store::Session,
) -> Receiver<()> {
    let store::Session { guest, resource, etag, ufrag, session_id, tracks } = session;
    let pulled = pull::Publication {
        session_id: session_id.clone(),
        tracks: tracks.iter().map(|track| (track.kind, track.name.clone())).collect(),
    };
    let pull = Pull::new(pulled, path.form, key.0, Instant::now());
    let (subscriber, inputs) = Subscriber::new(guest.as_str(), Arc::clone(&path.client));
    let video = tracks.iter().any(|track| track.kind == TrackKind::Video);
    let host = Rc::new(Host::new(Rc::downgrade(daemon), slot, key, video));
    let publication = Publication { session_id, tracks, inputs, host: Rc::clone(&host) };
    daemon.admit(slot, key, network, Session { resource, etag, ufrag, publication: Some(publication) });
    let saved = path.save(daemon.sessions.stored());
    let pulling = async move {
        subscriber.run(pull, &*host).await;
        if let Some(daemon) = host.daemon.upgrade()
            && daemon.release(key).is_some()
        {
            log::info!("{guest} {key}: the session at the SFU is over");
        }
    };
    path.executor.spawn(pulling).detach();
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
