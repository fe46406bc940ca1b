//! Each rule of the ingest, with bytes written by hand: RTMP 1.0 messages, FLV and enhanced RTMP bodies.
//!
//! The numbers in the table names follow the order of the checks: chunks, messages, commands, media, detection.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use ingest::{Connection, Ingest, Kind, Options, SecondPublisher, Stage};

const SOON: Duration = Duration::from_secs(60);

// ---- bytes by hand ------------------------------------------------------------------------------------------------

/// One fmt 0 chunk: csid, timestamp, length, type, message stream id 1.
fn message(csid: u8, type_id: u8, timestamp: u32, body: &[u8]) -> Vec<u8> {
    let mut out = vec![csid];
    out.extend(&timestamp.to_be_bytes()[1..]);
    out.extend(&(body.len() as u32).to_be_bytes()[1..]);
    out.push(type_id);
    out.extend([1, 0, 0, 0]);
    out.extend(body);
    out
}

fn text(text: &str) -> Vec<u8> {
    [&[2, 0, text.len() as u8], text.as_bytes()].concat()
}

fn number(value: f64) -> Vec<u8> {
    [&[0], value.to_be_bytes().as_slice()].concat()
}

fn member(key: &str, value: &str) -> Vec<u8> {
    [&[0, key.len() as u8], key.as_bytes(), &text(value)].concat()
}

fn connect(members: &[Vec<u8>]) -> Vec<u8> {
    let body = [text("connect"), number(1.0), vec![3], members.concat(), vec![0, 0, 9]].concat();
    message(3, 20, 0, &body)
}

fn publish(name: &str) -> Vec<u8> {
    message(4, 20, 0, &[text("publish"), number(5.0), vec![5], text(name), text("live")].concat())
}

/// Set Chunk Size 65536, connect to `app`, createStream, publish with an empty name.
fn opening(app: &str) -> Vec<u8> {
    let tc_url = format!("rtmp://127.0.0.1:1935/{app}");
    [
        message(2, 1, 0, &[0, 1, 0, 0]),
        connect(&[member("app", app), member("tcUrl", &tc_url)]),
        message(3, 20, 0, &[text("createStream"), number(4.0), vec![5]].concat()),
        publish(""),
    ]
    .concat()
}

/// x264's 320x240 Constrained Baseline parameter sets in a legacy AVC sequence header.
const AVC_CONFIG: [u8; 45] = [
    0x17, 0, 0, 0, 0, 1, 0x42, 0xc0, 0x0d, 0xff, 0xe1, 0, 24, 0x67, 0x42, 0xc0, 0x0d, 0xd9, 1, 0x41, 0xfb, 1, 0x10, 0,
    0, 3, 0, 0x10, 0, 0, 3, 3, 0x20, 0xf1, 0x42, 0xa4, 0x80, 1, 0, 5, 0x68, 0xcb, 0x83, 0xcb, 0x20,
];
const IDR: [u8; 11] = [0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 0x88];
const INTER: [u8; 11] = [0x27, 1, 0, 0, 0, 0, 0, 0, 2, 0x41, 0x9a];
/// OpusHead for stereo: version 1, 2 channels, pre-skip 312, 48000 Hz (RFC 7845 §5.1).
const OPUS_START: [u8; 24] = *b"\x90OpusOpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0";
/// 20 ms of silence.
const OPUS_FRAME: [u8; 8] = *b"\x91Opus\xf8\xff\xfe";

fn video(timestamp: u32, body: &[u8]) -> Vec<u8> {
    message(6, 9, timestamp, body)
}

fn audio(timestamp: u32, body: &[u8]) -> Vec<u8> {
    message(4, 8, timestamp, body)
}

/// Both configurations at 0, then video and audio every 20 ms in `range`.
fn start_of_media() -> Vec<u8> {
    [video(0, &AVC_CONFIG), audio(0, &OPUS_START), video(0, &IDR), audio(0, &OPUS_FRAME)].concat()
}

fn media(range: std::ops::RangeInclusive<u32>) -> Vec<u8> {
    range.step_by(20).flat_map(|at| [video(at, &INTER), audio(at, &OPUS_FRAME)].concat()).collect()
}

