//! The client against servers that do one thing each, on loopback.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use loadgen::patience::{PATIENCE, Stopwatch};

use super::*;

mod certificates;

const TOKEN: &str = "canary-5f1c9e0d7b3a46288a64";

/// A server that reads one request of each connection and then does `act`; requests come out of the channel.
struct Server {
    base: String,
    requests: mpsc::Receiver<String>,
}

impl Server {
    fn start(act: impl Fn(&mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let (sender, requests) = mpsc::channel();
        thread::spawn(move || {
            // bounded: a server lives as long as the process
            while let Ok((mut stream, _)) = listener.accept() {
                let request = read_request(&mut stream);
                if sender.send(request).is_err() {
                    break;
                }
                act(&mut stream);
            }
        });
        Self { base, requests }
    }

    fn answering(head: &'static str, body: impl Into<String>) -> Self {
        let body = body.into();
        Self::start(move |stream| {
            let length = body.len();
            let _ = write!(stream, "{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        })
    }

    fn client(&self) -> Client {
        client(&self.base)
    }

    fn request(&self) -> String {
        self.requests.recv_timeout(PATIENCE).expect("a request comes")
    }
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // bounded: each read ends, and a request is short
    loop {
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text.into_owned();
            }
        }
        match stream.read(&mut buffer).unwrap() {
            0 => return String::from_utf8_lossy(&request).into_owned(),
            n => request.extend_from_slice(&buffer[..n]),
        }
    }
}

fn client(base: &str) -> Client {
    client_within(base, PATIENCE)
}

/// A client whose calls may take so long.
fn client_within(base: &str, call: Duration) -> Client {
    let timeouts = Timeouts { call, inspect: call, ..Timeouts::default() };
    Client::with_timeouts(base, "0123456789abcdef0123456789abcdef", Secret::new(TOKEN.to_owned()), timeouts)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncf-ray: 8f00ba4-LHR";

fn lost_reason(error: CallError) -> String {
    match error.cause {
        Cause::ReplyLost(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_is_asked_for_without_a_body_and_with_everything_that_the_edge_wants() {
    let server = Server::answering("HTTP/1.1 201 Created", r#"{"sessionId":"00112233445566778899aabbccddeeff"}"#);
    assert_eq!(server.client().new_session().unwrap(), "00112233445566778899aabbccddeeff");
    let request = server.request();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/apps/0123456789abcdef0123456789abcdef/sessions/new HTTP/1.1"), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(head.contains(&format!("\r\nauthorization: bearer {TOKEN}")), "{head}");
    assert!(head.contains("\r\nuser-agent: guest-relay/"), "{head}");
    assert!(head.contains("\r\ncontent-length: 0"), "{head}");
    assert!(!head.contains("content-type") && body.is_empty(), "{request}");
}

#[test]
fn every_call_has_the_method_the_path_and_the_body_of_the_api() {
    let server = Server::answering(OK, r#"{"tracks":[{"mid":"0","trackName":"video"}]}"#);
    let client = server.client();
    let mids = ["0".to_owned(), "1".to_owned()];
    client
        .new_tracks(
            "s1",
            &TracksRequest { session_description: None, tracks: vec![super::super::api::Track::remote("p1", "video")] },
        )
        .unwrap();
    client.renegotiate("s1", "v=0\r\n").unwrap();
    client.close_tracks("s1", &mids).unwrap();
    client.inspect("s1").unwrap();
    for (line, json) in [
        (
            "POST /v1/apps/0123456789abcdef0123456789abcdef/sessions/s1/tracks/new",
            r#"{"tracks":[{"location":"remote","sessionId":"p1","trackName":"video"}]}"#,
        ),
        (
            "PUT /v1/apps/0123456789abcdef0123456789abcdef/sessions/s1/renegotiate",
            r#"{"sessionDescription":{"type":"answer","sdp":"v=0\r\n"}}"#,
        ),
        (
            "PUT /v1/apps/0123456789abcdef0123456789abcdef/sessions/s1/tracks/close",
            r#"{"tracks":[{"mid":"0"},{"mid":"1"}],"force":true}"#,
        ),
        ("GET /v1/apps/0123456789abcdef0123456789abcdef/sessions/s1", ""),
    ] {
        let request = server.request();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("{line} HTTP/1.1\r\n")), "{head}");
        assert_eq!(body, json);
        assert_eq!(head.to_ascii_lowercase().contains("content-type: application/json"), !json.is_empty());
    }
}

#[test]
fn nothing_listens_there() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = client(&format!("http://{address}")).new_session().unwrap_err();
    assert!(matches!(&error.cause, Cause::Unreachable(reason) if reason.contains("refused")), "{error}");
    assert!(error.is_transient() && !error.is_outcome_unknown() && !error.is_misconfiguration());
    assert!(error.to_string().contains("check this machine's way to the internet"), "{error}");
}

#[test]
fn the_host_has_no_address() {
    let error = client("http://no-such-host.invalid/v1").new_session().unwrap_err();
    assert!(matches!(error.cause, Cause::Unreachable(_)), "{error}");
}

#[test]
fn a_server_without_tls_behind_an_https_address_is_unreachable_and_gets_no_token() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("https://{}/v1", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = vec![0; 4096];
        let n = stream.read(&mut received).unwrap();
        received.truncate(n);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        received
    });
    let error = client(&base).new_session().unwrap_err();
    assert!(matches!(error.cause, Cause::Unreachable(_)), "{error}");
    assert!(!String::from_utf8_lossy(&server.join().unwrap()).contains(TOKEN));
}

#[test]
fn no_reply_a_slow_head_and_a_slow_body_are_lost_replies_within_the_calls_time() {
    let silent = Server::start(|_| thread::sleep(Duration::from_secs(2)));
    let slow_head = Server::start(|stream| {
        for byte in OK.as_bytes() {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    let slow_body = Server::start(|stream| {
        let _ = write!(stream, "{OK}\r\nContent-Length: 1000\r\n\r\n");
        // bounded: the client hangs up
        while stream.write_all(b" ").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    for server in [silent, slow_head, slow_body] {
        let client = client_within(&server.base, Duration::from_millis(300));
        let error = client.renegotiate("s1", "v=0\r\n").unwrap_err();
        assert!(error.is_outcome_unknown() && error.is_transient());
        assert_eq!(error.cause, Cause::TimedOut(Duration::from_millis(300)));
        assert_eq!(error.to_string(), "renegotiate: no complete reply within 300ms");
    }
}

#[test]
fn a_connection_that_closes_after_the_request_or_within_the_reply_is_a_lost_reply() {
    for reply in ["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}"] {
        let server = Server::start(move |stream| {
            let _ = stream.write_all(reply.as_bytes());
        });
        let error = server.client().renegotiate("s1", "v=0\r\n").unwrap_err();
        assert!(matches!(error.cause, Cause::ReplyLost(_)), "{reply:?}: {error}");
    }
}

#[test]
fn a_reply_that_is_not_json_not_http_or_too_long_is_a_lost_reply() {
    let long_body = format!("{{\"x\":\"{}\"}}", "x".repeat(256 * 1024));
    let long_head: &str = Box::leak(format!("{OK}\r\nX-Long: {}", "x".repeat(40_000)).into_boxed_str());
    for server in [
        Server::answering(OK, "<html>fine</html>"),
        Server::answering(OK, r#"{"sessionId":"#),
        Server::answering(OK, ""),
        Server::answering("SSH-2.0-OpenSSH_9.2", ""),
        Server::answering(OK, long_body),
        Server::answering(long_head, "{}"),
    ] {
        let error = server.client().inspect("s1").unwrap_err();
        assert!(matches!(error.cause, Cause::ReplyLost(_)), "{error}");
    }
}

#[test]
fn a_session_id_that_could_not_stand_in_a_url_is_refused() {
    let long = "a".repeat(65);
    for id in ["", "../../turn", "a/b", "a b", "é", long.as_str()] {
        let server = Server::answering(OK, format!(r#"{{"sessionId":"{id}"}}"#));
        assert_eq!(lost_reason(server.client().new_session().unwrap_err()), "it holds no usable sessionId");
    }
}

#[test]
fn each_refusal_keeps_status_code_text_and_ray_and_says_what_to_do() {
    /// Status line, errorCode, (misconfiguration, transient, gone), words for the operator.
    type Case = (&'static str, &'static str, (bool, bool, bool), &'static str);
    const CASES: [Case; 10] = [
        ("401 Unauthorized", "unauthorized", (true, false, false), "calls_api_token"),
        ("403 Forbidden", "", (true, false, false), "refuses this machine"),
        ("404 Not Found", "not_found", (false, false, true), "404 not_found"),
        ("400 Bad Request", "decoding_error", (false, false, false), "400 decoding_error"),
        ("406 Not Acceptable", "invalid_params", (false, false, false), "406 invalid_params"),
        ("410 Gone", "session_error", (false, false, true), "410 session_error"),
        ("425 Too Early", "session_error", (false, true, false), "425 session_error"),
        ("429 Too Many Requests", "", (false, true, false), "429"),
        ("500 Internal Server Error", "internal_error", (false, true, false), "500 internal_error"),
        ("503 Service Unavailable", "", (false, true, false), "503"),
    ];
    for (status, code, (misconfigured, transient, gone), operator) in CASES {
        let head = format!("HTTP/1.1 {status}\r\ncf-ray: 8f00ba4-LHR\r\nRetry-After: 7");
        let body = format!(r#"{{"errorCode":"{code}","errorDescription":"some words"}}"#);
        let server = Server::answering(Box::leak(head.into_boxed_str()), body);
        let error = server.client().renegotiate("s1", "v=0\r\n").unwrap_err();
        assert_eq!(
            error.cause,
            Cause::Refused {
                status: status[..3].parse().unwrap(),
                code: code.to_owned(),
                description: "some words".to_owned(),
                cf_ray: "8f00ba4-LHR".to_owned(),
                retry_after: Some(Duration::from_secs(7)),
            }
        );
        assert_eq!(
            (error.is_misconfiguration(), error.is_transient(), error.is_gone()),
            (misconfigured, transient, gone),
            "{status}"
        );
        let text = error.to_string();
        assert!(text.contains(operator) && text.contains("cf-ray 8f00ba4-LHR"), "{text}");
    }
}

#[test]
fn an_unknown_app_is_told_from_a_session_that_is_gone() {
    let server =
        Server::answering("HTTP/1.1 404 Not Found", r#"{"errorCode":"not_found","errorDescription":"App not found"}"#);
    let error = server.client().new_session().unwrap_err();
    assert!(error.is_misconfiguration() && !error.is_gone());
    assert!(error.to_string().contains("check cloudflare.calls_app_id"), "{error}");
    assert!(server.client().inspect("s1").unwrap_err().is_gone());
}

#[test]
fn a_refusal_without_the_apis_json_shows_the_beginning_of_what_came() {
    for (body, shown) in [
        ("error code: 1010", "error code: 1010"),
        ("<html>\n<title>502</title>\u{1b}[31m", "<html><title>502</title>[31m"),
        ("", ""),
    ] {
        let server = Server::answering("HTTP/1.1 403 Forbidden", body);
        let error = server.client().new_session().unwrap_err();
        assert!(
            matches!(error.cause, Cause::Refused { status: 403, ref description, .. } if description == shown),
            "{error:?}"
        );
    }
    let server = Server::answering("HTTP/1.1 502 Bad Gateway", "x".repeat(10_000));
    let error = server.client().new_session().unwrap_err();
    assert!(matches!(error.cause, Cause::Refused { ref description, .. } if description.len() == 200));
}

#[test]
fn a_redirect_is_refused_and_the_token_does_not_follow_it() {
    let elsewhere = Server::answering(OK, "{}");
    let head = format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {}/apps", elsewhere.base);
    let server = Server::answering(Box::leak(head.into_boxed_str()), "");
    for result in [server.client().renegotiate("s1", "v=0\r\n"), server.client().inspect("s1").map(|_| ())] {
        let error = result.unwrap_err();
        assert_eq!(error.status(), Some(307));
        assert!(error.is_misconfiguration() && error.to_string().contains("cloudflare.api_base"), "{error}");
    }
    assert!(elsewhere.requests.try_recv().is_err());
}

#[test]
fn an_error_inside_an_http_200_is_an_error() {
    let server = Server::answering(OK, r#"{"errorCode":"internal_error","errorDescription":"x","tracks":[]}"#);
    let client = server.client();
    for error in [
        client.new_session().unwrap_err(),
        client.new_tracks("s1", &TracksRequest::default()).unwrap_err(),
        client.renegotiate("s1", "v=0\r\n").unwrap_err(),
        client.close_tracks("s1", &["0".to_owned()]).unwrap_err(),
        client.inspect("s1").unwrap_err(),
    ] {
        assert!(
            matches!(error.cause, Cause::Refused { status: 200, ref code, .. } if code == "internal_error"),
            "{error}"
        );
        assert!(error.to_string().contains("cf-ray 8f00ba4-LHR"), "{error}");
    }
}

#[test]
fn closing_what_is_closed_already_or_gone_is_a_success() {
    let mids = ["0".to_owned()];
    let closed = r#"{"tracks":[{"mid":"0","errorCode":"close_track_error","errorDescription":"Track doesn't exist or was already closed"}]}"#;
    assert_eq!(Server::answering(OK, closed).client().close_tracks("s1", &mids), Ok(()));
    assert_eq!(Server::answering("HTTP/1.1 410 Gone", "{}").client().close_tracks("s1", &mids), Ok(()));
    let backend =
        r#"{"tracks":[{"mid":"0"},{"mid":"1","errorCode":"internal_error","errorDescription":"Backend error"}]}"#;
    assert!(Server::answering(OK, backend).client().close_tracks("s1", &mids).is_err());
    // Nothing to close is no call: the API would refuse it.
    let server = Server::answering(OK, "{}");
    assert_eq!(server.client().close_tracks("s1", &[]), Ok(()));
    assert!(server.requests.try_recv().is_err());
}

#[test]
fn the_replys_ray_is_kept_for_tracks_that_failed() {
    let server = Server::answering(
        OK,
        r#"{"tracks":[{"mid":"","trackName":"video","errorCode":"empty_track_error","errorDescription":"\u001b[2Jx"}]}"#,
    );
    let reply = server.client().new_tracks("s1", &TracksRequest::default()).unwrap();
    assert_eq!(reply.cf_ray, "8f00ba4-LHR");
    let error = reply.tracks[0].outcome().unwrap_err();
    assert_eq!((error.code, error.description), ("empty_track_error", "[2Jx"));
}

#[test]
fn a_server_that_repeats_the_token_does_not_get_it_into_a_text_of_ours() {
    let echo = format!(
        r#"{{"errorCode":"{TOKEN}","errorDescription":"Bearer {TOKEN}","tracks":[{{"trackName":"v","errorCode":"x","errorDescription":"{TOKEN}"}}]}}"#
    );
    let refusing =
        Server::answering(Box::leak(format!("HTTP/1.1 401 No\r\ncf-ray: {TOKEN}").into_boxed_str()), echo.clone());
    let wrong_type = Server::answering(OK, format!(r#"{{"tracks":"{TOKEN}"}}"#));
    let plain = Server::answering("HTTP/1.1 500 No", format!("Bearer {TOKEN}"));
    let items = Server::answering(
        OK,
        format!(r#"{{"tracks":[{{"trackName":"v","errorCode":"{TOKEN}","errorDescription":"{TOKEN}"}}]}}"#),
    );
    let header = Server::answering(Box::leak(format!("HTTP/1.1 {TOKEN}").into_boxed_str()), "");
    // As a session's id, a description for a guest, or anything else that goes on.
    let id = Server::answering(OK, format!(r#"{{"sessionId":"{TOKEN}"}}"#));
    let error = id.client().new_session().unwrap_err();
    assert!(error.is_unanswered() && !format!("{error} {error:?}").contains(TOKEN), "{error:?}");
    let answer =
        Server::answering(OK, format!(r#"{{"sessionDescription":{{"type":"answer","sdp":"s={TOKEN}"}},"tracks":[]}}"#));
    for server in [&refusing, &wrong_type, &plain, &header, &items, &answer] {
        let error = server.client().new_tracks("s1", &TracksRequest::default()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(TOKEN), "{error:?}");
    }
}

#[test]
fn connecting_has_three_seconds_and_a_call_twelve() {
    let timeouts = Timeouts::default();
    assert_eq!((timeouts.connect, timeouts.call), (Duration::from_secs(3), Duration::from_secs(12)));
    assert!(timeouts.resolve <= timeouts.call && timeouts.inspect <= timeouts.call);
}

/// What a full backlog makes of a connection: its first packet is dropped, and nobody says so.
#[test]
fn a_host_that_answers_no_connection_is_given_up_in_the_time_for_connecting() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        waiting.push(stream);
        assert!(waiting.len() < 10_000, "the backlog does not fill");
    }
    let connect = Duration::from_millis(400);
    let timeouts = Timeouts { connect, ..Timeouts::default() };
    let token = Secret::new(TOKEN.to_owned());
    let client = Client::with_timeouts(&format!("http://{address}/v1"), "app", token, timeouts);
    let (began, watch) = (Instant::now(), Stopwatch::start());
    let error = client.new_session().unwrap_err();
    assert_eq!(error.cause, Cause::Unreachable("connecting took too long".to_owned()));
    // The kernel counts the time in steps of its own.
    assert!(began.elapsed() >= connect / 2 && watch.elapsed() < timeouts.call / 2, "{:?}", began.elapsed());
}

#[test]
fn a_token_that_cannot_stand_in_a_header_is_an_error_and_no_panic() {
    let server = Server::answering(OK, "{}");
    let client = Client::new(&server.base, "app", Secret::new("a\r\nb: c".to_owned()));
    let error = client.new_session().unwrap_err();
    assert!(matches!(error.cause, Cause::Unreachable(_)), "{error}");
    assert!(!error.to_string().contains("b: c"), "{error}");
}
