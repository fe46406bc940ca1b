//! Media through the service.

use loadgen::clip::{Clip, TrackKind};
use loadgen::h264::{self, AccessUnitBuilder};
use serde_json::json;
use sfu_sim::{Options, SfuSim};
use str0m::rtp::RtpPacket;

use crate::peer::{Api, PATIENCE, Publisher, Subscriber, remote, run};

pub(crate) fn start() -> (SfuSim, Api) {
    let sfu = SfuSim::start(Options {
        speed: 20.0,
        ..Options::default()
    });
    let sfu = sfu.unwrap();
    let api = Api::of(&sfu);
    (sfu, api)
}

/// A publisher whose packets have come to the service.
pub(crate) fn live_publisher(sfu: &SfuSim, api: &Api) -> Publisher {
    let mut publisher = Publisher::publish(api, &Clip::chromium_720p());
    let session = publisher.session.clone();
    let flows = |sfu: &SfuSim| {
        let snapshot = sfu.snapshot();
        let info = snapshot
            .sessions
            .iter()
            .find(|info| info.id == session)
            .unwrap()
            .clone();
        info.tracks.iter().all(|track| track.packets > 0)
    };
    assert!(run(&mut [&mut publisher], PATIENCE, |_| flows(sfu)));
    publisher
}

pub(crate) fn both(publisher: &Publisher) -> serde_json::Value {
    json!([
        remote(&publisher.session, "audio"),
        remote(&publisher.session, "video")
    ])
}

/// Digests of the complete access units, in order of their timestamps.
pub(crate) fn video_digests(packets: &[&RtpPacket]) -> Vec<u64> {
    let mut packets: Vec<&&RtpPacket> = packets
        .iter()
        .filter(|packet| !packet.payload.is_empty())
        .collect();
    packets.sort_by_key(|packet| packet.seq_no);
    let units = packets.chunk_by(|a, b| a.header.timestamp == b.header.timestamp);
    units
        .map(|unit| {
            let mut builder = AccessUnitBuilder::default();
            unit.iter().for_each(|packet| builder.push(&packet.payload));
            builder
                .finish()
                .map_or(0, |units| h264::digest(units.iter().map(Vec::as_slice)))
        })
        .collect()
}

#[test]
fn what_is_published_arrives_bit_exact_at_a_subscriber_that_answers_the_offer() {
    let (sfu, api) = start();
    let mut publisher = live_publisher(&sfu, &api);
    let mut subscriber = Subscriber::pull(&api, &both(&publisher));
    let mut frames = 0;
    assert!(run(
        &mut [&mut publisher, &mut subscriber],
        PATIENCE,
        |_| {
            frames = sfu
                .snapshot()
                .sessions
                .iter()
                .flat_map(|session| &session.subscriptions)
                .map(|sub| sub.packets)
                .min()
                .unwrap_or(0);
            frames > 150
        }
    ));
    let (audio, video): (Vec<&RtpPacket>, Vec<&RtpPacket>) = subscriber
        .packets
        .iter()
        .partition(|packet| subscriber.is_audio(packet));

    let sent = |kind| {
        publisher
            .sent
            .iter()
            .filter(move |unit| unit.kind == kind)
            .map(|unit| unit.digest)
    };
    let sent_video: Vec<u64> = sent(TrackKind::Video).collect();
    let received = video_digests(&video);
    // The first and the last may be cut.
    let received = &received[1..received.len() - 1];
    let start = sent_video
        .iter()
        .position(|digest| *digest == received[0])
        .unwrap();
    assert_eq!(received, &sent_video[start..start + received.len()]);

    let sent_audio: Vec<u64> = sent(TrackKind::Audio).collect();
    let received: Vec<u64> = audio
        .iter()
        .filter(|packet| !packet.payload.is_empty())
        .map(|packet| h264::digest_bytes(&packet.payload))
        .collect();
    let start = sent_audio
        .windows(5)
        .position(|window| *window == received[..5])
        .unwrap();
    let received = &received[..received.len() - 1];
    assert_eq!(received, &sent_audio[start..start + received.len()]);
    assert_eq!(sfu.violations(), []);
}
