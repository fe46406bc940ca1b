//! Where one guest's pull has its peers: they are made here and live on the media thread, whose events reach the pull
//! under the peer's name here. Packets that come are what keeps a pull from starting over.

use std::rc::{Rc, Weak};
use std::time::Instant;

use guest_relay_muxer::TrackKind;

use super::publication::{Peers, PullPeer};
use crate::app::daemon::Daemon;
use crate::app::problem::Cause;
use crate::app::question::MEDIA_ANSWER;
use crate::guest::{SessionKey, Slot};
use crate::media::{Command, UdpSocketKind};
use crate::rtc::peer::{self, Answered, Peer};
use crate::sfu::pull::{HostError, PeerId, State, Trouble};
use crate::sfu::subscriber::PeerHost;
use crate::slot::ReofferError;
use crate::within::within;

/// Gives one guest's pull its peers.
pub(super) struct Host {
    pub(super) daemon: Weak<Daemon>,
    slot: Slot,
    /// Of the guest's session.
    key: SessionKey,
    /// The guest's session before it.
    continues: Option<SessionKey>,
    /// The guest publishes pictures; a first description may lack them all the same.
    video: bool,
    peers: Rc<Peers>,
}

impl Host {
    pub(super) fn new(
        daemon: Weak<Daemon>,
        slot: Slot,
        key: SessionKey,
        continues: Option<SessionKey>,
        video: bool,
        peers: Rc<Peers>,
    ) -> Self {
        Self { daemon, slot, key, continues, video, peers }
    }

    /// Has the peer on the media thread answer a further offer of its session.
    async fn answer_anew(&self, id: PeerId, offer: &str, daemon: &Daemon) -> Result<String, HostError> {
        let key = self.peers.all.borrow().get(&id).map(|peer| peer.key).ok_or(HostError::PeerGone)?;
        let (answer, answered) = smol::channel::bounded(1);
        let command = Command::Reoffer { slot: self.slot, key, offer: offer.to_owned(), answer };
        daemon.media.send(command).map_err(|_| HostError::MediaBusy)?;
        match within(MEDIA_ANSWER, answered.recv()).await {
            Some(Ok(answer)) => answer.map_err(|error| match error {
                ReofferError::SessionOver => HostError::SessionOver,
                ReofferError::Offer(error) => HostError::Offer(error),
            }),
            Some(Err(_)) => Err(HostError::MediaEnded),
            None => Err(HostError::MediaSilent),
        }
    }

    fn add(&self, id: PeerId, peer: Peer, daemon: &Daemon) {
        let key = daemon.sessions.next_key();
        let waiting = Some(Box::new(peer));
        self.peers.all.borrow_mut().insert(id, PullPeer { key, waiting });
    }
}

impl PeerHost for Host {
    async fn answer(&self, peer: PeerId, offer: &str, renewed: bool) -> Result<String, HostError> {
        let daemon = self.daemon.upgrade().ok_or(HostError::Ending)?;
        if renewed {
            return self.answer_anew(peer, offer, &daemon).await;
        }
        let Answered { peer: made, sdp } =
            peer::answer(offer, &daemon.pull_config(), Instant::now()).map_err(HostError::Offer)?;
        self.add(peer, made, &daemon);
        Ok(sdp)
    }

    async fn offer(&self, peer: PeerId, kinds: &[TrackKind]) -> Result<String, HostError> {
        let daemon = self.daemon.upgrade().ok_or(HostError::Ending)?;
        let offering = peer::offer(kinds, &daemon.pull_config(), Instant::now());
        self.add(peer, offering.peer, &daemon);
        Ok(offering.sdp)
    }

    async fn apply_answer(&self, id: PeerId, answer: &str) -> Result<(), HostError> {
        let mut peers = self.peers.all.borrow_mut();
        let peer = peers.get_mut(&id).and_then(|peer| peer.waiting.as_mut()).ok_or(HostError::PeerGone)?;
        peer.handle_answer(answer, Instant::now()).map_err(HostError::Answer)
    }

    fn connect(&self, id: PeerId) {
        let Some(daemon) = self.daemon.upgrade() else {
            return;
        };
        let mut peers = self.peers.all.borrow_mut();
        let Some(pull_peer) = peers.get_mut(&id) else {
            return;
        };
        let Some(peer) = pull_peer.waiting.take() else {
            return;
        };
        let Self { slot, key: guest, continues, video, .. } = *self;
        let (key, socket) = (pull_peer.key, UdpSocketKind::Own);
        let command = Command::Join { slot, key, guest, continues, peer, video, socket, ready: None };
        if daemon.media.send(command).is_err() {
            log::warn!("{}: the media thread takes no commands; the pull tries again", daemon.sessions.name(self.slot));
        }
    }

    fn drop_peer(&self, id: PeerId) {
        let Some(peer) = self.peers.all.borrow_mut().remove(&id) else {
            return;
        };
        if let Some(daemon) = self.daemon.upgrade() {
            let _ = daemon.media.send(Command::Leave { slot: self.slot, key: peer.key });
        }
    }

    fn state_changed(&self, state: &State) {
        if let Some(daemon) = self.daemon.upgrade().filter(|_| *state == State::Flowing) {
            daemon.sessions.record_pull_well(self.slot, self.key);
        }
    }

    fn troubled(&self, trouble: &Trouble) {
        if let Some(daemon) = self.daemon.upgrade() {
            daemon.sessions.record_problem_of(self.slot, self.key, Cause::from(trouble), Instant::now());
        }
    }

    fn tracks_dropped(&self, kinds: &[TrackKind]) {
        if let Some(daemon) = self.daemon.upgrade().filter(|_| !kinds.is_empty()) {
            log::warn!(
                "{}: the SFU has dropped {kinds:?}; the guest's page has to publish anew",
                daemon.sessions.name(self.slot)
            );
        }
        *self.peers.dropped.borrow_mut() = kinds.to_vec();
    }
}
