//! `GET /api/events`: server-sent events (HTML standard, §9.2) for pages that show how things stand.
//!
//! ```text
//! event: status    data: {"guests": […]}                     as GET /api/guests, at once and then each second in which it
//!                                                            changed
//! event: unknown   data: {"reason": "…"}                     in place of a status: the media thread does not answer
//! event: state     data: {"guest": "guest1", "state": "live"}    when it happens
//! : still here                                               after 15 s without either
//! ```
//! While nobody listens nothing is asked, computed or woken. Bounds: those of [`Listeners`](super::listeners):
//! whoever reads too slowly is dropped and may connect again.

use std::time::Duration;

use serde::Serialize;
use smol::Timer;

use super::api;
use super::backend::Backend;
use super::listeners::event;
use super::message::{Method, Refusal, Response, ServerSentEvent};
use super::site::Site;

/// Between two looks at how things stand.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// A connection on which nothing was sent for this long gets a comment, so that no proxy takes it for dead.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What keeps it alive.
pub(super) const COMMENT: &[u8] = b": still here\n\n";
/// How long a page waits before it connects again.
const RETRY: &str = "retry: 2000\n\n";

/// The stream, or 503 when there are enough. HEAD gets the head alone.
pub(super) async fn respond<B: Backend>(site: &Site<B>, method: Method) -> Result<Response, Refusal> {
    let mut response = Response::new(200)
        .with("content-type", "text/event-stream")
        .with("cache-control", "no-store")
        .with("x-content-type-options", "nosniff");
    if method != Method::Head {
        let first = [RETRY.as_bytes(), &status(site).await].concat();
        let events = site.events.listen(first.into());
        let too_many = || Refusal::new(503, "too many pages listen already").retry_after(Duration::from_secs(10));
        response.stream = Some(events.ok_or_else(too_many)?);
    }
    Ok(response)
}

/// Publishes the status once a second for as long as somebody listens. Runs as long as the server.
pub(super) async fn run<B: Backend>(site: &Site<B>) {
    let mut last = ServerSentEvent::from([]);
    loop {
        if !site.events.is_heard() {
            site.events.wait_for_one().await;
        }
        Timer::after(STATUS_INTERVAL).await;
        let status = status(site).await;
        if status != last {
            site.events.publish(&status);
            last = status;
        }
    }
}

async fn status<B: Backend>(site: &Site<B>) -> ServerSentEvent {
    #[derive(Serialize)]
    struct Unknown {
        reason: String,
    }
    match site.backend.guests().await {
        Ok(guests) => event("status", &api::Guests { guests }),
        Err(no_answer) => event("unknown", &Unknown { reason: no_answer.to_string() }),
    }
}
