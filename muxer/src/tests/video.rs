//! The gate, the parameter sets, restarts.

use super::*;
use crate::fixtures::{IDR, P, PPS, PPS_HIGH, SPS, SPS_HIGH, stap_a};

fn key() -> Vec<u8> {
    stap_a(&[SPS, PPS, IDR])
}

#[test]
fn a_stream_joined_between_idr_pictures_waits_for_one_and_asks_once() {
    let mut guest = Guest::video_only();
    for n in 0..5 {
        guest.video(n * 33, P);
    }
    assert_eq!(guest.lines(), ["keyframe needed: Start"]);
    guest.video(1000, &key());
    guest.video(1033, P);
    assert_eq!(guest.lines(), ["metadata 0", "avcC 0", "key 0", "inter 33"]);
    assert_eq!(guest.muxer.stats().video.dropped.waiting_for_keyframe, 5);
}

#[test]
fn a_lost_packet_shuts_the_gate_until_the_next_idr_picture() {
    let mut guest = Guest::showing();
    guest.lose_video();
    guest.video(66, P);
    assert_eq!(guest.lines(), [""; 0]);
    assert_eq!(guest.muxer.poll_timeout(), Some(ms(466)));
    guest.wait();
    guest.video(500, P);
    assert_eq!(guest.lines(), ["keyframe needed: Loss"]);
    guest.video(533, &key());
    guest.video(566, P);
    assert_eq!(guest.lines(), ["key 533", "inter 566"]);
    let stats = guest.muxer.stats().video;
    assert_eq!((stats.packets.lost, stats.dropped.waiting_for_keyframe), (1, 2));
    assert_eq!((stats.frames, stats.keyframes, stats.last_keyframe_dts), (3, 2, Some(ms(533))));
}

#[test]
fn a_packet_that_comes_in_time_costs_nothing() {
    let mut guest = Guest::showing();
    let missing = guest.video_seq;
    guest.lose_video();
    guest.video(66, P);
    guest.video_packet(missing, 33, 120, P);
    assert_eq!(guest.lines(), ["inter 33", "inter 66"]);
    assert_eq!(guest.muxer.poll_timeout(), None);
    assert_eq!(guest.muxer.stats().video.packets.recovered, 1);
}

#[test]
fn a_packet_that_comes_too_late_is_counted() {
    let mut guest = Guest::showing();
    let missing = guest.video_seq;
    guest.lose_video();
    guest.video(66, P);
    guest.wait();
    guest.video_packet(missing, 33, 600, P);
    assert_eq!(guest.lines(), ["keyframe needed: Loss"]);
    assert_eq!(guest.muxer.stats().video.packets.late, 1);
}

#[test]
fn the_wait_follows_what_the_caller_knows_of_the_round_trip() {
    let mut guest = Guest::showing();
    guest.muxer.set_max_wait(TrackKind::Video, Duration::from_millis(50));
    guest.lose_video();
    guest.video(66, P);
    assert_eq!(guest.muxer.poll_timeout(), Some(ms(116)));
}

#[test]
fn at_the_end_of_the_input_no_gap_is_waited_for() {
    let mut guest = Guest::showing();
    guest.lose_video();
    guest.video(66, P);
    guest.video(99, &key());
    guest.muxer.flush();
    guest.drain();
    assert_eq!(guest.lines(), ["keyframe needed: Loss", "key 99"]);
}

#[test]
fn decoding_times_of_a_stream_with_b_frames_start_afresh_behind_a_loss() {
    let mut guest = Guest::video_only();
    let key = stap_a(&[SPS_HIGH, PPS_HIGH, IDR]);
    guest.video(0, &key);
    for (sent_ms, shown_ms) in [(40, 160), (80, 80), (120, 40)] {
        let sequence_number = guest.video_seq;
        guest.video_seq = sequence_number.wrapping_add(1);
        guest.video_packet(sequence_number, shown_ms, sent_ms, P);
    }
    assert_eq!(guest.lines(), ["metadata 0", "avcC 0", "key 0", "inter 1", "inter 2", "inter 42"]);
    guest.lose_video();
    guest.video(5000, &key);
    guest.wait();
    assert_eq!(guest.lines(), ["keyframe needed: Loss", "key 5000"]);
}

