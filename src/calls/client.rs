//! The HTTP client for the Cloudflare Realtime SFU: the only file that knows `ureq`. Blocking, for worker threads; never
//! called on the media thread.
//!
//! One host, fixed by the configuration; certificates checked; redirects refused (an authorisation header must not
//! follow one). Bounds: `CONNECT_TIMEOUT`, `CALL_TIMEOUT` (longer for the two calls that the SFU may legally hold),
//! `BODY_LIMIT`. Nothing is retried here: a lost reply to a mutation leaves the session's state unknown, and only the
//! caller can throw the session away.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api::{
    CloseTrack, CloseTracksRequest, ErrorReply, NewSessionReply, RenegotiateRequest, SessionDescription, TracksReply,
    TracksRequest,
};
use crate::config::Secret;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const CALL_TIMEOUT: Duration = Duration::from_secs(12);
/// A pull of a track without packets is held 8.7 s before it is answered; leave room for a slow way there and back.
const TRACKS_TIMEOUT: Duration = Duration::from_secs(15);
/// A forced close on a dead session may hang for long.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(25);
const BODY_LIMIT: u64 = 256 * 1024;
/// Characters of a server's error text that reach a log line.
const DESCRIPTION_LIMIT: usize = 200;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// Nothing reached the SFU: name, connection or TLS failed.
    Unreachable(String),
    /// The request may have been carried out, but no usable reply came. For a mutation: the session is of no more use.
    ReplyLost(String),
    /// The SFU said no.
    Refused { status: u16, code: String, description: String, cf_ray: String },
}

impl CallError {
    /// Whether the same request may succeed later without any change on our side (RFC 9110 section 15, 429 and 5xx).
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::ReplyLost(_) => true,
            Self::Refused { status, .. } => matches!(status, 408 | 425 | 429) || *status >= 500,
        }
    }

    /// The credentials or the app are wrong: nothing will work until the operator mends them.
    pub fn is_misconfiguration(&self) -> bool {
        matches!(self, Self::Refused { status: 401 | 403, .. } | Self::Refused { status: 404, .. })
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(reason) => write!(f, "the SFU could not be reached: {reason}"),
            Self::ReplyLost(reason) => write!(f, "the SFU's reply was lost: {reason}"),
            Self::Refused { status, code, description, cf_ray } => {
                write!(f, "the SFU refused: {status} {code} \"{description}\" (cf-ray {cf_ray})")
            }
        }
    }
}

impl std::error::Error for CallError {}

/// One app of one account.
pub struct Client {
    agent: ureq::Agent,
    /// `{base}/apps/{app_id}`
    app: String,
    token: Secret<String>,
}

