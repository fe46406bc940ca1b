//! A strict RTMP ingest: it takes H.264 + enhanced-RTMP Opus as MediaMTX does and refuses what MediaMTX refuses.
//!
//! ```text
//! TcpListener -> one thread a connection (inlet) ┐
//! a test in virtual time (pipe) ─────────────────┴▶ handshake -> chunks (wire) -> commands (session)
//!                -> media rules (media) -> track detection, 2 s of media time (tracks) -> ready
//! ```
//!
//! Breaking one of MediaMTX's rules closes the connection with MediaMTX's text. Breaking one of our own, stricter
//! rules (timestamps strictly increasing per track, a start near 0 on an IDR, audio on its sample clock, nothing
//! after deleteStream, every message complete) is recorded in [`Connection::violations`]. A clock that MediaMTX would map
//! wrongly to wall time is told in [`Connection::late_clocks`], which only time that is simulated can be held to.
//!
//! No code shared with the publisher under test. Memory grows with the recorded
//! frames: turn [`Options::keep_frames`] off for a long run.

mod amf;
mod clock;
mod flv;
mod inlet;
mod media;
mod path;
mod pipe;
mod report;
mod session;
mod sps;
mod tracks;
mod wire;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use amf::{AmfError, Value, parse as parse_amf};
pub use pipe::Pipe;
pub use report::{AudioTrack, Connection, Event, Frame, Kind, Stage, VideoTrack};

/// What happens when a second publisher comes to a path that is ready (MediaMTX's `overridePublisher`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecondPublisher {
    /// The old one is closed when the new one's tracks are known.
    #[default]
    Override,
    /// The new one is closed when its tracks are known.
    Refuse,
}

/// How strict, how patient, and what to keep.
#[derive(Clone)]
pub struct Options {
    pub second_publisher: SecondPublisher,
    /// When set, a publisher whose URL query differs gets NetStream.Publish.Unauthorized.
    pub required_query: Option<String>,
    /// Wait before that answer (MediaMTX: 1.6 to 2.5 s).
    pub unauthorized_delay: Duration,
    /// From accept to the end of track detection.
    pub detection_deadline: Duration,
    /// Between two messages once ready.
    pub idle_deadline: Duration,
    /// How late a clock a track may teach a media server ([`Connection::late_clocks`]). In real time it is the machine's
    /// noise that shows first.
    pub clock_tolerance: Duration,
    /// Remember every frame's kind, timestamp and length.
    pub keep_frames: bool,
    /// And its bytes.
    pub keep_bodies: bool,
    /// Write `<path>.flv`, `<path>-2.flv`, ... there.
    pub flv_dir: Option<PathBuf>,
    /// Called for each event, on the connection's thread.
    pub on_event: Option<fn(&Event)>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            second_publisher: SecondPublisher::Override,
            required_query: None,
            unauthorized_delay: Duration::from_secs(2),
            detection_deadline: Duration::from_secs(10),
            idle_deadline: Duration::from_secs(10),
            clock_tolerance: Duration::from_millis(150),
            keep_frames: true,
            keep_bodies: false,
            flv_dir: None,
            on_event: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("second_publisher", &self.second_publisher).finish_non_exhaustive()
    }
}

/// A connection's socket while it lives, and why the ingest itself closed it.
#[derive(Default)]
pub(crate) struct Link {
    open: bool,
    /// A [`Pipe`] has none.
    socket: Option<Arc<TcpStream>>,
    /// Replies and server-side requests must not mix.
    writing: Arc<Mutex<()>>,
    kicked: Option<&'static str>,
}

#[derive(Default)]
pub(crate) struct State {
    connections: Vec<Connection>,
    links: Vec<Link>,
    owners: HashMap<String, usize>,
    recordings: HashMap<String, u32>,
    paused: bool,
    undeclared: HashSet<String>,
}

pub(crate) struct Shared {
    options: Options,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A test that fails while it looks has its own words; a second panic, in a drop, would abort all the others.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a new connection in the list; its number.
    fn enter(&self, peer: SocketAddr, link: Link) -> usize {
        let mut state = self.lock();
        state.connections.push(Connection::new(peer));
        state.links.push(link);
        state.connections.len() - 1
    }

    fn emit(&self, event: Event) {
        if let Some(on_event) = self.options.on_event {
            on_event(&event);
        }
    }
}

