//! The timeline in virtual time: clocks that drift, jump, stand still, and reports that lie.

use super::*;

const AUDIO_RATE: i64 = 48_000;
const VIDEO_RATE: i64 = 90_000;

fn ms(millis: i64) -> MediaTime {
    MediaTime::from_millis(millis)
}

/// The low 32 bits.
fn wrapped(ticks: i64) -> u32 {
    let [_, _, _, _, low @ ..] = ticks.to_be_bytes();
    u32::from_be_bytes(low)
}

/// NTP time of a second and a fraction in microseconds.
fn ntp(micros: i64) -> u64 {
    let since_1900 = 3_900_000_000_000_000 + i128::from(micros);
    u64::try_from((since_1900 << 32) / 1_000_000).expect("before 2036")
}

/// Two senders with a clock each, seen through a timeline.
struct Rig {
    timeline: Timeline,
    audio_base: i64,
    video_base: i64,
    last_video: Option<MediaTime>,
    last_audio: Option<MediaTime>,
}

impl Rig {
    fn new() -> Self {
        Self {
            timeline: Timeline::new(MediaTime::ZERO, 48_000, 90_000),
            audio_base: 0xffff_f000,
            video_base: 0x7fff_f000,
            last_video: None,
            last_audio: None,
        }
    }

    /// An audio packet captured at `captured` microseconds.
    fn audio(&mut self, captured: i64, arrival: MediaTime) -> MediaTime {
        let ticks = self.audio_base + captured * AUDIO_RATE / 1_000_000;
        let floor = self.last_audio.unwrap_or(MediaTime::ZERO);
        let time = self.timeline.stamp(TrackKind::Audio, wrapped(ticks), arrival, floor);
        self.last_audio = Some(time);
        time
    }

    fn video(&mut self, captured: i64, arrival: MediaTime) -> MediaTime {
        let ticks = self.video_base + captured * VIDEO_RATE / 1_000_000;
        let floor = self.last_video.unwrap_or(MediaTime::ZERO);
        let time = self.timeline.stamp(TrackKind::Video, wrapped(ticks), arrival, floor);
        self.last_video = Some(time);
        time
    }

    /// As [`reports`](Self::reports), with ones of a second before which they agree with.
    fn agreed_reports(&mut self, captured: i64, lie: i64, arrival: MediaTime) {
        self.reports(captured - 1_000_000, lie, arrival - ms(1000));
        self.reports(captured, lie, arrival);
    }

    /// Both sender reports about the instant `captured`; video's wall clock is off by `lie` microseconds.
    fn reports(&mut self, captured: i64, lie: i64, arrival: MediaTime) {
        for (kind, base, rate, lie) in
            [(TrackKind::Audio, self.audio_base, AUDIO_RATE, 0), (TrackKind::Video, self.video_base, VIDEO_RATE, lie)]
        {
            let rtp_time = wrapped(base + captured * rate / 1_000_000);
            let report = SenderReport { ntp_time: ntp(captured + lie), rtp_time };
            self.timeline.handle_sender_report(kind, report, arrival);
        }
    }
}

#[test]
fn steps_are_those_of_the_rtp_clock_whatever_the_network_does() {
    let mut rig = Rig::new();
    for n in 0..1000 {
        let jitter = [0, 35, 3, 120][usize::try_from(n % 4).expect("small")];
        assert_eq!(rig.audio(n * 20_000, ms(1000 + n * 20 + jitter)), ms(n * 20));
    }
}

#[test]
fn a_track_that_comes_later_is_placed_by_arrival() {
    let mut rig = Rig::new();
    rig.audio(0, ms(1000));
    assert_eq!(rig.video(0, ms(4000)), ms(3000));
    assert_eq!(rig.video(40_000, ms(4100)), ms(3040));
}

#[test]
fn both_clocks_may_wrap_many_times() {
    let mut rig = Rig::new();
    // 2^32 ticks are 13.3 hours of video and 24.9 hours of audio; a packet every 4 hours for 40 days.
    for n in 0..240 {
        let micros = n * 4 * 3_600_000_000;
        assert_eq!(rig.audio(micros, MediaTime::from_micros(micros)), MediaTime::from_micros(micros));
        assert_eq!(rig.video(micros, MediaTime::from_micros(micros)), MediaTime::from_micros(micros));
    }
}

