//! Faults on demand.

use std::time::{Duration, Instant};

use loadgen::clip::Clip;
use loadgen::http::{self, Url};
use loadgen::patience::Deadline;
use serde_json::{Value, json};
use sfu_sim::{EndReason, Endpoint, Fault, Rule, SfuSim, Times};

use crate::media::{both, live_publisher, start, start_with};
use crate::peer::{Api, PATIENCE, Publisher, Subscriber, remote, run};

fn create(api: &Api) -> u16 {
    api.call("POST", "sessions/new", &Value::Null).0
}

#[test]
fn calls_fail_one_in_n_or_the_next_ones_or_all_until_it_is_over() {
    let (sfu, api) = start();
    let statuses = |count| -> Vec<u16> { (0..count).map(|_| create(&api)).collect() };
    sfu.inject(Fault::FailOneIn { n: 3 });
    assert_eq!(statuses(6), [201, 201, 500, 201, 201, 500]);
    sfu.clear_faults();
    sfu.inject(Fault::Fail { calls: 2, endpoint: Some(Endpoint::SessionsNew) });
    let session = "0".repeat(32);
    assert_eq!(api.get(&session).0, 404);
    assert_eq!(statuses(3), [500, 500, 201]);
    sfu.inject(Fault::TooManyRequests { calls: 1, endpoint: None });
    assert_eq!(statuses(2), [429, 201]);
    sfu.inject(Fault::WrongSecret);
    assert_eq!(statuses(2), [401, 401]);
    sfu.clear_faults();
    sfu.inject(Fault::UnknownApp);
    assert_eq!(statuses(1), [404]);
    sfu.clear_faults();
    sfu.inject(Fault::NoService);
    assert!(api.try_call("POST", "sessions/new", "").is_err());
    sfu.clear_faults();
    assert_eq!(statuses(1), [201]);
    let counted = sfu.snapshot().calls["POST sessions/new"];
    assert_eq!((counted.total, counted.failed), (15, 8));
    assert_eq!(sfu.violations(), []);
}

#[test]
fn a_call_whose_reply_is_lost_was_carried_out() {
    let (sfu, api) = start_with(Times { not_ready_hold: Duration::from_millis(400), ..Times::ENDLESS });
    sfu.inject(Fault::LoseReply { calls: 1, endpoint: Some(Endpoint::SessionsNew) });
    assert!(api.try_call("POST", "sessions/new", "").is_err());
    let orphan = sfu.snapshot().sessions[0].clone();
    assert!(orphan.reply_lost);

    let session = api.new_session();
    let (publisher, tracks) = Publisher::prepare(&Clip::chromium_720p(), session.clone());
    let body = json!({"sessionDescription": {"type": "offer", "sdp": publisher.offer}, "tracks": tracks});
    sfu.inject(Fault::LoseReply { calls: 1, endpoint: Some(Endpoint::TracksNew) });
    assert!(api.try_call("POST", &format!("sessions/{session}/tracks/new"), &body.to_string()).is_err());
    assert_eq!(api.get(&session).1["tracks"].as_array().unwrap().len(), 2);
    assert_eq!(sfu.violations(), []);
    // Such a session is to be thrown away.
    api.tracks_new(&session, &body);
    assert_eq!(sfu.violations()[0].rule, Rule::ReusedAfterLostReply);
}

#[test]
fn replies_come_late_or_calls_hang() {
    let hang = Duration::from_millis(1500);
    let (sfu, api) = start_with(Times { hang, ..Times::ENDLESS });
    let session = api.new_session();
    let started = Instant::now();
    sfu.inject(Fault::SlowReply { calls: 1, endpoint: None, milliseconds: 150 });
    assert_eq!(api.get(&session).0, 200);
    assert!(started.elapsed() >= Duration::from_millis(150));
    let started = Instant::now();
    sfu.inject(Fault::HangUnknownSession);
    assert_eq!(api.get(&"0".repeat(32)).0, 404);
    assert!(started.elapsed() >= hang);
    sfu.clear_faults();
    for fault in [None, Some(Endpoint::SessionsNew)] {
        sfu.inject(Fault::Hang { calls: 1, endpoint: fault });
        let started = Instant::now();
        assert_eq!(create(&api), 201);
        assert!(started.elapsed() >= hang);
    }
}

