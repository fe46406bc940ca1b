//! Faults on demand: what `POST /control` and the handle's methods can turn on, and which calls met them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A call of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    SessionsNew,
    TracksNew,
    /// `tracks/new` for remote tracks.
    Pull,
    Renegotiate,
    TracksClose,
    TracksUpdate,
    GetSession,
    TurnCredentials,
}

impl Endpoint {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SessionsNew => "POST sessions/new",
            Self::TracksNew | Self::Pull => "POST tracks/new",
            Self::Renegotiate => "PUT renegotiate",
            Self::TracksClose => "PUT tracks/close",
            Self::TracksUpdate => "PUT tracks/update",
            Self::GetSession => "GET session",
            Self::TurnCredentials => "POST generate-ice-servers",
        }
    }

    pub(crate) fn is_mutation(self) -> bool {
        !matches!(self, Self::GetSession | Self::TurnCredentials)
    }

    /// Whether a fault of this endpoint concerns the call.
    fn covers(self, call: Endpoint) -> bool {
        self == call || self == Self::TracksNew && call == Self::Pull
    }
}

/// Something that goes wrong. Those with `calls` concern the next so many calls (of `endpoint`, or of any); the others
/// last until [`Fault::None`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Ends all faults.
    None,
    /// Each `n`-th call fails with 500 `internal_error` and changes nothing.
    FailOneIn { n: u32 },
    /// Calls fail with 500 `internal_error` and change nothing.
    Fail { calls: u32, endpoint: Option<Endpoint> },
    /// The call is carried out, and the connection closed without a reply.
    LoseReply { calls: u32, endpoint: Option<Endpoint> },
    /// The call is carried out, and the reply comes late.
    SlowReply { calls: u32, endpoint: Option<Endpoint>, milliseconds: u64 },
    /// The call hangs (25 s by the service's clock), then goes on.
    Hang { calls: u32, endpoint: Option<Endpoint> },
    /// A GET for a session that was never there hangs instead of being answered with 404.
    HangUnknownSession,
    /// Calls are answered with 429.
    TooManyRequests { calls: u32, endpoint: Option<Endpoint> },
    /// Calls are answered with this status (400, 404, 406, 408, 410, 425, 503) and the text that the service has for it,
    /// and change nothing.
    Refuse { calls: u32, endpoint: Option<Endpoint>, status: u16 },
    /// Every call is answered with 401, as for a wrong secret.
    WrongSecret,
    /// Every call is answered with 404, as for an unknown app.
    UnknownApp,
    /// Connections are accepted and closed.
    NoService,
    /// The media of each `n`-th session from now on gets no answer at all.
    NeverConnectOneIn { n: u32 },
    /// Pulls of several tracks: one item fails with `internal_error`, the others are good.
    MixedResult { calls: u32 },
    /// What a session publishes (all of it, or one track) is not forwarded any more and counts as not received.
    StopMedia { session: String, track: Option<String> },
    /// Ends [`Fault::StopMedia`].
    ResumeMedia { session: String },
    /// The session is gone at once, without a word to its peer.
    KillSession { session: String },
    /// A track ends as after 30 s without packets.
    CollectTrack { session: String, track: String },
}

/// What is to be done with one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) refuse: Option<Refusal>,
    pub(crate) hang: bool,
    pub(crate) lose_reply: bool,
    pub(crate) delay: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Internal,
    TooManyRequests,
    Status(u16),
    WrongSecret,
    UnknownApp,
    NoService,
}

/// A fault that is on, and the calls that met it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultInfo {
    pub fault: Fault,
    /// By the calls' names.
    pub hits: BTreeMap<String, u64>,
}

impl FaultInfo {
    fn hit(&mut self, endpoint: Endpoint) {
        *self.hits.entry(endpoint.name().to_owned()).or_default() += 1;
    }
}

/// The faults that are on.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    on: Vec<FaultInfo>,
    calls: u32,
    sessions: u32,
}

impl Faults {
    pub(crate) fn turn_on(&mut self, fault: Fault) {
        self.on.push(FaultInfo { fault, hits: BTreeMap::new() });
    }

    pub(crate) fn clear(&mut self) {
        *self = Faults::default();
    }

    pub(crate) fn on(&self) -> &[FaultInfo] {
        &self.on
    }

    /// Takes one call's share of the faults.
    pub(crate) fn judge(&mut self, endpoint: Endpoint) -> Verdict {
        let mut verdict = Verdict::default();
        self.calls += 1;
        let number = self.calls;
        let take = |calls: &mut u32, wanted: &Option<Endpoint>| {
            let applies = *calls > 0 && wanted.is_none_or(|wanted| wanted.covers(endpoint));
            *calls -= u32::from(applies);
            applies
        };
        for on in &mut self.on {
            let mut refuse = |applies: bool, refusal| {
                if applies {
                    verdict.refuse = Some(refusal);
                }
                applies
            };
            let is_hit = match &mut on.fault {
                Fault::FailOneIn { n } => refuse(number.is_multiple_of(*n), Refusal::Internal),
                Fault::Fail { calls, endpoint } => refuse(take(calls, endpoint), Refusal::Internal),
                Fault::TooManyRequests { calls, endpoint } => refuse(take(calls, endpoint), Refusal::TooManyRequests),
                Fault::Refuse { calls, endpoint, status } => refuse(take(calls, endpoint), Refusal::Status(*status)),
                Fault::WrongSecret => refuse(true, Refusal::WrongSecret),
                Fault::UnknownApp => refuse(true, Refusal::UnknownApp),
                Fault::NoService => refuse(true, Refusal::NoService),
                Fault::SlowReply { calls, endpoint, milliseconds } => {
                    let is_slow = take(calls, endpoint);
                    let milliseconds = if is_slow { *milliseconds } else { 0 };
                    verdict.delay = verdict.delay.max(Duration::from_millis(milliseconds));
                    is_slow
                }
                Fault::LoseReply { calls, endpoint } => {
                    let is_lost = take(calls, endpoint);
                    verdict.lose_reply |= is_lost;
                    is_lost
                }
                Fault::Hang { calls, endpoint } => {
                    let hangs = take(calls, endpoint);
                    verdict.hang |= hangs;
                    hangs
                }
                _ => false,
            };
            if is_hit {
                on.hit(endpoint);
            }
        }
        verdict
    }

    /// Whether the GET of a session that was never there is to hang.
    pub(crate) fn hangs_unknown_session(&mut self) -> bool {
        let on = self.on.iter_mut().find(|on| on.fault == Fault::HangUnknownSession);
        on.map(|on| on.hit(Endpoint::GetSession)).is_some()
    }

    /// Whether the session that is made now is to connect.
    pub(crate) fn session_connects(&mut self) -> bool {
        self.sessions += 1;
        let number = self.sessions;
        let is_its_turn = |on: &&mut FaultInfo| match on.fault {
            Fault::NeverConnectOneIn { n } => number.is_multiple_of(n),
            _ => false,
        };
        let on = self.on.iter_mut().find(is_its_turn);
        on.map(|on| on.hit(Endpoint::SessionsNew)).is_none()
    }

    /// Whether one item of the pull that is answered now is to fail.
    pub(crate) fn mixes_result(&mut self) -> bool {
        for on in &mut self.on {
            if let Fault::MixedResult { calls } = &mut on.fault
                && *calls > 0
            {
                *calls -= 1;
                on.hit(Endpoint::Pull);
                return true;
            }
        }
        false
    }
}
