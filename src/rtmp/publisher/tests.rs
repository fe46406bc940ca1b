//! The publisher in virtual time. The server is a recording of nginx-rtmp up to Publish.Start; what is written is read back
//! with the chunk reader.

#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;

use guest_relay_muxer::{Frame, MediaTime, Tag, TagKind};

use super::*;
use crate::rtmp::chunk::ChunkReader;

mod bounds;
mod outages;

const NGINX_SERVER: &[u8] = include_bytes!("../../../tests/it/rtmp/nginx_server.bin");
const FRAME_MS: i64 = 20;
const HANDSHAKE_LEN: usize = 3073;

/// What a test sees of a message: type, timestamp and the first bytes of the payload.
#[derive(Clone, Debug, PartialEq)]
struct Sent {
    type_id: u8,
    timestamp: u32,
    payload: Vec<u8>,
}

struct World {
    publisher: Publisher,
    now: Instant,
    /// The guest's media time.
    media: i64,
    outputs: Vec<Output>,
    /// What the server got on this connection.
    wire: Vec<u8>,
    /// The socket takes everything at once.
    takes: bool,
    /// The server answers pings.
    pongs: bool,
}

impl World {
    fn new(url: &str) -> World {
        let now = Instant::now();
        let publisher = Publisher::new(Target::parse(url).unwrap(), 42, now);
        World { publisher, now, media: 0, outputs: Vec::new(), wire: Vec::new(), takes: true, pongs: false }
    }

    /// Lets the socket take what is there and collects outputs.
    fn turn(&mut self) {
        // bounded: each turn takes from the buffer
        while self.takes && !self.publisher.write_buffer().is_empty() {
            let bytes = self.publisher.write_buffer().to_vec();
            self.wire.extend_from_slice(&bytes);
            self.publisher.handle_written(bytes.len(), self.now);
            let ping = [2, 0, 0, 0, 0, 0, 6, 4, 0, 0, 0, 0, 0, 6];
            if self.pongs && bytes.len() == 18 && bytes.starts_with(&ping) {
                let pong = [&ping[..13], &[7], &bytes[14..]].concat();
                self.publisher.handle_bytes(&pong, self.now);
            }
        }
        while let Some(output) = self.publisher.poll_output() {
            self.outputs.push(output);
        }
    }

    fn take_outputs(&mut self) -> Vec<Output> {
        self.turn();
        std::mem::take(&mut self.outputs)
    }

