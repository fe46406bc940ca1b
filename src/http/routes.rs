//! Which path means what, and which methods it takes. Deny by default: a path that is not in the table is 404, a method
//! that is not in a path's list is 405 with `Allow`.
//!
//! Paths are compared as sent. Nothing is decoded or normalised, so `%2e%2e`, `//` and the like are just unknown paths.

use std::time::Instant;

use super::backend::{Backend, Farewell, MediaPath};
use super::message::{Method, Refusal, Request, Response};
use super::pages::Pages;
use super::site::{ENDPOINTS, Site};
use super::{api, events, metrics, sfu, whip};
use crate::guest::id::{GuestId, ResourceId};

/// Answers one request. Never fails: whatever goes wrong is a status with a reason.
pub async fn respond<B: Backend>(site: &Site<B>, request: Request) -> Response {
    let route = match Route::parse(&request.path) {
        Ok(route) => route,
        // A page elsewhere learns why only with these fields.
        Err(refusal) if ENDPOINTS.iter().any(|(prefix, _)| request.path.starts_with(prefix)) => {
            return whip::with_cors(refusal.into());
        }
        Err(refusal) => return refusal.into(),
    };
    let cors = route.is_whip();
    let response = if request.method == Method::Options {
        route.options()
    } else if !route.methods().contains(&request.method) {
        Response::text(405, format!("{} is not served here", request.method.as_str())).with("allow", route.allow())
    } else {
        dispatch(site, route, request).await
    };
    if cors { whip::with_cors(response) } else { response }
}

async fn dispatch<B: Backend>(site: &Site<B>, route: Route, request: Request) -> Response {
    let now = Instant::now();
    let answer = match route {
        Route::Page(name) => Ok(site.pages.respond(name, request.header("if-none-match"))),
        Route::Guests => api::guests(&site.backend).await,
        Route::Keyframe { guest } => api::request_keyframe(site, &guest, &request, now).await,
        Route::PageFacts => Ok(api::page_facts(site, &request.client)),
        Route::IceServers => sfu::ice_servers(site, &request.client, now).await,
        Route::SfuSessions => Ok(sfu::sessions(&site.backend)),
        Route::SfuSession { guest } => sfu::close(site, guest, &request, now).await,
        Route::Health => Ok(api::health(&site.backend).await),
        Route::Metrics => metrics::respond(&site.backend).await,
        Route::Events => events::respond(site, request.method).await,
        Route::Publish { guest, path } => whip::publish(site, guest, path, request, now).await,
        Route::Session { guest, resource } if request.method == Method::Patch => {
            whip::trickle(site, guest, resource, request, now).await
        }
        Route::Status { guest, resource } => whip::status(site, &guest, &resource, request.client, now),
        Route::Session { guest, resource } => {
            whip::leave(site, guest, resource, Farewell::Final, request.client, now).await
        }
        Route::Leave { guest, resource } => {
            whip::leave(site, guest, resource, Farewell::MayReturn, request.client, now).await
        }
    };
    answer.unwrap_or_else(Response::from)
}

/// The resource of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/`, `/guest_join`, `/static/…`: a file compiled into the binary, by its name there.
    Page(&'static str),
    /// `/api/guests`
    Guests,
    /// `/api/guests/{guest_id}/keyframe`
    Keyframe {
        /// Whose.
        guest: GuestId,
    },
    /// `/api/page`
    PageFacts,
    /// `/healthz`
    Health,
    /// `/metrics`
    Metrics,
    /// `/api/events`
    Events,
    /// `/api/ice-servers`
    IceServers,
    /// `/api/calls/sessions`
    SfuSessions,
    /// `/api/calls/session/{guest_id}`: whichever session a guest publishes through the SFU.
    SfuSession {
        /// Whose.
        guest: GuestId,
    },
    /// `/whip/{guest_id}`, `/api/calls/whip/{guest_id}`: the WHIP endpoints of a guest.
    Publish {
        /// Whose.
        guest: GuestId,
        /// How the media is to come.
        path: MediaPath,
    },
    /// `/whip/{guest_id}/{resource}` and below the other endpoint: a WHIP session.
    Session {
        /// Whose.
        guest: GuestId,
        /// Which.
        resource: ResourceId,
    },
    /// `…/{resource}/status`: whether the session still holds the slot. Not the session's own address, whose GET RFC 9725
    /// keeps for later.
    Status {
        /// Whose.
        guest: GuestId,
        /// Which.
        resource: ResourceId,
    },
    /// `…/{resource}/leave`: the goodbye of a page that closes, as a POST for `sendBeacon`.
    Leave {
        /// Whose.
        guest: GuestId,
        /// Which.
        resource: ResourceId,
    },
}

