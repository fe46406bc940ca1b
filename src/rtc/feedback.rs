//! Everything a receiver tells the sender: what arrived in, RTCP compounds out (in the clear, to be protected).
//!
//! | what | when |
//! |---|---|
//! | receiver report + CNAME | at the start, then each [`REPORT_INTERVAL`] |
//! | transport-wide feedback | 50 ms after the last, while packets arrive |
//! | REMB of the configured limit | each [`REMB_INTERVAL`], only where transport-wide feedback was not negotiated |
//! | NACK | per missing packet, see [`nack`] |
//! | PLI, FIR | at the start and on request until a keyframe came, see [`keyframe`] |
//!
//! Only what the peer's `a=rtcp-fb` lists is sent. Without `rtcp-rsize` every compound begins with a receiver report
//! and CNAME (RFC 3550 section 6.1). Intervals are fixed: there are two participants, so nothing has to be spread.

use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;
use guest_relay_muxer::seq::Step;

use super::bytes::Writer;
use super::ice::random_u64;
use super::rtcp;
use super::sdp::Track;

mod arrivals;
pub mod keyframe;
pub mod nack;
mod reception;
mod stream;

use arrivals::{Arrivals, FEEDBACK_INTERVAL};
use stream::Stream;
pub use stream::StreamStats;

/// Time between receiver reports; above 300 kbit/s a sender needs them this often to raise its rate.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Time between REMBs.
pub const REMB_INTERVAL: Duration = Duration::from_millis(500);
/// The round trip time before it was measured.
pub const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(100);

/// Transport-wide feedback and when it is due.
#[derive(Debug)]
struct TransportWide {
    arrivals: Arrivals,
    due: Option<Instant>,
    sent_at: Instant,
}

/// The feedback of one session; starts when media may flow.
#[derive(Debug)]
pub(super) struct Feedback {
    sender_ssrc: u32,
    cname: String,
    epoch: Instant,
    reduced_size: bool,
    streams: Vec<Stream>,
    transport_wide: Option<TransportWide>,
    remb: Option<Remb>,
    report_at: Instant,
    round_trip: Option<Duration>,
}

#[derive(Debug)]
struct Remb {
    bitrate_bps: u64,
    due: Instant,
}