    /// Advances to `until`, timers included.
    fn wait(&mut self, span: Duration) {
        let until = self.now + span;
        self.turn();
        while let Some(at) = self.publisher.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.publisher.handle_timeout(self.now);
            self.turn();
            let again = self.publisher.poll_timeout();
            assert!(again != Some(at) || at > self.now, "a timer that does not move: {:?}", self.publisher);
        }
        self.now = until;
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.publisher.handle_bytes(bytes, self.now);
        self.turn();
    }

    /// TCP connects; the server leads to Publish.Start.
    fn serve(&mut self) {
        self.turn();
        assert_eq!(self.outputs.pop(), Some(Output::Connect));
        self.wire.clear();
        self.publisher.handle_connected(self.now);
        self.turn();
        self.hear(&connected());
        assert_eq!(self.publisher.state(), State::Publishing);
    }

    fn push(&mut self, kind: TagKind, frame: Frame, dts_ms: i64, body: &[u8]) {
        let tag = Tag { kind, frame, dts: MediaTime::from_millis(dts_ms), len: body.len() };
        self.publisher.push(tag, body, self.now);
        self.turn();
    }

    fn headers(&mut self) {
        let at = self.media;
        self.push(TagKind::Script, Frame::Metadata, at, b"metadata");
        self.push(TagKind::Video, Frame::VideoSequenceHeader, at, b"avcC");
        self.push(TagKind::Audio, Frame::AudioSequenceHeader, at, b"OpusHead");
    }

    /// `ms` of media in real time, a picture and an Opus packet each 20 ms; each `gop` pictures a keyframe.
    fn play(&mut self, ms: i64, gop: i64) {
        let end = self.media + ms;
        // bounded: each turn adds media
        while self.media < end {
            let at = self.media;
            if (at / FRAME_MS) % gop == 0 {
                self.push(TagKind::Video, Frame::Keyframe, at, format!("key {at}").as_bytes());
            } else {
                self.push(TagKind::Video, Frame::InterFrame, at, format!("inter {at}").as_bytes());
            }
            self.push(TagKind::Audio, Frame::Audio, at, format!("opus {at}").as_bytes());
            self.wait(Duration::from_millis(20));
            self.media += FRAME_MS;
        }
    }

    /// Messages the server got, handshake left out.
    fn sent(&self) -> Vec<Sent> {
        let mut bytes = &self.wire[HANDSHAKE_LEN..];
        let mut reader = ChunkReader::new();
        let mut sent = Vec::new();
        while let Some(message) = reader.read(&mut bytes).unwrap() {
            let (type_id, timestamp) = (message.type_id, message.timestamp);
            let payload = message.payload.to_vec();
            if type_id == 1 {
                let size = u32::from_be_bytes(payload.as_slice().try_into().unwrap());
                reader.set_chunk_size(size).unwrap();
            }
            sent.push(Sent { type_id, timestamp, payload });
        }
        sent
    }

    /// Media and metadata among them, as text.
    fn media_sent(&self) -> Vec<(u32, String)> {
        let media = |sent: &Sent| matches!(sent.type_id, 8 | 9 | 18);
        let text = |sent: Sent| (sent.timestamp, String::from_utf8(sent.payload).unwrap());
        self.sent().into_iter().filter(media).map(text).collect()
    }

    /// A publisher that is live.
    fn live(url: &str) -> World {
        let mut world = World::new(url);
        world.publisher.start(world.now);
        world.headers();
        world.serve();
        world.play(3100, 50);
        assert_eq!(world.publisher.state(), State::Live);
        world.take_outputs();
        world
    }
}

const URL: &str = "rtmp://127.0.0.1/live/g";

fn connected() -> Vec<u8> {
    let end = NGINX_SERVER.windows(8).position(|window| window == [2, 0, 0, 0, 0, 0, 6, 4]).unwrap();
    NGINX_SERVER[..end].to_vec()
}

fn lost(outputs: &[Output]) -> Option<(LostReason, Duration)> {
    outputs.iter().find_map(|output| match output {
        Output::Event(Event::Lost { reason, retry_in }) => Some((reason.clone(), *retry_in)),
        _ => None,
    })
}

/// onStatus with these members, as a chunk of the server's.
fn on_status(members: &[(&str, &str)]) -> Vec<u8> {
    let mut body = b"\x02\x00\x08onStatus\x00\0\0\0\0\0\0\0\0\x05\x03".to_vec();
    for (key, value) in members {
        body.extend([0, u8::try_from(key.len()).unwrap()]);
        body.extend(key.as_bytes());
        body.extend([2, 0, u8::try_from(value.len()).unwrap()]);
        body.extend(value.as_bytes());
    }
    body.extend([0, 0, 9]);
    [&[3, 0, 0, 0, 0, 0, u8::try_from(body.len()).unwrap(), 20, 0, 0, 0, 0], body.as_slice()].concat()
}

#[test]
fn nothing_happens_before_start() {
    let mut world = World::new(URL);
    world.headers();
    world.play(100, 50);
    assert_eq!(world.take_outputs(), []);
    assert_eq!((world.publisher.state(), world.publisher.poll_timeout()), (State::Idle, None));
    world.publisher.start(world.now);
    world.publisher.start(world.now);
    assert_eq!(world.take_outputs(), [Output::Connect]);
}

