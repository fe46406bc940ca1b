//! What a receiver report says of one stream (RFC 3550 appendices A.1, A.3, A.8): packets in, [`ReportBlock`] out.

use std::time::{Duration, Instant};

use guest_relay_muxer::seq::SeqNo;

use super::super::rtcp::ReportBlock;

/// RFC 3550 §6.4.1: the cumulative count has 24 bits, signed.
const CUMULATIVE_LOST: std::ops::RangeInclusive<i64> = -0x80_0000..=0x7F_FFFF;
/// Unwrapped numbers start one cycle up (see [`guest_relay_muxer::seq::Unwrapper`]); reports count cycles from 0.
const FIRST_CYCLE: u64 = 1 << 16;

/// The counters of one stream; 100 bytes, whatever arrives.
#[derive(Debug, Clone)]
pub(super) struct Reception {
    clock_rate_hz: u32,
    /// What arrival times are counted from.
    epoch: Instant,
    first: SeqNo,
    highest: SeqNo,
    received: u64,
    expected_before: u64,
    received_before: u64,
    last_transit: Option<u32>,
    /// In 16ths of a clock tick.
    jitter_x16: u32,
    last_sender_report: Option<(u32, Instant)>,
}

impl Reception {
    pub(super) fn new(clock_rate_hz: u32, first: SeqNo, epoch: Instant) -> Self {
        Self {
            clock_rate_hz,
            epoch,
            first,
            highest: first,
            received: 0,
            expected_before: 0,
            received_before: 0,
            last_transit: None,
            jitter_x16: 0,
            last_sender_report: None,
        }
    }

    /// Counts a packet, new or late.
    pub(super) fn record(&mut self, sequence: SeqNo, rtp_time: u32, arrival: Instant) {
        self.received += 1;
        self.highest = self.highest.max(sequence);
        let transit = self.arrival_ticks(arrival).wrapping_sub(rtp_time);
        if let Some(last) = self.last_transit.replace(transit) {
            // A stream that was silent or jumped says nothing about jitter: more than a second is taken as such.
            let difference = transit.wrapping_sub(last).cast_signed().unsigned_abs();
            if difference <= self.clock_rate_hz {
                let decay = (self.jitter_x16 + 8) >> 4;
                self.jitter_x16 = (self.jitter_x16 + difference).saturating_sub(decay);
            }
        }
    }

    fn arrival_ticks(&self, arrival: Instant) -> u32 {
        let since = arrival.saturating_duration_since(self.epoch);
        let rate = u64::from(self.clock_rate_hz);
        let ticks = since.as_secs().wrapping_mul(rate) + u64::from(since.subsec_nanos()) * rate / 1_000_000_000;
        u32::try_from(ticks & u64::from(u32::MAX)).expect("masked to 32 bits")
    }

    pub(super) fn record_sender_report(&mut self, ntp_time: u64, arrival: Instant) {
        self.last_sender_report = Some((middle(ntp_time), arrival));
    }

    fn expected(&self) -> u64 {
        self.highest.0 - self.first.0 + 1
    }

    /// Packets that never came, by now.
    pub(super) fn lost(&self) -> u64 {
        self.expected().saturating_sub(self.received)
    }

    pub(super) fn jitter(&self) -> Duration {
        let ticks = u64::from(self.jitter_x16 >> 4);
        Duration::from_micros(ticks * 1_000_000 / u64::from(self.clock_rate_hz.max(1)))
    }

    /// The block for the next report; starts a new interval.
    pub(super) fn report(&mut self, ssrc: u32, now: Instant) -> ReportBlock {
        let expected = self.expected() - self.expected_before;
        let received = self.received - self.received_before;
        self.expected_before = self.expected();
        self.received_before = self.received;
        let fraction_lost = match expected.checked_sub(received) {
            Some(lost) if expected > 0 => u8::try_from(lost * 256 / expected).unwrap_or(u8::MAX),
            _ => 0,
        };
        let lost =
            i64::try_from(self.expected()).unwrap_or(i64::MAX) - i64::try_from(self.received).unwrap_or(i64::MAX);
        let lost = lost.clamp(*CUMULATIVE_LOST.start(), *CUMULATIVE_LOST.end());
        let (last_sender_report, delay) = match self.last_sender_report {
            None => (0, 0),
            Some((middle, arrival)) => {
                let delay = now.saturating_duration_since(arrival).as_micros() * 65_536 / 1_000_000;
                (middle, u32::try_from(delay).unwrap_or(u32::MAX))
            }
        };
        let highest = (self.highest.0 - FIRST_CYCLE) & u64::from(u32::MAX);
        ReportBlock {
            ssrc,
            fraction_lost,
            cumulative_lost: i32::try_from(lost).expect("clamped to 24 bits"),
            highest_sequence: u32::try_from(highest).expect("masked to 32 bits"),
            jitter: self.jitter_x16 >> 4,
            last_sender_report,
            delay_since_last_sender_report: delay,
        }
    }
}

