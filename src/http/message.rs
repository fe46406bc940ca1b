//! A checked request, a response to be sent, a refusal: the types the handlers work on.
//!
//! Bounds: those of [`super::guard`] (8 KiB head, 64 header fields, 64 KiB body); a response body is in memory, unless
//! it is a stream of events, whose bounds are those of [`super::listeners`].

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use smol::channel::Receiver;

use super::rate::network_of;

/// The methods that are let through; anything else is answered 501 by the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// RFC 9110 §9.3.4
    Delete,
    /// RFC 9110 §9.3.1
    Get,
    /// RFC 9110 §9.3.2
    Head,
    /// RFC 9110 §9.3.7
    Options,
    /// RFC 5789
    Patch,
    /// RFC 9110 §9.3.3
    Post,
    /// RFC 9110 §9.3.4; no route takes it, so that it is answered 405 rather than 501.
    Put,
}

impl Method {
    /// All methods, for tables.
    pub const ALL: [Self; 7] = [Self::Delete, Self::Get, Self::Head, Self::Options, Self::Patch, Self::Post, Self::Put];

    /// The method of a request line; methods are case-sensitive (RFC 9110 §9.1).
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == text)
    }

    /// As it stands in a request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }
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

impl ClientInfo {
    /// The network that counts as one client.
    pub fn network(&self) -> IpAddr {
        network_of(self.remote_ip)
    }
}

/// One complete, checked request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Request method.
    pub method: Method,
    /// Path exactly as sent: not decoded, not normalised, without the query.
    pub path: String,
    /// What follows the first `?`, not decoded; empty without one.
    pub query: String,
    /// Field names in lower case with their values, in the order sent.
    pub headers: Vec<(String, String)>,
    /// Body, as long as Content-Length said.
    pub body: Vec<u8>,
    /// Who asks, and which of our addresses they reached.
    pub client: ClientInfo,
}

impl Request {
    /// The value of a field that was sent exactly once; `None` when it is missing or was sent several times, so that
    /// nothing is decided on one of two contradicting values.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }

    /// Media type of Content-Type in lower case, without parameters; empty when there is none.
    pub fn media_type(&self) -> String {
        let value = self.header("content-type").unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

/// One event of a stream, ready to be written; all listeners share it.
pub type ServerSentEvent = Arc<[u8]>;
/// The receiving end of a listener's queue; closed when the listener is dropped.
pub type ServerSentEvents = Receiver<ServerSentEvent>;

/// A response to be sent.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Field names with their values. Content-Length, Date and Connection are the server's business.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// Body; empty for none.
    pub body: Cow<'static, [u8]>,
    /// What follows as it happens, until either side closes; without a body then.
    pub stream: Option<ServerSentEvents>,
}

impl Response {
    /// A response without body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Cow::Borrowed(&[]), stream: None }
    }

    /// A response of one plain line, the form in which every refusal states its reason.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        let mut line: String = text.into();
        line.push('\n');
        Self::new(status)
            .with("content-type", "text/plain; charset=utf-8")
            .with("x-content-type-options", "nosniff")
            .with_body(line.into_bytes())
    }

    /// A JSON response that is never kept by a cache.
    pub fn json(status: u16, value: &impl serde::Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("our types have string keys and finite numbers or null");
        Self::new(status)
            .with("content-type", "application/json")
            .with("cache-control", "no-store")
            .with("x-content-type-options", "nosniff")
            .with_body(body)
    }

    /// Adds a header field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Cow<'static, [u8]>>) -> Self {
        self.body = body.into();
        self
    }

    /// The value of a header field set so far.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_ref())
    }
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
    /// What is at fault, where the page has words of its own for it.
    pub fault: Option<Fault>,
}

/// Faults that a guest is told about in the guest's own language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No app or no secret is configured.
    SfuNotConfigured,
    /// The SFU rejected the app id or its secret.
    SfuMisconfigured,
    /// The SFU's API cannot be reached, or answers with errors of its own.
    SfuUnreachable,
}

impl Fault {
    /// All faults, for tables.
    pub const ALL: [Self; 3] = [Self::SfuNotConfigured, Self::SfuMisconfigured, Self::SfuUnreachable];

    /// As it stands in the response's `Guest-Relay-Fault`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SfuNotConfigured => "calls-not-configured",
            Self::SfuMisconfigured => "calls-misconfigured",
            Self::SfuUnreachable => "calls-unreachable",
        }
    }
}

impl Refusal {
    /// A refusal that trying again will not change.
    pub fn new(status: u16, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), retry_after: None, fault: None }
    }

    /// Adds when to try again.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Adds what is at fault.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }
}

impl From<Refusal> for Response {
    /// The response that tells a refusal.
    fn from(refusal: Refusal) -> Self {
        let mut response = Response::text(refusal.status, refusal.reason);
        if let Some(fault) = refusal.fault {
            response = response.with("guest-relay-fault", fault.as_str());
        }
        match refusal.retry_after {
            // Whole seconds (RFC 9110 §10.2.3), rounded up: a client that obeys finds the door open.
            Some(delay) => response.with("retry-after", delay.as_secs_f64().ceil().to_string()),
            None => response,
        }
    }
}
