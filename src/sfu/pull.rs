//! Pulling a guest's tracks out of the SFU: a state machine without I/O. It asks for API calls, session descriptions
//! and peers; it is told replies, what became of the peer, and the time.
//!
//! ```text
//!           attempt                                               link
//!  form 1   Waiting ─▶ sessions/new ─▶ tracks/new ─▶ SFU's offer ─▶ our answer ─▶ renegotiate ─▶ connecting ─▶ up
//!  form 2   Waiting ─▶ our offer ─▶ sessions/new ─▶ tracks/new ─▶ SFU's answer ────────────────▶ connecting ─▶ up
//!              ▲                                                                                    │
//!              └── wait 0.5 s .. 8 s ◀── failed: the session is thrown away ◀───────────────────────┘
//! ```
//!
//! What it holds to:
//! * One mutation of a session at a time, the SDP exchange included. A mutation whose reply was lost makes the session
//!   worthless: nothing is repeated on it.
//! * A session is made when there is something to ask of it, and thrown away when that failed. If it was connected, its
//!   tracks are closed; else it expires within seconds.
//! * It goes on for as long as the publisher's session lives, and ends when that is gone: the API says so, or the
//!   publisher has given no sign of life for [`SIGN_OF_LIFE_WITHIN`] while the API answered.
//! * When nothing comes over a link that stands, or nothing of one track, the API is asked about the publisher's session: it
//!   may be over, or tracks of it collected, without a word to anybody. A collected track is asked for once more; one that
//!   the SFU says it has not got is reported; the guest has to publish anew. A track that only sends nothing stays.
//! * A link that has gone silent or lost its path is kept until another one has tracks: it may come back first.
//! * Of a good and a failed track in one reply the good one is taken; only the other is asked for again.
//! * A failure that the other form may cure (an offer that cannot be answered, an answer that is refused, two links in a
//!   row that never connect) makes the next attempt use it.
//!
//! Usage: after [`Pull::new`] and each `handle_*`, drain [`Pull::poll_output`], then call [`Pull::handle_timeout`] when
//! [`Pull::poll_timeout`] is due. Bounds: one attempt, one link, [`closing::CLOSINGS_MAX`] sessions being closed; the
//! output queue holds what one input produced.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;

use super::api::SessionReply;
use super::error::CallError;
use crate::backoff::{Backoff, Rng};

mod absence;
mod attempt;
mod call;
mod closing;
mod interface;
mod link;

pub use call::{ApiCall, ApiReply};
pub use interface::{CallId, EndReason, Output, PeerEvent, PeerId, Publication, PullForm, State, Stats, Trouble};

use absence::Absences;
use attempt::Attempt;
use closing::Closings;
use link::{Exchange, Link, Pulled, Transport};

/// A publisher of whom nothing was seen for so long is gone, even if the API does not say so: it may hang instead.
pub const SIGN_OF_LIFE_WITHIN: Duration = Duration::from_secs(120);
/// Every so many attempts that found no track the API is asked about the publisher's session.
const DENIALS_PER_INQUIRY: u32 = 3;

/// Outstanding calls are made here, so that each has its own id.
#[derive(Debug, Default)]
struct ApiCalls {
    made: u64,
    outputs: VecDeque<Output>,
}

impl ApiCalls {
    fn make(&mut self, call: ApiCall) -> CallId {
        self.made += 1;
        let id = CallId(self.made);
        self.outputs.push_back(Output::Call(id, call));
        id
    }

    fn drop_peer(&mut self, peer: PeerId) {
        self.outputs.push_back(Output::DropPeer { peer });
    }
}

/// A question about the publisher's session.
#[derive(Debug)]
enum Inquiry {
    /// A refusal said that a session is gone: ours?
    Ours(CallId),
    Publisher(CallId),
}

/// The state machine; see the module's description.
#[derive(Debug)]
pub struct Pull {
    publication: Publication,
    form: PullForm,
    /// The driver cannot make offers, which leaves form 1.
    cannot_offer: bool,
    /// The driver cannot answer a second offer with the same peer: a track that was missing comes with a new link.
    cannot_renew: bool,
    calls: ApiCalls,
    peers_made: u64,
    attempt: Attempt,
    link: Option<Link>,
    closings: Closings,
    inquiry: Option<Inquiry>,
    /// When the publisher's session was last asked about because nothing came.
    asked_at: Option<Instant>,
    absences: Absences,
    backoff: Backoff,
    /// All was well until now: the next attempt begins at once.
    was_well: bool,
    /// For tracks asked for on a link that has others.
    track_backoff: Backoff,
    rng: Rng,
    never_connected: u32,
    /// Attempts in a row that found no track.
    denials: u32,
    sign_of_life: Instant,
    state: State,
    /// Something went wrong since it was last well.
    is_troubled: bool,
    ended: Option<EndReason>,
    stats: Stats,
    /// Of the last input.
    now: Instant,
}

