//! Which sender reports of a track are believed (RFC 3550 §6.4.1).
//!
//! A report says that a wall clock and the track's RTP clock stood so at one instant. Wall clocks are set while they run,
//! some never are, and single reports are wrong; so a report is believed when it agrees with the one before it: both
//! clocks went on by the same time. A clock that was set makes one report disagree, and the next ones agree again; they
//! begin a run of their own. Reports of two tracks are compared only if no run began between them: the other track has
//! then heard of the same wall clock.
//!
//! ```text
//!   nothing ──report──▶ first ──agrees──▶ believed ──disagrees──▶ one in doubt ──agrees with it──▶ believed, a new run
//!                         ▲ disagrees│        ▲  agrees with the believed  │
//!                         └──────────┘        └────────────────────────────┘
//! ```
//!
//! Input: reports with their arrival in microseconds. State: two reports.

/// What a sender report says about time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport {
    /// NTP time in units of 2^-32 s; only differences matter. 0: the sender has no wall clock.
    pub ntp_time: u64,
    /// The same instant on the track's RTP clock.
    pub rtp_time: u32,
}

/// Reports agree when their clocks went on by the same time, give or take this much: senders round to a picture, read
/// one clock before the other, or say when the report was due.
pub(super) const TOLERANCE_MICROS: i64 = 40_000;
/// An older report is compared with nothing: clocks drift.
const MAX_AGE_MICROS: i64 = 60_000_000;

/// A report that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) report: SenderReport,
    at: i64,
    /// When the first report of its run came; the first run has always been.
    run_began: i64,
    /// It has a predecessor that it agrees with.
    pub(super) agrees: bool,
}

impl Word {
    /// Both tracks spoke of the same wall clock.
    pub(super) fn compares_with(&self, other: &Word) -> bool {
        self.at >= other.run_began && other.at >= self.run_began
    }

    /// As much time passed between the arrivals of both tracks' reports as the wall clock says.
    pub(super) fn came_with(&self, other: &Word) -> bool {
        (ntp_span(other.report.ntp_time, self.report.ntp_time) - (other.at - self.at)).abs() <= TOLERANCE_MICROS
    }

    /// Time from one report to the other by the wall clock, less that by the RTP clock.
    fn disagreement(&self, later: SenderReport, rate: i64) -> i64 {
        let ticks = i64::from(later.rtp_time.wrapping_sub(self.report.rtp_time).cast_signed());
        ntp_span(later.ntp_time, self.report.ntp_time) - ticks * 1_000_000 / rate
    }
}

/// One track's reports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reports {
    rate: i64,
    believed: Option<Word>,
    doubted: Option<Word>,
}

impl Reports {
    /// For an RTP clock of so many ticks a second.
    pub(super) fn new(rate: i64) -> Self {
        Self { rate, believed: None, doubted: None }
    }

    /// Where the RTP clock stood says nothing any more.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.rate);
    }

    /// Takes in the next report.
    pub(super) fn push(&mut self, report: SenderReport, at: i64) {
        if report.ntp_time == 0 {
            return;
        }
        let follows = |word: &Word| {
            at - word.at <= MAX_AGE_MICROS && word.disagreement(report, self.rate).abs() <= TOLERANCE_MICROS
        };
        let word = |run_began, agrees| Some(Word { report, at, run_began, agrees });
        (self.believed, self.doubted) = match (self.believed, self.doubted) {
            (None, None) => (None, word(i64::MIN, false)),
            (_, Some(doubted)) if follows(&doubted) => (word(doubted.run_began, true), None),
            (Some(believed), None) if follows(&believed) => (word(believed.run_began, true), None),
            // Meanwhile the wall clock was another one.
            (Some(believed), Some(_)) if follows(&believed) => (word(at, true), None),
            (believed, _) => (believed, word(at, false)),
        };
    }

    /// The newest report, if it is believed; before one was, the first. None while one is in doubt.
    pub(super) fn word(&self, now: i64) -> Option<Word> {
        let counts = |word: &Word| now - word.at <= MAX_AGE_MICROS;
        match (self.believed.filter(counts), self.doubted.filter(counts)) {
            (Some(_), Some(_)) => None,
            (believed, doubted) => believed.or(doubted),
        }
    }
}

