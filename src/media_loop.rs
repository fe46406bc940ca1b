//! The media thread: one poll over the UDP socket, the RTMP sockets and a wake-up descriptor. The only file (with its
//! two socket files below) that touches sockets, the poller and the clock on the packet path.
//!
//! Input: datagrams, RTMP bytes, [`Command`]s. Output: datagrams, RTMP bytes, [`Event`]s. A packet crosses no thread:
//! it is received, decrypted, muxed, chunked and written to its TCP socket within one wake-up.
//!
//! Bounds: `COMMAND_QUEUE` commands (a full queue refuses the caller), `EVENT_QUEUE` events (an event that does not fit
//! is dropped with a warning; a snapshot tells the truth), one session and one relay per slot.

mod budget;
mod lane;
mod tcp;
mod udp;

use std::fmt;
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use guest_relay_muxer::TrackKind;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::guest::{SessionKey, Slot, State};
use crate::relay::{RelayConfig, RelaySnapshot};
use crate::rtc::demux::Routes;
use crate::rtc::peer::{self, Peer};
use crate::rtmp;

pub use budget::Budget;
use lane::{Lane, Session};
use tcp::Closing;
use udp::{Datagram, UdpPort};

const COMMAND_QUEUE: usize = 64;
const EVENT_QUEUE: usize = 256;
/// How long a shutdown waits for servers to take the last bytes and the unpublish.
const SHUTDOWN_DEADLINE: Duration = Duration::from_millis(1_500);

/// What the control thread may ask.
pub enum Command {
    /// A session takes the slot; `ready` hears when its STUN requests will be answered.
    Join {
        slot: Slot,
        key: SessionKey,
        peer: Box<Peer>,
        /// The guest sends pictures, even if this peer's first description should lack them.
        video: bool,
        transport: Transport,
        ready: smol::channel::Sender<()>,
    },
    /// The other side describes a session anew, that goes on: `answer` hears ours.
    Reoffer { slot: Slot, key: SessionKey, offer: String, answer: smol::channel::Sender<Result<String, String>> },
    /// The guest said goodbye: the session ends, if it still holds its slot.
    Leave { slot: Slot, key: SessionKey },
    /// Where the slot's RTMP server is, for the connections to come.
    Servers { slot: Slot, servers: Vec<SocketAddr> },
    /// The state of every slot, in order.
    Snapshot { reply: smol::channel::Sender<Vec<SlotSnapshot>> },
    /// Unpublish everything and end.
    Shutdown,
}

/// How a session's datagrams travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Over the socket that all guests share.
    Shared,
    /// Over a socket of its own, our side sending the first check: the SFU answers all sessions from one address, which
    /// only different ports on our side tell apart.
    Own,
}

/// What the control thread hears.
#[derive(Debug)]
pub enum Event {
    /// ICE and DTLS are done.
    Connected { slot: Slot, key: SessionKey },
    /// The session is over; its slot is free.
    Ended { slot: Slot, key: SessionKey, reason: SessionEnd },
    /// The RTMP side changed.
    Rtmp { slot: Slot, event: rtmp::Event },
    /// The guest's life went on.
    State { slot: Slot, state: State },
    /// The media thread cannot go on.
    Failed(String),
}

/// Why a slot's session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The WebRTC peer says why.
    Peer(peer::EndReason),
    /// A newer session took the slot.
    Replaced,
    /// The guest said goodbye.
    Left,
    /// As many sessions as the routes take.
    NoRoom,
    /// The daemon ends.
    Shutdown,
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(reason) => write!(f, "{reason}"),
            Self::Replaced => write!(f, "a newer session took the slot"),
            Self::Left => write!(f, "the guest left"),
            Self::NoRoom => write!(f, "too many sessions"),
            Self::Shutdown => write!(f, "the daemon ends"),
        }
    }
}