/// Publisher by hand: the plain handshake with C2 = S1, then whatever the test writes.
struct Client {
    stream: TcpStream,
}

impl Client {
    fn new(ingest: &Ingest) -> Client {
        let mut stream = TcpStream::connect(ingest.addr()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(&[&[3], [0; 1536].as_slice()].concat()).unwrap();
        let mut reply = [0; 1 + 2 * 1536];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(reply[0], 3);
        stream.write_all(&reply[1..1537]).unwrap();
        Client { stream }
    }

    /// The ingest may have closed already: that is what the tests are about.
    fn write(&mut self, bytes: &[u8]) {
        let _closed = self.stream.write_all(bytes);
    }

    fn leave(mut self) {
        let _closed = self.stream.shutdown(Shutdown::Write);
        let _rest = self.stream.read_to_end(&mut Vec::new());
    }

    fn read_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let _reset = self.stream.read_to_end(&mut all);
        all
    }
}

fn ingest(options: Options) -> Ingest {
    Ingest::bind("127.0.0.1:0", options).unwrap()
}

/// Writes `bytes` after the handshake, leaves, and returns what the ingest has to say.
fn run(options: Options, bytes: &[u8]) -> Connection {
    let ingest = ingest(options);
    let mut client = Client::new(&ingest);
    client.write(bytes);
    client.leave();
    assert!(ingest.wait_until(SOON, |all| all[0].stage == Stage::Ended), "the connection ends");
    ingest.connections().remove(0)
}

#[track_caller]
fn assert_refused(bytes: &[u8], why: &str) {
    let seen = run(Options::default(), bytes);
    let end = seen.end.unwrap();
    assert!(seen.refused && end.contains(why), "ended with {end:?}, expected {why:?}");
}

#[track_caller]
fn assert_violation(bytes: &[u8], text: &str) {
    let seen = run(Options::default(), bytes);
    assert!(!seen.refused, "refused: {:?}", seen.end);
    assert!(seen.violations.iter().any(|violation| violation.contains(text)), "{:?} lacks {text:?}", seen.violations);
}

/// A publisher that got as far as publish, then sends `bytes`.
fn published(bytes: &[u8]) -> Vec<u8> {
    [opening("guest1"), bytes.to_vec()].concat()
}

// ---- what is right ------------------------------------------------------------------------------------------------

#[test]
fn a_correct_publisher_becomes_ready_when_the_media_clock_passes_two_seconds() {
    let unpublish = message(3, 20, 0, &[text("deleteStream"), number(0.0), vec![5], number(1.0)].concat());
    let seen = run(Options::default(), &published(&[start_of_media(), media(20..=2000), unpublish].concat()));
    assert_eq!(seen.violations, Vec::<String>::new());
    assert_eq!(seen.path.as_deref(), Some("guest1"));
    assert_eq!(seen.commands, ["connect", "createStream", "publish", "deleteStream"]);
    assert!(seen.unpublished && !seen.refused);
    let video = seen.video.clone().unwrap();
    assert_eq!((video.width, video.height, video.frames, video.keyframes), (320, 240, 101, 1));
    let audio = seen.audio.clone().unwrap();
    assert_eq!((audio.channels, audio.frames, audio.gaps), (2, 101, 0));
    assert_eq!(seen.timestamps(Kind::Video), (0..=2000).step_by(20).collect::<Vec<_>>());
}

#[test]
fn a_path_is_not_ready_before_two_seconds_of_media() {
    let ingest = ingest(Options::default());
    let mut client = Client::new(&ingest);
    client.write(&published(&[start_of_media(), media(20..=1980)].concat()));
    assert!(ingest.wait_until(SOON, |all| all[0].frame_count() == 200));
    assert_eq!(ingest.path("guest1").unwrap().stage, Stage::Detecting);
    client.write(&media(2000..=2000));
    assert!(ingest.wait_until(SOON, |all| all[0].stage == Stage::Ready));
}

