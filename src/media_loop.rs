//! The media thread: one epoll over the UDP socket, the RTMP sockets and a wake-up descriptor. The only file (with its
//! socket files below) that touches sockets, the poller and the clock on the packet path.
//!
//! Input: datagrams, RTMP bytes, [`Command`]s. Output: datagrams, RTMP bytes, [`Event`]s. A packet crosses no thread:
//! it is received, decrypted, muxed, chunked and written to its TCP socket within one wake-up: one system call waits, one
//! receives, and one a guest writes what became of it. Deadlines of all guests are met on one grid of [`GRID`], and by the
//! packet that comes first after them, and packets of many guests are taken together ([`pace`]), so that more guests do not
//! mean more wake-ups.
//!
//! Bounds: `COMMAND_QUEUE` commands (a full queue refuses the caller), `EVENT_QUEUE` events (an event that does not fit
//! is dropped with a warning; a snapshot tells the truth), one session and one relay per slot.

mod budget;
mod interface;
mod lane;
mod pace;
mod tcp;
mod token;
mod udp;
#[cfg(test)]
pub(crate) mod unattended;

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

use crate::guest::Slot;
use crate::relay::RelayConfig;
use crate::rtc::demux::Routes;
use crate::rtc::peer;
use crate::rtmp::{self, Disconnected};

pub use budget::Budget;
pub use interface::{Command, Event, SessionEnd, SessionSnapshot, SlotSnapshot, Transport};
use lane::{Announced, Lane, Session};
use pace::Pace;
use tcp::Closing;
use token::Token;
use udp::{Datagram, Inbox, Moment, UdpPort};

const COMMAND_QUEUE: usize = 64;
const EVENT_QUEUE: usize = 256;
/// How long a shutdown waits for servers to take the last bytes and the unpublish.
const SHUTDOWN_DEADLINE: Duration = Duration::from_millis(1_500);

/// Deadlines are met at multiples of this after the start, or earlier by a packet. Nothing that is timed here minds: the
/// shortest wait is that for a packet which may only have been overtaken.
const GRID: Duration = Duration::from_millis(5);
/// Descriptors that one wait reports; others are reported by the next.
const READY_MAX: usize = 64;
/// What is asked of a UDP socket: word of each datagram once; level-triggered, each wait would begin by looking again at the
/// sockets that the last one spoke of. That a wake-up left some is remembered in `udp_ready` and `port_ready`.
const DATAGRAMS: EventFlags = EventFlags::IN.union(EventFlags::ET);

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
    let (media_loop, handle, event_receiver) = MediaLoop::new(listen, relays, budget)?;
    let thread = thread::Builder::new().name("media".to_owned()).spawn(move || media_loop.run())?;
    Ok((handle, event_receiver, thread))
}

struct MediaLoop {
    poller: OwnedFd,
    /// What the grid of deadlines counts from.
    start: Instant,
    /// The last wake-up.
    woken_at: Instant,
    udp: UdpPort,
    /// `udp` has datagrams, as far as is known.
    udp_ready: bool,
    inbox: Inbox,
    pace: Pace,
    wake: Arc<OwnedFd>,
    /// The last wait said that `commands` has some.
    commanded: bool,
    commands: mpsc::Receiver<Command>,
    events: smol::channel::Sender<Event>,
    routes: Routes<usize>,
    lanes: Vec<Lane>,
    shutdown: Option<Instant>,
    /// Where sessions with their own socket bind.
    own_ip: IpAddr,
    budget: Budget,
}