#[test]
fn a_connection_starts_with_its_headers_and_an_idr_at_zero() {
    let mut world = World::new(URL);
    world.publisher.start(world.now);
    world.headers();
    world.media = 1_000_020; // not a keyframe
    world.serve();
    world.outputs.clear();
    world.play(100, 50); // no keyframe in it
    assert_eq!(world.media_sent(), []);
    world.media = 1_001_000;
    world.push(TagKind::Audio, Frame::Audio, 1_000_990, b"older than the picture");
    world.play(40, 50);
    let expected = [
        (0, "\u{2}\0\r@setDataFramemetadata"),
        (0, "avcC"),
        (0, "OpusHead"),
        (0, "key 1001000"),
        (0, "opus 1001000"),
        (20, "inter 1001020"),
        (20, "opus 1001020"),
    ];
    let sent = world.media_sent();
    let sent: Vec<_> = sent.iter().map(|(at, text)| (*at, text.as_str())).collect();
    assert_eq!(sent, expected);
}

#[test]
fn audio_in_the_gap_before_the_first_picture_is_dropped_once_the_flow_began() {
    let mut world = World::new(URL);
    world.publisher.start(world.now);
    world.headers();
    world.serve();
    world.push(TagKind::Video, Frame::Keyframe, 1000, b"key");
    world.push(TagKind::Audio, Frame::Audio, 990, b"too old");
    world.push(TagKind::Audio, Frame::Audio, 1010, b"opus");
    assert_eq!(world.media_sent().last().unwrap(), &(10, "opus".to_owned()));
    assert!(!world.media_sent().iter().any(|(_, text)| text == "too old"));
}

#[test]
fn a_keyframe_is_asked_for_until_one_comes() {
    let mut world = World::new(URL);
    world.publisher.start(world.now);
    world.headers();
    world.serve();
    world.wait(Duration::from_millis(3500));
    let asked = world.take_outputs().into_iter().filter(|output| *output == Output::KeyframeNeeded);
    assert_eq!(asked.count(), 4);
    world.play(1500, 1000);
    assert!(!world.take_outputs().contains(&Output::KeyframeNeeded));
}

#[test]
fn live_needs_three_seconds_and_media_of_more_than_the_detection_window() {
    let mut world = World::new(URL);
    world.publisher.start(world.now);
    world.headers();
    world.serve();
    world.play(2980, 50);
    assert_eq!(world.publisher.state(), State::Publishing);
    world.play(40, 50);
    assert_eq!(world.publisher.state(), State::Live);
    assert!(world.take_outputs().contains(&Output::Event(Event::Live)));

    let mut idle = World::new(URL);
    idle.publisher.start(idle.now);
    idle.headers();
    idle.serve();
    idle.play(1000, 50);
    idle.wait(Duration::from_secs(60));
    assert_eq!(idle.publisher.state(), State::Publishing, "one second of media proves nothing");
}

#[test]
fn a_close_before_the_proof_is_a_rejection_and_backs_off_further_each_time() {
    let mut world = World::new(URL);
    world.publisher.start(world.now);
    world.headers();
    let mut waits = Vec::new();
    for _ in 0..7 {
        world.serve();
        world.media += 1000 - world.media % 1000;
        world.play(2400, 50);
        world.publisher.handle_disconnected(Disconnected::Closed, world.now);
        let outputs = world.take_outputs();
        let (reason, retry_in) = lost(&outputs).unwrap();
        assert_eq!(reason, LostReason::Closed { reached: Reached::Started, how: Disconnected::Closed });
        assert!(!outputs.contains(&Output::Disconnect), "the socket is gone already");
        assert_eq!(world.publisher.state(), State::Backoff);
        world.wait(retry_in - Duration::from_millis(1));
        assert_eq!(world.publisher.state(), State::Backoff);
        world.wait(Duration::from_millis(1));
        waits.push(retry_in);
    }
    assert!(waits[..5].is_sorted() && waits[0] < Duration::from_millis(626));
    assert!(waits[5..].iter().all(|wait| (6..=8).contains(&wait.as_secs())), "{waits:?}");
}

