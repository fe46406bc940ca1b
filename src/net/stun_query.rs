//! One question to a STUN server: from which public addresses it sees our requests come (RFC 8489 Binding; the
//! server-reflexive address of RFC 8445 §2.1). From sockets that live for the question, so that nothing else is disturbed.
//!
//! Input: the server's name, and how long to wait. Output: at most one address of each family, or why there is none. Bounds:
//! [`Patience`]; a [`RESPONSE_MAX`] byte response; whatever does not carry the request's transaction id is passed over.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use smol::net::UdpSocket;

use crate::rtc::stun::{BINDING, Class, Message, MessageWriter, TransactionId};
use crate::within::within;

const RESPONSE_MAX: usize = 1_024;

/// How long a question may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the server's name. The system's resolver has a patience of its own; past ours, its thread is left to end.
    pub name: Duration,
    /// For a response, after each sending of the request. RFC 8489 §6.2.1 begins with 500 ms.
    pub sendings: &'static [Duration],
}

/// Why a question had no answer.
#[derive(Debug)]
pub enum StunFailure {
    /// The name was not found.
    Name(io::Error),
    /// No word of the name in this time.
    NameTimeout(Duration),
    NoAddress,
    Refused,
    Socket(io::Error),
    /// Nothing came back in this time.
    Silence(Duration),
}

impl StunFailure {
    /// There was nothing to send to.
    pub fn is_of_the_name(&self) -> bool {
        matches!(self, Self::Name(_) | Self::NameTimeout(_) | Self::NoAddress)
    }
}

impl fmt::Display for StunFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) | Self::Socket(error) => write!(f, "{error}"),
            Self::NameTimeout(time) => write!(f, "no name server answers within {} s", time.as_secs_f64()),
            Self::NoAddress => f.write_str("the name has no address"),
            Self::Refused => f.write_str("the request is refused"),
            Self::Silence(time) => write!(f, "nothing comes back within {} s", time.as_secs_f64()),
        }
    }
}

impl From<io::Error> for StunFailure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::Socket(error),
        }
    }
}

/// Our addresses as the server (`host:port`) sees them, IPv4 first. Both families are asked at the same time; one is
/// enough, the other may have no way out.
pub async fn ask(server: &str, patience: Patience) -> Result<Vec<IpAddr>, StunFailure> {
    let servers = match within(patience.name, smol::net::resolve(server)).await {
        Some(found) => found.map_err(StunFailure::Name)?,
        None => return Err(StunFailure::NameTimeout(patience.name)),
    };
    let of_family = async |is_wanted: fn(&SocketAddr) -> bool| match servers.iter().copied().find(is_wanted) {
        Some(address) => Some(ask_at(address, patience.sendings).await),
        None => None,
    };
    let (v4, v6) = smol::future::zip(of_family(SocketAddr::is_ipv4), of_family(SocketAddr::is_ipv6)).await;
    let (mut known, mut failure) = (Vec::new(), None);
    for answer in [v4, v6].into_iter().flatten() {
        match answer {
            Ok(ip) => known.push(ip),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    if known.is_empty() { Err(failure.unwrap_or(StunFailure::NoAddress)) } else { Ok(known) }
}

async fn ask_at(server: SocketAddr, waits: &[Duration]) -> Result<IpAddr, StunFailure> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // From then on the kernel passes on what comes from there, refusals by a firewall included, and nothing else.
    socket.connect(server).await?;
    let mut id = [0; 12];
    getrandom::fill(&mut id).expect("the operating system gives random bytes after boot");
    let request = MessageWriter::binding(Class::Request, TransactionId(id)).finish_without_integrity();
    let mut failure = None;
    for wait in waits {
        let exchange = async {
            match exchange(&socket, &request, TransactionId(id)).await {
                Ok(ip) => ip,
                Err(error) => {
                    failure = Some(error);
                    // Whoever does not listen now may do so at the next sending.
                    smol::future::pending().await
                }
            }
        };
        if let Some(ip) = within(*wait, exchange).await {
            return Ok(ip);
        }
    }
    Err(failure.map_or_else(|| StunFailure::Silence(waits.iter().sum()), StunFailure::from))
}

/// The address in the response to this request.
async fn exchange(socket: &UdpSocket, request: &[u8], id: TransactionId) -> io::Result<IpAddr> {
    socket.send(request).await?;
    let mut buffer = [0; RESPONSE_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(ip) = buffer.get(..length).and_then(|datagram| mapped_address(datagram, id)) {
            return Ok(ip);
        }
    }
}

/// What a success response to the request with this id says that it came from.
fn mapped_address(datagram: &[u8], id: TransactionId) -> Option<IpAddr> {
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
