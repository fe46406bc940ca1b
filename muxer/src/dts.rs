//! Decoding times for streams whose pictures are not sent in the order they are shown (B-frames).
//!
//! RTP carries presentation times only. With a reorder depth of N (max_num_reorder_frames) the decoding time of a
//! picture is the smallest presentation time still due when N later ones have come: never later than its own, and
//! increasing. The first N pictures have none yet; they go a millisecond apart, which delays all presentation times
//! of the stream by N milliseconds. With N = 0, which is what browsers send, dts is pts. State: N + 1 times, N <= 16.
//!
//! A stream that reorders deeper than its SPS says is learned, unless its SPS forbids any reordering or the slices say
//! that a picture is shown in its turn ([`crate::order`]). An IDR picture ends that, if the pictures before it went without.

use crate::order::Order;
use crate::sps::Sps;
use crate::time::MediaTime;
use crate::timeline::StrictlyIncreasing;

/// H.264 section A.3.1: no stream reorders deeper than it has reference frames.
const MAX_DEPTH: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct DecodeTimes {
    depth: usize,
    /// Presentation times not yet given out as decoding times, ascending.
    due: Vec<MediaTime>,
    /// Pictures that still go a millisecond apart, and the time of the first.
    leading: usize,
    first: MediaTime,
    /// The depth that the pictures since the IDR picture made use of.
    used: usize,
    /// The highest presentation time of the sequence.
    latest: MediaTime,
    sent: StrictlyIncreasing,
}

/// A picture is decoded no earlier than this before it is shown: behind a pause without loss the time that is due
/// would be one from before it.
const MAX_AHEAD: MediaTime = MediaTime::from_millis(2000);

/// dts and pts of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) dts: MediaTime,
    pub(crate) pts: MediaTime,
}

impl Times {
    /// pts - dts as tags carry it: the difference of the rounded times.
    pub(crate) fn composition_time_ms(&self) -> i32 {
        i32::try_from(self.pts.millis() - self.dts.millis()).unwrap_or(0)
    }
}

/// How many pictures may be sent before one that is shown earlier.
pub(crate) fn reorder_depth(sps: &Sps) -> usize {
    if sps.forbids_reordering() {
        return 0;
    }
    sps.max_reorder_frames.map_or(0, usize::from)
}

impl DecodeTimes {
    /// An IDR picture begins a sequence of this reorder depth, after pictures that did not go out if `afresh`.
    pub(crate) fn begin(&mut self, depth: usize, pts: MediaTime, afresh: bool) {
        let depth = if afresh { depth } else { depth.max(self.used) };
        self.used = 0;
        if afresh || depth != self.depth {
            self.depth = depth;
            self.due.clear();
            self.leading = depth;
            self.first = pts;
            self.latest = pts;
        }
    }

    /// Times of the next picture in the order of sending, shown at `pts`.
    pub(crate) fn next(&mut self, pts: MediaTime, order: Order) -> Times {
        let delayed = pts + millis(self.depth);
        let place = self.due.partition_point(|due| *due <= delayed);
        if !order.is_as_sent() {
            self.used = self.used.max(self.due.len() - place);
        }
        self.due.insert(place, delayed);
        let wanted = if self.leading > 0 {
            self.leading -= 1;
            self.first + millis(self.depth - self.leading - 1)
        } else {
            self.due.remove(0)
        };
        let dts = self.sent.after(wanted.max(delayed - MAX_AHEAD));
        if delayed < dts && self.depth < MAX_DEPTH && pts < self.latest && !order.is_as_sent() {
            // The stream reorders deeper than it says: hold one more time back from now on.
            self.depth += 1;
            self.used = self.depth;
            self.leading += 1;
            self.first = dts;
        }
        self.latest = self.latest.max(pts);
        Times { dts, pts: delayed.max(dts) }
    }

    /// `dts` went out.
    pub(crate) fn set(&mut self, dts: MediaTime) {
        self.sent.set(dts);
    }

    /// The last dts that went out.
    pub(crate) fn last(&self) -> Option<MediaTime> {
        self.sent.last()
    }

    /// The earliest dts that may come next, no earlier than `start`.
    pub(crate) fn floor(&self, start: MediaTime) -> MediaTime {
        self.sent.floor(start)
    }
}

