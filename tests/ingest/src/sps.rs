//! Width and height from an H.264 sequence parameter set (H.264 §7.3.2.1.1), nothing else.

/// Bits of an RBSP, most significant first.
struct Bits {
    bytes: Vec<u8>,
    position: usize,
}

impl Bits {
    fn bit(&mut self) -> Option<u32> {
        let byte = self.bytes.get(self.position / 8)?;
        let bit = (byte >> (7 - self.position % 8)) & 1;
        self.position += 1;
        Some(u32::from(bit))
    }

    fn bits(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0_u32, |value, _| Some(value << 1 | self.bit()?))
    }

    /// ue(v), §9.1; at most 31 leading zeros.
    fn unsigned(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1_u32 << zeros) - 1 + self.bits(zeros)?)
    }

    /// se(v), §9.1.1.
    fn signed(&mut self) -> Option<i64> {
        let code = i64::from(self.unsigned()?);
        Some(if code % 2 == 1 { (code + 1) / 2 } else { -code / 2 })
    }
}

/// The cropped size of the SPS NAL unit `nal` (header byte included), or None when it cannot be read.
pub(crate) fn size(nal: &[u8]) -> Option<(u32, u32)> {
    let mut rbsp = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal.get(1..)? {
        if zeros >= 2 && byte == 3 {
            zeros = 0; // emulation_prevention_three_byte
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        rbsp.push(byte);
    }
    let mut bits = Bits { bytes: rbsp, position: 0 };
    let profile = bits.bits(8)?;
    bits.bits(16)?; // constraint flags, level
    bits.unsigned()?; // seq_parameter_set_id
    let mut chroma_format = 1;
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        chroma_format = bits.unsigned()?;
        if chroma_format == 3 {
            bits.bit()?;
        }
        bits.unsigned()?;
        bits.unsigned()?;
        bits.bit()?;
        if bits.bit()? == 1 {
            for list in 0..if chroma_format == 3 { 12 } else { 8 } {
                if bits.bit()? == 1 {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.unsigned()?; // log2_max_frame_num_minus4
    match bits.unsigned()? {
        0 => {
            bits.unsigned()?;
        }
        1 => {
            bits.bit()?;
            bits.signed()?;
            bits.signed()?;
            for _ in 0..bits.unsigned()?.min(255) {
                bits.signed()?;
            }
        }
        _ => {}
    }
    bits.unsigned()?; // max_num_ref_frames
    bits.bit()?;
    let width_mbs = bits.unsigned()?.checked_add(1)?;
    let height_units = bits.unsigned()?.checked_add(1)?;
    let frame_mbs_only = bits.bit()?;
    if frame_mbs_only == 0 {
        bits.bit()?;
    }
    bits.bit()?; // direct_8x8_inference_flag
    let field_factor = 2 - frame_mbs_only;
    let mut width = width_mbs.checked_mul(16)?;
    let mut height = height_units.checked_mul(16)?.checked_mul(field_factor)?;
    if bits.bit()? == 1 {
        let (unit_x, unit_y) = match chroma_format {
            1 => (2, 2 * field_factor),
            2 => (2, field_factor),
            _ => (1, field_factor),
        };
        let (left, right) = (bits.unsigned()?, bits.unsigned()?);
        let (top, bottom) = (bits.unsigned()?, bits.unsigned()?);
        width = width.checked_sub(left.checked_add(right)?.checked_mul(unit_x)?)?;
        height = height.checked_sub(top.checked_add(bottom)?.checked_mul(unit_y)?)?;
    }
    Some((width, height))
}

fn skip_scaling_list(bits: &mut Bits, entries: usize) -> Option<()> {
    let (mut last, mut next) = (8_i64, 8_i64);
    for _ in 0..entries {
        if next != 0 {
            next = (last + bits.signed()?).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::size;

    /// What x264 (core 165) writes for testsrc2 in these sizes; the last one is interlaced (-flags +ilme+ildct).
    #[test]
    fn the_size_is_read_from_any_profile_with_cropping_and_fields() {
        let table: [(&str, &str, (u32, u32)); 5] = [
            ("high", "67640028acd940780227e5c044000003000400000300c83c60c658", (1920, 1080)),
            ("baseline", "6742c00dd90141fb011000000300100000030320f142a480", (320, 240)),
            ("high 4:2:2", "677a000bbcd94344f962f011000003000100000300320f142996", (200, 134)),
            ("high 4:4:4", "67f4000b919b2861fc7c6e0220000003002000000641e28532c0", (178, 100)),
            ("fields", "67640016acd940a063f3ffe000600082000003000400000300643e28532c", (640, 360)),
        ];
        for (name, sps, expected) in table {
            let sps: Vec<u8> =
                (0..sps.len()).step_by(2).map(|at| u8::from_str_radix(&sps[at..at + 2], 16).expect("hex")).collect();
            assert_eq!(size(&sps), Some(expected), "{name}");
            assert_eq!(size(&sps[..5]), None, "{name} cut short");
        }
    }
}
