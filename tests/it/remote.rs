//! The path through the SFU with real processes and sockets: a str0m publisher → the daemon's WHIP proxy → the simulated
//! SFU → the daemon's pull → a strict RTMP ingest.

mod faults;
mod hostile;
mod nearby;
mod page;
mod secrets;
mod several;
mod studio;

use std::time::Duration;

use guest_relay_muxer::Still;
use ingest::{Connection, Ingest, Kind, Options};
use loadgen::clip::Clip;
use loadgen::http;
use loadgen::patience::{PATIENCE, Stopwatch, wait_for};
use loadgen::publisher::{PublishError, Publisher};
use sfu_sim::{Fault, SfuSim};

use crate::daemon::{Daemon, Setup};
use crate::direct::assert_fragments_are_checked;

/// From the crash of the daemon to the first picture at the mixer.
const WITHIN_AFTER_CRASH: Duration = Duration::from_secs(5);

fn daemon(ingest: &Ingest, sfu: &SfuSim) -> Daemon {
    let further = format!(
        "cloudflare: {{calls_app_id: '{}', calls_api_token: '{}', api_base: '{}'}}\n",
        sfu.app_id(),
        sfu.secret(),
        sfu.api_base()
    );
    Daemon::start(&format!("rtmp://{}/{{guest_id}}", ingest.addr()), &further)
}

fn pictures(connection: &Connection) -> u64 {
    connection.video.as_ref().map_or(0, |track| track.frames)
}

#[test]
fn a_remote_guest_whom_a_reload_takes_out_of_the_configuration_stays_until_the_older_call_ends_it() {
    let ingest = Ingest::bind("127.0.0.1:0", Options { keep_frames: false, ..Options::default() }).unwrap();
    let sfu = SfuSim::start(sfu_sim::Options { speed: 10.0, ..sfu_sim::Options::default() }).unwrap();
    let daemon = daemon(&ingest, &sfu);
    let publisher = Publisher::connect(&whip_url(&daemon), &Clip::chromium_360p()).unwrap();
    daemon.wait_for_state("guest1", "live");
    daemon.rewrite_config(|text| text + "guests: {guest2: {}}\n");
    daemon.signal("HUP");
    daemon.wait_for_log("configuration reloaded; guests: guest1, guest2");
    let seen = ingest.path("guest1").map_or(0, |connection| pictures(&connection));
    assert!(ingest.wait_until(PATIENCE, |paths| paths.iter().any(|path| pictures(path) >= seen + 60)));
    assert!(publisher.is_alive());
    assert_eq!((daemon.guest("guest1")["state"].clone(), ingest.inspect(<[_]>::len)), ("live".into(), 1));
    let session = http::Url::parse(&format!("http://{}/api/calls/session/guest1", daemon.http)).unwrap();
    let closed = http::exchange("DELETE", &session, &[], "").unwrap();
    assert_eq!(closed.body, "{\"status\":\"closed\",\"guest_id\":\"guest1\"}");
    drop(publisher);
    assert!(sfu.wait(PATIENCE, |snapshot| snapshot.sessions.is_empty()), "{:?}\n{}", sfu.snapshot(), daemon.log());
}

#[test]
fn a_remote_guest_comes_back_from_the_sfu_and_leaves_nothing_there() {
    let ingest = Ingest::bind("127.0.0.1:0", Options { keep_frames: true, ..Options::default() }).unwrap();
    let sfu = SfuSim::start(sfu_sim::Options { speed: 10.0, ..sfu_sim::Options::default() }).unwrap();
    let daemon = daemon(&ingest, &sfu);
    let publisher = Publisher::connect(&whip_url(&daemon), &Clip::chromium_720p()).unwrap();
    assert!(
        ingest.wait_until(PATIENCE, |paths| paths.iter().any(|path| pictures(path) >= 60)),
        "no pictures:\n{}\n{:?}",
        daemon.log(),
        sfu.snapshot()
    );
    daemon.wait_for_state("guest1", "live");
    let guest = daemon.guest("guest1");
    assert_eq!((&guest["path"], &guest["width"]), (&"calls".into(), &1280.into()), "{guest}");
    let connection = ingest.path("guest1").unwrap();
    assert_eq!(connection.violations, Vec::<String>::new());
    assert!(connection.audio.unwrap().frames > 50);
    publisher.stop().unwrap();
    assert!(sfu.wait(PATIENCE, |snapshot| snapshot.sessions.is_empty()), "{:?}\n{}", sfu.snapshot(), daemon.log());
    assert!(sfu.violations().is_empty(), "{:?}", sfu.violations());
    assert!(!daemon.log().contains(sfu.secret()), "the app's secret stands in the log");
}

