//! The words between the publisher and its caller: [`Tracks`] in; [`State`], [`Output`], [`Event`], [`LostReason`] with its
//! [`Trouble`], [`Stats`] out; and the deadlines that a [`LostReason`] prints.

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use super::connection::ProtocolError;
use super::message::StatusCode;

/// Time allowed for the TCP connect. Linux resends a lost SYN after 1 s, then after 2, 4, … s; a fresh connect after
/// 1.5 s notices a restarted server sooner.
pub const CONNECT_DEADLINE: Duration = Duration::from_millis(1500);
/// From the TCP connection to Publish.Start.
pub const PUBLISH_DEADLINE: Duration = Duration::from_secs(5);
/// Without a byte taken by the socket while there are some to write. Leaving a server costs its readers the path, and there
/// is no other server to go to; MediaMTX itself gives up after 10 s.
pub const WRITE_STALL_DEADLINE: Duration = Duration::from_secs(8);
/// Without a byte from a server that answers pings: stopped, or behind a dead network whose buffers still take bytes. The
/// last answer may be 2 s old (the ping interval) when a stall begins: one of 8 s is always survived.
pub const SILENCE_DEADLINE: Duration = Duration::from_secs(10);

/// Which kinds of media the connection carries. Servers fix the set of tracks in the first 2 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracks {
    AudioVideo,
    AudioOnly,
}

/// Where the publication is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not started.
    Idle,
    /// Waiting for the TCP connection.
    Connecting,
    /// TCP is there; handshake, connect, createStream, publish.
    Handshaking,
    /// The server said Publish.Start; not proven yet.
    Publishing,
    /// Media flowed for longer than a server takes to refuse it.
    Live,
    /// Waiting before the next connection.
    Backoff,
    /// Flushing, unpublishing.
    Stopping,
    /// Over, by [`stop`](super::Publisher::stop).
    Stopped,
}

/// What the caller has to do, or to know. Drained after each call that changes the publisher.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open a TCP connection to [`Publisher::target`](super::Publisher::target); then [`handle_connected`](super::Publisher::handle_connected) or
    /// [`handle_disconnected`](super::Publisher::handle_disconnected).
    Connect,
    /// Close the TCP connection, or give up opening it. No `handle_disconnected` for it.
    Disconnect,
    /// Ask the guest for a keyframe.
    KeyframeNeeded,
    Event(Event),
}

/// For logs and for the guest's state.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The server said Publish.Start.
    Publishing,
    Live,
    /// The connection, or the attempt, is over; the next attempt begins in `retry_in`.
    Lost {
        reason: LostReason,
        retry_in: Duration,
    },
    /// [`stop`](super::Publisher::stop) is done.
    Stopped,
}

/// How the socket ended, from the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnected {
    /// The server closed (read returned 0).
    Closed,
    /// Connecting, reading or writing failed.
    Failed(ErrorKind),
}

/// Why a connection ended or never came about.
#[derive(Clone, Debug, PartialEq)]
pub enum LostReason {
    /// No TCP connection.
    Unreachable(ErrorKind),
    ConnectTimeout,
    /// No Publish.Start in time.
    PublishTimeout,
    /// The server closed or reset the connection; before the proof that is how it refuses.
    Closed {
        reached: Reached,
        how: Disconnected,
    },
    /// The server gave a status code.
    Rejected(StatusCode),
    Protocol(ProtocolError),
    WriteStalled,
    /// A server that used to answer pings does not.
    Silent,
    /// Nothing more fits into the queue.
    Overflow,
    /// Planned: the server asked for it.
    ReconnectRequested,
    /// Planned: the timestamps near the end of their 32 bits.
    TimestampLimit,
    /// Planned: the muxer's time jumped back.
    TimeWentBack,
    /// Planned: a track began too late for this connection.
    LateTrack,
}

/// How far a connection had come when the server closed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The handshake, or a command before publish.
    Greeting,
    /// publish was sent, and not answered.
    Asked,
    /// Publish.Start came, the proof did not.
    Started,
    /// The proof came.
    Live,
}

/// What is wrong with the server, or with our settings for it: the part of a [`LostReason`] that somebody can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No TCP connection comes about.
    Unreachable,
    /// Whatever answers there does not speak RTMP with us.
    NotRtmp,
    /// publish is answered with a close: so MediaMTX refuses a path that its configuration does not declare.
    PathUndeclared,
    /// MediaMTX's answer to a wrong user or password.
    WrongPassword,
    /// Another status code.
    Refused(StatusCode),
    /// Publish.Start, and then a close within the server's time for finding tracks.
    MediaRefused,
    /// The server is there and takes nothing, or answers nothing.
    Stalled,
    /// The server closed a live publication.
    Ended,
}

