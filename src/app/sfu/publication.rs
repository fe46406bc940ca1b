//! A guest's publication at the SFU, and the peers that its pull has: what the table of sessions keeps of it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use guest_relay_muxer::TrackKind;

use crate::guest::SessionKey;
use crate::rtc::peer::Peer;
use crate::sfu::pull::{PeerEvent, PeerId};
use crate::sfu::store;
use crate::sfu::subscriber::Inputs;
use crate::slot::SessionEnd;

/// A guest's publication at the SFU and the other end of the task that pulls it.
pub(in crate::app) struct Publication {
    pub(in crate::app) session_id: String,
    pub(in crate::app) tracks: Vec<store::Track>,
    pub(super) inputs: Inputs,
    pub(super) peers: Rc<Peers>,
}

impl Publication {
    /// One that nothing pulls.
    #[cfg(test)]
    pub(in crate::app) fn unpulled(session_id: &str) -> Self {
        let token = crate::secret::Secret::new(String::new());
        let client = std::sync::Arc::new(crate::sfu::Client::new("http://127.0.0.1:1", "app", token));
        let track = store::Track { kind: TrackKind::Audio, mid: "0".to_owned(), name: "audio".to_owned() };
        Self {
            session_id: session_id.to_owned(),
            tracks: vec![track],
            inputs: crate::sfu::subscriber::Subscriber::new("", client).1,
            peers: Rc::default(),
        }
    }

    /// Where the pull hears of the peer that is this session of the media thread.
    pub(in crate::app) fn pull_of(&self, key: SessionKey) -> Option<(Inputs, PeerId)> {
        Some((self.inputs.clone(), self.peers.peer_of(key)?))
    }

    /// Tracks that the SFU has dropped.
    pub(in crate::app) fn dropped_tracks(&self) -> Vec<TrackKind> {
        self.peers.dropped_tracks()
    }
}

/// A peer that the pull has asked for.
pub(super) struct PullPeer {
    pub(super) key: SessionKey,
    /// Until it goes to the media thread.
    pub(super) waiting: Option<Box<Peer>>,
}

/// The peers of one guest's pull, and the tracks that it was told are gone.
#[derive(Default)]
pub(super) struct Peers {
    pub(super) all: RefCell<HashMap<PeerId, PullPeer>>,
    pub(super) dropped: RefCell<Vec<TrackKind>>,
}

impl Peers {
    /// Tracks that the SFU no longer has.
    fn dropped_tracks(&self) -> Vec<TrackKind> {
        self.dropped.borrow().clone()
    }

    /// The peer that is this session of the media thread.
    fn peer_of(&self, key: SessionKey) -> Option<PeerId> {
        let peers = self.all.borrow();
        peers.iter().find(|(_, peer)| peer.key == key).map(|(id, _)| *id)
    }
}

/// The event by which a pull learns that its peer ended; `None` if the pull ended it.
pub(in crate::app) fn ended(reason: &SessionEnd) -> Option<PeerEvent> {
    match reason {
        SessionEnd::Left | SessionEnd::Shutdown => None,
        reason => Some(PeerEvent::Ended(reason.to_string())),
    }
}
