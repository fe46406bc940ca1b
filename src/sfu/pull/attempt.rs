//! One attempt to get the tracks on a session of their own, from the pause before it to the link that it becomes. The
//! session of an attempt that fails was never connected: it expires within seconds, and is only counted.

use std::time::Instant;

use guest_relay_muxer::TrackKind;

use super::super::api::{SdpType, SessionDescription, TRACK_NOT_FOUND, Track, TracksReply, TracksRequest};
use super::super::error::CallError;
use super::closing::GivenUp;
use super::link::{Exchange, Link};
use super::{
    ApiCall, ApiReply, CallId, DENIALS_PER_INQUIRY, EndReason, Output, PeerId, Publication, Pull, PullForm,
    SIGN_OF_LIFE_WITHIN, Trouble,
};
use crate::backoff::Failure;

/// A publisher is not taken for gone before so many attempts found no track.
const DENIALS_AT_LEAST: u32 = 6;

#[derive(Debug)]
pub(super) enum Attempt {
    /// None is wanted.
    None,
    Waiting {
        until: Instant,
    },
    /// Form 2: the driver makes our offer. Before the session, which would otherwise expire meanwhile.
    Offering {
        peer: PeerId,
        started: Instant,
    },
    Creating {
        call: CallId,
        started: Instant,
        offer: Option<(PeerId, String)>,
    },
    Requesting {
        call: CallId,
        started: Instant,
        session: String,
        /// Whose offer it was, in form 2.
        peer: Option<PeerId>,
    },
}

impl Attempt {
    pub(super) fn call(&self) -> Option<CallId> {
        match self {
            Self::Creating { call, .. } | Self::Requesting { call, .. } => Some(*call),
            Self::None | Self::Waiting { .. } | Self::Offering { .. } => None,
        }
    }

    pub(super) fn session(&self) -> Option<&str> {
        match self {
            Self::Requesting { session, .. } => Some(session),
            _ => None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Waiting { until } => Some(*until),
            _ => None,
        }
    }

    /// The peer made for it, which has to be dropped with it.
    fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Offering { peer, .. } => Some(*peer),
            Self::Creating { offer, .. } => offer.as_ref().map(|(peer, _)| *peer),
            Self::Requesting { peer, .. } => *peer,
            Self::None | Self::Waiting { .. } => None,
        }
    }

    fn started(&self, now: Instant) -> Instant {
        match self {
            Self::Offering { started, .. } | Self::Creating { started, .. } | Self::Requesting { started, .. } => {
                *started
            }
            Self::None | Self::Waiting { .. } => now,
        }
    }
}

/// What a reply to `tracks/new` says.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Tracks with their mids.
    pub(super) good: Vec<(TrackKind, String)>,
    /// The first that failed.
    pub(super) failed: Option<Trouble>,
    /// Those that the publisher's session has not got.
    pub(super) unknown: Vec<TrackKind>,
    pub(super) offer: Option<String>,
    pub(super) answer: Option<String>,
}

impl Publication {
    /// The body of `tracks/new` for some of the tracks.
    pub(super) fn request(&self, tracks: &[(TrackKind, String)], offer: Option<String>) -> TracksRequest {
        let remote = |(_, name): &(TrackKind, String)| Track::remote(&self.session_id, name);
        TracksRequest {
            session_description: offer.map(SessionDescription::offer),
            tracks: tracks.iter().map(remote).collect(),
        }
    }

    /// Each item of a reply counts by itself; one that was not asked for does not count at all.
    pub(super) fn read(&self, reply: &TracksReply) -> Outcome {
        let mut outcome = Outcome { good: Vec::new(), failed: None, unknown: Vec::new(), offer: None, answer: None };
        for item in &reply.tracks {
            let asked = |(_, name): &&(TrackKind, String)| item.track_name.as_ref() == Some(name);
            let Some((kind, _)) = self.tracks.iter().find(asked) else {
                continue;
            };
            match item.outcome() {
                Ok(mid) if outcome.good.iter().all(|(known, _)| known != kind) => {
                    outcome.good.push((*kind, mid.to_owned()));
                }
                Ok(_) => {}
                Err(error) => {
                    if error.code == TRACK_NOT_FOUND && !outcome.unknown.contains(kind) {
                        outcome.unknown.push(*kind);
                    }
                    outcome.failed.get_or_insert_with(|| Trouble::Track {
                        kind: *kind,
                        code: error.code.to_owned(),
                        description: error.description.to_owned(),
                        cf_ray: reply.cf_ray.clone(),
                    });
                }
            }
        }
        if let Some(description) = &reply.session_description {
            let sdp = Some(description.sdp.clone());
            match description.kind {
                SdpType::Offer => outcome.offer = sdp,
                SdpType::Answer => outcome.answer = sdp,
            }
        }
        outcome
    }
}

impl Pull {
    /// Starts, ends or carries on the attempt, as the link and the time demand.
    pub(super) fn settle_attempt(&mut self, now: Instant) {
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
    pub(super) fn schedule(&mut self, started: Instant, now: Instant) {
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

    pub(super) fn handle_offer_made(&mut self, peer: PeerId, sdp: Result<String, String>, now: Instant) {
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

    pub(super) fn handle_attempt_reply(&mut self, reply: Result<ApiReply, CallError>, now: Instant) {
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
        self.absences.record_outcome(&self.publication.tracks, &outcome, &mut self.calls);
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

    pub(super) fn cancel_attempt(&mut self, now: Instant) {
        let attempt = std::mem::replace(&mut self.attempt, Attempt::None);
        if let Some(peer) = attempt.peer() {
            self.calls.drop_peer(peer);
        }
        match attempt {
            Attempt::None | Attempt::Waiting { .. } | Attempt::Offering { .. } => {}
            Attempt::Creating { call, .. } => self.closings.add_unborn(call),
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
}
