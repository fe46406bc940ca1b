//! Where one guest's pull has its peers: they are made here and live on the media thread. Once a second, while one stands,
//! its counters are looked at: packets that came are what keeps a pull from starting over.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;

use crate::app::{Daemon, MEDIA_ANSWER};
use crate::calls::pull::{PeerEvent, PeerId, State, Stats, Trouble};
use crate::calls::subscriber::{Inputs, PeerHost};
use crate::guest::{SessionKey, Slot};
use crate::media_loop::{Command, Transport};
use crate::rtc::peer::{self, Answered, OfferConfig, Peer, PeerStats};

/// How often a standing peer is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A path over which nothing authentic came for so long is lost: a silent one is probed twice a second.
const LOST_AFTER: Duration = Duration::from_secs(3);

/// A peer that the pull has asked for.
struct PullPeer {
    key: SessionKey,
    /// Until it goes to the media thread.
    waiting: Option<Box<Peer>>,
    connected: bool,
    last: PeerStats,
    is_lost: bool,
}

/// Gives one guest's pull its peers.
pub(super) struct Host {
    pub(super) daemon: Weak<Daemon>,
    slot: Slot,
    /// The guest publishes pictures; a first description may lack them all the same.
    video: bool,
    peers: RefCell<HashMap<PeerId, PullPeer>>,
    dropped: RefCell<Vec<TrackKind>>,
}

impl Host {
    pub(super) fn new(daemon: &Rc<Daemon>, slot: Slot, video: bool) -> Self {
        Self { daemon: Rc::downgrade(daemon), slot, video, peers: RefCell::default(), dropped: RefCell::default() }
    }

    /// Tracks that the SFU no longer has.
    pub(super) fn dropped_tracks(&self) -> Vec<TrackKind> {
        self.dropped.borrow().clone()
    }

    /// Remembers an event of the media thread; whose it is.
    pub(super) fn note(&self, key: SessionKey, event: &PeerEvent) -> Option<PeerId> {
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
    pub(super) async fn look(&self, inputs: &Inputs) {
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
            for event in peer.news(session.stats, session.heard, Instant::now()) {
                inputs.peer(*id, event);
            }
        }
    }

    /// Has the peer on the media thread answer a further offer of its session.
    async fn answer_anew(&self, id: PeerId, offer: &str, daemon: &Daemon) -> Result<String, String> {
        let key = self.peers.borrow().get(&id).map(|peer| peer.key).ok_or("the peer is gone")?;
        let (answer, answered) = smol::channel::bounded(1);
        let command = Command::Reoffer { slot: self.slot, key, offer: offer.to_owned(), answer };
        daemon.media.send(command).map_err(|_| "the media thread takes no commands")?;
        let late = async {
            smol::Timer::after(MEDIA_ANSWER).await;
            Err("the media thread does not answer".to_owned())
        };
        let answer = async { answered.recv().await.unwrap_or_else(|_| Err("the media thread ended".to_owned())) };
        smol::future::or(answer, late).await
    }

    fn add(&self, id: PeerId, peer: Peer, daemon: &Daemon) {
        let key = daemon.registry.borrow_mut().next_key();
        let waiting = Some(Box::new(peer));
        let peer = PullPeer { key, waiting, connected: false, last: PeerStats::default(), is_lost: false };
        self.peers.borrow_mut().insert(id, peer);
    }
}

impl PullPeer {
    /// What came since the last look; `heard`: when anything did.
    fn news(&mut self, stats: PeerStats, heard: Option<Instant>, now: Instant) -> Vec<PeerEvent> {
        let mut news = Vec::new();
        if stats.audio.packets > self.last.audio.packets {
            news.push(PeerEvent::Media(TrackKind::Audio));
        }
        if stats.video.packets > self.last.video.packets {
            news.push(PeerEvent::Media(TrackKind::Video));
        }
        let is_lost = heard.is_some_and(|heard| now.saturating_duration_since(heard) >= LOST_AFTER);
        match (self.is_lost, is_lost) {
            (false, true) => news.push(PeerEvent::Lost),
            // Without media: a guest who sends nothing has a path all the same.
            (true, false) => news.push(PeerEvent::Connected),
            _ => {}
        }
        self.is_lost = is_lost;
        self.last = stats;
        news
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
        if *state == State::Flowing
            && let Some(calls) = self.daemon.upgrade().as_ref().and_then(|daemon| daemon.calls.as_ref())
        {
            calls.problems.clear(self.slot);
        }
    }

    fn troubled(&self, trouble: &Trouble) {
        if let Some(calls) = self.daemon.upgrade().as_ref().and_then(|daemon| daemon.calls.as_ref()) {
            calls.problems.note(self.slot, trouble.to_string(), Instant::now());
        }
    }

    fn tracks_dropped(&self, kinds: &[TrackKind]) {
        if let Some(daemon) = self.daemon.upgrade().filter(|_| !kinds.is_empty()) {
            log::warn!(
                "{}: the SFU has dropped {kinds:?}; the guest's page has to publish anew",
                daemon.name(self.slot)
            );
        }
        *self.dropped.borrow_mut() = kinds.to_vec();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_lost_when_nothing_comes_and_not_when_only_the_media_pause() {
        let mut peer =
            PullPeer { key: SessionKey(1), waiting: None, connected: true, last: PeerStats::default(), is_lost: false };
        let (start, mut stats) = (Instant::now(), PeerStats::default());
        let after = |seconds| start + Duration::from_secs(seconds);
        stats.audio.packets = 50;
        stats.video.packets = 90;
        let both = [PeerEvent::Media(TrackKind::Audio), PeerEvent::Media(TrackKind::Video)];
        assert_eq!(peer.news(stats.clone(), Some(after(0)), after(1)), both);
        // Reports and answers to checks come, no packet does.
        for second in 2..20 {
            assert_eq!(peer.news(stats.clone(), Some(after(second - 1)), after(second)), []);
        }
        assert_eq!(peer.news(stats.clone(), Some(after(19)), after(21)), []);
        assert_eq!(peer.news(stats.clone(), Some(after(19)), after(22)), [PeerEvent::Lost]);
        assert_eq!(peer.news(stats.clone(), Some(after(19)), after(23)), [], "it is told once");
        assert_eq!(peer.news(stats, Some(after(24)), after(24)), [PeerEvent::Connected]);
    }
}
