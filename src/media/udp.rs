//! The one UDP socket all guests share: batched receive (recvmmsg with GRO), with the time at which the kernel got each
//! datagram; send from the address the peer knows.
//!
//! A board with two interfaces on one network must answer from the address it was asked on, or the browser's ICE agent
//! drops the answer (RFC 8445 §7.2.5.2.1): the local address of each datagram is therefore kept beside it.
//! Bounds: one [`Inbox`] of `BATCH` buffers of `BUFFER_BYTES` for all sockets; at most `BATCHES_PER_WAKE` system calls
//! before the loop turns to other work.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Receive buffers handed to one recvmmsg call.
const BATCH: usize = 16;
/// With GRO the kernel may join up to 64 KiB of equally sized datagrams of one sender into one buffer. In whole pages: a
/// datagram by itself then takes one.
const BUFFER_BYTES: usize = 65_536;
/// recvmmsg calls of one wake-up: bounds how long RTMP and commands wait while datagrams keep coming.
const BATCHES_PER_WAKE: usize = 16;
#[cfg(test)]
pub(super) const MOST_PER_WAKE: usize = BATCH * BATCHES_PER_WAKE;
/// 1 s of a dozen guests at 2.5 Mbit/s; the kernel may cap it (net.core.rmem_max).
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// What a datagram waits for us at most. Where the kernel's time says more, the wall clock was set meanwhile.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// One datagram as it left the socket, with IPv4-mapped addresses turned back into IPv4.
pub(crate) struct Datagram<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) from: SocketAddr,
    /// The local address it was sent to, where the kernel says so.
    pub(crate) to: Option<IpAddr>,
    /// When it came: what congestion control and jitter are about is not when it was looked for.
    pub(crate) arrived: Instant,
}

/// When datagrams are taken.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    now: Instant,
    /// The same moment by the clock that the kernel's times are of.
    wall: Duration,
    /// When they were taken before: what came until then has been acted on, and time does not go back.
    before: Instant,
}

impl Moment {
    pub(crate) fn new(now: Instant, before: Instant) -> Self {
        Self { now, wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), before }
    }

    /// When a datagram came that the kernel got at `timestamp`.
    fn arrival(&self, timestamp: Option<Duration>) -> Instant {
        let waited = timestamp.and_then(|at| self.wall.checked_sub(at)).filter(|waited| *waited <= WAIT_MAX);
        waited.and_then(|waited| self.now.checked_sub(waited)).map_or(self.now, |at| at.max(self.before))
    }
}

/// Why no more was taken from a socket for now.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Nothing waits there.
    All,
    /// The wake-up took its share; more may wait.
    Share,
    /// The kernel refused for now, say for want of memory: datagrams may wait there all the same.
    Refused(io::Error),
}

pub(crate) struct UdpPort {
    #[cfg(test)]
    pub(super) refuse_next: std::cell::Cell<Option<rustix::io::Errno>>,
    socket: UdpSocket,
    state: UdpSocketState,
    dual_stack: bool,
}

/// Where datagrams lie while they are handled, whichever socket they came from.
pub(crate) struct Inbox {
    buffers: Vec<u8>,
    meta: [RecvMeta; BATCH],
}

