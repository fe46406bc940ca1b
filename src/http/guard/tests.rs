//! What the head guard lets through and what it refuses, case by case.
#![allow(clippy::unwrap_used)]

use super::*;

fn push_all(bytes: &[u8]) -> Result<Option<Head>, Refused> {
    HeadReader::new().push(bytes)
}

fn status_of(head: &str) -> Option<u16> {
    match push_all(head.as_bytes()) {
        Ok(Some(_)) => None,
        Ok(None) => panic!("head incomplete: {head:?}"),
        Err(refused) => Some(refused.status()),
    }
}

#[test]
fn a_head_of_chromium_is_let_through_unchanged() {
    let head = "POST /whip/guest1?x=1 HTTP/1.1\r\nHost: 192.168.1.58:8000\r\nConnection: keep-alive\r\n\
                Content-Length: 5\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
                Content-Type: application/sdp\r\nAccept: */*\r\nOrigin: http://192.168.1.58:8000\r\n\
                Accept-Language: en-US,en;q=0.9\r\n\r\n";
    let parsed = push_all(format!("{head}v=0\r\nmore").as_bytes()).unwrap().unwrap();
    assert_eq!(parsed.method, Method::Post);
    assert_eq!(parsed.target, "/whip/guest1?x=1");
    assert_eq!(parsed.bytes, head.as_bytes());
    assert_eq!(parsed.framing, Framing::Length(5));
    assert_eq!(parsed.with_body(b"v=0\r\n"), format!("{head}v=0\r\n").into_bytes());
    assert_eq!(parsed.rest, b"v=0\r\nmore");
    assert!(!parsed.expects_continue);
}

#[test]
fn a_head_that_arrives_byte_by_byte_is_the_same_head() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut reader = HeadReader::new();
    let (last, most) = head.split_last().unwrap();
    for byte in most {
        assert_eq!(reader.push(&[*byte]), Ok(None));
    }
    assert_eq!(reader.push(&[*last]).unwrap(), push_all(head).unwrap());
}

#[test]
fn expect_100_continue_is_noted_and_taken_out() {
    let parsed =
        push_all(b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nHost: a\r\nContent-Length: 1\r\n\r\n").unwrap().unwrap();
    assert!(parsed.expects_continue);
    assert_eq!(parsed.bytes, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
}

#[test]
fn request_lines_other_than_http_1_x_origin_form_are_refused() {
    for (line, status) in [
        ("GET / HTTP/1.1", None),
        ("GET //double/slash HTTP/1.1", None),
        ("GET /%2e%2e?q HTTP/1.1", None),
        ("PUT / HTTP/1.1", None),
        ("GET / HTTP/1.0", None),
        ("GET / HTTP/0.9", Some(505)),
        ("GET / http/1.0", Some(400)),
        ("GET / HTTP/1.00", Some(400)),
        ("GET / HTTP/2.0", Some(505)),
        ("GET / HTTP/1.12", Some(400)),
        ("GET /", Some(400)),
        ("GET  / HTTP/1.1", Some(400)),
        ("GET / HTTP/1.1 ", Some(400)),
        ("GET\t/\tHTTP/1.1", Some(400)),
        ("GET /a\tb HTTP/1.1", Some(400)),
        (" GET / HTTP/1.1", Some(400)),
        ("", Some(400)),
        ("get / HTTP/1.1", Some(501)),
        ("TRACE / HTTP/1.1", Some(501)),
        ("BREW / HTTP/1.1", Some(501)),
        ("G(T / HTTP/1.1", Some(400)),
        ("CONNECT example.org:443 HTTP/1.1", Some(400)),
        ("GET http://example.org/ HTTP/1.1", Some(400)),
        ("OPTIONS * HTTP/1.1", Some(400)),
        ("GET guest_join HTTP/1.1", Some(400)),
        ("GET /#fragment HTTP/1.1", Some(400)),
    ] {
        assert_eq!(status_of(&format!("{line}\r\nHost: a\r\n\r\n")), status, "{line:?}");
    }
}

#[test]
fn exactly_one_plausible_host_is_needed() {
    for (fields, status) in [
        ("Host: r58.lan:8000", None),
        ("HOST:192.168.1.58", None),
        ("Host: [::1]:8000", None),
        ("Host: recorder.example.org.", None),
        ("X: y", Some(400)),
        ("Host: a\r\nHost: a", Some(400)),
        ("Host:", Some(400)),
        ("Host: a b", Some(400)),
        ("Host: a/b", Some(400)),
        ("Host: user@a", Some(400)),
        ("Host: a:80:81", Some(400)),
        ("Host: a:99999", Some(400)),
        ("Host: a..b", Some(400)),
        ("Host: [::1", Some(400)),
        ("Host: [guest]", Some(400)),
        ("Host: %61", Some(400)),
    ] {
        assert_eq!(status_of(&format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n")), status, "{fields:?}");
    }
}

#[test]
fn body_lengths_that_two_parsers_could_read_differently_are_refused() {
    let too_long = (BODY_MAX + 1).to_string();
    let longest = BODY_MAX.to_string();
    for (fields, status) in [
        ("Content-Length: 0".to_owned(), None),
        (format!("Content-Length: {longest}"), None),
        ("Content-Length:\t5 ".to_owned(), None),
        (format!("Content-Length: {too_long}"), Some(413)),
        ("Content-Length: 99999999999999999999999999".to_owned(), Some(413)),
        ("Content-Length: 5\r\nContent-Length: 5".to_owned(), Some(400)),
        ("Content-Length: 5\r\ncontent-length: 6".to_owned(), Some(400)),
        ("Content-Length: 5, 5".to_owned(), Some(400)),
        ("Content-Length: +5".to_owned(), Some(400)),
        ("Content-Length: -1".to_owned(), Some(400)),
        ("Content-Length: 0x5".to_owned(), Some(400)),
        ("Content-Length: 5 5".to_owned(), Some(400)),
        ("Content-Length:".to_owned(), Some(400)),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked".to_owned(), Some(400)),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5".to_owned(), Some(400)),
        ("Transfer-Encoding: chunked".to_owned(), None),
        ("transfer-encoding:\tChunked ".to_owned(), None),
        ("Transfer-Encoding: identity".to_owned(), Some(501)),
        ("Transfer-Encoding:".to_owned(), Some(501)),
        ("Transfer-Encoding: xchunked".to_owned(), Some(501)),
        ("Transfer-Encoding: chunked;q=1".to_owned(), Some(501)),
        ("Transfer-Encoding: chunked, chunked".to_owned(), Some(501)),
        ("Transfer-Encoding: \"chunked\"".to_owned(), Some(501)),
        ("transfer-encoding:\tx, chunked".to_owned(), Some(501)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked".to_owned(), Some(501)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity".to_owned(), Some(501)),
        ("Transfer-Encoding : chunked".to_owned(), Some(400)),
        ("X: y\r\n Transfer-Encoding: chunked".to_owned(), Some(400)),
        ("Expect: 200-ok".to_owned(), Some(417)),
    ] {
        assert_eq!(status_of(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")), status, "{fields:?}");
    }
}

#[test]
fn header_fields_that_are_not_name_colon_value_are_refused() {
    for (field, status) in [
        ("X-Y: z", None),
        ("X:", None),
        ("X: a:b\tc", None),
        ("no colon", Some(400)),
        (": no name", Some(400)),
        ("Name : space", Some(400)),
        (" folded: line", Some(400)),
        ("\tfolded", Some(400)),
        ("na(me: x", Some(400)),
    ] {
        assert_eq!(status_of(&format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n")), status, "{field:?}");
    }
}

#[test]
fn bytes_outside_printable_ascii_are_refused_where_they_stand() {
    for (head, refused) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n".as_bytes(), Refused::LineEnd { at: 14 }),
        (b"GET / HTTP/1.1\rHost: a\r\n\r\n", Refused::LineEnd { at: 14 }),
        (b"GET / HTTP/1.1\r\r\n", Refused::LineEnd { at: 14 }),
        (b"\nGET / HTTP/1.1\r\n", Refused::LineEnd { at: 0 }),
        (b"GET /\0 HTTP/1.1\r\n", Refused::Byte { byte: 0, at: 5 }),
        (b"GET /\x7f HTTP/1.1\r\n", Refused::Byte { byte: 0x7f, at: 5 }),
        ("GET /\u{e6} HTTP/1.1\r\n".as_bytes(), Refused::Byte { byte: 0xc3, at: 5 }),
        (b"GET / HTTP/1.1\r\nX: \x80\x1b\r\n", Refused::Byte { byte: 0x1b, at: 20 }),
        (b"GET / HTTP/1.1\r\nX\xff: y\r\n\r\n", Refused::Field { number: 1 }),
        (b"GET / HTTP/1.1\r\n\xff\r\n\r\n", Refused::Field { number: 1 }),
        (b"\x16\x03\x01\x02\x00", Refused::Byte { byte: 0x16, at: 0 }),
    ] {
        assert_eq!(push_all(head), Err(refused), "{head:?}");
        assert_eq!(refused.status(), 400);
    }
}

#[test]
fn every_byte_value_is_allowed_in_a_field_or_refused() {
    for byte in 0..=u8::MAX {
        let mut head = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
        head.extend([byte, b'x']);
        head.extend(b"\r\n\r\n");
        let allowed = byte == b'\t' || (0x20..=0x7e).contains(&byte) || byte >= 0x80;
        assert_eq!(push_all(&head).is_ok(), allowed, "byte {byte:#04x}");
    }
}

#[test]
fn a_head_one_byte_too_long_is_refused_and_one_that_just_fits_is_not() {
    let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    let head = |len: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(len - frame));
    assert_eq!(push_all(head(HEAD_MAX).as_bytes()).unwrap().unwrap().bytes.len(), HEAD_MAX);
    assert_eq!(push_all(head(HEAD_MAX + 1).as_bytes()), Err(Refused::HeadTooLong));
}

#[test]
fn a_line_without_end_is_refused_at_the_limit() {
    let mut reader = HeadReader::new();
    let mut taken = 0;
    let refused = loop {
        match reader.push(&[b'a'; 100]) {
            Ok(_) => taken += 100,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, Refused::HeadTooLong);
    assert_eq!(refused.status(), 431);
    assert!(taken < HEAD_MAX, "{taken}");
}

#[test]
fn the_sixty_fifth_field_is_one_too_many() {
    let head = |fields: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(fields - 1));
    assert_eq!(status_of(&head(FIELDS_MAX)), None);
    assert_eq!(status_of(&head(FIELDS_MAX + 1)), Some(431));
}

#[test]
fn http_1_0_is_passed_on_as_1_1_and_has_no_chunks_and_no_100_continue() {
    let old = push_all(b"POST /whip/guest1 HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
    let old = old.unwrap().unwrap();
    assert_eq!(old.bytes, b"POST /whip/guest1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
    assert!(!old.expects_continue);
    for (fields, status) in [
        ("Host: a", None),
        ("Host: a\r\nConnection: keep-alive", None),
        ("X: y", Some(400)),
        ("Host: a\r\nTransfer-Encoding: chunked", Some(400)),
        ("Host: a\r\nTransfer-Encoding: identity", Some(400)),
        ("Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", Some(400)),
    ] {
        assert_eq!(status_of(&format!("GET / HTTP/1.0\r\n{fields}\r\n\r\n")), status, "{fields:?}");
    }
}

#[test]
fn a_value_that_is_not_ascii_goes_with_its_field_unless_something_is_decided_by_it() {
    let parsed =
        push_all("GET / HTTP/1.1\r\nHost: a\r\ncf-ipcity: S\u{e3}o Paulo\r\ncf-ipcountry: BR\r\n\r\n".as_bytes());
    assert_eq!(parsed.unwrap().unwrap().bytes, b"GET / HTTP/1.1\r\nHost: a\r\ncf-ipcountry: BR\r\n\r\n");
    for name in DECIDING {
        for value in [&b"\xff"[..], b"chunked\xa0", b"5\x85", b"\xc3\xa9.example", b"203.0.113.7\xe6"] {
            let name = name.to_ascii_uppercase();
            let head = [b"GET / HTTP/1.1\r\nHost: a\r\n", name.as_bytes(), b": ", value, b"\r\n\r\n"].concat();
            assert_eq!(push_all(&head), Err(Refused::NotAscii { number: 2 }), "{name}");
        }
    }
    // Left out, and counted all the same.
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: \u{e3}\r\n".repeat(FIELDS_MAX));
    assert_eq!(push_all(many.as_bytes()), Err(Refused::TooManyFields));
}

#[test]
fn a_chunked_body_is_passed_on_with_its_length_and_within_the_bounds() {
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding:chunked\r\nHost: a\r\nX: ";
    let fill = "x".repeat(HEAD_MAX - head.len() - "\r\n\r\n".len());
    let parsed = push_all(format!("{head}{fill}\r\n\r\n5\r\nhello").as_bytes()).unwrap().unwrap();
    assert_eq!((parsed.framing, parsed.rest.as_slice()), (Framing::Chunked, &b"5\r\nhello"[..]));
    let body = vec![b'x'; BODY_MAX];
    let request = parsed.with_body(&body);
    let expected = format!("POST / HTTP/1.1\r\nHost: a\r\nX: {fill}\r\ncontent-length: {BODY_MAX}\r\n\r\n");
    assert_eq!(request, [expected.as_bytes(), &body].concat());
    assert!(request.len() - body.len() <= HEAD_MAX);
}
