//! The WHIP endpoint: publishing, trickling, leaving, taking over, and how often.

use super::{ANSWER, FIRST, OFFER, SECOND, Server, quick};

#[test]
fn an_offer_is_answered_with_201_location_etag_and_the_answer() {
    let server = Server::new();
    let answer = server.offer("guest1", &[("Origin", "https://elsewhere.example")]);
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("content-type"), "application/sdp");
    assert_eq!(answer.header("location"), format!("/whip/guest1/{FIRST}"));
    assert_eq!(answer.header("etag"), "\"ice-1\"");
    assert_eq!(answer.header("accept-patch"), "application/trickle-ice-sdpfrag");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert!(answer.header("access-control-expose-headers").contains("Location"));
    assert_eq!(answer.header("connection"), "close");
    assert_eq!(answer.header("content-length"), ANSWER.len().to_string());
    assert_eq!(answer.body, ANSWER);
    assert_eq!(server.calls(), ["publish guest1 Direct 127.0.0.1 tunnelled=false"]);
}

#[test]
fn offers_that_cannot_be_served_are_refused_with_a_status_and_a_line_of_text() {
    let server = Server::new();
    let sdp = ("Content-Type", "application/sdp");
    for (path, headers, body, status, reason) in [
        ("/whip/guest1", vec![], OFFER, 415, "send the body as Content-Type: application/sdp"),
        ("/whip/guest1", vec![("Content-Type", "text/plain")], OFFER, 415, "send the body"),
        ("/whip/guest1", vec![("Content-Type", "application/x-www-form-urlencoded")], OFFER, 415, "send the body"),
        ("/whip/guest1", vec![sdp, sdp], OFFER, 415, "send the body"),
        ("/whip/guest1", vec![sdp], "", 400, "the body is empty"),
        ("/whip/guest2", vec![sdp], OFFER, 406, "the offer has no H.264"),
        ("/whip/guest3", vec![sdp], OFFER, 403, "the producer has closed the slot guest3"),
        ("/whip/guest9", vec![sdp], OFFER, 404, "there is no guest slot guest9"),
        ("/whip/", vec![sdp], OFFER, 400, "a guest id must not be empty"),
        ("/whip/a%2f..", vec![sdp], OFFER, 400, "a guest id holds only"),
        ("/whip/%67uest1", vec![sdp], OFFER, 400, "a guest id holds only"),
        ("/whip/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", vec![sdp], OFFER, 400, "a guest id has at most 32"),
        ("/whip", vec![sdp], OFFER, 404, "there is nothing"),
        ("//whip/guest1", vec![sdp], OFFER, 404, "there is nothing"),
        ("/whip/guest9/", vec![sdp], OFFER, 404, "there is no guest slot guest9"),
        ("/whip/guest1//", vec![sdp], OFFER, 404, "there is nothing"),
        ("/whip//guest1", vec![sdp], OFFER, 400, "a guest id must not be empty"),
        ("/whip//", vec![sdp], OFFER, 400, "a guest id must not be empty"),
        ("/whip/guest1/..", vec![sdp], OFFER, 404, "there is nothing"),
    ] {
        let answer = server.request("POST", path, &headers, body);
        assert_eq!(answer.status, status, "{path} {headers:?}");
        assert!(answer.body.starts_with(reason) && answer.body.ends_with('\n'), "{path}: {:?}", answer.body);
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        // Whichever page asked may read why.
        let is_endpoint = path.starts_with("/whip/");
        assert_eq!(answer.headers("access-control-allow-origin").is_empty(), !is_endpoint, "{path}");
    }
    assert_eq!(server.calls(), ["publish guest2 Direct 127.0.0.1 tunnelled=false"]);
}

#[test]
fn a_media_type_is_understood_in_any_case_and_with_parameters() {
    let server = Server::new();
    let headers = [("Content-Type", "Application/SDP; charset=utf-8")];
    assert_eq!(server.request("POST", "/whip/guest1?whatever", &headers, OFFER).status, 201);
}

#[test]
fn a_slash_at_the_end_of_the_endpoint_is_no_other_place() {
    let server = Server::new();
    for path in ["/whip/guest1/", "/api/calls/whip/guest1/", "/whip/guest1/?x=y"] {
        let answer = server.request("POST", path, &[("Content-Type", "application/sdp")], OFFER);
        assert_eq!(answer.status, 201, "{path}");
        assert!(!answer.header("location").contains("//"), "{path}");
    }
    assert_eq!(server.request("OPTIONS", "/whip/guest1/", &[], "").status, 204);
}

