//! SRTP and SRTCP from a peer that does not have the keys.
//!
//! Input: datagrams, each behind its length in two bytes.
#![no_main]

use std::time::{Duration, Instant};

use guest_relay::rtc::demux::{Class, classify};
use guest_relay::rtc::srtp::{Inbound, Keys, SrtpProfile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    for profile in SrtpProfile::OFFERED {
        let material: Vec<u8> = (0..=255).collect();
        let keys =
            Keys::from_client_export(profile, &material).expect("more than any profile takes");
        let mut now = Instant::now();
        let mut inbound = Inbound::new(&keys, now);
        let mut rest = input;
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let (datagram, after) =
                after.split_at(usize::from(u16::from_be_bytes(*length)).min(after.len()));
            rest = after;
            now += Duration::from_millis(1);
            let is_forged = match classify(datagram) {
                Class::Rtcp => inbound.unprotect_rtcp(datagram, now).is_err(),
                _ => inbound.unprotect_rtp(datagram, now).is_err(),
            };
            assert!(is_forged, "a datagram without a valid tag was let through");
        }
    }
});
