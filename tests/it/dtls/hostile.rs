//! Datagrams from someone else in the middle of a handshake: the handshake completes all the same.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use guest_relay::rtc::dtls::{Dropped, DtlsError};

use super::link::{Link, Run, To, clean};
use super::wire::{
    ALERT, APPLICATION_DATA, CERTIFICATE, CHANGE_CIPHER_SPEC, CLIENT_HELLO, HANDSHAKE, HELLO_VERIFY_REQUEST, Message,
    Record, SERVER_HELLO, SERVER_KEY_EXCHANGE, fragment,
};
use crate::rng::Rng;

static CRATE_PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts panics inside webrtc-dtls from now on: tokio catches those of its tasks.
fn watch_for_panics() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.location().is_some_and(|at| at.file().contains("webrtc-dtls")) {
                CRATE_PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(panic);
        }));
    });
}

fn assert_no_panic() {
    assert_eq!(CRATE_PANICS.load(Ordering::SeqCst), 0, "webrtc-dtls panicked");
}

/// A run in which `forged` arrives before each of the server's datagrams, and once after the last.
fn run_among(forged: &[Vec<u8>]) -> Run {
    watch_for_panics();
    let run = Link::new().run(|to, _, datagram| match to {
        To::Server => vec![datagram.to_vec()],
        To::Client => [forged, &[datagram.to_vec()]].concat(),
    });
    assert_no_panic();
    run.assert_same_keys();
    run
}

fn count(dropped: Dropped, reason: fn(&Dropped) -> u32, forged: usize) {
    assert!(usize::try_from(reason(&dropped)).unwrap() >= forged, "{dropped:?}");
}

#[test]
fn a_thousand_alerts_in_the_clear_change_nothing() {
    let fatal = Record::new(ALERT, 0, &[2, 40]).to_bytes();
    let close = Record::new(ALERT, 0, &[1, 0]).to_bytes();
    let run = run_among(&[vec![fatal; 500], vec![close; 500]].concat());
    count(run.link.client.dropped(), |d| d.clear_alerts, 1000);
}

#[test]
fn a_clear_alert_is_named_when_the_handshake_times_out() {
    let refusal = Record::new(ALERT, 0, &[2, 40]).to_bytes();
    let run = Link::new().run(|_, _, _| vec![refusal.clone()]);
    let run_error = run.result.err();
    assert_eq!(run_error, Some(DtlsError::TimedOut { clear_alert: None }), "the server's end");

    let mut link = Link::new();
    let now = link.now;
    link.client.handle_datagram(&refusal, now);
    link.client.handle_timeout(now + guest_relay::rtc::dtls::HANDSHAKE_TIMEOUT);
    let error = link.client.poll_result().unwrap().unwrap_err();
    assert_eq!(error, DtlsError::TimedOut { clear_alert: Some(40) });
    assert!(error.to_string().contains("alert 40 (handshake_failure"));
}

#[test]
fn malformed_records_change_nothing() {
    let mut wrong_version = Record::new(HANDSHAKE, 0, &[0; 20]).to_bytes();
    wrong_version[1..3].copy_from_slice(&[3, 3]);
    let mut beyond_the_datagram = Record::new(HANDSHAKE, 0, &[0; 20]).to_bytes();
    beyond_the_datagram[12] = 21;
    let forged = [
        Record::new(99, 0, &[1, 2, 3]).to_bytes(),
        Record::new(CHANGE_CIPHER_SPEC, 0, &[2]).to_bytes(),
        Record::new(CHANGE_CIPHER_SPEC, 0, &[1, 1]).to_bytes(),
        Record::new(CHANGE_CIPHER_SPEC, 0, &[]).to_bytes(),
        Record::new(ALERT, 0, &[]).to_bytes(),
        Record::new(ALERT, 0, &[2, 40, 0]).to_bytes(),
        Record::new(HANDSHAKE, 0, &[]).to_bytes(),
        Record::new(HANDSHAKE, 0, &[SERVER_HELLO; 11]).to_bytes(),
        Record::new(HANDSHAKE, 2, &[0; 60]).to_bytes(),
        Record::new(HANDSHAKE, 0xffff, &[0; 60]).to_bytes(),
        wrong_version,
        beyond_the_datagram,
        vec![HANDSHAKE],
        vec![HANDSHAKE; 12],
    ];
    let run = run_among(&forged);
    count(run.link.client.dropped(), |d| d.malformed_records, forged.len());
}

#[test]
fn application_data_is_dropped() {
    let clear = Record::new(APPLICATION_DATA, 0, &[0; 100]).to_bytes();
    let encrypted = Record::new(APPLICATION_DATA, 1, &[0; 100]).to_bytes();
    let run = run_among(&[vec![clear; 50], vec![encrypted; 50]].concat());
    count(run.link.client.dropped(), |d| d.application_data, 100);
}

