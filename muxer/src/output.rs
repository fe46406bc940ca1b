//! What comes out of the muxer, and the queue it waits in until it is polled.
//!
//! The queue holds what one `handle_*` call makes; bodies live in buffers that are used again. Bounds:
//! [`MAX_QUEUED`] outputs and [`MAX_QUEUED_BYTES`], for callers that do not poll.

use std::collections::VecDeque;

use crate::flv::TagKind;
use crate::time::MediaTime;

/// Outputs kept for a caller that does not poll.
pub const MAX_QUEUED: usize = 2048;
/// Body bytes kept for a caller that does not poll.
pub const MAX_QUEUED_BYTES: usize = 16 << 20;
/// The largest body buffer that is kept for reuse: up to some 6 Mbit/s most pictures fit, and an IDR picture, which is larger
/// and rare, leaves nothing behind.
pub(crate) const MAX_SPARE_BYTES: usize = 32 << 10;

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A tag; its body was appended to the buffer passed to `poll_output`.
    Tag(Tag),
    /// No picture goes out until the sender makes an IDR picture: ask it for one.
    KeyframeNeeded(KeyframeReason),
    /// Pictures go out again without an IDR picture, since the sender refreshes parts of each picture instead: those that
    /// follow at once, a millisecond apart, lead to one that is exact. Nothing need be asked for any more.
    Recovered,
}

/// One FLV tag or RTMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Tag type.
    pub kind: TagKind,
    /// What the body holds.
    pub frame: Frame,
    /// Strictly increasing within the media tags of each kind, also after rounding down to milliseconds
    /// ([`MediaTime::millis`]). A sequence header has the dts of the media tag behind it; metadata always has 0,
    /// since FFmpeg's reader takes one at any other time for a track of text.
    pub dts: MediaTime,
    /// Body bytes.
    pub len: usize,
}

/// What a tag's body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    /// `onMetaData`.
    Metadata,
    /// avcC.
    VideoSequenceHeader,
    /// An IDR picture.
    Keyframe,
    /// Any other picture.
    InterFrame,
    /// OpusHead.
    AudioSequenceHeader,
    /// One Opus packet.
    Audio,
}

impl Frame {
    /// The tag type it goes into.
    pub const fn kind(self) -> TagKind {
        match self {
            Frame::Metadata => TagKind::Script,
            Frame::VideoSequenceHeader | Frame::Keyframe | Frame::InterFrame => TagKind::Video,
            Frame::AudioSequenceHeader | Frame::Audio => TagKind::Audio,
        }
    }
}

/// Why no picture goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyframeReason {
    /// The stream was joined between IDR pictures.
    Start,
    /// A packet is missing for good.
    Loss,
    /// A picture could not be put together.
    Malformed,
    /// A picture is beyond the limits.
    TooLarge,
    /// An IDR picture came whose SPS or PPS did not.
    NoParameterSets,
    /// Another stream took over.
    SourceChanged,
    /// The newest IDR picture was repeated ([`Muxer::repeat_keyframe`](crate::Muxer::repeat_keyframe)).
    Hold,
    /// Nobody polled, and pictures had to be dropped.
    Overflow,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<(Output, Vec<u8>)>,
    queued_bytes: usize,
    /// A body buffer for the next tag: mostly one is queued at a time.
    spare: Vec<u8>,
    pub(crate) overflow: u64,
}

impl Outbox {
    /// Queues a tag whose body `write` appends; `false` when the queue is full.
    #[must_use]
    pub(crate) fn push_tag(&mut self, frame: Frame, dts: MediaTime, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.queue.len() >= MAX_QUEUED || self.queued_bytes > MAX_QUEUED_BYTES {
            self.overflow += 1;
            return false;
        }
        let mut body = std::mem::take(&mut self.spare);
        write(&mut body);
        self.queued_bytes += body.len();
        let tag = Tag { kind: frame.kind(), frame, dts, len: body.len() };
        self.queue.push_back((Output::Tag(tag), body));
        true
    }

    /// Queues the wish for an IDR picture, once.
    pub(crate) fn push_keyframe_needed(&mut self, reason: KeyframeReason) {
        self.push_note(Output::KeyframeNeeded(reason));
    }

    /// Queues word of a recovery.
    pub(crate) fn push_recovered(&mut self) {
        self.push_note(Output::Recovered);
    }

    fn push_note(&mut self, output: Output) {
        if self.queue.back().is_none_or(|(last, _)| *last != output) && self.queue.len() < 2 * MAX_QUEUED {
            self.queue.push_back((output, Vec::new()));
        }
    }

    /// The next output; a tag's body is appended to `out`, which becomes another buffer if it is empty.
    pub(crate) fn pop(&mut self, out: &mut Vec<u8>) -> Option<Output> {
        let (output, mut body) = self.queue.pop_front()?;
        self.queued_bytes -= body.len();
        if out.is_empty() {
            std::mem::swap(out, &mut body);
        } else {
            out.extend_from_slice(&body);
        }
        self.recycle(body);
        Some(output)
    }

    /// Keeps a buffer for the next body, unless it is too large or a larger one is kept.
    pub(crate) fn recycle(&mut self, mut body: Vec<u8>) {
        if body.capacity() > self.spare.capacity() && body.capacity() <= MAX_SPARE_BYTES {
            body.clear();
            self.spare = body;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn push(outbox: &mut Outbox, body: &[u8]) {
        assert!(outbox.push_tag(Frame::Audio, MediaTime::ZERO, |out| out.extend_from_slice(body)));
    }

    #[test]
    fn a_body_is_handed_over_or_appended() {
        let mut outbox = Outbox::default();
        push(&mut outbox, b"first");
        push(&mut outbox, b"second");
        let mut out = Vec::new();
        assert!(matches!(outbox.pop(&mut out), Some(Output::Tag(Tag { len: 5, .. }))));
        assert_eq!(out, b"first");
        assert!(matches!(outbox.pop(&mut out), Some(Output::Tag(Tag { len: 6, .. }))));
        assert_eq!(out, b"firstsecond");
        assert_eq!((outbox.pop(&mut out), outbox.queued_bytes), (None, 0));
    }

    #[test]
    fn the_largest_buffer_within_the_bound_is_used_again() {
        let mut outbox = Outbox::default();
        outbox.recycle(vec![1; 1000]);
        outbox.recycle(vec![2; 10]);
        outbox.recycle(vec![3; MAX_SPARE_BYTES + 1]);
        assert_eq!((outbox.spare.capacity(), outbox.spare.len()), (1000, 0));
        push(&mut outbox, b"body");
        let mut out = Vec::new();
        outbox.pop(&mut out).unwrap();
        assert_eq!((out.as_slice(), out.capacity()), (&b"body"[..], 1000));
    }
}
