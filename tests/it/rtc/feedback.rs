//! What we tell the sender, as another implementation reads it, and what it does upon it.

use std::time::Duration;

use guest_relay::rtc::peer::Event;
use guest_relay_muxer::TrackKind;
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
    session.peer.notify_keyframe(session.now);
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
