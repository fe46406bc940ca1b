//! The path through the SFU: publishes guests there, and hosts the peers of the pull that brings each of them back.
//!
//! One task a guest runs a [`Subscriber`]; a [`Host`] gives it peers of the media thread.
//!
//! Publications are kept in the state file: after a restart each of them is pulled again, the guest's connection to the
//! SFU having lived on. Bounds: one publication and one task per slot.

mod host;
mod path;
mod publication;
mod refusal;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;
use smol::channel::Receiver;

use crate::guest::id::{GuestId, ResourceId};
use crate::guest::{SessionKey, Slot};
use crate::http::backend::{ClientInfo, Fault, Published, Refusal};
use crate::sfu::publish;
use crate::sfu::pull::{self, Pull};
use crate::sfu::store::{self, SfuSession};
use crate::sfu::subscriber::Subscriber;

use super::daemon::Daemon;
use super::problem::Cause;
use super::sessions::Session;
use host::Host;
pub(super) use path::SfuPath;
use publication::Peers;
pub(super) use publication::{Publication, ended};
use refusal::refusal;

/// How long a goodbye waits for the tracks to be closed: the guest's browser keeps its connection as long, and of a session
/// without a connection tracks can hardly be closed. A dead session takes long, which nobody waits for.
pub(super) const CLOSE_WAIT: Duration = Duration::from_millis(1_500);

/// Takes a guest in through the SFU and starts to pull them back.
pub(super) async fn publish_at_sfu(
    daemon: &Rc<Daemon>,
    id: &GuestId,
    offer: &str,
    former: Option<&ResourceId>,
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
        daemon.sessions.record_problem(slot, Cause::from(&error), Instant::now());
        refusal(&error)
    })?;
    if daemon.sessions.is_outdated(slot, key) {
        log::info!("{id} {key}: answered by the SFU after a newer session had taken the slot");
        path.close(id.clone(), published.session_id, published.tracks.into_iter().map(|track| track.mid).collect());
        return Err(Refusal::new(409, format!("a newer session has taken the slot {id}")));
    }
    let resource = ResourceId::generate();
    let etag = format!("calls-{}", published.session_id);
    let track = |track: publish::PublishedTrack| store::Track { kind: track.kind, mid: track.mid, name: track.name };
    let session = SfuSession {
        guest: id.clone(),
        resource: resource.clone(),
        etag: etag.clone(),
        ufrag: Some(published.ufrag),
        session_id: published.session_id,
        tracks: published.tracks.into_iter().map(track).collect(),
    };
    let continues = daemon.continued(slot, former);
    let saved = hold(daemon, path, slot, key, continues, Some(client.network()), session);
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
                let continues = Some(SessionKey::FORMER);
                drop(hold(daemon, path, slot, key, continues, None, session));
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
    continues: Option<SessionKey>,
    network: Option<IpAddr>,
    session: SfuSession,
) -> Receiver<()> {
    let SfuSession { guest, resource, etag, ufrag, session_id, tracks } = session;
    let pulled = pull::Publication {
        session_id: session_id.clone(),
        tracks: tracks.iter().map(|track| (track.kind, track.name.clone())).collect(),
    };
    let pull = Pull::new(pulled, path.form, key.0, Instant::now());
    let (subscriber, inputs) = Subscriber::new(guest.as_str(), Arc::clone(&path.client));
    let video = tracks.iter().any(|track| track.kind == TrackKind::Video);
    let peers = Rc::<Peers>::default();
    let host = Host::new(Rc::downgrade(daemon), slot, key, continues, video, Rc::clone(&peers));
    let publication = Publication { session_id, tracks, inputs, peers };
    daemon.admit(slot, key, network, Session { resource, etag, ufrag, publication: Some(publication) });
    let saved = path.save(daemon.sessions.stored());
    let pulling = async move {
        subscriber.run(pull, &host).await;
        if let Some(daemon) = host.daemon.upgrade()
            && daemon.release(key).is_some()
        {
            log::info!("{guest} {key}: the session at the SFU is over");
        }
    };
    path.executor.spawn(pulling).detach();
    saved
}
