//! The reading half of a connection: bytes with a deadline, which tests can pause.

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use crate::Shared;

pub(crate) struct Inlet {
    stream: Arc<TcpStream>,
    shared: Arc<Shared>,
    id: usize,
    deadline: Instant,
}

impl Inlet {
    pub(crate) fn new(stream: Arc<TcpStream>, shared: Arc<Shared>, id: usize, deadline: Instant) -> Inlet {
        Inlet { stream, shared, id, deadline }
    }

    /// Reads fail with `TimedOut` after `deadline`. Time spent paused does not count.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Waits while paused.
    fn wait_while_paused(&mut self) {
        let since = Instant::now();
        let mut state = self.shared.lock();
        while state.paused && state.links.get(self.id).is_some_and(|link| link.socket.is_some()) {
            state = self.shared.changed.wait(state).expect("no thread panics while it holds the lock");
        }
        drop(state);
        self.deadline += since.elapsed();
    }
}

impl Read for Inlet {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.wait_while_paused();
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        (&*self.stream).read(buf)
    }
}
