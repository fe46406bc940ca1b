//! The path through the SFU: publishes guests there, and drives the pull that brings each of them back.
//!
//! One task a guest: it makes the API calls that [`Pull`] asks for (on worker threads), turns its session descriptions
//! into peers for the media thread, and tells it what became of them. Once a second, while a peer stands, it looks at
//! the peer's counters: packets that came are what keeps a pull from starting over.
//!
//! Bounds: one publication and one task per slot; channels of `NEWS_QUEUE`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;
use smol::LocalExecutor;
use smol::channel::{Receiver, Sender};

use crate::calls::CallError;
use crate::calls::client::Client;
use crate::calls::publish::{self, PublishError, PublishedSession};
use crate::calls::pull::{ApiReply, CallId, Output, PeerEvent, PeerId, Publication, Pull, PullForm, State};
use crate::guest::id::{GuestId, ResourceId};
use crate::guest::{SessionKey, Slot};
use crate::http::backend::{Fault, Published, Refusal};
use crate::media_loop::{Command, SessionEnd, Transport};
use crate::rtc::peer::{self, Answered, Peer, PeerStats};

use super::Daemon;

const NEWS_QUEUE: usize = 64;
/// How often a standing peer is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Looks in a row without a packet or an answered check after which the path counts as lost.
const LOOKS_WITHOUT_LIFE: u32 = 3;

/// The SFU's side of the daemon; there when an app and its secret are configured.
pub(super) struct CallsPath {
    pub(super) client: Arc<Client>,
    form: PullForm,
    executor: &'static LocalExecutor<'static>,
    publications: RefCell<HashMap<Slot, Held>>,
}

/// A guest's publication at the SFU and the task that pulls it.
struct Held {
    key: SessionKey,
    session: PublishedSession,
    news: Sender<News>,
}

/// What a pull's task is told.
enum News {
    Reply(CallId, Result<ApiReply, CallError>),
    Peer(SessionKey, PeerEvent),
    Stop,
}

impl CallsPath {
    pub(super) fn new(client: Client, form: PullForm, executor: &'static LocalExecutor<'static>) -> Self {
        Self { client: Arc::new(client), form, executor, publications: RefCell::default() }
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
        if let Some(held) = self.publications.borrow().get(&slot) {
            let _ = held.news.try_send(News::Peer(key, event));
        }
    }

    /// Ends the slot's publication: its pull stops, its tracks are closed at the SFU. `false`: there was none.
    pub(super) fn end(&self, slot: Slot) -> bool {
        let Some(held) = self.publications.borrow_mut().remove(&slot) else { return false };
        let _ = held.news.try_send(News::Stop);
        let client = Arc::clone(&self.client);
        let mids: Vec<String> = held.session.tracks.iter().map(|track| track.mid.clone()).collect();
        let session = held.session.session_id;
        let closing = async move {
            if let Err(error) = publish::close(&client, &session, &mids).await {
                log::warn!("closing a guest's tracks: {error}; the SFU lets them expire");
            }
        };
        self.executor.spawn(closing).detach();
        true
    }
}

