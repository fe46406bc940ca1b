//! What producers and monitoring read: `GET /api/guests` (JSON) and `GET /healthz` (plain text); what the guest
//! page needs to know before it joins: `GET /api/page` (JSON); and what a media server calls when a reader joins:
//!
//! ```text
//! POST /api/guests/{guest_id}/keyframe   ─▶ 202, 404 unknown guest, 409 no picture goes out
//! ```

use std::time::Instant;

use serde::Serialize;

use super::backend::{Backend, GuestStatus, Health, KeyframeRequest, MediaPath};
use super::message::{ClientInfo, Refusal, Request, Response};
use super::sfu;
use super::site::Site;
use crate::guest::Guest;
use crate::guest::id::GuestId;

/// `{"guests": […]}`, in the order of the configuration.
#[derive(Serialize)]
pub(super) struct Guests {
    pub(super) guests: Vec<GuestStatus>,
}

/// How things stand.
pub(super) async fn guests<B: Backend>(backend: &B) -> Result<Response, Refusal> {
    Ok(Response::json(200, &Guests { guests: backend.guests().await? }))
}

/// Asks a guest for a keyframe. Each one costs the guest's picture quality, so that nobody from afar may ask, and no page
/// of somebody else's.
pub(super) async fn request_keyframe<B: Backend>(
    site: &Site<B>,
    guest: &GuestId,
    request: &Request,
    now: Instant,
) -> Result<Response, Refusal> {
    site.limit_session_request(request.client, now)?;
    if !sfu::is_of_our_origin(request, site.public_url.as_deref()) || !sfu::is_near(&site.backend, &request.client) {
        return Err(Refusal::new(403, "only a program on this network may do this"));
    }
    match site.backend.request_keyframe(guest).await? {
        KeyframeRequest::Asked => Ok(Response::text(202, "asked for")),
        KeyframeRequest::NoPicture => Err(Refusal::new(409, format!("{guest} shows no picture now"))),
        KeyframeRequest::NoSuchGuest => Err(Refusal::new(404, format!("there is no guest {guest}"))),
    }
}

/// `{"public_url": …, "max_bitrate_kbps": …, "path": …, "calls_configured": …, "guests": [{"id", "name", "enabled"}]}`;
/// `path` is the way the media of this client should try first.
pub(super) fn page_facts<B: Backend>(site: &Site<B>, client: &ClientInfo) -> Response {
    #[derive(Serialize)]
    struct Slot {
        id: GuestId,
        name: String,
        enabled: bool,
    }
    #[derive(Serialize)]
    struct Facts<'a> {
        public_url: Option<&'a str>,
        max_bitrate_kbps: u32,
        path: MediaPath,
        #[serde(rename = "calls_configured")]
        sfu_configured: bool,
        guests: Vec<Slot>,
    }
    let slot = |guest: Guest| Slot { id: guest.id, name: guest.name, enabled: guest.enabled };
    let facts = Facts {
        public_url: site.public_url.as_deref(),
        max_bitrate_kbps: site.max_bitrate_kbps.get(),
        path: sfu::path_for(&site.backend, client),
        sfu_configured: site.backend.sfu_configured(),
        guests: site.backend.configured().into_iter().map(slot).collect(),
    };
    Response::json(200, &facts)
}

/// 200 `ok`, or 503 with the reason.
pub(super) async fn health<B: Backend>(backend: &B) -> Response {
    let response = match backend.health().await {
        Health::Healthy => Response::text(200, "ok"),
        Health::Unhealthy(reason) => Response::text(503, reason),
    };
    response.with("cache-control", "no-store")
}
