//! One timeline for both tracks.
//!
//! Input: RTP times (wrapping, each track with its own offset and rate), arrival times, sender reports
//! (RFC 3550 §6.4.1). Output: presentation times in microseconds from the configured start.
//!
//! - A track's clock is its RTP clock: steps between packets are exact, whatever the network did to them.
//! - The first packet of a track is placed by its arrival. The very first one defines the start.
//! - Audio is the master: it is never moved. Sender reports of both tracks say where video belongs; video is moved
//!   there by a fraction of each frame's duration, so time never runs backwards.
//! - A timestamp that no network can explain (backwards, far ahead, standing still) places the track anew by arrival.

use crate::TrackKind;
use crate::time::MediaTime;

/// A step ahead of the elapsed time by more than this is a jump of the sender's clock.
const MAX_AHEAD_MICROS: i64 = 5_000_000;
/// A step back by more than this is a jump; less is B-frames, or a clock that was set.
const MAX_BACKWARD_MICROS: i64 = 1_000_000;
/// Arriving later than usual by more than this is a clock that stands still.
const MAX_BEHIND_MICROS: i64 = 10_000_000;
/// Sender reports that ask for less are left alone: nobody hears it, and video keeps its own exact steps.
const MIN_CORRECTION_MICROS: i64 = 10_000;
/// Sender reports that ask for more are not believed.
const MAX_CORRECTION_MICROS: i64 = 10_000_000;
/// Video moves by a sixteenth of each frame's duration, or by half of it when it is this far off.
const FAR_OFF_MICROS: i64 = 500_000;
/// A sender report older than this is not compared with one of the other track.
const MAX_REPORT_AGE_MICROS: i64 = 60_000_000;
/// The least transit time is looked for in windows of this length.
const TRANSIT_WINDOW_MICROS: i64 = 10_000_000;

/// What a sender report says about time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport {
    /// NTP time in units of 2^-32 s; only differences matter.
    pub ntp_time: u64,
    /// The same instant on the track's RTP clock.
    pub rtp_time: u32,
}

/// Least difference between arrival and media time lately: arrival without queueing.
#[derive(Clone, Copy, Debug)]
struct LeastTransit {
    least: i64,
    least_before: i64,
    since: i64,
}

impl LeastTransit {
    fn new(transit: i64, arrival: i64) -> Self {
        Self { least: transit, least_before: transit, since: arrival }
    }

    fn update(&mut self, transit: i64, arrival: i64) {
        if arrival - self.since >= TRANSIT_WINDOW_MICROS {
            self.least_before = self.least;
            self.least = transit;
            self.since = arrival;
        }
        self.least = self.least.min(transit);
    }

    fn micros(&self) -> i64 {
        self.least.min(self.least_before)
    }
}

/// RTP time `rtp` (unwrapped) is `media` on the timeline.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    rtp: i64,
    media: i64,
    last_rtp: i64,
    last_arrival: i64,
    transit: LeastTransit,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    rate: i64,
    anchor: Option<Anchor>,
    report: Option<(SenderReport, i64)>,
    /// Added to what the anchor says, and where it is going.
    correction: i64,
    target: i64,
}

impl Clock {
    fn new(rate: u32) -> Self {
        Self { rate: i64::from(rate), anchor: None, report: None, correction: 0, target: 0 }
    }

    /// What the anchor says about an RTP time, without the correction.
    fn media(&self, anchor: &Anchor, rtp: i64) -> i64 {
        anchor.media + self.span(rtp - anchor.rtp)
    }

    fn span(&self, ticks: i64) -> i64 {
        ticks.saturating_mul(1_000_000).div_euclid(self.rate)
    }

    /// NTP and media time of the newest sender report, unless it is old.
    fn reported(&self, now: i64) -> Option<(u64, i64)> {
        let (report, _) = self.report.filter(|(_, at)| now - at <= MAX_REPORT_AGE_MICROS)?;
        let anchor = self.anchor?;
        Some((report.ntp_time, self.media(&anchor, unwrap(anchor.last_rtp, report.rtp_time))))
    }

