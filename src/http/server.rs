//! Sockets and deadlines of the HTTP side.
//!
//! One request per connection. Its head goes through [`HeadReader`], its body is read to the announced length or to its
//! last chunk, both under a deadline that dripping does not extend. Only then does `async-h1` see it, as HTTP/1.1 with a
//! length, whatever the client speaks ([`codec`]). The response is written under a deadline, and the connection closes.
//!
//! Bounds: [`Limits`]. When all connections are taken, the one that has waited longest on its client makes room, so that
//! a crowd of silent clients keeps nobody out; connections whose request is being worked on stay.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{debug, error, warn};
use smol::future::FutureExt;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream};
use smol::{LocalExecutor, Task, Timer};

use super::backend::Backend;
use super::chunked::ChunkedBody;
use super::codec::{self, Decoded};
use super::events;
use super::guard::{BODY_MAX, Framing, Head, HeadReader, Refused};
use super::message::{ClientInfo, Method, Refusal, Request, Response, ServerSentEvents};
use super::routes;
use super::site::Site;
use crate::log_once::LogOnce;
use crate::within::within;

/// How much and how long a client may occupy.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at a time.
    pub connections: usize,
    /// From accepting a connection to its first byte.
    pub idle: Duration,
    /// From the first byte to the end of the head.
    pub head: Duration,
    /// From the end of the head to the end of the body.
    pub body: Duration,
    /// For taking the whole response.
    pub write: Duration,
    /// For closing after the response, while what the client still sends is thrown away.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            idle: Duration::from_secs(30),
            head: Duration::from_secs(5),
            body: Duration::from_secs(10),
            write: Duration::from_secs(30),
            linger: Duration::from_secs(1),
        }
    }
}

/// Pause after a failed accept (no file descriptors left, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes thrown away while closing.
const LINGER_BYTES: usize = 256 * 1024;
/// Bytes per read from a socket.
const READ_CHUNK: usize = 4 * 1024;

/// Serves `site` on `listener` for as long as the returned future lives; dropping it closes every connection.
///
/// Connections run as tasks of `executor`, which the caller drives.
pub async fn serve<'a, B: Backend + 'a>(
    listener: TcpListener,
    executor: &LocalExecutor<'a>,
    site: Rc<Site<B>>,
    limits: Limits,
) {
    let accepting = accept(listener, executor, Rc::clone(&site), limits);
    smol::future::or(accepting, events::run(&site)).await;
}

async fn accept<'a, B: Backend + 'a>(
    listener: TcpListener,
    executor: &LocalExecutor<'a>,
    site: Rc<Site<B>>,
    limits: Limits,
) {
    let open = Rc::new(Open::default());
    let mut failures = LogOnce::new(None);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if failures.warns((), Instant::now()) {
                    warn!("http: cannot accept connections: {error}");
                }
                Timer::after(ACCEPT_PAUSE).await;
                continue;
            }
        };
        failures.reset();
        if open.count() >= limits.connections && !open.evict() {
            debug!("http: {peer} turned away, all {} connections are at work", limits.connections);
            continue;
        }
        open.spawn(executor, |waiting| {
            let site = Rc::clone(&site);
            async move {
                if let Err(error) = converse(stream, peer, &site, &limits, &waiting).await {
                    debug!("http: connection of {peer}: {error}");
                }
            }
        });
    }
}

/// The connections of one server, oldest first.
#[derive(Default)]
struct Open {
    next: Cell<u64>,
    connections: RefCell<BTreeMap<u64, Connection>>,
}

struct Connection {
    /// Dropping it ends the connection.
    task: Task<()>,
    /// Waiting on the client, not the client on us.
    waiting: Rc<Cell<bool>>,
}

