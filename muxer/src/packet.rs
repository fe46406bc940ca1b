//! RTP packets (RFC 3550 §5.1) and their header extensions (RFC 8285).
//!
//! Input: one decrypted datagram. Output: a view that borrows from it, with the payload already free of padding.
//! Nothing is copied; work is linear in the header.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |V=2|P|X|  CC   |M|     PT      |        sequence number        |
//! |                            timestamp                          |
//! |                 synchronization source (SSRC)                 |
//! |              contributing sources (CSRC), CC of them          |
//! |  X: profile                   |  length in 32-bit words       |
//! |                     header extension                          |
//! |  payload ...                      P: padding, its length last |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use std::fmt;

use crate::bytes::{Reader, Truncated};

/// RFC 8285 §4.2: the profile field of one-byte extension headers.
const ONE_BYTE_PROFILE: u16 = 0xbede;
/// RFC 8285 §4.3: the upper twelve bits of the profile field of two-byte extension headers.
const TWO_BYTE_PROFILE: u16 = 0x100;
/// RFC 8285 §4.2: this id ends one-byte extensions.
const ONE_BYTE_END: u8 = 15;

/// Why a datagram is not an RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtpError {
    /// The header, its CSRC list or its extension runs past the end.
    Truncated(Truncated),
    /// The version field is not 2.
    Version(u8),
    /// The padding flag is set, but the last byte cannot be a padding length.
    Padding {
        /// What the last byte says.
        padding: u8,
        /// Bytes behind the header.
        have: usize,
    },
}

impl fmt::Display for RtpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RtpError::Truncated(truncated) => write!(f, "RTP header {truncated}"),
            RtpError::Version(version) => write!(f, "RTP version {version}, not 2"),
            RtpError::Padding { padding, have } => {
                write!(f, "RTP padding of {padding} in {have} bytes")
            }
        }
    }
}

impl std::error::Error for RtpError {}

impl From<Truncated> for RtpError {
    fn from(truncated: Truncated) -> Self {
        RtpError::Truncated(truncated)
    }
}

/// One RTP packet, borrowed from its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpPacket<'a> {
    /// PT, 0..=127.
    pub payload_type: u8,
    /// M: for H.264, the last packet of an access unit.
    pub marker: bool,
    /// Wraps at 2^16.
    pub sequence_number: u16,
    /// In units of the payload's clock; wraps at 2^32.
    pub rtp_time: u32,
    /// Who sent it.
    pub ssrc: u32,
    /// The header extension, if X was set.
    pub extension: Option<HeaderExtension<'a>>,
    /// The payload without padding; empty in a padding-only packet.
    pub payload: &'a [u8],
}

/// The header extension as it stands in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderExtension<'a> {
    /// "Defined by profile": tells how `data` is laid out.
    pub profile: u16,
    /// The words behind the length field.
    pub data: &'a [u8],
}

impl<'a> RtpPacket<'a> {
    /// Reads one datagram.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, RtpError> {
        let mut reader = Reader::new(datagram);
        let [first, second] = reader.take_array()?;
        let version = first >> 6;
        if version != 2 {
            return Err(RtpError::Version(version));
        }
        let sequence_number = reader.u16()?;
        let rtp_time = reader.u32()?;
        let ssrc = reader.u32()?;
        let csrc_count = usize::from(first & 0x0f);
        reader.take(csrc_count * 4)?;
        let extension = if first & 0x10 == 0 {
            None
        } else {
            let profile = reader.u16()?;
            let words = usize::from(reader.u16()?);
            Some(HeaderExtension { profile, data: reader.take(words * 4)? })
        };
        if first & 0x20 != 0 {
            // RFC 3550 §5.1: the count includes the byte that holds it, so it is at least 1.
            let have = reader.len();
            let padding = reader.rest().last().copied().unwrap_or(0);
            if padding == 0 || reader.take_back(usize::from(padding)).is_err() {
                return Err(RtpError::Padding { padding, have });
            }
        }
        Ok(Self {
            payload_type: second & 0x7f,
            marker: second & 0x80 != 0,
            sequence_number,
            rtp_time,
            ssrc,
            extension,
            payload: reader.rest(),
        })
    }

    /// The RFC 8285 extension elements, both forms; ends at the first one that is not well-formed.
    pub fn extensions(&self) -> impl Iterator<Item = Extension<'a>> + use<'a> {
        let (form, data) = match self.extension {
            Some(HeaderExtension { profile: ONE_BYTE_PROFILE, data }) => (Form::OneByte, data),
            Some(HeaderExtension { profile, data }) if profile >> 4 == TWO_BYTE_PROFILE => (Form::TwoByte, data),
            _ => (Form::OneByte, &[][..]),
        };
        Extensions { form, reader: Reader::new(data) }
    }

    /// What a retransmission carries (RFC 4588 §4): the original sequence number in front of the original
    /// payload. `None` when there is none, as in a padding-only probe on the retransmission stream.
    pub fn undo_rtx(&self, payload_type: u8, ssrc: u32) -> Option<RtpPacket<'a>> {
        let mut reader = Reader::new(self.payload);
        let sequence_number = reader.u16().ok()?;
        Some(RtpPacket { payload_type, ssrc, sequence_number, payload: reader.rest(), ..*self })
    }
}

