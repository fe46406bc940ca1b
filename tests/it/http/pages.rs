//! Routes and their methods, the pages, the API.

use super::{FIRST, Server};

#[test]
fn every_route_takes_its_methods_and_no_others() {
    let session = format!("/whip/guest1/{FIRST}");
    let leave = format!("{session}/leave");
    let status = format!("{session}/status");
    let through_sfu = format!("/api/calls{session}");
    let leave_sfu = format!("{through_sfu}/leave");
    let status_sfu = format!("{through_sfu}/status");
    let server = Server::new();
    for (path, methods, allow) in [
        ("/", "GET HEAD", "OPTIONS, GET, HEAD"),
        ("/guest_join", "GET HEAD", "OPTIONS, GET, HEAD"),
        ("/static/guest_join.js", "GET HEAD", "OPTIONS, GET, HEAD"),
        ("/api/guests", "GET HEAD", "OPTIONS, GET, HEAD"),
        ("/api/guests/guest1/keyframe", "POST", "OPTIONS, POST"),
        ("/api/page", "GET HEAD", "OPTIONS, GET, HEAD"),
        ("/healthz", "GET HEAD", "OPTIONS, GET, HEAD"),
        ("/metrics", "GET HEAD", "OPTIONS, GET, HEAD"),
        ("/whip/guest1", "POST", "OPTIONS, POST"),
        (session.as_str(), "PATCH DELETE", "OPTIONS, PATCH, DELETE"),
        (leave.as_str(), "POST", "OPTIONS, POST"),
        (status.as_str(), "GET HEAD", "OPTIONS, GET, HEAD"),
        ("/api/calls/whip/guest1", "POST", "OPTIONS, POST"),
        (through_sfu.as_str(), "PATCH DELETE", "OPTIONS, PATCH, DELETE"),
        (leave_sfu.as_str(), "POST", "OPTIONS, POST"),
        (status_sfu.as_str(), "GET HEAD", "OPTIONS, GET, HEAD"),
        ("/api/calls/session/guest1", "DELETE", "OPTIONS, DELETE"),
        ("/api/calls/sessions", "GET HEAD", "OPTIONS, GET, HEAD"),
        ("/api/ice-servers", "GET HEAD", "OPTIONS, GET, HEAD"),
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let answer = server.request(method, path, &[], "");
            if method == "OPTIONS" {
                assert_eq!((answer.status, answer.header("allow")), (204, allow), "{path}");
            } else if methods.contains(method) {
                assert_ne!(answer.status, 405, "{method} {path}");
            } else {
                assert_eq!((answer.status, answer.header("allow")), (405, allow), "{method} {path}");
            }
        }
    }
    for method in ["GET", "POST", "DELETE", "OPTIONS"] {
        assert_eq!(server.request(method, "/nowhere", &[], "").status, 404);
    }
}

#[test]
fn only_the_whip_routes_are_open_to_other_origins() {
    let server = Server::new();
    for (method, path) in [
        ("GET", "/guest_join"),
        ("GET", "/api/guests"),
        ("GET", "/api/page"),
        ("GET", "/api/ice-servers"),
        ("GET", "/api/calls/sessions"),
        ("POST", "/api/guests/guest1/keyframe"),
        ("OPTIONS", "/api/guests/guest1/keyframe"),
        ("OPTIONS", "/api/calls/session/guest1"),
        ("DELETE", "/api/calls/session/guest1"),
        ("GET", "/healthz"),
        ("GET", "/metrics"),
        ("HEAD", "/api/events"),
        ("GET", "/nowhere"),
    ] {
        assert!(server.request(method, path, &[], "").headers("access-control-allow-origin").is_empty(), "{path}");
    }
}

#[test]
fn the_guest_list_is_json_with_null_for_what_is_not_known() {
    let answer = Server::new().get("/api/guests");
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.header("cache-control"), "no-store");
    let value: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let expected = serde_json::json!({"guests": [
        {"id": "guest1", "name": "Guest 1", "enabled": true, "state": "live", "path": "direct", "codec": "H264",
         "audio_codec": null, "width": 1280, "height": 720, "fps": 29.97, "bitrate_kbps": 2400, "loss": 0.01,
         "jitter_ms": 1.5, "last_keyframe_age_ms": 1200, "rtmp": "live", "since": "2025-12-31T23:59:59Z",
         "problem": null, "problems": []},
        {"id": "guest2", "name": "Gjest på \"lufta\"", "enabled": false, "state": "absent", "path": null,
         "codec": null, "audio_codec": null, "width": null, "height": null, "fps": null, "bitrate_kbps": null,
         "loss": null, "jitter_ms": null, "last_keyframe_age_ms": null, "rtmp": "idle", "since": null,
         "problem": "the media server cannot be reached; start it",
         "problems": [
            {"hop": "rtmp", "code": "rtmp-unreachable", "words": "the media server cannot be reached",
             "remedy": "start it", "since": "2025-12-31T23:59:59Z"},
            {"hop": "sfu", "code": "sfu-pull", "words": "sessions/new: refused with 401", "remedy": null,
             "since": null}]},
    ]});
    assert_eq!(value, expected);
}

#[test]
fn a_request_for_a_keyframe_says_whether_the_guest_is_asked() {
    let server = Server::new();
    for (path, status) in [
        ("/api/guests/guest1/keyframe", 202),
        ("/api/guests/guest2/keyframe", 409),
        ("/api/guests/guest9/keyframe", 404),
        ("/api/guests/a%2f/keyframe", 400),
        ("/api/guests//keyframe", 400),
        ("/api/guests/keyframe", 404),
        ("/api/guests/guest1", 404),
        ("/api/guests/guest1/keyframe/", 404),
        ("/api/guests/x/guest1/keyframe", 404),
    ] {
        assert_eq!(server.request("POST", path, &[], "").status, status, "{path}");
    }
    assert_eq!(server.calls(), ["keyframe guest1", "keyframe guest2", "keyframe guest9"]);
    server.offer("mute", &[]);
    let unknown = server.request("POST", "/api/guests/guest1/keyframe", &[], "");
    assert_eq!((unknown.status, unknown.header("retry-after")), (503, "2"));
}

