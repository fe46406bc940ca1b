//! `guest-relay doctor` as a command, on machines with different troubles: what it prints is what a person reads, word
//! for word (`doctor/*.txt`). What differs from run to run stands there as `{name}`.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use ingest::{Ingest, Options};
use loadgen::patience::Stopwatch;
use sfu_sim::SfuSim;

use crate::daemon::{Daemon, program};
use crate::stun;

/// What it has to say. The clock is this machine's own: where systemd-timesyncd keeps it, the doctor has to say that.
fn expected(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/doctor");
    let text = fs::read_to_string(directory.join(name).with_extension("txt")).unwrap();
    let Some((before, clock)) = text.split_once("note     clock ") else { return text };
    if !Path::new("/run/systemd/timesync/synchronized").exists() {
        return text;
    }
    let (_, after) = clock.split_once("keeps it right\n").unwrap();
    format!("{before}ok       clock      synchronised by systemd-timesyncd\n{after}")
}

/// A directory with a configuration that names ports at which nothing listens.
struct Machine {
    directory: Scratch,
    http: SocketAddr,
    udp: SocketAddr,
    rtmp: SocketAddr,
    api: SocketAddr,
    /// `rtc.stun_server`
    stun: String,
    further: String,
    mode: u32,
}

impl Machine {
    fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let name = format!("guest-relay-doctor-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        // All held at once, so that no two are the same; free again when the doctor looks.
        let held: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let address = |index: usize| held[index].local_addr().unwrap();
        Self {
            directory: Scratch(directory),
            http: address(0),
            udp: address(1),
            rtmp: address(2),
            api: address(3),
            stun: "none".to_owned(),
            further: String::new(),
            mode: 0o600,
        }
    }

    fn doctor(&self, arguments: &[&str]) -> Output {
        let config = self.directory.0.join("config.yml");
        let text = format!(
            "http: {{listen: '{}'}}\nrtc: {{listen: '{}', stun_server: '{}'}}\nrelay: {{output: 'rtmp://{}/{{guest_id}}', state_file: none}}\n\
             mediamtx: {{api_port: {}}}\n{}",
            self.http,
            self.udp,
            self.stun,
            self.rtmp,
            self.api.port(),
            self.further
        );
        fs::write(&config, text).unwrap();
        fs::set_permissions(&config, fs::Permissions::from_mode(self.mode)).unwrap();
        let mut command = program();
        command.arg("doctor").arg("--config").arg("config.yml").args(arguments).current_dir(&self.directory.0);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Runs it and holds its words and exit code against what is expected.
    fn assert_says(&self, expected: &str, code: i32) {
        let output = self.doctor(&[]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(self.without_particulars(&text), expected, "stderr: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code));
    }

    /// Addresses by their names; the processor is this machine's own.
    fn without_particulars(&self, text: &str) -> String {
        let lines = text.lines().filter(|line| !line.contains(" processor "));
        let mut text: String = lines.map(|line| format!("{line}\n")).collect();
        for (name, address) in [("{http}", self.http), ("{udp}", self.udp), ("{rtmp}", self.rtmp), ("{api}", self.api)]
        {
            text = text.replace(&address.to_string(), name);
        }
        let text = if self.stun == "none" { text } else { text.replace(&self.stun, "{stun}") };
        let text = text.replace(&std::process::id().to_string(), "{pid}");
        let Some((before, rest)) = text.split_once("(cf-ray ") else { return text };
        let (_, after) = rest.split_once(')').unwrap();
        format!("{before}(cf-ray {{ray}}){after}")
    }
}

/// A STUN server, as long as the process lives.
fn answer_stun(socket: UdpSocket) {
    thread::spawn(move || {
        let mut request = [0; 1500];
        // bounded: a server lives as long as the process
        while let Ok((length, from)) = socket.recv_from(&mut request) {
            for datagram in stun::responses(&request[..length]).into_iter().flatten() {
                let _ = socket.send_to(&datagram, from);
            }
        }
    });
}

/// Removed when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn cloudflare(app_id: &str, token: &str, api_base: &str) -> String {
    format!("cloudflare: {{calls_app_id: '{app_id}', calls_api_token: '{token}', api_base: '{api_base}'}}\n")
}

/// Answers each request by what follows its path in the list, 404 where it is not; as long as the process lives. `{request}`
/// in an answer is the request's number.
fn serve(listener: TcpListener, header: &'static str, answers: &[(&'static str, &str)]) {
    let answers: Vec<_> = answers.iter().map(|(path, body)| (*path, (*body).to_owned())).collect();
    thread::spawn(move || {
        for (number, mut stream) in listener.incoming().flatten().enumerate() {
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let answer = answers.iter().find(|(known, _)| *known == path);
            let (status, body) = answer.map_or(("404 Not Found", "{}"), |(_, body)| ("200 OK", body.as_str()));
            let body = body.replace("{request}", &number.to_string());
            let _ = write!(stream, "HTTP/1.0 {status}\r\n{header}\r\n\r\n{body}");
        }
    });
}

