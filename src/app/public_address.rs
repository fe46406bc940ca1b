//! The addresses by which the internet knows this machine's network: what a STUN server sees our requests come from
//! (RFC 8489 Binding; the server-reflexive address of RFC 8445 §2.1). A guest who reaches the page from the same
//! address sits behind the same router, so that their media need not go out to the SFU and back.
//!
//! Asked once at the start and every [`REFRESH`], of one server, over IPv4 and IPv6 where it has both, from a socket of the
//! control thread that lives for that one question. What is known stays known until the server says something else.
//!
//! Input: the server's name. Output: at most one address of each family. Bounds: [`SENDINGS`] requests a question, a
//! [`RESPONSE_MAX`] byte response; whatever does not carry the request's transaction id is passed over.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use smol::net::UdpSocket;

use crate::log_once::LogOnce;
use crate::rtc::stun::{BINDING, Class, Message, MessageWriter, TransactionId};

/// Addresses of a household or an office change now and then, at night mostly.
const REFRESH: Duration = Duration::from_secs(600);
/// After a question without an answer, doubling up to [`REFRESH`].
const RETRY: Duration = Duration::from_secs(15);
/// RFC 8489 §6.2.1: the first retransmission timeout, which doubles; fewer sendings than its seven, since somebody
/// else's wait does not depend on it.
const RTO: Duration = Duration::from_millis(500);
const SENDINGS: u32 = 4;
const RESPONSE_MAX: usize = 1_024;

/// Why a question had no answer.
#[derive(Debug)]
pub(super) enum StunFailure {
    NoName(io::Error),
    Socket(io::Error),
    Silence,
}

impl fmt::Display for StunFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoName(error) => write!(f, "its name has no address: {error}"),
            Self::Socket(error) => write!(f, "{error}"),
            Self::Silence => f.write_str("it does not answer"),
        }
    }
}

/// What is known.
#[derive(Default)]
pub(super) struct PublicAddresses(RefCell<Vec<IpAddr>>);

impl PublicAddresses {
    /// What the STUN server said, and what the interfaces have: with IPv6 they are global themselves.
    pub(super) fn all(&self) -> Vec<IpAddr> {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let own = interfaces.iter().map(if_addrs::Interface::ip).filter(|ip| super::usable(*ip));
        self.0.borrow().iter().copied().chain(own).collect()
    }

    /// Asks `server` (`host:port`) for as long as the daemon runs.
    pub(super) async fn keep_asking(&self, server: &str) {
        let mut retry = RETRY;
        let mut failures = LogOnce::new(None);
        loop {
            let pause = match ask(server).await {
                Ok(addresses) => {
                    if *self.0.borrow() != addresses {
                        let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                        log::info!("the internet knows this machine as {} (says {server})", list.join(" and "));
                        self.0.replace(addresses);
                    }
                    retry = RETRY;
                    failures.reset();
                    REFRESH
                }
                Err(failure) => {
                    log::log!(
                        failures.level((), Instant::now()),
                        "STUN server {server}: {failure}; guests on this machine's own network who come through a tunnel \
                         are sent through the SFU until it answers; check rtc.stun_server and outgoing UDP"
                    );
                    let pause = retry;
                    retry = (retry * 2).min(REFRESH);
                    pause
                }
            };
            smol::Timer::after(pause).await;
        }
    }
}

/// Our addresses as the server sees them, IPv4 first. One family is enough; the other may have no way out.
async fn ask(server: &str) -> Result<Vec<IpAddr>, StunFailure> {
    let servers = smol::net::resolve(server).await.map_err(StunFailure::NoName)?;
    let mut known = Vec::new();
    let mut failure = StunFailure::NoName(io::ErrorKind::NotFound.into());
    for is_wanted in [SocketAddr::is_ipv4, SocketAddr::is_ipv6] {
        let Some(address) = servers.iter().find(|address| is_wanted(address)) else { continue };
        match ask_at(*address).await {
            Ok(ip) => known.push(ip),
            Err(error) => failure = error,
        }
    }
    if known.is_empty() { Err(failure) } else { Ok(known) }
}

async fn ask_at(server: SocketAddr) -> Result<IpAddr, StunFailure> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.map_err(StunFailure::Socket)?;
    // From then on the kernel passes on what comes from there, and nothing else.
    socket.connect(server).await.map_err(StunFailure::Socket)?;
    let mut id = [0; 12];
    getrandom::fill(&mut id).expect("the operating system gives random bytes after boot");
    let request = MessageWriter::binding(Class::Request, TransactionId(id)).finish_without_integrity();
    let mut wait = RTO;
    for _ in 0..SENDINGS {
        socket.send(&request).await.map_err(StunFailure::Socket)?;
        let until = Instant::now() + wait;
        let late = async {
            smol::Timer::at(until).await;
            None
        };
        if let Some(ip) = smol::future::or(response(&socket, TransactionId(id)), late).await {
            return Ok(ip);
        }
        wait *= 2;
    }
    Err(StunFailure::Silence)
}

/// The address in the response; `None` when the socket reports an error, such as a refused port.
async fn response(socket: &UdpSocket, id: TransactionId) -> Option<IpAddr> {
    let mut buffer = [0; RESPONSE_MAX];
    loop {
        let Ok(length) = socket.recv(&mut buffer).await else {
            // Whoever does not listen now may do so at the next sending.
            return smol::future::pending().await;
        };
        if let Some(ip) = buffer.get(..length).and_then(|datagram| mapped_address(datagram, id)) {
            return Some(ip);
        }
    }
}

/// What a success response to the request with this id says that it came from.
pub(crate) fn mapped_address(datagram: &[u8], id: TransactionId) -> Option<IpAddr> {
    let message = Message::parse(datagram).ok()?;
    let is_ours = message.class == Class::Success && message.method == BINDING && message.transaction_id == id;
    message.mapped_address.filter(|_| is_ours).map(|address| address.ip().to_canonical())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// RFC 5769 §2.2, as far as its MESSAGE-INTEGRITY, which a public server does not send: SOFTWARE "test vector",
    /// XOR-MAPPED-ADDRESS 192.0.2.1 port 32853. The length in the header counts those two attributes.
    const RESPONSE: [u8; 48] = [
        0x01, 0x01, 0x00, 0x1c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87,
        0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f, 0x72, 0x20,
        0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43,
    ];
    const ID: TransactionId = TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);

    #[test]
    fn only_a_success_response_to_our_own_request_counts() {
        assert_eq!(mapped_address(&RESPONSE, ID), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(mapped_address(&RESPONSE, TransactionId([0; 12])), None);
        let mut error = RESPONSE;
        error[1] = 0x11;
        assert_eq!(mapped_address(&error, ID), None);
        let mut request = RESPONSE;
        request[..2].copy_from_slice(&[0x00, 0x01]);
        assert_eq!(mapped_address(&request, ID), None);
        for length in 0..RESPONSE.len() {
            assert_eq!(mapped_address(&RESPONSE[..length], ID), None, "cut after {length} bytes");
        }
    }
}