    /// Whether no network can explain that this RTP time comes now.
    fn jumps(&self, anchor: &Anchor, rtp: i64, arrival: i64) -> bool {
        let step = self.span(rtp - anchor.last_rtp);
        let elapsed = (arrival - anchor.last_arrival).max(0);
        let behind = arrival - self.media(anchor, rtp) - anchor.transit.micros();
        step < -MAX_BACKWARD_MICROS || step - elapsed > MAX_AHEAD_MICROS || behind > MAX_BEHIND_MICROS
    }

    /// Moves the correction towards its target, slower than the `step` that time made.
    fn slew(&mut self, step: i64) {
        let error = self.target - self.correction;
        let limit = step.max(0) / if error.abs() > FAR_OFF_MICROS { 2 } else { 16 };
        self.correction += error.clamp(-limit, limit);
    }
}

/// The unwrapped time nearest to `last` that wraps to `rtp_time`.
fn unwrap(last: i64, rtp_time: u32) -> i64 {
    let [_, _, _, _, low @ ..] = last.to_be_bytes();
    let step = rtp_time.wrapping_sub(u32::from_be_bytes(low)).cast_signed();
    last + i64::from(step)
}

/// `later - earlier` in microseconds, for NTP times within 68 years.
fn ntp_span(later: u64, earlier: u64) -> i64 {
    let span = i128::from(later.wrapping_sub(earlier).cast_signed()) * 1_000_000;
    i64::try_from(span >> 32).expect("32 bits of seconds in microseconds fit 64 bits")
}

/// Both tracks' clocks.
#[derive(Debug)]
pub(crate) struct Timeline {
    start: i64,
    /// Media time less arrival time, following the master track.
    offset: Option<i64>,
    audio: Clock,
    video: Clock,
}

impl Timeline {
    pub(crate) fn new(start: MediaTime, audio_rate: u32, video_rate: u32) -> Self {
        Self { start: start.micros(), offset: None, audio: Clock::new(audio_rate), video: Clock::new(video_rate) }
    }

    /// The time of the first tag.
    pub(crate) fn start(&self) -> MediaTime {
        MediaTime::from_micros(self.start)
    }

    /// Where the timeline stands when something arrives at `arrival`; `None` before the first media.
    pub(crate) fn at(&self, arrival: MediaTime) -> Option<MediaTime> {
        let offset = self.offset?;
        Some(MediaTime::from_micros(arrival.micros().saturating_add(offset).max(self.start)))
    }

    /// Starts the timeline at `arrival`, unless it runs already.
    pub(crate) fn begin(&mut self, arrival: MediaTime) {
        self.offset.get_or_insert(self.start.saturating_sub(arrival.micros()));
    }

    /// Has the timeline stand at `media` when something arrives at `arrival`.
    pub(crate) fn resume(&mut self, media: MediaTime, arrival: MediaTime) {
        self.offset = Some(media.micros().saturating_sub(arrival.micros()));
    }

    /// Presentation time of `rtp_time`. When the track has to be placed anew, it goes on no earlier than `floor`.
    pub(crate) fn stamp(&mut self, kind: TrackKind, rtp_time: u32, arrival: MediaTime, floor: MediaTime) -> MediaTime {
        let now = arrival.micros();
        let clock = self.clock(kind);
        let placed = clock.anchor.and_then(|anchor| {
            let rtp = unwrap(anchor.last_rtp, rtp_time);
            (!clock.jumps(&anchor, rtp, now)).then_some((anchor, rtp))
        });
        let Some((mut anchor, rtp)) = placed else {
            return self.place(kind, rtp_time, arrival, floor);
        };
        let clock = self.clock_mut(kind);
        let media = clock.media(&anchor, rtp);
        clock.slew(clock.span(rtp - anchor.last_rtp));
        anchor.transit.update(now - media, now);
        anchor.last_rtp = rtp;
        anchor.last_arrival = now;
        clock.anchor = Some(anchor);
        let correction = clock.correction;
        if kind == TrackKind::Audio || self.audio.anchor.is_none() {
            self.offset = Some(correction - anchor.transit.micros());
        }
        MediaTime::from_micros((media + correction).max(self.start))
    }

