//! One HTTPS exchange with Cloudflare's API, by `ureq`, which nobody knows but this file and `doctor/http.rs`. A request in;
//! JSON out, or an [`Error`] that says how far the request got. Blocking, for worker threads; never called on the media
//! thread.
//!
//! One host, fixed by the configuration; certificates checked against the built-in roots; no proxy, no redirects (an
//! authorisation header must not follow one), no retry (a lost reply to a mutation leaves the session's state unknown,
//! and only the caller can throw the session away).
//!
//! Bounds: [`Timeouts`] for name and connection together with TLS, and for each call as a whole; `HEAD_LIMIT`,
//! `BODY_LIMIT`; `DESCRIPTION_LIMIT` characters of a server's text reach a log line, and never the token: it is struck out
//! of a refusal that repeats it, and a good reply that does is taken for none. `ureq-proto` writes what it sends to the log
//! at level `trace`, the token with it: no logger may let that crate below `warn`, and the daemon's does not.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::typestate::WithBody;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport as Connection,
};
use ureq::{Agent, RequestBuilder};

use super::api::ErrorReply;
use super::counts;
use super::error::{Call, CallError, Cause};
use crate::secret::Secret;

const HEAD_LIMIT: usize = 16 * 1024;
const BODY_LIMIT: u64 = 256 * 1024;
/// Of the buffers that a connection keeps, one for each direction; the crate's default is 128 KiB.
const BUFFER_BYTES: usize = 16 * 1024;
/// Characters of a server's error text that are kept.
const DESCRIPTION_LIMIT: usize = 200;
/// Idle connections kept; more calls at once than this are rare.
const IDLE_CONNECTIONS: usize = 2;
const IDLE_AGE: Duration = Duration::from_secs(30);
/// Longest wait that a `Retry-After` can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// How long the parts of a call may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Looking up the host's name.
    pub resolve: Duration,
    /// TCP and TLS.
    pub connect: Duration,
    /// A call as a whole. A pull of a track without packets is held 8.7 s before it is answered; a forced close on a dead
    /// session may hang for 25 s, which are not worth waiting for.
    pub call: Duration,
    /// `GET sessions/{sid}`, for which no less would do: of an unknown session it may hang for ever.
    pub inspect: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            resolve: Duration::from_secs(3),
            connect: Duration::from_secs(3),
            call: Duration::from_secs(12),
            inspect: Duration::from_secs(3),
        }
    }
}

impl Timeouts {
    fn of(&self, call: Call) -> Duration {
        match call {
            Call::Inspect => self.inspect,
            Call::NewSession | Call::NewTracks | Call::Renegotiate | Call::CloseTracks | Call::TurnCredentials => {
                self.call
            }
        }
    }
}

/// A host and the bearer token that opens it.
pub(super) struct Https {
    agent: Agent,
    token: Secret<String>,
    timeouts: Timeouts,
}

/// A reply's body with the header that identifies it in a request for support.
pub(super) struct Reply<T> {
    pub(super) body: T,
    pub(super) cf_ray: String,
}

