//! The reading half of a connection: bytes with a deadline, which tests can pause or slow down.

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Shared;

pub(crate) struct Inlet {
    stream: Arc<TcpStream>,
    shared: Arc<Shared>,
    id: usize,
    deadline: Instant,
}

impl Inlet {
    pub(crate) fn new(
        stream: Arc<TcpStream>,
        shared: Arc<Shared>,
        id: usize,
        deadline: Instant,
    ) -> Inlet {
        Inlet {
            stream,
            shared,
            id,
            deadline,
        }
    }

    /// Reads fail with `TimedOut` after `deadline`. Time spent paused does not count.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Waits while paused; the speed limit.
    fn pace(&mut self) -> Option<u32> {
        let since = Instant::now();
        let mut state = self.shared.lock();
        while state.paused
            && state
                .links
                .get(self.id)
                .is_some_and(|link| link.socket.is_some())
        {
            state = self
                .shared
                .changed
                .wait(state)
                .expect("no thread panics while it holds the lock");
        }
        self.deadline += since.elapsed();
        state.bytes_per_second
    }
}

impl Read for Inlet {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let limit = self.pace();
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let Some(bytes_per_second) = limit else {
            return (&*self.stream).read(buf);
        };
        // a twentieth of a second's worth at a time
        let share = usize::try_from(bytes_per_second / 20)
            .unwrap_or(usize::MAX)
            .clamp(1, buf.len());
        let read = (&*self.stream).read(buf.get_mut(..share).expect("clamped to the length"))?;
        let read_u32 = u32::try_from(read).expect("a buffer's length");
        std::thread::sleep(Duration::from_secs(1) * read_u32 / bytes_per_second.max(1));
        Ok(read)
    }
}
