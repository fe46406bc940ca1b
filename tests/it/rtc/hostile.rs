//! Datagrams from strangers and from a peer that misbehaves.

use std::net::SocketAddr;
use std::time::Duration;

use guest_relay::rtc::dtls::DtlsError;
use guest_relay::rtc::peer::{EndReason, Event, State};
use guest_relay_muxer::TrackKind;

use super::session::{Client, Session, ssrc};
use crate::rng::Rng;

#[test]
fn a_certificate_other_than_the_promised_one_ends_the_session_without_media() {
    let mut session = Session::new(Client {
        edit_offer: |offer| {
            let at = offer.find("a=fingerprint:sha-256 ").unwrap() + 22;
            let genuine = &offer[at..at + 95];
            let (first, rest) = genuine.split_at(1);
            let other = if first == "0" { "1" } else { "0" };
            offer.replace(genuine, &format!("{other}{rest}"))
        },
        ..Client::default()
    });
    session.run_until(Duration::from_secs(11), |session| matches!(session.peer.state(), State::Ended(_)));
    assert!(matches!(session.peer.state(), State::Ended(EndReason::Dtls(DtlsError::FingerprintMismatch { .. }))));
    assert!(!session.events.iter().any(|event| matches!(event, Event::Connected { .. })));
    assert_eq!(session.delivered, []);
}

#[test]
fn a_handshake_that_gets_no_answer_ends_after_ten_seconds() {
    let mut session = Session::new(Client::default());
    session.lose = Box::new(|datagram| datagram[0] > 3);
    session.run_until(Duration::from_secs(12), |session| matches!(session.peer.state(), State::Ended(_)));
    assert!(matches!(session.peer.state(), State::Ended(EndReason::Dtls(DtlsError::TimedOut { .. }))));
    assert!(session.elapsed() < Duration::from_secs(11));
}

#[test]
fn strangers_and_forgers_change_nothing() {
    let mut session = Session::connected(Client::default());
    let stranger: SocketAddr = "203.0.113.9:4444".parse().unwrap();
    let guest = session.client_address;
    let mut random = Rng::new(7);
    let mut sequence = 0;
    for len in 0..=1500_usize {
        for from in [stranger, guest] {
            let mut datagram = vec![0; len];
            random.fill(&mut datagram);
            for (first, second) in
                [(0, 1), (1, 1), (22, 254), (23, 254), (128, 102), (128, 200), (144, 96), (191, 205), (200, 0)]
            {
                for (to, byte) in datagram.iter_mut().zip([first, second]) {
                    *to = byte;
                }
                let sent = session.sent.len();
                session.give_to_peer(&datagram, from);
                assert_eq!(session.sent.len(), sent, "an answer to {:02x?}", datagram.get(..20));
            }
        }
        if len % 15 == 0 {
            session.write_both(sequence, 1000);
            sequence += 1;
        }
    }
    session.run_for(Duration::from_millis(100));
    assert_eq!(session.sequences(TrackKind::Video).len() as u64, sequence);
    assert_eq!(session.sequences(TrackKind::Audio).len() as u64, sequence);
    let stats = session.peer.stats();
    assert_eq!(stats.remote_address, Some(guest));
    assert!(stats.from_unvalidated_address > 1000);
    assert!(stats.srtp.rtp.malformed + stats.srtp.rtp.unauthentic + stats.srtp.rtp.not_admitted > 1000);
    assert_eq!((stats.srtp.rtp.crashed, stats.srtp.rtcp.crashed), (0, 0));
    assert_eq!(*session.peer.state(), State::Connected);
}

#[test]
fn every_shape_of_datagram_is_survived_before_and_during_the_handshake() {
    // Not a check has come; then: a pair is nominated and DTLS hangs.
    for handshaking in [false, true] {
        let mut session = Session::new(Client::default());
        if handshaking {
            session.lose = Box::new(|datagram| datagram[0] > 3);
            session.run_until(Duration::from_secs(2), |session| *session.peer.state() == State::Handshaking);
        }
        let state = session.peer.state().clone();
        let from = session.client_address;
        let mut random = Rng::new(11);
        let mut datagram = vec![0; 1500];
        random.fill(&mut datagram);
        for first in 0..=u8::MAX {
            for len in (0..=1500).step_by(7) {
                datagram[0] = first;
                session.give_to_peer(&datagram[..len], from);
            }
        }
        assert_eq!(*session.peer.state(), state);
        assert_eq!(session.delivered, []);
        // The real thing still works afterwards.
        session.lose = Box::new(|_| false);
        session.run_until(Duration::from_secs(8), Session::is_connected);
    }
}

#[test]
fn replayed_and_altered_packets_are_not_delivered_and_a_wrong_address_does_not_count() {
    let mut session = Session::connected(Client::default());
    session.write_both(0, 200);
    // The next video packet, kept back.
    let media_ssrc = session.video_ssrc();
    let kept = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let keep = kept.clone();
    session.lose = Box::new(move |datagram| {
        let is_media = ssrc(datagram) == Some(media_ssrc);
        if is_media {
            keep.borrow_mut().push(datagram.to_vec());
        }
        is_media
    });
    session.write_both(1, 200);
    session.lose = Box::new(|_| false);
    let packet = kept.borrow().first().cloned().unwrap();
    let guest = session.client_address;
    let before = session.delivered.len();
    for at in 0..packet.len() {
        let mut altered = packet.clone();
        altered[at] ^= 0x10;
        session.give_to_peer(&altered, guest);
        assert_eq!(session.delivered.len(), before, "byte {at}");
    }
    session.give_to_peer(&packet, "203.0.113.9:4444".parse().unwrap());
    assert_eq!(session.delivered.len(), before);
    session.give_to_peer(&packet, guest);
    assert_eq!(session.delivered.len(), before + 1);
    let replayed = session.peer.stats().srtp.rtp.replayed;
    session.give_to_peer(&packet, guest);
    assert_eq!(session.delivered.len(), before + 1);
    assert_eq!(session.peer.stats().srtp.rtp.replayed, replayed + 1);
}
