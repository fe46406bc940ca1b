//! NAL units of real encoders, for the unit tests of several modules.

/// SPS and PPS that x264 writes for 320x240 Baseline.
pub(crate) const SPS: &[u8] = &[
    0x67, 0x42, 0xc0, 0x0d, 0xd9, 0x01, 0x41, 0xfb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03,
    0x20, 0xf1, 0x42, 0xa4, 0x80,
];
pub(crate) const PPS: &[u8] = &[0x68, 0xcb, 0x83, 0xcb, 0x20];
/// The same for 1920x1080 High, with a reorder depth of 2.
pub(crate) const SPS_HIGH: &[u8] = &[
    0x67, 0x64, 0x00, 0x28, 0xac, 0xd9, 0x40, 0x78, 0x02, 0x27, 0xe5, 0xc0, 0x44, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00,
    0x00, 0x03, 0x00, 0xc8, 0x3c, 0x60, 0xc6, 0x58,
];
pub(crate) const PPS_HIGH: &[u8] = &[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0];
/// The first bytes of x264's slices: first_mb_in_slice 0, slice_type 7 (I) or 5 (P), pic_parameter_set_id 0.
pub(crate) const IDR: &[u8] = &[0x65, 0x88, 0x84, 0x00, 0x10, 0xff];
pub(crate) const P: &[u8] = &[0x41, 0x9a, 0x21, 0x6c, 0x44];
/// A slice of an IDR picture that is not its first: first_mb_in_slice 10.
pub(crate) const IDR_LATER_SLICE: &[u8] = &[0x65, 0x16, 0x22, 0x11, 0x07];
pub(crate) const SEI: &[u8] = &[0x06, 0x05, 0x01, 0xaa, 0x80];
pub(crate) const DELIMITER: &[u8] = &[0x09, 0xf0];
pub(crate) const FILLER: &[u8] = &[0x0c, 0xff, 0xff, 0x80];

/// A STAP-A of these NAL units (RFC 6184 §5.7.1).
pub(crate) fn stap_a(nals: &[&[u8]]) -> Vec<u8> {
    let mut payload = vec![0x78];
    for nal in nals {
        payload.extend_from_slice(&u16::try_from(nal.len()).expect("short").to_be_bytes());
        payload.extend_from_slice(nal);
    }
    payload
}

/// The FU-As of a NAL unit, `size` bytes of it in each (RFC 6184 §5.8).
pub(crate) fn fu_a(nal: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (header, rbsp) = nal.split_first().expect("a NAL unit");
    let count = rbsp.len().div_ceil(size);
    rbsp.chunks(size)
        .enumerate()
        .map(|(n, part)| {
            let start = if n == 0 { 0x80 } else { 0 };
            let end = if n + 1 == count { 0x40 } else { 0 };
            [&[header & 0xe0 | 28, start | end | header & 0x1f][..], part].concat()
        })
        .collect()
}

/// The body of a video tag behind its header: each NAL unit behind its length.
pub(crate) fn with_lengths(nals: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for nal in nals {
        body.extend_from_slice(&u32::try_from(nal.len()).expect("short").to_be_bytes());
        body.extend_from_slice(nal);
    }
    body
}
