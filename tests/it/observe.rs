//! What an operator sees and does while guests are live: metrics, events, reloading, ending.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ingest::{Ingest, Options};
use loadgen::clip::Clip;
use loadgen::http::{self, Url};
use loadgen::patience::{Deadline, Lines, PATIENCE, Stopwatch, wait_for};
use loadgen::publisher::Publisher;

use crate::daemon::{Daemon, Setup};

fn ingest() -> (Ingest, String) {
    let ingest = Ingest::bind("127.0.0.1:0", Options { keep_frames: false, ..Options::default() }).unwrap();
    let output = format!("rtmp://{}/{{guest_id}}", ingest.addr());
    (ingest, output)
}

/// The value of one sample of `GET /metrics`.
fn metric(text: &str, sample: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in\n{text}")).parse().unwrap()
}

/// Seconds since 1970.
fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The answer to a GET: the head's first line and the body.
fn answered(daemon: &Daemon, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(daemon.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", daemon.http).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("an answer within the deadline");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn two_hundred_who_ask_at_once_hear_that_a_live_guest_is_live() {
    const ASKERS: usize = 200;
    let (_ingest, output) = ingest();
    let daemon = Daemon::start(&output, "guests: {guest1: {}, guest2: {}}\n");
    let _publisher = Publisher::connect(&daemon.whip_url("guest1"), &Clip::chromium_360p()).unwrap();
    daemon.wait_for_state("guest1", "live");
    let start = Barrier::new(ASKERS);
    std::thread::scope(|scope| {
        for asker in 0..ASKERS {
            let (daemon, start) = (&daemon, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..3 {
                    let path = ["/healthz", "/api/guests", "/metrics"][(asker + round) % 3];
                    let (status, body) = answered(daemon, path);
                    assert_eq!(status, "HTTP/1.1 200 OK", "{path}: {body}");
                    match path {
                        "/healthz" => assert_eq!(body, "ok\n"),
                        "/metrics" => {
                            let sample = "guest_relay_guest_state{guest=\"guest1\",state=\"live\"}";
                            assert_eq!(metric(&body, sample), 1.0, "{body}");
                        }
                        _ => {
                            let all: serde_json::Value = serde_json::from_str(&body).unwrap();
                            let states = [&all["guests"][0]["state"], &all["guests"][1]["state"]];
                            assert_eq!(states, ["live", "absent"], "{body}");
                        }
                    }
                }
            });
        }
    });
}

/// The stream's lines, from a thread of their own.
fn events(daemon: &Daemon) -> Lines {
    let mut stream = TcpStream::connect(daemon.http).unwrap();
    write!(stream, "GET /api/events HTTP/1.1\r\nHost: {}\r\n\r\n", daemon.http).unwrap();
    Lines::of(stream)
}

#[test]
fn a_guests_life_shows_in_the_metrics_and_in_the_events() {
    let (ingest, output) = ingest();
    let before = unix_time();
    let daemon = Daemon::start(&output, "guests: {guest1: {}, guest2: {}}\n");
    let started = metric(&daemon.get("/metrics"), "process_start_time_seconds");
    assert!((before..=unix_time()).contains(&started), "{started}, not since {before}");
    let lines = events(&daemon);
    let publisher = Publisher::connect(&daemon.whip_url("guest1"), &Clip::chromium_720p()).unwrap();
    daemon.wait_for_state("guest1", "live");
    let text = daemon.get("/metrics");
    assert_eq!(metric(&text, "guest_relay_guest_state{guest=\"guest1\",state=\"live\"}"), 1.0);
    assert_eq!(metric(&text, "guest_relay_guest_state{guest=\"guest2\",state=\"absent\"}"), 1.0);
    assert_eq!(metric(&text, "guest_relay_rtmp_state{guest=\"guest1\",state=\"live\"}"), 1.0);
    assert_eq!(metric(&text, "guest_relay_guest_width_pixels{guest=\"guest1\"}"), 1280.0);
    assert_eq!(metric(&text, "guest_relay_rtmp_connections_total{guest=\"guest1\"}"), 1.0);
    assert!(metric(&text, "guest_relay_guest_packets_total{guest=\"guest1\",track=\"video\"}") > 100.0);
    assert!(metric(&text, "guest_relay_guest_keyframe_requests_total{guest=\"guest1\",message=\"pli\"}") >= 1.0);
    assert!(metric(&text, "process_resident_memory_bytes") > 1e6);
    // The daemon counts all bytes that the server has read. An answer may be that of 100 ms ago.
    let read = ingest.inspect(|all| all.iter().map(|connection| connection.bytes_read).sum::<u64>()) as f64;
    let written = || metric(&daemon.get("/metrics"), "guest_relay_rtmp_written_bytes_total{guest=\"guest1\"}");
    wait_for("all that was read to be counted as written", || written() >= read, || format!("{read} were read"));
    publisher.close_page().unwrap();
    daemon.wait_for_state("guest1", "holding");
    let frames = metric(&daemon.get("/metrics"), "guest_relay_guest_frames_total{guest=\"guest1\"}");
    std::thread::sleep(Duration::from_millis(300));
    let text = daemon.get("/metrics");
    assert_eq!(metric(&text, "guest_relay_guest_frames_total{guest=\"guest1\"}"), frames);
    assert!(metric(&text, "guest_relay_guest_hold_seconds_total{guest=\"guest1\"}") >= 0.3);
    // The way there, in order.
    for state in ["joining", "publishing", "live", "holding"] {
        lines.next_with(&format!("data: {{\"guest\":\"guest1\",\"state\":\"{state}\"}}"));
    }
}

