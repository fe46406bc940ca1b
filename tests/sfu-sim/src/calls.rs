//! The calls of one session: what `renegotiate`, `tracks/close`, `tracks/update`, GET and `sessions/new` do. `tracks/new`
//! is in `publish` and `pull`.
//!
//! Lock order: a [`Mutation`](crate::sfu::Mutation) is begun before the lock is taken and ends after it was given back.

use std::time::Instant;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::{
    ApiError, CloseRequest, ItemError, Location, Reply, SdpType, SessionDescription, SessionRequest, TrackReply,
    TracksReply, TracksRequest,
};
use crate::fault::Endpoint;
use crate::ledger::Rule;
use crate::sdp::Remote;
use crate::session::{EndReason, Session, TrackStatus};
use crate::sfu::Sfu;
use crate::state::{MAX_SESSIONS, State};
use crate::transport::hex;

/// At most so many tracks per call.
const MAX_TRACKS: usize = 64;

pub(crate) type Outcome = Result<Reply, ApiError>;

/// Reads a body; `fields` are those whose absence has to be named.
pub(crate) fn decode<T: DeserializeOwned>(body: &str, fields: &[&str]) -> Result<T, ApiError> {
    let value: Value = serde_json::from_str(body).map_err(|_| ApiError::decoding(""))?;
    let missing = fields.iter().find(|field| value.get(field).is_none());
    if let Some(field) = missing {
        return Err(ApiError::decoding(field));
    }
    serde_json::from_value(value).map_err(|error| {
        // serde names the field in backticks.
        let text = error.to_string();
        ApiError::decoding(text.split('`').nth(1).unwrap_or("tracks"))
    })
}

/// Whether a `tracks/new` publishes or pulls.
pub(crate) fn kind_of_tracks_new(body: &str) -> Endpoint {
    let request = decode::<TracksRequest>(body, &[]);
    let pulls = request.is_ok_and(|request| request.tracks.iter().any(|track| track.location == Location::Remote));
    if pulls { Endpoint::Pull } else { Endpoint::TracksNew }
}

/// An offer in a body.
pub(crate) fn offer(description: &SessionDescription) -> Result<Remote, ApiError> {
    if description.kind != SdpType::Offer {
        return Err(ApiError::sdp(406, "sessionDescription.type=offer is expected"));
    }
    Remote::parse(&description.sdp)
}

impl Sfu {
    pub(crate) fn sessions_new(&self, body: &str, hang: bool) -> (Outcome, Option<String>) {
        let offered = if body.is_empty() {
            None
        } else {
            let request = decode::<SessionRequest>(body, &["sessionDescription"]);
            match request.and_then(|request| offer(&request.session_description)) {
                Ok(offer) => Some(offer),
                Err(error) => return (Err(error), None),
            }
        };
        self.hang(hang);
        let now = Instant::now();
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.sessions.len() >= MAX_SESSIONS {
            let full = ApiError::new(503, "temporarily_unavailable_error", "Too many sessions");
            return (Err(full), None);
        }
        let id = hex(&mut state.rng, 32);
        let connects = state.faults.session_connects();
        state.sessions.insert(id.clone(), Session::new(id.clone(), connects, now));
        let mut reply = json!({"sessionId": id});
        if let Some(offer) = offered {
            // The tracks of this form stay unregistered.
            match state.publish(&id, &offer, &[], false, now) {
                Ok((sdp, _)) => reply["sessionDescription"] = json!({"type": "answer", "sdp": sdp}),
                Err(error) => {
                    state.sessions.remove(&id);
                    return (Err(error), None);
                }
            }
        }
        (Ok(Reply::of(201, &reply)), Some(id))
    }

    pub(crate) fn tracks_new(&self, id: &str, body: &str, hang: bool) -> Outcome {
        let request: TracksRequest = decode(body, &[])?;
        let mutation = self.begin(id, Endpoint::TracksNew, false)?;
        self.hang(hang);
        let reply = self.tracks_new_alone(id, &request);
        drop(mutation);
        reply
    }

