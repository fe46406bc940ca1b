//! The round trip time of a path: samples in, a time smoothed as by RFC 6298 §2 out.

use std::time::Duration;

/// The round trip time before it was measured.
pub const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(100);

/// The estimate; `None` until the first sample.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Smoothed(Option<Duration>);

impl Smoothed {
    pub(super) fn record(&mut self, sample: Duration) {
        self.0 = Some(self.0.map_or(sample, |smoothed| (smoothed * 7 + sample) / 8));
    }

    pub(super) fn value(self) -> Option<Duration> {
        self.0
    }
}
