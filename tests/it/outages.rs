//! The RTMP server goes away under the whole daemon: killed, reset, stopped. The guest stays, nothing is left behind.
//! How fast each is noticed is tested in virtual time, with the publisher.

use std::thread;
use std::time::Duration;

use ingest::{Connection, Ingest, Options, Stage};
use loadgen::clip::Clip;
use loadgen::patience::PATIENCE;
use loadgen::publisher::Publisher;

use crate::daemon::Daemon;

fn ingest() -> Ingest {
    Ingest::bind("127.0.0.1:0", Options { keep_frames: false, ..Options::default() }).unwrap()
}

fn output(ingest: &Ingest) -> String {
    format!("rtmp://{}/{{guest_id}}", ingest.addr())
}

/// Pictures of every path arrive on a connection that is open.
fn all_flow(connections: &[Connection], paths: usize) -> bool {
    let flows = |connection: &&Connection| {
        connection.stage != Stage::Ended && connection.video.as_ref().is_some_and(|video| video.frames > 0)
    };
    connections.iter().filter(flows).count() == paths
}

fn assert_clean(ingest: &Ingest) {
    for connection in ingest.connections() {
        // A connection that is given up ends wherever it is; what was sent before broke no rule.
        let whole = connection.violations.iter().filter(|text| *text != "left in the middle of a message");
        assert_eq!(whole.collect::<Vec<_>>(), Vec::<&String>::new());
        assert!(!connection.refused, "{:?}", connection.end);
    }
}

#[test]
fn a_hundred_connections_that_are_killed_leave_nothing_behind() {
    const GUESTS: [&str; 4] = ["a", "b", "c", "d"];
    const ROUNDS: usize = 25;
    let ingest = ingest();
    let slots: String = GUESTS.iter().map(|id| format!("  {id}: {{name: {id}, enabled: true}}\n")).collect();
    let daemon = Daemon::start(&output(&ingest), &format!("guests:\n{slots}"));
    let clip = Clip::chromium_360p();
    let publishers: Vec<_> = GUESTS.iter().map(|id| Publisher::connect(&daemon.whip_url(id), &clip).unwrap()).collect();
    let mut before = None;
    for round in 0..ROUNDS {
        assert!(ingest.wait_until(PATIENCE, |all| all_flow(all, GUESTS.len())), "round {round}:\n{}", daemon.log());
        // The first rounds fill the allocator's and the kernel's caches.
        if round == 3 {
            before = Some((daemon.descriptors(), daemon.threads(), daemon.anonymous_kb()));
        }
        ingest.stop_listening();
        ingest.kill_connections();
        assert!(ingest.wait_until(PATIENCE, |all| all.iter().all(|connection| connection.stage == Stage::Ended)));
        // A restart takes its time: the first attempts are refused.
        thread::sleep(Duration::from_millis(700));
        ingest.start_listening().unwrap();
    }
    assert!(ingest.wait_until(PATIENCE, |all| all_flow(all, GUESTS.len())), "at the end:\n{}", daemon.log());
    let (descriptors, threads, memory) = before.unwrap();
    assert_eq!((daemon.descriptors(), daemon.threads()), (descriptors, threads));
    let growth = daemon.anonymous_kb().saturating_sub(memory);
    assert!(growth <= 1024, "{growth} kB more after {} connections", ROUNDS * GUESTS.len());
    assert!(publishers.iter().all(Publisher::is_alive));
    assert!(ingest.connections().len() > ROUNDS * GUESTS.len());
    assert_clean(&ingest);
}

#[test]
fn a_stopped_server_costs_its_connection_and_not_the_guest() {
    let ingest = ingest();
    let daemon = Daemon::start(&output(&ingest), "");
    let publisher = Publisher::connect(&daemon.whip_url("guest1"), &Clip::chromium_720p()).unwrap();
    daemon.wait_for_state("guest1", "live");
    let memory = daemon.anonymous_kb();
    ingest.pause_reading();
    daemon.wait_for_state("guest1", "publishing");
    daemon.wait_for_log("publication interrupted: the server");
    // Long enough for several attempts: the kernel connects, nobody answers.
    thread::sleep(Duration::from_secs(7));
    let growth = daemon.anonymous_kb().saturating_sub(memory);
    assert!(growth <= 8 * 1024, "{growth} kB queued");
    ingest.resume_reading();
    daemon.wait_for_state("guest1", "live");
    assert!(publisher.is_alive());
    assert_clean(&ingest);
}

#[test]
fn a_connection_that_is_reset_is_made_anew() {
    let ingest = ingest();
    let daemon = Daemon::start(&output(&ingest), "");
    let publisher = Publisher::connect(&daemon.whip_url("guest1"), &Clip::chromium_360p()).unwrap();
    daemon.wait_for_state("guest1", "live");
    // A socket that is closed with bytes unread answers with a reset.
    ingest.pause_reading();
    thread::sleep(Duration::from_millis(300));
    ingest.kill_connections();
    ingest.resume_reading();
    daemon.wait_for_state("guest1", "publishing");
    daemon.wait_for_state("guest1", "live");
    assert!(publisher.is_alive());
    let connections = ingest.connections();
    assert!(connections.len() >= 2 && connections.last().unwrap().end.is_none());
}

#[test]
fn a_server_is_found_by_its_name() {
    let ingest = ingest();
    let daemon = Daemon::start(&format!("rtmp://localhost:{}/{{guest_id}}", ingest.addr().port()), "");
    let _publisher = Publisher::connect(&daemon.whip_url("guest1"), &Clip::chromium_360p()).unwrap();
    daemon.wait_for_state("guest1", "live");

    let nowhere = Daemon::start("rtmp://server.invalid/{guest_id}", "");
    let publisher = Publisher::connect(&nowhere.whip_url("guest1"), &Clip::chromium_360p()).unwrap();
    nowhere.wait_for_state("guest1", "publishing");
    nowhere.wait_for_log("the RTMP server server.invalid has no address");
    assert!(publisher.is_alive());
}
