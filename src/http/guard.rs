//! Reads the head of one HTTP/1.1 or HTTP/1.0 request (RFC 9112 §2 to §6) and refuses everything the daemon has no use
//! for, before any other parser sees a byte. Sans-IO: bytes in, [`Head`] or [`Refused`] out.
//!
//! What is refused, and why:
//! - bytes other than printable ASCII, tab and CR LF pairs: a bare LF is read as a line end by one parser and as data by
//!   the next;
//! - a head beyond 8 KiB or 64 fields: `async-h1` bounds a line only once it has ended;
//! - a second Content-Length, one beside Transfer-Encoding, every coding but a single `chunked`, and that in HTTP/1.0: the
//!   means of request smuggling (RFC 9112 §6.1, §11.2);
//! - a request without Host, HTTP/1.0 or not: there is nothing to hold an Origin against. nginx always sends one;
//! - targets in another form than `/path?query`: the daemon is no proxy.
//!
//! What the next parser is not shown, or in another form:
//! - HTTP/1.0 becomes 1.1, which is all that `async-h1` reads. nginx's `proxy_pass` speaks 1.0 unless told otherwise;
//! - `Transfer-Encoding: chunked` becomes the Content-Length of the body that was read;
//! - a field whose value holds bytes from 0x80 up (RFC 9110 §5.5; Cloudflare's `cf-ipcity: São Paulo`) is left out, since
//!   `http-types` panics on them. Where something is decided by the field ([`DECIDING`]), the request is refused instead;
//! - `Expect` is handled here: `async-h1` would start a thread pool for it.
//!
//! Bounds: [`HEAD_MAX`], [`FIELDS_MAX`], [`BODY_MAX`]. Time limits are the server's.

use std::fmt;

use super::chunked::Malformed;
use super::message::Method;

/// Longest head in bytes, with the empty line. `async-h1` takes less than 8192, so the last byte is not ours to use.
pub const HEAD_MAX: usize = 8 * 1024 - 1;
/// Most header fields in one head.
pub const FIELDS_MAX: usize = 64;
/// Longest body in bytes; an SDP offer of a browser has about 6 KiB.
pub const BODY_MAX: usize = 64 * 1024;

/// Fields by which the framing, the client or a right is decided: none of them is left out in silence.
const DECIDING: [&str; 16] = [
    "authorization",
    "cf-access-jwt-assertion",
    "cf-connecting-ip",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "guest-relay-replaces",
    "host",
    "if-match",
    "origin",
    "sec-fetch-site",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
];

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A byte outside printable ASCII, tab, CR LF; from 0x80 up only outside of field values.
    Byte {
        /// The byte.
        byte: u8,
        /// Its position in the head.
        at: usize,
    },
    /// CR without LF or LF without CR.
    LineEnd {
        /// Position in the head.
        at: usize,
    },
    /// More than [`HEAD_MAX`] bytes without an empty line.
    HeadTooLong,
    /// More than [`FIELDS_MAX`] header fields.
    TooManyFields,
    /// The request line is not `METHOD SP target SP version`.
    RequestLine,
    /// A method nobody here serves.
    Method,
    /// A field that decides something, with bytes from 0x80 up in its value.
    NotAscii {
        /// Its number, from 1.
        number: usize,
    },
    /// Neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// The target is not `/path` with an optional query.
    Target,
    /// A header field is not `name: value`.
    Field {
        /// Its number, from 1.
        number: usize,
    },
    /// No Host field, several, or one that is no host.
    Host,
    /// Content-Length is not one decimal number.
    ContentLength,
    /// Content-Length above [`BODY_MAX`].
    BodyTooLong,
    /// Content-Length together with Transfer-Encoding.
    LengthAndTransferEncoding,
    /// A Transfer-Encoding other than one `chunked`.
    TransferEncoding,
    /// A Transfer-Encoding in HTTP/1.0, which has none: whoever sends it has framed the request in another way than we read.
    OldTransferEncoding,
    /// A chunked body that cannot be read.
    Chunked(Malformed),
    /// An expectation other than `100-continue`.
    Expectation,
}

