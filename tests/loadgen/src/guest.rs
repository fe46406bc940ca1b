//! One WHIP publisher: a replayed clip over a str0m connection.
//!
//! Input: an SDP answer, datagrams, time; output: an SDP offer, datagrams. No socket, no clock, so it runs in virtual
//! time as well. Offers what a browser offers once its page has set its preferences: H.264 constrained baseline in
//! packetization mode 1 with RTX, and Opus; BUNDLE; transport-cc. Answers NACKs from a retransmission buffer, for audio as
//! `audio` says, PLI and FIR with the clip's next IDR picture, and sends sender reports.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::bwe::{Bitrate, BweKind};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::format::Codec;
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid, Pt};
use str0m::rtp::rtcp::Rtcp;
use str0m::rtp::{RawPacket, RtpWrite};
use str0m::{Event, Rtc, RtcError};

use crate::audio::{self, Red, Repeats};
use crate::clip::{Clip, TrackKind};
use crate::replay::{Due, Replay, ReplayConfig, SentUnit};
use crate::stack::{Stack, Transmit};

/// The payload types that Chromium 156 offers these codecs under.
const H264_PT: u8 = 108;
const H264_RTX_PT: u8 = 109;
const CONSTRAINED_BASELINE_3_1: u32 = 0x42_e01f;
const OPUS_PT: u8 = 111;
const RED_PT: u8 = 63;

/// How many packets, and for how long, a NACK is answered.
const RTX_PACKETS: usize = 2048;
const RTX_AGE: Duration = Duration::from_secs(3);
/// Where the bandwidth estimate starts, and how far it looks.
const START_BITRATE_KBPS: u64 = 2000;
const WANTED_BITRATE_KBPS: u64 = 4000;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct GuestConfig {
    pub replay: ReplayConfig,
    /// Estimates the bandwidth from transport-cc feedback ([`GuestStats::estimate_kbps`]). Media is never held back by
    /// it, but probes (padding packets on the RTX stream) are sent.
    pub estimate_bandwidth: bool,
    /// Retransmits at most this share of what is sent, as some senders do. `None`: whatever is asked for.
    pub rtx_share: Option<f32>,
    /// Leaves the SSRCs out of the offer: the receiver has to go by the MID header extension (RFC 9143).
    pub hide_ssrcs: bool,
    /// Does no connectivity checks of its own, as an SFU.
    pub ice_lite: bool,
    /// Offers to repeat lost audio packets, and does so when the answer takes it.
    pub audio_nack: bool,
    /// Offers Opus in RED, and sends it so when the answer puts that first.
    pub audio_red: bool,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GuestStats {
    /// Access units of which every packet was sent.
    pub video_frames: u64,
    pub idr_frames: u64,
    pub audio_frames: u64,
    pub video_packets: u64,
    pub audio_packets: u64,
    /// Retransmissions and padding.
    pub rtx_packets: u64,
    /// Audio packets that were sent again because a NACK asked for them.
    pub audio_repeats: u64,
    /// Bytes of UDP payload, handshakes and RTCP included.
    pub bytes_sent: u64,
    pub datagrams_received: u64,
    pub plis: u64,
    pub firs: u64,
    /// NACK messages; counted once a second.
    pub nacks: u64,
    /// From the receiver's feedback; `None` without [`GuestConfig::estimate_bandwidth`] and REMB.
    pub estimate_kbps: Option<u32>,
    /// From the receiver reports.
    pub rtt: Option<Duration>,
}

#[derive(Debug)]
pub enum AnswerError {
    /// Not SDP.
    Unreadable(String),
    /// str0m does not accept it as an answer to our offer.
    Refused(RtcError),
    /// An m-section was rejected or has none of our codecs.
    NoCodec(TrackKind),
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "answer is not SDP: {error}"),
            Self::Refused(error) => write!(f, "answer refused: {error}"),
            Self::NoCodec(kind) => write!(f, "answer takes none of the offered {kind:?} codecs"),
        }
    }
}

impl std::error::Error for AnswerError {}

