//! Why a call to Cloudflare's API failed: for the state machines a type to decide by, for the operator a text.

use std::fmt;
use std::time::Duration;

/// The calls there are; their names are the API's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    NewSession,
    NewTracks,
    Renegotiate,
    CloseTracks,
    Inspect,
    TurnCredentials,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NewSession => "sessions/new",
            Self::NewTracks => "tracks/new",
            Self::Renegotiate => "renegotiate",
            Self::CloseTracks => "tracks/close",
            Self::Inspect => "GET session",
            Self::TurnCredentials => "generate-ice-servers",
        })
    }
}

/// A call that failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// Which.
    pub call: Call,
    /// Why.
    pub cause: Cause,
}

/// How far a failed call got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing was sent: name, connection or TLS failed.
    Unreachable(String),
    /// The request may have been carried out, but no usable reply came. For a mutation: the session is of no more use.
    ReplyLost(String),
    /// The same, and the call may still be under way: no complete reply came within this time.
    TimedOut(Duration),
    /// The API said no.
    Refused {
        status: u16,
        /// `errorCode`, or empty.
        code: String,
        /// `errorDescription`, or the beginning of a body that is not the API's.
        description: String,
        /// Identifies the request to Cloudflare's support.
        cf_ray: String,
        /// What `Retry-After` asks for.
        retry_after: Option<Duration>,
    },
}

impl CallError {
    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self.cause {
            Cause::Refused { status, .. } => Some(status),
            Cause::Unreachable(_) | Cause::ReplyLost(_) | Cause::TimedOut(_) => None,
        }
    }

    /// How long the API asks us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.cause {
            Cause::Refused { retry_after, .. } => retry_after,
            Cause::Unreachable(_) | Cause::ReplyLost(_) | Cause::TimedOut(_) => None,
        }
    }

    /// The call may have changed something: no reply, or an error of the server itself.
    pub fn is_outcome_unknown(&self) -> bool {
        match self.cause {
            Cause::Unreachable(_) => false,
            Cause::ReplyLost(_) | Cause::TimedOut(_) => true,
            Cause::Refused { status, .. } => status >= 500,
        }
    }

    /// Nobody knows whether the call was carried out, the API's own words being missing.
    pub fn is_unanswered(&self) -> bool {
        matches!(self.cause, Cause::ReplyLost(_) | Cause::TimedOut(_))
    }

    /// The session that the call named, or one that it refers to, is no more.
    pub fn is_gone(&self) -> bool {
        self.call != Call::NewSession && matches!(self.status(), Some(404 | 410))
    }

    /// Whether the same request may succeed later without any change on our side.
    pub fn is_transient(&self) -> bool {
        match self.cause {
            Cause::Unreachable(_) | Cause::ReplyLost(_) | Cause::TimedOut(_) => true,
            Cause::Refused { status, .. } => matches!(status, 408 | 425 | 429) || status >= 500,
        }
    }

    /// True if a close that failed so is worth another try. A close that was carried out twice does no harm. One that timed
    /// out is no lost one: it hangs on a session that is dead, and is still under way, so that a second one would overlap
    /// with it.
    pub(super) fn is_worth_repeating(&self) -> bool {
        let code = match &self.cause {
            Cause::TimedOut(_) => return false,
            Cause::Refused { code, .. } => code.as_str(),
            Cause::Unreachable(_) | Cause::ReplyLost(_) => "",
        };
        self.is_transient() || matches!(code, "internal_error" | "backend_error")
    }

    /// Key, app or host are wrong: nothing will work until the operator mends them.
    pub fn is_misconfiguration(&self) -> bool {
        match self.status() {
            Some(401 | 403) => true,
            // Of an app, not of a session. Also for some seconds after an app was created.
            Some(404) => matches!(self.call, Call::NewSession | Call::TurnCredentials),
            Some(300..=399) => true,
            _ => false,
        }
    }

    /// What the operator can do about it, if it is in their hands.
    pub fn remedy(&self) -> Option<&'static str> {
        let turn = self.call == Call::TurnCredentials;
        match &self.cause {
            Cause::Unreachable(_) => {
                Some("check this machine's way to the internet (name resolution, TCP port 443) and its clock")
            }
            Cause::Refused { status: 401, .. } if turn => {
                Some("check cloudflare.turn_api_token: it belongs to the TURN key")
            }
            Cause::Refused { status: 401, .. } => {
                Some("check cloudflare.calls_api_token: it is the app's own secret, not an account token")
            }
            Cause::Refused { status: 403, .. } => {
                Some("something in front of the API refuses this machine; give Cloudflare's support the cf-ray")
            }
            Cause::Refused { status: 404, .. } if turn => Some("check cloudflare.turn_token_id"),
            Cause::Refused { status: 404, .. } if self.call == Call::NewSession => {
                Some("check cloudflare.calls_app_id; an app made a moment ago takes some seconds")
            }
            Cause::Refused { status: 300..=399, .. } => Some("check cloudflare.api_base"),
            _ => None,
        }
    }

    /// What happened, without what to do about it.
    pub fn facts(&self) -> String {
        let call = self.call;
        match &self.cause {
            Cause::Unreachable(reason) => format!("{call}: the SFU's API is unreachable: {reason}"),
            Cause::ReplyLost(reason) => format!("{call}: the reply was lost: {reason}"),
            Cause::TimedOut(limit) => format!("{call}: no complete reply within {limit:?}"),
            Cause::Refused { status, code, description, cf_ray, .. } => {
                let code = if code.is_empty() { String::new() } else { format!(" {code}") };
                let description = if description.is_empty() { String::new() } else { format!(" \"{description}\"") };
                let cf_ray = if cf_ray.is_empty() { String::new() } else { format!(" (cf-ray {cf_ray})") };
                format!("{call}: refused with {status}{code}{description}{cf_ray}")
            }
        }
    }
}

/// For the operator: the facts, and what to do about them.
impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.facts())?;
        match self.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CallError {}
