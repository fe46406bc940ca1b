//! The calls of the SFU's API that the daemon makes, typed. Blocking: run them through `smol::unblock`.
//!
//! Replies are hostile input: a session id that could not stand in a URL is refused, an error inside an HTTP 200 is an
//! error, and single tracks are left to the caller ([`super::api::Track::outcome`]). Timeouts and limits: see
//! [`super::https`].

use super::api::{
    CloseTrack, CloseTracksRequest, ErrorReply, NewSessionReply, RenegotiateRequest, SessionDescription, SessionReply,
    TracksReply, TracksRequest,
};
use super::error::{Call, CallError, Cause};
use super::https::{Https, Reply, Timeouts};
use crate::secret::Secret;

/// Longest session id; 32 hexadecimal digits are seen.
const SESSION_ID_MAX: usize = 64;

/// One app of one account.
pub struct Client {
    https: Https,
    /// `{base}/apps/{app_id}`
    app: String,
}

impl Client {
    pub fn new(api_base: &str, app_id: &str, token: Secret<String>) -> Self {
        Self::with_timeouts(api_base, app_id, token, Timeouts::default())
    }

    pub fn with_timeouts(api_base: &str, app_id: &str, token: Secret<String>, timeouts: Timeouts) -> Self {
        let base = api_base.trim_end_matches('/');
        Self { https: Https::new(base, token, timeouts), app: format!("{base}/apps/{app_id}") }
    }

    /// `POST sessions/new`, without a body: a JSON body without an offer is refused. Gives the session's id.
    pub fn new_session(&self) -> Result<String, CallError> {
        let url = format!("{}/sessions/new", self.app);
        let call = Call::NewSession;
        let reply: Reply<NewSessionReply> = self.https.post_empty(call, &url)?;
        let cf_ray = reply.cf_ray;
        let NewSessionReply { session_id, error_code, error_description } = reply.body;
        self.refuse_error(call, error_code, error_description, &cf_ray)?;
        if is_session_id(&session_id) {
            return Ok(session_id);
        }
        Err(CallError { call, cause: Cause::ReplyLost("it holds no usable sessionId".to_owned()) })
    }

    /// `POST sessions/{sid}/tracks/new`. HTTP 200 says nothing about the single tracks: look at each.
    pub fn new_tracks(&self, session: &str, request: &TracksRequest) -> Result<TracksReply, CallError> {
        let url = self.session_url(session, "/tracks/new");
        let call = Call::NewTracks;
        let reply: Reply<TracksReply> = self.https.post(call, &url, request)?;
        let mut tracks = reply.body;
        self.refuse_error(call, tracks.error_code.take(), tracks.error_description.take(), &reply.cf_ray)?;
        for track in &mut tracks.tracks {
            for text in [&mut track.error_code, &mut track.error_description] {
                *text = text.take().map(|text| self.https.printable(&text));
            }
        }
        tracks.cf_ray = reply.cf_ray;
        Ok(tracks)
    }

    /// `PUT sessions/{sid}/renegotiate` with our answer to the SFU's offer.
    pub fn renegotiate(&self, session: &str, answer: &str) -> Result<(), CallError> {
        let url = self.session_url(session, "/renegotiate");
        let call = Call::Renegotiate;
        let request = RenegotiateRequest { session_description: SessionDescription::answer(answer) };
        let reply: Reply<ErrorReply> = self.https.put(call, &url, &request)?;
        let body = reply.body;
        self.refuse_error(call, body.error_code, body.error_description, &reply.cf_ray)
    }

    /// `PUT sessions/{sid}/tracks/close`, forced. A track or session that is already gone counts as closed.
    pub fn close_tracks(&self, session: &str, mids: &[String]) -> Result<(), CallError> {
        if mids.is_empty() {
            return Ok(());
        }
        let url = self.session_url(session, "/tracks/close");
        let call = Call::CloseTracks;
        let request = CloseTracksRequest {
            tracks: mids.iter().map(|mid| CloseTrack { mid: mid.clone() }).collect(),
            force: true,
        };
        let reply: Reply<ErrorReply> = match self.https.put(call, &url, &request) {
            Err(error) if error.is_gone() => return Ok(()),
            other => other?,
        };
        let body = reply.body;
        self.refuse_error(call, body.error_code, body.error_description, &reply.cf_ray)?;
        let failed = body
            .tracks
            .into_iter()
            .find(|track| track.error_code.as_deref().is_some_and(|code| code != ALREADY_CLOSED));
        match failed {
            Some(track) => self.refuse_error(call, track.error_code, track.error_description, &reply.cf_ray),
            None => Ok(()),
        }
    }

    /// `GET sessions/{sid}`: 410 when its PeerConnection is gone; may hang when the session is unknown.
    pub fn inspect(&self, session: &str) -> Result<SessionReply, CallError> {
        let url = self.session_url(session, "");
        let call = Call::Inspect;
        let reply: Reply<SessionReply> = self.https.get(call, &url)?;
        let mut session = reply.body;
        self.refuse_error(call, session.error_code.take(), session.error_description.take(), &reply.cf_ray)?;
        Ok(session)
    }

    /// What time it is at the API (RFC 9110 §6.6.1), as it writes it.
    pub fn date(&self) -> Result<Option<String>, CallError> {
        self.https.date(Call::Inspect, &self.app)
    }

    fn session_url(&self, session: &str, rest: &str) -> String {
        format!("{}/sessions/{session}{rest}", self.app)
    }

    /// Errors can stand at the top of an HTTP 200.
    fn refuse_error(
        &self,
        call: Call,
        code: Option<String>,
        description: Option<String>,
        cf_ray: &str,
    ) -> Result<(), CallError> {
        let Some(code) = code.filter(|code| !code.is_empty()) else {
            return Ok(());
        };
        Err(CallError {
            call,
            cause: Cause::Refused {
                status: 200,
                code: self.https.printable(&code),
                description: self.https.printable(&description.unwrap_or_default()),
                cf_ray: cf_ray.to_owned(),
                retry_after: None,
            },
        })
    }
}

/// `errorCode` of a track that "doesn't exist or was already closed".
const ALREADY_CLOSED: &str = "close_track_error";

/// Session ids stand in URLs and in the state file.
pub fn is_session_id(text: &str) -> bool {
    (1..=SESSION_ID_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests;
