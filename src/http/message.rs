//! A checked request and a response to be sent: the types the handlers work on.
//!
//! Bounds: those of [`super::guard`] (8 KiB head, 64 header fields, 64 KiB body); a response body is in memory, unless
//! it is a stream of events, whose bounds are those of [`super::events`].

use std::borrow::Cow;

use super::backend::ClientInfo;
use super::events::Messages;

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
    pub stream: Option<Messages>,
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
