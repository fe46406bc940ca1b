//! Drives one [`Pull`]: its calls on worker threads, its peers through a [`PeerHost`], its time from the clock. One
//! task per guest on the control thread; nothing here blocks.
//!
//! ```text
//!  Inputs::peer, stop ─▶ run ─▶ PeerHost: answer, offer, connect, drop    (media thread, behind the host)
//!            replies ─▶     └─▶ make on a worker thread ─▶ replies
//!
//!  running ──stop, or every sender gone──▶ stopping ──every session closed, or STOP_WITHIN over──▶ over
//!     └───────────────────the pull ended by itself: the publisher is gone──────────────────────────▲
//! ```
//!
//! Bounds: [`INPUTS_MAX`] inputs (one that does not fit is dropped: the pull notices silence by itself), one reply per
//! outstanding call, [`STOP_WITHIN`] for closing everything after a stop. Dropping the future leaves the sessions to
//! expire, which is what a restart of the daemon does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;
use smol::channel::{Receiver, Sender, bounded, unbounded};

use super::client::Client;
use super::error::CallError;
use super::pull::{
    ApiCall, ApiReply, CallId, DescriptionError, Output, PeerEvent, PeerId, Pull, State, Stats, Trouble,
};
use crate::log_once::LogOnce;

/// Inputs that wait to be handled.
pub const INPUTS_MAX: usize = 64;
/// A close that fails is tried again for some 15 s, and one that takes as long as a call may is given up.
pub const STOP_WITHIN: Duration = Duration::from_secs(30);
/// A trouble that goes on is logged again after so long; in between only at level `debug`.
const REMIND_AFTER: Duration = Duration::from_secs(60);

/// Where the peers live. The SFU has one address for all sessions, so that datagrams from it do not tell whose they are:
/// each peer has to have a UDP port of its own. Each name that comes with [`PeerHost::answer`] or [`PeerHost::offer`] goes with
/// [`PeerHost::drop_peer`]. Descriptions are to be made within a second or so: nothing else happens meanwhile.
#[expect(async_fn_in_trait, reason = "runs on a LocalExecutor; the futures need not be Send")]
pub trait PeerHost {
    /// Answers the SFU's offer with a new peer, or, if `renewed`, with the one that exists. A host that can only do the
    /// former says so: the tracks are then taken over to a new peer.
    async fn answer(&self, peer: PeerId, offer: &str, renewed: bool) -> Result<String, DescriptionError>;

    /// An offer of a new peer to receive these tracks, complete: nothing can be trickled.
    async fn offer(&self, peer: PeerId, kinds: &[TrackKind]) -> Result<String, DescriptionError>;

    /// Gives the SFU's answer to the peer that made the offer.
    async fn apply_answer(&self, peer: PeerId, answer: &str) -> Result<(), DescriptionError>;

    /// The SFU knows the peer: its connectivity checks may begin.
    fn connect(&self, peer: PeerId);

    /// The peer is of no more use. It may never have been made.
    fn drop_peer(&self, peer: PeerId);

    /// Where the pull stands has changed.
    fn state_changed(&self, state: &State);

    /// Something went wrong.
    fn troubled(&self, trouble: &Trouble);

    /// The tracks that the SFU no longer has, all of them: the guest has to publish anew.
    fn tracks_dropped(&self, kinds: &[TrackKind]);
}

enum Input {
    Peer(PeerId, PeerEvent),
    Stop,
}

/// The other end of a running pull.
#[derive(Clone)]
pub struct Inputs(Sender<Input>);

impl Inputs {
    /// Tells what became of a peer. `false`: the pull is over, or has too much to do.
    pub fn peer(&self, peer: PeerId, event: PeerEvent) -> bool {
        self.0.try_send(Input::Peer(peer, event)).is_ok()
    }

    /// Ends the pull and has its sessions closed; [`Subscriber::run`] then returns.
    pub fn stop(&self) {
        // A full queue will be read, and its end be seen, once all senders are gone.
        let _ = self.0.try_send(Input::Stop);
        self.0.close();
    }
}

/// One pull to be run.
pub struct Subscriber {
    name: String,
    client: Arc<Client>,
    inputs: Receiver<Input>,
}

impl Subscriber {
    /// `name` is the guest's, for log lines.
    pub fn new(name: impl Into<String>, client: Arc<Client>) -> (Self, Inputs) {
        let (sender, inputs) = bounded(INPUTS_MAX);
        let name = name.into();
        let subscriber = Self { name, client, inputs };
        (subscriber, Inputs(sender))
    }

