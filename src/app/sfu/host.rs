//! Where one guest's pull has its peers: they are made here and live on the media thread, whose events reach the pull
//! under the peer's name here. Packets that come are what keeps a pull from starting over.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Weak;
use std::time::Instant;

use guest_relay_muxer::TrackKind;

use crate::app::daemon::Daemon;
use crate::app::problem::Problem;
use crate::app::question::MEDIA_ANSWER;
use crate::guest::{SessionKey, Slot};
use crate::media::{Command, Transport};
use crate::rtc::peer::{self, Answered, OfferConfig, Peer};
use crate::sfu::pull::{PeerId, State, Stats, Trouble};
use crate::sfu::subscriber::PeerHost;
use crate::within::within;

/// A peer that the pull has asked for.
struct PullPeer {
    key: SessionKey,
    /// Until it goes to the media thread.
    waiting: Option<Box<Peer>>,
}

/// Gives one guest's pull its peers.
pub(super) struct Host {
    pub(super) daemon: Weak<Daemon>,
    slot: Slot,
    /// Of the guest's session.
    key: SessionKey,
    /// The guest publishes pictures; a first description may lack them all the same.
    video: bool,
    peers: RefCell<HashMap<PeerId, PullPeer>>,
    dropped: RefCell<Vec<TrackKind>>,
}

impl Host {
    pub(super) fn new(daemon: Weak<Daemon>, slot: Slot, key: SessionKey, video: bool) -> Self {
        Self { daemon, slot, key, video, peers: RefCell::default(), dropped: RefCell::default() }
    }

    /// Tracks that the SFU no longer has.
    pub(super) fn dropped_tracks(&self) -> Vec<TrackKind> {
        self.dropped.borrow().clone()
    }

    /// The peer that is this session of the media thread.
    pub(super) fn peer_of(&self, key: SessionKey) -> Option<PeerId> {
        let peers = self.peers.borrow();
        peers.iter().find(|(_, peer)| peer.key == key).map(|(id, _)| *id)
    }

    /// Has the peer on the media thread answer a further offer of its session.
    async fn answer_anew(&self, id: PeerId, offer: &str, daemon: &Daemon) -> Result<String, String> {
        let key = self.peers.borrow().get(&id).map(|peer| peer.key).ok_or("the peer is gone")?;
        let (answer, answered) = smol::channel::bounded(1);
        let command = Command::Reoffer { slot: self.slot, key, offer: offer.to_owned(), answer };
        daemon.media.send(command).map_err(|_| "the media thread takes no commands")?;
        match within(MEDIA_ANSWER, answered.recv()).await {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => Err("the media thread ended".to_owned()),
            None => Err("the media thread does not answer".to_owned()),
        }
    }

    fn add(&self, id: PeerId, peer: Peer, daemon: &Daemon) {
        let key = daemon.sessions.next_key();
        let waiting = Some(Box::new(peer));
        self.peers.borrow_mut().insert(id, PullPeer { key, waiting });
    }
}

impl PeerHost for Host {
    async fn answer(&self, peer: PeerId, offer: &str, renewed: bool) -> Result<String, String> {
        let daemon = self.daemon.upgrade().ok_or("the daemon ends")?;
        if renewed {
            return self.answer_anew(peer, offer, &daemon).await;
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
        let (slot, key, video) = (self.slot, pull_peer.key, self.video);
        let command = Command::Join { slot, key, peer, video, transport: Transport::Own, ready };
        if daemon.media.send(command).is_err() {
            log::warn!("{}: the media thread takes no commands; the pull tries again", daemon.sessions.name(self.slot));
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
        if let Some(daemon) = self.daemon.upgrade().filter(|_| *state == State::Flowing) {
            daemon.sessions.set_problem_of(self.slot, self.key, None);
        }
    }

    fn troubled(&self, trouble: &Trouble) {
        if let Some(daemon) = self.daemon.upgrade() {
            let problem = Problem::new(trouble.to_string(), Instant::now());
            daemon.sessions.set_problem_of(self.slot, self.key, Some(problem));
        }
    }

    fn tracks_dropped(&self, kinds: &[TrackKind]) {
        if let Some(daemon) = self.daemon.upgrade().filter(|_| !kinds.is_empty()) {
            log::warn!(
                "{}: the SFU has dropped {kinds:?}; the guest's page has to publish anew",
                daemon.sessions.name(self.slot)
            );
        }
        *self.dropped.borrow_mut() = kinds.to_vec();
    }
}
