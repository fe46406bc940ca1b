//! The path through the SFU with real processes and sockets: a str0m publisher → the daemon's WHIP proxy → the simulated
//! SFU → the daemon's pull → a strict RTMP ingest.

use std::time::Duration;

use ingest::{Connection, Ingest, Options};
use loadgen::clip::Clip;
use loadgen::publisher::Publisher;
use sfu_sim::SfuSim;

use crate::daemon::Daemon;

const SETTLE: Duration = Duration::from_secs(15);

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
fn a_remote_guest_comes_back_from_the_sfu_and_leaves_nothing_there() {
    let ingest = Ingest::bind("127.0.0.1:0", Options { keep_frames: true, ..Options::default() }).unwrap();
    let sfu = SfuSim::start(sfu_sim::Options { speed: 10.0, ..sfu_sim::Options::default() }).unwrap();
    let daemon = daemon(&ingest, &sfu);
    let url = format!("http://{}/api/calls/whip/guest1", daemon.http);
    let publisher = Publisher::connect(&url, &Clip::chromium_720p()).unwrap();
    assert!(
        ingest.wait_until(SETTLE, |paths| paths.iter().any(|path| pictures(path) >= 60)),
        "no pictures:\n{}\n{:?}",
        daemon.log(),
        sfu.snapshot()
    );
    daemon.wait_for_state("guest1", "live", SETTLE);
    let guest = daemon.guest("guest1");
    assert_eq!((&guest["path"], &guest["width"]), (&"calls".into(), &1280.into()), "{guest}");
    let connection = ingest.path("guest1").unwrap();
    assert_eq!(connection.violations, Vec::<String>::new());
    assert!(connection.audio.unwrap().frames > 50);
    publisher.stop().unwrap();
    assert!(sfu.wait(SETTLE, |snapshot| snapshot.sessions.is_empty()), "{:?}\n{}", sfu.snapshot(), daemon.log());
    assert!(sfu.violations().is_empty(), "{:?}", sfu.violations());
    assert!(!daemon.log().contains(sfu.secret()), "the app's secret stands in the log");
}

#[test]
fn after_a_crash_of_the_daemon_the_guest_is_pulled_again_without_doing_anything() {
    let ingest = Ingest::bind("127.0.0.1:0", Options::default()).unwrap();
    let sfu = SfuSim::start(sfu_sim::Options::default()).unwrap();
    let mut daemon = daemon(&ingest, &sfu);
    let url = format!("http://{}/api/calls/whip/guest1", daemon.http);
    let publisher = Publisher::connect(&url, &Clip::chromium_360p()).unwrap();
    daemon.wait_for_state("guest1", "live", SETTLE);
    daemon.crash_and_restart();
    daemon.wait_for_state("guest1", "live", SETTLE);
    assert!(publisher.is_alive());
    let connections = ingest.connections();
    assert_eq!(connections.len(), 2);
    assert!(connections.iter().all(|connection| connection.violations.is_empty()));
    assert!(sfu.violations().is_empty(), "{:?}", sfu.violations());
}

#[test]
fn a_wrong_secret_is_told_to_the_guest_and_to_the_operator() {
    let ingest = Ingest::bind("127.0.0.1:0", Options::default()).unwrap();
    let sfu = SfuSim::start(sfu_sim::Options::default()).unwrap();
    let further = format!(
        "cloudflare: {{calls_app_id: '{}', calls_api_token: 'not-the-secret', api_base: '{}'}}\n",
        sfu.app_id(),
        sfu.api_base()
    );
    let daemon = Daemon::start(&format!("rtmp://{}/{{guest_id}}", ingest.addr()), &further);
    let url = format!("http://{}/api/calls/whip/guest1", daemon.http);
    let Err(refusal) = Publisher::connect(&url, &Clip::chromium_360p()) else { panic!("published without the secret") };
    let refusal = refusal.to_string();
    assert!(refusal.contains("502") || refusal.contains("503"), "{refusal}");
    assert!(daemon.log().contains("401"), "{}", daemon.log());
    assert!(!daemon.log().contains("not-the-secret"));
    assert!(!refusal.contains("not-the-secret"));
}
