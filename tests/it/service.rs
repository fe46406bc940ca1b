//! The daemon as a service of systemd: what stands in the journal, and what the service manager is told. The unit and the
//! way back of a guest are shown by `tests/scripts/deploy.sh`, where a stand-in for systemd runs it.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{self, Receiver};

use ingest::{Ingest, Options};
use loadgen::clip::Clip;
use loadgen::patience::{Deadline, PATIENCE};
use loadgen::publisher::Publisher;

use crate::daemon::{Daemon, Setup, program};

/// Runs the daemon, which cannot start, with a file as the journal; gives its exit code and what the journal got.
fn journal(config: &str) -> (Option<i32>, String) {
    let directory = std::env::temp_dir().join(format!("guest-relay-service-{}-{}", std::process::id(), config.len()));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("config.yml"), config).unwrap();
    let journal = File::create(directory.join("journal")).unwrap();
    let metadata = journal.metadata().unwrap();
    let stream = format!("{}:{}", metadata.st_dev(), metadata.st_ino());
    let status = program().current_dir(&directory).env("JOURNAL_STREAM", stream).stderr(journal).status().unwrap();
    let text = fs::read_to_string(directory.join("journal")).unwrap();
    fs::remove_dir_all(&directory).unwrap();
    (status.code(), text)
}

/// Prefixes as sd-daemon(3) has them: 3 is an error.
#[test]
fn what_stops_the_daemon_is_an_error_in_the_journal_and_carries_no_time() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (code, text) = journal(&format!("http: {{listen: '{address}'}}\nrtc: {{listen: '127.0.0.1:0'}}\n"));
    assert_eq!(code, Some(1), "{text}");
    let expected = format!("<3>guest_relay: cannot listen for HTTP on {address}: ");
    assert!(text.lines().any(|line| line.starts_with(&expected)), "{text}");
    assert!(text.lines().all(|line| line.starts_with('<')), "{text}");
}

#[test]
fn each_mistake_in_the_configuration_is_an_error_in_the_journal() {
    let (code, text) = journal("log: {level: loud}\nhttp: {listen: nowhere}\n");
    assert_eq!(code, Some(2), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines.iter().all(|line| line.starts_with("<3>guest-relay: config.yml:")), "{text}");
}

/// The datagrams, read at once: few of them wait for a reader (`net.unix.max_dgram_qlen`).
fn told(manager: UnixDatagram) -> Receiver<String> {
    let (to, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        // bounded: ends with the process, or with the test that reads
        while let Ok(length) = manager.recv(&mut buffer) {
            let Some(message) = buffer.get(..length) else { return };
            if to.send(String::from_utf8_lossy(message).into_owned()).is_err() {
                return;
            }
        }
    });
    told
}

/// Each ping comes with what the media thread answered to the question before it: how many guests are live.
#[test]
fn the_service_manager_is_told_of_readiness_then_pinged_with_the_media_threads_answer_then_told_of_the_end() {
    let socket = std::env::temp_dir().join(format!("guest-relay-it-notify-{}", std::process::id()));
    let told = told(UnixDatagram::bind(&socket).unwrap());
    let ingest = Ingest::bind("127.0.0.1:0", Options { keep_frames: false, ..Options::default() }).unwrap();
    let environment = &[("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", "400000")];
    let setup = Setup { sections: "guests: {guest1: {}, guest2: {}}\n", environment, ..Setup::default() };
    let daemon = Daemon::start_with(&format!("rtmp://{}/{{guest_id}}", ingest.addr()), setup);
    let next = || told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(next(), "READY=1\nSTATUS=0 of 2 guests live");
    for _ in 0..2 {
        assert_eq!((next().as_str(), next().as_str()), ("WATCHDOG=1", "STATUS=0 of 2 guests live"));
    }
    let _publisher = Publisher::connect(&daemon.whip_url("guest1"), &Clip::chromium_360p()).unwrap();
    daemon.wait_for_state("guest1", "live");
    let deadline = Deadline::new("a status with a guest who is live");
    loop {
        assert_eq!(next(), "WATCHDOG=1");
        match next() {
            status if status == "STATUS=1 of 2 guests live" => break,
            status => deadline.check(|| status),
        }
    }
    daemon.signal("TERM");
    let deadline = Deadline::new("STOPPING=1");
    while next() != "STOPPING=1" {
        deadline.check(|| daemon.log());
    }
    fs::remove_file(&socket).unwrap();
}
