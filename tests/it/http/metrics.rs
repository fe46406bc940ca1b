//! `GET /metrics` and `GET /api/events`, byte by byte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use guest_relay::guest::State;
use guest_relay::http::listeners::LISTENERS_MAX;
use guest_relay::http::metrics::{LINES_PER_GUEST, exposition};
use guest_relay::http::process::Process;
use loadgen::patience::Deadline;

use super::{Server, measured};

/// Lines of the text that are not comments.
fn samples(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn every_measurement_is_a_line_under_its_name() {
    let answer = Server::new().get("/metrics");
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), "no-store");
    let samples = samples(&answer.body);
    for expected in [
        concat!("guest_relay_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "guest_relay_guest_state{guest=\"guest1\",state=\"live\"} 1",
        "guest_relay_guest_state{guest=\"guest1\",state=\"holding\"} 0",
        "guest_relay_guest_state{guest=\"guest2\",state=\"absent\"} 1",
        "guest_relay_guest_hold_seconds_total{guest=\"guest1\"} 12.5",
        "guest_relay_guest_received_bytes_per_second{guest=\"guest1\"} 300000",
        "guest_relay_guest_frames_per_second{guest=\"guest1\"} 29.97",
        "guest_relay_guest_width_pixels{guest=\"guest1\"} 1280",
        "guest_relay_guest_height_pixels{guest=\"guest1\"} 720",
        "guest_relay_guest_round_trip_seconds{guest=\"guest1\"} 0.042",
        "guest_relay_guest_keyframe_age_seconds{guest=\"guest1\"} 1.2",
        "guest_relay_guest_frames_total{guest=\"guest1\"} 900",
        "guest_relay_guest_keyframes_total{guest=\"guest1\"} 3",
        "guest_relay_guest_frames_dropped_total{guest=\"guest1\"} 4",
        "guest_relay_guest_freezes_total{guest=\"guest1\"} 2",
        "guest_relay_guest_freeze_seconds_total{guest=\"guest1\"} 0.75",
        "guest_relay_guest_av_skew_seconds{guest=\"guest1\"} -0.012500",
        "guest_relay_guest_keyframe_requests_total{guest=\"guest1\",message=\"pli\"} 5",
        "guest_relay_guest_keyframe_requests_total{guest=\"guest1\",message=\"fir\"} 1",
        "guest_relay_guest_packets_total{guest=\"guest1\",track=\"audio\"} 1500",
        "guest_relay_guest_packets_total{guest=\"guest1\",track=\"video\"} 8000",
        "guest_relay_guest_packets_lost_total{guest=\"guest1\",track=\"video\"} 7",
        "guest_relay_guest_packets_requested_total{guest=\"guest1\",track=\"video\"} 60",
        "guest_relay_guest_packets_recovered_total{guest=\"guest1\",track=\"video\",by=\"rtx\"} 40",
        "guest_relay_guest_packets_recovered_total{guest=\"guest1\",track=\"video\",by=\"nack\"} 45",
        "guest_relay_guest_packets_recovered_total{guest=\"guest1\",track=\"audio\",by=\"red\"} 6",
        "guest_relay_guest_jitter_seconds{guest=\"guest1\",track=\"video\"} 0.0015",
        "guest_relay_rtmp_state{guest=\"guest1\",state=\"live\"} 1",
        "guest_relay_rtmp_state{guest=\"guest2\",state=\"idle\"} 1",
        "guest_relay_rtmp_connections_total{guest=\"guest1\"} 2",
        "guest_relay_rtmp_written_bytes_total{guest=\"guest1\"} 9000000",
        "guest_relay_rtmp_pictures_dropped_total{guest=\"guest1\"} 30",
        "guest_relay_rtmp_queue_bytes{guest=\"guest1\"} 4096",
        "guest_relay_rtmp_queue_seconds{guest=\"guest1\"} 0.033",
        "guest_relay_rtmp_round_trip_seconds{guest=\"guest1\"} 0.001",
    ] {
        assert!(samples.contains(&expected), "{expected} is not in\n{}", answer.body);
    }
    // What an absent guest does not have is left out, not 0.
    for name in ["received_bytes_per_second", "frames_per_second", "keyframe_age_seconds", "round_trip_seconds"] {
        assert!(!answer.body.contains(&format!("guest_relay_guest_{name}{{guest=\"guest2\"}}")), "{name}");
    }
    for name in
        ["process_resident_memory_bytes ", "process_cpu_seconds_total ", "process_open_fds ", "process_threads "]
    {
        assert!(samples.iter().any(|line| line.starts_with(name)), "{name}");
    }
    let of_sfu = samples.iter().filter(|line| line.starts_with("guest_relay_sfu_calls_total{endpoint=\"")).count();
    assert_eq!(of_sfu, 36);
}

#[test]
fn a_family_is_described_once_and_its_samples_stand_together() {
    let text = exposition(&measured(), &Process::default());
    let mut families = Vec::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let name = help.split(' ').next().unwrap();
            assert!(!families.contains(&name), "{name} twice");
            families.push(name);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(Some(&name), families.last());
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        } else {
            assert_eq!(line.split(['{', ' ']).next(), families.last().copied(), "{line}");
        }
    }
    assert!(families.len() > 30);
    let of_guest1 = text.lines().filter(|line| line.contains("guest=\"guest1\"")).count();
    assert!(of_guest1 <= LINES_PER_GUEST, "{of_guest1} lines");
}

