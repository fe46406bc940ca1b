//! One timeline for both tracks.
//!
//! Input: RTP times (wrapping, each track with its own offset and rate), arrival times, sender reports
//! (RFC 3550 §6.4.1). Output: presentation times in microseconds from the configured start.
//!
//! - A track's clock is its RTP clock: steps between packets are exact, whatever the network did to them.
//! - The first packet of a track is placed by its arrival. The very first one defines the start.
//! - Audio is the master. Sender reports of both tracks that are to be believed ([`reports`]) say where video belongs;
//!   video is moved there by a fraction of each frame's duration, so time never runs backwards. Two reports of each track
//!   settle it, later ones move it by 40 ms each at most. Until then a first one of each is believed if both came when
//!   their wall clock says, else it moves the picture by 40 ms at most.
//! - A timestamp that no network can explain (backwards, far ahead, standing still) places the track anew by arrival.
//! - A sound clock that stood still is set forward. Sound that is late may have been held back by the network, or its
//!   clock was held by the sender (a mute, a capture that stalled). The network lets go of what it held: the delay falls
//!   again, sooner than the time it took. A clock that stood never makes up for it: packets keep coming at the pace of
//!   real time, all as late as the first. And the network's queues hold pictures back as well as sound.

mod reports;

use crate::TrackKind;
use crate::order::Order;
use crate::time::MediaTime;
use reports::{Reports, TOLERANCE_MICROS, ntp_span};

pub use reports::SenderReport;

/// A step ahead of the elapsed time by more than this is a jump of the sender's clock.
const MAX_AHEAD_MICROS: i64 = 5_000_000;
/// A step back by more than this is a jump; less is B-frames, or a clock that was set.
const MAX_BACKWARD_MICROS: i64 = 1_000_000;
/// The same for a picture that is shown in the order it is sent, whose clock may jitter.
const MAX_JITTER_BACK_MICROS: i64 = 100_000;
/// The same where the parameter sets rule any other order out.
const MAX_STEP_BACK_MICROS: i64 = 30_000;
/// Arriving later than usual by more than this is a clock that stands still.
const MAX_BEHIND_MICROS: i64 = 10_000_000;
/// Sender reports that ask for less are left alone: nobody hears it, and video keeps its own exact steps.
const MIN_CORRECTION_MICROS: i64 = 10_000;
/// Sender reports that ask for more are not believed.
const MAX_CORRECTION_MICROS: i64 = 10_000_000;
/// Video moves by a sixteenth of each frame's duration, or by half of it when it is this far off.
const FAR_OFF_MICROS: i64 = 500_000;
/// A first report that nothing confirms, and one that says another thing than was settled, move video by no more; nor does
/// any move it by more from one picture to the next.
const MAX_MOVE_MICROS: i64 = TOLERANCE_MICROS;
/// A first report that came when its wall clock says moves video by no more: network and encoder delay one track against
/// the other by less.
const MAX_UNCONFIRMED_MICROS: i64 = 500_000;
/// Sound that is late by less is heard as in sync. On top of that, twice the jitter is usual.
const MIN_LATE_MICROS: i64 = 40_000;
/// A delay that falls by so much inside a run of late packets is a queue that empties.
const STEADY_MICROS: i64 = 5_000;
/// Late packets at a steady pace for so long are a clock that stood still, where the pictures that came meanwhile were not
/// late; without pictures, which share the sound's way, for longer.
const STOOD_STILL_AFTER_MICROS: i64 = 400_000;
const STOOD_STILL_ALONE_AFTER_MICROS: i64 = 2_000_000;
/// A camera that shows nothing for so long before is off.
const PICTURES_GONE_MICROS: i64 = 10_000_000;
/// The least transit time is looked for in windows of this length.
const TRANSIT_WINDOW_MICROS: i64 = 10_000_000;

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

/// Packets in a row that were all late.
#[derive(Clone, Copy, Debug)]
struct Late {
    since: i64,
    /// How late the first one was, and the least that one of them was late by.
    first: i64,
    least: i64,
}

/// RTP time `rtp` (unwrapped) is `media` on the timeline.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    rtp: i64,
    media: i64,
    last_rtp: i64,
    last_arrival: i64,
    transit: LeastTransit,
    /// As RFC 3550 section 6.4.1 has it: mean difference of the transit of one packet and the next.
    jitter: i64,
    last_transit: i64,
    late: Option<Late>,
}

