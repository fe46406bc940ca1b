//! A picture that stands in where nobody is: one IDR picture with its parameter sets, ready to be sent at any time.
//!
//! Input: an Annex B file (H.264 Annex B) with one IDR picture, or nothing for [`Still::black`]. Output: avcC and the body
//! of a keyframe's tag. Bound: [`MAX_STILL_BYTES`].

use std::fmt;

use crate::bits::RbspBits;
use crate::bytes::Writer;
use crate::flv::VideoHeader;
use crate::parameter_sets::ParameterSets;
use crate::sps::{ParameterSetError, Sps};

/// The largest file read. It goes out once a second.
pub const MAX_STILL_BYTES: usize = 1 << 20;

/// NAL unit types (H.264 table 7-1).
const SLICE: u8 = 1;
const PARTITION_C: u8 = 4;
const IDR: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;
const DELIMITER: u8 = 9;
const FILLER: u8 = 12;

/// Why a file is no still picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StillError {
    /// More than [`MAX_STILL_BYTES`].
    TooLarge,
    /// No NAL unit stands behind a start code.
    NotAnnexB,
    /// A parameter set cannot be read.
    ParameterSet(ParameterSetError),
    /// A slice that is not of an IDR picture.
    NotIdr,
    /// A slice's header cannot be read.
    BadSlice,
    /// No IDR picture.
    NoPicture,
    /// Several pictures.
    SeveralPictures,
    /// The SPS or PPS that the picture names is missing.
    NoParameterSets,
    /// A NAL unit of a type that has no place here.
    NalType(u8),
}

impl fmt::Display for StillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "more than {} kB", MAX_STILL_BYTES / 1024),
            Self::NotAnnexB => write!(f, "no H.264 stream with start codes (Annex B)"),
            Self::ParameterSet(error) => error.fmt(f),
            Self::NotIdr => write!(f, "a picture that is not an IDR picture"),
            Self::BadSlice => write!(f, "a slice whose header cannot be read"),
            Self::NoPicture => write!(f, "no picture"),
            Self::SeveralPictures => write!(f, "more than one picture"),
            Self::NoParameterSets => write!(f, "no SPS or PPS for the picture"),
            Self::NalType(kind) => write!(f, "a NAL unit of type {kind}, which a still picture does not need"),
        }
    }
}

impl std::error::Error for StillError {}

impl From<ParameterSetError> for StillError {
    fn from(error: ParameterSetError) -> Self {
        Self::ParameterSet(error)
    }
}

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub struct Still {
    pub(crate) sps: Sps,
    pub(crate) avcc: Vec<u8>,
    /// The body of a keyframe's tag.
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Still {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Still({}x{}, {} bytes)", self.sps.width, self.sps.height, self.body.len())
    }
}

impl Still {
    /// Reads a file: SPS, PPS and the slices of one IDR picture. Delimiters, SEI and filler are left out.
    pub fn parse(annex_b: &[u8]) -> Result<Self, StillError> {
        if annex_b.len() > MAX_STILL_BYTES {
            return Err(StillError::TooLarge);
        }
        let units = nal_units(annex_b).ok_or(StillError::NotAnnexB)?;
        let mut sets = ParameterSets::default();
        let mut body = VideoHeader::Picture { key: true, composition_time_ms: 0 }.to_bytes().to_vec();
        let mut pps_id = None;
        for nal in units {
            let (kind, rest) = nal.split_first().map(|(header, rest)| (header & 0x1f, rest)).unwrap_or_default();
            match kind {
                SPS => sets.store_sps(nal)?,
                PPS => sets.store_pps(nal)?,
                IDR => {
                    let (first, pps) = slice_header(rest).ok_or(StillError::BadSlice)?;
                    if first && pps_id.is_some() {
                        return Err(StillError::SeveralPictures);
                    }
                    pps_id.get_or_insert(pps);
                    let mut writer = Writer::new(&mut body);
                    writer.u32(u32::try_from(nal.len()).expect("at most MAX_STILL_BYTES"));
                    writer.bytes(nal);
                }
                SLICE..=PARTITION_C => return Err(StillError::NotIdr),
                SEI | DELIMITER..=FILLER => {}
                kind => return Err(StillError::NalType(kind)),
            }
        }
        let pps_id = pps_id.ok_or(StillError::NoPicture)?;
        let mut avcc = Vec::new();
        let sps = sets.write_avcc(Some(pps_id), &mut avcc).ok_or(StillError::NoParameterSets)?;
        Ok(Self { sps, avcc, body })
    }