/// The middle 32 bits of an NTP time.
pub(super) fn middle(ntp_time: u64) -> u32 {
    u32::try_from((ntp_time >> 16) & u64::from(u32::MAX)).expect("masked to 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: Instant, millis: u64) -> Instant {
        epoch + Duration::from_millis(millis)
    }

    #[test]
    fn loss_is_counted_per_interval_and_in_all() {
        let epoch = Instant::now();
        let mut reception = Reception::new(90_000, SeqNo(65_536 + 100), epoch);
        // 100 to 109 without 103 and 107.
        for n in (100..110).filter(|n| ![103, 107].contains(n)) {
            reception.record(SeqNo(65_536 + n), 0, epoch);
        }
        let report = reception.report(7, epoch);
        // 2 of 10: 51 of 256, by the formula of appendix A.3.
        assert_eq!(report.fraction_lost, 51);
        assert_eq!(report.cumulative_lost, 2);
        assert_eq!(report.highest_sequence, 109);
        // Nothing lost in the next interval; the late 103 makes up for one.
        reception.record(SeqNo(65_536 + 103), 0, epoch);
        reception.record(SeqNo(65_536 + 110), 0, epoch);
        let report = reception.report(7, epoch);
        assert_eq!((report.fraction_lost, report.cumulative_lost), (0, 1));
    }

    #[test]
    fn duplicates_make_the_cumulative_loss_negative_and_it_is_clamped() {
        let epoch = Instant::now();
        let mut reception = Reception::new(48_000, SeqNo(65_536), epoch);
        for _ in 0..4 {
            reception.record(SeqNo(65_536), 0, epoch);
        }
        assert_eq!(reception.report(7, epoch).cumulative_lost, -3);
        reception.received = 1 << 40;
        assert_eq!(reception.report(7, epoch).cumulative_lost, -0x80_0000);
        reception.highest = SeqNo(1 << 50);
        assert_eq!(reception.report(7, epoch).cumulative_lost, 0x7f_ffff);
        assert_eq!(reception.report(7, epoch).fraction_lost, 0);
    }

    #[test]
    fn cycles_stand_above_the_highest_sequence_number() {
        let epoch = Instant::now();
        let mut reception = Reception::new(48_000, SeqNo(65_536 + 65_535), epoch);
        reception.record(SeqNo(65_536 + 65_535), 0, epoch);
        assert_eq!(reception.report(7, epoch).highest_sequence, 0x0000_ffff);
        reception.record(SeqNo(2 * 65_536 + 2), 0, epoch);
        assert_eq!(reception.report(7, epoch).highest_sequence, 0x0001_0002);
    }

    #[test]
    fn jitter_follows_the_formula_of_appendix_a_8() {
        let epoch = Instant::now();
        let mut reception = Reception::new(48_000, SeqNo(65_536), epoch);
        // 20 ms of audio, arriving 20 and 30 ms apart in turn: |D| is 480 ticks each time after the first.
        // J += (|D| - J) / 16, by hand: 30, 58.1, 84.5 ...
        let mut expected = 0.0_f64;
        let mut clock = 0;
        for n in 0..50_u32 {
            reception.record(SeqNo(65_536 + u64::from(n)), n * 960, at(epoch, clock));
            if n > 0 {
                expected += (480.0 - expected) / 16.0;
            }
            clock += if n % 2 == 0 { 30 } else { 10 };
        }
        let jitter = reception.report(7, epoch).jitter;
        assert!((f64::from(jitter) - expected).abs() < 2.0, "{jitter} {expected}");
        // A pause of ten seconds is no jitter.
        let before = reception.jitter();
        reception.record(SeqNo(65_536 + 50), 50 * 960, at(epoch, 11_000));
        assert_eq!(reception.jitter(), before);
    }

    #[test]
    fn the_last_sender_report_is_told_back_with_its_age() {
        let epoch = Instant::now();
        let mut reception = Reception::new(48_000, SeqNo(65_536), epoch);
        assert_eq!(reception.report(7, epoch).last_sender_report, 0);
        reception.record_sender_report(0x1122_3344_5566_7788, epoch);
        let report = reception.report(7, at(epoch, 1_500));
        assert_eq!(report.last_sender_report, 0x3344_5566);
        assert_eq!(report.delay_since_last_sender_report, 98_304);
    }
}
