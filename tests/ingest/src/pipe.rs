//! A connection without a socket: the publisher's bytes and the time in, replies and frames out. No thread, so that a
//! whole publication runs in virtual time; deadlines are the caller's.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use crate::report::{Connection, Frame};
use crate::session::{End, Session};
use crate::{Link, Shared};

/// One connection; see [`crate::Ingest::open`].
pub struct Pipe {
    session: Session,
    shared: Arc<Shared>,
    id: usize,
    open: bool,
}

impl Pipe {
    pub(crate) fn new(shared: &Arc<Shared>) -> Pipe {
        let id = shared.enter(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), Link { open: true, ..Link::default() });
        Pipe { session: Session::new(shared, id), shared: Arc::clone(shared), id, open: true }
    }

    /// Takes what the publisher wrote, and answers; nothing once the connection is over. The answer to a refused
    /// publisher comes with the end.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Instant) -> Vec<u8> {
        if !self.is_open() {
            return Vec::new();
        }
        if let Err(end) = self.session.handle_bytes(bytes, now) {
            self.finish(&end);
        }
        self.session.take_replies().0
    }

    /// False once this side closed the connection, for a broken rule or another publisher.
    pub fn is_open(&self) -> bool {
        self.open && self.shared.lock().links.get(self.id).is_some_and(|link| link.kicked.is_none())
    }

    /// The publisher closed the connection, or it broke.
    pub fn close(&mut self) {
        self.finish(&End::Io(std::io::ErrorKind::UnexpectedEof.into()));
    }

    /// Frames since the last call, when [`crate::Options::keep_frames`] is on; they are not kept any longer.
    pub fn take_frames(&mut self) -> Vec<Frame> {
        self.connection(|connection| std::mem::take(&mut connection.frames))
    }

    /// Everything about the connection so far, without the frames that were taken.
    pub fn report(&self) -> Connection {
        self.connection(|connection| connection.clone())
    }

    fn connection<T>(&self, look: impl FnOnce(&mut Connection) -> T) -> T {
        look(self.shared.lock().connections.get_mut(self.id).expect("connections are never removed"))
    }

    fn finish(&mut self, end: &End) {
        if std::mem::take(&mut self.open) {
            self.session.finish(end);
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").field("id", &self.id).field("open", &self.open).finish_non_exhaustive()
    }
}