impl Client {
    pub fn new(api_base: &str, app_id: &str, token: Secret<String>) -> Self {
        let agent = ureq::Agent::config_builder()
            .https_only(api_base.starts_with("https://"))
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .max_idle_age(Duration::from_secs(30))
            .user_agent(concat!("guest-relay/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self { agent, app: format!("{}/apps/{app_id}", api_base.trim_end_matches('/')), token }
    }

    /// `POST sessions/new`, without a body: a JSON body without an offer is refused.
    pub fn new_session(&self) -> Result<String, CallError> {
        let request = self.agent.post(format!("{}/sessions/new", self.app));
        let response = self.authorised(request, CALL_TIMEOUT).send_empty();
        let reply: NewSessionReply = read(response)?;
        if is_id(&reply.session_id) {
            Ok(reply.session_id)
        } else {
            Err(CallError::ReplyLost("sessions/new answered without a usable sessionId".to_owned()))
        }
    }

    /// `POST sessions/{sid}/tracks/new`. HTTP 200 says nothing about the single tracks: look at each.
    pub fn new_tracks(&self, session: &str, request: &TracksRequest) -> Result<TracksReply, CallError> {
        let url = format!("{}/sessions/{session}/tracks/new", self.app);
        let reply: TracksReply = self.send_json(self.agent.post(url), TRACKS_TIMEOUT, request)?;
        match reply.error_code {
            Some(code) => Err(refused(200, code, reply.error_description, String::new())),
            None => Ok(reply),
        }
    }

    /// `PUT sessions/{sid}/renegotiate` with our answer to the SFU's offer.
    pub fn renegotiate(&self, session: &str, answer: &str) -> Result<(), CallError> {
        let url = format!("{}/sessions/{session}/renegotiate", self.app);
        let request = RenegotiateRequest { session_description: SessionDescription::answer(answer) };
        let reply: ErrorReply = self.send_json(self.agent.put(url), CALL_TIMEOUT, &request)?;
        match reply.error_code {
            Some(code) => Err(refused(200, code, reply.error_description, String::new())),
            None => Ok(()),
        }
    }

    /// `PUT sessions/{sid}/tracks/close`, forced. A track or session that is already gone counts as closed.
    pub fn close_tracks(&self, session: &str, mids: &[String]) -> Result<(), CallError> {
        let url = format!("{}/sessions/{session}/tracks/close", self.app);
        let tracks = mids.iter().map(|mid| CloseTrack { mid: mid.clone() }).collect();
        match self.send_json::<ErrorReply>(self.agent.put(url), CLOSE_TIMEOUT, &CloseTracksRequest { tracks, force: true }) {
            Ok(reply) => {
                let failed = reply.tracks.into_iter().find(|track| {
                    track.error_code.as_deref().is_some_and(|code| code != "close_track_error")
                });
                match failed {
                    Some(track) => {
                        Err(refused(200, track.error_code.unwrap_or_default(), track.error_description, String::new()))
                    }
                    None => Ok(()),
                }
            }
            Err(CallError::Refused { status: 404 | 410, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn authorised<B>(&self, request: ureq::RequestBuilder<B>, timeout: Duration) -> ureq::RequestBuilder<B> {
        let bearer = format!("Bearer {}", self.token.expose());
        request.config().timeout_global(Some(timeout)).build().header("Authorization", bearer)
    }

    fn send_json<R: DeserializeOwned>(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithBody>,
        timeout: Duration,
        body: &impl Serialize,
    ) -> Result<R, CallError> {
        let body = serde_json::to_vec(body).expect("the request types have only string keys");
        read(self.authorised(request, timeout).content_type("application/json").send(&body))
    }
}

/// Session ids stand in URLs: 32 hex digits by observation, a little more is let through.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn read<R: DeserializeOwned>(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<R, CallError> {
    let mut response = response.map_err(|error| match error {
        // These come before the first byte of the request is sent.
        ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_)
        | ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => CallError::Unreachable(error.to_string()),
        ureq::Error::Io(ref io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
            CallError::Unreachable(error.to_string())
        }
        error => CallError::ReplyLost(error.to_string()),
    })?;
    let status = response.status();
    let cf_ray = response.headers().get("cf-ray").and_then(|ray| ray.to_str().ok()).map(printable).unwrap_or_default();
    let body = response
        .body_mut()
        .with_config()
        .limit(BODY_LIMIT)
        .read_to_vec()
        .map_err(|error| CallError::ReplyLost(error.to_string()))?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| CallError::ReplyLost(format!("not the JSON expected: {error}")));
    }
    let reply: ErrorReply = serde_json::from_slice(&body).unwrap_or_default();
    Err(refused(status.as_u16(), reply.error_code.unwrap_or_default(), reply.error_description, cf_ray))
}

fn refused(status: u16, code: String, description: Option<String>, cf_ray: String) -> CallError {
    CallError::Refused { status, code: printable(&code), description: printable(&description.unwrap_or_default()), cf_ray }
}

/// A server's text as it may stand in a log line: printable ASCII, bounded.
fn printable(text: &str) -> String {
    text.chars().filter(|character| matches!(character, ' '..='~')).take(DESCRIPTION_LIMIT).collect()
}
