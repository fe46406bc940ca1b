//! Redundant audio (RFC 2198): what comes out lies in what went in, block by block, and goes back in time step by step.
#![no_main]

use guest_relay::rtc::red::{MAX_BLOCKS, Red};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let Ok(red) = Red::parse(payload, 111) else {
        return;
    };
    let mut bytes = red.primary.len() + 1;
    let mut last = None;
    for block in red.redundant {
        bytes += block.payload.len() + 4;
        assert!(block.distance <= MAX_BLOCKS && block.time_offset < 1 << 14);
        assert!(
            last.is_none_or(|(distance, offset)| block.distance + 1 == distance && block.time_offset < offset),
            "blocks are not in order"
        );
        last = Some((block.distance, block.time_offset));
    }
    assert!(
        last.is_none_or(|(distance, _)| distance == 1),
        "the last block is not the packet before"
    );
    assert!(bytes <= payload.len(), "more bytes than the payload holds");
});
