//! What arrives as a packet of a track: media, retransmissions, redundancy.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

//! The sender here is webrtc-srtp's `Context`, so that packets no honest sender makes arrive authenticated.

use rtcp::transport_feedbacks::transport_layer_cc::{PacketStatusChunk, SymbolTypeTcc, TransportLayerCc};
use rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

use super::*;
use crate::rtc::bytes::Writer;
use crate::rtc::srtp::SrtpProfile;

const VIDEO_SSRC: u32 = 100;

/// The packets of this kind in a compound of ours, as another implementation reads them.
fn sent<T: Clone + 'static>(mut compound: &[u8]) -> Vec<T> {
    let packets = rtcp::packet::unmarshal(&mut compound).unwrap();
    packets.iter().filter_map(|packet| packet.as_any().downcast_ref::<T>().cloned()).collect()
}

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
        audio.formats[0].red_payload_type = Some(63);
        audio.feedback.nack = true;
        video.feedback.nack = true;
        let mut media = Media::new(vec![audio, video], 2500);
        media.start(&keys, None, now);
        let context =
            Context::new(keys.remote.key(), keys.remote.salt(), ProtectionProfile::Aes128CmHmacSha1_80, None, None);
        Self { context: context.unwrap(), media, outputs: VecDeque::new(), stats: PeerStats::default(), now }
    }

    /// Kind, payload type, sequence number, SSRC and payload of what comes out.
    fn send(&mut self, packet: &Rtp<'_>) -> Option<(TrackKind, u8, u16, u32, Vec<u8>)> {
        let datagram = self.context.encrypt_rtp(&packet.to_bytes()).unwrap();
        let received =
            self.media.handle_rtp(&datagram, self.now, &mut self.outputs, &mut self.stats).unwrap().received?;
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
    assert_eq!(sender.stats.video.useless_retransmissions, 4);
}

#[test]
fn a_retransmission_of_a_packet_that_is_there_or_of_a_stream_that_is_over_is_ignored() {
    let mut sender = Sender::new();
    let rtx = |sequence, original: u8, ssrc| Rtp {
        payload_type: 97,
        sequence,
        ssrc,
        payload: if original == 1 { b"\x00\x01again" } else { b"\x00\x02again" },
        ..PLAIN
    };
    sender.send(&PLAIN).unwrap();
    sender.send(&Rtp { sequence: 3, ..PLAIN }).unwrap();
    assert_eq!(sender.send(&rtx(500, 1, 200)), None, "it came");
    assert!(sender.send(&rtx(501, 2, 200)).is_some(), "it is missing");
    assert_eq!(sender.send(&rtx(502, 2, 200)), None, "it came by the last one");
    // 30000 packets away from the stream.
    assert_eq!(sender.send(&Rtp { payload: b"\x75\x30far", ..rtx(503, 1, 200) }), None);
    // Another encoder, whose numbers overlap with those of the one before.
    sender.send(&Rtp { ssrc: 101, sequence: 1, ..PLAIN }).unwrap();
    sender.send(&Rtp { ssrc: 101, sequence: 3, ..PLAIN }).unwrap();
    assert_eq!(sender.send(&rtx(504, 2, 200)), None, "of the one before");
    let repeated = sender.send(&rtx(7, 2, 201)).unwrap();
    assert_eq!((repeated.2, repeated.3), (2, 101));
    assert_eq!(sender.stats.video.retransmissions, 2);
    assert_eq!(sender.stats.video.useless_retransmissions, 4);
}

/// Audio has no retransmission stream: the packet itself comes once more.
#[test]
fn audio_that_is_sent_again_under_its_own_number_is_recovered() {
    let mut sender = Sender::new();
    let packet = |sequence| Rtp { payload_type: 111, ssrc: 300, sequence, payload: b"\xf8sound", ..PLAIN };
    let lost = sender.context.encrypt_rtp(&packet(11).to_bytes());
    sender.send(&packet(10)).unwrap();
    sender.send(&packet(12)).unwrap();
    sender.now += std::time::Duration::from_millis(5);
    let (now, keyed) = (sender.now, sender.media.keyed.as_mut().unwrap());
    let compounds = std::iter::from_fn(|| keyed.feedback.poll_compound(now)).collect::<Vec<_>>();
    let asked: Vec<u16> = compounds
        .iter()
        .flat_map(|compound| sent::<TransportLayerNack>(compound))
        .filter(|nack| nack.media_ssrc == 300)
        .flat_map(|nack| nack.nacks.iter().flat_map(|pair| pair.packet_list()).collect::<Vec<_>>())
        .collect();
    assert_eq!(asked, [11]);
    sender.now += std::time::Duration::from_millis(30);
    let received =
        sender.media.handle_rtp(&lost.unwrap(), sender.now, &mut sender.outputs, &mut sender.stats).unwrap().received;
    assert_eq!(received.unwrap().packet.sequence_number, 11);
    let keyed = sender.media.keyed.as_ref().unwrap();
    assert_eq!(keyed.feedback.stats(TrackKind::Audio).recovered, 1);
    assert_eq!(keyed.feedback.round_trip(), Some(std::time::Duration::from_millis(30)));
}

