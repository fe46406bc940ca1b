//! One track as its receiver sees it: sequence numbers of the media's SSRC, and what to ask of its sender.

use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;
use guest_relay_muxer::seq::{SeqNo, Step, Unwrapper};

use super::super::bytes::Writer;
use super::super::rtcp::{self, MAX_NACK_PAIRS};
use super::super::sdp::{Feedback as Negotiated, Track};
use super::keyframe::{KeyframeRequests, Request};
use super::nack::NackList;
use super::reception::Reception;
use super::round_trip::RoundTrip;

/// Clock rates of the two codecs (RFC 6184 §8.2.1, RFC 7587 §7).
fn clock_rate_hz(kind: TrackKind) -> u32 {
    match kind {
        TrackKind::Video => 90_000,
        TrackKind::Audio => 48_000,
    }
}

/// What was seen of one stream, and what was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Packets that never came, or not yet; retransmissions do not count as come.
    pub lost: u64,
    /// Interarrival jitter.
    pub jitter: Duration,
    /// Sequence numbers asked for again, repetitions included.
    pub nacked: u64,
    /// Packets that came after they had been asked for.
    pub recovered: u64,
    /// Packets that came as redundancy of later ones (RFC 2198).
    pub redundant: u64,
    /// Packets that are not asked for any more.
    pub given_up: u64,
    /// PLIs sent.
    pub pli: u64,
    /// FIRs sent.
    pub fir: u64,
}

/// The receiver's side of one track.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) kind: TrackKind,
    pub(super) negotiated: Negotiated,
    pub(super) ssrc: Option<u32>,
    pub(super) run: Option<Run>,
    pub(super) nack: NackList,
    pub(super) keyframes: KeyframeRequests,
    rtx: RtxPairing,
    /// Of [`NackList::given_up`], those that a keyframe was asked for.
    given_up_seen: u64,
    stats: StreamStats,
}

/// Which SSRC retransmits the current media SSRC. A description may name it; where it does not (RFC 4588 §5.3
/// would pair them by the request), the first one that comes is it.
#[derive(Debug, Default)]
struct RtxPairing {
    current: Option<u32>,
    /// That of the media SSRC before: what it still sends repeats packets of a stream that is over.
    retired: Option<u32>,
}

impl RtxPairing {
    /// Whether what `ssrc` sends belongs to the current media SSRC.
    fn admits(&mut self, ssrc: u32) -> bool {
        if self.retired == Some(ssrc) {
            return false;
        }
        self.current = Some(ssrc);
        true
    }

    fn media_changed(&mut self) {
        self.retired = self.current.take().or(self.retired);
    }
}

/// One run of sequence numbers.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) unwrapper: Unwrapper,
    highest: SeqNo,
    /// Bit n: `highest - n` is there, however it came.
    present: u64,
    pub(super) reception: Reception,
    /// The number after one that was far off: if it comes, another run has begun (RFC 3550 appendix A.1).
    after_jump: Option<u16>,
}

impl Stream {
    /// A stream that wants a keyframe at once, if the peer takes requests for one.
    pub(super) fn new(track: &Track, now: Instant) -> Self {
        let mut keyframes = KeyframeRequests::default();
        // `a=rtcp-fb:* nack pli` is said of sound, too.
        if track.kind == TrackKind::Video && (track.feedback.pli || track.feedback.fir) {
            keyframes.request(now);
        }
        Self {
            kind: track.kind,
            negotiated: track.feedback,
            ssrc: track.ssrc,
            run: None,
            nack: NackList::default(),
            keyframes,
            rtx: RtxPairing { current: track.rtx_ssrc, retired: None },
            given_up_seen: 0,
            stats: StreamStats::default(),
        }
    }

    /// Records a packet; a round trip time comes out when it is an answer to one request.
    pub(super) fn record(
        &mut self,
        ssrc: u32,
        sequence_number: u16,
        rtp_time: u32,
        epoch: Instant,
        now: Instant,
    ) -> Option<Duration> {
        if self.ssrc != Some(ssrc) {
            if self.ssrc.replace(ssrc).is_some() {
                self.rtx.media_changed();
            }
            self.run = None;
            self.nack.clear();
        }
        let clock_rate_hz = clock_rate_hz(self.kind);
        let run = self.run.get_or_insert_with(|| Run::new(clock_rate_hz, sequence_number, epoch));
        let sequence = match run.unwrapper.step(sequence_number) {
            Step::Ahead(sequence) => {
                if self.negotiated.nack {
                    self.nack.record_gap(run.highest, sequence, now);
                }
                run.advance_to(sequence);
                sequence
            }
            Step::Behind(sequence) => {
                let round_trip = self.nack.record_arrival(sequence, now);
                run.after_jump = None;
                run.add(sequence);
                run.reception.record(sequence, rtp_time, now);
                return round_trip;
            }
            Step::Jump => {
                if run.after_jump != Some(sequence_number) {
                    run.after_jump = Some(sequence_number.wrapping_add(1));
                    return None;
                }
                *run = Run::new(clock_rate_hz, sequence_number, epoch);
                self.nack.clear();
                run.highest
            }
        };
        run.after_jump = None;
        run.reception.record(sequence, rtp_time, now);
        None
    }
}