impl UdpPort {
    /// Binds `listen`. `[::]` takes IPv4 as well (mapped addresses), whatever the system's default is.
    pub(crate) fn bind(listen: SocketAddr) -> io::Result<Self> {
        let dual_stack = listen.is_ipv6() && listen.ip().is_unspecified();
        let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
        if listen.is_ipv6() {
            socket.set_only_v6(!dual_stack)?;
        }
        socket.set_nonblocking(true)?;
        // The kernel caps these silently; a small buffer costs packets only under load.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES / 4);
        socket.bind(&listen.into())?;
        let socket = UdpSocket::from(socket);
        let state = UdpSocketState::new((&socket).into())?;
        // quinn-udp has each datagram's type of service told, which nobody here reads. An IPv4 socket refuses the second option.
        let _ = SockRef::from(&socket).set_recv_tos_v4(false);
        let _ = SockRef::from(&socket).set_recv_tclass_v6(false);
        Ok(Self {
            #[cfg(test)]
            refuse_next: std::cell::Cell::default(),
            socket,
            state,
            dual_stack,
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn recv(&self, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(errno) = self.refuse_next.take() {
            return Err(errno.into());
        }
        self.state.recv((&self.socket).into(), buffers, meta)
    }

    /// Sends `bytes`; a full socket buffer or an unreachable peer loses the datagram, as UDP may.
    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddr, from: Option<IpAddr>) {
        let map = |ip: IpAddr| match ip {
            IpAddr::V4(v4) if self.dual_stack => IpAddr::V6(v4.to_ipv6_mapped()),
            other => other,
        };
        let transmit = Transmit {
            destination: SocketAddr::new(map(to.ip()), to.port()),
            ecn: None,
            contents: bytes,
            segment_size: None,
            // IPv4 over a dual-stack socket would need an IPv6 pktinfo with a mapped address, which Linux takes.
            src_ip: from.map(map).filter(|ip| *ip != IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        if let Err(error) = self.state.try_send((&self.socket).into(), &transmit) {
            log::debug!("udp: {} bytes to {to} not sent: {error}", bytes.len());
        }
    }
}

/// The descriptor is none, or not one of a UDP socket: asking it again leads nowhere. Everything else passes.
fn is_fatal(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let fatal = [Errno::BADF, Errno::NOTSOCK, Errno::OPNOTSUPP, Errno::INVAL, Errno::FAULT];
    fatal.into_iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl Inbox {
    pub(crate) fn new() -> Self {
        // Zeroed by the kernel: a page costs memory once a datagram was in it.
        Self { buffers: vec![0; BATCH * BUFFER_BYTES], meta: [RecvMeta::default(); BATCH] }
    }

    /// Hands the datagrams that wait at `port` to `handle`, at most a wake-up's share. Fails when the socket is of no more use.
    pub(crate) fn receive(
        &mut self,
        port: &UdpPort,
        moment: Moment,
        mut handle: impl FnMut(Datagram<'_>),
    ) -> io::Result<Taken> {
        for _ in 0..BATCHES_PER_WAKE {
            let received = {
                let mut chunks = self.buffers.chunks_exact_mut(BUFFER_BYTES);
                let mut slices: [IoSliceMut<'_>; BATCH] =
                    std::array::from_fn(|_| IoSliceMut::new(chunks.next().expect("BATCH chunks were allocated")));
                match port.recv(&mut slices, &mut self.meta) {
                    Ok(received) => received,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Taken::All),
                    // An ICMP error for something we sent earlier; the socket goes on.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                    Err(error) if is_fatal(&error) => return Err(error),
                    Err(error) => return Ok(Taken::Refused(error)),
                }
            };
            for (meta, buffer) in self.meta.iter().zip(self.buffers.chunks_exact(BUFFER_BYTES)).take(received) {
                let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
                let to = meta.dst_ip.map(|ip| ip.to_canonical());
                let arrived = moment.arrival(meta.timestamp);
                for bytes in buffer.get(..meta.len).unwrap_or(buffer).chunks(meta.stride.max(1)) {
                    handle(Datagram { bytes, from, to, arrived });
                }
            }
            if received < BATCH {
                // A short batch: the queue was empty, and the poller reports what came since.
                return Ok(Taken::All);
            }
        }
        Ok(Taken::Share)
    }
}

impl AsFd for UdpPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_came_when_the_kernel_says_within_what_can_be() {
        let before = Instant::now();
        let (now, wall) = (before + Duration::from_millis(5), Duration::from_secs(1_700_000_000));
        let moment = Moment { now, wall, before };
        let arrival = |micros: i64| {
            let at = wall.as_micros().checked_add_signed(micros.into()).and_then(|at| u64::try_from(at).ok());
            moment.arrival(at.map(Duration::from_micros))
        };
        assert_eq!(arrival(-1_500), now - Duration::from_micros(1_500));
        assert_eq!(arrival(0), now);
        assert_eq!(arrival(-5_001), before, "it was there before, unseen");
        assert_eq!(arrival(20), now, "it came while the others were taken");
        assert_eq!(arrival(-100_001), now, "the wall clock was set forward");
        assert_eq!(arrival(3_600_000_000), now, "and back");
        assert_eq!(moment.arrival(None), now);
    }

    #[test]
    fn the_kernel_tells_when_a_datagram_came() {
        let port = UdpPort::bind(([127, 0, 0, 1], 0).into()).expect("loopback");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let mut inbox = Inbox::new();
        let mut told_before = || {
            let sent = Instant::now();
            sender.send_to(b"early", port.local_addr().expect("bound")).expect("sent");
            std::thread::sleep(Duration::from_millis(20));
            let now = Instant::now();
            let mut arrived = None;
            inbox
                .receive(&port, Moment::new(now, sent), |datagram| arrived = Some(datagram.arrived))
                .expect("received");
            let arrived = arrived.expect("it is there");
            assert!(arrived >= sent);
            arrived < now
        };
        // A busy machine may sleep longer than WAIT_MAX, but not each time.
        assert!((0..20).any(|_| told_before()));
    }
}
