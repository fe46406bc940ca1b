//! Handshake messages put together from their fragments (RFC 6347 §4.2.2, §4.2.3).
//!
//! Fragments in any order in, whole messages in order out. Bounds: [`WINDOW_MESSAGES`] messages ahead, each at most
//! [`MAX_MESSAGE_BYTES`], [`MAX_FRAGMENTS`] kept in a handshake, no tiny ones. webrtc-dtls recurses once for each
//! fragment of a message and keeps fragments of any number of messages, so it gets none to see.

use std::collections::BTreeMap;
use std::ops::Range;

use super::message::{self, MessageType};

/// Messages that may arrive before an earlier one: a server's longest flight has six.
const WINDOW_MESSAGES: u16 = 8;

/// The longest message. With its headers it must fit webrtc-dtls's receive buffer of 8192 bytes; the longest seen in
/// WebRTC is a certificate of under 2 KiB.
pub(super) const MAX_MESSAGE_BYTES: usize = 8 * 1024 - 13 - 12;

/// Fragments that may be kept in one handshake.
const MAX_FRAGMENTS: u32 = 64;

/// A fragment in the middle of a message is at least this long. A first one may be shorter, to fill a datagram, and a
/// last one is as long as what was left.
const MIN_MIDDLE_BYTES: usize = 64;

/// ```text
///  msg_type(1) | length(3) | message_seq(2) | fragment_offset(3) | fragment_length(3) | fragment
/// ```
#[derive(Debug, Clone, Copy)]
pub(super) struct Fragment<'a> {
    pub(super) message_type: MessageType,
    pub(super) message_seq: u16,
    pub(super) message_len: usize,
    pub(super) offset: usize,
    pub(super) bytes: &'a [u8],
}

/// A whole message whose shape was checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) message_type: MessageType,
    pub(super) message_seq: u16,
    pub(super) body: Vec<u8>,
}

/// What became of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// Kept.
    New,
    /// Part of a message that went out already, or of what is kept already.
    Duplicate,
    /// Its fields contradict each other or the bounds.
    Refused,
    /// [`MAX_FRAGMENTS`] were kept.
    OverLimit,
}

#[derive(Default)]
pub(super) struct Reassembly {
    next_seq: u16,
    partial: BTreeMap<u16, Partial>,
    fragments: u32,
    malformed_messages: u32,
}

struct Partial {
    message_type: MessageType,
    body: Vec<u8>,
    missing: Vec<Range<usize>>,
}

impl Reassembly {
    pub(super) fn push(&mut self, fragment: &Fragment<'_>) -> Stored {
        let Fragment { message_seq, message_len, offset, bytes, .. } = *fragment;
        let end = offset + bytes.len();
        let is_tiny = offset > 0 && end < message_len && bytes.len() < MIN_MIDDLE_BYTES;
        let is_empty = bytes.is_empty() && message_len > 0;
        if message_len > MAX_MESSAGE_BYTES || end > message_len || is_tiny || is_empty {
            return Stored::Refused;
        }
        let Some(ahead) = message_seq.checked_sub(self.next_seq) else {
            return Stored::Duplicate;
        };
        if ahead >= WINDOW_MESSAGES {
            return Stored::Refused;
        }
        let known = self
            .partial
            .get(&message_seq)
            .is_some_and(|partial| partial.message_type == fragment.message_type && partial.body.len() == message_len);
        if known && !self.partial[&message_seq].lacks(&(offset..end)) {
            return Stored::Duplicate;
        }
        if self.fragments == MAX_FRAGMENTS {
            return Stored::OverLimit;
        }
        self.fragments += 1;
        if !known {
            // Contradicts what is kept, or is the first: whichever was forged, the peer sends the true one again.
            self.partial.insert(message_seq, Partial::new(fragment.message_type, message_len));
        }
        if let Some(partial) = self.partial.get_mut(&message_seq) {
            partial.fill(offset..end, bytes);
        }
        Stored::New
    }

    /// The next message, once all of it is there. One that is malformed is forgotten, so that a true copy can follow.
    pub(super) fn pop(&mut self) -> Option<Message> {
        let entry = self.partial.first_entry()?;
        let message_seq = *entry.key();
        if message_seq != self.next_seq || !entry.get().missing.is_empty() {
            return None;
        }
        let partial = entry.remove();
        if !message::is_well_formed(partial.message_type, &partial.body) {
            self.malformed_messages += 1;
            return None;
        }
        self.next_seq = self.next_seq.saturating_add(1);
        Some(Message { message_type: partial.message_type, message_seq, body: partial.body })
    }

    pub(super) fn malformed_messages(&self) -> u32 {
        self.malformed_messages
    }
}

impl Partial {
    fn new(message_type: MessageType, len: usize) -> Self {
        let missing = Some(0..len).filter(|all| !all.is_empty());
        Self { message_type, body: vec![0; len], missing: missing.into_iter().collect() }
    }

    fn lacks(&self, range: &Range<usize>) -> bool {
        self.missing.iter().any(|gap| gap.start < range.end && range.start < gap.end)
    }

    fn fill(&mut self, range: Range<usize>, bytes: &[u8]) {
        if let Some(body) = self.body.get_mut(range.clone()) {
            body.copy_from_slice(bytes);
        }
        self.missing = self
            .missing
            .iter()
            .flat_map(|gap| [gap.start..gap.end.min(range.start), gap.start.max(range.end)..gap.end])
            .filter(|gap| gap.start < gap.end)
            .collect();
    }
}