impl Pull {
    /// Begins at once. `seed` is for jitter.
    pub fn new(publication: Publication, form: PullForm, seed: u64, now: Instant) -> Self {
        let mut pull = Self {
            publication,
            form,
            cannot_offer: false,
            cannot_renew: false,
            calls: ApiCalls::default(),
            peers_made: 0,
            attempt: Attempt::None,
            link: None,
            closings: Closings::default(),
            inquiry: None,
            asked_at: None,
            absences: Absences::default(),
            backoff: Backoff::new(),
            was_well: true,
            track_backoff: Backoff::new(),
            rng: Rng::new(seed),
            never_connected: 0,
            denials: 0,
            sign_of_life: now,
            state: State::Requesting,
            is_troubled: false,
            ended: None,
            stats: Stats::default(),
            now,
        };
        pull.settle(now);
        pull
    }

    /// What is pulled.
    pub fn publication(&self) -> &Publication {
        &self.publication
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn stats(&self) -> Stats {
        Stats { calls: self.calls.made, ..self.stats }
    }

    /// Sessions that are in use or about to be closed.
    pub fn open_sessions(&self) -> usize {
        let attempt = usize::from(self.attempt.session().is_some());
        attempt + usize::from(self.link.is_some()) + self.closings.len()
    }

    /// Over, with nothing left to be done.
    pub fn is_finished(&self) -> bool {
        self.ended.is_some() && self.closings.is_empty() && self.calls.outputs.is_empty()
    }

    /// Ends the pull; the sessions are closed.
    pub fn stop(&mut self, now: Instant) {
        self.end(EndReason::Stopped, now);
        self.settle(now);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.calls.outputs.pop_front()
    }

    /// When [`Pull::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let link = self.link.as_ref().and_then(|link| link.poll_timeout(self.now));
        let question = self.asked_again_at(self.now).filter(|_| self.inquiry.is_none());
        [self.attempt.poll_timeout(), link, question, self.closings.poll_timeout()].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.settle(now);
    }

    /// The reply to a call.
    pub fn handle_reply(&mut self, id: CallId, reply: Result<ApiReply, CallError>, now: Instant) {
        if reply.is_err() {
            self.stats.calls_failed += 1;
        }
        if self.attempt.call() == Some(id) {
            self.handle_attempt_reply(reply, now);
        } else if self.link.as_ref().and_then(Link::under_way) == Some(id) {
            self.handle_link_reply(reply, now);
        } else if matches!(self.inquiry, Some(Inquiry::Ours(call) | Inquiry::Publisher(call)) if call == id) {
            self.handle_inquiry(reply, now);
        } else {
            self.closings.handle_reply(id, reply, &mut self.calls, &mut self.stats, now);
        }
        self.settle(now);
    }

    /// The answer or the offer that was asked for, or why there is none.
    pub fn handle_described(&mut self, peer: PeerId, sdp: Result<String, String>, now: Instant) {
        if matches!(self.attempt, Attempt::Offering { peer: own, .. } if own == peer) {
            self.handle_offer_made(peer, sdp, now);
        } else if let Some(link) =
            self.link.as_mut().filter(|link| link.peer == peer && matches!(link.exchange, Exchange::Answering))
        {
            match sdp {
                Ok(answer) => {
                    let session = link.session.clone();
                    let call = self.calls.make(ApiCall::Renegotiate { session, answer });
                    link.exchange = Exchange::Renegotiating(call);
                }
                Err(reason) => {
                    self.cannot_renew |= link.transport != Transport::New;
                    self.exchange_failed(Trouble::Description(reason), true, now);
                }
            }
        }
        self.settle(now);
    }

    /// Whether the peer took the SFU's answer.
    pub fn handle_applied(&mut self, peer: PeerId, result: Result<(), String>, now: Instant) {
        if let Some(link) =
            self.link.as_mut().filter(|link| link.peer == peer && matches!(link.exchange, Exchange::Applying))
        {
            match result {
                Ok(()) => Self::exchange_done(link, &mut self.calls, now),
                Err(reason) => self.exchange_failed(Trouble::Description(reason), true, now),
            }
        }
        self.settle(now);
    }

    /// What became of a peer.
    pub fn handle_peer(&mut self, peer: PeerId, event: PeerEvent, now: Instant) {
        if let Some(link) = self.link.as_mut().filter(|link| link.peer == peer) {
            match (event, link.transport) {
                (PeerEvent::Connected, Transport::New | Transport::Connecting { .. }) => {
                    link.transport = Transport::Up { since: now };
                    self.never_connected = 0;
                }
                (PeerEvent::Connected, Transport::Lost { up_since, .. }) => {
                    link.transport = Transport::Up { since: up_since };
                    // What was silent with the path is given time to come back with it.
                    self.asked_at = Some(now);
                }
                (PeerEvent::Lost, Transport::Up { since: up_since }) => {
                    // Of what was heard, not of the moment in which somebody noticed.
                    let since = link.heard().unwrap_or(now);
                    link.transport = Transport::Lost { since, up_since };
                }
                (PeerEvent::Media(kind), Transport::Up { .. } | Transport::Lost { .. }) => {
                    if matches!(link.transport, Transport::Lost { .. }) {
                        self.asked_at = Some(now);
                    }
                    let before = link.flowing(now);
                    link.handle_media(kind, now);
                    self.sign_of_life = now;
                    self.denials = 0;
                    self.absences.found(kind, &mut self.calls);
                    if before == 0 && link.flowing(now) > 0 {
                        self.stats.links += 1;
                    }
                }
                (PeerEvent::Ended(reason), _) => {
                    self.retire_link(Trouble::PeerEnded(reason), now);
                }
                (PeerEvent::Connected | PeerEvent::Media(_) | PeerEvent::Lost, _) => {}
            }
        }
        self.settle(now);
    }

