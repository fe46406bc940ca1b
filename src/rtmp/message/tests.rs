//! What we write is read back by the ingest's AMF0 code; what servers write was recorded (tests/it/rtmp/README.md).

#![allow(clippy::unwrap_used)]

use ingest::Value as Amf;

use super::*;

fn target(url: &str) -> Target {
    Target::parse(url).unwrap()
}

/// The AMF0 values of a message in one chunk: 12 header bytes, then the payload.
fn values(message: &[u8]) -> Vec<Amf> {
    ingest::parse_amf(&message[12..]).unwrap()
}

fn text(text: &str) -> Amf {
    Amf::String(text.into())
}

fn inbound(type_id: u8, payload: &[u8]) -> Result<Inbound, MessageError> {
    Inbound::parse(&Message { type_id, timestamp: 0, message_stream_id: 0, payload })
}

#[test]
fn connect_names_the_application_and_what_we_can_encode() {
    let mut out = Vec::new();
    write_connect(&mut out, 65536, &target("rtmp://h:1935/guest1?user=u&pass=p"));
    assert_eq!(out[..4], [3, 0, 0, 0]);
    assert_eq!(out[7], 20, "AMF0 command");
    assert_eq!(out[8..12], [0; 4], "message stream 0");
    let values = values(&out);
    assert_eq!(values[..2], [text("connect"), Amf::Number(1.0)]);
    let info = &values[2];
    for (key, value) in [
        ("app", text("guest1?user=u&pass=p")),
        ("type", text("nonprivate")),
        ("tcUrl", text("rtmp://h:1935/guest1?user=u&pass=p")),
        ("fourCcList", Amf::StrictArray(vec![text("avc1"), text("Opus")])),
        ("videoFourCcInfoMap", Amf::Object(vec![("avc1".into(), Amf::Number(2.0))])),
        ("audioFourCcInfoMap", Amf::Object(vec![("Opus".into(), Amf::Number(2.0))])),
        ("capsEx", Amf::Number(1.0)),
    ] {
        assert_eq!(info.member(key), Some(&value), "{key}");
    }
    assert!(info.member("flashVer").unwrap().as_str().unwrap().starts_with("guest-relay/"));
}

#[test]
fn publishing_and_its_end_name_stream_and_transaction() {
    let target = target("rtmp://h/live/guest1?k=v");
    let mut out = Vec::new();
    write_publish(&mut out, 65536, &target, 7);
    assert_eq!(out[8..12], [7, 0, 0, 0], "the created stream, little-endian");
    let publish = [text("publish"), Amf::Number(5.0), Amf::Null, text("guest1?k=v"), text("live")];
    assert_eq!(values(&out), publish);

    out.clear();
    write_create_stream(&mut out, 65536, &target);
    let names = [&b"releaseStream"[..], b"FCPublish", b"createStream"];
    let at: Vec<_> =
        names.iter().map(|name| out.windows(name.len()).position(|window| window == *name).unwrap()).collect();
    assert!(at.is_sorted());
    let create = values(&out[at[2] - 15..]);
    assert_eq!(create, [text("createStream"), Amf::Number(4.0), Amf::Null]);

    out.clear();
    write_unpublish(&mut out, 65536, &target, 7);
    let delete = out.windows(12).position(|window| window == b"deleteStream").unwrap();
    let values = values(&out[delete - 15..]);
    assert_eq!(values, [text("deleteStream"), Amf::Number(0.0), Amf::Null, Amf::Number(7.0)]);
}

#[test]
fn control_messages_have_the_bytes_of_the_specification() {
    type Write = fn(&mut Vec<u8>);
    let table: [(&str, Write, &[u8]); 5] = [
        ("Set Chunk Size", |out| write_set_chunk_size(out, 65536), &[0, 0, 4, 1, 0, 0, 0, 0, 0, 1, 0, 0]),
        ("Acknowledgement", |out| write_acknowledgement(out, 258), &[0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 1, 2]),
        (
            "Window Acknowledgement Size",
            |out| write_window_acknowledgement_size(out, 2_500_000),
            &[0, 0, 4, 5, 0, 0, 0, 0, 0x00, 0x26, 0x25, 0xa0],
        ),
        ("Ping Request", |out| write_ping_request(out, 3), &[0, 0, 6, 4, 0, 0, 0, 0, 0, 6, 0, 0, 0, 3]),
        ("Ping Response", |out| write_ping_response(out, [1, 2, 3, 4]), &[0, 0, 6, 4, 0, 0, 0, 0, 0, 7, 1, 2, 3, 4]),
    ];
    for (name, write, bytes) in table {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(out, [&[2, 0, 0, 0], bytes].concat(), "{name}");
    }
}

#[test]
fn metadata_is_sent_as_a_data_frame_once() {
    let metadata = b"\x02\x00\x0aonMetaData\x08\0\0\0\0\0\0\x09";
    for body in [metadata.to_vec(), [b"\x02\x00\x0d@setDataFrame", &metadata[..]].concat()] {
        let mut out = Vec::new();
        write_media(&mut out, 65536, 1, TagKind::Script, 0, &body);
        assert_eq!((out[0], out[7]), (4, 18));
        let expected = [text("@setDataFrame"), text("onMetaData"), Amf::Object(vec![])];
        assert_eq!(values(&out), expected);
    }
}

