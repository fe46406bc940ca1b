//! `/control`: what a test turns on, and what it can see.
//!
//! | request | body | reply |
//! |---|---|---|
//! | `POST /control` | [`Fault`](crate::Fault) as JSON, such as `{"fault":"lose_reply","calls":1,"endpoint":"tracks_new"}` | `{}` |
//! | `GET /control/sessions` | | [`Snapshot`] |
//! | `DELETE /control/violations` | | `{}`: forgets violations and counts |

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::{ApiError, Reply};
use crate::fault::{Fault, FaultInfo};
use crate::ledger::{CallCount, Ledger, Violation};
use crate::sdp::Kind;
use crate::session::{EndReason, Session, TrackStatus};
use crate::sfu::Sfu;
use crate::state::State;

/// All that a test can ask about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Those that are there: not ended, and not all of their tracks closed.
    pub sessions: Vec<SessionInfo>,
    /// The latest last.
    pub ended: Vec<EndedSession>,
    pub calls: BTreeMap<String, CallCount>,
    /// Those that last or wait for calls, in the order in which they were turned on, until [`Fault::None`].
    pub faults: Vec<FaultInfo>,
    pub violations: Vec<Violation>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionInfo {
    pub id: String,
    pub age_milliseconds: u64,
    pub negotiated: bool,
    pub connected: bool,
    /// What came from its peer.
    pub datagrams: u64,
    /// A mutation is under way.
    pub busy: bool,
    /// A reply to a mutation did not reach its client.
    pub reply_lost: bool,
    pub tracks: Vec<TrackInfo>,
    pub subscriptions: Vec<SubscriptionInfo>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrackInfo {
    pub name: String,
    pub mid: String,
    pub kind: String,
    pub status: TrackStatus,
    pub packets: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionInfo {
    /// The publisher's session.
    pub session: String,
    pub track: String,
    pub mid: String,
    pub kind: String,
    pub status: TrackStatus,
    pub packets: u64,
    /// Padding packets among the sequence numbers.
    pub paddings: u64,
    /// PLI and FIR.
    pub keyframe_requests: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndedSession {
    pub id: String,
    pub reason: EndReason,
    /// All its tracks had been closed by then.
    pub left: bool,
}

pub(crate) fn answer(method: &str, path: &str, body: &str, sfu: &Sfu) -> Reply {
    match (method, path) {
        ("POST", "/control") => {
            let fault: Fault = match serde_json::from_str(body) {
                Ok(fault) => fault,
                Err(error) => return ApiError::decoding(&error.to_string()).into(),
            };
            let injected = sfu.lock().inject(fault);
            sfu.notify();
            match injected {
                Ok(()) => Reply::of(200, &json!({})),
                Err(error) => error.into(),
            }
        }
        ("GET", "/control/sessions") => Reply::of(200, &sfu.lock().snapshot()),
        ("DELETE", "/control/violations") => {
            sfu.lock().ledger = Ledger::default();
            Reply::of(200, &json!({}))
        }
        _ => {
            ApiError::new(404, "not_found", "POST /control, GET /control/sessions or DELETE /control/violations").into()
        }
    }
}

impl State {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let present = self.sessions.values().filter(|session| !session.is_left());
        let ended = self.ended().map(|(id, end)| EndedSession { id: id.clone(), reason: end.reason, left: end.left });
        Snapshot {
            sessions: present.map(session_info).collect(),
            ended: ended.collect(),
            calls: self.ledger.calls.clone(),
            faults: self.faults.on().to_vec(),
            violations: self.ledger.violations().cloned().collect(),
        }
    }
}

fn session_info(session: &Session) -> SessionInfo {
    let age = Instant::now().saturating_duration_since(session.created);
    let tracks = session.local.iter().map(|track| TrackInfo {
        name: track.name.clone(),
        mid: track.mid.clone(),
        kind: kind(track.kind),
        status: track.status,
        packets: track.packets,
    });
    let subscriptions = session.subscriptions.iter().map(|sub| SubscriptionInfo {
        session: sub.publisher.clone(),
        track: sub.track.clone(),
        mid: sub.mid.clone(),
        kind: kind(sub.kind),
        status: sub.status,
        packets: sub.packets,
        paddings: sub.paddings,
        keyframe_requests: sub.keyframe_requests,
    });
    SessionInfo {
        id: session.id.clone(),
        age_milliseconds: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        negotiated: session.is_negotiated(),
        connected: session.is_connected(),
        datagrams: session.transport.as_ref().map_or(0, |transport| transport.datagrams),
        busy: session.busy,
        reply_lost: session.reply_lost,
        tracks: tracks.collect(),
        subscriptions: subscriptions.collect(),
    }
}

fn kind(kind: Kind) -> String {
    let text = if kind == Kind::Video { "video" } else { "audio" };
    text.to_owned()
}
