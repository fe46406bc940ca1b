//! Sequence and picture parameter sets as far as a relay must understand them (H.264 §7.3.2).
//!
//! Input: one NAL unit, header byte included, from the network. Output: what avcC and the metadata need. Bounds:
//! [`MAX_PARAMETER_SET_BYTES`], [`MAX_DIMENSION`], [`MAX_REF_FRAMES`]; anything beyond is an error, never a panic.

use std::fmt;

use crate::bits::{BitsEnded, RbspBits};

/// Largest SPS or PPS read; real ones take 10 to 400 bytes.
pub const MAX_PARAMETER_SET_BYTES: usize = 4096;
/// Largest width and height in pixels, before cropping.
pub const MAX_DIMENSION: u32 = 8192;
/// Most reference frames (H.264 section A.3.1).
pub const MAX_REF_FRAMES: u32 = 16;

const BASELINE: u8 = 66;
const IDR_SLICE: u8 = 5;
const MACROBLOCK: u32 = 16;
/// payloadType of the recovery point SEI message (§D.1.1).
const RECOVERY_POINT: u32 = 6;
/// H.264 §7.4.2.1.1, aspect_ratio_idc: width and height follow.
const EXTENDED_SAR: u32 = 255;

/// Why a parameter set is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterSetError {
    /// More than [`MAX_PARAMETER_SET_BYTES`].
    TooLong {
        /// Its bytes.
        bytes: usize,
    },
    /// The NAL unit is of another type.
    NalType(u8),
    /// The bits end inside a syntax element.
    Truncated,
    /// A syntax element is out of its range.
    OutOfRange(&'static str, u32),
    /// The picture is larger than [`MAX_DIMENSION`].
    Size {
        /// Pixels.
        width: u64,
        /// Pixels.
        height: u64,
    },
    /// Cropping leaves nothing.
    Crop,
}

impl fmt::Display for ParameterSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParameterSetError::TooLong { bytes } => write!(f, "parameter set of {bytes} bytes"),
            ParameterSetError::NalType(kind) => {
                write!(f, "NAL unit type {kind} is not the parameter set asked for")
            }
            ParameterSetError::Truncated => write!(f, "parameter set ends inside a syntax element"),
            ParameterSetError::OutOfRange(element, value) => write!(f, "{element} is {value}"),
            ParameterSetError::Size { width, height } => write!(f, "picture of {width}x{height}"),
            ParameterSetError::Crop => write!(f, "cropping leaves no picture"),
        }
    }
}

impl std::error::Error for ParameterSetError {}

impl From<BitsEnded> for ParameterSetError {
    fn from(_: BitsEnded) -> Self {
        ParameterSetError::Truncated
    }
}

/// What a sequence parameter set says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sps {
    /// 66 Baseline, 77 Main, 100 High, ...
    pub profile_idc: u8,
    /// constraint_set0_flag in the top bit, and so on.
    pub constraint_flags: u8,
    /// Ten times the level.
    pub level_idc: u8,
    /// seq_parameter_set_id, 0..=31.
    pub id: u8,
    /// 0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format_idc: u8,
    /// Bits per luma sample, 8..=14.
    pub bit_depth_luma: u8,
    /// Bits per chroma sample, 8..=14.
    pub bit_depth_chroma: u8,
    /// Pixels after cropping.
    pub width: u32,
    /// Pixels after cropping.
    pub height: u32,
    /// log2_max_frame_num_minus4 + 4: the bits of frame_num, 4..=16.
    pub frame_num_bits: u8,
    /// gaps_in_frame_num_value_allowed_flag.
    pub gaps_in_frame_num: bool,
    /// 2 means that pictures are shown in the order they are sent.
    pub pic_order_cnt_type: u8,
    /// log2_max_pic_order_cnt_lsb_minus4 + 4, 4..=16; 0 where pic_order_cnt_type is not 0.
    pub pic_order_cnt_bits: u8,
    /// separate_colour_plane_flag: slices name their plane.
    pub separate_colour_planes: bool,
    /// No picture is a field.
    pub frame_mbs_only: bool,
    /// max_num_ref_frames.
    pub max_ref_frames: u8,
    /// Pictures that may come before one that is shown earlier; `None` when the stream does not say.
    pub max_reorder_frames: Option<u8>,
}

