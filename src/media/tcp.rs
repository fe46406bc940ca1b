//! A slot's TCP connection to its RTMP server, non-blocking: bytes between the socket and [`SlotMachine`], nothing else.
//!
//! Input: the slot's connect and disconnect outputs and its write buffer. Output: received bytes and the end of the
//! connection, as [`RtmpInput`]. Bounds: one read buffer of `READ_BYTES`; of what was not sent yet the kernel holds
//! `UNSENT_BYTES`, of everything `SEND_BUFFER_BYTES`, so that the publisher's own queue, which knows about frames, is the
//! one that fills.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventFlags};
use socket2::{Domain, Protocol, Socket, Type};

use super::token::Token;
use crate::rtmp::Disconnected;
use crate::slot::{RtmpInput, SlotMachine};

const READ_BYTES: usize = 4096;
/// Reads of one wake-up: a server that talks without end does not stop the others' media.
const READS_PER_WAKE: usize = 16;
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// A quarter of a second of 2 Mbit/s: what waits behind it can still be dropped whole.
const UNSENT_BYTES: u32 = 64 * 1024;
/// Data sent but not acknowledged for this long ends the connection (RFC 5482), e.g. when the server's host is gone. The
/// kernel looks at its retransmission timer, up to a second later. A server that stands still with its buffers full counts
/// too: the publisher, which gives it 8 s, comes first.
const USER_TIMEOUT: Duration = Duration::from_secs(9);
/// How long a server has to read the end of a stream.
const LINGER: Duration = Duration::from_millis(300);

pub(crate) struct RtmpSocket {
    stream: TcpStream,
    connecting: bool,
    /// The kernel took no more bytes: go on when it says so.
    write_blocked: bool,
    /// What the poller watches for; `None` before it does.
    watched: Option<EventFlags>,
}

impl RtmpSocket {
    /// Starts a connection; its outcome shows as writability.
    pub(crate) fn connect(to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        Ok(Self { stream: socket.into(), connecting: true, write_blocked: false, watched: None })
    }

