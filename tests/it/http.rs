//! The HTTP server over loopback, byte by byte, with a backend that only remembers what it was asked.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use guest_relay::config::Config;
use guest_relay::guest::id::{GuestId, ResourceId};
use guest_relay::http::backend::{
    Admission, Backend, ClientInfo, GuestStatus, Health, Left, MediaPath, Published,
    Refusal, RtmpState,
};
use guest_relay::http::{Limits, Site, serve};

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";
const ANSWER: &str = "v=0\r\ns=answer\r\n";
/// The resource that the fake backend gives to its first session.
const FIRST: &str = "01010101010101010101010101010101";
const SECOND: &str = "02020202020202020202020202020202";

/// guest1 and guest2 are open, guest3 is closed; guest2's offers are refused. Every call is noted.
#[derive(Default)]
struct Fake {
    calls: RefCell<Vec<String>>,
    sessions: RefCell<u8>,
    holder: RefCell<Option<ResourceId>>,
}

impl Backend for Fake {
    fn admission(&self, guest: &GuestId) -> Admission {
        match guest.as_str() {
            "guest1" | "guest2" | "slow" => Admission::Open,
            "guest3" => Admission::Closed,
            _ => Admission::Unknown,
        }
    }

    async fn publish(
        &self,
        guest: &GuestId,
        path: MediaPath,
        offer: String,
        client: ClientInfo,
    ) -> Result<Published, Refusal> {
        let (remote_ip, tunnelled) = (client.remote_ip, client.tunnelled);
        self.calls.borrow_mut().push(format!(
            "publish {guest} {path:?} {remote_ip} tunnelled={tunnelled}"
        ));
        assert!(client.local_addr.ip().is_loopback());
        match guest.as_str() {
            "guest2" => Err(Refusal::new(406, "the offer has no H.264")
                .retry_after(Duration::from_millis(1500))),
            "slow" => {
                smol::Timer::after(Duration::from_millis(400)).await;
                Err(Refusal::new(503, "slow"))
            }
            _ => {
                assert_eq!(offer, OFFER);
                *self.sessions.borrow_mut() += 1;
                let resource = ResourceId::from_random([*self.sessions.borrow(); 16]);
                *self.holder.borrow_mut() = Some(resource.clone());
                Ok(Published {
                    resource,
                    etag: "ice-1".into(),
                    answer_sdp: ANSWER.into(),
                })
            }
        }
    }

    fn session_etag(&self, guest: &GuestId, resource: &ResourceId) -> Option<String> {
        let holds = guest.as_str() == "guest1" && self.holder.borrow().as_ref() == Some(resource);
        holds.then(|| "ice-1".to_owned())
    }

    async fn trickle(
        &self,
        guest: &GuestId,
        _: &ResourceId,
        fragment: String,
    ) -> Result<(), Refusal> {
        self.calls
            .borrow_mut()
            .push(format!("trickle {guest} {fragment}"));
        Ok(())
    }

    async fn leave(&self, guest: &GuestId, resource: &ResourceId) -> Left {
        if self.session_etag(guest, resource).is_none() {
            return Left::NoSuchSession;
        }
        *self.holder.borrow_mut() = None;
        Left::Ended
    }

    async fn guests(&self) -> Vec<GuestStatus> {
        let id = |text| GuestId::parse(text).unwrap();
        vec![
            GuestStatus {
                state: guest_relay::guest::State::Live,
                path: Some(MediaPath::Direct),
                codec: Some("H264"),
                width: Some(1280),
                height: Some(720),
                fps: Some(29.97),
                bitrate_kbps: Some(2400),
                loss: Some(0.01),
                jitter_ms: Some(1.5),
                last_keyframe_age_ms: Some(1200),
                rtmp: RtmpState::Live,
                since: Some(UNIX_EPOCH + Duration::from_secs(1_767_225_599)),
                ..GuestStatus::absent(id("guest1"), "Guest 1".into(), true)
            },
            GuestStatus::absent(id("guest2"), "Gjest på \"lufta\"".into(), false),
        ]
    }