impl Route {
    /// The route of a path without query; 404 for an unknown path, 400 for a guest id that cannot be one.
    pub fn parse(path: &str) -> Result<Self, Refusal> {
        let not_found = || Refusal::new(404, "there is nothing at this address");
        match path {
            "/healthz" => return Ok(Self::Health),
            "/metrics" => return Ok(Self::Metrics),
            "/api/guests" => return Ok(Self::Guests),
            "/api/events" => return Ok(Self::Events),
            "/api/page" => return Ok(Self::PageFacts),
            "/api/ice-servers" => return Ok(Self::IceServers),
            "/api/calls/sessions" => return Ok(Self::SfuSessions),
            _ => {}
        }
        let guest_id = |text| GuestId::parse(text).map_err(|error| Refusal::new(400, error.to_string()));
        if let Some(guest) = path.strip_prefix("/api/calls/session/") {
            return match guest.contains('/') {
                true => Err(not_found()),
                false => guest_id(guest).map(|guest| Self::SfuSession { guest }),
            };
        }
        if let Some(rest) = path.strip_prefix("/api/guests/") {
            let guest = rest.strip_suffix("/keyframe").filter(|guest| !guest.contains('/')).ok_or_else(not_found)?;
            return guest_id(guest).map(|guest| Self::Keyframe { guest });
        }
        let endpoint =
            ENDPOINTS.iter().find_map(|(prefix, media_path)| Some((path.strip_prefix(prefix)?, *media_path)));
        let Some((whip, media_path)) = endpoint else {
            return Pages::name_of(path).map(Self::Page).ok_or_else(not_found);
        };
        let mut segments = whip.split('/');
        let guest = guest_id(segments.next().unwrap_or_default())?;
        let resource = match (segments.next(), segments.clone().next()) {
            // With a slash at the end, as people type it into an encoder.
            (None | Some(""), None) => return Ok(Self::Publish { guest, path: media_path }),
            (resource, _) => resource.unwrap_or_default(),
        };
        let resource = ResourceId::parse(resource).ok_or_else(not_found)?;
        match (segments.next(), segments.next()) {
            (None, _) => Ok(Self::Session { guest, resource }),
            (Some("leave"), None) => Ok(Self::Leave { guest, resource }),
            (Some("status"), None) => Ok(Self::Status { guest, resource }),
            _ => Err(not_found()),
        }
    }

    /// Methods served besides OPTIONS.
    fn methods(&self) -> &'static [Method] {
        match self {
            Self::Page(_)
            | Self::Guests
            | Self::PageFacts
            | Self::Health
            | Self::Metrics
            | Self::Events
            | Self::IceServers
            | Self::SfuSessions
            | Self::Status { .. } => &[Method::Get, Method::Head],
            Self::SfuSession { .. } => &[Method::Delete],
            Self::Publish { .. } | Self::Leave { .. } | Self::Keyframe { .. } => &[Method::Post],
            Self::Session { .. } => &[Method::Patch, Method::Delete],
        }
    }

    fn allow(&self) -> String {
        let mut allow = String::from("OPTIONS");
        for method in self.methods() {
            allow.push_str(", ");
            allow.push_str(method.as_str());
        }
        allow
    }

    fn is_whip(&self) -> bool {
        matches!(self, Self::Publish { .. } | Self::Session { .. } | Self::Status { .. } | Self::Leave { .. })
    }

    fn options(&self) -> Response {
        let response = Response::new(204).with("allow", self.allow());
        match self {
            Self::Publish { .. } => response.with("accept-post", whip::OFFER_TYPE),
            Self::Session { .. } => response.with("accept-patch", whip::FRAGMENT_TYPE),
            _ => response,
        }
    }
}