impl Anchor {
    /// A packet arrived that is `media` on the timeline.
    fn record_arrival(&mut self, kind: TrackKind, media: i64, now: i64) {
        let transit = now - media;
        let late = transit - self.transit.micros();
        self.jitter += ((transit - self.last_transit).abs() - self.jitter) / 16;
        self.last_transit = transit;
        // Pictures have to show that the network holds nothing back.
        let usual = if kind == TrackKind::Audio { 2 * self.jitter } else { 0 };
        self.late = match self.late {
            _ if late < MIN_LATE_MICROS + usual => None,
            Some(run) if late >= run.first - STEADY_MICROS => Some(Late { least: run.least.min(late), ..run }),
            _ => Some(Late { since: now, first: late, least: late }),
        };
        self.transit.update(transit, now);
    }
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    rate: i64,
    /// A step back by more than this is a jump.
    max_back: i64,
    anchor: Option<Anchor>,
    reports: Reports,
    /// Added to what the anchor says, and where it is going.
    correction: i64,
    target: i64,
}

impl Clock {
    fn new(rate: u32) -> Self {
        let rate = i64::from(rate);
        Self {
            rate,
            max_back: MAX_BACKWARD_MICROS,
            anchor: None,
            reports: Reports::new(rate),
            correction: 0,
            target: 0,
        }
    }

    /// What the anchor says about an RTP time, without the correction.
    fn media(&self, anchor: &Anchor, rtp: i64) -> i64 {
        anchor.media + self.span(rtp - anchor.rtp)
    }

    fn span(&self, ticks: i64) -> i64 {
        ticks.saturating_mul(1_000_000).div_euclid(self.rate)
    }

    /// Whether no network can explain that this RTP time comes now.
    fn jumps(&self, anchor: &Anchor, rtp: i64, arrival: i64) -> bool {
        let step = self.span(rtp - anchor.last_rtp);
        let elapsed = (arrival - anchor.last_arrival).max(0);
        let behind = arrival - self.media(anchor, rtp) - anchor.transit.micros();
        step < -self.max_back || step - elapsed > MAX_AHEAD_MICROS || behind > MAX_BEHIND_MICROS
    }

    /// Moves the correction towards its target, slower than the `step` that time made.
    fn slew(&mut self, step: i64) {
        let error = self.target - self.correction;
        let limit = step.max(0) / if error.abs() > FAR_OFF_MICROS { 2 } else { 16 };
        let limit = limit.min(MAX_MOVE_MICROS);
        self.correction += error.clamp(-limit, limit);
    }
}

/// The unwrapped time nearest to `last` that wraps to `rtp_time`.
fn unwrap(last: i64, rtp_time: u32) -> i64 {
    let [_, _, _, _, low @ ..] = last.to_be_bytes();
    let step = rtp_time.wrapping_sub(u32::from_be_bytes(low)).cast_signed();
    last + i64::from(step)
}

/// Both tracks' clocks.
#[derive(Debug)]
pub(crate) struct Timeline {
    start: i64,
    /// Media time less arrival time, following the master track.
    offset: Option<i64>,
    audio: Clock,
    video: Clock,
    /// Reports that both tracks' next ones agreed with have said where video belongs.
    settled: bool,
    /// The correction of the video clock before any report of these clocks moved it.
    unreported: i64,
}