/// One slot as it is now.
pub struct SlotSnapshot {
    pub state: State,
    /// When `state` was entered.
    pub since: SystemTime,
    pub session: Option<SessionSnapshot>,
    pub relay: RelaySnapshot,
}

pub struct SessionSnapshot {
    pub key: SessionKey,
    pub connected: bool,
    pub stats: peer::PeerStats,
    /// When anything authentic of the other side came last: media, reports, answers to checks.
    pub heard: Option<Instant>,
}

/// The media thread is gone or overloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

/// The control thread's end of the media thread.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::SyncSender<Command>,
    wake: Arc<OwnedFd>,
    local_addr: SocketAddr,
}

impl Handle {
    /// Queues a command and wakes the media thread.
    pub fn send(&self, command: Command) -> Result<(), Unavailable> {
        self.commands.try_send(command).map_err(|_| Unavailable)?;
        // The counter can only be full of wake-ups already pending.
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        Ok(())
    }

    /// The address of the UDP socket; its port stands in every candidate.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

/// Binds the UDP socket and starts the thread. `relays` are the slots, in order.
pub fn spawn(
    listen: SocketAddr,
    relays: Vec<RelayConfig>,
    budget: Budget,
) -> io::Result<(Handle, smol::channel::Receiver<Event>, thread::JoinHandle<()>)> {
    let udp = UdpPort::bind(listen)?;
    let local_addr = udp.local_addr()?;
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (command_sender, commands) = mpsc::sync_channel(COMMAND_QUEUE);
    let (events, event_receiver) = smol::channel::bounded(EVENT_QUEUE);
    let now = Instant::now();
    let media_loop = MediaLoop {
        udp,
        wake: Arc::clone(&wake),
        commands,
        events,
        routes: Routes::new(),
        lanes: relays.into_iter().map(|config| Lane::new(config, now)).collect(),
        ready: Vec::new(),
        shutdown: None,
        own_ip: listen.ip(),
        budget,
    };
    let thread = thread::Builder::new().name("media".to_owned()).spawn(move || media_loop.run())?;
    Ok((Handle { commands: command_sender, wake, local_addr }, event_receiver, thread))
}

#[derive(Default)]
struct WokenBy {
    udp: bool,
    command: bool,
}

struct MediaLoop {
    udp: UdpPort,
    wake: Arc<OwnedFd>,
    commands: mpsc::Receiver<Command>,
    events: smol::channel::Sender<Event>,
    routes: Routes<usize>,
    lanes: Vec<Lane>,
    /// Poll's answers, in the order of the descriptors; kept so that its memory is.
    ready: Vec<PollFlags>,
    shutdown: Option<Instant>,
    /// Where sessions with their own socket bind.
    own_ip: IpAddr,
    budget: Budget,
}

impl MediaLoop {
    fn run(mut self) {
        while !self.finished(Instant::now()) {
            if let Err(error) = self.turn() {
                log::error!("media thread: {error}; every guest is lost, the daemon ends");
                self.emit(Event::Failed(error.to_string()));
                return;
            }
        }
    }

    fn finished(&self, now: Instant) -> bool {
        self.shutdown.is_some_and(|deadline| now >= deadline || self.lanes.iter().all(Lane::is_disconnected))
    }

    /// One wake-up.
    fn turn(&mut self) -> io::Result<()> {
        let woken_by = self.wait()?;
        let now = Instant::now();
        if woken_by.udp {
            self.receive(now)?;
        }
        if woken_by.command {
            let mut counter = [0; 8];
            let _ = rustix::io::read(&*self.wake, &mut counter);
            while let Ok(command) = self.commands.try_recv() {
                self.handle_command(command, now);
            }
        }
        for lane in self.lanes.iter_mut().filter(|lane| lane.port_ready) {
            lane.port_ready = false;
            lane.receive(now)?;
        }
        for lane in &mut self.lanes {
            let ready = mem::replace(&mut lane.socket_ready, PollFlags::empty());
            if ready.is_empty() {
                continue;
            }
            let Some(socket) = &mut lane.socket else {
                continue;
            };
            if let Err(how) = socket.handle_ready(lane.relay.publisher(), ready, now) {
                lane.lose_socket(how, now);
            }
            lane.touched = true;
        }
        for index in 0..self.lanes.len() {
            self.service(index, now);
        }
        Ok(())
    }

