//! Writing RTCP packets one behind the other into a compound (RFC 3550 §6.1).

use super::super::bytes::Writer;
use super::format::{ReportBlock, feedback_type, packet_type, write_packet};

/// Packet id and mask pairs of one NACK: 17 sequence numbers each at best, 1 at worst.
pub const MAX_NACK_PAIRS: usize = 64;
/// Identifies REMB among application-layer feedback.
const REMB_IDENTIFIER: [u8; 4] = *b"REMB";

fn saturated(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

/// RR of at most 31 blocks; the others are left out.
pub fn write_receiver_report(out: &mut Writer, sender_ssrc: u32, blocks: &[ReportBlock]) {
    let blocks = blocks.get(..31).unwrap_or(blocks);
    let count = saturated(blocks.len());
    write_packet(out, packet_type::RECEIVER_REPORT, count, |out| {
        out.u32(sender_ssrc);
        for block in blocks {
            out.u32(block.ssrc);
            out.u8(block.fraction_lost);
            out.u24(block.cumulative_lost.cast_unsigned());
            out.u32(block.highest_sequence);
            out.u32(block.jitter);
            out.u32(block.last_sender_report);
            out.u32(block.delay_since_last_sender_report);
        }
    });
}

/// SDES with the CNAME item (RFC 3550 §6.5.1), which every full compound has.
pub fn write_cname(out: &mut Writer, sender_ssrc: u32, cname: &str) {
    const CNAME: u8 = 1;
    let cname = cname.as_bytes();
    let cname = cname.get(..255).unwrap_or(cname);
    write_packet(out, packet_type::SOURCE_DESCRIPTION, 1, |out| {
        out.u32(sender_ssrc);
        out.u8(CNAME);
        out.u8(saturated(cname.len()));
        out.bytes(cname);
        // The list of items ends with at least one zero byte, up to the word.
        out.u8(0);
    });
}

/// BYE of one source.
pub fn write_bye(out: &mut Writer, sender_ssrc: u32) {
    write_packet(out, packet_type::BYE, 1, |out| out.u32(sender_ssrc));
}

/// PLI (RFC 4585 §6.3.1).
pub fn write_pli(out: &mut Writer, sender_ssrc: u32, media_ssrc: u32) {
    write_packet(out, packet_type::PAYLOAD_FEEDBACK, feedback_type::PLI, |out| {
        out.u32(sender_ssrc);
        out.u32(media_ssrc);
    });
}

/// FIR (RFC 5104 §4.3.1): the media SSRC stands in the entry, the header's is 0.
pub fn write_fir(out: &mut Writer, sender_ssrc: u32, media_ssrc: u32, sequence: u8) {
    write_packet(out, packet_type::PAYLOAD_FEEDBACK, feedback_type::FIR, |out| {
        out.u32(sender_ssrc);
        out.u32(0);
        out.u32(media_ssrc);
        out.u8(sequence);
        out.u24(0);
    });
}

/// Generic NACK (RFC 4585 §6.2.1) of `lost`, which ascends (across the wrap, too). Returns how many of them
/// fitted into [`MAX_NACK_PAIRS`].
pub fn write_nack(out: &mut Writer, sender_ssrc: u32, media_ssrc: u32, lost: &[u16]) -> usize {
    let mut written = 0;
    write_packet(out, packet_type::TRANSPORT_FEEDBACK, feedback_type::NACK, |out| {
        out.u32(sender_ssrc);
        out.u32(media_ssrc);
        let mut rest = lost.iter().copied().peekable();
        for _ in 0..MAX_NACK_PAIRS {
            let Some(packet_id) = rest.next() else {
                break;
            };
            written += 1;
            let mut mask = 0_u16;
            while let Some(next) = rest.peek() {
                // Bit i: packet id + i + 1.
                let bit = next.wrapping_sub(packet_id).wrapping_sub(1);
                if bit >= 16 {
                    break;
                }
                mask |= 1 << bit;
                written += 1;
                rest.next();
            }
            out.u16(packet_id);
            out.u16(mask);
        }
    });
    written
}

/// REMB (draft-alvestrand-rmcat-remb-03 §2.2), rounded down to 18 significant bits.
pub fn write_remb(out: &mut Writer, sender_ssrc: u32, bitrate_bps: u64, ssrcs: &[u32]) {
    let ssrcs = ssrcs.get(..255).unwrap_or(ssrcs);
    let bits = u64::BITS - bitrate_bps.leading_zeros();
    let exponent = bits.saturating_sub(18);
    let mantissa = u32::try_from(bitrate_bps >> exponent).expect("18 bits are left");
    write_packet(out, packet_type::PAYLOAD_FEEDBACK, feedback_type::APPLICATION, |out| {
        out.u32(sender_ssrc);
        out.u32(0);
        out.bytes(&REMB_IDENTIFIER);
        out.u8(saturated(ssrcs.len()));
        out.u24((exponent << 18) | mantissa);
        ssrcs.iter().for_each(|ssrc| out.u32(*ssrc));
    });
}
