//! [`Publisher`]: one guest's publication, across as many connections as it takes. FLV tags and server bytes in, bytes to
//! write and [`Output`]s out; the caller owns socket and clock.
//!
//! ```text
//!           start             TCP is there             Publish.Start              proof
//! Idle ───────────▶ Connecting ──────────▶ Handshaking ────────────▶ Publishing ───────▶ Live
//! Stopped            ▲ ▲ │ fail               │ fail                   │ fail       fail │ │ reconnect_now
//!                    │ │ ▼                    ▼                        ▼                 ▼ │
//!              time  │ └── Backoff ◀──────────┴────────────────────────┴─────────────────┘ │
//!                    │                                                                     ▼
//!                    └───── on_closed ─────────────────────────────── Closing { reconnect: true }
//!
//! stop in   Idle, Backoff, Connecting, Handshaking ────────────────────────────────────────▶ Stopped
//!           Publishing, Live, Closing ──▶ Closing { reconnect: false } ──── on_closed ─────▶ Stopped
//! ```
//! Closing ends when the queue is flushed, when the connection breaks, or after [`STOP_DEADLINE`]. A planned reconnect
//! (the server asks for it, the timestamps end, a track comes late) waits for the next keyframe. Only a live connection then
//! goes over without a backoff, so that no server can make a fast loop of it.
//!
//! *Proof*: Publish.Start says nothing. A server that does not want the stream closes within its detection window of 2 s of
//! media, so a connection counts as live 3 s after its first media was written; closed before, it was a rejection.
//!
//! Before any media is there, [`Publisher::prepare`] goes as far as a stream on which nothing is published: a server that is
//! lost then is no news, and nobody sees a path.
//!
//! Media: a connection starts with metadata, AVC sequence header, Opus SequenceStart and an IDR at timestamp 0. While none takes
//! media the newest group of pictures is kept for it ([`Kept`]), and of a sender that makes no keyframe on request all the time.
//! Bounds: [`QUEUE_MEDIA_MS_MAX`], [`QUEUE_BYTES_MAX`], [`CONTROL_BYTES_MAX`].

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use guest_relay_muxer::bytes::{Reader, Writer};
use guest_relay_muxer::handover::{self, HandoverError};
use guest_relay_muxer::{Frame, Tag, TagKind};

use super::connection::{Connection, Notice, ProtocolError};
use super::flow::{Flow, Verdict};
use super::interface::{
    CONNECT_DEADLINE, Disconnected, Event, LostReason, Output, PUBLISH_DEADLINE, Reached, SILENCE_DEADLINE, State,
    Stats, Tracks, WRITE_STALL_DEADLINE,
};
use super::kept::Kept;
use super::message;
use super::queue::{Bounds, Class, Queue};
use super::target::Target;
use crate::backoff::{Backoff, Failure, Rng};
use crate::deadline::earliest;

/// Between pings: well within servers' 10 s read deadlines, and five fit into [`SILENCE_DEADLINE`].
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
/// Bytes that are handed over with a connection; a server that is further behind is about to lose it anyway.
const HANDED_OVER_MAX: usize = 4 << 20;
/// The largest of the remembered headers that is handed over.
const HEADER_MAX: usize = 256 << 10;

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
    /// The queue is flushed, then the connection is closed. A planned reconnect ends in the next connection, a stop in
    /// Stopped.
    Closing {
        deadline: Instant,
        reconnect: bool,
    },
    Stopped,
}

/// Times of the current connection.
#[derive(Clone, Copy)]
struct Timers {
    connected: Instant,
    /// When the queue began to wait for the socket, or was last taken from.
    write_progress: Option<Instant>,
    last_inbound: Instant,
    answers_pings: bool,
    next_ping: Instant,
    first_media_written: Option<Instant>,
    /// When to ask again for the keyframe that is missing.
    keyframe_retry: Option<Instant>,
}

