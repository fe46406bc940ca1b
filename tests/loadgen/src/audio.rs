//! What a browser does for lost sound and str0m does not: it repeats the very packet when a NACK asks for it, since Opus
//! has no retransmission stream, and it sends each packet a second time inside the next one (RED, RFC 2198).
//!
//! Input: the protected datagrams that go out, NACKs, Opus packets; output: datagrams to repeat, RED payloads.
//! Bound: the last [`MAX_KEPT`] audio datagrams.

use std::collections::VecDeque;

use str0m::rtp::rtcp::NackEntry;

use crate::rtp::Packet;
use crate::stack::Transmit;

/// How many audio datagrams a NACK can reach back to: 5 s of 20 ms packets.
const MAX_KEPT: usize = 250;
/// RFC 2198 §3: the offset has 14 bits, the length 10.
const MAX_OFFSET: u32 = (1 << 14) - 1;
const MAX_BLOCK: usize = (1 << 10) - 1;

/// The last audio datagrams, to be repeated.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    kept: VecDeque<Transmit>,
    due: VecDeque<Transmit>,
}

impl Repeats {
    /// An audio packet goes out.
    pub(crate) fn keep(&mut self, transmit: &Transmit) {
        if self.kept.len() == MAX_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(transmit.clone());
    }

    /// Packets are asked for (RFC 4585 §6.2.1: a number, and a bitmap of the 16 after it).
    pub(crate) fn handle_nack(&mut self, ssrc: u32, entries: impl IntoIterator<Item = NackEntry>) {
        for entry in entries {
            let after = (0..16_u16).filter(|bit| entry.blp >> bit & 1 == 1).map(|bit| entry.pid.wrapping_add(bit + 1));
            for number in std::iter::once(entry.pid).chain(after) {
                let wanted = |kept: &&Transmit| {
                    Packet::parse_header(&kept.datagram)
                        .is_some_and(|packet| packet.sequence_number == number && packet.ssrc == ssrc)
                };
                self.due.extend(self.kept.iter().rev().find(wanted).cloned());
            }
        }
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.due.pop_front()
    }
}

/// RED with one redundant block, as Chromium sends it.
#[derive(Debug, Default)]
pub(crate) struct Red {
    previous: Option<(u32, Vec<u8>)>,
}

impl Red {
    /// The payload that carries an Opus packet and the one before it.
    ///
    /// ```text
    /// |1|  block PT |  timestamp offset (14)  | block length (10) |  the packet before
    /// |0|  block PT |                                                this packet
    /// ```
    pub(crate) fn wrap(&mut self, opus_payload_type: u8, rtp_time: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(payload.len() * 2 + 5);
        let redundant = self.previous.take().filter(|(time, block)| {
            rtp_time.wrapping_sub(*time) <= MAX_OFFSET && !block.is_empty() && block.len() <= MAX_BLOCK
        });
        if let Some((time, block)) = &redundant {
            let length = u32::try_from(block.len()).expect("at most 10 bits");
            let [_, fields @ ..] = (rtp_time.wrapping_sub(*time) << 10 | length).to_be_bytes();
            out.push(0x80 | opus_payload_type);
            out.extend(fields);
        }
        out.push(opus_payload_type);
        out.extend(redundant.iter().flat_map(|(_, block)| block));
        out.extend(payload);
        self.previous = Some((rtp_time, payload.to_vec()));
        out
    }
}

/// Asks for NACKs in the audio section of an offer, as the page of a browser has to.
pub(crate) fn offer_nack(offer: &str, opus_payload_type: u8) -> String {
    let transport_cc = format!("a=rtcp-fb:{opus_payload_type} transport-cc\r\n");
    offer.replace(&transport_cc, &format!("{transport_cc}a=rtcp-fb:{opus_payload_type} nack\r\n"))
}

/// The payload type that an answer puts first for audio.
pub(crate) fn first_payload_type(answer: &str) -> Option<u8> {
    let line = answer.lines().find_map(|line| line.strip_prefix("m=audio "))?;
    line.split_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn red_repeats_the_packet_before() {
        let mut red = Red::default();
        assert_eq!(red.wrap(111, 1000, &[0xF8, 1]), [111, 0xF8, 1]);
        // 960 = 0b00001111000000 in 14 bits, length 2 in 10.
        assert_eq!(red.wrap(111, 1960, &[0xF8, 2, 3]), [0x80 | 111, 0x0F, 0x00, 0x02, 111, 0xF8, 1, 0xF8, 2, 3]);
        assert_eq!(red.wrap(111, 1960 + 16_384, &[0xF8]), [111, 0xF8], "further back than 14 bits say");
    }

    #[test]
    fn a_nack_brings_the_very_datagrams_back() {
        let mut repeats = Repeats::default();
        let datagrams: Vec<Transmit> = [65_535, 0, 1, 2]
            .map(|sequence_number| {
                let packet =
                    Packet { payload_type: 111, marker: false, sequence_number, rtp_time: 9, ssrc: 7, payload: &[1] };
                Transmit { to: ([10, 0, 0, 1], 1).into(), datagram: packet.to_bytes() }
            })
            .to_vec();
        datagrams.iter().for_each(|datagram| repeats.keep(datagram));
        let entries = [NackEntry { pid: 65_535, blp: 0b101 }];
        repeats.handle_nack(8, entries);
        assert_eq!(repeats.poll_transmit(), None);
        repeats.handle_nack(7, entries);
        let repeated: Vec<Transmit> = std::iter::from_fn(|| repeats.poll_transmit()).collect();
        assert_eq!(repeated, [datagrams[0].clone(), datagrams[1].clone(), datagrams[3].clone()]);
    }

    #[test]
    fn the_offer_asks_and_the_answer_chooses() {
        let offer = "m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\na=rtcp-fb:111 transport-cc\r\n";
        assert!(offer_nack(offer, 111).ends_with("transport-cc\r\na=rtcp-fb:111 nack\r\n"));
        assert_eq!(first_payload_type("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\n"), Some(63));
    }
}
