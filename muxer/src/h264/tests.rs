//! H.264 payloads (RFC 6184): access units as they should come out, and everything that can be wrong with one.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::fixtures::{
    DELIMITER, FILLER, IDR, IDR_LATER_SLICE, P, PPS as X264_PPS, SEI as X264_SEI, SPS as X264_SPS, fu_a, stap_a,
    with_lengths,
};

/// What an access unit was: "IDR", "P", "loss", ... and the bytes behind the tag header.
#[derive(Debug, PartialEq)]
struct Ended(&'static str, Vec<u8>);

fn idr(nals: &[&[u8]]) -> Ended {
    Ended("IDR", with_lengths(nals))
}

fn p(nals: &[&[u8]]) -> Ended {
    Ended("P", with_lengths(nals))
}

fn nothing(what: &'static str) -> Ended {
    Ended(what, Vec::new())
}

struct Rig {
    depacketizer: Depacketizer,
    ended: Vec<Ended>,
}

impl Rig {
    fn new() -> Self {
        Self::with_sdp(&[])
    }

    fn with_sdp(sets: &[&[u8]]) -> Self {
        Self { depacketizer: Depacketizer::new(sets.iter().copied()), ended: Vec::new() }
    }

    /// A rig whose stream has begun with an IDR picture at RTP time 0.
    fn started() -> Self {
        let mut rig = Self::new();
        rig.packet(0, true, &stap_a(&[X264_SPS, X264_PPS, IDR]));
        assert_eq!(rig.ended(), [idr(&[IDR])]);
        rig
    }

    fn packet(&mut self, rtp_time: u32, marker: bool, payload: &[u8]) {
        let packet = MediaPacket { marker, rtp_time, arrival: MediaTime::ZERO, payload };
        if self.depacketizer.ends_before(&packet) {
            self.finish();
        }
        self.depacketizer.push(&packet);
        if self.depacketizer.is_over() {
            self.finish();
        }
    }

    fn packets(&mut self, rtp_time: u32, payloads: &[Vec<u8>]) {
        let (last, others) = payloads.split_last().unwrap();
        others.iter().for_each(|payload| self.packet(rtp_time, false, payload));
        self.packet(rtp_time, true, last);
    }

    fn finish(&mut self) {
        let ended = match self.depacketizer.finish() {
            AccessUnit::NoPicture => nothing("no picture"),
            AccessUnit::Damaged(Damage::Loss) => nothing("loss"),
            AccessUnit::Damaged(Damage::Malformed) => nothing("malformed"),
            AccessUnit::Damaged(Damage::TooLarge) => nothing("too large"),
            AccessUnit::Picture(picture) => {
                let mut body = Vec::new();
                self.depacketizer.swap_body(&mut body);
                let (room, nals) = body.split_first_chunk::<VIDEO_HEADER_LEN>().unwrap();
                assert_eq!(*room, [0; VIDEO_HEADER_LEN]);
                Ended(if picture.idr { "IDR" } else { "P" }, nals.to_vec())
            }
        };
        self.ended.push(ended);
    }

    fn ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }
}

#[test]
fn single_nal_units_of_one_time_are_one_access_unit() {
    let mut rig = Rig::new();
    for nal in [DELIMITER, X264_SPS, X264_PPS, X264_SEI, IDR] {
        rig.packet(0, false, nal);
    }
    rig.packet(0, true, IDR_LATER_SLICE);
    rig.packet(3000, true, P);
    assert_eq!(rig.ended(), [idr(&[X264_SEI, IDR, IDR_LATER_SLICE]), p(&[P])]);
}

#[test]
fn an_access_unit_ends_where_the_time_changes_when_no_marker_says_so() {
    let mut rig = Rig::new();
    rig.packet(0, false, &stap_a(&[X264_SPS, X264_PPS, IDR]));
    rig.packet(3000, false, P);
    assert_eq!(rig.ended(), [idr(&[IDR])]);
    rig.packet(6000, true, P);
    assert_eq!(rig.ended(), [p(&[P]), p(&[P])]);
}

#[test]
fn parameter_sets_may_come_in_an_access_unit_of_their_own() {
    let mut rig = Rig::new();
    rig.packet(0, true, X264_SPS);
    rig.packet(10, false, X264_PPS);
    rig.packet(20, true, IDR);
    assert_eq!(rig.ended(), [nothing("no picture"), nothing("no picture"), idr(&[IDR])]);
}

