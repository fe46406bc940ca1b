//! Our session at the SFU once it has tracks, and the peer on it: what is under way on it, whether it is connected,
//! which tracks flow.

use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;

use super::interface::{CallId, PeerId, Trouble};

/// From the end of the SDP exchange to a connected transport; good ones take a tenth of it.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// From a connected transport to the first packet: the SFU makes an offer only when it has packets to send.
pub(super) const FIRST_MEDIA_WITHIN: Duration = Duration::from_secs(5);
/// A path that was lost for so long does not come back: the SFU has one candidate, there is nothing to pair anew.
pub(super) const LOST_FOR: Duration = Duration::from_secs(5);
/// The SFU ends a track, with every subscription to it, when the publisher has sent nothing for so long.
pub(super) const COLLECTED_AFTER: Duration = Duration::from_secs(30);
/// When nothing comes for so long, of all tracks or of one, the API is asked about the publisher's session: a guest whose
/// session is over, or whose track was collected, does not know it before somebody says so.
pub(super) const ASK_AFTER: Duration = Duration::from_secs(2);
/// And again as long as it stays so.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(5);
/// With media for so long a link is good, and the next failure is the first one.
pub(super) const STABLE_AFTER: Duration = Duration::from_secs(2);

/// A track of ours.
#[derive(Debug)]
pub(super) struct Pulled {
    pub(super) kind: TrackKind,
    pub(super) mid: String,
    pub(super) since: Instant,
    /// When packets of it last came.
    pub(super) heard: Option<Instant>,
}

impl Pulled {
    pub(super) fn new(kind: TrackKind, mid: String, since: Instant) -> Self {
        Self { kind, mid, since, heard: None }
    }

    /// It was heard of, but not any more.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.heard.is_some_and(|heard| now >= heard + ASK_AFTER)
    }

    /// When the SFU will have ended it, if nothing comes on a transport that is up since `up`.
    fn collected_at(&self, up: Instant) -> Instant {
        self.heard.unwrap_or(self.since.max(up)) + COLLECTED_AFTER
    }
}

/// What is under way on the session. One thing at a time.
#[derive(Debug)]
pub(super) enum Exchange {
    Idle,
    /// `tracks/new` for tracks that were missing.
    Requesting {
        call: CallId,
        started: Instant,
    },
    /// The driver makes an answer to the SFU's offer.
    Answering,
    /// The SFU is being told our answer.
    Renegotiating(CallId),
    /// The driver applies the SFU's answer to our offer.
    Applying,
}

/// Whether datagrams pass between the SFU and the peer.
///
/// ```text
///  New ──exchange done──▶ Connecting ──connected──▶ Up ──path lost──▶ Lost
///                             │                     ▲                  │ │ LOST_FOR over: another link is wanted
///                             ▼ CONNECT_WITHIN over └─media, connected─┘ ▼ which takes its place when it has tracks
///                          given up
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connectivity {
    /// The SDP exchange is under way.
    New,
    Connecting {
        deadline: Instant,
    },
    Up {
        since: Instant,
    },
    Lost {
        since: Instant,
        up_since: Instant,
    },
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) session: String,
    pub(super) peer: PeerId,
    pub(super) pulled: Vec<Pulled>,
    /// Of tracks that the SFU ended.
    pub(super) former_mids: Vec<String>,
    pub(super) exchange: Exchange,
    pub(super) connectivity: Connectivity,
    /// The SFU waits for our answer, or may do so: until it has it, it refuses every other mutation.
    pub(super) offer_open: bool,
    /// It lacks a track that only another link can bring.
    pub(super) lacks: Option<TrackKind>,
    /// Nothing more can be done with the session, but what flows may flow on until there is another one.
    pub(super) spent: Option<Trouble>,
    /// The attempt that made it began then.
    pub(super) started: Instant,
    /// When missing tracks are asked for again.
    pub(super) ask_again: Option<Instant>,
}

impl Link {
    pub(super) fn new(
        session: String,
        peer: PeerId,
        tracks: Vec<(TrackKind, String)>,
        exchange: Exchange,
        started: Instant,
        now: Instant,
    ) -> Self {
        let offer_open = matches!(exchange, Exchange::Answering);
        let pulled = tracks.into_iter();
        let pulled = pulled.map(|(kind, mid)| Pulled::new(kind, mid, now));
        Self {
            session,
            peer,
            pulled: pulled.collect(),
            former_mids: Vec::new(),
            exchange,
            connectivity: Connectivity::New,
            offer_open,
            lacks: None,
            spent: None,
            started,
            ask_again: None,
        }
    }

    /// What is to be closed in the end. Nothing where the SFU would refuse it, or wait for a transport first: such a
    /// session expires by itself.
    pub(super) fn mids(&self) -> Vec<String> {
        let was_up = matches!(self.connectivity, Connectivity::Up { .. } | Connectivity::Lost { .. });
        if !was_up || self.offer_open && self.under_way().is_none() {
            return Vec::new();
        }
        let pulled = self.pulled.iter().map(|track| &track.mid);
        pulled.chain(&self.former_mids).cloned().collect()
    }

