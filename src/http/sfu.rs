//! What belongs to the path through the SFU beside its WHIP endpoint: which path a client should take, the ICE servers,
//! and the two calls by which pages of the older application see and end sessions.
//!
//! ```text
//! GET    /api/ice-servers                 ─▶ {"iceServers": [{"urls": […], "username", "credential"}]}
//! GET    /api/calls/sessions              ─▶ {"sessions": {guest_id: session id}}
//! DELETE /api/calls/session/{guest_id}    ─▶ {"status": "closed" | "no_session", "guest_id": …}
//! ```
//!
//! The last one names no session, so it could end anybody's. It is served only to pages of our own origin, and only to
//! the network that published the session, or to this machine. A page of ours leaves through its session's own address.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value};

use super::backend::{Backend, IceServer, Left, MediaPath};
use super::message::{ClientInfo, Refusal, Request, Response};
use super::rate::network_of;
use super::site::Site;
use crate::guest::id::GuestId;

/// The way the media of this client should try first.
///
/// Direct when the client is on our network, and when there is no other way.
pub(super) fn path_for<B: Backend>(backend: &B, client: &ClientInfo) -> MediaPath {
    if is_near(backend, client) || !backend.sfu_configured() { MediaPath::Direct } else { MediaPath::Sfu }
}

/// Whether a client is on our network: its address is a private one, or the one that we have on the internet too.
pub(super) fn is_near<B: Backend>(backend: &B, client: &ClientInfo) -> bool {
    let same_network = |own: IpAddr| network_of(own) == network_of(client.remote_ip);
    is_private(client.remote_ip) || backend.own_public_addresses().into_iter().any(same_network)
}

/// Whether an address has a meaning only within somebody's own network, which a client that reached us shares with us:
/// RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291 §2.5.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let shared = v4.to_bits() & 0xffc0_0000 == Ipv4Addr::new(100, 64, 0, 0).to_bits();
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// `GET /api/ice-servers`.
pub(super) async fn ice_servers<B: Backend>(
    site: &Site<B>,
    client: &ClientInfo,
    now: Instant,
) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct IceServers {
        #[serde(rename = "iceServers")]
        ice_servers: Vec<IceServer>,
    }
    site.ice_requests
        .borrow_mut()
        .take(&network_of(client.remote_ip), now)
        .map_err(|delay| Refusal::new(429, "too many requests").retry_after(delay))?;
    let ice_servers = site.backend.ice_servers().await;
    Ok(Response::json(200, &IceServers { ice_servers }))
}

/// `GET /api/calls/sessions`.
pub(super) fn sessions<B: Backend>(backend: &B) -> Response {
    #[derive(Serialize)]
    struct Sessions {
        sessions: Map<String, Value>,
    }
    let sessions = backend
        .sfu_sessions()
        .into_iter()
        .map(|(guest, session)| (guest.to_string(), Value::String(session)))
        .collect();
    Response::json(200, &Sessions { sessions })
}

/// `DELETE /api/calls/session/{guest_id}`.
pub(super) async fn close<B: Backend>(
    site: &Site<B>,
    guest: GuestId,
    request: &Request,
    now: Instant,
) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct Closed {
        status: &'static str,
        guest_id: GuestId,
    }
    let client = request.client;
    site.limit_session_request(client, now)?;
    if !is_of_our_origin(request, site.public_url.as_deref()) {
        return Err(Refusal::new(403, "only the guest page may do this"));
    }
    let answer = |status, guest_id| Ok(Response::json(200, &Closed { status, guest_id }));
    let sessions = site.backend.sfu_sessions();
    if !sessions.iter().any(|(publishing, _)| *publishing == guest) {
        return answer("no_session", guest);
    }
    let on_this_machine = client.remote_ip.is_loopback() && !client.tunnelled;
    if !on_this_machine && site.backend.publisher(&guest) != Some(client.network()) {
        return Err(Refusal::new(403, format!("only the one who joined as {guest} can end this session")));
    }
    match site.backend.close_sfu_session(&guest).await {
        Left::Ended => answer("closed", guest),
        Left::NoSuchSession => answer("no_session", guest),
    }
}

/// Whether a request comes from a page of ours, or from no page at all: browsers say where from (Fetch standard §3.2,
/// Fetch Metadata §2.4) and let no page change it.
pub(super) fn is_of_our_origin(request: &Request, public_url: Option<&str>) -> bool {
    let told = |name| request.headers.iter().any(|(n, _)| n == name);
    // A field that was sent twice reads as none; whoever does that is no browser.
    if told("sec-fetch-site") && request.header("sec-fetch-site") != Some("same-origin") {
        return false;
    }
    if !told("origin") {
        return true;
    }
    let origin = request.header("origin").unwrap_or_default();
    let host = origin.split_once("://").map_or("", |(_, host)| host);
    let ours = request.header("host").is_some_and(|own| own.eq_ignore_ascii_case(host));
    let public = public_url.is_some_and(|url| url.eq_ignore_ascii_case(origin));
    !host.is_empty() && (ours || public)
}