    async fn health(&self) -> Health {
        match self
            .calls
            .borrow()
            .iter()
            .any(|call| call.starts_with("trickle"))
        {
            true => Health::Unhealthy("no RTMP server".into()),
            false => Health::Healthy,
        }
    }
}

/// A server on a thread of its own; ends with the test.
struct Server {
    address: SocketAddr,
    /// Asks for the backend's notes.
    notes: smol::channel::Sender<mpsc::Sender<Vec<String>>>,
}

fn quick() -> Limits {
    Limits {
        connections: 64,
        idle: Duration::from_millis(300),
        head: Duration::from_millis(300),
        body: Duration::from_millis(300),
        write: Duration::from_millis(300),
        linger: Duration::from_millis(300),
    }
}

impl Server {
    fn start(limits: Limits, offers_per_minute: u32) -> Self {
        let mut config = Config::default();
        config.http.offers_per_minute = offers_per_minute;
        config.http.public_url = Some("https://recorder.example.org".into());
        let (address_out, address) = mpsc::channel();
        let (notes, wanted) = smol::channel::unbounded::<mpsc::Sender<Vec<String>>>();
        thread::spawn(move || {
            let executor = smol::LocalExecutor::new();
            smol::block_on(executor.run(async {
                let listener = smol::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                address_out.send(listener.local_addr().unwrap()).unwrap();
                let site = Rc::new(Site::new(Fake::default(), &config));
                let reported = Rc::clone(&site);
                let report = async move {
                    while let Ok(asker) = wanted.recv().await {
                        asker.send(reported.backend.calls.borrow().clone()).unwrap();
                    }
                };
                smol::future::or(serve(listener, &executor, site, limits), report).await;
            }));
        });
        Self {
            address: address.recv().unwrap(),
            notes,
        }
    }

    fn new() -> Self {
        Self::start(quick(), 1000)
    }

    fn calls(&self) -> Vec<String> {
        let (asker, answer) = mpsc::channel();
        self.notes.send_blocking(asker).unwrap();
        answer.recv().unwrap()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    /// Sends bytes, closes nothing, reads until the server closes.
    fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // The server may refuse and close before everything is sent.
        let _ = stream.write_all(bytes);
        Answer::read(&mut stream)
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.raw(format!("{head}\r\n{body}").as_bytes())
    }

    fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "")
    }

    fn offer(&self, guest: &str, headers: &[(&str, &str)]) -> Answer {
        let headers = [&[("Content-Type", "application/sdp")], headers].concat();
        self.request("POST", &format!("/whip/{guest}"), &headers, OFFER)
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Self::parse(&bytes)
    }

    /// Status 0 stands for a connection that was closed without a word.
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head
            .split(' ')
            .nth(1)
            .map_or(0, |status| status.parse().unwrap());
        Self {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    fn headers(&self, name: &str) -> Vec<&str> {
        let fields = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        fields
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    fn header(&self, name: &str) -> &str {
        let values = self.headers(name);
        assert_eq!(values.len(), 1, "{name} in {}", self.head);
        values[0]
    }
}

#[test]
fn an_offer_is_answered_with_201_location_etag_and_the_answer() {
    let server = Server::new();
    let answer = server.offer("guest1", &[("Origin", "https://elsewhere.example")]);
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("content-type"), "application/sdp");
    assert_eq!(answer.header("location"), format!("/whip/guest1/{FIRST}"));
    assert_eq!(answer.header("etag"), "\"ice-1\"");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert!(
        answer
            .header("access-control-expose-headers")
            .contains("Location")
    );
    assert_eq!(answer.header("connection"), "close");
    assert_eq!(answer.header("content-length"), ANSWER.len().to_string());
    assert_eq!(answer.body, ANSWER);
    assert_eq!(
        server.calls(),
        ["publish guest1 Direct 127.0.0.1 tunnelled=false"]
    );
}