#[test]
fn padding_only_packets_are_no_loss() {
    let mut guest = Guest::showing();
    guest.video(10, &[]);
    guest.video(20, &[]);
    guest.video(33, P);
    assert_eq!(guest.lines(), ["inter 33"]);
    let stats = guest.muxer.stats().video.packets;
    assert_eq!((stats.padding_only, stats.lost), (2, 0));
}

#[test]
fn duplicates_are_counted_and_dropped() {
    let mut guest = Guest::showing();
    let sequence_number = guest.video_seq;
    guest.video(33, P);
    guest.video_packet(sequence_number, 33, 34, P);
    guest.video(66, P);
    assert_eq!(guest.lines(), ["inter 33", "inter 66"]);
    assert_eq!(guest.muxer.stats().video.packets.duplicates, 1);
}

#[test]
fn a_malformed_picture_shuts_the_gate() {
    let mut guest = Guest::showing();
    guest.video(33, &[0x5c, 0x01, 9]);
    guest.video(66, P);
    guest.video(99, &key());
    assert_eq!(guest.lines(), ["keyframe needed: Malformed", "key 99"]);
    assert_eq!(guest.muxer.stats().video.dropped.malformed, 1);
}

#[test]
fn an_idr_picture_without_parameter_sets_does_not_go_out() {
    let mut guest = Guest::video_only();
    // Right at the start something may be missing in front of it.
    guest.video(0, IDR);
    guest.video(33, IDR);
    guest.video(66, P);
    guest.video(99, PPS);
    guest.video(132, IDR);
    assert_eq!(guest.lines(), ["keyframe needed: NoParameterSets"; 3]);
    assert_eq!(guest.muxer.stats().video.dropped.no_parameter_sets, 3);
    guest.video(165, &key());
    assert_eq!(guest.lines(), ["metadata 0", "avcC 0", "key 0"]);
}

#[test]
fn parameter_sets_of_the_sdp_are_enough() {
    let parameter_sets = vec![SPS.to_vec(), PPS.to_vec()];
    let video = VideoConfig { parameter_sets, ..VideoConfig::default() };
    let mut guest = Guest::new(Config { video: Some(video), ..Config::default() });
    guest.video(0, IDR);
    guest.video(33, P);
    assert_eq!(guest.lines(), ["metadata 0", "avcC 0", "key 0", "inter 33"]);
}

#[test]
fn repeated_parameter_sets_make_no_sequence_header() {
    let mut guest = Guest::showing();
    guest.video(33, &key());
    guest.video(66, SPS);
    guest.video(66, PPS);
    guest.video(99, IDR);
    assert_eq!(guest.lines(), ["key 33", "key 99"]);
    assert_eq!(guest.muxer.stats().video.sequence_headers, 1);
}

#[test]
fn changed_parameter_sets_make_one_sequence_header_at_their_idr_picture() {
    let mut guest = Guest::showing();
    guest.video(33, &stap_a(&[SPS_HIGH, PPS_HIGH]));
    assert_eq!(guest.lines(), [""; 0]);
    guest.video(66, IDR);
    guest.video(99, &stap_a(&[SPS_HIGH, PPS_HIGH, IDR]));
    let bodies = guest.bodies.clone();
    // These sets announce B-frames, so decoding times start a millisecond apart.
    assert_eq!(guest.lines(), ["metadata 0", "avcC 66", "key 66", "key 67"]);
    assert!(bodies[1].windows(SPS_HIGH.len()).any(|window| window == SPS_HIGH));
    let stats = guest.muxer.stats().video;
    assert_eq!((stats.width, stats.height, stats.profile_idc, stats.level_idc), (1920, 1080, 100, 40));
}

