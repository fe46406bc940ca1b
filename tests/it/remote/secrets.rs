//! Secrets are told to nobody: with canaries for all of them, at log level `trace`, everything is made to fail that can, and
//! all that the daemon says anywhere is searched.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ingest::Ingest;
use loadgen::clip::Clip;
use loadgen::http::{self, Url};
use loadgen::patience::PATIENCE;
use loadgen::publisher::Publisher;
use sfu_sim::{Endpoint, Fault};

use super::studio::Studio;
use crate::daemon::{Daemon, Setup};

/// As long as the real ones, and so as a session's id may be.
pub(super) const APP_SECRET: &str = "canaryappf1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4";
const TURN_TOKEN: &str = "canaryturne2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c";
const RTMP_PASSWORD: &str = "canary-rtmp-password";
const RTMP_KEY: &str = "canary-rtmp-key";
const APP_ID: &str = "0123456789abcdef0123456789abcdef";
const TURN_KEY: &str = "fedcba9876543210fedcba9876543210";

/// What a server does to whoever shows it a token, with `{token}` in it.
const ILL_WILL: [(&str, &str); 12] = [
    (
        "repeats it in a refusal",
        "HTTP/1.1 401 x\r\n{length}\r\n{\"errorCode\":\"{token}\",\"errorDescription\":\"no {token}\"}",
    ),
    ("repeats it in an unknown app", "HTTP/1.1 404 x\r\n{length}\r\n{\"errorDescription\":\"Bearer {token}\"}"),
    ("repeats it in a breakdown", "HTTP/1.1 500 x\r\n{length}\r\n<h1>{token}</h1>"),
    ("repeats it in headers", "HTTP/1.1 429 x\r\ncf-ray: {token}\r\nRetry-After: {token}\r\n{length}\r\n{token}"),
    ("repeats it in what is no JSON", "HTTP/1.1 200 x\r\n{length}\r\n{token}"),
    (
        "repeats it in JSON of another shape",
        "HTTP/1.1 200 x\r\n{length}\r\n{\"sessionId\":[\"{token}\"],\"{token}\":1}",
    ),
    (
        "repeats it in an error inside a success",
        "HTTP/1.1 200 x\r\n{length}\r\n{\"sessionId\":\"a\",\"errorCode\":\"{token}\",\"errorDescription\":\"{token}\"}",
    ),
    ("sends us elsewhere with it", "HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:9/?{token}\r\n{length}\r\n{token}"),
    ("breaks off", "HTTP/1.1 200 x\r\nContent-Length: 9999\r\n\r\n{\"sessionId\":\"{token}"),
    ("is no HTTP", "{token} {token}\r\n\r\n"),
    ("calls a session so", "HTTP/1.1 201 x\r\n{length}\r\n{\"sessionId\":\"{token}\"}"),
    ("says nothing", SILENCE),
];
/// The answer that does not come.
const SILENCE: &str = "";

/// A server that answers every request with one of [`ILL_WILL`].
struct Hostile {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    /// The tokens that it was shown.
    shown: Arc<Mutex<HashSet<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Hostile {
    fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let shown = Arc::<Mutex<HashSet<String>>>::default();
        let seen = Arc::clone(&shown);
        let thread = thread::spawn(move || {
            let mut waiting = Vec::new();
            for mut stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                // Whoever leaves early has seen enough.
                let _ = Self::reply(&mut stream, answer, &seen);
                if answer == SILENCE {
                    waiting.push(stream);
                }
            }
        });
        Self { address, ends, shown, thread: Some(thread) }
    }

    fn reply(stream: &mut TcpStream, answer: &str, shown: &Mutex<HashSet<String>>) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
        // bounded: each read ends, and a request is short
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            request.extend_from_slice(&buffer[..n]);
        }
        let head = String::from_utf8_lossy(&request).into_owned();
        let token = head.lines().find_map(|line| line.split_once("Bearer ")).map_or("", |(_, token)| token.trim());
        assert!([APP_SECRET, TURN_TOKEN].contains(&token), "the request shows no token: {head}");
        shown.lock().unwrap().insert(token.to_owned());
        let body = answer.split_once("{length}\r\n").map_or("", |(_, body)| body).replace("{token}", token);
        let length = format!("Content-Length: {}\r\nConnection: close\r\n", body.len());
        stream.write_all(answer.replace("{token}", token).replace("{length}", &length).as_bytes())
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        let thread = self.thread.take().unwrap().join();
        assert!(thread.is_ok() || thread::panicking(), "a request was not as it has to be");
    }
}

