//! Decoding times for streams whose pictures are not sent in the order they are shown (B-frames).
//!
//! RTP carries presentation times only. With a reorder depth of N (max_num_reorder_frames) the decoding time of a
//! picture is the smallest presentation time still due when N later ones have come: never later than its own, and
//! increasing. The first N pictures have none yet; they go a millisecond apart, which delays all presentation times
//! of the stream by N milliseconds. With N = 0, which is what browsers send, dts is pts. State: N + 1 times, N <= 16.

use crate::sps::Sps;
use crate::time::MediaTime;
use crate::timeline::StrictlyIncreasing;

const BASELINE: u8 = 66;
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
    /// The highest presentation time of the sequence.
    latest: MediaTime,
    sent: StrictlyIncreasing,
}

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
    if sps.profile_idc == BASELINE || sps.pic_order_cnt_type == 2 {
        return 0;
    }
    sps.max_reorder_frames.map_or(0, usize::from)
}

impl DecodeTimes {
    /// An IDR picture begins a sequence of this reorder depth, after pictures that did not go out if `afresh`.
    pub(crate) fn begin(&mut self, depth: usize, pts: MediaTime, afresh: bool) {
        if afresh || depth > self.depth {
            self.depth = depth;
            self.due.clear();
            self.leading = depth;
            self.first = pts;
            self.latest = pts;
        }
    }

    /// Times of the next picture in the order of sending, shown at `pts`.
    pub(crate) fn next(&mut self, pts: MediaTime) -> Times {
        let delayed = pts + millis(self.depth);
        self.due
            .insert(self.due.partition_point(|due| *due <= delayed), delayed);
        let wanted = if self.leading > 0 {
            self.leading -= 1;
            self.first + millis(self.depth - self.leading - 1)
        } else {
            self.due.remove(0)
        };
        let dts = self.sent.after(wanted);
        if delayed < dts && self.depth < MAX_DEPTH && pts < self.latest {
            // The stream reorders deeper than it says: hold one more time back from now on.
            self.depth += 1;
            self.leading += 1;
            self.first = dts;
        }
        self.latest = self.latest.max(pts);
        Times {
            dts,
            pts: delayed.max(dts),
        }
    }

    /// `dts` went out.
    pub(crate) fn set(&mut self, dts: MediaTime) {
        self.sent.set(dts);
    }

    /// The earliest dts that may come next, no earlier than `start`.
    pub(crate) fn floor(&self, start: MediaTime) -> MediaTime {
        self.sent.floor(start)
    }
}

fn millis(count: usize) -> MediaTime {
    MediaTime::from_millis(i64::try_from(count).unwrap_or(0))
}