impl Refused {
    /// The status that tells the client.
    pub fn status(self) -> u16 {
        match self {
            Self::HeadTooLong | Self::TooManyFields => 431,
            Self::BodyTooLong | Self::Chunked(Malformed::TooLong) => 413,
            Self::TransferEncoding => 501,
            Self::Expectation => 417,
            Self::Method => 501,
            Self::Version => 505,
            _ => 400,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte { byte, at } => write!(f, "byte 0x{byte:02x} at {at} of the head is not printable ASCII"),
            Self::LineEnd { at } => write!(f, "byte {at} of the head is half a line end; lines end with CR LF"),
            Self::HeadTooLong => write!(f, "the head is longer than {HEAD_MAX} bytes"),
            Self::TooManyFields => write!(f, "the head has more than {FIELDS_MAX} fields"),
            Self::RequestLine => f.write_str("the request line is not 'METHOD /path HTTP/1.1'"),
            Self::Method => f.write_str("this method is not implemented"),
            Self::NotAscii { number } => write!(f, "the value of header field {number} is not ASCII"),
            Self::Version => f.write_str("only HTTP/1.1 and HTTP/1.0 are served"),
            Self::Target => f.write_str("the request target must be a path that begins with '/'"),
            Self::Field { number } => write!(f, "header field {number} is not 'Name: value'"),
            Self::Host => f.write_str("exactly one Host field with a host name is needed"),
            Self::ContentLength => f.write_str("Content-Length must be given once, as a decimal number"),
            Self::BodyTooLong => write!(f, "the body is longer than {BODY_MAX} bytes"),
            Self::LengthAndTransferEncoding => f.write_str("Content-Length and Transfer-Encoding exclude each other"),
            Self::TransferEncoding => f.write_str("the only Transfer-Encoding that is understood is 'chunked'"),
            Self::OldTransferEncoding => f.write_str("HTTP/1.0 has no Transfer-Encoding"),
            Self::Chunked(malformed) => malformed.fmt(f),
            Self::Expectation => f.write_str("only the expectation 100-continue is understood"),
        }
    }
}

impl std::error::Error for Refused {}

/// How a body is told from what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Bytes, at most [`BODY_MAX`]; none without a Content-Length.
    Length(usize),
    /// See [`super::chunked`].
    Chunked,
}

/// A checked head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Request method.
    pub method: Method,
    /// Target as sent, `/` first.
    pub target: String,
    /// The head for the next parser, with its empty line: as HTTP/1.1, and without the fields that are not for it.
    pub bytes: Vec<u8>,
    /// Where the body ends.
    pub framing: Framing,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// First bytes of the body, received together with the head; may be more than belong to it.
    pub rest: Vec<u8>,
}