    /// Black, 1280x720, Constrained Baseline, level 3.1. Some 4 kB.
    pub fn black() -> Self {
        Self::parse(&black_annex_b()).expect("made to be read")
    }

    /// The body of its tag: that of a keyframe.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.sps.width, self.sps.height)
    }
}

/// The first slice of a picture, and the PPS it names (H.264 §7.3.3).
fn slice_header(slice: &[u8]) -> Option<(bool, u8)> {
    let mut bits = RbspBits::new(slice);
    let first = bits.ue().ok()? == 0;
    bits.ue().ok()?; // slice_type
    Some((first, u8::try_from(bits.ue().ok()?).ok()?))
}

/// The NAL units behind start codes, without the zeros around them (H.264 §B.1.1); `None` when something else comes first.
fn nal_units(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    const START: [u8; 3] = [0, 0, 1];
    let next = |bytes: &[u8]| bytes.windows(START.len()).position(|window| window == START);
    let start = next(bytes)?;
    if bytes.iter().take(start).any(|byte| *byte != 0) {
        return None;
    }
    let mut units = Vec::new();
    bytes = bytes.get(start + START.len()..)?;
    loop {
        let end = next(bytes);
        let unit = bytes.get(..end.unwrap_or(bytes.len()))?;
        let zeros = unit.iter().rev().take_while(|byte| **byte == 0).count();
        let unit = unit.get(..unit.len() - zeros)?;
        if !unit.is_empty() {
            units.push(unit);
        }
        match end {
            Some(end) => bytes = bytes.get(end + START.len()..)?,
            None => return (!units.is_empty()).then_some(units),
        }
    }
}

/// Bits of a NAL unit (H.264 §7.3.1 and §9.1).
#[derive(Default)]
struct Rbsp {
    bytes: Vec<u8>,
    /// Bits taken of the last byte.
    used: u8,
}

impl Rbsp {
    fn bit(&mut self, bit: bool) {
        if self.used == 0 {
            self.bytes.push(0);
        }
        let last = self.bytes.last_mut().expect("pushed before its first bit");
        *last |= u8::from(bit) << (7 - self.used);
        self.used = (self.used + 1) % 8;
    }

    fn u(&mut self, count: u32, value: u32) {
        for shift in (0..count).rev() {
            self.bit(value >> shift & 1 == 1);
        }
    }

    fn ue(&mut self, value: u32) {
        let code = value + 1;
        let length = code.ilog2() + 1;
        self.u(length - 1, 0);
        self.u(length, code);
    }

    /// se(v) of zero.
    fn se_zero(&mut self) {
        self.ue(0);
    }

    fn align(&mut self) {
        self.used = 0;
    }