/// One publisher.
pub struct Guest {
    stack: Stack,
    config: GuestConfig,
    clip: Arc<Clip>,
    pending: Option<SdpPendingOffer>,
    video: Option<Sender>,
    audio: Option<Sender>,
    replay: Option<Replay>,
    connected: bool,
    remote: Option<SocketAddr>,
    stats: GuestStats,
    sent: Vec<SentUnit>,
    repeats: Repeats,
    red: Option<Red>,
}

/// One m-section of ours.
struct Sender {
    mid: Mid,
    payload_type: Option<Pt>,
}

impl Guest {
    /// A guest and its SDP offer. `local` is the address of the socket that its datagrams go through.
    pub fn new(clip: &Arc<Clip>, config: GuestConfig, local: SocketAddr, now: Instant) -> (Guest, String) {
        let mut rtc = Rtc::builder()
            .set_rtp_mode(true)
            .set_stats_interval(Some(Duration::from_secs(1)))
            .set_rtcp_report_interval_video(Duration::from_secs(1))
            .set_ice_lite(config.ice_lite)
            .enable_raw_packets(config.audio_nack)
            .clear_codecs()
            .enable_opus(true, config.audio_red);
        rtc.codec_config().add_h264(H264_PT.into(), Some(H264_RTX_PT.into()), true, CONSTRAINED_BASELINE_3_1);
        if config.estimate_bandwidth {
            rtc = rtc.enable_bwe(Some(Bitrate::kbps(START_BITRATE_KBPS)));
        }
        let mut stack = Stack::new(rtc, local, now);
        let mut api = stack.rtc.sdp_api();
        let stream = Some("guest".to_owned());
        let mut add = |kind, media| {
            clip.track(kind)?;
            let mid = api.add_media(media, Direction::SendOnly, stream.clone(), None, None);
            Some(Sender { mid, payload_type: None })
        };
        let video = add(TrackKind::Video, MediaKind::Video);
        let audio = add(TrackKind::Audio, MediaKind::Audio);
        let (offer, pending) = api.apply().expect("a clip has at least one track to offer");
        stack.drain();
        let guest = Guest {
            stack,
            config,
            clip: Arc::clone(clip),
            pending: Some(pending),
            video,
            audio,
            replay: None,
            connected: false,
            remote: None,
            stats: GuestStats::default(),
            sent: Vec::new(),
            repeats: Repeats::default(),
            red: None,
        };
        let mut offer = offer.to_sdp_string();
        if guest.config.audio_nack {
            offer = audio::offer_nack(&offer, OPUS_PT);
        }
        if guest.config.hide_ssrcs {
            offer = offer.split_inclusive('\n').filter(|line| !line.starts_with("a=ssrc")).collect();
        }
        (guest, offer)
    }

    /// Takes the answer to the offer; once.
    pub fn handle_answer(&mut self, answer: &str, now: Instant) -> Result<(), AnswerError> {
        self.red = (audio::first_payload_type(answer) == Some(RED_PT)).then(Red::default);
        let pending = self.pending.take().expect("an offer is answered once");
        let answer = SdpAnswer::from_sdp_string(answer).map_err(|e| AnswerError::Unreadable(e.to_string()))?;
        let accepted = self.stack.rtc.sdp_api().accept_answer(pending, answer);
        self.stack.drain();
        accepted.map_err(AnswerError::Refused)?;
        for (kind, sender) in [(TrackKind::Video, &mut self.video), (TrackKind::Audio, &mut self.audio)] {
            let Some(sender) = sender else { continue };
            let codec = if kind == TrackKind::Video { Codec::H264 } else { Codec::Opus };
            let remote = self.stack.rtc.media(sender.mid).map_or(&[][..], |media| media.remote_pts());
            let params = self.stack.rtc.codec_config().params();
            let chosen = params.iter().find(|p| p.spec().codec == codec && remote.contains(&p.pt()));
            sender.payload_type = chosen.map(|params| params.pt());
            if sender.payload_type.is_none() {
                return Err(AnswerError::NoCodec(kind));
            }
            let mut api = self.stack.rtc.direct_api();
            if let Some(stream) = api.stream_tx_by_mid(sender.mid, None) {
                stream.set_rtx_cache(RTX_PACKETS, RTX_AGE, self.config.rtx_share);
                stream.set_unpaced(true);
            }
            self.stack.drain();
        }
        if self.config.estimate_bandwidth {
            self.stack.rtc.bwe().set_bitrate(Bitrate::kbps(0), Bitrate::kbps(WANTED_BITRATE_KBPS));
            self.stack.drain();
        }
        // The first connectivity check goes out at once, not at str0m's next tick.
        self.stack.handle_timeout(now);
        Ok(())
    }