impl Sps {
    /// Reads an SPS NAL unit (type 7).
    pub fn parse(nal: &[u8]) -> Result<Sps, ParameterSetError> {
        let mut bits = RbspBits::new(parameter_set(nal, 7)?);
        let profile_idc = byte(&mut bits)?;
        let constraint_flags = byte(&mut bits)?;
        let level_idc = byte(&mut bits)?;
        let id = up_to(&mut bits, "seq_parameter_set_id", 31)?;
        let mut sps = Sps {
            profile_idc,
            constraint_flags,
            level_idc,
            id,
            chroma_format_idc: 1,
            bit_depth_luma: 8,
            bit_depth_chroma: 8,
            width: 0,
            height: 0,
            frame_num_bits: 4,
            gaps_in_frame_num: false,
            pic_order_cnt_type: 0,
            pic_order_cnt_bits: 0,
            separate_colour_planes: false,
            frame_mbs_only: true,
            max_ref_frames: 0,
            max_reorder_frames: None,
        };
        if has_chroma_format(profile_idc) {
            sps.chroma_format_idc = up_to(&mut bits, "chroma_format_idc", 3)?;
            sps.separate_colour_planes = sps.chroma_format_idc == 3 && bits.flag()?;
            sps.bit_depth_luma = 8 + up_to(&mut bits, "bit_depth_luma_minus8", 6)?;
            sps.bit_depth_chroma = 8 + up_to(&mut bits, "bit_depth_chroma_minus8", 6)?;
            bits.flag()?; // qpprime_y_zero_transform_bypass_flag
            if bits.flag()? {
                skip_scaling_lists(&mut bits, if sps.chroma_format_idc == 3 { 12 } else { 8 })?;
            }
        }
        sps.frame_num_bits = 4 + up_to(&mut bits, "log2_max_frame_num_minus4", 12)?;
        (sps.pic_order_cnt_type, sps.pic_order_cnt_bits) = picture_order_count_type(&mut bits)?;
        let max_ref_frames = bits.ue()?;
        if max_ref_frames > MAX_REF_FRAMES {
            return Err(ParameterSetError::OutOfRange("max_num_ref_frames", max_ref_frames));
        }
        sps.max_ref_frames = u8::try_from(max_ref_frames).expect("at most 16");
        sps.gaps_in_frame_num = bits.flag()?;
        let width_in_mbs = u64::from(bits.ue()?) + 1;
        let height_in_map_units = u64::from(bits.ue()?) + 1;
        sps.frame_mbs_only = bits.flag()?;
        if !sps.frame_mbs_only {
            bits.flag()?; // mb_adaptive_frame_field_flag
        }
        bits.flag()?; // direct_8x8_inference_flag
        let fields = if sps.frame_mbs_only { 1 } else { 2 };
        let width = width_in_mbs * u64::from(MACROBLOCK);
        let height = height_in_map_units * u64::from(MACROBLOCK) * u64::from(fields);
        if width > u64::from(MAX_DIMENSION) || height > u64::from(MAX_DIMENSION) {
            return Err(ParameterSetError::Size { width, height });
        }
        let crop = if bits.flag()? { [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?] } else { [0; 4] };
        let chroma_array_type = if sps.separate_colour_planes { 0 } else { sps.chroma_format_idc };
        let [left, right, top, bottom] = crop.map(u64::from);
        let (unit_x, unit_y) = crop_units(chroma_array_type, fields);
        sps.width = cropped(width, (left + right) * unit_x)?;
        sps.height = cropped(height, (top + bottom) * unit_y)?;
        if bits.flag()? {
            sps.max_reorder_frames = max_reorder_frames(&mut bits)?;
        }
        Ok(sps)
    }

    /// Whether its pictures are shown in the order they are sent: Baseline knows no B slices (section A.2.1), and
    /// pic_order_cnt_type 2 (§8.2.1.3) and max_num_reorder_frames 0 (§E.2.1) forbid another order.
    pub fn forbids_reordering(&self) -> bool {
        self.profile_idc == BASELINE || self.pic_order_cnt_type == 2 || self.max_reorder_frames == Some(0)
    }

    /// Whether avcC has to say chroma format and bit depths (ISO/IEC 14496-15, 5.3.3.1.2).
    pub fn has_chroma_format(&self) -> bool {
        has_chroma_format(self.profile_idc)
    }
}

/// pic_parameter_set_id and seq_parameter_set_id of a PPS NAL unit (type 8).
pub fn pps_ids(nal: &[u8]) -> Result<(u8, u8), ParameterSetError> {
    let mut bits = RbspBits::new(parameter_set(nal, 8)?);
    let id = up_to(&mut bits, "pic_parameter_set_id", 255)?;
    Ok((id, up_to(&mut bits, "seq_parameter_set_id", 31)?))
}