#[test]
fn fragments_are_joined_whatever_their_size() {
    for size in 1..=6 {
        let mut rig = Rig::started();
        rig.packets(3000, &fu_a(&[P, P, P].concat(), size));
        assert_eq!(rig.ended(), [p(&[&[P, P, P].concat()])], "{size} bytes in each");
    }
}

#[test]
fn fragments_of_parameter_sets_are_joined_too() {
    let mut rig = Rig::new();
    for nal in [X264_SPS, X264_PPS] {
        fu_a(nal, 3).iter().for_each(|fragment| rig.packet(0, false, fragment));
    }
    rig.packets(0, &fu_a(IDR, 2));
    assert_eq!(rig.ended(), [idr(&[IDR])]);
    assert!(rig.depacketizer.sets.write_avcc(Some(0), &mut Vec::new()).is_some());
}

#[test]
fn the_first_slice_names_its_pps_in_a_packet_and_in_fragments() {
    // pic_parameter_set_id 2: 1 | 0001000 | 011
    let slice = [0x65, 0x88, 0x60, 0x11, 0x22];
    for payloads in [vec![slice.to_vec()], fu_a(&slice, 1)] {
        let mut rig = Rig::with_sdp(&[X264_SPS, X264_PPS]);
        for payload in payloads {
            rig.depacketizer.push(&MediaPacket {
                marker: false,
                rtp_time: 0,
                arrival: MediaTime::ZERO,
                payload: &payload,
            });
        }
        let AccessUnit::Picture(picture) = rig.depacketizer.finish() else { panic!("a picture") };
        assert_eq!(picture.pps_id, Some(2));
    }
}

#[test]
fn delimiters_filler_and_undefined_types_are_left_out() {
    let mut rig = Rig::started();
    // Types 16..=18 and 22..=23 are reserved, 0, 30 and 31 undefined (RFC 6184 table 1).
    for header in [16, 17, 18, 22, 23, 0, 30, 31] {
        rig.packet(3000, false, &[header | 0x60, 1, 2, 3]);
    }
    rig.packet(3000, false, &stap_a(&[DELIMITER, P, FILLER, &[0x7f, 1]]));
    rig.packet(3000, true, FILLER);
    assert_eq!(rig.ended(), [p(&[P])]);
}

/// One picture made of these packets, its last one with the marker, in a stream that has begun.
fn one_picture(payloads: &[&[u8]]) -> Vec<Ended> {
    let mut rig = Rig::started();
    let payloads: Vec<Vec<u8>> = payloads.iter().map(|payload| payload.to_vec()).collect();
    rig.packets(3000, &payloads);
    // Whatever it was, the next picture is whole.
    rig.packet(6000, true, P);
    let mut ended = rig.ended();
    assert_eq!(ended.pop(), Some(p(&[P])));
    ended
}

#[test]
fn malformed_pictures_yield_no_bytes() {
    let fragments = fu_a(&[P, P].concat(), 3);
    let [first, middle, last] = <[Vec<u8>; 3]>::try_from(fragments).unwrap();
    let cases: [(&str, Vec<&[u8]>); 13] = [
        ("forbidden bit", vec![P, &[0xc1, 0x9a]]),
        ("forbidden bit inside STAP-A", vec![&[0x78, 0, 2, 0xc1, 0x9a]]),
        ("forbidden bit on STAP-A", vec![P, &[0xf8, 0, 2, 0x41, 0x9a]]),
        ("forbidden bit on FU-A", vec![&first, &[0xdc, 0x01, 1], &last]),
        ("STAP-A size beyond the packet", vec![P, &[0x78, 0, 9, 0x41, 0x9a]]),
        ("STAP-A inside STAP-A", vec![&[0x78, 0, 5, 0x78, 0, 2, 0x41, 0x9a]]),
        ("FU-A inside STAP-A", vec![&[0x78, 0, 3, 0x7c, 0xc1, 0x9a]]),
        ("FU-A without start", vec![&middle, &last]),
        ("FU-A type change", vec![&first, &[0x5c, 0x05, 1, 2], &last]),
        ("FU-A of the header alone", vec![&first, &[0x5c], &last]),
        ("FU-A broken by another packet", vec![&first, P, &last]),
        ("FU-A of an aggregate", vec![&[0x5c, 0x98, 1], &[0x5c, 0x58, 1]]),
        ("packets of the interleaved mode", vec![P, &[0x59, 0, 0, 0, 2, 0x41, 0x9a]]),
    ];
    for (name, payloads) in cases {
        assert_eq!(one_picture(&payloads), [nothing("malformed")], "{name}");
    }
}

