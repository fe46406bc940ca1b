//! Start codes of a byte stream (H.264 annex B) inside what should be one NAL unit: some senders put an encoder's output
//! into RTP as it is. Input: the bytes of a unit. Output: the units in them. Emulation prevention (§7.4.1) keeps 00 00
//! 01 out of every valid unit; a start code counts only when the header of a unit follows it, since encoders write user
//! data without emulation prevention too.

const START_CODE: &[u8] = &[0, 0, 1];

/// Whether there is a start code in `bytes`. The look for two zero bytes is one that compilers vectorise.
pub(crate) fn has_start_code(bytes: &[u8]) -> bool {
    let behind = bytes.get(1..).unwrap_or_default();
    let zero_pair = bytes.iter().zip(behind).fold(false, |found, (a, b)| found | ((a | b) == 0));
    zero_pair && next_start_code(bytes).is_some()
}

/// The units of `bytes`, without start codes and the zero bytes in front of them or at the end.
pub(crate) fn units(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest?;
        let unit = match next_start_code(bytes) {
            Some(at) => {
                rest = bytes.get(at + START_CODE.len()..);
                bytes.get(..at)?
            }
            None => {
                rest = None;
                bytes
            }
        };
        let end = unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        unit.get(..end)
    })
    .filter(|unit| !unit.is_empty())
}

/// Where the first start code is, or at the end of the bytes one with nothing behind it.
fn next_start_code(bytes: &[u8]) -> Option<usize> {
    bytes.windows(START_CODE.len()).enumerate().position(|(at, window)| {
        window == START_CODE && bytes.get(at + START_CODE.len()).is_none_or(|header| is_unit_header(*header))
    })
}

/// forbidden_zero_bit 0 and a nal_unit_type that H.264 table 7-1 defines.
fn is_unit_header(header: u8) -> bool {
    header & 0x80 == 0 && matches!(header & 0x1f, 1..=15 | 19..=21)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(bytes: &[u8]) -> Vec<&[u8]> {
        units(bytes).collect()
    }

    #[test]
    fn start_codes_of_three_and_four_bytes_divide_and_zeros_around_them_belong_to_none() {
        let bytes = [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x68, 3, 0, 0, 0, 0, 0, 1, 0x65, 4, 0, 0];
        assert!(has_start_code(&bytes));
        assert_eq!(split(&bytes), [&[0x67, 1, 2][..], &[0x68, 3], &[0x65, 4]]);
        assert_eq!(split(&[0x67, 1, 0, 0, 1]), [&[0x67, 1][..]]);
    }

    #[test]
    fn emulation_prevention_and_what_no_unit_header_follows_do_not_divide() {
        for bytes in
            [&[0x65, 0, 0, 3, 1, 0, 0, 3][..], &[0x06, 5, 9, 0, 0, 1, 0x80, 1], &[0x06, 0, 0, 1, 0x1f], &[0], &[]]
        {
            assert!(!has_start_code(bytes), "{bytes:?}");
        }
        assert_eq!(split(&[0x06, 5, 0, 0, 1, 0xff, 7]), [&[0x06, 5, 0, 0, 1, 0xff, 7][..]]);
    }
}