#[test]
fn a_refusal_says_when_to_come_back_in_whole_seconds() {
    assert_eq!(Server::new().offer("guest2", &[]).header("retry-after"), "2");
}

#[test]
fn a_body_that_is_not_text_is_refused() {
    let head = "POST /whip/guest1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\nContent-Length: 2\r\n\r\n";
    let answer = Server::new().raw(&[head.as_bytes(), b"\xff\xfe"].concat());
    assert_eq!((answer.status, answer.body.as_str()), (400, "the body is not UTF-8 text\n"));
}

#[test]
fn trickled_candidates_need_the_entity_tag_of_the_session() {
    let server = Server::new();
    assert_eq!(server.offer("guest1", &[]).status, 201);
    let session = format!("/whip/guest1/{FIRST}");
    let other = format!("/whip/guest1/{SECOND}");
    let fragment = ("Content-Type", "application/trickle-ice-sdpfrag");
    for (path, headers, body, status) in [
        (&session, vec![fragment], "a=x", 428),
        (&session, vec![fragment, ("If-Match", "\"ice-0\"")], "a=x", 412),
        (&session, vec![fragment, ("If-Match", "W/\"ice-1\"")], "a=x", 412),
        (&session, vec![fragment, ("If-Match", "*")], "a=x", 422),
        (&session, vec![("Content-Type", "application/sdp"), ("If-Match", "\"ice-1\"")], "a=x", 415),
        (&session, vec![fragment, ("If-Match", "\"ice-1\"")], "", 400),
        (&other, vec![fragment, ("If-Match", "\"ice-1\"")], "a=x", 404),
    ] {
        assert_eq!(server.request("PATCH", path, &headers, body).status, status, "{path} {headers:?}");
    }
    let headers = [fragment, ("If-Match", "\"ice-0\", \"ice-1\"")];
    let answer = server.request("PATCH", &session, &headers, "a=candidate");
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert!(answer.headers("content-length").is_empty() && answer.headers("etag").is_empty(), "{}", answer.head);
    assert_eq!(server.calls().last().unwrap(), "trickle guest1 a=candidate");
}

#[test]
fn only_the_session_that_holds_the_slot_can_end_it() {
    let server = Server::new();
    assert_eq!(server.offer("guest1", &[]).status, 201);
    assert_eq!(server.offer("guest1", &[]).header("location"), format!("/whip/guest1/{SECOND}"));
    let late = format!("/whip/guest1/{FIRST}");
    assert_eq!(server.request("DELETE", &late, &[], "").status, 404);
    assert_eq!(server.request("POST", &format!("{late}/leave"), &[], "").status, 404);
    let current = format!("/whip/guest1/{SECOND}");
    assert_eq!(server.request("DELETE", &format!("/whip/guest2/{SECOND}"), &[], "").status, 404);
    assert_eq!(server.request("DELETE", &current, &[], "").status, 200);
    assert_eq!(server.request("DELETE", &current, &[], "").status, 404);
}

#[test]
fn a_page_that_comes_back_does_not_push_out_whoever_took_the_slot() {
    let server = Server::new();
    let replaces = "Guest-Relay-Replaces";
    assert_eq!(server.offer("guest1", &[]).status, 201);
    assert_eq!(server.offer("guest1", &[(replaces, FIRST)]).status, 201);
    let refused = server.offer("guest1", &[(replaces, FIRST)]);
    assert_eq!((refused.status, refused.body.as_str()), (409, "somebody else has joined as guest1\n"));
    assert_eq!(server.offer("guest1", &[(replaces, "nonsense")]).status, 409);
    assert_eq!(server.offer("guest1", &[(replaces, SECOND)]).status, 201);
    // An empty slot is open to whoever had it before; this one's offer reaches the backend.
    assert_eq!(server.offer("guest2", &[(replaces, FIRST)]).status, 406);
}