impl MediaLoop {
    /// All but the thread.
    fn new(
        listen: SocketAddr,
        relays: Vec<RelayConfig>,
        budget: Budget,
    ) -> io::Result<(Self, Handle, smol::channel::Receiver<Event>)> {
        let udp = UdpPort::bind(listen)?;
        let local_addr = udp.local_addr()?;
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let poller = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&poller, &udp, Token::Udp.data(), DATAGRAMS)?;
        epoll::add(&poller, &*wake, Token::Wake.data(), EventFlags::IN)?;
        let (command_sender, commands) = mpsc::sync_channel(COMMAND_QUEUE);
        let (events, event_receiver) = smol::channel::bounded(EVENT_QUEUE);
        let now = Instant::now();
        let media_loop = Self {
            poller,
            start: now,
            woken_at: now,
            udp,
            udp_ready: false,
            inbox: Inbox::new(),
            pace: Pace::default(),
            wake: Arc::clone(&wake),
            commanded: false,
            commands,
            events,
            routes: Routes::new(),
            lanes: relays.into_iter().map(|config| Lane::new(config, now)).collect(),
            shutdown: None,
            own_ip: listen.ip(),
            budget,
        };
        Ok((media_loop, Handle { commands: command_sender, wake, local_addr }, event_receiver))
    }

    fn run(mut self) {
        // What a wait reports; kept here so that its memory is.
        let mut ready = Vec::with_capacity(READY_MAX);
        while !self.finished(Instant::now()) {
            if let Err(error) = self.turn(&mut ready) {
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
    fn turn(&mut self, ready: &mut Vec<epoll::Event>) -> io::Result<()> {
        self.wait(ready)?;
        let now = Instant::now();
        let moment = Moment::new(now, mem::replace(&mut self.woken_at, now));
        if self.has_datagrams() {
            self.pace.note_received(now);
        }
        if self.udp_ready {
            self.udp_ready = self.receive(moment)?;
        }
        if mem::take(&mut self.commanded) {
            let mut counter = [0; 8];
            let _ = rustix::io::read(&*self.wake, &mut counter);
            while let Ok(command) = self.commands.try_recv() {
                self.handle_command(command, now);
            }
        }
        for lane in self.lanes.iter_mut().filter(|lane| lane.port_ready) {
            lane.port_ready = lane.receive(&mut self.inbox, moment)?;
        }
        for lane in &mut self.lanes {
            let ready = mem::replace(&mut lane.socket_ready, EventFlags::empty());
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

    fn has_datagrams(&self) -> bool {
        self.udp_ready || self.lanes.iter().any(|lane| lane.port_ready)
    }

    /// Sleeps until a socket is ready, a command came, or the earliest deadline; no longer than the pace asks for where
    /// datagrams were left.
    fn wait(&mut self, ready: &mut Vec<epoll::Event>) -> io::Result<()> {
        let deadline = self.lanes.iter().filter_map(|lane| lane.deadline).chain(self.shutdown).min();
        let mut now = Instant::now();
        if let Some(rest) = self.pace.rest(now) {
            thread::sleep(rest);
            now = Instant::now();
        }
        let until = if self.has_datagrams() { Some(now) } else { deadline.map(|deadline| self.on_grid(deadline)) };
        let timeout = until.map(|until| {
            let wait = until.saturating_duration_since(now);
            Timespec { tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: wait.subsec_nanos().into() }
        });
        ready.clear();
        match epoll::wait(&self.poller, spare_capacity(ready), timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for epoll::Event { flags, data, .. } in ready.drain(..) {
            match Token::of(data) {
                Token::Udp => self.udp_ready = true,
                Token::Wake => self.commanded = true,
                Token::Rtmp(index) => {
                    if let Some(lane) = self.lanes.get_mut(index) {
                        lane.socket_ready = flags;
                    }
                }
                Token::Port(index) => {
                    if let Some(lane) = self.lanes.get_mut(index) {
                        lane.port_ready = true;
                    }
                }
            }
        }
        Ok(())
    }

    /// The first point of the grid that is not before `deadline`.
    fn on_grid(&self, deadline: Instant) -> Instant {
        let points = deadline.saturating_duration_since(self.start).as_nanos().div_ceil(GRID.as_nanos());
        self.start + GRID * u32::try_from(points).unwrap_or(u32::MAX)
    }

    /// Takes what waits at the shared socket; returns whether more may be waiting.
    fn receive(&mut self, moment: Moment) -> io::Result<bool> {
        let Self { udp, inbox, routes, lanes, .. } = self;
        inbox.receive(udp, moment, |datagram| {
            let Datagram { bytes, from, to, arrived } = datagram;
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
            if let Some(received) = session.peer.handle_datagram(bytes, from, arrived) {
                for packet in received.packets() {
                    lane.relay.handle_rtp(received.kind, &packet, arrived);
                }
            }
            lane.touched = true;
        })
    }

    fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Join { slot, key, mut peer, video, transport, ready } => {
                self.end_session(slot.0, SessionEnd::Replaced, now);
                let port = match transport {
                    Transport::Shared => None,
                    Transport::Own => match self.bind_own_port(slot) {
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
                let Some(lane) = self.lanes.get_mut(slot.0) else {
                    return;
                };
                if transport == Transport::Own {
                    peer.begin_checks(now);
                }
                lane.relay.begin_source(video, now);
                lane.next_measure = now;
                lane.session = Some(Session {
                    key,
                    peer,
                    connected: false,
                    port,
                    local_addresses: Vec::new(),
                    announced: Announced::default(),
                });
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
            Command::AddSlot(config) => self.lanes.push(Lane::new(*config, now)),
            Command::Limit(budget) => {
                self.budget = budget;
                self.share_bitrate(now);
            }
            Command::Servers { slot, servers } => {
                if let Some(lane) = self.lanes.get_mut(slot.0) {
                    lane.servers = servers;
                }
            }
            Command::State { slot, reply } => {
                if let Some(lane) = self.lanes.get(slot.0) {
                    let _ = reply.try_send(lane.state);
                }
            }
            Command::Snapshot { reply } => {
                let snapshots = self.lanes.iter().map(|lane| SlotSnapshot {
                    state: lane.state,
                    since: lane.since,
                    held: lane.held(now),
                    session: lane.session.as_ref().map(|session| SessionSnapshot {
                        key: session.key,
                        connected: session.connected,
                        stats: session.peer.stats(),
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

    /// A socket for one session alone.
    fn bind_own_port(&self, slot: Slot) -> io::Result<UdpPort> {
        let port = UdpPort::bind(SocketAddr::new(self.own_ip, 0))?;
        epoll::add(&self.poller, &port, Token::Port(slot.0).data(), DATAGRAMS)?;
        Ok(port)
    }

    /// Ends the slot's session: an RTCP goodbye goes out, its addresses are forgotten, its media stops.
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
            lane.enter(state, now);
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
        let (slot, key) = (Slot(index), session.key);
        let mut news = Vec::new();
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
                        news.push(Event::Connected { slot, key });
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
                        log::debug!("slot {index}: nothing heard from the sender for {:?}", peer::QUIET_AFTER);
                        news.push(Event::Quiet { slot, key });
                    }
                    peer::Event::Heard => news.push(Event::Heard { slot, key }),
                    peer::Event::Ended(reason) => ended = Some(SessionEnd::Peer(reason)),
                },
            }
        }
        // Behind `Connected`, where both came in one turn: a pull takes no notice of media before it.
        news.extend(session.announce(now).map(|kind| Event::Media { slot, key, kind }));
        for event in news {
            self.emit(event);
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
                Some(rtmp::Output::Connect) => lane.connect(now, |socket| socket.register(&self.poller, index)),
                Some(rtmp::Output::Disconnect) => lane.close_socket(&self.poller, now),
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
        if let Some(socket) = &mut lane.socket
            && let Err(error) = socket.register(&self.poller, index)
        {
            lane.lose_socket(Disconnected::Failed(error.kind()), now);
            lane.touched = true;
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

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn datagrams_that_a_wake_up_leaves_are_taken_by_the_next_one_though_none_comes_after_them() {
        let budget = Budget { guest_kbps: 2500, total_kbps: None };
        let (mut media_loop, handle, _events) =
            MediaLoop::new(([127, 0, 0, 1], 0).into(), Vec::new(), budget).expect("loopback");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        for _ in 0..=udp::MOST_PER_WAKE {
            sender.send_to(b"not for anybody", handle.local_addr()).expect("sent");
        }
        let mut ready = Vec::with_capacity(READY_MAX);
        media_loop.turn(&mut ready).expect("a wake-up");
        assert!(media_loop.udp_ready, "some are left");
        // Ends the wait of a loop that has forgotten them.
        handle.send(Command::Limit(budget)).expect("taken");
        media_loop.turn(&mut ready).expect("a wake-up");
        let now = Instant::now();
        let MediaLoop { inbox, udp, udp_ready, .. } = &mut media_loop;
        let left = inbox.receive(udp, Moment::new(now, now), |_| panic!("it was left"));
        assert!(!left.expect("it can be asked") && !*udp_ready);
    }
}
