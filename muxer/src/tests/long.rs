//! Hours and weeks of a guest in virtual time: every number that wraps does, and nothing is seen of it.
//!
//! | wraps | after | crossed by |
//! |---|---|---|
//! | RTP sequence number | 65,536 packets | both |
//! | FLV time, 24 bits of ms | 4.7 h | both |
//! | RTP time at 90 kHz | 13.3 h | the weeks; the hours start just below it |
//! | RTP time at 48 kHz | 24.9 h | the weeks; the hours start just below it |
//! | RTMP time, 32 bits of ms | 49.7 d | the weeks: here times have 64 bits, the publisher reconnects in time |

use super::*;

/// A clock of `rate`, `parts_per_million` fast, whose 32 bits wrap `wraps_after` ticks from its start.
#[derive(Clone, Copy)]
struct SenderClock {
    rate: i64,
    parts_per_million: i64,
    wraps_after: i64,
}

impl SenderClock {
    fn rtp_time(&self, micros: i64) -> u32 {
        let micros = micros + micros / 1000 * self.parts_per_million / 1000;
        let [_, _, _, _, low @ ..] = ((1 << 32) - self.wraps_after + micros * self.rate / 1_000_000).to_be_bytes();
        u32::from_be_bytes(low)
    }
}

const AUDIO: SenderClock = SenderClock { rate: 48_000, parts_per_million: 0, wraps_after: 48_000 * 3600 };
const VIDEO: SenderClock = SenderClock { rate: 90_000, parts_per_million: 0, wraps_after: 90_000 * 5400 };

struct Run {
    muxer: Muxer,
    audio_seq: u16,
    video_seq: u16,
    body: Vec<u8>,
    /// dts in ms of the tag that came out last, by frame.
    out: Vec<(Frame, i64)>,
}

impl Run {
    fn new() -> Self {
        Self {
            muxer: Muxer::new(Config::default()),
            audio_seq: 65_000,
            video_seq: 64_000,
            body: Vec::new(),
            out: Vec::new(),
        }
    }

    fn send(&mut self, kind: TrackKind, rtp_time: u32, payload: &[u8], arrival: i64) {
        let (sequence_number, ssrc) = match kind {
            TrackKind::Audio => (&mut self.audio_seq, 1),
            TrackKind::Video => (&mut self.video_seq, 2),
        };
        *sequence_number = sequence_number.wrapping_add(1);
        let sequence_number = *sequence_number;
        let packet =
            RtpPacket { payload_type: 96, marker: true, sequence_number, rtp_time, ssrc, extension: None, payload };
        self.muxer.handle_rtp(kind, &packet, MediaTime::from_micros(arrival));
        self.out.clear();
        while let Some(output) = self.muxer.poll_output(&mut self.body) {
            self.body.clear();
            match output {
                Output::Tag(tag) => self.out.push((tag.frame, tag.dts.millis())),
                note => panic!("{note:?} at {arrival} us"),
            }
        }
    }

    /// The one media tag that the last packet made.
    fn media(&self) -> i64 {
        let media = |frame| matches!(frame, Frame::Audio | Frame::Keyframe | Frame::InterFrame);
        let mut found = self.out.iter().filter(|(frame, _)| media(*frame)).map(|(_, millis)| *millis);
        let millis = found.next().expect("a tag");
        assert_eq!(found.next(), None);
        millis
    }
}

#[test]
fn five_hours_of_full_rate_cross_the_wraps_of_sequence_numbers_rtp_times_and_24_bits_of_flv_time() {
    let mut run = Run::new();
    let key = fixtures::stap_a(&[fixtures::SPS, fixtures::PPS, fixtures::IDR]);
    let (mut pictures, mut sounds) = (0_i64, 0_i64);
    for millis in (0..5 * 3_600_000).step_by(10) {
        let now = millis * 1000;
        while sounds * 20_000 <= now {
            run.send(TrackKind::Audio, AUDIO.rtp_time(sounds * 20_000), OPUS, now);
            assert_eq!(run.media(), sounds * 20);
            sounds += 1;
        }
        while pictures * 1_000_000 / 30 <= now {
            let payload = if pictures % 120 == 0 { &key } else { fixtures::P };
            let captured = pictures * 1_000_000 / 30;
            run.send(TrackKind::Video, VIDEO.rtp_time(captured), payload, now);
            // Placed by arrival, which lags up to one step of 10 ms.
            assert!((0..=11).contains(&(run.media() - captured / 1000)), "picture {pictures}");
            pictures += 1;
        }
    }
    let stats = run.muxer.stats();
    assert_eq!((stats.video.frames, stats.audio.frames), (540_000, 900_000));
    assert_eq!(stats.video.sequence_headers, 1);
    assert_eq!(stats.video.packets.restarts + stats.audio.packets.restarts + stats.audio.overtaken, 0);
    assert!(run.media() > 0xff_ffff);
}

