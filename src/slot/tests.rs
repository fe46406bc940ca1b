//! A slot and its two sessions. Its media are tests/it/relay's and netsim's.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::rc::Rc;

use guest_relay_muxer::RtpPacket;

use super::*;
use crate::rtc::peer::{Delivery, Received};
use crate::rtmp::Target;

/// A peer that notes what it is told, and ends when it hears "end".
struct Noting {
    name: char,
    notes: Rc<RefCell<Vec<String>>>,
    outputs: VecDeque<peer::Output>,
    packet: Vec<u8>,
}

impl Noting {
    fn note(&self, what: &str) {
        self.notes.borrow_mut().push(format!("{} {what}", self.name));
    }
}

impl SessionPeer for Noting {
    fn handle_datagram(&mut self, class: Class, bytes: &[u8], _: SocketAddr, _: Instant) -> Option<Received<'_>> {
        self.note(&format!("{class:?}"));
        if bytes == b"end" {
            self.outputs.push_back(peer::Output::Event(peer::Event::Ended(EndReason::FellSilent)));
        }
        self.packet = bytes.to_vec();
        RtpPacket::parse(&self.packet).ok().map(|packet| Received::plain(TrackKind::Audio, packet))
    }

    fn handle_batch_end(&mut self, _: Instant) {}

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_output(&mut self) -> Option<peer::Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn has_track(&self, _: TrackKind) -> bool {
        true
    }

    fn delivery(&self, _: TrackKind) -> Delivery {
        Delivery::default()
    }

    fn last_heard(&self) -> Option<Instant> {
        None
    }

    fn stats(&self) -> PeerStats {
        PeerStats::default()
    }

    fn request_keyframe(&mut self, _: Instant) {}

    fn notify_keyframe(&mut self) {}

    fn set_max_bitrate(&mut self, kbps: u32, _: Instant) {
        self.note(&format!("{kbps} kbit/s"));
    }

    fn set_max_wait(&mut self, _: TrackKind, _: Duration) {}

    fn close(&mut self, _: Instant) {
        self.note("closed");
        let to = ([127, 0, 0, 1], 1).into();
        self.outputs.push_back(peer::Output::Transmit { to, datagram: b"bye".to_vec() });
    }
}

struct World {
    slot: SlotMachine<Noting>,
    notes: Rc<RefCell<Vec<String>>>,
    now: Instant,
}

const AUDIO: &[u8] = &[0x80, 111, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0xf8, 0xff, 0xfe];

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let config = RelayConfig {
            target: Target::parse("rtmp://127.0.0.1/guest1").unwrap(),
            servers: Vec::new(),
            muxer: guest_relay_muxer::Config::default(),
            hold: Duration::from_secs(15),
            keyframe_interval: None,
            idle: false,
            still: std::sync::Arc::new(guest_relay_muxer::Still::black()),
            seed: 1,
        };
        Self { slot: SlotMachine::new(Slot(0), config, now), notes: Rc::default(), now }
    }

    fn prepare(&mut self, key: u64, name: char) {
        let notes = Rc::clone(&self.notes);
        let peer = Box::new(Noting { name, notes, outputs: VecDeque::new(), packet: Vec::new() });
        self.slot.prepare(
            Joining {
                key: SessionKey(key),
                guest: SessionKey(key),
                continues: None,
                peer,
                video: true,
                announces: true,
            },
            self.now,
        );
    }

    fn datagram(&mut self, key: u64, bytes: &[u8]) {
        self.slot.handle_datagram(SessionKey(key), Class::Rtp, bytes, ([127, 0, 0, 1], 1).into(), self.now);
    }

    /// Does what is due; the outputs in words.
    fn turn(&mut self) -> Vec<String> {
        assert!(self.slot.poll_timeout().is_some_and(|at| at <= self.now), "an input is due at once");
        self.slot.handle_timeout(self.now);
        let word = |output| match output {
            Output::Transmit { key, .. } => format!("datagram of {key}"),
            Output::Event(Event::Ended { key, reason }) => format!("{key}: {reason}"),
            Output::Event(Event::Media { key, kind }) => format!("{key}: {kind:?}"),
            other => format!("{other:?}"),
        };
        std::iter::from_fn(|| self.slot.poll_output()).map(word).collect()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.borrow_mut().drain(..).collect()
    }
}

