//! [`Queue`]: what is to be written, as chunked bytes, with a record of each message in them.
//!
//! ```text
//! bytes    [ written | front message, partly written | message | message | ... ]
//!                    ^ head
//! ```
//! First in, first out, and a message once begun is completed. [`Queue::trim`] keeps the backlog within its bounds by
//! dropping video from the front up to the next keyframe (a whole GOP, or what was left of one), never a single
//! reference frame; audio goes only when it is itself too old; control and configuration stay.

use std::collections::VecDeque;
use std::fmt;

/// Memory kept while nothing is queued: for most pictures, not for an IDR picture.
const IDLE_CAPACITY: usize = 32 * 1024;
/// Written bytes in front of `head` are moved out of the way beyond this.
const COMPACT_AT: usize = 64 * 1024;

/// What a message is to the drop policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Handshake, protocol control, commands.
    Control,
    /// Metadata and the Opus SequenceStart.
    Config,
    /// AVC sequence header: kept for the GOP behind it.
    VideoConfig,
    Audio,
    Keyframe,
    InterFrame,
}

impl Class {
    fn is_media(self) -> bool {
        matches!(self, Class::Audio | Class::Keyframe | Class::InterFrame)
    }

    fn is_picture(self) -> bool {
        matches!(self, Class::Keyframe | Class::InterFrame)
    }
}

#[derive(Clone, Copy, Debug)]
struct Record {
    class: Class,
    /// Timestamp of media.
    ms: u32,
    len: usize,
}

/// The most [`Queue::trim`] leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Pictures older than this against the newest media go. Less than `media_ms`: sound that waits behind pictures must
    /// not grow too old before they make room for it.
    pub(super) picture_ms: u32,
    pub(super) media_ms: u32,
    pub(super) bytes: usize,
}

/// What [`Queue::trim`] dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trimmed {
    pub(super) pictures: u64,
    pub(super) audio_frames: u64,
    pub(super) gops: u64,
    /// The newest GOP was among them: nothing may follow but a keyframe.
    pub(super) needs_keyframe: bool,
}

#[derive(Default)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    head: usize,
    records: VecDeque<Record>,
    /// Bytes of the front message already written.
    front_written: usize,
    control_bytes: usize,
}

impl Queue {
    /// Appends the message that `write` appends to its buffer.
    pub(super) fn push(&mut self, class: Class, ms: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        let len = self.bytes.len() - before;
        if len == 0 {
            return;
        }
        if class == Class::Control {
            self.control_bytes += len;
        }
        self.records.push_back(Record { class, ms, len });
    }

    /// What to write next: everything.
    pub(super) fn unwritten(&self) -> &[u8] {
        self.bytes.get(self.head..).expect("head never passes the end")
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Queued bytes of [`Class::Control`].
    pub(super) fn control_len(&self) -> usize {
        self.control_bytes
    }

    /// Forgets everything, the partly written message too: the connection is gone.
    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.front_written = 0;
        self.control_bytes = 0;
        self.rewind();
    }

    fn rewind(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(IDLE_CAPACITY);
        self.head = 0;
    }

    /// The first `count` unwritten bytes were written. The timestamp of the last media message this completed.
    pub(super) fn handle_written(&mut self, count: usize) -> Option<u32> {
        let count = count.min(self.len());
        self.head += count;
        self.front_written += count;
        let mut last_media = None;
        while let Some(front) = self.records.front()
            && self.front_written >= front.len
        {
            self.front_written -= front.len;
            match front.class {
                Class::Control => self.control_bytes -= front.len,
                class if class.is_media() => last_media = Some(front.ms),
                _ => {}
            }
            self.records.pop_front();
        }
        if self.is_empty() {
            self.rewind();
        } else if self.head >= COMPACT_AT && self.head >= self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        last_media
    }

    /// Index of the first message none of whose bytes were written.
    fn first_whole(&self) -> usize {
        usize::from(self.front_written > 0)
    }

    /// The media messages not begun, oldest first, with their index.
    fn whole_media(&self) -> impl DoubleEndedIterator<Item = (usize, &Record)> + Clone {
        let records = self.records.iter().enumerate();
        records.skip(self.first_whole()).filter(|(_, record)| record.class.is_media())
    }

    /// Media time between the oldest and the newest message not begun.
    pub(super) fn media_ms(&self) -> u32 {
        let mut media = self.whole_media().map(|(_, record)| record.ms);
        let oldest = media.next().unwrap_or(0);
        media.next_back().unwrap_or(oldest).saturating_sub(oldest)
    }

    /// Drops until the backlog is within `bounds`, or nothing is left that may be dropped.
    pub(super) fn trim(&mut self, bounds: Bounds) -> Trimmed {
        let mut trimmed = Trimmed::default();
        loop {
            let newest = self.whole_media().next_back().map_or(0, |(_, record)| record.ms);
            let age = |record: &Record| newest.saturating_sub(record.ms);
            let large = self.len() > bounds.bytes;
            let picture = self.whole_media().find(|(_, record)| record.class.is_picture());
            if let Some((start, _)) = picture.filter(|(_, record)| large || age(record) > bounds.picture_ms) {
                self.drop_gop(start, &mut trimmed);
                continue;
            }
            // Audio in front of the pictures: what is left of dropped GOPs, or all there is.
            let audio = self.whole_media().next().filter(|(_, record)| record.class == Class::Audio);
            let Some((oldest, _)) = audio.filter(|(_, record)| large || age(record) > bounds.media_ms) else {
                return trimmed;
            };
            let end = picture.map_or(self.records.len(), |(index, _)| index);
            let keep_from = newest.saturating_sub(bounds.media_ms);
            trimmed.audio_frames += self.remove(|index, record| {
                let too_old = record.ms < keep_from || index == oldest;
                record.class == Class::Audio && index >= oldest && index < end && too_old
            });
        }
    }

    /// Drops the pictures from `start` up to the next keyframe.
    fn drop_gop(&mut self, start: usize, trimmed: &mut Trimmed) {
        let first = self.first_whole();
        let next_key = self
            .whole_media()
            .find(|(index, record)| *index > start && record.class == Class::Keyframe)
            .map(|(index, _)| index);
        let end = next_key.unwrap_or(self.records.len());
        // Of several parameter sets in front of the next keyframe only the last one counts.
        let config = (first..end)
            .rev()
            .find(|index| self.records.get(*index).is_some_and(|record| record.class == Class::VideoConfig));
        self.remove(|index, record| {
            let superseded = record.class == Class::VideoConfig && Some(index) != config;
            let gone = index >= first && index < end && (superseded || record.class.is_picture());
            trimmed.pictures += u64::from(gone && record.class.is_picture());
            gone
        });
        trimmed.gops += 1;
        trimmed.needs_keyframe |= next_key.is_none();
    }

    /// Takes messages out of the middle; returns how many.
    fn remove(&mut self, mut gone: impl FnMut(usize, &Record) -> bool) -> u64 {
        let mut removed = 0;
        let (mut from, mut to) = (self.head, self.head);
        let mut index = 0;
        let Queue { bytes, records, front_written, .. } = self;
        records.retain(|record| {
            let len = if index == 0 { record.len - *front_written } else { record.len };
            let keep = !gone(index, record);
            if keep {
                bytes.copy_within(from..from + len, to);
                to += len;
            } else {
                removed += 1;
            }
            from += len;
            index += 1;
            keep
        });
        bytes.truncate(to);
        removed
    }
}

/// Lengths only: the connect command in the bytes may carry credentials.
impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("bytes", &self.len()).field("messages", &self.records.len()).finish()
    }
}

#[cfg(test)]
mod tests;
