//! An Opus packet: its TOC, frames and duration (RFC 6716 §3).
#![no_main]

use guest_relay_muxer::opus::OpusPacket;
use libfuzzer_sys::fuzz_target;

/// 120 ms at 48 kHz, the longest packet there is.
const MAX_SAMPLES: u32 = 5760;

fuzz_target!(|packet: &[u8]| {
    if let Ok(packet) = OpusPacket::parse(packet) {
        assert!((120..=MAX_SAMPLES).contains(&packet.samples));
    }
});
