//! The media phase: SRTP datagrams -> packets of the two tracks, SRTCP -> reports; feedback -> SRTCP datagrams.
//!
//! A packet's track is told by its payload type, which is unique in a BUNDLE group (RFC 8843 §9.2), not by its
//! SSRC, which an offer need not name and which may change. A packet whose MID extension names another m-line is
//! dropped. Nothing is allocated here per packet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use guest_relay_muxer::{RtpPacket, TrackKind};

use super::super::feedback::Feedback;
use super::super::red::Red;
use super::super::rtcp::{Compound, Packet, SenderReport};
use super::super::sdp::{Codec, Format, Track};
use super::super::srtp::{Inbound, Keys, Opened, Outbound, SrtpError};
use super::interface::{Event, Output};
use super::received::{Missing, Received};
use super::stats::{Delivery, PeerStats};

/// The tracks of a session and, once there are keys, what receives them.
pub(super) struct Media {
    tracks: Vec<Track>,
    max_bitrate_kbps: u32,
    /// Payload types that an [`Event::UnexpectedCodec`] was about.
    reported: Vec<u8>,
    keyed: Option<Keyed>,
}

/// What became of an SRTP packet that authenticated.
pub(super) struct Arrived<'a> {
    /// See [`Opened::is_newest`].
    pub(super) is_newest: bool,
    /// What it has for the muxer.
    pub(super) received: Option<Received<'a>>,
}

/// The media side of a session, once the handshake has given keys.
struct Keyed {
    inbound: Inbound,
    outbound: Outbound,
    feedback: Feedback,
}

impl Media {
    pub(super) fn has_track(&self, kind: TrackKind) -> bool {
        self.tracks.iter().any(|track| track.kind == kind)
    }

    pub(super) fn new(tracks: Vec<Track>, max_bitrate_kbps: u32) -> Self {
        Self { tracks, max_bitrate_kbps, reported: Vec::new(), keyed: None }
    }

    /// Takes the tracks of a further description in place of those so far. What goes on keeps its reception; a track
    /// that is new wants a keyframe.
    pub(super) fn set_tracks(&mut self, tracks: Vec<Track>, now: Instant) {
        self.tracks = tracks;
        self.reported.clear();
        if let Some(keyed) = &mut self.keyed {
            keyed.inbound.announce_only(announced(&self.tracks));
            keyed.feedback.set_tracks(self.tracks.iter(), self.max_bitrate_kbps, now);
        }
    }

    /// Media may flow; `round_trip` is that of the path, if known.
    pub(super) fn start(&mut self, keys: &Keys, round_trip: Option<Duration>, now: Instant) {
        let mut inbound = Inbound::new(keys, now);
        inbound.announce_only(announced(&self.tracks));
        let mut feedback = Feedback::new(self.tracks.iter(), self.max_bitrate_kbps, now);
        feedback.record_round_trip(round_trip);
        self.keyed = Some(Keyed { inbound, outbound: Outbound::new(keys), feedback });
    }

    /// Whether SRTP can be opened.
    pub(super) fn has_keys(&self) -> bool {
        self.keyed.is_some()
    }

    pub(super) fn stop(&mut self) {
        self.keyed = None;
    }

    pub(super) fn request_keyframe(&mut self, now: Instant) {
        if let Some(keyed) = &mut self.keyed {
            keyed.feedback.request_keyframe(now);
        }
    }

    pub(super) fn notify_keyframe(&mut self) {
        if let Some(keyed) = &mut self.keyed {
            keyed.feedback.notify_keyframe();
        }
    }

    pub(super) fn set_max_bitrate(&mut self, max_bitrate_kbps: u32, now: Instant) {
        if std::mem::replace(&mut self.max_bitrate_kbps, max_bitrate_kbps) != max_bitrate_kbps
            && let Some(keyed) = &mut self.keyed
        {
            keyed.feedback.set_max_bitrate(max_bitrate_kbps, now);
        }
    }

    pub(super) fn set_max_wait(&mut self, kind: TrackKind, max_wait: Duration) {
        if let Some(keyed) = &mut self.keyed {
            keyed.feedback.set_max_wait(kind, max_wait);
        }
    }