    /// True from the end of the DTLS handshake on.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// False once the receiver said goodbye or ICE gave up.
    pub fn is_alive(&self) -> bool {
        self.stack.is_alive()
    }

    pub fn stats(&self) -> GuestStats {
        self.stats
    }

    /// Where datagrams go.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// SSRCs of the primary streams and their retransmissions.
    pub fn ssrcs(&mut self) -> Vec<u32> {
        let mut ssrcs = Vec::new();
        for sender in [&self.video, &self.audio].into_iter().flatten() {
            let mut api = self.stack.rtc.direct_api();
            if let Some(stream) = api.stream_tx_by_mid(sender.mid, None) {
                ssrcs.push(*stream.ssrc());
                ssrcs.extend(stream.rtx().map(|rtx| *rtx));
            }
        }
        self.stack.drain();
        ssrcs
    }

    /// Goes on with a new SSRC, as after a change of camera in some senders. To be called between two frames (see
    /// [`Replay::pause`]), or the frame is torn.
    pub fn change_ssrc(&mut self, kind: TrackKind) {
        let sender = match kind {
            TrackKind::Video => &self.video,
            TrackKind::Audio => &self.audio,
        };
        let Some(Sender { mid, .. }) = sender else {
            return;
        };
        let mut api = self.stack.rtc.direct_api();
        let (ssrc, rtx) = (api.new_ssrc(), api.new_ssrc());
        let has_rtx = api.stream_tx_by_mid(*mid, None).is_some_and(|stream| stream.rtx().is_some());
        api.reset_stream_tx(*mid, None, ssrc, has_rtx.then_some(rtx));
        self.stack.drain();
        if let Some(replay) = &mut self.replay {
            replay.restart_sequence_numbers(kind, 0);
        }
    }

    /// The replay, from the end of the DTLS handshake on: to pause and resume tracks.
    pub fn replay_mut(&mut self) -> Option<&mut Replay> {
        self.replay.as_mut()
    }

    /// What was sent since the last call.
    pub fn take_sent(&mut self) -> Vec<SentUnit> {
        std::mem::take(&mut self.sent)
    }

    /// Says goodbye (RTCP BYE, DTLS close_notify); the datagrams come out of [`poll_transmit`](Self::poll_transmit).
    pub fn close(&mut self, now: Instant) {
        self.replay = None;
        // Closing what has failed already changes nothing.
        let _ = self.stack.rtc.close();
        self.stack.drain();
        self.stack.handle_timeout(now);
    }

    pub fn handle_datagram(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        self.stats.datagrams_received += 1;
        self.stack.handle_datagram(datagram, from, now);
        self.handle_events(now);
    }

