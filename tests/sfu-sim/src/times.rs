//! How long things last at the real service, and the clock factor that keeps tests short.

use std::time::Duration;

/// Consent checks come every 4 to 6 s (RFC 7675 §5.1) whatever the clock factor is: a shorter window would cut off
/// peers that do everything right.
const SHORTEST_CONNECTIVITY: Duration = Duration::from_secs(7);
/// A handshake takes its time whatever the clock factor is, and longer on a machine that has other work to do.
const SHORTEST_UNCONNECTED: Duration = Duration::from_secs(10);
/// And so do the first packets behind it.
const SHORTEST_HOLD: Duration = Duration::from_secs(5);

/// The service's times, already divided by the clock factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// A session that never connected is gone after this.
    pub unconnected: Duration,
    /// How long a call that needs a connected transport waits for it before 425.
    pub not_ready_hold: Duration,
    /// How long a pull waits for the first packet of a track before `empty_track_error`.
    pub empty_track_hold: Duration,
    /// A track without packets ends after this, and its subscriptions with it.
    pub track_idle: Duration,
    /// A connected session that is not heard of is gone after this.
    pub connectivity: Duration,
    /// How long a call hangs when it was told to hang.
    pub hang: Duration,
    /// The second in which a session has 50 calls; the clock factor leaves it alone.
    pub rate_window: Duration,
}

impl Times {
    /// The service's own.
    pub const REAL: Times = Times {
        unconnected: Duration::from_secs(15),
        not_ready_hold: Duration::from_secs(5),
        empty_track_hold: Duration::from_millis(8500),
        track_idle: Duration::from_secs(30),
        connectivity: Duration::from_secs(30),
        hang: Duration::from_secs(25),
        rate_window: Duration::from_secs(1),
    };

    /// For tests: nothing ends by itself, and no call is given up. A test sets the time that it is about.
    pub const ENDLESS: Times = {
        let endless = Duration::from_secs(24 * 60 * 60);
        Times {
            unconnected: endless,
            not_ready_hold: endless,
            empty_track_hold: endless,
            track_idle: endless,
            connectivity: endless,
            hang: endless,
            rate_window: Times::REAL.rate_window,
        }
    };

    /// All times divided by `speed`, but for lower bounds on those in which a peer has something to do.
    ///
    /// # Panics
    /// When `speed` is not a positive number.
    pub fn scaled(speed: f64) -> Times {
        assert!(speed > 0.0, "a clock factor is positive");
        let real = Times::REAL;
        Times {
            unconnected: real.unconnected.div_f64(speed).max(SHORTEST_UNCONNECTED),
            not_ready_hold: real.not_ready_hold.div_f64(speed).max(SHORTEST_HOLD),
            empty_track_hold: real.empty_track_hold.div_f64(speed).max(SHORTEST_HOLD),
            track_idle: real.track_idle.div_f64(speed),
            connectivity: real.connectivity.div_f64(speed).max(SHORTEST_CONNECTIVITY),
            hang: real.hang.div_f64(speed),
            rate_window: real.rate_window,
        }
    }
}
