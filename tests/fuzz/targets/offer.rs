//! An SDP offer, the answer to it, and trickled candidates.
#![no_main]

use std::net::SocketAddr;
use std::sync::OnceLock;

use guest_relay::http::status::of_offer;
use guest_relay::rtc::dtls::Certificate;
use guest_relay::rtc::ice::Credentials;
use guest_relay::rtc::sdp::{Answer, Offer, OpusSettings, Origin, RemoteAddresses, check_trickle};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    static CERTIFICATE: OnceLock<Certificate> = OnceLock::new();
    let _ = check_trickle(text, Some("evtj"));
    let offer = match Offer::parse(text, RemoteAddresses::Any) {
        Ok(offer) => offer,
        Err(error) => {
            assert!((400..500).contains(&of_offer(&error)));
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let credentials = Credentials::generate();
    let answer = Answer {
        origin: Origin::generate(),
        offer: &offer,
        credentials: &credentials,
        fingerprint: CERTIFICATE.get_or_init(Certificate::generate).fingerprint(),
        candidates: &[SocketAddr::from(([127, 0, 0, 1], 8189))],
        start_bitrate_kbps: 1500,
        max_bitrate_kbps: 2500,
        opus: OpusSettings {
            max_average_bitrate_bps: 64_000,
            stereo: false,
        },
    };
    let answer = answer.to_sdp();
    let media_lines = |text: &str| text.lines().filter(|line| line.starts_with("m=")).count();
    assert_eq!(
        media_lines(&answer),
        media_lines(text),
        "an answer has the offer's m-lines"
    );
    for line in answer.split_inclusive('\n') {
        assert!(
            line.ends_with("\r\n") && line.as_bytes().get(1) == Some(&b'='),
            "{line:?}"
        );
        assert!(
            !line.trim_end_matches("\r\n").contains(['\r', '\n']),
            "{line:?}"
        );
    }
});
