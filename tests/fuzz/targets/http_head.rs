//! An HTTP request head, in one piece and in two: the guard says the same, and
//! only lets through what fits its bounds.
#![no_main]

use guest_relay::http::guard::{BODY_MAX, HEAD_MAX, Head, HeadReader, Refused};
use libfuzzer_sys::fuzz_target;

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
            assert_eq!((&whole.bytes, whole.body_len), (&cut.bytes, cut.body_len))
        }
        (whole, cut) => assert_eq!(*whole, cut),
    }
    if let Ok(Some(head)) = whole {
        assert!(head.bytes.len() <= HEAD_MAX && head.body_len <= BODY_MAX);
        assert!(head.bytes.ends_with(b"\r\n\r\n") && head.target.starts_with('/'));
    }
});
