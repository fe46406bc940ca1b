//! TURN credentials: replies as the API documents them, and ones that cannot be used.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use super::*;

const STUN: &str = "stun:stun.cloudflare.com:3478";

/// A server that answers one request with `body`; gives its base and what it was asked.
fn answering(status: &'static str, body: &'static str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        // bounded: the client gives a call up, and then nothing can be read
        while !request.ends_with(b"}") {
            let n = stream.read(&mut buffer).unwrap();
            request.extend_from_slice(&buffer[..n]);
        }
        let length = body.len();
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").unwrap();
        String::from_utf8(request).unwrap()
    });
    (base, server)
}

fn generate(status: &'static str, body: &'static str) -> Result<Vec<IceServer>, CallError> {
    let (base, server) = answering(status, body);
    let servers = TurnClient::new(&base, "key1", Secret::new("turn-canary".to_owned())).generate();
    server.join().unwrap();
    servers
}

#[test]
fn credentials_are_asked_for_with_the_keys_own_token_and_given_to_the_page_without_port_53() {
    // The documented reply, with the :53 URLs that older ones list.
    let (base, server) = answering(
        "201 Created",
        r#"{"iceServers":[
        {"urls":["stun:stun.cloudflare.com:3478","stun:stun.cloudflare.com:53"]},
        {"urls":["turn:turn.cloudflare.com:3478?transport=udp","turn:turn.cloudflare.com:53?transport=udp",
                 "turns:turn.cloudflare.com:5349?transport=tcp","turns:turn.cloudflare.com:443?transport=tcp","javascript:alert(1)"],
         "username":"u","credential":"c"}]}"#,
    );
    let servers = TurnClient::new(&base, "key1", Secret::new("turn-canary".to_owned())).generate().unwrap();
    let request = server.join().unwrap();
    assert!(request.starts_with("POST /v1/turn/keys/key1/credentials/generate-ice-servers HTTP/1.1\r\n"), "{request}");
    assert!(request.to_ascii_lowercase().contains("authorization: bearer turn-canary\r\n"), "{request}");
    assert!(request.ends_with(r#"{"ttl":86400}"#), "{request}");
    let [stun, turn] = servers.as_slice() else { panic!("{servers:?}") };
    assert_eq!((stun.urls.as_slice(), &stun.username, &stun.credential), ([STUN.to_owned()].as_slice(), &None, &None));
    assert_eq!(
        turn.urls,
        [
            "turn:turn.cloudflare.com:3478?transport=udp",
            "turns:turn.cloudflare.com:5349?transport=tcp",
            "turns:turn.cloudflare.com:443?transport=tcp"
        ]
    );
    assert_eq!((turn.username.as_deref(), turn.credential.as_deref()), (Some("u"), Some("c")));
    assert!(!format!("{servers:?}").contains("\"c\""));
}

#[test]
fn the_older_reply_with_one_object_is_understood() {
    let servers = generate(
        "201 Created",
        r#"{"iceServers":{"urls":"turn:turn.cloudflare.com:3478","username":"u","credential":"c"}}"#,
    );
    assert_eq!(servers.unwrap()[0].urls, ["turn:turn.cloudflare.com:3478"]);
}

#[test]
fn a_reply_without_a_usable_server_and_a_wrong_key_are_errors_with_a_remedy() {
    let empty = generate("201 Created", r#"{"iceServers":[{"urls":["http://example.org"]}]}"#).unwrap_err();
    assert!(matches!(empty.cause, Cause::ReplyLost(_)), "{empty}");
    let unauthorized = generate("401 Unauthorized", "{}").unwrap_err();
    assert!(unauthorized.to_string().contains("cloudflare.turn_api_token"), "{unauthorized}");
    let unknown = generate("404 Not Found", "{}").unwrap_err();
    assert!(unknown.is_misconfiguration() && unknown.to_string().contains("cloudflare.turn_token_id"), "{unknown}");
}

#[test]
fn a_server_whose_credentials_could_break_out_of_a_header_field_is_dropped() {
    for credential in ["with\\r\\nSet-Cookie: x", "a b", "\u{e6}", &"x".repeat(257)] {
        let body = format!(
            r#"{{"iceServers":[{{"urls":"stun:stun.example.org"}},{{"urls":"turn:turn.example.org","username":"u","credential":"{credential}"}}]}}"#
        );
        let servers = generate("201 Created", body.leak()).unwrap();
        assert_eq!(servers.len(), 1, "{credential:?}");
        assert_eq!(servers[0].urls, ["stun:stun.example.org"]);
    }
}
