//! One decrypted RTP packet: header, extensions, padding, and RTX undone.
#![no_main]

use guest_relay_muxer::RtpPacket;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    let Ok(packet) = RtpPacket::parse(datagram) else {
        return;
    };
    assert!(packet.payload.len() + 12 <= datagram.len());
    let in_extensions: usize = packet
        .extensions()
        .map(|extension| extension.data.len())
        .sum();
    assert!(in_extensions + packet.payload.len() + 12 <= datagram.len());
    if let Some(original) = packet.undo_rtx(96, 7) {
        assert_eq!(original.payload.len() + 2, packet.payload.len());
    }
});
