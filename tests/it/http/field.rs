//! Requests in the form in which proxies and tunnels send them (field/README.md), to the whole daemon.

use std::io::{Read, Write};
use std::net::TcpStream;

use ingest::{Ingest, Options};
use loadgen::patience::PATIENCE;

use crate::daemon::Daemon;

/// The whole answer, read until the daemon closes.
fn answer(daemon: &Daemon, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(daemon.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn what_proxies_and_tunnels_send_is_served() {
    let ingest = Ingest::bind("127.0.0.1:0", Options::default()).unwrap();
    let daemon = Daemon::start(&format!("rtmp://{}/{{guest_id}}", ingest.addr()), "");
    let nginx = include_bytes!("field/30-http10-nginx-default.http");
    let created = answer(&daemon, nginx);
    assert!(created.starts_with("HTTP/1.1 201 Created\r\n"), "{created}");
    assert!(created.contains("\r\nconnection: close\r\n") && created.contains("\r\n\r\nv=0\r\n"), "{created}");
    let page = answer(&daemon, include_bytes!("field/31-cf-ipcity-utf8.http"));
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("<!doctype html>"), "{page}");

    // The same offer in chunks, as nginx passes an upload on that it does not buffer.
    let end = nginx.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let mut chunked = b"POST /whip/guest1/ HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\n\
                        Transfer-Encoding: chunked\r\n\r\n"
        .to_vec();
    for chunk in nginx[end..].chunks(100) {
        chunked.extend(format!("{:x}\r\n", chunk.len()).bytes());
        chunked.extend(chunk);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    let created = answer(&daemon, &chunked);
    assert!(created.starts_with("HTTP/1.1 201 Created\r\n"), "{created}");
}
