//! Whole peers: what `rtc/` makes of a WHIP client, and of an SFU, on another implementation.
#![allow(clippy::unwrap_used)]

mod session;

use std::net::SocketAddr;
use std::time::Duration;

use guest_relay::rtc::dtls::DtlsError;
use guest_relay::rtc::peer::{EndReason, Event, State};
use guest_relay_muxer::TrackKind;
use session::{Client, Filter, Session};
use str0m::media::KeyframeRequestKind;
use str0m::rtp::rtcp::Rtcp;

use crate::rng::Rng;

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
        assert_eq!(
            delivered.payload[8..],
            vec![0x5a; delivered.payload.len() - 8]
        );
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
    let first_dtls = session
        .sent
        .iter()
        .position(|(_, datagram)| datagram[0] > 3)
        .unwrap();
    let (stun, rest) = session.sent.split_at(first_dtls);
    assert!(!stun.is_empty());
    // ClientHello: the client role.
    assert_eq!((rest[0].1[0], rest[0].1[13]), (22, 1));
    assert!(
        session
            .sent
            .iter()
            .all(|(to, _)| *to == session.client_address)
    );
}

#[test]
fn a_keyframe_is_asked_for_at_the_start_and_until_it_came() {
    let mut session = Session::connected(Client::default());
    let asked = |session: &Session| {
        let requests = session
            .client_events
            .iter()
            .filter_map(|event| match event {
                str0m::Event::KeyframeRequest(request) => Some(request.kind),
                _ => None,
            });
        requests.collect::<Vec<_>>()
    };
    session.run_for(Duration::from_millis(100));
    assert_eq!(asked(&session), [KeyframeRequestKind::Pli]);
    session.run_for(Duration::from_millis(2_000));
    assert_eq!(
        asked(&session),
        [
            KeyframeRequestKind::Pli,
            KeyframeRequestKind::Pli,
            KeyframeRequestKind::Pli,
            KeyframeRequestKind::Fir,
            KeyframeRequestKind::Fir,
        ]
    );
    session.peer.notify_keyframe(session.now);
    session.run_for(Duration::from_secs(5));
    assert_eq!(asked(&session).len(), 5);
    let now = session.now;
    session.peer.request_keyframe(now);
    session.run_for(Duration::from_millis(100));
    assert_eq!(asked(&session).last(), Some(&KeyframeRequestKind::Pli));
    assert_eq!(asked(&session).len(), 6);
}

/// The SSRC of a protected RTP packet.
fn ssrc(datagram: &[u8]) -> Option<u32> {
    let is_rtp = (128..192).contains(datagram.first()?) && !(192..224).contains(datagram.get(1)?);
    let ssrc = datagram.get(8..12)?.try_into().ok()?;
    is_rtp.then_some(u32::from_be_bytes(ssrc))
}

/// Loses every `nth` packet of the stream that packet `first` of the session belongs to, retransmissions excepted.
fn lose_every(nth: u64, media_ssrc: u32) -> Filter {
    let mut count = 0;
    Box::new(move |datagram| {
        if ssrc(datagram) != Some(media_ssrc) {
            return false;
        }
        count += 1;
        count % nth == 0
    })
}

fn video_ssrc(session: &mut Session) -> u32 {
    let mid = session.video.unwrap();
    let mut direct = session.rtc.direct_api();
    *direct.stream_tx_by_mid(mid, None).unwrap().ssrc()
}

fn lost_packets_come_back(client: Client) {
    let mut session = Session::connected(client);
    let media_ssrc = video_ssrc(&mut session);
    session.lose = lose_every(7, media_ssrc);
    for n in 0..200 {
        session.write_both(n, 1000);
    }
    session.lose = Box::new(|_| false);
    for n in 200..220 {
        session.write_both(n, 1000);
    }
    let mut video = session.sequences(TrackKind::Video);
    video.sort_by_key(|sequence| sequence.wrapping_sub(65_500));
    video.dedup();
    let all: Vec<u16> = (0..220).map(|n| 65_500_u16.wrapping_add(n)).collect();
    assert_eq!(video, all);
    let repeated: Vec<_> = session
        .delivered
        .iter()
        .filter(|delivered| delivered.kind == TrackKind::Video)
        .collect();
    // A retransmission is the packet it repeats: number (above), payload type, SSRC and bytes.
    for delivered in &repeated {
        assert_eq!(delivered.ssrc, media_ssrc);
        assert_eq!(delivered.payload_type, repeated[0].payload_type);
        assert_eq!(delivered.payload.len(), 1008);
    }
    let stats = session.peer.stats();
    assert_eq!(stats.video.retransmissions, 28);
    assert_eq!(stats.video.stream.recovered, 28);
    assert_eq!(stats.video.stream.lost, 28);
    assert_eq!(stats.video.stream.given_up, 0);
    let round_trip = stats.round_trip.unwrap();
    assert!(
        (2 * session::DELAY..3 * session::DELAY).contains(&round_trip),
        "{round_trip:?}"
    );
}

