//! UDP sockets as the loops here use them: non-blocking, several to a thread, waited for with poll(2).

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::stack::Transmit;

/// The next datagram, if there is one.
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
    loop {
        match socket.recv_from(buffer) {
            Ok(received) => return Ok(Some(received)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            // An ICMP error of an earlier datagram; the next call tells about the next datagram.
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends, or loses the datagram as a network would.
pub fn send(socket: &UdpSocket, transmit: &Transmit) -> io::Result<()> {
    match socket.send_to(&transmit.datagram, transmit.to) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::WouldBlock || is_transient(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::Interrupted)
}

/// Sleeps until a datagram waits at one of the sockets, or until `until`.
pub fn wait_readable(sockets: &[&UdpSocket], until: Instant) -> io::Result<()> {
    let timeout = until.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    let mut polled: Vec<PollFd<'_>> = sockets.iter().map(|socket| PollFd::new(*socket, PollFlags::IN)).collect();
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