#[test]
fn no_foreign_page_and_nobody_from_afar_asks_a_guest_for_keyframes() {
    let server = Server::new();
    let ask = |headers: &[(&str, &str)]| server.request("POST", "/api/guests/guest1/keyframe", headers, "").status;
    for elsewhere in [
        [("Origin", "https://elsewhere.example")].as_slice(),
        &[("Origin", "null")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("CF-Connecting-IP", "203.0.113.7")],
    ] {
        assert_eq!(ask(elsewhere), 403, "{elsewhere:?}");
    }
    assert!(server.calls().is_empty());
    // The test's requests say `Host: localhost`.
    for near in [
        [("Origin", "http://localhost"), ("Sec-Fetch-Site", "same-origin")].as_slice(),
        &[("CF-Connecting-IP", super::OWN_PUBLIC_ADDRESS)],
        &[],
    ] {
        assert_eq!(ask(near), 202, "{near:?}");
    }
    for _ in 0..200 {
        if ask(&[]) == 429 {
            return;
        }
    }
    panic!("203 requests within a minute and none was refused");
}

#[test]
fn the_page_learns_the_slots_and_nothing_about_the_guests() {
    let answer = Server::new().get("/api/page");
    let value: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let expected = serde_json::json!({
        "public_url": "https://recorder.example.org",
        "max_bitrate_kbps": 2500,
        "path": "direct",
        "calls_configured": true,
        "guests": [
            {"id": "guest1", "name": "Guest 1", "enabled": true},
            {"id": "guest2", "name": "Gjest på \"lufta\"", "enabled": false},
        ],
    });
    assert_eq!(value, expected);
    // The answer has each key that the page reads.
    let page = include_str!("../../../static/path.js");
    let read = page.split("facts.").skip(1).map(|rest| rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next());
    let read: Vec<&str> = read.flatten().collect();
    assert!(read.len() >= 2 && read.iter().all(|key| !value[key].is_null()), "{read:?}");
}

#[test]
fn health_is_200_or_503_with_the_reason() {
    let server = Server::new();
    let healthy = server.get("/healthz");
    assert_eq!((healthy.status, healthy.body.as_str()), (200, "ok\n"));
    server.offer("guest1", &[]);
    let headers = [("Content-Type", "application/trickle-ice-sdpfrag"), ("If-Match", "\"ice-1\"")];
    server.request("PATCH", &format!("/whip/guest1/{FIRST}"), &headers, "makes the fake backend ill");
    let ill = server.get("/healthz");
    assert_eq!((ill.status, ill.body.as_str()), (503, "no RTMP server\n"));
}

#[test]
fn pages_come_with_their_type_and_a_policy_and_are_asked_for_again_each_time() {
    let server = Server::new();
    let page = server.get("/guest_join?guest=guest2");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert_eq!(page.body, include_str!("../../../static/guest_join.html"));
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let policy = page.header("content-security-policy");
    for directive in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(directive), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("cache-control"), "no-cache");
    assert_eq!(server.get("/").body, page.body);
    for (path, content_type) in [
        ("/static/guest_join.js", "text/javascript; charset=utf-8"),
        ("/static/devices.js", "text/javascript; charset=utf-8"),
        ("/static/offer.js", "text/javascript; charset=utf-8"),
        ("/static/path.js", "text/javascript; charset=utf-8"),
        ("/static/publisher.js", "text/javascript; charset=utf-8"),
        ("/static/quality.js", "text/javascript; charset=utf-8"),
        ("/static/strings.js", "text/javascript; charset=utf-8"),
        ("/static/whip.js", "text/javascript; charset=utf-8"),
        ("/static/guest_join.css", "text/css; charset=utf-8"),
    ] {
        assert_eq!(server.get(path).header("content-type"), content_type);
    }

    let etag = page.header("etag").to_owned();
    let again = server.request("GET", "/guest_join", &[("If-None-Match", &etag)], "");
    assert_eq!((again.status, again.body.as_str(), again.header("etag")), (304, "", etag.as_str()));
    assert!(again.headers("content-length").is_empty(), "{}", again.head);
    assert_eq!(server.request("GET", "/guest_join", &[("If-None-Match", "\"other\"")], "").status, 200);
}

#[test]
fn a_head_request_gets_the_head_of_the_answer() {
    let server = Server::new();
    let (get, head) = (server.get("/guest_join"), server.request("HEAD", "/guest_join", &[], ""));
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), get.body.len().to_string());
    assert_eq!(head.header("etag"), get.header("etag"));
}

#[test]
fn nothing_outside_the_fixed_map_is_served() {
    let server = Server::new();
    let long = format!("/static/{}", "a".repeat(4000));
    for path in [
        "/static/",
        "/static",
        "/static/../Cargo.toml",
        "/../../../etc/passwd",
        "/static/%2e%2e/Cargo.toml",
        "/static/..%2fCargo.toml",
        "/static/%2e%2e%2fCargo.toml",
        "/static/guest_join.js%00",
        "/static/guest_join.js/",
        "/static//guest_join.js",
        "//static/guest_join.js",
        "/static/./guest_join.js",
        "/./guest_join",
        "/x/../guest_join",
        "/%67uest_join",
        "/guest_join/",
        "/GUEST_JOIN",
        "/config.yml",
        "/static/guest_join.js;x",
        long.as_str(),
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
}
