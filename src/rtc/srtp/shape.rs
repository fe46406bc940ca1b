//! The shape of a protected packet, walked before any decryption (RFC 3550 §5.1, §5.3.1; RFC 3711 §3.1, §3.4).
//!
//! A datagram in; where its header ends and whose it is out. Nothing here depends on what the payload says.

use super::error::SrtpError;
use super::keys::SrtpProfile;
use crate::rtc::bytes::Reader;

/// RTCP header and the sender's SSRC, which SRTCP leaves in the clear.
pub(super) const RTCP_HEADER_LEN: usize = 8;
/// The E flag and the 31-bit SRTCP index.
const SRTCP_INDEX_LEN: usize = 4;

/// What decryption needs to know about an RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RtpShape {
    pub(super) ssrc: u32,
    pub(super) sequence_number: u16,
    /// Where the payload begins: what is before it is authenticated, not encrypted.
    pub(super) header_len: usize,
}

impl RtpShape {
    /// ```text
    ///  0                   1                   2                   3
    /// |V=2|P|X|  CC   |M|     PT      |       sequence number         |
    /// |                           timestamp                           |
    /// |                             SSRC                              |
    /// |                      CSRC, CC of them                         |
    /// |     extension profile (X)     |    length in 32-bit words     |
    /// ```
    pub(super) fn parse(datagram: &[u8], profile: SrtpProfile) -> Result<Self, SrtpError> {
        let mut packet = Reader::new(datagram);
        let flags = packet.u8()?;
        if flags >> 6 != 2 {
            return Err(SrtpError::NotVersion2);
        }
        let csrc_len = 4 * usize::from(flags & 0x0f);
        let _marker_and_payload_type = packet.u8()?;
        let sequence_number = packet.u16()?;
        let _timestamp = packet.u32()?;
        let ssrc = packet.u32()?;
        packet.take(csrc_len)?;
        if flags & 0x10 != 0 {
            let _profile = packet.u16()?;
            let extension_len = 4 * usize::from(packet.u16()?);
            packet.take(extension_len)?;
        }
        let header_len = datagram.len() - packet.len();
        packet.take(profile.tag_len())?;
        Ok(Self { ssrc, sequence_number, header_len })
    }
}

/// What decryption needs to know about an RTCP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RtcpShape {
    pub(super) ssrc: u32,
    pub(super) index: u32,
}

impl RtcpShape {
    /// Of an SRTCP packet that is long enough and encrypted.
    ///
    /// ```text
    ///  CM:  header, SSRC | ciphertext | E, SRTCP index | tag (10)
    ///  GCM: header, SSRC | ciphertext | tag (16) | E, SRTCP index
    /// ```
    pub(super) fn parse(datagram: &[u8], profile: SrtpProfile) -> Result<Self, SrtpError> {
        let trailer = SRTCP_INDEX_LEN + profile.tag_len();
        let mut packet = Reader::new(datagram);
        let mut header = packet.sub(RTCP_HEADER_LEN)?;
        if header.u8()? >> 6 != 2 {
            return Err(SrtpError::NotVersion2);
        }
        header.take(3)?;
        let ssrc = header.u32()?;
        let Some(ciphertext_len) = packet.len().checked_sub(trailer) else {
            return Err(SrtpError::TooShort { need: RTCP_HEADER_LEN + trailer, have: datagram.len() });
        };
        packet.take(ciphertext_len)?;
        if profile == SrtpProfile::AeadAes128Gcm {
            packet.take(profile.tag_len())?;
        }
        let flag_and_index = packet.u32()?;
        if flag_and_index >> 31 == 0 {
            return Err(SrtpError::NotEncrypted);
        }
        Ok(Self { ssrc, index: flag_and_index & 0x7FFF_FFFF })
    }
}