#[test]
fn offers_that_cannot_be_served_are_refused_with_a_status_and_a_line_of_text() {
    let server = Server::new();
    let sdp = ("Content-Type", "application/sdp");
    for (path, headers, body, status, reason) in [
        (
            "/whip/guest1",
            vec![],
            OFFER,
            415,
            "send the body as Content-Type: application/sdp",
        ),
        (
            "/whip/guest1",
            vec![("Content-Type", "text/plain")],
            OFFER,
            415,
            "send the body",
        ),
        (
            "/whip/guest1",
            vec![("Content-Type", "application/x-www-form-urlencoded")],
            OFFER,
            415,
            "send the body",
        ),
        ("/whip/guest1", vec![sdp, sdp], OFFER, 415, "send the body"),
        ("/whip/guest1", vec![sdp], "", 400, "the body is empty"),
        (
            "/whip/guest2",
            vec![sdp],
            OFFER,
            406,
            "the offer has no H.264",
        ),
        (
            "/whip/guest3",
            vec![sdp],
            OFFER,
            403,
            "the producer has closed the slot guest3",
        ),
        (
            "/whip/guest9",
            vec![sdp],
            OFFER,
            404,
            "there is no guest slot guest9",
        ),
        (
            "/whip/",
            vec![sdp],
            OFFER,
            400,
            "a guest id must not be empty",
        ),
        (
            "/whip/a%2f..",
            vec![sdp],
            OFFER,
            400,
            "a guest id holds only",
        ),
        (
            "/whip/%67uest1",
            vec![sdp],
            OFFER,
            400,
            "a guest id holds only",
        ),
        (
            "/whip/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            vec![sdp],
            OFFER,
            400,
            "a guest id has at most 32",
        ),
        ("/whip", vec![sdp], OFFER, 404, "there is nothing"),
        ("//whip/guest1", vec![sdp], OFFER, 404, "there is nothing"),
        ("/whip/guest1/", vec![sdp], OFFER, 404, "there is nothing"),
        ("/whip/guest1/..", vec![sdp], OFFER, 404, "there is nothing"),
    ] {
        let answer = server.request("POST", path, &headers, body);
        assert_eq!(answer.status, status, "{path} {headers:?}");
        assert!(
            answer.body.starts_with(reason) && answer.body.ends_with('\n'),
            "{path}: {:?}",
            answer.body
        );
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
    assert_eq!(
        server.calls(),
        ["publish guest2 Direct 127.0.0.1 tunnelled=false"]
    );
}

#[test]
fn a_media_type_is_understood_in_any_case_and_with_parameters() {
    let server = Server::new();
    let headers = [("Content-Type", "Application/SDP; charset=utf-8")];
    assert_eq!(
        server
            .request("POST", "/whip/guest1?whatever", &headers, OFFER)
            .status,
        201
    );
}

#[test]
fn a_refusal_says_when_to_come_back_in_whole_seconds() {
    assert_eq!(
        Server::new().offer("guest2", &[]).header("retry-after"),
        "2"
    );
}

#[test]
fn a_body_that_is_not_text_is_refused() {
    let head = "POST /whip/guest1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\nContent-Length: 2\r\n\r\n";
    let answer = Server::new().raw(&[head.as_bytes(), b"\xff\xfe"].concat());
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (400, "the body is not UTF-8 text\n")
    );
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
        (
            &session,
            vec![fragment, ("If-Match", "\"ice-0\"")],
            "a=x",
            412,
        ),
        (
            &session,
            vec![fragment, ("If-Match", "W/\"ice-1\"")],
            "a=x",
            412,
        ),
        (&session, vec![fragment, ("If-Match", "*")], "a=x", 422),
        (
            &session,
            vec![
                ("Content-Type", "application/sdp"),
                ("If-Match", "\"ice-1\""),
            ],
            "a=x",
            415,
        ),
        (&session, vec![fragment, ("If-Match", "\"ice-1\"")], "", 400),
        (
            &other,
            vec![fragment, ("If-Match", "\"ice-1\"")],
            "a=x",
            404,
        ),
    ] {
        assert_eq!(
            server.request("PATCH", path, &headers, body).status,
            status,
            "{path} {headers:?}"
        );
    }
    let headers = [fragment, ("If-Match", "\"ice-0\", \"ice-1\"")];
    let answer = server.request("PATCH", &session, &headers, "a=candidate");
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert!(
        answer.headers("content-length").is_empty() && answer.headers("etag").is_empty(),
        "{}",
        answer.head
    );
    assert_eq!(server.calls().last().unwrap(), "trickle guest1 a=candidate");
}