#[test]
fn control_messages_of_a_server_are_read() {
    let table = [
        (1, vec![0, 0, 16, 0], Inbound::SetChunkSize(4096)),
        (2, vec![0, 0, 0, 3], Inbound::Abort { chunk_stream_id: 3 }),
        (3, vec![0, 0, 0, 1], Inbound::Acknowledgement),
        (4, vec![0, 6, 1, 2, 3, 4], Inbound::PingRequest([1, 2, 3, 4])),
        (4, vec![0, 7, 0, 0, 7, 0xd0], Inbound::PingResponse(2000)),
        (4, vec![0, 0, 0, 0, 0, 1], Inbound::Ignored),
        (4, vec![0, 99], Inbound::Ignored),
        (5, vec![0x00, 0x26, 0x25, 0xa0], Inbound::WindowAcknowledgementSize(2_500_000)),
        (6, vec![0x00, 0x26, 0x25, 0xa0, 2], Inbound::SetPeerBandwidth(2_500_000)),
        (8, vec![], Inbound::Ignored),
        (18, vec![0xff], Inbound::Ignored),
        (255, vec![], Inbound::Ignored),
    ];
    for (type_id, payload, expected) in table {
        assert_eq!(inbound(type_id, &payload).unwrap(), expected, "type {type_id} {payload:?}");
        if (1..=3).contains(&type_id) || type_id == 5 {
            let cut = inbound(type_id, &payload[..3]);
            assert!(matches!(cut, Err(MessageError::Truncated(_))), "type {type_id} cut");
        }
    }
}

/// A command by hand.
fn command(name: &str, transaction: f64, rest: &[u8]) -> Vec<u8> {
    let len = u8::try_from(name.len()).unwrap();
    [&[2, 0, len], name.as_bytes(), &[0], &transaction.to_be_bytes(), rest].concat()
}

fn info(members: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![3];
    for (key, value) in members {
        out.extend([0, u8::try_from(key.len()).unwrap()]);
        out.extend(key.as_bytes());
        out.extend([2, 0, u8::try_from(value.len()).unwrap()]);
        out.extend(value.as_bytes());
    }
    out.extend([0, 0, 9]);
    out
}

fn status(transaction: f64, members: &[(&str, &str)]) -> Inbound {
    let payload = command("onStatus", transaction, &[&[5], info(members).as_slice()].concat());
    inbound(20, &payload).unwrap()
}

#[test]
fn results_are_told_by_their_transaction_and_strangers_are_ignored() {
    let null_and = |value: f64| [&[5, 0][..], &value.to_be_bytes()].concat();
    let created = |rest: &[u8]| inbound(20, &command("_result", 4.0, rest));
    assert_eq!(created(&null_and(1.0)).unwrap(), Inbound::StreamCreated(1));
    for id in [-1.0, 0.5, f64::NAN, f64::INFINITY, 4_294_967_296.0] {
        assert_eq!(created(&null_and(id)), Err(MessageError::StreamId), "{id}");
    }
    assert_eq!(created(&[5, 5]), Err(MessageError::StreamId));
    for transaction in [2.0, 3.0, 5.0, 99.0] {
        let payload = command("_result", transaction, &[5]);
        assert_eq!(inbound(20, &payload).unwrap(), Inbound::Ignored);
        let payload = command("_error", transaction, &[5]);
        assert_eq!(inbound(20, &payload).unwrap(), Inbound::Ignored, "_error to {transaction}");
    }
    for name in ["onBWDone", "onFCPublish", "close", "whatever"] {
        assert_eq!(inbound(20, &command(name, 0.0, &[0xff])).unwrap(), Inbound::Ignored, "{name}");
    }
}

#[test]
fn a_connect_without_caps_is_success_and_an_error_has_its_code() {
    let ok = command("_result", 1.0, &[info(&[]), info(&[("code", "NetConnection.Connect.Success")])].concat());
    assert_eq!(inbound(20, &ok).unwrap(), Inbound::Connected);
    let amf3 = [&[0], ok.as_slice()].concat();
    assert_eq!(inbound(17, &amf3).unwrap(), Inbound::Connected);
    let no = command("_error", 1.0, &[&[5], info(&[("code", "NetConnection.Connect.Rejected")]).as_slice()].concat());
    assert_eq!(inbound(20, &no).unwrap(), Inbound::Rejected(StatusCode::new("NetConnection.Connect.Rejected")));
    let bare = command("_error", 4.0, &[5]);
    assert_eq!(inbound(20, &bare).unwrap(), Inbound::Rejected(StatusCode::new("createStream")));
}