/// One element of a header extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// The id that the SDP's `a=extmap` gives a meaning; never 0.
    pub id: u8,
    /// The element's bytes.
    pub data: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
enum Form {
    OneByte,
    TwoByte,
}

struct Extensions<'a> {
    form: Form,
    reader: Reader<'a>,
}

impl<'a> Extensions<'a> {
    fn step(&mut self) -> Result<Option<Extension<'a>>, Truncated> {
        while !self.reader.is_empty() {
            let first = self.reader.u8()?;
            if first == 0 {
                continue;
            }
            let (id, len) = match self.form {
                Form::OneByte => (first >> 4, usize::from(first & 0x0f) + 1),
                Form::TwoByte => (first, usize::from(self.reader.u8()?)),
            };
            // RFC 8285 §4.2: id 15, and id 0 with a length, end the extension.
            if matches!(self.form, Form::OneByte) && (id == ONE_BYTE_END || id == 0) {
                return Ok(None);
            }
            return Ok(Some(Extension { id, data: self.reader.take(len)? }));
        }
        Ok(None)
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Extension<'a>;

    fn next(&mut self) -> Option<Extension<'a>> {
        let element = self.step().ok().flatten();
        if element.is_none() {
            self.reader = Reader::new(&[]);
        }
        element
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// V=2, PT 96, sequence 0x1234, time 0x01020304, SSRC 0xDEADBEEF, with `first` in place of the first byte.
    fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first, 0xe0, 0x12, 0x34, 1, 2, 3, 4, 0xde, 0xad, 0xbe, 0xef];
        bytes.extend_from_slice(rest);
        bytes
    }

    fn elements(rest: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let bytes = packet(0x90, rest);
        RtpPacket::parse(&bytes).unwrap().extensions().map(|e| (e.id, e.data.to_vec())).collect()
    }

    #[test]
    fn the_fixed_header_is_read_field_by_field() {
        let bytes = packet(0x80, &[0xaa]);
        let parsed = RtpPacket::parse(&bytes).unwrap();
        assert_eq!(
            parsed,
            RtpPacket {
                payload_type: 96,
                marker: true,
                sequence_number: 0x1234,
                rtp_time: 0x0102_0304,
                ssrc: 0xdead_beef,
                extension: None,
                payload: &[0xaa],
            }
        );
    }

    #[test]
    fn any_prefix_of_a_header_is_refused_as_truncated() {
        let bytes = packet(0x91, &[0, 0, 0, 9, 0xbe, 0xde, 0, 1, 0x10, 7, 0, 0, 0x55]);
        for len in 0..24 {
            assert!(matches!(RtpPacket::parse(&bytes[..len]), Err(RtpError::Truncated(_))), "length {len}");
        }
        assert_eq!(RtpPacket::parse(&bytes).unwrap().payload, [0x55]);
    }

    #[test]
    fn fifteen_csrcs_in_twelve_bytes_are_refused() {
        assert_eq!(RtpPacket::parse(&packet(0x8f, &[])), Err(RtpError::Truncated(Truncated { need: 60, have: 0 })));
    }

    #[test]
    fn other_versions_are_refused() {
        for first in [0x00, 0x40, 0xc0] {
            assert_eq!(RtpPacket::parse(&packet(first, &[1])), Err(RtpError::Version(first >> 6)));
        }
    }

    #[test]
    fn padding_is_cut_off_and_may_be_all_there_is() {
        assert_eq!(RtpPacket::parse(&packet(0xa0, &[7, 8, 0, 2])).unwrap().payload, [7, 8]);
        assert_eq!(RtpPacket::parse(&packet(0xa0, &[0, 0, 0, 4])).unwrap().payload, []);
        assert_eq!(RtpPacket::parse(&packet(0xa0, &[1])).unwrap().payload, []);
    }

    #[test]
    fn padding_of_zero_or_more_than_there_is_is_refused() {
        assert_eq!(RtpPacket::parse(&packet(0xa0, &[1, 0])), Err(RtpError::Padding { padding: 0, have: 2 }));
        assert_eq!(RtpPacket::parse(&packet(0xa0, &[1, 3])), Err(RtpError::Padding { padding: 3, have: 2 }));
        assert_eq!(RtpPacket::parse(&packet(0xa0, &[])), Err(RtpError::Padding { padding: 0, have: 0 }));
    }

    #[test]
    fn an_extension_longer_than_the_packet_is_refused_and_one_of_no_words_is_fine() {
        assert!(RtpPacket::parse(&packet(0x90, &[0xbe, 0xde, 0, 2, 0, 0, 0, 0])).is_err());
        let bytes = packet(0x90, &[0xbe, 0xde, 0, 0, 0x77]);
        assert_eq!(RtpPacket::parse(&bytes).unwrap().payload, [0x77]);
    }

    #[test]
    fn one_byte_extensions_follow_the_example_of_rfc_8285_section_4_2() {
        // id 1 with 1 byte, id 2 with 2 bytes, padding, id 3 with 4 bytes.
        let found = elements(&[0xbe, 0xde, 0, 3, 0x10, 0xa1, 0x21, 0xb1, 0xb2, 0, 0, 0x33, 1, 2, 3, 4]);
        assert_eq!(found, [(1, vec![0xa1]), (2, vec![0xb1, 0xb2]), (3, vec![1, 2, 3, 4])]);
    }

    #[test]
    fn id_15_and_id_0_with_a_length_end_one_byte_extensions() {
        assert_eq!(elements(&[0xbe, 0xde, 0, 2, 0x10, 1, 0xf0, 9, 0x20, 2, 0, 0]), [(1, vec![1])]);
        assert_eq!(elements(&[0xbe, 0xde, 0, 2, 0x10, 1, 0x03, 9, 0x20, 2, 0, 0]), [(1, vec![1])]);
    }

    #[test]
    fn two_byte_extensions_may_be_empty_and_use_id_15() {
        // RFC 8285 §4.3: profile 0x100 and four application bits.
        let found = elements(&[0x10, 0x05, 0, 3, 1, 0, 0, 15, 1, 0xcc, 200, 3, 1, 2, 3, 0]);
        assert_eq!(found, [(1, vec![]), (15, vec![0xcc]), (200, vec![1, 2, 3])]);
    }

    #[test]
    fn an_element_longer_than_the_extension_ends_it() {
        assert_eq!(elements(&[0xbe, 0xde, 0, 1, 0x10, 1, 0x2f, 2]), [(1, vec![1])]);
        assert_eq!(elements(&[0x10, 0, 0, 1, 1, 1, 9, 200]), [(1, vec![9])]);
    }

    #[test]
    fn a_profile_that_is_neither_form_has_no_elements() {
        assert_eq!(elements(&[0xab, 0xcd, 0, 1, 0x10, 1, 0, 0]), []);
    }

    #[test]
    fn a_retransmission_gives_back_number_and_payload_and_a_probe_gives_nothing() {
        let bytes = packet(0x80, &[0x00, 0x07, 0x65, 0x88]);
        let original = RtpPacket::parse(&bytes).unwrap().undo_rtx(102, 5).unwrap();
        assert_eq!((original.payload_type, original.ssrc, original.sequence_number), (102, 5, 7));
        assert_eq!((original.rtp_time, original.marker, original.payload), (0x0102_0304, true, &[0x65, 0x88][..]));
        let probe = packet(0xa0, &[0, 0, 0, 4]);
        assert_eq!(RtpPacket::parse(&probe).unwrap().undo_rtx(102, 5), None);
    }
}
