//! A service that does its work, but answers one kind of call with the app's secret in all that it says: it stands between
//! the daemon and the simulated SFU. Whatever state that call finds the daemon in, the secret goes no further.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use ingest::Ingest;
use loadgen::clip::Clip;
use loadgen::http::{self, Message, Url};
use loadgen::patience::PATIENCE;
use sfu_sim::{Fault, Options, SfuSim};

use super::secrets::{APP_SECRET, assert_no_canary, everything};
use super::studio::Studio;
use crate::daemon::{Daemon, Setup};

/// A kind of call: method, end of the path, a part of the body.
type Kind = (&'static str, &'static str, &'static str);

const KINDS: [Kind; 6] = [
    ("POST", "/sessions/new", ""),
    ("POST", "/tracks/new", "\"local\""),
    ("POST", "/tracks/new", "\"remote\""),
    ("PUT", "/renegotiate", ""),
    ("PUT", "/tracks/close", ""),
    ("GET", "", ""),
];

/// Status, and a body that fits every call.
const ANSWERS: [(&str, &str); 2] = [
    ("500 Internal Server Error", "{\"errorCode\":\"{token}\",\"errorDescription\":\"Bearer {token}\"}"),
    (
        "200 OK",
        "{\"sessionId\":\"{token}\",\"requiresImmediateRenegotiation\":false,\
         \"sessionDescription\":{\"type\":\"answer\",\"sdp\":\"v=0\\r\\ns={token}\\r\\n\"},\
         \"tracks\":[{\"location\":\"remote\",\"trackName\":\"video\",\"mid\":\"{token}\",\"status\":\"{token}\",\
         \"errorCode\":\"{token}\",\"errorDescription\":\"{token}\"}]}",
    ),
];

struct Between {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    /// Calls that it answered itself.
    spoilt: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Between {
    fn start(sfu: &SfuSim, kind: Kind, answer: (&'static str, &'static str)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let service = Url::parse(&sfu.api_base()).unwrap().authority;
        let (ends, spoilt) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let (ended, count) = (Arc::clone(&ends), Arc::clone(&spoilt));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let (service, count) = (service.clone(), Arc::clone(&count));
                // A call may be held while the next one comes.
                thread::spawn(move || {
                    // Either side may go away in the middle of it.
                    let _ = pass_on(&stream, &service, kind, answer, &count);
                });
            }
        });
        Self { address, ends, spoilt, thread: Some(thread) }
    }

    fn spoilt(&self) -> u32 {
        self.spoilt.load(Ordering::Relaxed)
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn pass_on(
    mut stream: &TcpStream,
    service: &str,
    (method, end, part): Kind,
    (status, body): (&str, &str),
    spoilt: &AtomicU32,
) -> io::Result<()> {
    let request = Message::read_from(stream)?;
    let path = request.second_word();
    if request.method() == method && path.ends_with(end) && request.body.contains(part) {
        let token = request.header("authorization").unwrap_or_default().trim_start_matches("Bearer ");
        let body = body.replace("{token}", token);
        spoilt.fetch_add(u32::from(token == APP_SECRET), Ordering::Relaxed);
        return write!(
            stream,
            "HTTP/1.1 {status}\r\ncf-ray: {token}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
    let url = Url { authority: service.to_owned(), path: path.to_owned() };
    let is_passed_on =
        |name: &str| !["host", "content-length", "connection"].iter().any(|own| name.eq_ignore_ascii_case(own));
    let headers = request.headers.iter().filter(|(name, _)| is_passed_on(name));
    let headers: Vec<_> = headers.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut reply = http::exchange(request.method(), &url, &headers, &request.body)?;
    reply.headers.retain(|(name, _)| is_passed_on(name));
    reply.write_to(stream)
}

fn spoil(kind: Kind, answer: (&'static str, &'static str)) {
    let name = format!("{kind:?} was answered with {}", answer.0);
    let ingest = Ingest::bind("127.0.0.1:0", ingest::Options::default()).unwrap();
    let sfu = SfuSim::start(Options { secret: APP_SECRET.to_owned(), speed: 5.0, ..Options::default() }).unwrap();
    let between = Between::start(&sfu, kind, answer);
    let sections =
        format!("cloudflare: {{calls_app_id: '{}', api_base: 'http://{}/v1'}}\n", sfu.app_id(), between.address);
    let setup = Setup {
        sections: &sections,
        log_level: "trace",
        environment: &[("CLOUDFLARE_CALLS_API_TOKEN", APP_SECRET)],
        ..Setup::default()
    };
    let daemon = Daemon::start_with(&format!("rtmp://{}/{{guest_id}}", ingest.addr()), setup);
    let studio = Studio { ingest, sfu, daemon };
    let page = studio.join("guest1", &Clip::chromium_360p());
    match kind {
        // Something has to be asked first, and then to be closed.
        ("GET", ..) | (_, "/tracks/close", _) => {
            studio.wait_live("guest1");
            studio.sfu.inject(Fault::KillSession { session: studio.pulling("guest1").unwrap() });
            studio.wait_live("guest1");
        }
        _ => {}
    }
    let is_spoilt = || between.spoilt() > 0;
    if kind.1 != "/tracks/close" {
        assert!(studio.sfu.wait(PATIENCE, |_| is_spoilt()), "{name}: {}", studio.daemon.log());
    }
    let mut said = everything(&studio.daemon) + &format!("{:?}", page.diary());
    page.leave();
    assert!(studio.sfu.wait(PATIENCE, |_| is_spoilt()), "{name}: {}", studio.daemon.log());
    said += &everything(&studio.daemon);
    assert!(said.contains("TRACE") || said.contains("DEBUG"), "{name}: nothing is told");
    assert_no_canary(&said, &name);
}

#[test]
fn a_service_that_repeats_the_secret_at_any_stage_gets_it_nowhere() {
    for answer in ANSWERS {
        thread::scope(|scope| {
            for kind in KINDS {
                scope.spawn(move || spoil(kind, answer));
            }
        });
    }
}
