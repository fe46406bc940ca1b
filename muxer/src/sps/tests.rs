//! SPS of x264 and of other encoders, and hostile ones.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::fixtures::{IDR, IDR_LATER_SLICE, P, PPS, PPS_HIGH, SPS, SPS_HIGH};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.bytes().map(|digit| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Bits from a string of 0 and 1, blanks ignored, behind the header byte of an SPS.
fn sps_of(bits: &str) -> Vec<u8> {
    let mut nal = vec![0x67];
    let bits: Vec<u8> = bits.bytes().filter(|bit| *bit != b' ').map(|bit| bit - b'0').collect();
    for byte in bits.chunks(8) {
        nal.push((0..8).fold(0, |value, n| value << 1 | byte.get(n).copied().unwrap_or(0)));
    }
    nal
}

fn ue(value: u32) -> String {
    let code = u64::from(value) + 1;
    format!("{}{code:b}", "0".repeat(usize::try_from(code.ilog2()).unwrap()))
}

/// A Baseline SPS with these syntax elements; no cropping, no VUI.
fn baseline(ref_frames: u32, width_in_mbs: u32, height_in_mbs: u32, tail: &str) -> Vec<u8> {
    sps_of(&format!(
        "01000010 11000000 00011110 1 1 011 {} 0 {}{}1 1 {tail}",
        ue(ref_frames),
        ue(width_in_mbs - 1),
        ue(height_in_mbs - 1),
    ))
}

#[test]
fn what_x264_was_told_to_encode_is_read_back() {
    // SPS of x264 (libx264 in FFmpeg 8), each encoded with the size and options given.
    let cases = [
        ("Baseline 320x240", "6742c00dd90141fb011000000300100000030320f142a480", (66, 13, 320, 240, 1, 8), Some(0)),
        (
            "High 1920x1080",
            "67640028acd940780227e5c044000003000400000300c83c60c658",
            (100, 40, 1920, 1080, 1, 8),
            Some(2),
        ),
        (
            "Main 638x358, 2 B-frames",
            "674d401ee8805017f5360220000003002000000641e2c5a240",
            (77, 30, 638, 358, 1, 8),
            Some(1),
        ),
        (
            "High 720x576 interlaced",
            "6764001eacd940b424d8088000000300800000190f8a14cb",
            (100, 30, 720, 576, 1, 8),
            Some(2),
        ),
        (
            "High 1920x1080 interlaced",
            "67640028acd94078044fde0220000003002000000643e2c5b2c0",
            (100, 40, 1920, 1080, 1, 8),
            Some(2),
        ),
        (
            "High 4:2:2 10 bit 1280x720",
            "677a001fb6cd9405005bb011000003000100000300320f183196",
            (122, 31, 1280, 720, 2, 10),
            Some(2),
        ),
        (
            "High 4:4:4 322x242",
            "67f4000d919b282a10f1f1f808800000030080000019078a14cb",
            (244, 13, 322, 242, 3, 8),
            Some(2),
        ),
        (
            "High 640x360, JVT matrices",
            "6764001eacd940a02ff97011000003000100000300320f162d96",
            (100, 30, 640, 360, 1, 8),
            Some(2),
        ),
        (
            "High 640x360, NAL HRD",
            "6764001eacd940a02ff9701100000300010000030032604000f424001e84e4c30078b16cb0",
            (100, 30, 640, 360, 1, 8),
            Some(2),
        ),
    ];
    for (name, nal, expected, reorder) in cases {
        let sps = Sps::parse(&hex(nal)).unwrap();
        let found = (sps.profile_idc, sps.level_idc, sps.width, sps.height, sps.chroma_format_idc, sps.bit_depth_luma);
        assert_eq!(found, expected, "{name}");
        assert_eq!(sps.max_reorder_frames, reorder, "{name}");
        assert_eq!(sps.id, 0, "{name}");
    }
    assert_eq!(Sps::parse(&hex("6764000b22cd942847e5c044000003000400000300c83c50a658")).unwrap().id, 3);
    assert_eq!(pps_ids(&hex("68212be3cb22c0")), Ok((3, 3)));
    assert_eq!(Sps::parse(SPS_HIGH).unwrap().max_ref_frames, 4);
}

#[test]
fn ids_of_pps_and_slices_are_read() {
    assert_eq!(pps_ids(PPS), Ok((0, 0)));
    assert_eq!(pps_ids(PPS_HIGH), Ok((0, 0)));
    assert_eq!(slice_ids(IDR), Ok((0, 0)));
    assert_eq!(slice_ids(P), Ok((0, 0)));
    assert_eq!(slice_ids(IDR_LATER_SLICE).map(|(first_mb, _)| first_mb), Ok(10));
}

#[test]
fn any_prefix_of_an_sps_is_read_in_bounds() {
    for nal in [SPS, SPS_HIGH] {
        let whole = Sps::parse(nal).unwrap();
        for len in 0..nal.len() {
            if let Ok(sps) = Sps::parse(&nal[..len]) {
                // Nothing but the end of the VUI may be missing.
                assert_eq!((sps.width, sps.height), (whole.width, whole.height));
            }
        }
        assert_eq!(Sps::parse(&nal[..6]), Err(ParameterSetError::Truncated));
    }
}

