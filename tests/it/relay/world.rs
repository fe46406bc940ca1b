//! A guest, a slot and the strict ingest, in virtual time: the slot's bytes go over loopback TCP, and the clock stands
//! still while a reply that the slot counts on is on its way. The guest's packets come as plain RTP.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use guest_relay::guest::{self, SessionKey, Slot};
use guest_relay::rtc::demux::Class;
use guest_relay::rtmp::{Disconnected, Event, State, Target};
use guest_relay::slot::{self, AdoptError, Joining, Output, RelayConfig, RtmpInput, SessionEnd, SlotMachine};
use guest_relay_muxer::{Config, TrackKind};
use ingest::{Connection, Frame, Ingest, Kind, Options, Stage};
use loadgen::patience::PATIENCE;
use netsim::plain::{KEYFRAME_REQUEST, Path, PlainSession, serialise, source};

use super::sender::{Clip, Keyframes, Packet, SLATE, Sender, picture_number};
use crate::rtmp::driver::close;

pub(crate) const HOLD: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(10);
/// Real time that a reply may take.
const REPLY: Duration = Duration::from_secs(5);

pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

pub(crate) struct World {
    config: RelayConfig,
    pub(crate) slot: SlotMachine<PlainSession>,
    /// The newest session.
    key: SessionKey,
    /// The effect of the network on packets, as the session measures it.
    pub(crate) path: Path,
    pub(crate) ingest: Ingest,
    pub(crate) now: Instant,
    began: Instant,
    /// Times at which something was due by the clock.
    pub(crate) wake_ups: u32,
    pub(crate) guest: Option<Sender>,
    /// Packets of the guest's arrive, and requests for keyframes do.
    pub(crate) network: bool,
    /// So many bytes more the kernel takes of what is written, when it does not take all.
    pub(crate) kernel_takes: Option<usize>,
    /// How long packets take; those under way keep their time.
    pub(crate) delay: Duration,
    under_way: VecDeque<(Instant, Packet)>,
    pub(crate) events: Vec<Event>,
    stream: Option<TcpStream>,
    /// The connection before, until the server has read its end.
    closing: Option<TcpStream>,
    sessions: u32,
    /// Pings that no server will answer any more.
    lost_pings: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut RelayConfig)) -> Self {
        let ingest = Ingest::bind("127.0.0.1:0", Options { keep_bodies: true, ..Options::default() }).unwrap();
        let now = Instant::now();
        let mut config = RelayConfig {
            target: Target::parse(&format!("rtmp://{}/guest1", ingest.addr())).unwrap(),
            servers: vec![ingest.addr()],
            muxer: Config::default(),
            hold: HOLD,
            keyframe_interval: None,
            idle: false,
            still: std::sync::Arc::new(guest_relay_muxer::Still::black()),
            seed: 1,
        };
        change(&mut config);
        Self {
            slot: SlotMachine::new(Slot(0), config.clone(), now),
            config,
            key: SessionKey(0),
            path: Path::default(),
            ingest,
            now,
            began: now,
            wake_ups: 0,
            guest: None,
            network: true,
            kernel_takes: None,
            delay: Duration::ZERO,
            under_way: VecDeque::new(),
            events: Vec::new(),
            stream: None,
            closing: None,
            sessions: 0,
            lost_pings: 0,
        }
    }

    /// A guest joins with camera and microphone, or comes back.
    pub(crate) fn join(&mut self, clip: Clip, keyframes: Keyframes) {
        self.join_with(true, clip, keyframes);
    }

    /// A guest joins, or comes back, whose SDP has a video track, or none.
    pub(crate) fn join_with(&mut self, video: bool, clip: Clip, keyframes: Keyframes) {
        self.begin(Some(self.key), video, clip, keyframes);
    }

    /// Somebody joins who has nothing to do with whoever was there before.
    pub(crate) fn join_as_another(&mut self, video: bool, clip: Clip, keyframes: Keyframes) {
        self.begin(None, video, clip, keyframes);
    }

    fn begin(&mut self, continues: Option<SessionKey>, video: bool, clip: Clip, keyframes: Keyframes) {
        self.sessions += 1;
        self.key = SessionKey(self.key.0 + 1);
        let peer = Box::new(PlainSession::new(video, self.path.clone()));
        self.slot
            .prepare(Joining { key: self.key, guest: self.key, continues, peer, video, announces: false }, self.now);
        self.slot.handle_timeout(self.now);
        self.guest = Some(Sender::new(clip, keyframes, self.sessions, self.now));
    }

    /// A guest's session ends.
    pub(crate) fn leave(&mut self) {
        self.guest = None;
        assert!(self.slot.leave(self.key, SessionEnd::Left, self.now), "the guest was there");
        self.slot.handle_timeout(self.now);
    }

    /// The newest guest says goodbye for good.
    pub(crate) fn leave_for_good(&mut self) {
        self.guest = None;
        assert!(self.slot.vacate(self.key, self.now), "the guest was there");
        self.slot.handle_timeout(self.now);
    }

    /// A packet of the newest session's reaches the slot.
    pub(crate) fn deliver(&mut self, packet: &Packet) {
        let from = source(packet.kind);
        self.slot.handle_datagram(self.key, Class::Rtp, &serialise(&packet.rtp()), from, self.now);
    }

    pub(crate) fn rtmp_state(&self) -> State {
        self.slot.snapshot(self.now).relay.rtmp
    }

    pub(crate) fn guest_state(&self) -> guest::State {
        self.slot.snapshot(self.now).state
    }

    /// Milliseconds since the beginning: the media time of a slot that is published from the start.
    pub(crate) fn media_ms(&self) -> u32 {
        u32::try_from((self.now - self.began).as_millis()).unwrap()
    }

    pub(crate) fn is_published(&self) -> bool {
        self.slot.signs().publication
    }

    pub(crate) fn is_receiving(&self) -> bool {
        self.slot.signs().receiving
    }

    /// Counters of the RTMP side.
    pub(crate) fn output(&self) -> guest_relay::rtmp::Stats {
        self.slot.snapshot(self.now).relay.output
    }

    pub(crate) fn guest(&mut self) -> &mut Sender {
        self.guest.as_mut().expect("a guest joined")
    }

    pub(crate) fn switch(&mut self, kind: TrackKind, on: bool) {
        let now = self.now;
        self.guest().switch(kind, on, now);
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, span: Duration) {
        self.pass_with(span, |_| true);
    }

    /// As [`World::pass`], with the packets that `arrives` lets through.
    pub(crate) fn pass_with(&mut self, span: Duration, mut arrives: impl FnMut(&Packet) -> bool) {
        let until = self.now + span;
        while self.now < until {
            self.now += STEP;
            let packets = self.guest.as_mut().map(|guest| guest.poll(self.now)).unwrap_or_default();
            let arrival = self.now + self.delay;
            let kept = packets.into_iter().filter(|packet| self.network && arrives(packet));
            self.under_way.extend(kept.map(|packet| (arrival, packet)));
            while let Some((_, packet)) = self.under_way.pop_front_if(|(at, _)| *at <= self.now) {
                self.deliver(&packet);
            }
            self.turn();
            self.hear_replies();
        }
    }

    /// Waits, in real time, for what the server owes.
    fn hear_replies(&mut self) {
        let deadline = Instant::now() + REPLY;
        while self.stream.is_some() && Instant::now() < deadline {
            let stats = self.output();
            let answered = stats.pings_answered + self.lost_pings >= stats.pings_sent;
            if answered && self.rtmp_state() != State::Handshaking {
                return;
            }
            std::thread::sleep(Duration::from_micros(200));
            self.turn();
        }
    }

    /// A wake-up: what came from the server goes in, what is due is done, and what came of it goes out.
    fn turn(&mut self) {
        let now = self.now;
        self.wake_ups += u32::from(self.slot.poll_timeout().is_some_and(|at| at <= now));
        if let Some(stream) = &mut self.stream
            && let Err(error) = read(&mut self.slot, stream, now)
        {
            self.lose(&error);
        }
        loop {
            if self.slot.poll_timeout().is_some_and(|at| at <= now) {
                self.slot.handle_timeout(now);
            }
            while let Some(output) = self.slot.poll_output() {
                self.carry_out(output);
            }
            if let Some(stream) = &mut self.stream
                && let Err(error) = write(&mut self.slot, stream, &mut self.kernel_takes, now)
            {
                self.lose(&error);
            }
            if self.slot.poll_timeout().is_none_or(|at| at > now) {
                return;
            }
        }
    }

    fn lose(&mut self, error: &io::Error) {
        self.stream = None;
        self.slot.handle_rtmp(RtmpInput::Disconnected(Disconnected::from(error)), self.now);
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Connect => self.connect(),
            Output::Disconnect => self.closing = self.stream.take().map(close),
            Output::Transmit { datagram, .. } if datagram == KEYFRAME_REQUEST => self.request_keyframe(),
            Output::Event(slot::Event::Rtmp(event)) => {
                if matches!(event, Event::Lost { .. }) {
                    let stats = self.output();
                    self.lost_pings = stats.pings_sent - stats.pings_answered;
                }
                self.events.push(event);
            }
            _ => {}
        }
    }

    fn connect(&mut self) {
        match TcpStream::connect(self.ingest.addr()) {
            Ok(stream) => {
                stream.set_nonblocking(true).unwrap();
                stream.set_nodelay(true).unwrap();
                self.stream = Some(stream);
                self.slot.handle_rtmp(RtmpInput::Connected, self.now);
            }
            Err(error) => {
                self.slot.handle_rtmp(RtmpInput::Disconnected(Disconnected::from(&error)), self.now);
            }
        }
    }

    fn request_keyframe(&mut self) {
        if let Some(guest) = self.guest.as_mut().filter(|_| self.network) {
            guest.request_keyframe();
        }
    }

    /// Gives the publication away as a process that ends does; what the next one needs.
    pub(crate) fn hand_over(&mut self) -> Option<Vec<u8>> {
        self.guest = None;
        self.under_way.clear();
        self.slot.end_sessions(self.now);
        self.turn();
        self.slot.hand_over(since_boot(self.now), self.now)
    }

    /// A new process after `away`, with the same connection, that goes on from `state`.
    pub(crate) fn adopt(&mut self, state: &[u8], away: Duration) -> Result<(), AdoptError> {
        self.now += away;
        let mut slot = self.adopted(state)?;
        // As the daemon does: the slot idles once it is known that there is nothing to go on in.
        slot.set_idle(self.config.idle, self.now);
        self.lost_pings = 0;
        // Whoever comes next comes back, unless they come as another.
        self.key = SessionKey::FORMER;
        self.slot = slot;
        self.kernel_takes = None;
        self.turn();
        Ok(())
    }

    /// A new slot that goes on from `state`, beside the one that is here.
    pub(crate) fn adopted(&self, state: &[u8]) -> Result<SlotMachine<PlainSession>, AdoptError> {
        let config = RelayConfig { idle: false, ..self.config.clone() };
        let mut slot = SlotMachine::new(Slot(0), config, self.now);
        slot.adopt(state, since_boot(self.now), self.now)?;
        Ok(slot)
    }

    /// As a planned restart that takes `away`.
    pub(crate) fn restart(&mut self, away: Duration) {
        let state = self.hand_over().expect("the publication can be gone on in");
        self.adopt(&state, away).unwrap();
    }

    /// Ends everything; what the ingest saw of each connection, which broke no rule.
    pub(crate) fn finish(mut self) -> Vec<Connection> {
        self.slot.close(self.now);
        let deadline = Instant::now() + REPLY;
        while self.stream.is_some() && Instant::now() < deadline {
            self.turn();
        }
        let ended = |all: &[Connection]| all.iter().all(|connection| connection.stage == Stage::Ended);
        assert!(self.ingest.wait_until(PATIENCE, ended), "a connection has not ended");
        let connections = self.ingest.connections();
        for connection in &connections {
            assert_eq!(connection.violations, Vec::<String>::new());
            assert!(!connection.refused, "{:?}", connection.end);
            assert_decodable(connection);
        }
        connections
    }

    /// As [`World::finish`], where there was one connection from start to end.
    #[track_caller]
    pub(crate) fn finish_untouched(self) -> Connection {
        let mut connections = self.finish();
        assert_eq!(connections.len(), 1, "the RTMP connection was not left alone");
        connections.remove(0)
    }
}