#[test]
fn a_pps_of_other_bytes_makes_a_sequence_header_and_no_metadata() {
    let mut guest = Guest::showing();
    let other = [0x68, 0xcb, 0x83, 0xcb, 0x40];
    guest.video(33, &stap_a(&[SPS, &other, IDR]));
    assert_eq!(guest.lines(), ["avcC 33", "key 33"]);
}

#[test]
fn an_sps_that_cannot_be_read_shuts_the_gate_at_its_idr_picture() {
    let mut guest = Guest::showing();
    guest.video(33, &stap_a(&[&[0x67, 0x42, 0xc0], PPS, IDR]));
    guest.video(66, P);
    assert_eq!(guest.lines(), ["keyframe needed: NoParameterSets"]);
    assert_eq!(guest.muxer.stats().video.bad_parameter_sets, 1);
}

#[test]
fn another_ssrc_starts_with_an_idr_picture_of_its_own_on_the_same_timeline() {
    let mut guest = Guest::showing();
    guest.video_ssrc = 0xcccc;
    guest.video_seq = 7;
    guest.video(33, P);
    guest.video(66, IDR);
    guest.video(99, &key());
    guest.video(132, P);
    assert_eq!(
        guest.lines(),
        ["keyframe needed: SourceChanged", "keyframe needed: NoParameterSets", "key 99", "inter 132"]
    );
    assert_eq!(guest.muxer.stats().video.packets.restarts, 1);
}

#[test]
fn a_jump_of_the_sequence_numbers_is_a_loss() {
    let mut guest = Guest::showing();
    guest.video_seq = guest.video_seq.wrapping_add(20_000);
    guest.video(20_033, P);
    guest.video(20_066, P);
    guest.video(20_099, &key());
    assert_eq!(guest.lines(), ["keyframe needed: Loss", "key 20099"]);
}

#[test]
fn a_guest_that_comes_back_goes_on_on_the_same_timeline() {
    let mut guest = Guest::showing();
    guest.video(33, P);
    guest.muxer.replace_source();
    guest.drain();
    assert_eq!(guest.lines(), ["inter 33", "keyframe needed: SourceChanged"]);
    guest.video_ssrc = 0xcccc;
    guest.video_seq = 7;
    guest.video_packet(7, 500_000, 9000, P);
    guest.video_packet(8, 500_033, 9033, &key());
    guest.video_packet(9, 500_066, 9066, P);
    assert_eq!(guest.lines(), ["key 9033", "inter 9066"]);
}

#[test]
fn a_guest_that_comes_back_may_have_the_same_ssrc_and_earlier_times() {
    let mut guest = Guest::showing();
    guest.muxer.replace_source();
    guest.drain();
    guest.lines();
    guest.video_packet(65_000, -60_000, 2000, &key());
    guest.video_packet(65_001, -59_967, 2033, P);
    assert_eq!(guest.lines(), ["key 2000", "inter 2033"]);
}

#[test]
fn a_repeated_idr_picture_is_followed_by_an_idr_picture() {
    let video = VideoConfig { keep_keyframe: true, ..VideoConfig::default() };
    let mut guest = Guest::new(Config { video: Some(video), audio: None, ..Config::default() });
    guest.muxer.repeat_keyframe(ms(0));
    guest.video(0, &key());
    guest.video(33, P);
    let first = guest.bodies[2].clone();
    guest.lines();
    guest.muxer.repeat_keyframe(ms(1000));
    guest.muxer.repeat_keyframe(ms(900));
    guest.drain();
    assert_eq!(guest.bodies[0], first);
    guest.video(1500, P);
    assert_eq!(guest.lines(), ["key 1000", "keyframe needed: Hold", "key 1001"]);
    guest.video(1600, &key());
    guest.video(1633, P);
    assert_eq!(guest.lines(), ["key 1600", "inter 1633"]);
    assert_eq!(guest.muxer.stats().video.repeated, 2);
}