    /// Opens an SRTP packet; without keys there is nothing in it.
    pub(super) fn handle_rtp(
        &mut self,
        datagram: &[u8],
        now: Instant,
        outputs: &mut VecDeque<Output>,
        stats: &mut PeerStats,
    ) -> Result<Arrived<'_>, SrtpError> {
        let Self { tracks, reported, keyed: Some(Keyed { inbound, feedback, .. }), .. } = self else {
            return Ok(Arrived { is_newest: false, received: None });
        };
        let Opened { packet, is_newest } = inbound.unprotect_rtp(datagram, now)?;
        let mut sorting = Sorting { tracks, reported, feedback, outputs, stats };
        Ok(Arrived { is_newest, received: sorting.take(packet, now) })
    }

    /// Reads a compound; of each kind of news the last per track counts, so that no datagram causes more than four
    /// events. Whether it is the newest; see [`Opened::is_newest`].
    pub(super) fn handle_rtcp(
        &mut self,
        datagram: &[u8],
        now: Instant,
        outputs: &mut VecDeque<Output>,
        stats: &mut PeerStats,
    ) -> Result<bool, SrtpError> {
        let Some(Keyed { inbound, feedback, .. }) = &mut self.keyed else {
            return Ok(false);
        };
        let mut reports: [Option<(TrackKind, SenderReport)>; 2] = [None; 2];
        let mut byes: [Option<TrackKind>; 2] = [None; 2];
        let slot = |kind| usize::from(kind == TrackKind::Video);
        let Opened { packet: compound, is_newest } = inbound.unprotect_rtcp(datagram, now)?;
        for packet in Compound::new(compound) {
            match packet {
                Ok(Packet::SenderReport(report, _)) => {
                    if let Some(kind) = feedback.record_sender_report(&report, now)
                        && let Some(last) = reports.get_mut(slot(kind))
                    {
                        *last = Some((kind, report));
                    }
                }
                Ok(Packet::Bye(ssrcs)) => {
                    for kind in ssrcs.filter_map(|ssrc| feedback.kind_of(ssrc)) {
                        if let Some(last) = byes.get_mut(slot(kind)) {
                            *last = Some(kind);
                        }
                    }
                }
                Ok(Packet::ExtendedReport(answers)) => {
                    answers.for_each(|answer| feedback.record_reference_delay(&answer, now));
                }
                Ok(_) => {}
                Err(_) => stats.malformed_packets += 1,
            }
        }
        let reports = reports.into_iter().flatten();
        outputs.extend(reports.map(|(kind, report)| {
            Output::Event(Event::SenderReport { kind, ntp_time: report.ntp_time, rtp_time: report.rtp_time })
        }));
        let byes = byes.into_iter().flatten();
        outputs.extend(byes.map(|kind| Output::Event(Event::Bye { kind })));
        Ok(is_newest)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.keyed.as_ref().map(|keyed| keyed.feedback.poll_timeout())
    }

    /// Whether a packet that comes now should take something along.
    pub(super) fn is_ready_to_transmit(&self, now: Instant) -> bool {
        self.keyed.as_ref().is_some_and(|keyed| keyed.feedback.ready_at() <= now)
    }

    /// The next SRTCP datagram that is due; call until `None`.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Result<Vec<u8>, SrtpError>> {
        let keyed = self.keyed.as_mut()?;
        let compound = keyed.feedback.poll_compound(now)?;
        Some(keyed.outbound.protect_rtcp(&compound))
    }

    /// The last datagram.
    pub(super) fn bye(&mut self, now: Instant) -> Option<Vec<u8>> {
        let keyed = self.keyed.as_mut()?;
        let compound = keyed.feedback.bye(now);
        keyed.outbound.protect_rtcp(&compound).ok()
    }

    pub(super) fn delivery(&self, kind: TrackKind) -> Delivery {
        let retransmits = self.tracks.iter().any(|track| track.kind == kind && track.feedback.nack);
        let feedback = self.keyed.as_ref().map(|keyed| &keyed.feedback);
        Delivery {
            round_trip: feedback.and_then(Feedback::round_trip),
            jitter: feedback.map_or(Duration::ZERO, |feedback| feedback.stats(kind).jitter),
            retransmits,
        }
    }

    pub(super) fn fill_stats(&self, stats: &mut PeerStats) {
        let Some(keyed) = &self.keyed else {
            return;
        };
        stats.srtp = *keyed.inbound.stats();
        stats.round_trip = keyed.feedback.round_trip();
        stats.audio.stream = keyed.feedback.stats(TrackKind::Audio);
        stats.video.stream = keyed.feedback.stats(TrackKind::Video);
    }
}