fn ask(daemon: &Daemon, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let url = Url::parse(&format!("http://{}{path}", daemon.http)).unwrap();
    match http::exchange(method, &url, headers, body) {
        Ok(reply) => format!("{method} {path}: {} {:?}\n{}\n", reply.start_line, reply.headers, reply.body),
        Err(error) => format!("{method} {path}: {error}\n"),
    }
}

/// All that the daemon says to anybody.
pub(super) fn everything(daemon: &Daemon) -> String {
    let mut said = daemon.log() + &daemon.checked_config() + &daemon.state_file();
    said += &std::fs::read_to_string(format!("/proc/{}/cmdline", daemon.process_id())).unwrap();
    for path in [
        "/",
        "/guest_join",
        "/switcher",
        "/static/guest_join.js",
        "/static/whip.js",
        "/healthz",
        "/metrics",
        "/api/page",
        "/api/guests",
        "/api/events",
        "/api/ice-servers",
        "/api/calls/sessions",
        "/config.yml",
        "/static/../config.yml",
    ] {
        said += &ask(daemon, "GET", path, &[], "");
    }
    let metrics = daemon.get("/metrics");
    assert!(metrics.contains("guest_relay_sfu_calls_total"), "{metrics}");
    said + &metrics + &first_event(daemon)
}

