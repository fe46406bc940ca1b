//! Which path means what, and which methods it takes. Deny by default: a path that is not in the table is 404, a method
//! that is not in a path's list is 405 with `Allow`.
//!
//! Paths are compared as sent. Nothing is decoded or normalised, so `%2e%2e`, `//` and the like are just unknown paths.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::time::Instant;

use super::backend::{Backend, MediaPath, Refusal};
use super::events::Events;
use super::message::{Method, Request, Response};
use super::pages::Pages;
use super::rate::RateLimit;
use super::{api, events, metrics, sfu, whip};
use crate::config::Config;
use crate::guest::id::{GuestId, ResourceId};

/// Session requests (PATCH, DELETE, status, goodbye) one client network may send in a minute.
const SESSION_REQUESTS_PER_MINUTE: u32 = 120;
/// Requests for ICE servers one client network may send in a minute: each may have TURN credentials made.
const ICE_REQUESTS_PER_MINUTE: u32 = 30;
/// Offers one client network may send in a minute, for all guests together, as a multiple of the limit for one guest.
const OFFERS_PER_NETWORK_FACTOR: u32 = 4;

/// The WHIP endpoints, each followed by a guest id: the way in decides how the media comes.
pub(super) const ENDPOINTS: &[(&str, MediaPath)] =
    &[("/whip/", MediaPath::Direct), ("/api/calls/whip/", MediaPath::Sfu)];

/// Everything a request can reach.
#[derive(Debug)]
pub struct Site<B> {
    /// The rest of the daemon.
    pub backend: B,
    /// Who hears of changes as they happen.
    pub events: Events,
    pub(super) pages: Pages,
    /// Address under which guests reach us with https.
    pub(super) public_url: Option<String>,
    pub(super) max_bitrate_kbps: Cell<u32>,
    /// Offers per guest and client network.
    pub(super) offers: RefCell<RateLimit<(GuestId, IpAddr)>>,
    /// Offers per client network.
    pub(super) network_offers: RefCell<RateLimit<IpAddr>>,
    /// Other session requests per client network.
    pub(super) session_requests: RefCell<RateLimit<IpAddr>>,
    /// Requests for ICE servers per client network.
    pub(super) ice_requests: RefCell<RateLimit<IpAddr>>,
}

impl<B: Backend> Site<B> {
    /// The site as configured, with nothing asked of it yet.
    pub fn new(backend: B, config: &Config) -> Self {
        let offers_per_minute = config.http.offers_per_minute;
        Self {
            backend,
            events: Events::default(),
            pages: Pages::new(),
            public_url: config.http.public_url.clone(),
            max_bitrate_kbps: Cell::new(config.rtc.max_bitrate_kbps),
            offers: RefCell::new(RateLimit::new(offers_per_minute)),
            network_offers: RefCell::new(RateLimit::new(offers_per_minute.saturating_mul(OFFERS_PER_NETWORK_FACTOR))),
            session_requests: RefCell::new(RateLimit::new(SESSION_REQUESTS_PER_MINUTE)),
            ice_requests: RefCell::new(RateLimit::new(ICE_REQUESTS_PER_MINUTE)),
        }
    }

    /// Takes over the limits of another configuration.
    pub fn set_limits(&self, config: &Config) {
        let offers_per_minute = config.http.offers_per_minute;
        self.offers.borrow_mut().set(offers_per_minute);
        self.network_offers.borrow_mut().set(offers_per_minute.saturating_mul(OFFERS_PER_NETWORK_FACTOR));
        self.max_bitrate_kbps.set(config.rtc.max_bitrate_kbps);
    }

    /// Answers one request. Never fails: whatever goes wrong is a status with a reason.
    pub async fn respond(&self, request: Request) -> Response {
        let route = match Route::parse(&request.path) {
            Ok(route) => route,
            Err(refusal) => return refuse(refusal),
        };
        let cors = route.is_whip();
        let response = if request.method == Method::Options {
            route.options()
        } else if !route.methods().contains(&request.method) {
            Response::text(405, format!("{} is not served here", request.method.as_str())).with("allow", route.allow())
        } else {
            self.dispatch(route, request).await
        };
        if cors { whip::with_cors(response) } else { response }
    }

    async fn dispatch(&self, route: Route, request: Request) -> Response {
        let now = Instant::now();
        let answer = match route {
            Route::Page(name) => Ok(self.pages.respond(name, request.header("if-none-match"))),
            Route::Guests => api::guests(&self.backend).await,
            Route::PageFacts => Ok(api::page_facts(self, &request.client)),
            Route::IceServers => sfu::ice_servers(self, &request.client, now).await,
            Route::SfuSessions => Ok(sfu::sessions(&self.backend)),
            Route::SfuSession { guest } => sfu::close(self, guest, &request, now).await,
            Route::Health => Ok(api::health(&self.backend).await),
            Route::Metrics => metrics::respond(&self.backend).await,
            Route::Events => events::respond(self, request.method).await,
            Route::Publish { guest, path } => whip::publish(self, guest, path, request, now).await,
            Route::Session { guest, resource } if request.method == Method::Patch => {
                whip::trickle(self, guest, resource, request, now).await
            }
            Route::Status { guest, resource } => whip::status(self, &guest, &resource, request.client, now),
            Route::Session { guest, resource } | Route::Leave { guest, resource } => {
                whip::leave(self, guest, resource, request.client, now).await
            }
        };
        answer.unwrap_or_else(refuse)
    }
}

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/`, `/guest_join`, `/static/…`: a file compiled into the binary, by its name there.
    Page(&'static str),
    /// `/api/guests`
    Guests,
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
    /// `…/{resource}/leave`: the same goodbye as DELETE on the session, as a POST for `sendBeacon`.
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
        let endpoint =
            ENDPOINTS.iter().find_map(|(prefix, media_path)| Some((path.strip_prefix(prefix)?, *media_path)));
        let Some((whip, media_path)) = endpoint else {
            return Pages::name_of(path).map(Self::Page).ok_or_else(not_found);
        };
        let mut segments = whip.split('/');
        let guest = guest_id(segments.next().unwrap_or_default())?;
        let Some(resource) = segments.next() else {
            return Ok(Self::Publish { guest, path: media_path });
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
            Self::Publish { .. } | Self::Leave { .. } => &[Method::Post],
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

/// The response that tells a refusal.
pub fn refuse(refusal: Refusal) -> Response {
    let mut response = Response::text(refusal.status, refusal.reason);
    if let Some(fault) = refusal.fault {
        response = response.with("guest-relay-fault", fault.as_str());
    }
    match refusal.retry_after {
        // Whole seconds (RFC 9110 §10.2.3), rounded up: a client that obeys finds the door open.
        Some(delay) => response.with("retry-after", delay.as_secs_f64().ceil().to_string()),
        None => response,
    }
}
