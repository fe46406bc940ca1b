//! H.264 payloads (RFC 6184) as far as replay and comparison need them: the NAL units of an access unit, and a digest
//! of it that can be computed from RTP payloads and from AVC length-prefixed bytes alike.

/// NAL unit types, H.264 table 7-1 and RFC 6184 table 1.
const IDR: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;
const AUD: u8 = 9;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const FU_START: u8 = 0x80;
const FU_END: u8 = 0x40;
const TYPE_MASK: u8 = 0x1F;

/// Whether a payload begins a picture that a decoder can start on: an SPS, alone or in a STAP-A, or an IDR slice.
pub(crate) fn starts_idr(payload: &[u8]) -> bool {
    let Some((header, rest)) = payload.split_first() else {
        return false;
    };
    match header & TYPE_MASK {
        SPS | IDR => true,
        STAP_A => stap_a(rest)
            .is_some_and(|units| units.iter().any(|unit| unit.first().is_some_and(|h| h & TYPE_MASK == SPS))),
        FU_A => rest.first().is_some_and(|fu| fu & FU_START != 0 && fu & TYPE_MASK == IDR),
        _ => false,
    }
}

/// RFC 6184 §5.7.1: `size u16, NAL unit` repeated.
fn stap_a(mut rest: &[u8]) -> Option<Vec<&[u8]>> {
    let mut units = Vec::new();
    while !rest.is_empty() {
        let (size, after) = rest.split_first_chunk::<2>()?;
        let (unit, after) = after.split_at_checked(u16::from_be_bytes(*size).into())?;
        units.push(unit);
        rest = after;
    }
    Some(units)
}

/// Collects the NAL units of one access unit from its RTP payloads in order.
#[derive(Clone, Debug, Default)]
pub struct AccessUnitBuilder {
    units: Vec<Vec<u8>>,
    fragment: Option<Vec<u8>>,
    damaged: bool,
}

impl AccessUnitBuilder {
    /// Adds the next payload.
    pub fn push(&mut self, payload: &[u8]) {
        let Some((&header, rest)) = payload.split_first() else {
            return;
        };
        match header & TYPE_MASK {
            FU_A => self.push_fragment(header, rest),
            STAP_A => match stap_a(rest) {
                Some(units) => self.units.extend(units.into_iter().map(<[u8]>::to_vec)),
                None => self.damaged = true,
            },
            _ => self.units.push(payload.to_vec()),
        }
    }

    /// RFC 6184 §5.8: `FU indicator | FU header (S, E, R, type) | fragment`.
    fn push_fragment(&mut self, indicator: u8, rest: &[u8]) {
        let Some((&fu, data)) = rest.split_first() else {
            self.damaged = true;
            return;
        };
        if fu & FU_START != 0 {
            self.damaged |= self.fragment.is_some();
            self.fragment = Some(vec![indicator & !TYPE_MASK | fu & TYPE_MASK]);
        }
        let Some(fragment) = &mut self.fragment else {
            self.damaged = true;
            return;
        };
        fragment.extend(data);
        if fu & FU_END != 0 {
            self.units.extend(self.fragment.take());
        }
    }

    /// The NAL units; `None` when a fragment is missing.
    pub fn finish(self) -> Option<Vec<Vec<u8>>> {
        (!self.damaged && self.fragment.is_none()).then_some(self.units)
    }
}

/// Whether one of the NAL units is an IDR slice.
pub fn is_idr<'a>(units: impl IntoIterator<Item = &'a [u8]>) -> bool {
    units.into_iter().any(|unit| unit.first().is_some_and(|header| header & TYPE_MASK == IDR))
}

/// The NAL units of an AVC sample (`length u32, NAL unit` repeated, ISO 14496-15 §5.3.3.1), as in an FLV video tag
/// behind its five-byte header. `None` when the lengths do not add up.
pub fn avc_units(mut sample: &[u8]) -> Option<Vec<&[u8]>> {
    let mut units = Vec::new();
    while !sample.is_empty() {
        let (size, after) = sample.split_first_chunk::<4>()?;
        let (unit, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*size)).ok()?)?;
        units.push(unit);
        sample = after;
    }
    Some(units)
}

/// Digest of an access unit: FNV-1a over its NAL units in AVC form, parameter sets and delimiters left out, because a
/// relay may move those elsewhere. Equal digests mean bit-exact slices and SEI in the same order.
pub fn digest<'a>(units: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = Fnv::default();
    for unit in units {
        if unit.first().is_some_and(|header| matches!(header & TYPE_MASK, SPS | PPS | AUD)) {
            continue;
        }
        hash.write(&u32::try_from(unit.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.write(unit);
    }
    hash.0
}

/// Digest of anything else, such as an Opus packet.
pub fn digest_bytes(bytes: &[u8]) -> u64 {
    let mut hash = Fnv::default();
    hash.write(bytes);
    hash.0
}

/// 64-bit FNV-1a: the same in each process and version, which std's hasher does not promise.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_access_unit_has_the_same_digest_as_rtp_payloads_and_as_avc_bytes() {
        // STAP-A of SPS and PPS, then one IDR slice in three FU-A packets; the slice is 65 01 02 03 04.
        let mut builder = AccessUnitBuilder::default();
        for payload in
            [&[0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xCE][..], &[0x7C, 0x85, 1, 2], &[0x7C, 0x05, 3], &[0x7C, 0x45, 4]]
        {
            builder.push(payload);
        }
        let units = builder.finish().unwrap();
        assert_eq!(units, [&[0x67, 0x42][..], &[0x68, 0xCE], &[0x65, 1, 2, 3, 4]]);
        assert!(is_idr(units.iter().map(Vec::as_slice)));
        let avc = [0, 0, 0, 2, 0x09, 0xF0, 0, 0, 0, 5, 0x65, 1, 2, 3, 4];
        let from_avc = digest(avc_units(&avc).unwrap());
        assert_eq!(digest(units.iter().map(Vec::as_slice)), from_avc);
        assert_ne!(digest(avc_units(&avc[6..]).unwrap()), digest([&[0x65, 1, 2, 3, 5][..]]));
    }

    #[test]
    fn a_fragment_without_its_start_or_end_is_no_access_unit() {
        for payloads in [&[[0x7C, 0x45, 4]], &[[0x7C, 0x85, 4]]] {
            let mut builder = AccessUnitBuilder::default();
            payloads.iter().for_each(|payload| builder.push(payload));
            assert_eq!(builder.finish(), None);
        }
    }

    #[test]
    fn fnv_1a_has_its_published_test_values() {
        assert_eq!(digest_bytes(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(digest_bytes(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(digest_bytes(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
