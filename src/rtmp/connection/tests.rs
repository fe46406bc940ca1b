//! Whole conversations: what FFmpeg 8 and nginx-rtmp said (tests/it/rtmp/README.md), MediaMTX's by hand, hostile ones.

#![allow(clippy::unwrap_used)]

use super::*;

const FFMPEG_SERVER: &[u8] = include_bytes!("../../../tests/it/rtmp/ffmpeg_server.bin");
const NGINX_SERVER: &[u8] = include_bytes!("../../../tests/it/rtmp/nginx_server.bin");
const HANDSHAKE_LEN: usize = 3073;

fn target() -> Target {
    Target::parse("rtmp://127.0.0.1/live/g").unwrap()
}

/// Notices and replies of a connection that hears `bytes` in pieces.
fn hear(bytes: &[u8], piece: usize) -> Result<(Vec<Notice>, Vec<u8>, Connection), ProtocolError> {
    let mut connection = Connection::start(&mut Vec::new(), &mut Rng::new(1));
    let (mut notices, mut out) = (Vec::new(), Vec::new());
    for mut part in bytes.chunks(piece) {
        while !part.is_empty() {
            notices.extend(connection.handle_bytes(&mut part, &target(), &mut out)?);
        }
    }
    Ok((notices, out, connection))
}

