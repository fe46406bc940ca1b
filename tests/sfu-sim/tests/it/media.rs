//! Media through the service.

use std::time::Duration;

use loadgen::clip::{Clip, TrackKind};
use loadgen::h264::{self, AccessUnitBuilder};
use serde_json::json;
use sfu_sim::{Options, SfuSim, Times};
use str0m::media::KeyframeRequestKind;
use str0m::rtp::RtpPacket;

use crate::peer::{Api, PATIENCE, Publisher, Subscriber, remote, run, run_until};

/// A service at which nothing ends by itself, and a client of its API.
pub(crate) fn start() -> (SfuSim, Api) {
    start_with(Times::ENDLESS)
}

/// With the time that a test is about.
pub(crate) fn start_with(times: Times) -> (SfuSim, Api) {
    let sfu = SfuSim::start(Options { times: Some(times), ..Options::default() }).unwrap();
    let api = Api::of(&sfu);
    (sfu, api)
}

/// A publisher whose packets have come to the service.
pub(crate) fn live_publisher(sfu: &SfuSim, api: &Api) -> Publisher {
    let mut publisher = Publisher::publish(api, &Clip::chromium_720p());
    let session = publisher.session.clone();
    let flows = |sfu: &SfuSim| {
        let snapshot = sfu.snapshot();
        let info = snapshot.sessions.iter().find(|info| info.id == session).unwrap().clone();
        info.tracks.iter().all(|track| track.packets > 0)
    };
    assert!(run(&mut [&mut publisher], PATIENCE, |_| flows(sfu)));
    publisher
}

pub(crate) fn both(publisher: &Publisher) -> serde_json::Value {
    json!([remote(&publisher.session, "audio"), remote(&publisher.session, "video")])
}

/// Digests of the complete access units, in order of their timestamps.
pub(crate) fn video_digests(packets: &[&RtpPacket]) -> Vec<u64> {
    let mut packets: Vec<&&RtpPacket> = packets.iter().filter(|packet| !packet.payload.is_empty()).collect();
    packets.sort_by_key(|packet| packet.seq_no);
    let units = packets.chunk_by(|a, b| a.header.timestamp == b.header.timestamp);
    units
        .map(|unit| {
            let mut builder = AccessUnitBuilder::default();
            unit.iter().for_each(|packet| builder.push(&packet.payload));
            builder.finish().map_or(0, |units| h264::digest(units.iter().map(Vec::as_slice)))
        })
        .collect()
}

#[test]
fn what_is_published_arrives_bit_exact_at_a_subscriber_that_answers_the_offer() {
    let (sfu, api) = start();
    let mut publisher = live_publisher(&sfu, &api);
    let mut subscriber = Subscriber::pull(&api, &both(&publisher));
    let mut frames = 0;
    assert!(run(&mut [&mut publisher, &mut subscriber], PATIENCE, |_| {
        frames = sfu
            .snapshot()
            .sessions
            .iter()
            .flat_map(|session| &session.subscriptions)
            .map(|sub| sub.packets)
            .min()
            .unwrap_or(0);
        frames > 150
    }));
    let (audio, video): (Vec<&RtpPacket>, Vec<&RtpPacket>) =
        subscriber.packets.iter().partition(|packet| subscriber.is_audio(packet));

    let sent = |kind| publisher.sent.iter().filter(move |unit| unit.kind == kind).map(|unit| unit.digest);
    let sent_video: Vec<u64> = sent(TrackKind::Video).collect();
    let received = video_digests(&video);
    // The first and the last may be cut.
    let received = &received[1..received.len() - 1];
    let start = sent_video.iter().position(|digest| *digest == received[0]).unwrap();
    assert_eq!(received, &sent_video[start..start + received.len()]);

    let sent_audio: Vec<u64> = sent(TrackKind::Audio).collect();
    let received: Vec<u64> = audio
        .iter()
        .filter(|packet| !packet.payload.is_empty())
        .map(|packet| h264::digest_bytes(&packet.payload))
        .collect();
    let start = sent_audio.windows(5).position(|window| *window == received[..5]).unwrap();
    let received = &received[..received.len() - 1];
    assert_eq!(received, &sent_audio[start..start + received.len()]);
    assert_eq!(sfu.violations(), []);
}

fn subscriptions(sfu: &SfuSim) -> Vec<sfu_sim::SubscriptionInfo> {
    let sessions = sfu.snapshot().sessions;
    sessions.into_iter().flat_map(|session| session.subscriptions).collect()
}