#[test]
fn the_replies_are_those_of_mediamtx() {
    let ingest = ingest(Options::default());
    let mut client = Client::new(&ingest);
    client.write(&opening("guest1"));
    client.write(&message(2, 4, 0, &[0, 6, 1, 2, 3, 4]));
    client.stream.shutdown(Shutdown::Write).unwrap();
    let replies = client.read_all();
    let window = [2, 0, 0, 0, 0, 0, 4, 5, 0, 0, 0, 0, 0x00, 0x26, 0x25, 0xa0];
    assert_eq!(&replies[..16], window, "Window Acknowledgement Size 2500000");
    let bandwidth = [2, 0, 0, 0, 0, 0, 5, 6, 0, 0, 0, 0, 0x00, 0x26, 0x25, 0xa0, 2];
    assert_eq!(&replies[16..33], bandwidth, "Set Peer Bandwidth 2500000, dynamic");
    assert_eq!(&replies[33..49], [2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 1, 0, 0], "Set Chunk Size 65536");
    let holds = |bytes: &[u8]| replies.windows(bytes.len()).any(|window| window == bytes);
    assert!(holds(&[text("_result"), number(1.0)].concat()) && holds(b"NetConnection.Connect.Success"));
    assert!(holds(&[text("_result"), number(4.0), vec![5], number(1.0)].concat()), "createStream: stream 1");
    assert!(holds(&[text("onStatus"), number(5.0)].concat()), "Publish.Start carries publish's transaction");
    assert!(holds(&[2, 0, 0, 0, 0, 0, 6, 4, 0, 0, 0, 0, 0, 7, 1, 2, 3, 4]), "Ping Response");
}

#[test]
fn acknowledgements_come_only_once_the_publisher_announced_a_window() {
    let ack = |replies: &[u8]| replies.windows(8).any(|window| window == [2, 0, 0, 0, 0, 0, 4, 3]);
    for (window, expected) in [(None, false), (Some(4096_u32), true)] {
        let ingest = ingest(Options::default());
        let mut client = Client::new(&ingest);
        let announce = window.map(|size| message(2, 5, 0, &size.to_be_bytes())).unwrap_or_default();
        client.write(&published(&[announce, start_of_media(), media(20..=2000)].concat()));
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(ack(&client.read_all()), expected, "window {window:?}");
    }
}

#[test]
fn the_path_is_tc_url_and_stream_name_joined() {
    let with = |app: &str, tc_url: &str, name: &str| {
        let commands = [connect(&[member("app", app), member("tcUrl", tc_url)]), publish(name)].concat();
        run(Options::default(), &commands).path
    };
    let path = |text: &str| Some(text.to_owned());
    assert_eq!(with("guest_1", "rtmp://h:1935/guest_1", ""), path("guest_1"));
    assert_eq!(with("", "rtmp://h:1935", "guest_1"), path("guest_1"));
    assert_eq!(with("", "rtmp://h:1935/", "guest_1"), path("guest_1"));
    assert_eq!(with("live", "rtmp://h/live", "guest_1"), path("live/guest_1"));
    assert_eq!(with("guest_1", "rtmp://h/guest_1?user=u&pass=p", ""), path("guest_1"));
    assert_eq!(with("live", "rtmp://h/live", "guest_1?user=u&pass=p"), path("live/guest_1"));
    assert_eq!(with("live", "rtmp://h/live?user=u&pass=p", "guest_1"), path("live"));
}

// ---- chunks -------------------------------------------------------------------------------------------------------

#[test]
fn chunk_stream_ids_above_63_are_refused() {
    assert_refused(&published(&[0x00, 0x10]), "extended chunk stream IDs are not supported (yet)");
    assert_refused(&published(&[0x01, 0x10, 0x00]), "extended chunk stream IDs are not supported (yet)");
}

#[test]
fn a_continuation_without_a_first_chunk_is_refused() {
    assert_refused(&published(&[0x40 | 7, 0, 0, 0, 0, 0, 1, 9]), "received type 1 chunk without previous chunk");
    assert_refused(&published(&[0x80 | 7, 0, 0, 0]), "received type 2 chunk without previous chunk");
    assert_refused(&published(&[0xc0 | 7]), "received type 3 chunk without previous chunk");
}

