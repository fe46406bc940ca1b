//! What `async-h1` makes of requests that the guard let through, and of our responses.
#![allow(clippy::unwrap_used)]

use super::*;

/// xorshift64*: the same requests in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % bound
    }
}

const SEEDS: [&str; 5] = [
    "POST /whip/guest1?a=b HTTP/1.1\r\nHost: a.example:8000\r\nContent-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n",
    "GET /%2e%2e/x HTTP/1.1\r\nHost: [::1]:80\r\nCookie: a=b; c\r\nAccept-Encoding: gzip\r\nDate: x\r\n\r\n",
    "OPTIONS / HTTP/1.1\r\nHost: r58\r\nConnection: upgrade, close\r\nUpgrade: h2c\r\nForwarded: for=1\r\nContent-Length: 0\r\n\r\n",
    "POST /whip/guest1 HTTP/1.0\r\nHost: 127.0.0.1:8000\r\nConnection: close\r\nContent-Length: 3\r\ncf-ipcity: S\u{e3}o Paulo\r\n\r\nv=0",
    "POST /whip/guest1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nv=0\r\n0\r\n\r\n",
];
const PIECES: [&str; 16] = [
    "\r\n",
    ":",
    " ",
    "\t",
    "Content-Length: 3\r\n",
    "Host: ",
    "/..",
    "//",
    "@",
    "[",
    "xn--",
    "\u{e6}",
    "HTTP/1.1",
    "%",
    "Transfer-Encoding: chunked\r\n",
    "HTTP/1.0",
];

#[test]
fn whatever_the_guard_lets_through_is_decoded_or_refused_and_never_panics() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let address = SocketAddr::from(([127, 0, 0, 1], 8000));
    let (mut decoded, mut refused) = (0, 0);
    for round in 0..20_000 {
        let mut bytes = SEEDS[round % SEEDS.len()].as_bytes().to_vec();
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => drop(bytes.remove(at)),
                1 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
                2 => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].bytes())),
                _ => bytes.swap(at, 0),
            }
        }
        let Ok(Some(mut head)) = HeadReader::new().push(&bytes) else {
            refused += 1;
            continue;
        };
        let mut body = std::mem::take(&mut head.rest);
        match head.framing {
            Framing::Length(length) => body.resize(length, 0),
            Framing::Chunked => {
                let mut chunks = ChunkedBody::new(BODY_MAX);
                if chunks.push(&body) != Ok(true) {
                    refused += 1;
                    continue;
                }
                body = chunks.into_body();
            }
        }
        let expected = (head.method, head.target.clone(), body.clone());
        let Some(request) = smol::block_on(decode_request(head, &body, address, address.ip())) else {
            continue;
        };
        decoded += 1;
        let target = match request.query.as_str() {
            "" => request.path.clone(),
            query => format!("{}?{query}", request.path),
        };
        assert_eq!(
            (request.method, target.as_str(), &request.body),
            (expected.0, expected.1.trim_end_matches('?'), &expected.2)
        );
    }
    // Both ways must have been taken often, or the test shows nothing.
    assert!(decoded > 5_000 && refused > 2_000, "{decoded} decoded, {refused} refused");
}

#[test]
fn the_head_of_a_response_has_its_length_the_date_and_closes() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let head = |response: &Response| String::from_utf8(head_of(response, now)).unwrap();
    // The date is the example of RFC 9110 §5.6.7.
    assert_eq!(
        head(&Response::text(404, "nothing").with("allow", "GET")),
        "HTTP/1.1 404 Not Found\r\ncontent-type: text/plain; charset=utf-8\r\nx-content-type-options: nosniff\r\n\
         allow: GET\r\ncontent-length: 8\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nconnection: close\r\n\r\n"
    );
    for status in [204, 304] {
        assert!(!head(&Response::new(status)).contains("content-length"), "{status}");
    }
    assert!(head(&Response::new(201)).starts_with("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n"));
}

#[test]
fn only_a_request_from_this_host_says_who_is_behind_a_tunnel() {
    let behind = |peer: &str, field| behind_tunnel(peer.parse().unwrap(), field).map(|ip| ip.to_string());
    let guest = Some("203.0.113.7".to_owned());
    for peer in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(behind(peer, Some(" 203.0.113.7 ")), guest, "{peer}");
        assert_eq!(behind(peer, Some("::ffff:203.0.113.7")), guest, "{peer}");
        assert_eq!(behind(peer, Some("203.0.113.7, 127.0.0.1")), None, "{peer}");
        assert_eq!(behind(peer, None), None, "{peer}");
    }
    for peer in ["192.168.1.77", "10.0.0.1", "203.0.113.9", "::ffff:192.168.1.77", "fe80::1", "2001:db8::1"] {
        assert_eq!(behind(peer, Some("203.0.113.7")), None, "{peer}");
        assert_eq!(behind(peer, Some("127.0.0.1")), None, "{peer}");
    }
}

// `LC_ALL=C date -u -d @N "+%a, %d %b %Y %T GMT"`
#[test]
fn the_date_of_http_names_day_and_month() {
    for (unix_seconds, text) in [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (1_795_360_399, "Sun, 22 Nov 2026 15:13:19 GMT"),
    ] {
        assert_eq!(http_date(UNIX_EPOCH + Duration::from_secs(unix_seconds)), text);
    }
    assert_eq!(http_date(UNIX_EPOCH - Duration::from_secs(1)), "Thu, 01 Jan 1970 00:00:00 GMT");
}