#[test]
fn sender_reports_move_video_to_its_audio_without_a_step_back() {
    for late in [-300, -90, 60, 400] {
        let mut rig = Rig::new();
        rig.audio(0, ms(1000));
        // The first picture comes `late` milliseconds later than its sound, or earlier.
        rig.video(1_000_000, ms(2000 + late));
        rig.agreed_reports(1_000_000, 0, ms(2100));
        let mut last = ms(1000 + late);
        for n in 1..600 {
            let time = rig.video(1_000_000 + n * 33_333, ms(2000 + late + n * 33));
            let step = (time - last).micros();
            assert!((31_200..=35_500).contains(&step), "step of {step} us");
            last = time;
        }
        let skew = (last - MediaTime::from_micros(1_000_000 + 599 * 33_333)).micros();
        assert!(skew.abs() < 1000, "{late} ms late: {skew} us of skew are left");
    }
}

#[test]
fn reports_that_come_before_the_first_picture_place_it_at_once() {
    let mut rig = Rig::new();
    rig.audio(0, ms(1000));
    rig.agreed_reports(1_500_000, 0, ms(2500));
    assert_eq!(rig.video(2_000_000, ms(3250)), ms(2000));
}

#[test]
fn a_far_off_track_is_brought_back_faster() {
    let mut rig = Rig::new();
    rig.audio(0, ms(1000));
    rig.video(0, ms(4000));
    rig.agreed_reports(100_000, 0, ms(4100));
    let mut last = ms(3000);
    for n in 1..400 {
        let time = rig.video(n * 33_333, ms(4000 + n * 33));
        assert!(time > last);
        last = time;
    }
    let skew = (last - MediaTime::from_micros(399 * 33_333)).micros();
    assert!(skew.abs() < 1000, "{skew} us of skew are left");
}

#[test]
fn differences_nobody_hears_are_left_alone() {
    let mut rig = Rig::new();
    rig.audio(0, ms(1000));
    rig.video(0, ms(1009));
    rig.agreed_reports(100_000, 0, ms(1100));
    assert_eq!(rig.video(40_000, ms(1049)), ms(49));
    assert_eq!(rig.timeline.correction(), (0, 0));
}

#[test]
fn a_report_that_asks_for_more_than_ten_seconds_is_not_believed() {
    let mut rig = Rig::new();
    rig.audio(0, ms(1000));
    rig.video(0, ms(1000));
    rig.agreed_reports(100_000, 3_600_000_000, ms(1100));
    assert_eq!(rig.timeline.correction(), (0, 0));
    rig.agreed_reports(200_000, -10_100_000, ms(1200));
    assert_eq!(rig.timeline.correction(), (0, 0));
}

/// 25 s of pictures, 30 a second, and of sound, which arrive evenly, and reports: of pictures once a second, of sound at
/// every `sound_every` ms, of a wall clock that is `wall(track, ms)` ms off. How far a picture is off its even time, at most.
fn furthest(sound_every: i64, wall: impl Fn(TrackKind, i64) -> i64) -> i64 {
    let mut rig = Rig::new();
    let mut furthest = 0;
    for now in 0..25_000 {
        let arrival = ms(1000 + now);
        if now % 20 == 0 {
            rig.audio(now * 1000, arrival);
        }
        if now * 3 % 100 < 3 {
            let captured = now * 1000;
            furthest = furthest.max((rig.video(captured, arrival) - MediaTime::from_micros(captured)).micros().abs());
        }
        let tracks = [
            (TrackKind::Video, 1000, 300, rig.video_base, VIDEO_RATE),
            (TrackKind::Audio, sound_every, 305, rig.audio_base, AUDIO_RATE),
        ];
        for (kind, every, offset, base, rate) in tracks {
            if now % every == offset {
                let report = SenderReport {
                    ntp_time: ntp((now + wall(kind, now)) * 1000),
                    rtp_time: wrapped(base + now * rate / 1000),
                };
                rig.timeline.handle_sender_report(kind, report, arrival);
            }
        }
    }
    furthest
}

#[test]
fn a_wall_clock_that_is_set_moves_no_picture() {
    for step in [3000, -3000, 400, -90, 45, 3_600_000] {
        for sound_every in [500, 1000, 2500, 5000] {
            for at in [2000, 7100, 11_250] {
                let off = furthest(sound_every, |_, now| if now > at { step } else { 0 });
                assert!(off < 10_000, "{step} ms after {at} ms, sound reports each {sound_every} ms: {off} us");
                let off = furthest(sound_every, |_, now| if (at..at + 4000).contains(&now) { step } else { 0 });
                assert!(off < 10_000, "{step} ms for 4 s after {at} ms, each {sound_every} ms: {off} us");
            }
        }
    }
}

