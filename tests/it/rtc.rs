//! Whole peers: what `rtc/` makes of a WHIP client, and of an SFU, on another implementation.
#![allow(clippy::unwrap_used)]

mod feedback;
mod hostile;
mod session;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use guest_relay::rtc::peer::{EndReason, Event, QUIET_AFTER, State};
use guest_relay_muxer::TrackKind;
use session::{Client, Session, ssrc};
use str0m::rtp::rtcp::Rtcp;

#[test]
fn a_whip_client_connects_and_both_tracks_arrive() {
    let mut session = Session::connected(Client::default());
    assert!(session.elapsed() < Duration::from_millis(500));
    for n in 0..50 {
        session.write_both(n, 1000);
    }
    session.run_for(Duration::from_millis(100));
    let audio: Vec<u16> = (1000..1050).collect();
    let video: Vec<u16> = (0..50).map(|n| 65_500_u16.wrapping_add(n)).collect();
    assert_eq!(session.sequences(TrackKind::Audio), audio);
    assert_eq!(session.sequences(TrackKind::Video), video);
    for delivered in &session.delivered {
        assert_eq!(delivered.payload[8..], vec![0x5a; delivered.payload.len() - 8]);
    }
    assert_eq!(*session.peer.state(), State::Connected);
    let connected = |event: &&Event| matches!(event, Event::Connected { .. });
    assert_eq!(session.events.iter().filter(connected).count(), 1);
}

#[test]
fn nothing_is_sent_before_a_check_and_only_stun_before_the_nomination() {
    let mut session = Session::new(Client::default());
    session.lose = Box::new(|_| true);
    session.run_for(Duration::from_secs(2));
    assert_eq!(session.sent, []);
    assert_eq!(*session.peer.state(), State::New);
    session.lose = Box::new(|_| false);
    session.run_until(Duration::from_secs(5), Session::is_connected);
    let first_dtls = session.sent.iter().position(|(_, datagram)| datagram[0] > 3).unwrap();
    let (stun, rest) = session.sent.split_at(first_dtls);
    assert!(!stun.is_empty());
    // ClientHello: the client role.
    assert_eq!((rest[0].1[0], rest[0].1[13]), (22, 1));
    assert!(session.sent.iter().all(|(to, _)| *to == session.client_address));
}

#[test]
fn one_track_alone_connects_and_flows() {
    for (audio, video, kind) in [(true, false, TrackKind::Audio), (false, true, TrackKind::Video)] {
        let mut session = Session::connected(Client { audio, video, ..Client::default() });
        for n in 0..20 {
            session.write_both(n, 500);
        }
        session.run_for(Duration::from_millis(100));
        assert_eq!(session.sequences(kind).len(), 20);
        assert_eq!(session.delivered.len(), 20);
    }
}

#[test]
fn an_ice_lite_sender_is_checked_nominated_and_kept_alive_by_us() {
    let mut session = Session::connected(Client { ice_lite: true, ..Client::default() });
    assert!(!session.answer.contains("a=ice-lite"));
    assert!(session.elapsed() < Duration::from_millis(500));
    for n in 0..20 {
        session.write_both(n, 500);
    }
    session.run_for(Duration::from_secs(60));
    assert_eq!(*session.peer.state(), State::Connected);
    assert_eq!(session.sequences(TrackKind::Video).len(), 20);
    assert!(session.rtc.is_alive());
}

#[test]
fn a_guest_is_gone_when_checks_and_media_have_ended_and_nothing_is_sent_then() {
    for ice_lite in [false, true] {
        let mut session = Session::connected(Client { ice_lite, ..Client::default() });
        for n in 0..10 {
            session.write_both(n, 500);
        }
        let silent_from = session.elapsed();
        session.lose = Box::new(|_| true);
        let ended = Event::Ended(EndReason::FellSilent);
        session.run_until(Duration::from_secs(31), |session| session.events.contains(&ended));
        let silence = session.elapsed() - silent_from;
        // The last check or answer came up to one interval (6 s) before the silence.
        assert!((Duration::from_secs(23)..=Duration::from_secs(30)).contains(&silence), "{silence:?}");
        let sent = session.sent.len();
        session.run_for(Duration::from_secs(10));
        assert_eq!(session.sent.len(), sent);
        assert_eq!(session.peer.poll_timeout(), None);
    }
}

#[test]
fn a_silence_of_three_seconds_is_told_once_and_so_is_its_end() {
    for ice_lite in [false, true] {
        let mut session = Session::connected(Client { ice_lite, ..Client::default() });
        session.write_both(0, 500);
        session.run_for(Duration::from_millis(100));
        let told = |session: &Session| {
            let count = |what: &Event| session.events.iter().filter(|event| *event == what).count();
            (count(&Event::Quiet), count(&Event::Heard))
        };
        session.lose = Box::new(|_| true);
        session.run_for(QUIET_AFTER - Duration::from_millis(200));
        assert_eq!(told(&session), (0, 0));
        session.run_for(Duration::from_secs(3));
        assert_eq!((QUIET_AFTER, told(&session)), (Duration::from_secs(3), (1, 0)));
        session.lose = Box::new(|_| false);
        session.run_until(Duration::from_secs(7), |session| told(session).1 > 0);
        session.run_for(Duration::from_secs(1));
        assert_eq!((told(&session), session.peer.state()), ((1, 1), &State::Connected));
    }
}