#[test]
fn a_new_header_inside_a_message_is_refused() {
    let half = [&message(6, 9, 0, &[0; 200])[..12], &[0; 128]].concat(); // 128 of 200 bytes at chunk size 128
    let small_chunks = message(2, 1, 0, &[0, 0, 0, 128]);
    for (format, header) in [(0, vec![6; 12]), (1, vec![0x46; 8]), (2, vec![0x86; 4])] {
        let bytes = published(&[small_chunks.clone(), half.clone(), header].concat());
        assert_refused(&bytes, &format!("received type {format} chunk but expected type 3 chunk"));
    }
}

#[test]
fn a_type_3_chunk_without_the_extended_timestamp_shows_as_garbage() {
    let frame = [&[0x27, 1, 0, 0, 0, 0, 0, 0, 191, 0x41][..], &[0xff; 190]].concat();
    let header = [6, 0xff, 0xff, 0xff, 0, 0, 200, 9, 1, 0, 0, 0, 0x01, 0, 0, 0];
    let with = [&header[..], &frame[..128], &[0xc6, 0x01, 0, 0, 0], &frame[128..]].concat();
    let without = [&header[..], &frame[..128], &[0xc6], &frame[128..], &[0; 300]].concat();
    let small_chunks = message(2, 1, 0, &[0, 0, 0, 128]);
    let right = run(Options::default(), &published(&[small_chunks.clone(), start_of_media(), with].concat()));
    assert!(!right.refused, "{:?}", right.end);
    assert_eq!(right.timestamps(Kind::Video), [0, 0x0100_0000]);
    let wrong = run(Options::default(), &published(&[small_chunks, start_of_media(), without].concat()));
    assert!(wrong.refused || !wrong.violations.is_empty());
}

#[test]
fn chunk_sizes_and_bodies_above_10_mib_are_refused() {
    assert_refused(&published(&message(2, 1, 0, &0x00a0_0001_u32.to_be_bytes())), "exceeds maximum");
    assert_refused(&published(&[6, 0, 0, 0, 0xa0, 0x00, 0x01, 9, 1, 0, 0, 0]), "exceeds maximum");
}

// ---- messages and commands ----------------------------------------------------------------------------------------

#[test]
fn message_types_of_amf3_shared_objects_and_aggregates_are_refused() {
    for type_id in [0, 7, 15, 16, 17, 19, 21, 22] {
        assert_refused(&published(&message(3, type_id, 0, &[0])), &format!("invalid message type: {type_id}"));
    }
}

#[test]
fn unknown_user_control_types_are_refused() {
    assert_refused(&published(&message(2, 4, 0, &[0, 5, 0, 0, 0, 0])), "invalid user control type: 5");
    assert_refused(&published(&message(2, 4, 0, &[0])), "not enough bytes");
}

#[test]
fn connect_comes_first_with_app_and_tc_url() {
    let app = member("app", "guest1");
    let tc_url = member("tcUrl", "rtmp://h/guest1");
    assert_refused(&publish("guest1"), "invalid connect command");
    assert_refused(&connect(std::slice::from_ref(&app)), "invalid connect command");
    assert_refused(&connect(std::slice::from_ref(&tc_url)), "invalid connect command");
    let seen = run(Options::default(), &connect(&[app, tc_url]));
    assert!(!seen.refused);
}

#[test]
fn publish_names_its_stream_with_a_string() {
    let opening = connect(&[member("app", "a"), member("tcUrl", "rtmp://h/a")]);
    for arguments in [vec![], vec![5], [vec![5], number(1.0)].concat()] {
        let publish = message(4, 20, 0, &[text("publish"), number(5.0), arguments].concat());
        assert_refused(&[opening.clone(), publish].concat(), "invalid publish command arguments");
    }
}

