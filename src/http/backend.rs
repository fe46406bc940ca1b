//! What the HTTP handlers ask of the rest of the daemon, and the types that cross that seam, measurements among them.
//!
//! The composition root implements [`Backend`]; tests implement it with a fake. All calls happen on the control thread.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use guest_relay_muxer::TrackKind;
use serde::{Serialize, Serializer};

pub use super::message::{ClientInfo, Fault, Refusal};
use crate::guest::id::{GuestId, ResourceId};
use crate::guest::{Guest, State};
use crate::secret::Secret;
use crate::utc;

/// The daemon as the HTTP handlers see it.
///
/// The asynchronous calls may wait (for the media thread, for the SFU's API) but must end by themselves within a bounded
/// time: the server does not interrupt them, so that a session is never left half made by an impatient client.
#[expect(async_fn_in_trait, reason = "runs on a LocalExecutor; the futures need not be Send")]
pub trait Backend {
    /// Whether a guest may publish in a slot of this name.
    fn admission(&self, guest: &GuestId) -> Admission;

    /// A guest offers media (RFC 9725 §4.2). A session that already holds the slot is taken over. `former` is the session
    /// that this one goes on for: where the slot shows that one's picture, it stands until the new one's comes.
    async fn publish(
        &self,
        guest: &GuestId,
        path: MediaPath,
        offer: String,
        former: Option<ResourceId>,
        client: ClientInfo,
    ) -> Result<Published, Refusal>;

    /// The entity tag of a living session (without quotes), or `None` when the slot is empty or held by another session.
    fn session_etag(&self, guest: &GuestId, resource: &ResourceId) -> Option<String>;

    /// Candidates that came after the offer (RFC 8840 SDP fragment). What is no fragment, or one of another ICE session
    /// of the guest, is refused.
    async fn trickle(&self, guest: &GuestId, resource: &ResourceId, fragment: String) -> Result<(), Refusal>;

    /// The guest leaves. Only the session that `resource` names may end: a goodbye that arrives late finds
    /// [`Left::NoSuchSession`] and harms nobody. One that is final finds its session also when the connection has ended
    /// before, as long as nobody else has had the slot since.
    async fn leave(&self, guest: &GuestId, resource: &ResourceId, farewell: Farewell) -> Left;

    /// Whether guests can be taken in through the SFU: an app and its secret are configured.
    fn sfu_configured(&self) -> bool;

    /// The addresses by which the internet knows this machine's network, as far as they are known: what a STUN server
    /// says, global addresses of the interfaces. Who comes from the same address sits behind the same router.
    fn own_public_addresses(&self) -> Vec<IpAddr>;

    /// STUN servers, and TURN servers with credentials that stay valid for hours where TURN is configured. When fresh
    /// credentials cannot be had, the STUN servers alone. No `:53` addresses: browsers block them or wait on them.
    async fn ice_servers(&self) -> Vec<IceServer>;

    /// Tracks that a guest sends to the SFU and the SFU has dropped: only a new offer brings them back.
    fn dropped_tracks(&self, guest: &GuestId) -> Vec<TrackKind>;

    /// The SFU's session id of each guest that publishes there.
    fn sfu_sessions(&self) -> Vec<(GuestId, String)>;

    /// Ends the session that a guest publishes through the SFU, whichever it is.
    async fn close_sfu_session(&self, guest: &GuestId) -> Left;

    /// The network from which a guest was published last, as far as this run of the daemon knows.
    fn publisher(&self, guest: &GuestId) -> Option<IpAddr>;

    /// All configured guests, in the order of the configuration.
    fn configured(&self) -> Vec<Guest>;

    /// Where one guest is in its life.
    async fn state(&self, guest: &GuestId) -> Result<State, NoAnswer>;

    /// Asks a guest for a keyframe.
    async fn request_keyframe(&self, guest: &GuestId) -> Result<KeyframeRequest, NoAnswer>;

    /// How all configured guests are, in the order of the configuration.
    async fn guests(&self) -> Result<Vec<GuestStatus>, NoAnswer>;

    /// Everything measured of them, in the same order.
    async fn measurements(&self) -> Result<Vec<GuestMeasurements>, NoAnswer>;

    /// Whether the daemon can do its work at this moment.
    async fn health(&self) -> Health;
}

/// The media thread did not say how things stand: that is not known now, which is something else than that nobody is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoAnswer;

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the media thread does not answer")
    }
}

impl std::error::Error for NoAnswer {}

impl From<NoAnswer> for Refusal {
    fn from(no_answer: NoAnswer) -> Self {
        Self::new(503, no_answer.to_string()).retry_after(Duration::from_secs(2))
    }
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

/// How a guest leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// For good: nothing more is shown of the guest.
    Final,
    /// The page closes; a reload looks the same. The picture stands for the hold.
    MayReturn,
}

/// How media comes to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaPath {
    /// Straight to our UDP socket.
    Direct,
    /// Through the Cloudflare Realtime SFU, whose former name this is in the API.
    #[serde(rename = "calls")]
    Sfu,
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

/// A STUN or TURN server, in the shape of W3C WebRTC's `RTCIceServer`.
#[derive(Debug, Clone, Serialize)]
pub struct IceServer {
    /// `stun:`, `turn:` and `turns:` addresses.
    pub urls: Vec<String>,
    /// TURN user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// TURN password.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_exposed")]
    pub credential: Option<Secret<String>>,
}

impl IceServer {
    /// Cloudflare's STUN server, which needs no credentials.
    pub fn cloudflare_stun() -> Self {
        Self { urls: vec!["stun:stun.cloudflare.com:3478".to_owned()], username: None, credential: None }
    }
}

