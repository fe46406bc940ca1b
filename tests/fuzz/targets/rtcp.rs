//! A decrypted RTCP compound, every list in it read to its end.
#![no_main]

use guest_relay::rtc::rtcp::{Compound, Packet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    let mut packets = 0;
    for packet in Compound::new(datagram) {
        packets += 1;
        let items = match packet {
            Ok(Packet::SenderReport(_, blocks) | Packet::ReceiverReport(_, blocks)) => {
                blocks.count()
            }
            Ok(Packet::Bye(ssrcs)) => ssrcs.count(),
            Ok(Packet::ExtendedReport(answers)) => answers.count(),
            Ok(_) | Err(_) => 0,
        };
        assert!(
            items <= datagram.len() / 4,
            "more items than the datagram holds"
        );
    }
    assert!(
        packets <= datagram.len().div_ceil(4),
        "more packets than the datagram holds"
    );
});