fn millis(count: usize) -> MediaTime {
    MediaTime::from_millis(i64::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds of dts and pts for pictures shown at these times, in the order they are sent.
    fn times(decode_times: &mut DecodeTimes, shown_ms: &[i64]) -> Vec<(i64, i64)> {
        shown_ms
            .iter()
            .map(|shown| {
                let times = decode_times.next(MediaTime::from_millis(*shown), Order::Unknown);
                decode_times.set(times.dts);
                (times.dts.millis(), times.pts.millis())
            })
            .collect()
    }

    fn begun(depth: usize, first_ms: i64) -> DecodeTimes {
        let mut decode_times = DecodeTimes::default();
        decode_times.begin(depth, MediaTime::from_millis(first_ms), true);
        decode_times
    }

    #[test]
    fn without_reordering_dts_is_pts() {
        let mut decode_times = begun(0, 0);
        assert_eq!(times(&mut decode_times, &[0, 33, 66]), [(0, 0), (33, 33), (66, 66)]);
    }

    #[test]
    fn with_a_pyramid_of_b_frames_each_picture_is_decoded_in_time() {
        // What x264 sends with three B-frames and b-pyramid: reorder depth 2, 40 ms a picture.
        let sent = [0, 160, 80, 40, 120, 320, 240, 200, 280];
        let expected = [(0, 2), (1, 162), (2, 82), (42, 42), (82, 122), (122, 322), (162, 242), (202, 202), (242, 282)];
        assert_eq!(times(&mut begun(2, 0), &sent), expected);
    }

    #[test]
    fn a_stream_that_reorders_deeper_than_it_says_is_learned() {
        let mut decode_times = begun(0, 0);
        let sent = [0, 80, 40, 160, 120, 240, 200, 320, 280];
        let given = times(&mut decode_times, &sent);
        assert!(given.windows(2).all(|pair| pair[0].0 < pair[1].0), "{given:?}");
        assert!(given.iter().all(|(dts, pts)| dts <= pts), "{given:?}");
        // From the fourth picture on each is shown where it belongs, a millisecond later than without reordering.
        let shown: Vec<i64> = given.iter().skip(3).map(|(_, pts)| *pts).collect();
        assert_eq!(shown, [161, 121, 241, 201, 321, 281]);
    }

    #[test]
    fn a_step_back_of_the_clock_teaches_nothing_where_the_slices_say_that_the_order_is_kept() {
        let mut decode_times = begun(0, 0);
        for shown in [0, 500, 33, 66, 20, 100, 600] {
            let times = decode_times.next(MediaTime::from_millis(shown), Order::AsSent);
            decode_times.set(times.dts);
            assert_eq!(times.dts, times.pts);
        }
        assert_eq!(decode_times.depth, 0);
    }

    #[test]
    fn a_depth_that_was_learned_is_kept_while_it_is_used_and_forgotten_at_an_idr_picture() {
        let mut decode_times = begun(0, 0);
        times(&mut decode_times, &[0, 80, 40, 160, 120]);
        decode_times.begin(0, MediaTime::from_millis(200), false);
        // Used: the times go on as they were.
        assert_eq!(times(&mut decode_times, &[200, 280, 240])[1..], [(201, 281), (241, 241)]);
        decode_times.begin(0, MediaTime::from_millis(320), false);
        times(&mut decode_times, &[320, 360, 400]);
        decode_times.begin(0, MediaTime::from_millis(440), false);
        assert_eq!(times(&mut decode_times, &[440, 480, 520]), [(440, 440), (480, 480), (520, 520)]);
    }

    #[test]
    fn after_pictures_that_did_not_go_out_times_start_at_the_idr_picture() {
        let mut decode_times = begun(2, 0);
        times(&mut decode_times, &[0, 160, 80]);
        decode_times.begin(2, MediaTime::from_millis(5000), true);
        assert_eq!(times(&mut decode_times, &[5000, 5160, 5080]), [(5000, 5002), (5001, 5162), (5002, 5082)]);
    }

    #[test]
    fn behind_a_pause_decoding_times_go_on_with_the_pictures() {
        let mut decode_times = begun(1, 0);
        let hours = 3 * 3_600_000;
        let given = times(&mut decode_times, &[0, 80, 40, hours, hours + 80, hours + 40]);
        assert_eq!(given[3..], [(hours - 1999, hours + 1), (hours + 1, hours + 81), (hours + 41, hours + 41)]);
    }

    #[test]
    fn state_does_not_grow_whatever_the_times_are() {
        let mut decode_times = begun(3, 0);
        let mut last = -1;
        for n in 0..10_000i64 {
            let shown = n * 7919 % 5003;
            let given = times(&mut decode_times, &[shown]);
            assert!(given[0].0 > last && given[0].0 <= given[0].1);
            last = given[0].0;
            assert!(decode_times.due.len() <= MAX_DEPTH + 1);
        }
    }
}