    /// Runs `pull` until it is over. Gives its last state and what it has done.
    pub async fn run(self, mut pull: Pull, host: &impl PeerHost) -> (State, Stats) {
        let (replies_in, replies) = unbounded();
        let mut log = TroubleLog::new(self.name.clone());
        let mut give_up_at: Option<Instant> = None;
        loop {
            self.drain(&mut pull, host, &replies_in, &mut log).await;
            if pull.is_finished() {
                break;
            }
            let due = match (pull.poll_timeout(), give_up_at) {
                (due, None) => due,
                (due, Some(at)) if at > Instant::now() => Some(due.map_or(at, |due| due.min(at))),
                (_, Some(_)) => {
                    log::warn!("{}: gave up closing sessions of the SFU", self.name);
                    break;
                }
            };
            match self.next(&replies, due, give_up_at.is_some()).await {
                Next::Due => pull.handle_timeout(Instant::now()),
                Next::Reply(id, reply) => pull.handle_reply(id, reply, Instant::now()),
                Next::Peer(peer, event) => pull.handle_peer(peer, event, Instant::now()),
                Next::Stop => {
                    give_up_at = Some(Instant::now() + STOP_WITHIN);
                    pull.stop(Instant::now());
                }
            }
        }
        (pull.state().clone(), pull.stats())
    }

    /// Waits for whatever comes first.
    async fn next(&self, replies: &Receiver<Replied>, due: Option<Instant>, is_stopping: bool) -> Next {
        let reply = async {
            match replies.recv().await {
                Ok((id, reply)) => Next::Reply(id, reply),
                Err(_) => smol::future::pending().await,
            }
        };
        let input = async {
            if is_stopping {
                return smol::future::pending().await;
            }
            match self.inputs.recv().await {
                Ok(Input::Peer(peer, event)) => Next::Peer(peer, event),
                Ok(Input::Stop) | Err(_) => Next::Stop,
            }
        };
        let timer = async {
            match due {
                Some(due) => {
                    smol::Timer::at(due).await;
                    Next::Due
                }
                None => smol::future::pending().await,
            }
        };
        smol::future::or(timer, smol::future::or(reply, input)).await
    }

    /// Does everything that the pull wants done.
    async fn drain(&self, pull: &mut Pull, host: &impl PeerHost, replies: &Sender<Replied>, log: &mut TroubleLog) {
        while let Some(output) = pull.poll_output() {
            match output {
                Output::Call(id, call) => {
                    let (client, replies) = (Arc::clone(&self.client), replies.clone());
                    let task = smol::unblock(move || {
                        // Nobody waits for the reply any more once the pull is over.
                        let _ = replies.try_send((id, make(&client, &call)));
                    });
                    task.detach();
                }
                Output::AnswerOffer { peer, sdp, renewed } => {
                    let answer = host.answer(peer, &sdp, renewed).await;
                    pull.handle_described(peer, answer, Instant::now());
                }
                Output::MakeOffer { peer, kinds } => {
                    let offer = host.offer(peer, &kinds).await;
                    pull.handle_described(peer, offer, Instant::now());
                }
                Output::ApplyAnswer { peer, sdp } => {
                    let applied = host.apply_answer(peer, &sdp).await;
                    pull.handle_applied(peer, applied, Instant::now());
                }
                Output::Connect { peer } => host.connect(peer),
                Output::DropPeer { peer } => host.drop_peer(peer),
                Output::State(state) => {
                    log.state(&state);
                    host.state_changed(&state);
                }
                Output::Trouble(trouble) => {
                    log.trouble(&trouble);
                    host.troubled(&trouble);
                }
                Output::Dropped(kinds) => host.tracks_dropped(&kinds),
            }
        }
    }
}

/// Makes a call. Blocks.
fn make(client: &Client, call: &ApiCall) -> Result<ApiReply, CallError> {
    match call {
        ApiCall::NewSession => client.new_session().map(ApiReply::Session),
        ApiCall::NewTracks { session, request } => client.new_tracks(session, request).map(ApiReply::Tracks),
        ApiCall::Renegotiate { session, answer } => client.renegotiate(session, answer).map(|()| ApiReply::Done),
        ApiCall::CloseTracks { session, mids } => client.close_tracks(session, mids).map(|()| ApiReply::Done),
        ApiCall::Inspect { session } => client.inspect(session).map(ApiReply::Inspected),
    }
}

type Replied = (CallId, Result<ApiReply, CallError>);

enum Next {
    Due,
    Reply(CallId, Result<ApiReply, CallError>),
    Peer(PeerId, PeerEvent),
    Stop,
}

/// One warning for each kind of trouble and minute.
struct TroubleLog {
    name: String,
    troubles: LogOnce<String>,
}

impl TroubleLog {
    fn new(name: String) -> Self {
        Self { name, troubles: LogOnce::new(Some(REMIND_AFTER)) }
    }

    fn trouble(&mut self, trouble: &Trouble) {
        let level = self.troubles.level(kind_of(trouble), Instant::now());
        log::log!(level, "{}: {trouble}", self.name);
    }

    fn state(&mut self, state: &State) {
        match state {
            State::Flowing => {
                self.troubles.reset();
                log::info!("{}: the SFU gives every track", self.name);
            }
            state => log::debug!("{}: pull {state:?}", self.name),
        }
    }
}

/// What makes two troubles the same, apart from details such as the ray.
fn kind_of(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Call(error) => format!("{} {:?}", error.call, error.status()),
        Trouble::Track { kind, code, .. } => format!("{kind:?} {code}"),
        other => format!("{:?}", std::mem::discriminant(other)),
    }
}