#[test]
fn only_the_session_that_holds_the_slot_can_end_it() {
    let server = Server::new();
    assert_eq!(server.offer("guest1", &[]).status, 201);
    assert_eq!(
        server.offer("guest1", &[]).header("location"),
        format!("/whip/guest1/{SECOND}")
    );
    let late = format!("/whip/guest1/{FIRST}");
    assert_eq!(server.request("DELETE", &late, &[], "").status, 404);
    assert_eq!(
        server
            .request("POST", &format!("{late}/leave"), &[], "")
            .status,
        404
    );
    let current = format!("/whip/guest1/{SECOND}");
    assert_eq!(
        server
            .request("DELETE", &format!("/whip/guest2/{SECOND}"), &[], "")
            .status,
        404
    );
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
    assert_eq!(
        (refused.status, refused.body.as_str()),
        (409, "somebody else has joined as guest1\n")
    );
    assert_eq!(
        server.offer("guest1", &[(replaces, "nonsense")]).status,
        409
    );
    assert_eq!(server.offer("guest1", &[(replaces, SECOND)]).status, 201);
    // An empty slot is open to whoever had it before; this one's offer reaches the backend.
    assert_eq!(server.offer("guest2", &[(replaces, FIRST)]).status, 406);
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
fn every_route_takes_its_methods_and_no_others() {
    let session = format!("/whip/guest1/{FIRST}");
    let leave = format!("{session}/leave");
    let server = Server::new();
    for (path, methods, allow) in [
        ("/", "GET HEAD", "OPTIONS, GET, HEAD"),
        ("/guest_join", "GET HEAD", "OPTIONS, GET, HEAD"),
        ("/static/guest_join.js", "GET HEAD", "OPTIONS, GET, HEAD"),
        ("/api/guests", "GET HEAD", "OPTIONS, GET, HEAD"),
        ("/api/page", "GET HEAD", "OPTIONS, GET, HEAD"),
        ("/healthz", "GET HEAD", "OPTIONS, GET, HEAD"),
        ("/whip/guest1", "POST", "OPTIONS, POST"),
        (session.as_str(), "PATCH DELETE", "OPTIONS, PATCH, DELETE"),
        (leave.as_str(), "POST", "OPTIONS, POST"),
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let answer = server.request(method, path, &[], "");
            if method == "OPTIONS" {
                assert_eq!(
                    (answer.status, answer.header("allow")),
                    (204, allow),
                    "{path}"
                );
            } else if methods.contains(method) {
                assert_ne!(answer.status, 405, "{method} {path}");
            } else {
                assert_eq!(
                    (answer.status, answer.header("allow")),
                    (405, allow),
                    "{method} {path}"
                );
            }
        }
    }
    for method in ["GET", "POST", "DELETE", "OPTIONS"] {
        assert_eq!(server.request(method, "/nowhere", &[], "").status, 404);
    }
}