/// `later - earlier` in microseconds, for NTP times within 68 years.
pub(super) fn ntp_span(later: u64, earlier: u64) -> i64 {
    let span = i128::from(later.wrapping_sub(earlier).cast_signed()) * 1_000_000;
    i64::try_from(span >> 32).expect("32 bits of seconds in microseconds fit 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: i64 = 90_000;

    /// A report at `ms` of the world, of a wall clock that is `wall` ms ahead of it.
    fn report(ms: i64, wall: i64) -> SenderReport {
        let ntp = u64::try_from(3_900_000_000_000 + ms + wall).expect("positive");
        SenderReport {
            ntp_time: u64::try_from((u128::from(ntp) << 32) / 1000).expect("before 2036"),
            rtp_time: u32::try_from(ms * RATE / 1000).expect("small"),
        }
    }

    /// After reports each second of clocks so far ahead: which second's word counts, and whether it agrees.
    fn heard(walls: &[i64]) -> Option<(i64, bool)> {
        let mut reports = Reports::new(RATE);
        for (second, wall) in (1..).zip(walls) {
            reports.push(report(second * 1000, *wall), second * 1_000_000);
        }
        let word = reports.word(i64::try_from(walls.len()).expect("few") * 1_000_000)?;
        Some((word.at / 1_000_000, word.agrees))
    }

    #[test]
    fn a_report_is_believed_when_it_agrees_with_the_one_before_it() {
        for (name, walls, expected) in [
            ("the first", &[0][..], Some((1, false))),
            ("the second", &[0, 0], Some((2, true))),
            ("noise", &[0, 39, 1], Some((3, true))),
            ("the first was wrong", &[3000, 0], Some((2, false))),
            ("and the next ones right", &[3000, 0, 0], Some((3, true))),
            ("one odd", &[0, 0, 3000], None),
            ("one odd, then a good one", &[0, 0, 3000, 0], Some((4, true))),
            ("odd ones that differ", &[0, 0, 3000, -700, 41_000], None),
            ("a step", &[0, 0, 3000, 3000], Some((4, true))),
            ("a small step", &[0, 0, -41, -41], Some((4, true))),
            ("there and back", &[0, 0, 3000, 3000, 0], None),
            ("there and back to stay", &[0, 0, 3000, 3000, 0, 0], Some((6, true))),
        ] {
            assert_eq!(heard(walls), expected, "{name}");
        }
    }

    #[test]
    fn an_ntp_time_of_zero_is_no_report() {
        let mut reports = Reports::new(RATE);
        for second in 0..3 {
            reports.push(SenderReport { ntp_time: 0, rtp_time: 90_000 * second }, i64::from(second) * 1_000_000);
        }
        assert_eq!(reports.word(2_000_000), None);
    }

    #[test]
    fn reports_across_a_step_of_the_wall_clock_are_not_compared() {
        let mut video = Reports::new(RATE);
        let mut audio = Reports::new(RATE);
        let comparable = |audio: &Reports, video: &Reports, now| {
            audio.word(now).zip(video.word(now)).is_some_and(|(audio, video)| audio.compares_with(&video))
        };
        let mut seen = Vec::new();
        for second in 1..=20 {
            let now = second * 1_000_000;
            // The clock is set after 11 s; sound reports each 5 s.
            let wall = if second > 11 { 3000 } else { 0 };
            video.push(report(second * 1000, wall), now);
            if second % 5 == 0 {
                audio.push(report(second * 1000, wall), now);
            }
            if second >= 5 && !comparable(&audio, &video, now) {
                seen.push(second);
            }
        }
        // Pictures say it after 12 s, sound proves it after 20 s.
        assert_eq!(seen, [12, 13, 14, 15, 16, 17, 18, 19]);
    }

    #[test]
    fn the_first_reports_are_compared_whichever_comes_first() {
        let (mut early, mut late) = (Reports::new(RATE), Reports::new(RATE));
        early.push(report(1000, 0), 1_000_000);
        late.push(report(9000, 0), 9_000_000);
        let (early, late) = (early.word(9_000_000).expect("heard"), late.word(9_000_000).expect("heard"));
        assert!(early.compares_with(&late) && late.compares_with(&early));
    }

    #[test]
    fn old_reports_count_no_more() {
        let mut reports = Reports::new(RATE);
        reports.push(report(1000, 0), 1_000_000);
        reports.push(report(2000, 0), 2_000_000);
        assert!(reports.word(62_000_000).is_some());
        assert_eq!(reports.word(62_000_001), None);
        // Nor does one that comes then agree with them.
        reports.push(report(63_000, 0), 63_000_000);
        assert!(reports.word(63_000_000).is_some_and(|word| !word.agrees));
    }

    #[test]
    fn after_the_wildest_reports_two_good_ones_are_believed() {
        let mut reports = Reports::new(RATE);
        for (ntp_time, rtp_time) in [(1, 0), (u64::MAX, u32::MAX), (1 << 63, 1 << 31), (1, 1 << 31), (u64::MAX, 0)] {
            reports.push(SenderReport { ntp_time, rtp_time }, 0);
        }
        reports.push(report(1000, 0), 1_000_000);
        reports.push(report(2000, 0), 2_000_000);
        assert!(reports.word(2_000_000).is_some_and(|word| word.agrees && word.report == report(2000, 0)));
    }
}