    /// To be called when [`poll_timeout`](Self::poll_timeout) is reached.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.stack.handle_timeout(now);
        self.handle_events(now);
        if !self.is_alive() {
            self.replay = None;
        }
        while let Some(due) = self.replay.as_mut().and_then(|replay| replay.poll(now)) {
            self.send(due, now);
        }
    }

    pub fn poll_timeout(&self) -> Instant {
        let media = self.replay.as_ref().and_then(Replay::poll_timeout);
        let stack = self.stack.poll_timeout();
        media.map_or(stack, |media| media.min(stack))
    }

    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if let Some(repeat) = self.repeats.poll_transmit() {
            self.stats.audio_repeats += 1;
            return Some(repeat);
        }
        let transmit = self.stack.poll_transmit()?;
        self.count_transmit(&transmit);
        Some(transmit)
    }

    fn send(&mut self, due: Due, now: Instant) {
        let sender = match due.kind {
            TrackKind::Video => &self.video,
            TrackKind::Audio => &self.audio,
        };
        let Some(Sender { mid, payload_type: Some(payload_type) }) = sender else {
            return;
        };
        let mut api = self.stack.rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(*mid, None) else {
            return;
        };
        let number = due.sequence_number.into();
        let write = match &mut self.red {
            Some(red) if due.kind == TrackKind::Audio => {
                let payload = red.wrap(**payload_type, due.rtp_time, &due.payload);
                RtpWrite::new(RED_PT.into(), number, due.rtp_time, due.captured, payload)
            }
            _ => RtpWrite::new(*payload_type, number, due.rtp_time, due.captured, due.payload),
        };
        stream.write_rtp(write.marker(due.marker).nackable(true));
        self.stack.drain();
        self.stack.handle_timeout(now);
        if let Some(unit) = due.completes {
            match unit.kind {
                TrackKind::Video => self.stats.video_frames += 1,
                TrackKind::Audio => self.stats.audio_frames += 1,
            }
            self.stats.idr_frames += u64::from(unit.kind == TrackKind::Video && unit.is_idr);
            self.sent.push(unit);
        }
        self.handle_events(now);
    }

    fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.stack.poll_event() {
            match event {
                Event::Connected => {
                    self.connected = true;
                    self.replay = Some(Replay::start(&self.clip, &self.config.replay, now));
                }
                Event::KeyframeRequest(request) => {
                    match request.kind {
                        KeyframeRequestKind::Pli => self.stats.plis += 1,
                        KeyframeRequestKind::Fir => self.stats.firs += 1,
                    }
                    if let Some(replay) = &mut self.replay {
                        replay.request_idr();
                    }
                }
                Event::EgressBitrateEstimate(kind) => {
                    let estimate = match kind {
                        BweKind::Twcc { estimate, .. } => Some(estimate),
                        BweKind::Remb { estimate, .. } => Some(estimate),
                        _ => None,
                    };
                    let kbps = estimate.map(|estimate| estimate.as_u64() / 1000);
                    self.stats.estimate_kbps = kbps.and_then(|kbps| u32::try_from(kbps).ok());
                }
                Event::MediaEgressStats(stats) if self.video.as_ref().is_some_and(|video| video.mid == stats.mid) => {
                    self.stats.nacks = stats.nacks;
                    self.stats.rtt = stats.rtt.or(self.stats.rtt);
                }
                Event::RawPacket(raw) => {
                    if let RawPacket::RtcpRx(Rtcp::Nack(nack)) = *raw {
                        self.repeats.handle_nack(*nack.ssrc, nack.reports.iter().copied());
                    }
                }
                _ => {}
            }
        }
    }

    /// RTP headers are not encrypted: the payload type says what a datagram is (RFC 5761 §4 tells RTCP apart).
    fn count_transmit(&mut self, transmit: &Transmit) {
        self.remote = Some(transmit.to);
        self.stats.bytes_sent += u64::try_from(transmit.datagram.len()).unwrap_or(0);
        let Some([128..=191, second, ..]) = transmit.datagram.first_chunk::<12>() else {
            return;
        };
        if (192..=223).contains(second) {
            return;
        }
        let payload_type = second & 0x7F;
        let is = |sender: &Option<Sender>| {
            sender.as_ref().and_then(|s| s.payload_type).is_some_and(|pt| *pt == payload_type)
        };
        if is(&self.video) {
            self.stats.video_packets += 1;
        } else if is(&self.audio) || (self.red.is_some() && payload_type == RED_PT) {
            self.stats.audio_packets += 1;
            if self.config.audio_nack {
                self.repeats.keep(transmit);
            }
        } else {
            self.stats.rtx_packets += 1;
        }
    }
}