#[test]
fn where_nothing_is_there_it_says_what_to_start() {
    Machine::new().assert_says(&expected("nothing"), 2);
}

#[test]
fn a_media_server_without_its_api_is_told_from_one_that_is_down() {
    let ingest = Ingest::bind("127.0.0.1:0", Options::default()).unwrap();
    let machine = Machine { rtmp: ingest.addr(), ..Machine::new() };
    machine.assert_says(&expected("no_api"), 1);
    assert_eq!(ingest.connections().iter().filter(|connection| connection.path.is_some()).count(), 0, "published");
}

/// What MediaMTX 1.20.1 answers, cut to what matters, of which the second request for a path is told more bytes or not.
/// Where nobody publishes, `alwaysAvailable` has the path ready and with tracks all the same.
fn assert_says_of_paths(bytes: &str, online: bool, expected: &str) {
    let ingest = Ingest::bind("127.0.0.1:0", Options::default()).unwrap();
    let api = TcpListener::bind("127.0.0.1:0").unwrap();
    let machine = Machine { rtmp: ingest.addr(), api: api.local_addr().unwrap(), ..Machine::new() };
    let guest1 = r#"{"name":"guest1","confName":"guest1","ready":true,"available":true,"online":ONLINE,
                     "source":SOURCE,"tracks":["H264","Opus"],"bytesReceived":BYTES}"#;
    let source = if online { r#"{"type":"rtmpConn","id":"1"}"# } else { "null" };
    let guest1 = guest1.replace("BYTES", bytes).replace("ONLINE", &online.to_string()).replace("SOURCE", source);
    serve(
        api,
        "Server: mediamtx",
        &[
            ("/v3/info", r#"{"version":"v1.20.1","started":"2026-08-22T16:57:28Z"}"#),
            ("/v3/paths/get/guest1", &guest1),
            ("/v3/config/paths/list?itemsPerPage=1000", r#"{"itemCount":1,"pageCount":1,"items":[{"name":"guest1"}]}"#),
        ],
    );
    machine.assert_says(expected, 2);
}

#[test]
fn each_path_is_looked_up_and_an_undeclared_one_is_named() {
    assert_says_of_paths("12{request}", true, &expected("paths"));
}

#[test]
fn a_path_that_is_ready_and_receives_nothing_is_told() {
    assert_says_of_paths("1200", true, &expected("paths_frozen"));
}

/// Whatever was received before stays counted.
#[test]
fn a_path_that_media_mtx_keeps_ready_by_itself_is_not_taken_for_a_publication() {
    assert_says_of_paths("1200", false, &expected("paths_stand_in"));
}

/// Before 1.16 there is no `online`.
#[test]
fn a_path_of_an_older_media_mtx_is_judged_by_ready() {
    let api = TcpListener::bind("127.0.0.1:0").unwrap();
    let machine = Machine { api: api.local_addr().unwrap(), ..Machine::new() };
    serve(
        api,
        "Server: mediamtx",
        &[
            ("/v3/info", r#"{"version":"v1.15.6","started":"2026-08-22T16:57:28Z"}"#),
            ("/v3/paths/get/guest1", r#"{"ready":true,"tracks":["H264","Opus"],"bytesReceived":12{request}}"#),
            ("/v3/paths/get/guest2", r#"{"ready":false,"tracks":[],"bytesReceived":0}"#),
        ],
    );
    let text = String::from_utf8(machine.doctor(&[]).stdout).unwrap();
    for line in [
        "ok       path       guest1 is ready and receives: H264, Opus\n",
        "ok       path       guest2 is declared; nobody publishes it now\n",
        "note     readers    a mixer's input on guest2 ends, or does not begin, while nobody publishes\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn wrong_credentials_of_the_sfu_are_told_without_repeating_them() {
    let ingest = Ingest::bind("127.0.0.1:0", Options::default()).unwrap();
    let sfu = SfuSim::start(sfu_sim::Options::default()).unwrap();
    let further = cloudflare(sfu.app_id(), "not-the-secret", &sfu.api_base());
    let machine = Machine { rtmp: ingest.addr(), further, ..Machine::new() };
    machine.assert_says(&expected("wrong_credentials"), 2);
    let json = String::from_utf8(machine.doctor(&["--json"]).stdout).unwrap();
    assert!(!json.contains("not-the-secret"));
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    let check = report["checks"].as_array().unwrap().iter().find(|check| check["check"] == "sfu").unwrap();
    assert_eq!((&report["severity"], &check["severity"]), (&"error".into(), &"error".into()));
    assert!(check["remedy"].as_str().unwrap().contains("calls_api_token"));
}

#[test]
fn right_credentials_are_told_too() {
    let sfu = SfuSim::start(sfu_sim::Options::default()).unwrap();
    let further = cloudflare(sfu.app_id(), sfu.secret(), &sfu.api_base());
    let machine = Machine { further, ..Machine::new() };
    let text = String::from_utf8(machine.doctor(&[]).stdout).unwrap();
    assert!(text.contains("ok       sfu        the Cloudflare app takes sessions\n"), "{text}");
    assert!(sfu.violations().is_empty(), "{:?}", sfu.violations());
}

#[test]
fn a_clock_that_the_api_does_not_share_is_told() {
    let api = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}/v1", api.local_addr().unwrap());
    serve(api, "Date: Sun, 06 Nov 1994 08:49:37 GMT", &[("/v1/apps/app/sessions/new", r#"{"sessionId":"5e551011"}"#)]);
    let further = cloudflare("app", "t0ken", &base);
    let text = String::from_utf8(Machine { further, ..Machine::new() }.doctor(&[]).stdout).unwrap();
    assert!(text.contains("ok       sfu        the Cloudflare app takes sessions\n"), "{text}");
    let line = text.lines().find(|line| line.starts_with("warning  clock")).unwrap_or(&text);
    assert!(line.ends_with(" s ahead of that of the SFU's API"), "{line}");
}

/// With an SFU, since remote guests are the ones who need it.
#[test]
fn the_public_address_is_told_where_a_stun_server_answers() {
    let (sfu, stun) = (SfuSim::start(sfu_sim::Options::default()).unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let further = cloudflare(sfu.app_id(), sfu.secret(), &sfu.api_base());
    let machine = Machine { further, stun: stun.local_addr().unwrap().to_string(), ..Machine::new() };
    answer_stun(stun);
    machine.assert_says(&expected("stun_answers"), 2);
}

#[test]
fn udp_that_does_not_get_out_is_told_with_what_to_let_through() {
    let (sfu, stun) = (SfuSim::start(sfu_sim::Options::default()).unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let further = cloudflare(sfu.app_id(), sfu.secret(), &sfu.api_base());
    // It takes the requests and is silent, as a firewall that drops them.
    let machine = Machine { further, stun: stun.local_addr().unwrap().to_string(), ..Machine::new() };
    let watch = Stopwatch::start();
    machine.assert_says(&expected("stun_silent"), 2);
    assert!(watch.elapsed() < Duration::from_secs(10), "{:?}", watch.elapsed());
}

#[test]
fn ports_that_other_programs_have_are_named_with_their_owner() {
    let http = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let machine = Machine { http: http.local_addr().unwrap(), udp: udp.local_addr().unwrap(), ..Machine::new() };
    // This test has them; how the kernel calls it depends on how it was started.
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let expected = expected("ports_taken").replace("{program}", name.trim());
    drop_connections(http);
    machine.assert_says(&expected, 2);
}

/// Whoever connects is dropped at once, so that nobody waits for an answer.
fn drop_connections(listener: TcpListener) {
    thread::spawn(move || listener.incoming().flatten().for_each(drop));
}

#[test]
fn a_file_with_secrets_that_others_may_read_is_told_with_the_command_that_mends_it() {
    let sfu = SfuSim::start(sfu_sim::Options::default()).unwrap();
    let further = cloudflare(sfu.app_id(), sfu.secret(), &sfu.api_base());
    let machine = Machine { further, mode: 0o644, ..Machine::new() };
    machine.assert_says(&expected("file_mode"), 2);
}

#[test]
fn a_configuration_that_is_wrong_is_all_that_is_looked_at() {
    let machine =
        Machine { further: "log: {level: loud}\nhttp2: 1\nguests: {'a b': {}}\n".to_owned(), ..Machine::new() };
    machine.assert_says(&expected("wrong_config"), 2);
}

#[test]
fn a_daemon_that_runs_is_not_a_port_that_is_taken() {
    let ingest = Ingest::bind("127.0.0.1:0", Options::default()).unwrap();
    let daemon = Daemon::start(&format!("rtmp://{}/{{guest_id}}", ingest.addr()), "");
    let machine = Machine { rtmp: ingest.addr(), http: daemon.http, udp: daemon.udp, ..Machine::new() };
    let text = String::from_utf8(machine.doctor(&[]).stdout).unwrap();
    for (check, address) in [("http", daemon.http), ("udp", daemon.udp)] {
        let line = text.lines().find(|line| line.starts_with(&format!("ok       {check}"))).unwrap_or(&text);
        assert!(line.contains("guest-relay (pid ") && line.ends_with(&format!("runs on {address}")), "{line}");
    }
}
