//! Whether a picture is shown in the order it is sent, as its slices say (picture order count, H.264 §8.2.1), whatever its
//! RTP time says: a sender's clock jitters and is set, and no step of it is a B-frame.
//!
//! Input: the pictures of a stream in the order they are sent. State: two counts since the last IDR picture.

use crate::h264::Picture;
use crate::sps::Sps;

/// Where a picture is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Behind all that were sent before it, as every picture of the stream.
    Always,
    /// Behind all that were sent before it.
    AsSent,
    /// Before one that was sent before it.
    Earlier,
    /// The stream does not say.
    Unknown,
}

impl Order {
    /// No picture that is shown later was sent before it.
    pub(crate) fn is_as_sent(self) -> bool {
        matches!(self, Self::Always | Self::AsSent)
    }
}

#[derive(Debug, Default)]
pub(crate) struct PictureOrder {
    /// Picture order counts of the last reference picture and of the one shown last; `None` before the first.
    last: Option<(i64, i64)>,
}

impl PictureOrder {
    /// Pictures before the next one are not known.
    pub(crate) fn restart(&mut self) {
        self.last = None;
    }

    /// The next picture, and the SPS in force.
    pub(crate) fn next(&mut self, picture: &Picture, sps: Option<&Sps>) -> Order {
        let Some(sps) = sps else { return Order::Unknown };
        if sps.forbids_reordering() {
            return Order::Always;
        }
        let Some(lsb) = picture.order.and_then(|order| order.pic_order_cnt_lsb).map(i64::from) else {
            return Order::Unknown;
        };
        let Some((reference, highest)) = self.last.filter(|_| !picture.idr) else {
            self.last = Some((lsb, lsb));
            return Order::AsSent;
        };
        // Equation 8-3: the count nearest to the last reference picture's.
        let range = 1i64 << sps.pic_order_cnt_bits;
        let step = (lsb - reference).rem_euclid(range);
        let count = reference + if step < range / 2 { step } else { step - range };
        self.last = Some((if picture.reference { count } else { reference }, highest.max(count)));
        if count < highest { Order::Earlier } else { Order::AsSent }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fixtures::{SPS, SPS_HIGH};
    use crate::sps::SliceOrder;
    use crate::time::MediaTime;

    /// What becomes of pictures with these counts, those in brackets referred to by others.
    fn orders(sps: &Sps, counts: &[(u32, bool)]) -> String {
        let mut order = PictureOrder::default();
        let letter = |(n, (count, reference)): (usize, &(u32, bool))| {
            let picture = Picture {
                rtp_time: 0,
                arrival: MediaTime::ZERO,
                idr: n == 0,
                pps_id: Some(0),
                reference: *reference,
                order: Some(SliceOrder { frame_num: 0, pic_order_cnt_lsb: Some(count % (1 << 4)) }),
                recovery_frames: None,
            };
            match order.next(&picture, Some(sps)) {
                Order::Always | Order::AsSent => '-',
                Order::Earlier => 'e',
                Order::Unknown => '?',
            }
        };
        counts.iter().enumerate().map(letter).collect()
    }

    #[test]
    fn b_frames_are_told_by_their_count_across_its_wrap() {
        let sps = Sps { pic_order_cnt_bits: 4, ..Sps::parse(SPS_HIGH).unwrap() };
        // I P B P B ..., two counts a picture.
        let mut counts = vec![(0, true)];
        for n in 0..10 {
            counts.extend([(4 * n + 4, true), (4 * n + 2, false)]);
        }
        assert_eq!(orders(&sps, &counts), format!("-{}", "-e".repeat(10)));
        let in_order: Vec<_> = (0..40).map(|n| (2 * n, true)).collect();
        assert_eq!(orders(&sps, &in_order), "-".repeat(40));
    }

    #[test]
    fn where_the_sps_forbids_another_order_no_count_says_otherwise() {
        let baseline = Sps::parse(SPS).unwrap();
        let high = Sps { pic_order_cnt_bits: 4, ..Sps::parse(SPS_HIGH).unwrap() };
        let counts = [(0, true), (4, true), (2, false)];
        for sps in [baseline, Sps { pic_order_cnt_type: 2, ..high }, Sps { max_reorder_frames: Some(0), ..high }] {
            assert_eq!(orders(&sps, &counts), "---");
        }
        assert_eq!(orders(&Sps { max_reorder_frames: None, ..high }, &counts), "--e");
    }
}
