//! Vectors: the examples of RTMP 1.0 §5.3.2 and what FFmpeg 8 sends (tests/it/rtmp/README.md).

#![allow(clippy::unwrap_used)]

use super::*;

const FFMPEG_PUBLISHER: &[u8] = include_bytes!("../../../tests/it/rtmp/ffmpeg_publisher.bin");
const PUBLISHED_FLV: &[u8] = include_bytes!("../../../tests/it/rtmp/testsrc2_64x64.flv");
/// C0 C1 C2.
const HANDSHAKE_LEN: usize = 3073;

#[derive(Clone, Debug, PartialEq)]
struct Owned {
    type_id: u8,
    timestamp: u32,
    message_stream_id: u32,
    payload: Vec<u8>,
}

/// All messages of `bytes` handed over in pieces; Set Chunk Size is obeyed.
fn read_all(bytes: &[u8], piece: usize) -> Result<Vec<Owned>, ChunkError> {
    let mut reader = ChunkReader::new();
    let mut messages = Vec::new();
    for mut part in bytes.chunks(piece) {
        while let Some(message) = reader.read(&mut part)? {
            let owned = Owned {
                type_id: message.type_id,
                timestamp: message.timestamp,
                message_stream_id: message.message_stream_id,
                payload: message.payload.to_vec(),
            };
            if owned.type_id == 1 {
                let size = owned.payload.as_slice().try_into().unwrap();
                reader.set_chunk_size(u32::from_be_bytes(size))?;
            }
            messages.push(owned);
        }
    }
    Ok(messages)
}

/// Section 5.3.2.1: four audio messages of 32 bytes, 20 ms apart, headers of type 0, 2, 3, 3.
fn spec_example_1() -> Vec<u8> {
    let payload = [0x55; 32];
    [
        &[0x03, 0x00, 0x03, 0xe8, 0x00, 0x00, 0x20, 0x08, 0x39, 0x30, 0x00, 0x00][..],
        &payload,
        &[0x83, 0x00, 0x00, 0x14],
        &payload,
        &[0xc3],
        &payload,
        &[0xc3],
        &payload,
    ]
    .concat()
}

/// Section 5.3.2.2: one video message of 307 bytes in chunks of 128.
fn spec_example_2() -> (Vec<u8>, Vec<u8>) {
    let payload: Vec<u8> = (0..307_u32).map(|at| at.to_le_bytes()[0]).collect();
    let header = [0x04, 0x00, 0x03, 0xe8, 0x00, 0x01, 0x33, 0x09, 0x3a, 0x30, 0x00, 0x00];
    let bytes = [&header[..], &payload[..128], &[0xc4], &payload[128..256], &[0xc4], &payload[256..]].concat();
    (bytes, payload)
}

#[test]
fn the_specification_s_audio_example_is_read() {
    for piece in [1, 5, 1000] {
        let messages = read_all(&spec_example_1(), piece).unwrap();
        let times: Vec<_> = messages.iter().map(|message| message.timestamp).collect();
        assert_eq!(times, [1000, 1020, 1040, 1060]);
        for message in messages {
            let header = (message.type_id, message.message_stream_id, message.payload);
            assert_eq!(header, (8, 12345, vec![0x55; 32]));
        }
    }
}

#[test]
fn the_specification_s_video_example_is_read_and_written() {
    let (bytes, payload) = spec_example_2();
    assert_eq!(bytes.len(), 140 + 129 + 52);
    let messages = read_all(&bytes, 9).unwrap();
    let expected = Owned { type_id: 9, timestamp: 1000, message_stream_id: 12346, payload: payload.clone() };
    assert_eq!(messages, [expected]);
    let header = Header { chunk_stream_id: 4, timestamp: 1000, type_id: 9, message_stream_id: 12346 };
    for split in [0, 1, 127, 128, 129, 256, 307] {
        let mut out = Vec::new();
        let (front, back) = payload.split_at(split);
        write_message(&mut out, header, 128, [front, back]);
        assert_eq!(out, bytes, "payload in two parts, cut at {split}");
    }
}