impl Run {
    fn new(clock_rate_hz: u32, first: u16, epoch: Instant) -> Self {
        let (unwrapper, first) = Unwrapper::new(first);
        Self {
            unwrapper,
            highest: first,
            present: 1,
            reception: Reception::new(clock_rate_hz, first, epoch),
            after_jump: None,
        }
    }

    fn advance_to(&mut self, sequence: SeqNo) {
        let ahead = u32::try_from(sequence.0 - self.highest.0).unwrap_or(u32::MAX);
        self.present = self.present.checked_shl(ahead).unwrap_or(0) | 1;
        self.highest = sequence;
    }

    /// Notes a packet that is not the highest. Returns whether it was missing; too old to say counts as such.
    fn add(&mut self, sequence: SeqNo) -> bool {
        let age = u32::try_from(self.highest.0.saturating_sub(sequence.0)).unwrap_or(u32::MAX);
        let bit = 1_u64.checked_shl(age).unwrap_or(0);
        let was_missing = self.present & bit == 0;
        self.present |= bit;
        was_missing
    }

    /// Where a repetition stands. A copy of the unwrapper: it must not move the run.
    fn place(&self, sequence_number: u16) -> Step {
        let mut unwrapper = self.unwrapper;
        unwrapper.step(sequence_number)
    }
}

/// What a retransmission is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recovery {
    /// It brings back a missing packet; with the round trip time, where it tells one.
    Missing(Option<Duration>),
    /// It repeats a packet that is there, or one of another stream.
    Useless,
}

impl Stream {
    /// Records a packet that the retransmission stream `rtx_ssrc` repeats.
    pub(super) fn record_retransmission(&mut self, sequence_number: u16, now: Instant) -> Recovery {
        let Some(run) = &mut self.run else {
            return Recovery::Useless;
        };
        match run.place(sequence_number) {
            Step::Behind(sequence) if run.add(sequence) => Recovery::Missing(self.nack.record_arrival(sequence, now)),
            // Nothing behind it came yet, so nobody missed it: the last packets of a burst were lost.
            Step::Ahead(_) => Recovery::Missing(None),
            Step::Behind(_) | Step::Jump => Recovery::Useless,
        }
    }

    /// The media SSRC that `rtx_ssrc` retransmits.
    pub(super) fn original_of(&mut self, rtx_ssrc: u32) -> Option<u32> {
        self.ssrc.filter(|_| self.rtx.admits(rtx_ssrc))
    }

    /// Records a packet that a later one repeats (RFC 2198). Returns whether it was missing.
    pub(super) fn record_redundant(&mut self, sequence_number: u16) -> bool {
        let Some(run) = &mut self.run else {
            return false;
        };
        let Step::Behind(sequence) = run.place(sequence_number) else {
            return false;
        };
        let was_missing = run.add(sequence);
        if was_missing {
            self.nack.forget(sequence);
            self.stats.redundant += 1;
        }
        was_missing
    }
}

impl Stream {
    pub(super) fn stats(&self) -> StreamStats {
        let reception = self.run.as_ref().map(|run| &run.reception);
        StreamStats {
            lost: reception.map_or(0, Reception::lost),
            jitter: reception.map_or(Duration::ZERO, Reception::jitter),
            recovered: self.nack.recovered,
            given_up: self.nack.given_up,
            ..self.stats
        }
    }

    /// Appends NACK, PLI and FIR, as far as due.
    pub(super) fn write_requests(&mut self, out: &mut Writer, sender_ssrc: u32, round_trip: &RoundTrip, now: Instant) {
        let Some(media_ssrc) = self.ssrc else {
            return;
        };
        let mut lost = Vec::new();
        self.nack.poll_requests(round_trip, now, MAX_NACK_PAIRS, &mut lost);
        if !lost.is_empty() {
            let written = rtcp::write_nack(out, sender_ssrc, media_ssrc, &lost);
            self.stats.nacked += written as u64;
        }
        let Negotiated { pli, fir, .. } = self.negotiated;
        if self.nack.given_up > self.given_up_seen && self.kind == TrackKind::Video && (pli || fir) {
            self.keyframes.request(now);
        }
        self.given_up_seen = self.nack.given_up;
        match self.keyframes.poll_request(pli, fir, now) {
            Some(Request::Pli) => {
                self.stats.pli += 1;
                rtcp::write_pli(out, sender_ssrc, media_ssrc);
            }
            Some(Request::Fir { sequence }) => {
                self.stats.fir += 1;
                rtcp::write_fir(out, sender_ssrc, media_ssrc, sequence);
            }
            None => {}
        }
    }
}
