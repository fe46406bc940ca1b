//! [`Target`]: where to publish, from a URL like `rtmp://127.0.0.1:1935/guest1?user=u&pass=p`.
//!
//! ```text
//! rtmp://host[:port]/app[/name][?query]      port 1935 unless given; host may be [IPv6]
//!   one segment      app = segment, empty stream name, query on app and tcUrl   (path "guest1" on MediaMTX)
//!   more segments    app = all but the last, name = last + query                (what encoders do with a stream key)
//! ```
//! Credentials travel in the query and are never printed: Display and Debug write `?***` in its place.

use std::fmt;

use sha2::{Digest, Sha256};

/// The registered port of RTMP.
const DEFAULT_PORT: u16 = 1935;
/// Longest URL accepted.
const URL_MAX: usize = 2048;

/// A parsed and checked RTMP publish URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    /// Host and port as the URL spells them, for tcUrl.
    authority: String,
    /// Path segments joined by `/`, no slash around them.
    path: String,
    /// Without the question mark; empty when there is none.
    query: String,
}

/// Why a URL is no publish target. Nothing of the query is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// The URL is longer than `max` bytes.
    TooLong {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// It does not start with `rtmp://` (RTMPS is not supported).
    Scheme,
    /// `user:pass@host`: servers ignore it, the query carries credentials.
    UserInfo,
    /// No host, or one with characters no host has.
    Host,
    /// The port is no number from 1 to 65535.
    Port,
    /// No path: the server would not know which stream this is.
    NoPath,
    /// An empty, `.` or `..` segment, or a character outside `0-9 A-Z a-z _ . -`.
    Path,
    /// A character in the query that is not printable ASCII, a space, or a second `?` or `#`.
    Query,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetError::TooLong { len, max } => {
                write!(f, "the URL has {len} bytes, at most {max} are allowed")
            }
            TargetError::Scheme => write!(f, "the URL must start with rtmp://"),
            TargetError::UserInfo => write!(f, "user:password@ is not used over RTMP: append ?user=...&pass=..."),
            TargetError::Host => write!(f, "the host is missing or malformed"),
            TargetError::Port => write!(f, "the port must be a number from 1 to 65535"),
            TargetError::NoPath => write!(f, "the path is missing: rtmp://host:1935/name"),
            TargetError::Path => {
                write!(f, "path segments are made of letters, digits, '_', '-' and '.', and are not empty")
            }
            TargetError::Query => write!(f, "the query holds a character that is not allowed in a URL"),
        }
    }
}

impl std::error::Error for TargetError {}

