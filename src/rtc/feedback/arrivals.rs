//! Arrival times by transport-wide sequence number: packets in, [`TransportFeedback`] out
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! Messages follow each other without a gap: what was lost between two of them is reported lost by the second. A packet
//! that comes after its number was reported missing is reported again with its time. Bound: `WINDOW` numbers, 16 bytes
//! each.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::rtcp::transport_cc::{DELTA_MICROS, MAX_STATUSES, REFERENCE_DELTAS, TransportFeedback};

/// Numbers remembered, reported or not: at 2000 packets a second half a second.
const WINDOW: usize = 1024;
/// Lost packets that a message may begin with: it has to have room for those that came.
const MAX_LEADING_LOST: u64 = 200;

/// The arrivals of one transport.
#[derive(Debug)]
pub(super) struct Arrivals {
    epoch: Instant,
    /// Unwrapped number of the first entry.
    first: u64,
    /// Arrival in units of [`DELTA_MICROS`] since the epoch.
    arrivals: VecDeque<Option<i64>>,
    /// The number the next message starts at; `None`: nothing to report.
    report_from: Option<u64>,
    /// The number behind all that messages have spoken of.
    reported_to: Option<u64>,
    feedback_count: u8,
}

impl Arrivals {
    pub(super) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            first: 0,
            arrivals: VecDeque::with_capacity(WINDOW),
            report_from: None,
            reported_to: None,
            feedback_count: 0,
        }
    }

    fn end(&self) -> u64 {
        self.first + self.arrivals.len() as u64
    }

    /// Records a packet. Returns whether it is the first one that a message is due for.
    pub(super) fn record(&mut self, sequence: u16, arrival: Instant) -> bool {
        let since = arrival.saturating_duration_since(self.epoch);
        let tick = i64::try_from(since.as_micros()).unwrap_or(i64::MAX) / DELTA_MICROS;
        let Some(number) = self.place(sequence) else {
            return false;
        };
        let index = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        let Some(slot) = self.arrivals.get_mut(index) else {
            return false;
        };
        if slot.is_some() {
            return false; // a duplicate: the first arrival counts
        }
        *slot = Some(tick);
        let was_idle = self.report_from.is_none();
        self.report_from = Some(self.report_from.map_or(number, |from| from.min(number)));
        was_idle
    }

    /// Unwraps the number and makes room for it; `None`: too old.
    fn place(&mut self, sequence: u16) -> Option<u64> {
        if self.arrivals.is_empty() {
            self.first = (1 << 16) + u64::from(sequence);
            self.arrivals.push_back(None);
            return Some(self.first);
        }
        let highest = self.end() - 1;
        let [.., high, low] = highest.to_be_bytes();
        let ahead = sequence.wrapping_sub(u16::from_be_bytes([high, low])).cast_signed();
        let number = highest.checked_add_signed(i64::from(ahead))?;
        if number < self.first {
            return None;
        }
        if number >= self.end() + WINDOW as u64 {
            // A jump beyond the window: what was not reported yet is not worth the room.
            self.arrivals.clear();
            self.first = number;
            self.report_from = None;
        }
        while self.end() <= number {
            if self.arrivals.len() == WINDOW {
                self.arrivals.pop_front();
                self.first += 1;
            }
            self.arrivals.push_back(None);
        }
        self.report_from = self.report_from.map(|from| from.max(self.first));
        Some(number)
    }

    /// From this number on, which is in the window.
    fn arrivals_from(&self, number: u64) -> impl Iterator<Item = Option<i64>> + use<'_> {
        self.arrivals.iter().copied().skip(usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX))
    }

    /// The next message; call until `None`.
    pub(super) fn poll_feedback(&mut self, sender_ssrc: u32, media_ssrc: u32) -> Option<TransportFeedback> {
        let from = self.report_from.take()?;
        // `from` was received, unless the window moved past it.
        let first_tick = self.arrivals_from(from).find_map(|arrival| arrival)?;
        let base = match self.reported_to {
            Some(to) if to < from => to.max(self.first).max(from.saturating_sub(MAX_LEADING_LOST)),
            _ => from,
        };
        let reference_time = first_tick.div_euclid(REFERENCE_DELTAS);
        let mut last_tick = reference_time * REFERENCE_DELTAS;
        let mut statuses: Vec<Option<i16>> = Vec::with_capacity(64);
        for arrival in self.arrivals_from(base) {
            let status = match arrival {
                None => None,
                Some(tick) => match i16::try_from(tick - last_tick) {
                    Ok(delta) => {
                        last_tick = tick;
                        Some(delta)
                    }
                    // More than eight seconds apart: the rest goes into another message.
                    Err(_) => break,
                },
            };
            if statuses.len() == MAX_STATUSES {
                break;
            }
            statuses.push(status);
        }
        let next = base + statuses.len() as u64;
        self.reported_to = Some(self.reported_to.map_or(next, |to| to.max(next)));
        if next < self.end() {
            self.report_from = Some(next);
        }
        self.feedback_count = self.feedback_count.wrapping_add(1);
        let [.., high, low] = base.to_be_bytes();
        // 24 bits, wrapping: the sender only looks at differences.
        let reference_time = i32::try_from(reference_time & 0xFF_FFFF).expect("masked to 24 bits");
        Some(TransportFeedback {
            sender_ssrc,
            media_ssrc,
            base_sequence: u16::from_be_bytes([high, low]),
            reference_time: (reference_time << 8) >> 8,
            feedback_count: self.feedback_count.wrapping_sub(1),
            statuses,
        })
    }
}

