//! A server's handshake messages changed on their way: no keys, and the reason said.

use guest_relay::rtc::dtls::{DtlsError, Unfit};

use super::link::{Link, Run, To};
use super::wire::{CERTIFICATE, HANDSHAKE, Message, Record, SERVER_HELLO, SERVER_KEY_EXCHANGE, u24};

/// A run in which every copy of one of the server's clear messages is changed.
fn run_with(message_type: u8, change: impl Fn(&[u8]) -> Vec<u8>) -> Run {
    Link::new().run(|to, _, datagram| {
        if to == To::Server {
            return vec![datagram.to_vec()];
        }
        let records = Record::parse_all(datagram);
        let changed = records.iter().map(|record| match record.message() {
            Some(message) if message.message_type == message_type => message.with(&change(&message.body)).datagram(),
            _ => record.to_bytes(),
        });
        vec![changed.flatten().collect()]
    })
}

/// A ServerHello without one of its extensions, or with another content in it.
fn with_extension(hello: &[u8], extension_type: u16, content: Option<&[u8]>) -> Vec<u8> {
    let fixed = 2 + 32 + 1 + usize::from(hello[34]) + 2 + 1;
    let mut extensions = vec![];
    let mut rest = &hello[fixed + 2..];
    while !rest.is_empty() {
        let this = u16::from_be_bytes([rest[0], rest[1]]);
        let end = 4 + usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        match content {
            _ if this != extension_type => extensions.extend(&rest[..end]),
            Some(content) => {
                extensions.extend(this.to_be_bytes());
                extensions.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
                extensions.extend(content);
            }
            None => {}
        }
        rest = &rest[end..];
    }
    let mut changed = hello[..fixed].to_vec();
    changed.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    changed.extend(extensions);
    changed
}

const USE_SRTP: u16 = 14;
const EXTENDED_MASTER_SECRET: u16 = 23;

#[test]
fn a_peer_without_use_srtp_is_refused() {
    let run = run_with(SERVER_HELLO, |hello| with_extension(hello, USE_SRTP, None));
    assert_eq!(run.result.err(), Some(DtlsError::NoSrtpProfile));
}

#[test]
fn a_peer_that_picks_an_srtp_profile_not_offered_is_refused() {
    for profile in [0x0002, 0x0005, 0x0008, 0xffff_u16] {
        let [high, low] = profile.to_be_bytes();
        let run = run_with(SERVER_HELLO, |hello| with_extension(hello, USE_SRTP, Some(&[0, 2, high, low, 0])));
        assert_eq!(run.result.err(), Some(DtlsError::NoSrtpProfile));
    }
}

#[test]
fn use_srtp_with_several_profiles_or_an_mki_is_not_an_answer() {
    for content in [&[0, 4, 0, 1, 0, 7, 0][..], &[0, 2, 0, 1, 1, 9], &[0, 0, 0]] {
        let run = run_with(SERVER_HELLO, |hello| with_extension(hello, USE_SRTP, Some(content)));
        assert!(run.link.client.dropped().malformed_messages > 0);
        assert!(matches!(run.result, Err(DtlsError::TimedOut { .. })));
    }
}

#[test]
fn a_peer_without_extended_master_secret_is_refused() {
    let run = run_with(SERVER_HELLO, |hello| with_extension(hello, EXTENDED_MASTER_SECRET, None));
    assert_eq!(run.result.err(), Some(DtlsError::NoExtendedMasterSecret));
}

#[test]
fn a_cipher_suite_or_a_curve_that_was_not_offered_is_named() {
    // Behind version, random and the session id.
    let suite_at = |hello: &[u8]| 2 + 32 + 1 + usize::from(hello[34]);
    for suite in [0xc02c, 0xc00a, 0x009c, 0x1301_u16] {
        let run = run_with(SERVER_HELLO, |hello| {
            let at = suite_at(hello);
            [&hello[..at], &suite.to_be_bytes(), &hello[at + 2..]].concat()
        });
        let error = run.result.err().unwrap();
        assert_eq!(error, DtlsError::Unfit(Unfit::CipherSuite(suite)));
        assert!(error.to_string().contains(&format!("{suite:#06x}")), "{error}");
    }
    for curve in [21, 25, 0x11ec_u16] {
        let run =
            run_with(SERVER_KEY_EXCHANGE, |exchange| [&exchange[..1], &curve.to_be_bytes(), &exchange[3..]].concat());
        let error = run.result.err().unwrap();
        assert_eq!(error, DtlsError::Unfit(Unfit::Curve(curve)));
        assert!(error.to_string().contains(&format!("({curve})")), "{error}");
    }
}

