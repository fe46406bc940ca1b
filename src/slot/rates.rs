//! Bit rate and frame rate over the last full window of two seconds, counted without a timer.

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    since: Instant,
    bytes: u64,
    frames: u32,
    fps: f64,
    kbps: u32,
}

impl Rates {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0, frames: 0, fps: 0.0, kbps: 0 }
    }

    pub(super) fn record_bytes(&mut self, bytes: usize, now: Instant) {
        self.roll(now);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    pub(super) fn record_frame(&mut self, now: Instant) {
        self.roll(now);
        self.frames += 1;
    }

    fn roll(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= WINDOW {
            self.fps = f64::from(self.frames) / elapsed.as_secs_f64();
            let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            self.kbps = u32::try_from(self.bytes.saturating_mul(8) / millis).unwrap_or(u32::MAX);
            (self.since, self.bytes, self.frames) = (now, 0, 0);
        }
    }

    /// Frames per second and kbit/s; nothing when no packet came for two windows.
    pub(super) fn rates(&self, now: Instant) -> (f64, u32) {
        if now.saturating_duration_since(self.since) > 2 * WINDOW { (0.0, 0) } else { (self.fps, self.kbps) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_full_window_and_end_with_the_packets() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        for n in 0..=150 {
            rates.record_bytes(1250, at(n * 20));
            if n % 2 == 0 {
                rates.record_frame(at(n * 20));
            }
        }
        let (fps, kbps) = rates.rates(at(3000));
        assert!((24.9..=25.1).contains(&fps) && kbps == 500, "{fps} {kbps}");
        assert_eq!(rates.rates(at(6100)), (0.0, 0));
    }
}