    fn tracks_new_alone(&self, id: &str, request: &TracksRequest) -> Outcome {
        let tracks = &request.tracks;
        if tracks.len() > MAX_TRACKS {
            return Err(ApiError::params("Too many tracks"));
        }
        if tracks.is_empty() && !request.auto_discover {
            return Err(ApiError::params("Expecting at least 1 track"));
        }
        let offered = request.session_description.as_ref().map(offer).transpose()?;
        let remotes = tracks.iter().filter(|track| track.location == Location::Remote).count();
        if remotes == 0 {
            let Some(offer) = offered else {
                return Err(ApiError::params("A local track needs a session description"));
            };
            return self.publish_call(id, &offer, tracks, request.auto_discover);
        }
        if remotes != tracks.len() {
            return Err(ApiError::params("Tracks must be all local or all remote"));
        }
        self.pull_call(id, offered.as_ref(), tracks)
    }

    pub(crate) fn renegotiate(&self, id: &str, body: &str, hang: bool) -> Outcome {
        let request: SessionRequest = decode(body, &["sessionDescription"])?;
        let mutation = self.begin(id, Endpoint::Renegotiate, true)?;
        self.hang(hang);
        let reply = self.lock().renegotiate(id, &request.session_description, Instant::now());
        drop(mutation);
        reply
    }

    pub(crate) fn tracks_close(&self, id: &str, body: &str, hang: bool) -> Outcome {
        let request: CloseRequest = decode(body, &["force", "tracks"])?;
        if request.tracks.is_empty() {
            return Err(ApiError::params("Expecting at least 1 track"));
        }
        let offered = match (&request.session_description, request.force) {
            (_, true) => None,
            (Some(description), false) => Some(offer(description)?),
            (None, false) => return Err(ApiError::decoding("sessionDescription")),
        };
        let mutation = self.begin(id, Endpoint::TracksClose, false)?;
        self.hang(hang);
        let guard = self.hold_until_connected(self.lock(), id);
        let reply = guard.and_then(|mut guard| guard.close(id, &request, offered.as_ref()));
        self.notify();
        drop(mutation);
        reply
    }

    pub(crate) fn tracks_update(&self, id: &str, body: &str, hang: bool) -> Outcome {
        let request: TracksRequest = decode(body, &["tracks"])?;
        let mutation = self.begin(id, Endpoint::TracksUpdate, false)?;
        self.hang(hang);
        let guard = self.hold_until_connected(self.lock(), id);
        let reply = guard.and_then(|mut guard| guard.update(id, &request));
        drop(mutation);
        reply
    }

    pub(crate) fn get_session(&self, id: &str, hang: bool) -> Outcome {
        self.hang(hang);
        let mut guard = self.lock();
        let is_unknown = guard.end_reason(id).is_none() && !guard.sessions.contains_key(id);
        if is_unknown && guard.faults.hangs_unknown_session() {
            drop(guard);
            self.hang(true);
            guard = self.lock();
        }
        guard.describe(id)
    }

    pub(crate) fn hang(&self, hang: bool) {
        if hang {
            let guard = self.lock();
            let deadline = Instant::now() + guard.settings.times.hang;
            drop(self.sleep(guard, deadline));
        }
    }
}

impl State {
    fn renegotiate(&mut self, id: &str, description: &SessionDescription, now: Instant) -> Outcome {
        if description.kind != SdpType::Answer {
            let what = "sessionDescription.type=answer is expected";
            return Err(ApiError::params(what).breaks(Rule::WrongOrder));
        }
        if !self.session(id)?.offer_pending {
            let what = "There is no offer to be answered";
            return Err(ApiError::params(what).breaks(Rule::WrongOrder));
        }
        let answer = Remote::parse(&description.sdp)?;
        let session = self.session(id)?;
        let ours = session.sections.iter().map(|section| &section.mid);
        if !ours.eq(answer.sections.iter().map(|section| &section.mid)) {
            return Err(ApiError::sdp(406, "The answer's media sections are not those of the offer"));
        }
        if answer.setup == crate::sdp::Setup::ActPass {
            return Err(ApiError::sdp(406, "An answer decides on a=setup"));
        }
        let transport = session.transport.as_mut().ok_or_else(ApiError::gone)?;
        let keeps_dtls = transport.apply(&answer, now)?;
        session.offer_pending = false;
        for sub in session.subscriptions.iter_mut() {
            if let Some(section) = answer.section(&sub.mid) {
                let takes = !section.rejected && section.direction.receives();
                sub.accepted = if takes { section.payload_types.clone() } else { Vec::new() };
            }
        }
        if answer.setup == crate::sdp::Setup::Passive {
            self.ledger.violation(Rule::DtlsRole, Some(id), "a=setup:passive in an answer");
        }
        if !keeps_dtls {
            self.end(id, EndReason::DtlsRestarted);
        }
        Ok(Reply::of(200, &json!({})))
    }

