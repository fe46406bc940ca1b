//! What the ingest saw: one [`Connection`] per TCP connection, in the order of accept.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use crate::amf::Value;

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Audio,
    Video,
}

/// One media frame (sequence headers are not frames).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    /// An IDR access unit; false for audio.
    pub key: bool,
    /// RTMP timestamp, milliseconds.
    pub timestamp: u32,
    /// When its last byte was read.
    pub arrived: Instant,
    /// Bytes of the message body; `body` is empty unless [`crate::Options::keep_bodies`].
    pub len: usize,
    pub body: Vec<u8>,
}

/// The video track of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VideoTrack {
    pub width: u32,
    pub height: u32,
    pub sequence_headers: u32,
    pub frames: u64,
    pub keyframes: u64,
}

/// The audio track of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AudioTrack {
    pub channels: u8,
    pub sequence_starts: u32,
    pub frames: u64,
    /// Frames that came later than the previous packet's duration allows (a DTX pause or a loss).
    pub gaps: u64,
}

/// Where a connection is, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Handshake and commands.
    Connecting,
    /// Publish.Start was sent; tracks are being found (2 s of media time).
    Detecting,
    /// The path is ready: readers could join.
    Ready,
    /// Over; see [`Connection::end`].
    Ended,
}

/// Everything about one connection.
#[derive(Clone, Debug)]
pub struct Connection {
    pub peer: SocketAddr,
    pub stage: Stage,
    /// Members of the connect command's object.
    pub connect: Vec<(String, Value)>,
    /// Names of all commands in the order they came.
    pub commands: Vec<String>,
    pub path: Option<String>,
    pub video: Option<VideoTrack>,
    pub audio: Option<AudioTrack>,
    /// Empty unless [`crate::Options::keep_frames`].
    pub frames: Vec<Frame>,
    /// The last onMetaData.
    pub metadata: Option<Value>,
    pub bytes_read: u64,
    /// Acknowledgements and pings, which keep a path alive without media.
    pub keepalives: u64,
    /// FCUnpublish or deleteStream came.
    pub unpublished: bool,
    /// Rules beyond MediaMTX's that the publisher broke; it is not disconnected for them.
    pub violations: Vec<String>,
    /// Where a track taught a late clock, by which a media server's readers play it too late.
    pub late_clocks: Vec<String>,
    /// Why the connection is over: the refusal's text, or how the peer left.
    pub end: Option<String>,
    /// The ingest closed it for a broken rule.
    pub refused: bool,
}

impl Connection {
    pub(crate) fn new(peer: SocketAddr) -> Self {
        Connection {
            peer,
            stage: Stage::Connecting,
            connect: Vec::new(),
            commands: Vec::new(),
            path: None,
            video: None,
            audio: None,
            frames: Vec::new(),
            metadata: None,
            bytes_read: 0,
            keepalives: 0,
            unpublished: false,
            violations: Vec::new(),
            late_clocks: Vec::new(),
            end: None,
            refused: false,
        }
    }

    /// Timestamps of one track in the order they came.
    pub fn timestamps(&self, kind: Kind) -> Vec<u32> {
        self.frames.iter().filter(|frame| frame.kind == kind).map(|frame| frame.timestamp).collect()
    }

    /// Frames of both tracks so far.
    pub fn frame_count(&self) -> u64 {
        self.video.as_ref().map_or(0, |track| track.frames) + self.audio.as_ref().map_or(0, |track| track.frames)
    }
}

/// What happens, as it happens; its Display is a line for a person.
#[derive(Clone, Debug)]
pub enum Event {
    Publishing { peer: SocketAddr, path: String },
    Ready { path: String, tracks: String },
    Refused { peer: SocketAddr, path: Option<String>, reason: String },
    Closed { path: Option<String>, reason: String },
    Violation { path: Option<String>, text: String },
    LateClock { path: Option<String>, text: String },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |path: &Option<String>| path.clone().unwrap_or_else(|| "(no path yet)".into());
        match self {
            Event::Publishing { peer, path } => write!(f, "{path}: publishing from {peer}"),
            Event::Ready { path, tracks } => write!(f, "{path}: ready, {tracks}"),
            Event::Refused { peer, path, reason } => {
                write!(f, "{}: REFUSED {peer}: {reason}", name(path))
            }
            Event::Closed { path, reason } => write!(f, "{}: closed ({reason})", name(path)),
            Event::Violation { path, text } => write!(f, "{}: VIOLATION {text}", name(path)),
            Event::LateClock { path, text } => write!(f, "{}: {text}", name(path)),
        }
    }
}