impl Target {
    /// Parses `url`; see the module's table.
    pub fn parse(url: &str) -> Result<Target, TargetError> {
        if url.len() > URL_MAX {
            return Err(TargetError::TooLong { len: url.len(), max: URL_MAX });
        }
        let rest = match url.split_at_checked("rtmp://".len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("rtmp://") => rest,
            _ => return Err(TargetError::Scheme),
        };
        let (before_query, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = before_query.split_once('/').unwrap_or((before_query, ""));
        if authority.contains('@') {
            return Err(TargetError::UserInfo);
        }
        let (host, port) = split_authority(authority)?;
        if path.is_empty() {
            return Err(TargetError::NoPath);
        }
        if !path.split('/').all(is_segment) {
            return Err(TargetError::Path);
        }
        if !query.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#'\"<>\\".contains(&byte)) {
            return Err(TargetError::Query);
        }
        Ok(Target {
            host: host.to_owned(),
            port,
            authority: authority.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }

    /// Name or address to connect to; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What MediaMTX calls the stream: the path without the slash before it and without the query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Tells targets apart without their credentials: SHA-256 of the URL as it was parsed.
    pub fn fingerprint(&self) -> [u8; 32] {
        let Self { authority, path, query, .. } = self;
        Sha256::digest(format!("rtmp://{authority}/{path}?{query}")).into()
    }

    /// The `app` of the connect command.
    pub(super) fn app(&self) -> String {
        match self.path.rsplit_once('/') {
            Some((app, _)) => app.to_owned(),
            None => with_query(&self.path, &self.query),
        }
    }

    /// The `tcUrl` of the connect command.
    pub(super) fn tc_url(&self) -> String {
        format!("rtmp://{}/{}", self.authority, self.app())
    }

    /// The stream name of the publish command: empty when the path has one segment.
    pub(super) fn stream_name(&self) -> String {
        self.path.rsplit_once('/').map_or_else(String::new, |(_, name)| with_query(name, &self.query))
    }

    /// Where a ReconnectRequest with this `tcUrl` leads (enhanced RTMP v2, "Reconnect Request"; absolute or relative).
    /// `None` unless it is the same host and port: credentials do not go elsewhere, nor do connections. The stream name
    /// and the query stay ours.
    pub(super) fn redirected(&self, tc_url: &str) -> Option<Target> {
        let app = if tc_url.contains("://") {
            let asked = Target::parse(tc_url).ok()?;
            let same = asked.host.eq_ignore_ascii_case(&self.host) && asked.port == self.port;
            same.then_some(asked.path)?
        } else if tc_url.starts_with("//") {
            return None; // a network-path reference names another authority
        } else {
            tc_url.split('?').next().unwrap_or_default().trim_matches('/').to_owned()
        };
        let name = self.path.rsplit_once('/').map(|(_, name)| name);
        let path = match name {
            Some(name) if !app.is_empty() => format!("{app}/{name}"),
            Some(_) => self.path.clone(),
            None if !app.is_empty() => app,
            None => self.path.clone(),
        };
        path.split('/').all(is_segment).then(|| Target { path, ..self.clone() })
    }
}

fn with_query(text: &str, query: &str) -> String {
    if query.is_empty() { text.to_owned() } else { format!("{text}?{query}") }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
fn split_authority(authority: &str) -> Result<(&str, u16), TargetError> {
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']').ok_or(TargetError::Host)?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(TargetError::Host);
        }
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(TargetError::Host),
        }
    } else {
        let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
            return Err(TargetError::Host);
        }
        (host, port)
    };
    let port = match port {
        None => DEFAULT_PORT,
        // from_str takes a plus sign
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0).ok_or(TargetError::Port)?
        }
        Some(_) => return Err(TargetError::Port),
    };
    Ok((host, port))
}

