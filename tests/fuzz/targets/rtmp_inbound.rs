//! What an RTMP server sends after the handshake, to a publisher with media to send.
//!
//! Input: the server's bytes, handed over in pieces whose length is the low six bits of each piece's first byte.
#![no_main]

use std::time::{Duration, Instant};

use guest_relay::rtmp::{
    CONTROL_BYTES_MAX, Output, Publisher, QUEUE_BYTES_MAX, Target,
};
use guest_relay_muxer::{Frame, MediaTime, Tag, TagKind};
use libfuzzer_sys::fuzz_target;

const HANDSHAKE_REPLY_LEN: usize = 1 + 2 * 1536;

fuzz_target!(|input: &[u8]| {
    let target = Target::parse("rtmp://127.0.0.1:1935/live/guest1").expect("an address");
    let mut now = Instant::now();
    let mut publisher = Publisher::new(target, 7, now);
    publisher.start(now);
    assert_eq!(publisher.poll_output(), Some(Output::Connect));
    publisher.handle_connected(now);
    let mut reply = vec![0; HANDSHAKE_REPLY_LEN];
    if let Some(version) = reply.first_mut() {
        *version = 3;
    }
    publisher.handle_bytes(&reply, now);

    let mut rest = input;
    let mut dts = MediaTime::ZERO;
    while let Some(&first) = rest.first() {
        let (piece, after) = rest.split_at(usize::from(first & 0x3f).clamp(1, rest.len()));
        rest = after;
        now += Duration::from_millis(5);
        publisher.handle_bytes(piece, now);
        dts = dts + Duration::from_millis(20);
        let body = [0x17, 1, 0, 0, 0, 0, 0, 0, 1, 0x65];
        let tag = Tag {
            kind: TagKind::Video,
            frame: Frame::Keyframe,
            dts,
            len: body.len(),
        };
        publisher.push(tag, &body, now);
        let mut has_ended = false;
        while let Some(output) = publisher.poll_output() {
            has_ended |= output == Output::Disconnect;
        }
        let waiting = publisher.write_buffer().len();
        publisher.handle_written(waiting, now);
        assert!(publisher.queued_bytes() <= QUEUE_BYTES_MAX + CONTROL_BYTES_MAX);
        if has_ended {
            return;
        }
    }
});