#[test]
fn path_names_outside_the_allowed_set_are_refused_without_a_reply() {
    for name in ["a b", "a/", "a/../b", "./a", "gäst", ""] {
        let ingest = ingest(Options::default());
        let mut client = Client::new(&ingest);
        client.write(&[connect(&[member("app", ""), member("tcUrl", "rtmp://h")]), publish(name)].concat());
        let replies = client.read_all();
        assert!(!replies.windows(8).any(|window| window == b"onStatus"), "{name:?}");
        assert!(ingest.connections()[0].end.as_ref().unwrap().contains("invalid path name"), "{name:?}");
    }
}

// ---- media --------------------------------------------------------------------------------------------------------

#[test]
fn empty_and_short_media_messages_are_refused() {
    assert_refused(&published(&audio(0, &[])), "not enough bytes");
    assert_refused(&published(&video(0, &[])), "not enough bytes");
    assert_refused(&published(&video(0, &[0x17, 0, 0, 0])), "invalid body size");
    assert_refused(&published(&video(0, &[0x17, 1, 0, 0, 0])), "invalid body size");
}

#[test]
fn opus_messages_hold_a_packet_or_a_whole_id_header() {
    assert_refused(&published(&audio(0, b"\x91Opus")), "not enough bytes");
    assert_refused(&published(&audio(0, &OPUS_START[..23])), "invalid Opus ID header");
    assert_refused(
        &published(&audio(0, b"\x90OpusOpusHeat\x01\x02\x38\x01\x80\xbb\0\0\0\0\0")),
        "invalid Opus ID header",
    );
    assert_refused(
        &published(&audio(0, b"\x90OpusOpusHead\x02\x02\x38\x01\x80\xbb\0\0\0\0\0")),
        "invalid Opus ID header",
    );
}

#[test]
fn mod_ex_and_unknown_audio_are_refused() {
    assert_refused(&published(&audio(0, b"\x97\x02\0\0\0\x01Opus\xf8")), "unsupported audio extended type: 7");
    assert_refused(&published(&audio(0, b"\x93Opus\xf8")), "unsupported audio extended type: 3");
    assert_refused(&published(&audio(0, b"\x91Speex")), "unsupported fourCC: Spee");
    assert_refused(&published(&audio(0, &[0xd0, 0, 0])), "unsupported audio codec: 13");
}

#[test]
fn an_opus_frame_before_the_sequence_start_is_refused() {
    let bytes = [video(0, &AVC_CONFIG), audio(0, &OPUS_FRAME)].concat();
    assert_refused(&published(&bytes), "sequence start not received");
}

#[test]
fn a_second_opus_sequence_start_is_refused_inside_the_window_and_a_violation_after_it() {
    let again = audio(40, &OPUS_START);
    let inside = [start_of_media(), media(20..=40), again.clone()].concat();
    assert_refused(&published(&inside), "audio track 0 already setupped");
    let after = [start_of_media(), media(20..=2000), again].concat();
    assert_violation(&published(&after), "a second Opus SequenceStart");
}

#[test]
fn a_track_that_starts_after_the_window_is_refused() {
    let only_video = [video(0, &AVC_CONFIG), video(0, &IDR), video(2000, &INTER)].concat();
    let late_audio = [only_video.clone(), audio(2020, &OPUS_START), audio(2020, &OPUS_FRAME)].concat();
    assert_refused(&published(&late_audio), "received a packet for audio track 0, but track is not set up");
    let only_audio = [audio(0, &OPUS_START), audio(0, &OPUS_FRAME), audio(2000, &OPUS_FRAME)].concat();
    let late_video = [only_audio, video(2020, &AVC_CONFIG)].concat();
    assert_refused(&published(&late_video), "received a packet for video track 0, but track is not set up");
}

#[test]
fn a_sequence_start_alone_is_no_audio_track() {
    let start_only = [video(0, &AVC_CONFIG), audio(0, &OPUS_START), video(0, &IDR), video(2000, &INTER)].concat();
    let bytes = [start_only, audio(2020, &OPUS_FRAME)].concat();
    assert_refused(&published(&bytes), "received a packet for audio track 0, but track is not set up");
}

