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
    let both = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for (bytes, status) in [
        (long_field.as_bytes(), 431),
        (many_fields.as_bytes(), 431),
        (long_body.as_bytes(), 413),
        (two_lengths.as_bytes(), 400),
        (both.as_bytes(), 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: \u{e6}\r\n\r\n".as_bytes(), 400),
        ("GET /\u{e6} HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes(), 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n", 400),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.0\r\n\r\n", 400),
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

/// A reader in front of us, which ends the first request elsewhere than we do, must not get a second answer; the codings
/// and sizes are those of the known ways to have two readers disagree.
#[test]
fn no_form_of_framing_makes_two_requests_of_one() {
    let server = Server::new();
    let second = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = |fields: &str, body: &str| {
        let head = "POST /whip/guest1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp";
        format!("{head}\r\n{fields}\r\n\r\n{body}{second}")
    };
    let chunked = |body: &str| post("Transfer-Encoding: chunked", body);
    let old = |fields: &str| post(fields, "0\r\n\r\n").replacen("HTTP/1.1", "HTTP/1.0", 1);
    for (request, status) in [
        (post("Content-Length: 3\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 3", "0\r\n\r\n"), 400),
        (post("Content-Length: 0\r\nContent-Length: 3", "abc"), 400),
        (post("Content-Length: 3, 3", "abc"), 400),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n"), 501),
        (post("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"), 501),
        (post("Transfer-Encoding: xchunked", "0\r\n\r\n"), 501),
        (post("Transfer-Encoding : chunked", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding\t: chunked", "0\r\n\r\n"), 400),
        (post("X: y\r\n Transfer-Encoding: chunked", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding:\u{b}chunked", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding: chunked\u{a0}", "0\r\n\r\n"), 400),
        (post("Content-Length: 3\u{a0}", "abc"), 400),
        (old("Transfer-Encoding: chunked"), 400),
        (old("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400),
        (chunked("0x3\r\nabc\r\n0\r\n\r\n"), 400),
        (chunked("+3\r\nabc\r\n0\r\n\r\n"), 400),
        (chunked("3 \r\nabc\r\n0\r\n\r\n"), 400),
        (chunked("3\nabc\n0\n\n"), 400),
        (chunked("3;x\nabc\r\n0\r\n\r\n"), 400),
        (chunked("3\r\nabcX0\r\n\r\n"), 400),
        (chunked("3\r\nabc0\r\n\r\n"), 400),
        (chunked("0\r\nContent-Length: 5\r\n\r\n"), 400),
        (chunked("FFFFFFFFFFFFFFFF3\r\nabc\r\n0\r\n\r\n"), 400),
        (chunked("10001\r\n"), 413),
        (chunked(&format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(300))), 400),
    ] {
        let answer = server.raw(request.as_bytes());
        assert_eq!(answer.status, status, "{request}");
        assert!(!answer.body.contains("HTTP/1.1"), "{request}: {answer:?}");
    }
    assert!(server.calls().is_empty());
    // And behind a body that is well formed nothing is read.
    let whole = chunked(&format!("{:x};x=y\r\n{OFFER}\r\n0\r\n\r\n", OFFER.len()));
    let answer = server.raw(whole.as_bytes());
    assert_eq!((answer.status, answer.body.as_str()), (201, ANSWER));
    assert_eq!(server.calls().len(), 1);
}

#[test]
fn a_chunked_body_may_come_in_single_bytes_and_after_100_continue() {
    let server = Server::start(Limits::default(), 1000);
    let head = "POST /whip/guest1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\nExpect: 100-continue\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut received = vec![0; interim.len()];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(received, interim);
    for byte in format!("{:X}\r\n{OFFER}\r\n0\r\n\r\n", OFFER.len()).as_bytes() {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(Answer::read(&mut stream).status, 201);
}

#[test]
fn a_chunked_body_that_drips_is_given_up_at_its_deadline() {
    let server = Server::new();
    let mut stream = server.connect();
    let head =
        "POST /whip/guest1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(format!("{head}FFF\r\n").as_bytes()).unwrap();
    assert_eq!(drip(&mut stream, b'x').status, 408);
    assert!(server.calls().is_empty());
}

#[test]
fn http_1_0_is_answered_and_its_connection_closed() {
    let server = Server::new();
    let offer = format!(
        "POST /whip/guest1 HTTP/1.0\r\nHost: upstream_name\r\nConnection: close\r\nExpect: 100-continue\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{OFFER}",
        OFFER.len()
    );
    let answer = server.raw(offer.as_bytes());
    assert_eq!((answer.status, answer.body.as_str()), (201, ANSWER));
    for request in [
        &b"GET /guest_join HTTP/1.0\r\nHost: a\r\n\r\n"[..],
        b"GET /healthz HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\ncf-ipcity: S\xe3o Paulo\r\n\r\n",
    ] {
        let answer = server.raw(request);
        assert_eq!((answer.status, answer.header("connection")), (200, "close"));
        assert!(answer.headers("transfer-encoding").is_empty());
    }
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
