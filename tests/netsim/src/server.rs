//! The RTMP side: a TCP connection in virtual time into the strict ingest.
//!
//! Input: the bytes of a [`Client`]; output: the server's bytes back to it, and [`Shown`] frames. The connection
//! is a loopback one, so it has no delay; what can be made of it is a slow server, one that stops reading, one that is
//! gone. Bound: [`SOCKET_BYTES`] between both ends.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use guest_relay::rtmp::{Disconnected, Publisher};
use guest_relay::slot::{RtmpInput, SessionPeer, SlotMachine};
use ingest::{Connection, Frame, Ingest, Options, Pipe};

/// What the socket buffers of both ends hold.
const SOCKET_BYTES: usize = 128 * 1024;
/// How often a slow server reads.
const READ_EVERY: Duration = Duration::from_millis(5);

/// How late a clock a track may teach the server, and how far picture and sound may be apart for it.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(60);

/// Who publishes: a slot, or a publisher by itself.
pub trait Client {
    fn write_buffer(&mut self) -> &[u8];
    fn handle_rtmp(&mut self, input: RtmpInput<'_>, now: Instant);
}

impl<P: SessionPeer + ?Sized> Client for SlotMachine<P> {
    fn write_buffer(&mut self) -> &[u8] {
        SlotMachine::write_buffer(self)
    }

    fn handle_rtmp(&mut self, input: RtmpInput<'_>, now: Instant) {
        SlotMachine::handle_rtmp(self, input, now);
    }
}

impl Client for Publisher {
    fn write_buffer(&mut self) -> &[u8] {
        Publisher::write_buffer(self)
    }

    fn handle_rtmp(&mut self, input: RtmpInput<'_>, now: Instant) {
        match input {
            RtmpInput::Connected => self.handle_connected(now),
            RtmpInput::Bytes(bytes) => self.handle_bytes(bytes, now),
            RtmpInput::Written(count) => self.handle_written(count, now),
            RtmpInput::Disconnected(how) => self.handle_disconnected(how, now),
        }
    }
}

/// How the server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Reads no faster than this.
    Slow {
        kbps: u32,
    },
    /// Takes connections and reads nothing, as a stopped process.
    Stopped,
    /// Refuses connections.
    Away,
}

/// A frame that reached the server.
#[derive(Clone, Debug)]
pub struct Shown {
    pub frame: Frame,
    /// Number of the connection it came by.
    pub connection: usize,
    pub at: Instant,
}

#[derive(Debug)]
struct Link {
    pipe: Pipe,
    in_flight: VecDeque<u8>,
    next_read: Instant,
}

/// The server and at most one connection to it.
#[derive(Debug)]
pub struct Server {
    ingest: Ingest,
    mood: Mood,
    link: Option<Link>,
    /// Connections so far.
    connections: usize,
    /// Reports of connections that are over.
    ended: Vec<Connection>,
    shown: Vec<Shown>,
    /// It has read at once all the time: what came late was not its own doing.
    well: bool,
}

impl Default for Server {
    fn default() -> Self {
        let options = Options { keep_bodies: true, clock_tolerance: CLOCK_TOLERANCE, ..Options::default() };
        Server {
            ingest: Ingest::without_sockets(options),
            mood: Mood::Well,
            link: None,
            connections: 0,
            ended: Vec::new(),
            shown: Vec::new(),
            well: true,
        }
    }
}

impl Server {
    /// Changes how the server behaves; a server that goes away resets its connection.
    pub fn set_mood(&mut self, mood: Mood, client: &mut impl Client, now: Instant) {
        self.mood = mood;
        self.well &= mood == Mood::Well;
        if mood == Mood::Away && self.hang_up() {
            let reset = Disconnected::Failed(ErrorKind::ConnectionReset);
            client.handle_rtmp(RtmpInput::Disconnected(reset), now);
        }
    }

    /// The client wants a connection.
    pub fn connect(&mut self, client: &mut impl Client, now: Instant) {
        self.hang_up();
        if self.mood == Mood::Away {
            let refused = Disconnected::Failed(ErrorKind::ConnectionRefused);
            return client.handle_rtmp(RtmpInput::Disconnected(refused), now);
        }
        self.link = Some(Link { pipe: self.ingest.open(), in_flight: VecDeque::new(), next_read: now });
        self.connections += 1;
        client.handle_rtmp(RtmpInput::Connected, now);
    }

    /// The connection is over; false when there was none.
    pub fn hang_up(&mut self) -> bool {
        let Some(mut link) = self.link.take() else { return false };
        link.pipe.close();
        self.ended.push(link.pipe.report());
        true
    }

    /// Moves what can be moved now in both directions.
    pub fn pump(&mut self, client: &mut impl Client, now: Instant) {
        loop {
            let Some(link) = &mut self.link else { return };
            let waiting = client.write_buffer();
            let room = SOCKET_BYTES - link.in_flight.len();
            let written = waiting.len().min(room);
            link.in_flight.extend(waiting.get(..written).unwrap_or_default());
            if written > 0 {
                client.handle_rtmp(RtmpInput::Written(written), now);
            }
            let (bytes, rest) = match self.mood {
                Mood::Stopped | Mood::Away => return,
                Mood::Well => (link.in_flight.len(), None),
                Mood::Slow { .. } if now < link.next_read => return,
                Mood::Slow { kbps } => {
                    link.next_read = now + READ_EVERY;
                    let bytes = u128::from(kbps) * READ_EVERY.as_micros() / 8000;
                    (usize::try_from(bytes).unwrap_or(usize::MAX).min(link.in_flight.len()), Some(()))
                }
            };
            if bytes == 0 {
                return;
            }
            let bytes: Vec<u8> = link.in_flight.drain(..bytes).collect();
            let replies = link.pipe.handle_bytes(&bytes, now);
            let connection = self.connections;
            let frames = link.pipe.take_frames().into_iter();
            self.shown.extend(frames.map(|frame| Shown { frame, connection, at: now }));
            if !replies.is_empty() {
                client.handle_rtmp(RtmpInput::Bytes(&replies), now);
            }
            if self.link.as_ref().is_some_and(|link| !link.pipe.is_open()) {
                self.hang_up();
                client.handle_rtmp(RtmpInput::Disconnected(Disconnected::Closed), now);
            }
            if rest.is_some() {
                return;
            }
        }
    }

    /// When a slow server reads again.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let slow = matches!(self.mood, Mood::Slow { .. });
        self.link.as_ref().filter(|link| slow && !link.in_flight.is_empty()).map(|link| link.next_read)
    }

    /// Frames since the last call.
    pub fn take_shown(&mut self) -> Vec<Shown> {
        std::mem::take(&mut self.shown)
    }

    /// Whether it has read at once all the time.
    pub fn has_been_well(&self) -> bool {
        self.well
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Whether one stands.
    pub fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// What the ingest says of each connection.
    pub fn reports(&self) -> Vec<Connection> {
        self.ended.iter().cloned().chain(self.link.as_ref().map(|link| link.pipe.report())).collect()
    }
}
