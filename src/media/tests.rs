//! The media thread's loop by itself: what a wake-up leaves, what does not fit, what fails, what panics.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::net::UdpSocket;
use std::sync::Arc;

use ingest::{Connection, Ingest, Kind, Options};
use loadgen::clip::{Clip, TrackKind};
use loadgen::guest::{Guest, GuestConfig};
use loadgen::h264;
use loadgen::patience::{Deadline, wait_for};
use rustix::io::Errno;

use super::*;
use crate::guest::SessionKey;
use crate::panics;
use crate::rtc::dtls::Certificate;
use crate::rtc::peer::{self, Answered, Peer, PeerConfig};
use crate::rtc::sdp::{OpusSettings, RemoteAddresses};
use crate::rtc::srtp::SrtpProfile;
use crate::rtmp::Target;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const BUDGET: Budget = Budget { guest_kbps: 2500, total_kbps: None };
/// Where no RTMP server is: the discard port.
const NO_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

fn relay(server: SocketAddr, name: &str) -> RelayConfig {
    RelayConfig {
        target: Target::parse(&format!("rtmp://{server}/{name}")).unwrap(),
        servers: vec![server],
        muxer: guest_relay_muxer::Config::default(),
        hold: Duration::from_secs(15),
        keyframe_interval: None,
        idle: false,
        still: std::sync::Arc::new(guest_relay_muxer::Still::black()),
        seed: 1,
    }
}

fn media_loop(relays: &[RelayConfig]) -> (MediaLoop, Handle, smol::channel::Receiver<Event>) {
    MediaLoop::new(LOOPBACK, relays.to_vec(), BUDGET).expect("loopback")
}

/// A guest on a socket of its own, its clip, and the daemon's peer for it.
fn guest(daemon: SocketAddr) -> (Guest, UdpSocket, Box<Peer>) {
    let socket = UdpSocket::bind(LOOPBACK).unwrap();
    socket.set_nonblocking(true).unwrap();
    let now = Instant::now();
    let clip: Arc<Clip> = Clip::chromium_360p();
    let (mut guest, offer) = Guest::new(&clip, GuestConfig::default(), socket.local_addr().unwrap(), now);
    let config = PeerConfig {
        candidates: vec![daemon],
        start_bitrate_kbps: 1500,
        max_bitrate_kbps: 2500,
        opus: OpusSettings { max_average_bitrate_bps: 64_000, stereo: false },
        certificate: Certificate::generate(),
        srtp_profiles: SrtpProfile::OFFERED.to_vec(),
        remote_addresses: RemoteAddresses::Any,
    };
    let Answered { peer, sdp } = peer::answer(&offer, &config, now).unwrap();
    guest.handle_answer(&sdp, now).unwrap();
    (guest, socket, Box::new(peer))
}

fn join(slot: usize, key: u64, peer: Box<Peer>, socket: UdpSocketKind) -> (Command, smol::channel::Receiver<()>) {
    let (ready, is_ready) = smol::channel::bounded(1);
    let ready = (socket == UdpSocketKind::Shared).then_some(ready);
    (
        Command::Join {
            slot: Slot(slot),
            key: SessionKey(key),
            guest: SessionKey(key),
            continues: None,
            peer,
            video: true,
            socket,
            ready,
        },
        is_ready,
    )
}

/// The ends among the events so far.
fn ended(events: &smol::channel::Receiver<Event>) -> Vec<(SessionKey, SessionEnd)> {
    let ended = |event| match event {
        Event::Ended { key, reason, .. } => Some((key, reason)),
        _ => None,
    };
    std::iter::from_fn(|| events.try_recv().ok()).filter_map(ended).collect()
}

fn session_keys(media_loop: &mut MediaLoop, slot: usize) -> Vec<SessionKey> {
    media_loop.lanes[slot].machine.run(|machine| machine.session_keys().collect()).unwrap()
}

#[test]
fn datagrams_that_a_wake_up_leaves_are_taken_by_the_next_one_though_none_comes_after_them() {
    let (mut media_loop, handle, _events) = media_loop(&[]);
    let sender = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    for _ in 0..=udp::MOST_PER_WAKE {
        sender.send_to(b"not for anybody", handle.local_addr()).expect("sent");
    }
    let mut ready = Vec::with_capacity(READY_MAX);
    media_loop.turn(&mut ready).expect("a wake-up");
    assert!(media_loop.udp_ready, "some are left");
    // Ends the wait of a loop that has forgotten them.
    handle.send(Command::Limit(BUDGET)).expect("taken");
    media_loop.turn(&mut ready).expect("a wake-up");
    let now = Instant::now();
    let MediaLoop { inbox, udp, udp_ready, .. } = &mut media_loop;
    let left = inbox.receive(udp, Moment::new(now, now), |_| panic!("it was left"));
    assert!(matches!(left, Ok(Taken::All)) && !*udp_ready);
}