impl Head {
    /// The whole request for the next parser: the body, read to its end, with its length.
    pub fn with_body(&self, body: &[u8]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if self.framing == Framing::Chunked {
            // Shorter than the Transfer-Encoding that stood there, so that the head stays within its bounds.
            bytes.truncate(bytes.len() - "\r\n".len());
            bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(body);
        bytes
    }
}

/// Collects bytes until the head is complete. A forbidden byte is refused as soon as it arrives.
#[derive(Debug, Default)]
pub struct HeadReader {
    bytes: Vec<u8>,
    /// The request line is over.
    in_fields: bool,
}

impl HeadReader {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether no byte has arrived.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes what was received; `Ok(Some)` once the head is complete. To be called no more after that or an error.
    pub fn push(&mut self, received: &[u8]) -> Result<Option<Head>, Refused> {
        for (index, &byte) in received.iter().enumerate() {
            let at = self.bytes.len();
            if at == HEAD_MAX {
                return Err(Refused::HeadTooLong);
            }
            let after_cr = self.bytes.last() == Some(&b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' => return Err(Refused::LineEnd { at }),
                _ if after_cr => return Err(Refused::LineEnd { at: at - 1 }),
                b'\r' | b'\t' | b' '..=b'~' => {}
                // Behind the request line; whether it stands in a field's value shows once the line is whole.
                0x80.. if self.in_fields => {}
                _ => return Err(Refused::Byte { byte, at }),
            }
            self.bytes.push(byte);
            self.in_fields |= byte == b'\n';
            if self.bytes.ends_with(b"\r\n\r\n") {
                let rest = received.get(index + 1..).unwrap_or_default().to_vec();
                return parse(&self.bytes, rest).map(Some);
            }
        }
        Ok(None)
    }
}

/// Checks a head that ends with an empty line and holds only the bytes that [`HeadReader`] lets through.
fn parse(head: &[u8], rest: Vec<u8>) -> Result<Head, Refused> {
    let (request_line, mut fields) = split_line(head).ok_or(Refused::RequestLine)?;
    let request_line = std::str::from_utf8(request_line).map_err(|_| Refused::RequestLine)?;
    let RequestLine { method, target, version } = parse_request_line(request_line)?;

    let mut hosts = 0_usize;
    let mut content_length = None;
    let mut transfer_encoding = None;
    let mut expects_continue = false;
    let mut bytes = Vec::with_capacity(head.len());
    bytes.extend_from_slice(format!("{} {target} HTTP/1.1\r\n", method.as_str()).as_bytes());

    let mut number = 0;
    while let Some((line, others)) = split_line(fields).filter(|(line, _)| !line.is_empty()) {
        fields = others;
        number += 1;
        if number > FIELDS_MAX {
            return Err(Refused::TooManyFields);
        }
        let malformed = Refused::Field { number };
        let colon = line.iter().position(|byte| *byte == b':').ok_or(malformed)?;
        let (name, value) = (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
        // No white space before the colon and no folded lines (RFC 9112 §5.1, §5.2): both would start with or hold a
        // character that no token has.
        if name.is_empty() || !name.iter().copied().all(is_token) {
            return Err(malformed);
        }
        let name = std::str::from_utf8(name).map_err(|_| malformed)?;
        if !value.is_ascii() {
            if DECIDING.iter().any(|deciding| name.eq_ignore_ascii_case(deciding)) {
                return Err(Refused::NotAscii { number });
            }
            continue;
        }
        let value = std::str::from_utf8(value).map_err(|_| malformed)?;
        let value = value.trim_matches([' ', '\t']);
        if name.eq_ignore_ascii_case("host") {
            hosts += 1;
            if !is_host(value) {
                return Err(Refused::Host);
            }
        } else if name.eq_ignore_ascii_case("content-length") {
            if content_length.replace(parse_length(value)?).is_some() {
                return Err(Refused::ContentLength);
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            let is_chunked = value.eq_ignore_ascii_case("chunked");
            if transfer_encoding.replace(is_chunked).is_some() {
                return Err(Refused::TransferEncoding);
            }
            continue;
        } else if name.eq_ignore_ascii_case("expect") {
            if !value.eq_ignore_ascii_case("100-continue") {
                return Err(Refused::Expectation);
            }
            // HTTP/1.0 has no interim responses (RFC 9110 §10.1.1).
            expects_continue = version == Version::Http11;
            continue;
        }
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");

    let framing = match (content_length, transfer_encoding) {
        (Some(_), Some(_)) => return Err(Refused::LengthAndTransferEncoding),
        (None, Some(_)) if version == Version::Http10 => return Err(Refused::OldTransferEncoding),
        (None, Some(false)) => return Err(Refused::TransferEncoding),
        (None, Some(true)) => Framing::Chunked,
        (length, None) => Framing::Length(length.unwrap_or(0)),
    };
    if hosts != 1 {
        return Err(Refused::Host);
    }
    if matches!(framing, Framing::Length(length) if length > BODY_MAX) {
        return Err(Refused::BodyTooLong);
    }
    Ok(Head { method, target: target.to_owned(), bytes, framing, expects_continue, rest })
}

/// The first line, without its end, and what follows.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((bytes.get(..at)?, bytes.get(at + 2..)?))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

struct RequestLine<'a> {
    method: Method,
    target: &'a str,
    version: Version,
}

/// RFC 9112 §3: `method SP request-target SP HTTP-version`.
fn parse_request_line(line: &str) -> Result<RequestLine<'_>, Refused> {
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refused::RequestLine);
    };
    if method.is_empty() || !method.bytes().all(is_token) || target.contains('\t') {
        return Err(Refused::RequestLine);
    }
    let version = match version {
        "HTTP/1.1" => Version::Http11,
        "HTTP/1.0" => Version::Http10,
        other if other.starts_with("HTTP/") && other.len() <= "HTTP/1.1".len() => return Err(Refused::Version),
        _ => return Err(Refused::RequestLine),
    };
    if !target.starts_with('/') || target.contains('#') {
        return Err(Refused::Target);
    }
    Ok(RequestLine { method: Method::parse(method).ok_or(Refused::Method)?, target, version })
}

/// Only digits (RFC 9110 §8.6); a number of any length is understood as far as needed to say "too long".
fn parse_length(value: &str) -> Result<usize, Refused> {
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refused::ContentLength);
    }
    value.parse().map_err(|_| Refused::BodyTooLong)
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A host name, an IPv4 address or an IPv6 address in brackets, with an optional port (RFC 9110 §7.2).
fn is_host(value: &str) -> bool {
    let (host, port) = match value.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", port),
            _ => return false,
        },
        None => value.split_at(value.find(':').unwrap_or(value.len())),
    };
    let port_ok = match port.strip_prefix(':') {
        Some(digits) => digits.is_empty() || digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    let label_ok =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    port_ok && host.len() <= 255 && host.strip_suffix('.').unwrap_or(host).split('.').all(label_ok)
}

#[cfg(test)]
mod tests;
