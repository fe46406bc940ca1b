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

use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;

use super::api::{SessionReply, TracksReply};
use super::error::CallError;
use crate::backoff::{Backoff, Failure, Rng};
use crate::deadline::earliest;

mod absence;
mod attempt;
mod calls;
mod closing;
mod interface;
mod link;

pub use interface::{
    ApiCall, ApiReply, CallId, EndReason, HostError, Output, PeerEvent, PeerId, Publication, PullForm, State, Stats,
    Trouble,
};

use absence::Absences;
use attempt::Attempt;
use calls::ApiCalls;
use closing::{Closings, GivenUp};
use link::{ASK_AFTER, ASK_EVERY, CONNECT_WITHIN, Connectivity, Exchange, Link, Pulled};

/// A publisher of whom nothing was seen for so long is gone, even if the API does not say so: it may hang instead.
pub const SIGN_OF_LIFE_WITHIN: Duration = Duration::from_secs(120);
/// Every so many attempts that found no track the API is asked about the publisher's session.
const DENIALS_PER_INQUIRY: u32 = 3;
/// A publisher is not taken for gone before so many attempts found no track.
const DENIALS_AT_LEAST: u32 = 6;

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
    /// The driver cannot renegotiate an existing peer, so that a missing track needs a new link.
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

    /// The publication that is pulled.
    pub fn publication(&self) -> &Publication {
        &self.publication
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn stats(&self) -> Stats {
        Stats { calls: self.calls.made, ..self.stats }
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
        earliest([self.attempt.poll_timeout(), link, question, self.closings.poll_timeout()])
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
    pub fn handle_described(&mut self, peer: PeerId, sdp: Result<String, HostError>, now: Instant) {
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
                    self.cannot_renew |= link.connectivity != Connectivity::New;
                    self.exchange_failed(Trouble::Description(reason), true, now);
                }
            }
        }
        self.settle(now);
    }

    /// Whether the peer took the SFU's answer.
    pub fn handle_applied(&mut self, peer: PeerId, result: Result<(), HostError>, now: Instant) {
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

    /// A peer's event.
    pub fn handle_peer(&mut self, peer: PeerId, event: PeerEvent, now: Instant) {
        if let Some(link) = self.link.as_mut().filter(|link| link.peer == peer) {
            match (event, link.connectivity) {
                (PeerEvent::Connected, Connectivity::New | Connectivity::Connecting { .. }) => {
                    link.connectivity = Connectivity::Up { since: now };
                    self.never_connected = 0;
                }
                (PeerEvent::Connected, Connectivity::Lost { up_since, .. }) => {
                    link.connectivity = Connectivity::Up { since: up_since };
                    // What was silent with the path is given time to come back with it.
                    self.asked_at = Some(now);
                }
                (PeerEvent::Lost, Connectivity::Up { since: up_since }) => {
                    // Of what was heard, not of the moment in which somebody noticed.
                    let since = link.heard().unwrap_or(now);
                    link.connectivity = Connectivity::Lost { since, up_since };
                }
                (PeerEvent::Media(kind), Connectivity::Up { .. } | Connectivity::Lost { .. }) => {
                    if matches!(link.connectivity, Connectivity::Lost { .. }) {
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

    // --- The link ---

    fn settle_link(&mut self, now: Instant) {
        let Some(link) = &mut self.link else { return };
        if link.never_connected(now) {
            self.never_connected += 1;
            if self.never_connected.is_multiple_of(2) {
                self.change_form();
            }
            self.retire_link(Trouble::NeverConnected, now);
            return;
        }
        if self.inquiry.is_none() && self.asked_again_at(now).is_some_and(|at| at <= now) {
            self.asked_at = Some(now);
            self.inquire_about_publisher();
        }
        let Some(link) = &mut self.link else { return };
        // One that has to be replaced may flow all the while.
        if link.is_stable(now) && link.fault(now).is_none() {
            self.backoff.reset();
            self.was_well = true;
            self.is_troubled = false;
        }
        if link.drop_collected(now) {
            link.ask_again = Some(now);
        }
        let missing = self.publication.tracks.iter().filter(|(kind, _)| !link.has(*kind));
        let missing: Vec<_> = missing.cloned().collect();
        if missing.is_empty() {
            link.lacks = None;
            link.ask_again = None;
            self.track_backoff.reset();
            return;
        }
        if !link.can_ask() {
            return;
        }
        match link.ask_again {
            None => {
                link.ask_again = Some(self.track_backoff.next_start(Failure::TrackMissing, now, now, &mut self.rng))
            }
            Some(at) if at <= now && self.cannot_renew => {
                link.lacks = missing.first().map(|(kind, _)| *kind);
            }
            Some(at) if at <= now => {
                link.ask_again = None;
                link.offer_open = true;
                let request = self.publication.request(&missing, None);
                let session = link.session.clone();
                let call = self.calls.make(ApiCall::NewTracks { session, request });
                link.exchange = Exchange::Requesting { call, started: now };
            }
            Some(_) => {}
        }
    }

    /// When the publisher's session is to be asked about, should the link or a track of it stay silent.
    fn asked_again_at(&self, now: Instant) -> Option<Instant> {
        let silent_since = self.link.as_ref()?.silent_since()?;
        let first = silent_since + ASK_AFTER;
        let again = self.asked_at.map(|at| at + ASK_EVERY).filter(|_| first <= now);
        Some(again.map_or(first, |again| again.max(first)))
    }

    fn handle_link_reply(&mut self, reply: Result<ApiReply, CallError>, now: Instant) {
        let Some(link) = &mut self.link else { return };
        match (std::mem::replace(&mut link.exchange, Exchange::Idle), reply) {
            (Exchange::Renegotiating(_), Ok(_)) => Self::exchange_done(link, &mut self.calls, now),
            (Exchange::Renegotiating(_), Err(error)) => {
                let curable = matches!(error.status(), Some(400 | 406));
                self.exchange_failed(Trouble::Call(error), curable, now);
            }
            (Exchange::Requesting { started, .. }, Ok(ApiReply::Tracks(reply))) => {
                let outcome = self.publication.read(&reply);
                let asked: Vec<_> =
                    self.publication.tracks.iter().filter(|(kind, _)| !link.has(*kind)).cloned().collect();
                self.absences.record_reply(&asked, &outcome.unknown, &mut self.calls);
                link.offer_open = outcome.offer.is_some();
                let mut found = outcome.good;
                found.retain(|(kind, _)| !link.has(*kind));
                if found.is_empty() {
                    link.ask_again =
                        Some(self.track_backoff.next_start(Failure::TrackMissing, started, now, &mut self.rng));
                } else {
                    self.sign_of_life = now;
                }
                let found = found.into_iter();
                link.pulled.extend(found.map(|(kind, mid)| Pulled::new(kind, mid, now)));
                if let Some(sdp) = outcome.offer {
                    link.exchange = Exchange::Answering;
                    self.calls.outputs.push_back(Output::AnswerOffer { peer: link.peer, sdp, renewed: true });
                }
                if let Some(trouble) = outcome.failed {
                    self.report(trouble);
                }
            }
            (Exchange::Requesting { started, .. }, Err(error))
                if !error.is_outcome_unknown() && !error.is_gone() && error.status() != Some(406) =>
            {
                link.offer_open = false;
                let again = self.track_backoff.next_start(Failure::TrackMissing, started, now, &mut self.rng);
                let asked_to_wait = error.retry_after().unwrap_or_default();
                link.ask_again = Some(again.max(now + asked_to_wait));
                self.report(Trouble::Call(error));
            }
            (exchange, Err(error)) => {
                // Refused for the sake of the publisher's session, or of ours: no offer was made, so that ours can be closed.
                link.offer_open &= !(matches!(exchange, Exchange::Requesting { .. }) && error.is_gone());
                self.exchange_failed(Trouble::Call(error), false, now);
            }
            (_, Ok(_)) => self.exchange_failed(Trouble::NoDescription, false, now),
        }
    }

    fn exchange_done(link: &mut Link, calls: &mut ApiCalls, now: Instant) {
        link.exchange = Exchange::Idle;
        link.offer_open = false;
        if link.connectivity == Connectivity::New {
            let deadline = now + CONNECT_WITHIN;
            link.connectivity = Connectivity::Connecting { deadline };
            let peer = link.peer;
            calls.outputs.push_back(Output::Connect { peer });
        }
    }

    /// The session is worthless. What flows already may flow on until there is another one.
    fn exchange_failed(&mut self, trouble: Trouble, curable: bool, now: Instant) {
        let Some(link) = &mut self.link else { return };
        link.exchange = Exchange::Idle;
        if matches!(link.connectivity, Connectivity::Up { .. } | Connectivity::Lost { .. }) {
            // Tracks that came with this exchange will never be heard of.
            // The attempt that follows tells why.
            link.spent = Some(trouble);
            return;
        }
        if curable {
            self.change_form();
        }
        self.retire_link(trouble, now);
    }

    /// Has the session closed and the peer dropped.
    fn retire_link(&mut self, trouble: Trouble, now: Instant) {
        let Some(link) = &self.link else { return };
        let started = link.started;
        self.report(trouble);
        self.drop_link(now);
        if matches!(self.attempt, Attempt::None) {
            self.schedule(started, now);
        }
    }

    fn drop_link(&mut self, now: Instant) {
        let Some(link) = self.link.take() else { return };
        let given_up =
            GivenUp { mids: link.mids(), under_way: link.under_way(), peer: Some(link.peer), session: link.session };
        self.closings.add(given_up, &mut self.calls, &mut self.stats, now);
    }

    // --- The attempt ---

    /// Starts, ends or carries on the attempt, as the link and the time demand.
    fn settle_attempt(&mut self, now: Instant) {
        let fault = match &self.link {
            None => Some(None),
            Some(link) => link.fault(now).map(Some),
        };
        match (fault, &self.attempt) {
            (Some(trouble), Attempt::None) => {
                if let Some(trouble) = trouble {
                    self.report(trouble);
                }
                self.schedule(now, now);
            }
            // The link came back by itself.
            (None, attempt) if !matches!(attempt, Attempt::None) => self.cancel_attempt(now),
            _ => {}
        }
        if matches!(self.attempt, Attempt::Waiting { until } if until <= now) {
            self.start_attempt(now);
        }
    }

    /// Plans the next attempt: at once if all was well until now, else after a pause that depends on when the last one
    /// began.
    fn schedule(&mut self, started: Instant, now: Instant) {
        let until = match std::mem::take(&mut self.was_well) {
            true => now,
            false => self.backoff.next_start(Failure::Rejected, started, now, &mut self.rng),
        };
        self.attempt = Attempt::Waiting { until };
    }

    fn start_attempt(&mut self, now: Instant) {
        let started = now;
        self.attempt = match self.form {
            PullForm::SfuOffers => {
                Attempt::Creating { call: self.calls.make(ApiCall::NewSession), started, offer: None }
            }
            PullForm::WeOffer => {
                let peer = self.new_peer();
                let kinds = self.publication.tracks.iter().map(|(kind, _)| *kind);
                let kinds = kinds.collect();
                self.calls.outputs.push_back(Output::MakeOffer { peer, kinds });
                Attempt::Offering { peer, started }
            }
        };
    }

    fn handle_offer_made(&mut self, peer: PeerId, sdp: Result<String, HostError>, now: Instant) {
        let started = self.attempt.started(now);
        match sdp {
            Ok(sdp) => {
                self.attempt =
                    Attempt::Creating { call: self.calls.make(ApiCall::NewSession), started, offer: Some((peer, sdp)) };
            }
            Err(reason) => {
                self.cannot_offer = true;
                self.form = PullForm::SfuOffers;
                self.calls.drop_peer(peer);
                self.report(Trouble::Description(reason));
                // No fault of the SFU's: the other form need not wait.
                self.attempt = Attempt::Waiting { until: now };
            }
        }
    }

    fn handle_attempt_reply(&mut self, reply: Result<ApiReply, CallError>, now: Instant) {
        let started = self.attempt.started(now);
        match (std::mem::replace(&mut self.attempt, Attempt::None), reply) {
            (Attempt::Creating { offer, .. }, Ok(ApiReply::Session(session))) => {
                self.stats.sessions_made += 1;
                let (peer, offer) = offer.unzip();
                let request = self.publication.request(&self.publication.tracks, offer);
                let call = self.calls.make(ApiCall::NewTracks { session: session.clone(), request });
                self.attempt = Attempt::Requesting { call, started, session, peer };
            }
            (Attempt::Requesting { session, peer, .. }, Ok(ApiReply::Tracks(reply))) => {
                self.handle_tracks(session, peer, &reply, started, now);
            }
            (Attempt::Creating { offer, .. }, reply) => {
                if reply.as_ref().is_err_and(CallError::is_unanswered) {
                    self.stats.sessions_unknown += 1;
                }
                let trouble = reply.err().map_or(Trouble::NoDescription, Trouble::Call);
                self.attempt_failed(offer.map(|(peer, _)| peer), started, trouble, now);
            }
            (Attempt::Requesting { session, peer, .. }, reply) => {
                if reply.as_ref().is_err_and(CallError::is_gone) {
                    self.inquire_about_ours(&session);
                    self.deny(now);
                }
                self.stats.sessions_abandoned += 1;
                let trouble = reply.err().map_or(Trouble::NoDescription, Trouble::Call);
                self.attempt_failed(peer, started, trouble, now);
            }
            (Attempt::None | Attempt::Waiting { .. } | Attempt::Offering { .. }, _) => {}
        }
    }

    fn handle_tracks(
        &mut self,
        session: String,
        peer: Option<PeerId>,
        reply: &TracksReply,
        started: Instant,
        now: Instant,
    ) {
        let outcome = self.publication.read(reply);
        self.absences.record_reply(&self.publication.tracks, &outcome.unknown, &mut self.calls);
        let good = outcome.good;
        if good.is_empty() {
            self.stats.sessions_abandoned += 1;
            self.deny(now);
            let trouble = outcome.failed.unwrap_or(Trouble::NoDescription);
            return self.attempt_failed(peer, started, trouble, now);
        }
        self.sign_of_life = now;
        self.denials = 0;
        let (exchange, sdp) = match (peer, outcome.offer, outcome.answer) {
            (None, Some(sdp), None) => (Exchange::Answering, sdp),
            (Some(_), None, Some(sdp)) => (Exchange::Applying, sdp),
            _ => {
                self.stats.sessions_abandoned += 1;
                self.change_form();
                return self.attempt_failed(peer, started, Trouble::NoDescription, now);
            }
        };
        // A link is not given up for one that has less, nor for want of a track that this one lacks too.
        let enough = self.link.as_ref().map_or(0, |link| match link.lacks {
            Some(_) => link.pulled.len() + 1,
            None => link.flowing(now),
        });
        if good.len() < enough {
            self.stats.sessions_abandoned += 1;
            let trouble = outcome.failed.unwrap_or(Trouble::NoDescription);
            return self.attempt_failed(peer, started, trouble, now);
        }
        if let Some(trouble) = outcome.failed {
            self.report(trouble);
        }
        self.drop_link(now);
        let (peer, output) = match peer {
            Some(peer) => (peer, Output::ApplyAnswer { peer, sdp }),
            None => {
                let peer = self.new_peer();
                let renewed = false;
                (peer, Output::AnswerOffer { peer, sdp, renewed })
            }
        };
        self.calls.outputs.push_back(output);
        self.track_backoff.reset();
        self.link = Some(Link::new(session, peer, good, exchange, started, now));
    }

    fn attempt_failed(&mut self, peer: Option<PeerId>, started: Instant, trouble: Trouble, now: Instant) {
        if let Some(peer) = peer {
            self.calls.drop_peer(peer);
        }
        let asked_to_wait = trouble.retry_after();
        self.report(trouble);
        self.schedule(started, now);
        if let (Attempt::Waiting { until }, Some(wait)) = (&mut self.attempt, asked_to_wait) {
            *until = (*until).max(now + wait);
        }
    }

    fn cancel_attempt(&mut self, now: Instant) {
        let attempt = std::mem::replace(&mut self.attempt, Attempt::None);
        if let Some(peer) = attempt.peer() {
            self.calls.drop_peer(peer);
        }
        match attempt {
            Attempt::None | Attempt::Waiting { .. } | Attempt::Offering { .. } => {}
            Attempt::Creating { call, .. } => self.closings.abandon_pending(call),
            Attempt::Requesting { call, session, .. } => {
                let given_up = GivenUp { session, mids: Vec::new(), under_way: Some(call), peer: None };
                self.closings.add(given_up, &mut self.calls, &mut self.stats, now);
            }
        }
    }

    /// An attempt found no track. Is the publisher still there?
    fn deny(&mut self, now: Instant) {
        self.denials += 1;
        let silent = now.saturating_duration_since(self.sign_of_life);
        if self.denials >= DENIALS_AT_LEAST && silent >= SIGN_OF_LIFE_WITHIN {
            self.end(EndReason::PublisherGone, now);
        } else if self.denials.is_multiple_of(DENIALS_PER_INQUIRY) {
            self.inquire_about_publisher();
        }
    }

    // --- Both ---

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
