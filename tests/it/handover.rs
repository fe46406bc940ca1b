//! A planned restart of the whole daemon, which `tests/deploy/systemd.py` runs as systemd would: what the RTMP server sees of it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ingest::{Connection, Ingest, Kind, Options, Stage};
use loadgen::clip::Clip;
use loadgen::patience::{PATIENCE, wait_for};
use loadgen::publisher::Publisher;

use crate::daemon::program;

/// The daemon below its service manager.
struct Service {
    manager: Child,
    directory: PathBuf,
}

impl Service {
    fn start(name: &str, output: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("guest-relay-handover-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let daemon = program();
        let mut command = Command::new(script());
        command.arg("run").arg(directory.join("control")).args(["--restart-seconds", "0.2", "--"]);
        command.arg(daemon.get_program()).args(daemon.get_args()).arg("--config").arg(directory.join("config.yml"));
        for (name, _) in daemon.get_envs().filter(|(_, value)| value.is_none()) {
            command.env_remove(name);
        }
        write_config(&directory, output);
        command.stdin(Stdio::null()).stdout(File::create(directory.join("events")).unwrap());
        let manager = command.stderr(File::create(directory.join("log")).unwrap()).spawn().unwrap();
        let service = Self { manager, directory };
        wait_for("the first start", || service.told("ready").is_some(), || service.log());
        service
    }

    /// Sends one command to the service manager; its answer.
    fn tell(&self, words: &[&str]) -> String {
        let output =
            Command::new(script()).arg("tell").arg(self.directory.join("control")).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[track_caller]
    fn restart(&self) {
        let said = self.tell(&["restart"]);
        assert!(said.starts_with("ok"), "{said}\n{}", self.log());
    }

    /// The newest event of this name.
    fn told(&self, event: &str) -> Option<String> {
        let events = fs::read_to_string(self.directory.join("events")).unwrap();
        events.lines().rfind(|line| line.split(' ').nth(1) == Some(event)).map(str::to_owned)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap()
    }

    /// A guest comes to the process that runs now.
    fn join(&self) -> Publisher {
        let log = self.log();
        let line = log.lines().rfind(|line| line.contains("serves http://")).unwrap();
        let address = line.split_once("serves http://").unwrap().1.split_once('/').unwrap().0;
        Publisher::connect(&format!("http://{address}/whip/guest1"), &Clip::chromium_360p()).unwrap()
    }

    #[track_caller]
    fn wait_for_pictures(&self, ingest: &Ingest, connection: usize, more: u64) {
        let pictures = |all: &[Connection]| {
            all.get(connection).and_then(|seen| seen.video.as_ref()).map_or(0, |video| video.frames)
        };
        let until = ingest.inspect(|all| pictures(all)) + more;
        let reached = ingest.wait_until(PATIENCE, |all| pictures(all) >= until);
        assert!(reached, "no {more} pictures on connection {connection}:\n{}", self.log());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It ends the daemon, as `systemctl stop` would, and then itself.
        let _ = Command::new("kill").arg(self.manager.id().to_string()).status();
        let _ = self.manager.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn script() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/deploy/systemd.py")
}

fn write_config(directory: &std::path::Path, output: &str) {
    let state = directory.join("state.json");
    let text = format!(
        "http: {{listen: '127.0.0.1:0', offers_per_minute: 600}}\nrtc: {{listen: '127.0.0.1:0', stun_server: none}}\n\
         relay: {{output: '{output}', state_file: '{}'}}\n",
        state.display()
    );
    fs::write(directory.join("config.yml"), text).unwrap();
}

fn ingest() -> Ingest {
    Ingest::bind("127.0.0.1:0", Options::default()).unwrap()
}

fn output(ingest: &Ingest) -> String {
    format!("rtmp://{}/{{guest_id}}", ingest.addr())
}

#[track_caller]
fn assert_clean(connection: &Connection) {
    assert_eq!((connection.violations.as_slice(), connection.refused), (&[][..], false), "{:?}", connection.end);
    for kind in [Kind::Audio, Kind::Video] {
        let times = connection.timestamps(kind);
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{kind:?} goes back");
    }
}

#[test]
fn a_planned_restart_goes_on_in_one_connection_also_past_a_version_that_does_not_start_and_a_crash_makes_another() {
    let ingest = ingest();
    let service = Service::start("chain", &output(&ingest));
    let guest = service.join();
    service.wait_for_pictures(&ingest, 0, 30);
    service.restart();
    drop(guest);
    service.wait_for_pictures(&ingest, 0, 2);
    let guest = service.join();
    service.wait_for_pictures(&ingest, 0, 30);

    let daemon = program();
    let broken = service.tell(&["restart", "/bin/false"]);
    assert!(broken.starts_with("failed"), "{broken}");
    drop(guest);
    assert!(service.tell(&["status"]).ends_with("slot.guest1,slot.guest1"), "both descriptors wait for the next start");
    let said = service.tell(&["restart", daemon.get_program().to_str().unwrap()]);
    assert!(said.starts_with("ok"), "{said}\n{}", service.log());
    service.wait_for_pictures(&ingest, 0, 2);
    assert!(!service.tell(&["status"]).contains("slot."), "nothing is kept while the publication goes on");
    let guest = service.join();
    service.wait_for_pictures(&ingest, 0, 30);
    let seen = ingest.connections();
    assert!(seen.len() == 1 && seen[0].stage == Stage::Ready, "{} connections\n{}", seen.len(), service.log());
    assert_clean(&seen[0]);
    assert_eq!(seen[0].audio.as_ref().unwrap().sequence_starts, 1);
    // Silence joins a returning guest's sound in steps of 2.5 ms.
    let sound = seen[0].timestamps(Kind::Audio);
    let longest = sound.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(longest <= Some(23), "{longest:?} ms without sound");

    let starts = service.told("started");
    assert!(service.tell(&["kill"]).starts_with("ok"));
    drop(guest);
    wait_for("the start after the crash", || service.told("started") != starts, || service.log());
    wait_for("it to be ready", || service.tell(&["status"]).starts_with("ok active"), || service.log());
    let _guest = service.join();
    service.wait_for_pictures(&ingest, 1, 30);
    let seen = ingest.connections();
    assert_eq!(seen.len(), 2, "{}", service.log());
    assert_eq!(seen[0].stage, Stage::Ended);
    assert_clean(&seen[1]);
}

#[test]
fn another_output_in_the_configuration_closes_what_was_kept() {
    let ingest = ingest();
    let service = Service::start("output", &output(&ingest));
    let guest = service.join();
    service.wait_for_pictures(&ingest, 0, 30);
    write_config(&service.directory, &format!("rtmp://{}/other/{{guest_id}}", ingest.addr()));
    service.restart();
    drop(guest);
    let ended = ingest.wait_until(PATIENCE, |all| all[0].stage == Stage::Ended);
    assert!(ended, "{}", service.log());
    let told = || service.log().contains("relay.output is another one now");
    wait_for("the reason in the log", told, || service.log());
    let _guest = service.join();
    service.wait_for_pictures(&ingest, 1, 10);
    assert_eq!(ingest.connections()[1].path.as_deref(), Some("other/guest1"));
}

#[test]
fn a_stop_ends_the_publication_with_the_descriptor() {
    let ingest = ingest();
    let service = Service::start("stop", &output(&ingest));
    let _guest = service.join();
    service.wait_for_pictures(&ingest, 0, 10);
    assert_eq!(service.tell(&["stop"]), "ok");
    assert!(ingest.wait_until(Duration::from_secs(5), |all| all[0].stage == Stage::Ended), "{}", service.log());
    assert_eq!(ingest.connections()[0].violations, Vec::<String>::new());
}
