//! Reads the head of one HTTP/1.1 request (RFC 9112 §2 to §6) and refuses everything the daemon has no use for, before
//! any other parser sees a byte. Sans-IO: bytes in, [`Head`] or [`Refused`] out.
//!
//! What is refused, and why:
//! - bytes other than printable ASCII, tab and CR LF pairs: `http-types` panics on some of them, and a bare LF is read
//!   as a line end by one parser and as data by the next;
//! - a head beyond 8 KiB or 64 fields: `async-h1` bounds a line only once it has ended;
//! - any Transfer-Encoding and any second Content-Length: the means of request smuggling (RFC 9112 §11.2);
//! - `Expect` is handled here and taken out: `async-h1` would start a thread pool for it;
//! - targets in another form than `/path?query`: the daemon is no proxy.
//!
//! Bounds: [`HEAD_MAX`], [`FIELDS_MAX`], [`BODY_MAX`]. Time limits are the server's.

use std::fmt;

use super::message::Method;

/// Longest head in bytes, with the empty line. `async-h1` takes less than 8192, so the last byte is not ours to use.
pub const HEAD_MAX: usize = 8 * 1024 - 1;
/// Most header fields in one head.
pub const FIELDS_MAX: usize = 64;
/// Longest body in bytes; an SDP offer of a browser has about 6 KiB.
pub const BODY_MAX: usize = 64 * 1024;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A byte outside printable ASCII, tab, CR LF.
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
    /// Not HTTP/1.1.
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
    /// A Transfer-Encoding.
    TransferEncoding,
    /// An expectation other than `100-continue`.
    Expectation,
}

impl Refused {
    /// The status that tells the client.
    pub fn status(self) -> u16 {
        match self {
            Self::HeadTooLong | Self::TooManyFields => 431,
            Self::BodyTooLong => 413,
            Self::TransferEncoding => 411,
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
            Self::Version => f.write_str("only HTTP/1.1 is served"),
            Self::Target => f.write_str("the request target must be a path that begins with '/'"),
            Self::Field { number } => write!(f, "header field {number} is not 'Name: value'"),
            Self::Host => f.write_str("exactly one Host field with a host name is needed"),
            Self::ContentLength => f.write_str("Content-Length must be given once, as a decimal number"),
            Self::BodyTooLong => write!(f, "the body is longer than {BODY_MAX} bytes"),
            Self::LengthAndTransferEncoding => f.write_str("Content-Length and Transfer-Encoding exclude each other"),
            Self::TransferEncoding => f.write_str("send the body with Content-Length, not with Transfer-Encoding"),
            Self::Expectation => f.write_str("only the expectation 100-continue is understood"),
        }
    }
}

impl std::error::Error for Refused {}

/// A checked head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Request method.
    pub method: Method,
    /// Target as sent, `/` first.
    pub target: String,
    /// The head with its empty line, without the Expect field: what the next parser is given.
    pub bytes: Vec<u8>,
    /// Bytes of body that follow, at most [`BODY_MAX`].
    pub body_len: usize,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// First bytes of the body, received together with the head; may be more than `body_len`.
    pub rest: Vec<u8>,
}

/// Collects bytes until the head is complete. A forbidden byte is refused as soon as it arrives.
#[derive(Debug, Default)]
pub struct HeadReader {
    bytes: Vec<u8>,
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
                _ => return Err(Refused::Byte { byte, at }),
            }
            self.bytes.push(byte);
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
    let text = std::str::from_utf8(head).map_err(|_| Refused::RequestLine)?;
    let (request_line, fields) = text.split_once("\r\n").ok_or(Refused::RequestLine)?;
    let (method, target) = parse_request_line(request_line)?;

    let mut hosts = 0_usize;
    let mut content_length = None;
    let mut transfer_encoding = false;
    let mut expects_continue = false;
    let mut bytes = Vec::with_capacity(head.len());
    bytes.extend_from_slice(request_line.as_bytes());
    bytes.extend_from_slice(b"\r\n");

    let lines = fields.split("\r\n").take_while(|line| !line.is_empty());
    for (index, line) in lines.enumerate() {
        if index == FIELDS_MAX {
            return Err(Refused::TooManyFields);
        }
        let malformed = Refused::Field { number: index + 1 };
        let (name, value) = line.split_once(':').ok_or(malformed)?;
        // No white space before the colon and no folded lines (RFC 9112 §5.1, §5.2): both would start with or hold a
        // character that no token has.
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(malformed);
        }
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
            transfer_encoding = true;
        } else if name.eq_ignore_ascii_case("expect") {
            if !value.eq_ignore_ascii_case("100-continue") {
                return Err(Refused::Expectation);
            }
            expects_continue = true;
            continue;
        }
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");

    match (content_length, transfer_encoding) {
        (Some(_), true) => return Err(Refused::LengthAndTransferEncoding),
        (None, true) => return Err(Refused::TransferEncoding),
        (_, false) => {}
    }
    if hosts != 1 {
        return Err(Refused::Host);
    }
    let body_len = content_length.unwrap_or(0);
    if body_len > BODY_MAX {
        return Err(Refused::BodyTooLong);
    }
    Ok(Head { method, target: target.to_owned(), bytes, body_len, expects_continue, rest })
}

/// RFC 9112 §3: `method SP request-target SP HTTP-version`.
fn parse_request_line(line: &str) -> Result<(Method, &str), Refused> {
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refused::RequestLine);
    };
    if method.is_empty() || !method.bytes().all(is_token) || target.contains('\t') {
        return Err(Refused::RequestLine);
    }
    if version != "HTTP/1.1" {
        let is_version = version.starts_with("HTTP/") && version.len() <= "HTTP/1.1".len();
        return Err(if is_version { Refused::Version } else { Refused::RequestLine });
    }
    if !target.starts_with('/') || target.contains('#') {
        return Err(Refused::Target);
    }
    Ok((Method::parse(method).ok_or(Refused::Method)?, target))
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
