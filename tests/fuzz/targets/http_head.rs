//! An HTTP request, in one piece and in two: the guard says the same, only lets
//! through what fits its bounds, and async-h1 reads the same in it: one request,
//! with the method, the fields and the body that the guard saw, and nothing behind.
#![no_main]

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use guest_relay::http::chunked::{ChunkedBody, Malformed};
use guest_relay::http::codec;
use guest_relay::http::guard::{BODY_MAX, Framing, HEAD_MAX, Head, HeadReader, Refused};
use libfuzzer_sys::fuzz_target;

/// The body as the server reads it; `None` while some of it is missing.
fn body(head: &Head, pieces: [&[u8]; 2]) -> Result<Option<Vec<u8>>, Malformed> {
    let [first, second] = pieces;
    match head.framing {
        Framing::Length(length) => Ok([first, second].concat().get(..length).map(<[u8]>::to_vec)),
        Framing::Chunked => {
            let mut chunks = ChunkedBody::new(BODY_MAX);
            let done = chunks.push(first)? || chunks.push(second)?;
            Ok(done.then(|| chunks.into_body()))
        }
    }
}

fn decode(head: &Head, body: &[u8]) -> Option<codec::Decoded> {
    match pin!(codec::decode(head, body)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(decoded) => decoded,
        Poll::Pending => panic!("a request in memory is waited for"),
    }
}

fn read(pieces: [&[u8]; 2]) -> Result<Option<Head>, Refused> {
    let mut reader = HeadReader::new();
    for piece in pieces {
        if let Some(head) = reader.push(piece)? {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

fuzz_target!(|input: &[u8]| {
    let whole = read([input, b""]);
    let halves = input.split_at(input.len() / 2);
    match (&whole, read([halves.0, halves.1])) {
        (Ok(Some(whole)), Ok(Some(cut))) => {
            assert_eq!((&whole.bytes, whole.framing), (&cut.bytes, cut.framing))
        }
        (whole, cut) => assert_eq!(*whole, cut),
    }
    if let Ok(Some(head)) = whole {
        assert!(head.bytes.len() <= HEAD_MAX && head.bytes.is_ascii());
        assert!(head.bytes.ends_with(b"\r\n\r\n") && head.target.starts_with('/'));
        let rest = head.rest.as_slice();
        let halves = rest.split_at(rest.len() / 2);
        let whole = body(&head, [rest, b""]);
        assert_eq!(whole, body(&head, [halves.0, halves.1]));
        let Ok(Some(body)) = whole else { return };
        assert!(body.len() <= BODY_MAX && rest.len() >= body.len());
        let request = head.with_body(&body);
        assert!(request.len() - body.len() <= HEAD_MAX);
        let Some(decoded) = decode(&head, &body) else { return };
        assert_eq!((decoded.method.as_str(), &decoded.body), (head.method.as_str(), &body));
        let named = |name: &str| decoded.headers.iter().filter(|(known, _)| known == name).count();
        assert!(named("transfer-encoding") == 0 && named("content-length") <= 1 && named("host") == 1);
    }
});