#[test]
fn a_hundred_thousand_encrypted_records_before_the_peers_cipher_change_nothing() {
    let mut link = Link::new();
    let mut forged = Record::new(HANDSHAKE, 1, &[0x5a; 1000]);
    for sequence in 0..100_000 {
        forged.sequence = sequence;
        link.client.handle_datagram(&forged.to_bytes(), link.now);
    }
    assert_eq!(link.client.dropped().untimely_records, 100_000);
    link.run(clean).assert_same_keys();
}

/// The moment at which the client has keys and waits for the server's Finished.
#[test]
fn a_thousand_encrypted_records_in_place_of_finished_change_nothing() {
    watch_for_panics();
    let mut forged = false;
    let run = Link::new().run(|to, _, datagram| {
        let mut arriving = vec![];
        for record in Record::parse_all(datagram) {
            if to == To::Client && record.epoch == 1 && !forged {
                forged = true;
                for sequence in 0..1000 {
                    let len = 13 + usize::try_from(sequence).unwrap() % 100;
                    let mut junk = Record::new(if sequence % 2 == 0 { HANDSHAKE } else { ALERT }, 1, &vec![7; len]);
                    junk.sequence = sequence;
                    arriving.push(junk.to_bytes());
                }
            }
            arriving.push(record.to_bytes());
        }
        arriving
    });
    assert!(forged);
    assert_no_panic();
    run.assert_same_keys();
    count(run.link.client.dropped(), |d| d.malformed_records, 100);
}

#[test]
fn change_cipher_spec_ahead_of_ours_or_repeated_is_dropped() {
    let early = Record::new(CHANGE_CIPHER_SPEC, 0, &[1]).to_bytes();
    let run = run_among(&vec![early; 1000]);
    count(run.link.client.dropped(), |d| d.untimely_records, 1000);
}

#[test]
fn a_client_hello_costs_one_counter() {
    let hello = Message::new(CLIENT_HELLO, 0, &[0; 120]).datagram();
    let run = run_among(&vec![hello; 1000]);
    count(run.link.client.dropped(), |d| d.client_hellos, 1000);
}

#[test]
fn messages_that_a_server_does_not_send_in_the_clear_are_dropped() {
    let forged: Vec<_> = [0, 4, 5, 8, 15, 16, 20, 21, 22, 24, 99, 255]
        .map(|message_type| Message::new(message_type, 0, &[0; 40]).datagram())
        .to_vec();
    let run = run_among(&forged);
    count(run.link.client.dropped(), |d| d.unexpected_messages, forged.len());
}

#[test]
fn thirty_thousand_one_byte_fragments_change_nothing() {
    let mut link = Link::new();
    for offset in 0..30_000 {
        let datagram = fragment(SERVER_HELLO, 30_000, 1, offset, &[0]);
        link.client.handle_datagram(&datagram, link.now);
    }
    for offset in 1..7_999 {
        let datagram = fragment(SERVER_HELLO, 8_000, 1, offset, &[0]);
        link.client.handle_datagram(&datagram, link.now);
    }
    assert_eq!(link.client.dropped().refused_fragments, 30_000 + 7_998);
    link.run(clean).assert_same_keys();
}

#[test]
fn fragments_that_contradict_themselves_are_refused() {
    let run = run_among(&[
        fragment(SERVER_HELLO, 100, 1, 50, &[0; 64]),
        fragment(SERVER_HELLO, 100, 1, 0xff_ffff, &[0; 64]),
        fragment(SERVER_HELLO, 100, 1, 0, &[]),
        fragment(SERVER_HELLO, 0xff_ffff, 1, 0, &[0; 64]),
        fragment(SERVER_HELLO, 9_000, 1, 0, &[0; 64]),
        fragment(SERVER_HELLO, 100, 60, 0, &[0; 100]),
        fragment(SERVER_HELLO, 100, 0xffff, 0, &[0; 100]),
    ]);
    count(run.link.client.dropped(), |d| d.refused_fragments, 7);
}

/// The forged fragment claims another length than the true message has.
#[test]
fn a_forged_first_fragment_does_not_block_the_true_message() {
    let run = run_among(&[fragment(SERVER_HELLO, 2_000, 1, 0, &[0; 64]), fragment(CERTIFICATE, 77, 2, 0, &[0; 64])]);
    assert!(run.link.client.dropped().over_limit == 0);
}

/// A copy of a true record with the highest sequence number would close the replay window of the clear epoch.
#[test]
fn forged_sequence_numbers_do_not_shut_out_the_peer() {
    let run = Link::new().run(|to, _, datagram| {
        let mut records = Record::parse_all(datagram);
        if to == To::Client && records[0].epoch == 0 {
            records[0].sequence = (1 << 48) - 1;
        }
        vec![records.iter().flat_map(Record::to_bytes).collect()]
    });
    run.assert_same_keys();
}