#[test]
fn a_stap_a_may_hold_empty_units_and_end_in_half_a_size() {
    assert_eq!(one_picture(&[&[0x78, 0, 0, 0, 2, 0x41, 0x9a, 0]]), [p(&[&[0x41, 0x9a]])]);
    assert_eq!(one_picture(&[&[0x78], P]), [p(&[P])]);
}

#[test]
fn an_fu_a_with_start_and_end_is_a_whole_unit() {
    assert_eq!(one_picture(&[&[0x5c, 0xc1, 0x9a, 0x21]]), [p(&[&[0x41, 0x9a, 0x21]])]);
    let whole = [&[0x5c, 0xc1], &P[1..]].concat();
    let parts = fu_a(P, 2);
    assert_eq!(one_picture(&[&whole, &parts[0], &parts[1], &whole]), [p(&[P; 3])]);
    let mut rig = Rig::new();
    for nal in [X264_SPS, X264_PPS, X264_SEI, IDR] {
        rig.packet(0, nal == IDR, &fu_a(nal, 100)[0]);
    }
    assert_eq!(rig.ended(), [idr(&[X264_SEI, IDR])]);
}

#[test]
fn a_fragment_without_bytes_is_nothing() {
    let parts = fu_a(P, 2);
    // Start, middle and end bit alone, in front of, between and behind what holds the unit.
    for (start, middle, end) in [(0x81, 0x01, 0x41), (0x01, 0x41, 0xc1)] {
        let [before, between, behind] = [start, middle, end].map(|header| [0x5c, header]);
        if middle == 0x01 {
            assert_eq!(one_picture(&[&before, &parts[0], &between, &parts[1], &behind]), [p(&[P])]);
        } else {
            assert_eq!(one_picture(&[&before, &parts[0], &parts[1], &between, &behind]), [p(&[P])]);
        }
    }
    // What starts in a fragment without bytes goes on in one without a start.
    let continued = [&[0x5c, 0x01], &parts[0][2..]].concat();
    assert_eq!(one_picture(&[&[0x5c, 0x81], &continued, &parts[1]]), [p(&[P])]);
    let mut rig = Rig::started();
    rig.packets(3000, &[vec![0x5c, 0x81], vec![0x5c, 0x41]]);
    assert_eq!((rig.ended(), rig.depacketizer.ignored_units), (vec![nothing("no picture")], 2));
}

#[test]
fn a_unit_without_its_end_bit_ends_where_the_next_packet_is_of_something_else() {
    let mut parts = fu_a(P, 2);
    parts[1][1] &= !0x40;
    let [first, last] = <[Vec<u8>; 2]>::try_from(parts).unwrap();
    let other = fu_a(X264_SEI, 100);
    assert_eq!(one_picture(&[&first, &last]), [p(&[P])], "the marker");
    assert_eq!(one_picture(&[&first, &last, &first, &last]), [p(&[P, P])], "the next start");
    assert_eq!(one_picture(&[&first, &last, &other[0], P]), [p(&[P, X264_SEI, P])], "a start of another type");
    assert_eq!(one_picture(&[&first, &last, P]), [p(&[P, P])], "a single unit");
    assert_eq!(one_picture(&[&first, &last, &stap_a(&[P, P])]), [p(&[P, P, P])], "a STAP-A");
    let mut rig = Rig::started();
    rig.packet(3000, false, &first);
    rig.packet(3000, false, &last);
    rig.packet(6000, true, P);
    assert_eq!(rig.ended(), [p(&[P]), p(&[P])], "another time");
}

#[test]
fn a_unit_without_its_end_bit_is_damaged_when_a_packet_behind_it_is_missing() {
    let parts = fu_a(P, 2);
    for behind in [P, &parts[0]] {
        let mut rig = Rig::started();
        rig.packet(3000, false, &parts[0]);
        rig.depacketizer.lose();
        rig.packet(3000, true, behind);
        assert_eq!(rig.ended(), [nothing("loss")]);
    }
}

