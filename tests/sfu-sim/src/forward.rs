//! Media between sessions: packets from a publisher to its subscribers under new payload types, SSRCs and sequence
//! numbers, keyframe requests the other way. RTP timestamps and payloads stay as they are, and so does what sender
//! reports say about audio against video.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use str0m::media::{KeyframeRequestKind, Mid};
use str0m::rtp::{RtpPacket, RtpWrite};

use crate::padding::PaddingHeader;
use crate::sdp::Kind;
use crate::session::TrackStatus;
use crate::state::State;

/// How far behind its capture a packet may be forwarded; sender reports must not look into the future.
const WALLCLOCK_MARGIN: Duration = Duration::from_millis(200);

/// Ties a publisher's NTP time to ours: what its sender reports say about audio against video is kept.
pub(crate) struct Clock {
    ntp: SystemTime,
    at: Instant,
}

impl State {
    /// From a publisher to its subscribers.
    pub(crate) fn forward(&mut self, id: &str, packet: &RtpPacket, now: Instant) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let Some(transport) = &mut session.transport else {
            return;
        };
        let mut api = transport.stack.rtc.direct_api();
        let mid = api.stream_rx(&packet.header.ssrc).map(|stream| stream.mid());
        transport.stack.drain();
        let received = *packet.header.payload_type;
        let codec = transport.formats.iter().find(|format| format.payload_type == received);
        let codec = codec.map(|format| format.codec);
        let tracks = session.local.iter_mut();
        let track = tracks
            .filter(|track| track.status == TrackStatus::Active && !track.stopped)
            .find(|track| Some(Mid::from(track.mid.as_str())) == mid);
        let (Some(track), Some(codec)) = (track, codec) else {
            return;
        };
        track.idle_since = now;
        // The probes and padding of a sender are not media.
        if track.poisoned || packet.payload.is_empty() {
            return;
        }
        track.packets += 1;
        self.changed |= track.packets == 1;
        let track = track.name.clone();
        let wallclock = self.wallclock(id, packet, now);
        for subscriber in self.sessions.values_mut() {
            let Some(transport) = subscriber.transport.as_mut().filter(|transport| transport.connected) else {
                continue;
            };
            let subscriptions = subscriber
                .subscriptions
                .iter_mut()
                .filter(|sub| sub.status == TrackStatus::Active && sub.publisher == id && sub.track == track);
            for sub in subscriptions {
                let payload_type = transport
                    .formats
                    .iter()
                    .find(|format| format.codec == codec && sub.accepted.contains(&format.payload_type));
                let Some(payload_type) = payload_type.map(|format| format.payload_type) else {
                    continue;
                };
                let Some(number) = sub.rewriter.rewrite(*packet.header.ssrc, *packet.seq_no) else {
                    continue;
                };
                let mut api = transport.stack.rtc.direct_api();
                let Some(stream) = api.stream_tx(&sub.source.ssrc.into()) else {
                    continue;
                };
                let rtp_time = packet.header.timestamp;
                let payload = Arc::clone(&packet.payload);
                let write = RtpWrite::new(payload_type.into(), number.into(), rtp_time, wallclock, payload);
                let nackable = sub.kind == Kind::Video;
                stream.write_rtp(write.marker(packet.header.marker).nackable(nackable));
                sub.packets += 1;
                transport.stack.drain();
                transport.stack.handle_timeout(now);
                // Never inside a picture: browsers do not put one together around it.
                let may_pad = packet.header.marker || sub.kind == Kind::Audio;
                let number = may_pad.then(|| sub.rewriter.padding()).flatten();
                if let Some(number) = number {
                    transport.send_padding(PaddingHeader {
                        payload_type,
                        sequence_number: u16::try_from(number & 0xFFFF).expect("masked to 16 bits"),
                        rtp_time,
                        ssrc: sub.source.ssrc,
                    });
                    sub.paddings += 1;
                }
            }
        }
    }

    /// When a packet was captured, on our clock, by its sender's reports; without them, when it came.
    fn wallclock(&mut self, id: &str, packet: &RtpPacket, now: Instant) -> Instant {
        let arrival = now.checked_sub(WALLCLOCK_MARGIN).unwrap_or(now);
        let Some(info) = packet.last_sender_info else {
            return arrival;
        };
        let clock_rate = packet.time.frequency().get();
        let reported = u32::try_from(info.rtp_time.numer() & u64::from(u32::MAX)).unwrap_or(0);
        let ticks = packet.header.timestamp.wrapping_sub(reported);
        let seconds = |ticks: u32| Duration::from_secs_f64(f64::from(ticks) / f64::from(clock_rate));
        let ntp = if ticks < 1 << 31 {
            info.ntp_time.checked_add(seconds(ticks))
        } else {
            info.ntp_time.checked_sub(seconds(ticks.wrapping_neg()))
        };
        let Some(ntp) = ntp else { return arrival };
        let clock = self.clocks.entry(id.to_owned()).or_insert(Clock { ntp, at: arrival });
        let captured = match ntp.duration_since(clock.ntp) {
            Ok(later) => clock.at.checked_add(later),
            Err(earlier) => clock.at.checked_sub(earlier.duration()),
        };
        captured.unwrap_or(arrival).min(now)
    }

    /// From a subscriber to the publisher.
    pub(crate) fn forward_keyframe_request(&mut self, id: &str, mid: Mid, kind: KeyframeRequestKind, now: Instant) {
        let mid = mid.to_string();
        let subscriptions = self.sessions.get_mut(id).map(|session| session.subscriptions.iter_mut());
        let sub = subscriptions.and_then(|mut subscriptions| {
            subscriptions.find(|sub| sub.mid == mid && sub.status == TrackStatus::Active)
        });
        let Some(sub) = sub else { return };
        sub.keyframe_requests += 1;
        let (publisher, track) = (sub.publisher.clone(), sub.track.clone());
        let Some(session) = self.sessions.get_mut(&publisher) else {
            return;
        };
        let Some(mid) = session.active_track(&track).map(|track| Mid::from(track.mid.as_str())) else {
            return;
        };
        let Some(transport) = &mut session.transport else {
            return;
        };
        if let Some(stream) = transport.stack.rtc.direct_api().stream_rx_by_mid(mid, None) {
            stream.request_keyframe(kind);
        }
        transport.stack.drain();
        transport.stack.handle_timeout(now);
    }
}
