//! The DTLS handshake against other implementations, over links that lose, repeat, reorder and lie.
#![allow(clippy::unwrap_used)]

mod forged;
mod hostile;
mod link;
mod openssl;
mod wire;

use std::time::{Duration, Instant};

use guest_relay::rtc::dtls::{Certificate, DtlsError, FLIGHT_INTERVAL, HANDSHAKE_TIMEOUT};
use guest_relay::rtc::dtls::{Fingerprint, FingerprintError, Handshake, PeerFingerprints};
use guest_relay::rtc::srtp::SrtpProfile;
use link::{Link, Server, To, clean};

use crate::rng::Rng;

#[test]
fn both_ends_export_the_same_keys() {
    for cookie in [false, true] {
        let run = Link::with_server(cookie, 1150).run(clean);
        run.assert_same_keys();
        assert_eq!(run.link.client.dropped(), Default::default());
    }
}

#[test]
fn the_peer_picks_one_of_the_srtp_profiles_offered() {
    use SrtpProfile::{AeadAes128Gcm, Aes128CmSha1_80};
    for offered in [&[AeadAes128Gcm][..], &[Aes128CmSha1_80], &[AeadAes128Gcm, Aes128CmSha1_80]] {
        let now = Instant::now();
        let server = Server::new(true, 1150, now);
        let peer = PeerFingerprints::from(server.fingerprint);
        let run = Link::expecting(peer, server, offered, now).run(clean);
        run.assert_same_keys();
        let picked = match run.link.server.material.as_ref().unwrap().0 {
            dimpl::SrtpProfile::AEAD_AES_128_GCM => AeadAes128Gcm,
            dimpl::SrtpProfile::AES128_CM_SHA1_80 => Aes128CmSha1_80,
            other => panic!("{other:?} was not offered"),
        };
        assert_eq!(run.result.as_ref().unwrap().profile, picked);
        assert!(offered.contains(&picked));
    }
}

#[test]
fn a_server_flight_in_small_fragments_is_reassembled() {
    for mtu in [150, 200, 300, 500] {
        Link::with_server(true, mtu).run(clean).assert_same_keys();
    }
}

#[test]
fn loss_of_any_one_datagram_is_repaired() {
    let datagrams = Link::new().run(clean).datagrams;
    for lost in 0..datagrams {
        let run = Link::new().run(|_, number, datagram| if number == lost { vec![] } else { vec![datagram.to_vec()] });
        run.assert_same_keys();
        assert!(run.took < 10 * FLIGHT_INTERVAL, "{lost}: {:?}", run.took);
    }
}

#[test]
fn loss_of_any_two_datagrams_is_repaired() {
    let datagrams = Link::new().run(clean).datagrams;
    for first in 0..datagrams {
        for second in first + 1..datagrams + 4 {
            let run =
                Link::new().run(
                    |_, number, datagram| {
                        if number == first || number == second { vec![] } else { vec![datagram.to_vec()] }
                    },
                );
            run.assert_same_keys();
        }
    }
}

/// Handshakes at a loss both ways: how many completed, and the longest of them.
fn with_loss(percent: u64, handshakes: u64) -> (u64, Duration) {
    let mut completed = 0;
    let mut longest = Duration::ZERO;
    for seed in 0..handshakes {
        let mut rng = Rng::new(seed);
        let run = Link::new().run(|_, _, datagram| if rng.percent(percent) { vec![] } else { vec![datagram.to_vec()] });
        match &run.result {
            Ok(_) => {
                run.assert_same_keys();
                completed += 1;
                longest = longest.max(run.took);
            }
            Err(error) => eprintln!("loss {percent} %, seed {seed}: {error}"),
        }
    }
    eprintln!("loss {percent} %: {completed} of {handshakes}, longest {longest:?}");
    (completed, longest)
}

#[test]
fn at_5_percent_loss_every_handshake_completes_within_5_s() {
    let (completed, longest) = with_loss(5, 200);
    assert_eq!(completed, 200);
    assert!(longest <= Duration::from_secs(5), "{longest:?}");
}

#[test]
fn at_20_percent_loss_every_handshake_completes() {
    assert_eq!(with_loss(20, 100).0, 100);
}

#[test]
fn at_30_percent_loss_nine_of_ten_handshakes_complete() {
    assert!(with_loss(30, 100).0 >= 90);
}

#[test]
fn repeated_and_reordered_datagrams_do_no_harm() {
    for seed in 0..50 {
        let mut rng = Rng::new(seed);
        let mut held: Option<Vec<u8>> = None;
        let run = Link::new().run(|to, _, datagram| {
            let mut arriving = vec![datagram.to_vec()];
            if rng.percent(30) {
                arriving.push(datagram.to_vec());
            }
            if to == To::Client {
                if rng.percent(30) {
                    held = arriving.pop();
                } else {
                    arriving.extend(held.take());
                }
            }
            arriving
        });
        assert!(run.result.is_ok(), "seed {seed}: {:?}", run.result);
        run.assert_same_keys();
    }
}