#[test]
fn a_reload_adds_renames_and_closes_slots_while_a_guest_is_live() {
    let (_ingest, output) = ingest();
    let guests = "guests: {guest1: {name: One}, guest2: {name: Two}}\n";
    let mut daemon = Daemon::start(&output, guests);
    let clip = Clip::chromium_360p();
    let staying = Publisher::connect(&daemon.whip_url("guest1"), &clip).unwrap();
    daemon.wait_for_state("guest1", "live");
    let changed = "guests: {guest1: {name: First}, guest3: {name: Three}, guest4: {enabled: false}}\n";
    daemon.rewrite_config(|text| text.replace(guests, changed));
    daemon.signal("HUP");
    daemon.wait_for_log("configuration reloaded; guests: guest1, guest3, guest4");
    assert_eq!(daemon.guest("guest1")["name"], "First");
    let refused = Publisher::connect(&daemon.whip_url("guest2"), &clip).err().unwrap().to_string();
    assert!(refused.contains("404"), "{refused}");
    let refused = Publisher::connect(&daemon.whip_url("guest4"), &clip).err().unwrap().to_string();
    assert!(refused.contains("403"), "{refused}");
    let new = Publisher::connect(&daemon.whip_url("guest3"), &clip).unwrap();
    daemon.wait_for_state("guest3", "live");
    // The one who was there noticed nothing.
    assert!(staying.is_alive());
    assert_eq!(daemon.guest("guest1")["state"], "live");
    assert_eq!(metric(&daemon.get("/metrics"), "guest_relay_rtmp_connections_total{guest=\"guest1\"}"), 1.0);

    daemon.rewrite_config(|text| format!("{text}http2: [\n"));
    daemon.signal("HUP");
    daemon.wait_for_log("it was not reloaded, the old one stays");
    daemon.wait_for_log("this is not valid YAML");
    assert!(daemon.is_running());
    assert_eq!(
        (daemon.guest("guest1")["state"].clone(), daemon.guest("guest3")["name"].clone()),
        ("live".into(), "Three".into())
    );
    drop((staying, new));
}

/// The bitrate that a guest was asked for last (REMB).
fn is_asked_for(publisher: &Publisher, kbps: u32) -> bool {
    publisher.wait(PATIENCE, |stats| stats.estimate_kbps == Some(kbps))
}

#[test]
fn a_reload_changes_the_limits_while_a_guest_is_live() {
    let (_ingest, output) = ingest();
    let daemon = Daemon::start(&output, "guests: {guest1: {}, guest2: {}}\n");
    let clip = Clip::chromium_360p();
    let staying = Publisher::connect(&daemon.whip_url("guest1"), &clip).unwrap();
    daemon.wait_for_state("guest1", "live");
    assert!(is_asked_for(&staying, 2500), "{:?}", staying.stats());
    daemon.rewrite_config(|text| {
        let text = text.replace("offers_per_minute: 600", "offers_per_minute: 1");
        text.replace("stun_server: 'none'", "stun_server: 'none', total_bitrate_kbps: 3000")
    });
    daemon.signal("HUP");
    daemon.wait_for_log("configuration reloaded");
    // The one offer of a minute; from now on there are two to share the new total.
    let new = Publisher::connect(&daemon.whip_url("guest2"), &clip).unwrap();
    assert!(is_asked_for(&staying, 1500), "{:?}", staying.stats());
    assert!(is_asked_for(&new, 1500), "{:?}", new.stats());
    let refused = Publisher::connect(&daemon.whip_url("guest2"), &clip).err().unwrap().to_string();
    assert!(refused.contains("429"), "{refused}");
    assert!(staying.is_alive() && new.is_alive());
    assert_eq!(daemon.guest("guest1")["state"], "live");
    assert_eq!(metric(&daemon.get("/metrics"), "guest_relay_rtmp_connections_total{guest=\"guest1\"}"), 1.0);
}