#[test]
fn a_live_connection_that_is_lost_returns_at_the_first_step() {
    let mut world = World::live(URL);
    world.publisher.handle_disconnected(Disconnected::Failed(ErrorKind::ConnectionReset), world.now);
    let (reason, retry_in) = lost(&world.take_outputs()).unwrap();
    let how = Disconnected::Failed(ErrorKind::ConnectionReset);
    assert_eq!(reason, LostReason::Closed { reached: Reached::Live, how });
    assert!(retry_in <= Duration::from_millis(625));
    world.wait(retry_in);
    world.serve();
    world.media = 10_000;
    world.play(20, 50);
    let sent = world.media_sent();
    assert_eq!(sent[1..3], [(0, "avcC".to_owned()), (0, "OpusHead".to_owned())], "headers again");
    assert_eq!(sent[3], (0, "key 10000".to_owned()), "time starts near 0 again");
}

#[test]
fn a_server_that_is_away_is_asked_at_least_every_two_seconds() {
    let mut world = World::new(URL);
    world.publisher.start(world.now);
    let start = world.now;
    let mut attempts = 0;
    while world.now < start + Duration::from_secs(60) {
        assert_eq!(world.take_outputs(), [Output::Connect]);
        attempts += 1;
        let refused = Disconnected::Failed(ErrorKind::ConnectionRefused);
        world.publisher.handle_disconnected(refused, world.now);
        let (reason, retry_in) = lost(&world.take_outputs()).unwrap();
        assert_eq!(reason, LostReason::Unreachable(ErrorKind::ConnectionRefused));
        assert!(retry_in <= Duration::from_secs(2));
        world.wait(retry_in);
    }
    assert!((30..=45).contains(&attempts), "{attempts}");
}

#[test]
fn each_deadline_ends_the_attempt() {
    let mut world = World::new(URL);
    world.publisher.start(world.now);
    world.take_outputs();
    world.wait(CONNECT_DEADLINE);
    let outputs = world.take_outputs();
    assert_eq!(outputs[0], Output::Disconnect);
    assert_eq!(lost(&outputs).unwrap().0, LostReason::ConnectTimeout);

    let mut world = World::new(URL);
    world.publisher.start(world.now);
    world.take_outputs();
    world.publisher.handle_connected(world.now);
    world.hear(&NGINX_SERVER[..HANDSHAKE_LEN]); // then silence
    world.wait(PUBLISH_DEADLINE);
    assert_eq!(lost(&world.take_outputs()).unwrap().0, LostReason::PublishTimeout);
}

#[test]
fn a_server_that_stops_reading_is_given_eight_seconds_and_the_queue_stays_bounded() {
    let mut world = World::live(URL);
    world.takes = false;
    let stalled = world.now;
    while world.publisher.state() == State::Live {
        world.play(20, 50);
        assert!(world.now < stalled + Duration::from_secs(20), "it stays live");
        assert!(world.publisher.queued_media() <= Duration::from_millis(u64::from(QUEUE_MEDIA_MS_MAX)));
    }
    let noticed = world.now - stalled;
    assert!((8000..=8040).contains(&noticed.as_millis()), "{noticed:?}");
    assert_eq!(lost(&world.take_outputs()).unwrap().0, LostReason::WriteStalled);
    assert_eq!(world.publisher.queued_bytes(), 0);
}

#[test]
fn a_server_whose_kernel_takes_bytes_but_that_answers_nothing_is_given_eight_to_ten_seconds() {
    let mut world = World::new(URL);
    world.pongs = true;
    world.publisher.start(world.now);
    world.headers();
    world.serve();
    world.play(8000, 50);
    assert_eq!(world.publisher.state(), State::Live);
    assert_eq!(world.publisher.stats().pings_answered, world.publisher.stats().pings_sent);
    world.pongs = false;
    let stopped = world.now;
    while world.publisher.state() == State::Live {
        world.play(20, 50);
        assert!(world.now < stopped + Duration::from_secs(20), "it stays live");
    }
    assert!((8000..=10_040).contains(&(world.now - stopped).as_millis()), "{:?}", world.now - stopped);
    assert_eq!(lost(&world.take_outputs()).unwrap().0, LostReason::Silent);
}

#[test]
fn a_server_that_never_answered_a_ping_is_not_left_for_it() {
    let mut world = World::live(URL);
    world.play(60_000, 50);
    assert_eq!(world.publisher.state(), State::Live);
}
