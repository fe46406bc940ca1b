//! [`Publisher`]: one guest's publication, across as many connections as it takes. FLV tags and server bytes in, bytes to
//! write and [`Output`]s out; the caller owns socket and clock.
//!
//! ```text
//! Idle -start-> Connecting -> Handshaking -Publish.Start-> Publishing -proof-> Live
//!                   ^             |               |                             |
//!                   +-- Backoff <-+---- Lost -----+-----------------------------+      any -stop-> Stopping -> Stopped
//! ```
//! *Proof*: Publish.Start says nothing. A server that does not want the stream closes within its detection window of 2 s of
//! media, so a connection counts as live 3 s after its first media was written; closed before, it was a rejection.
//!
//! Media: a connection starts with metadata, AVC sequence header, Opus SequenceStart and an IDR at timestamp 0; nothing is
//! kept for it before. Bounds: [`QUEUE_MEDIA_MS_MAX`], [`QUEUE_BYTES_MAX`], [`CONTROL_BYTES_MAX`].

mod media;
mod timers;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::flow::Flow;
use super::message;
use super::output::{Disconnected, Event, LostReason, Output, State, Stats};
use super::queue::{Class, Queue};
use super::session::{Notice, ProtocolError, Session};
use super::target::Target;
use crate::backoff::{Backoff, Failure, Rng};
use timers::Timers;

/// From asking for a TCP connection to having it. A first packet that is lost goes out again after a second; asking anew
/// finds a server that has come back sooner than the kernel's next tries, which take ever longer.
pub const CONNECT_DEADLINE: Duration = Duration::from_millis(1500);
/// From the TCP connection to Publish.Start.
pub const PUBLISH_DEADLINE: Duration = Duration::from_secs(5);
/// Without a byte taken by the socket while there are some to write.
pub const WRITE_STALL_DEADLINE: Duration = Duration::from_secs(5);
/// Without a byte from a server that answers pings: stopped, or behind a dead network whose buffers still take bytes.
pub const SILENCE_DEADLINE: Duration = Duration::from_millis(4500);
/// Between pings: well within servers' 10 s read deadlines, and two fit into [`SILENCE_DEADLINE`].
pub const PING_INTERVAL: Duration = Duration::from_secs(2);
/// From the first media written to [`State::Live`].
pub const PROOF: Duration = Duration::from_secs(3);
/// Media time that must have been written by then: the server's detection window.
const PROOF_MEDIA_MS: u32 = 2000;
/// From [`Publisher::stop`] to the close, flushed or not.
pub const STOP_DEADLINE: Duration = Duration::from_secs(1);
/// Between requests for a keyframe while one is needed.
const KEYFRAME_RETRY: Duration = Duration::from_secs(1);

/// Media time the queue holds at most.
pub const QUEUE_MEDIA_MS_MAX: u32 = 2000;
/// Media time that a picture in the queue may be behind: it makes room before the sound around it has to go.
const QUEUE_PICTURE_MS_MAX: u32 = 1500;
/// Bytes the queue holds at most.
pub const QUEUE_BYTES_MAX: usize = 8 << 20;
/// Bytes of replies and pings the queue holds at most.
pub const CONTROL_BYTES_MAX: usize = 64 * 1024;
/// Largest tag body sent; servers close on access units above 8 MiB.
const BODY_MAX: usize = 8 << 20;

/// Which kinds of media the connection carries. Servers fix the set of tracks in the first 2 s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracks {
    #[default]
    AudioVideo,
    AudioOnly,
    VideoOnly,
}

/// What differs between publications besides the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublisherConfig {
    pub tracks: Tracks,
}

/// What every connection starts with.
#[derive(Default)]
struct Headers {
    metadata: Vec<u8>,
    video: Vec<u8>,
    audio: Vec<u8>,
}

/// The state behind [`State`], with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Connecting {
        deadline: Instant,
    },
    Handshaking {
        deadline: Instant,
    },
    Publishing,
    Live,
    Backoff {
        until: Instant,
    },
    /// The queue is flushed, then closed. A planned reconnect ends in the next connection, a stop in Stopped.
    Closing {
        deadline: Instant,
        reconnect: bool,
    },
    Stopped,
}

