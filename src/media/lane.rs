//! Everything of one slot on the media thread: the slot itself, its sessions' sockets, its TCP connection, and when it is due.
//!
//! Whatever runs code of the slot goes through [`Guarded`]: a panic in it ends what this slot has, and nothing else.
//!
//! Bounds: [`SESSIONS`] sessions and one connection a slot; [`LOCAL_ADDRESSES`] addresses a session.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::epoll::EventFlags;

use crate::guest::{SessionKey, Slot, State};
use crate::panics;
use crate::rtc::demux::{Class, classify};
use crate::rtmp::Disconnected;
use crate::slot::{RelayConfig, RtmpInput, SessionEnd, SlotMachine};

use super::interface::NotAdopted;
use super::tcp::{Lingering, RtmpSocket};
use super::token::Place;
use super::udp::{Datagram, Inbox, Moment, Taken, UdpPort};

/// Sessions a slot may have: a live one, a prepared one, and one that is saying goodbye.
pub(super) const SESSIONS: usize = 3;
/// Local addresses remembered per session, one per remote address.
const LOCAL_ADDRESSES: usize = 8;

/// How a session's datagrams travel.
pub(super) struct SessionSocket {
    pub(super) key: SessionKey,
    pub(super) place: Place,
    /// Its own socket; without one it uses the shared one.
    pub(super) port: Option<UdpPort>,
    /// `port` has datagrams, as far as is known.
    pub(super) is_ready: bool,
    /// Where each remote address reached us: the address that we answer from.
    local_addresses: Vec<(SocketAddr, IpAddr)>,
}

impl SessionSocket {
    fn record_local_address(&mut self, remote: SocketAddr, local: Option<IpAddr>) {
        let Some(local) = local else { return };
        match self.local_addresses.iter_mut().find(|(known, _)| *known == remote) {
            Some(entry) => entry.1 = local,
            None => {
                if self.local_addresses.len() == LOCAL_ADDRESSES {
                    self.local_addresses.remove(0);
                }
                self.local_addresses.push((remote, local));
            }
        }
    }

    pub(super) fn send(&self, shared: &UdpPort, datagram: &[u8], to: SocketAddr) {
        let from = self.local_addresses.iter().find(|(known, _)| *known == to).map(|(_, local)| *local);
        self.port.as_ref().unwrap_or(shared).send(datagram, to, from);
    }
}

/// A slot whose panics stay with it.
pub(super) struct Guarded {
    slot: Slot,
    machine: SlotMachine,
    /// It panicked: nothing of it is used any more.
    panicked: bool,
}

impl Guarded {
    /// Runs code of the slot; `None` once it has panicked.
    pub(super) fn run<T>(&mut self, turn: impl FnOnce(&mut SlotMachine) -> T) -> Option<T> {
        if self.panicked {
            return None;
        }
        let machine = &mut self.machine;
        // Whatever state a panic leaves behind is thrown away whole by `Lane::renew`.
        let outcome = catch_unwind(AssertUnwindSafe(|| turn(machine)));
        if outcome.is_err() {
            self.panicked = true;
            let place = panics::take_place().unwrap_or_else(|| "an unknown place".to_owned());
            log::error!(
                "slot {}: this program failed at {place}: the slot's guest is off the air and its publication ends; the slot \
                 takes guests again; please report this line and those before it",
                self.slot.0
            );
        }
        outcome.ok()
    }
}

/// Everything of one slot.
pub(super) struct Lane {
    pub(super) machine: Guarded,
    /// The slot's configuration, should it have to be made anew.
    config: RelayConfig,
    pub(super) session_sockets: Vec<SessionSocket>,
    pub(super) socket: Option<RtmpSocket>,
    /// The connection before, until the server has read its end.
    pub(super) lingering: Option<Lingering>,
    next_server: usize,
    /// When something is due; recomputed after each touch, so that an idle slot costs nothing.
    pub(super) deadline: Option<Instant>,
    /// Touched in this wake-up: outputs wait to be drained.
    pub(super) touched: bool,
    /// The socket's readiness at the last wait.
    pub(super) socket_ready: EventFlags,
    /// The state last reported, and when it began.
    pub(super) state: State,
    pub(super) since: SystemTime,
}