#[test]
fn a_keyframe_that_somebody_asks_for_is_asked_of_the_live_guest() {
    let (ingest, output) = ingest();
    let environment = &[("GUEST_RELAY_RELAY_KEYFRAME_INTERVAL_SECONDS", "0")];
    let daemon = Daemon::start_with(&output, Setup { environment, ..Setup::default() });
    let ask = |guest: &str| {
        let url = Url::parse(&format!("http://{}/api/guests/{guest}/keyframe", daemon.http)).unwrap();
        http::exchange("POST", &url, &[], "").unwrap().second_word().to_owned()
    };
    assert_eq!([ask("guest1"), ask("guest9")], ["409", "404"]);
    let publisher = Publisher::connect(&daemon.whip_url("guest1"), &Clip::chromium_360p()).unwrap();
    daemon.wait_for_state("guest1", "live");
    let requests = || publisher.stats().plis + publisher.stats().firs;
    let before = requests();
    assert_eq!([ask("guest1"), ask("guest2")], ["202", "409"]);
    wait_for("the guest to be asked", || requests() > before, requests);
    publisher.stop().unwrap();
    assert_eq!(ask("guest1"), "409", "the last picture is held");
    assert!(ingest.path("guest1").is_some_and(|connection| connection.violations.is_empty()));
}

#[test]
fn a_live_guest_whom_a_reload_takes_out_of_the_configuration_stays_until_it_leaves() {
    let (ingest, output) = ingest();
    let environment = &[("GUEST_RELAY_RELAY_HOLD_SECONDS", "1")];
    let guests = "guests: {guest1: {}, guest2: {}}\n";
    let daemon = Daemon::start_with(&output, Setup { sections: guests, environment, ..Setup::default() });
    let clip = Clip::chromium_360p();
    let staying = Publisher::connect(&daemon.whip_url("guest1"), &clip).unwrap();
    daemon.wait_for_state("guest1", "live");
    daemon.rewrite_config(|text| text.replace(guests, "guests: {guest2: {}}\n"));
    daemon.signal("HUP");
    // Who is there is told of.
    daemon.wait_for_log("configuration reloaded; guests: guest1, guest2");
    let refused = Publisher::connect(&daemon.whip_url("guest1"), &clip).err().unwrap().to_string();
    assert!(refused.contains("404"), "{refused}");
    // Media goes on, for longer than the input of a guest who is gone would be kept, over the connection there was.
    let frames = || ingest.path("guest1").and_then(|connection| connection.video).map_or(0, |video| video.frames);
    let enough = frames() + 60;
    wait_for(format_args!("{enough} pictures"), || frames() >= enough, frames);
    assert!(staying.is_alive());
    assert_eq!(daemon.guest("guest1")["state"], "live");
    assert_eq!(ingest.inspect(<[_]>::len), 1);
    // It leaves, is unpublished and forgotten.
    staying.stop().unwrap();
    assert!(ingest.wait_until(PATIENCE, |all| all.iter().all(|connection| connection.end.is_some())));
    let connection = ingest.path("guest1").unwrap();
    assert!(connection.unpublished, "{connection:?}");
    assert_eq!(connection.violations, Vec::<String>::new());
    assert!(!daemon.get("/api/guests").contains("guest1"));
    // Back in the configuration it may come again.
    daemon.rewrite_config(|text| text.replace("guests: {", "guests: {guest1: {name: Again}, "));
    daemon.signal("HUP");
    let guests = || daemon.get("/api/guests");
    wait_for("guest1 to be back in the configuration", || guests().contains("Again"), guests);
    let _back = Publisher::connect(&daemon.whip_url("guest1"), &clip).unwrap();
    daemon.wait_for_state("guest1", "live");
}

#[test]
fn a_termination_unpublishes_says_goodbye_and_ends_within_two_seconds() {
    let (ingest, output) = ingest();
    let mut daemon = Daemon::start(&output, "");
    let _publisher = Publisher::connect(&daemon.whip_url("guest1"), &Clip::chromium_360p()).unwrap();
    daemon.wait_for_state("guest1", "live");
    daemon.signal("TERM");
    let (deadline, watch) = (Deadline::new("the daemon to end"), Stopwatch::start());
    while daemon.is_running() {
        deadline.check(|| daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(watch.elapsed() <= Duration::from_secs(2), "{:?}", watch.elapsed());
    assert!(ingest.wait_until(PATIENCE, |all| all.iter().all(|connection| connection.end.is_some())));
    let connection = ingest.path("guest1").unwrap();
    assert!(connection.unpublished, "{connection:?}");
    assert_eq!(connection.violations, Vec::<String>::new());
}