#[test]
fn lost_packets_are_asked_for_and_come_back_as_themselves() {
    lost_packets_come_back(Client::default());
}

#[test]
fn an_offer_without_ssrc_lines_works_as_well() {
    lost_packets_come_back(Client {
        edit_offer: without_ssrc_lines,
        ..Client::default()
    });
}

fn without_ssrc_lines(offer: String) -> String {
    without(&offer, &["a=ssrc:", "a=ssrc-group:"])
}

fn without(description: &str, lines: &[&str]) -> String {
    description
        .lines()
        .filter(|line| !lines.iter().any(|start| line.starts_with(start)))
        .map(|line| format!("{line}\r\n"))
        .collect()
}

#[test]
fn retransmissions_that_are_lost_are_asked_for_again() {
    let mut session = Session::connected(Client::default());
    let media_ssrc = video_ssrc(&mut session);
    let mut repeated = 0;
    let mut lose_media = lose_every(50, media_ssrc);
    let audio_mid = session.audio.unwrap();
    let audio_ssrc = {
        let mut direct = session.rtc.direct_api();
        *direct.stream_tx_by_mid(audio_mid, None).unwrap().ssrc()
    };
    session.lose = Box::new(move |datagram| match ssrc(datagram) {
        Some(ssrc) if ssrc != media_ssrc && ssrc != audio_ssrc && datagram.len() > 1000 => {
            repeated += 1;
            repeated % 3 != 0
        }
        _ => lose_media(datagram),
    });
    for n in 0..400 {
        session.write_both(n, 1000);
    }
    session.run_for(Duration::from_millis(500));
    let stats = session.peer.stats();
    // Packets 50 to 350; that the last one, 400, is missing nothing after it shows. Each took three requests.
    assert_eq!(stats.video.stream.recovered, 7);
    assert!(stats.video.stream.nacked >= 21, "{stats:?}");
}

#[test]
fn receiver_reports_tell_loss_and_the_last_sender_report() {
    let mut session = Session::connected(Client::default());
    let media_ssrc = video_ssrc(&mut session);
    session.lose = lose_every(10, media_ssrc);
    for n in 0..300 {
        session.write_both(n, 1000);
    }
    let blocks: Vec<_> = session
        .rtcp
        .iter()
        .filter_map(|rtcp| match rtcp {
            Rtcp::ReceiverReport(report) => Some(report),
            _ => None,
        })
        .flat_map(|report| report.reports.iter())
        .filter(|block| *block.ssrc == media_ssrc)
        .collect();
    // One a second.
    assert!((5..=7).contains(&blocks.len()), "{blocks:?}");
    let last = blocks.last().unwrap();
    assert!((23..=30).contains(&last.packets_lost), "{last:?}");
    // 10 % of 256.
    assert!((20..=31).contains(&last.fraction_lost), "{last:?}");
    assert!(
        last.last_sr_time != 0 && last.last_sr_delay != 0,
        "{last:?}"
    );
    // Of the sender's reports we told the driver.
    let reports = |kind| {
        let of_kind = move |event: &&Event| matches!(event, Event::SenderReport { kind: k, ntp_time, .. } if *k == kind && *ntp_time > 0);
        session.events.iter().filter(of_kind).count()
    };
    assert!(reports(TrackKind::Video) >= 2);
    assert!(reports(TrackKind::Audio) >= 1);
}