impl Timeline {
    pub(crate) fn new(start: MediaTime, audio_rate: u32, video_rate: u32) -> Self {
        Self {
            start: start.micros(),
            offset: None,
            audio: Clock::new(audio_rate),
            video: Clock::new(video_rate),
            settled: false,
            unreported: 0,
        }
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

    /// Where the next picture is shown: behind all before it, no step back is a B-frame.
    pub(crate) fn expect_picture(&mut self, order: Order) {
        self.video.max_back = match order {
            Order::Always => MAX_STEP_BACK_MICROS,
            Order::AsSent => MAX_JITTER_BACK_MICROS,
            Order::Earlier | Order::Unknown => MAX_BACKWARD_MICROS,
        };
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
            // Sound comes in the order of its sequence numbers.
            let goes_back = kind == TrackKind::Audio && rtp < anchor.last_rtp;
            (!goes_back && !clock.jumps(&anchor, rtp, now)).then_some((anchor, rtp))
        });
        let Some((mut anchor, rtp)) = placed else {
            return self.place(kind, rtp_time, arrival, floor);
        };
        let clock = self.clock_mut(kind);
        let media = clock.media(&anchor, rtp);
        clock.slew(clock.span(rtp - anchor.last_rtp));
        anchor.record_arrival(kind, media, now);
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
        self.clock_mut(kind).anchor = None;
        self.forget_reports(kind);
    }

    /// How long the sound clock stood still lately, by the packet stamped last; see the module.
    pub(crate) fn stood_still(&self) -> Option<MediaTime> {
        let anchor = self.audio.anchor?;
        let late = anchor.late?;
        let lasted = anchor.last_arrival - late.since;
        if lasted < STOOD_STILL_AFTER_MICROS {
            return None;
        }
        let stood = match self.video.anchor {
            Some(video) if video.last_arrival >= late.since => video.late.is_none(),
            // Pictures that a loss keeps back say nothing.
            Some(video) if late.since - video.last_arrival < PICTURES_GONE_MICROS => false,
            _ => lasted >= STOOD_STILL_ALONE_AFTER_MICROS,
        };
        stood.then_some(MediaTime::from_micros(late.least))
    }

    /// Sets the sound clock forward.
    pub(crate) fn set_forward(&mut self, by: MediaTime) {
        if let Some(anchor) = &mut self.audio.anchor {
            anchor.media += by.micros();
            anchor.last_transit -= by.micros();
            anchor.late = None;
        }
        self.forget_reports(TrackKind::Audio);
    }

    pub(crate) fn handle_sender_report(&mut self, kind: TrackKind, report: SenderReport, arrival: MediaTime) {
        self.clock_mut(kind).reports.push(report, arrival.micros());
        self.find_target(arrival);
    }

    /// The correction of the video clock, and what is still missing.
    pub(crate) fn correction(&self) -> (i64, i64) {
        (self.video.correction, self.video.target - self.video.correction)
    }

    /// What the reports of a track asked for is void, and they have to settle it anew.
    fn forget_reports(&mut self, kind: TrackKind) {
        self.clock_mut(kind).reports.forget();
        self.video.target = self.video.correction;
        self.unreported = self.video.correction;
        self.settled = false;
    }

    fn place(&mut self, kind: TrackKind, rtp_time: u32, arrival: MediaTime, floor: MediaTime) -> MediaTime {
        self.begin(arrival);
        let media = self.at(arrival).map_or(floor, |media| media.max(floor)).micros();
        let rtp = i64::from(rtp_time);
        let now = arrival.micros();
        let last_transit = now - media;
        let transit = LeastTransit::new(last_transit, now);
        let clock = self.clock_mut(kind);
        let is_new = clock.anchor.is_none();
        clock.anchor =
            Some(Anchor { rtp, media, last_rtp: rtp, last_arrival: now, transit, jitter: 0, last_transit, late: None });
        clock.correction = 0;
        clock.target = 0;
        if !is_new {
            self.forget_reports(kind);
        }
        if kind == TrackKind::Audio {
            return MediaTime::from_micros(media);
        }
        self.unreported = 0;
        self.settled = false;
        // Nothing of the track is out that a jump could disturb: go to where the reports say at once.
        self.find_target(arrival);
        let video = &mut self.video;
        video.correction = video.target.max(floor.micros() - media);
        MediaTime::from_micros(media + video.correction)
    }

    /// Video belongs where the reports put it against audio.
    fn find_target(&mut self, arrival: MediaTime) {
        let now = arrival.micros();
        let reported = |clock: &Clock| clock.anchor.zip(clock.reports.word(now));
        let (Some((audio, audio_word)), Some((video, video_word))) = (reported(&self.audio), reported(&self.video))
        else {
            return;
        };
        let media = |clock: &Clock, anchor: &Anchor, rtp_time| clock.media(anchor, unwrap(anchor.last_rtp, rtp_time));
        let target = media(&self.audio, &audio, audio_word.report.rtp_time)
            + ntp_span(video_word.report.ntp_time, audio_word.report.ntp_time)
            - media(&self.video, &video, video_word.report.rtp_time);
        if target.abs() > MAX_CORRECTION_MICROS || !audio_word.compares_with(&video_word) {
            return;
        }
        let agree = audio_word.agrees && video_word.agrees;
        let is_vouched_for =
            (target - self.unreported).abs() <= MAX_UNCONFIRMED_MICROS && audio_word.came_with(&video_word);
        let from = match (agree, self.settled) {
            (true, true) => Some(self.video.target),
            (true, false) => None,
            (false, false) if is_vouched_for => None,
            (false, false) => Some(self.unreported),
            (false, true) => return,
        };
        let target = from.map_or(target, |from| target.clamp(from - MAX_MOVE_MICROS, from + MAX_MOVE_MICROS));
        let is_noise = (target - self.video.correction).abs() < MIN_CORRECTION_MICROS;
        self.video.target = if is_noise { self.video.correction } else { target };
        self.settled |= agree;
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
