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
//! Bounds of one handshake: [`HANDSHAKE_TIMEOUT`], [`MAX_QUEUED_DATAGRAMS`] each way, and those of the guard. When it
//! has a result, everything of the crate is dropped: in the media phase no DTLS datagram reaches it any more. The
//! caller passes only datagrams from an address that has passed an ICE check.

mod certificate;
mod engine;
mod guard;
mod message;
mod reassembly;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use self::certificate::{Certificate, Fingerprint, FingerprintError, MAX_FINGERPRINTS, PeerFingerprints};
use self::engine::Engine;
pub use self::guard::Dropped;
use self::guard::Guard;
use super::srtp::{Keys, SrtpProfile};

/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an unanswered flight waits before it is sent again.
pub const FLIGHT_INTERVAL: Duration = Duration::from_millis(100);

/// Datagrams that may wait to be sent, or to be processed.
pub const MAX_QUEUED_DATAGRAMS: usize = 32;

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
    late_datagrams: u32,
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
            late_datagrams: 0,
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
            self.late_datagrams = self.late_datagrams.saturating_add(1);
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

    /// Datagrams that came after the result.
    pub fn late_datagrams(&self) -> u32 {
        self.late_datagrams
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

/// Why a handshake gave no keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DtlsError {
    /// No result within [`HANDSHAKE_TIMEOUT`].
    TimedOut {
        /// The description in the last fatal alert that came in the clear, which may be the reason (RFC 5246 §7.2).
        clear_alert: Option<u8>,
    },
    /// The peer's certificate is none of those that its description promises.
    FingerprintMismatch {
        /// Of the certificate that was presented.
        presented: Fingerprint,
    },
    /// The peer presented no certificate.
    NoPeerCertificate,
    /// The peer picked none of the SRTP profiles offered, or does not do SRTP.
    NoSrtpProfile,
    /// The peer does not do extended master secrets (RFC 7627).
    NoExtendedMasterSecret,
    /// The association was ended: by an alert under the peer's keys, or because webrtc-dtls stopped reading.
    Closed,
    /// What the peer sent does not add up, as webrtc-dtls puts it.
    Failed(String),
    /// webrtc-dtls panicked.
    Panicked,
}

impl std::fmt::Display for DtlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut { clear_alert } => {
                write!(f, "no DTLS handshake within {HANDSHAKE_TIMEOUT:?}")?;
                match clear_alert {
                    Some(description) => write!(f, ", peer's alert {description}"),
                    None => Ok(()),
                }
            }
            Self::FingerprintMismatch { presented } => {
                write!(f, "peer presented another certificate: {presented}")
            }
            Self::NoPeerCertificate => write!(f, "peer presented no certificate"),
            Self::NoSrtpProfile => write!(f, "peer picked none of our SRTP profiles"),
            Self::NoExtendedMasterSecret => write!(f, "peer has no extended master secret"),
            Self::Closed => write!(f, "DTLS association was ended"),
            Self::Failed(reason) => write!(f, "DTLS handshake failed: {reason}"),
            Self::Panicked => write!(f, "DTLS implementation panicked"),
        }
    }
}

impl std::error::Error for DtlsError {}