#[test]
fn a_remote_guest_who_is_removed_is_not_shown_any_more_in_the_same_publication() {
    let ingest =
        Ingest::bind("127.0.0.1:0", Options { keep_frames: true, keep_bodies: true, ..Options::default() }).unwrap();
    let sfu = SfuSim::start(sfu_sim::Options { speed: 10.0, ..sfu_sim::Options::default() }).unwrap();
    let sections = format!(
        "cloudflare: {{calls_app_id: '{}', calls_api_token: '{}', api_base: '{}'}}\n",
        sfu.app_id(),
        sfu.secret(),
        sfu.api_base()
    );
    let environment = &[("GUEST_RELAY_RELAY_IDLE", "slate")];
    let setup = Setup { sections: &sections, environment, ..Setup::default() };
    let daemon = Daemon::start_with(&format!("rtmp://{}/{{guest_id}}", ingest.addr()), setup);
    let _publisher = Publisher::connect(&whip_url(&daemon), &Clip::chromium_360p()).unwrap();
    daemon.wait_for_state("guest1", "live");
    let black = Still::black();
    // Whether each picture is nobody's, in order.
    let shown = || -> Vec<bool> {
        let frames = ingest.path("guest1").map(|connection| connection.frames).unwrap_or_default();
        frames.iter().filter(|frame| frame.kind == Kind::Video).map(|frame| frame.body == black.body()).collect()
    };
    wait_for("the guest's pictures", || shown().last() == Some(&false), || daemon.log());
    let session = http::Url::parse(&format!("http://{}/api/calls/session/guest1", daemon.http)).unwrap();
    http::exchange("DELETE", &session, &[], "").unwrap();
    wait_for("three pictures of nobody", || shown().ends_with(&[true; 3]), || format!("{:?}", shown()));
    let shown = shown();
    let guest_ends = shown.iter().rposition(|is_black| !is_black).unwrap();
    assert!(shown[guest_ends + 1..].iter().all(|is_black| *is_black));
    let connections = ingest.connections();
    let of_guest = connections.iter().filter(|connection| connection.path.as_deref() == Some("guest1"));
    assert_eq!(of_guest.count(), 1);
    daemon.wait_for_state("guest1", "absent");
}

/// A guest who has just got the answer.
fn joined() -> (Ingest, SfuSim, Daemon, Publisher) {
    let ingest = Ingest::bind("127.0.0.1:0", Options::default()).unwrap();
    let sfu = SfuSim::start(sfu_sim::Options::default()).unwrap();
    let daemon = daemon(&ingest, &sfu);
    let publisher = Publisher::connect(&whip_url(&daemon), &Clip::chromium_360p()).unwrap();
    (ingest, sfu, daemon, publisher)
}

fn whip_url(daemon: &Daemon) -> String {
    format!("http://{}/api/calls/whip/guest1", daemon.http)
}

fn sessions(daemon: &Daemon) -> serde_json::Value {
    let reply: serde_json::Value = serde_json::from_str(&daemon.get("/api/calls/sessions")).unwrap();
    reply["sessions"].clone()
}

#[test]
fn after_a_crash_of_the_daemon_the_guest_is_pulled_again_without_doing_anything() {
    let (ingest, sfu, mut daemon, publisher) = joined();
    daemon.wait_for_state("guest1", "live");
    let before = sessions(&daemon);
    assert!(before["guest1"].is_string(), "{before}");
    let crashed = Stopwatch::start();
    daemon.crash_and_restart();
    let is_back = |all: &[Connection]| all.len() == 2 && pictures(&all[1]) > 0;
    assert!(ingest.wait_until(PATIENCE, is_back), "{:?}\n{}", ingest.connections(), daemon.log());
    println!("pictures {:.1?} after the crash", crashed.elapsed());
    assert!(crashed.elapsed() <= WITHIN_AFTER_CRASH, "{:?}", crashed.elapsed());
    daemon.wait_for_state("guest1", "live");
    assert_eq!(sessions(&daemon), before);
    assert!(publisher.is_alive());
    let connections = ingest.connections();
    assert_eq!(connections.len(), 2);
    assert!(connections.iter().all(|connection| connection.violations.is_empty()));
    assert!(sfu.violations().is_empty(), "{:?}", sfu.violations());
}

