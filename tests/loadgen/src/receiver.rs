//! The receiving end of one WHIP session: every RTP packet that arrives, decrypted, as [`Record`]s.
//!
//! Input: an SDP offer, datagrams, time; output: an SDP answer, datagrams, records. No socket, no clock.
//! Retransmissions are unwrapped (RFC 4588) and stand where they arrived; a packet that came twice is recorded once.
//! Headers are kept as they were on the wire, extensions included (they are not encrypted), but for the padding bit
//! when padding was removed. Of RTCP the sender reports are kept, without their report blocks.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use str0m::change::SdpOffer;
use str0m::media::{KeyframeRequestKind, MediaKind};
use str0m::rtp::rtcp::{Rtcp, SenderInfo};
use str0m::rtp::{RawPacket, RtpPacket, Ssrc};
use str0m::{Event, Rtc, RtcError};

use crate::rtp;
use crate::rtpdump::{Record, RecordKind};
use crate::stack::{Stack, Transmit};

/// Video and audio payload types of our answers to offers that leave the choice to us.
const H264_PT: u8 = 108;
const H264_RTX_PT: u8 = 109;
const CONSTRAINED_BASELINE_3_1: u32 = 0x42_e01f;

/// Seconds between 1900 (NTP) and 1970 (Unix), RFC 5905 figure 4.
const NTP_UNIX_SECONDS: u64 = 2_208_988_800;

#[derive(Clone, Copy, Debug, Default)]
pub struct ReceiverConfig {
    /// Goes into the answer's fmtp as x-google-start-bitrate: Chromium starts there instead of at 300 kbit/s.
    pub start_bitrate_kbps: Option<u32>,
}

#[derive(Debug)]
pub enum OfferError {
    /// Not an SDP offer that str0m accepts.
    Refused(RtcError),
    /// Not SDP at all.
    Unreadable(String),
}

impl fmt::Display for OfferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "offer refused: {error}"),
            Self::Unreadable(error) => write!(f, "offer is not SDP: {error}"),
        }
    }
}

impl std::error::Error for OfferError {}

/// One recorded session.
pub struct Receiver {
    stack: Stack,
    /// Time zero of the records' offsets.
    epoch: Instant,
    records: Vec<Record>,
    answer: String,
    video: Option<Ssrc>,
    connected: bool,
}

impl Receiver {
    /// Answers an offer. `local` is the address of the socket that the datagrams will come through.
    pub fn answer(
        offer: &str,
        config: ReceiverConfig,
        local: SocketAddr,
        now: Instant,
    ) -> Result<Receiver, OfferError> {
        let mut rtc = Rtc::builder()
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .enable_raw_packets(true)
            .clear_codecs()
            .enable_opus(true, false);
        rtc.codec_config().add_h264(H264_PT.into(), Some(H264_RTX_PT.into()), true, CONSTRAINED_BASELINE_3_1);
        let mut stack = Stack::new(rtc, local, now);
        let offer = SdpOffer::from_sdp_string(offer).map_err(|e| OfferError::Unreadable(e.to_string()))?;
        let answer = stack.rtc.sdp_api().accept_offer(offer).map_err(OfferError::Refused)?;
        stack.drain();
        let mut answer = answer.to_sdp_string();
        if let Some(kbps) = config.start_bitrate_kbps {
            let hint = format!("profile-level-id=42e01f;x-google-start-bitrate={kbps}");
            answer = answer.replace("profile-level-id=42e01f", &hint);
        }
        Ok(Receiver { stack, epoch: now, records: Vec::new(), answer, video: None, connected: false })
    }

    /// The SDP answer for the publisher.
    pub fn sdp(&self) -> &str {
        &self.answer
    }

    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// False once the publisher said goodbye or ICE gave up.
    pub fn is_alive(&self) -> bool {
        self.stack.is_alive()
    }

    /// The SSRC of the primary video stream, once a packet of it came.
    pub fn video_ssrc(&self) -> Option<u32> {
        self.video.map(|ssrc| *ssrc)
    }

