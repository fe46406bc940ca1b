//! [`Listeners`]: the queues of those who listen to `GET /api/events`, and the form of an event.
//!
//! Bounds: [`LISTENERS_MAX`] listeners, [`QUEUE_MAX`] events waiting for each; whoever lets them fill is dropped.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use smol::channel::{self, Receiver, Sender, TrySendError};

use super::message::{ServerSentEvent, ServerSentEvents};
use crate::guest::State;
use crate::guest::id::GuestId;

/// Listeners at a time; further ones are refused.
pub const LISTENERS_MAX: usize = 16;
/// Events that may wait for one listener: as many seconds of status.
pub const QUEUE_MAX: usize = 16;

/// See the module.
pub struct Listeners {
    listeners: RefCell<Vec<Sender<ServerSentEvent>>>,
    /// Tells [`Self::wait_for_one`] that a listener has come.
    awake: Sender<()>,
    woken: Receiver<()>,
}

impl Default for Listeners {
    fn default() -> Self {
        let (awake, woken) = channel::bounded(1);
        Self { listeners: RefCell::default(), awake, woken }
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listeners({} listeners)", self.listeners.borrow().len())
    }
}

impl Listeners {
    /// Tells everybody that a guest's state changed.
    pub fn publish_state(&self, guest: &GuestId, state: State) {
        #[derive(Serialize)]
        struct Change<'a> {
            guest: &'a GuestId,
            state: State,
        }
        if self.is_heard() {
            self.publish(&event("state", &Change { guest, state }));
        }
    }

    /// A queue of what is published from now on, beginning with `first`; `None` when there are enough listeners.
    pub(super) fn listen(&self, first: ServerSentEvent) -> Option<ServerSentEvents> {
        if self.is_heard() && self.listeners.borrow().len() >= LISTENERS_MAX {
            return None;
        }
        let (to, events) = channel::bounded(QUEUE_MAX);
        let _ = to.try_send(first);
        self.listeners.borrow_mut().push(to);
        // Full: it is awake already.
        let _ = self.awake.try_send(());
        Some(events)
    }

    /// Waits until a listener comes. May end at once when one came before.
    pub(super) async fn wait_for_one(&self) {
        // Never closed: we hold the sender.
        let _ = self.woken.recv().await;
    }

    /// Whether anybody listens. Forgets those who have gone.
    pub(super) fn is_heard(&self) -> bool {
        let mut listeners = self.listeners.borrow_mut();
        listeners.retain(|listener| !listener.is_closed());
        !listeners.is_empty()
    }

    /// Queues an event for everybody; who has no room left is dropped.
    pub(super) fn publish(&self, event: &ServerSentEvent) {
        self.listeners.borrow_mut().retain(|listener| match listener.try_send(Arc::clone(event)) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) => {
                // What is queued is out of date: the connection ends now.
                listener.close();
                log::debug!("http: a listener of events reads too slowly and is dropped");
                false
            }
        });
    }
}

/// An event as it is written. The data is JSON without line feeds, so that one field holds it.
pub(super) fn event(name: &str, data: &impl Serialize) -> ServerSentEvent {
    let data = serde_json::to_string(data).expect("our types have string keys and finite numbers or null");
    format!("event: {name}\ndata: {data}\n\n").into_bytes().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn guest() -> GuestId {
        GuestId::parse("guest1").unwrap()
    }

    #[test]
    fn a_listener_hears_what_happens_and_is_forgotten_when_gone() {
        let listeners = Listeners::default();
        listeners.publish_state(&guest(), State::Live);
        let events = listeners.listen(ServerSentEvent::from(*b"first")).unwrap();
        listeners.publish_state(&guest(), State::Holding);
        assert_eq!(&*events.try_recv().unwrap(), b"first");
        let event = events.try_recv().unwrap();
        assert_eq!(&*event, b"event: state\ndata: {\"guest\":\"guest1\",\"state\":\"holding\"}\n\n");
        assert!(events.try_recv().is_err());
        drop(events);
        assert!(!listeners.is_heard());
    }

    #[test]
    fn whoever_does_not_read_is_dropped_when_the_queue_is_full() {
        let listeners = Listeners::default();
        let slow = listeners.listen(ServerSentEvent::from([])).unwrap();
        let quick = listeners.listen(ServerSentEvent::from([])).unwrap();
        for _ in 0..QUEUE_MAX {
            while quick.try_recv().is_ok() {}
            assert!(listeners.is_heard());
            listeners.publish_state(&guest(), State::Live);
        }
        assert!(slow.is_closed());
        assert!(!quick.is_closed());
        assert_eq!(listeners.listeners.borrow().len(), 1);
    }

    #[test]
    fn listeners_are_limited_and_a_place_is_free_again_when_one_leaves() {
        let listeners = Listeners::default();
        let mut all: Vec<_> =
            (0..LISTENERS_MAX).map(|_| listeners.listen(ServerSentEvent::from([])).unwrap()).collect();
        assert!(listeners.listen(ServerSentEvent::from([])).is_none());
        all.pop();
        assert!(listeners.listen(ServerSentEvent::from([])).is_some());
    }
}