/// Takes a guest in through the SFU and starts to pull them back.
pub(super) async fn publish_calls(daemon: &Rc<Daemon>, id: &GuestId, offer: &str) -> Result<Published, Refusal> {
    let Some(calls) = &daemon.calls else {
        let refusal = Refusal::new(503, "the path through the Cloudflare SFU is not configured");
        return Err(refusal.fault(Fault::CallsNotConfigured));
    };
    let slot = daemon.slot(id)?;
    let session = publish::publish(&calls.client, offer).await.map_err(|error| {
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
    let answer_sdp = session.answer.clone();
    let key = hold(daemon, slot, resource.clone(), session);
    let etag = format!("calls-{}", key.0);
    daemon.etags.borrow_mut().insert(key, etag.clone());
    log::info!("{id} {key}: joining through the SFU");
    Ok(Published { resource, etag, answer_sdp })
}

/// Gives the slot to a publication and pulls it. Whatever held the slot before ends.
pub(super) fn hold(daemon: &Rc<Daemon>, slot: Slot, resource: ResourceId, session: PublishedSession) -> SessionKey {
    let calls = daemon.calls.as_ref().expect("only called with the path configured");
    daemon.end_slot(slot);
    let key = daemon.registry.borrow_mut().take(slot, resource);
    let (news, inbox) = smol::channel::bounded(NEWS_QUEUE);
    let publication = Publication {
        session_id: session.session_id.clone(),
        tracks: session.tracks.iter().map(|track| (track.kind, track.name.clone())).collect(),
    };
    let pull = Pull::new(publication, calls.form, key.0, Instant::now());
    let subscriber = Subscriber {
        daemon: Rc::downgrade(daemon),
        client: Arc::clone(&calls.client),
        executor: calls.executor,
        slot,
        pull,
        news: news.clone(),
        peers: HashMap::new(),
    };
    calls.publications.borrow_mut().insert(slot, Held { key, session, news });
    calls.executor.spawn(subscriber.run(inbox, key)).detach();
    key
}

/// A peer that the pull has asked for.
struct PullPeer {
    /// Until it goes to the media thread.
    waiting: Option<Box<Peer>>,
    key: SessionKey,
    connected: bool,
    last: PeerStats,
    silent_looks: u32,
}

/// One guest's pull and what it works on.
struct Subscriber {
    daemon: Weak<Daemon>,
    client: Arc<Client>,
    executor: &'static LocalExecutor<'static>,
    slot: Slot,
    pull: Pull,
    news: Sender<News>,
    peers: HashMap<PeerId, PullPeer>,
}

impl Subscriber {
    async fn run(mut self, inbox: Receiver<News>, key: SessionKey) {
        let mut next_look = Instant::now() + LOOK;
        while !self.pull.is_finished() {
            let Some(daemon) = self.daemon.upgrade() else { return };
            self.drain(&daemon);
            drop(daemon);
            let stands = self.peers.values().any(|peer| peer.connected);
            let wake = [self.pull.poll_timeout(), stands.then_some(next_look)].into_iter().flatten().min();
            let news = smol::future::or(async { Some(inbox.recv().await) }, async {
                match wake {
                    Some(at) => smol::Timer::at(at).await,
                    None => smol::future::pending().await,
                };
                None
            })
            .await;
            let now = Instant::now();
            match news {
                Some(Ok(News::Reply(id, reply))) => self.pull.handle_reply(id, reply, now),
                Some(Ok(News::Peer(key, event))) => self.handle_peer(key, event, now),
                Some(Ok(News::Stop)) => self.pull.stop(now),
                Some(Err(_)) => return,
                None => self.pull.handle_timeout(now),
            }
            if stands && now >= next_look {
                next_look = now + LOOK;
                self.look(now).await;
            }
        }
        if let Some(daemon) = self.daemon.upgrade() {
            self.drain(&daemon);
            daemon.forget_publication(self.slot, key);
        }
    }

    fn handle_peer(&mut self, key: SessionKey, event: PeerEvent, now: Instant) {
        let Some((id, peer)) = self.peers.iter_mut().find(|(_, peer)| peer.key == key) else { return };
        peer.connected = matches!(event, PeerEvent::Connected | PeerEvent::Media(_)) || peer.connected;
        if let PeerEvent::Ended(_) = event {
            peer.connected = false;
        }
        self.pull.handle_peer(*id, event, now);
    }

    /// What came since the last look.
    async fn look(&mut self, now: Instant) {
        let Some(daemon) = self.daemon.upgrade() else { return };
        let Some(snapshot) = daemon.snapshot().await.and_then(|mut slots| {
            (self.slot.0 < slots.len()).then(|| slots.swap_remove(self.slot.0))
        }) else {
            return;
        };
        let Some(session) = snapshot.session else { return };
        let Some((id, peer)) = self.peers.iter_mut().find(|(_, peer)| peer.key == session.key) else { return };
        let (last, stats) = (std::mem::replace(&mut peer.last, session.stats.clone()), session.stats);
        let mut alive = stats.stun_accepted > last.stun_accepted;
        for (kind, came) in [
            (TrackKind::Audio, stats.audio.packets > last.audio.packets),
            (TrackKind::Video, stats.video.packets > last.video.packets),
        ] {
            if came {
                alive = true;
                self.pull.handle_peer(*id, PeerEvent::Media(kind), now);
            }
        }
        peer.silent_looks = if alive { 0 } else { peer.silent_looks + 1 };
        if peer.silent_looks == LOOKS_WITHOUT_LIFE {
            self.pull.handle_peer(*id, PeerEvent::Lost, now);
        }
    }

    fn drain(&mut self, daemon: &Rc<Daemon>) {
        while let Some(output) = self.pull.poll_output() {
            let now = Instant::now();
            match output {
                Output::Call(id, call) => {
                    let (client, news) = (Arc::clone(&self.client), self.news.clone());
                    let calling = async move {
                        let reply = smol::unblock(move || call.make(&client)).await;
                        let _ = news.send(News::Reply(id, reply)).await;
                    };
                    self.executor.spawn(calling).detach();
                }
                Output::AnswerOffer { peer, renewed: true, .. } => {
                    let refusal = "a standing connection cannot be described anew".to_owned();
                    self.pull.handle_described(peer, Err(refusal), now);
                }
                Output::AnswerOffer { peer: id, sdp, renewed: false } => {
                    let described = peer::answer(&sdp, &daemon.pull_config(), now)
                        .map(|Answered { peer, sdp }| {
                            self.add_peer(id, peer, daemon);
                            sdp
                        })
                        .map_err(|error| error.to_string());
                    self.pull.handle_described(id, described, now);
                }
                Output::MakeOffer { peer, .. } => {
                    self.pull.handle_described(peer, Err("offers of our own are not made".to_owned()), now);
                }
                Output::ApplyAnswer { peer, .. } => {
                    self.pull.handle_applied(peer, Err("offers of our own are not made".to_owned()), now);
                }
                Output::Connect { peer } => self.connect(peer, daemon, now),
                Output::DropPeer { peer } => {
                    if let Some(peer) = self.peers.remove(&peer) {
                        let _ = daemon.media.send(Command::Leave { slot: self.slot, key: peer.key });
                    }
                }
                Output::State(state) => log::debug!("{}: pull from the SFU: {state:?}", daemon.name(self.slot)),
                Output::Trouble(trouble) => log::warn!("{}: pull from the SFU: {trouble}", daemon.name(self.slot)),
            }
        }
        debug_assert!(self.peers.len() <= 2 || matches!(self.pull.state(), State::Ended(_)));
    }

    fn add_peer(&mut self, id: PeerId, peer: Peer, daemon: &Daemon) {
        let key = daemon.registry.borrow_mut().next_key();
        self.peers.insert(
            id,
            PullPeer {
                waiting: Some(Box::new(peer)),
                key,
                connected: false,
                last: PeerStats::default(),
                silent_looks: 0,
            },
        );
    }

    fn connect(&mut self, id: PeerId, daemon: &Daemon, now: Instant) {
        let Some(pull_peer) = self.peers.get_mut(&id) else { return };
        let Some(peer) = pull_peer.waiting.take() else { return };
        let (ready, _) = smol::channel::bounded(1);
        let (slot, key) = (self.slot, pull_peer.key);
        if daemon.media.send(Command::Join { slot, key, peer, transport: Transport::Own, ready }).is_err() {
            self.pull.handle_peer(id, PeerEvent::Ended("the media thread is overloaded".to_owned()), now);
        }
    }
}

/// What a pull is told of the end of its peer; `None` when it asked for it.
pub(super) fn ended(reason: &SessionEnd) -> Option<PeerEvent> {
    match reason {
        SessionEnd::Left | SessionEnd::Shutdown => None,
        reason => Some(PeerEvent::Ended(reason.to_string())),
    }
}