#[test]
fn a_recvonly_offer_is_answered_at_once_and_media_flow_under_its_payload_types() {
    let (sfu, api) = start();
    let mut publisher = live_publisher(&sfu, &api);
    let mut subscriber = Subscriber::new(api.new_session());
    let offer = subscriber.offer();
    let body = json!({"sessionDescription": {"type": "offer", "sdp": offer}, "tracks": both(&publisher)});
    let (status, reply) = api.tracks_new(&subscriber.session, &body);
    assert_eq!(status, 200);
    assert_eq!(reply["requiresImmediateRenegotiation"], false);
    assert_eq!(reply["tracks"][1]["mid"], crate::peer::mid_of(&offer, "video"));
    let answer = &reply["sessionDescription"];
    assert_eq!(answer["type"], "answer");
    subscriber.accept(answer["sdp"].as_str().unwrap());
    assert!(run(&mut [&mut publisher, &mut subscriber], PATIENCE, |_| {
        subscriptions(&sfu).iter().all(|sub| sub.packets > 20)
    }));
    let mut payload_types: Vec<u8> = subscriber.packets.iter().map(|packet| *packet.header.payload_type).collect();
    payload_types.sort_unstable();
    payload_types.dedup();
    assert_eq!(payload_types, [108, 111]);
    assert_eq!(sfu.violations(), []);
}

#[test]
fn lost_packets_are_repaired_whether_or_not_the_ssrc_of_retransmissions_was_told() {
    for announce_rtx in [true, false] {
        check_repair(announce_rtx);
    }
}

fn check_repair(announce_rtx: bool) {
    let sfu = SfuSim::start(Options { announce_rtx, ..Options::default() });
    let sfu = sfu.unwrap();
    let api = Api::of(&sfu);
    let mut publisher = live_publisher(&sfu, &api);
    let mut subscriber = Subscriber::pull(&api, &json!([remote(&publisher.session, "video")]));
    assert!(run(&mut [&mut publisher, &mut subscriber], PATIENCE, |_| subscriptions(&sfu)
        .iter()
        .all(|sub| sub.packets > 10)));
    subscriber.ask_for_lost_packets();
    subscriber.drop_every = Some(10);
    assert!(run(&mut [&mut publisher, &mut subscriber], PATIENCE, |_| {
        subscriptions(&sfu).iter().all(|sub| sub.packets > 200)
    }));
    subscriber.drop_every = None;
    let dropped = subscriber.dropped;
    assert!(dropped > 10);
    let wanted = subscriptions(&sfu)[0].packets + 100;
    assert!(run(&mut [&mut publisher, &mut subscriber], PATIENCE, |_| subscriptions(&sfu)[0].packets > wanted));
    let mut numbers: Vec<u64> = subscriber.packets.iter().map(|packet| *packet.seq_no).collect();
    numbers.sort_unstable();
    // The newest 50 may still be on their way; padding is not repaired.
    let repaired = &numbers[..numbers.len() - 50];
    let missing: u64 = repaired.windows(2).map(|pair| pair[1] - pair[0] - 1).sum();
    let paddings = subscriptions(&sfu)[0].paddings;
    assert!(missing <= paddings, "{missing} of {dropped} are missing, {paddings} were padding");
    // None of it was asked of the publisher.
    assert_eq!(publisher.guest.stats().nacks, 0);
}

#[test]
fn padding_stands_between_media_and_takes_numbers() {
    let (sfu, api) = start();
    let mut publisher = live_publisher(&sfu, &api);
    let mut subscriber = Subscriber::pull(&api, &both(&publisher));
    assert!(run(&mut [&mut publisher, &mut subscriber], PATIENCE, |_| {
        subscriptions(&sfu).iter().all(|sub| sub.paddings >= 3)
    }));
    assert!(subscriber.paddings >= 4);
    for is_audio in [true, false] {
        let packets = subscriber.packets.iter().filter(|packet| subscriber.is_audio(packet) == is_audio);
        let packets: Vec<&RtpPacket> = packets.collect();
        assert!(packets.iter().filter(|packet| packet.payload.is_empty()).count() >= 2);
        assert!(packets.windows(2).all(|pair| *pair[1].seq_no == *pair[0].seq_no + 1));
    }
}