#[test]
fn more_fragments_than_a_handshake_has_are_not_kept() {
    let mut link = Link::new();
    for len in 100..300 {
        let datagram = fragment(CERTIFICATE, len, 5, 0, &[0; 64]);
        link.client.handle_datagram(&datagram, link.now);
    }
    assert_eq!(link.client.dropped().over_limit, 200 - 64);
    let run = link.run(clean);
    assert!(matches!(run.result, Err(DtlsError::TimedOut { .. })));
}

/// Every message of the server's flight, cut at every length, ahead of the true one.
#[test]
fn truncated_server_messages_are_dropped_unread() {
    watch_for_panics();
    const PER_RUN: usize = 10;
    let mut skip = 0;
    // bounded: by the bytes of the messages of a flight
    loop {
        let mut seen = 0;
        let mut forged = 0;
        let run = Link::new().run(|to, _, datagram| {
            let mut arriving = vec![];
            if to == To::Client {
                for message in Record::parse_all(datagram).iter().filter_map(Record::message) {
                    for len in 0..message.body.len() {
                        seen += 1;
                        if seen > skip && forged < PER_RUN {
                            forged += 1;
                            arriving.push(message.with(&message.body[..len]).datagram());
                        }
                    }
                }
            }
            arriving.push(datagram.to_vec());
            arriving
        });
        run.assert_same_keys();
        if forged == 0 {
            break;
        }
        skip += forged;
    }
    assert!(skip > 500, "{skip} cuts");
    assert_no_panic();
}

/// Shapes that webrtc-dtls 0.12.0 reads past the end of, or believes.
#[test]
fn server_messages_known_to_break_the_crate_are_dropped() {
    let hello = |extensions: &[u8]| {
        let mut body = vec![0xfe, 0xfd];
        body.extend([7; 32]);
        body.extend([0, 0xc0, 0x2b, 0]);
        body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        body.extend(extensions);
        Message::new(SERVER_HELLO, 1, &body).datagram()
    };
    let run = run_among(&[
        hello(&[0]),
        hello(&[0, 14, 0]),
        hello(&[0, 14, 0xff, 0xff]),
        Message::new(SERVER_KEY_EXCHANGE, 3, &[]).datagram(),
        Message::new(SERVER_KEY_EXCHANGE, 3, &[3]).datagram(),
        Message::new(CERTIFICATE, 2, &[0, 0, 6, 0xff, 0xff, 0xff, 1, 2, 3]).datagram(),
        Message::new(HELLO_VERIFY_REQUEST, 0, &[0xfe, 0xfd, 3, 1, 2]).datagram(),
        Message::new(HELLO_VERIFY_REQUEST, 0, &[&[0xfe, 0xfd, 1][..], &[9; 300]].concat()).datagram(),
    ]);
    assert!(run.link.client.dropped().malformed_messages > 2);
}

/// One byte of the server's first copies is changed: refused and repaired, or the end of the handshake.
#[test]
fn any_changed_byte_ends_in_the_same_keys_or_in_none() {
    watch_for_panics();
    let mut at = 0;
    let mut completed = 0;
    // bounded: by the bytes of the messages of a flight
    loop {
        let mut offset = 0;
        let mut changed = false;
        let run = Link::new().run(|to, _, datagram| {
            let mut arriving = datagram.to_vec();
            if to == To::Client {
                if !changed
                    && let Some(byte) = arriving.get_mut(at - offset.min(at))
                    && offset <= at
                {
                    *byte ^= 0xff;
                    changed = true;
                }
                offset += datagram.len();
            }
            vec![arriving]
        });
        match &run.result {
            Ok(_) => {
                run.assert_same_keys();
                completed += 1;
            }
            Err(error) => assert_ne!(*error, DtlsError::Panicked),
        }
        if !changed {
            break;
        }
        at += 1;
    }
    eprintln!("{at} bytes, {completed} completed");
    assert!(at > 700);
    assert_no_panic();
}

#[test]
fn random_damage_never_panics() {
    watch_for_panics();
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let run = Link::new().run(|to, _, datagram| {
            let mut arriving = datagram.to_vec();
            if to == To::Client {
                for _ in 0..rng.next() % 4 {
                    let at = usize::try_from(rng.next()).unwrap() % arriving.len();
                    arriving[at] = rng.next().to_le_bytes()[0];
                }
            }
            vec![arriving]
        });
        match &run.result {
            Ok(_) => run.assert_same_keys(),
            Err(error) => assert_ne!(*error, DtlsError::Panicked, "seed {seed}"),
        }
    }
    assert_no_panic();
}

#[test]
fn random_datagrams_of_every_length_change_nothing() {
    let mut rng = Rng::new(7);
    let mut forged = vec![];
    for len in 0..=1500 {
        let mut datagram = vec![0; len];
        rng.fill(&mut datagram);
        for (byte, value) in datagram.iter_mut().zip([HANDSHAKE, 0xfe, 0xfd, 0, 0]) {
            *byte = value;
        }
        forged.push(datagram);
    }
    let mut link = Link::new();
    for datagram in &forged {
        link.client.handle_datagram(datagram, link.now);
    }
    link.run(clean).assert_same_keys();
}