#[test]
fn a_recv_error_that_passes_ends_nothing_and_loses_no_datagram() {
    for errno in [Errno::NOMEM, Errno::NOBUFS, Errno::HOSTUNREACH, Errno::IO] {
        let (mut media_loop, handle, events) = media_loop(&[relay(NO_SERVER, "guest1")]);
        let (_, _, peer) = guest(handle.local_addr());
        let (command, _) = join(0, 1, peer, UdpSocketKind::Own);
        handle.send(command).unwrap();
        let mut ready = Vec::with_capacity(READY_MAX);
        media_loop.turn(&mut ready).unwrap();

        UdpSocket::bind(LOOPBACK).unwrap().send_to(b"not for anybody", handle.local_addr()).unwrap();
        media_loop.udp.refuse_next.set(Some(errno));
        let socket = &mut media_loop.lanes[0].session_sockets[0];
        socket.port.as_ref().unwrap().refuse_next.set(Some(errno));
        socket.is_ready = true;
        let deadline = Deadline::new("the datagram to be reported");
        while !media_loop.udp_ready {
            deadline.check(|| "it is not");
            media_loop.wait(&mut ready).unwrap();
        }
        media_loop.turn(&mut ready).unwrap();
        assert!(
            media_loop.udp_ready && media_loop.lanes[0].session_sockets[0].is_ready,
            "{errno}: both are tried again"
        );
        media_loop.turn(&mut ready).unwrap();
        assert!(!media_loop.has_datagrams(), "{errno}: what waited was taken");
        assert_eq!((ended(&events), session_keys(&mut media_loop, 0)), (Vec::new(), vec![SessionKey(1)]), "{errno}");
    }
}

#[test]
fn a_socket_of_no_more_use_ends_the_session_that_is_alone_on_it() {
    let relays = [relay(NO_SERVER, "guest1"), relay(NO_SERVER, "guest2")];
    let (mut media_loop, handle, events) = media_loop(&relays);
    let mut ready = Vec::with_capacity(READY_MAX);
    for slot in [0, 1] {
        let (_, _, peer) = guest(handle.local_addr());
        let (command, _) = join(slot, 1 + slot as u64, peer, UdpSocketKind::Own);
        handle.send(command).unwrap();
        media_loop.turn(&mut ready).unwrap();
    }
    let socket = &mut media_loop.lanes[0].session_sockets[0];
    socket.port.as_ref().unwrap().refuse_next.set(Some(Errno::BADF));
    socket.is_ready = true;
    media_loop.turn(&mut ready).expect("the loop goes on");
    let [(SessionKey(1), SessionEnd::Socket(_))] = ended(&events)[..] else { panic!("one session is over") };
    assert_eq!(session_keys(&mut media_loop, 0), []);
    assert_eq!(session_keys(&mut media_loop, 1), [SessionKey(2)]);
}

#[test]
fn a_session_that_does_not_fit_leaves_the_slot_to_the_one_that_has_it() {
    let (mut media_loop, handle, events) = media_loop(&[relay(NO_SERVER, "guest1")]);
    let mut ready = Vec::with_capacity(READY_MAX);
    let mut try_join = |media_loop: &mut MediaLoop, key, transport| {
        let (_, _, peer) = guest(handle.local_addr());
        let (command, is_ready) = join(0, key, peer, transport);
        handle.send(command).unwrap();
        media_loop.turn(&mut ready).unwrap();
        is_ready.try_recv().is_ok()
    };
    assert!(try_join(&mut media_loop, 1, UdpSocketKind::Shared), "the first one fits");
    let others = (0..).take_while(|n| media_loop.routes.insert(&format!("ufrag{n}"), (Slot(9), SessionKey(99))));
    assert!(others.count() > 0);
    assert!(!try_join(&mut media_loop, 2, UdpSocketKind::Shared), "there is no route");
    // An address of nobody (RFC 5737).
    media_loop.own_ip = IpAddr::from([192, 0, 2, 1]);
    assert!(!try_join(&mut media_loop, 3, UdpSocketKind::Own), "there is no socket");
    let refused = [2, 3].map(|key| (SessionKey(key), SessionEnd::NoRoom));
    assert_eq!((ended(&events), session_keys(&mut media_loop, 0)), (refused.to_vec(), vec![SessionKey(1)]));
    media_loop.routes.remove((Slot(9), SessionKey(99)));
    assert!(try_join(&mut media_loop, 4, UdpSocketKind::Shared), "there is room again");
    assert_eq!(ended(&events), [(SessionKey(1), SessionEnd::Replaced)]);
}

