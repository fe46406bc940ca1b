//! Everything a receiver tells the sender: what arrived in, RTCP compounds out (in the clear, to be protected).
//!
//! | what | when |
//! |---|---|
//! | receiver report, CNAME, reference time (XR) | at the start, then each [`REPORT_INTERVAL`] |
//! | transport-wide feedback | 50 ms after the last, while packets arrive (with [`LEEWAY`] up to 75) |
//! | REMB of the limit that is set | when it changes; each [`REMB_INTERVAL`], beside transport-wide feedback each [`LIMIT_INTERVAL`] |
//! | NACK | per missing packet, see [`nack`] |
//! | PLI, FIR | at the start and on request until a keyframe came, see [`keyframe`] |
//!
//! Reports, transport-wide feedback and REMB wait up to [`LEEWAY`] for a packet: it wakes us anyway, and a timer's wake-up
//! costs more than what it would send. NACK, PLI and FIR wait for nothing.
//!
//! Of feedback only what the peer's `a=rtcp-fb` lists is sent; extended reports need no leave (RFC 3611 §5). Without `rtcp-rsize` every compound begins with a receiver report
//! and CNAME (RFC 3550 §6.1). Intervals are fixed: there are two participants, so nothing has to be spread.

use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;

use super::bytes::Writer;
use super::random::random_u64;
use super::rtcp;
use super::rtcp::extended::{ReferenceDelay, write_reference_time};
use super::sdp::Track;

mod arrivals;
pub mod keyframe;
pub mod nack;
mod reception;
pub mod round_trip;
mod stream;

use arrivals::{Arrivals, FEEDBACK_INTERVAL};
use reception::middle;
use round_trip::RoundTrip;
pub use stream::StreamStats;
use stream::{Recovery, Stream};

/// Time between receiver reports; above 300 kbit/s a sender needs them this often to raise its rate.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Time between REMBs to a sender that has nothing else to go by.
pub const REMB_INTERVAL: Duration = Duration::from_millis(500);
/// The same to a sender that estimates by transport-wide feedback: it takes a REMB as the upper limit of its estimate,
/// until the next one.
pub const LIMIT_INTERVAL: Duration = Duration::from_secs(1);

/// How long what is due waits for a packet to come. Sound comes each 20 ms, and not quite evenly.
pub const LEEWAY: Duration = Duration::from_millis(25);

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
    round_trip: RoundTrip,
}

#[derive(Debug)]
struct Remb {
    bitrate_bps: u64,
    interval: Duration,
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
            round_trip: RoundTrip::default(),
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
        let remb = tracks.clone().any(|track| track.feedback.remb);
        let interval = if transport_wide { LIMIT_INTERVAL } else { REMB_INTERVAL };
        self.reduced_size = tracks.clone().all(|track| track.reduced_size_rtcp);
        self.transport_wide = transport_wide.then(|| {
            self.transport_wide.take().unwrap_or_else(|| TransportWide {
                arrivals: Arrivals::new(now),
                due: None,
                sent_at: now,
            })
        });
        let bitrate_bps = u64::from(max_bitrate_kbps) * 1000;
        self.remb = remb.then_some(Remb { bitrate_bps, interval, due: now });
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

    /// The SSRC of the media that `rtx_ssrc` retransmits, if that is known.
    pub(super) fn original_of(&mut self, kind: TrackKind, rtx_ssrc: u32) -> Option<u32> {
        self.stream(kind)?.original_of(rtx_ssrc)
    }

    /// Records a retransmission. Returns whether it brings back a missing packet.
    pub(super) fn record_retransmission(&mut self, kind: TrackKind, sequence_number: u16, now: Instant) -> bool {
        let recovery = self.stream(kind).map(|stream| stream.record_retransmission(sequence_number, now));
        let Some(Recovery::Missing(sample)) = recovery else {
            return false;
        };
        self.record_round_trip(sample);
        true
    }

    /// Records a packet that a later one repeats. Returns whether it was missing.
    pub(super) fn record_redundant(&mut self, kind: TrackKind, sequence_number: u16) -> bool {
        self.stream(kind).is_some_and(|stream| stream.record_redundant(sequence_number))
    }

