//! Everything of one slot on the media thread: its session, its relay, its TCP connection, what is due.
//!
//! Bounds: one session, one relay and one connection a slot; [`LOCAL_ADDRESSES`] addresses a session.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use guest_relay_muxer::TrackKind;
use rustix::event::epoll::EventFlags;

use crate::guest::{SessionKey, Signs, State};
use crate::relay::{Relay, RelayConfig};
use crate::rtc::peer::Peer;
use crate::rtmp::{self, Disconnected};

use super::tcp::{Closing, RtmpSocket};
use super::udp::{Datagram, Inbox, Moment, UdpPort};

/// How often round trip and jitter are looked at: they are smoothed over as long.
const MEASURE_INTERVAL: Duration = Duration::from_millis(500);
/// How often packets that come are announced.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
/// Local addresses remembered per session, one per remote address.
const LOCAL_ADDRESSES: usize = 8;

pub(super) struct Session {
    pub(super) key: SessionKey,
    pub(super) peer: Box<Peer>,
    pub(super) connected: bool,
    /// Its own socket; without one it uses the shared one.
    pub(super) port: Option<UdpPort>,
    /// Where each remote address reached us: what we answer from.
    pub(super) local_addresses: Vec<(SocketAddr, IpAddr)>,
    pub(super) announced: Announced,
}

/// A track's packets are announced once a second, with the first packet of the second.
#[derive(Default)]
pub(super) struct Announced {
    audio: (u64, Option<Instant>),
    video: (u64, Option<Instant>),
}

impl Announced {
    /// Whether to announce the track, of which `packets` have come by now.
    pub(super) fn is_due(&mut self, kind: TrackKind, packets: u64, now: Instant) -> bool {
        let (before, last) = match kind {
            TrackKind::Audio => &mut self.audio,
            TrackKind::Video => &mut self.video,
        };
        let waits = last.is_some_and(|last| now.saturating_duration_since(last) < ANNOUNCE_INTERVAL);
        let is_due = !waits && packets > *before;
        if is_due {
            *last = Some(now);
        }
        // A packet within the second is no news of the next one.
        *before = packets;
        is_due
    }
}

impl Session {
    pub(super) fn note_local_address(&mut self, remote: SocketAddr, local: Option<IpAddr>) {
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

    /// Tracks of which packets are to be announced now: of a session with its own socket alone.
    pub(super) fn announce(&mut self, now: Instant) -> impl Iterator<Item = TrackKind> {
        let Self { announced, peer, port, .. } = self;
        let kinds = port.iter().flat_map(|_| [TrackKind::Audio, TrackKind::Video]);
        kinds.filter(move |kind| announced.is_due(*kind, peer.packets(*kind), now))
    }

    pub(super) fn send(&self, shared: &UdpPort, datagram: &[u8], to: SocketAddr) {
        self.port.as_ref().unwrap_or(shared).send(datagram, to, self.local_address(to));
    }

    pub(super) fn local_address(&self, remote: SocketAddr) -> Option<IpAddr> {
        self.local_addresses.iter().find(|(known, _)| *known == remote).map(|(_, local)| *local)
    }
}

/// Everything of one slot: its session, its relay, its TCP connection.
pub(super) struct Lane {
    pub(super) session: Option<Session>,
    pub(super) relay: Relay,
    pub(super) socket: Option<RtmpSocket>,
    /// The connection before, until the server has read its end.
    pub(super) closing: Option<Closing>,
    pub(super) servers: Vec<SocketAddr>,
    pub(super) next_server: usize,
    /// When something is due; recomputed after each touch, so that an idle slot costs nothing.
    pub(super) deadline: Option<Instant>,
    /// When the relay hears next how packets reach us.
    pub(super) next_measure: Instant,
    /// Touched in this wake-up: outputs wait to be drained.
    pub(super) touched: bool,
    /// What the last wait said of the socket.
    pub(super) socket_ready: EventFlags,
    /// The session's own UDP socket has datagrams, as far as is known.
    pub(super) port_ready: bool,
    /// What was last reported, and when it began.
    pub(super) state: State,
    pub(super) since: SystemTime,
    /// Since when the publication is kept for an absent guest, and for how long it was before.
    holding_since: Option<Instant>,
    held: Duration,
}

impl Lane {
    pub(super) fn new(config: RelayConfig, now: Instant) -> Self {
        let servers = config.servers.clone();
        Self {
            session: None,
            relay: Relay::new(config, now),
            socket: None,
            closing: None,
            servers,
            next_server: 0,
            deadline: None,
            next_measure: now,
            touched: false,
            socket_ready: EventFlags::empty(),
            port_ready: false,
            state: State::Absent,
            since: SystemTime::now(),
            holding_since: None,
            held: Duration::ZERO,
        }
    }

