//! The newest group of pictures, kept for a connection that does not take media yet.
//!
//! A sender may make its first keyframe before the server is ready, and never another one on request. Input: the tags of
//! pictures, in order. Output: all of the group, in time for the next picture: a millisecond apart, the newest one at its own
//! time, so that no reader takes the wait for latency.
//!
//! Bounds: [`KEPT_BYTES_MAX`], [`KEPT_TIME_MAX`]. A group beyond them is forgotten whole, and the next keyframe begins another.

use std::time::Duration;

use guest_relay_muxer::{Frame, MediaTime, Tag};

/// Bytes kept at most.
pub const KEPT_BYTES_MAX: usize = 4 << 20;
/// Media time kept at most.
pub const KEPT_TIME_MAX: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Kept {
    pictures: Vec<(Tag, Vec<u8>)>,
    bytes: usize,
}

impl Kept {
    /// A picture of the guest's, in the order they are sent. False when its group is too large to be kept.
    pub(super) fn push(&mut self, tag: Tag, body: &[u8]) -> bool {
        match tag.frame {
            Frame::Keyframe => self.clear(),
            Frame::InterFrame if !self.pictures.is_empty() => {}
            // It refers to what was not kept.
            _ => return true,
        }
        let first = self.pictures.first().map_or(tag.dts, |(first, _)| first.dts);
        let too_long = tag.dts - first > MediaTime::from(KEPT_TIME_MAX);
        if too_long || self.bytes + body.len() > KEPT_BYTES_MAX {
            self.clear();
            return false;
        }
        self.bytes += body.len();
        self.pictures.push((tag, body.to_vec()));
        true
    }

    /// The group, with the times at which it goes out now; the first is a keyframe.
    pub(super) fn squeezed(&self) -> impl Iterator<Item = (Tag, &[u8])> {
        let newest = self.pictures.last().map(|(tag, _)| tag.dts).unwrap_or_default();
        let last = self.pictures.len().saturating_sub(1);
        self.pictures.iter().enumerate().map(move |(index, (tag, body))| {
            let behind = MediaTime::from_millis(i64::try_from(last - index).unwrap_or(i64::MAX));
            (Tag { dts: newest - behind, ..*tag }, body.as_slice())
        })
    }

    /// Forgets the group, and gives its memory back.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use guest_relay_muxer::TagKind;

    use super::*;

    fn tag(frame: Frame, ms: i64) -> Tag {
        Tag { kind: TagKind::Video, frame, dts: MediaTime::from_millis(ms), len: 1 }
    }

    fn squeezed(kept: &Kept) -> Vec<(Frame, i64)> {
        kept.squeezed().map(|(tag, _)| (tag.frame, tag.dts.millis())).collect()
    }

    #[test]
    fn a_group_goes_out_a_millisecond_apart_and_ends_at_the_newest_picture_s_own_time() {
        let mut kept = Kept::default();
        assert!(kept.push(tag(Frame::InterFrame, 0), b"x"), "refers to what is not there");
        assert!(squeezed(&kept).is_empty());
        kept.push(tag(Frame::Keyframe, 100), b"x");
        for n in 1..4 {
            kept.push(tag(Frame::InterFrame, 100 + n * 33), b"x");
        }
        let expected =
            [(Frame::Keyframe, 196), (Frame::InterFrame, 197), (Frame::InterFrame, 198), (Frame::InterFrame, 199)];
        assert_eq!(squeezed(&kept), expected);
        kept.push(tag(Frame::Keyframe, 250), b"x");
        assert_eq!(squeezed(&kept), [(Frame::Keyframe, 250)]);
    }

    #[test]
    fn a_group_beyond_the_bounds_is_forgotten_whole_until_the_next_keyframe() {
        let mut kept = Kept::default();
        let half = vec![0; KEPT_BYTES_MAX / 2];
        assert!(kept.push(tag(Frame::Keyframe, 0), &half));
        assert!(kept.push(tag(Frame::InterFrame, 33), &half));
        assert!(!kept.push(tag(Frame::InterFrame, 66), b"x"));
        assert!(squeezed(&kept).is_empty());
        assert!(kept.push(tag(Frame::InterFrame, 99), b"x"));
        assert!(squeezed(&kept).is_empty());
        kept.push(tag(Frame::Keyframe, 1000), b"x");
        assert!(kept.push(tag(Frame::InterFrame, 11_000), b"x"));
        assert!(!kept.push(tag(Frame::InterFrame, 11_001), b"x"));
        assert!(squeezed(&kept).is_empty());
    }
}