#[test]
fn transport_feedback_makes_the_sender_raise_its_estimate() {
    let mut session = Session::connected(Client {
        estimates: true,
        ..Client::default()
    });
    for n in 0..500 {
        session.write_both(n, 1100);
    }
    let feedback: Vec<_> = session
        .rtcp
        .iter()
        .filter_map(|rtcp| match rtcp {
            Rtcp::Twcc(twcc) => Some(twcc),
            _ => None,
        })
        .collect();
    // Ten seconds, one each 50 ms.
    assert!((170..=201).contains(&feedback.len()), "{}", feedback.len());
    // Consecutive messages, no packet left out: str0m numbers every packet it sends from 1 on.
    let mut next = feedback[0].base_seq;
    for (count, message) in (0_u8..=255).cycle().zip(&feedback) {
        assert_eq!(message.feedback_count, count);
        assert_eq!(message.base_seq, next);
        next = next.wrapping_add(message.status_count);
    }
    let estimates: Vec<u64> = session
        .client_events
        .iter()
        .filter_map(|event| match event {
            str0m::Event::EgressBitrateEstimate(str0m::bwe::BweKind::Twcc { estimate, .. }) => {
                Some(estimate.as_u64())
            }
            _ => None,
        })
        .collect();
    let highest = estimates.iter().max().unwrap();
    assert!(*highest > 500_000, "{estimates:?}");
}

#[test]
fn without_transport_feedback_remb_tells_the_limit() {
    let mut session = Session::connected(Client {
        estimates: true,
        edit_offer: |offer| {
            without(&offer, &["a=extmap:3 ", "a=rtcp-fb:* transport-cc"])
                .lines()
                .filter(|line| !line.contains("transport-cc"))
                .map(|line| format!("{line}\r\n"))
                .collect()
        },
        ..Client::default()
    });
    for n in 0..100 {
        session.write_both(n, 1000);
    }
    assert!(
        !session
            .rtcp
            .iter()
            .any(|rtcp| matches!(rtcp, Rtcp::Twcc(_)))
    );
    let remb = session.client_events.iter().find_map(|event| match event {
        str0m::Event::EgressBitrateEstimate(str0m::bwe::BweKind::Remb { estimate, .. }) => {
            Some(estimate.as_u64())
        }
        _ => None,
    });
    let remb = remb.expect("REMB reached the sender");
    assert!((2_499_000..=2_500_000).contains(&remb), "{remb}");
}

