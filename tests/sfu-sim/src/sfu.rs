//! The state as threads share it: one lock, one condition for calls that wait, and the order of one session's mutations.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

use crate::api::ApiError;
use crate::fault::Endpoint;
use crate::ledger::Rule;
use crate::session::EndReason;
use crate::state::State;

/// The longest sleep of a call that waits.
const TICK: std::time::Duration = std::time::Duration::from_millis(100);

pub(crate) struct Sfu {
    state: Mutex<State>,
    changed: Condvar,
    stopping: AtomicBool,
}

pub(crate) type Guard<'a> = MutexGuard<'a, State>;

impl Sfu {
    pub(crate) fn new(state: State) -> Sfu {
        Sfu { state: Mutex::new(state), changed: Condvar::new(), stopping: AtomicBool::new(false) }
    }

    pub(crate) fn lock(&self) -> Guard<'_> {
        self.state.lock().expect("no thread panics while it holds this lock")
    }

    /// Wakes the calls that wait.
    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.notify();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Until something happened, a tick is over, or `deadline`.
    pub(crate) fn wait<'a>(&self, guard: Guard<'a>, deadline: Instant) -> Guard<'a> {
        let timeout = deadline.saturating_duration_since(Instant::now()).min(TICK);
        let waited = self.changed.wait_timeout(guard, timeout);
        waited.expect("no thread panics while it holds this lock").0
    }

    /// Sleeps without the lock.
    pub(crate) fn sleep<'a>(&'a self, mut guard: Guard<'a>, deadline: Instant) -> Guard<'a> {
        while Instant::now() < deadline && !self.is_stopping() {
            guard = self.wait(guard, deadline);
        }
        guard
    }

    /// Waits for a transport that was negotiated to connect; 425 when it does not in time, 410 when the session ends.
    pub(crate) fn hold_until_connected<'a>(&'a self, mut guard: Guard<'a>, id: &str) -> Result<Guard<'a>, ApiError> {
        let deadline = Instant::now() + guard.settings.times.not_ready_hold;
        loop {
            let session = guard.session(id)?;
            if !session.is_negotiated() || session.is_connected() {
                return Ok(guard);
            }
            if Instant::now() >= deadline || self.is_stopping() {
                return Err(ApiError::not_ready());
            }
            guard = self.wait(guard, deadline);
        }
    }

    /// Begins a mutation of a session; 406 while another one is under way. `answers`: it may end our own offer's exchange.
    pub(crate) fn begin(&self, id: &str, what: Endpoint, answers: bool) -> Result<Mutation<'_>, ApiError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        // A close that comes after the peer's goodbye is in vain but no mistake: whoever closes a browser's tracks learns
        // of its goodbye no sooner than we do.
        let is_own_doing = what != Endpoint::TracksClose && state.end_reason(id).is_some_and(EndReason::is_deliberate);
        let session =
            state.session(id).map_err(|error| if is_own_doing { error.breaks(Rule::CallAfterClose) } else { error })?;
        if session.busy || session.offer_pending && !answers {
            return Err(ApiError::overlap());
        }
        session.busy = true;
        if session.reply_lost && what != Endpoint::TracksClose {
            let rule = Rule::ReusedAfterLostReply;
            state.ledger.violation(rule, Some(id), what.name());
        }
        Ok(Mutation { sfu: self, id: id.to_owned() })
    }
}

/// A mutation under way; its end makes room for the next one.
pub(crate) struct Mutation<'a> {
    sfu: &'a Sfu,
    id: String,
}

impl Drop for Mutation<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.sfu.lock().sessions.get_mut(&self.id) {
            session.busy = false;
        }
    }
}
