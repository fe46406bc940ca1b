//! The daemon as a process of its own, on ephemeral loopback ports, ended when the test ends.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use loadgen::patience::{Deadline, PATIENCE, wait_for};

/// How a daemon is set up, beside its `relay.output`.
#[derive(Clone, Copy)]
pub(crate) struct Setup<'a> {
    /// Further sections of the configuration.
    pub(crate) sections: &'a str,
    /// `rtc.stun_server`
    pub(crate) stun_server: &'a str,
    pub(crate) log_level: &'a str,
    pub(crate) environment: &'a [(&'a str, &'a str)],
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { sections: "", stun_server: "none", log_level: "debug", environment: &[] }
    }
}

pub(crate) struct Daemon {
    child: Child,
    directory: PathBuf,
    environment: Vec<(String, String)>,
    log: Arc<Mutex<String>>,
    pub(crate) http: SocketAddr,
    pub(crate) udp: SocketAddr,
}

impl Daemon {
    /// Starts it with `relay.output` and further lines of configuration.
    pub(crate) fn start(output: &str, further: &str) -> Self {
        Self::start_with(output, Setup { sections: further, ..Setup::default() })
    }

    pub(crate) fn start_with(output: &str, setup: Setup<'_>) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let name = format!("guest-relay-it-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let directory = scratch(&name);
        let config = directory.join("config.yml");
        let text = format!(
            "http: {{listen: '127.0.0.1:0', offers_per_minute: 600}}\n\
             rtc: {{listen: '127.0.0.1:0', stun_server: '{}'}}\n\
             relay:\n  output: '{output}'\n  state_file: '{}'\nlog: {{level: {}}}\n{}",
            setup.stun_server,
            directory.join("state.json").display(),
            setup.log_level,
            setup.sections,
        );
        fs::write(&config, text).unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let environment = setup.environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment: Vec<_> = environment.collect();
        let (child, http, udp) = run(&config, &environment, &log);
        Self { child, directory, environment, log, http, udp }
    }

    /// Kills it (SIGKILL) and starts it again with the same configuration; the HTTP port is another one.
    pub(crate) fn crash_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.log.lock().unwrap().clear();
        (self.child, self.http, self.udp) = run(&self.directory.join("config.yml"), &self.environment, &self.log);
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// What the state file holds; nothing, when there is none.
    pub(crate) fn state_file(&self) -> String {
        fs::read_to_string(self.directory.join("state.json")).unwrap_or_default()
    }

    /// What `--check-config` prints.
    pub(crate) fn checked_config(&self) -> String {
        let mut command = command(&self.directory.join("config.yml"), &self.environment);
        let output = command.arg("--check-config").output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// Writes the sections that were given at the start anew.
    pub(crate) fn rewrite_config(&self, edit: impl FnOnce(String) -> String) {
        let path = self.directory.join("config.yml");
        let text = edit(fs::read_to_string(&path).unwrap());
        fs::write(&path, text).unwrap();
    }

    /// `HUP`, `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for a line in the log that holds `text`: it comes through a pipe, later than what else the daemon does.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        wait_for(format_args!("{text:?} in the log"), || self.log().contains(text), || self.log());
    }

    pub(crate) fn whip_url(&self, guest: &str) -> String {
        format!("http://{}/whip/{guest}", self.http)
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Anonymous resident memory in kB: what grows when something leaks.
    pub(crate) fn anonymous_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    pub(crate) fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().count()
    }

    /// One GET; the body of a 200.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        body.to_owned()
    }

    /// One guest's line of `GET /api/guests`.
    pub(crate) fn guest(&self, id: &str) -> serde_json::Value {
        let guests: serde_json::Value = serde_json::from_str(&self.get("/api/guests")).unwrap();
        guests["guests"].as_array().unwrap().iter().find(|guest| guest["id"] == id).unwrap().clone()
    }

    #[track_caller]
    pub(crate) fn wait_for_state(&self, id: &str, state: &str) {
        let seen = || format!("{}\n{}", self.guest(id), self.log());
        wait_for(format_args!("{id} to be {state}"), || self.guest(id)["state"] == state, seen);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the daemon's log\n{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A directory in memory, where there is one: the daemon syncs its state before it answers a guest, and on a disk that
/// somebody else writes to (a build) that takes seconds.
fn scratch(name: &str) -> PathBuf {
    let in_memory = Path::new("/dev/shm").join(name);
    if fs::create_dir(&in_memory).is_ok() {
        return in_memory;
    }
    let directory = std::env::temp_dir().join(name);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Runs the daemon and waits until it listens. The caller ends it.
#[allow(clippy::zombie_processes, reason = "Daemon's Drop waits for it")]
fn run(config: &Path, environment: &[(String, String)], log: &Arc<Mutex<String>>) -> (Child, SocketAddr, SocketAddr) {
    let mut command = command(config, environment);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stderr = child.stderr.take().unwrap();
    let sink = Arc::clone(log);
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut log = sink.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
    let deadline = Deadline::new("the daemon to listen");
    loop {
        let text = log.lock().unwrap().clone();
        if let Some((http, udp)) = listening(&text) {
            return (child, http, udp);
        }
        deadline.check(|| {
            let _ = child.kill();
            let _ = child.wait();
            text
        });
        thread::sleep(Duration::from_millis(10));
    }
}

/// The daemon as it was built with this test, or the one that `GUEST_RELAY_UNDER_TEST` names: a program with arguments,
/// such as an emulator with the binary of another machine. With nothing of the environment that tests run in.
pub(crate) fn program() -> Command {
    let named = std::env::var("GUEST_RELAY_UNDER_TEST").unwrap_or_default();
    let mut words = named.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or(env!("CARGO_BIN_EXE_guest-relay")));
    command.args(words);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("GUEST_RELAY_") || name.starts_with("CLOUDFLARE_")) {
            command.env_remove(name);
        }
    }
    command
}

/// The same with its configuration.
fn command(config: &Path, environment: &[(String, String)]) -> Command {
    let mut command = program();
    command.arg("--config").arg(config);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

/// The addresses in the start line.
fn listening(log: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line = log.lines().find(|line| line.contains("serves http://"))?;
    let http = line.split_once("serves http://")?.1.split_once('/')?.0.parse().ok()?;
    let udp = line.split_once("media on UDP ")?.1.split_once(';')?.0.parse().ok()?;
    Some((http, udp))
}