#[test]
fn a_session_may_die_while_a_call_hangs() {
    let (unconnected, hang) = (Duration::from_secs(2), Duration::from_secs(3));
    let (sfu, api) = start_with(Times { unconnected, hang, ..Times::ENDLESS });
    let session = api.new_session();
    sfu.inject(Fault::Hang { calls: 1, endpoint: Some(Endpoint::TracksClose) });
    assert_eq!(api.close(&session, &["0"]).0, 410);
    let snapshot = sfu.snapshot();
    assert_eq!(snapshot.faults[0].hits["PUT tracks/close"], 1);
    assert_eq!((&snapshot.ended[0].id, snapshot.ended[0].reason), (&session, EndReason::NeverConnected));
}

#[test]
fn one_join_in_n_never_connects() {
    let (sfu, api) = start_with(Times { unconnected: Duration::from_secs(5), ..Times::ENDLESS });
    sfu.inject(Fault::NeverConnectOneIn { n: 2 });
    let mut publishers: Vec<Publisher> = (0..2).map(|_| Publisher::publish(&api, &Clip::chromium_720p())).collect();
    let [first, second] = publishers.as_mut_slice() else { unreachable!() };
    assert!(run(&mut [first, second], PATIENCE, |_| !sfu.snapshot().ended.is_empty()));
    let ended = &sfu.snapshot().ended;
    assert_eq!((ended.len(), &ended[0].id, ended[0].reason), (1, &publishers[1].session, EndReason::NeverConnected));
    assert!(publishers[0].guest.is_connected() && !publishers[1].guest.is_connected());
}

#[test]
fn of_a_mixed_result_the_good_track_is_kept_and_the_other_pulled_again() {
    let (sfu, api) = start();
    let mut publisher = live_publisher(&sfu, &api);
    sfu.inject(Fault::MixedResult { calls: 1 });
    let mut subscriber = Subscriber::new(api.new_session());
    let reply = subscriber.pull_more(&api, &both(&publisher));
    assert_eq!(reply["tracks"][0]["mid"], "0");
    assert_eq!(reply["tracks"][1]["mid"], "");
    assert_eq!(reply["tracks"][1]["errorCode"], "internal_error");
    let connected = |sfu: &SfuSim| sfu.snapshot().sessions.iter().all(|session| session.connected);
    assert!(run(&mut [&mut publisher, &mut subscriber], PATIENCE, |_| connected(&sfu)));
    let reply = subscriber.pull_more(&api, &json!([remote(&publisher.session, "video")]));
    assert_eq!(reply["tracks"][0]["mid"], "1");
    assert!(run(&mut [&mut publisher, &mut subscriber], PATIENCE, |_| {
        let snapshot = sfu.snapshot();
        let subscriptions: Vec<_> = snapshot.sessions.iter().flat_map(|session| &session.subscriptions).collect();
        subscriptions.len() == 2 && subscriptions.iter().all(|sub| sub.packets > 10)
    }));
    assert_eq!(sfu.violations(), []);
}

