//! Opus: durations, silence, gaps. What a sound clock that stands still leaves: [`super::stalls`].

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
fn lost_packets_are_replaced_by_packets_without_a_frame_once_they_are_given_up() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    guest.lose_audio();
    guest.lose_audio();
    guest.audio(60, OPUS);
    guest.lines();
    guest.wait();
    guest.audio(80, OPUS);
    assert_eq!(guest.bodies[0], b"\x91Opus\xf8", "the configuration of its neighbours");
    assert_eq!(guest.lines(), ["no-frame 20", "no-frame 40", "audio 60", "audio 80"]);
    let stats = guest.muxer.stats().audio;
    assert_eq!((stats.concealed, stats.frames, stats.packets.lost), (2, 3, 2));
}

#[test]
fn what_replaces_lost_packets_has_their_duration() {
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
    // Three frames of 20 ms in a packet: as many packets without one.
    guest.audio(210, &[0x0b, 3, 1, 1, 1]);
    guest.lose_audio();
    guest.audio(330, &[0x0b, 3, 1, 1, 1]);
    guest.wait();
    let lines = guest.lines();
    let expected = ["audio 0", "no-frame 10", "audio 20", "audio 30", "no-frame 90", "audio 150"];
    assert_eq!(lines[2..8], expected);
    assert_eq!(lines[8..], ["audio 210", "no-frame 270", "no-frame 290", "no-frame 310", "audio 330"]);
}

#[test]
fn after_a_tenth_of_a_second_of_concealment_comes_silence() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    for _ in 0..7 {
        guest.lose_audio();
    }
    guest.audio(160, OPUS);
    guest.wait();
    let expected = ["no-frame 20", "no-frame 40", "no-frame 60", "no-frame 80", "no-frame 100", "silence 120"];
    assert_eq!(guest.lines()[3..], [&expected[..], &["silence 140", "audio 160"]].concat());
}

#[test]
fn every_loss_pattern_leaves_a_track_without_a_gap_on_the_sample_clock() {
    // 20 s at each duration a sender may use; runs of 1 to 9 lost packets (below a second), pseudo-random.
    for (toc, packet_ms) in [(0xf0, 10), (0xf8, 20), (0x10, 40), (0x18, 60)] {
        let mut guest = audio_only();
        let mut state = 7_u32;
        let mut lost = 0;
        let last = 20_000 / packet_ms;
        for n in 0..last {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if lost == 0 && state >> 28 == 0 {
                lost = 1 + (state >> 20) % 9;
            }
            if n > 0 && lost > 0 {
                lost -= 1;
                guest.lose_audio();
            } else {
                guest.audio(n * packet_ms, &[toc, 1]);
            }
        }
        guest.audio(last * packet_ms, &[toc, 1]);
        guest.wait();
        let mut end = 0;
        for (line, body) in guest.lines.iter().zip(&guest.bodies).skip(2) {
            let (_, at) = line.split_once(' ').expect("name and time");
            assert_eq!(at.parse(), Ok(end), "{packet_ms} ms: {line}");
            let samples = opus::OpusPacket::parse(&body[5..]).expect("Opus").samples;
            end += i64::from(samples / 48);
        }
        assert_eq!(end, (last + 1) * packet_ms);
        assert!(guest.muxer.stats().audio.concealed > 30, "{:?}", guest.muxer.stats().audio);
    }
}

#[test]
fn a_gap_without_loss_stays_a_gap() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    guest.audio(400, &[0xf8]);
    guest.audio(800, OPUS);
    assert_eq!(guest.lines()[2..], ["audio 0", "no-frame 400", "audio 800"]);
}

#[test]
fn a_loss_inside_a_gap_is_replaced_by_one_packet() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    guest.lose_audio();
    guest.audio(800, OPUS);
    guest.wait();
    assert_eq!(guest.lines()[2..], ["audio 0", "no-frame 20", "audio 800"]);
}

#[test]
fn concealment_takes_no_more_time_than_there_is() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    for _ in 0..3 {
        guest.lose_audio();
    }
    guest.audio(40, OPUS);
    guest.wait();
    assert_eq!(guest.lines()[2..], ["audio 0", "no-frame 20", "audio 40"]);
}

#[test]
fn payloads_that_are_not_opus_are_counted_dropped_and_replaced() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    guest.audio(20, &[0xfb, 0]);
    guest.audio(40, &[]);
    guest.audio(60, OPUS);
    assert_eq!(guest.lines()[2..], ["audio 0", "no-frame 20", "audio 60"]);
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
fn audio_that_comes_just_after_its_silence_is_dropped_until_it_has_caught_up() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    guest.muxer.fill_silence(ms(60));
    guest.drain();
    guest.lines();
    for n in 1..=4 {
        guest.audio_packet(100 + n, i64::from(n) * 20, 110, OPUS);
    }
    assert_eq!(guest.lines(), ["audio 60", "audio 80"]);
    assert_eq!(guest.muxer.stats().audio.overtaken, 2);
}

#[test]
fn a_microphone_that_returns_where_the_silence_ends_loses_one_packet_at_most_and_no_time() {
    for late in 0..=20 {
        let mut guest = audio_only();
        guest.audio(0, OPUS);
        for now in 1..=30 {
            guest.muxer.fill_silence(ms(now * 100));
        }
        guest.drain();
        guest.lines();
        // Its clock went on; its first packet is late by so much, the others are not.
        for n in 0..=50 {
            let own = 3000 + i64::from(n) * 20 - late;
            guest.audio_packet(101 + n, own, own + if n == 0 { late } else { 0 }, OPUS);
        }
        let lines = guest.lines();
        assert_eq!(lines.last(), Some(&format!("audio {}", 4000 - late)), "{late} ms: {lines:?}");
        assert!(guest.muxer.stats().audio.overtaken <= 1, "{late} ms: {lines:?}");
    }
}

#[test]
fn audio_that_stays_behind_its_silence_goes_on_at_once() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    // From now on every packet takes 300 ms longer, and the caller keeps filling up to 100 ms ago.
    for n in 1..200 {
        let now = i64::from(n) * 20 + 300;
        let at = guest.muxer.timeline_at(ms(now)).expect("begun");
        guest.muxer.fill_silence(at - ms(100));
        guest.drain();
        guest.audio_packet(100 + n, i64::from(n) * 20, now, OPUS);
    }
    let stats = guest.muxer.stats().audio;
    assert_eq!((stats.frames, stats.overtaken), (200, 0), "{stats:?}");
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
fn silence_is_joined_to_what_follows_it() {
    let mut guest = audio_only();
    guest.audio(0, OPUS);
    guest.muxer.fill_silence(ms(100));
    guest.drain();
    guest.lines();
    // A microphone that was off: nothing is lost, the clock went on.
    guest.audio(155, OPUS);
    guest.audio(175, OPUS);
    let bodies = guest.bodies.clone();
    assert_eq!(guest.lines(), ["silence 100", "silence 120", "audio 140", "audio 150", "audio 155", "audio 175"]);
    assert_eq!((&bodies[2][5..], &bodies[3][5..]), (&[0xf0, 0xff, 0xfe][..], &[0xe8, 0xff, 0xfe][..]), "10 and 5 ms");
}

#[test]
fn sequence_header_and_channels_follow_the_config() {
    let audio = AudioConfig { channels: 1, ..AudioConfig::default() };
    let mut guest = Guest::new(Config { audio: Some(audio), video: None, ..Config::default() });
    guest.audio(0, OPUS);
    assert_eq!(guest.bodies[1], b"\x90OpusOpusHead\x01\x01\x38\x01\x80\xbb\x00\x00\x00\x00\x00");
}