/// How often a message is sent while packets arrive: as often as libwebrtc's receivers do at the rates of a picture.
pub(super) const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn after(epoch: Instant, micros: u64) -> Instant {
        epoch + Duration::from_micros(micros)
    }

    /// Number and arrival in microseconds of every packet a message reports as received.
    fn received(feedback: &TransportFeedback) -> Vec<(u16, i64)> {
        let mut time = i64::from(feedback.reference_time) * 64_000;
        let mut sequence = feedback.base_sequence;
        let mut received = Vec::new();
        for status in &feedback.statuses {
            if let Some(delta) = status {
                time += i64::from(*delta) * 250;
                received.push((sequence, time));
            }
            sequence = sequence.wrapping_add(1);
        }
        received
    }

    #[test]
    fn arrivals_are_reported_once_with_their_times_across_the_wrap() {
        let epoch = Instant::now();
        let mut arrivals = Arrivals::new(epoch);
        assert!(arrivals.record(65_534, after(epoch, 1_000_000)));
        assert!(!arrivals.record(65_535, after(epoch, 1_000_250)));
        assert!(!arrivals.record(1, after(epoch, 1_300_000)));
        let feedback = arrivals.poll_feedback(1, 2).unwrap();
        assert_eq!(feedback.base_sequence, 65_534);
        assert_eq!(feedback.reference_time, 15); // 960 ms
        assert_eq!(feedback.statuses, [Some(160), Some(1), None, Some(1199)]);
        assert_eq!(received(&feedback), [(65_534, 1_000_000), (65_535, 1_000_250), (1, 1_300_000)]);
        assert_eq!(arrivals.poll_feedback(1, 2), None);
        assert!(arrivals.record(2, after(epoch, 1_310_000)));
        let next = arrivals.poll_feedback(1, 2).unwrap();
        assert_eq!((next.base_sequence, next.feedback_count), (2, 1));
    }

    #[test]
    fn reordered_packets_get_negative_deltas_and_late_ones_a_second_report() {
        let epoch = Instant::now();
        let mut arrivals = Arrivals::new(epoch);
        for (sequence, micros) in [(10, 64_000), (12, 65_000), (11, 66_000)] {
            arrivals.record(sequence, after(epoch, micros));
        }
        let feedback = arrivals.poll_feedback(1, 2).unwrap();
        assert_eq!(feedback.statuses, [Some(0), Some(8), Some(-4)]);
        arrivals.record(14, after(epoch, 70_000));
        arrivals.poll_feedback(1, 2).unwrap();
        assert!(arrivals.record(13, after(epoch, 71_000)));
        let late = arrivals.poll_feedback(1, 2).unwrap();
        assert_eq!(received(&late), [(13, 71_000), (14, 70_000)]);
        // A duplicate changes nothing.
        assert!(!arrivals.record(13, after(epoch, 80_000)));
        assert_eq!(arrivals.poll_feedback(1, 2), None);
    }

    #[test]
    fn what_was_lost_between_two_messages_is_reported_lost_by_the_second() {
        let epoch = Instant::now();
        let mut arrivals = Arrivals::new(epoch);
        arrivals.record(65_533, after(epoch, 0));
        arrivals.poll_feedback(1, 2).unwrap();
        arrivals.record(1, after(epoch, 70_000));
        let feedback = arrivals.poll_feedback(1, 2).unwrap();
        assert_eq!((feedback.base_sequence, feedback.reference_time), (65_534, 1));
        assert_eq!(feedback.statuses, [None, None, None, Some(24)]);
        // One of them was late only.
        arrivals.record(65_535, after(epoch, 80_000));
        let late = arrivals.poll_feedback(1, 2).unwrap();
        assert_eq!(received(&late), [(65_535, 80_000), (1, 70_000)]);
        // After a blackout the last 200 of them are told, and all that came behind it.
        for sequence in 900..1000 {
            arrivals.record(sequence, after(epoch, 90_000));
        }
        let feedback = arrivals.poll_feedback(1, 2).unwrap();
        assert_eq!((feedback.base_sequence, feedback.statuses.len()), (700, 300));
        assert_eq!(received(&feedback).len(), 100);
    }

    #[test]
    fn a_long_pause_and_a_long_burst_are_split_into_messages() {
        let epoch = Instant::now();
        let mut arrivals = Arrivals::new(epoch);
        arrivals.record(1, epoch);
        arrivals.record(2, after(epoch, 10_000_000));
        let first = arrivals.poll_feedback(1, 2).unwrap();
        let second = arrivals.poll_feedback(1, 2).unwrap();
        assert_eq!(received(&first), [(1, 0)]);
        assert_eq!(received(&second), [(2, 10_000_000)]);
        for sequence in 3..1003 {
            arrivals.record(sequence, after(epoch, 10_000_000 + u64::from(sequence)));
        }
        let sizes: Vec<usize> =
            std::iter::from_fn(|| arrivals.poll_feedback(1, 2)).map(|feedback| feedback.statuses.len()).collect();
        assert_eq!(sizes, [MAX_STATUSES, MAX_STATUSES, 1000 - 2 * MAX_STATUSES]);
    }

    #[test]
    fn the_window_is_bounded_whatever_numbers_come() {
        let epoch = Instant::now();
        let mut arrivals = Arrivals::new(epoch);
        let mut sequence = 0_u16;
        for n in 0..100_000_u64 {
            sequence = sequence.wrapping_mul(31_821).wrapping_add(13_849);
            arrivals.record(sequence, after(epoch, n));
            assert!(arrivals.arrivals.len() <= WINDOW);
            if n % 50 == 0 {
                let messages = std::iter::from_fn(|| arrivals.poll_feedback(1, 2)).count();
                assert!(messages <= 1 + WINDOW / MAX_STATUSES);
            }
        }
    }

    #[test]
    fn the_reference_time_wraps_at_24_bits() {
        let epoch = Instant::now();
        let mut arrivals = Arrivals::new(epoch);
        // 2^23 * 64 ms = 6.2 days: the sign bit is set.
        let micros = (1_u64 << 23) * 64_000 + 500;
        arrivals.record(1, after(epoch, micros));
        let feedback = arrivals.poll_feedback(1, 2).unwrap();
        assert_eq!(feedback.reference_time, -(1 << 23));
        assert_eq!(feedback.statuses, [Some(2)]);
    }
}
