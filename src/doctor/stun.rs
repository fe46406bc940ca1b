//! One question to a STUN server (RFC 8489 Binding): whether UDP gets out of this network and back, and by which public
//! addresses. From sockets of its own, so that a daemon that runs is not disturbed. Blocking.
//!
//! Bounds: [`NAME_TIMEOUT`] for the server's name, then [`WAITS`] in all, for IPv4 and IPv6 at the same time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::findings::Stun;
use crate::app::public_address::mapped_address;
use crate::rtc::stun::{Class, MessageWriter, TransactionId};

const NAME_TIMEOUT: Duration = Duration::from_secs(2);
/// After each sending. The first is RFC 8489 §6.2.1's; a person waits for the sum.
const WAITS: [Duration; 3] = [Duration::from_millis(500), Duration::from_millis(500), Duration::from_secs(1)];
const RESPONSE_MAX: usize = 1_024;

/// `server` is `host:port`.
pub(super) fn ask(server: &str) -> Stun {
    let servers = match resolve(server) {
        Ok(servers) => servers,
        Err(reason) => return Stun::NoName(server.to_owned(), reason),
    };
    let families = [SocketAddr::is_ipv4, SocketAddr::is_ipv6];
    let asked = families.iter().filter_map(|is_wanted| servers.iter().copied().find(is_wanted));
    let answers: Vec<io::Result<IpAddr>> = thread::scope(|scope| {
        let threads: Vec<_> = asked.map(|address| scope.spawn(move || ask_at(address))).collect();
        threads.into_iter().map(|thread| thread.join().expect("asking does not panic")).collect()
    });
    let known: Vec<IpAddr> = answers.iter().filter_map(|answer| answer.as_ref().ok().copied()).collect();
    match answers.into_iter().find_map(Result::err) {
        Some(error) if known.is_empty() => Stun::Silent(server.to_owned(), reason(&error)),
        _ => Stun::Answers(server.to_owned(), known),
    }
}

/// The system's resolver has a patience of its own; past ours, its thread is left to end with the process.
fn resolve(server: &str) -> Result<Vec<SocketAddr>, String> {
    let (sender, receiver) = mpsc::channel();
    let name = server.to_owned();
    thread::spawn(move || sender.send(name.to_socket_addrs().map(Iterator::collect::<Vec<_>>)));
    match receiver.recv_timeout(NAME_TIMEOUT) {
        Ok(Ok(servers)) if servers.is_empty() => Err("the name has no address".to_owned()),
        Ok(Ok(servers)) => Ok(servers),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no name server answers within {} s", NAME_TIMEOUT.as_secs())),
    }
}

/// An error of kind `TimedOut`: silence.
fn ask_at(server: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    // From then on the kernel passes on what comes from there, refusals by a firewall included.
    socket.connect(server)?;
    let mut id = [0; 12];
    getrandom::fill(&mut id).expect("the operating system gives random bytes after boot");
    let id = TransactionId(id);
    let request = MessageWriter::binding(Class::Request, id).finish_without_integrity();
    for wait in WAITS {
        socket.send(&request)?;
        if let Some(ip) = response(&socket, id, Instant::now() + wait)? {
            return Ok(ip);
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// The address in the response to this request; `None` when none comes in time.
fn response(socket: &UdpSocket, id: TransactionId, until: Instant) -> io::Result<Option<IpAddr>> {
    let mut buffer = [0; RESPONSE_MAX];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut buffer) {
            Ok(length) => {
                if let Some(ip) = buffer.get(..length).and_then(|datagram| mapped_address(datagram, id)) {
                    return Ok(Some(ip));
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => format!("nothing comes back within {} s", WAITS.iter().sum::<Duration>().as_secs()),
        io::ErrorKind::ConnectionRefused => "the request is refused".to_owned(),
        _ => error.to_string(),
    }
}
