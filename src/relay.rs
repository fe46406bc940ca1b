//! One guest's media: received packets → [`Muxer`] → [`Publisher`], and what bridges the time in which a guest is away.
//!
//! A relay belongs to a slot, not to a session: a guest who comes back on a new session goes on in the same
//! publication, on the same timeline. While the guest is away for up to `hold`, the last IDR is repeated once a second
//! and Opus silence runs, so that the mixer's input stays; after that the stream is unpublished.
//!
//! Input: RTP packets and sender reports of the current session. Output: through [`Relay::publisher`] RTMP bytes, through
//! [`Relay::take_keyframe_request`] the wish for an IDR. Sans-IO: `now` is an argument.
//! Bounds: one copy of the last IDR (≤ `HELD_IDR_BYTES`), one tag buffer; the muxer's and publisher's own bounds.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use guest_relay_muxer::{Frame, MediaTime, Muxer, Output, RtpPacket, SenderReport, Tag, TagKind, TrackKind};

use crate::rtmp::{self, Publisher, PublisherConfig, Target};

/// A larger IDR is not repeated during a hold: silence alone keeps the input then.
const HELD_IDR_BYTES: usize = 2 * 1024 * 1024;
/// How often the last IDR is repeated while the guest is away.
const HOLD_REPEAT: Duration = Duration::from_secs(1);
/// Audio that is this far behind is filled with silence: a muted microphone may send nothing at all, and a media server
/// refuses an audio track that starts late.
const SILENCE_AFTER: Duration = Duration::from_millis(400);
/// Without any picture for this long a guest is published with sound alone.
const AUDIO_ONLY_AFTER: Duration = Duration::from_secs(3);
/// Bit rate and frame rate are averages over this time.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// Which tracks a session promises (its SDP); the packets decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracks {
    pub audio: bool,
    pub video: bool,
}