    /// The mutation that has not been answered.
    pub(super) fn under_way(&self) -> Option<CallId> {
        match self.exchange {
            Exchange::Requesting { call, .. } | Exchange::Renegotiating(call) => Some(call),
            Exchange::Idle | Exchange::Answering | Exchange::Applying => None,
        }
    }

    pub(super) fn has(&self, kind: TrackKind) -> bool {
        self.pulled.iter().any(|track| track.kind == kind)
    }

    /// Tracks that have been heard of within the last seconds, over a transport that stands.
    pub(super) fn flowing(&self, now: Instant) -> usize {
        let is_up = matches!(self.connectivity, Connectivity::Up { .. });
        let recent = |heard: Instant| now.saturating_duration_since(heard) < LOST_FOR;
        let flows = |track: &&Pulled| is_up && track.heard.is_some_and(recent);
        self.pulled.iter().filter(flows).count()
    }

    /// All its tracks have been heard of since it is up.
    pub(super) fn all_heard(&self) -> bool {
        matches!(self.connectivity, Connectivity::Up { .. }) && self.pulled.iter().all(|track| track.heard.is_some())
    }

    pub(super) fn is_stable(&self, now: Instant) -> bool {
        matches!(self.connectivity, Connectivity::Up { since } if now.saturating_duration_since(since) >= STABLE_AFTER)
            && self.all_heard()
    }

    pub(super) fn handle_media(&mut self, kind: TrackKind, now: Instant) {
        if let Connectivity::Lost { up_since, .. } = self.connectivity {
            self.connectivity = Connectivity::Up { since: up_since };
        }
        if let Some(track) = self.pulled.iter_mut().find(|track| track.kind == kind) {
            track.heard = Some(now);
        }
    }

    /// Why another link is wanted, although this one may still come back.
    pub(super) fn fault(&self, now: Instant) -> Option<Trouble> {
        if let Some(trouble) = &self.spent {
            return Some(trouble.clone());
        }
        match self.connectivity {
            Connectivity::Lost { since, .. } if now >= since + LOST_FOR => Some(Trouble::PathLost),
            Connectivity::Up { .. } if self.silent_at().is_some_and(|at| at <= now) => Some(Trouble::Silent),
            _ => self.lacks.map(Trouble::Missing),
        }
    }

    /// Whether the link cannot come up any more.
    pub(super) fn never_connected(&self, now: Instant) -> bool {
        matches!(self.connectivity, Connectivity::Connecting { deadline } if deadline <= now)
    }

    /// When packets last came.
    pub(super) fn heard(&self) -> Option<Instant> {
        self.pulled.iter().filter_map(|track| track.heard).max()
    }

    /// Since when a track that was heard of has been silent over a transport that stands, the longest.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        match self.connectivity {
            Connectivity::Up { .. } if self.spent.is_none() => self.pulled.iter().filter_map(|track| track.heard).min(),
            _ => None,
        }
    }

    /// When the link as a whole counts as silent.
    fn silent_at(&self) -> Option<Instant> {
        let Connectivity::Up { since } = self.connectivity else {
            return None;
        };
        match self.heard() {
            Some(heard) => Some(heard + COLLECTED_AFTER),
            None => Some(since + FIRST_MEDIA_WITHIN),
        }
    }

    /// Takes out the tracks that the SFU must have ended by now, while others flow.
    pub(super) fn drop_collected(&mut self, now: Instant) -> bool {
        let Connectivity::Up { since } = self.connectivity else {
            return false;
        };
        self.flowing(now) > 0 && self.remove(|track| track.collected_at(since) <= now)
    }

    /// Takes out tracks; what is left of them is to be closed in the end.
    pub(super) fn remove(&mut self, is_over: impl Fn(&Pulled) -> bool) -> bool {
        let before = self.pulled.len();
        let former_mids = &mut self.former_mids;
        self.pulled.retain(|track| {
            let is_over = is_over(track);
            if is_over {
                former_mids.push(track.mid.clone());
            }
            !is_over
        });
        self.pulled.len() < before
    }

    /// Whether tracks can be asked for: before the transport stands the SFU would hold the call and then refuse it.
    pub(super) fn can_ask(&self) -> bool {
        let is_up = matches!(self.connectivity, Connectivity::Up { .. });
        is_up && self.lacks.is_none() && matches!(self.exchange, Exchange::Idle) && self.spent.is_none()
    }

    /// When something of this is due.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let connectivity = match self.connectivity {
            Connectivity::New => None,
            Connectivity::Connecting { deadline } => Some(deadline),
            Connectivity::Lost { since, .. } => Some(since + LOST_FOR),
            Connectivity::Up { since } => {
                let collected = self.pulled.iter().map(|track| track.collected_at(since));
                let stable = Some(since + STABLE_AFTER);
                collected.chain(self.silent_at()).chain(stable).filter(|at| *at > now).min()
            }
        };
        let ask_again = self.ask_again.filter(|_| self.can_ask());
        connectivity.filter(|at| *at > now).into_iter().chain(ask_again).min()
    }
}
