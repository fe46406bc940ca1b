//! When to ask for a keyframe, and how: PLI (RFC 4585 §6.3.1) at once, again until the keyframe came, FIR (RFC
//! 5104 §4.3.1) when PLIs go unanswered. Never more than one request in [`MIN_INTERVAL`].
//!
//! ```text
//!  content ──request──▶ wanted: PLI, PLI, PLI, FIR, FIR ..., one each MIN_INTERVAL
//!     ▲────a keyframe──────┘
//! ```

use std::time::{Duration, Instant};

/// At most two requests a second.
pub const MIN_INTERVAL: Duration = Duration::from_millis(500);
/// PLIs without a keyframe before FIR is tried.
pub const PLIS_BEFORE_FIR: u32 = 3;

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Pli,
    Fir {
        /// Another number each time, or the encoder may take it for a repetition and ignore it.
        sequence: u8,
    },
}

/// The keyframe requests of one video stream.
#[derive(Debug, Default)]
pub(super) struct KeyframeRequests {
    wanted_since: Option<Instant>,
    sent_at: Option<Instant>,
    unanswered: u32,
    fir_sequence: u8,
}

impl KeyframeRequests {
    pub(super) fn request(&mut self, now: Instant) {
        self.wanted_since.get_or_insert(now);
    }

    /// A keyframe came.
    pub(super) fn notify(&mut self) {
        self.wanted_since = None;
        self.unanswered = 0;
    }

    /// When a request is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let next = self.sent_at.map(|sent_at| sent_at + MIN_INTERVAL);
        self.wanted_since.map(|since| next.map_or(since, |next| next.max(since)))
    }

    /// The request to send now, of the kinds that the peer takes.
    pub(super) fn poll_request(&mut self, pli: bool, fir: bool, now: Instant) -> Option<Request> {
        if self.poll_timeout()? > now {
            return None;
        }
        self.sent_at = Some(now);
        self.unanswered = self.unanswered.saturating_add(1);
        if fir && (!pli || self.unanswered > PLIS_BEFORE_FIR) {
            self.fir_sequence = self.fir_sequence.wrapping_add(1);
            return Some(Request::Fir { sequence: self.fir_sequence });
        }
        Some(Request::Pli)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_out_at_once_and_is_repeated_until_the_keyframe_comes() {
        let start = Instant::now();
        let mut keyframes = KeyframeRequests::default();
        assert_eq!(keyframes.poll_request(true, true, start), None);
        keyframes.request(start);
        assert_eq!(keyframes.poll_request(true, true, start), Some(Request::Pli));
        keyframes.request(start);
        assert_eq!(keyframes.poll_request(true, true, start), None);
        let next = start + MIN_INTERVAL;
        assert_eq!(keyframes.poll_timeout(), Some(next));
        assert_eq!(keyframes.poll_request(true, true, next), Some(Request::Pli));
        keyframes.notify();
        assert_eq!(keyframes.poll_timeout(), None);
        // Wanted again right away: not before the interval is over.
        keyframes.request(start);
        assert_eq!(keyframes.poll_request(true, true, next), None);
        assert_eq!(keyframes.poll_request(true, true, next + MIN_INTERVAL), Some(Request::Pli));
    }

    #[test]
    fn fir_follows_three_unanswered_plis_with_rising_numbers() {
        let start = Instant::now();
        let mut keyframes = KeyframeRequests::default();
        keyframes.request(start);
        let mut sent = |fir| {
            (0..6).filter_map(|n| keyframes.poll_request(true, fir, start + MIN_INTERVAL * n)).collect::<Vec<_>>()
        };
        assert_eq!(
            sent(true),
            [
                Request::Pli,
                Request::Pli,
                Request::Pli,
                Request::Fir { sequence: 1 },
                Request::Fir { sequence: 2 },
                Request::Fir { sequence: 3 },
            ]
        );
        let mut keyframes = KeyframeRequests::default();
        keyframes.request(start);
        let plis = (0..6).filter_map(|n| keyframes.poll_request(true, false, start + MIN_INTERVAL * n));
        assert_eq!(plis.filter(|r| *r == Request::Pli).count(), 6);
        let mut keyframes = KeyframeRequests::default();
        keyframes.request(start);
        assert_eq!(keyframes.poll_request(false, true, start), Some(Request::Fir { sequence: 1 }));
    }

    #[test]
    fn a_storm_of_requests_sends_two_a_second() {
        let start = Instant::now();
        let mut keyframes = KeyframeRequests::default();
        let sent = (0..10_000_u64)
            .filter(|ms| {
                keyframes.request(start);
                let sent = keyframes.poll_request(true, true, start + Duration::from_millis(*ms)).is_some();
                if *ms % 7 == 0 {
                    keyframes.notify();
                }
                sent
            })
            .count();
        assert_eq!(sent, 20);
    }
}