impl Timers {
    fn new(now: Instant) -> Timers {
        Timers {
            connected: now,
            write_progress: None,
            last_inbound: now,
            answers_pings: false,
            next_ping: now + PING_INTERVAL,
            first_media_written: None,
            keyframe_retry: None,
        }
    }
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
    connection: Option<Connection>,
    headers: Headers,
    flow: Option<Flow>,
    /// A publication is wanted. Without it a connection is prepared at most, and one that fails is no news.
    wanted: bool,
    /// The newest pictures, while no connection takes them.
    kept: Kept,
    /// They are kept also while one does: the sender makes no keyframe on request.
    keeps_pictures: bool,
    /// Why the next keyframe begins a new connection, when it does.
    planned_reconnect: Option<LostReason>,
    queue: Queue,
    replies: Vec<u8>,
    outputs: VecDeque<Output>,
    timers: Timers,
    stats: Stats,
}

impl Publisher {
    /// Idle until [`start`](Self::start), with sound and pictures unless [`renew`](Self::renew) says otherwise. `seed` drives the jitter of the backoff.
    pub fn new(target: Target, seed: u64, now: Instant) -> Publisher {
        Publisher {
            configured: target.clone(),
            target,
            next_target: None,
            tracks: Tracks::AudioVideo,
            rng: Rng::new(seed),
            backoff: Backoff::new(),
            phase: Phase::Idle,
            connection: None,
            headers: Headers::default(),
            flow: None,
            wanted: false,
            kept: Kept::default(),
            keeps_pictures: false,
            planned_reconnect: None,
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
        self.wanted = true;
        match self.phase {
            Phase::Idle | Phase::Stopped => {
                self.backoff.reset();
                self.connect(now);
            }
            Phase::Handshaking { .. } => {
                if let Some(connection) = &mut self.connection {
                    connection.publish(&self.target, &mut self.replies);
                }
                self.phase = Phase::Handshaking { deadline: now + PUBLISH_DEADLINE };
                self.queue_replies(now);
            }
            _ => {}
        }
    }

    /// Media may flow soon: connect as far as a stream on which nothing is published, so that [`start`](Self::start) has less
    /// to wait for. Nothing is retried.
    pub fn prepare(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Idle | Phase::Stopped) {
            self.wanted = false;
            self.connect(now);
        }
    }

    /// No media will flow: gives up what was prepared.
    pub fn abandon(&mut self) {
        if !self.wanted && matches!(self.phase, Phase::Connecting { .. } | Phase::Handshaking { .. }) {
            self.outputs.push_back(Output::Disconnect);
            self.reset_connection();
            self.phase = Phase::Idle;
        }
    }

    /// Whether the newest pictures are kept also while a connection takes them, for the one after it.
    pub fn keep_pictures(&mut self, keeps: bool) {
        self.keeps_pictures = keeps;
        if !keeps && self.flow.is_some() {
            self.kept.clear();
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
            self.reconnect_at_next_keyframe(LostReason::LateTrack, now);
        }
    }

    /// Another guest's publication: what the last one began with is forgotten.
    pub fn renew(&mut self, tracks: Tracks) {
        self.tracks = tracks;
        self.headers = Headers::default();
        self.kept.clear();
        self.keeps_pictures = false;
    }

    /// Ends the publication: flushes, unpublishes, closes; at most [`STOP_DEADLINE`] until [`Event::Stopped`].
    pub fn stop(&mut self, now: Instant) {
        match self.phase {
            Phase::Stopped | Phase::Closing { reconnect: false, .. } => {}
            Phase::Publishing | Phase::Live => self.begin_close(false, now),
            Phase::Closing { deadline, .. } => self.phase = Phase::Closing { deadline, reconnect: false },
            Phase::Connecting { .. } | Phase::Handshaking { .. } => {
                self.outputs.push_back(Output::Disconnect);
                self.finish_stop();
            }
            Phase::Idle | Phase::Backoff { .. } => self.finish_stop(),
        }
    }