impl Open {
    fn count(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Ends the oldest connection that waits on its client; `false` when there is none.
    fn evict(&self) -> bool {
        let mut connections = self.connections.borrow_mut();
        let oldest = connections.iter().find(|(_, connection)| connection.waiting.get()).map(|(id, _)| *id);
        oldest.and_then(|id| connections.remove(&id)).is_some()
    }

    fn spawn<'a, F>(self: &Rc<Self>, executor: &LocalExecutor<'a>, connection: impl FnOnce(Rc<Cell<bool>>) -> F)
    where
        F: Future<Output = ()> + 'a,
    {
        let id = self.next.replace(self.next.get() + 1);
        let waiting = Rc::new(Cell::new(true));
        // Boxed, since it would lie on the stack as often as it is moved on the way to its task.
        let conversation = Box::pin(connection(Rc::clone(&waiting)));
        // Weak: the table holds the task, so the task must not hold the table.
        let open = Rc::downgrade(self);
        let task = executor.spawn(async move {
            // A panic in a library that reads a request must not take the daemon along.
            if AssertUnwindSafe(conversation).catch_unwind().await.is_err() {
                error!("http: a request made its handler panic; the connection was closed");
            }
            let done = open.upgrade().and_then(|open| open.connections.borrow_mut().remove(&id));
            if let Some(done) = done {
                done.task.detach();
            }
        });
        self.connections.borrow_mut().insert(id, Connection { task, waiting });
    }
}

/// One connection: one request, one response.
async fn converse<B: Backend>(
    mut stream: TcpStream,
    peer: SocketAddr,
    site: &Site<B>,
    limits: &Limits,
    waiting: &Cell<bool>,
) -> io::Result<()> {
    // The response is written in one piece; waiting for more would only delay its last segment.
    stream.set_nodelay(true)?;
    let local_addr = stream.local_addr()?;
    let (response, method) = match read_request(&mut stream, limits).await {
        Ok((head, body)) => {
            let method = head.method;
            waiting.set(false);
            let response = match decode_request(head, &body, local_addr, peer.ip()).await {
                Some(request) => routes::respond(site, request).await,
                None => Response::from(Refusal::new(400, "the request could not be read")),
            };
            waiting.set(true);
            (response, method)
        }
        Err(ReadError::Refused(refused)) => {
            debug!("http: request of {peer} refused: {refused}");
            (Response::from(Refusal::new(refused.status(), refused.to_string())), Method::Get)
        }
        Err(ReadError::TooSlow) => {
            (Response::from(Refusal::new(408, "the request took too long to arrive")), Method::Get)
        }
        Err(ReadError::NothingCame) => return Ok(()),
        Err(ReadError::Io(error)) => return Err(error),
    };
    if let Some(messages) = &response.stream {
        return write_events(stream, &response, messages, limits).await;
    }
    let mut bytes = head_of(&response, SystemTime::now());
    if method != Method::Head {
        bytes.extend_from_slice(&response.body);
    }
    within(limits.write, stream.write_all(&bytes)).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
    within(limits.linger, pin!(close(stream))).await.unwrap_or(Ok(()))
}

/// Writes the head of a response, and what is published, until the listener is dropped or the client closes.
async fn write_events(
    mut stream: TcpStream,
    response: &Response,
    messages: &ServerSentEvents,
    limits: &Limits,
) -> io::Result<()> {
    let head = head_of(response, SystemTime::now());
    let mut reading = stream.clone();
    let client_closes = async {
        let mut chunk = [0_u8; 64];
        while reading.read(&mut chunk).await? > 0 {}
        Ok(())
    };
    let writing = async {
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        within(limits.write, stream.write_all(&head)).await.ok_or_else(late)??;
        loop {
            let message = match within(events::KEEP_ALIVE, messages.recv()).await {
                None => events::COMMENT.into(),
                Some(Ok(message)) => message,
                Some(Err(_)) => return Ok(()),
            };
            within(limits.write, stream.write_all(&message)).await.ok_or_else(late)??;
        }
    };
    smol::future::or(client_closes, writing).await
}

/// Closes so that the client gets to read the response: unread bytes in our receive buffer would turn the close into a
/// reset, which may overtake it.
async fn close(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut thrown_away = 0;
    let mut chunk = vec![0; READ_CHUNK];
    while thrown_away < LINGER_BYTES {
        match stream.read(&mut chunk).await? {
            0 => break,
            n => thrown_away += n,
        }
    }
    Ok(())
}

