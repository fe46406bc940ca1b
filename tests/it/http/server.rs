//! Malformed requests, slow clients, too many clients: what the server refuses and how long it waits.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use guest_relay::http::Limits;
use loadgen::patience::Deadline;

use super::{ANSWER, Answer, OFFER, Server, quick};

#[test]
fn malformed_requests_are_refused_and_their_connection_closed() {
    let server = Server::new();
    let long_field = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(9000));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(64));
    let long_body =
        format!("POST /whip/guest1 HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n{}", "x".repeat(65537));
    let two_lengths = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST /whip/guest1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
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
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{e6}\r\n\r\n".as_bytes(), 400),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", 505),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ] {
        let answer = server.raw(bytes);
        assert_eq!(answer.status, status, "{}", String::from_utf8_lossy(&bytes[..bytes.len().min(80)]));
        assert_eq!(answer.header("connection"), "close");
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_line_that_never_ends_is_cut_off_at_eight_kilobytes() {
    let server = Server::new();
    let mut stream = server.connect();
    let mut sent = 0_usize;
    // bounded: by the bytes
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
    let answer = Server::new().raw(format!("{first}{}\r\n\r\n{OFFER}{smuggled}", OFFER.len()).as_bytes());
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
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut received = Vec::new();
    let deadline = Deadline::new("the server to have had enough");
    loop {
        deadline.check(|| String::from_utf8_lossy(&received).into_owned());
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
    for part in [&b""[..], b"GET", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe"] {
        let mut stream = server.connect();
        stream.write_all(part).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(Answer::read(&mut stream).status, 0);
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_response_that_is_not_read_to_the_end_does_not_hold_its_connection() {
    let limits = Limits { connections: 1, ..quick() };
    let server = Server::start(limits, 1000);
    let mut stream = server.connect();
    stream.write_all(b"GET /static/guest_join.js HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    // Not reading; the only place is needed by somebody else.
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_handler_that_panics_costs_its_connection_and_nothing_else() {
    let limits = Limits { connections: 1, ..quick() };
    let server = Server::start(limits, 1000);
    for _ in 0..3 {
        assert_eq!(server.offer("panic", &[]).status, 0);
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_thousand_silent_connections_keep_nobody_out() {
    let limits = Limits { connections: 32, idle: Duration::from_secs(30), ..quick() };
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
    last.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(Answer::read(last).status, 200);
}

#[test]
fn a_request_that_is_being_worked_on_is_not_pushed_out() {
    let limits = Limits { connections: 1, ..quick() };
    let server = Server::start(limits, 1000);
    let mut working = server.connect();
    let head = format!(
        "POST /whip/slow HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{OFFER}",
        OFFER.len()
    );
    working.write_all(head.as_bytes()).unwrap();
    let deadline = Deadline::new("the request to reach the backend");
    while server.calls().is_empty() {
        deadline.check(|| "no call");
    }
    let turned_away = server.raw(b"");
    assert_eq!(turned_away.status, 0);
    assert_eq!(Answer::read(&mut working).body, "slow\n");
}