impl Lane {
    pub(super) fn new(slot: Slot, config: RelayConfig, now: Instant) -> Self {
        Self {
            machine: Guarded { slot, machine: SlotMachine::new(slot, config.clone(), now), panicked: false },
            config,
            session_sockets: Vec::new(),
            socket: None,
            lingering: None,
            next_server: 0,
            // A slot that is published without a guest begins at once.
            deadline: Some(now),
            touched: false,
            socket_ready: EventFlags::empty(),
            state: State::Absent,
            since: SystemTime::now(),
        }
    }

    pub(super) fn enter(&mut self, state: State) {
        (self.state, self.since) = (state, SystemTime::now());
    }

    pub(super) fn has_panicked(&self) -> bool {
        self.machine.panicked
    }

    /// Makes the slot anew after a panic: without sessions, without a connection, which the server takes for the end of the
    /// publication. Returns the sessions that are over by it.
    pub(super) fn renew(&mut self, now: Instant) -> Vec<SessionKey> {
        let fresh = SlotMachine::new(self.machine.slot, self.config.clone(), now);
        let broken = std::mem::replace(&mut self.machine.machine, fresh);
        // Its parts may be in no state to be dropped.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
        self.machine.panicked = false;
        self.socket = None;
        self.deadline = self.poll_timeout();
        self.touched = false;
        self.session_sockets.drain(..).map(|socket| socket.key).collect()
    }

    /// A place that no session has; `None`: there are [`SESSIONS`].
    pub(super) fn free_place(&self) -> Option<Place> {
        let mut places = (0..).take(SESSIONS);
        places.find(|place| self.session_sockets.iter().all(|socket| socket.place != *place))
    }

    /// A session's datagrams travel over `port`, or over the shared socket.
    pub(super) fn add_session(&mut self, key: SessionKey, place: Place, port: Option<UdpPort>) {
        self.session_sockets.push(SessionSocket { key, place, port, is_ready: false, local_addresses: Vec::new() });
    }

    /// A datagram of one of the slot's sessions came over the shared socket.
    pub(super) fn handle_datagram(&mut self, key: SessionKey, class: Class, datagram: Datagram<'_>) {
        let Datagram { bytes, from, to, arrived } = datagram;
        if let Some(socket) = self.session_sockets.iter_mut().find(|socket| socket.key == key) {
            socket.record_local_address(from, to);
        }
        self.machine.run(|machine| machine.handle_datagram(key, class, bytes, from, arrived));
        self.touched = true;
    }

    /// Takes what waits at the sessions' own sockets. One that failed for now is tried again; the session of one that is of no
    /// more use ends. Returns the failures of a moment.
    pub(super) fn receive(&mut self, inbox: &mut Inbox, moment: Moment, now: Instant) -> Option<io::Error> {
        let Self { session_sockets, machine, touched, .. } = self;
        let mut refused = None;
        for socket in session_sockets.iter_mut().filter(|socket| socket.is_ready) {
            let SessionSocket { key, port: Some(port), is_ready, .. } = socket else { continue };
            *touched = true;
            let taken = inbox.receive(port, moment, |Datagram { bytes, from, arrived, .. }| {
                machine.run(|machine| machine.handle_datagram(*key, classify(bytes), bytes, from, arrived));
            });
            *is_ready = match taken {
                Ok(Taken::All) => false,
                Ok(Taken::Share) => true,
                Ok(Taken::Refused(error)) => {
                    refused = Some(error);
                    true
                }
                Err(error) => {
                    machine.run(|machine| machine.leave(*key, SessionEnd::Socket(error.kind()), now));
                    false
                }
            };
        }
        refused
    }

    /// Acts on what the poller said of the RTMP connection.
    pub(super) fn handle_socket(&mut self, now: Instant) {
        let ready = std::mem::replace(&mut self.socket_ready, EventFlags::empty());
        let Some(socket) = self.socket.as_mut().filter(|_| !ready.is_empty()) else {
            return;
        };
        self.touched = true;
        if let Some(Err(how)) = self.machine.run(|machine| socket.handle_ready(machine, ready, now)) {
            self.lose_socket(how, now);
        }
    }