impl Https {
    /// `base` decides whether anything but https is let through.
    pub(super) fn new(base: &str, token: Secret<String>, timeouts: Timeouts) -> Self {
        let config = Agent::config_builder()
            .https_only(base.starts_with("https://"))
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_resolve(Some(timeouts.resolve))
            .timeout_connect(Some(timeouts.connect))
            .max_response_header_size(HEAD_LIMIT)
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            .max_idle_connections(IDLE_CONNECTIONS)
            .max_idle_connections_per_host(IDLE_CONNECTIONS)
            .max_idle_age(IDLE_AGE)
            // Without one, or with that of a library, the edge refuses the request (error 1010).
            .user_agent(concat!("guest-relay/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = Agent::with_parts(
            config,
            BeforeSending(DefaultConnector::default()),
            BeforeSending(DefaultResolver::default()),
        );
        Self { agent, token, timeouts }
    }

    /// `POST` without a body and without a Content-Type.
    pub(super) fn post_empty<R: DeserializeOwned>(&self, call: Call, url: &str) -> Result<Reply<R>, CallError> {
        let started = Instant::now();
        let response = self.authorised(call, self.agent.post(url)).send_empty();
        self.finish(call, started, response)
    }

    pub(super) fn post<R: DeserializeOwned>(
        &self,
        call: Call,
        url: &str,
        body: &impl Serialize,
    ) -> Result<Reply<R>, CallError> {
        self.send_json(call, self.agent.post(url), body)
    }

    pub(super) fn put<R: DeserializeOwned>(
        &self,
        call: Call,
        url: &str,
        body: &impl Serialize,
    ) -> Result<Reply<R>, CallError> {
        self.send_json(call, self.agent.put(url), body)
    }

    pub(super) fn get<R: DeserializeOwned>(&self, call: Call, url: &str) -> Result<Reply<R>, CallError> {
        let started = Instant::now();
        let response = self.authorised(call, self.agent.get(url)).call();
        self.finish(call, started, response)
    }

    /// The `Date` of whatever the server answers to a request for `url`, which goes out without the token.
    pub(super) fn date(&self, call: Call, url: &str) -> Result<Option<String>, CallError> {
        let request = self.agent.get(url).config().timeout_global(Some(self.timeouts.of(call))).build();
        let response = request.call().map_err(|error| self.not_answered(call, &error))?;
        Ok(Some(self.header(&response, "date")).filter(|date| !date.is_empty()))
    }

    /// A server's text as it may stand in a log line: printable ASCII, bounded, without the token.
    pub(super) fn printable(&self, text: &str) -> String {
        let token = self.token.expose();
        let text = match token.is_empty() {
            true => text.to_owned(),
            false => text.replace(token.as_str(), "***"),
        };
        let printable = text.chars().filter(|character| matches!(character, ' '..='~'));
        printable.take(DESCRIPTION_LIMIT).collect()
    }

    /// What a good reply holds goes on: into descriptions for guests, the state file, the list of sessions.
    fn repeats_token(&self, body: &[u8]) -> bool {
        let token = self.token.expose().as_bytes();
        !token.is_empty() && body.windows(token.len()).any(|part| part == token)
    }

    fn send_json<R: DeserializeOwned>(
        &self,
        call: Call,
        request: RequestBuilder<WithBody>,
        body: &impl Serialize,
    ) -> Result<Reply<R>, CallError> {
        let started = Instant::now();
        let body = serde_json::to_vec(body).expect("the request types have only string keys");
        let request = self.authorised(call, request).content_type("application/json");
        self.finish(call, started, request.send(&body))
    }

    fn authorised<B>(&self, call: Call, request: RequestBuilder<B>) -> RequestBuilder<B> {
        let timeout = self.timeouts.of(call);
        let bearer = format!("Bearer {}", self.token.expose());
        request.config().timeout_global(Some(timeout)).build().header("Authorization", bearer)
    }

    fn finish<R: DeserializeOwned>(
        &self,
        call: Call,
        started: Instant,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Reply<R>, CallError> {
        let (reply, seen) = match response {
            Ok(response) => {
                let status = response.status().as_u16();
                let cf_ray = self.header(&response, "cf-ray");
                let seen = format!("{status} (cf-ray {cf_ray})");
                (self.read(call, response, cf_ray), seen)
            }
            Err(error) => (Err(self.not_answered(call, &error)), "no reply".to_owned()),
        };
        log::debug!("{call}: {seen} after {} ms", started.elapsed().as_millis());
        counts::count(call, &reply);
        reply
    }

    fn header(&self, response: &ureq::http::Response<ureq::Body>, name: &str) -> String {
        let value = response.headers().get(name);
        let text = value.and_then(|value| value.to_str().ok());
        text.map(|text| self.printable(text)).unwrap_or_default()
    }

    fn read<R: DeserializeOwned>(
        &self,
        call: Call,
        mut response: ureq::http::Response<ureq::Body>,
        cf_ray: String,
    ) -> Result<Reply<R>, CallError> {
        let status = response.status();
        let retry_after = self.header(&response, "retry-after").parse().ok();
        let body = response.body_mut().with_config().limit(BODY_LIMIT);
        let body = match body.read_to_vec() {
            Ok(body) => body,
            // A refusal stays one, whatever became of its explanation.
            Err(_) if status.is_client_error() => Vec::new(),
            Err(error) => return Err(self.reply_lost(call, &error)),
        };
        if status.is_success() {
            if self.repeats_token(&body) {
                let reason = "it repeats the token, which is for nobody else to see".to_owned();
                return Err(CallError { call, cause: Cause::ReplyLost(reason) });
            }
            return match serde_json::from_slice(&body) {
                Ok(body) => Ok(Reply { body, cf_ray }),
                Err(error) => Err(CallError {
                    call,
                    cause: Cause::ReplyLost(self.printable(&format!("not the JSON expected: {error}"))),
                }),
            };
        }
        let (code, description) = match serde_json::from_slice::<ErrorReply>(&body) {
            Ok(reply) => (reply.error_code.unwrap_or_default(), reply.error_description.unwrap_or_default()),
            Err(_) if status.is_redirection() => (String::new(), "a redirect, which is not followed".to_owned()),
            Err(_) => (String::new(), String::from_utf8_lossy(&body).into_owned()),
        };
        let asked = retry_after.map(Duration::from_secs);
        Err(CallError {
            call,
            cause: Cause::Refused {
                status: status.as_u16(),
                code: self.printable(&code),
                description: self.printable(&description),
                cf_ray,
                retry_after: asked.map(|wait| wait.min(RETRY_AFTER_MAX)),
            },
        })
    }

    fn not_answered(&self, call: Call, error: &ureq::Error) -> CallError {
        match error {
            ureq::Error::Other(inner) if inner.is::<NotSent>() => {
                CallError { call, cause: Cause::Unreachable(self.printable(&inner.to_string())) }
            }
            // What is checked before a name is looked up.
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::RequireHttpsOnly(_) => {
                CallError { call, cause: Cause::Unreachable(self.printable(&error.to_string())) }
            }
            error => self.reply_lost(call, error),
        }
    }

    fn reply_lost(&self, call: Call, error: &ureq::Error) -> CallError {
        let cause = match error {
            ureq::Error::Timeout(_) => Cause::TimedOut(self.timeouts.of(call)),
            error => Cause::ReplyLost(self.printable(&error.to_string())),
        };
        CallError { call, cause }
    }
}

/// An error that came before the first byte of the request was sent. The kinds that [`ureq::Error`] has cannot tell.
#[derive(Debug)]
struct NotSent(ureq::Error);

impl NotSent {
    fn mark(error: ureq::Error) -> ureq::Error {
        ureq::Error::Other(Box::new(Self(error)))
    }
}

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ureq::Error::Timeout(ureq::Timeout::Resolve) => f.write_str("looking up the host's name took too long"),
            ureq::Error::Timeout(_) => f.write_str("connecting took too long"),
            error => error.fmt(f),
        }
    }
}

impl std::error::Error for NotSent {}

/// The resolver and the connector of `ureq`, with their errors marked as [`NotSent`].
#[derive(Debug)]
struct BeforeSending<T>(T);

impl Connector<()> for BeforeSending<DefaultConnector> {
    type Out = Box<dyn Connection>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<()>) -> Result<Option<Self::Out>, ureq::Error> {
        self.0.connect(details, chained).map_err(NotSent::mark)
    }
}

impl Resolver for BeforeSending<DefaultResolver> {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.0.resolve(uri, config, timeout).map_err(NotSent::mark)
    }
}
