//! Faults on demand: what `POST /control` and the handle's methods can turn on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A call of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    SessionsNew,
    TracksNew,
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
            Self::TracksNew => "POST tracks/new",
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

/// The faults that are on.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    on: Vec<Fault>,
    calls: u32,
    sessions: u32,
}

impl Faults {
    pub(crate) fn turn_on(&mut self, fault: Fault) {
        self.on.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        *self = Faults::default();
    }

    /// Takes one call's share of the faults.
    pub(crate) fn judge(&mut self, endpoint: Endpoint) -> Verdict {
        let mut verdict = Verdict::default();
        self.calls += 1;
        let number = self.calls;
        let take = |calls: &mut u32, wanted: &Option<Endpoint>| {
            let applies = *calls > 0 && wanted.is_none_or(|wanted| wanted == endpoint);
            *calls -= u32::from(applies);
            applies
        };
        for fault in &mut self.on {
            match fault {
                Fault::FailOneIn { n } if number.is_multiple_of(*n) => {
                    verdict.refuse = Some(Refusal::Internal);
                }
                Fault::Fail { calls, endpoint } => {
                    let fails = take(calls, endpoint).then_some(Refusal::Internal);
                    verdict.refuse = fails.or(verdict.refuse);
                }
                Fault::TooManyRequests { calls, endpoint } => {
                    let limited = take(calls, endpoint).then_some(Refusal::TooManyRequests);
                    verdict.refuse = limited.or(verdict.refuse);
                }
                Fault::Refuse { calls, endpoint, status } => {
                    let refused = take(calls, endpoint).then_some(Refusal::Status(*status));
                    verdict.refuse = refused.or(verdict.refuse);
                }
                Fault::SlowReply { calls, endpoint, milliseconds } => {
                    let is_slow = take(calls, endpoint);
                    let milliseconds = if is_slow { *milliseconds } else { 0 };
                    verdict.delay = verdict.delay.max(Duration::from_millis(milliseconds));
                }
                Fault::LoseReply { calls, endpoint } => {
                    verdict.lose_reply |= take(calls, endpoint);
                }
                Fault::Hang { calls, endpoint } => verdict.hang |= take(calls, endpoint),
                Fault::WrongSecret => verdict.refuse = Some(Refusal::WrongSecret),
                Fault::UnknownApp => verdict.refuse = Some(Refusal::UnknownApp),
                Fault::NoService => verdict.refuse = Some(Refusal::NoService),
                _ => {}
            }
        }
        verdict
    }

    pub(crate) fn hangs_unknown_session(&self) -> bool {
        self.on.contains(&Fault::HangUnknownSession)
    }

    /// Whether the session that is made now is to connect.
    pub(crate) fn session_connects(&mut self) -> bool {
        self.sessions += 1;
        let number = self.sessions;
        !self.on.iter().any(|fault| matches!(fault, Fault::NeverConnectOneIn { n } if number.is_multiple_of(*n)))
    }

    /// Whether one item of the pull that is answered now is to fail.
    pub(crate) fn mixes_result(&mut self) -> bool {
        self.on.iter_mut().any(|fault| match fault {
            Fault::MixedResult { calls } if *calls > 0 => {
                *calls -= 1;
                true
            }
            _ => false,
        })
    }
}