#[test]
fn what_ffmpeg_publishes_is_read_however_it_is_cut() {
    let bytes = &FFMPEG_PUBLISHER[HANDSHAKE_LEN..];
    let whole = read_all(bytes, usize::MAX).unwrap();
    for piece in [1, 2, 13, 128, 1000] {
        assert_eq!(read_all(bytes, piece).unwrap(), whole, "pieces of {piece}");
    }
    // The tags of the file it published, without its metadata: FFmpeg writes new ones.
    let mut tags = Vec::new();
    let mut file = Reader::new(PUBLISHED_FLV);
    file.take(13).unwrap();
    while !file.is_empty() {
        let type_id = file.u8().unwrap();
        let len = usize::try_from(file.u24().unwrap()).unwrap();
        let timestamp = file.u24().unwrap();
        file.take(4).unwrap();
        tags.push((type_id, timestamp, file.take(len).unwrap().to_vec()));
        file.u32().unwrap();
    }
    tags.retain(|(type_id, _, _)| *type_id != 18);
    let media: Vec<_> = whole
        .into_iter()
        .filter(|message| matches!(message.type_id, 8 | 9))
        .map(|message| (message.type_id, message.timestamp, message.payload))
        .collect();
    assert!(media.len() > 20);
    assert_eq!(media, tags[..media.len()]);
}

#[test]
fn a_timestamp_of_24_bits_or_more_is_extended_in_each_chunk() {
    let header = |timestamp| Header { chunk_stream_id: 6, timestamp, type_id: 9, message_stream_id: 1 };
    let write = |timestamp| {
        let mut out = Vec::new();
        write_message(&mut out, header(timestamp), 2, [&[1, 2, 3], &[]]);
        out
    };
    assert_eq!(write(0x00ff_fffe), [6, 0xff, 0xff, 0xfe, 0, 0, 3, 9, 1, 0, 0, 0, 1, 2, 0xc6, 3]);
    for (timestamp, bytes) in [
        (0x00ff_ffff, [0x00, 0xff, 0xff, 0xff]),
        (0x0100_0000, [0x01, 0x00, 0x00, 0x00]),
        (u32::MAX, [0xff, 0xff, 0xff, 0xff]),
    ] {
        let expected =
            [&[6, 0xff, 0xff, 0xff, 0, 0, 3, 9, 1, 0, 0, 0][..], &bytes, &[1, 2], &[0xc6], &bytes, &[3]].concat();
        assert_eq!(write(timestamp), expected);
        let mut reader = ChunkReader::new();
        reader.set_chunk_size(2).unwrap();
        let message = reader.read(&mut expected.as_slice()).unwrap().unwrap();
        assert_eq!((message.timestamp, message.payload), (timestamp, &[1, 2, 3][..]));
    }
}

#[test]
fn two_and_three_byte_chunk_stream_ids_are_told_apart() {
    // 64 as 00 00 and as 01 00 00 is the same chunk stream; 319 as 00 ff; 65599 as 01 ff ff (§5.3.1.1).
    let message = [0, 0, 0, 0, 0, 0, 1, 20, 0, 0, 0, 0, 0xaa];
    let bytes = [
        &[0x00, 0x00][..],
        &message[1..],
        &[0xc1, 0x00, 0x00],
        &[0xbb],
        &[0x00, 0xff],
        &message[1..],
        &[0x01, 0xff, 0xff],
        &message[1..],
        &[0xc1, 0xff, 0xff, 0xcc],
    ]
    .concat();
    let payloads: Vec<_> = read_all(&bytes, 1).unwrap().into_iter().map(|message| message.payload).collect();
    assert_eq!(payloads, [[0xaa], [0xbb], [0xaa], [0xaa], [0xcc]]);
}

#[test]
fn messages_of_two_chunk_streams_may_interleave() {
    let bytes = [
        &[3, 0, 0, 0, 0, 0, 200, 20, 0, 0, 0, 0][..],
        &[1; 128],
        &[4, 0, 0, 0, 0, 0, 3, 8, 0, 0, 0, 0],
        &[2; 3],
        &[0xc3],
        &[1; 72],
    ]
    .concat();
    let messages = read_all(&bytes, 50).unwrap();
    assert_eq!(messages[0].payload, [2; 3]);
    assert_eq!(messages[1].payload, [1; 200]);
}

#[test]
fn an_aborted_message_is_forgotten() {
    let mut reader = ChunkReader::new();
    let begun = [&[3, 0, 0, 0, 0, 0, 200, 20, 0, 0, 0, 0][..], &[1; 128]].concat();
    assert_eq!(reader.read(&mut begun.as_slice()), Ok(None));
    reader.abort(3);
    reader.abort(99);
    let next = [3, 0, 0, 0, 0, 0, 1, 20, 0, 0, 0, 0, 7];
    assert_eq!(reader.read(&mut next.as_slice()).unwrap().unwrap().payload, [7]);
}