    /// The guest's life went on.
    pub(super) fn enter(&mut self, state: State, now: Instant) {
        self.held = self.held(now);
        self.holding_since = (state == State::Holding).then_some(now);
        (self.state, self.since) = (state, SystemTime::now());
    }

    /// How long the publication was kept for an absent guest, in all.
    pub(super) fn held(&self, now: Instant) -> Duration {
        self.held + self.holding_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Takes what waits at the session's own socket; returns whether more may be waiting.
    pub(super) fn receive(&mut self, inbox: &mut Inbox, moment: Moment) -> io::Result<bool> {
        let Self { session: Some(Session { peer, port: Some(port), .. }), relay, touched, .. } = self else {
            return Ok(false);
        };
        *touched = true;
        inbox.receive(port, moment, |Datagram { bytes, from, arrived, .. }| {
            if let Some(received) = peer.handle_datagram(bytes, from, arrived) {
                for packet in received.packets() {
                    relay.handle_rtp(received.kind, &packet, arrived);
                }
            }
        })
    }

    /// Tells the relay how packets reach us, and the peer how long they are waited for, every now and then.
    pub(super) fn measure(&mut self, now: Instant) {
        let Some(session) = self.session.as_mut().filter(|_| now >= self.next_measure) else {
            return;
        };
        self.next_measure = now + MEASURE_INTERVAL;
        for kind in [TrackKind::Audio, TrackKind::Video] {
            let max_wait = self.relay.set_delivery(kind, session.peer.delivery(kind));
            session.peer.set_max_wait(kind, max_wait);
        }
    }

    pub(super) fn derive_state(&self) -> State {
        State::of(Signs {
            session: self.session.is_some(),
            receiving: self.relay.is_receiving(),
            publication: self.relay.is_published(),
            rtmp_live: self.relay.rtmp_state() == rtmp::State::Live,
        })
    }

    /// Begins a connection; `register` has it watched.
    pub(super) fn connect(&mut self, now: Instant, register: impl FnOnce(&mut RtmpSocket) -> io::Result<()>) {
        let server = self.servers.get(self.next_server % self.servers.len().max(1)).copied();
        self.next_server = self.next_server.wrapping_add(1);
        let outcome = match server {
            Some(server) => RtmpSocket::connect(server)
                .and_then(|mut socket| register(&mut socket).map(|()| socket))
                .map_err(|error| error.kind()),
            None => Err(io::ErrorKind::AddrNotAvailable),
        };
        match outcome {
            Ok(socket) => self.socket = Some(socket),
            Err(kind) => self.relay.publisher().handle_disconnected(Disconnected::Failed(kind), now),
        }
    }

    pub(super) fn is_disconnected(&self) -> bool {
        self.socket.is_none() && self.closing.is_none()
    }

    pub(super) fn close_socket(&mut self, poller: &OwnedFd, now: Instant) {
        self.closing = self.socket.take().map(|socket| socket.close(poller, now));
    }

    pub(super) fn lose_socket(&mut self, how: Disconnected, now: Instant) {
        self.socket = None;
        self.relay.publisher().handle_disconnected(how, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_track_is_announced_by_the_first_packet_of_a_second() {
        let (mut announced, start) = (Announced::default(), Instant::now());
        let mut told = Vec::new();
        // 50 packets of sound a second for 3 s, a picture in the first second, then nothing.
        for step in 0..300_u64 {
            let now = start + Duration::from_millis(20 * step);
            for (kind, packets) in [(TrackKind::Audio, (step + 1).min(150)), (TrackKind::Video, 1)] {
                if announced.is_due(kind, packets, now) {
                    told.push((kind, 20 * step));
                }
            }
        }
        let audio = |at| (TrackKind::Audio, at);
        assert_eq!(told, [audio(0), (TrackKind::Video, 0), audio(1000), audio(2000)]);
    }
}
