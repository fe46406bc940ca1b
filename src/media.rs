//! The media thread: one epoll over the UDP socket, the RTMP sockets and a wake-up descriptor. The only file (with its
//! socket files below) that touches sockets, the poller and the clock on the packet path.
//!
//! Input: datagrams, RTMP bytes, [`Command`]s. Output: datagrams, RTMP bytes, [`Event`]s. What happens in between is each
//! slot's ([`SlotMachine`]). A packet crosses no thread: it is received, decrypted, muxed, chunked and written to its TCP
//! socket within one wake-up, whose system calls are one that waits, one that receives, and one a guest that writes.
//! [`pace`] says when the thread wakes up.
//!
//! A panic in one slot's turn ends that slot's sessions and publication, and nothing else. Routes, inbox and poller are
//! shared, small, and stay outside of what is caught.
//!
//! Bounds: `COMMAND_QUEUE` commands (a full queue refuses the caller), `EVENT_QUEUE` events (an event that does not fit
//! is dropped with a warning; a snapshot tells the truth), one [`SlotMachine`] per slot, `ROUNDS` of its outputs a wake-up.

mod interface;
mod lane;
pub mod pace;
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

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::time::{ClockId, clock_gettime};

use crate::guest::{SessionKey, Slot, State};
use crate::log_once::LogOnce;
use crate::rtc::demux::Routes;
use crate::rtmp::Disconnected;
#[cfg(doc)]
use crate::slot::SlotMachine;
use crate::slot::{self, Joining, Output, RelayConfig, SessionEnd};

pub use interface::{Budget, Command, Event, HandedOver, NotAdopted, SlotSnapshot, UdpSocketKind};
use lane::Lane;
use pace::Pace;
use token::Token;
use udp::{Inbox, Moment, Taken, UdpPort};

const COMMAND_QUEUE: usize = 64;
const EVENT_QUEUE: usize = 256;
/// How long a shutdown waits for servers to take the last bytes and the unpublish.
const SHUTDOWN_DEADLINE: Duration = Duration::from_millis(1_500);

