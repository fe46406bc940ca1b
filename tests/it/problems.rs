//! What is wrong with the media server, as a producer reads it on `/api/guests`: each cause by its code, and gone when the
//! publication is live again.

use std::time::Duration;

use ingest::{Ingest, Options, SecondPublisher};
use loadgen::clip::Clip;
use loadgen::patience::{Stopwatch, wait_for};
use loadgen::publisher::Publisher;

use crate::daemon::{Daemon, Setup};

fn ingest(options: Options) -> Ingest {
    Ingest::bind("127.0.0.1:0", Options { keep_frames: false, ..options }).unwrap()
}

fn daemon(ingest: &Ingest) -> Daemon {
    Daemon::start(&format!("rtmp://{}/{{guest_id}}", ingest.addr()), "")
}

fn join(daemon: &Daemon) -> Publisher {
    Publisher::connect(&daemon.whip_url("guest1"), &Clip::chromium_360p()).unwrap()
}

/// The problem with this code is told, in the list and in the one line.
#[track_caller]
fn assert_told(daemon: &Daemon, code: &str, words: &str, remedy: &str) {
    let first = || daemon.guest("guest1")["problems"][0].clone();
    let seen = || format!("{}\n{}", daemon.guest("guest1"), daemon.log());
    wait_for(format_args!("problem {code}"), || first()["code"] == code, seen);
    let guest = daemon.guest("guest1");
    let problem = &guest["problems"][0];
    assert_eq!((&problem["hop"], &problem["words"]), (&"rtmp".into(), &words.into()));
    assert!(problem["remedy"].as_str().unwrap().contains(remedy), "{problem}");
    assert!(problem["since"].as_str().unwrap().ends_with('Z'), "{problem}");
    let line = format!("{words}; {}", problem["remedy"].as_str().unwrap());
    assert_eq!(guest["problem"], line);
    assert_eq!(daemon.guest("guest2")["problems"], serde_json::json!([]));
}

#[track_caller]
fn assert_well_when_live(daemon: &Daemon) {
    daemon.wait_for_state("guest1", "live");
    let is_well = || daemon.guest("guest1")["problem"].is_null();
    wait_for("no problem any more", is_well, || daemon.guest("guest1").to_string());
}

#[test]
fn a_server_that_is_down_is_unreachable_and_warned_of_once() {
    let ingest = ingest(Options::default());
    let daemon = daemon(&ingest);
    let _guest = join(&daemon);
    assert_well_when_live(&daemon);
    ingest.stop_listening();
    ingest.kill_connections();
    assert_told(&daemon, "rtmp-unreachable", "the media server cannot be reached", "systemctl start mediamtx");
    let attempts = || daemon.log().matches("publication interrupted").count();
    wait_for("five attempts", || attempts() >= 5, || daemon.log());
    ingest.start_listening().unwrap();
    assert_well_when_live(&daemon);
    let is_warning = |line: &&str| line.contains("publication interrupted") && !line.contains("DEBUG");
    let log = daemon.log();
    let warnings: Vec<_> = log.lines().filter(is_warning).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn a_path_that_is_not_declared_is_told_from_a_server_that_is_down() {
    let ingest = ingest(Options::default());
    ingest.undeclare("guest1");
    let daemon = daemon(&ingest);
    let guest = join(&daemon);
    let words = "the media server closes the connection when it is asked for the path guest1";
    assert_told(&daemon, "rtmp-path-undeclared", words, "`guest1: {}`");
    // Nobody is there, and nothing is wrong there.
    guest.stop().unwrap();
    daemon.wait_for_state("guest1", "absent");
    assert!(daemon.guest("guest1")["problem"].is_null());
    let _guest = join(&daemon);
    assert_told(&daemon, "rtmp-path-undeclared", words, "`guest1: {}`");
    ingest.declare("guest1");
    assert_well_when_live(&daemon);
}

#[test]
fn a_wrong_password_is_told_and_never_repeated() {
    let required_query = Some("user=u&pass=right".to_owned());
    let ingest =
        ingest(Options { required_query, unauthorized_delay: Duration::from_millis(50), ..Options::default() });
    let daemon = Daemon::start(&format!("rtmp://{}/{{guest_id}}?user=u&pass=s3cr3t", ingest.addr()), "");
    let _guest = join(&daemon);
    let words = "the media server refuses the user or the password for the path guest1";
    assert_told(&daemon, "rtmp-wrong-password", words, "authInternalUsers");
    assert!(!daemon.get("/api/guests").contains("s3cr3t") && !daemon.log().contains("s3cr3t"));
}

#[test]
fn a_server_that_stands_still_is_given_eight_seconds_and_told_then() {
    let ingest = ingest(Options::default());
    let daemon = daemon(&ingest);
    let _guest = join(&daemon);
    assert_well_when_live(&daemon);
    ingest.pause_reading();
    let stalled = Stopwatch::start();
    daemon.wait_for_log("publication interrupted");
    assert!(stalled.elapsed() >= Duration::from_secs(8), "{:?}", stalled.elapsed());
    assert_told(&daemon, "rtmp-stalled", "the media server is there and takes nothing", "restart it");
    ingest.resume_reading();
    assert_well_when_live(&daemon);
}

#[test]
fn media_that_the_server_does_not_take_are_told_from_a_path_it_does_not_have() {
    let ingest = ingest(Options { second_publisher: SecondPublisher::Refuse, ..Options::default() });
    let first = daemon(&ingest);
    let owner = join(&first);
    assert_well_when_live(&first);
    let second = daemon(&ingest);
    let _guest = join(&second);
    let words = "the media server closes the path guest1 soon after its publication began";
    assert_told(&second, "rtmp-media-refused", words, "somebody else has the path");
    owner.stop().unwrap();
    drop(first);
    assert_well_when_live(&second);
}

#[test]
fn an_idle_slot_that_the_server_refuses_is_a_problem_and_one_warning() {
    let ingest = ingest(Options::default());
    ingest.undeclare("guest1");
    let setup = Setup { environment: &[("GUEST_RELAY_RELAY_IDLE", "slate")], ..Setup::default() };
    let daemon = Daemon::start_with(&format!("rtmp://{}/{{guest_id}}", ingest.addr()), setup);
    let words = "the media server closes the connection when it is asked for the path guest1";
    assert_told(&daemon, "rtmp-path-undeclared", words, "`guest1: {}`");
    let attempts = || daemon.log().matches("publication interrupted").count();
    wait_for("three attempts", || attempts() >= 3, || daemon.log());
    let is_warning = |line: &&str| line.contains("publication interrupted") && !line.contains("DEBUG");
    assert_eq!(daemon.log().lines().filter(is_warning).count(), 1, "{}", daemon.log());
    let other = || daemon.guest("guest2");
    wait_for("guest2's slot to be published", || other()["rtmp"] == "live", || other().to_string());
    assert_eq!(other()["state"], "absent", "nobody is there");
    ingest.declare("guest1");
    let guest = || daemon.guest("guest1");
    let is_well = || guest()["rtmp"] == "live" && guest()["problem"].is_null();
    wait_for("guest1's slot to be published", is_well, || guest().to_string());
}