/// Where a picture stands among others, as its first slice says (§7.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceOrder {
    /// Counts the reference pictures, modulo 2^[`Sps::frame_num_bits`].
    pub frame_num: u32,
    /// The order of presentation, modulo 2^[`Sps::pic_order_cnt_bits`]; `None` where slices do not carry it.
    pub pic_order_cnt_lsb: Option<u32>,
}

impl SliceOrder {
    /// Reads it from a slice of type 1, 2 or 5 that `sps` is in force for; a few bytes of it are enough.
    pub fn parse(nal: &[u8], sps: &Sps) -> Result<SliceOrder, ParameterSetError> {
        let (header, rbsp) = nal.split_first().ok_or(ParameterSetError::Truncated)?;
        let mut bits = RbspBits::new(rbsp);
        for _ in 0..3 {
            bits.ue()?; // first_mb_in_slice, slice_type, pic_parameter_set_id
        }
        if sps.separate_colour_planes {
            bits.u(2)?; // colour_plane_id
        }
        let frame_num = bits.u(sps.frame_num_bits.into())?;
        if !sps.frame_mbs_only && bits.flag()? {
            bits.flag()?; // bottom_field_flag
        }
        if header & 0x1f == IDR_SLICE {
            bits.ue()?; // idr_pic_id
        }
        let pic_order_cnt_lsb =
            if sps.pic_order_cnt_type == 0 { Some(bits.u(sps.pic_order_cnt_bits.into())?) } else { None };
        Ok(SliceOrder { frame_num, pic_order_cnt_lsb })
    }
}

/// recovery_frame_cnt of the recovery point SEI message (§D.2.8) in an SEI NAL unit, if there is one.
pub fn recovery_frame_count(nal: &[u8]) -> Option<u32> {
    let (_, rbsp) = nal.split_first()?;
    let mut bits = RbspBits::new(rbsp);
    // bounded: by the bytes of the unit, each turn reads two at least
    loop {
        let kind = sei_number(&mut bits).ok()?;
        let bytes = sei_number(&mut bits).ok()?;
        if kind == RECOVERY_POINT {
            return bits.ue().ok();
        }
        bits.skip_bytes(bytes).ok()?;
    }
}

/// payloadType or payloadSize (§7.3.2.3.1): bytes of 255 go on, the last is less.
fn sei_number(bits: &mut RbspBits<'_>) -> Result<u32, BitsEnded> {
    let mut number = 0u32;
    loop {
        let byte = bits.u(8)?;
        number = number.saturating_add(byte);
        if byte != 255 {
            return Ok(number);
        }
    }
}

/// first_mb_in_slice and pic_parameter_set_id of a slice (§7.3.3); a few bytes of it are enough.
pub fn slice_ids(nal: &[u8]) -> Result<(u32, u8), ParameterSetError> {
    let (_, rbsp) = nal.split_first().ok_or(ParameterSetError::Truncated)?;
    let mut bits = RbspBits::new(rbsp);
    let first_mb = bits.ue()?;
    bits.ue()?; // slice_type
    Ok((first_mb, up_to(&mut bits, "pic_parameter_set_id", 255)?))
}

fn parameter_set(nal: &[u8], nal_type: u8) -> Result<&[u8], ParameterSetError> {
    if nal.len() > MAX_PARAMETER_SET_BYTES {
        return Err(ParameterSetError::TooLong { bytes: nal.len() });
    }
    let (header, rbsp) = nal.split_first().ok_or(ParameterSetError::Truncated)?;
    if header & 0x1f != nal_type {
        return Err(ParameterSetError::NalType(header & 0x1f));
    }
    Ok(rbsp)
}

fn byte(bits: &mut RbspBits<'_>) -> Result<u8, ParameterSetError> {
    Ok(u8::try_from(bits.u(8)?).expect("eight bits"))
}

fn up_to(bits: &mut RbspBits<'_>, element: &'static str, max: u8) -> Result<u8, ParameterSetError> {
    let value = bits.ue()?;
    u8::try_from(value).ok().filter(|value| *value <= max).ok_or(ParameterSetError::OutOfRange(element, value))
}

/// Section 7.3.2.1.1: the profiles whose SPS goes on with the chroma format.
fn has_chroma_format(profile_idc: u8) -> bool {
    matches!(profile_idc, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135)
}

/// Section 7.3.2.1.1.1: six lists of 16 entries, then lists of 64.
fn skip_scaling_lists(bits: &mut RbspBits<'_>, lists: usize) -> Result<(), ParameterSetError> {
    for list in 0..lists {
        if !bits.flag()? {
            continue;
        }
        let (mut last, mut next) = (8, 8);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                let delta = bits.se()?;
                if !(-128..=127).contains(&delta) {
                    return Err(ParameterSetError::OutOfRange("delta_scale", delta.unsigned_abs()));
                }
                next = (last + delta + 256) % 256;
            }
            if next != 0 {
                last = next;
            }
        }
    }
    Ok(())
}