#[test]
fn on_status_is_known_by_its_code_whatever_the_transaction() {
    for transaction in [0.0, 5.0, 77.0] {
        let start = [("level", "status"), ("code", "NetStream.Publish.Start")];
        assert_eq!(status(transaction, &start), Inbound::PublishStarted);
    }
    for code in [
        "NetStream.Publish.BadName",
        "NetStream.Publish.Denied",
        "NetStream.Publish.Rejected",
        "NetStream.Publish.Unauthorized",
        "NetStream.Publish.Failed",
        "NetConnection.Connect.InvalidApp",
    ] {
        let rejected = Inbound::Rejected(StatusCode::new(code));
        assert_eq!(status(0.0, &[("level", "status"), ("code", code)]), rejected, "{code}");
    }
    let unknown_error = status(0.0, &[("level", "error"), ("code", "Some.New.Code")]);
    assert_eq!(unknown_error, Inbound::Rejected(StatusCode::new("Some.New.Code")));
    assert_eq!(status(0.0, &[("level", "status"), ("code", "Some.New.Code")]), Inbound::Ignored);
    assert_eq!(status(0.0, &[]), Inbound::Ignored);
}

#[test]
fn a_reconnect_request_may_carry_a_url() {
    let code = ("code", "NetConnection.Connect.ReconnectRequest");
    let plain = status(0.0, &[("level", "status"), code]);
    assert_eq!(plain, Inbound::ReconnectRequest { tc_url: None });
    let with = status(0.0, &[code, ("tcUrl", "rtmp://h/live2")]);
    assert_eq!(with, Inbound::ReconnectRequest { tc_url: Some("rtmp://h/live2".into()) });
}

#[test]
fn status_codes_are_fit_for_a_log_line() {
    let code = StatusCode::new(&format!("a\r\n\u{1b}[31mü{}", "x".repeat(100)));
    assert_eq!(code.as_str().len(), 64);
    assert!(code.as_str().starts_with("a???[31m?x"));
}

#[test]
fn amf_bombs_end_in_an_error() {
    let deep: Vec<u8> = [3, 0, 1, b'a'].repeat(10_000);
    let wide = [&[10, 0xff, 0xff, 0xff, 0xff][..], &[5; 5000]].concat();
    let long = [2, 0xff, 0xff, b'x'];
    for bomb in [&deep[..], &wide, &long, &[12, 0xff, 0xff, 0xff, 0xff]] {
        let payload = command("onStatus", 0.0, &[&[5], bomb].concat());
        let result = inbound(20, &payload);
        assert!(matches!(result, Err(MessageError::Amf0(_))), "{result:?}");
    }
}

#[test]
fn what_is_not_needed_is_read_past() {
    let start = [("level", "status"), ("code", "NetStream.Publish.Start")];
    // Typed, by reference, XML, unsupported: each before the code.
    for odd in [&b"\x10\0\x01C\0\x01k\x05\0\0\x09"[..], b"\x07\0\x01", b"\x0f\0\0\0\x04<a/>", b"\x0d"] {
        let object = [&[3, 0, 1, b'x'], odd, &info(&start)[1..]].concat();
        let typed = [&[0x10, 0, 1, b'T', 0, 1, b'x'], odd, &info(&start)[1..]].concat();
        for info in [object, typed] {
            let payload = command("onStatus", 0.0, &[&[5], info.as_slice()].concat());
            assert_eq!(inbound(20, &payload).unwrap(), Inbound::PublishStarted, "{odd:?}");
            assert_eq!(inbound(17, &payload).unwrap(), Inbound::PublishStarted, "{odd:?}");
        }
    }
    // AMF3 behind the code.
    let amf3 = [&[5, 3, 0, 4][..], b"code\x02\0\x17NetStream.Publish.Start\0\x01y\x11\x04\x01\0\0\x09"].concat();
    assert_eq!(inbound(20, &command("onStatus", 0.0, &amf3)).unwrap(), Inbound::PublishStarted);
    // Nothing, a null, a value of no type that AMF0 has.
    for rest in [&[][..], &[5], &[5, 5], &[5, 0x11, 1], &[0x11, 1]] {
        assert_eq!(inbound(20, &command("onStatus", 0.0, rest)).unwrap(), Inbound::Ignored, "{rest:?}");
        assert_eq!(inbound(20, &command("_result", 1.0, rest)).unwrap(), Inbound::Connected, "{rest:?}");
        let rejected = Inbound::Rejected(StatusCode::new("connect"));
        assert_eq!(inbound(20, &command("_error", 1.0, rest)).unwrap(), rejected, "{rest:?}");
        assert_eq!(inbound(20, &command("_result", 4.0, rest)), Err(MessageError::StreamId), "{rest:?}");
    }
    let without_null = [&[0], &3.0_f64.to_be_bytes()[..]].concat();
    assert_eq!(inbound(20, &command("_result", 4.0, &without_null)).unwrap(), Inbound::StreamCreated(3));
    // Shared objects, data and commands in AMF3.
    for type_id in [15, 16, 17] {
        assert_eq!(inbound(type_id, b"\0\x02\0\x06onBWDone").unwrap(), Inbound::Ignored, "{type_id}");
    }
}