impl LostReason {
    /// `None` for a reconnect of our own plan.
    pub fn trouble(&self) -> Option<Trouble> {
        Some(match self {
            Self::Unreachable(_) | Self::ConnectTimeout => Trouble::Unreachable,
            Self::Closed { reached: Reached::Greeting, .. } | Self::Protocol(_) => Trouble::NotRtmp,
            Self::Closed { reached: Reached::Asked, .. } => Trouble::PathUndeclared,
            Self::Closed { reached: Reached::Started, .. } => Trouble::MediaRefused,
            Self::Closed { reached: Reached::Live, how: Disconnected::Failed(ErrorKind::TimedOut) } => Trouble::Stalled,
            Self::Closed { reached: Reached::Live, .. } => Trouble::Ended,
            Self::Rejected(code) if code.is_about_credentials() => Trouble::WrongPassword,
            Self::Rejected(code) => Trouble::Refused(code.clone()),
            Self::PublishTimeout | Self::WriteStalled | Self::Silent | Self::Overflow => Trouble::Stalled,
            Self::ReconnectRequested | Self::TimestampLimit | Self::TimeWentBack | Self::LateTrack => return None,
        })
    }
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LostReason::Unreachable(kind) => write!(f, "no connection: {kind}"),
            LostReason::ConnectTimeout => write!(f, "no connection within {CONNECT_DEADLINE:?}"),
            LostReason::PublishTimeout => write!(f, "no Publish.Start within {PUBLISH_DEADLINE:?}"),
            LostReason::Closed { reached: Reached::Live, how } => write!(f, "{how}"),
            LostReason::Closed { reached: Reached::Started, how } => write!(f, "{how} before the stream was accepted"),
            LostReason::Closed { reached: Reached::Asked, how } => write!(f, "{how} when it was asked for the path"),
            LostReason::Closed { reached: Reached::Greeting, how } => write!(f, "{how} during the greeting"),
            LostReason::Rejected(code) => write!(f, "refused by the server: {code}"),
            LostReason::Protocol(error) => write!(f, "the server's bytes make no sense: {error}"),
            LostReason::WriteStalled => {
                write!(f, "the server read nothing for {WRITE_STALL_DEADLINE:?}")
            }
            LostReason::Silent => write!(f, "the server answered nothing for {SILENCE_DEADLINE:?}"),
            LostReason::Overflow => write!(f, "the send queue is full"),
            LostReason::ReconnectRequested => write!(f, "the server asked for a new connection"),
            LostReason::TimestampLimit => write!(f, "timestamps near 2^32 ms"),
            LostReason::TimeWentBack => write!(f, "the media time went back"),
            LostReason::LateTrack => write!(f, "a track began too late for this connection"),
        }
    }
}

impl From<&std::io::Error> for Disconnected {
    fn from(error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof => Disconnected::Closed,
            kind => Disconnected::Failed(kind),
        }
    }
}

impl fmt::Display for Disconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Disconnected::Closed => write!(f, "closed by the server"),
            Disconnected::Failed(kind) => write!(f, "{kind}"),
        }
    }
}

/// Counters since the publisher was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// TCP connections asked for.
    pub attempts: u64,
    /// Times [`State::Live`] was reached.
    pub lives: u64,
    pub bytes_written: u64,
    pub video_frames_queued: u64,
    pub audio_frames_queued: u64,
    /// Frames that came while no connection could take them, or before its first keyframe.
    pub frames_unsent: u64,
    /// Pictures dropped because the server is slow, and how many times that happened.
    pub video_frames_dropped: u64,
    pub gops_dropped: u64,
    /// Audio dropped because the server is slow.
    pub audio_frames_dropped: u64,
    /// Tags above the size servers take.
    pub oversized: u64,
    /// Groups of pictures that were too large to be kept for a connection.
    pub groups_not_kept: u64,
    /// ReconnectRequests to another host.
    pub reconnect_requests_refused: u64,
    pub pings_sent: u64,
    pub pings_answered: u64,
    /// From the last ping to its answer.
    pub round_trip: Option<Duration>,
}
