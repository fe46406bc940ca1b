//! What we tell the sender, as another implementation reads it, and what it does upon it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use guest_relay::rtc::feedback::nack::REORDER_GRACE as NACK_GRACE;
use guest_relay::rtc::peer::Event;
use guest_relay_muxer::TrackKind;
use loadgen::netem::Impairments;
use str0m::media::KeyframeRequestKind;
use str0m::rtp::rtcp::Rtcp;

use super::session::{self, Client, Filter, Session, ssrc};

#[test]
fn a_keyframe_is_asked_for_at_the_start_and_until_it_came() {
    let mut session = Session::connected(Client::default());
    let asked = |session: &Session| {
        let requests = session.client_events.iter().filter_map(|event| match event {
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
    session.peer.notify_keyframe();
    session.run_for(Duration::from_secs(5));
    assert_eq!(asked(&session).len(), 5);
    let now = session.now;
    session.peer.request_keyframe(now);
    session.run_for(Duration::from_millis(100));
    assert_eq!(asked(&session).last(), Some(&KeyframeRequestKind::Pli));
    assert_eq!(asked(&session).len(), 6);
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

fn lost_packets_come_back(client: Client) {
    let mut session = Session::connected(client);
    let media_ssrc = session.video_ssrc();
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
    let repeated: Vec<_> = session.delivered.iter().filter(|delivered| delivered.kind == TrackKind::Video).collect();
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
    assert!((2 * session::DELAY..3 * session::DELAY).contains(&round_trip), "{round_trip:?}");
}

#[test]
fn lost_packets_are_asked_for_and_come_back_as_themselves() {
    lost_packets_come_back(Client::default());
}

#[test]
fn an_offer_without_ssrc_lines_works_as_well() {
    lost_packets_come_back(Client { edit_offer: without_ssrc_lines, ..Client::default() });
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

/// A wake-up finds the missing packet among the datagrams, after its request and other feedback have come due: a round of
/// 51 ms is a little longer than the time between two messages of transport-wide feedback, which all go out at a late packet.
#[test]
fn a_packet_that_comes_with_the_occasion_for_feedback_is_not_asked_for() {
    let mut session = Session::connected(Client::default());
    let media_ssrc = session.video_ssrc();
    for n in 0..60 {
        session.write(TrackKind::Video, 65_500 + 3 * n, 0, &[0; 500]);
        session.run_for(session::DELAY + Duration::from_millis(5));
        let held = Rc::new(RefCell::new(None));
        let hold = Rc::clone(&held);
        session.lose = Box::new(move |datagram| {
            let is_held = ssrc(datagram) == Some(media_ssrc) && hold.borrow().is_none();
            if is_held {
                *hold.borrow_mut() = Some(datagram.to_vec());
            }
            is_held
        });
        // Two packets, of which the first is overtaken.
        session.write(TrackKind::Video, 65_501 + 3 * n, 0, &[1; 500]);
        session.write(TrackKind::Video, 65_502 + 3 * n, 0, &[2; 500]);
        session.run_for(session::DELAY);
        session.now += NACK_GRACE + Duration::from_millis(1);
        let late = held.take().unwrap();
        session.lose = Box::new(|_| false);
        session.give_to_peer(&late, session.client_address);
        session.settle();
    }
    let stats = session.peer.stats();
    assert_eq!(stats.video.stream.nacked, 0);
    assert!(session.rtcp.iter().filter(|rtcp| matches!(rtcp, Rtcp::Twcc(_))).count() > 20);
}

/// Each packet of a sender on another implementation repeats the one before it.
#[test]
fn lost_sound_comes_back_with_the_next_packet_that_repeats_it() {
    let mut session = Session::connected(Client { redundant: true, video: false, ..Client::default() });
    assert!(session.answer.contains("a=rtpmap:63 red/48000/2\r\n"), "{}", session.answer);
    let opus = |n: u64| [&[0xf8][..], &n.to_be_bytes()].concat();
    session.write_opus(0, &opus(0));
    let first = session.delivered[0].clone();
    let mut lose = lose_every(7, first.ssrc);
    session.lose = Box::new(move |datagram| lose(datagram));
    for n in 1..100 {
        session.write_opus(n, &opus(n));
    }
    let expected: Vec<_> = (0..100_u16)
        .map(|n| {
            let rtp_time = first.rtp_time.wrapping_add(u32::from(n) * 960);
            (first.sequence_number.wrapping_add(n), rtp_time, first.payload_type, opus(n.into()))
        })
        .collect();
    let delivered: Vec<_> = session
        .delivered
        .iter()
        .map(|packet| (packet.sequence_number, packet.rtp_time, packet.payload_type, packet.payload.clone()))
        .collect();
    assert_eq!(delivered, expected);
    let stats = session.peer.stats().audio;
    assert_eq!((stats.stream.redundant, stats.stream.lost, stats.malformed_redundancy), (14, 14, 0));
}

#[test]
fn lost_sound_is_asked_for_where_the_offer_takes_nack_for_it_and_only_there() {
    for (edit_offer, asked) in [
        ((|offer| offer) as fn(String) -> String, false),
        (
            |offer: String| {
                offer.replacen("a=rtcp-fb:111 transport-cc", "a=rtcp-fb:111 nack\r\na=rtcp-fb:111 transport-cc", 1)
            },
            true,
        ),
    ] {
        let mut session = Session::connected(Client { video: false, edit_offer, ..Client::default() });
        assert_eq!(session.answer.contains("a=rtcp-fb:111 nack\r\n"), asked, "{}", session.answer);
        session.write_both(0, 0);
        let ssrc = session.delivered[0].ssrc;
        session.lose = lose_every(7, ssrc);
        for n in 1..60 {
            session.write_both(n, 0);
        }
        let nacks = session.rtcp.iter().filter(|rtcp| matches!(rtcp, Rtcp::Nack(nack) if *nack.ssrc == ssrc));
        assert_eq!(nacks.count() > 0, asked);
        assert_eq!(session.peer.delivery(TrackKind::Audio).retransmits, asked);
    }
}

#[test]
fn a_sender_that_answers_our_reference_times_tells_the_round_trip_time() {
    let mut session = Session::connected(Client { video: false, ..Client::default() });
    assert_eq!(session.peer.delivery(TrackKind::Audio).round_trip, None);
    for n in 0..300 {
        session.write_both(n, 0);
    }
    let delivery = session.peer.delivery(TrackKind::Audio);
    let round_trip = delivery.round_trip.expect("nothing was lost, so only the answers can tell it");
    assert!(round_trip.abs_diff(2 * session::DELAY) < Duration::from_millis(5), "{round_trip:?}");
}

#[test]
fn retransmissions_that_are_lost_are_asked_for_again() {
    let mut session = Session::connected(Client::default());
    let media_ssrc = session.video_ssrc();
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
    let media_ssrc = session.video_ssrc();
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
    assert!(last.last_sr_time != 0 && last.last_sr_delay != 0, "{last:?}");
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
    let mut session = Session::connected(Client { estimates: true, ..Client::default() });
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
    // Ten seconds of packets each 20 ms: one goes out with the first that comes 50 ms after the last.
    assert!((160..=168).contains(&feedback.len()), "{}", feedback.len());
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
            str0m::Event::EgressBitrateEstimate(str0m::bwe::BweKind::Twcc { estimate, .. }) => Some(estimate.as_u64()),
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
    assert!(!session.rtcp.iter().any(|rtcp| matches!(rtcp, Rtcp::Twcc(_))));
    let remb = session.client_events.iter().find_map(|event| match event {
        str0m::Event::EgressBitrateEstimate(str0m::bwe::BweKind::Remb { estimate, .. }) => Some(estimate.as_u64()),
        _ => None,
    });
    let remb = remb.expect("REMB reached the sender");
    assert!((2_499_000..=2_500_000).contains(&remb), "{remb}");
}

/// The sender's latest estimate of what the path takes, in bits per second.
fn estimate(session: &Session) -> Option<u64> {
    session.client_events.iter().rev().find_map(|event| match event {
        str0m::Event::EgressBitrateEstimate(str0m::bwe::BweKind::Twcc { estimate, .. }) => Some(estimate.as_u64()),
        _ => None,
    })
}

/// A sender that encodes for what it estimates from our feedback, as browsers do.
#[test]
fn a_narrow_link_ends_in_a_lower_bitrate_and_not_in_loss() {
    const FRAME: Duration = Duration::from_millis(33);
    const PACKET_BYTES: u32 = 1_000;
    let filler = vec![0x5a; 1_000 - 8];
    for kbps in [400, 1_200] {
        let uplink = Impairments {
            delay: session::DELAY,
            rate_kbps: Some(kbps),
            queue: Duration::from_millis(500),
            ..Impairments::default()
        };
        let mut session = Session::connected(Client { audio: false, estimates: true, uplink, ..Client::default() });
        let most = str0m::bwe::Bitrate::kbps(2_500);
        session.rtc.bwe().set_bitrate(most, most);
        let mut sent = 0_u64;
        let mut estimates = Vec::new();
        let mut measured_from = 0;
        let mut dropped_before = 0;
        let mut credit = 0;
        let minute = 60_000 / 33;
        for frame in 0..minute {
            if frame == minute / 2 {
                measured_from = sent;
                estimates.clear();
                dropped_before = session.to_peer.stats().queue_full;
            }
            let rate = estimate(&session).unwrap_or(500_000).min(2_500_000);
            estimates.push(rate);
            // Headers and retransmissions need room, too.
            credit += rate / 30 / 8 * 9 / 10;
            // bounded: each turn takes from the credit
            while credit >= PACKET_BYTES.into() {
                credit -= u64::from(PACKET_BYTES);
                let payload = [&sent.to_be_bytes()[..], &filler].concat();
                session.write(TrackKind::Video, sent, frame * 2970, &payload);
                sent += 1;
            }
            session.run_for(FRAME);
        }
        let arrived = session.delivered.iter().filter(|packet| {
            let n = u64::from_be_bytes(packet.payload[..8].try_into().unwrap());
            n >= measured_from
        });
        let arrived = arrived.count() as f64;
        let share = arrived / (sent - measured_from) as f64;
        let seconds = f64::from(minute / 2) * FRAME.as_secs_f64();
        let used_kbps = arrived * f64::from(PACKET_BYTES) * 8.0 / seconds / 1000.0;
        let mean = estimates.iter().sum::<u64>() as f64 / estimates.len() as f64;
        let dropped = session.to_peer.stats().queue_full - dropped_before;
        let seen = format!(
            "{kbps} kbit/s: {share:.3} arrived, {dropped} dropped, {used_kbps:.0} kbit/s of {mean:.0} bit/s estimated"
        );
        assert!(share > 0.9, "{seen}");
        assert!(used_kbps > 0.6 * f64::from(kbps), "{seen}");
        assert!((0.6..1.2).contains(&(mean / 1000.0 / f64::from(kbps))), "{seen}");
    }
}

#[test]
fn a_new_limit_reaches_a_sender_that_estimates_by_transport_feedback() {
    let mut session = Session::connected(Client { estimates: true, ..Client::default() });
    session.write_both(0, 1000);
    let rembs = |session: &Session| {
        let limits = session.client_events.iter().filter_map(|event| match event {
            str0m::Event::EgressBitrateEstimate(str0m::bwe::BweKind::Remb { estimate, .. }) => Some(estimate.as_u64()),
            _ => None,
        });
        limits.collect::<Vec<_>>()
    };
    session.run_for(Duration::from_millis(100));
    assert_eq!(rembs(&session).last(), Some(&2_500_000));
    let now = session.now;
    session.peer.set_max_bitrate(800, now);
    session.run_for(Duration::from_millis(100));
    assert_eq!(rembs(&session).last(), Some(&800_000));
    assert!(session.rtcp.iter().any(|rtcp| matches!(rtcp, Rtcp::Twcc(_))));
}
