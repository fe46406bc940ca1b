//! Sessions of ours that are of no more use: their tracks are closed by force, one call at a time for each, and the
//! session then expires by itself. A session on which nothing was ever registered is only counted.
//!
//! Bounds: [`CLOSINGS_MAX`] at once, [`ATTEMPTS`] calls for each; whoever exceeds them is abandoned, which is counted.

use std::time::{Duration, Instant};

use super::super::publish::is_worth_repeating;
use super::call::{ApiCall, ApiReply};
use super::{CallId, Calls, Stats};
use crate::calls::error::CallError;

/// Sessions in the process of being closed.
pub(super) const CLOSINGS_MAX: usize = 8;
/// Tries to close one session's tracks.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Closing {
    session: String,
    mids: Vec<String>,
    attempts: u32,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// A call that was under way when the session was given up has to end first.
    Awaiting(CallId),
    Due(Instant),
    Closing(CallId),
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
        self.list.is_empty() && self.unwanted.is_empty()
    }

    /// Sessions that are neither closed nor abandoned yet.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Gives up a session. `under_way` is the mutation that has not been answered yet.
    pub(super) fn add(
        &mut self,
        session: String,
        mids: Vec<String>,
        under_way: Option<CallId>,
        stats: &mut Stats,
        now: Instant,
    ) {
        if under_way.is_none() && mids.is_empty() {
            stats.sessions_abandoned += 1;
            return;
        }
        if self.list.len() >= CLOSINGS_MAX {
            self.list.remove(0);
            stats.sessions_abandoned += 1;
        }
        self.list.push(Closing {
            session,
            mids,
            attempts: 0,
            phase: under_way.map_or(Phase::Due(now), Phase::Awaiting),
        });
    }

    /// Gives up a session whose id is not known yet.
    pub(super) fn add_unborn(&mut self, call: CallId) {
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
        let of = |closing: &Closing| matches!(closing.phase, Phase::Awaiting(call) | Phase::Closing(call) if call == id);
        let Some(at) = self.list.iter().position(of) else {
            return;
        };
        let Some(closing) = self.list.get_mut(at) else {
            return;
        };
        match (&closing.phase, reply) {
            (Phase::Awaiting(_), reply) => {
                if let Ok(ApiReply::Tracks(tracks)) = reply {
                    let mids = tracks
                        .tracks
                        .iter()
                        .filter_map(|track| track.outcome().ok());
                    closing.mids.extend(mids.map(str::to_owned));
                }
                closing.phase = Phase::Due(now);
                if closing.mids.is_empty() {
                    stats.sessions_abandoned += 1;
                    self.list.remove(at);
                }
            }
            (_, Ok(_)) => {
                stats.sessions_closed += 1;
                self.list.remove(at);
            }
            // 425: it never had a transport and will not get one any more.
            (_, Err(error))
                if error.status() == Some(425)
                    || closing.attempts >= ATTEMPTS
                    || !is_worth_repeating(&error) =>
            {
                log::debug!("{error}");
                stats.sessions_abandoned += 1;
                self.list.remove(at);
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
        self.list.iter().filter_map(due).min()
    }

    pub(super) fn handle_timeout(&mut self, calls: &mut Calls, now: Instant) {
        for closing in &mut self.list {
            if matches!(closing.phase, Phase::Due(at) if at <= now) {
                closing.attempts += 1;
                closing.phase = Phase::Closing(calls.make(ApiCall::CloseTracks {
                    session: closing.session.clone(),
                    mids: closing.mids.clone(),
                }));
            }
        }
    }
}
