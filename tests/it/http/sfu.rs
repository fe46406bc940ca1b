//! The path through the SFU: its WHIP endpoint, which path a client is told to take, sessions seen and ended.

use super::{ANSWER, FIRST, OFFER, OWN_PUBLIC_ADDRESS, SECOND, Server};

const SDP: (&str, &str) = ("Content-Type", "application/sdp");

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_offer_for_the_sfu_is_answered_with_201_and_a_location_below_its_endpoint() {
    let server = Server::new();
    let answer = server.request("POST", "/api/calls/whip/guest1", &[SDP], OFFER);
    let location = format!("/api/calls/whip/guest1/{FIRST}");
    assert_eq!((answer.status, answer.body.as_str()), (201, ANSWER));
    assert_eq!(answer.header("location"), location);
    assert_eq!(answer.header("etag"), "\"ice-1\"");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(
        answer.headers("link"),
        [
            "<stun:stun.cloudflare.com:3478>; rel=\"ice-server\"",
            "<turn:turn.example.org:3478?transport=udp>; rel=\"ice-server\"; username=\"somebody\"; \
             credential=\"can\\\"ary\"; credential-type=\"password\"",
        ]
    );
    assert_eq!(server.calls()[0], "publish guest1 Sfu 127.0.0.1 tunnelled=false");
    let headers = [("Content-Type", "application/trickle-ice-sdpfrag"), ("If-Match", "\"ice-1\"")];
    assert_eq!(server.request("PATCH", &location, &headers, "a=x").status, 204);
    let options = server.request("OPTIONS", "/api/calls/whip/guest1", &[], "");
    assert_eq!((options.status, options.header("accept-post")), (204, "application/sdp"));
    assert_eq!(server.request("DELETE", &location, &[], "").status, 200);
    assert_eq!(server.request("DELETE", &location, &[], "").status, 404);
}

#[test]
fn offers_for_the_sfu_are_refused_by_the_same_rules() {
    let server = Server::new();
    for (path, headers, body, status) in [
        ("/api/calls/whip/guest1", vec![], OFFER, 415),
        ("/api/calls/whip/guest1", vec![SDP], "", 400),
        ("/api/calls/whip/guest3", vec![SDP], OFFER, 403),
        ("/api/calls/whip/guest9", vec![SDP], OFFER, 404),
        ("/api/calls/whip/", vec![SDP], OFFER, 400),
        ("/api/calls/whip/a%2f..", vec![SDP], OFFER, 400),
        ("/api/calls/whip", vec![SDP], OFFER, 404),
        ("/api/calls/whip/guest1//", vec![SDP], OFFER, 404),
        ("/api/calls/whip/guest1/..", vec![SDP], OFFER, 404),
        ("/api//calls/whip/guest1", vec![SDP], OFFER, 404),
    ] {
        let answer = server.request("POST", path, &headers, body);
        assert_eq!(answer.status, status, "{path} {headers:?}");
        assert!(answer.body.ends_with('\n'), "{path}: {:?}", answer.body);
    }
    assert!(server.calls().is_empty());
}

#[test]
fn a_fault_that_the_page_has_words_for_is_named_beside_the_reason() {
    let server = Server::new();
    let refused = server.request("POST", "/api/calls/whip/guest2", &[SDP], OFFER);
    assert_eq!((refused.status, refused.body.as_str()), (503, "not set up correctly\n"));
    assert_eq!(refused.header("guest-relay-fault"), "calls-misconfigured");
    assert_eq!(refused.header("retry-after"), "5");
    assert!(refused.header("access-control-expose-headers").contains("Guest-Relay-Fault"));
    let other = server.offer("guest2", &[]);
    assert!(other.headers("guest-relay-fault").is_empty());
}

#[test]
fn attempts_on_both_paths_count_together() {
    let server = Server::start(super::quick(), 2);
    assert_eq!(server.offer("guest1", &[]).status, 201);
    let through_sfu = || server.request("POST", "/api/calls/whip/guest1", &[SDP], OFFER);
    assert_eq!(through_sfu().status, 201);
    assert_eq!(through_sfu().status, 429);
}

#[test]
fn clients_on_our_network_are_sent_the_direct_way_and_all_others_through_the_sfu() {
    let server = Server::new();
    let page = |from: Option<&str>| {
        let headers = Vec::from_iter(from.map(|address| ("CF-Connecting-IP", address)));
        json(&server.request("GET", "/api/page", &headers, "").body)
    };
    for (from, path) in [
        (None, "direct"), // over loopback, not through the tunnel
        (Some(OWN_PUBLIC_ADDRESS), "direct"),
        (Some("::ffff:198.51.100.20"), "direct"),
        (Some("198.51.100.21"), "calls"),
        (Some("203.0.113.7"), "calls"),
        (Some("192.168.1.77"), "direct"),
        (Some("10.255.255.255"), "direct"),
        (Some("11.0.0.0"), "calls"),
        (Some("172.15.255.255"), "calls"),
        (Some("172.16.0.0"), "direct"),
        (Some("172.31.255.255"), "direct"),
        (Some("172.32.0.0"), "calls"),
        (Some("169.254.10.10"), "direct"),
        (Some("100.63.255.255"), "calls"),
        (Some("100.64.0.0"), "direct"),
        (Some("100.127.255.255"), "direct"),
        (Some("100.128.0.0"), "calls"),
        // One household's IPv6 addresses share the first 64 bits, not all 128.
        (Some("2001:db8:1:2:ffff::1"), "direct"),
        (Some("2001:db8:1:3::3"), "calls"),
        (Some("fd12:3456::1"), "direct"),
        (Some("fe80::1"), "direct"),
        (Some("::1"), "direct"),
        (Some("nonsense"), "direct"), // no address: the tunnel's own counts
    ] {
        let facts = page(from);
        assert_eq!(facts["path"], path, "{from:?}");
        assert_eq!(facts["calls_configured"], true);
    }
}