#[test]
fn a_newer_session_takes_the_slot_and_the_older_one_says_goodbye_before_its_end() {
    let mut world = World::new();
    world.prepare(1, 'a');
    assert_eq!(world.turn(), ["Connect", "Event(State(Joining))"]);
    world.prepare(2, 'b');
    assert_eq!(world.slot.session_keys().collect::<Vec<_>>(), [2, 1].map(SessionKey), "one prepared, one live");
    assert_eq!(world.turn(), ["datagram of #1", "#1: a newer session took the slot"]);
    assert_eq!(world.slot.session_keys().collect::<Vec<_>>(), [SessionKey(2)]);
    assert!(!world.slot.leave(SessionKey(1), SessionEnd::Left, world.now), "a late goodbye finds nothing");
    assert_eq!(world.notes(), ["a closed"]);
}

#[test]
fn datagrams_go_to_the_session_they_are_for_and_only_the_live_one_s_media_is_relayed() {
    let mut world = World::new();
    world.prepare(1, 'a');
    world.turn();
    world.prepare(2, 'b');
    world.datagram(2, AUDIO);
    assert!(!world.slot.signs().publication, "the slot is not the prepared session's");
    world.datagram(3, AUDIO);
    world.datagram(1, AUDIO);
    assert!(world.slot.signs().publication);
    assert_eq!(world.notes(), ["b Rtp", "a Rtp"]);
    world.slot.set_max_bitrate(900, world.now);
    assert_eq!(world.notes(), ["a 900 kbit/s", "b 900 kbit/s"]);
}

#[test]
fn a_third_session_replaces_the_prepared_one_and_not_the_live_one() {
    let mut world = World::new();
    world.prepare(1, 'a');
    world.turn();
    world.prepare(2, 'b');
    world.prepare(3, 'c');
    assert_eq!(world.notes(), ["b closed"]);
    assert_eq!(world.slot.session_keys().collect::<Vec<_>>(), [3, 1].map(SessionKey));
}

#[test]
fn the_end_of_a_peer_frees_the_slot() {
    let mut world = World::new();
    world.prepare(1, 'a');
    world.turn();
    world.datagram(1, b"end");
    assert_eq!(world.turn(), ["datagram of #1", "#1: the peer fell silent", "Disconnect", "Event(State(Absent))"]);
    assert_eq!(world.slot.poll_timeout(), None, "an empty slot costs nothing");
}

#[test]
fn a_slot_that_closes_ends_both_sessions() {
    let mut world = World::new();
    world.prepare(1, 'a');
    world.turn();
    world.prepare(2, 'b');
    world.slot.close(world.now);
    let ended = world.turn().into_iter().filter(|output| output.starts_with('#')).collect::<Vec<_>>();
    assert_eq!(ended, ["#2: the daemon ends", "#1: the daemon ends"]);
}

#[test]
fn each_track_is_announced_by_the_first_packet_of_a_second() {
    let mut world = World::new();
    world.prepare(1, 'a');
    world.turn();
    let start = world.now;
    let mut told = Vec::new();
    // 50 packets a second for 3 s, then nothing.
    for step in 0..300 {
        world.now = start + Duration::from_millis(20 * step);
        if step < 150 {
            world.datagram(1, AUDIO);
            let media = world.turn().into_iter().filter(|output| output == "#1: Audio");
            told.extend(media.map(|_| 20 * step));
        } else {
            world.slot.handle_timeout(world.now);
        }
    }
    assert_eq!(told, [0, 1000, 2000]);
}