fn connected() -> Vec<u8> {
    let end = NGINX_SERVER.windows(8).position(|window| window == [2, 0, 0, 0, 0, 0, 6, 4]).unwrap();
    NGINX_SERVER[..end].to_vec()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn recorded_servers_lead_to_publish_start_however_their_bytes_are_cut() {
    for (name, server, notices_expected) in [
        ("FFmpeg", FFMPEG_SERVER, vec![Notice::PublishStarted]),
        (
            "nginx-rtmp",
            NGINX_SERVER,
            vec![Notice::PublishStarted, Notice::Pong(2000), Notice::Pong(4001), Notice::Pong(6002)],
        ),
    ] {
        let (notices, whole, connection) = hear(server, usize::MAX).unwrap();
        assert_eq!(notices, notices_expected, "{name}");
        assert_eq!((connection.stream(), connection.chunk_size()), (1, 65536));
        assert!(connection.is_publishing());
        for command in ["connect", "releaseStream", "FCPublish", "createStream", "publish"] {
            assert!(contains(&whole, command.as_bytes()), "{name}: {command}");
        }
        for piece in [1, 7, 129, 1500] {
            let (notices, out, _) = hear(server, piece).unwrap();
            assert_eq!((&notices, &out), (&notices_expected, &whole), "{name} in pieces of {piece}");
        }
    }
}

#[test]
fn nothing_but_connect_and_create_stream_is_waited_for() {
    // releaseStream and FCPublish are answered with errors here; MediaMTX does not answer at all.
    let error = |transaction: f64| {
        let payload = [b"\x02\x00\x06_error\x00", &transaction.to_be_bytes()[..], &[5]].concat();
        let length = u8::try_from(payload.len()).unwrap();
        [&[3, 0, 0, 0, 0, 0, length, 20, 0, 0, 0, 0], payload.as_slice()].concat()
    };
    let result_at = connected().windows(7).rposition(|window| window == b"_result").unwrap() - 15;
    let (before, after) = (connected()[..result_at].to_vec(), connected()[result_at..].to_vec());
    let with_errors = [before, error(2.0), error(3.0), after].concat();
    let (notices, ..) = hear(&with_errors, 100).unwrap();
    assert_eq!(notices, [Notice::PublishStarted]);
}

#[test]
fn publish_start_out_of_turn_is_no_publication() {
    let status = connected().windows(8).position(|window| window == b"onStatus").unwrap() - 15;
    let early = [&NGINX_SERVER[..HANDSHAKE_LEN], &connected()[status..]].concat();
    let (notices, _, connection) = hear(&early, 100).unwrap();
    assert_eq!(notices, []);
    assert!(!connection.is_publishing());
}

#[test]
fn bytes_are_acknowledged_within_the_server_s_window() {
    let window = [2, 0, 0, 0, 0, 0, 4, 5, 0, 0, 0, 0, 0, 0, 0x10, 0]; // 4096
    let data = [&[4, 0, 0, 0, 0, 4, 0, 18, 0, 0, 0, 0][..], &[0; 1024]].concat();
    let large_chunks = [2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 1, 0, 0];
    let bytes = [NGINX_SERVER[..HANDSHAKE_LEN].to_vec(), large_chunks.into(), window.into(), data.repeat(6)].concat();
    let (_, out, _) = hear(&bytes, 100).unwrap();
    let acks: Vec<u32> = out
        .windows(16)
        .filter(|window| window.starts_with(&[2, 0, 0, 0, 0, 0, 4, 3]))
        .map(|window| u32::from_be_bytes(window[12..].try_into().unwrap()))
        .collect();
    assert!(acks.len() >= 3 && acks.is_sorted());
    let total = u32::try_from(bytes.len()).unwrap();
    assert!(total - acks.last().unwrap() < 4096, "{acks:?} of {total}");
    for pair in acks.windows(2) {
        assert!(pair[1] - pair[0] <= 4096);
    }
}

#[test]
fn a_window_of_one_byte_does_not_make_a_reply_to_each_byte() {
    for size in [0_u8, 1] {
        let window = [2, 0, 0, 0, 0, 0, 4, 5, 0, 0, 0, 0, 0, 0, 0, size];
        let pings = [2, 0, 0, 0, 0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].repeat(100);
        let bytes = [NGINX_SERVER[..HANDSHAKE_LEN].to_vec(), window.into(), pings].concat();
        let (_, out, _) = hear(&bytes, 1).unwrap();
        let acks = out.windows(8).filter(|window| window == &[2, 0, 0, 0, 0, 0, 4, 3]).count();
        assert!((1..=8).contains(&acks), "{acks} acknowledgements of {} bytes", bytes.len());
    }
}

#[test]
fn a_ping_is_answered_with_its_own_timestamp() {
    let ping = [2, 0, 0, 0, 0, 0, 6, 4, 0, 0, 0, 0, 0, 6, 0xde, 0xad, 0xbe, 0xef];
    let (_, out, _) = hear(&[connected(), ping.into()].concat(), 64).unwrap();
    assert!(out.ends_with(&[2, 0, 0, 0, 0, 0, 6, 4, 0, 0, 0, 0, 0, 7, 0xde, 0xad, 0xbe, 0xef]));
}

#[test]
fn errors_of_all_layers_come_out_typed() {
    let after_handshake = |bytes: &[u8]| [&NGINX_SERVER[..HANDSHAKE_LEN], bytes].concat();
    type Expected = fn(&ProtocolError) -> bool;
    let cases: [(Vec<u8>, Expected); 4] = [
        (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), |error| *error == ProtocolError::Version(WrongVersion(b'H'))),
        (after_handshake(&[0xc3]), |error| matches!(error, ProtocolError::Chunk(ChunkError::NoPreviousChunk { .. }))),
        (after_handshake(&[2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0]), |error| {
            *error == ProtocolError::Chunk(ChunkError::ChunkSize(0))
        }),
        (after_handshake(&[3, 0, 0, 0, 0, 0, 1, 20, 0, 0, 0, 0, 0xff]), |error| {
            matches!(error, ProtocolError::Message(MessageError::Amf0(_)))
        }),
    ];
    for (bytes, expected) in cases {
        let error = hear(&bytes, 50).err().unwrap();
        assert!(expected(&error), "{error:?}");
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn mutated_conversations_never_panic() {
    for seed in 0..3000 {
        let mut rng = Rng::new(seed);
        let original = if seed % 2 == 0 { NGINX_SERVER } else { FFMPEG_SERVER };
        let mut bytes = original[HANDSHAKE_LEN - 1..].to_vec();
        for _ in 0..=rng.below(10) {
            let at = usize::try_from(rng.below(bytes.len().try_into().unwrap())).unwrap();
            bytes[at] = rng.next_u64().to_le_bytes()[0];
        }
        let bytes = [&original[..HANDSHAKE_LEN - 1], bytes.as_slice()].concat();
        let _any = hear(&bytes, 1 + usize::try_from(rng.below(400)).unwrap());
    }
}