    /// Another encoder takes over the track: its clock and its reports say nothing any more.
    pub(crate) fn restart(&mut self, kind: TrackKind) {
        let clock = self.clock_mut(kind);
        clock.anchor = None;
        clock.report = None;
    }

    pub(crate) fn handle_sender_report(&mut self, kind: TrackKind, report: SenderReport, arrival: MediaTime) {
        self.clock_mut(kind).report = Some((report, arrival.micros()));
        self.find_target(arrival);
    }

    /// The correction of the video clock, and what is still missing.
    pub(crate) fn correction(&self) -> (i64, i64) {
        (self.video.correction, self.video.target - self.video.correction)
    }

    fn place(&mut self, kind: TrackKind, rtp_time: u32, arrival: MediaTime, floor: MediaTime) -> MediaTime {
        self.begin(arrival);
        let media = self.at(arrival).map_or(floor, |media| media.max(floor)).micros();
        let rtp = i64::from(rtp_time);
        let now = arrival.micros();
        let transit = LeastTransit::new(now - media, now);
        let clock = self.clock_mut(kind);
        if clock.anchor.is_some() {
            clock.report = None;
        }
        clock.anchor = Some(Anchor { rtp, media, last_rtp: rtp, last_arrival: now, transit });
        clock.correction = 0;
        clock.target = 0;
        // Nothing of the track is out that a jump could disturb: go to where the reports say at once.
        self.find_target(arrival);
        let clock = self.clock_mut(kind);
        clock.correction = clock.target.max(floor.micros() - media);
        MediaTime::from_micros(media + clock.correction)
    }

    /// Video belongs where the reports put it against audio.
    fn find_target(&mut self, arrival: MediaTime) {
        let now = arrival.micros();
        let Some((audio_ntp, audio_media)) = self.audio.reported(now) else {
            return;
        };
        let Some((video_ntp, video_media)) = self.video.reported(now) else {
            return;
        };
        let target = audio_media + ntp_span(video_ntp, audio_ntp) - video_media;
        let is_noise = (target - self.video.correction).abs() < MIN_CORRECTION_MICROS;
        if !is_noise && target.abs() <= MAX_CORRECTION_MICROS {
            self.video.target = target;
        }
    }

    fn clock(&self, kind: TrackKind) -> &Clock {
        match kind {
            TrackKind::Audio => &self.audio,
            TrackKind::Video => &self.video,
        }
    }

    fn clock_mut(&mut self, kind: TrackKind) -> &mut Clock {
        match kind {
            TrackKind::Audio => &mut self.audio,
            TrackKind::Video => &mut self.video,
        }
    }
}

/// Times of one track's tags: each at least a millisecond after the one before, also after rounding down.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StrictlyIncreasing {
    last: Option<MediaTime>,
}

impl StrictlyIncreasing {
    /// The earliest time that may come next, no earlier than `start`.
    pub(crate) fn floor(&self, start: MediaTime) -> MediaTime {
        self.last.map_or(start, |last| MediaTime::from_millis(last.millis() + 1))
    }

    /// `wanted`, or the earliest possible time after the last.
    pub(crate) fn after(&self, wanted: MediaTime) -> MediaTime {
        self.floor(wanted).max(wanted)
    }

    /// `dts` went out.
    pub(crate) fn set(&mut self, dts: MediaTime) {
        self.last = Some(dts);
    }

    /// The last time that went out.
    pub(crate) fn last(&self) -> Option<MediaTime> {
        self.last
    }
}

#[cfg(test)]
mod tests;