    /// Writes the slot's bytes to the RTMP connection.
    pub(super) fn flush(&mut self, now: Instant) {
        let Some(socket) = &mut self.socket else { return };
        if let Some(Err(how)) = self.machine.run(|machine| socket.flush(machine, now)) {
            self.lose_socket(how, now);
        }
    }

    /// Where the RTMP server is, for the connections to come.
    pub(super) fn set_servers(&mut self, servers: Vec<SocketAddr>) {
        self.config.servers = servers;
    }

    /// Whether the slot is published without a guest too.
    pub(super) fn set_idle(&mut self, idle: bool, now: Instant) {
        self.config.idle = idle;
        self.machine.run(|machine| machine.set_idle(idle, now));
        self.touched = true;
    }

    /// Begins a connection; `register` has it watched.
    pub(super) fn connect(&mut self, now: Instant, register: impl FnOnce(&mut RtmpSocket) -> io::Result<()>) {
        let servers = &self.config.servers;
        let server = servers.get(self.next_server % servers.len().max(1)).copied();
        self.next_server = self.next_server.wrapping_add(1);
        let outcome = match server {
            Some(server) => RtmpSocket::connect(server)
                .and_then(|mut socket| register(&mut socket).map(|()| socket))
                .map_err(|error| error.kind()),
            None => Err(io::ErrorKind::AddrNotAvailable),
        };
        match outcome {
            Ok(socket) => self.socket = Some(socket),
            Err(kind) => self.lose_socket(Disconnected::Failed(kind), now),
        }
    }

    /// Gives the publication away, with its connection, for another process to go on in it. None when there is none that can be.
    pub(super) fn hand_over(
        &mut self,
        poller: &OwnedFd,
        clock: Duration,
        now: Instant,
    ) -> Option<(Vec<u8>, TcpStream)> {
        self.socket.as_ref()?;
        let state = self.machine.run(|machine| machine.hand_over(clock, now)).flatten()?;
        let stream = self.socket.take()?.give_away(poller)?;
        Some((state, stream))
    }

    /// Goes on in the publication of another process. An error changes nothing, and closes the connection.
    pub(super) fn adopt(
        &mut self,
        state: &[u8],
        stream: TcpStream,
        clock: Duration,
        now: Instant,
    ) -> Result<(), NotAdopted> {
        let peer = stream.peer_addr().map_err(|error| NotAdopted::Socket(error.kind()))?;
        // A server that is known by name alone is looked up later: its port has to do, with the target's name in the state.
        let servers = &self.config.servers;
        let is_server = servers.contains(&peer) || (servers.is_empty() && peer.port() == self.config.target.port());
        if !is_server {
            return Err(NotAdopted::OtherServer(peer));
        }
        let socket = RtmpSocket::adopt(stream).map_err(|error| NotAdopted::Socket(error.kind()))?;
        match self.machine.run(|machine| machine.adopt(state, clock, now)) {
            Some(adopted) => adopted.map_err(NotAdopted::State)?,
            None => return Err(NotAdopted::Panicked),
        }
        self.socket = Some(socket);
        self.touched = true;
        Ok(())
    }

    pub(super) fn is_disconnected(&self) -> bool {
        self.socket.is_none() && self.lingering.is_none()
    }

    pub(super) fn close_socket(&mut self, poller: &OwnedFd, now: Instant) {
        self.lingering = self.socket.take().map(|socket| socket.close(poller, now));
    }

    pub(super) fn lose_socket(&mut self, how: Disconnected, now: Instant) {
        self.socket = None;
        self.machine.run(|machine| machine.handle_rtmp(RtmpInput::Disconnected(how), now));
    }

    /// When the lane is due: on the slot's account, or to close the connection before.
    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        let slot = self.machine.run(|machine| machine.poll_timeout()).flatten();
        slot.into_iter().chain(self.lingering.as_ref().map(Lingering::until)).min()
    }
}
