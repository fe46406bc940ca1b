//! A session whose packets come as plain RTP: for tests that are about the slot behind it, and for runs so long that ciphers
//! would be most of the work.
//!
//! Input: RTP packets, whose source address tells the track, and [`sender_report`]s. Output: [`KEYFRAME_REQUEST`]s.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use guest_relay::rtc::demux::Class;
use guest_relay::rtc::peer::{Delivery, Event, Output, PeerStats, Received};
use guest_relay::slot::SessionPeer;
use guest_relay_muxer::{RtpPacket, TrackKind};

/// The datagram that asks for an IDR.
pub const KEYFRAME_REQUEST: &[u8] = b"keyframe";
const SENDER_REPORT_LEN: usize = 12;

/// Where the packets of a track come from.
pub fn source(kind: TrackKind) -> SocketAddr {
    let port = match kind {
        TrackKind::Audio => 1,
        TrackKind::Video => 2,
    };
    ([192, 0, 2, 1], port).into()
}

/// A packet as it travels. Without extensions.
pub fn serialise(packet: &RtpPacket<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12 + packet.payload.len());
    bytes.extend([0x80, packet.payload_type | u8::from(packet.marker) << 7]);
    bytes.extend(packet.sequence_number.to_be_bytes());
    bytes.extend(packet.rtp_time.to_be_bytes());
    bytes.extend(packet.ssrc.to_be_bytes());
    bytes.extend(packet.payload);
    bytes
}

/// A datagram of [`Class::Rtcp`] with the sender's wall clock beside its media clock.
pub fn sender_report(ntp_time: u64, rtp_time: u32) -> Vec<u8> {
    [&ntp_time.to_be_bytes()[..], &rtp_time.to_be_bytes()].concat()
}

/// What the network does to the packets of each track, as a test sets it.
#[derive(Clone, Debug, Default)]
pub struct Path {
    audio: Rc<Cell<Delivery>>,
    video: Rc<Cell<Delivery>>,
}

impl Path {
    fn of(&self, kind: TrackKind) -> &Cell<Delivery> {
        match kind {
            TrackKind::Audio => &self.audio,
            TrackKind::Video => &self.video,
        }
    }

    pub fn set(&self, kind: TrackKind, delivery: Delivery) {
        self.of(kind).set(delivery);
    }
}

/// See the module.
#[derive(Debug)]
pub struct PlainSession {
    video: bool,
    path: Path,
    outputs: VecDeque<Output>,
    heard: Option<Instant>,
    /// The newest packet.
    packet: Vec<u8>,
}

impl PlainSession {
    /// `video`: its description has a video track.
    pub fn new(video: bool, path: Path) -> PlainSession {
        PlainSession { video, path, outputs: VecDeque::new(), heard: None, packet: Vec::new() }
    }
}

impl SessionPeer for PlainSession {
    fn handle_datagram(
        &mut self,
        class: Class,
        datagram: &[u8],
        from: SocketAddr,
        now: Instant,
    ) -> Option<Received<'_>> {
        self.heard = Some(now);
        let kind = if from == source(TrackKind::Audio) { TrackKind::Audio } else { TrackKind::Video };
        if class == Class::Rtcp {
            let (ntp_time, rtp_time) = datagram.split_at_checked(SENDER_REPORT_LEN - 4)?;
            let ntp_time = u64::from_be_bytes(ntp_time.try_into().ok()?);
            let rtp_time = u32::from_be_bytes(rtp_time.try_into().ok()?);
            self.outputs.push_back(Output::Event(Event::SenderReport { kind, ntp_time, rtp_time }));
            return None;
        }
        self.packet.clear();
        self.packet.extend_from_slice(datagram);
        RtpPacket::parse(&self.packet).ok().map(|packet| Received::plain(kind, packet))
    }

    fn handle_batch_end(&mut self, _now: Instant) {}

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn has_track(&self, kind: TrackKind) -> bool {
        self.video || kind == TrackKind::Audio
    }

    fn delivery(&self, kind: TrackKind) -> Delivery {
        self.path.of(kind).get()
    }

    fn last_heard(&self) -> Option<Instant> {
        self.heard
    }

    fn stats(&self) -> PeerStats {
        PeerStats::default()
    }

    fn request_keyframe(&mut self, _now: Instant) {
        let datagram = KEYFRAME_REQUEST.to_vec();
        self.outputs.push_back(Output::Transmit { to: source(TrackKind::Video), datagram });
    }

    fn notify_keyframe(&mut self) {}

    fn set_max_bitrate(&mut self, _max_bitrate_kbps: u32, _now: Instant) {}

    fn set_max_wait(&mut self, _kind: TrackKind, _max_wait: Duration) {}

    fn close(&mut self, _now: Instant) {}
}