#[test]
fn keyframe_requests_reach_the_publisher_and_nothing_is_asked_unasked() {
    let (sfu, api) = start();
    let mut publisher = live_publisher(&sfu, &api);
    let mut subscriber = Subscriber::pull(&api, &both(&publisher));
    assert!(run(&mut [&mut publisher, &mut subscriber], PATIENCE, |_| {
        subscriptions(&sfu).iter().all(|sub| sub.packets > 10)
    }));
    let stats = publisher.guest.stats();
    assert_eq!((stats.plis, stats.firs), (0, 0));
    subscriber.request_keyframe(KeyframeRequestKind::Pli);
    assert!(run(&mut [&mut publisher, &mut subscriber], PATIENCE, |_| {
        subscriptions(&sfu).iter().any(|sub| sub.keyframe_requests == 1)
    }));
    run_until("a PLI", &mut publisher, &mut subscriber, |publisher, _| publisher.guest.stats().plis > 0);
    assert_eq!(publisher.guest.stats().plis, 1);
    subscriber.request_keyframe(KeyframeRequestKind::Fir);
    run_until("a FIR", &mut publisher, &mut subscriber, |publisher, _| publisher.guest.stats().firs > 0);
    assert_eq!(publisher.guest.stats().firs, 1);
}

#[test]
fn two_subscribers_of_one_publisher_get_the_same_media_under_different_numbers() {
    let (sfu, api) = start();
    let mut publisher = live_publisher(&sfu, &api);
    let tracks = json!([remote(&publisher.session, "audio")]);
    let mut subscribers = [Subscriber::pull(&api, &tracks), Subscriber::pull(&api, &tracks)];
    let [first, second] = &mut subscribers;
    assert!(run(&mut [&mut publisher, first, second], PATIENCE, |_| {
        subscriptions(&sfu).iter().all(|sub| sub.packets > 30)
    }));
    let heads = subscribers.each_ref().map(|subscriber| {
        let header = &subscriber.packets[0].header;
        (header.ssrc, header.payload_type)
    });
    assert_ne!(heads[0].0, heads[1].0);
    assert_ne!(heads[0].1, heads[1].1);
    let media = subscribers.each_ref().map(|subscriber| {
        let packets = subscriber.packets.iter().filter(|packet| !packet.payload.is_empty());
        packets.map(|packet| (packet.header.timestamp, packet.payload.clone())).collect::<Vec<_>>()
    });
    let common = media[0].iter().filter(|packet| media[1].contains(packet)).count();
    assert!(common > 20);
}

#[test]
fn sender_reports_keep_the_distance_between_audio_and_video() {
    let (sfu, api) = start();
    let mut publisher = live_publisher(&sfu, &api);
    let mut subscriber = Subscriber::pull(&api, &both(&publisher));
    // By its arrival video would be reported too late.
    publisher.video_delay = Duration::from_millis(150);
    let captured = |publisher: &Publisher, kind: TrackKind, rtp_time: u32| {
        let mut sent = publisher.sent.iter().rev();
        sent.find(|unit| unit.kind == kind && unit.rtp_time == rtp_time).map(|unit| unit.captured)
    };
    let skew = |publisher: &Publisher, subscriber: &Subscriber| {
        let [audio, video] = [true, false].map(|is_audio| {
            let mut packets = subscriber.packets.iter().rev();
            let packet =
                packets.find(|packet| subscriber.is_audio(packet) == is_audio && !packet.payload.is_empty())?;
            let kind = if is_audio { TrackKind::Audio } else { TrackKind::Video };
            let report = packet.last_sender_info?;
            let reported = i64::try_from(report.rtp_time.numer() & 0xFFFF_FFFF).unwrap();
            let ticks = i64::from(packet.header.timestamp) - reported;
            let rate = i64::from(packet.time.frequency().get());
            let since_epoch = report.ntp_time.duration_since(std::time::UNIX_EPOCH).unwrap();
            let micros = i64::try_from(since_epoch.as_micros()).unwrap() + ticks * 1_000_000 / rate;
            Some((micros, captured(publisher, kind, packet.header.timestamp)?))
        });
        let (audio, video) = (audio?, video?);
        let truth = if video.1 >= audio.1 {
            i64::try_from((video.1 - audio.1).as_micros()).unwrap()
        } else {
            -i64::try_from((audio.1 - video.1).as_micros()).unwrap()
        };
        Some(video.0 - audio.0 - truth)
    };
    run_until("reports that are off by less than 5 ms", &mut publisher, &mut subscriber, |publisher, subscriber| {
        skew(publisher, subscriber).is_some_and(|distance| distance.abs() < 5_000)
    });
}
