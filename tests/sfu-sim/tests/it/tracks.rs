//! Tracks: published under names, closed, pointed elsewhere.

use std::time::Instant;

use serde_json::{Value, json};
use sfu_sim::Rule;

use crate::api::{error, offer, tracks_of};
use crate::media::{live_publisher, start};
use crate::peer::{PATIENCE, Subscriber, mid_of, remote, run};

#[test]
fn tracks_are_published_under_the_names_given_or_under_random_ones() {
    let (_sfu, api) = start();
    let session = api.new_session();
    let offer = offer();
    let (audio, video) = (mid_of(&offer, "audio"), mid_of(&offer, "video"));
    let mut tracks = tracks_of(&offer);
    tracks.as_array_mut().unwrap().extend([
        json!({"location": "local", "mid": video, "trackName": "audio"}),
        json!({"location": "local", "mid": "none", "trackName": "other"}),
    ]);
    let description = json!({"type": "offer", "sdp": offer});
    let (status, reply) = api.tracks_new(&session, &json!({"sessionDescription": description, "tracks": tracks}));
    assert_eq!(status, 200);
    let codes: Vec<Option<&str>> =
        reply["tracks"].as_array().unwrap().iter().map(|track| track["errorCode"].as_str()).collect();
    assert_eq!(codes, [None, None, Some("repeated_local_track_error"), Some("track_error")]);
    let (_, state) = api.get(&session);
    assert_eq!(
        state["tracks"],
        json!([
            {"location": "local", "mid": audio, "trackName": "audio", "status": "active"},
            {"location": "local", "mid": video, "trackName": "video", "status": "active"},
        ])
    );

    let session = api.new_session();
    let (status, reply) = api.tracks_new(&session, &json!({"sessionDescription": description, "autoDiscover": true}));
    assert_eq!(status, 200);
    let mut mids: Vec<&str> =
        reply["tracks"].as_array().unwrap().iter().map(|track| track["mid"].as_str().unwrap()).collect();
    mids.sort_unstable();
    let mut expected = [audio, video];
    expected.sort_unstable();
    assert_eq!(mids, expected);
    assert_ne!(reply["tracks"][0]["trackName"], reply["tracks"][1]["trackName"]);
}

#[test]
fn closed_tracks_are_inactive_and_their_session_counts_as_left() {
    let (sfu, api) = start();
    let mut publisher = live_publisher(&sfu, &api);
    let mids = [mid_of(&publisher.offer, "audio"), mid_of(&publisher.offer, "video")];
    let mids: Vec<&str> = mids.iter().map(String::as_str).collect();
    let good = json!({"requiresImmediateRenegotiation": false, "tracks": [{"mid": mids[0]}]});
    assert_eq!(api.close(&publisher.session, &mids[..1]), (200, good));
    let (status, reply) = api.close(&publisher.session, &mids);
    assert_eq!(status, 200);
    let gone = error("close_track_error", "Track doesn't exist or was already closed");
    assert_eq!(reply["tracks"][0]["errorCode"], gone["errorCode"]);
    assert_eq!(reply["tracks"][0]["errorDescription"], gone["errorDescription"]);
    assert_eq!(reply["tracks"][1], json!({"mid": mids[1]}));
    let (_, state) = api.get(&publisher.session);
    assert!(state["tracks"].as_array().unwrap().iter().all(|track| track["status"] == "inactive"));
    assert_eq!(sfu.snapshot().sessions, []);

    // A call after its end is the client's mistake.
    publisher.guest.close(Instant::now());
    let ended = |sfu: &sfu_sim::SfuSim| !sfu.snapshot().ended.is_empty();
    assert!(run(&mut [&mut publisher], PATIENCE, |_| ended(&sfu)));
    assert_eq!(sfu.violations(), []);
    assert_eq!(api.close(&publisher.session, &mids).0, 410);
    assert_eq!(sfu.violations(), [], "whoever closes a browser's tracks cannot know that it has just left");
    let pull = json!({"tracks": [{"location": "remote", "sessionId": publisher.session, "trackName": "audio"}]});
    assert_eq!(api.call("POST", &format!("sessions/{}/tracks/new", publisher.session), &pull).0, 410);
    assert_eq!(sfu.violations()[0].rule, Rule::CallAfterClose);
}

#[test]
fn a_negotiated_close_of_the_last_section_ends_the_transport() {
    let (sfu, api) = start();
    let publisher = live_publisher(&sfu, &api);
    let mids = [mid_of(&publisher.offer, "audio"), mid_of(&publisher.offer, "video")];
    let tracks: Vec<Value> = mids.iter().map(|mid| json!({"mid": mid})).collect();
    let path = format!("sessions/{}/tracks/close", publisher.session);
    let mut body = json!({"tracks": tracks, "force": false});
    assert_eq!(api.call("PUT", &path, &body).0, 400);
    body["sessionDescription"] = json!({"type": "offer", "sdp": publisher.offer});
    let (status, reply) = api.call("PUT", &path, &body);
    assert_eq!(status, 200);
    assert_eq!(reply["sessionDescription"]["type"], "answer");
    assert_eq!(api.get(&publisher.session).0, 410);
}

#[test]
fn a_transceiver_can_be_pointed_at_another_publisher() {
    let (sfu, api) = start();
    let mut first = live_publisher(&sfu, &api);
    let mut second = live_publisher(&sfu, &api);
    let mut subscriber = Subscriber::pull(&api, &json!([remote(&first.session, "video")]));
    assert!(run(&mut [&mut first, &mut second, &mut subscriber], PATIENCE, |_| {
        sfu.snapshot().sessions.iter().flat_map(|session| &session.subscriptions).any(|sub| sub.packets > 10)
    }));
    let path = format!("sessions/{}/tracks/update", subscriber.session);
    let mut item = remote(&second.session, "video");
    item["mid"] = "0".into();
    let (status, reply) = api.call("PUT", &path, &json!({"tracks": [item]}));
    assert_eq!((status, &reply["tracks"][0]["errorCode"]), (200, &Value::Null));
    let before = subscriber.packets.len();
    assert!(run(&mut [&mut second, &mut subscriber], PATIENCE, |_| {
        let snapshot = sfu.snapshot();
        let mut subscriptions = snapshot.sessions.iter().flat_map(|session| &session.subscriptions);
        subscriptions.any(|sub| sub.session == second_session(&item) && sub.packets > 100)
    }));
    assert!(subscriber.packets.len() > before + 20);
    // One SSRC, and numbers without a gap.
    let numbers: Vec<u64> = subscriber.packets.iter().map(|packet| *packet.seq_no).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

fn second_session(item: &Value) -> &str {
    item["sessionId"].as_str().unwrap()
}