/// An encoder's output as it is: each unit behind a start code of so many bytes.
fn byte_stream(nals: &[&[u8]], start_code: usize) -> Vec<u8> {
    let code = [vec![0; start_code - 1], vec![1]].concat();
    nals.iter().flat_map(|nal| [&code, *nal].concat()).collect()
}

#[test]
fn a_byte_stream_inside_a_packet_is_divided_into_units() {
    let whole = [DELIMITER, X264_SPS, X264_PPS, X264_SEI, IDR, IDR_LATER_SLICE];
    let kept: [&[u8]; 3] = [X264_SEI, IDR, IDR_LATER_SLICE];
    for start_code in [3, 4, 5] {
        let stream = byte_stream(&whole, start_code);
        let without_first_code = stream[start_code..].to_vec();
        let ended_by_zeros = [&stream[..], &[0, 0]].concat();
        for stream in [stream, without_first_code, ended_by_zeros] {
            let mut packets = vec![vec![stream.clone()], vec![stap_a(&[&stream])]];
            packets.extend((1..stream.len()).step_by(5).map(|size| fu_a(&stream, size)));
            for packets in packets {
                let mut rig = Rig::new();
                rig.packets(0, &packets);
                rig.packet(3000, true, P);
                assert_eq!(rig.ended(), [idr(&kept), p(&[P])], "{start_code} bytes, {packets:x?}");
            }
        }
    }
}

#[test]
fn slices_of_one_picture_may_come_as_a_byte_stream() {
    let stream = byte_stream(&[P, P, P], 3);
    for stream in [&stream[..], &stream[3..]] {
        assert_eq!(one_picture(&[stream]), [p(&[P, P, P])]);
        let parts = fu_a(stream, 4);
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        assert_eq!(one_picture(&parts), [p(&[P, P, P])]);
    }
}

#[test]
fn a_byte_stream_behind_a_parameter_set_may_be_larger_than_any_parameter_set() {
    let slice = [IDR, &[0x55; 3 * MAX_PARAMETER_SET_BYTES][..]].concat();
    for first in [X264_SPS, DELIMITER] {
        let stream = byte_stream(&[first, X264_SPS, X264_PPS, &slice], 4);
        let mut rig = Rig::new();
        rig.packets(0, &fu_a(&stream[4..], 1000));
        assert_eq!(rig.ended(), [idr(&[&slice])]);
    }
}

#[test]
fn a_slice_behind_a_marker_that_is_not_a_first_one_belongs_to_the_picture_before() {
    let later: &[u8] = &[0x41, 0x16, 0x22];
    // Each unit has the marker, parameter sets too: known before the first slice.
    let mut rig = Rig::new();
    for nal in [X264_SPS, X264_PPS, X264_SEI, IDR, IDR_LATER_SLICE, IDR_LATER_SLICE] {
        rig.packet(0, true, nal);
    }
    for time in [3000, 6000] {
        rig.packet(time, true, P);
        for part in fu_a(later, 1) {
            rig.packet(time, true, &part);
        }
    }
    assert_eq!(rig.depacketizer.deadline(false), Some(MediaTime::from_millis(100)));
    assert_eq!(rig.depacketizer.deadline(true), None, "the missing packets may be of this picture");
    rig.finish();
    assert_eq!(
        rig.ended(),
        [
            nothing("no picture"),
            nothing("no picture"),
            idr(&[X264_SEI, IDR, IDR_LATER_SLICE, IDR_LATER_SLICE]),
            p(&[P, later]),
            p(&[P, later])
        ]
    );
}

#[test]
fn a_marker_that_was_wrong_costs_one_picture_and_is_a_hint_from_then_on() {
    let later: &[u8] = &[0x41, 0x16, 0x22];
    let mut rig = Rig::started();
    rig.packet(3000, true, P);
    rig.packet(3000, true, later);
    for time in [6000, 9000] {
        rig.packet(time, true, P);
        rig.packet(time, true, later);
    }
    rig.finish();
    assert_eq!(rig.ended(), [p(&[P]), nothing("malformed"), p(&[P, later]), p(&[P, later])]);
}