#[test]
fn odd_reports_move_no_picture_far() {
    for step in [3000, -3000, 400, -90] {
        for second in [0, 1, 6] {
            for (name, odd, most) in [
                ("one of pictures", &[(TrackKind::Video, 1)][..], 40_000),
                ("one of sound", &[(TrackKind::Audio, 1)], 40_000),
                ("one of each", &[(TrackKind::Video, 1), (TrackKind::Audio, 1)], 40_000),
                ("two of each", &[(TrackKind::Video, 2), (TrackKind::Audio, 2)], 40_000),
            ] {
                let off = furthest(1000, |kind, now| {
                    let is_odd = |(track, count): &(_, i64)| {
                        *track == kind && (second * 1000..(second + count) * 1000).contains(&now)
                    };
                    if odd.iter().any(is_odd) { step } else { 0 }
                });
                assert!(off <= most, "{name}, {step} ms from second {second} on: {off} us");
            }
        }
    }
}

#[test]
fn reports_that_keep_lying_move_the_picture_by_40_ms_each() {
    // Settled; then the wall clock of pictures alone is off for 3 s.
    let off =
        furthest(1000, |kind, now| if kind == TrackKind::Video && (6000..9000).contains(&now) { 3000 } else { 0 });
    assert!(off > 40_000 && off <= 4 * 40_000, "{off} us");
}

#[test]
fn a_wrong_target_is_taken_back_by_the_next_good_report() {
    let mut rig = Rig::new();
    rig.audio(0, ms(1000));
    rig.video(0, ms(1000));
    rig.agreed_reports(1_000_000, 0, ms(2000));
    rig.reports(2_000_000, 39, ms(3000));
    rig.reports(3_000_000, 35_000, ms(4000));
    assert_eq!(rig.timeline.correction(), (0, 34_999), "it agrees, all but");
    rig.reports(4_000_000, 0, ms(5000));
    assert_eq!(rig.timeline.correction(), (0, 0));
}

#[test]
fn a_restart_of_the_sound_clock_ends_a_correction() {
    let mut rig = Rig::new();
    rig.audio(0, ms(1000));
    rig.video(0, ms(1200));
    rig.agreed_reports(1_000_000, 0, ms(2000));
    rig.video(33_333, ms(1233));
    assert_eq!(rig.timeline.correction(), (-2082, -197_918));
    let mut restarted = rig.timeline;
    restarted.restart(TrackKind::Audio);
    assert_eq!(restarted.correction(), (-2082, 0));
}

#[test]
fn no_picture_is_moved_by_more_than_40_ms_however_far_off_it_is() {
    for fps in [1, 5, 10, 30] {
        let mut rig = Rig::new();
        rig.audio(0, ms(1000));
        rig.video(0, ms(6000));
        rig.agreed_reports(1_000_000, 0, ms(6100));
        let frame = 1_000_000 / fps;
        let mut last = ms(5000);
        for n in 1..20 {
            let time = rig.video(n * frame, ms(6000) + MediaTime::from_micros(n * frame));
            let moved = (time - last).micros() - frame;
            assert!((-40_001..0).contains(&moved), "{fps} fps: {moved} us");
            last = time;
        }
    }
}

#[test]
fn reports_of_one_track_alone_change_nothing() {
    let mut rig = Rig::new();
    rig.video(0, ms(1000));
    rig.reports(100_000, 0, ms(1100));
    assert_eq!(rig.video(40_000, ms(1140)), ms(40));
}

#[test]
fn an_hour_of_clocks_100_ppm_apart_stays_in_sync() {
    let mut rig = Rig::new();
    let mut worst = 0;
    for second in 0..3600 {
        let now = second * 1_000_000;
        // The video clock runs 100 ppm fast against the wall clock that the reports use.
        let drift = now / 10_000;
        let audio = rig.audio(now, MediaTime::from_micros(now + 30_000));
        let mut video = audio;
        for frame in 0..30 {
            let at = now + frame * 33_333;
            let time = rig.video(at + at / 10_000, MediaTime::from_micros(at + 45_000));
            if frame == 0 {
                video = time;
            }
        }
        if second % 2 == 1 {
            let arrival = MediaTime::from_micros(now + 40_000);
            let audio =
                SenderReport { ntp_time: ntp(now), rtp_time: wrapped(rig.audio_base + now * AUDIO_RATE / 1_000_000) };
            let video = SenderReport {
                ntp_time: ntp(now),
                rtp_time: wrapped(rig.video_base + (now + drift) * VIDEO_RATE / 1_000_000),
            };
            rig.timeline.handle_sender_report(TrackKind::Audio, audio, arrival);
            rig.timeline.handle_sender_report(TrackKind::Video, video, arrival);
        }
        worst = worst.max((video - audio).micros().abs());
    }
    assert!(worst <= 40_000, "{worst} us apart");
    let end = (rig.last_audio.expect("sound") - MediaTime::from_micros(3_599_000_000)).micros();
    assert_eq!(end, 0);
}

