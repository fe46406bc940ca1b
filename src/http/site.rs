//! [`Site`]: what the handlers share. It stands below them: a handler takes `&Site`, and a site knows no handler.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::time::Instant;

use super::backend::{Backend, MediaPath};
use super::listeners::Listeners;
use super::message::{ClientInfo, Refusal};
use super::pages::Pages;
use super::rate::RateLimit;
use crate::config::Config;
use crate::guest::id::GuestId;

/// Session requests (PATCH, DELETE, status, goodbye) one client network may send in a minute.
const SESSION_REQUESTS_PER_MINUTE: u32 = 120;
/// Requests for ICE servers one client network may send in a minute: each may have TURN credentials made.
const ICE_REQUESTS_PER_MINUTE: u32 = 30;
/// Offers one client network may send in a minute, for all guests together, as a multiple of the limit for one guest.
const OFFERS_PER_NETWORK_FACTOR: u32 = 4;

/// Refused offers of one client network that are told in a minute, and of all together.
const REFUSALS_PER_NETWORK_PER_MINUTE: u32 = 6;
const REFUSALS_PER_MINUTE: u32 = 60;

/// The WHIP endpoints, each followed by a guest id: the way in decides how the media comes.
pub(super) const ENDPOINTS: &[(&str, MediaPath)] =
    &[("/whip/", MediaPath::Direct), ("/api/calls/whip/", MediaPath::Sfu)];

/// See the module.
#[derive(Debug)]
pub struct Site<B> {
    /// The rest of the daemon.
    pub backend: B,
    /// Who hears of changes when they happen.
    pub events: Listeners,
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
    /// Lines about refused offers per client network, and of all together.
    told_refusals: RefCell<RateLimit<IpAddr>>,
    all_told_refusals: RefCell<RateLimit<()>>,
}

impl<B: Backend> Site<B> {
    /// The site as configured, with nothing asked of it yet.
    pub fn new(backend: B, config: &Config) -> Self {
        let offers_per_minute = config.http.offers_per_minute;
        Self {
            backend,
            events: Listeners::default(),
            pages: Pages::new(),
            public_url: config.http.public_url.clone(),
            max_bitrate_kbps: Cell::new(config.rtc.max_bitrate_kbps),
            offers: RefCell::new(RateLimit::new(offers_per_minute)),
            network_offers: RefCell::new(RateLimit::new(offers_per_minute.saturating_mul(OFFERS_PER_NETWORK_FACTOR))),
            session_requests: RefCell::new(RateLimit::new(SESSION_REQUESTS_PER_MINUTE)),
            ice_requests: RefCell::new(RateLimit::new(ICE_REQUESTS_PER_MINUTE)),
            told_refusals: RefCell::new(RateLimit::new(REFUSALS_PER_NETWORK_PER_MINUTE)),
            all_told_refusals: RefCell::new(RateLimit::new(REFUSALS_PER_MINUTE)),
        }
    }

    /// Takes over the limits of another configuration.
    pub fn set_limits(&self, config: &Config) {
        let offers_per_minute = config.http.offers_per_minute;
        self.offers.borrow_mut().set(offers_per_minute);
        self.network_offers.borrow_mut().set(offers_per_minute.saturating_mul(OFFERS_PER_NETWORK_FACTOR));
        self.max_bitrate_kbps.set(config.rtc.max_bitrate_kbps);
    }

    /// The level of a line about an offer of this client that was refused: strangers fill no log.
    pub(super) fn level_of_refusal(&self, client: &ClientInfo, now: Instant) -> log::Level {
        let is_told = self.told_refusals.borrow_mut().take(&client.network(), now).is_ok()
            && self.all_told_refusals.borrow_mut().take(&(), now).is_ok();
        if is_told { log::Level::Info } else { log::Level::Debug }
    }

    /// Counts one session request of a client, which is refused when there are too many.
    pub(super) fn limit_session_request(&self, client: ClientInfo, now: Instant) -> Result<(), Refusal> {
        self.session_requests
            .borrow_mut()
            .take(&client.network(), now)
            .map_err(|delay| Refusal::new(429, "too many requests").retry_after(delay))
    }
}