/// What a page hears first that listens to `/api/events`, a stream without end.
fn first_event(daemon: &Daemon) -> String {
    let mut stream = TcpStream::connect(daemon.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /api/events HTTP/1.1\r\nHost: {}\r\n\r\n", daemon.http).unwrap();
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let mut event = lines.skip_while(|line| line != "event: status");
    let data = event.nth(1).expect("an event of the status, soon");
    assert!(data.starts_with("data: {"), "{data}");
    data
}

#[track_caller]
pub(super) fn assert_no_canary(said: &str, when: &str) {
    for (canary, name) in [
        (APP_SECRET, "app's secret"),
        (TURN_TOKEN, "TURN token"),
        (RTMP_PASSWORD, "RTMP password"),
        (RTMP_KEY, "RTMP key"),
    ] {
        // Nor a good part of one.
        let part = &canary[..canary.len().min(16)];
        let line = said.lines().find(|line| line.contains(part));
        assert_eq!(line, None, "the {name} was told when {when}");
    }
    assert!(!said.contains("panicked"), "{when}: {said}");
}

/// Offers of every kind of badness.
fn bad_posts(daemon: &Daemon) -> String {
    let sdp = ("Content-Type", "application/sdp");
    let mut said = String::new();
    for endpoint in ["/whip/guest1", "/api/calls/whip/guest1", "/api/calls/whip/nobody", "/api/calls/whip/..%2f"] {
        for (headers, body) in [
            (vec![sdp], ""),
            (vec![sdp], "v=0\r\n"),
            (vec![sdp], "no SDP at all"),
            (vec![("Content-Type", "text/plain")], "v=0\r\n"),
            (
                vec![sdp, ("Authorization", "Bearer guess")],
                "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 X 1\r\n",
            ),
        ] {
            said += &ask(daemon, "POST", endpoint, &headers, body);
        }
    }
    said += &ask(daemon, "DELETE", "/api/calls/session/guest1", &[], "");
    said + &ask(daemon, "PATCH", "/whip/guest1/0123456789abcdef0123456789abcdef", &[], "a=x")
}

fn publish(daemon: &Daemon) -> String {
    let url = format!("http://{}/api/calls/whip/guest1", daemon.http);
    match Publisher::connect(&url, &Clip::chromium_360p()) {
        Ok(publisher) => publisher.answer().to_owned(),
        Err(error) => error.to_string(),
    }
}

const CREDENTIALS: [(&str, &str); 4] = [
    ("CLOUDFLARE_CALLS_API_TOKEN", APP_SECRET),
    ("CLOUDFLARE_TURN_API_TOKEN", TURN_TOKEN),
    ("CLOUDFLARE_CALLS_APP_ID", APP_ID),
    ("CLOUDFLARE_TURN_TOKEN_ID", TURN_KEY),
];

fn output(to: impl std::fmt::Display) -> String {
    format!("rtmp://{to}/{{guest_id}}?user=u&pass={RTMP_PASSWORD}&key={RTMP_KEY}")
}

#[test]
fn servers_that_repeat_what_they_were_told_get_nothing_into_the_open() {
    for (name, answer) in ILL_WILL {
        let api = Hostile::start(answer);
        let sections = format!("cloudflare: {{api_base: 'http://{}/v1'}}\n", api.address);
        let setup = Setup { sections: &sections, log_level: "trace", environment: &CREDENTIALS, ..Setup::default() };
        let daemon = Daemon::start_with(&output("127.0.0.1:9"), setup);
        let mut said = ask(&daemon, "GET", "/api/ice-servers", &[], "");
        said += &publish(&daemon);
        assert_no_canary(&(said + &everything(&daemon)), name);
        let shown = api.shown.lock().unwrap().clone();
        assert_eq!(shown, [APP_SECRET, TURN_TOKEN].map(str::to_owned).into(), "{name}");
    }
}

#[test]
fn no_error_of_a_daemon_at_work_tells_a_secret() {
    let ingest = Ingest::bind(
        "127.0.0.1:0",
        ingest::Options {
            required_query: Some("key=another".to_owned()),
            unauthorized_delay: Duration::ZERO,
            ..Default::default()
        },
    )
    .unwrap();
    let options = sfu_sim::Options {
        secret: APP_SECRET.to_owned(),
        turn_key: Some((TURN_KEY.to_owned(), TURN_TOKEN.to_owned())),
        speed: 5.0,
        ..Default::default()
    };
    let sfu = sfu_sim::SfuSim::start(options).unwrap();
    // In the file this time, as an existing deployment has them.
    let mut sections = String::new();
    writeln!(
        sections,
        "cloudflare: {{calls_app_id: '{APP_ID}', calls_api_token: '{APP_SECRET}', turn_token_id: '{TURN_KEY}', \
         turn_api_token: '{TURN_TOKEN}', api_base: '{}'}}",
        sfu.api_base()
    )
    .unwrap();
    let setup = Setup { sections: &sections, log_level: "trace", ..Setup::default() };
    let daemon = Daemon::start_with(&output(ingest.addr()), setup);
    let studio = Studio { ingest, sfu, daemon };
    let mut said = bad_posts(&studio.daemon);
    for fault in [
        Fault::WrongSecret,
        Fault::UnknownApp,
        Fault::NoService,
        Fault::FailOneIn { n: 1 },
        Fault::LoseReply { calls: 9, endpoint: None },
        Fault::Refuse { calls: 9, endpoint: Some(Endpoint::TracksNew), status: 406 },
        Fault::TooManyRequests { calls: 9, endpoint: None },
    ] {
        studio.sfu.inject(fault);
        said += &publish(&studio.daemon);
        said += &ask(&studio.daemon, "GET", "/api/guests", &[], "");
        studio.sfu.clear_faults();
    }
    // A guest is there, its pull is in trouble, and the RTMP server does not take the key.
    let page = studio.join("guest1", &Clip::chromium_360p());
    assert!(studio.ingest.wait_until(PATIENCE, |all| all.iter().any(|each| each.refused || each.end.is_some())));
    studio.sfu.inject(Fault::FailOneIn { n: 2 });
    if let Some(session) = studio.pulling("guest1") {
        studio.sfu.inject(Fault::KillSession { session });
    }
    thread::sleep(Duration::from_secs(6));
    said += &everything(&studio.daemon);
    studio.sfu.clear_faults();
    page.leave();
    said += &everything(&studio.daemon);
    assert!(said.contains("Unauthorized") || said.contains("unauthorized"), "nothing was refused");
    assert!(studio.daemon.log().contains("TRACE") || studio.daemon.log().contains("DEBUG"));
    assert_no_canary(&said, "it was at work");
}
