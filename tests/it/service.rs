//! The daemon as a service of systemd: what stands in the journal. Readiness, watchdog and the way back of a guest are
//! shown by `tests/deploy.sh`, where a stand-in for systemd runs the unit.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::linux::fs::MetadataExt;

use crate::daemon::program;

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