#[test]
fn stopped_media_flow_again_and_a_killed_session_is_gone() {
    let (sfu, api) = start();
    let mut publisher = live_publisher(&sfu, &api);
    let session = publisher.session.clone();
    let mut subscriber = Subscriber::pull(&api, &both(&publisher));
    let packets = |sfu: &SfuSim| -> u64 {
        let snapshot = sfu.snapshot();
        let subscriptions = snapshot.sessions.iter().flat_map(|session| &session.subscriptions);
        subscriptions.map(|sub| sub.packets).min().unwrap()
    };
    assert!(run(&mut [&mut publisher, &mut subscriber], PATIENCE, |_| packets(&sfu) > 0));
    sfu.inject(Fault::StopMedia { session: session.clone(), track: None });
    let (stopped, frames) = (packets(&sfu), publisher.guest.stats().audio_frames);
    let more = |publisher: &Publisher| publisher.guest.stats().audio_frames > frames + 10;
    let deadline = Deadline::new("sound to be sent");
    while !more(&publisher) {
        deadline.check(|| format!("{:?}", publisher.guest.stats()));
        run(&mut [&mut publisher, &mut subscriber], Duration::from_millis(20), |_| false);
    }
    assert_eq!(packets(&sfu), stopped);
    sfu.inject(Fault::ResumeMedia { session: session.clone() });
    assert!(run(&mut [&mut publisher, &mut subscriber], PATIENCE, |_| packets(&sfu) > stopped));

    sfu.inject(Fault::KillSession { session: session.clone() });
    assert_eq!(api.get(&session).0, 410);
    assert_eq!(sfu.snapshot().ended[0].reason, EndReason::Killed);
    assert!(publisher.guest.is_alive());
}

#[test]
fn the_control_endpoint_takes_faults_as_json() {
    let (sfu, api) = start();
    let control = |method: &str, path: &str, body: &str| {
        let url = Url::parse(&format!("{}{path}", sfu.control_url())).unwrap();
        let reply = http::exchange(method, &url, &[], body).unwrap();
        (reply.second_word().to_owned(), serde_json::from_str::<Value>(&reply.body).unwrap())
    };
    let fault = r#"{"fault":"fail","calls":1,"endpoint":"sessions_new"}"#;
    assert_eq!(control("POST", "", fault), ("200".to_owned(), json!({})));
    assert_eq!(create(&api), 500);
    assert_eq!(create(&api), 201);
    assert_eq!(control("POST", "", r#"{"fault":"earthquake"}"#).0, "400");
    let (_, snapshot) = control("GET", "/sessions", "");
    assert_eq!(snapshot["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(snapshot["calls"]["POST sessions/new"], json!({"total": 2, "failed": 1}));
}

#[test]
fn each_fault_tells_which_calls_met_it() {
    let (sfu, api) = start();
    let publisher = live_publisher(&sfu, &api);
    let hits = || -> Vec<Vec<(String, u64)>> {
        sfu.snapshot().faults.into_iter().map(|on| on.hits.into_iter().collect()).collect()
    };
    sfu.inject(Fault::FailOneIn { n: 2 });
    sfu.inject(Fault::Hang { calls: 1, endpoint: Some(Endpoint::Renegotiate) });
    sfu.inject(Fault::NeverConnectOneIn { n: 2 });
    sfu.inject(Fault::MixedResult { calls: 2 });
    let session = api.new_session();
    assert_eq!(create(&api), 500);
    api.new_session();
    assert_eq!(api.get(&session).0, 500);
    let hit = |name: &str, times| vec![(name.to_owned(), times)];
    let failed = vec![("GET session".to_owned(), 1), ("POST sessions/new".to_owned(), 1)];
    assert_eq!(hits(), [failed, vec![], hit("POST sessions/new", 1), vec![]]);
    sfu.clear_faults();
    assert!(hits().is_empty());

    // A fault of a pull leaves a publication alone, one of tracks/new does not.
    sfu.inject(Fault::Fail { calls: 1, endpoint: Some(Endpoint::Pull) });
    sfu.inject(Fault::MixedResult { calls: 1 });
    let another = Publisher::publish(&api, &Clip::chromium_720p());
    assert_eq!(hits(), [vec![], vec![]]);
    let body = json!({"tracks": both(&publisher)});
    let session = api.new_session();
    assert_eq!(api.tracks_new(&session, &body).0, 500);
    assert_eq!(api.tracks_new(&session, &body).0, 200);
    assert_eq!(hits(), [hit("POST tracks/new", 1), hit("POST tracks/new", 1)]);
    drop(another);
}