#[test]
fn ice_servers_come_in_the_shape_that_browsers_take_and_not_without_end() {
    let server = Server::new();
    let answer = server.get("/api/ice-servers");
    assert_eq!(
        json(&answer.body),
        serde_json::json!({"iceServers": [
            {"urls": ["stun:stun.cloudflare.com:3478"]},
            {"urls": ["turn:turn.example.org:3478?transport=udp"], "username": "somebody", "credential": "can\"ary"},
        ]})
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(answer.headers("access-control-allow-origin").is_empty());
    // Whoever logs a server does not log its password.
    let noted = server.calls().concat();
    assert!(noted.contains("somebody") && !noted.contains("ary"), "{noted}");
    let statuses = (0..40).map(|_| server.get("/api/ice-servers").status);
    let refused = statuses.filter(|status| *status == 429).count();
    assert!((5..=11).contains(&refused), "{refused}");
    assert_eq!(server.get("/api/page").status, 200);
}

#[test]
fn the_list_of_sessions_names_the_sfus_session_of_each_guest() {
    let server = Server::new();
    let sessions = || json(&server.get("/api/calls/sessions").body);
    assert_eq!(sessions(), serde_json::json!({"sessions": {}}));
    server.offer("guest1", &[]);
    assert_eq!(sessions(), serde_json::json!({"sessions": {}}));
    server.request("POST", "/api/calls/whip/guest1", &[SDP], OFFER);
    assert_eq!(sessions(), serde_json::json!({"sessions": {"guest1": "5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f"}}));
}

/// Of a browser at `address` behind the tunnel.
fn close(server: &Server, address: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let headers = [&[("CF-Connecting-IP", address)], headers].concat();
    let answer = server.request("DELETE", "/api/calls/session/guest1", &headers, "");
    (answer.status, answer.body)
}

#[test]
fn the_older_pages_goodbye_ends_the_session_for_the_one_who_published_it() {
    let server = Server::new();
    let publish = |address: &str| {
        let headers = [SDP, ("CF-Connecting-IP", address)];
        server.request("POST", "/api/calls/whip/guest1", &headers, OFFER)
    };
    let no_session = "{\"status\":\"no_session\",\"guest_id\":\"guest1\"}";
    assert_eq!(close(&server, "203.0.113.7", &[]), (200, no_session.to_owned()));
    assert_eq!(publish("203.0.113.7").status, 201);

    let strange = close(&server, "203.0.113.8", &[]);
    assert_eq!(strange.0, 403, "{}", strange.1);
    for elsewhere in [
        [("Origin", "https://elsewhere.example")].as_slice(),
        &[("Origin", "null")],
        &[("Origin", "https://localhost.elsewhere.example")],
        &[("Origin", "http://localhost"), ("Origin", "http://localhost")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Sec-Fetch-Site", "cross-site"), ("Origin", "http://localhost")],
    ] {
        let refused = close(&server, "203.0.113.7", elsewhere);
        assert_eq!(refused.0, 403, "{elsewhere:?}");
    }
    assert!(!server.calls().iter().any(|call| call.starts_with("close")));

    // The test's requests say `Host: localhost`.
    let own_page = [("Origin", "http://localhost"), ("Sec-Fetch-Site", "same-origin")];
    let closed = "{\"status\":\"closed\",\"guest_id\":\"guest1\"}";
    assert_eq!(close(&server, "203.0.113.7", &own_page), (200, closed.to_owned()));
    assert_eq!(close(&server, "203.0.113.7", &own_page), (200, no_session.to_owned()));
    assert_eq!(publish("203.0.113.7").status, 201);
    let public = [("Origin", "https://recorder.example.org")];
    assert_eq!(close(&server, "203.0.113.7", &public), (200, closed.to_owned()));
}

#[test]
fn this_machine_itself_may_end_any_session_by_the_older_call() {
    let server = Server::new();
    let headers = [SDP, ("CF-Connecting-IP", "203.0.113.7")];
    server.request("POST", "/api/calls/whip/guest1", &headers, OFFER);
    let answer = server.request("DELETE", "/api/calls/session/guest1", &[], "");
    assert_eq!((answer.status, json(&answer.body)["status"].as_str()), (200, Some("closed")));
    for (path, status) in [
        ("/api/calls/session/", 400),
        ("/api/calls/session/a%2f", 400),
        ("/api/calls/session/guest1/x", 404),
        ("/api/calls/session", 404),
        ("/api/calls/session/guest9", 200),
    ] {
        let answer = server.request("DELETE", path, &[], "");
        assert_eq!(answer.status, status, "{path}");
    }
}

#[test]
fn the_status_says_whether_a_session_still_holds_its_slot() {
    let server = Server::new();
    let holds = |path: &str| json(&server.get(&format!("{path}/status")).body)["holds_slot"].clone();
    let first = format!("/api/calls/whip/guest1/{FIRST}");
    let second = format!("/whip/guest1/{SECOND}");
    assert_eq!(holds(&first), false);
    server.request("POST", "/api/calls/whip/guest1", &[SDP], OFFER);
    assert_eq!(server.get(&format!("{first}/status")).body, r#"{"holds_slot":true,"dropped":["video"]}"#);
    server.offer("guest1", &[]);
    assert_eq!((holds(&first), holds(&second)), (false.into(), true.into()));
    server.request("DELETE", &second, &[], "");
    assert_eq!(holds(&second), false);
}