impl State {
    /// Closes connection `id` from this side.
    fn kick(&mut self, id: usize, reason: &'static str) {
        if let Some(link) = self.links.get_mut(id)
            && std::mem::take(&mut link.open)
        {
            link.kicked = Some(reason);
            if let Some(socket) = link.socket.take() {
                let _gone_already = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

/// A running ingest. Dropping it closes everything.
pub struct Ingest {
    shared: Arc<Shared>,
    addr: SocketAddr,
    accepting: Mutex<Option<Accepting>>,
}

struct Accepting {
    stop: Arc<std::sync::atomic::AtomicBool>,
    thread: JoinHandle<()>,
}

impl Ingest {
    /// Listens on `addr` (port 0 for any).
    pub fn bind(addr: impl ToSocketAddrs, options: Options) -> io::Result<Ingest> {
        let listener = TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared { options, state: Mutex::default(), changed: Condvar::new() });
        let accepting = Mutex::new(Some(accept_on(listener, &shared)));
        Ok(Ingest { shared, addr, accepting })
    }

    /// An ingest that listens nowhere: its connections are [`Pipe`]s.
    pub fn without_sockets(options: Options) -> Ingest {
        let shared = Arc::new(Shared { options, state: Mutex::default(), changed: Condvar::new() });
        Ingest { shared, addr: SocketAddr::from(([0, 0, 0, 0], 0)), accepting: Mutex::new(None) }
    }

    /// A connection whose bytes the caller moves.
    pub fn open(&self) -> Pipe {
        Pipe::new(&self.shared)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// All connections so far, in the order of accept.
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.lock().connections.clone()
    }

    /// Looks at the connections without copying them.
    pub fn inspect<T>(&self, look: impl FnOnce(&[Connection]) -> T) -> T {
        look(&self.shared.lock().connections)
    }

    /// The newest connection that asked for `path`.
    pub fn path(&self, path: &str) -> Option<Connection> {
        self.inspect(|all| all.iter().rev().find(|connection| connection.path.as_deref() == Some(path)).cloned())
    }

    /// Blocks until `reached` holds, at most `timeout`; whether it does.
    pub fn wait_until(&self, timeout: Duration, mut reached: impl FnMut(&[Connection]) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            if reached(&state.connections) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.changed.wait_timeout(state, left).expect("no thread panics while it holds the lock").0;
        }
    }

    /// Stops taking bytes off the sockets, as a stopped process would.
    pub fn pause_reading(&self) {
        self.shared.lock().paused = true;
    }

    pub fn resume_reading(&self) {
        self.shared.lock().paused = false;
        self.shared.changed.notify_all();
    }

    /// From now on `path` is not in the configuration: MediaMTX closes such a publisher's connection without a status.
    pub fn undeclare(&self, path: &str) {
        self.shared.lock().undeclared.insert(path.to_owned());
    }

    pub fn declare(&self, path: &str) {
        self.shared.lock().undeclared.remove(path);
    }

    /// Closes all connections at once.
    pub fn kill_connections(&self) {
        let mut state = self.shared.lock();
        for id in 0..state.links.len() {
            state.kick(id, "killed");
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Refuses new TCP connections from now on.
    pub fn stop_listening(&self) {
        let accepting = self.accepting.lock().expect("no thread panics while it holds the lock").take();
        if let Some(accepting) = accepting {
            accepting.stop.store(true, std::sync::atomic::Ordering::SeqCst);
            let _wake = TcpStream::connect(self.addr);
            let _panicked = accepting.thread.join();
        }
    }

    /// Listens again on the same port.
    pub fn start_listening(&self) -> io::Result<()> {
        let mut accepting = self.accepting.lock().expect("no thread panics while it holds the lock");
        if accepting.is_none() {
            *accepting = Some(accept_on(TcpListener::bind(self.addr)?, &self.shared));
        }
        Ok(())
    }

    /// Sends the enhanced RTMP ReconnectRequest to the live publishers of `path`.
    pub fn request_reconnect(&self, path: &str, tc_url: Option<&str>) -> io::Result<()> {
        let links: Vec<_> = {
            let state = self.shared.lock();
            let of_path = |connection: &Connection| connection.path.as_deref() == Some(path);
            let pairs = state.connections.iter().zip(&state.links).filter(|(connection, _)| of_path(connection));
            pairs.filter_map(|(_, link)| Some((link.socket.clone()?, Arc::clone(&link.writing)))).collect()
        };
        let mut info = vec![
            ("level".into(), Value::String("status".into())),
            ("code".into(), Value::String("NetConnection.Connect.ReconnectRequest".into())),
        ];
        if let Some(url) = tc_url {
            info.push(("tcUrl".into(), Value::String(url.into())));
        }
        let body =
            amf::write(&[Value::String("onStatus".into()), Value::Number(0.0), Value::Null, Value::Object(info)]);
        let message = wire::write_message(3, 20, 0, &body, session::CHUNK_SIZE_OUT);
        for (socket, writing) in links {
            let _one_at_a_time = writing.lock().expect("no thread panics while it holds the lock");
            io::Write::write_all(&mut &*socket, &message)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingest").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        self.stop_listening();
        self.kill_connections();
        self.resume_reading();
    }
}

fn accept_on(listener: TcpListener, shared: &Arc<Shared>) -> Accepting {
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stopped, shared) = (Arc::clone(&stop), Arc::clone(shared));
    let thread = std::thread::spawn(move || {
        for stream in listener.incoming() {
            if stopped.load(std::sync::atomic::Ordering::SeqCst) {
                break;
            }
            if let Ok(stream) = stream {
                inlet::start(&shared, stream);
            }
        }
    });
    Accepting { stop, thread }
}