/// Descriptors that one wait reports; others are reported by the next.
const READY_MAX: usize = 64;
/// Epoll flags of a UDP socket. Edge-triggered: epoll reports each arrival once, which saves it a look at every socket it
/// reported before on each wait. A wake-up that leaves datagrams remembers so in `udp_ready` and `SessionSocket::is_ready`.
const UDP_EVENTS: EventFlags = EventFlags::IN.union(EventFlags::ET);
/// How often one wake-up carries a slot's outputs out and looks what that led to. A failed connection takes two.
const ROUNDS: usize = 16;
/// A socket that keeps failing is a line in the log each so often.
const REFUSAL_EVERY: Duration = Duration::from_secs(60);

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
    /// Whose the datagrams of the shared socket are.
    routes: Routes<(Slot, SessionKey)>,
    lanes: Vec<Lane>,
    shutdown: Option<Instant>,
    /// Where sessions with their own socket bind.
    own_ip: IpAddr,
    budget: Budget,
    /// A guest came or went: each one's share of the way in is another.
    share_due: bool,
    /// Failures of sockets that pass.
    refusals: LogOnce,
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
        epoll::add(&poller, &udp, Token::Udp.data(), UDP_EVENTS)?;
        epoll::add(&poller, &*wake, Token::Wake.data(), EventFlags::IN)?;
        let (command_sender, commands) = mpsc::sync_channel(COMMAND_QUEUE);
        let (events, event_receiver) = smol::channel::bounded(EVENT_QUEUE);
        let now = Instant::now();
        let lanes = relays.into_iter().enumerate().map(|(index, config)| Lane::new(Slot(index), config, now));
        let media_loop = Self {
            poller,
            woken_at: now,
            udp,
            udp_ready: false,
            inbox: Inbox::new(),
            pace: Pace::new(now),
            wake: Arc::clone(&wake),
            commanded: false,
            commands,
            events,
            routes: Routes::new(),
            lanes: lanes.collect(),
            shutdown: None,
            own_ip: listen.ip(),
            budget,
            share_due: false,
            refusals: LogOnce::new(Some(REFUSAL_EVERY)),
        };
        Ok((media_loop, Handle { commands: command_sender, wake, local_addr }, event_receiver))
    }

    fn run(mut self) {
        // The reports of one wait; kept here so that their memory is.
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
            self.pace.record_received(now);
        }
        if self.udp_ready {
            self.receive(moment, now)?;
        }
        if mem::take(&mut self.commanded) {
            let mut counter = [0; 8];
            let _ = rustix::io::read(&*self.wake, &mut counter);
            while let Ok(command) = self.commands.try_recv() {
                self.handle_command(command, now);
            }
        }
        let mut refused = None;
        for lane in &mut self.lanes {
            refused = lane.receive(&mut self.inbox, moment, now).or(refused);
            lane.handle_socket(now);
        }
        if let Some(error) = refused {
            self.handle_refusal(&error, now);
        }
        for index in 0..self.lanes.len() {
            self.service(index, now);
        }
        if mem::take(&mut self.share_due) {
            self.share_bitrate(now);
            for index in 0..self.lanes.len() {
                self.service(index, now);
            }
        }
        Ok(())
    }

    fn has_datagrams(&self) -> bool {
        self.udp_ready || self.lanes.iter().any(|lane| lane.session_sockets.iter().any(|socket| socket.is_ready))
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
        let until = if self.has_datagrams() { Some(now) } else { deadline.map(|at| self.pace.wake_at(at)) };
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
                Token::Port(index, place) => {
                    let sockets = self.lanes.get_mut(index).map(|lane| &mut lane.session_sockets).into_iter().flatten();
                    sockets.filter(|socket| socket.place == place).for_each(|socket| socket.is_ready = true);
                }
            }
        }
        Ok(())
    }

    /// Takes what waits at the shared socket.
    fn receive(&mut self, moment: Moment, now: Instant) -> io::Result<()> {
        let Self { udp, inbox, routes, lanes, .. } = self;
        let taken = inbox.receive(udp, moment, |datagram| {
            let Some(((slot, key), class)) = routes.route(datagram.bytes, datagram.from) else {
                return;
            };
            if let Some(lane) = lanes.get_mut(slot.0) {
                lane.handle_datagram(key, class, datagram);
            }
        })?;
        self.udp_ready = !matches!(taken, Taken::All);
        if let Taken::Refused(error) = taken {
            self.handle_refusal(&error, now);
        }
        Ok(())
    }

    /// A socket gave nothing for now. Datagrams may wait there, and no event of the poller would speak of them again.
    fn handle_refusal(&mut self, error: &io::Error, now: Instant) {
        self.pace.record_failed(now);
        if self.refusals.warns((), now) {
            log::warn!(
                "a UDP socket cannot be read for now: {error}; trying again; if it goes on, the system lacks memory"
            );
        }
    }

    fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            // Whoever asked has given up: the guest was told so, and whoever has the slot keeps it.
            Command::Join { ready: Some(ready), .. } if ready.is_closed() => {}
            Command::Join { slot, key, guest, continues, peer, video, socket, ready } => {
                let announces = socket == UdpSocketKind::Own;
                let joining = Joining { key, guest, continues, peer, video, announces };
                match self.join(slot, joining, socket, now) {
                    Ok(()) => {
                        if let Some(ready) = ready {
                            let _ = ready.try_send(());
                        }
                    }
                    // `ready` is dropped, so the caller hears of it; the slot made anew has told of the end.
                    Err(SessionEnd::Panicked) => {}
                    // Whoever has the slot keeps it.
                    Err(reason) => self.emit(Event::Ended { slot, key, reason }),
                }
            }
            Command::Reoffer { slot, key, offer, answer } => {
                let answered = self.lanes.get_mut(slot.0).and_then(|lane| {
                    lane.touched = true;
                    lane.machine.run(|machine| machine.handle_offer(key, &offer, now))
                });
                let answered = answered.unwrap_or(Err(slot::ReofferError::SessionOver));
                // Whoever asked may have lost patience.
                let _ = answer.try_send(answered);
            }
            Command::Leave { slot, key } => {
                if let Some(lane) = self.lanes.get_mut(slot.0) {
                    lane.machine.run(|machine| machine.leave(key, SessionEnd::Left, now));
                    lane.touched = true;
                }
            }
            Command::Vacate { slot, guest } => {
                if let Some(lane) = self.lanes.get_mut(slot.0) {
                    lane.machine.run(|machine| machine.vacate(guest, now));
                    lane.touched = true;
                }
            }
            Command::Idle { slot, idle } => {
                if let Some(lane) = self.lanes.get_mut(slot.0) {
                    lane.set_idle(idle, now);
                }
            }
            Command::RequestKeyframe { slot, reply } => {
                let asked = self.lanes.get_mut(slot.0).and_then(|lane| {
                    lane.touched = true;
                    lane.machine.run(|machine| machine.request_keyframe(now))
                });
                let _ = reply.try_send(asked.unwrap_or_default());
            }
            Command::AddSlot(config) => self.lanes.push(Lane::new(Slot(self.lanes.len()), *config, now)),
            Command::Limit(budget) => {
                self.budget = budget;
                self.share_due = true;
            }
            Command::Servers { slot, servers } => {
                if let Some(lane) = self.lanes.get_mut(slot.0) {
                    lane.set_servers(servers);
                }
            }
            Command::State { slot, reply } => {
                if let Some(lane) = self.lanes.get(slot.0) {
                    let _ = reply.try_send(lane.state);
                }
            }
            Command::Snapshot { reply } => {
                let snapshots = self.lanes.iter_mut().map(|lane| {
                    let snapshot = lane.machine.run(|machine| machine.snapshot(now));
                    lane.touched |= lane.has_panicked();
                    Some(SlotSnapshot::new(snapshot?, lane.since))
                });
                // By the order of the slots they are known: with one missing, none is told.
                if let Some(snapshots) = snapshots.collect() {
                    let _ = reply.try_send(snapshots);
                }
            }
            Command::HandOver { reply } => {
                let _ = reply.try_send(self.hand_over(now));
            }
            Command::Adopt { slot, state, stream } => {
                let (now, clock) = both_clocks();
                let outcome = match self.lanes.get_mut(slot.0) {
                    Some(lane) => lane.adopt(&state, stream, clock, now),
                    None => Err(NotAdopted::NoSlot),
                };
                self.emit(Event::Adopted { slot, outcome });
            }
            Command::Shutdown => {
                for lane in &mut self.lanes {
                    lane.machine.run(|machine| machine.close(now));
                    lane.touched = true;
                }
                self.shutdown = Some(now + SHUTDOWN_DEADLINE);
            }
            #[cfg(test)]
            Command::Panic { slot } => {
                if let Some(lane) = self.lanes.get_mut(slot.0) {
                    lane.machine.run(|machine| machine.panics = true);
                }
            }
        }
    }

    /// Ends every session, whose goodbyes go out before anything is given away, then gives away what can be gone on in.
    fn hand_over(&mut self, now: Instant) -> Vec<HandedOver> {
        for index in 0..self.lanes.len() {
            if let Some(lane) = self.lanes.get_mut(index) {
                lane.machine.run(|machine| machine.end_sessions(now));
                lane.touched = true;
            }
            self.service(index, now);
        }
        let (now, clock) = both_clocks();
        let Self { lanes, poller, .. } = self;
        let given = lanes.iter_mut().enumerate().filter_map(|(index, lane)| {
            let (state, stream) = lane.hand_over(poller, clock, now)?;
            Some(HandedOver { slot: Slot(index), state, stream })
        });
        given.collect()
    }

    /// Gives a session its socket and its routes, and then the slot: one that does not fit changes nothing.
    fn join(
        &mut self,
        slot: Slot,
        mut joining: Joining,
        socket: UdpSocketKind,
        now: Instant,
    ) -> Result<(), SessionEnd> {
        let key = joining.key;
        let lane = self.lanes.get_mut(slot.0).ok_or(SessionEnd::NoRoom)?;
        let place = lane.free_place().ok_or(SessionEnd::NoRoom)?;
        let port = match socket {
            UdpSocketKind::Shared if self.routes.insert(joining.peer.local_ufrag(), (slot, key)) => None,
            UdpSocketKind::Shared => return Err(SessionEnd::NoRoom),
            UdpSocketKind::Own => {
                let bound = UdpPort::bind(SocketAddr::new(self.own_ip, 0)).and_then(|port| {
                    epoll::add(&self.poller, &port, Token::Port(slot.0, place).data(), UDP_EVENTS)?;
                    Ok(port)
                });
                let bound =
                    bound.inspect_err(|error| log::warn!("slot {}: no UDP socket for the SFU: {error}", slot.0));
                Some(bound.map_err(|_| SessionEnd::NoRoom)?)
            }
        };
        lane.add_session(key, place, port);
        lane.touched = true;
        lane.machine.run(|machine| {
            if socket == UdpSocketKind::Own {
                joining.peer.begin_checks(now);
            }
            machine.prepare(joining, now);
        });
        self.share_due = true;
        // At once: a further session may be prepared by the next command.
        self.service(slot.0, now);
        let stands =
            self.lanes.get(slot.0).is_some_and(|lane| lane.session_sockets.iter().any(|socket| socket.key == key));
        if stands { Ok(()) } else { Err(SessionEnd::Panicked) }
    }

    /// Tells every guest what it may send, after one has come or gone. Sound alone is too little to be counted.
    fn share_bitrate(&mut self, now: Instant) {
        let sends_video = |lane: &mut Lane| lane.machine.run(|machine| machine.sends_video()).unwrap_or_default();
        let share = self.budget.share(self.lanes.iter_mut().filter_map(|lane| sends_video(lane).then_some(())).count());
        for lane in self.lanes.iter_mut().filter(|lane| !lane.session_sockets.is_empty()) {
            lane.machine.run(|machine| machine.set_max_bitrate(share, now));
            lane.touched = true;
        }
    }

    /// Runs what is due in a slot and carries its outputs out, until nothing is left to do now.
    fn service(&mut self, index: usize, now: Instant) {
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        let due = lane.deadline.is_some_and(|deadline| deadline <= now);
        if !lane.touched && !due {
            return;
        }
        lane.touched = false;
        lane.lingering.take_if(|lingering| lingering.until() <= now);
        for _ in 0..ROUNDS {
            let Some(lane) = self.lanes.get_mut(index) else {
                return;
            };
            lane.machine.run(|machine| machine.handle_timeout(now));
            while let Some(output) = self.poll_output(index) {
                self.carry_out(index, output, now);
            }
            let Some(lane) = self.lanes.get_mut(index) else {
                return;
            };
            lane.flush(now);
            if let Some(socket) = &mut lane.socket
                && let Err(error) = socket.register(&self.poller, index)
            {
                lane.lose_socket(Disconnected::Failed(error.kind()), now);
            }
            if lane.has_panicked() {
                self.renew(index, now);
                return;
            }
            lane.deadline = lane.poll_timeout();
            if lane.deadline.is_none_or(|deadline| deadline > now) {
                return;
            }
        }
    }

    fn poll_output(&mut self, index: usize) -> Option<Output> {
        self.lanes.get_mut(index)?.machine.run(|machine| machine.poll_output()).flatten()
    }

    fn carry_out(&mut self, index: usize, output: Output, now: Instant) {
        let Self { lanes, routes, poller, udp, .. } = self;
        let Some(lane) = lanes.get_mut(index) else {
            return;
        };
        let slot = Slot(index);
        // A session on its own socket has no need of routes.
        let is_shared =
            |lane: &Lane, key| lane.session_sockets.iter().any(|socket| socket.key == key && socket.port.is_none());
        match output {
            Output::Transmit { key, to, datagram } => {
                if let Some(socket) = lane.session_sockets.iter().find(|socket| socket.key == key) {
                    socket.send(udp, &datagram, to);
                }
            }
            Output::AddressValidated { key, address } if is_shared(lane, key) => routes.validate(address, (slot, key)),
            Output::AddressForgotten { key, address } if is_shared(lane, key) => routes.forget(address, (slot, key)),
            Output::AddressValidated { .. } | Output::AddressForgotten { .. } => {}
            Output::Connect => lane.connect(now, |socket| socket.register(poller, index)),
            Output::Disconnect => lane.close_socket(poller, now),
            Output::Event(event) => match event {
                slot::Event::Connected { key } => self.emit(Event::Connected { slot, key }),
                slot::Event::Media { key, kind } => self.emit(Event::Media { slot, key, kind }),
                slot::Event::Quiet { key } => self.emit(Event::Quiet { slot, key }),
                slot::Event::Heard { key } => self.emit(Event::Heard { slot, key }),
                slot::Event::Ended { key, reason } => {
                    lane.session_sockets.retain(|socket| socket.key != key);
                    routes.remove((slot, key));
                    self.share_due = true;
                    self.emit(Event::Ended { slot, key, reason });
                }
                slot::Event::Rtmp(event) => self.emit(Event::Rtmp { slot, event }),
                slot::Event::State(state) => {
                    lane.enter(state);
                    self.emit(Event::State { slot, state });
                }
            },
        }
    }

    /// Makes a slot that panicked anew.
    fn renew(&mut self, index: usize, now: Instant) {
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        let slot = Slot(index);
        let ended = lane.renew(now);
        let was_there = lane.state != State::Absent;
        if was_there {
            lane.enter(State::Absent);
        }
        for key in ended {
            self.routes.remove((slot, key));
            self.emit(Event::Ended { slot, key, reason: SessionEnd::Panicked });
        }
        if was_there {
            self.emit(Event::State { slot, state: State::Absent });
        }
        self.share_due = true;
    }

    fn emit(&self, event: Event) {
        // Packets are told of again a second later; half of the queue is for events that come once.
        if matches!(event, Event::Media { .. }) && self.events.len() > EVENT_QUEUE / 2 {
            return;
        }
        if let Err(error) = self.events.try_send(event) {
            log::warn!("control thread too slow: {:?} dropped", error.into_inner());
        }
    }
}

/// Now, on the clock of this process, and on the one that it has in common with the next: since the boot.
fn both_clocks() -> (Instant, Duration) {
    let boot = clock_gettime(ClockId::Boottime);
    (Instant::now(), Duration::try_from(boot).unwrap_or_default())
}

#[cfg(test)]
mod tests;