#[test]
fn a_guest_who_has_just_got_the_answer_survives_a_crash_too() {
    let (ingest, _sfu, mut daemon, publisher) = joined();
    daemon.crash_and_restart();
    daemon.wait_for_state("guest1", "live");
    let resource = publisher.session().path.rsplit('/').next().unwrap();
    assert!(daemon.state_file().contains(resource), "{}", daemon.state_file());
    assert!(ingest.wait_until(PATIENCE, |all| all.iter().any(|connection| pictures(connection) > 0)));
}

#[test]
fn a_restart_of_ice_at_the_sfu_and_garbage_are_refused_before_and_after_a_crash() {
    let (_ingest, _sfu, mut daemon, publisher) = joined();
    let etag = publisher.reply().header("etag").unwrap().to_owned();
    let state: serde_json::Value = serde_json::from_str(&daemon.state_file()).unwrap();
    let ufrag = state["sessions"][0]["ufrag"].as_str().unwrap();
    assert_fragments_are_checked(publisher.session(), &etag, ufrag);
    daemon.crash_and_restart();
    let mut session = publisher.session().clone();
    session.authority = daemon.http.to_string();
    assert_fragments_are_checked(&session, &etag, ufrag);
    daemon.wait_for_state("guest1", "live");
}

#[test]
fn a_guest_who_went_while_the_daemon_was_down_leaves_a_free_slot() {
    let (_ingest, sfu, mut daemon, publisher) = joined();
    daemon.wait_for_state("guest1", "live");
    let session = sessions(&daemon)["guest1"].as_str().unwrap().to_owned();
    assert!(daemon.state_file().contains(&session));
    publisher.vanish();
    sfu.inject(Fault::KillSession { session: session.clone() });
    daemon.crash_and_restart();
    daemon.wait_for_state("guest1", "absent");
    daemon.wait_for_log("was here before the restart");
    assert_eq!(sessions(&daemon), serde_json::json!({}));
    let is_forgotten = || !daemon.state_file().contains(&session);
    wait_for("the session to be gone from the state file", is_forgotten, || daemon.state_file());
    // And the next guest takes it.
    let _next = Publisher::connect(&whip_url(&daemon), &Clip::chromium_360p()).unwrap();
    daemon.wait_for_state("guest1", "live");
}

/// What the guest, the producer and the operator are told. The page has words of its own for each `Guest-Relay-Fault`.
#[test]
fn a_wrong_secret_an_unknown_app_and_no_network_are_told_to_everybody_in_their_words() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // For the guest: no numbers, no names of parts.
    let (set_up, out_of_reach) = ("not set up correctly", "cannot reach the video service");
    for (name, fault, api_base, status, words, said) in [
        ("secret", Some(Fault::WrongSecret), None, 503, set_up, "check cloudflare.calls_api_token"),
        ("app", Some(Fault::UnknownApp), None, 503, set_up, "check cloudflare.calls_app_id"),
        (
            "network",
            None,
            Some(format!("http://{nobody}/v1")),
            503,
            out_of_reach,
            "check this machine's way to the internet",
        ),
        ("service", Some(Fault::NoService), None, 502, "did not answer properly", "the reply was lost"),
    ] {
        let ingest = Ingest::bind("127.0.0.1:0", Options::default()).unwrap();
        let sfu = SfuSim::start(sfu_sim::Options::default()).unwrap();
        fault.into_iter().for_each(|fault| sfu.inject(fault));
        let api_base = api_base.unwrap_or_else(|| sfu.api_base());
        let further = format!(
            "cloudflare: {{calls_app_id: '{}', calls_api_token: '{}', api_base: '{api_base}'}}\n",
            sfu.app_id(),
            sfu.secret()
        );
        let daemon = Daemon::start(&format!("rtmp://{}/{{guest_id}}", ingest.addr()), &further);
        let Err(refusal) = Publisher::connect(&whip_url(&daemon), &Clip::chromium_360p()) else {
            panic!("{name}: published")
        };
        let PublishError::Status { status: answered, body } = refusal else { panic!("{name}: {refusal}") };
        assert_eq!(answered, status.to_string(), "{name}");
        assert!(body.contains(words), "{name}: {body}");
        let guest = daemon.guest("guest1");
        let problem = guest["problem"].as_str().unwrap_or_default();
        assert!(problem.contains(said), "{name}: {guest}");
        daemon.wait_for_log(said);
        assert_eq!(daemon.guest("guest2")["problem"], serde_json::Value::Null);
        assert!(!daemon.log().contains(sfu.secret()) && !body.contains(sfu.secret()));
    }
}
