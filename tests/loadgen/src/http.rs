//! As much HTTP/1.1 as WHIP needs between two test programs: one request a connection, bodies by Content-Length.
//!
//! Bounds: a message is at most [`MAX_MESSAGE_BYTES`], and a peer that is silent for [`SILENCE`] ends the exchange.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

const MAX_MESSAGE_BYTES: u64 = 256 * 1024;
const SILENCE: Duration = Duration::from_secs(60);

/// An `http://host:port/path` address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `host:port`
    pub authority: String,
    /// Starts with `/`.
    pub path: String,
}

impl Url {
    pub fn parse(url: &str) -> Option<Url> {
        let rest = url.strip_prefix("http://")?;
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        if authority.is_empty() {
            return None;
        }
        let port = if authority.contains(':') { "" } else { ":80" };
        Some(Url { authority: format!("{authority}{port}"), path: path.to_owned() })
    }

    /// Resolves a `Location` (RFC 3986 §5.2, without dot segments).
    pub fn join(&self, location: &str) -> Url {
        if let Some(absolute) = Url::parse(location) {
            return absolute;
        }
        let path = if location.starts_with('/') {
            location.to_owned()
        } else {
            let parent = self.path.rsplit_once('/').map_or("", |(parent, _)| parent);
            format!("{parent}/{location}")
        };
        Url { authority: self.authority.clone(), path }
    }
}

/// A request or a response.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// `POST /whip/guest1 HTTP/1.1` or `HTTP/1.1 201 Created`.
    pub start_line: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The second word of the start line: a response's status, a request's target.
    pub fn second_word(&self) -> &str {
        self.start_line.split(' ').nth(1).unwrap_or("")
    }

    pub fn method(&self) -> &str {
        self.start_line.split(' ').next().unwrap_or("")
    }

    /// Reads one message.
    pub fn read_from(stream: &TcpStream) -> io::Result<Message> {
        stream.set_read_timeout(Some(SILENCE))?;
        let mut stream = io::BufReader::new(stream.take(MAX_MESSAGE_BYTES));
        let mut message = Message { start_line: read_line(&mut stream)?, ..Message::default() };
        loop {
            let line = read_line(&mut stream)?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            message.headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        let length = message.header("content-length").unwrap_or("0");
        let length = length.parse().map_err(|_| invalid("Content-Length is not a number"))?;
        let mut body = Vec::new();
        stream.take(length).read_to_end(&mut body)?;
        message.body = String::from_utf8(body).map_err(|_| invalid("the body is not UTF-8"))?;
        Ok(message)
    }

    /// Writes one message, with its Content-Length and `Connection: close`.
    pub fn write_to(&self, mut stream: &TcpStream) -> io::Result<()> {
        stream.set_write_timeout(Some(SILENCE))?;
        let mut text = format!("{}\r\n", self.start_line);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n{}", self.body.len(), self.body));
        stream.write_all(text.as_bytes())
    }
}

fn read_line(stream: &mut impl io::BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.trim_end_matches('\r').to_owned()),
        None => Err(invalid("the message ends inside its head")),
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Connects to the address's host.
pub fn connect(url: &Url) -> io::Result<TcpStream> {
    let address = url.authority.to_socket_addrs()?.next();
    let address = address.ok_or_else(|| invalid("the host has no address"))?;
    TcpStream::connect_timeout(&address, SILENCE)
}

/// The address of ours from which the host is reached: where a guest's media socket is bound.
pub fn local_address_towards(url: &Url) -> io::Result<IpAddr> {
    let address: Option<SocketAddr> = url.authority.to_socket_addrs()?.next();
    let address = address.ok_or_else(|| invalid("the host has no address"))?;
    let unspecified: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let probe = std::net::UdpSocket::bind(unspecified)?;
    probe.connect(address)?;
    Ok(probe.local_addr()?.ip())
}

/// Sends one request and reads its response.
pub fn exchange(method: &str, url: &Url, headers: &[(&str, &str)], body: &str) -> io::Result<Message> {
    let stream = connect(url)?;
    let mut request = Message {
        start_line: format!("{method} {} HTTP/1.1", url.path),
        headers: vec![("Host".to_owned(), url.authority.clone())],
        body: body.to_owned(),
    };
    request.headers.extend(headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
    request.write_to(&stream)?;
    Message::read_from(&stream)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_location_is_resolved_against_the_url_that_was_posted_to() {
        let url = Url::parse("http://localhost:8000/whip/guest1").unwrap();
        for (location, authority, path) in [
            ("/whip/guest1/abc", "localhost:8000", "/whip/guest1/abc"),
            ("guest1/abc", "localhost:8000", "/whip/guest1/abc"),
            ("http://127.0.0.1:9/x", "127.0.0.1:9", "/x"),
        ] {
            let expected = Url { authority: authority.to_owned(), path: path.to_owned() };
            assert_eq!(url.join(location), expected);
        }
        assert_eq!(Url::parse("https://localhost/"), None);
        assert_eq!(Url::parse("http://localhost").unwrap().authority, "localhost:80");
    }
}