    fn close(&mut self, id: &str, request: &CloseRequest, offered: Option<&Remote>) -> Outcome {
        let mut reply = TracksReply::default();
        for item in &request.tracks {
            let mut track = TrackReply { mid: item.mid.clone(), ..TrackReply::default() };
            if !self.close_track(id, &item.mid)? {
                track.fail(ItemError::CloseTrack);
            }
            reply.tracks.push(track);
        }
        let announce_rtx = self.settings.announce_rtx;
        let session = self.session(id)?;
        if let Some(offer) = offered {
            let sections: Vec<_> = offer
                .sections
                .iter()
                .map(|section| {
                    if session.subscriptions.iter().any(|sub| sub.mid == section.mid) {
                        session.answering_section(section, announce_rtx)
                    } else {
                        session.receiving_section(section)
                    }
                })
                .collect();
            let local = session.transport.as_mut().map(|transport| {
                transport.local.origin_version += 1;
                &transport.local
            });
            let sdp = local.map(|local| local.write("passive", &sections));
            reply.session_description = sdp.map(|sdp| SessionDescription { kind: SdpType::Answer, sdp });
            if session.is_left() {
                self.end(id, EndReason::TransportClosed);
            }
        }
        Ok(Reply::of(200, &reply))
    }

    /// False when there is nothing to close.
    fn close_track(&mut self, id: &str, mid: &str) -> Result<bool, ApiError> {
        let session = self.session(id)?;
        let mut closed = false;
        for sub in session.subscriptions.iter_mut().filter(|sub| sub.mid == mid) {
            closed |= sub.status == TrackStatus::Active;
            sub.status = TrackStatus::Closed;
        }
        let mut names = Vec::new();
        for track in session.local.iter_mut().filter(|track| track.mid == mid) {
            closed |= track.status == TrackStatus::Active;
            track.status = TrackStatus::Closed;
            names.push(track.name.clone());
        }
        if !names.is_empty() {
            session.spent_mids.push(mid.to_owned());
        }
        for name in names {
            self.end_subscriptions(id, &name);
        }
        Ok(closed)
    }

    fn update(&mut self, id: &str, request: &TracksRequest) -> Outcome {
        let mut reply = TracksReply::default();
        for item in &request.tracks {
            let mut track = TrackReply {
                session_id: item.session_id.clone(),
                track_name: item.track_name.clone(),
                mid: item.mid.clone().unwrap_or_default(),
                ..TrackReply::default()
            };
            let publisher = item.session_id.clone().unwrap_or_default();
            let name = item.track_name.clone().unwrap_or_default();
            let published = self.sessions.get(&publisher).and_then(|session| session.active_track(&name));
            let kind = published.map(|published| published.kind);
            let subscriptions = self.session(id)?.subscriptions.iter_mut();
            let sub = subscriptions.filter(|sub| sub.status != TrackStatus::Closed).find(|sub| sub.mid == track.mid);
            match (sub, kind) {
                (Some(sub), Some(kind)) if sub.kind == kind => {
                    if (&sub.publisher, &sub.track) == (&publisher, &name) {
                        track.fail(ItemError::UpdateTrack);
                    }
                    (sub.publisher, sub.track, sub.status) = (publisher, name, TrackStatus::Active);
                }
                (_, None) => track.fail(ItemError::NotFoundTrack),
                _ => track.fail(ItemError::Track),
            }
            reply.tracks.push(track);
        }
        Ok(Reply::of(200, &reply))
    }

    fn describe(&mut self, id: &str) -> Outcome {
        let session = self.session(id)?;
        let status = |status| {
            if status == TrackStatus::Active { "active" } else { "inactive" }
        };
        let local = session.local.iter().map(|track| {
            json!({
                "location": "local",
                "mid": track.mid,
                "trackName": track.name,
                "status": status(track.status),
            })
        });
        let remote = session.subscriptions.iter().map(|sub| {
            json!({
                "location": "remote",
                "mid": sub.mid,
                "sessionId": sub.publisher,
                "trackName": sub.track,
                "status": status(sub.status),
            })
        });
        let tracks: Vec<Value> = local.chain(remote).collect();
        Ok(Reply::of(200, &json!({"tracks": tracks, "dataChannels": []})))
    }
}