#[test]
fn a_clock_that_jumps_is_placed_anew_by_arrival() {
    // (clock steps by, seconds of network time between the packets)
    let cases = [
        (600_000_000, "ten minutes ahead"),
        (-600_000_000, "ten minutes back"),
        (-1_500_000, "one and a half seconds back"),
        (23_860_000_000, "2^31 ticks of video ahead"),
        (-23_860_000_000, "2^31 ticks of video back"),
    ];
    for (jump, name) in cases {
        let mut rig = Rig::new();
        rig.audio(0, ms(1000));
        rig.video(0, ms(1000));
        rig.video(100_000, ms(1100));
        assert_eq!(rig.video(200_000 + jump, ms(1200)), ms(200), "{name}");
        assert_eq!(rig.video(240_000 + jump, ms(1240)), ms(240), "{name}");
    }
}

#[test]
fn a_clock_that_jumps_never_goes_back_on_the_timeline() {
    let mut rig = Rig::new();
    rig.audio(0, ms(1000));
    rig.video(0, ms(1000));
    // Came in a burst: far ahead of its arrival.
    assert_eq!(rig.video(3_000_000, ms(1010)), ms(3000));
    assert_eq!(rig.video(-10_000_000, ms(1050)), ms(3000));
}

#[test]
fn a_clock_that_stands_still_is_placed_anew_after_ten_seconds() {
    let mut rig = Rig::new();
    let mut seen = Vec::new();
    for n in 0..120 {
        seen.push(rig.audio(0, ms(1000 + n * 100)).millis());
    }
    assert_eq!(seen.iter().filter(|time| **time == 0).count(), 101);
    assert_eq!(seen.last(), Some(&10_100));
}

#[test]
fn pictures_sent_in_order_whose_clock_steps_back_are_placed_anew_by_arrival() {
    for back in [80, 500, 900, 5000] {
        let mut rig = Rig::new();
        rig.timeline.expect_picture(Order::Always);
        for n in 0..100 {
            let clock = if n < 50 { n * 40 } else { n * 40 - back };
            let jitter = [0, 7, 3][usize::try_from(n % 3).expect("small")];
            let time = rig.video(clock * 1000, ms(1000 + n * 40 + jitter));
            let off = (time - ms(n * 40)).micros();
            assert!((0..=7000).contains(&off), "{back} ms back, picture {n}: {off} us");
        }
    }
}

#[test]
fn an_outage_longer_than_the_jump_bound_is_no_jump() {
    let mut rig = Rig::new();
    rig.audio(0, ms(1000));
    assert_eq!(rig.audio(30_000_000, ms(31_700)), ms(30_000));
}

#[test]
fn a_recording_read_at_once_keeps_its_times() {
    let mut rig = Rig::new();
    for n in 0..1000 {
        assert_eq!(rig.video(n * 40_000, ms(1000)), ms(n * 40));
    }
}

#[test]
fn the_timeline_goes_on_with_the_least_delay_seen() {
    let mut rig = Rig::new();
    assert_eq!(rig.timeline.at(ms(900)), None);
    rig.audio(0, ms(1500));
    assert_eq!(rig.timeline.at(ms(1500)), Some(ms(0)));
    rig.audio(600_000, ms(1600));
    // The first packet was 500 ms late: what arrives now without delay belongs 500 ms later.
    assert_eq!(rig.timeline.at(ms(2000)), Some(ms(1000)));
}

#[test]
fn another_encoder_goes_on_where_the_timeline_stands() {
    let mut rig = Rig::new();
    rig.audio(0, ms(1000));
    rig.audio(5_000_000, ms(6000));
    rig.timeline.restart(TrackKind::Audio);
    rig.audio_base = 17;
    assert_eq!(rig.audio(0, ms(9000)), ms(8000));
    assert_eq!(rig.audio(20_000, ms(9020)), ms(8020));
}

#[test]
fn tag_times_are_a_millisecond_apart_after_rounding() {
    let mut times = StrictlyIncreasing::default();
    let mut given = Vec::new();
    for wanted in [0, 400, 900, 5000, 4000, 5999, 7000, -5000] {
        let time = times.after(MediaTime::from_micros(wanted));
        times.set(time);
        given.push(time.micros());
    }
    assert_eq!(given, [0, 1000, 2000, 5000, 6000, 7000, 8000, 9000]);
}