#[test]
fn sizes_are_bounded() {
    let at_the_bound = Sps::parse(&baseline(1, 512, 512, "0 0 1")).unwrap();
    assert_eq!((at_the_bound.width, at_the_bound.height), (8192, 8192));
    assert_eq!(Sps::parse(&baseline(1, 513, 512, "0 0 1")), Err(ParameterSetError::Size { width: 8208, height: 8192 }));
    assert_eq!(
        Sps::parse(&baseline(1, 1, u32::MAX, "0 0 1")),
        Err(ParameterSetError::Size { width: 16, height: u64::from(u32::MAX) * 16 })
    );
}

#[test]
fn reference_frames_are_bounded() {
    assert_eq!(Sps::parse(&baseline(16, 1, 1, "0 0 1")).unwrap().max_ref_frames, 16);
    assert_eq!(Sps::parse(&baseline(17, 1, 1, "0 0 1")), Err(ParameterSetError::OutOfRange("max_num_ref_frames", 17)));
}

#[test]
fn cropping_is_in_chroma_units_and_leaves_a_picture() {
    let crop = |left, right, top, bottom| format!("1 {}{}{}{} 0 1", ue(left), ue(right), ue(top), ue(bottom));
    let sps = Sps::parse(&baseline(1, 80, 46, &crop(0, 1, 2, 6))).unwrap();
    assert_eq!((sps.width, sps.height), (1278, 720));
    assert_eq!(Sps::parse(&baseline(1, 1, 1, &crop(4, 4, 0, 0))), Err(ParameterSetError::Crop));
    assert_eq!(Sps::parse(&baseline(1, 1, 1, &crop(u32::MAX - 1, u32::MAX - 1, 0, 0))), Err(ParameterSetError::Crop));
}

#[test]
fn elements_beyond_their_range_are_named() {
    let head = "01000010 11000000 00011110";
    for (bits, element, value) in [
        (format!("{head} {}", ue(32)), "seq_parameter_set_id", 32),
        (format!("{head} 1 {}", ue(13)), "log2_max_frame_num_minus4", 13),
        (format!("{head} 1 1 {}", ue(3)), "pic_order_cnt_type", 3),
        (format!("{head} 1 1 {} 0 1 1 {}", ue(1), ue(256)), "num_ref_frames_in_pic_order_cnt_cycle", 256),
        (format!("01100100 00000000 00011110 1 {}", ue(4)), "chroma_format_idc", 4),
        (format!("01100100 00000000 00011110 1 {} {}", ue(1), ue(7)), "bit_depth_luma_minus8", 7),
    ] {
        let nal = sps_of(&format!("{bits} 11111111 11111111"));
        assert_eq!(Sps::parse(&nal), Err(ParameterSetError::OutOfRange(element, value)));
    }
}

#[test]
fn a_reorder_depth_beyond_the_reference_frames_is_refused() {
    // VUI: seven flags off, bitstream_restriction_flag, a flag, four zeros, then the depth.
    let vui = |depth| format!("0 1 0 0 0 0 0 0 0 0 1 0 1 1 1 1 {} 1 1", ue(depth));
    assert_eq!(Sps::parse(&baseline(1, 1, 1, &vui(3))).unwrap().max_reorder_frames, Some(3));
    assert_eq!(
        Sps::parse(&baseline(1, 1, 1, &vui(17))),
        Err(ParameterSetError::OutOfRange("max_num_reorder_frames", 17))
    );
}

#[test]
fn a_vui_that_ends_early_only_hides_the_reorder_depth() {
    assert_eq!(Sps::parse(&baseline(1, 1, 1, "0 1 1")).unwrap().max_reorder_frames, None);
    // cpb_cnt_minus1 beyond its range: the rest cannot be read.
    assert_eq!(
        Sps::parse(&baseline(1, 1, 1, &format!("0 1 0 0 0 0 0 1 {}", ue(1000)))).unwrap().max_reorder_frames,
        None
    );
}

#[test]
fn long_and_foreign_nal_units_are_refused() {
    assert_eq!(Sps::parse(&vec![0x67; 65_536]), Err(ParameterSetError::TooLong { bytes: 65_536 }));
    assert_eq!(Sps::parse(PPS), Err(ParameterSetError::NalType(8)));
    assert_eq!(Sps::parse(&[]), Err(ParameterSetError::Truncated));
    assert_eq!(pps_ids(SPS), Err(ParameterSetError::NalType(7)));
}

#[test]
fn a_picture_order_count_cycle_of_255_offsets_is_read() {
    let bits =
        format!("01000010 11000000 00011110 1 1 {} 0 1 1 {} {} 1 0 1 1 1 1 0 0 1", ue(1), ue(255), "1".repeat(255));
    assert_eq!(Sps::parse(&sps_of(&bits)).map(|sps| (sps.width, sps.height)), Ok((16, 16)));
}