/// What looks at a decrypted packet.
struct Sorting<'a> {
    tracks: &'a [Track],
    reported: &'a mut Vec<u8>,
    feedback: &'a mut Feedback,
    outputs: &'a mut VecDeque<Output>,
    stats: &'a mut PeerStats,
}

impl Sorting<'_> {
    /// `None`: nothing for the muxer in it.
    fn take<'p>(&mut self, packet: &'p [u8], now: Instant) -> Option<Received<'p>> {
        let Self { tracks, reported, feedback, outputs, stats } = self;
        let Ok(packet) = RtpPacket::parse(packet) else {
            stats.malformed_packets += 1;
            return None;
        };
        let Some((track, format)) = format_of(tracks, packet.payload_type) else {
            stats.unknown_payload_types += 1;
            if let Some((kind, codec)) = foreign_codec(tracks, packet.payload_type) {
                stats.unexpected_codec += 1;
                if !reported.contains(&packet.payload_type) {
                    reported.push(packet.payload_type);
                    outputs.push_back(Output::Event(Event::UnexpectedCodec {
                        kind,
                        payload_type: packet.payload_type,
                        codec,
                    }));
                }
            }
            return None;
        };
        let mut names_another_track = false;
        for extension in packet.extensions() {
            if Some(extension.id) == track.extensions.transport_cc {
                if let Ok(sequence) = extension.data.try_into() {
                    feedback.record_transport_sequence(u16::from_be_bytes(sequence), now);
                }
            } else if Some(extension.id) == track.extensions.mid {
                let mid = track.mid.as_deref().map(str::as_bytes);
                names_another_track = mid != Some(extension.data);
            }
        }
        if names_another_track {
            stats.unknown_payload_types += 1;
            return None;
        }
        let kind = track.kind;
        let counters = stats.track(kind);
        if format.rtx_payload_type != Some(packet.payload_type) {
            counters.packets += 1;
            counters.payload_bytes += packet.payload.len() as u64;
            feedback.record_packet(kind, packet.ssrc, packet.sequence_number, packet.rtp_time, now);
            if packet.payload_type == format.payload_type {
                return Some(Received { kind, packet, redundant: Missing::default() });
            }
            let Ok(red) = Red::parse(packet.payload, format.payload_type) else {
                counters.malformed_redundancy += 1;
                return None;
            };
            let redundant = Missing::of(red.redundant, |distance| {
                feedback.record_redundant(kind, packet.sequence_number.wrapping_sub(distance))
            });
            let packet = RtpPacket { payload_type: format.payload_type, payload: red.primary, ..packet };
            return Some(Received { kind, packet, redundant });
        }
        // RFC 4588 §4. A retransmission without payload is a probe of the sender's bandwidth estimate.
        let original = feedback
            .original_of(kind, packet.ssrc)
            .and_then(|ssrc| packet.undo_rtx(format.payload_type, ssrc))
            .filter(|original| !original.payload.is_empty())
            .filter(|original| feedback.record_retransmission(kind, original.sequence_number, now));
        let Some(packet) = original else {
            counters.useless_retransmissions += 1;
            return None;
        };
        counters.retransmissions += 1;
        counters.payload_bytes += packet.payload.len() as u64;
        Some(Received { kind, packet, redundant: Missing::default() })
    }
}

/// The SSRCs that the peer's description names.
fn announced(tracks: &[Track]) -> impl Iterator<Item = u32> {
    tracks.iter().flat_map(|track| [track.ssrc, track.rtx_ssrc]).flatten()
}

/// The track and its format that a payload type is the media, the retransmission or the redundancy of.
fn format_of(tracks: &[Track], payload_type: u8) -> Option<(&Track, &Format)> {
    tracks.iter().find_map(|track| {
        let format = track.formats.iter().find(|format| format.payload_types().any(|each| each == payload_type))?;
        Some((track, format))
    })
}

fn foreign_codec(tracks: &[Track], payload_type: u8) -> Option<(TrackKind, Codec)> {
    tracks.iter().find_map(|track| {
        let (_, codec) = track.foreign.iter().find(|(foreign, _)| *foreign == payload_type)?;
        Some((track.kind, *codec))
    })
}

#[cfg(test)]
mod tests;
