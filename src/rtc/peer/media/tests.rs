#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

//! The sender here is webrtc-srtp's `Context`, so that packets no honest sender makes arrive authenticated.

use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

use super::*;
use crate::rtc::bytes::Writer;
use crate::rtc::srtp::SrtpProfile;

const VIDEO_SSRC: u32 = 100;

struct Sender {
    context: Context,
    media: Media,
    outputs: VecDeque<Output>,
    stats: PeerStats,
    now: Instant,
}

/// A packet as a test wants it; the extensions are one-byte elements.
struct Rtp<'a> {
    payload_type: u8,
    sequence: u16,
    ssrc: u32,
    extensions: &'a [u8],
    payload: &'a [u8],
    padding: u8,
}

const PLAIN: Rtp<'static> =
    Rtp { payload_type: 96, sequence: 1, ssrc: VIDEO_SSRC, extensions: &[], payload: b"payload", padding: 0 };

impl Rtp<'_> {
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(64);
        let extended = !self.extensions.is_empty();
        out.u8(0x80 | u8::from(self.padding > 0) << 5 | u8::from(extended) << 4);
        out.u8(self.payload_type);
        out.u16(self.sequence);
        out.u32(9000);
        out.u32(self.ssrc);
        if extended {
            out.u16(0xbede);
            out.u16(u16::try_from(self.extensions.len().div_ceil(4)).unwrap());
            out.bytes(self.extensions);
            out.pad_to_word();
        }
        out.bytes(self.payload);
        if self.padding > 0 {
            out.bytes(&vec![0; usize::from(self.padding) - 1]);
            out.u8(self.padding);
        }
        out.into_vec()
    }
}

impl Sender {
    fn new() -> Self {
        let now = Instant::now();
        let material: Vec<u8> = (0..60).collect();
        let keys = Keys::from_client_export(SrtpProfile::Aes128CmSha1_80, &material).unwrap();
        let mut video = Track::bare(TrackKind::Video);
        video.mid = Some("v".to_owned());
        video.formats[0].rtx_payload_type = Some(97);
        video.extensions.mid = Some(4);
        video.extensions.transport_cc = Some(3);
        video.feedback.transport_cc = true;
        let mut audio = Track::bare(TrackKind::Audio);
        audio.formats[0].payload_type = 111;
        let mut media = Media::new(vec![audio, video], 2500);
        media.start(&keys, None, now);
        let context =
            Context::new(keys.remote.key(), keys.remote.salt(), ProtectionProfile::Aes128CmHmacSha1_80, None, None);
        Self { context: context.unwrap(), media, outputs: VecDeque::new(), stats: PeerStats::default(), now }
    }

    /// Kind, payload type, sequence number, SSRC and payload of what comes out.
    fn send(&mut self, packet: &Rtp<'_>) -> Option<(TrackKind, u8, u16, u32, Vec<u8>)> {
        let datagram = self.context.encrypt_rtp(&packet.to_bytes()).unwrap();
        let received = self.media.handle_rtp(&datagram, self.now, &mut self.outputs, &mut self.stats).unwrap()?;
        Some((
            received.kind,
            received.packet.payload_type,
            received.packet.sequence_number,
            received.packet.ssrc,
            received.packet.payload.to_vec(),
        ))
    }

    fn send_rtcp(&mut self, compound: &[u8]) -> Vec<Event> {
        let datagram = self.context.encrypt_rtcp(compound).unwrap();
        let mut outputs = VecDeque::new();
        self.media.handle_rtcp(&datagram, self.now, &mut outputs, &mut self.stats).unwrap();
        let events = outputs.into_iter().map(|output| match output {
            Output::Event(event) => event,
            Output::Transmit { .. } => panic!("RTCP answered at once"),
        });
        events.collect()
    }
}

#[test]
fn a_retransmission_is_given_as_the_packet_it_repeats() {
    let mut sender = Sender::new();
    let rtx = Rtp { payload_type: 97, sequence: 500, ssrc: 200, payload: b"\x00\x07again", ..PLAIN };
    // Before the stream it repeats: its SSRC is not known yet.
    assert_eq!(sender.send(&rtx), None);
    sender.send(&PLAIN).unwrap();
    let repeated = sender.send(&Rtp { sequence: 501, ..rtx });
    let expected = (TrackKind::Video, 96, 7, VIDEO_SSRC, b"again".to_vec());
    assert_eq!(repeated, Some(expected));
    // Probes: no payload, half a number, a number and nothing behind it.
    for (sequence, payload) in [(502, b"".as_slice()), (503, b"\x00"), (504, b"\x00\x08")] {
        let probe = Rtp { payload_type: 97, sequence, ssrc: 200, payload, padding: 4, ..PLAIN };
        assert_eq!(sender.send(&probe), None);
    }
    assert_eq!(sender.stats.video.retransmissions, 1);
    assert_eq!(sender.stats.video.empty_retransmissions, 4);
}