#[test]
fn options_of_the_endpoint_satisfy_rfc_9725_and_a_preflight() {
    let server = Server::new();
    let answer = server.request(
        "OPTIONS",
        "/whip/guest1",
        &[("Access-Control-Request-Method", "POST")],
        "",
    );
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("accept-post"), "application/sdp");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert!(
        answer
            .header("access-control-allow-methods")
            .contains("POST")
    );
    assert!(
        answer
            .header("access-control-allow-headers")
            .contains("Content-Type")
    );
    let session = format!("/whip/guest1/{FIRST}");
    let answer = server.request("OPTIONS", &session, &[], "");
    assert_eq!(
        answer.header("accept-patch"),
        "application/trickle-ice-sdpfrag"
    );
    assert!(
        answer
            .header("access-control-allow-headers")
            .contains("If-Match")
    );
}

#[test]
fn only_the_whip_routes_are_open_to_other_origins() {
    let server = Server::new();
    for path in ["/guest_join", "/api/guests", "/healthz", "/nowhere"] {
        assert!(
            server
                .get(path)
                .headers("access-control-allow-origin")
                .is_empty(),
            "{path}"
        );
    }
}

#[test]
fn the_guest_list_is_json_with_null_for_what_is_not_known() {
    let answer = Server::new().get("/api/guests");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    let value: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let expected = serde_json::json!({"guests": [
        {"id": "guest1", "name": "Guest 1", "enabled": true, "state": "live", "path": "direct", "codec": "H264",
         "audio_codec": null, "width": 1280, "height": 720, "fps": 29.97, "bitrate_kbps": 2400, "loss": 0.01,
         "jitter_ms": 1.5, "last_keyframe_age_ms": 1200, "rtmp": "live", "since": "2025-12-31T23:59:59Z"},
        {"id": "guest2", "name": "Gjest på \"lufta\"", "enabled": false, "state": "absent", "path": null,
         "codec": null, "audio_codec": null, "width": null, "height": null, "fps": null, "bitrate_kbps": null,
         "loss": null, "jitter_ms": null, "last_keyframe_age_ms": null, "rtmp": "idle", "since": null},
    ]});
    assert_eq!(value, expected);
}

#[test]
fn the_page_learns_the_slots_and_nothing_about_the_guests() {
    let answer = Server::new().get("/api/page");
    let value: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let expected = serde_json::json!({
        "public_url": "https://recorder.example.org",
        "max_bitrate_kbps": 2500,
        "guests": [
            {"id": "guest1", "name": "Guest 1", "enabled": true},
            {"id": "guest2", "name": "Gjest på \"lufta\"", "enabled": false},
        ],
    });
    assert_eq!(value, expected);
}

#[test]
fn health_is_200_or_503_with_the_reason() {
    let server = Server::new();
    let healthy = server.get("/healthz");
    assert_eq!((healthy.status, healthy.body.as_str()), (200, "ok\n"));
    server.offer("guest1", &[]);
    let headers = [
        ("Content-Type", "application/trickle-ice-sdpfrag"),
        ("If-Match", "\"ice-1\""),
    ];
    server.request(
        "PATCH",
        &format!("/whip/guest1/{FIRST}"),
        &headers,
        "makes the fake backend ill",
    );
    let ill = server.get("/healthz");
    assert_eq!((ill.status, ill.body.as_str()), (503, "no RTMP server\n"));
}

