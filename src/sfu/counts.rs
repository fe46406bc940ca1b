//! How the calls of the SFU's API ended, for monitoring. Counted where every reply passes ([`super::https`]), over all
//! clients of this process; bounds: one counter for each call and outcome.

use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{Call, CallError, Cause};

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A 2xx with a body that could be read.
    Ok,
    /// A status below 500.
    Refused,
    /// 429.
    RateLimited,
    /// A status of 500 or above.
    ServerError,
    /// Nothing was sent.
    Unreachable,
    /// Sent, and no usable reply came.
    ReplyLost,
}

impl Outcome {
    /// All outcomes, in the order of the table.
    pub const ALL: [Self; 6] =
        [Self::Ok, Self::Refused, Self::RateLimited, Self::ServerError, Self::Unreachable, Self::ReplyLost];

    /// As it stands in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::RateLimited => "rate_limited",
            Self::ServerError => "server_error",
            Self::Unreachable => "unreachable",
            Self::ReplyLost => "reply_lost",
        }
    }

    fn of<T>(reply: &Result<T, CallError>) -> Self {
        match reply.as_ref().map_err(|error| &error.cause) {
            Ok(_) => Self::Ok,
            Err(Cause::Unreachable(_)) => Self::Unreachable,
            Err(Cause::ReplyLost(_) | Cause::TimedOut(_)) => Self::ReplyLost,
            Err(Cause::Refused { status: 429, .. }) => Self::RateLimited,
            Err(Cause::Refused { status: 500.., .. }) => Self::ServerError,
            Err(Cause::Refused { .. }) => Self::Refused,
        }
    }
}

/// The calls, in the order of the table.
pub const CALLS: [Call; 6] =
    [Call::NewSession, Call::NewTracks, Call::Renegotiate, Call::CloseTracks, Call::Inspect, Call::TurnCredentials];

/// One counter for each call and outcome.
struct Counts([[AtomicU64; Outcome::ALL.len()]; CALLS.len()]);

impl Counts {
    const fn new() -> Self {
        Self([const { [const { AtomicU64::new(0) }; Outcome::ALL.len()] }; CALLS.len()])
    }

    fn counter(&self, call: Call, outcome: Outcome) -> Option<&AtomicU64> {
        let row = self.0.get(CALLS.iter().position(|other| *other == call)?)?;
        row.get(Outcome::ALL.iter().position(|other| *other == outcome)?)
    }

    fn count<T>(&self, call: Call, reply: &Result<T, CallError>) {
        if let Some(counter) = self.counter(call, Outcome::of(reply)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn total(&self, call: Call, outcome: Outcome) -> u64 {
        self.counter(call, outcome).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

static COUNTS: Counts = Counts::new();

/// Counts a call that is over.
pub(super) fn count<T>(call: Call, reply: &Result<T, CallError>) {
    COUNTS.count(call, reply);
}

/// How often a call has ended so.
pub fn total(call: Call, outcome: Outcome) -> u64 {
    COUNTS.total(call, outcome)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_call_and_outcome_has_a_counter_of_its_own() {
        let error = |cause| Err::<(), _>(CallError { call: Call::Inspect, cause });
        let refused = |status| {
            let (code, description, cf_ray) = (String::new(), String::new(), String::new());
            error(Cause::Refused { status, code, description, cf_ray, retry_after: None })
        };
        let counts = Counts::new();
        for (reply, outcome) in [
            (Ok(()), Outcome::Ok),
            (refused(404), Outcome::Refused),
            (refused(429), Outcome::RateLimited),
            (refused(500), Outcome::ServerError),
            (error(Cause::Unreachable(String::new())), Outcome::Unreachable),
            (error(Cause::ReplyLost(String::new())), Outcome::ReplyLost),
        ] {
            assert_eq!(counts.total(Call::Inspect, outcome), 0, "{}", outcome.as_str());
            counts.count(Call::Inspect, &reply);
            assert_eq!(counts.total(Call::Inspect, outcome), 1, "{}", outcome.as_str());
        }
        counts.count(Call::Inspect, &error(Cause::TimedOut(Duration::from_secs(12))));
        assert_eq!(counts.total(Call::Inspect, Outcome::ReplyLost), 2);
        let sum = |call| Outcome::ALL.into_iter().map(|outcome| counts.total(call, outcome)).sum::<u64>();
        assert_eq!(CALLS.map(sum), [0, 0, 0, 0, 7, 0]);
    }
}
