//! What the HTTP handlers ask of the rest of the daemon, and the types that cross that seam.
//!
//! The composition root implements [`Backend`]; tests implement it with a fake. All calls happen on the control thread.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::guest::State;
use crate::guest::id::{GuestId, ResourceId};

/// The daemon as the HTTP handlers see it.
///
/// The asynchronous calls may wait (for the media thread, for the SFU's API) but must end by themselves within a bounded
/// time: the server does not interrupt them, so that a session is never left half made by an impatient client.
#[expect(
    async_fn_in_trait,
    reason = "runs on a LocalExecutor; the futures need not be Send"
)]
pub trait Backend {
    /// Whether a guest may publish in a slot of this name.
    fn admission(&self, guest: &GuestId) -> Admission;

    /// A guest offers media (RFC 9725 §4.2). A session that already holds the slot is taken over.
    async fn publish(
        &self,
        guest: &GuestId,
        path: MediaPath,
        offer: String,
        client: ClientInfo,
    ) -> Result<Published, Refusal>;

    /// The entity tag of a living session (without quotes), or `None` when the slot is empty or held by another session.
    fn session_etag(&self, guest: &GuestId, resource: &ResourceId) -> Option<String>;

    /// Candidates that came after the offer (RFC 8840 SDP fragment).
    async fn trickle(
        &self,
        guest: &GuestId,
        resource: &ResourceId,
        fragment: String,
    ) -> Result<(), Refusal>;

    /// The guest leaves. Only the session that `resource` names may end: a goodbye that arrives late finds
    /// [`Left::NoSuchSession`] and harms nobody.
    async fn leave(&self, guest: &GuestId, resource: &ResourceId) -> Left;

    /// All configured guests, in the order of the configuration.
    async fn guests(&self) -> Vec<GuestStatus>;

    /// Whether the daemon can do its work at this moment.
    async fn health(&self) -> Health;
}

/// What is known about a slot name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Configured and open.
    Open,
    /// Configured, closed by the operator.
    Closed,
    /// Not configured.
    Unknown,
}

/// How media comes to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaPath {
    /// Straight to our UDP socket.
    Direct,
    /// Through the Cloudflare Realtime SFU.
    Calls,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientInfo {
    /// Our address that the connection reached.
    pub local_addr: SocketAddr,
    /// The client's address: of the TCP peer, or as reported by the tunnel on this host.
    pub remote_ip: IpAddr,
    /// The request came through the tunnel on this host.
    pub tunnelled: bool,
}

/// A session that began.
#[derive(Debug, Clone)]
pub struct Published {
    /// Names the session in its URL.
    pub resource: ResourceId,
    /// Strong entity tag of the ICE session, without quotes; ASCII letters, digits and `-`.
    pub etag: String,
    /// SDP answer.
    pub answer_sdp: String,
}

/// Why something was not done, in words for the person at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status, 400 to 599.
    pub status: u16,
    /// One line of plain text; no secrets, it is shown to guests.
    pub reason: String,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal that trying again will not change.
    pub fn new(status: u16, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
            retry_after: None,
        }
    }

    /// Adds when to try again.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }
}

/// Outcome of a goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The session ended.
    Ended,
    /// The slot is empty or held by another session.
    NoSuchSession,
}

/// Where the RTMP side of a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RtmpState {
    /// Not needed now.
    Idle,
    /// TCP, handshake or publish under way.
    Connecting,
    /// Accepted, not yet past the server's track detection.
    Publishing,
    /// Media is being taken.
    Live,
    /// Waiting before the next attempt.
    Backoff,
}

/// One line of `GET /api/guests`. What is not known (yet) is `None` and appears as `null`.
#[derive(Debug, Clone, Serialize)]
pub struct GuestStatus {
    /// Slot.
    pub id: GuestId,
    /// Display name.
    pub name: String,
    /// Open for guests.
    pub enabled: bool,
    /// Life cycle.
    pub state: State,
    /// How media comes in.
    pub path: Option<MediaPath>,
    /// Video codec, by its SDP encoding name.
    pub codec: Option<&'static str>,
    /// Audio codec, by its SDP encoding name.
    pub audio_codec: Option<&'static str>,
    /// Picture width in pixels, after cropping.
    pub width: Option<u32>,
    /// Picture height in pixels, after cropping.
    pub height: Option<u32>,
    /// Frames per second, lately.
    pub fps: Option<f64>,
    /// Received media, lately.
    pub bitrate_kbps: Option<u32>,
    /// Fraction of the session's packets lost on the way so far, 0 to 1, before repair.
    pub loss: Option<f64>,
    /// Interarrival jitter of the video (RFC 3550 §6.4.1).
    pub jitter_ms: Option<f64>,
    /// Age of the last IDR.
    pub last_keyframe_age_ms: Option<u64>,
    /// RTMP side.
    pub rtmp: RtmpState,
    /// When `state` was entered.
    #[serde(serialize_with = "super::api::serialize_utc")]
    pub since: Option<SystemTime>,
}

impl GuestStatus {
    /// The status of an empty slot.
    pub fn absent(id: GuestId, name: String, enabled: bool) -> Self {
        Self {
            id,
            name,
            enabled,
            state: State::Absent,
            path: None,
            codec: None,
            audio_codec: None,
            width: None,
            height: None,
            fps: None,
            bitrate_kbps: None,
            loss: None,
            jitter_ms: None,
            last_keyframe_age_ms: None,
            rtmp: RtmpState::Idle,
            since: None,
        }
    }
}

/// Outcome of the health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// All parts work.
    Healthy,
    /// Something does not; the reason goes to the operator.
    Unhealthy(String),
}