/// FFmpeg with GnuTLS presents a certificate on P-224, which it was not offered.
#[test]
fn a_certificate_that_we_have_no_use_for_is_named() {
    for (certificate, words) in [
        (&include_bytes!("certificates/secp224r1.der")[..], "a key on the curve P-224 (secp224r1);"),
        (include_bytes!("certificates/secp521r1.der"), "a key on the curve P-521;"),
        (include_bytes!("certificates/rsa1024.der"), "an RSA key of 1024 bits;"),
    ] {
        let list = [&u24(certificate.len())[..], certificate].concat();
        let run = run_with(CERTIFICATE, |_| [&u24(list.len())[..], &list].concat());
        let error = run.result.err().unwrap();
        assert!(matches!(error, DtlsError::Unfit(Unfit::Certificate(_))), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_peer_without_a_certificate_is_refused() {
    let run = run_with(CERTIFICATE, |_| u24(0).to_vec());
    assert_eq!(run.result.err(), Some(DtlsError::NoPeerCertificate));
}

/// Who has the peer's certificate but not its private key cannot sign the key exchange.
#[test]
fn a_key_exchange_not_signed_by_the_certificate_gives_no_keys() {
    let run = run_with(SERVER_KEY_EXCHANGE, |exchange| {
        let mut exchange = exchange.to_vec();
        *exchange.last_mut().unwrap() ^= 1;
        exchange
    });
    assert!(matches!(run.result, Err(DtlsError::Failed(_))), "{:?}", run.result);
    assert_eq!(run.link.server.material, None);
}

#[test]
fn a_changed_random_gives_no_keys() {
    let run = run_with(SERVER_HELLO, |hello| {
        let mut hello = hello.to_vec();
        hello[20] ^= 1;
        hello
    });
    assert!(matches!(run.result, Err(DtlsError::Failed(_))));
}

#[test]
fn a_finished_that_does_not_decrypt_is_dropped_and_the_next_one_taken() {
    let mut changed = false;
    let run = Link::new().run(|to, _, datagram| {
        let mut records = Record::parse_all(datagram);
        for record in &mut records {
            let is_finished = record.content_type == HANDSHAKE && record.epoch == 1;
            if to == To::Client && is_finished && !changed {
                record.content[20] ^= 1;
                changed = true;
            }
        }
        vec![records.iter().flat_map(Record::to_bytes).collect()]
    });
    assert!(changed);
    run.assert_same_keys();
}

#[test]
fn a_chain_of_100_certificates_or_60_kilobytes_of_one_is_not_kept() {
    for (count, len) in [(100, 50), (1, 60_000), (1, 16_000)] {
        let mut list = vec![];
        for _ in 0..count {
            list.extend(u24(len));
            list.extend(vec![0x30; len]);
        }
        let body = [&u24(list.len())[..], &list].concat();
        let run = Link::new().run(|to, _, datagram| {
            let mut arriving = vec![];
            for record in Record::parse_all(datagram) {
                match record.message() {
                    Some(message) if to == To::Client && message.message_type == CERTIFICATE => {
                        let forged = Message::new(CERTIFICATE, message.seq, &body);
                        for (index, bytes) in body.chunks(1000).enumerate() {
                            arriving.push(forged.fragment(1000 * index, bytes));
                        }
                    }
                    _ => arriving.push(record.to_bytes()),
                }
            }
            arriving
        });
        let dropped = run.link.client.dropped();
        assert!(dropped.refused_fragments + dropped.malformed_messages > 0);
        assert!(matches!(run.result, Err(DtlsError::TimedOut { .. })));
    }
}