/// Sequence number, time and payload of each packet that a redundant one brings.
fn unpack(sender: &mut Sender, sequence: u16, payload: &[u8]) -> Vec<(u16, u32, Vec<u8>)> {
    let packet = Rtp { payload_type: 63, ssrc: 300, sequence, payload, ..PLAIN };
    let datagram = sender.context.encrypt_rtp(&packet.to_bytes()).unwrap();
    let received =
        sender.media.handle_rtp(&datagram, sender.now, &mut sender.outputs, &mut sender.stats).unwrap().received;
    let packets = received.into_iter().flat_map(|received| received.packets().collect::<Vec<_>>());
    packets.map(|packet| (packet.sequence_number, packet.rtp_time, packet.payload.to_vec())).collect()
}

#[test]
fn of_redundant_audio_only_what_is_missing_is_given_and_it_is_not_asked_for() {
    let mut sender = Sender::new();
    // Offset 960, length 2; offsets 1920 and 960, length 2 each.
    let one = |a: &[u8], b: &[u8]| [&[0xef, 0x0f, 0, 2, 0x6f][..], a, b].concat();
    let two = |a: &[u8], b: &[u8], c: &[u8]| [&[0xef, 0x1e, 0, 2, 0xef, 0x0f, 0, 2, 0x6f][..], a, b, c].concat();
    assert_eq!(unpack(&mut sender, 65_534, b"\x6f\xf80"), [(65_534, 9000, b"\xf80".to_vec())]);
    assert_eq!(unpack(&mut sender, 65_535, &one(b"\xf80", b"\xf81")), [(65_535, 9000, b"\xf81".to_vec())]);
    // 0 is lost, 1 repeats it and one that is there.
    let repaired = unpack(&mut sender, 1, &two(b"\xf81", b"\xf82", b"\xf83"));
    assert_eq!(repaired, [(0, 8040, b"\xf82".to_vec()), (1, 9000, b"\xf83".to_vec())]);
    // 2 and 3 are lost; again, 4 repeats both.
    let repaired = unpack(&mut sender, 4, &two(b"\xf84", b"\xf85", b"\xf86"));
    assert_eq!(repaired.iter().map(|packet| packet.0).collect::<Vec<_>>(), [2, 3, 4]);
    // Cut short: nothing comes out, and the number counts as received.
    assert_eq!(unpack(&mut sender, 5, &[0xef, 0x0f, 0, 200, 0x6f]), []);
    assert_eq!(sender.stats.audio.malformed_redundancy, 1);
    let later = sender.now + std::time::Duration::from_millis(300);
    let keyed = sender.media.keyed.as_mut().unwrap();
    while keyed.feedback.poll_compound(later).is_some() {}
    let stats = keyed.feedback.stats(TrackKind::Audio);
    assert_eq!((stats.redundant, stats.nacked, stats.lost), (3, 0, 3));
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
    let later = sender.now + std::time::Duration::from_millis(300);
    let keyed = sender.media.keyed.as_mut().unwrap();
    let feedback = std::iter::from_fn(|| keyed.feedback.poll_compound(later))
        .flat_map(|compound| sent::<TransportLayerCc>(&compound))
        .next()
        .unwrap();
    assert_eq!(feedback.base_sequence_number, 10);
    let [PacketStatusChunk::StatusVectorChunk(vector)] = &feedback.packet_chunks[..] else { panic!("{feedback:?}") };
    let received: Vec<bool> =
        vector.symbol_list.iter().map(|symbol| *symbol != SymbolTypeTcc::PacketNotReceived).collect();
    let count = usize::from(feedback.packet_status_count);
    assert_eq!(received[..count], [true, false, true]);
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