#[test]
fn an_empty_message_is_complete_with_its_header() {
    let messages = read_all(&[3, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0xc3], 4).unwrap();
    assert_eq!(messages.len(), 2);
}

#[test]
fn a_first_chunk_of_type_1_begins_at_time_0_on_message_stream_0() {
    let bytes = [0x43, 0, 0, 7, 0, 0, 2, 20, b'h', b'i'];
    let (mut reader, mut rest) = (ChunkReader::new(), &bytes[..]);
    let message = reader.read(&mut rest).unwrap().unwrap();
    assert_eq!((message.type_id, message.timestamp, message.message_stream_id), (20, 7, 0));
    assert_eq!(message.payload, b"hi");
}

#[test]
fn hostile_chunks_are_errors() {
    let table: [(&str, Vec<u8>, ChunkError); 6] = [
        ("type 2 first", vec![0x83, 0, 0, 0], ChunkError::NoPreviousChunk { format: 2 }),
        ("type 3 first", vec![0xc3], ChunkError::NoPreviousChunk { format: 3 }),
        (
            "16 MiB message",
            vec![3, 0, 0, 0, 0xff, 0xff, 0xff, 20, 0, 0, 0, 0],
            ChunkError::TooMuchBuffered { need: 0x00ff_ffff, max: BUFFERED_MAX },
        ),
        (
            "header inside a message",
            [&[3, 0, 0, 0, 0, 0, 200, 20, 0, 0, 0, 0][..], &[0; 128], &[3; 12]].concat(),
            ChunkError::HeaderInsideMessage,
        ),
        (
            "many unfinished messages",
            (3..63_u8).flat_map(|id| [&[id, 0, 0, 0, 1, 0, 0, 20, 0, 0, 0, 0][..], &[0; 128]].concat()).collect(),
            ChunkError::TooMuchBuffered { need: 17 << 16, max: BUFFERED_MAX },
        ),
        (
            "many chunk streams",
            (0..64_u8).flat_map(|id| [0, id, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0]).collect(),
            ChunkError::TooManyChunkStreams,
        ),
    ];
    for (name, bytes, error) in table {
        assert_eq!(read_all(&bytes, 100), Err(error), "{name}");
    }
    let mut reader = ChunkReader::new();
    for size in [0, 1 << 31, u32::MAX] {
        assert_eq!(reader.set_chunk_size(size), Err(ChunkError::ChunkSize(size)));
    }
    assert_eq!(reader.set_chunk_size((1 << 31) - 1), Ok(()));
}

#[test]
fn finished_messages_do_not_keep_their_memory() {
    let mut reader = ChunkReader::new();
    reader.set_chunk_size(1 << 30).unwrap();
    for id in 3..32_u8 {
        let length = [0x0f, 0xff, 0xff]; // just below 1 MiB
        let header = [&[id, 0, 0, 0][..], &length, &[20, 0, 0, 0, 0]].concat();
        let bytes = [header, vec![0; 0x000f_ffff]].concat();
        assert!(reader.read(&mut bytes.as_slice()).unwrap().is_some());
    }
    let kept: usize = reader.streams.iter().map(|stream| stream.payload.capacity()).sum();
    assert!(kept <= 2 * BUFFERED_MAX, "{kept} bytes kept");
}

/// Seeded mutations of a recording: whatever happens, it is an error or messages, in bounded memory.
#[test]
fn mutated_recordings_never_panic() {
    use crate::backoff::Rng;
    let original = &FFMPEG_PUBLISHER[HANDSHAKE_LEN..];
    for seed in 0..2000 {
        let mut rng = Rng::new(seed);
        let mut bytes = original.to_vec();
        for _ in 0..=rng.below(8) {
            let at = usize::try_from(rng.below(bytes.len().try_into().unwrap())).unwrap();
            bytes[at] = rng.next_u64().to_le_bytes()[0];
        }
        let mut reader = ChunkReader::new();
        let mut rest = bytes.as_slice();
        while let Ok(Some(_)) = reader.read(&mut rest) {}
        let kept: usize = reader.streams.iter().map(|stream| stream.payload.len()).sum();
        assert!(kept <= 2 * BUFFERED_MAX, "seed {seed}");
    }
}