    /// Takes a sample of the round trip time, if there is one.
    pub(super) fn record_round_trip(&mut self, sample: Option<Duration>) {
        if let Some(sample) = sample {
            self.round_trip.record(sample);
        }
    }

    /// Takes what the sender says about a reference time of ours (RFC 3611 §4.5).
    pub(super) fn record_reference_delay(&mut self, answer: &ReferenceDelay, now: Instant) {
        if answer.ssrc != self.sender_ssrc || answer.last_reference_time == 0 {
            return;
        }
        let elapsed = middle(self.ntp_time(now)).wrapping_sub(answer.last_reference_time).wrapping_sub(answer.delay);
        // Below zero: no answer to us, or a delay that was counted longer than it was.
        let Ok(elapsed) = u64::try_from(elapsed.cast_signed()) else {
            return;
        };
        self.round_trip.record(Duration::from_micros(elapsed * 1_000_000 / 65_536));
    }

    /// A clock of our own for the sender to answer to, 32.32 fixed point seconds. Nobody looks at the date, but some
    /// cannot read one before 1970.
    fn ntp_time(&self, now: Instant) -> u64 {
        const NTP_1970: Duration = Duration::from_secs(2_208_988_800);
        let since = NTP_1970 + now.saturating_duration_since(self.epoch);
        let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
        since.as_secs() << 32 | fraction
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

    /// From now on the sender should not exceed this.
    pub(super) fn set_max_bitrate(&mut self, max_bitrate_kbps: u32, now: Instant) {
        if let Some(remb) = &mut self.remb {
            remb.bitrate_bps = u64::from(max_bitrate_kbps) * 1000;
            remb.due = now;
        }
    }

    /// A missing packet of this track is worth waiting for so long.
    pub(super) fn set_max_wait(&mut self, kind: TrackKind, max_wait: Duration) {
        if let Some(stream) = self.stream(kind) {
            stream.nack.set_max_wait(max_wait);
        }
    }

    /// The smoothed round trip time.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.smoothed()
    }

    pub(super) fn stats(&self, kind: TrackKind) -> StreamStats {
        self.streams.iter().find(|stream| stream.kind == kind).map_or_else(StreamStats::default, Stream::stats)
    }

    /// When [`Feedback::poll_compound`] must be asked.
    pub(super) fn poll_timeout(&self) -> Instant {
        let requests = self.streams.iter().flat_map(|stream| {
            let keyframe = stream.ssrc.and(stream.keyframes.poll_timeout());
            [stream.nack.poll_timeout(), keyframe]
        });
        requests.flatten().fold(self.ready_at() + LEEWAY, Instant::min)
    }

    /// From when on it should be asked when a packet comes.
    pub(super) fn ready_at(&self) -> Instant {
        let transport_wide = self.transport_wide.as_ref().and_then(|wide| wide.due);
        let remb = self.remb.as_ref().map(|remb| remb.due);
        [transport_wide, remb].into_iter().flatten().fold(self.report_at, Instant::min)
    }

    /// The next compound that is due; call until `None`.
    pub(super) fn poll_compound(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.poll_requests(now).or_else(|| self.poll_transport_feedback(now))
    }

    /// Receiver report, REMB, NACK, PLI and FIR, as far as due.
    fn poll_requests(&mut self, now: Instant) -> Option<Vec<u8>> {
        let mut body = Writer::with_capacity(256);
        if let Some(remb) = self.remb.as_mut().filter(|remb| remb.due <= now) {
            remb.due = now + remb.interval;
            let ssrcs: Vec<u32> = self.streams.iter().filter_map(|s| s.ssrc).collect();
            rtcp::write_remb(&mut body, self.sender_ssrc, remb.bitrate_bps, &ssrcs);
        }
        for stream in &mut self.streams {
            stream.write_requests(&mut body, self.sender_ssrc, &self.round_trip, now);
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
        if report_due {
            write_reference_time(&mut compound, self.sender_ssrc, self.ntp_time(now));
        }
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