#[test]
fn nothing_is_repeated_unless_the_config_says_so() {
    let mut guest = Guest::showing();
    guest.muxer.repeat_keyframe(ms(1000));
    guest.drain();
    assert_eq!(guest.lines(), [""; 0]);
}

#[test]
fn pictures_of_one_time_come_a_millisecond_apart() {
    let mut guest = Guest::showing();
    guest.video_packet(guest.video_seq, 0, 1, P);
    guest.video_packet(guest.video_seq.wrapping_add(1), 0, 2, P);
    assert_eq!(guest.lines(), ["inter 1", "inter 2"]);
}

#[test]
fn a_clock_that_is_set_back_moves_no_picture_where_the_sps_forbids_reordering() {
    let mut guest = Guest::showing();
    let mut at = 0;
    for set_back_ms in [0, 466, 600, 1590, 9000] {
        for _ in 0..10 {
            at += 33;
            let sequence_number = guest.video_seq;
            guest.video_seq = sequence_number.wrapping_add(1);
            guest.video_packet(sequence_number, at - set_back_ms, at, P);
        }
    }
    let expected: Vec<String> = (1..=50).map(|n| format!("inter {}", n * 33)).collect();
    assert_eq!(guest.lines(), expected);
    assert!(guest.bodies.iter().all(|body| body.get(2..5).is_none_or(|offset| offset == [0, 0, 0])));
}

#[test]
fn jitter_of_the_rtp_times_becomes_no_composition_offset() {
    let mut guest = Guest::showing();
    for n in 1..100 {
        let sequence_number = guest.video_seq;
        guest.video_seq = sequence_number.wrapping_add(1);
        guest.video_packet(sequence_number, n * 33 + n * 7919 % 90, n * 33, P);
    }
    assert!(guest.bodies.iter().all(|body| body[2..5] == [0, 0, 0]));
    assert_eq!(guest.lines().len(), 99);
}

/// An SPS of Main with 4 bits of frame_num and pic_order_cnt_type 2, 320x240, and a PPS for it.
const MAIN: (&[u8], &[u8]) = (&[0x67, 0x4d, 0x00, 0x1e, 0xda, 0x05, 0x07, 0xe4], PPS);

/// A P slice with nal_ref_idc 3 of this frame_num: first_mb 0, slice_type 5, PPS 0, then four bits.
fn refreshed(frame_num: i64) -> Vec<u8> {
    let [.., low] = (frame_num % 16).to_be_bytes();
    // 1 | 00110 | 1 | frame_num
    let bits = 0b1001_1010_0000_0000u16 | u16::from(low) << 5 | 1;
    [&[0x61][..], &bits.to_be_bytes(), &[0x55, 0x80]].concat()
}

/// The recovery point SEI message: recovery_frame_cnt 3 is 00100, exact_match_flag 1, broken_link_flag 0, 00.
const RECOVERY_IN_3: &[u8] = &[0x06, 0x06, 0x02, 0b0010_0100, 0b0100_0000, 0x80];

/// A guest of intra refresh after its IDR picture and a loss; a recovery point every 20th picture.
fn refreshing(lost: &[i64], pictures: i64) -> Guest {
    let mut guest = Guest::video_only();
    guest.video(0, &stap_a(&[MAIN.0, MAIN.1, IDR]));
    for n in 1..pictures {
        if lost.contains(&n) {
            guest.lose_video();
            continue;
        }
        let slice = refreshed(n);
        guest.video(n * 40, &if n % 20 == 0 { stap_a(&[RECOVERY_IN_3, &slice]) } else { slice });
        guest.wait();
    }
    guest
}

fn inter(times: impl IntoIterator<Item = i64>) -> impl Iterator<Item = String> {
    times.into_iter().map(|ms| format!("inter {ms}"))
}

