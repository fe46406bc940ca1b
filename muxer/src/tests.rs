//! The muxer as a whole, packets in and tags out. Outputs are read as lines such as `key 40` (frame, dts in ms).

mod audio;
mod hostile;
mod long;
mod stalls;
mod video;

use super::*;

/// 20 ms of mono Opus: the table of contents says CELT, fullband, one frame.
const OPUS: &[u8] = &[0xf8, 1, 2, 3];

fn ms(millis: i64) -> MediaTime {
    MediaTime::from_millis(millis)
}

/// A guest with a camera and a microphone; every packet takes 10 ms.
struct Guest {
    muxer: Muxer,
    video_seq: u16,
    audio_seq: u16,
    video_ssrc: u32,
    audio_ssrc: u32,
    lines: Vec<String>,
    /// Bodies of the tags, in the order of the lines.
    bodies: Vec<Vec<u8>>,
}

impl Guest {
    fn new(config: Config) -> Self {
        Self {
            muxer: Muxer::new(config),
            video_seq: 65_530,
            audio_seq: 100,
            video_ssrc: 0xaaaa,
            audio_ssrc: 0xbbbb,
            lines: Vec::new(),
            bodies: Vec::new(),
        }
    }

    fn with_both() -> Self {
        Self::new(Config::default())
    }

    fn video_only() -> Self {
        Self::new(Config { audio: None, ..Config::default() })
    }

    /// A video-only guest after its first IDR picture at 0 ms.
    fn showing() -> Self {
        let mut guest = Self::video_only();
        guest.video(0, &fixtures::stap_a(&[fixtures::SPS, fixtures::PPS, fixtures::IDR]));
        assert_eq!(guest.lines(), ["metadata 0", "avcC 0", "key 0"]);
        guest
    }

    /// One packet that is a whole access unit, captured and arriving at `at_ms`.
    fn video(&mut self, at_ms: i64, payload: &[u8]) {
        let sequence_number = self.video_seq;
        self.video_seq = self.video_seq.wrapping_add(1);
        self.video_packet(sequence_number, at_ms, at_ms, payload);
    }

    fn video_packet(&mut self, sequence_number: u16, captured_ms: i64, arrival_ms: i64, payload: &[u8]) {
        let packet = RtpPacket {
            payload_type: 96,
            marker: true,
            sequence_number,
            rtp_time: ticks(captured_ms, 90),
            ssrc: self.video_ssrc,
            extension: None,
            payload,
        };
        self.muxer.handle_rtp(TrackKind::Video, &packet, ms(arrival_ms));
        self.drain();
    }

    fn audio(&mut self, at_ms: i64, payload: &[u8]) {
        let sequence_number = self.audio_seq;
        self.audio_seq = self.audio_seq.wrapping_add(1);
        self.audio_packet(sequence_number, at_ms, at_ms, payload);
    }

    fn audio_packet(&mut self, sequence_number: u16, captured_ms: i64, arrival_ms: i64, payload: &[u8]) {
        let packet = RtpPacket {
            payload_type: 111,
            marker: false,
            sequence_number,
            rtp_time: ticks(captured_ms, 48),
            ssrc: self.audio_ssrc,
            extension: None,
            payload,
        };
        self.muxer.handle_rtp(TrackKind::Audio, &packet, ms(arrival_ms));
        self.drain();
    }

    /// The next video packet is lost.
    fn lose_video(&mut self) {
        self.video_seq = self.video_seq.wrapping_add(1);
    }

    fn lose_audio(&mut self) {
        self.audio_seq = self.audio_seq.wrapping_add(1);
    }

    /// Lets every gap run out.
    fn wait(&mut self) {
        while let Some(timeout) = self.muxer.poll_timeout() {
            self.muxer.handle_timeout(timeout);
            self.drain();
        }
    }

    fn drain(&mut self) {
        let mut body = Vec::new();
        while let Some(output) = self.muxer.poll_output(&mut body) {
            match output {
                Output::Tag(tag) => {
                    assert_eq!(tag.len, body.len());
                    assert_eq!(tag.kind, tag.frame.kind());
                    let name = match tag.frame {
                        Frame::Metadata => "metadata",
                        Frame::VideoSequenceHeader => "avcC",
                        Frame::Keyframe => "key",
                        Frame::InterFrame => "inter",
                        Frame::AudioSequenceHeader => "OpusHead",
                        Frame::Audio if body.ends_with(&opus::SILENCE_20_MS) => "silence",
                        Frame::Audio if body.len() == b"\x91Opus".len() + 1 => "no-frame",
                        Frame::Audio => "audio",
                    };
                    self.lines.push(format!("{name} {}", tag.dts.millis()));
                    self.bodies.push(std::mem::take(&mut body));
                }
                Output::Recovered => {
                    self.lines.push("recovered".into());
                    self.bodies.push(Vec::new());
                }
                Output::KeyframeNeeded(reason) => {
                    assert!(body.is_empty());
                    self.lines.push(format!("keyframe needed: {reason:?}"));
                    self.bodies.push(Vec::new());
                }
            }
        }
    }

    fn lines(&mut self) -> Vec<String> {
        self.bodies.clear();
        std::mem::take(&mut self.lines)
    }
}