#[test]
fn one_track_alone_connects_and_flows() {
    for (audio, video, kind) in [
        (true, false, TrackKind::Audio),
        (false, true, TrackKind::Video),
    ] {
        let mut session = Session::connected(Client {
            audio,
            video,
            ..Client::default()
        });
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
    let mut session = Session::connected(Client {
        ice_lite: true,
        ..Client::default()
    });
    assert!(!session.answer.contains("a=ice-lite"));
    assert!(session.elapsed() < Duration::from_millis(500));
    for n in 0..20 {
        session.write_both(n, 500);
    }
    session.run_for(Duration::from_secs(60));
    assert_eq!(*session.peer.state(), State::Connected);
    assert_eq!(session.sequences(TrackKind::Video).len(), 20);
    assert_eq!(session.peer.mapped_address(), Some(session.our_address));
    assert!(session.rtc.is_alive());
}

#[test]
fn consent_ends_30_seconds_after_the_last_check_and_nothing_is_sent_then() {
    for ice_lite in [false, true] {
        let mut session = Session::connected(Client {
            ice_lite,
            ..Client::default()
        });
        for n in 0..10 {
            session.write_both(n, 500);
        }
        let silent_from = session.elapsed();
        session.lose = Box::new(|_| true);
        let ended = Event::Ended(EndReason::ConsentLost);
        session.run_until(Duration::from_secs(31), |session| {
            session.events.contains(&ended)
        });
        let silence = session.elapsed() - silent_from;
        // The last check or answer came up to one interval (6 s) before the silence.
        assert!(
            (Duration::from_secs(23)..=Duration::from_secs(30)).contains(&silence),
            "{silence:?}"
        );
        let sent = session.sent.len();
        session.run_for(Duration::from_secs(10));
        assert_eq!(session.sent.len(), sent);
        assert_eq!(session.peer.poll_timeout(), None);
    }
}

#[test]
fn a_session_that_nobody_joins_ends_by_itself() {
    let mut session = Session::new(Client::default());
    session.lose = Box::new(|_| true);
    let ended = Event::Ended(EndReason::NeverConnected);
    session.run_until(Duration::from_secs(31), |session| {
        session.events == [ended.clone()]
    });
    assert_eq!(session.elapsed(), Duration::from_secs(30));
    assert_eq!(session.sent, []);
}

#[test]
fn a_certificate_other_than_the_promised_one_ends_the_session_without_media() {
    let mut session = Session::new(Client {
        edit_offer: |offer| {
            let at = offer.find("a=fingerprint:sha-256 ").unwrap() + 22;
            let genuine = &offer[at..at + 95];
            let forged = genuine
                .replace('0', "g")
                .replace('1', "0")
                .replace('g', "1");
            assert_ne!(genuine, forged);
            offer.replace(genuine, &forged)
        },
        ..Client::default()
    });
    session.run_until(Duration::from_secs(11), |session| {
        matches!(session.peer.state(), State::Ended(_))
    });
    assert!(matches!(
        session.peer.state(),
        State::Ended(EndReason::Dtls(DtlsError::FingerprintMismatch { .. }))
    ));
    assert!(
        !session
            .events
            .iter()
            .any(|event| matches!(event, Event::Connected { .. }))
    );
    assert_eq!(session.delivered, []);
}

#[test]
fn a_handshake_that_gets_no_answer_ends_after_ten_seconds() {
    let mut session = Session::new(Client::default());
    session.lose = Box::new(|datagram| datagram[0] > 3);
    session.run_until(Duration::from_secs(12), |session| {
        matches!(session.peer.state(), State::Ended(_))
    });
    assert!(matches!(
        session.peer.state(),
        State::Ended(EndReason::Dtls(DtlsError::TimedOut { .. }))
    ));
    assert!(session.elapsed() < Duration::from_secs(11));
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
    assert!(
        session
            .rtcp
            .iter()
            .any(|rtcp| matches!(rtcp, Rtcp::Goodbye(_)))
    );
    assert_eq!(
        session.events.last(),
        Some(&Event::Ended(EndReason::Closed))
    );
    let (sent, delivered) = (session.sent.len(), session.delivered.len());
    for n in 10..20 {
        session.write_both(n, 500);
    }
    session.peer.close(session.now);
    session.peer.request_keyframe(session.now);
    session.settle();
    assert_eq!(
        (session.sent.len(), session.delivered.len()),
        (sent, delivered)
    );
    // What was counted can still be read.
    assert_eq!(session.peer.stats().video.packets, 10);
    assert!(session.peer.stats().srtp.rtp.accepted >= 20);
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
            for (first, second) in [
                (0, 1),
                (1, 1),
                (22, 254),
                (23, 254),
                (128, 102),
                (128, 200),
                (144, 96),
                (191, 205),
                (200, 0),
            ] {
                for (to, byte) in datagram.iter_mut().zip([first, second]) {
                    *to = byte;
                }
                let sent = session.sent.len();
                session.give_to_peer(&datagram, from);
                assert_eq!(
                    session.sent.len(),
                    sent,
                    "an answer to {:02x?}",
                    datagram.get(..20)
                );
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
    assert!(
        stats.srtp.rtp.malformed + stats.srtp.rtp.unauthentic + stats.srtp.rtp.not_admitted > 1000
    );
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
            session.run_until(Duration::from_secs(2), |session| {
                *session.peer.state() == State::Handshaking
            });
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
fn a_guest_who_moves_to_another_address_is_followed_when_it_nominates_it() {
    let mut session = Session::connected(Client::default());
    session.write_both(0, 500);
    let old = session.client_address;
    // A NAT rebinding: the same client appears from another port, and nominates with its next check.
    let new: SocketAddr = "192.168.1.20:50001".parse().unwrap();
    session.client_appears_as = Some(new);
    session.run_until(Duration::from_secs(10), |session| {
        session.peer.stats().remote_address == Some(new)
    });
    assert!(session.events.contains(&Event::AddressValidated(new)));
    let sent = session.sent.len();
    for n in 1..60 {
        session.write_both(n, 500);
    }
    let later = &session.sent[sent..];
    assert!(!later.is_empty() && later.iter().all(|(to, _)| *to == new));
    assert_ne!(old, new);
    // Packet 59 has the number 65500 + 59, wrapped.
    assert_eq!(session.sequences(TrackKind::Video).last(), Some(&23));
}

#[test]
fn replayed_and_altered_packets_are_not_delivered_and_a_wrong_address_does_not_count() {
    let mut session = Session::connected(Client::default());
    session.write_both(0, 200);
    // The next video packet, kept back.
    let media_ssrc = video_ssrc(&mut session);
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

#[test]
fn a_peer_can_be_handed_to_another_thread() {
    fn assert_send<T: Send + 'static>(_: &T) {}
    let session = Session::new(Client::default());
    assert_send(&session.peer);
}
