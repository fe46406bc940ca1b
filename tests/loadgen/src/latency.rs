//! How long pictures take from a guest to the RTMP server: publishers at one end, an [`Ingest`] at the other, both here, on
//! one clock.
//!
//! Input: a WHIP address of a relay that publishes to the ingest. Output: for each picture the time from handing its last
//! packet to the network to having read its last byte, told by its digest. What a picture takes through the loopback
//! device, the schedulers and the two ends themselves is in it.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use ingest::{Connection, Ingest, Kind};

use crate::clip::TrackKind;
use crate::h264;
use crate::replay::SentUnit;

/// The delays of pictures, in order of length.
#[derive(Clone, Debug, Default)]
pub struct Delays(Vec<Duration>);

impl Delays {
    /// Matches the pictures that one guest has sent since `from` with those that arrived on its connection.
    pub fn add(&mut self, sent: &[SentUnit], connection: &Connection, from: Instant) {
        // A clip in a loop sends the same picture again and again: the one sent last before it arrived is meant.
        let mut departures: HashMap<u64, Vec<Instant>> = HashMap::new();
        for unit in sent.iter().filter(|unit| unit.kind == TrackKind::Video && unit.sent >= from) {
            departures.entry(unit.digest).or_default().push(unit.sent);
        }
        for frame in connection.frames.iter().filter(|frame| frame.kind == Kind::Video) {
            // FrameType and CodecID, AVCPacketType, CompositionTime: 5 bytes before the NAL units.
            let units = frame.body.get(5..).and_then(h264::avc_units);
            let of_picture = units.and_then(|units| departures.get(&h264::digest(units)));
            let departed = of_picture.and_then(|sent| sent.iter().rfind(|sent| **sent <= frame.arrived));
            if let Some(departed) = departed {
                self.0.push(frame.arrived - *departed);
            }
        }
        self.0.sort_unstable();
    }

    /// The delay that so many percent of the pictures do not exceed.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let index = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(index).copied()
    }
}

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |percent| self.percentile(percent).map_or(f64::NAN, |delay| delay.as_secs_f64() * 1e3);
        write!(f, "{} pictures, delay p50 {:.2} p99 {:.2} max {:.2} ms", self.0.len(), ms(50), ms(99), ms(100))
    }
}

/// The newest connection of each guest that is being published, by name.
pub fn connections(ingest: &Ingest) -> HashMap<String, Connection> {
    let all = ingest.connections();
    all.into_iter().filter_map(|connection| Some((connection.path.clone()?, connection))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_that_so_many_do_not_exceed() {
        let delays = Delays((1..=200).map(Duration::from_millis).collect());
        for (percent, ms) in [(50, 100), (99, 198), (100, 200), (1, 2)] {
            assert_eq!(delays.percentile(percent), Some(Duration::from_millis(ms)), "{percent}");
        }
        assert_eq!(Delays::default().percentile(99), None);
        assert!(Delays::default().to_string().starts_with("0 pictures"));
    }
}