#[test]
fn other_video_codecs_and_configurations_without_parameter_sets_are_refused() {
    assert_refused(&published(&video(0, &[0x12, 0, 0, 0, 0, 0])), "unsupported video codec: 2");
    assert_refused(&published(&video(0, &[0x17, 0, 0, 0, 0, 1, 66, 0, 13, 0xff, 0xe0, 0])), "no SPS found");
    let mut no_pps = AVC_CONFIG[..38].to_vec();
    no_pps[37] = 0;
    assert_refused(&published(&video(0, &no_pps)), "no PPS found");
    assert_refused(&published(&video(0, &AVC_CONFIG[..20])), "unable to parse H264 config");
}

#[test]
fn access_units_with_too_many_or_broken_nal_units_are_refused() {
    let many = [&[0x17, 1, 0, 0, 0][..], &[0, 0, 0, 1, 0x65].repeat(51)].concat();
    assert_refused(&published(&[video(0, &AVC_CONFIG), video(0, &many)].concat()), "exceeds maximum");
    let cut = [0x17, 1, 0, 0, 0, 0, 0, 0, 9, 0x65];
    assert_refused(&published(&[video(0, &AVC_CONFIG), video(0, &cut)].concat()), "unable to decode AVCC");
    let size = 8 * 1024 * 1024 + 1_u32;
    let huge = [&[0x17, 1, 0, 0, 0][..], &size.to_be_bytes(), &vec![0x65; size as usize]].concat();
    let chunks = message(2, 1, 0, &0x0090_0000_u32.to_be_bytes());
    assert_refused(&published(&[chunks, video(0, &AVC_CONFIG), video(0, &huge)].concat()), "exceeds maximum");
}

// ---- detection and deadlines --------------------------------------------------------------------------------------

#[test]
fn an_idle_publisher_runs_into_the_detection_deadline_and_a_ready_one_into_the_idle_deadline() {
    let short = || Options { detection_deadline: Duration::from_millis(150), ..Options::default() };
    let ingest_one = ingest(short());
    let mut client = Client::new(&ingest_one);
    client.write(&opening("guest1"));
    assert!(ingest_one.wait_until(SOON, |all| all[0].end.as_deref() == Some("timeout")));

    let options = Options { idle_deadline: Duration::from_millis(150), ..Options::default() };
    let ingest_two = ingest(options);
    let mut client = Client::new(&ingest_two);
    client.write(&published(&[start_of_media(), media(20..=2000)].concat()));
    assert!(ingest_two.wait_until(SOON, |all| all[0].end.as_deref() == Some("timeout")));
}

#[test]
fn pings_do_not_extend_the_detection_deadline() {
    let ingest = ingest(Options { detection_deadline: Duration::from_millis(200), ..Options::default() });
    let mut client = Client::new(&ingest);
    client.write(&opening("guest1"));
    let ended = |all: &[Connection]| all[0].stage == Stage::Ended;
    let deadline = Instant::now() + SOON;
    while !ingest.wait_until(Duration::from_millis(20), ended) {
        assert!(Instant::now() < deadline, "pings keep the path from timing out");
        client.write(&message(2, 4, 0, &[0, 6, 0, 0, 0, 0]));
    }
    assert_eq!(ingest.connections()[0].end.as_deref(), Some("timeout"));
}

#[test]
fn detection_ends_after_5000_messages_without_a_forward_clock() {
    let mut bytes = start_of_media();
    bytes.extend(video(0, &INTER).repeat(5000));
    assert_refused(&published(&bytes), "not over after 5000 messages");
}

// ---- our own rules ------------------------------------------------------------------------------------------------

#[test]
fn timestamps_that_stand_or_go_back_are_violations() {
    assert_violation(&published(&[start_of_media(), video(0, &INTER)].concat()), "Video timestamp 0 ms after 0 ms");
    let back = [start_of_media(), media(20..=40), audio(30, &OPUS_FRAME)].concat();
    assert_violation(&published(&back), "Audio timestamp 30 ms after 40 ms");
}