/// pic_order_cnt_type and the bits of pic_order_cnt_lsb, and past what belongs to it.
fn picture_order_count_type(bits: &mut RbspBits<'_>) -> Result<(u8, u8), ParameterSetError> {
    let kind = up_to(bits, "pic_order_cnt_type", 2)?;
    match kind {
        0 => return Ok((kind, 4 + up_to(bits, "log2_max_pic_order_cnt_lsb_minus4", 12)?)),
        1 => {
            bits.flag()?; // delta_pic_order_always_zero_flag
            bits.se()?; // offset_for_non_ref_pic
            bits.se()?; // offset_for_top_to_bottom_field
            for _ in 0..up_to(bits, "num_ref_frames_in_pic_order_cnt_cycle", 255)? {
                bits.se()?;
            }
        }
        _ => {}
    }
    Ok((kind, 0))
}

/// Equations 7-19 to 7-22: the cropping units of both directions.
fn crop_units(chroma_array_type: u8, fields: u32) -> (u64, u64) {
    let (x, y) = match chroma_array_type {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    };
    (x, y * u64::from(fields))
}

fn cropped(size: u64, crop: u64) -> Result<u32, ParameterSetError> {
    let left = size.checked_sub(crop).filter(|left| *left > 0).ok_or(ParameterSetError::Crop)?;
    u32::try_from(left).map_err(|_| ParameterSetError::Crop)
}

/// Section E.1.1 up to max_num_reorder_frames. Many encoders end the VUI early or get it wrong, and nothing but the
/// reorder depth hangs on it, so bits that end here only mean that the depth is unknown.
fn max_reorder_frames(bits: &mut RbspBits<'_>) -> Result<Option<u8>, ParameterSetError> {
    match vui(bits) {
        Ok(depth) => depth
            .map(|depth| {
                let out_of_range = ParameterSetError::OutOfRange("max_num_reorder_frames", depth);
                if depth > MAX_REF_FRAMES { Err(out_of_range) } else { u8::try_from(depth).map_err(|_| out_of_range) }
            })
            .transpose(),
        Err(BitsEnded) => Ok(None),
    }
}

fn vui(bits: &mut RbspBits<'_>) -> Result<Option<u32>, BitsEnded> {
    if bits.flag()? && bits.u(8)? == EXTENDED_SAR {
        bits.u(32)?;
    }
    if bits.flag()? {
        bits.flag()?; // overscan_appropriate_flag
    }
    if bits.flag()? {
        bits.u(4)?; // video_format, video_full_range_flag
        if bits.flag()? {
            bits.u(24)?; // colour_primaries, transfer_characteristics, matrix_coefficients
        }
    }
    if bits.flag()? {
        bits.ue()?; // chroma_sample_loc_type_top_field
        bits.ue()?; // chroma_sample_loc_type_bottom_field
    }
    if bits.flag()? {
        bits.u(32)?; // num_units_in_tick
        bits.u(32)?; // time_scale
        bits.flag()?; // fixed_frame_rate_flag
    }
    let nal_hrd = bits.flag()?;
    if nal_hrd {
        skip_hrd(bits)?;
    }
    let vcl_hrd = bits.flag()?;
    if vcl_hrd {
        skip_hrd(bits)?;
    }
    if nal_hrd || vcl_hrd {
        bits.flag()?; // low_delay_hrd_flag
    }
    bits.flag()?; // pic_struct_present_flag
    if !bits.flag()? {
        return Ok(None);
    }
    bits.flag()?; // motion_vectors_over_pic_boundaries_flag
    for _ in 0..4 {
        bits.ue()?; // max_bytes_per_pic_denom, max_bits_per_mb_denom, log2_max_mv_length_*
    }
    Ok(Some(bits.ue()?))
}

fn skip_hrd(bits: &mut RbspBits<'_>) -> Result<(), BitsEnded> {
    let count = bits.ue()?;
    if count > 31 {
        return Err(BitsEnded);
    }
    bits.u(8)?; // bit_rate_scale, cpb_size_scale
    for _ in 0..=count {
        bits.ue()?; // bit_rate_value_minus1
        bits.ue()?; // cpb_size_value_minus1
        bits.flag()?; // cbr_flag
    }
    bits.u(20)?; // three delay lengths and time_offset_length
    Ok(())
}

#[cfg(test)]
mod tests;