#[test]
fn a_padding_only_packet_of_the_stream_itself_is_given_without_payload() {
    let mut sender = Sender::new();
    let probe = Rtp { payload: b"", padding: 200, ..PLAIN };
    let expected = (TrackKind::Video, 96, 1, VIDEO_SSRC, vec![]);
    assert_eq!(sender.send(&probe), Some(expected));
}

#[test]
fn payload_type_and_mid_decide_the_track() {
    let mut sender = Sender::new();
    for (sequence, payload_type, extensions, kind) in [
        (1, 96, b"".as_slice(), Some(TrackKind::Video)),
        (2, 96, b"\x40v", Some(TrackKind::Video)),
        (3, 96, b"\x40w", None),
        (4, 96, b"\x41vv", None),
        (5, 111, b"", Some(TrackKind::Audio)),
        (6, 98, b"", None),
        // Elements of another id, and behind id 15: no MID to contradict.
        (7, 96, b"\x10x", Some(TrackKind::Video)),
        (8, 96, b"\xf0x\x40w", Some(TrackKind::Video)),
    ] {
        let packet = Rtp { payload_type, sequence, extensions, ..PLAIN };
        let received = sender.send(&packet).map(|(kind, ..)| kind);
        assert_eq!(received, kind, "packet {sequence}");
    }
    assert_eq!(sender.stats.unknown_payload_types, 3);
    assert_eq!((sender.stats.video.packets, sender.stats.audio.packets), (4, 1));
}

#[test]
fn every_packet_with_a_transport_wide_number_is_reported() {
    let mut sender = Sender::new();
    for (sequence, extensions) in [
        (1, b"\x31\x00\x0a".as_slice()),
        (2, b"\x31\x00\x0c"),
        (3, b"\x30\x0d"), // one byte: not such a number
    ] {
        sender.send(&Rtp { sequence, extensions, ..PLAIN });
    }
    let later = sender.now + std::time::Duration::from_millis(50);
    let flow = sender.media.flow.as_mut().unwrap();
    let feedback = std::iter::from_fn(|| flow.feedback.poll_compound(later))
        .flat_map(|compound| {
            Compound::new(&compound)
                .filter_map(|packet| match packet.unwrap() {
                    Packet::TransportFeedback(feedback) => Some(feedback),
                    _ => None,
                })
                .collect::<Vec<_>>()
        })
        .next()
        .unwrap();
    assert_eq!(feedback.base_sequence, 10);
    let received: Vec<bool> = feedback.statuses.iter().map(Option::is_some).collect();
    assert_eq!(received, [true, false, true]);
}

fn sender_report(ssrc: u32, ntp_time: u64) -> Vec<u8> {
    let mut out = Writer::with_capacity(28);
    out.u32(0x80c8_0006);
    out.u32(ssrc);
    out.u64(ntp_time);
    out.u32(4711);
    out.u32(0);
    out.u32(0);
    out.into_vec()
}

#[test]
fn sender_reports_and_byes_of_the_tracks_are_told_and_no_others() {
    let mut sender = Sender::new();
    assert_eq!(sender.send_rtcp(&sender_report(VIDEO_SSRC, 1)), []);
    sender.send(&PLAIN).unwrap();
    let report = Event::SenderReport { kind: TrackKind::Video, ntp_time: 2, rtp_time: 4711 };
    assert_eq!(sender.send_rtcp(&sender_report(VIDEO_SSRC, 2)), [report]);
    assert_eq!(sender.send_rtcp(&sender_report(999, 3)), []);
    let bye = [0x82, 203, 0, 2, 0, 0, 0, 99, 0, 0, 0, 100];
    let video = Event::Bye { kind: TrackKind::Video };
    assert_eq!(sender.send_rtcp(&bye), [video]);
}

#[test]
fn no_compound_causes_more_than_four_events_or_an_answer() {
    let mut sender = Sender::new();
    sender.send(&PLAIN).unwrap();
    let reports: Vec<u8> = (0..40).flat_map(|n| sender_report(VIDEO_SSRC, n)).collect();
    let last = Event::SenderReport { kind: TrackKind::Video, ntp_time: 39, rtp_time: 4711 };
    assert_eq!(sender.send_rtcp(&reports), [last]);
    let empty_reports = [0x80, 201, 0, 1, 0, 0, 0, 1].repeat(150);
    assert_eq!(sender.send_rtcp(&empty_reports), []);
    let mut byes = vec![0x80 | 31, 203, 0, 31];
    byes.extend([0, 0, 0, 100].repeat(31));
    assert_eq!(sender.send_rtcp(&byes).len(), 1);
    // Claims of a sender that make no sense to a receiver, and lies about lengths.
    let mut nack = vec![0x81, 205, 0, 200, 0, 0, 0, 1, 0, 0, 0, 100];
    nack.extend([0, 0, 0xff, 0xff].repeat(198));
    assert_eq!(sender.send_rtcp(&nack), []);
    assert_eq!(sender.send_rtcp(&[0x9f, 201, 0, 1, 0, 0, 0, 1]), []);
    assert_eq!(sender.stats.malformed_packets, 1);
}
