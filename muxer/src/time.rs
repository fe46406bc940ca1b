//! [`MediaTime`]: the one unit of time inside the crate, signed microseconds.
//!
//! An arrival is counted from an epoch the caller chose; an output time from the start of the guest's timeline.
//! All arithmetic saturates: the inputs come from the network.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on a timeline, or a signed span between two, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaTime(i64);

impl MediaTime {
    /// The start of a timeline.
    pub const ZERO: MediaTime = MediaTime(0);
    /// Later than any other time.
    pub const MAX: MediaTime = MediaTime(i64::MAX);

    /// From microseconds.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From milliseconds.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    /// In microseconds.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// In whole milliseconds, rounded down: the one rounding that keeps what the muxer promises about tag times.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

impl From<Duration> for MediaTime {
    fn from(span: Duration) -> Self {
        Self(i64::try_from(span.as_micros()).unwrap_or(i64::MAX))
    }
}

impl Add for MediaTime {
    type Output = MediaTime;
    fn add(self, span: MediaTime) -> MediaTime {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub for MediaTime {
    type Output = MediaTime;
    fn sub(self, other: MediaTime) -> MediaTime {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Add<Duration> for MediaTime {
    type Output = MediaTime;
    fn add(self, span: Duration) -> MediaTime {
        self + MediaTime::from(span)
    }
}

impl Sub<Duration> for MediaTime {
    type Output = MediaTime;
    fn sub(self, span: Duration) -> MediaTime {
        self - MediaTime::from(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_round_down_on_both_sides_of_zero() {
        assert_eq!(MediaTime::from_micros(1999).millis(), 1);
        assert_eq!(MediaTime::from_micros(-1).millis(), -1);
    }

    #[test]
    fn sums_stop_at_the_ends_of_the_range() {
        assert_eq!(MediaTime::MAX + Duration::from_secs(1), MediaTime::MAX);
        assert_eq!(MediaTime::from_millis(i64::MAX), MediaTime::MAX);
        assert_eq!(MediaTime::ZERO + Duration::MAX, MediaTime::MAX);
    }
}
