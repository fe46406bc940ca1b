//! What clients did: calls per endpoint, and each thing that the API's rules forbid.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The oldest go when there are more.
const MAX_VIOLATIONS: usize = 1000;
const MAX_CALLS_PER_SECOND: usize = 50;

/// Which rule a client broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// A mutation while another one on the same session had not ended; an offer's exchange ends with its answer.
    ConcurrentMutation,
    /// More than 50 calls a second for one session.
    Rate,
    /// A mutation on a session that the client itself had ended.
    CallAfterClose,
    /// An answer that nobody asked for, an offer where an answer is due, a replayed answer.
    WrongOrder,
    /// A mutation on a session whose previous mutation got no reply: its state is unknown, it is to be thrown away.
    ReusedAfterLostReply,
    /// An endpoint that does not exist.
    UnknownEndpoint,
    /// No User-Agent.
    UserAgent,
    /// A body or session description that the API refuses.
    BadRequest,
    /// Connectivity checks of two live sessions from one address: there is one media address for all sessions, so what
    /// is not STUN cannot be told apart.
    SharedAddress,
    /// DTLS role other than `active` in an answer to our `actpass` offer.
    DtlsRole,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    pub rule: Rule,
    pub session: Option<String>,
    pub detail: String,
}

/// Calls of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCount {
    pub total: u64,
    /// Answered with 4xx or 5xx.
    pub failed: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) calls: BTreeMap<String, CallCount>,
    violations: VecDeque<Violation>,
}

impl Ledger {
    pub(crate) fn count(&mut self, endpoint: &str, status: u16) {
        let count = self.calls.entry(endpoint.to_owned()).or_default();
        count.total += 1;
        count.failed += u64::from(status >= 400);
    }

    pub(crate) fn violation(&mut self, rule: Rule, session: Option<&str>, detail: impl Into<String>) {
        if self.violations.len() == MAX_VIOLATIONS {
            self.violations.pop_front();
        }
        self.violations.push_back(Violation { rule, session: session.map(str::to_owned), detail: detail.into() });
    }

    pub(crate) fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.violations.iter()
    }
}

/// The calls of one session in the last second ([`Times::rate_window`](crate::Times::rate_window)).
#[derive(Clone, Debug, Default)]
pub(crate) struct Rate(VecDeque<Instant>);

impl Rate {
    /// False when it is one too many.
    pub(crate) fn admit(&mut self, window: Duration, now: Instant) -> bool {
        while self.0.front().is_some_and(|at| now.saturating_duration_since(*at) >= window) {
            self.0.pop_front();
        }
        if self.0.len() >= MAX_CALLS_PER_SECOND {
            return false;
        }
        self.0.push_back(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::times::Times;

    #[test]
    fn fifty_calls_are_admitted_in_any_second() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let mut admitted = |milliseconds, calls| {
            let now = start + Duration::from_millis(milliseconds);
            (0..calls).filter(|_| rate.admit(Times::REAL.rate_window, now)).count()
        };
        assert_eq!((admitted(0, 30), admitted(500, 30)), (30, 20));
        assert_eq!((admitted(999, 1), admitted(1000, 60), admitted(1499, 1)), (0, 30, 0));
        assert_eq!(admitted(1500, 60), 20);
    }
}