    /// Start code, header and payload, with emulation prevention.
    fn finish(mut self, header: u8, out: &mut Vec<u8>) {
        self.bit(true); // rbsp_stop_one_bit
        out.extend_from_slice(&[0, 0, 0, 1, header]);
        let mut zeros = 0;
        for byte in self.bytes {
            if zeros == 2 && byte <= 3 {
                out.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            out.push(byte);
        }
    }
}

/// The first macroblock is black, sample by sample (I_PCM); each other one is what its neighbours are (Intra_16x16, DC
/// prediction, no residual: eight bits).
fn black_annex_b() -> Vec<u8> {
    const WIDTH: u32 = 1280 / 16;
    const HEIGHT: u32 = 720 / 16;
    let mut out = Vec::new();
    let mut sps = Rbsp::default();
    sps.u(8, 66); // profile_idc: Baseline
    sps.u(8, 0b1100_0000); // constraint_set0_flag, constraint_set1_flag
    sps.u(8, 31); // level_idc
    sps.ue(0); // seq_parameter_set_id
    sps.ue(0); // log2_max_frame_num_minus4
    sps.ue(2); // pic_order_cnt_type
    sps.ue(1); // max_num_ref_frames
    sps.bit(false); // gaps_in_frame_num_value_allowed_flag
    sps.ue(WIDTH - 1);
    sps.ue(HEIGHT - 1);
    sps.bit(true); // frame_mbs_only_flag
    sps.bit(true); // direct_8x8_inference_flag
    sps.bit(false); // frame_cropping_flag
    sps.bit(true); // vui_parameters_present_flag
    sps.u(8, 0); // no aspect ratio, overscan, signal type, chroma location, timing, HRD (two) or pic_struct
    sps.bit(true); // bitstream_restriction_flag: without it FFmpeg's decoder holds as many pictures back as the level allows
    sps.bit(true); // motion_vectors_over_pic_boundaries_flag
    sps.ue(0); // max_bytes_per_pic_denom: no limit
    sps.ue(0); // max_bits_per_mb_denom: no limit
    sps.ue(15); // log2_max_mv_length_horizontal
    sps.ue(15); // log2_max_mv_length_vertical
    sps.ue(0); // max_num_reorder_frames
    sps.ue(1); // max_dec_frame_buffering
    sps.finish(0x67, &mut out);

    let mut pps = Rbsp::default();
    pps.ue(0); // pic_parameter_set_id
    pps.ue(0); // seq_parameter_set_id
    pps.bit(false); // entropy_coding_mode_flag: CAVLC
    pps.bit(false); // bottom_field_pic_order_in_frame_present_flag
    pps.ue(0); // num_slice_groups_minus1
    pps.ue(0); // num_ref_idx_l0_default_active_minus1
    pps.ue(0); // num_ref_idx_l1_default_active_minus1
    pps.bit(false); // weighted_pred_flag
    pps.u(2, 0); // weighted_bipred_idc
    pps.se_zero(); // pic_init_qp_minus26
    pps.se_zero(); // pic_init_qs_minus26
    pps.se_zero(); // chroma_qp_index_offset
    pps.bit(true); // deblocking_filter_control_present_flag
    pps.bit(false); // constrained_intra_pred_flag
    pps.bit(false); // redundant_pic_cnt_present_flag
    pps.finish(0x68, &mut out);

    let mut slice = Rbsp::default();
    slice.ue(0); // first_mb_in_slice
    slice.ue(7); // slice_type: I, all slices
    slice.ue(0); // pic_parameter_set_id
    slice.u(4, 0); // frame_num
    slice.ue(0); // idr_pic_id
    slice.bit(false); // no_output_of_prior_pics_flag
    slice.bit(false); // long_term_reference_flag
    slice.se_zero(); // slice_qp_delta
    slice.ue(1); // disable_deblocking_filter_idc: off
    slice.ue(25); // mb_type: I_PCM
    slice.align();
    for _ in 0..256 {
        slice.u(8, 16); // luma, limited range
    }
    for _ in 0..128 {
        slice.u(8, 128); // chroma
    }
    for macroblock in 1..WIDTH * HEIGHT {
        slice.ue(3); // mb_type: I_16x16_2_0_0
        slice.ue(0); // intra_chroma_pred_mode: DC
        slice.se_zero(); // mb_qp_delta
        // coeff_token of Intra16x16DCLevel: none. Its code depends on the neighbours; an I_PCM one counts as full (§9.2.1).
        if macroblock == 1 || macroblock == WIDTH {
            slice.u(6, 0b00_0011);
        } else {
            slice.bit(true);
        }
    }
    slice.finish(0x65, &mut out);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixtures::{PPS as PPS_NAL, SPS as SPS_NAL};

    const START: &[u8] = &[0, 0, 0, 1];
    /// first_mb_in_slice 0, slice_type 7, pic_parameter_set_id 0.
    const IDR_SLICE: &[u8] = &[0x65, 0x88, 0x84, 0x00, 0x21];

    fn file(nals: &[&[u8]]) -> Vec<u8> {
        nals.iter().flat_map(|nal| [START, nal].concat()).collect()
    }

    #[test]
    fn the_black_picture_is_720p_and_small() {
        let black = Still::black();
        assert_eq!(black.size(), (1280, 720));
        assert!(black.body.len() < 4200, "{}", black.body.len());
        assert_eq!(black.sps.profile_idc, 66);
    }

    #[test]
    fn a_decoder_need_not_hold_the_black_picture_back() {
        assert_eq!(Still::black().sps.max_reorder_frames, Some(0));
    }

    #[test]
    fn a_file_becomes_avcc_and_the_slices_behind_their_lengths() {
        let sei: &[u8] = &[0x06, 0x05, 0x01, 0x00, 0x80];
        let still = Still::parse(&file(&[&[0x09, 0x10], SPS_NAL, PPS_NAL, sei, IDR_SLICE])).unwrap();
        assert_eq!(still.body[5..], [&[0, 0, 0, 5][..], IDR_SLICE].concat());
        assert_eq!(still.body[..5], [0x17, 1, 0, 0, 0]);
        // Start codes of three bytes and zeros behind a unit are the same file (Annex B.1.1).
        let short: Vec<u8> =
            [SPS_NAL, PPS_NAL, IDR_SLICE].iter().flat_map(|nal| [&[0, 0, 1], *nal, &[0, 0]].concat()).collect();
        assert_eq!(Still::parse(&short).unwrap(), still);
    }

    #[test]
    fn a_file_that_is_not_one_idr_picture_says_why() {
        let second: &[u8] = &[0x65, 0x88, 0x84, 0x00, 0x22];
        for (name, bytes, error) in [
            ("empty", Vec::new(), StillError::NotAnnexB),
            ("an MP4", b"\0\0\0\x18ftypisom\0\0\x02\0".to_vec(), StillError::NotAnnexB),
            ("start codes alone", [START, START].concat(), StillError::NotAnnexB),
            ("no picture", file(&[SPS_NAL, PPS_NAL]), StillError::NoPicture),
            ("two pictures", file(&[SPS_NAL, PPS_NAL, IDR_SLICE, second]), StillError::SeveralPictures),
            ("a further picture", file(&[SPS_NAL, PPS_NAL, IDR_SLICE, &[0x41, 0x9a, 0x80]]), StillError::NotIdr),
            ("no SPS", file(&[PPS_NAL, IDR_SLICE]), StillError::NoParameterSets),
            ("no PPS", file(&[SPS_NAL, IDR_SLICE]), StillError::NoParameterSets),
            ("a slice without a header", file(&[SPS_NAL, PPS_NAL, &[0x65]]), StillError::BadSlice),
            ("HEVC", file(&[&[0x40, 1, 0x0c, 1]]), StillError::NalType(0)),
            ("too large", vec![0; MAX_STILL_BYTES + 1], StillError::TooLarge),
        ] {
            assert_eq!(Still::parse(&bytes), Err(error), "{name}");
        }
        let bad_sps = file(&[&[0x67, 0x42], PPS_NAL, IDR_SLICE]);
        assert!(matches!(Still::parse(&bad_sps), Err(StillError::ParameterSet(_))));
    }

    #[test]
    fn no_bytes_make_the_parser_panic() {
        let whole = black_annex_b();
        for end in 0..64 {
            let _ = Still::parse(&whole[..end]);
        }
        for index in 0..64 {
            for bit in 0..8 {
                let mut bytes = whole[..512].to_vec();
                bytes[index] ^= 1 << bit;
                let _ = Still::parse(&bytes);
            }
        }
    }
}
