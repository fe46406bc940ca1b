//! Whether a sender's marker bit ends its pictures. RFC 6184 §5.1: a receiver may take it as an early sign of the last
//! packet of an access unit, and must not rely on it; senders exist that set it on each NAL unit or packet.
//!
//! ```text
//!  trusted: a picture ends at the marker ──a marked packet without a picture is not the end of its time──▶ suspect
//!    │ ▲  ▲───────────────────────a picture with one marker, at its end───────────────────────────────────────┤
//!    │ └────────────FORGIVEN_AFTER such pictures; each refutation needs as many times more──────────┐         │
//!    └────────────────▶ refuted: a picture ends where the next one begins ──────────────────────────┘         │
//!   a later part of a picture behind its marker ▲─────────────────────────────────────────────────────────────┘
//! ```
//!
//! While it is not trusted, a picture whose marker is there and that nothing follows ends after [`Marker::wait`].

use crate::time::MediaTime;

/// Slices of one picture leave a sender at once: what comes later than this is another picture.
const SUSPECT_WAIT: MediaTime = MediaTime::from_millis(5);
/// A sender of which that is known to be wrong; its pictures come faster than this, unless it pauses.
const REFUTED_WAIT: MediaTime = MediaTime::from_millis(100);
/// Pictures that make up for one refutation.
const FORGIVEN_AFTER: u32 = 64;

/// What is known of one sender's marker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marker {
    /// Pictures with one marker, at their end, since the last doubt; and how many it takes.
    confirmations: u32,
    needed: u32,
}

impl Marker {
    pub(crate) fn is_trusted(self) -> bool {
        self.confirmations >= self.needed
    }

    /// It was wrong lately.
    pub(crate) fn is_refuted(self) -> bool {
        self.needed >= FORGIVEN_AFTER && !self.is_trusted()
    }

    /// A picture had one marker, at its end.
    pub(crate) fn confirm(&mut self) {
        self.confirmations = self.confirmations.saturating_add(1);
    }

    /// Behind a marker without a picture the same time went on: maybe all packets of this sender have one.
    pub(crate) fn suspect(&mut self) {
        if self.needed == 0 {
            *self = Self { confirmations: 0, needed: 1 };
        }
    }

    /// A picture went on behind its marker.
    pub(crate) fn refute(&mut self) {
        if !self.is_refuted() {
            self.needed = self.needed.max(1).saturating_mul(FORGIVEN_AFTER);
        }
        self.confirmations = 0;
    }

    /// How long to wait behind a marker that is not trusted.
    pub(crate) fn wait(self) -> MediaTime {
        if self.is_refuted() { REFUTED_WAIT } else { SUSPECT_WAIT }
    }
}
