//! WebRTC-HTTP Ingestion Protocol, server side (RFC 9725).
//!
//! ```text
//! POST   /whip/{guest_id}                    offer    ─▶ 201, answer, Location, ETag   §4.2
//! PATCH  /whip/{guest_id}/{resource}         fragment ─▶ 204, 400, 422                 §4.3.2
//! DELETE /whip/{guest_id}/{resource}                  ─▶ 200                           §4.2
//! POST   /whip/{guest_id}/{resource}/leave            ─▶ 200   (a page that closes)
//! GET    /whip/{guest_id}/{resource}/status           ─▶ 200, {"holds_slot": bool, "dropped": ["audio", "video"]}
//! ```
//!
//! The same below `/api/calls/whip/{guest_id}`, where the media goes through the SFU.
//!
//! A page that comes back after a lost connection names the session it had in `Guest-Relay-Replaces`. If somebody else
//! holds the slot by then it is refused with 409; otherwise two guests with the same link would push each other out for
//! ever. An offer without the field takes the slot over.
//!
//! A DELETE is final: the guest's picture is gone at once. A page that closes, which a reload does too, says so by `leave`:
//! the picture stands for the hold, until the session that names this one in `Guest-Relay-Replaces` shows its own. A session
//! that names none never has another one's picture stand for it.
//!
//! A page whose connection has gone quiet asks for the status, so that it learns at once when somebody else has the slot;
//! only that answer counts, never an error: while the daemon is away the media may well flow. `dropped` are the tracks
//! that the SFU has given up after a pause in which nothing was sent (a phone in the background): it takes nothing more of
//! them, and tells nobody, so that the page has to publish anew once it sends again.
//!
//! An ICE restart (§4.3.3) is not served: `If-Match: *` and a fragment with another ufrag than the offer's get 422. A guest
//! that lost its connection publishes anew, and the slot is taken over.

use std::time::Instant;

use guest_relay_muxer::TrackKind;
use serde::Serialize;

use super::backend::{Admission, Backend, Farewell, IceServer, Left, MediaPath};
use super::message::{ClientInfo, Refusal, Request, Response};
use super::site::{ENDPOINTS, Site};
use crate::guest::State;
use crate::guest::id::{GuestId, ResourceId};

/// Media type of offers and answers (RFC 8866 §8.1).
pub const OFFER_TYPE: &str = "application/sdp";
/// Media type of trickled candidates (RFC 8840 §9.4).
pub const FRAGMENT_TYPE: &str = "application/trickle-ice-sdpfrag";

/// Names the session that an offer is to replace, by the last segment of its URL.
const REPLACES: &str = "guest-relay-replaces";
/// Of a sender's name that goes into the log.
const SENDER_MAX_CHARS: usize = 60;

/// `POST` to a guest's endpoint. Whoever set a sender up wrongly finds the reason of a refusal in the log, too: many senders
/// show none.
pub(super) async fn publish<B: Backend>(
    site: &Site<B>,
    guest: GuestId,
    path: MediaPath,
    request: Request,
    now: Instant,
) -> Result<Response, Refusal> {
    let client = request.client;
    let sender: String =
        request.header("user-agent").unwrap_or("no User-Agent").chars().take(SENDER_MAX_CHARS).collect();
    let answered = answer(site, &guest, path, request, now).await;
    if let Err(Refusal { status, reason, .. }) = &answered {
        log::log!(
            site.level_of_refusal(&client, now),
            "{guest}: offer of {} ({}) refused with {status}: {reason}",
            client.remote_ip,
            sender.escape_default(),
        );
    }
    answered
}

async fn answer<B: Backend>(
    site: &Site<B>,
    guest: &GuestId,
    path: MediaPath,
    request: Request,
    now: Instant,
) -> Result<Response, Refusal> {
    check_admission(&site.backend, guest)?;
    let network = request.client.network();
    let too_many = |delay| {
        Refusal::new(429, format!("too many attempts to join as {guest}; wait before the next one")).retry_after(delay)
    };
    site.offers.borrow_mut().take(&(guest.clone(), network), now).map_err(too_many)?;
    site.network_offers.borrow_mut().take(&network, now).map_err(too_many)?;
    let former = request.header(REPLACES).map(ResourceId::parse);
    if let Some(former) = &former {
        check_not_taken(&site.backend, guest, former.as_ref()).await?;
    }
    let client = request.client;
    let offer = text_body(request, OFFER_TYPE)?;
    let published = site.backend.publish(guest, path, offer, former.flatten(), client).await?;
    let (prefix, _) = ENDPOINTS.iter().find(|(_, of)| *of == path).expect("every path has its endpoint");
    let mut response = Response::new(201);
    // The direct way needs none: our addresses are in the answer.
    if path == MediaPath::Sfu {
        for link in site.backend.ice_servers().await.iter().flat_map(ice_links) {
            response = response.with("link", link);
        }
    }
    Ok(response
        .with("content-type", OFFER_TYPE)
        .with("cache-control", "no-store")
        // Relative, so that it holds behind any proxy, under the name and scheme the client used.
        .with("location", format!("{prefix}{guest}/{}", published.resource.as_str()))
        .with("etag", quoted(&published.etag))
        .with("accept-patch", FRAGMENT_TYPE)
        .with_body(published.answer_sdp.into_bytes()))
}

