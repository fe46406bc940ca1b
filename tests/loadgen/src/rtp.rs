//! The little of RTP (RFC 3550 §5.1) that a recording needs: the header's length, a view of a packet in the clear, and
//! the plain header of a packet that came as a retransmission.
//!
//! ```text
//! |V=2|P|X|  CC   |M|     PT      |       sequence number         |
//! |                           timestamp                           |
//! |                             ssrc                              |
//! |           csrc (CC times)  | extension: profile u16, words u16, words |
//! ```

/// A view of an RTP packet in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub payload_type: u8,
    pub marker: bool,
    pub sequence_number: u16,
    pub rtp_time: u32,
    pub ssrc: u32,
    /// Without padding; empty when the packet is padding only.
    pub payload: &'a [u8],
}

/// P in the first header byte.
pub(crate) const PADDING_BIT: u8 = 0x20;

struct Fixed {
    padding: bool,
    extension: bool,
    csrc_bytes: usize,
    marker: bool,
    payload_type: u8,
    sequence_number: u16,
    rtp_time: u32,
    ssrc: u32,
}

fn fixed(datagram: &[u8]) -> Option<(Fixed, &[u8])> {
    let ([first, second, s0, s1, t0, t1, t2, t3, ssrc @ ..], rest) = datagram.split_first_chunk::<12>()?;
    if first >> 6 != 2 {
        return None;
    }
    let fixed = Fixed {
        padding: first & PADDING_BIT != 0,
        extension: first & 0x10 != 0,
        csrc_bytes: usize::from(first & 0x0F) * 4,
        marker: second & 0x80 != 0,
        payload_type: second & 0x7F,
        sequence_number: u16::from_be_bytes([*s0, *s1]),
        rtp_time: u32::from_be_bytes([*t0, *t1, *t2, *t3]),
        ssrc: u32::from_be_bytes(*ssrc),
    };
    Some((fixed, rest))
}

fn after_header<'a>(fixed: &Fixed, rest: &'a [u8]) -> Option<&'a [u8]> {
    let rest = rest.get(fixed.csrc_bytes..)?;
    if !fixed.extension {
        return Some(rest);
    }
    let ([_, _, w0, w1], rest) = rest.split_first_chunk::<4>()?;
    rest.get(usize::from(u16::from_be_bytes([*w0, *w1])) * 4..)
}

/// The header's bytes, extensions included: the part of an SRTP packet that is not encrypted.
pub fn header(datagram: &[u8]) -> Option<&[u8]> {
    let (fixed, rest) = fixed(datagram)?;
    let body = after_header(&fixed, rest)?;
    datagram.get(..datagram.len() - body.len())
}

impl<'a> Packet<'a> {
    /// The fields of a header alone, or of a packet that is still encrypted; the payload is left empty.
    pub fn parse_header(header: &'a [u8]) -> Option<Self> {
        let (fixed, _) = fixed(header)?;
        Some(Self::of(&fixed, &[]))
    }

    /// `None` when the bytes are not a whole RTP packet.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (fixed, rest) = fixed(datagram)?;
        let mut payload = after_header(&fixed, rest)?;
        if fixed.padding {
            let padding = usize::from(*payload.last()?);
            payload = payload.get(..payload.len().checked_sub(padding)?)?;
        }
        Some(Self::of(&fixed, payload))
    }

    fn of(fixed: &Fixed, payload: &'a [u8]) -> Self {
        Self {
            payload_type: fixed.payload_type,
            marker: fixed.marker,
            sequence_number: fixed.sequence_number,
            rtp_time: fixed.rtp_time,
            ssrc: fixed.ssrc,
            payload,
        }
    }

    /// The packet with a bare 12-byte header: no padding, no CSRC, no extension.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![0x80, u8::from(self.marker) << 7 | self.payload_type & 0x7F];
        out.extend(self.sequence_number.to_be_bytes());
        out.extend(self.rtp_time.to_be_bytes());
        out.extend(self.ssrc.to_be_bytes());
        out.extend(self.payload);
        out
    }
}

/// The extended sequence number nearest to the latest one (RFC 3550 appendix A.1 in spirit). The first is put one cycle
/// up, which leaves room for a packet that is older.
pub fn extend_sequence_number(latest: Option<u64>, sequence_number: u16) -> u64 {
    let latest = latest.unwrap_or(0x1_0000 | u64::from(sequence_number));
    let low = u16::try_from(latest & 0xFFFF).expect("masked to 16 bits");
    let ahead = sequence_number.wrapping_sub(low);
    if ahead < 0x8000 { latest + u64::from(ahead) } else { latest - u64::from(ahead.wrapping_neg()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // One CSRC, a one-byte-form extension of one word (RFC 8285 §4.2), two bytes of payload, three of padding.
    const FULL: &[u8] = &[
        0xB1, 0xE6, 0x12, 0x34, 0, 0, 0, 9, 0xDE, 0xAD, 0xBE, 0xEF, 0, 0, 0, 7, 0xBE, 0xDE, 0, 1, 0x10, 0xFF, 0, 0,
        0xAB, 0xCD, 0, 0, 3,
    ];

    #[test]
    fn csrc_extension_and_padding_are_not_payload() {
        let packet = Packet::parse(FULL).unwrap();
        let expected = Packet {
            payload_type: 0x66,
            marker: true,
            sequence_number: 0x1234,
            rtp_time: 9,
            ssrc: 0xDEAD_BEEF,
            payload: &[0xAB, 0xCD],
        };
        assert_eq!(packet, expected);
        assert_eq!(header(FULL).unwrap(), &FULL[..24]);
        assert_eq!(Packet::parse(&packet.to_bytes()), Some(packet));
    }

    #[test]
    fn a_header_that_does_not_fit_is_no_packet() {
        for cut in 0..24 {
            assert_eq!(Packet::parse(&FULL[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn sequence_numbers_are_extended_over_the_wrap_both_ways() {
        let mut latest = None;
        for (number, extended) in [(65_534, 0x1_FFFE), (1, 0x2_0001), (65_535, 0x1_FFFF), (2, 0x2_0002)] {
            assert_eq!(extend_sequence_number(latest, number), extended);
            latest = latest.max(Some(extended));
        }
    }
}