/// The clock that processes have in common.
fn since_boot(now: Instant) -> Duration {
    static BOOT: LazyLock<Instant> = LazyLock::new(|| Instant::now() - Duration::from_secs(60));
    now.duration_since(*BOOT)
}

fn read(slot: &mut SlotMachine<PlainSession>, stream: &mut TcpStream, now: Instant) -> io::Result<()> {
    let mut bytes = [0; 4096];
    // bounded: the socket does not block, and the server is on loopback
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => slot.handle_rtmp(RtmpInput::Bytes(&bytes[..count]), now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn write(
    slot: &mut SlotMachine<PlainSession>,
    stream: &mut TcpStream,
    takes: &mut Option<usize>,
    now: Instant,
) -> io::Result<()> {
    // bounded: the socket does not block
    while !slot.write_buffer().is_empty() {
        let buffer = slot.write_buffer();
        let room = takes.unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            break;
        }
        match stream.write(&buffer[..room]) {
            Ok(count) => {
                *takes = takes.map(|room| room - count);
                slot.handle_rtmp(RtmpInput::Written(count), now);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(crate) fn pictures(connection: &Connection) -> impl Iterator<Item = &Frame> {
    connection.frames.iter().filter(|frame| frame.kind == Kind::Video)
}

/// Sound of the guest's own.
pub(crate) fn own_sounds(connection: &Connection) -> impl Iterator<Item = &Frame> {
    let silent = |frame: &&Frame| frame.body.ends_with(&[0xff, 0xfe]);
    connection.frames.iter().filter(move |frame| frame.kind == Kind::Audio && !silent(frame))
}

/// Numbers of the pictures: an IDR picture that came before is a repetition.
pub(crate) fn repetitions(connection: &Connection) -> Vec<&Frame> {
    let mut seen = Vec::new();
    pictures(connection)
        .filter(|frame| {
            let number = picture_number(&frame.body);
            let again = number != SLATE && seen.contains(&number);
            seen.push(number);
            again
        })
        .collect()
}

/// Each picture that is no IDR picture follows the one it refers to, directly.
fn assert_decodable(connection: &Connection) {
    let mut last = None;
    for frame in pictures(connection) {
        let number = picture_number(&frame.body);
        assert!(
            frame.key || last == Some(number - 1),
            "picture {number:x} at {} ms follows {last:x?}",
            frame.timestamp
        );
        last = Some(number);
    }
}

/// The longest times between frames of each track, in ms: audio, video.
pub(crate) fn longest_steps(connection: &Connection) -> (u32, u32) {
    let longest = |kind| connection.timestamps(kind).windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    (longest(Kind::Audio), longest(Kind::Video))
}