    /// What arrived so far, in order of arrival.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Forgets what arrived before `now`, which becomes time zero.
    pub fn restart(&mut self, now: Instant) {
        self.epoch = now;
        self.records.clear();
    }

    /// Sends a PLI or FIR for the video stream; false while there is none.
    pub fn request_keyframe(&mut self, kind: KeyframeRequestKind, now: Instant) -> bool {
        let Some(ssrc) = self.video else { return false };
        if let Some(stream) = self.stack.rtc.direct_api().stream_rx(&ssrc) {
            stream.request_keyframe(kind);
        }
        self.stack.drain();
        self.handle_timeout(now);
        true
    }

    pub fn handle_datagram(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        self.stack.handle_datagram(datagram, from, now);
        self.collect(rtp::header(datagram).unwrap_or_default(), now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.stack.handle_timeout(now);
        self.collect(&[], now);
    }

    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.stack.poll_transmit()
    }

    pub fn poll_timeout(&self) -> Instant {
        self.stack.poll_timeout()
    }

    /// `wire_header` is the RTP header of the datagram that caused the events.
    fn collect(&mut self, wire_header: &[u8], now: Instant) {
        let offset = now.saturating_duration_since(self.epoch);
        while let Some(event) = self.stack.poll_event() {
            match event {
                Event::Connected => self.connected = true,
                Event::RtpPacket(packet) => {
                    self.note_video(&packet);
                    let packet = on_the_wire(wire_header, &packet);
                    self.records.push(Record { offset, kind: RecordKind::Rtp, packet });
                }
                Event::RawPacket(raw) => {
                    if let RawPacket::RtcpRx(Rtcp::SenderReport(report)) = *raw {
                        let packet = sender_report(&report.sender_info);
                        self.records.push(Record { offset, kind: RecordKind::Rtcp, packet });
                    }
                }
                _ => {}
            }
        }
    }

    fn note_video(&mut self, packet: &RtpPacket) {
        if self.video == Some(packet.header.ssrc) {
            return;
        }
        let mut api = self.stack.rtc.direct_api();
        let Some(mid) = api.stream_rx(&packet.header.ssrc).map(|stream| stream.mid()) else {
            return;
        };
        if self.stack.rtc.media(mid).is_some_and(|media| media.kind() == MediaKind::Video) {
            self.video = Some(packet.header.ssrc);
        }
        self.stack.drain();
    }
}

/// The packet as the sender built it before encryption.
fn on_the_wire(wire_header: &[u8], packet: &RtpPacket) -> Vec<u8> {
    let plain = rtp::Packet {
        payload_type: *packet.header.payload_type,
        marker: packet.header.marker,
        sequence_number: packet.header.sequence_number,
        rtp_time: packet.header.timestamp,
        ssrc: *packet.header.ssrc,
        payload: &packet.payload,
    };
    let is_this_packet = rtp::Packet::parse_header(wire_header)
        .is_some_and(|wire| (wire.ssrc, wire.sequence_number) == (plain.ssrc, plain.sequence_number));
    if !is_this_packet {
        return plain.to_bytes();
    }
    let mut bytes = wire_header.to_vec();
    if let Some(first) = bytes.first_mut() {
        *first &= !rtp::PADDING_BIT;
    }
    bytes.extend(plain.payload);
    bytes
}

/// RFC 3550 §6.4.1, without report blocks.
fn sender_report(info: &SenderInfo) -> Vec<u8> {
    let unix = info.ntp_time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let fraction = (u64::from(unix.subsec_nanos()) << 32) / 1_000_000_000;
    let ntp_time = (unix.as_secs() + NTP_UNIX_SECONDS) << 32 | fraction;
    let rtp_time = info.rtp_time.numer() & u64::from(u32::MAX);
    let mut out = vec![0x80, 200, 0, 6];
    out.extend(info.ssrc.to_be_bytes());
    out.extend(ntp_time.to_be_bytes());
    out.extend(u32::try_from(rtp_time).expect("masked to 32 bits").to_be_bytes());
    out.extend(info.sender_packet_count.to_be_bytes());
    out.extend(info.sender_octet_count.to_be_bytes());
    out
}
