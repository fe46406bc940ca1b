//! A connection over a socket: a thread of its own moves bytes between it and its [`Session`], with deadlines and a pause
//! that tests can make.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::session::{End, Session};
use crate::{Link, Shared};

const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
const READ_BUFFER: usize = 64 * 1024;

/// Enters a new connection in the list and gives it a thread.
pub(crate) fn start(shared: &Arc<Shared>, stream: TcpStream) {
    let Ok(peer) = stream.peer_addr() else { return };
    let _best_effort = (stream.set_nodelay(true), stream.set_write_timeout(Some(WRITE_TIMEOUT)));
    let stream = Arc::new(stream);
    let writing = Arc::new(Mutex::new(()));
    let link = Link { open: true, socket: Some(Arc::clone(&stream)), writing: Arc::clone(&writing), kicked: None };
    let id = shared.enter(peer, link);
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let deadline = Instant::now() + shared.options.detection_deadline;
        let mut session = Session::new(&shared, id);
        let mut inlet = Inlet { stream: Arc::clone(&stream), shared, id, deadline, messages: 0 };
        let end = inlet.run(&mut session, &writing);
        session.finish(&end);
        // after the report: who sees the close finds the reason
        let _gone_already = stream.shutdown(Shutdown::Both);
    });
}

struct Inlet {
    stream: Arc<TcpStream>,
    shared: Arc<Shared>,
    id: usize,
    /// Reads fail with `TimedOut` after it. Time spent paused does not count.
    deadline: Instant,
    messages: u64,
}

impl Inlet {
    fn run(&mut self, session: &mut Session, writing: &Mutex<()>) -> End {
        let mut buffer = vec![0; READ_BUFFER];
        loop {
            let count = match self.read(&mut buffer) {
                Ok(0) => return io::Error::from(io::ErrorKind::UnexpectedEof).into(),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return error.into(),
            };
            let handled = session.handle_bytes(buffer.get(..count).expect("at most the buffer"), Instant::now());
            // A refusal may have an answer that says so.
            let (replies, delay) = session.take_replies();
            std::thread::sleep(delay);
            let written = {
                let _one_at_a_time = writing.lock().expect("no thread panics while it holds the lock");
                (&*self.stream).write_all(&replies)
            };
            if let Err(end) = handled.and(written.map_err(End::from)) {
                return end;
            }
            if let Some(messages) = session.messages_when_ready()
                && messages != self.messages
            {
                self.messages = messages;
                self.deadline = Instant::now() + self.shared.options.idle_deadline;
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait_while_paused();
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        (&*self.stream).read(buffer)
    }

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