#[test]
fn a_start_away_from_zero_or_without_an_idr_is_a_violation() {
    let late = [video(0, &AVC_CONFIG), video(101, &IDR)].concat();
    assert_violation(&published(&late), "Video starts at 101 ms");
    let inter = [video(0, &AVC_CONFIG), video(0, &INTER)].concat();
    assert_violation(&published(&inter), "video starts without an IDR");
    let mislabelled = [0x27, 1, 0, 0, 0, 0, 0, 0, 1, 0x65];
    let bytes = [start_of_media(), video(20, &mislabelled)].concat();
    assert_violation(&published(&bytes), "the tag says key=false, the access unit idr=true");
}

#[test]
fn audio_off_its_sample_clock_is_a_violation_and_a_pause_is_a_gap() {
    let early = [start_of_media(), audio(15, &OPUS_FRAME)].concat();
    assert_violation(&published(&early), "audio is off its sample clock: 15 ms after a packet of 20 ms");
    let seen = run(Options::default(), &published(&[start_of_media(), audio(60, &OPUS_FRAME)].concat()));
    assert_eq!((seen.violations.len(), seen.audio.unwrap().gaps), (0, 1));
}

/// What comes of frames that arrive so many ms after the start, as `(arrival, audio, timestamp)`.
fn late_clocks(frames: impl IntoIterator<Item = (u64, bool, u32)>) -> Vec<String> {
    let options = Options { clock_tolerance: Duration::from_millis(60), ..Options::default() };
    let ingest = Ingest::without_sockets(options);
    let mut pipe = ingest.open();
    let start = Instant::now();
    pipe.handle_bytes(&[&[3], [0; 2 * 1536].as_slice()].concat(), start);
    pipe.handle_bytes(&published(&[video(0, &AVC_CONFIG), audio(0, &OPUS_START)].concat()), start);
    for (at, is_audio, timestamp) in frames {
        let frame = match (is_audio, timestamp) {
            (true, _) => audio(timestamp, &OPUS_FRAME),
            (false, 0) => video(0, &IDR),
            (false, _) => video(timestamp, &INTER),
        };
        pipe.handle_bytes(&frame, start + Duration::from_millis(at));
    }
    pipe.report().late_clocks
}

/// 20 s of both tracks; sound arrives `delay(its timestamp)` ms after its time, pictures at theirs.
fn with_sound_delayed(delay: impl Fn(u64) -> u64) -> Vec<String> {
    let frames = (0..1000u32).flat_map(|n| [(n * 20, false), (n * 20, true)]);
    let mut frames: Vec<_> = frames
        .map(|(at, is_audio)| (u64::from(at) + if is_audio { delay(at.into()) } else { 0 }, is_audio, at))
        .collect();
    frames.sort_by_key(|(at, ..)| *at);
    late_clocks(frames)
}

#[test]
fn a_track_that_teaches_a_late_clock_is_told() {
    // Silence stands in 200 ms late, until a microphone begins after 8 s.
    let told = with_sound_delayed(|at| if at < 8000 { 200 } else { 0 });
    let [apart, late] = &told[..] else { panic!("{told:?}") };
    assert_eq!(apart, "sound is mapped to wall time 200 ms later than the picture, at 2000 ms");
    assert!(late.starts_with("Audio taught a late clock: it was mapped to wall time 2") && late.contains("up to 80"));
    let told = with_sound_delayed(|at| if at < 8000 { 55 } else { 0 });
    assert_eq!(told, [""; 0], "within the tolerance");
}

#[test]
fn delays_that_come_and_go_teach_no_late_clock() {
    for (name, delay) in [
        ("jitter", (|at| at * 7919 % 150) as fn(u64) -> u64),
        ("the first seconds, in which a clock is found", |at| if at < 1600 { 300 } else { 0 }),
        ("a hold-up", |at| if (8000..9000).contains(&at) { 9000 - at } else { 0 }),
        ("drift, of 0.5 %", |at| (20_000 - at) / 200),
    ] {
        let told = with_sound_delayed(delay);
        let drift_apart = told.iter().filter(|text| !text.starts_with("sound is mapped")).count();
        assert_eq!(drift_apart, 0, "{name}: {told:?}");
    }
}

#[test]
fn media_after_delete_stream_is_a_violation() {
    let delete = message(3, 20, 0, &[text("deleteStream"), number(0.0), vec![5], number(1.0)].concat());
    assert_violation(&published(&[start_of_media(), delete, media(20..=20)].concat()), "media after deleteStream");
}

