//! HTTP/1.1 with kept-alive connections: who may call, which endpoint it is, which fault applies.
//!
//! Bounds: [`MAX_CONNECTIONS`] at a time, a message as bounded by [`loadgen::http`].

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use loadgen::http::Message;
use serde_json::Value;

use crate::api::{ApiError, Reply};
use crate::calls;
use crate::control;
use crate::fault::{Endpoint, Refusal, Verdict};
use crate::ledger::Rule;
use crate::sfu::Sfu;
use crate::transport::hex;
use crate::turn;

const MAX_CONNECTIONS: usize = 256;
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Accepts until the service stops.
pub(crate) fn run(listener: &TcpListener, sfu: &Arc<Sfu>) {
    let connections = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if sfu.is_stopping() {
            return;
        }
        let Ok(stream) = stream else { continue };
        if connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            connections.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (sfu, connections) = (Arc::clone(sfu), Arc::clone(&connections));
        thread::spawn(move || {
            // A peer that goes away ends its connection, nothing else.
            let _ = serve(&stream, &sfu);
            connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn serve(stream: &TcpStream, sfu: &Sfu) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    loop {
        let request = Message::read_from(stream)?;
        let Some(answer) = answer(&request, sfu) else {
            return Ok(());
        };
        let keep = !request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let written = write(stream, &answer, keep, sfu);
        if written.is_err() {
            answer.lose(sfu);
        }
        written?;
        if !keep || sfu.is_stopping() {
            return Ok(());
        }
    }
}

/// A reply, and whose mutation it reports.
struct Answer {
    reply: Reply,
    mutated: Option<String>,
}

impl Answer {
    fn plain(reply: impl Into<Reply>) -> Option<Answer> {
        Some(Answer { reply: reply.into(), mutated: None })
    }

    /// Its reader will never know.
    fn lose(&self, sfu: &Sfu) {
        let Some(id) = &self.mutated else { return };
        if let Some(session) = sfu.lock().sessions.get_mut(id) {
            session.reply_lost = true;
        }
    }
}

fn write(mut stream: &TcpStream, answer: &Answer, keep: bool, sfu: &Sfu) -> io::Result<()> {
    let (kind, body) = match &answer.reply.body {
        Value::String(text) => ("text/plain", text.clone()),
        body => ("application/json", body.to_string()),
    };
    let ray = hex(&mut sfu.lock().rng, 16);
    let text = format!(
        "HTTP/1.1 {} \r\nContent-Type: {kind}\r\nContent-Length: {}\r\ncf-ray: {ray}-SIM\r\nConnection: {}\r\n\r\n{body}",
        answer.reply.status,
        body.len(),
        if keep { "keep-alive" } else { "close" },
    );
    stream.write_all(text.as_bytes())
}

/// `None`: the connection is closed without a word.
fn answer(request: &Message, sfu: &Sfu) -> Option<Answer> {
    let target = request.second_word();
    let path = target.split('?').next().unwrap_or_default();
    if path == "/control" || path.starts_with("/control/") {
        return Answer::plain(control::answer(request.method(), path, &request.body, sfu));
    }
    if request.header("user-agent").is_none_or(str::is_empty) {
        let mut guard = sfu.lock();
        guard.ledger.violation(Rule::UserAgent, None, path);
        let body = Value::String("error code: 1010".to_owned());
        return Answer::plain(Reply { status: 403, body });
    }
    let declared = request.header("content-length").and_then(|length| length.parse().ok());
    if declared.is_some_and(|length: usize| length > request.body.len()) {
        return Answer::plain(ApiError::new(413, "payload_too_large", "The body is too large"));
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    if let ["v1", "turn", "keys", key, "credentials", "generate-ice-servers"] = segments.as_slice()
        && request.method() == "POST"
    {
        return match turn::authorize(request, key, sfu) {
            Ok(()) => carry_out((Endpoint::TurnCredentials, ""), &request.body, sfu),
            Err(error) => Answer::plain(error),
        };
    }
    let ["v1", "apps", app, rest @ ..] = segments.as_slice() else {
        return Answer::plain(unknown_endpoint(request.method(), path, sfu));
    };
    if let Err(error) = authorize(request, app, sfu) {
        return Answer::plain(error);
    }
    let call = match (request.method(), rest) {
        ("POST", ["sessions", "new"]) => (Endpoint::SessionsNew, ""),
        ("POST", ["sessions", id, "tracks", "new"]) => (calls::kind_of_tracks_new(&request.body), *id),
        ("PUT", ["sessions", id, "renegotiate"]) => (Endpoint::Renegotiate, *id),
        ("PUT", ["sessions", id, "tracks", "close"]) => (Endpoint::TracksClose, *id),
        ("PUT", ["sessions", id, "tracks", "update"]) => (Endpoint::TracksUpdate, *id),
        ("GET", ["sessions", id]) if *id != "new" => (Endpoint::GetSession, *id),
        ("DELETE", ["sessions", id]) => {
            sfu.lock().ledger.violation(Rule::UnknownEndpoint, Some(id), format!("DELETE {path}"));
            let body = Value::String("reserved for future WHIP/WHEP".to_owned());
            return Answer::plain(Reply { status: 405, body });
        }
        _ => return Answer::plain(unknown_endpoint(request.method(), path, sfu)),
    };
    carry_out(call, &request.body, sfu)
}

fn unknown_endpoint(method: &str, path: &str, sfu: &Sfu) -> ApiError {
    // A browser that looks at /control asks for an icon as well.
    if path.starts_with("/v1/") {
        let detail = format!("{method} {path}");
        sfu.lock().ledger.violation(Rule::UnknownEndpoint, None, detail);
    }
    ApiError::new(404, "not_found", "Not found")
}

fn authorize(request: &Message, app: &str, sfu: &Sfu) -> Result<(), ApiError> {
    let guard = sfu.lock();
    if app != guard.settings.app_id {
        return Err(unknown_app());
    }
    let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    if bearer != Some(guard.settings.secret.as_str()) {
        return Err(unauthorized());
    }
    Ok(())
}

fn unknown_app() -> ApiError {
    ApiError::new(404, "not_found", "App not found")
}

pub(crate) fn unauthorized() -> ApiError {
    ApiError::new(401, "unauthorized", "Unauthorized")
}

fn carry_out((endpoint, id): (Endpoint, &str), body: &str, sfu: &Sfu) -> Option<Answer> {
    let verdict = admit(endpoint, id, sfu);
    let verdict = match verdict {
        Ok(verdict) => verdict,
        Err(error) => {
            let reply = refused(endpoint, id, error, sfu);
            sfu.lock().ledger.count(endpoint.name(), reply.status);
            return Answer::plain(reply);
        }
    };
    if verdict.refuse == Some(Refusal::NoService) {
        return None;
    }
    let mut mutated = endpoint.is_mutation().then(|| id.to_owned());
    let outcome = match endpoint {
        Endpoint::SessionsNew => {
            let (outcome, created) = sfu.sessions_new(body, verdict.hang);
            mutated = created;
            outcome
        }
        Endpoint::TracksNew | Endpoint::Pull => sfu.tracks_new(id, body, verdict.hang),
        Endpoint::Renegotiate => sfu.renegotiate(id, body, verdict.hang),
        Endpoint::TracksClose => sfu.tracks_close(id, body, verdict.hang),
        Endpoint::TracksUpdate => sfu.tracks_update(id, body, verdict.hang),
        Endpoint::GetSession => sfu.get_session(id, verdict.hang),
        Endpoint::TurnCredentials => {
            sfu.hang(verdict.hang);
            sfu.turn_credentials(body)
        }
    };
    let reply = outcome.unwrap_or_else(|error| refused(endpoint, id, error, sfu));
    let mut guard = sfu.lock();
    guard.ledger.count(endpoint.name(), reply.status);
    drop(sfu.sleep(guard, Instant::now() + verdict.delay));
    let answer = Answer { reply, mutated };
    if verdict.lose_reply {
        answer.lose(sfu);
        return None;
    }
    Some(answer)
}

/// Notes whose fault it was.
fn refused(endpoint: Endpoint, id: &str, error: ApiError, sfu: &Sfu) -> Reply {
    if let Some(rule) = error.breaks {
        let detail = format!("{}: {}", endpoint.name(), error.description);
        let session = (!id.is_empty()).then_some(id);
        sfu.lock().ledger.violation(rule, session, detail);
    }
    error.into()
}

/// The rate rule, then the faults that refuse a call.
fn admit(endpoint: Endpoint, id: &str, sfu: &Sfu) -> Result<Verdict, ApiError> {
    let mut guard = sfu.lock();
    let state = &mut *guard;
    let limited = || ApiError::new(429, "too_many_requests", "Too many requests");
    let window = state.settings.times.rate_window;
    let admitted = state.sessions.get_mut(id).is_none_or(|session| session.rate.admit(window, Instant::now()));
    if !admitted {
        return Err(limited().breaks(Rule::Rate));
    }
    let verdict = state.faults.judge(endpoint);
    match verdict.refuse {
        None | Some(Refusal::NoService) => Ok(verdict),
        Some(Refusal::Internal) => Err(ApiError::new(500, "internal_error", "Internal error")),
        Some(Refusal::TooManyRequests) => Err(limited()),
        Some(Refusal::Status(status)) => Err(ApiError::on_demand(status)),
        Some(Refusal::WrongSecret) => Err(unauthorized()),
        Some(Refusal::UnknownApp) => Err(unknown_app()),
    }
}