    /// Writes the connection's state, for [`Publisher::adopt`] of another process, which goes on in the same publication on the
    /// same socket. False for one that has no media yet, is about to end, or is too far behind: that one is stopped instead.
    pub fn hand_over(&self, out: &mut Writer<&mut Vec<u8>>) -> bool {
        let (Some(connection), Some(flow)) = (&self.connection, &self.flow) else {
            return false;
        };
        let is_steady = self.planned_reconnect.is_none() && self.target == self.configured;
        let Headers { metadata, video, audio } = &self.headers;
        let bounded = self.queue.len() <= HANDED_OVER_MAX
            && [metadata, video, audio].iter().all(|header| header.len() <= HEADER_MAX);
        if !is_steady || !self.is_flowing() || !bounded {
            return false;
        }
        handover::write_flag(out, self.phase == Phase::Live);
        handover::write_flag(out, self.timers.answers_pings);
        for header in [metadata, video, audio] {
            handover::write_bytes(out, header);
        }
        flow.hand_over(out);
        handover::write_bytes(out, self.queue.unwritten());
        connection.hand_over(out)
    }

    /// Goes on, in a new publisher, on the connection of another process.
    pub fn adopt(&mut self, state: &mut Reader<'_>, now: Instant) -> Result<(), HandoverError> {
        let live = handover::read_flag(state, "whether it was live")?;
        let answers_pings = handover::read_flag(state, "whether pings are answered")?;
        for header in [&mut self.headers.metadata, &mut self.headers.video, &mut self.headers.audio] {
            replace(header, handover::read_bytes(state, HEADER_MAX, "a header")?);
        }
        let flow = Flow::adopt(state)?;
        self.tracks = flow.tracks();
        self.flow = Some(flow);
        // The rest of a message, and those behind it: none of them may be dropped.
        let unwritten = handover::read_bytes(state, HANDED_OVER_MAX, "what is not written")?;
        self.queue.push(Class::Config, 0, |out| out.extend_from_slice(unwritten));
        self.connection = Some(Connection::adopt(state)?);
        self.timers = Timers { answers_pings, ..Timers::new(now) };
        self.record_waiting(now);
        self.wanted = true;
        self.phase = if live { Phase::Live } else { Phase::Publishing };
        Ok(())
    }

    /// The next thing for the caller to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The TCP connection is there.
    pub fn handle_connected(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        self.timers = Timers::new(now);
        self.phase = Phase::Handshaking { deadline: now + PUBLISH_DEADLINE };
        let begin = if self.wanted { Connection::start } else { Connection::prepare };
        self.connection = Some(begin(&mut self.replies, &mut self.rng));
        self.queue_replies(now);
    }

    /// The TCP connection ended, or did not come about.
    pub fn handle_disconnected(&mut self, how: Disconnected, now: Instant) {
        match (self.phase, how) {
            (Phase::Connecting { .. }, Disconnected::Failed(kind)) => self.fail(LostReason::Unreachable(kind), now),
            (Phase::Connecting { .. }, Disconnected::Closed) => {
                self.fail(LostReason::Unreachable(std::io::ErrorKind::ConnectionReset), now);
            }
            (Phase::Handshaking { .. }, how) => {
                let asked = self.connection.as_ref().is_some_and(Connection::is_publishing);
                let reached = if asked { Reached::Asked } else { Reached::Greeting };
                self.fail(LostReason::Closed { reached, how }, now);
            }
            (Phase::Publishing, how) => self.fail(LostReason::Closed { reached: Reached::Started, how }, now),
            (Phase::Live, how) => self.fail(LostReason::Closed { reached: Reached::Live, how }, now),
            (Phase::Closing { reconnect, .. }, _) => self.on_closed(reconnect, now),
            (Phase::Idle | Phase::Backoff { .. } | Phase::Stopped, _) => {}
        }
    }

    /// Bytes from the server. They are taken whole; any error in them ends the connection.
    pub fn handle_bytes(&mut self, mut bytes: &[u8], now: Instant) {
        self.timers.last_inbound = now;
        while let Some(connection) = self.connection.as_mut() {
            let notice = connection.handle_bytes(&mut bytes, &self.target, &mut self.replies);
            self.queue_replies(now);
            match notice {
                Ok(None) => break,
                Ok(Some(notice)) => self.handle_notice(notice, now),
                Err(error) => self.fail_or_finish_close(LostReason::Protocol(error), now),
            }
        }
        if self.queue.control_len() > CONTROL_BYTES_MAX {
            self.fail_or_finish_close(LostReason::Protocol(ProtocolError::Flood), now);
        }
    }

