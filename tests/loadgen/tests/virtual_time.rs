//! A guest and a receiver, both on str0m, in virtual time over a simulated network.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loadgen::clip::{Clip, TrackKind};
use loadgen::guest::{Guest, GuestConfig};
use loadgen::h264;
use loadgen::netem::{Impairments, Netem};
use loadgen::receiver::{Receiver, ReceiverConfig};
use loadgen::replay::{ReplayConfig, SentUnit, TrackStart};
use loadgen::rtpdump::{Record, RecordKind};
use loadgen::{Transmit, rtp};
use str0m::media::KeyframeRequestKind;

const VIDEO_PT: u8 = 108;
const SECOND: Duration = Duration::from_secs(1);

struct Pair {
    now: Instant,
    guest: Guest,
    receiver: Receiver,
    /// To the receiver, and to the guest.
    up: Netem<Transmit>,
    down: Netem<Transmit>,
    sent: Vec<SentUnit>,
}

impl Pair {
    fn new(clip: &Arc<Clip>, config: GuestConfig, up: Impairments, down: Impairments) -> Pair {
        let now = Instant::now();
        let (mut guest, offer) = Guest::new(clip, config, address(1), now);
        let receiver = Receiver::answer(&offer, ReceiverConfig::default(), address(2), now).unwrap();
        guest.handle_answer(receiver.sdp(), now).unwrap();
        let (up, down) = (Netem::new(up, 1, now), Netem::new(down, 2, now));
        Pair { now, guest, receiver, up, down, sent: Vec::new() }
    }

    /// Lets the time run up to `until`.
    fn run_until(&mut self, until: Instant) {
        loop {
            while let Some(transmit) = self.guest.poll_transmit() {
                let bytes = transmit.datagram.len();
                self.up.push(transmit, bytes, self.now);
            }
            while let Some(transmit) = self.receiver.poll_transmit() {
                let bytes = transmit.datagram.len();
                self.down.push(transmit, bytes, self.now);
            }
            self.sent.extend(self.guest.take_sent());
            let due = [self.guest.poll_timeout(), self.receiver.poll_timeout()];
            let networks = [self.up.poll_timeout(), self.down.poll_timeout()];
            let next = due.into_iter().chain(networks.into_iter().flatten()).min().unwrap();
            if next > until {
                self.now = until;
                return;
            }
            self.now = self.now.max(next);
            if let Some(transmit) = self.up.poll(self.now) {
                self.receiver.handle_datagram(&transmit.datagram, address(1), self.now);
            } else if let Some(transmit) = self.down.poll(self.now) {
                self.guest.handle_datagram(&transmit.datagram, address(2), self.now);
            } else if self.receiver.poll_timeout() <= self.now {
                self.receiver.handle_timeout(self.now);
            } else {
                self.guest.handle_timeout(self.now);
            }
        }
    }

    fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    /// Ends the media at a frame's end and lets everything arrive.
    fn finish(&mut self) {
        for kind in [TrackKind::Video, TrackKind::Audio] {
            self.guest.replay_mut().unwrap().pause(kind);
        }
        self.run_for(SECOND);
    }

    /// (timestamp, digest) of what was sent.
    fn sent(&self, kind: TrackKind) -> Vec<(u32, u64)> {
        self.sent.iter().filter(|u| u.kind == kind).map(|u| (u.rtp_time, u.digest)).collect()
    }
}

fn address(host: u8) -> SocketAddr {
    ([10, 0, 0, host], 5000).into()
}

/// (timestamp, digest) of the units of one kind that arrived whole, in order of their sequence numbers.
fn received(records: &[Record], kind: TrackKind) -> Vec<(u32, u64)> {
    let is_video = kind == TrackKind::Video;
    let packets = records.iter().filter(|r| r.kind == RecordKind::Rtp);
    let packets = packets.filter_map(|record| rtp::Packet::parse(&record.packet));
    let mut by_number = BTreeMap::new();
    let mut latest = None;
    for packet in packets.filter(|p| (p.payload_type == VIDEO_PT) == is_video) {
        let number = rtp::extend_sequence_number(latest, packet.sequence_number);
        latest = latest.max(Some(number));
        by_number.insert(number, packet);
    }
    let packets: Vec<rtp::Packet<'_>> = by_number.into_values().collect();
    let mut units = Vec::new();
    for group in packets.chunk_by(|a, b| a.rtp_time == b.rtp_time) {
        let digest = if is_video {
            let mut builder = h264::AccessUnitBuilder::default();
            group.iter().for_each(|packet| builder.push(packet.payload));
            builder.finish().map(|units| h264::digest(units.iter().map(Vec::as_slice)))
        } else {
            Some(h264::digest_bytes(group[0].payload))
        };
        units.extend(digest.map(|digest| (group[0].rtp_time, digest)));
    }
    units
}

