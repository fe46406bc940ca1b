//! A DTLS handshake of ours against a peer that sends anything.
//!
//! Input: datagrams, each behind its length in two bytes.
#![no_main]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use guest_relay::rtc::dtls::{
    Certificate, HANDSHAKE_TIMEOUT, Handshake, MAX_QUEUED_DATAGRAMS, PeerFingerprints,
};
use guest_relay::rtc::srtp::SrtpProfile;
use libfuzzer_sys::fuzz_target;

const FINGERPRINT: &str = "sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F";
const MAX_DATAGRAMS: usize = 64;

fuzz_target!(|input: &[u8]| {
    static CERTIFICATE: OnceLock<Certificate> = OnceLock::new();
    let certificate = CERTIFICATE.get_or_init(Certificate::generate);
    let peer = PeerFingerprints::parse([FINGERPRINT]).expect("the fingerprint is well formed");
    let mut now = Instant::now();
    let mut handshake = Handshake::new(certificate, peer, &SrtpProfile::OFFERED, now);
    let mut rest = input;
    for _ in 0..MAX_DATAGRAMS {
        let Some((length, after)) = rest.split_first_chunk::<2>() else {
            break;
        };
        let (datagram, after) =
            after.split_at(usize::from(u16::from_be_bytes(*length)).min(after.len()));
        rest = after;
        now += Duration::from_millis(1);
        handshake.handle_datagram(datagram, now);
        let mut sent = 0;
        while handshake.poll_transmit().is_some() {
            sent += 1;
        }
        assert!(sent <= MAX_QUEUED_DATAGRAMS);
    }
    handshake.handle_timeout(now + HANDSHAKE_TIMEOUT);
    assert!(
        !matches!(handshake.poll_result(), Some(Ok(_))),
        "no certificate has this fingerprint"
    );
});
