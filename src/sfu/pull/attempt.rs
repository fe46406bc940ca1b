//! One attempt to get the tracks on a session of their own, from the pause before it to the link that it becomes. The
//! session of an attempt that fails was never connected: it expires within seconds, and is only counted.

use std::time::Instant;

use super::interface::{CallId, PeerId};

#[derive(Debug)]
pub(super) enum Attempt {
    /// None is wanted.
    None,
    Waiting {
        until: Instant,
    },
    /// Form 2: the driver makes our offer. Before the session, which would otherwise expire meanwhile.
    Offering {
        peer: PeerId,
        started: Instant,
    },
    Creating {
        call: CallId,
        started: Instant,
        offer: Option<(PeerId, String)>,
    },
    Requesting {
        call: CallId,
        started: Instant,
        session: String,
        /// Whose offer it was, in form 2.
        peer: Option<PeerId>,
    },
}

impl Attempt {
    pub(super) fn call(&self) -> Option<CallId> {
        match self {
            Self::Creating { call, .. } | Self::Requesting { call, .. } => Some(*call),
            Self::None | Self::Waiting { .. } | Self::Offering { .. } => None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Waiting { until } => Some(*until),
            _ => None,
        }
    }

    /// The peer made for it, which has to be dropped with it.
    pub(super) fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Offering { peer, .. } => Some(*peer),
            Self::Creating { offer, .. } => offer.as_ref().map(|(peer, _)| *peer),
            Self::Requesting { peer, .. } => *peer,
            Self::None | Self::Waiting { .. } => None,
        }
    }

    pub(super) fn started(&self, now: Instant) -> Instant {
        match self {
            Self::Offering { started, .. } | Self::Creating { started, .. } | Self::Requesting { started, .. } => {
                *started
            }
            Self::None | Self::Waiting { .. } => now,
        }
    }
}