#[test]
fn leaving_inside_a_message_is_a_violation() {
    let cut = &video(20, &INTER)[..15];
    assert_violation(&published(&[&start_of_media(), cut].concat()), "left in the middle of a message");
}

// ---- modes --------------------------------------------------------------------------------------------------------

fn two_publishers(mode: SecondPublisher) -> (Connection, Connection) {
    let ingest = ingest(Options { second_publisher: mode, ..Options::default() });
    let ready = |index: usize| move |all: &[Connection]| all[index].stage >= Stage::Ready;
    let bytes = published(&[start_of_media(), media(20..=2000)].concat());
    let mut first = Client::new(&ingest);
    first.write(&bytes);
    assert!(ingest.wait_until(SOON, ready(0)));
    let mut second = Client::new(&ingest);
    second.write(&bytes);
    assert!(ingest.wait_until(SOON, |all| { all.iter().any(|seen| seen.stage == Stage::Ended) }));
    assert!(ingest.wait_until(SOON, ready(1)));
    let mut seen = ingest.connections();
    (seen.remove(0), seen.remove(0))
}

#[test]
fn a_second_publisher_overrides_or_is_refused_when_its_tracks_are_known() {
    let (first, second) = two_publishers(SecondPublisher::Override);
    assert!(first.end.unwrap().starts_with("terminated"));
    assert_eq!(second.stage, Stage::Ready);
    let (first, second) = two_publishers(SecondPublisher::Refuse);
    assert_eq!(first.stage, Stage::Ready);
    assert!(second.end.unwrap().contains("someone is already publishing"));
}

#[test]
fn wrong_credentials_get_an_unauthorized_status_and_a_close() {
    let options = Options {
        required_query: Some("user=u&pass=p".into()),
        unauthorized_delay: Duration::from_millis(10),
        ..Options::default()
    };
    let with = |query: &str| {
        let ingest = ingest(options.clone());
        let mut client = Client::new(&ingest);
        let tc_url = format!("rtmp://h/guest1{query}");
        client.write(&[connect(&[member("app", "guest1"), member("tcUrl", &tc_url)]), publish("")].concat());
        client.stream.shutdown(Shutdown::Write).unwrap();
        let replies = client.read_all();
        let holds = |code: &[u8]| replies.windows(code.len()).any(|window| window == code);
        (holds(b"NetStream.Publish.Unauthorized"), holds(b"NetStream.Publish.Start"))
    };
    assert_eq!(with("?user=u&pass=p"), (false, true));
    assert_eq!(with("?user=u&pass=x"), (true, false));
    assert_eq!(with(""), (true, false));
}

#[test]
fn listening_stops_and_starts_again_on_the_same_port() {
    let ingest = ingest(Options::default());
    ingest.stop_listening();
    assert!(TcpStream::connect(ingest.addr()).is_err());
    ingest.start_listening().unwrap();
    let _client = Client::new(&ingest);
    assert!(ingest.wait_until(SOON, |all| !all.is_empty()));
    ingest.kill_connections();
    assert!(ingest.wait_until(SOON, |all| all.last().unwrap().end.as_deref() == Some("killed")));
}

#[test]
fn a_recording_holds_the_bodies_and_timestamps_as_sent() {
    let dir = std::env::temp_dir().join(format!("ingest-test-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let options = Options { flv_dir: Some(dir.clone()), ..Options::default() };
    run(options, &published(&start_of_media()));
    let file = std::fs::read(dir.join("guest1.flv")).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(&file[..13], b"FLV\x01\x05\0\0\0\x09\0\0\0\0");
    let first = [&[9, 0, 0, 45, 0, 0, 0, 0, 0, 0, 0][..], &AVC_CONFIG, &[0, 0, 0, 56]].concat();
    assert_eq!(&file[13..13 + first.len()], first);
    let last = [&[8, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0][..], &OPUS_FRAME, &[0, 0, 0, 19]].concat();
    assert_eq!(&file[file.len() - last.len()..], last);
}