#[test]
fn a_refresh_that_is_complete_opens_the_gate_with_its_pictures_a_millisecond_apart() {
    let mut guest = refreshing(&[10], 50);
    let mut expected: Vec<String> = ["metadata 0", "avcC 0", "key 0"].map(String::from).into();
    expected.extend(inter((1..10).map(|n| n * 40)));
    expected.extend(["keyframe needed: Loss".to_owned(), "recovered".to_owned()]);
    // From the point at 20; exact at 23, which is less than a second behind the loss, so until 36.
    let exact = 36 * 40;
    expected.extend(inter(exact - 16..exact));
    expected.extend(inter((36..50).map(|n| n * 40)));
    assert_eq!(guest.lines(), expected);
    let stats = guest.muxer.stats().video;
    assert_eq!((stats.recoveries, stats.waiting_for_keyframe), (1, false));
    assert_eq!(stats.dropped.waiting_for_keyframe, 9);
}

#[test]
fn a_refresh_with_a_second_loss_in_it_is_not_complete() {
    let mut guest = refreshing(&[10, 21, 41], 70);
    let lines = guest.lines();
    let at = lines.iter().position(|line| line == "recovered").expect("the third point");
    assert_eq!(lines[at..at + 5], ["recovered", "inter 2517", "inter 2518", "inter 2519", "inter 2520"]);
    assert_eq!(guest.muxer.stats().video.recoveries, 1);
}

#[test]
fn an_idr_picture_ends_a_refresh_that_is_held() {
    let mut guest = refreshing(&[10], 23);
    guest.lines();
    guest.video(23 * 40, &stap_a(&[MAIN.0, MAIN.1, IDR]));
    guest.video(24 * 40, &refreshed(1));
    assert_eq!(guest.lines(), ["key 920", "inter 960"]);
    assert_eq!(guest.muxer.stats().video.dropped.waiting_for_keyframe, 12);
}

#[test]
fn a_refresh_without_an_idr_picture_before_it_or_with_other_parameter_sets_opens_nothing() {
    let mut guest = refreshing(&[0], 1);
    guest.lines();
    guest.lose_video();
    for n in 2..100 {
        let slice = refreshed(n);
        let other: &[u8] = &[0x68, 0xcb, 0x83, 0xcb, 0x40];
        guest.video(n * 40, &if n % 20 == 0 { stap_a(&[other, RECOVERY_IN_3, &slice]) } else { slice });
        guest.wait();
    }
    assert_eq!(guest.lines(), ["keyframe needed: Loss"]);
    let mut guest = Guest::video_only();
    for n in 0..100 {
        let slice = refreshed(n);
        guest.video(n * 40, &if n % 20 == 0 { stap_a(&[MAIN.0, MAIN.1, RECOVERY_IN_3, &slice]) } else { slice });
    }
    assert_eq!(guest.lines(), ["keyframe needed: Start"]);
}

#[test]
fn what_is_held_for_a_refresh_is_bounded() {
    let mut guest = refreshing(&[10], 20);
    guest.lines();
    let large = vec![0x55; 60_000];
    for n in 20..24 {
        let slice = refreshed(n);
        guest.muxer.handle_timeout(ms(n * 40));
        let payload = if n == 20 { stap_a(&[RECOVERY_IN_3, &slice]) } else { slice };
        // 25 slices of 60,000 bytes behind the first: three pictures fit, four do not.
        for part in 0..26 {
            let sequence_number = guest.video_seq;
            guest.video_seq = sequence_number.wrapping_add(1);
            let later = [&[0x61, 0x16][..], &large].concat();
            let packet = RtpPacket {
                payload_type: 96,
                marker: part == 25,
                sequence_number,
                rtp_time: ticks(n * 40, 90),
                ssrc: guest.video_ssrc,
                extension: None,
                payload: if part == 0 { &payload } else { &later },
            };
            guest.muxer.handle_rtp(TrackKind::Video, &packet, ms(n * 40));
        }
    }
    assert_eq!(guest.muxer.stats().video.dropped.waiting_for_keyframe, 9 + 3 + 1);
}
