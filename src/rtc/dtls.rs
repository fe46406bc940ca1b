//! DTLS-SRTP handshake in client role (RFC 5764, RFC 6347, RFC 8842 §5.3): the only place that knows webrtc-dtls.
//!
//! Sans-IO: the peer's DTLS datagrams and the time in, datagrams to send and at the end SRTP keys or an error out.
//! We are the client wherever we answer or are answered (`a=setup:active`), because the crate's server role loses
//! handshakes for good when its last flight is lost.
//!
//! ```text
//!  datagram ─▶ guard ─▶ engine (webrtc-dtls on a runtime of its own) ─▶ datagrams
//!              drops what a        fingerprint checked, then keys  ─▶ result
//!              client cannot want
//! ```
//!
//! ```text
//!  running ──keys, or an error of the engine──▶ over: poll_result gives it once
//!     └──────HANDSHAKE_TIMEOUT: TimedOut───────────▲
//! ```
//!
//! Bounds of one handshake: [`HANDSHAKE_TIMEOUT`], [`MAX_QUEUED_DATAGRAMS`] each way, and those of the guard. When it
//! has a result, everything of the crate is dropped: in the media phase no DTLS datagram reaches it any more. The
//! caller passes only datagrams from an address that has passed an ICE check.

mod certificate;
mod choice;
mod engine;
mod error;
mod guard;
mod message;
mod reassembly;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use self::certificate::{Certificate, Fingerprint, FingerprintError, MAX_FINGERPRINTS, PeerFingerprints};
pub use self::choice::Unfit;
use self::engine::Engine;
pub use self::engine::{FLIGHT_INTERVAL, MAX_QUEUED_DATAGRAMS};
pub use self::error::{DtlsError, HANDSHAKE_TIMEOUT};
pub use self::guard::Dropped;
use self::guard::Guard;
use super::srtp::{Keys, SrtpProfile};

/// tokio's timers are due on the millisecond after their deadline.
const TIMER_GRANULARITY: Duration = Duration::from_millis(1);

/// One DTLS handshake.
pub struct Handshake {
    guard: Guard,
    engine: Option<Engine>,
    transmits: VecDeque<Vec<u8>>,
    outcome: Option<Result<Keys, DtlsError>>,
    started: Instant,
    pump_at: Instant,
}

impl Handshake {
    /// Starts a handshake: the first flight is in [`poll_transmit`](Self::poll_transmit) at once. `profiles` are
    /// offered for SRTP, of which the peer picks one.
    pub fn new(certificate: &Certificate, peer: PeerFingerprints, profiles: &[SrtpProfile], now: Instant) -> Self {
        let mut handshake = Self {
            guard: Guard::default(),
            engine: None,
            transmits: VecDeque::new(),
            outcome: None,
            started: now,
            pump_at: now,
        };
        match Engine::new(certificate, peer, profiles, now) {
            Ok(engine) => handshake.engine = Some(engine),
            Err(error) => handshake.outcome = Some(Err(DtlsError::Failed(error.to_string()))),
        }
        handshake.pump(now);
        handshake
    }

    /// Takes a datagram whose first byte says DTLS (RFC 7983).
    pub fn handle_datagram(&mut self, datagram: &[u8], now: Instant) {
        let Some(engine) = &self.engine else {
            return;
        };
        let admitted = self.guard.admit(datagram);
        if admitted.is_empty() {
            return;
        }
        for datagram in admitted {
            engine.receive(datagram);
        }
        self.pump(now);
    }

    /// To be called when [`poll_timeout`](Self::poll_timeout) is due; at other times it does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|due| now >= due) {
            self.pump(now);
        }
    }

    /// The next datagram to send to the peer.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next of use; `None` once there is a result.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.started + HANDSHAKE_TIMEOUT;
        self.engine.as_ref().map(|_| self.pump_at.min(deadline))
    }

    /// The keys or why there are none; once.
    pub fn poll_result(&mut self) -> Option<Result<Keys, DtlsError>> {
        self.outcome.take()
    }

    /// What was dropped unseen.
    pub fn dropped(&self) -> Dropped {
        self.guard.dropped()
    }

    fn pump(&mut self, now: Instant) {
        let Some(engine) = &mut self.engine else {
            return;
        };
        let elapsed = now.saturating_duration_since(self.started);
        let outcome = if elapsed < HANDSHAKE_TIMEOUT {
            engine.pump(now)
        } else {
            Some(Err(DtlsError::TimedOut { clear_alert: self.guard.clear_alert() }))
        };
        // A choice that webrtc-dtls does not know is a failure without a name, or a message that it never reads.
        let outcome = outcome.map(|outcome| {
            outcome.map_err(|error| match (error, self.guard.unfit()) {
                (DtlsError::Failed(_) | DtlsError::TimedOut { .. }, Some(unfit)) => DtlsError::Unfit(unfit),
                (error, _) => error,
            })
        });
        let mut has_sent = false;
        while let Some(datagram) = engine.poll_transmit() {
            has_sent = true;
            self.guard.record_sent(&datagram);
            if self.transmits.len() < MAX_QUEUED_DATAGRAMS {
                self.transmits.push_back(datagram);
            }
        }
        if has_sent {
            self.pump_at = now + FLIGHT_INTERVAL + TIMER_GRANULARITY;
        } else if now >= self.pump_at {
            self.pump_at = now + FLIGHT_INTERVAL / 2;
        }
        if outcome.is_some() {
            self.outcome = outcome;
            self.engine = None;
        }
    }
}