    /// Sleeps until a socket is ready, a command came, or the earliest deadline.
    fn wait(&mut self) -> io::Result<WokenBy> {
        let deadline = self.lanes.iter().filter_map(|lane| lane.deadline).chain(self.shutdown).min();
        let timeout = deadline.map(|deadline| {
            let wait = deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: wait.subsec_nanos().into() }
        });
        self.ready.clear();
        let mut descriptors = Vec::with_capacity(self.lanes.len() + 2);
        descriptors.push(PollFd::new(&self.udp, PollFlags::IN));
        descriptors.push(PollFd::new(&*self.wake, PollFlags::IN));
        let sockets = self.lanes.iter().filter_map(|lane| lane.socket.as_ref());
        descriptors.extend(sockets.map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), socket.interest())));
        descriptors.extend(self.lanes.iter().filter_map(Lane::port).map(|port| PollFd::new(port, PollFlags::IN)));
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) => self.ready.extend(descriptors.iter().map(PollFd::revents)),
            Err(rustix::io::Errno::INTR) => return Ok(WokenBy::default()),
            Err(error) => return Err(error.into()),
        }
        let mut ready = self.ready.iter().copied();
        let mut next = || ready.next().unwrap_or(PollFlags::empty());
        let woken_by = WokenBy { udp: !next().is_empty(), command: !next().is_empty() };
        for lane in self.lanes.iter_mut().filter(|lane| lane.socket.is_some()) {
            lane.socket_ready = next();
        }
        for lane in self.lanes.iter_mut().filter(|lane| lane.port().is_some()) {
            lane.port_ready = !next().is_empty();
        }
        Ok(woken_by)
    }

    fn receive(&mut self, now: Instant) -> io::Result<()> {
        let Self { udp, routes, lanes, .. } = self;
        udp.receive(|datagram| {
            let Datagram { bytes, from, to } = datagram;
            let Some(index) = routes.route(bytes, from) else {
                return;
            };
            let Some(lane) = lanes.get_mut(index) else {
                return;
            };
            let Some(session) = &mut lane.session else {
                return;
            };
            session.note_local_address(from, to);
            if let Some(received) = session.peer.handle_datagram(bytes, from, now) {
                for packet in received.packets() {
                    lane.relay.handle_rtp(received.kind, &packet, now);
                }
            }
            lane.touched = true;
        })?;
        Ok(())
    }

    fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Join { slot, key, mut peer, video, transport, ready } => {
                self.end_session(slot.0, SessionEnd::Replaced, now);
                let Some(lane) = self.lanes.get_mut(slot.0) else {
                    return;
                };
                let port = match transport {
                    Transport::Shared => None,
                    Transport::Own => match UdpPort::bind(SocketAddr::new(self.own_ip, 0)) {
                        Ok(port) => Some(port),
                        Err(error) => {
                            log::warn!("slot {}: no UDP socket for the SFU: {error}", slot.0);
                            self.emit(Event::Ended { slot, key, reason: SessionEnd::NoRoom });
                            return;
                        }
                    },
                };
                if port.is_none() && !self.routes.insert(peer.local_ufrag(), slot.0) {
                    // `ready` is dropped, so the caller hears of it.
                    self.emit(Event::Ended { slot, key, reason: SessionEnd::NoRoom });
                    return;
                }
                if transport == Transport::Own {
                    peer.begin_checks(now);
                }
                lane.relay.begin_source(video, now);
                lane.next_measure = now;
                lane.session = Some(Session { key, peer, connected: false, port, local_addresses: Vec::new() });
                lane.touched = true;
                self.share_bitrate(now);
                let _ = ready.try_send(());
            }
            Command::Reoffer { slot, key, offer, answer } => {
                let lane = self.lanes.get_mut(slot.0);
                let session = lane.and_then(|lane| {
                    lane.touched = true;
                    lane.session.as_mut().filter(|session| session.key == key)
                });
                let answered = match session {
                    Some(session) => session.peer.handle_offer(&offer, now).map_err(|error| error.to_string()),
                    None => Err("the session is over".to_owned()),
                };
                // Whoever asked may have lost patience.
                let _ = answer.try_send(answered);
            }
            Command::Leave { slot, key } => {
                let Some(lane) = self.lanes.get(slot.0) else {
                    return;
                };
                if lane.session.as_ref().is_some_and(|session| session.key == key) {
                    self.end_session(slot.0, SessionEnd::Left, now);
                }
            }
            Command::Servers { slot, servers } => {
                if let Some(lane) = self.lanes.get_mut(slot.0) {
                    lane.servers = servers;
                }
            }
            Command::Snapshot { reply } => {
                let snapshots = self.lanes.iter().map(|lane| SlotSnapshot {
                    state: lane.state,
                    since: lane.since,
                    session: lane.session.as_ref().map(|session| SessionSnapshot {
                        key: session.key,
                        connected: session.connected,
                        stats: session.peer.stats(),
                        heard: session.peer.last_heard(),
                    }),
                    relay: lane.relay.snapshot(now),
                });
                let _ = reply.try_send(snapshots.collect());
            }
            Command::Shutdown => {
                for index in 0..self.lanes.len() {
                    self.end_session(index, SessionEnd::Shutdown, now);
                    if let Some(lane) = self.lanes.get_mut(index) {
                        lane.relay.release(now);
                    }
                }
                self.shutdown = Some(now + SHUTDOWN_DEADLINE);
            }
        }
    }

    /// Ends the slot's session: DTLS and RTCP goodbyes go out, its addresses are forgotten, its media stops.
    fn end_session(&mut self, index: usize, reason: SessionEnd, now: Instant) {
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        let Some(mut session) = lane.session.take() else {
            return;
        };
        log::debug!("slot {index}: the session's counters: {:?}", session.peer.stats());
        let last_heard = session.peer.last_heard();
        session.peer.close(now);
        while let Some(output) = session.peer.poll_output() {
            if let peer::Output::Transmit { to, datagram } = output {
                session.send(&self.udp, &datagram, to);
            }
        }
        self.routes.remove(index);
        lane.relay.end_source(last_heard, now);
        lane.touched = true;
        self.share_bitrate(now);
        self.emit(Event::Ended { slot: Slot(index), key: session.key, reason });
    }

    /// Tells every guest what it may send, after one has come or gone. Sound alone is too little to be counted.
    fn share_bitrate(&mut self, now: Instant) {
        let sends_video = |lane: &Lane| lane.session.as_ref().is_some_and(|each| each.peer.has_track(TrackKind::Video));
        let share = self.budget.share(self.lanes.iter().filter(|lane| sends_video(lane)).count());
        for lane in &mut self.lanes {
            if let Some(session) = &mut lane.session {
                session.peer.set_max_bitrate(share, now);
                lane.touched = true;
            }
        }
    }

    /// Runs what is due in a slot and drains its outputs, until nothing is left to do now.
    fn service(&mut self, index: usize, now: Instant) {
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        let due = lane.deadline.is_some_and(|deadline| deadline <= now);
        if !lane.touched && !due {
            return;
        }
        lane.touched = false;
        lane.measure(now);
        if due {
            if let Some(session) = &mut lane.session {
                session.peer.handle_timeout(now);
            }
            lane.relay.handle_timeout(now);
            lane.closing.take_if(|closing| closing.until() <= now);
        }
        self.drain_peer(index, now);
        self.drain_relay(index, now);
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        let peer_deadline = lane.session.as_ref().and_then(|session| session.peer.poll_timeout());
        let closing = lane.closing.as_ref().map(Closing::until);
        lane.deadline = [peer_deadline, lane.relay.poll_timeout(), closing].into_iter().flatten().min();
        let state = lane.derive_state();
        if state != lane.state {
            lane.state = state;
            lane.since = SystemTime::now();
            self.emit(Event::State { slot: Slot(index), state });
        }
    }

    fn drain_peer(&mut self, index: usize, now: Instant) {
        let mut ended = None;
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        let Some(session) = &mut lane.session else {
            return;
        };
        if lane.relay.take_keyframe_received() {
            session.peer.notify_keyframe(now);
        }
        if lane.relay.take_keyframe_request() {
            session.peer.request_keyframe(now);
        }
        let mut connected = None;
        while let Some(output) = session.peer.poll_output() {
            match output {
                peer::Output::Transmit { to, datagram } => session.send(&self.udp, &datagram, to),
                peer::Output::Event(event) => match event {
                    peer::Event::AddressValidated(_) | peer::Event::AddressForgotten(_) if session.port.is_some() => {}
                    peer::Event::AddressValidated(address) => self.routes.validate(address, index),
                    peer::Event::AddressForgotten(address) => self.routes.forget(address, index),
                    // A muted track or a camera that is off may say so; its silence is bridged all the same.
                    peer::Event::Bye { kind } => {
                        log::debug!("slot {index}: the sender ended its {kind:?} stream")
                    }
                    peer::Event::Connected { .. } => {
                        session.connected = true;
                        connected = Some(session.key);
                    }
                    peer::Event::SenderReport { kind, ntp_time, rtp_time } => {
                        lane.relay.handle_sender_report(kind, ntp_time, rtp_time, now);
                    }
                    peer::Event::UnexpectedCodec { kind, payload_type, codec } => {
                        log::warn!(
                            "slot {index}: the sender's {kind:?} is {codec} (payload type {payload_type}), which is not taken"
                        );
                    }
                    peer::Event::Quiet => {
                        log::debug!("slot {index}: nothing heard from the sender for {:?}", peer::QUIET_AFTER)
                    }
                    peer::Event::Ended(reason) => ended = Some(SessionEnd::Peer(reason)),
                },
            }
        }
        if let Some(key) = connected {
            self.emit(Event::Connected { slot: Slot(index), key });
        }
        if let Some(reason) = ended {
            self.end_session(index, reason, now);
        }
    }

    fn drain_relay(&mut self, index: usize, now: Instant) {
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        let mut events = Vec::new();
        loop {
            if let Some(socket) = &mut lane.socket
                && let Err(how) = socket.flush(lane.relay.publisher(), now)
            {
                lane.lose_socket(how, now);
            }
            match lane.relay.poll_output(now) {
                Some(rtmp::Output::Connect) => lane.connect(now),
                Some(rtmp::Output::Disconnect) => lane.close_socket(now),
                Some(rtmp::Output::KeyframeNeeded) => {
                    if let Some(session) = &mut lane.session {
                        session.peer.request_keyframe(now);
                        // The request leaves with the next turn of this slot, which is now.
                        lane.touched = true;
                    }
                }
                Some(rtmp::Output::Event(event)) => events.push(event),
                None => break,
            }
        }
        for event in events {
            self.emit(Event::Rtmp { slot: Slot(index), event });
        }
        if self.lanes.get(index).is_some_and(|lane| lane.touched) {
            self.drain_peer(index, now);
        }
    }

    fn emit(&self, event: Event) {
        if let Err(error) = self.events.try_send(event) {
            log::warn!("control thread too slow: {:?} dropped", error.into_inner());
        }
    }
}
