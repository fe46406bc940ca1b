//! `GET /api/events`: server-sent events (HTML standard, §9.2) for pages that show how things stand.
//!
//! ```text
//! event: status    data: {"guests": […]}                     as GET /api/guests, at once and then each second in which it
//!                                                            changed
//! event: unknown   data: {"reason": "…"}                     in place of a status: the media thread does not answer
//! event: state     data: {"guest": "guest1", "state": "live"}    when it happens
//! : still here                                               after 15 s without either
//! ```
//! While nobody listens nothing is asked, computed or woken. Bounds: [`LISTENERS_MAX`] listeners, [`QUEUE_MAX`] messages
//! waiting for each; whoever lets them fill is dropped and may connect again.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use smol::Timer;
use smol::channel::{self, Receiver, Sender, TrySendError};

use super::api;
use super::backend::{Backend, Refusal};
use super::message::{Method, Response};
use super::router::Site;
use crate::guest::State;
use crate::guest::id::GuestId;

/// Listeners at a time; further ones are refused.
pub const LISTENERS_MAX: usize = 16;
/// Messages that may wait for one listener: as many seconds of status.
pub const QUEUE_MAX: usize = 16;
/// Between two looks at how things stand.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// A connection on which nothing was sent for this long gets a comment, so that no proxy takes it for dead.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What keeps it alive.
pub(super) const COMMENT: &[u8] = b": still here\n\n";
/// How long a page waits before it connects again.
const RETRY: &str = "retry: 2000\n\n";

/// One message, ready to be written; all listeners share it.
pub type Message = Arc<[u8]>;
/// The receiving end of a listener's queue; closed when the listener is dropped.
pub type Messages = Receiver<Message>;

/// The listeners.
pub struct Events {
    listeners: RefCell<Vec<Sender<Message>>>,
    /// Wakes [`run`] when the first listener comes.
    awake: Sender<()>,
    woken: Receiver<()>,
}

impl Default for Events {
    fn default() -> Self {
        let (awake, woken) = channel::bounded(1);
        Self { listeners: RefCell::default(), awake, woken }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events({} listeners)", self.listeners.borrow().len())
    }
}

impl Events {
    /// Tells everybody that a guest's life went on.
    pub fn publish_state(&self, guest: &GuestId, state: State) {
        #[derive(Serialize)]
        struct Change<'a> {
            guest: &'a GuestId,
            state: State,
        }
        if self.is_heard() {
            self.publish(&message("state", &Change { guest, state }));
        }
    }

    /// A queue of what is published from now on, beginning with `first`; `None` when there are enough listeners.
    fn listen(&self, first: Message) -> Option<Messages> {
        if self.is_heard() && self.listeners.borrow().len() >= LISTENERS_MAX {
            return None;
        }
        let (to, messages) = channel::bounded(QUEUE_MAX);
        let _ = to.try_send(first);
        self.listeners.borrow_mut().push(to);
        // Full: it is awake already.
        let _ = self.awake.try_send(());
        Some(messages)
    }

    /// Whether anybody listens. Forgets those who have gone.
    fn is_heard(&self) -> bool {
        let mut listeners = self.listeners.borrow_mut();
        listeners.retain(|listener| !listener.is_closed());
        !listeners.is_empty()
    }

    /// Queues a message for everybody; who has no room left is dropped.
    fn publish(&self, message: &Message) {
        self.listeners.borrow_mut().retain(|listener| match listener.try_send(Arc::clone(message)) {
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

/// The stream, or 503 when there are enough. HEAD gets the head alone.
pub(super) async fn respond<B: Backend>(site: &Site<B>, method: Method) -> Result<Response, Refusal> {
    let mut response = Response::new(200)
        .with("content-type", "text/event-stream")
        .with("cache-control", "no-store")
        .with("x-content-type-options", "nosniff");
    if method != Method::Head {
        let first = [RETRY.as_bytes(), &status(site).await].concat();
        let messages = site.events.listen(first.into());
        let too_many = || Refusal::new(503, "too many pages listen already").retry_after(Duration::from_secs(10));
        response.stream = Some(messages.ok_or_else(too_many)?);
    }
    Ok(response)
}

/// Publishes the status once a second for as long as somebody listens. Runs as long as the server.
pub(super) async fn run<B: Backend>(site: &Site<B>) {
    let mut last = Message::from([]);
    loop {
        if !site.events.is_heard() {
            // Never closed: the site holds the sender.
            let _ = site.events.woken.recv().await;
        }
        Timer::after(STATUS_INTERVAL).await;
        let status = status(site).await;
        if status != last {
            site.events.publish(&status);
            last = status;
        }
    }
}

async fn status<B: Backend>(site: &Site<B>) -> Message {
    #[derive(Serialize)]
    struct Unknown {
        reason: String,
    }
    match site.backend.guests().await {
        Ok(guests) => message("status", &api::Guests { guests }),
        Err(no_answer) => message("unknown", &Unknown { reason: no_answer.to_string() }),
    }
}

/// The data is JSON without line feeds, so that one field holds it.
fn message(event: &str, data: &impl Serialize) -> Message {
    let data = serde_json::to_string(data).expect("our types have string keys and finite numbers or null");
    format!("event: {event}\ndata: {data}\n\n").into_bytes().into()
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
        let events = Events::default();
        events.publish_state(&guest(), State::Live);
        let messages = events.listen(Message::from(*b"first")).unwrap();
        events.publish_state(&guest(), State::Holding);
        assert_eq!(&*messages.try_recv().unwrap(), b"first");
        let message = messages.try_recv().unwrap();
        assert_eq!(&*message, b"event: state\ndata: {\"guest\":\"guest1\",\"state\":\"holding\"}\n\n");
        assert!(messages.try_recv().is_err());
        drop(messages);
        assert!(!events.is_heard());
    }

    #[test]
    fn whoever_does_not_read_is_dropped_when_the_queue_is_full() {
        let events = Events::default();
        let slow = events.listen(Message::from([])).unwrap();
        let quick = events.listen(Message::from([])).unwrap();
        for _ in 0..QUEUE_MAX {
            while quick.try_recv().is_ok() {}
            assert!(events.is_heard());
            events.publish_state(&guest(), State::Live);
        }
        assert!(slow.is_closed());
        assert!(!quick.is_closed());
        assert_eq!(events.listeners.borrow().len(), 1);
    }

    #[test]
    fn listeners_are_limited_and_a_place_is_free_again_when_one_leaves() {
        let events = Events::default();
        let mut all: Vec<_> = (0..LISTENERS_MAX).map(|_| events.listen(Message::from([])).unwrap()).collect();
        assert!(events.listen(Message::from([])).is_none());
        all.pop();
        assert!(events.listen(Message::from([])).is_some());
    }
}