impl Feedback {
    pub(super) fn new<'a>(
        tracks: impl Iterator<Item = &'a Track> + Clone,
        max_bitrate_kbps: u32,
        now: Instant,
    ) -> Self {
        let [a, b, c, d, cname @ ..] = random_u64().to_be_bytes();
        let mut feedback = Self {
            // 0 is what some take for "none".
            sender_ssrc: u32::from_be_bytes([a, b, c, d]).max(1),
            cname: format!("{:08x}", u32::from_be_bytes(cname)),
            epoch: now,
            reduced_size: false,
            streams: Vec::new(),
            transport_wide: None,
            remb: None,
            report_at: now,
            round_trip: None,
        };
        feedback.set_tracks(tracks, max_bitrate_kbps, now);
        feedback
    }

    /// Takes these tracks in place of those so far. A stream goes on as the one of its kind, unless the description
    /// names another SSRC for it.
    pub(super) fn set_tracks<'a>(
        &mut self,
        tracks: impl Iterator<Item = &'a Track> + Clone,
        max_bitrate_kbps: u32,
        now: Instant,
    ) {
        let transport_wide =
            tracks.clone().any(|track| track.feedback.transport_cc && track.extensions.transport_cc.is_some());
        let remb = !transport_wide && tracks.clone().any(|track| track.feedback.remb);
        self.reduced_size = tracks.clone().all(|track| track.reduced_size_rtcp);
        self.transport_wide = transport_wide.then(|| {
            self.transport_wide.take().unwrap_or_else(|| TransportWide {
                arrivals: Arrivals::new(now),
                due: None,
                sent_at: now,
            })
        });
        self.remb = remb.then(|| Remb { bitrate_bps: u64::from(max_bitrate_kbps) * 1000, due: now });
        let mut known = std::mem::take(&mut self.streams);
        self.streams = tracks
            .map(|track| {
                let goes_on = known.iter().position(|stream| {
                    let same_ssrc = track.ssrc.is_none_or(|ssrc| stream.ssrc == Some(ssrc));
                    stream.kind == track.kind && same_ssrc
                });
                match goes_on {
                    Some(index) => {
                        let mut stream = known.swap_remove(index);
                        stream.negotiated = track.feedback;
                        stream
                    }
                    None => Stream::new(track, now),
                }
            })
            .collect();
    }

    fn stream(&mut self, kind: TrackKind) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.kind == kind)
    }

    /// Records a packet of the media stream itself.
    pub(super) fn record_packet(
        &mut self,
        kind: TrackKind,
        ssrc: u32,
        sequence_number: u16,
        rtp_time: u32,
        now: Instant,
    ) {
        let epoch = self.epoch;
        let sample = self.stream(kind).and_then(|stream| stream.record(ssrc, sequence_number, rtp_time, epoch, now));
        self.record_round_trip(sample);
    }

    /// Records that a retransmission brought back a packet of the media stream.
    pub(super) fn record_recovered(&mut self, kind: TrackKind, sequence_number: u16, now: Instant) {
        let sample = self.stream(kind).and_then(|stream| {
            // A copy: a retransmission must not move the run.
            let mut unwrapper = stream.run.as_ref()?.unwrapper;
            match unwrapper.step(sequence_number) {
                Step::Behind(sequence) => stream.nack.record_arrival(sequence, now),
                Step::Ahead(_) | Step::Jump => None,
            }
        });
        self.record_round_trip(sample);
    }

    /// Takes a sample of the round trip time, if there is one.
    pub(super) fn record_round_trip(&mut self, sample: Option<Duration>) {
        if let Some(sample) = sample {
            self.round_trip = Some(match self.round_trip {
                None => sample,
                Some(smoothed) => (smoothed * 7 + sample) / 8,
            });
        }
    }

    /// Records the transport-wide sequence number of any packet.
    pub(super) fn record_transport_sequence(&mut self, sequence: u16, now: Instant) {
        if let Some(transport_wide) = &mut self.transport_wide
            && transport_wide.arrivals.record(sequence, now)
        {
            let next = transport_wide.sent_at + FEEDBACK_INTERVAL;
            transport_wide.due = Some(if next > now { next } else { now + FEEDBACK_INTERVAL });
        }
    }

    /// Records a sender report; returns which track it is about.
    pub(super) fn record_sender_report(&mut self, report: &rtcp::SenderReport, now: Instant) -> Option<TrackKind> {
        let stream = self.streams.iter_mut().find(|stream| stream.ssrc == Some(report.ssrc))?;
        if let Some(run) = &mut stream.run {
            run.reception.record_sender_report(report.ntp_time, now);
        }
        Some(stream.kind)
    }

    /// The track that `ssrc` is the media of.
    pub(super) fn kind_of(&self, ssrc: u32) -> Option<TrackKind> {
        let stream = self.streams.iter().find(|stream| stream.ssrc == Some(ssrc))?;
        Some(stream.kind)
    }

    /// The SSRC of a track's media, as far as known.
    pub(super) fn ssrc_of(&self, kind: TrackKind) -> Option<u32> {
        self.streams.iter().find(|stream| stream.kind == kind)?.ssrc
    }

    pub(super) fn request_keyframe(&mut self, now: Instant) {
        if let Some(stream) = self.stream(TrackKind::Video)
            && (stream.negotiated.pli || stream.negotiated.fir)
        {
            stream.keyframes.request(now);
        }
    }

    pub(super) fn notify_keyframe(&mut self) {
        if let Some(stream) = self.stream(TrackKind::Video) {
            stream.keyframes.notify();
        }
    }

    /// Smoothed time from a NACK to its retransmission.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    pub(super) fn stats(&self, kind: TrackKind) -> StreamStats {
        self.streams.iter().find(|stream| stream.kind == kind).map_or_else(StreamStats::default, Stream::stats)
    }

    /// When [`Feedback::poll_compound`] will have something.
    pub(super) fn poll_timeout(&self) -> Instant {
        let streams = self.streams.iter().flat_map(|stream| {
            let keyframe = stream.ssrc.and(stream.keyframes.poll_timeout());
            [stream.nack.poll_timeout(), keyframe]
        });
        let transport_wide = self.transport_wide.as_ref().and_then(|wide| wide.due);
        let remb = self.remb.as_ref().map(|remb| remb.due);
        streams.chain([transport_wide, remb]).flatten().fold(self.report_at, Instant::min)
    }

    /// The next compound that is due; call until `None`.
    pub(super) fn poll_compound(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.poll_requests(now).or_else(|| self.poll_transport_feedback(now))
    }

    /// Receiver report, REMB, NACK, PLI and FIR, as far as due.
    fn poll_requests(&mut self, now: Instant) -> Option<Vec<u8>> {
        let mut body = Writer::with_capacity(256);
        if let Some(remb) = self.remb.as_mut().filter(|remb| remb.due <= now) {
            remb.due = now + REMB_INTERVAL;
            let ssrcs: Vec<u32> = self.streams.iter().filter_map(|s| s.ssrc).collect();
            rtcp::write_remb(&mut body, self.sender_ssrc, remb.bitrate_bps, &ssrcs);
        }
        let round_trip = self.round_trip.unwrap_or(INITIAL_ROUND_TRIP);
        for stream in &mut self.streams {
            stream.write_requests(&mut body, self.sender_ssrc, round_trip, now);
        }
        let report_due = self.report_at <= now;
        if body.is_empty() && !report_due {
            return None;
        }
        let mut compound = self.begin_compound(report_due, now);
        compound.bytes(body.as_slice());
        Some(compound.into_vec())
    }

    fn poll_transport_feedback(&mut self, now: Instant) -> Option<Vec<u8>> {
        let wide = self.transport_wide.as_mut()?;
        if wide.due? > now {
            return None;
        }
        let media_ssrc = self.streams.iter().find_map(|s| s.ssrc).unwrap_or(0);
        let Some(feedback) = wide.arrivals.poll_feedback(self.sender_ssrc, media_ssrc) else {
            wide.due = None;
            wide.sent_at = now;
            return None;
        };
        let mut compound = self.begin_compound(false, now);
        feedback.write_to(&mut compound);
        Some(compound.into_vec())
    }

    /// The packets every full compound begins with; where reduced size was negotiated, only when the report is due.
    fn begin_compound(&mut self, report_due: bool, now: Instant) -> Writer {
        let mut compound = Writer::with_capacity(512);
        if !report_due && self.reduced_size {
            return compound;
        }
        let mut blocks = Vec::with_capacity(2);
        if report_due {
            self.report_at = now + REPORT_INTERVAL;
            for stream in &mut self.streams {
                if let Some((ssrc, run)) = stream.ssrc.zip(stream.run.as_mut()) {
                    blocks.push(run.reception.report(ssrc, now));
                }
            }
        }
        rtcp::write_receiver_report(&mut compound, self.sender_ssrc, &blocks);
        rtcp::write_cname(&mut compound, self.sender_ssrc, &self.cname);
        compound
    }

    /// The last compound of a session.
    pub(super) fn bye(&mut self, now: Instant) -> Vec<u8> {
        let mut compound = self.begin_compound(true, now);
        rtcp::write_bye(&mut compound, self.sender_ssrc);
        compound.into_vec()
    }
}

#[cfg(test)]
mod tests;
