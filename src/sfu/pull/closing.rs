//! Sessions of ours that are of no more use: their tracks are closed by force, one call at a time for each, and the
//! session then expires by itself. One that never had a transport, or that has an offer of the SFU open, is only counted:
//! the close would be held or refused, and the session expires sooner than that.
//!
//! Tracks first, then the peer: of a session whose peer is gone the SFU knows that it is disconnected, and a close of its
//! tracks may hang. So the peer lives until the close is answered, but no longer than [`LINGER`].
//!
//! ```text
//!  Awaiting ──reply to what was under way──▶ Due ──call──▶ Closing ──done──▶ closed
//!     │                                       ▲               │
//!     │ an offer of the SFU is open           └──worth────────┤ failed
//!     ▼                                          another try  ▼
//!  abandoned                                               abandoned
//! ```
//!
//! Bounds: [`CLOSINGS_MAX`] at once, [`ATTEMPTS`] calls for each; whoever exceeds them is abandoned, which is counted.

use std::time::{Duration, Instant};

use super::calls::ApiCalls;
use super::interface::{ApiCall, ApiReply, CallId, PeerId, Stats};
use crate::sfu::error::{Call, CallError};

/// Sessions in the process of being closed.
pub(super) const CLOSINGS_MAX: usize = 8;
/// Tries to close one session's tracks, over some 15 s: the SFU itself takes 30 s to notice that nobody is there any more.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// How long a peer may outlive its use.
const LINGER: Duration = Duration::from_secs(2);

/// A session that is given up.
#[derive(Debug)]
pub(super) struct GivenUp {
    pub(super) session: String,
    /// To be closed.
    pub(super) mids: Vec<String>,
    /// The mutation that has not been answered yet.
    pub(super) under_way: Option<CallId>,
    /// To be dropped.
    pub(super) peer: Option<PeerId>,
}

#[derive(Debug)]
struct Closing {
    session: String,
    mids: Vec<String>,
    attempts: u32,
    phase: Phase,
    /// The peer, and when it is dropped at the latest.
    lingering: Option<(PeerId, Instant)>,
}

/// See the module.
#[derive(Debug)]
enum Phase {
    /// A call that was under way when the session was given up has to end first.
    Awaiting(CallId),
    Due(Instant),
    Closing(CallId),
}

/// Whether the SFU has made an offer that it wants answered first, or nobody knows.
fn may_wait_for_an_answer(reply: &Result<ApiReply, CallError>) -> bool {
    match reply {
        Ok(ApiReply::Tracks(tracks)) => tracks.session_description.is_some(),
        Ok(_) => false,
        Err(error) => error.call == Call::Renegotiate || error.is_outcome_unknown(),
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Closings {
    list: Vec<Closing>,
    /// `sessions/new` calls whose sessions nobody wants any more.
    unwanted: Vec<CallId>,
}

impl Closings {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.unwanted.is_empty()
    }

    /// Sessions that are neither closed nor abandoned yet.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Gives up a session.
    pub(super) fn add(&mut self, given_up: GivenUp, calls: &mut ApiCalls, stats: &mut Stats, now: Instant) {
        let GivenUp { session, mids, under_way, peer } = given_up;
        let peer_is_needed = !mids.is_empty();
        if let Some(peer) = peer.filter(|_| !peer_is_needed) {
            calls.drop_peer(peer);
        }
        if under_way.is_none() && mids.is_empty() {
            stats.sessions_abandoned += 1;
            return;
        }
        if self.len() >= CLOSINGS_MAX {
            self.abandon(0, calls, stats);
        }
        let lingering = peer.filter(|_| peer_is_needed).map(|peer| (peer, now + LINGER));
        self.list.push(Closing {
            session,
            mids,
            attempts: 0,
            phase: under_way.map_or(Phase::Due(now), Phase::Awaiting),
            lingering,
        });
    }

    fn abandon(&mut self, at: usize, calls: &mut ApiCalls, stats: &mut Stats) {
        stats.sessions_abandoned += 1;
        self.remove(at, calls);
    }

    fn remove(&mut self, at: usize, calls: &mut ApiCalls) {
        let closing = self.list.remove(at);
        if let Some((peer, _)) = closing.lingering {
            calls.drop_peer(peer);
        }
    }

    /// Gives up a session whose id is not known yet.
    pub(super) fn abandon_pending(&mut self, call: CallId) {
        if self.unwanted.len() >= CLOSINGS_MAX {
            self.unwanted.remove(0);
        }
        self.unwanted.push(call);
    }

    /// Takes a reply, if it is to one of these calls.
    pub(super) fn handle_reply(
        &mut self,
        id: CallId,
        reply: Result<ApiReply, CallError>,
        calls: &mut ApiCalls,
        stats: &mut Stats,
        now: Instant,
    ) {
        if let Some(at) = self.unwanted.iter().position(|call| *call == id) {
            self.unwanted.remove(at);
            if let Ok(ApiReply::Session(_)) = reply {
                stats.sessions_made += 1;
                stats.sessions_abandoned += 1;
            }
            return;
        }
        let of =
            |closing: &Closing| matches!(closing.phase, Phase::Awaiting(call) | Phase::Closing(call) if call == id);
        let Some(at) = self.list.iter().position(of) else {
            return;
        };
        let Some(closing) = self.list.get_mut(at) else {
            return;
        };
        match (&closing.phase, reply) {
            (Phase::Awaiting(_), reply) => {
                closing.phase = Phase::Due(now);
                if closing.mids.is_empty() || may_wait_for_an_answer(&reply) {
                    self.abandon(at, calls, stats);
                }
            }
            (_, Ok(_)) => {
                stats.sessions_closed += 1;
                self.remove(at, calls);
            }
            // 425: it never had a transport and will not get one any more.
            (_, Err(error))
                if error.status() == Some(425) || closing.attempts >= ATTEMPTS || !error.is_worth_repeating() =>
            {
                log::debug!("{error}");
                self.abandon(at, calls, stats);
            }
            (_, Err(_)) => {
                let pause = PAUSE * 2_u32.saturating_pow(closing.attempts.saturating_sub(1));
                closing.phase = Phase::Due(now + pause);
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = |closing: &Closing| match closing.phase {
            Phase::Due(at) => Some(at),
            Phase::Awaiting(_) | Phase::Closing(_) => None,
        };
        let lingering = |closing: &Closing| closing.lingering.map(|(_, until)| until);
        let lingering = self.list.iter().filter_map(lingering);
        self.list.iter().filter_map(due).chain(lingering).min()
    }

    pub(super) fn handle_timeout(&mut self, calls: &mut ApiCalls, now: Instant) {
        for closing in &mut self.list {
            if matches!(closing.phase, Phase::Due(at) if at <= now) {
                closing.attempts += 1;
                closing.phase = Phase::Closing(
                    calls.make(ApiCall::CloseTracks { session: closing.session.clone(), mids: closing.mids.clone() }),
                );
            }
            if let Some((peer, _)) = closing.lingering.take_if(|(_, until)| *until <= now) {
                calls.drop_peer(peer);
            }
        }
    }
}