    /// One tag of the muxer; `body` is what goes into the RTMP message. Metadata and sequence headers are remembered for
    /// the connections to come; media is dropped unless a connection can take it.
    pub fn push(&mut self, tag: Tag, body: &[u8], now: Instant) {
        if body.is_empty() || body.len() > BODY_MAX {
            self.stats.oversized += 1;
            if tag.frame == Frame::Keyframe || tag.frame == Frame::InterFrame {
                self.miss_picture(now);
            }
            return;
        }
        match tag.frame {
            Frame::Metadata => replace(&mut self.headers.metadata, body),
            Frame::VideoSequenceHeader => replace(&mut self.headers.video, body),
            Frame::AudioSequenceHeader => replace(&mut self.headers.audio, body),
            Frame::Keyframe | Frame::InterFrame | Frame::Audio => {}
        }
        self.keep(tag, body);
        if !matches!(self.phase, Phase::Publishing | Phase::Live) {
            self.record_unsent(tag.frame);
            return;
        }
        let starts_connection = if self.tracks == Tracks::AudioOnly { Frame::Audio } else { Frame::Keyframe };
        if tag.frame == starts_connection
            && let Some(reason) = self.planned_reconnect.take()
        {
            return self.reconnect_now(reason, now);
        }
        if !self.carries(tag.frame) || (self.flow.is_none() && !self.begin_flow(tag)) {
            self.record_unsent(tag.frame);
            return;
        }
        self.forward(tag, body, now);
        self.keep_within_bounds(now);
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
            self.on_closed(reconnect, now);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Handshaking { .. } if self.is_prepared() => None,
            Phase::Connecting { deadline } | Phase::Handshaking { deadline } | Phase::Closing { deadline, .. } => {
                Some(deadline)
            }
            Phase::Backoff { until } => Some(until),
            Phase::Publishing | Phase::Live => Some(self.timers.next_ping),
            Phase::Idle | Phase::Stopped => None,
        };
        let retry = self.timers.keyframe_retry.filter(|_| self.is_flowing());
        earliest([phase, self.proof_at(), self.silence_at(), self.stall_at(), retry])
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match self.phase {
            Phase::Connecting { deadline } if deadline <= now => {
                return self.fail(LostReason::ConnectTimeout, now);
            }
            Phase::Handshaking { deadline } if deadline <= now && !self.is_prepared() => {
                return self.fail(LostReason::PublishTimeout, now);
            }
            Phase::Backoff { until } if until <= now => return self.connect(now),
            Phase::Closing { deadline, reconnect } if deadline <= now => {
                self.outputs.push_back(Output::Disconnect);
                return self.on_closed(reconnect, now);
            }
            _ => {}
        }
        if due(self.stall_at()) {
            return self.fail_or_finish_close(LostReason::WriteStalled, now);
        }
        if due(self.silence_at()) {
            return self.fail(LostReason::Silent, now);
        }
        self.check_proof(now);
        if self.is_flowing() {
            if self.timers.next_ping <= now {
                self.timers.next_ping = now + PING_INTERVAL;
                self.stats.pings_sent += 1;
                // The server repeats it: milliseconds since the connection, which wrap after 49 days unnoticed.
                let since = now.saturating_duration_since(self.timers.connected).as_millis();
                let timestamp = u32::try_from(since & u128::from(u32::MAX)).expect("masked");
                self.queue.push(Class::Control, 0, |out| message::write_ping_request(out, timestamp));
                self.record_waiting(now);
            }
            if due(self.timers.keyframe_retry) {
                self.need_keyframe(now);
            }
        }
    }

    fn connect(&mut self, now: Instant) {
        self.target = self.next_target.take().unwrap_or_else(|| self.configured.clone());
        self.stats.attempts += 1;
        self.phase = Phase::Connecting { deadline: now + CONNECT_DEADLINE };
        self.outputs.push_back(Output::Connect);
    }

    fn handle_notice(&mut self, notice: Notice, now: Instant) {
        match (notice, self.phase) {
            (Notice::PublishStarted, Phase::Handshaking { .. }) => {
                self.phase = Phase::Publishing;
                self.outputs.push_back(Output::Event(Event::Publishing));
                self.send_kept(now);
                if self.flow.is_none() {
                    self.need_keyframe(now);
                }
            }
            (Notice::Rejected(code), _) => self.fail_or_finish_close(LostReason::Rejected(code), now),
            (Notice::ReconnectRequest { tc_url }, Phase::Publishing | Phase::Live) => {
                let next = match tc_url {
                    Some(url) => self.target.redirected(&url),
                    None => Some(self.target.clone()),
                };
                match next {
                    None => self.stats.reconnect_requests_refused += 1,
                    Some(next) => {
                        self.next_target = Some(next);
                        self.reconnect_at_next_keyframe(LostReason::ReconnectRequested, now);
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

    fn queue_replies(&mut self, now: Instant) {
        let replies = &mut self.replies;
        self.queue.push(Class::Control, 0, |out| out.append(replies));
        self.record_waiting(now);
    }

    fn record_waiting(&mut self, now: Instant) {
        if !self.queue.is_empty() {
            self.timers.write_progress.get_or_insert(now);
        }
    }

    /// Plans a new connection for the next keyframe (the next sound, where there are no pictures): [`push`](Self::push)
    /// then calls [`reconnect_now`](Self::reconnect_now).
    fn reconnect_at_next_keyframe(&mut self, reason: LostReason, now: Instant) {
        if self.planned_reconnect.is_none() {
            self.planned_reconnect = Some(reason);
            self.need_keyframe(now);
        }
    }

    /// Goes over to a new connection: without a wait when this one is live, as after a failure when it is not proven.
    fn reconnect_now(&mut self, reason: LostReason, now: Instant) {
        if self.phase != Phase::Live {
            return self.fail(reason, now);
        }
        self.outputs.push_back(Output::Event(Event::Lost { reason, retry_in: Duration::ZERO }));
        self.begin_close(true, now);
    }

    /// Enters [`Phase::Closing`]: the queue and an unpublish still go out, no more media. Then comes the next connection if
    /// `reconnect`, or the stop.
    fn begin_close(&mut self, reconnect: bool, now: Instant) {
        if let Some(connection) = self.connection.as_ref().filter(|connection| connection.is_publishing()) {
            let (chunk_size, stream, target) = (connection.chunk_size(), connection.stream(), &self.target);
            self.queue.push(Class::Control, 0, |out| message::write_unpublish(out, chunk_size, target, stream));
        }
        self.phase = Phase::Closing { deadline: now + STOP_DEADLINE, reconnect };
        self.flow = None;
    }

    /// The connection of [`Phase::Closing`] is gone: connects anew, or stops.
    fn on_closed(&mut self, reconnect: bool, now: Instant) {
        if reconnect {
            self.reset_connection();
            self.connect(now);
        } else {
            self.finish_stop();
        }
    }

    /// Enters [`Phase::Stopped`].
    fn finish_stop(&mut self) {
        self.reset_connection();
        self.kept.clear();
        self.wanted = false;
        self.phase = Phase::Stopped;
        self.outputs.push_back(Output::Event(Event::Stopped));
    }

    /// Enters [`Phase::Backoff`]: the connection, or the attempt to make one, has failed with `reason`.
    fn fail(&mut self, reason: LostReason, now: Instant) {
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
        self.reset_connection();
        if !self.wanted {
            // It was to be ready in time, and is not: `start` makes another one.
            self.phase = Phase::Idle;
            return;
        }
        let retry_in = self.backoff.next(failure, &mut self.rng);
        self.phase = Phase::Backoff { until: now + retry_in };
        self.outputs.push_back(Output::Event(Event::Lost { reason, retry_in }));
    }

    /// An error on the connection: [`fail`](Self::fail), but in [`Phase::Closing`] it only means that nothing more can be
    /// flushed.
    fn fail_or_finish_close(&mut self, reason: LostReason, now: Instant) {
        if let Phase::Closing { reconnect, .. } = self.phase {
            self.outputs.push_back(Output::Disconnect);
            self.on_closed(reconnect, now);
        } else if self.connection.is_some() {
            self.fail(reason, now);
        }
    }

    /// Forgets everything that belongs to one connection. Phase and outputs are the caller's business.
    fn reset_connection(&mut self) {
        self.connection = None;
        self.flow = None;
        self.planned_reconnect = None;
        self.queue.clear();
        self.replies.clear();
        self.timers.write_progress = None;
        self.timers.keyframe_retry = None;
    }

    /// A stream is there, and nobody wants it yet.
    fn is_prepared(&self) -> bool {
        !self.wanted && self.connection.as_ref().is_some_and(Connection::is_prepared)
    }

    /// Keeps a picture for a connection that takes none yet, or for the one after this one.
    fn keep(&mut self, tag: Tag, body: &[u8]) {
        let is_picture = matches!(tag.frame, Frame::Keyframe | Frame::InterFrame) && self.tracks == Tracks::AudioVideo;
        if is_picture && (self.flow.is_none() || self.keeps_pictures) && !self.kept.push(tag, body) {
            self.stats.groups_not_kept += 1;
        }
    }

    /// What was kept goes out on a connection that has begun to take media.
    fn send_kept(&mut self, now: Instant) {
        let kept = std::mem::take(&mut self.kept);
        for (tag, body) in kept.squeezed() {
            if self.flow.is_some() || self.begin_flow(tag) {
                self.forward(tag, body, now);
            }
        }
        self.keep_within_bounds(now);
        if self.keeps_pictures {
            self.kept = kept;
        }
    }

    /// Whether this connection, or the one to come, has the tag's track.
    fn carries(&self, frame: Frame) -> bool {
        let tracks = self.flow.as_ref().map_or(self.tracks, Flow::tracks);
        match frame {
            Frame::Metadata | Frame::AudioSequenceHeader | Frame::Audio => true,
            Frame::VideoSequenceHeader | Frame::Keyframe | Frame::InterFrame => tracks == Tracks::AudioVideo,
        }
    }

    /// Whether the connection's media starts with this tag: configurations are queued in front of it then.
    fn begin_flow(&mut self, tag: Tag) -> bool {
        let starts = match (self.tracks, tag.frame) {
            (Tracks::AudioOnly, Frame::Audio) => !self.headers.audio.is_empty(),
            (Tracks::AudioVideo, Frame::Keyframe) => !self.headers.video.is_empty(),
            _ => false,
        };
        if starts {
            if !self.keeps_pictures {
                self.kept.clear();
            }
            self.flow = Some(Flow::new(tag.dts, self.tracks));
            self.timers.keyframe_retry = None;
            self.queue_message(Frame::Metadata, Class::Config, 0, None);
            self.queue_message(Frame::VideoSequenceHeader, Class::VideoConfig, 0, None);
            self.queue_audio_header(0);
        }
        starts
    }

    fn queue_audio_header(&mut self, ms: u32) {
        if !self.headers.audio.is_empty() && self.flow.as_mut().is_some_and(Flow::begin_audio) {
            self.queue_message(Frame::AudioSequenceHeader, Class::Config, ms, None);
        }
    }

    /// Queues a tag on the flowing connection, or one of the remembered headers when `body` is `None`.
    fn queue_message(&mut self, frame: Frame, class: Class, ms: u32, body: Option<&[u8]>) {
        let Some(connection) = &self.connection else { return };
        let (kind, remembered) = match frame {
            Frame::Metadata => (TagKind::Script, &self.headers.metadata),
            Frame::VideoSequenceHeader | Frame::Keyframe | Frame::InterFrame => (TagKind::Video, &self.headers.video),
            Frame::AudioSequenceHeader | Frame::Audio => (TagKind::Audio, &self.headers.audio),
        };
        let body = body.unwrap_or(remembered);
        if body.is_empty() || !self.carries(frame) {
            return;
        }
        let (chunk_size, stream) = (connection.chunk_size(), connection.stream());
        self.queue.push(class, ms, |out| message::write_media(out, chunk_size, stream, kind, ms, body));
    }

    /// Queues a tag with the connection's timestamp.
    fn forward(&mut self, tag: Tag, body: &[u8], now: Instant) {
        let Some(flow) = self.flow.as_mut() else {
            return;
        };
        let (class, ms) = match flow.admit(tag) {
            Verdict::Send { class, ms } => (class, ms),
            Verdict::Drop => return self.record_unsent(tag.frame),
            Verdict::Reconnect(reason) => {
                self.record_unsent(tag.frame);
                return match reason {
                    LostReason::TimeWentBack | LostReason::TimestampLimit => self.reconnect_now(reason, now),
                    reason => self.reconnect_at_next_keyframe(reason, now),
                };
            }
        };
        match tag.frame {
            Frame::AudioSequenceHeader => return self.queue_audio_header(ms),
            Frame::Audio => self.stats.audio_frames_queued += 1,
            Frame::Keyframe => {
                self.timers.keyframe_retry = None;
                self.stats.video_frames_queued += 1;
            }
            Frame::InterFrame => self.stats.video_frames_queued += 1,
            Frame::Metadata | Frame::VideoSequenceHeader => {}
        }
        self.queue_message(tag.frame, class, ms, Some(body));
        self.record_waiting(now);
    }

    fn keep_within_bounds(&mut self, now: Instant) {
        let trimmed = self.queue.trim(Bounds {
            picture_ms: QUEUE_PICTURE_MS_MAX,
            media_ms: QUEUE_MEDIA_MS_MAX,
            bytes: QUEUE_BYTES_MAX,
        });
        self.stats.video_frames_dropped += trimmed.pictures;
        self.stats.audio_frames_dropped += trimmed.audio_frames;
        self.stats.gops_dropped += trimmed.gops;
        if trimmed.needs_keyframe {
            self.miss_picture(now);
        }
        // What is left cannot be dropped: a partly written frame, or configurations beyond reason.
        if self.queue.len() > QUEUE_BYTES_MAX + BODY_MAX {
            self.fail(LostReason::Overflow, now);
        }
    }

    fn record_unsent(&mut self, frame: Frame) {
        self.stats.frames_unsent += u64::from(matches!(frame, Frame::Keyframe | Frame::InterFrame | Frame::Audio));
    }

    /// A picture will not be sent: the ones that refer to it must not be either.
    fn miss_picture(&mut self, now: Instant) {
        if let Some(flow) = &mut self.flow {
            flow.await_keyframe();
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

    fn is_flowing(&self) -> bool {
        matches!(self.phase, Phase::Publishing | Phase::Live)
    }

    /// When media of more than the detection window was written and [`PROOF`] is over.
    fn proof_at(&self) -> Option<Instant> {
        let flowed = self.flow.as_ref().is_some_and(|flow| flow.written_ms() >= PROOF_MEDIA_MS);
        let since = self.timers.first_media_written.filter(|_| flowed && self.phase == Phase::Publishing)?;
        Some(since + PROOF)
    }

    fn check_proof(&mut self, now: Instant) {
        if self.proof_at().is_some_and(|at| at <= now) {
            self.phase = Phase::Live;
            self.stats.lives += 1;
            self.backoff.reset();
            self.outputs.push_back(Output::Event(Event::Live));
        }
    }

    fn silence_at(&self) -> Option<Instant> {
        let heard = self.timers.answers_pings && self.is_flowing();
        heard.then(|| self.timers.last_inbound + SILENCE_DEADLINE)
    }

    fn stall_at(&self) -> Option<Instant> {
        let since = self.timers.write_progress.filter(|_| self.connection.is_some())?;
        Some(since + WRITE_STALL_DEADLINE)
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

fn replace(remembered: &mut Vec<u8>, body: &[u8]) {
    remembered.clear();
    remembered.extend_from_slice(body);
}

#[cfg(test)]
mod tests;
