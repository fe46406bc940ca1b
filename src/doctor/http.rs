//! One plain HTTP GET to a server beside us: address and path in, status and body out. HTTP/1.1, which is all that our
//! own server takes; the body ends with the connection, in chunks where the server likes them (RFC 9112 §7.1).
//!
//! Bounds: [`TIMEOUT`] for connecting and between bytes, [`BYTES_MAX`] in all.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3);
const BYTES_MAX: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// An error of kind `InvalidData`: something answered, and not with HTTP.
pub(super) fn get(server: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // In one piece: a simple server answers and closes after the first.
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut bytes = Vec::new();
    stream.take(BYTES_MAX).read_to_end(&mut bytes)?;
    parse(&String::from_utf8_lossy(&bytes)).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut status_line = head.lines().next()?.split(' ');
    if !status_line.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = status_line.next()?.parse().ok()?;
    let chunked = head.lines().any(|line| line.to_ascii_lowercase().replace(' ', "") == "transfer-encoding:chunked");
    Some(Answer { status, body: if chunked { joined(body)? } else { body.to_owned() } })
}

/// The chunks' contents: size in hexadecimal, line end, that many bytes, line end; until a size of 0.
fn joined(mut chunks: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = chunks.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        let (chunk, rest) = rest.split_at_checked(size)?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(chunk);
        chunks = rest.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_told_and_what_is_no_http_is_refused() {
        let answer = parse("HTTP/1.1 404 Not Found\r\nServer: mediamtx\r\n\r\n{\"error\":\"x\"}").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (404, "{\"error\":\"x\"}"));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n6\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap().body, "Wikipedia in \r\n\r\nchunks.");
        for cut in 1..chunked.len() - 4 {
            assert!(parse(&chunked[..chunked.len() - 4 - cut]).is_none(), "{cut}");
        }
        for text in ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 ok\r\n\r\n", "HTTP/1.1 200 OK\r\nhalf a head"] {
            assert!(parse(text).is_none(), "{text:?}");
        }
    }
}