#[test]
fn pages_come_with_their_type_and_a_policy_and_are_asked_for_again_each_time() {
    let server = Server::new();
    let page = server.get("/guest_join?guest=guest2");
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    assert_eq!(page.body, include_str!("../../static/guest_join.html"));
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let policy = page.header("content-security-policy");
    for directive in [
        "default-src 'none'",
        "script-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(directive), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("cache-control"), "no-cache");
    assert_eq!(server.get("/").body, page.body);
    for (path, content_type) in [
        ("/static/guest_join.js", "text/javascript; charset=utf-8"),
        ("/static/devices.js", "text/javascript; charset=utf-8"),
        ("/static/quality.js", "text/javascript; charset=utf-8"),
        ("/static/strings.js", "text/javascript; charset=utf-8"),
        ("/static/whip.js", "text/javascript; charset=utf-8"),
        ("/static/guest_join.css", "text/css; charset=utf-8"),
    ] {
        assert_eq!(server.get(path).header("content-type"), content_type);
    }

    let etag = page.header("etag").to_owned();
    let again = server.request("GET", "/guest_join", &[("If-None-Match", &etag)], "");
    assert_eq!(
        (again.status, again.body.as_str(), again.header("etag")),
        (304, "", etag.as_str())
    );
    assert!(again.headers("content-length").is_empty(), "{}", again.head);
    assert_eq!(
        server
            .request("GET", "/guest_join", &[("If-None-Match", "\"other\"")], "")
            .status,
        200
    );
}

#[test]
fn a_head_request_gets_the_head_of_the_answer() {
    let server = Server::new();
    let (get, head) = (
        server.get("/guest_join"),
        server.request("HEAD", "/guest_join", &[], ""),
    );
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
    assert_eq!(
        server
            .offer("guest1", &[("CF-Connecting-IP", "203.0.113.7")])
            .status,
        201
    );
    assert_eq!(
        server.calls().last().unwrap(),
        "publish guest1 Direct 203.0.113.7 tunnelled=true"
    );
}

#[test]
fn one_network_cannot_fill_all_slots_with_offers() {
    let server = Server::start(quick(), 1);
    let statuses: Vec<_> = ["guest1", "guest2", "slow"]
        .iter()
        .map(|guest| server.offer(guest, &[]).status)
        .collect();
    assert_eq!(statuses, [201, 406, 503]);
    assert_eq!(server.offer("guest1", &[]).status, 429);
}

#[test]
fn a_claimed_address_that_is_none_or_is_given_twice_is_not_believed() {
    let server = Server::new();
    let name = "CF-Connecting-IP";
    for headers in [
        vec![(name, "localhost")],
        vec![(name, "1.2.3.4"), (name, "5.6.7.8")],
        vec![(name, "")],
    ] {
        assert_eq!(server.offer("guest1", &headers).status, 201);
        assert_eq!(
            server.calls().last().unwrap(),
            "publish guest1 Direct 127.0.0.1 tunnelled=false"
        );
    }
    assert_eq!(server.offer("guest1", &[(name, "2001:db8::1")]).status, 201);
    assert_eq!(
        server.calls().last().unwrap(),
        "publish guest1 Direct 2001:db8::1 tunnelled=true"
    );
}

#[test]
fn malformed_requests_are_refused_and_their_connection_closed() {
    let server = Server::new();
    let long_field = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(9000)
    );
    let many_fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(64));
    let long_body = format!(
        "POST /whip/guest1 HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n{}",
        "x".repeat(65537)
    );
    let two_lengths =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello";
    let chunked =
        "POST /whip/guest1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let both = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for (bytes, status) in [
        (long_field.as_bytes(), 431),
        (many_fields.as_bytes(), 431),
        (long_body.as_bytes(), 413),
        (two_lengths.as_bytes(), 400),
        (chunked.as_bytes(), 411),
        (both.as_bytes(), 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX: \u{e6}\r\n\r\n".as_bytes(),
            400,
        ),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", 505),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ] {
        let answer = server.raw(bytes);
        assert_eq!(
            answer.status,
            status,
            "{}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(80)])
        );
        assert_eq!(answer.header("connection"), "close");
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_line_that_never_ends_is_cut_off_at_eight_kilobytes() {
    let server = Server::new();
    let mut stream = server.connect();
    let mut sent = 0_usize;
    while sent < 16 << 20 && stream.write_all(&[b'a'; 65536]).is_ok() {
        sent += 65536;
    }
    // What fits into socket buffers and what is thrown away while closing; not the 16 MiB.
    assert!(sent < 12 << 20, "{sent}");
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn what_follows_the_body_is_not_taken_for_a_request() {
    let first = "POST /whip/guest1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\nContent-Length: ";
    let smuggled = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer =
        Server::new().raw(format!("{first}{}\r\n\r\n{OFFER}{smuggled}", OFFER.len()).as_bytes());
    assert_eq!((answer.status, answer.body.as_str()), (201, ANSWER));
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_and_then_its_answer() {
    let server = Server::new();
    let mut stream = server.connect();
    let head = format!(
        "POST /whip/guest1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\nExpect: 100-continue\r\n\
         Content-Length: {}\r\n\r\n",
        OFFER.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut received = vec![0; interim.len()];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(received, interim);
    stream.write_all(OFFER.as_bytes()).unwrap();
    assert_eq!(Answer::read(&mut stream).status, 201);
}

#[test]
fn a_request_in_single_bytes_is_served() {
    let server = Server::start(Limits::default(), 1000);
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    for byte in b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(Answer::read(&mut stream).status, 200);
}

/// Sends a byte at a time, each well within every deadline, until the server has had enough.
fn drip(stream: &mut TcpStream, byte: u8) -> Answer {
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let mut received = Vec::new();
    loop {
        let _ = stream.write_all(&[byte]);
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk) {
            Ok(0) => return Answer::parse(&received),
            Ok(n) => received.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return Answer::parse(&received),
        }
    }
}

#[test]
fn a_head_that_drips_is_given_up_at_its_deadline() {
    let server = Server::new();
    let mut stream = server.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
    assert_eq!(drip(&mut stream, b'x').status, 408);
}

#[test]
fn a_body_that_drips_is_given_up_at_its_deadline() {
    let server = Server::new();
    let mut stream = server.connect();
    let head = "POST /whip/guest1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\nContent-Length: 9999\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(drip(&mut stream, b'x').status, 408);
    assert!(server.calls().is_empty());
}

#[test]
fn a_silent_connection_is_closed_without_a_word() {
    let answer = Answer::read(&mut Server::new().connect());
    assert_eq!((answer.status, answer.head.as_str()), (0, ""));
}

#[test]
fn a_connection_closed_in_the_middle_of_a_request_bothers_nobody() {
    let server = Server::new();
    for part in [
        &b""[..],
        b"GET",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe",
    ] {
        let mut stream = server.connect();
        stream.write_all(part).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(Answer::read(&mut stream).status, 0);
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_response_that_is_not_read_to_the_end_does_not_hold_its_connection() {
    let limits = Limits {
        connections: 1,
        ..quick()
    };
    let server = Server::start(limits, 1000);
    let mut stream = server.connect();
    stream
        .write_all(b"GET /static/guest_join.js HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    // Not reading; the only place is needed by somebody else.
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_thousand_silent_connections_keep_nobody_out() {
    let limits = Limits {
        connections: 32,
        idle: Duration::from_secs(30),
        ..quick()
    };
    let server = Server::start(limits, 1000);
    let mut silent = Vec::new();
    for index in 0..1000 {
        silent.push(server.connect());
        if index % 100 == 0 {
            assert_eq!(server.get("/healthz").status, 200);
        }
    }
    // The first ones were closed to make room, the last ones are still open.
    assert_eq!(Answer::read(&mut silent[0]).status, 0);
    let last = silent.last_mut().unwrap();
    last.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    assert_eq!(Answer::read(last).status, 200);
}

#[test]
fn a_request_that_is_being_worked_on_is_not_pushed_out() {
    let limits = Limits {
        connections: 1,
        ..quick()
    };
    let server = Server::start(limits, 1000);
    let mut working = server.connect();
    let head = format!(
        "POST /whip/slow HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{OFFER}",
        OFFER.len()
    );
    working.write_all(head.as_bytes()).unwrap();
    let begin = Instant::now();
    while server.calls().is_empty() {
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "the request never reached the backend"
        );
    }
    let turned_away = server.raw(b"");
    assert_eq!(turned_away.status, 0);
    assert_eq!(Answer::read(&mut working).body, "slow\n");
}