#[test]
fn a_marker_that_is_right_again_for_long_is_believed_again() {
    let later: &[u8] = &[0x41, 0x16, 0x22];
    let mut rig = Rig::started();
    let mut time = 0;
    let mut waits = |rig: &mut Rig, pictures: u32| {
        for _ in 0..pictures {
            time += 3000;
            rig.packet(time, true, P);
        }
        rig.depacketizer.deadline(false).is_some()
    };
    assert!(!waits(&mut rig, 1));
    for (enough, time) in [(64, 1), (64 * 64, 2)] {
        rig.packet(time, true, P);
        rig.packet(time, true, later);
        assert!(waits(&mut rig, enough));
        assert!(!waits(&mut rig, 2));
    }
}

#[test]
fn pictures_that_share_a_time_stay_separate() {
    let later: &[u8] = &[0x41, 0x16, 0x22];
    let mut rig = Rig::started();
    for _ in 0..3 {
        rig.packet(3000, true, P);
    }
    assert_eq!(rig.ended(), [p(&[P]), p(&[P]), p(&[P])]);
    // Also where the marker is known to be wrong.
    let mut rig = Rig::started();
    rig.packet(3000, true, P);
    rig.packet(3000, true, later);
    rig.ended();
    for next in [P.to_vec(), stap_a(&[X264_PPS, P]), fu_a(P, 2).concat(), byte_stream(&[X264_SPS, P], 4)] {
        rig.packet(6000, true, P);
        rig.packet(6000, true, later);
        rig.packet(6000, true, &next);
    }
    let ended = rig.ended();
    assert_eq!(ended.iter().filter(|ended| **ended == p(&[P, later])).count(), 4, "{ended:?}");
}

#[test]
fn parameter_sets_with_a_marker_cost_a_sender_whose_marker_is_right_nothing_from_its_second_picture_on() {
    let mut rig = Rig::new();
    for nal in [X264_SPS, X264_PPS, IDR] {
        rig.packet(0, true, nal);
    }
    assert_eq!(rig.depacketizer.deadline(false), Some(MediaTime::from_millis(5)));
    rig.packet(3000, true, P);
    for nal in [X264_SPS, X264_PPS, IDR] {
        rig.packet(6000, true, nal);
    }
    let ended = rig.ended();
    assert_eq!(ended.iter().filter(|ended| ended.0 != "no picture").count(), 3, "{ended:?}");
    assert_eq!(rig.depacketizer.deadline(false), None);
}

#[test]
fn a_loss_inside_a_picture_spoils_it_and_not_the_next() {
    let mut rig = Rig::started();
    let fragments = fu_a(&[P, P].concat(), 3);
    rig.packet(3000, false, &fragments[0]);
    rig.depacketizer.lose();
    rig.packet(3000, true, &fragments[2]);
    rig.packet(6000, true, P);
    assert_eq!(rig.ended(), [nothing("loss"), p(&[P])]);
}

#[test]
fn what_does_not_fit_together_behind_a_loss_counts_as_loss() {
    let mut rig = Rig::started();
    rig.depacketizer.lose();
    rig.packets(3000, &fu_a(IDR, 2)[1..]);
    assert_eq!(rig.ended(), [nothing("loss")]);
}

#[test]
fn an_idr_picture_right_behind_a_loss_needs_its_parameter_sets() {
    let mut rig = Rig::started();
    rig.depacketizer.lose();
    rig.packet(3000, true, IDR);
    rig.packet(6000, true, IDR);
    assert_eq!(rig.ended(), [nothing("loss"), idr(&[IDR])]);
    rig.depacketizer.lose();
    rig.packet(9000, false, X264_PPS);
    rig.packet(9000, true, IDR);
    assert_eq!(rig.ended(), [nothing("loss")]);
    rig.depacketizer.lose();
    rig.packet(12_000, true, &stap_a(&[X264_SPS, X264_PPS, IDR]));
    assert_eq!(rig.ended(), [idr(&[IDR])]);
}

#[test]
fn parameter_sets_alone_do_not_make_up_for_a_loss_behind_them() {
    let mut rig = Rig::started();
    rig.depacketizer.lose();
    rig.packet(3000, true, &stap_a(&[X264_SPS, X264_PPS]));
    rig.depacketizer.lose();
    rig.packet(6000, true, IDR);
    assert_eq!(rig.ended(), [nothing("no picture"), nothing("loss")]);
}

#[test]
fn a_loss_in_front_of_parameter_sets_is_still_in_front_of_their_picture() {
    let mut rig = Rig::started();
    rig.depacketizer.lose();
    // The SPS that went with it is what may be missing.
    rig.packet(3000, true, X264_PPS);
    rig.packet(6000, true, IDR);
    assert_eq!(rig.ended(), [nothing("no picture"), nothing("loss")]);
}