#[test]
fn every_frame_arrives_bit_exact_over_several_loops_and_both_wraps() {
    let near_wraps = TrackStart { sequence_number: 65_000, rtp_time: u32::MAX - 90_000, ..TrackStart::default() };
    let replay = ReplayConfig { video: near_wraps, audio: near_wraps, bursts: false };
    let config = GuestConfig { replay, ..GuestConfig::default() };
    let none = Impairments::default;
    let mut pair = Pair::new(&Clip::chromium_360p(), config, none(), none());
    pair.run_for(SECOND * 20);
    pair.finish();
    for (kind, per_second) in [(TrackKind::Video, 30), (TrackKind::Audio, 50)] {
        let sent = pair.sent(kind);
        assert!((19 * per_second..=20 * per_second + 1).contains(&sent.len()), "{kind:?} {}", sent.len());
        assert_eq!(received(pair.receiver.records(), kind), sent, "{kind:?}");
    }
    let reports = pair.receiver.records().iter().filter(|r| r.kind == RecordKind::Rtcp).count();
    assert!(reports >= 20, "{reports} sender reports");
}

#[test]
fn a_keyframe_request_brings_an_idr_within_one_frame() {
    for kind in [KeyframeRequestKind::Pli, KeyframeRequestKind::Fir] {
        let none = Impairments::default;
        let clip = Clip::chromium_720p();
        let mut pair = Pair::new(&clip, GuestConfig::default(), none(), none());
        // In the middle of the clip's first GOP, where no IDR would come by itself for a second.
        pair.run_for(SECOND + SECOND / 10);
        let before = pair.sent(TrackKind::Video).len();
        assert!(pair.receiver.request_keyframe(kind, pair.now));
        // The frame being sent, if any, and the one after it, are over by then.
        pair.run_for(SECOND / 12);
        let video: Vec<_> = pair.sent.iter().filter(|unit| unit.kind == TrackKind::Video).collect();
        assert!(video[before..].iter().take(2).any(|unit| unit.is_idr), "{:?}", &video[before..]);
        pair.run_for(SECOND / 2);
        pair.finish();
        assert_eq!(received(pair.receiver.records(), TrackKind::Video), pair.sent(TrackKind::Video));
        let stats = pair.guest.stats();
        assert_eq!((stats.plis, stats.firs), if kind == KeyframeRequestKind::Pli { (1, 0) } else { (0, 1) });
    }
}

#[test]
fn video_lost_on_a_bad_network_is_repaired_by_retransmission() {
    let up = Impairments {
        loss: 0.03,
        delay: SECOND / 40,
        jitter: SECOND / 50,
        reorder: 0.01,
        duplicate: 0.01,
        ..Impairments::default()
    };
    let down = Impairments { delay: SECOND / 40, ..Impairments::default() };
    let mut pair = Pair::new(&Clip::chromium_720p(), GuestConfig::default(), up, down);
    pair.run_for(SECOND * 10);
    pair.finish();
    let sent = pair.sent(TrackKind::Video);
    assert!(sent.len() >= 270, "{}", sent.len());
    assert_eq!(received(pair.receiver.records(), TrackKind::Video), sent);
    let stats = pair.guest.stats();
    assert!(stats.nacks > 0 && stats.rtx_packets > 0, "{stats:?}");
    // Opus has no retransmission here: what was lost stays lost.
    let audio = pair.sent(TrackKind::Audio).len();
    let lost = audio - received(pair.receiver.records(), TrackKind::Audio).len();
    assert!((1..audio / 10).contains(&lost), "{lost} of {audio}");
}

#[test]
fn the_estimate_follows_transport_feedback_without_holding_media_back() {
    let config = GuestConfig { estimate_bandwidth: true, ..GuestConfig::default() };
    let up = Impairments { delay: SECOND / 100, ..Impairments::default() };
    let mut pair = Pair::new(&Clip::chromium_720p(), config, up, Impairments::default());
    pair.run_for(SECOND * 6);
    let estimate = pair.guest.stats().estimate_kbps;
    assert!(estimate > Some(2100), "{estimate:?}");
    pair.finish();
    assert_eq!(received(pair.receiver.records(), TrackKind::Video), pair.sent(TrackKind::Video));
}

#[test]
fn ssrcs_that_no_sdp_announced_arrive_by_their_mid_extension() {
    let config = GuestConfig { hide_ssrcs: true, ..GuestConfig::default() };
    let none = Impairments::default;
    let mut pair = Pair::new(&Clip::chromium_360p(), config, none(), none());
    pair.run_for(SECOND * 2);
    pair.finish();
    for kind in [TrackKind::Video, TrackKind::Audio] {
        let sent = pair.sent(kind);
        assert_eq!(received(pair.receiver.records(), kind), sent, "{kind:?}");
    }
    for kind in [TrackKind::Video, TrackKind::Audio] {
        let before = pair.sent(kind).len();
        pair.guest.change_ssrc(kind);
        pair.receiver.restart(pair.now);
        pair.guest.replay_mut().unwrap().resume(kind, pair.now);
        pair.run_for(SECOND);
        pair.finish();
        let sent = pair.sent(kind);
        assert!(sent.len() > before + 25);
        assert_eq!(received(pair.receiver.records(), kind), sent[before..], "{kind:?}, new SSRC");
    }
}
