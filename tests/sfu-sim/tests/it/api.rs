//! The rules of the HTTP API. Statuses, codes and texts are those of Cloudflare's documentation and of third parties'
//! observations of the real service.

use std::thread;
use std::time::{Duration, Instant};

use loadgen::clip::Clip;
use serde_json::{Value, json};
use sfu_sim::{Rule, SessionInfo, Times};

use crate::media::{both, start, start_with};
use crate::peer::{Api, PATIENCE, Publisher, Subscriber, mid_of, remote, run};

/// How long a call is held where that is what a test is about.
const HOLD: Duration = Duration::from_millis(400);
const DISCONNECTED: &str = "Session appears to be disconnected. Please check if the PeerConnection is connected.";
const NOT_READY: &str =
    "Session is not ready yet. Please ensure the PeerConnection is connected before making this request";
const NOT_FOUND_TRACK: &str =
    "Track not found on remote peer. Make sure the publisher peer is connected and sending packets for this track";
const NO_TRACK_DATA: &str =
    "No track data from remote peer. Make sure the publisher peer is connected and sending packets for this track";

pub(crate) fn offer() -> String {
    Publisher::prepare(&Clip::chromium_720p(), String::new()).0.offer
}

pub(crate) fn tracks_of(offer: &str) -> Value {
    json!([
        {"location": "local", "mid": mid_of(offer, "audio"), "trackName": "audio"},
        {"location": "local", "mid": mid_of(offer, "video"), "trackName": "video"},
    ])
}

pub(crate) fn error(code: &str, description: &str) -> Value {
    json!({"errorCode": code, "errorDescription": description})
}

#[test]
fn each_refusal_has_its_status_code_and_text() {
    let (sfu, api) = start();
    let session = api.new_session();
    let offer = offer();
    let cut = offer.trim_end();
    let without_ufrag: String = offer.split_inclusive('\n').filter(|line| !line.starts_with("a=ice-ufrag")).collect();
    let described = |kind: &str, sdp: &str| json!({"type": kind, "sdp": sdp});
    let publish =
        |sdp: &str| json!({"sessionDescription": described("offer", sdp), "tracks": tracks_of(&offer)}).to_string();
    let remote_track = remote(&session, "audio");
    let mut misspelt = remote_track.clone();
    misspelt["trackname"] = "audio".into();
    let path = |rest: &str| format!("sessions/{session}/{rest}");
    let body_error = "Body JSON validation error";
    let table = [
        (
            "sessions/new with {}",
            "POST",
            "sessions/new".to_owned(),
            "{}".to_owned(),
            400,
            "decoding_error",
            "Body JSON validation error: sessionDescription",
        ),
        (
            "sessions/new with tracks alone",
            "POST",
            "sessions/new".to_owned(),
            r#"{"tracks":[]}"#.to_owned(),
            400,
            "decoding_error",
            "Body JSON validation error: sessionDescription",
        ),
        ("not JSON", "POST", path("tracks/new"), "tracks".to_owned(), 400, "decoding_error", body_error),
        (
            "a misspelt key",
            "POST",
            path("tracks/new"),
            json!({"tracks": [misspelt]}).to_string(),
            400,
            "decoding_error",
            "Body JSON validation error: trackname",
        ),
        (
            "an SDP without its final CRLF",
            "POST",
            path("tracks/new"),
            publish(cut),
            400,
            "invalid_session_description",
            "Unable to parse SDP, common issue: missing termination at the end",
        ),
        (
            "an SDP without ice-ufrag",
            "POST",
            path("tracks/new"),
            publish(&without_ufrag),
            400,
            "invalid_session_description",
            "SDP contains no ice-ufrag",
        ),
        (
            "no tracks",
            "POST",
            path("tracks/new"),
            r#"{"tracks":[]}"#.to_owned(),
            406,
            "invalid_params",
            "Expecting at least 1 track",
        ),
        (
            "an offer to renegotiate",
            "PUT",
            path("renegotiate"),
            json!({"sessionDescription": described("offer", &offer)}).to_string(),
            406,
            "invalid_params",
            "sessionDescription.type=answer is expected",
        ),
        (
            "an answer to nothing",
            "PUT",
            path("renegotiate"),
            json!({"sessionDescription": described("answer", &offer)}).to_string(),
            406,
            "invalid_params",
            "There is no offer to be answered",
        ),
        (
            "close without force",
            "PUT",
            path("tracks/close"),
            r#"{"tracks":[{"mid":"0"}]}"#.to_owned(),
            400,
            "decoding_error",
            "Body JSON validation error: force",
        ),
        (
            "close without tracks",
            "PUT",
            path("tracks/close"),
            r#"{"tracks":[],"force":true}"#.to_owned(),
            406,
            "invalid_params",
            "Expecting at least 1 track",
        ),
        ("a session's close", "PUT", path("close"), String::new(), 404, "not_found", "Not found"),
        ("a list of tracks", "GET", path("tracks"), String::new(), 404, "not_found", "Not found"),
        ("tracks/subscribe", "POST", path("tracks/subscribe"), String::new(), 404, "not_found", "Not found"),
        ("tracks/change", "PUT", path("tracks/change"), String::new(), 404, "not_found", "Not found"),
        ("a list of sessions", "GET", "sessions".to_owned(), String::new(), 404, "not_found", "Not found"),
    ];
    for (name, method, path, body, status, code, text) in table {
        let answer = api.try_call(method, &path, &body).unwrap();
        assert_eq!(answer, (status, error(code, text)), "{name}");
        assert!(!sfu.violations().is_empty(), "{name}");
        assert_eq!(sfu.violations().len(), 1, "{name}: {:?}", sfu.violations());
        forget_violations(&sfu);
    }
    let (status, body) = api.call("DELETE", &format!("sessions/{session}"), &Value::Null);
    assert_eq!((status, body), (405, "reserved for future WHIP/WHEP".into()));
    // None of it has changed the session.
    assert_eq!(api.get(&session), (200, json!({"tracks": [], "dataChannels": []})));
}

