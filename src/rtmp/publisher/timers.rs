//! The publisher's clock: the times of a connection, and what is due when.

use std::time::Instant;

use super::{PING_INTERVAL, PROOF, PROOF_MEDIA_MS, Phase, Publisher, SILENCE_DEADLINE, WRITE_STALL_DEADLINE};
use crate::deadline::earliest;
use crate::rtmp::message;
use crate::rtmp::output::{Event, LostReason, Output};
use crate::rtmp::queue::Class;

/// Times of the current connection.
#[derive(Clone, Copy)]
pub(super) struct Timers {
    pub(super) connected: Instant,
    /// When the queue began to wait for the socket, or was last taken from.
    pub(super) write_progress: Option<Instant>,
    pub(super) last_inbound: Instant,
    pub(super) answers_pings: bool,
    pub(super) next_ping: Instant,
    pub(super) first_media_written: Option<Instant>,
    /// When to ask again for the keyframe that is missing.
    pub(super) keyframe_retry: Option<Instant>,
}

impl Timers {
    pub(super) fn new(now: Instant) -> Timers {
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

impl Publisher {
    /// When media of more than the detection window was written and [`PROOF`] is over.
    fn proof_at(&self) -> Option<Instant> {
        let flowed = self.flow.as_ref().is_some_and(|flow| flow.written_ms() >= PROOF_MEDIA_MS);
        let since = self.timers.first_media_written.filter(|_| flowed && self.phase == Phase::Publishing)?;
        Some(since + PROOF)
    }

    pub(super) fn check_proof(&mut self, now: Instant) {
        if self.proof_at().is_some_and(|at| at <= now) {
            self.phase = Phase::Live;
            self.stats.lives += 1;
            self.backoff.reset();
            self.outputs.push_back(Output::Event(Event::Live));
        }
    }

    fn is_flowing(&self) -> bool {
        matches!(self.phase, Phase::Publishing | Phase::Live)
    }

    fn silence_at(&self) -> Option<Instant> {
        let heard = self.timers.answers_pings && self.is_flowing();
        heard.then(|| self.timers.last_inbound + SILENCE_DEADLINE)
    }

    fn stall_at(&self) -> Option<Instant> {
        let since = self.timers.write_progress.filter(|_| self.session.is_some())?;
        Some(since + WRITE_STALL_DEADLINE)
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
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
                return self.lose(LostReason::ConnectTimeout, now);
            }
            Phase::Handshaking { deadline } if deadline <= now => {
                return self.lose(LostReason::PublishTimeout, now);
            }
            Phase::Backoff { until } if until <= now => return self.connect(now),
            Phase::Closing { deadline, reconnect } if deadline <= now => {
                self.outputs.push_back(Output::Disconnect);
                return self.closed(reconnect, now);
            }
            _ => {}
        }
        if due(self.stall_at()) {
            return self.lose_or_close(LostReason::WriteStalled, now);
        }
        if due(self.silence_at()) {
            return self.lose(LostReason::Silent, now);
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
}
