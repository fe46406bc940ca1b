//! How MediaMTX maps a track's timestamps to wall time (`internal/ntpestimator`): by the least delay seen on that track since
//! its connection began. Its readers put sound and picture together by that, so a track must not teach a late clock.
//!
//! ```text
//!   delay   ──╴ a stand-in that is written late ╶──┐
//!                                                  └──╴ the guest's own: the mapping jumps, by as much ╶──
//! ```
//!
//! Rules, of our own: from two seconds on a mapping does not fall by more than the tolerance within one, and those of both
//! tracks are no further apart. Input: timestamps and arrivals of frames; output: what is wrong, in words.

use std::time::{Duration, Instant};

use crate::report::Kind;

/// A path is ready after two seconds, and no reader is there before: until then a track's least delay is being found.
const FOUND_AFTER_MICROS: i64 = 2_000_000;
const MARK_MICROS: i64 = 1_000_000;
/// MediaMTX maps a track anew that is later than this.
const ANEW_MICROS: i64 = 5_000_000;

#[derive(Clone, Copy, Debug)]
struct TrackClock {
    began: i64,
    least: i64,
    /// Once a second: when, and the least delay then.
    marked: (i64, i64),
}

impl TrackClock {
    fn is_found(&self, now: i64) -> bool {
        now - self.began >= FOUND_AFTER_MICROS
    }
}

/// Both tracks of a connection.
#[derive(Debug)]
pub(crate) struct Clocks {
    tolerance: i64,
    epoch: Option<Instant>,
    audio: Option<TrackClock>,
    video: Option<TrackClock>,
    /// They are further apart than they may be, and it was said.
    apart: bool,
}

impl Clocks {
    pub(crate) fn new(tolerance: Duration) -> Clocks {
        Clocks { tolerance: micros(tolerance), epoch: None, audio: None, video: None, apart: false }
    }

    /// A frame came; what is wrong with its track's clock.
    pub(crate) fn handle_frame(&mut self, kind: Kind, timestamp: u32, arrived: Instant) -> Option<String> {
        let now = micros(arrived.saturating_duration_since(*self.epoch.get_or_insert(arrived)));
        let delay = now - i64::from(timestamp) * 1000;
        let track = match kind {
            Kind::Audio => &mut self.audio,
            Kind::Video => &mut self.video,
        };
        let new = TrackClock { began: now, least: delay, marked: (now, delay) };
        let clock = track.get_or_insert(new);
        if delay - clock.least > ANEW_MICROS {
            *clock = new;
        }
        clock.least = clock.least.min(delay);
        let (marked_at, marked) = clock.marked;
        let fell = marked - clock.least;
        let found = clock.is_found(now);
        if fell > self.tolerance || now - marked_at >= MARK_MICROS {
            clock.marked = (now, clock.least);
        }
        if found && fell > self.tolerance {
            return Some(format!(
                "{kind:?} taught a late clock: it was mapped to wall time {} ms too late, up to {timestamp} ms",
                fell / 1000
            ));
        }
        let (audio, video) = (self.audio?, self.video?);
        let apart = audio.least - video.least;
        let was_apart = std::mem::replace(&mut self.apart, apart.abs() > self.tolerance);
        let news = self.apart && !was_apart && audio.is_found(now) && video.is_found(now);
        self.apart &= audio.is_found(now) && video.is_found(now);
        news.then(|| {
            format!("sound is mapped to wall time {} ms later than the picture, at {timestamp} ms", apart / 1000)
        })
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