#[test]
fn a_session_that_nobody_waits_for_any_more_takes_no_slot() {
    let (mut media_loop, handle, events) = media_loop(&[relay(NO_SERVER, "guest1")]);
    let mut ready = Vec::with_capacity(READY_MAX);
    let [(first, is_ready), (late, nobody)] =
        [1, 2].map(|key| join(0, key, guest(handle.local_addr()).2, UdpSocketKind::Shared));
    handle.send(first).unwrap();
    media_loop.turn(&mut ready).unwrap();
    assert!(is_ready.try_recv().is_ok());
    drop(nobody);
    handle.send(late).unwrap();
    media_loop.turn(&mut ready).unwrap();
    assert_eq!((ended(&events), session_keys(&mut media_loop, 0)), (Vec::new(), vec![SessionKey(1)]));
}

/// Guests on real sockets, in front of a media thread.
struct Stage {
    ingest: Ingest,
    handle: Handle,
    events: smol::channel::Receiver<Event>,
    guests: Vec<(Guest, UdpSocket)>,
    sent: Vec<Vec<u64>>,
}

impl Stage {
    fn join(&mut self, slot: usize, key: u64) -> usize {
        let (guest, socket, peer) = guest(self.handle.local_addr());
        let (command, is_ready) = join(slot, key, peer, UdpSocketKind::Shared);
        self.handle.send(command).unwrap();
        wait_for("the session to be taken", || is_ready.try_recv().is_ok(), || "it is not");
        self.guests.push((guest, socket));
        self.sent.push(Vec::new());
        self.guests.len() - 1
    }

    /// Moves the guests' datagrams until `reached`.
    fn play_until(&mut self, what: &str, mut reached: impl FnMut(&mut Stage) -> bool) {
        let deadline = Deadline::new(what);
        while !reached(self) {
            deadline.check(|| "not reached");
            let mut bytes = [0; 2048];
            for ((guest, socket), sent) in self.guests.iter_mut().zip(&mut self.sent) {
                let now = Instant::now();
                // bounded: the socket does not block, and the daemon sends less than this loop takes
                while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                    guest.handle_datagram(&bytes[..length], from, now);
                }
                guest.handle_timeout(now);
                while let Some(transmit) = guest.poll_transmit() {
                    socket.send_to(&transmit.datagram, transmit.to).unwrap();
                }
                let units = guest.take_sent();
                sent.extend(units.iter().filter(|unit| unit.kind == TrackKind::Video).map(|unit| unit.digest));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Pictures of this path, by connection.
    fn arrived(&self, path: &str) -> Vec<Vec<u64>> {
        let of_path = |connection: &&Connection| connection.path.as_deref() == Some(path);
        let digests = |connection: &Connection| {
            assert_eq!(connection.violations, Vec::<String>::new());
            let pictures = connection.frames.iter().filter(|frame| frame.kind == Kind::Video);
            pictures.map(|frame| h264::digest(h264::avc_units(&frame.body[5..]).unwrap())).collect()
        };
        self.ingest.inspect(|all| all.iter().filter(of_path).map(digests).collect())
    }
}

#[test]
fn a_panic_in_one_slot_ends_its_session_and_publication_and_no_frame_of_another() {
    panics::keep_places();
    let options = Options { keep_frames: true, keep_bodies: true, ..Options::default() };
    let ingest = Ingest::bind(LOOPBACK, options).unwrap();
    let relays = ["guest1", "guest2"].map(|name| relay(ingest.addr(), name)).to_vec();
    let (handle, events, thread) = spawn(LOOPBACK, relays, BUDGET).unwrap();
    let mut stage = Stage { ingest, handle, events, guests: Vec::new(), sent: Vec::new() };
    stage.join(0, 1);
    let other = stage.join(1, 2);
    let pictures = |stage: &Stage, path| stage.arrived(path).last().map_or(0, Vec::len);
    stage.play_until("pictures of both", |stage| ["guest1", "guest2"].iter().all(|path| pictures(stage, path) > 30));

    stage.handle.send(Command::Panic { slot: Slot(0) }).unwrap();
    let mut over = HashSet::new();
    stage.play_until("the end of the first slot's session", |stage| {
        over.extend(ended(&stage.events).into_iter().map(|(key, reason)| (key, reason.to_string())));
        !over.is_empty()
    });
    assert_eq!(over, HashSet::from([(SessionKey(1), SessionEnd::Panicked.to_string())]));
    stage.play_until("the end of its publication", |stage| {
        stage.ingest.inspect(|all| all.iter().any(|one| one.path.as_deref() == Some("guest1") && one.end.is_some()))
    });

    stage.join(0, 3);
    stage.play_until("pictures of the slot's next guest", |stage| {
        stage.arrived("guest1").len() == 2 && pictures(stage, "guest1") > 30
    });
    let [arrived] = &stage.arrived("guest2")[..] else { panic!("the other publication is as it was") };
    let sent = &stage.sent[other];
    assert!(arrived.len() > 60, "{} pictures", arrived.len());
    let is_whole = sent.windows(arrived.len()).any(|run| run == &arrived[..]);
    assert!(is_whole, "the {} pictures that arrived are not a run of the {} that were sent", arrived.len(), sent.len());
    stage.handle.send(Command::Shutdown).unwrap();
    thread.join().unwrap();
}