#[test]
fn a_page_that_comes_back_waits_when_it_is_not_known_whether_the_slot_is_empty() {
    let server = Server::new();
    assert_eq!(server.offer("guest1", &[]).status, 201);
    assert_eq!(server.offer("mute", &[]).status, 503);
    let calls = server.calls();
    for guest in ["guest1", "guest2"] {
        let refused = server.offer(guest, &[("Guest-Relay-Replaces", SECOND)]);
        assert_eq!((refused.status, refused.header("retry-after")), (503, "2"), "{}", refused.body);
    }
    assert_eq!(server.calls(), calls, "neither offer went any further");
    // The session that is in the slot is known without an answer.
    assert_eq!(server.offer("guest1", &[("Guest-Relay-Replaces", FIRST)]).status, 201);
}

#[test]
fn a_beacon_ends_a_session_whatever_its_media_type() {
    let server = Server::new();
    assert_eq!(server.offer("guest1", &[]).status, 201);
    let leave = format!("/whip/guest1/{FIRST}/leave");
    let headers = [("Content-Type", "text/plain;charset=UTF-8")];
    assert_eq!(server.request("POST", &leave, &headers, "").status, 200);
    assert_eq!(server.request("POST", &leave, &headers, "").status, 404);
}

#[test]
fn a_delete_is_final_and_a_page_that_closes_may_return() {
    let server = Server::new();
    assert_eq!(server.offer("guest1", &[]).status, 201);
    assert_eq!(server.offer("guest1", &[("Guest-Relay-Replaces", FIRST)]).status, 201);
    assert!(server.calls().contains(&format!("goes on for {FIRST}")));
    assert_eq!(server.request("POST", &format!("/whip/guest1/{SECOND}/leave"), &[], "").status, 200);
    assert_eq!(server.calls().last().unwrap(), "leave guest1 MayReturn");
    let third = server.offer("guest1", &[]).header("location").to_owned();
    assert_eq!(server.request("DELETE", &third, &[], "").status, 200);
    assert_eq!(server.calls().last().unwrap(), "leave guest1 Final");
}

#[test]
fn options_of_the_endpoint_satisfy_rfc_9725_and_a_preflight() {
    let server = Server::new();
    let answer = server.request("OPTIONS", "/whip/guest1", &[("Access-Control-Request-Method", "POST")], "");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("accept-post"), "application/sdp");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert!(answer.header("access-control-allow-methods").contains("POST"));
    assert!(answer.header("access-control-allow-headers").contains("Content-Type"));
    let session = format!("/whip/guest1/{FIRST}");
    let answer = server.request("OPTIONS", &session, &[], "");
    assert_eq!(answer.header("accept-patch"), "application/trickle-ice-sdpfrag");
    assert!(answer.header("access-control-allow-headers").contains("If-Match"));
}

#[test]
fn offers_beyond_the_rate_are_refused_with_a_time_to_wait() {
    let server = Server::start(quick(), 10);
    for _ in 0..10 {
        assert_eq!(server.offer("guest1", &[]).status, 201);
    }
    let refused = server.offer("guest1", &[]);
    assert_eq!(refused.status, 429);
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=6).contains(&seconds), "{seconds}");
    // The other slot, and the same slot from another address behind the tunnel, are not affected.
    assert_eq!(server.offer("guest2", &[]).status, 406);
    assert_eq!(server.offer("guest1", &[("CF-Connecting-IP", "203.0.113.7")]).status, 201);
    assert_eq!(server.calls().last().unwrap(), "publish guest1 Direct 203.0.113.7 tunnelled=true");
}

#[test]
fn one_network_cannot_fill_all_slots_with_offers() {
    let server = Server::start(quick(), 1);
    let statuses: Vec<_> = ["guest1", "guest2", "slow"].iter().map(|guest| server.offer(guest, &[]).status).collect();
    assert_eq!(statuses, [201, 406, 503]);
    assert_eq!(server.offer("guest1", &[]).status, 429);
}

#[test]
fn a_claimed_address_that_is_none_or_is_given_twice_is_not_believed() {
    let server = Server::new();
    let name = "CF-Connecting-IP";
    for headers in [vec![(name, "localhost")], vec![(name, "1.2.3.4"), (name, "5.6.7.8")], vec![(name, "")]] {
        assert_eq!(server.offer("guest1", &headers).status, 201);
        assert_eq!(server.calls().last().unwrap(), "publish guest1 Direct 127.0.0.1 tunnelled=false");
    }
    assert_eq!(server.offer("guest1", &[(name, "2001:db8::1")]).status, 201);
    assert_eq!(server.calls().last().unwrap(), "publish guest1 Direct 2001:db8::1 tunnelled=true");
}