#[test]
fn eight_weeks_cross_every_wrap_many_times() {
    let mut run = Run::new();
    let key = fixtures::stap_a(&[fixtures::SPS, fixtures::PPS, fixtures::IDR]);
    // Fewer packets than a guest sends, or it would take as long: one of each kind every 4 s.
    for n in 0..8 * 7 * 86_400 / 4 {
        let now = n * 4_000_000;
        run.send(TrackKind::Audio, AUDIO.rtp_time(now), OPUS, now);
        assert_eq!(run.media(), now / 1000);
        run.send(TrackKind::Video, VIDEO.rtp_time(now), if n % 100 == 0 { &key } else { fixtures::P }, now + 2000);
        assert_eq!(run.media(), now / 1000 + 2);
    }
    assert!(run.media() > 1 << 32);
    let stats = run.muxer.stats();
    assert_eq!(stats.video.packets.restarts + stats.audio.packets.restarts + stats.audio.overtaken, 0);
}

/// NTP time of a moment (RFC 3550 §4).
fn ntp(micros: i64) -> u64 {
    let since_1900 = 3_900_000_000_000_000 + i128::from(micros);
    u64::try_from((since_1900 << 32) / 1_000_000).expect("before 2036")
}

#[test]
fn an_hour_with_clocks_a_hundred_ppm_apart_stays_within_40_ms() {
    let audio = SenderClock { parts_per_million: -50, ..AUDIO };
    let video = SenderClock { parts_per_million: 50, ..VIDEO };
    let mut run = Run::new();
    let key = fixtures::stap_a(&[fixtures::SPS, fixtures::PPS, fixtures::IDR]);
    // Where both tracks put the same moment: the sound's of it, kept until the picture of it comes.
    let (mut worst, mut last_video, mut largest_step) = (0, 0, 0);
    let mut sound = 0;
    for n in 0..3600 * 50 {
        let captured = n * 20_000;
        // Up to 20 ms of jitter, each track on a path 30 ms apart from the other's.
        let jitter = |seed: i64| (n * 7919 + seed) % 20_000;
        run.send(TrackKind::Audio, audio.rtp_time(captured), OPUS, captured + 20_000 + jitter(0));
        sound = run.media();
        if n % 2 == 0 {
            let payload = if n % 200 == 0 { &key } else { fixtures::P };
            run.send(TrackKind::Video, video.rtp_time(captured), payload, captured + 50_000 + jitter(5000));
            let picture = run.media();
            // The first reports come after 2 s and take their time: no picture jumps.
            if captured > 10_000_000 {
                worst = worst.max((picture - sound).abs());
            }
            if n > 0 {
                largest_step = largest_step.max((picture - last_video - 40).abs());
            }
            last_video = picture;
        }
        if n % 50 == 0 && captured >= 2_000_000 {
            for (kind, clock) in [(TrackKind::Audio, audio), (TrackKind::Video, video)] {
                let report = SenderReport { ntp_time: ntp(captured), rtp_time: clock.rtp_time(captured) };
                run.muxer.handle_sender_report(kind, report, MediaTime::from_micros(captured + 60_000));
            }
        }
    }
    assert!(worst <= 40, "{worst} ms apart");
    assert!(largest_step <= 4, "a picture moved by {largest_step} ms");
    // The sound runs on its own clock, 50 ppm slow: 180 ms in an hour.
    assert!((3_599_980 - 180 - sound).abs() <= 2, "{sound}");
}