#[test]
fn another_certificate_gives_no_keys_and_an_alert() {
    let now = Instant::now();
    let server = Server::new(true, 1150, now);
    let presented = server.fingerprint;
    let promised = PeerFingerprints::from(Certificate::generate().fingerprint());
    let mut last_to_server = vec![];
    let run = Link::expecting(promised, server, &SrtpProfile::OFFERED, now).run(|to, _, datagram| {
        if to == To::Server {
            last_to_server = datagram.to_vec();
        }
        vec![datagram.to_vec()]
    });
    assert_eq!(run.result.err(), Some(DtlsError::FingerprintMismatch { presented }));
    assert_eq!(run.link.server.material, None);
    let alert = wire::Record::parse_all(&last_to_server).pop().unwrap();
    assert_eq!((alert.content_type, &alert.content[..]), (wire::ALERT, &[2, 42][..]), "fatal bad_certificate");
}

#[test]
fn one_of_several_promised_certificates_is_enough() {
    let now = Instant::now();
    let server = Server::new(true, 1150, now);
    let values = [
        Certificate::generate().fingerprint().to_string(),
        server.fingerprint.to_string().to_lowercase(),
        "sha-1 4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B:19:E5:7C:AB".to_owned(),
    ];
    let promised = PeerFingerprints::parse(values.iter().map(String::as_str)).unwrap();
    Link::expecting(promised, server, &SrtpProfile::OFFERED, now).run(clean).assert_same_keys();
}

#[test]
fn a_fingerprint_is_the_sha_256_of_the_der_certificate() {
    // The digest of "abc" from FIPS 180-4.
    assert_eq!(
        Fingerprint::of(b"abc").to_string(),
        "sha-256 BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD"
    );
}

#[test]
fn fingerprints_are_read_in_either_case_and_refused_when_unusable() {
    let upper = Fingerprint::of(b"abc").to_string();
    let lower = upper.to_lowercase();
    let sha_1 = "sha-1 4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B:19:E5:7C:AB";
    let good = Ok(PeerFingerprints::from(Fingerprint::of(b"abc")));
    let short = upper.trim_end_matches(":AD");
    let long = format!("{upper}:00");
    let signed = upper.replace("BA:", "+A:");
    let joined = upper.replace(':', "");
    let many: Vec<_> = (0..9u8).map(|n| Fingerprint::of(&[n]).to_string()).collect();
    for (values, parsed) in [
        (vec![&*upper], good.clone()),
        (vec![&*lower], good.clone()),
        (vec![&*upper, &*lower], good.clone()),
        (vec![sha_1, &*upper], good.clone()),
        (vec!["SHA-256 ", &*upper], Err(FingerprintError::Malformed)),
        (vec![], Err(FingerprintError::Missing)),
        (vec![sha_1], Err(FingerprintError::NoSha256)),
        (vec!["sha-256"], Err(FingerprintError::Malformed)),
        (vec![short], Err(FingerprintError::Malformed)),
        (vec![&*long], Err(FingerprintError::Malformed)),
        (vec![&*signed], Err(FingerprintError::Malformed)),
        (vec![&*joined], Err(FingerprintError::Malformed)),
        (many.iter().map(String::as_str).collect(), Err(FingerprintError::TooMany)),
    ] {
        assert_eq!(PeerFingerprints::parse(values.clone()), parsed, "{values:?}");
    }
}

#[test]
fn a_silent_peer_ends_the_handshake_at_its_deadline() {
    let now = Instant::now();
    let peer = PeerFingerprints::from(Fingerprint::of(b"nobody"));
    let mut handshake = Handshake::new(&Certificate::generate(), peer, &SrtpProfile::OFFERED, now);
    let mut sent = 0;
    let mut last = now;
    while let Some(due) = handshake.poll_timeout() {
        sent += std::iter::from_fn(|| handshake.poll_transmit()).count();
        assert!(due > last, "no progress");
        last = due;
        handshake.handle_timeout(due);
    }
    assert_eq!(last - now, HANDSHAKE_TIMEOUT);
    assert!((50..=100).contains(&sent), "{sent} datagrams");
    assert_eq!(handshake.poll_result().unwrap().err(), Some(DtlsError::TimedOut { clear_alert: None }));
    assert!(handshake.poll_result().is_none());
}

#[test]
fn a_jump_of_the_clock_past_the_deadline_ends_the_handshake() {
    let mut link = Link::new();
    link.client.handle_timeout(link.now + Duration::from_secs(3600));
    assert_eq!(link.client.poll_result().unwrap().err(), Some(DtlsError::TimedOut { clear_alert: None }));
}

#[test]
fn nothing_is_processed_after_the_result() {
    let mut last_to_client = vec![];
    let mut run = Link::new().run(|to, _, datagram| {
        if to == To::Client {
            last_to_client = datagram.to_vec();
        }
        vec![datagram.to_vec()]
    });
    run.assert_same_keys();
    let now = run.link.now;
    let client = &mut run.link.client;
    client.handle_datagram(&last_to_client, now);
    client.handle_timeout(now + HANDSHAKE_TIMEOUT);
    assert_eq!(client.poll_timeout(), None);
    assert_eq!(client.poll_transmit(), None);
    assert!(client.poll_result().is_none());
}

#[test]
fn a_handshake_can_be_handed_to_another_thread() {
    let link = Link::new();
    let run = std::thread::spawn(|| link.run(clean)).join().unwrap();
    run.assert_same_keys();
}