/// Reads from a stream of events until `enough`.
fn read_until(stream: &mut TcpStream, text: &mut String, enough: impl Fn(&str) -> bool) {
    let mut chunk = [0; 1024];
    let deadline = Deadline::new("what a page is to hear");
    while !enough(text) {
        deadline.check(|| text.clone());
        let length = stream.read(&mut chunk).unwrap();
        assert!(length > 0, "closed after {text}");
        text.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
    }
}

fn listen(server: &Server) -> TcpStream {
    let mut stream = server.connect();
    stream.write_all(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream
}

#[test]
fn a_page_hears_how_things_stand_and_then_what_changes() {
    let server = Server::new();
    let mut stream = listen(&server);
    let mut text = String::new();
    read_until(&mut stream, &mut text, |text| text.contains("event: status\ndata: ") && text.ends_with("\n\n"));
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    for field in ["content-type: text/event-stream", "cache-control: no-store", "connection: close"] {
        assert!(head.lines().any(|line| line == field), "{field} in {head}");
    }
    assert!(!head.to_lowercase().contains("content-length"));
    let data = body.split_once("event: status\ndata: ").unwrap().1.lines().next().unwrap();
    let status: serde_json::Value = serde_json::from_str(data).unwrap();
    let polled: serde_json::Value = serde_json::from_str(&server.get("/api/guests").body).unwrap();
    assert_eq!(status, polled);
    server.change("guest2", State::Joining);
    let change = "event: state\ndata: {\"guest\":\"guest2\",\"state\":\"joining\"}\n\n";
    read_until(&mut stream, &mut text, |text| text.ends_with(change));
}

#[test]
fn events_are_for_a_limited_number_of_pages_and_head_listens_to_nothing() {
    let server = Server::new();
    for _ in 0..3 {
        let answer = server.request("HEAD", "/api/events", &[], "");
        assert_eq!(
            (answer.status, answer.header("content-type"), answer.body.as_str()),
            (200, "text/event-stream", "")
        );
    }
    let mut pages: Vec<TcpStream> = (0..LISTENERS_MAX).map(|_| listen(&server)).collect();
    for page in &mut pages {
        read_until(page, &mut String::new(), |text| text.contains("event: status"));
    }
    let refused = server.get("/api/events");
    assert_eq!((refused.status, refused.header("retry-after")), (503, "10"));
    assert_eq!(server.request("POST", "/api/events", &[], "").status, 405);
    // A page that closes makes room, as soon as the server has noticed.
    pages.truncate(LISTENERS_MAX / 2);
    let again = (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        let mut stream = listen(&server);
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        head == *b"HTTP/1.1 200"
    });
    assert!(again);
}

#[test]
fn without_the_media_threads_answer_nobody_is_told_that_a_guest_is_absent() {
    let server = Server::new();
    assert_eq!(server.offer("guest1", &[]).status, 201);
    assert_eq!(server.offer("mute", &[]).status, 503);
    for path in ["/api/guests", "/metrics", "/healthz"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.body.as_str()), (503, "the media thread does not answer\n"), "{path}");
    }
    assert_eq!(server.get("/api/guests").header("retry-after"), "2");
    // What the configuration says needs no answer.
    let page = server.get("/api/page");
    assert!(page.status == 200 && page.body.contains("\"id\":\"guest1\",\"name\":\"Guest 1\""), "{}", page.body);
    let mut stream = server.connect();
    stream.write_all(b"GET /api/events HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut text = String::new();
    while !text.contains("\n\nevent: ") || !text.ends_with("\n\n") {
        let mut chunk = [0; 1024];
        let received = stream.read(&mut chunk).expect("something within the socket's deadline");
        assert!(received > 0, "{text}");
        text.push_str(std::str::from_utf8(&chunk[..received]).unwrap());
    }
    assert!(text.ends_with("event: unknown\ndata: {\"reason\":\"the media thread does not answer\"}\n\n"), "{text}");
}