/// RTP time of a capture time, for a clock of so many ticks a millisecond with an offset of its own.
fn ticks(captured_ms: i64, per_ms: i64) -> u32 {
    let [_, _, _, _, low @ ..] = (captured_ms * per_ms + 0xffff_0000 + per_ms).to_be_bytes();
    u32::from_be_bytes(low)
}

#[test]
fn metadata_and_sequence_headers_come_before_what_they_describe() {
    let mut guest = Guest::with_both();
    guest.audio(0, OPUS);
    guest.video(5, &fixtures::stap_a(&[fixtures::SPS, fixtures::PPS, fixtures::IDR]));
    guest.audio(20, OPUS);
    guest.video(38, fixtures::P);
    assert_eq!(guest.lines(), ["OpusHead 0", "audio 0", "metadata 0", "avcC 5", "key 5", "audio 20", "inter 38"]);
}

#[test]
fn tags_are_the_bytes_of_flv() {
    let mut guest = Guest::with_both();
    guest.video(0, &fixtures::stap_a(&[fixtures::SPS, fixtures::PPS, fixtures::IDR]));
    guest.video(40, fixtures::P);
    guest.audio(40, OPUS);
    let [_, avcc, key, inter, _, audio] = <[Vec<u8>; 6]>::try_from(guest.bodies).expect("six tags");
    assert_eq!(avcc[..8], [0x17, 0, 0, 0, 0, 1, 0x42, 0xc0]);
    assert_eq!(key, [&[0x17, 1, 0, 0, 0], &fixtures::with_lengths(&[fixtures::IDR])[..]].concat());
    assert_eq!(inter, [&[0x27, 1, 0, 0, 0], &fixtures::with_lengths(&[fixtures::P])[..]].concat());
    assert_eq!(audio, [b"\x91Opus", OPUS].concat());
}

#[test]
fn the_timeline_starts_where_the_config_says() {
    let mut guest = Guest::new(Config { start: ms(16_777_000), ..Config::default() });
    guest.audio(7_000_000, OPUS);
    guest.video(7_000_010, &fixtures::stap_a(&[fixtures::SPS, fixtures::PPS, fixtures::IDR]));
    guest.audio(7_000_020, OPUS);
    assert_eq!(
        guest.lines(),
        ["OpusHead 16777000", "audio 16777000", "metadata 0", "avcC 16777010", "key 16777010", "audio 16777020"]
    );
}

#[test]
fn packets_of_a_track_that_is_not_configured_are_ignored() {
    let mut guest = Guest::video_only();
    guest.audio(0, OPUS);
    assert_eq!(guest.lines(), [""; 0]);
    assert_eq!(guest.muxer.stats(), Stats { video: guest.muxer.stats().video, ..Stats::default() });
}

#[test]
fn a_caller_that_does_not_poll_loses_tags_and_not_memory() {
    let mut muxer = Muxer::new(Config::default());
    let packet = |sequence_number: u16, payload| RtpPacket {
        payload_type: 111,
        marker: true,
        sequence_number,
        rtp_time: u32::from(sequence_number) * 960,
        ssrc: 1,
        extension: None,
        payload,
    };
    for n in 0..3000 {
        muxer.handle_rtp(TrackKind::Audio, &packet(n, OPUS), ms(i64::from(n) * 20));
    }
    assert_eq!(muxer.stats().overflow, 3001 - u64::try_from(MAX_QUEUED).expect("small"));
    let idr = fixtures::stap_a(&[fixtures::SPS, fixtures::PPS, fixtures::IDR]);
    muxer.handle_rtp(TrackKind::Video, &packet(0, &idr), ms(60_000));
    assert!(muxer.stats().video.waiting_for_keyframe);
    let mut outputs = 0;
    let mut last = None;
    while let Some(output) = muxer.poll_output(&mut Vec::new()) {
        outputs += 1;
        last = Some(output);
    }
    assert_eq!(outputs, MAX_QUEUED + 1);
    assert_eq!(last, Some(Output::KeyframeNeeded(KeyframeReason::Overflow)));
    muxer.handle_rtp(TrackKind::Video, &packet(1, &idr), ms(60_040));
    assert!(!muxer.stats().video.waiting_for_keyframe);
}

#[test]
fn bodies_beyond_the_bound_are_not_queued() {
    let mut muxer = Muxer::new(Config { audio: None, ..Config::default() });
    let sets = fixtures::stap_a(&[fixtures::SPS, fixtures::PPS]);
    let slice = [fixtures::IDR, &[0x55; 60_000]].concat();
    let mut sequence_number = 0;
    for picture in 0..20 {
        for n in 0..40 {
            let payload = if n == 0 { &sets } else { &slice };
            sequence_number += 1;
            let packet = RtpPacket {
                payload_type: 96,
                marker: n == 39,
                sequence_number,
                rtp_time: picture * 3000,
                ssrc: 1,
                extension: None,
                payload,
            };
            muxer.handle_rtp(TrackKind::Video, &packet, ms(0));
        }
    }
    let mut queued = Vec::new();
    while muxer.poll_output(&mut queued).is_some() {}
    assert!((MAX_QUEUED_BYTES..MAX_QUEUED_BYTES + (4 << 20)).contains(&queued.len()), "{} bytes", queued.len());
}