enum ReadError {
    Refused(Refused),
    /// A deadline passed within the request.
    TooSlow,
    /// The connection closed or stayed silent before the first byte.
    NothingCame,
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads one whole request: its checked head and its body.
async fn read_request(stream: &mut TcpStream, limits: &Limits) -> Result<(Head, Vec<u8>), ReadError> {
    let mut first = vec![0; READ_CHUNK];
    let received = match within(limits.idle, stream.read(&mut first)).await {
        None => return Err(ReadError::NothingCame),
        Some(read) => read?,
    };
    if received == 0 {
        return Err(ReadError::NothingCame);
    }
    let first = first.get(..received).unwrap_or_default();
    let mut head = within(limits.head, pin!(read_head(stream, first))).await.unwrap_or(Err(ReadError::TooSlow))?;
    let rest = std::mem::take(&mut head.rest);
    let may_continue = match head.framing {
        Framing::Length(length) => rest.len() < length,
        Framing::Chunked => rest.is_empty(),
    };
    if head.expects_continue && may_continue {
        within(limits.write, stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")).await.ok_or(ReadError::TooSlow)??;
    }
    // One request per connection: what follows the body is not looked at.
    let body = match head.framing {
        Framing::Length(length) => {
            let (received, mut body) = (rest.len(), rest);
            body.resize(length, 0);
            if let Some(missing) = body.get_mut(received..) {
                within(limits.body, stream.read_exact(missing)).await.ok_or(ReadError::TooSlow)??;
            }
            body
        }
        Framing::Chunked => {
            within(limits.body, pin!(read_chunks(stream, &rest))).await.unwrap_or(Err(ReadError::TooSlow))?
        }
    };
    Ok((head, body))
}

async fn read_chunks(stream: &mut TcpStream, first: &[u8]) -> Result<Vec<u8>, ReadError> {
    let refused = |malformed| ReadError::Refused(Refused::Chunked(malformed));
    let mut body = ChunkedBody::new(BODY_MAX);
    let mut chunk = vec![0; READ_CHUNK];
    let mut done = body.push(first).map_err(refused)?;
    while !done {
        let received = stream.read(&mut chunk).await?;
        if received == 0 {
            return Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        done = body.push(chunk.get(..received).unwrap_or_default()).map_err(refused)?;
    }
    Ok(body.into_body())
}

async fn read_head(stream: &mut TcpStream, first: &[u8]) -> Result<Head, ReadError> {
    let mut reader = HeadReader::new();
    let mut chunk = vec![0; READ_CHUNK];
    let mut head = reader.push(first).map_err(ReadError::Refused)?;
    loop {
        if let Some(head) = head {
            return Ok(head);
        }
        let received = stream.read(&mut chunk).await?;
        if received == 0 {
            return Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        head = reader.push(chunk.get(..received).unwrap_or_default()).map_err(ReadError::Refused)?;
    }
}

/// The request as the handlers see it. `None` when `async-h1` does not take what the guard let through.
async fn decode_request(head: Head, body: &[u8], local_addr: SocketAddr, peer: IpAddr) -> Option<Request> {
    let Decoded { headers, body, .. } = codec::decode(&head, body).await?;
    // Not from the decoded URL, in which `..` and `%2e` are already resolved.
    let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
    let mut request = Request {
        method: head.method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body,
        client: ClientInfo { local_addr, remote_ip: peer.to_canonical(), tunnelled: false },
    };
    if let Some(remote_ip) = behind_tunnel(peer, request.header("cf-connecting-ip")) {
        request.client.remote_ip = remote_ip;
        request.client.tunnelled = true;
    }
    Some(request)
}

/// Who is at the other end of the tunnel that a request came through. The tunnel runs on this host; from anywhere else the
/// field is anybody's claim.
fn behind_tunnel(peer: IpAddr, connecting_ip: Option<&str>) -> Option<IpAddr> {
    let claimed = connecting_ip.filter(|_| peer.to_canonical().is_loopback())?;
    claimed.trim().parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// Status line and header fields of a response (RFC 9112 §4, §5), up to the empty line. All text in it is ours. Written
/// here, since async-h1's encoder would bring the chunked coding, which nothing here uses, and floating-point logarithms.
fn head_of(response: &Response, now: SystemTime) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", response.status, codec::reason(response.status));
    for (name, value) in &response.headers {
        head.extend([*name, ": ", value.as_ref(), "\r\n"]);
    }
    // These have no body whose length could be told (RFC 9110 §8.6), and the end of a stream of events is the connection's.
    if !matches!(response.status, 204 | 304) && response.stream.is_none() {
        head.push_str(&format!("content-length: {}\r\n", response.body.len()));
    }
    head.extend(["date: ", &http_date(now), "\r\nconnection: close\r\n\r\n"]);
    head.into_bytes()
}

/// A clock before 1970 reads as 1970.
fn http_date(moment: SystemTime) -> String {
    httpdate::fmt_http_date(moment.max(UNIX_EPOCH))
}

#[cfg(test)]
mod tests;
