//! A datagram of the first class of RFC 7983: what STUN reads from it, and where it would be sent.
#![no_main]

use guest_relay::rtc::demux::classify;
use guest_relay::rtc::stun::{MAX_UNKNOWN_ATTRIBUTES, Message, named_ufrag};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    let _ = classify(datagram);
    let _ = named_ufrag(datagram);
    if let Ok(message) = Message::parse(datagram) {
        let _ = message.is_authentic(b"VOkJxbRl1RmTxUk/WvJxBt");
        assert!(message.unknown_attributes().len() <= MAX_UNKNOWN_ATTRIBUTES);
    }
});