/// See the module.
pub struct Publisher {
    configured: Target,
    /// Where this connection goes: a ReconnectRequest may have changed the application.
    target: Target,
    next_target: Option<Target>,
    tracks: Tracks,
    rng: Rng,
    backoff: Backoff,
    phase: Phase,
    session: Option<Session>,
    headers: Headers,
    flow: Option<Flow>,
    /// A planned reconnect, at the next keyframe.
    handover: Option<LostReason>,
    queue: Queue,
    replies: Vec<u8>,
    outputs: VecDeque<Output>,
    timers: Timers,
    stats: Stats,
}

impl Publisher {
    /// Idle until [`start`](Self::start). `seed` drives the jitter of the backoff.
    pub fn new(target: Target, config: PublisherConfig, seed: u64, now: Instant) -> Publisher {
        Publisher {
            configured: target.clone(),
            target,
            next_target: None,
            tracks: config.tracks,
            rng: Rng::new(seed),
            backoff: Backoff::new(),
            phase: Phase::Idle,
            session: None,
            headers: Headers::default(),
            flow: None,
            handover: None,
            queue: Queue::default(),
            replies: Vec::new(),
            outputs: VecDeque::new(),
            timers: Timers::new(now),
            stats: Stats::default(),
        }
    }

    /// Where [`Output::Connect`] goes.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Where the publication is.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Idle => State::Idle,
            Phase::Connecting { .. } => State::Connecting,
            Phase::Handshaking { .. } => State::Handshaking,
            Phase::Publishing => State::Publishing,
            Phase::Live => State::Live,
            Phase::Backoff { .. } => State::Backoff,
            Phase::Closing { .. } => State::Stopping,
            Phase::Stopped => State::Stopped,
        }
    }

    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Bytes waiting for the socket.
    pub fn queued_bytes(&self) -> usize {
        self.queue.len()
    }

    /// Media time waiting for the socket.
    pub fn queued_media(&self) -> Duration {
        Duration::from_millis(u64::from(self.queue.media_ms()))
    }

    /// Media flows: connect, now and again until [`stop`](Self::stop). Nothing happens when already started.
    pub fn start(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Idle | Phase::Stopped) {
            self.backoff.reset();
            self.connect(now);
        }
    }

    /// Another set of tracks, from the next connection on: a server fixes it when a connection begins. Where media flows
    /// already, the next keyframe brings that connection.
    pub fn set_tracks(&mut self, tracks: Tracks, now: Instant) {
        if tracks == self.tracks {
            return;
        }
        self.tracks = tracks;
        self.timers.keyframe_retry = None;
        if self.flow.is_some() {
            self.plan_handover(LostReason::LateTrack, now);
        }
    }

    /// Another guest's publication: what the last one began with is forgotten.
    pub fn renew(&mut self, tracks: Tracks) {
        self.tracks = tracks;
        self.headers = Headers::default();
    }

    /// Ends the publication: flushes, unpublishes, closes; at most [`STOP_DEADLINE`] until [`Event::Stopped`].
    pub fn stop(&mut self, now: Instant) {
        match self.phase {
            Phase::Stopped | Phase::Closing { reconnect: false, .. } => {}
            Phase::Publishing | Phase::Live => self.close_after_flush(false, now),
            Phase::Closing { deadline, .. } => self.phase = Phase::Closing { deadline, reconnect: false },
            Phase::Connecting { .. } | Phase::Handshaking { .. } => {
                self.outputs.push_back(Output::Disconnect);
                self.finish_stop();
            }
            Phase::Idle | Phase::Backoff { .. } => self.finish_stop(),
        }
    }

    fn finish_stop(&mut self) {
        self.end_connection();
        self.phase = Phase::Stopped;
        self.outputs.push_back(Output::Event(Event::Stopped));
    }

    /// The next thing for the caller to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn connect(&mut self, now: Instant) {
        self.target = self.next_target.take().unwrap_or_else(|| self.configured.clone());
        self.stats.attempts += 1;
        self.phase = Phase::Connecting { deadline: now + CONNECT_DEADLINE };
        self.outputs.push_back(Output::Connect);
    }

    /// The TCP connection is there.
    pub fn handle_connected(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        self.timers = Timers::new(now);
        self.phase = Phase::Handshaking { deadline: now + PUBLISH_DEADLINE };
        self.session = Some(Session::start(&mut self.replies, &mut self.rng));
        self.queue_replies(now);
    }

    /// The TCP connection ended, or did not come about.
    pub fn handle_disconnected(&mut self, how: Disconnected, now: Instant) {
        match (self.phase, how) {
            (Phase::Connecting { .. }, Disconnected::Failed(kind)) => self.lose(LostReason::Unreachable(kind), now),
            (Phase::Connecting { .. }, Disconnected::Closed) => {
                self.lose(LostReason::Unreachable(std::io::ErrorKind::ConnectionReset), now);
            }
            (Phase::Handshaking { .. } | Phase::Publishing, how) => {
                self.lose(LostReason::Closed { proven: false, how }, now);
            }
            (Phase::Live, how) => self.lose(LostReason::Closed { proven: true, how }, now),
            (Phase::Closing { reconnect, .. }, _) => self.closed(reconnect, now),
            (Phase::Idle | Phase::Backoff { .. } | Phase::Stopped, _) => {}
        }
    }

    /// Bytes from the server. They are taken whole; any error in them ends the connection.
    pub fn handle_bytes(&mut self, mut bytes: &[u8], now: Instant) {
        self.timers.last_inbound = now;
        while let Some(session) = self.session.as_mut() {
            let notice = session.handle_bytes(&mut bytes, &self.target, &mut self.replies);
            self.queue_replies(now);
            match notice {
                Ok(None) => break,
                Ok(Some(notice)) => self.handle_notice(notice, now),
                Err(error) => self.lose_or_close(LostReason::Protocol(error), now),
            }
        }
        if self.queue.control_len() > CONTROL_BYTES_MAX {
            self.lose_or_close(LostReason::Protocol(ProtocolError::Flood), now);
        }
    }

    fn queue_replies(&mut self, now: Instant) {
        let replies = &mut self.replies;
        self.queue.push(Class::Control, 0, |out| out.append(replies));
        self.record_waiting(now);
    }

    fn handle_notice(&mut self, notice: Notice, now: Instant) {
        match (notice, self.phase) {
            (Notice::PublishStarted, Phase::Handshaking { .. }) => {
                self.phase = Phase::Publishing;
                self.outputs.push_back(Output::Event(Event::Publishing));
                self.need_keyframe(now);
            }
            (Notice::Rejected(code), _) => self.lose_or_close(LostReason::Rejected(code), now),
            (Notice::ReconnectRequest { tc_url }, Phase::Publishing | Phase::Live) => {
                let next = match tc_url {
                    Some(url) => self.target.redirected(&url),
                    None => Some(self.target.clone()),
                };
                match next {
                    None => self.stats.reconnect_requests_refused += 1,
                    Some(next) => {
                        self.next_target = Some(next);
                        self.plan_handover(LostReason::ReconnectRequested, now);
                    }
                }
            }
            (Notice::Pong(sent_ms), _) => {
                self.timers.answers_pings = true;
                self.stats.pings_answered += 1;
                let sent = self.timers.connected + Duration::from_millis(u64::from(sent_ms));
                self.stats.round_trip = now.checked_duration_since(sent).or(self.stats.round_trip);
            }
            _ => {}
        }
    }

    /// Ends this connection at the next keyframe.
    fn plan_handover(&mut self, reason: LostReason, now: Instant) {
        if self.handover.is_none() {
            self.handover = Some(reason);
            self.need_keyframe(now);
        }
    }

    fn need_keyframe(&mut self, now: Instant) {
        if self.tracks == Tracks::AudioOnly {
            return;
        }
        self.timers.keyframe_retry = Some(now + KEYFRAME_RETRY);
        if self.outputs.back() != Some(&Output::KeyframeNeeded) {
            self.outputs.push_back(Output::KeyframeNeeded);
        }
    }

    /// Ends this connection for a planned reason: flushed and at once when it was live, as a failure otherwise.
    fn hand_over(&mut self, reason: LostReason, now: Instant) {
        if self.phase != Phase::Live {
            return self.lose(reason, now);
        }
        self.outputs.push_back(Output::Event(Event::Lost { reason, retry_in: Duration::ZERO }));
        self.close_after_flush(true, now);
    }

    fn close_after_flush(&mut self, reconnect: bool, now: Instant) {
        if let Some(session) = self.session.as_ref().filter(|session| session.is_publishing()) {
            let (chunk_size, stream, target) = (session.chunk_size(), session.stream(), &self.target);
            self.queue.push(Class::Control, 0, |out| message::write_unpublish(out, chunk_size, target, stream));
        }
        self.phase = Phase::Closing { deadline: now + STOP_DEADLINE, reconnect };
        self.flow = None;
    }

    /// The connection of [`Phase::Closing`] is over.
    fn closed(&mut self, reconnect: bool, now: Instant) {
        if reconnect {
            self.end_connection();
            self.connect(now);
        } else {
            self.finish_stop();
        }
    }

    fn end_connection(&mut self) {
        self.session = None;
        self.flow = None;
        self.handover = None;
        self.queue.clear();
        self.replies.clear();
        self.timers.write_progress = None;
        self.timers.keyframe_retry = None;
    }

    /// An error while closing only ends the wait.
    fn lose_or_close(&mut self, reason: LostReason, now: Instant) {
        if let Phase::Closing { reconnect, .. } = self.phase {
            self.outputs.push_back(Output::Disconnect);
            self.closed(reconnect, now);
        } else if self.session.is_some() {
            self.lose(reason, now);
        }
    }

    /// The connection or the attempt is over; the next one comes after the backoff.
    fn lose(&mut self, reason: LostReason, now: Instant) {
        let gone = matches!(reason, LostReason::Closed { .. } | LostReason::Unreachable(_));
        if !gone {
            self.outputs.push_back(Output::Disconnect);
        }
        if !matches!(reason, LostReason::ReconnectRequested) {
            self.next_target = None;
        }
        let failure = match reason {
            LostReason::Unreachable(_) => Failure::Unreachable,
            LostReason::ConnectTimeout | LostReason::PublishTimeout | LostReason::WriteStalled | LostReason::Silent => {
                Failure::Unanswered
            }
            _ => Failure::Rejected,
        };
        self.end_connection();
        let retry_in = self.backoff.next(failure, &mut self.rng);
        self.phase = Phase::Backoff { until: now + retry_in };
        self.outputs.push_back(Output::Event(Event::Lost { reason, retry_in }));
    }

    /// What the socket should take next. Ask again after [`handle_written`](Self::handle_written).
    pub fn write_buffer(&mut self) -> &[u8] {
        self.queue.unwritten()
    }

    /// The socket took the first `count` bytes of [`write_buffer`](Self::write_buffer).
    pub fn handle_written(&mut self, count: usize, now: Instant) {
        if count == 0 {
            return;
        }
        self.stats.bytes_written += u64::try_from(count).expect("a buffer's length");
        let last_media = self.queue.handle_written(count);
        self.timers.write_progress = (!self.queue.is_empty()).then_some(now);
        if let Some(flow) = &mut self.flow
            && let Some(ms) = last_media
        {
            flow.record_written(ms);
            self.timers.first_media_written.get_or_insert(now);
            self.check_proof(now);
        }
        if let Phase::Closing { reconnect, .. } = self.phase
            && self.queue.is_empty()
        {
            self.outputs.push_back(Output::Disconnect);
            self.closed(reconnect, now);
        }
    }

    fn record_waiting(&mut self, now: Instant) {
        if !self.queue.is_empty() {
            self.timers.write_progress.get_or_insert(now);
        }
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("target", &self.target)
            .field("phase", &self.phase)
            .field("queue", &self.queue)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