fn forget_violations(sfu: &sfu_sim::SfuSim) {
    let url = loadgen::http::Url::parse(&format!("{}/violations", sfu.control_url())).unwrap();
    let reply = loadgen::http::exchange("DELETE", &url, &[], "").unwrap();
    assert_eq!(reply.second_word(), "200");
}

#[test]
fn a_client_needs_a_user_agent_the_app_and_its_secret() {
    let (sfu, mut api) = start();
    let create = |api: &Api| api.call("POST", "sessions/new", &Value::Null);
    let good = api.headers.clone();
    for user_agent in [None, Some("")] {
        api.headers = good[1..].to_vec();
        api.headers.extend(user_agent.map(|value| ("User-Agent".to_owned(), value.to_owned())));
        assert_eq!(create(&api), (403, "error code: 1010".into()));
    }
    for secret in ["", "Bearer wrong", sfu.secret()] {
        api.headers = vec![good[0].clone(), ("Authorization".to_owned(), secret.to_owned())];
        assert_eq!(create(&api), (401, error("unauthorized", "Unauthorized")));
    }
    api.headers = good;
    let (status, body) = api.call("POST", "../other/sessions/new", &Value::Null);
    assert_eq!((status, body["errorCode"].as_str()), (404, Some("not_found")));
    assert_eq!(create(&api).0, 201);
    let rules: Vec<Rule> = sfu.violations().iter().map(|violation| violation.rule).collect();
    assert_eq!(rules[..2], [Rule::UserAgent, Rule::UserAgent]);
}

#[test]
fn a_body_above_the_bound_is_refused() {
    let (_sfu, api) = start();
    let session = api.new_session();
    let body = json!({"tracks": [], "padding": "x".repeat(300_000)});
    let (status, body) = api.tracks_new(&session, &body);
    assert_eq!((status, body["errorCode"].as_str()), (413, Some("payload_too_large")));
}

#[test]
fn the_fifty_first_call_within_a_second_is_refused() {
    // A second that lasts until the last call, however slow this machine is.
    assert_eq!(Times::REAL.rate_window, Duration::from_secs(1));
    let (sfu, api) = start_with(Times { rate_window: Duration::from_secs(3600), ..Times::ENDLESS });
    let session = api.new_session();
    let statuses: Vec<u16> = (0..60).map(|_| api.get(&session).0).collect();
    assert_eq!(statuses.iter().position(|status| *status == 429), Some(50));
    assert!(sfu.violations().iter().all(|violation| violation.rule == Rule::Rate));
    assert_eq!(sfu.violations().len(), 10);
}

#[test]
fn an_offer_in_sessions_new_is_answered_and_registers_nothing() {
    let (_sfu, api) = start_with(Times { not_ready_hold: HOLD, ..Times::ENDLESS });
    let offer = offer();
    let body = json!({"sessionDescription": {"type": "offer", "sdp": offer}, "tracks": tracks_of(&offer)});
    let (status, body) = api.call("POST", "sessions/new", &body);
    assert_eq!(status, 201);
    assert_eq!(body["sessionDescription"]["type"], "answer");
    let session = body["sessionId"].as_str().unwrap();
    assert_eq!(api.get(session).1["tracks"], json!([]));
    // Its transport is negotiated and not connected.
    let reply = api.tracks_new(session, &json!({"tracks": [remote(session, "audio")]}));
    assert_eq!(reply, (425, error("session_error", NOT_READY)));
}

