//! When sessions and tracks end.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use loadgen::clip::{Clip, TrackKind};
use loadgen::patience::Deadline;
use serde_json::json;
use sfu_sim::{EndReason, Rule, SfuSim, Times, TrackStatus};

use crate::media::{both, live_publisher, start, start_with};
use crate::peer::{PATIENCE, Publisher, Subscriber, mid_of, remote, run, run_until};

#[test]
fn a_track_without_packets_is_collected_with_its_subscriptions() {
    let (sfu, api) = start_with(Times { track_idle: Duration::from_secs(3), ..Times::ENDLESS });
    let mut publisher = live_publisher(&sfu, &api);
    let mut subscriber = Subscriber::pull(&api, &both(&publisher));
    publisher.guest.replay_mut().unwrap().pause(TrackKind::Video);
    let ended = |sfu: &SfuSim| {
        let snapshot = sfu.snapshot();
        let mut subscriptions = snapshot.sessions.iter().flat_map(|session| session.subscriptions.clone());
        subscriptions.any(|sub| sub.status == TrackStatus::Ended)
    };
    assert!(run(&mut [&mut publisher, &mut subscriber], PATIENCE, |_| ended(&sfu)));
    let snapshot = sfu.snapshot();
    let statuses = |session: &str| -> Vec<(String, TrackStatus)> {
        let info = snapshot.sessions.iter().find(|info| info.id == session).unwrap();
        let tracks = info.tracks.iter().map(|track| (track.name.clone(), track.status));
        tracks.chain(info.subscriptions.iter().map(|sub| (sub.track.clone(), sub.status))).collect()
    };
    let expected = [("audio".to_owned(), TrackStatus::Active), ("video".to_owned(), TrackStatus::Ended)];
    assert_eq!(statuses(&publisher.session), expected);
    assert_eq!(statuses(&subscriber.session), expected);
    // It is not there any more for others either.
    let (_, reply) = api.tracks_new(&api.new_session(), &json!({"tracks": [remote(&publisher.session, "video")]}));
    assert_eq!(reply["tracks"][0]["errorCode"], "not_found_track_error");
    // A later pull of the whole gets the rest.
    let (_, reply) = api.tracks_new(&api.new_session(), &json!({"tracks": both(&publisher)}));
    assert_eq!(reply["tracks"][0]["mid"], "0");
    assert_eq!(reply["tracks"][1]["mid"], "");
}

#[test]
fn sessions_leave_with_their_peer() {
    let (sfu, api) = start();
    let mut publisher = live_publisher(&sfu, &api);
    let mut subscriber = Subscriber::pull(&api, &both(&publisher));
    // Only who has media has ended the handshake as well.
    run_until("media", &mut publisher, &mut subscriber, |_, subscriber| !subscriber.packets.is_empty());
    subscriber.close();
    assert!(run(&mut [&mut publisher], PATIENCE, |_| sfu.snapshot().sessions.len() == 1));
    publisher.guest.close(Instant::now());
    assert!(run(&mut [&mut publisher], PATIENCE, |_| sfu.snapshot().sessions.is_empty()));
    let reasons: Vec<EndReason> = sfu.snapshot().ended.iter().map(|ended| ended.reason).collect();
    assert_eq!(reasons, [EndReason::PeerClosed, EndReason::PeerClosed]);
    assert_eq!(sfu.violations(), []);
}

#[test]
fn a_session_that_is_not_heard_of_any_more_is_gone() {
    let (sfu, api) = start_with(Times { connectivity: Duration::from_secs(2), ..Times::ENDLESS });
    let mut publisher = live_publisher(&sfu, &api);
    assert_eq!(api.get(&publisher.session).0, 200);
    publisher.silent = true;
    assert!(run(&mut [&mut publisher], PATIENCE, |_| sfu.snapshot().sessions.is_empty()));
    assert_eq!(sfu.snapshot().ended[0].reason, EndReason::ConnectivityLost);
    assert_eq!(api.get(&publisher.session).0, 410);
}

#[test]
fn a_mid_that_was_force_closed_never_has_data_again() {
    let (sfu, api) = start_with(Times { empty_track_hold: Duration::from_millis(400), ..Times::ENDLESS });
    let mut publisher = live_publisher(&sfu, &api);
    let mid = mid_of(&publisher.offer, "video");
    assert_eq!(api.close(&publisher.session, &[&mid]).0, 200);
    let body = json!({
        "sessionDescription": {"type": "offer", "sdp": publisher.offer},
        "tracks": [{"location": "local", "mid": mid, "trackName": "video-2"}],
    });
    let (status, reply) = api.tracks_new(&publisher.session, &body);
    assert_eq!((status, &reply["tracks"][0]["errorCode"]), (200, &serde_json::Value::Null));
    let wanted = publisher.guest.stats().video_frames + 10;
    let deadline = Deadline::new(format!("{wanted} pictures to be sent"));
    while publisher.guest.stats().video_frames < wanted {
        deadline.check(|| format!("{:?}", publisher.guest.stats()));
        run(&mut [&mut publisher], Duration::from_millis(10), |_| false);
    }
    let (_, reply) = api.tracks_new(&api.new_session(), &json!({"tracks": [remote(&publisher.session, "video-2")]}));
    assert_eq!(reply["tracks"][0]["errorCode"], "empty_track_error");
}

#[test]
fn two_live_sessions_behind_one_address_are_noticed() {
    let (sfu, api) = start();
    let shared = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    shared.set_nonblocking(true).unwrap();
    let mut publisher = live_publisher(&sfu, &api);
    let pull = || {
        let mut subscriber = Subscriber::behind(shared.try_clone().unwrap(), api.new_session());
        subscriber.pull_more(&api, &json!([remote(&publisher.session, "audio")]));
        subscriber
    };
    let (mut first, mut second) = (pull(), pull());
    assert!(run(&mut [&mut publisher, &mut first, &mut second], PATIENCE, |_| !sfu.violations().is_empty()));
    assert_eq!(sfu.violations()[0].rule, Rule::SharedAddress);
}

#[test]
fn a_clip_with_sound_alone_can_be_published() {
    let (sfu, api) = start();
    let clip = std::sync::Arc::new(Clip::chromium_720p().only(TrackKind::Audio));
    let mut publisher = Publisher::new(&clip, api.new_session());
    let body = json!({"sessionDescription": {"type": "offer", "sdp": publisher.offer}, "autoDiscover": true});
    let (_, reply) = api.tracks_new(&publisher.session, &body);
    publisher.accept(reply["sessionDescription"]["sdp"].as_str().unwrap());
    assert!(run(&mut [&mut publisher], PATIENCE, |_| {
        sfu.snapshot().sessions[0].tracks.iter().any(|track| track.packets > 0)
    }));
}
