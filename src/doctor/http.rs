//! One plain HTTP GET to a server beside us: address and path in, status and body out. `ureq` speaks HTTP.
//!
//! Bounds: [`TIMEOUT`] for a request as a whole, [`BODY_MAX`] for the body; no redirects, no proxy, and no connection
//! outlives its request.

use std::io;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use ureq::Agent;

const TIMEOUT: Duration = Duration::from_secs(3);
const BODY_MAX: u64 = 1 << 20;

static AGENT: LazyLock<Agent> = LazyLock::new(|| {
    let config = Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .max_idle_connections(0)
        .user_agent(concat!("guest-relay/", env!("CARGO_PKG_VERSION")))
        .build();
    config.into()
});

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// An error of kind `InvalidData`: something answered, and not with HTTP.
pub(super) fn get(server: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut response = AGENT.get(format!("http://{server}{path}")).call().map_err(failure)?;
    let body = response.body_mut().with_config().limit(BODY_MAX).read_to_vec().map_err(failure)?;
    Ok(Answer { status: response.status().as_u16(), body: String::from_utf8_lossy(&body).into_owned() })
}

fn failure(error: ureq::Error) -> io::Error {
    match error {
        // The end of the connection in the middle of an answer, or in place of one.
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => io::ErrorKind::InvalidData.into(),
        ureq::Error::Io(error) => error,
        ureq::Error::Timeout(_) => {
            io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", TIMEOUT.as_secs()))
        }
        _ => io::ErrorKind::InvalidData.into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What is made of a server that says this and closes.
    fn parse(text: &str) -> io::Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                assert!(stream.read(&mut [0; 1024]).unwrap() > 0, "a request comes");
                stream.write_all(text.as_bytes()).unwrap();
            });
            get(server, "/")
        })
    }

    #[test]
    fn status_and_body_are_told_and_what_is_no_http_is_refused() {
        let answer = parse("HTTP/1.1 404 Not Found\r\nServer: mediamtx\r\n\r\n{\"error\":\"x\"}").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (404, "{\"error\":\"x\"}"));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n6\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap().body, "Wikipedia in \r\n\r\nchunks.");
        for cut in 1..chunked.len() - 4 {
            assert!(parse(&chunked[..chunked.len() - 4 - cut]).is_err(), "{cut}");
        }
        for text in ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 ok\r\n\r\n", "HTTP/1.1 200 OK\r\nhalf a head"] {
            assert_eq!(parse(text).unwrap_err().kind(), io::ErrorKind::InvalidData, "{text:?}");
        }
    }
}
