//! A guest's life cycle, derived from what is there: session, stream, publication. Kept nowhere, so it cannot be wrong.
//!
//! ```text
//!  Absent ──answered──▶ Joining ──first media──▶ Publishing ──the server takes it──▶ Live
//!    ▲ ▲                   │                      │   ▲  ◀──────server lost───────  │
//!    │ └──session over─────┘             guest gone   media                 guest gone
//!    │                                            ▼   │                             │
//!    └──────────────────hold over───────────── Holding ◀────────────────────────────┘
//! ```
//! From `Holding`, media leads straight to `Live` where the server still takes it.

use std::fmt;

use serde::Serialize;

/// Where a guest is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nobody there, nothing published.
    Absent,
    /// Answered; ICE and DTLS under way, nothing published yet.
    Joining,
    /// Media comes in, the RTMP server has not proved that it takes it.
    Publishing,
    /// Media flows through.
    Live,
    /// The guest is gone or coming back; the publication is kept for it.
    Holding,
}

/// What a state is derived from.
#[derive(Clone, Copy, Debug)]
pub struct Signs {
    /// A session holds the slot.
    pub session: bool,
    /// Media of that session has been received.
    pub receiving: bool,
    /// The publication has been started and not ended.
    pub publication: bool,
    /// The RTMP server takes the media.
    pub rtmp_live: bool,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl State {
    /// All states, for tables.
    pub const ALL: [Self; 5] = [Self::Absent, Self::Joining, Self::Publishing, Self::Live, Self::Holding];

    /// As it stands in logs, JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Joining => "joining",
            Self::Publishing => "publishing",
            Self::Live => "live",
            Self::Holding => "holding",
        }
    }

    pub fn of(signs: Signs) -> Self {
        match signs {
            Signs { receiving: true, rtmp_live: true, .. } => Self::Live,
            Signs { receiving: true, .. } => Self::Publishing,
            Signs { publication: true, .. } => Self::Holding,
            Signs { session: true, .. } => Self::Joining,
            Signs { .. } => Self::Absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_of_a_guests_life_has_its_state() {
        let signs = |session, receiving, publication, rtmp_live| Signs { session, receiving, publication, rtmp_live };
        for (name, signs, state) in [
            ("nobody", signs(false, false, false, false), State::Absent),
            ("answered", signs(true, false, false, false), State::Joining),
            ("first media", signs(true, true, true, false), State::Publishing),
            ("taken by the server", signs(true, true, true, true), State::Live),
            ("server lost", signs(true, true, true, false), State::Publishing),
            ("guest lost", signs(false, false, true, true), State::Holding),
            ("guest comes back", signs(true, false, true, true), State::Holding),
            ("hold over", signs(false, false, false, false), State::Absent),
        ] {
            assert_eq!(State::of(signs), state, "{name}");
        }
    }
}