#[test]
fn an_unknown_track_fails_at_once_and_one_without_packets_after_a_hold() {
    let (_sfu, api) = start_with(Times { empty_track_hold: HOLD, ..Times::ENDLESS });
    let mut publisher = Publisher::publish(&api, &Clip::chromium_720p());
    publisher.silent = true;
    let session = api.new_session();
    let failed = |track: &str, code: &str, text: &str| {
        json!({
            "requiresImmediateRenegotiation": false,
            "tracks": [{
                "sessionId": publisher.session,
                "trackName": track,
                "mid": "",
                "errorCode": code,
                "errorDescription": text,
            }],
        })
    };
    let pull = |track: &str| api.tracks_new(&session, &json!({"tracks": [remote(&publisher.session, track)]}));
    assert_eq!(pull("nobody"), (200, failed("nobody", "not_found_track_error", NOT_FOUND_TRACK)));
    let started = Instant::now();
    assert_eq!(pull("video"), (200, failed("video", "empty_track_error", NO_TRACK_DATA)));
    assert!(started.elapsed() >= HOLD);
    // Nothing is left on the session that pulled.
    assert_eq!(api.get(&session).1["tracks"], json!([]));
}

#[test]
fn a_pull_goes_on_as_soon_as_the_first_packets_come() {
    let (_sfu, api) = start();
    let mut publisher = Publisher::publish(&api, &Clip::chromium_720p());
    let tracks = both(&publisher);
    let pulling = thread::spawn(move || Subscriber::pull(&api, &tracks));
    assert!(run(&mut [&mut publisher], PATIENCE, |_| pulling.is_finished()));
    pulling.join().unwrap();
}

#[test]
fn a_second_mutation_is_refused_until_the_first_has_ended() {
    let (sfu, api) = start();
    let mut silent = Publisher::publish(&api, &Clip::chromium_720p());
    let session = api.new_session();
    let body = json!({"tracks": [remote(&silent.session, "audio")]});
    thread::scope(|scope| {
        // Held until the track's first packet.
        let held = scope.spawn(|| api.tracks_new(&session, &body));
        let is_under_way = |open: &SessionInfo| open.id == session && open.busy;
        assert!(sfu.wait(PATIENCE, |snapshot| snapshot.sessions.iter().any(is_under_way)), "tracks/new never came");
        let (status, reply) = api.close(&session, &["0"]);
        assert_eq!((status, reply["errorCode"].as_str()), (406, Some("invalid_params")));
        assert!(run(&mut [&mut silent], PATIENCE, |_| held.is_finished()), "tracks/new is held for ever");
        assert_eq!(held.join().unwrap().0, 200);
    });
    let rules: Vec<Rule> = sfu.violations().iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, [Rule::ConcurrentMutation]);
    forget_violations(&sfu);
    let mut publisher = silent;

    // An offer's exchange ends with its answer.
    let mut subscriber = Subscriber::new(api.new_session());
    let pull = || json!({"tracks": [remote(&publisher.session, "audio")]});
    let (_, reply) = api.tracks_new(&subscriber.session, &pull());
    assert_eq!(api.tracks_new(&subscriber.session, &pull()).0, 406);
    let answer = subscriber.answer(reply["sessionDescription"]["sdp"].as_str().unwrap());
    assert_eq!(api.renegotiate(&subscriber.session, "answer", &answer).0, 200);
    assert_eq!(sfu.violations().len(), 1);
    // It is not to be replayed.
    assert_eq!(api.renegotiate(&subscriber.session, "answer", &answer).0, 406);
    assert_eq!(sfu.violations()[1].rule, Rule::WrongOrder);
    assert!(run(&mut [&mut publisher, &mut subscriber], PATIENCE, |_| {
        sfu.snapshot().sessions.iter().any(|session| !session.subscriptions.is_empty() && session.connected)
    }));
}

#[test]
fn what_needs_a_connected_transport_is_held_then_refused() {
    let (_sfu, api) = start_with(Times { not_ready_hold: HOLD, ..Times::ENDLESS });
    let publisher = Publisher::publish(&api, &Clip::chromium_720p());
    let started = Instant::now();
    let reply = api.close(&publisher.session, &["0"]);
    assert_eq!(reply, (425, error("session_error", NOT_READY)));
    assert!(started.elapsed() >= HOLD);
}

#[test]
fn a_session_that_never_connects_is_gone() {
    let (sfu, api) = start_with(Times { unconnected: Duration::from_secs(3), ..Times::ENDLESS });
    let session = api.new_session();
    assert_eq!(api.get(&session).0, 200);
    assert!(sfu.wait(PATIENCE, |snapshot| snapshot.sessions.is_empty()));
    let gone = (410, error("session_error", DISCONNECTED));
    assert_eq!(api.get(&session), gone);
    assert_eq!(api.tracks_new(&session, &json!({"tracks": [remote(&session, "audio")]})), gone);
    // The service did it, not the client.
    assert_eq!(sfu.violations(), []);
    // A pull from it concerns the publisher's session.
    let mine = api.new_session();
    assert_eq!(api.tracks_new(&mine, &json!({"tracks": [remote(&session, "audio")]})), gone);
    assert_eq!(api.get(&mine).0, 200);
}
