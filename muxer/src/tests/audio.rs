//! Opus: durations, silence, gaps.

use super::*;

fn audio_only() -> Guest {
    Guest::new(Config { video: None, ..Config::default() })
}

#[test]
fn without_video_the_metadata_comes_with_the_first_packet() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    guest.audio(20, OPUS);
    assert_eq!(guest.lines(), ["metadata 0", "OpusHead 0", "audio 0", "audio 20"]);
}

#[test]
fn a_lost_packet_is_replaced_by_silence_after_the_wait() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    guest.lose_audio();
    guest.lose_audio();
    guest.audio(60, OPUS);
    guest.lines();
    guest.wait();
    guest.audio(80, OPUS);
    assert_eq!(guest.lines(), ["silence 20", "silence 40", "audio 60", "audio 80"]);
    let stats = guest.muxer.stats().audio;
    assert_eq!((stats.concealed, stats.frames, stats.packets.lost), (2, 3, 2));
}

#[test]
fn silence_has_the_duration_of_what_it_replaces() {
    // 10 ms packets: CELT fullband configuration 30; then 60 ms: SILK configuration 3.
    let mut guest = audio_only();
    guest.audio(0, &[0xf0, 1]);
    guest.lose_audio();
    guest.audio(20, &[0xf0, 1]);
    guest.wait();
    guest.audio(30, &[0x18, 1]);
    guest.lose_audio();
    guest.audio(150, &[0x18, 1]);
    guest.wait();
    let lines = guest.lines();
    let expected =
        ["audio 0", "audio 10", "audio 20", "audio 30", "silence 90", "silence 110", "silence 130", "audio 150"];
    assert_eq!(lines[2..], expected);
}

#[test]
fn a_gap_without_loss_stays_a_gap() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    guest.audio(400, &[0xf8]);
    guest.audio(800, OPUS);
    assert_eq!(guest.lines()[2..], ["audio 0", "audio 400", "audio 800"]);
}

#[test]
fn a_loss_inside_a_gap_is_replaced_by_one_packet() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    guest.lose_audio();
    guest.audio(800, OPUS);
    guest.wait();
    assert_eq!(guest.lines()[2..], ["audio 0", "silence 20", "audio 800"]);
}

#[test]
fn silence_takes_no_more_time_than_there_is() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    for _ in 0..3 {
        guest.lose_audio();
    }
    guest.audio(40, OPUS);
    guest.wait();
    assert_eq!(guest.lines()[2..], ["audio 0", "silence 20", "audio 40"]);
}

#[test]
fn payloads_that_are_not_opus_are_counted_and_dropped() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    guest.audio(20, &[0xfb, 0]);
    guest.audio(40, &[]);
    guest.audio(60, OPUS);
    assert_eq!(guest.lines()[2..], ["audio 0", "audio 60"]);
    let stats = guest.muxer.stats().audio;
    assert_eq!((stats.malformed, stats.packets.padding_only), (1, 1));
}

#[test]
fn audio_goes_on_while_video_waits() {
    let mut guest = Guest::with_both();
    guest.video(0, fixtures::P);
    guest.audio(0, OPUS);
    guest.lose_video();
    guest.video(33, fixtures::P);
    guest.audio(20, OPUS);
    assert_eq!(guest.lines(), ["keyframe needed: Start", "OpusHead 0", "audio 0", "audio 20"]);
}

#[test]
fn silence_fills_the_track_up_to_where_it_is_asked_for() {
    let mut guest = Guest::with_both();
    guest.video(1000, &fixtures::stap_a(&[fixtures::SPS, fixtures::PPS, fixtures::IDR]));
    guest.lines();
    assert_eq!(guest.muxer.timeline_at(ms(1050)), Some(ms(50)));
    guest.muxer.fill_silence(ms(50));
    guest.drain();
    assert_eq!(guest.lines(), ["OpusHead 0", "silence 0", "silence 20"]);
    guest.muxer.fill_silence(ms(59));
    guest.drain();
    assert_eq!(guest.lines(), [""; 0]);
    guest.muxer.fill_silence(ms(60));
    guest.drain();
    assert_eq!(guest.lines(), ["silence 40"]);
    assert_eq!(guest.muxer.stats().audio.silence, 3);
}

#[test]
fn silence_without_end_is_bounded() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    guest.lines();
    guest.muxer.fill_silence(MediaTime::MAX);
    guest.drain();
    assert_eq!(guest.muxer.stats().audio.silence, 500);
}

#[test]
fn audio_that_comes_after_its_silence_is_dropped_until_it_has_caught_up() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    guest.muxer.fill_silence(ms(100));
    guest.drain();
    guest.lines();
    for n in 1..=6 {
        guest.audio_packet(100 + n, i64::from(n) * 20, 110, OPUS);
    }
    assert_eq!(guest.lines(), ["audio 100", "audio 120"]);
    assert_eq!(guest.muxer.stats().audio.overtaken, 4);
}

#[test]
fn audio_that_stays_behind_its_silence_goes_on_after_a_second() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    // From now on every packet takes 300 ms longer, and the caller keeps filling up to 100 ms ago.
    let mut first = None;
    for n in 1..200 {
        let now = i64::from(n) * 20 + 300;
        let at = guest.muxer.timeline_at(ms(now)).expect("begun");
        guest.muxer.fill_silence(at - ms(100));
        guest.drain();
        guest.lines();
        guest.audio_packet(100 + n, i64::from(n) * 20, now, OPUS);
        if guest.lines().iter().any(|line| line.starts_with("audio")) {
            first.get_or_insert(n);
        }
    }
    assert_eq!(first, Some(51));
    let stats = guest.muxer.stats().audio;
    assert!(stats.frames > 140, "{stats:?}");
}

#[test]
fn a_guest_that_comes_back_is_heard_behind_the_silence() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    guest.muxer.replace_source();
    guest.muxer.fill_silence(ms(5000));
    guest.drain();
    guest.lines();
    guest.audio_packet(9, 77_000, 4990, OPUS);
    guest.audio_packet(10, 77_020, 5010, OPUS);
    assert_eq!(guest.lines(), ["audio 5000", "audio 5020"]);
}

#[test]
fn sequence_header_and_channels_follow_the_config() {
    let audio = AudioConfig { channels: 1, ..AudioConfig::default() };
    let mut guest = Guest::new(Config { audio: Some(audio), video: None, ..Config::default() });
    guest.audio(0, OPUS);
    assert_eq!(guest.bodies[1], b"\x90OpusOpusHead\x01\x01\x38\x01\x80\xbb\x00\x00\x00\x00\x00");
}