/// For the one who is to use it.
fn serialize_exposed<S: Serializer>(secret: &Option<Secret<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(Secret::expose).serialize(serializer)
}

/// Outcome of a goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The session ended.
    Ended,
    /// The slot is empty or held by another session.
    NoSuchSession,
}

/// Outcome of a request for a keyframe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyframeRequest {
    /// The guest is asked, at once or as soon as the limit on requests allows.
    Asked,
    /// No picture of the guest's goes out: nobody is there, or the camera is off.
    NoPicture,
    /// Not configured.
    NoSuchGuest,
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

impl RtmpState {
    /// All states, for tables.
    pub const ALL: [Self; 5] = [Self::Idle, Self::Connecting, Self::Publishing, Self::Live, Self::Backoff];

    /// As it stands in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Publishing => "publishing",
            Self::Live => "live",
            Self::Backoff => "backoff",
        }
    }
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
    #[serde(serialize_with = "serialize_utc")]
    pub since: Option<SystemTime>,
    /// The first of `problems`, in one line.
    pub problem: Option<String>,
    /// What is wrong just now, for whoever runs the show: at most one thing a hop, the worst first.
    pub problems: Vec<Problem>,
}

/// A part of the way from a guest to the mixer, the worst place for a problem first: behind it nothing helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hop {
    /// From the daemon to the media server.
    Rtmp,
    /// Through the SFU.
    Sfu,
    /// What the guest's browser sends.
    Media,
}

/// Something that is wrong in a slot. Prints as one line, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where.
    pub hop: Hop,
    /// Names the cause for programs, for example `rtmp-wrong-password`.
    pub code: &'static str,
    /// The cause for people.
    pub words: String,
    /// What to do about it, where that is known.
    pub remedy: Option<Cow<'static, str>>,
    /// When it began.
    #[serde(serialize_with = "serialize_utc")]
    pub since: Option<SystemTime>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
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
            problem: None,
            problems: Vec::new(),
        }
    }

    /// Tells what is wrong, the worst first.
    #[must_use]
    pub fn with_problems(self, problems: Vec<Problem>) -> Self {
        Self { problem: problems.first().map(Problem::to_string), problems, ..self }
    }
}

/// Writes a moment as `2026-02-28T23:59:59Z` (RFC 3339, whole seconds), or null.
fn serialize_utc<S: Serializer>(moment: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match moment.and_then(utc::seconds) {
        Some(text) => serializer.serialize_str(&text),
        None => serializer.serialize_none(),
    }
}

/// Everything measured of one guest. What cannot be known now is `None`, and its line is left out.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestMeasurements {
    /// Slot.
    pub id: GuestId,
    /// Life cycle.
    pub state: State,
    /// How long in all the publication was kept for a guest who was away.
    pub held: Duration,
    /// Received media, lately.
    pub bitrate_kbps: Option<u32>,
    /// Frames per second, lately.
    pub fps: Option<f64>,
    /// Picture size in pixels, after cropping.
    pub size: Option<(u32, u32)>,
    /// Sound.
    pub audio: TrackMeasurements,
    /// Picture.
    pub video: TrackMeasurements,
    /// Of the media path.
    pub round_trip: Option<Duration>,
    /// PLIs sent.
    pub pli: u64,
    /// FIRs sent.
    pub fir: u64,
    /// Age of the last IDR.
    pub keyframe_age: Option<Duration>,
    /// Pictures that went out, and the IDR pictures among them.
    pub frames: u64,
    /// See `frames`.
    pub keyframes: u64,
    /// Pictures that came and could not go out.
    pub frames_dropped: u64,
    /// Times the picture stood still (W3C `freezeCount`).
    pub freezes: u64,
    /// How long it stood still in all (W3C `totalFreezesDuration`).
    pub frozen: Duration,
    /// How far the picture still has to be moved to be with the sound.
    pub av_skew_micros: Option<i64>,
    /// The RTMP side.
    pub rtmp: RtmpMeasurements,
}

/// One track of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TrackMeasurements {
    /// Packets of the media stream itself.
    pub packets: u64,
    /// Payload bytes, retransmitted ones included.
    pub payload_bytes: u64,
    /// Packets that never came in time, after every repair.
    pub lost: u64,
    /// Packets that came by retransmission (RFC 4588).
    pub recovered_by_rtx: u64,
    /// Packets that came late or again after they had been asked for.
    pub recovered_by_nack: u64,
    /// Packets that came as redundancy of later ones (RFC 2198).
    pub recovered_by_red: u64,
    /// Sequence numbers asked for again, repetitions included.
    pub nacked: u64,
    /// Interarrival jitter.
    pub jitter: Option<Duration>,
}

/// A guest's publication.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RtmpMeasurements {
    /// Where it is.
    pub state: RtmpState,
    /// Connections asked for.
    pub connections: u64,
    /// Bytes the server's socket took.
    pub bytes_written: u64,
    /// Pictures dropped because the server is slow.
    pub pictures_dropped: u64,
    /// Sound dropped because the server is slow.
    pub audio_frames_dropped: u64,
    /// Bytes that wait for the socket.
    pub queued_bytes: u64,
    /// Media time that waits for the socket.
    pub queued: Duration,
    /// From a ping to its answer.
    pub round_trip: Option<Duration>,
}

/// Outcome of the health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// All parts work.
    Healthy,
    /// Something does not; the reason goes to the operator.
    Unhealthy(String),
}