    /// Brings everything up to `now`: what is due, what follows from what has just changed.
    fn settle(&mut self, now: Instant) {
        self.now = now;
        if self.ended.is_none() {
            self.settle_link(now);
            self.settle_attempt(now);
        }
        self.closings.handle_timeout(&mut self.calls, now);
        let state = self.derive_state(now);
        if state != self.state {
            self.state = state.clone();
            self.calls.outputs.push_back(Output::State(state));
        }
    }

    fn new_peer(&mut self) -> PeerId {
        self.peers_made += 1;
        PeerId(self.peers_made)
    }

    fn report(&mut self, trouble: Trouble) {
        self.is_troubled = true;
        self.calls.outputs.push_back(Output::Trouble(trouble));
    }

    fn change_form(&mut self) {
        if !self.cannot_offer {
            self.form = self.form.other();
        }
    }

    fn handle_inquiry(&mut self, reply: Result<ApiReply, CallError>, now: Instant) {
        match (self.inquiry.take(), reply) {
            // Ours is alive, so it is the publisher's that is gone: let the API confirm it.
            (Some(Inquiry::Ours(_)), Ok(_)) => self.inquire_about_publisher(),
            (Some(Inquiry::Publisher(_)), Ok(ApiReply::Inspected(session))) => {
                self.sign_of_life = now;
                self.handle_publishers_tracks(&session, now);
            }
            // A 404 would be the app's, which the operator may mend.
            (Some(Inquiry::Publisher(_)), Err(error)) if error.status() == Some(410) => {
                self.end(EndReason::PublisherGone, now);
            }
            _ => {}
        }
    }

    /// A track that is silent because the SFU has ended it stays so, and with all of them the link.
    fn handle_publishers_tracks(&mut self, session: &SessionReply, now: Instant) {
        let Some(link) = self.link.as_mut().filter(|link| link.silent_since().is_some()) else { return };
        let is_ended = |kind: TrackKind| {
            let named = self.publication.tracks.iter().find(|(of, _)| *of == kind);
            let mut tracks = session.tracks.iter();
            let track = tracks.find(|track| track.track_name.as_ref() == named.map(|(_, name)| name));
            track.is_some_and(|track| track.status.as_deref() == Some("inactive"))
        };
        let is_over = |track: &Pulled| track.is_silent(now) && is_ended(track.kind);
        for track in link.pulled.iter().filter(|track| is_over(track)) {
            self.absences.record_inactive(track.kind, &mut self.calls);
        }
        if link.pulled.iter().all(is_over) {
            link.spent = Some(Trouble::Silent);
        } else if link.remove(is_over) {
            link.ask_again = Some(now);
        }
    }

    fn inquire_about_ours(&mut self, session: &str) {
        if self.inquiry.is_none() {
            let session = session.to_owned();
            let call = self.calls.make(ApiCall::Inspect { session });
            self.inquiry = Some(Inquiry::Ours(call));
        }
    }

    fn inquire_about_publisher(&mut self) {
        if self.inquiry.is_none() {
            let session = self.publication.session_id.clone();
            let call = self.calls.make(ApiCall::Inspect { session });
            self.inquiry = Some(Inquiry::Publisher(call));
        }
    }

    fn end(&mut self, reason: EndReason, now: Instant) {
        if self.ended.is_none() {
            self.ended = Some(reason);
            self.cancel_attempt(now);
            self.drop_link(now);
            self.inquiry = None;
        }
    }

    fn derive_state(&self, now: Instant) -> State {
        if let Some(reason) = self.ended {
            return State::Ended(reason);
        }
        let Some(link) = &self.link else {
            return match self.is_troubled {
                false => State::Requesting,
                true => State::Recovering,
            };
        };
        let missing = self.publication.tracks.iter().find(|(kind, _)| {
            let of_kind = |track: &&Pulled| track.kind == *kind;
            let track = link.pulled.iter().find(of_kind);
            track.is_none_or(|track| track.heard.is_none())
        });
        match (link.flowing(now), missing) {
            (0, _) if link.fault(now).is_some() => State::Recovering,
            (0, Some(_)) => State::Connecting,
            (0, None) => self.state.clone(),
            (_, Some((kind, _))) => State::Partial(*kind),
            (_, None) => State::Flowing,
        }
    }
}

#[cfg(test)]
mod tests;