/// `PATCH` on a session.
pub(super) async fn trickle<B: Backend>(
    site: &Site<B>,
    guest: GuestId,
    resource: ResourceId,
    request: Request,
    now: Instant,
) -> Result<Response, Refusal> {
    site.limit_session_request(request.client, now)?;
    let etag = site.backend.session_etag(&guest, &resource).ok_or_else(no_such_session)?;
    check_if_match(request.header("if-match"), &etag)?;
    let fragment = text_body(request, FRAGMENT_TYPE)?;
    site.backend.trickle(&guest, &resource, fragment).await?;
    Ok(Response::new(204))
}

/// `DELETE` on a session and `POST …/leave`.
pub(super) async fn leave<B: Backend>(
    site: &Site<B>,
    guest: GuestId,
    resource: ResourceId,
    farewell: Farewell,
    client: ClientInfo,
    now: Instant,
) -> Result<Response, Refusal> {
    site.limit_session_request(client, now)?;
    match site.backend.leave(&guest, &resource, farewell).await {
        Left::Ended => Ok(Response::text(200, "left")),
        Left::NoSuchSession => Err(no_such_session()),
    }
}

/// `GET …/status`: 200 in either case, so that nothing between us and the page can say "no" in our name.
pub(super) fn status<B: Backend>(
    site: &Site<B>,
    guest: &GuestId,
    resource: &ResourceId,
    client: ClientInfo,
    now: Instant,
) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct Status {
        holds_slot: bool,
        dropped: Vec<&'static str>,
    }
    site.limit_session_request(client, now)?;
    let holds_slot = site.backend.session_etag(guest, resource).is_some();
    let dropped = if holds_slot { site.backend.dropped_tracks(guest) } else { Vec::new() };
    let dropped = dropped.into_iter().map(kind_name).collect();
    Ok(Response::json(200, &Status { holds_slot, dropped }))
}

/// Adds the CORS fields (Fetch standard §3.3): any page may publish, none gets at cookies, since there are none.
pub(super) fn with_cors(response: Response) -> Response {
    response
        .with("access-control-allow-origin", "*")
        .with("access-control-allow-methods", "OPTIONS, GET, POST, PATCH, DELETE")
        .with("access-control-allow-headers", "Authorization, Content-Type, Guest-Relay-Replaces, If-Match")
        .with("access-control-expose-headers", "Accept-Patch, ETag, Guest-Relay-Fault, Link, Location, Retry-After")
        .with("access-control-max-age", "86400")
}

/// Only open slots of the configuration take guests.
fn check_admission<B: Backend>(backend: &B, guest: &GuestId) -> Result<(), Refusal> {
    match backend.admission(guest) {
        Admission::Open => Ok(()),
        Admission::Closed => Err(Refusal::new(403, format!("the producer has closed the slot {guest}"))),
        Admission::Unknown => Err(Refusal::new(404, format!("there is no guest slot {guest}"))),
    }
}

/// Refuses to replace `former` while another session is in the slot.
async fn check_not_taken<B: Backend>(backend: &B, guest: &GuestId, former: Option<&ResourceId>) -> Result<(), Refusal> {
    let still_ours = former.is_some_and(|former| backend.session_etag(guest, former).is_some());
    if still_ours {
        return Ok(());
    }
    // Without an answer it is not known whether the slot is empty, and nobody is pushed out.
    match backend.state(guest).await? {
        State::Joining | State::Publishing | State::Live => {
            Err(Refusal::new(409, format!("somebody else has joined as {guest}")))
        }
        State::Absent | State::Holding => Ok(()),
    }
}

fn no_such_session() -> Refusal {
    Refusal::new(404, "this session has ended")
}

/// RFC 9725 §4.3.1: a PATCH names the ICE session it belongs to; RFC 9110 §13.1.1: strong comparison.
fn check_if_match(if_match: Option<&str>, etag: &str) -> Result<(), Refusal> {
    match if_match {
        None => Err(Refusal::new(428, "send If-Match with the session's ETag")),
        Some("*") => Err(Refusal::new(422, "ICE restarts are not supported; publish anew")),
        Some(tags) if tags.split(',').any(|tag| tag.trim_matches([' ', '\t']) == quoted(etag)) => Ok(()),
        Some(_) => Err(Refusal::new(412, "If-Match names another ICE session")),
    }
}

/// A server as RFC 9725 §4.6 has it: one link for each of its addresses.
fn ice_links(server: &IceServer) -> impl Iterator<Item = String> {
    // RFC 9110 §5.6.4.
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let credentials = match (&server.username, &server.credential) {
        (Some(username), Some(credential)) => {
            let (username, credential) = (quoted(username), quoted(credential.expose()));
            format!("; username={username}; credential={credential}; credential-type=\"password\"")
        }
        _ => String::new(),
    };
    server.urls.iter().map(move |url| format!("<{url}>; rel=\"ice-server\"{credentials}"))
}

/// As W3C's `MediaStreamTrack.kind` has it.
fn kind_name(kind: TrackKind) -> &'static str {
    match kind {
        TrackKind::Audio => "audio",
        TrackKind::Video => "video",
    }
}

fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

/// The body as text, when it has the expected type and is not empty.
fn text_body(request: Request, media_type: &str) -> Result<String, Refusal> {
    if request.media_type() != media_type {
        return Err(Refusal::new(415, format!("send the body as Content-Type: {media_type}")));
    }
    if request.body.is_empty() {
        return Err(Refusal::new(400, "the body is empty"));
    }
    String::from_utf8(request.body).map_err(|_| Refusal::new(400, "the body is not UTF-8 text"))
}