#[test]
fn a_loss_that_reaches_into_the_next_picture_spoils_both() {
    let mut rig = Rig::started();
    rig.packet(3000, false, P);
    rig.depacketizer.lose();
    rig.packet(6000, true, IDR_LATER_SLICE);
    assert_eq!(rig.ended(), [nothing("loss"), nothing("loss")]);
}

#[test]
fn with_parameter_sets_from_the_sdp_alone_the_first_macroblock_shows_that_an_idr_picture_is_whole() {
    let mut rig = Rig::with_sdp(&[X264_SPS, X264_PPS]);
    rig.packet(0, true, IDR_LATER_SLICE);
    rig.depacketizer.lose();
    rig.packet(3000, true, IDR);
    assert_eq!(rig.ended(), [nothing("loss"), idr(&[IDR])]);
}

#[test]
fn the_number_of_units_is_bounded() {
    let mut rig = Rig::started();
    rig.packets(3000, &vec![P.to_vec(); MAX_UNITS]);
    rig.packets(6000, &vec![P.to_vec(); MAX_UNITS + 1]);
    assert_eq!(rig.ended(), [p(&[P; MAX_UNITS]), nothing("too large")]);
}

#[test]
fn the_size_of_a_nal_unit_and_of_an_access_unit_is_bounded() {
    let huge = |bytes: usize| [P, &vec![0x55; bytes - P.len()][..]].concat();
    let mut rig = Rig::started();
    rig.packets(3000, &fu_a(&huge(MAX_NAL_BYTES), 1 << 16));
    let ended = rig.ended();
    assert_eq!((ended[0].0, ended[0].1.len()), ("P", MAX_NAL_BYTES + 4));
    rig.packets(6000, &fu_a(&huge(MAX_NAL_BYTES + 1), 1 << 16));
    assert_eq!(rig.ended(), [nothing("too large")]);
    let three: Vec<Vec<u8>> = (0..3).flat_map(|_| fu_a(&huge(3 << 20), 1 << 16)).collect();
    rig.packets(9000, &three);
    assert_eq!(rig.ended(), [nothing("too large")]);
    assert!(rig.depacketizer.body.capacity() <= MAX_SPARE_BYTES);
}

#[test]
fn fragments_without_end_stay_under_the_bound() {
    let mut rig = Rig::started();
    let fragments = fu_a(&vec![0x41; 3 << 16], 1 << 16);
    rig.packet(3000, false, &fragments[0]);
    for _ in 0..1000 {
        rig.packet(3000, false, &fragments[1]);
        assert!(rig.depacketizer.body.len() <= MAX_NAL_BYTES + 9);
    }
    rig.packet(3000, true, &fragments[2]);
    assert_eq!(rig.ended(), [nothing("too large")]);
}

#[test]
fn an_endless_parameter_set_is_too_large() {
    let mut rig = Rig::started();
    rig.packets(3000, &fu_a(&vec![0x67; MAX_PARAMETER_SET_BYTES + 1], 1000));
    assert_eq!(rig.ended(), [nothing("too large")]);
}

#[test]
fn a_pps_that_changes_without_an_idr_picture_stands_in_front_of_its_slice() {
    let mut rig = Rig::started();
    let other = [0x68, 0xcb, 0x83, 0xcb, 0x40];
    rig.packet(3000, false, X264_PPS);
    rig.packet(3000, true, P);
    rig.packet(6000, false, &other);
    rig.packet(6000, true, P);
    rig.packet(9000, false, &other);
    rig.packet(9000, true, P);
    assert_eq!(rig.ended(), [p(&[P]), p(&[&other, P]), p(&[P])]);
}

#[test]
fn several_pps_stand_in_idr_pictures_too() {
    // pic_parameter_set_id 1, seq_parameter_set_id 0: 010 | 1
    let second = [0x68, 0x5b, 0x83, 0xcb, 0x20];
    let mut rig = Rig::new();
    rig.packet(0, true, &stap_a(&[X264_SPS, X264_PPS, &second, IDR]));
    rig.packet(3000, true, P);
    assert_eq!(rig.ended(), [idr(&[X264_PPS, &second, IDR]), p(&[P])]);
}