#[test]
fn a_session_that_nobody_joins_ends_by_itself() {
    let mut session = Session::new(Client::default());
    session.lose = Box::new(|_| true);
    let ended = Event::Ended(EndReason::NeverConnected);
    session.run_until(Duration::from_secs(31), |session| session.events == [ended.clone()]);
    assert_eq!(session.elapsed(), Duration::from_secs(30));
    assert_eq!(session.sent, []);
}

#[test]
fn close_says_goodbye_and_is_final() {
    let mut session = Session::connected(Client::default());
    for n in 0..10 {
        session.write_both(n, 500);
    }
    let now = session.now;
    session.peer.close(now);
    session.run_for(Duration::from_millis(100));
    assert!(session.rtcp.iter().any(|rtcp| matches!(rtcp, Rtcp::Goodbye(_))));
    assert_eq!(session.events.last(), Some(&Event::Ended(EndReason::Closed)));
    let (sent, delivered) = (session.sent.len(), session.delivered.len());
    for n in 10..20 {
        session.write_both(n, 500);
    }
    session.peer.close(session.now);
    session.peer.request_keyframe(session.now);
    session.settle();
    assert_eq!((session.sent.len(), session.delivered.len()), (sent, delivered));
    // What was counted can still be read.
    assert_eq!(session.peer.stats().video.packets, 10);
    assert!(session.peer.stats().srtp.rtp.accepted >= 20);
}

#[test]
fn a_guest_who_moves_to_another_address_is_followed_with_its_media_nominated_or_not() {
    for nominates_no_more in [false, true] {
        let mut session = Session::connected(Client::default());
        session.write_both(0, 500);
        let old = session.client_address;
        // A NAT rebinding: the same client appears from another port, which its next check shows.
        let new: SocketAddr = "192.168.1.20:50001".parse().unwrap();
        session.client_appears_as = Some(new);
        session.nominates_no_more = nominates_no_more;
        session.run_until(Duration::from_secs(10), |session| session.events.contains(&Event::AddressValidated(new)));
        let is_report = |(to, datagram): &&(SocketAddr, Vec<u8>)| *to == new && datagram[0] > 3;
        assert_eq!(session.sent.iter().filter(is_report).count(), 0, "feedback before there is SRTP from there");
        session.write_both(1, 500);
        session.run_for(Duration::from_millis(100));
        assert_eq!(session.peer.stats().remote_address, Some(new));
        let sent = session.sent.len();
        for n in 2..60 {
            session.write_both(n, 500);
        }
        let later = &session.sent[sent..];
        assert!(!later.is_empty() && later.iter().all(|(to, _)| *to == new));
        assert_ne!(old, new);
        // Packet 59 has the number 65500 + 59, wrapped.
        assert_eq!(session.sequences(TrackKind::Video).last(), Some(&23));
    }
}

/// What somebody on the way has recorded, and sends again from an address of its own: a nomination, then media and reports.
#[test]
fn recorded_checks_and_media_do_not_divert_feedback() {
    let mut session = Session::new(Client::default());
    let recorded = Rc::new(RefCell::new(Vec::new()));
    let tap = Rc::clone(&recorded);
    // For a while every fourth packet of media never arrives: what is not the newest must not count, even if it had not come.
    let mut media = 0;
    session.lose = Box::new(move |datagram| {
        tap.borrow_mut().push(datagram.to_vec());
        media += u32::from(ssrc(datagram).is_some());
        ssrc(datagram).is_some() && media % 4 == 0 && media < 160
    });
    session.run_until(Duration::from_secs(5), Session::is_connected);
    for n in 0..100 {
        session.write_both(n, 500);
    }
    session.run_for(Duration::from_millis(100));
    let attacker: SocketAddr = "203.0.113.66:6666".parse().unwrap();
    let guest = session.client_address;
    let count = recorded.borrow().len();
    assert!(count > 200, "{count} datagrams");
    for index in 0..count {
        let datagram = recorded.borrow()[index].clone();
        session.give_to_peer(&datagram, attacker);
        assert_eq!(session.peer.stats().remote_address, Some(guest), "after {:02x?}", datagram.get(..12));
    }
    assert!(session.events.contains(&Event::AddressValidated(attacker)), "the recorded checks are authentic");
    let sent = session.sent.len();
    for n in 100..200 {
        session.write_both(n, 500);
    }
    let later = &session.sent[sent..];
    assert!(!later.is_empty() && later.iter().all(|(to, _)| *to == guest));
}

#[test]
fn a_peer_can_be_handed_to_another_thread() {
    fn assert_send<T: Send + 'static>(_: &T) {}
    let session = Session::new(Client::default());
    assert_send(&session.peer);
}