    /// Goes on with a connection that another process made: its options are the socket's own and came with it.
    pub(crate) fn adopt(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, connecting: false, write_blocked: false, watched: None })
    }

    /// Gives the connection away: nothing more is read or written here. None while it is being made.
    pub(crate) fn give_away(self, poller: &OwnedFd) -> Option<TcpStream> {
        if self.watched.is_some() {
            // Only a descriptor that it does not know is refused.
            let _ = epoll::delete(poller, &self.stream);
        }
        (!self.connecting).then_some(self.stream)
    }

    /// Has the poller wait for what can be gone on with, and tell of it as the connection of the slot `index`. Costs
    /// nothing when that has not changed. Closing the socket ends it.
    pub(crate) fn register(&mut self, poller: &OwnedFd, index: usize) -> io::Result<()> {
        let wanted = match (self.connecting, self.write_blocked) {
            (true, _) => EventFlags::OUT,
            (false, true) => EventFlags::IN | EventFlags::OUT,
            (false, false) => EventFlags::IN,
        };
        let data = Token::Rtmp(index).data();
        match self.watched.replace(wanted) {
            None => epoll::add(poller, &self.stream, data, wanted)?,
            Some(watched) if watched != wanted => epoll::modify(poller, &self.stream, data, wanted)?,
            Some(_) => {}
        }
        Ok(())
    }

    /// Acts on what the poller reported. An error means that the connection is over.
    pub(crate) fn handle_ready(
        &mut self,
        slot: &mut SlotMachine,
        ready: EventFlags,
        now: Instant,
    ) -> Result<(), Disconnected> {
        if self.connecting {
            if let Some(error) = self.stream.take_error().map_err(failed)? {
                return Err(failed(error));
            }
            if !ready.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR) {
                return Ok(());
            }
            self.connecting = false;
            slot.handle_rtmp(RtmpInput::Connected, now);
        } else if ready.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.read(slot, now)?;
        }
        self.flush(slot, now)
    }

    /// Ends the connection: nothing more is written, and the poller says nothing more of it. Its end would be reported
    /// without end, and as that of the slot's next connection.
    pub(crate) fn close(self, poller: &OwnedFd, now: Instant) -> Lingering {
        if self.watched.is_some() {
            // Only a descriptor that it does not know is refused.
            let _ = epoll::delete(poller, &self.stream);
        }
        // A connection that is none any more has nothing to close.
        let _ = self.stream.shutdown(Shutdown::Write);
        Lingering { stream: self.stream, until: now + LINGER }
    }

    fn read(&mut self, slot: &mut SlotMachine, now: Instant) -> Result<(), Disconnected> {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..READS_PER_WAKE {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Disconnected::Closed),
                Ok(length) => {
                    let bytes = buffer.get(..length).expect("read returns at most the buffer");
                    slot.handle_rtmp(RtmpInput::Bytes(bytes), now);
                    if length < READ_BYTES {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// Writes the slot's bytes, as far as the kernel takes them.
    pub(crate) fn flush(&mut self, slot: &mut SlotMachine, now: Instant) -> Result<(), Disconnected> {
        if self.connecting {
            return Ok(());
        }
        loop {
            let pending = slot.write_buffer();
            if pending.is_empty() {
                self.write_blocked = false;
                return Ok(());
            }
            match self.stream.write(pending) {
                Ok(0) => return Err(Disconnected::Failed(io::ErrorKind::WriteZero)),
                Ok(written) => slot.handle_rtmp(RtmpInput::Written(written), now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.write_blocked = true;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

/// A connection that ended on our side and is kept a while. A socket that is dropped answers what the server still sends
/// with a reset, and the server then loses what it has not read: the unpublish.
pub(crate) struct Lingering {
    stream: TcpStream,
    until: Instant,
}

impl Lingering {
    pub(crate) fn until(&self) -> Instant {
        self.until
    }
}

impl Drop for Lingering {
    /// Bytes left unread would be a reason for a reset as well.
    fn drop(&mut self) {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..READS_PER_WAKE {
            if !matches!(self.stream.read(&mut buffer), Ok(1..)) {
                break;
            }
        }
    }
}

fn failed(error: io::Error) -> Disconnected {
    Disconnected::Failed(error.kind())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::TcpListener;

    use super::*;

    /// What the kernels of both ends take from a writer whose peer reads nothing, with and without our options.
    #[test]
    fn the_kernel_holds_little_of_what_a_server_does_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = RtmpSocket::connect(listener.local_addr().unwrap()).unwrap();
        let (unread, _) = listener.accept().unwrap();
        // The server's own buffer is not ours to bound: make it small.
        socket2::SockRef::from(&unread).set_recv_buffer_size(4096).unwrap();
        let chunk = [0; 16 * 1024];
        let mut taken = 0;
        // bounded: the socket does not block, and the kernel takes so much only
        loop {
            match ours.stream.write(&chunk) {
                Ok(written) => taken += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        let unsent = usize::try_from(UNSENT_BYTES).unwrap();
        let received = {
            let mut buffer = vec![0; 1 << 20];
            unread.set_nonblocking(true).unwrap();
            (&unread).read(&mut buffer).unwrap()
        };
        assert!(
            taken - received <= SEND_BUFFER_BYTES.min(unsent + 3 * chunk.len()),
            "{taken} taken, {received} received"
        );
    }

    #[test]
    fn what_was_written_last_arrives_though_the_server_s_last_bytes_were_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = RtmpSocket::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"acknowledgement").unwrap();
        ours.stream.write_all(b"unpublish").unwrap();
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        ours.register(&poller, 0).unwrap();
        let lingering = ours.close(&poller, Instant::now());
        // One that comes after the close, before the server has read on.
        server.write_all(b"acknowledgement").unwrap();
        let mut received = Vec::new();
        server.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"unpublish");
        drop(lingering);
    }
}