fn is_segment(segment: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(allowed)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = if self.query.is_empty() { "" } else { "?***" };
        write!(f, "rtmp://{}/{}{hidden}", self.authority, self.path)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_url_becomes_app_stream_name_and_tc_url() {
        // The combinations MediaMTX maps to the path given last.
        let table = [
            ("rtmp://h:1935/guest_1", "guest_1", "", "rtmp://h:1935/guest_1"),
            ("rtmp://h/live/guest_1", "live", "guest_1", "rtmp://h/live"),
            ("rtmp://h/a/b/c", "a/b", "c", "rtmp://h/a/b"),
            ("rtmp://h/guest_1?user=u&pass=p", "guest_1?user=u&pass=p", "", "rtmp://h/guest_1?user=u&pass=p"),
            ("rtmp://h/live/guest_1?user=u&pass=p", "live", "guest_1?user=u&pass=p", "rtmp://h/live"),
            ("RTMP://[::1]:1936/g", "g", "", "rtmp://[::1]:1936/g"),
        ];
        for (url, app, name, tc_url) in table {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.app().as_str(), target.stream_name().as_str()), (app, name), "{url}");
            assert_eq!(target.tc_url(), tc_url, "{url}");
        }
    }

    #[test]
    fn host_and_port_are_what_to_connect_to() {
        for (url, host, port) in [
            ("rtmp://127.0.0.1/g", "127.0.0.1", 1935),
            ("rtmp://media.local:19350/g", "media.local", 19350),
            ("rtmp://[fe80::1]:5/g", "fe80::1", 5),
            ("rtmp://[::1]/g", "::1", 1935),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.host(), target.port()), (host, port));
        }
    }

    #[test]
    fn malformed_urls_are_refused_with_the_part_that_is_wrong() {
        for (url, error) in [
            ("http://h/g", TargetError::Scheme),
            ("rtmps://h/g", TargetError::Scheme),
            ("", TargetError::Scheme),
            ("rtmp://u:p@h/g", TargetError::UserInfo),
            ("rtmp:///g", TargetError::Host),
            ("rtmp://h\r\n/g", TargetError::Host),
            ("rtmp://[::1/g", TargetError::Host),
            ("rtmp://[h]/g", TargetError::Host),
            ("rtmp://[::1]x/g", TargetError::Host),
            ("rtmp://h:0/g", TargetError::Port),
            ("rtmp://h:65536/g", TargetError::Port),
            ("rtmp://h:+1/g", TargetError::Port),
            ("rtmp://h:/g", TargetError::Port),
            ("rtmp://h", TargetError::NoPath),
            ("rtmp://h/", TargetError::NoPath),
            ("rtmp://h/?user=u", TargetError::NoPath),
            ("rtmp://h//g", TargetError::Path),
            ("rtmp://h/g/", TargetError::Path),
            ("rtmp://h/a/../b", TargetError::Path),
            ("rtmp://h/./b", TargetError::Path),
            ("rtmp://h/a b", TargetError::Path),
            ("rtmp://h/%2e", TargetError::Path),
            ("rtmp://h/{guest_id}", TargetError::Path),
            ("rtmp://h/g?a=b c", TargetError::Query),
            ("rtmp://h/g?a=\u{7f}", TargetError::Query),
            ("rtmp://h/g?a=b?c", TargetError::Query),
        ] {
            assert_eq!(Target::parse(url), Err(error), "{url:?}");
        }
        let long = format!("rtmp://h/{}", "g".repeat(URL_MAX));
        assert_eq!(Target::parse(&long), Err(TargetError::TooLong { len: URL_MAX + 9, max: URL_MAX }));
    }

    #[test]
    fn the_query_is_never_printed() {
        for url in ["rtmp://h/g?user=u&pass=CANARY", "rtmp://h/live/g?jwt=CANARY"] {
            let target = Target::parse(url).unwrap();
            assert!(!format!("{target} {target:?} {:?}", Some(&target)).contains("CANARY"));
            assert!(target.to_string().ends_with("g?***"));
        }
        let error = Target::parse("rtmp://h/a b?pass=CANARY").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("CANARY"));
        assert_eq!(Target::parse("rtmp://h/g").unwrap().to_string(), "rtmp://h/g");
    }

    #[test]
    fn a_reconnect_request_stays_on_the_same_host_and_port_and_keeps_name_and_query() {
        let one = Target::parse("rtmp://h/guest1?k=v").unwrap();
        let two = Target::parse("rtmp://h:1935/live/guest1?k=v").unwrap();
        let to = |target: &Target, url: &str| target.redirected(url).map(|t| (t.tc_url(), t.stream_name()));
        let is = |tc_url: &str, name: &str| Some((tc_url.to_owned(), name.to_owned()));
        assert_eq!(to(&one, "rtmp://h/other"), is("rtmp://h/other?k=v", ""));
        assert_eq!(to(&one, "rtmp://H:1935/guest1"), is("rtmp://h/guest1?k=v", ""));
        assert_eq!(to(&two, "rtmp://h/live2"), is("rtmp://h:1935/live2", "guest1?k=v"));
        assert_eq!(to(&two, "/live2"), is("rtmp://h:1935/live2", "guest1?k=v"));
        assert_eq!(to(&two, ""), is("rtmp://h:1935/live", "guest1?k=v"));
        for foreign in [
            "rtmp://evil/live",
            "rtmp://h:22/live",
            "//evil/live",
            "http://h/live",
            "rtmp://h@evil/live",
            "/a/../b",
            "/a b",
        ] {
            assert_eq!(two.redirected(foreign), None, "{foreign}");
        }
    }
}
