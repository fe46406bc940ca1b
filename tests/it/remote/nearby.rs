//! Which way a guest is sent, by the daemon's public address as a STUN server tells it, and which ICE servers guests get.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use loadgen::clip::Clip;
use loadgen::http::{self, Url};
use loadgen::patience::{Deadline, wait_for};
use loadgen::publisher::Publisher;
use sfu_sim::{Endpoint, Fault};

use super::studio::Studio;
use crate::daemon::{Daemon, Setup};
use crate::stun;

/// A STUN server after RFC 8489, byte by byte: it sees all requests come from 198.51.100.20. The first of each client is
/// lost, and before each response comes one to a request that nobody made.
struct StunServer {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StunServer {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let address = socket.local_addr().unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            let mut seen = Vec::new();
            let mut buffer = [0; 1500];
            // bounded: each read ends, and the test says when it is over
            while !ended.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let responses = stun::responses(&buffer[..length]).expect("a Binding request without attributes");
                if !seen.contains(&from) {
                    seen.push(from);
                    continue;
                }
                for datagram in responses {
                    socket.send_to(&datagram, from).unwrap();
                }
            }
        });
        Self { address, ends, thread: Some(thread) }
    }
}

impl Drop for StunServer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let thread = self.thread.take().unwrap().join();
        assert!(thread.is_ok() || thread::panicking(), "the requests were not as RFC 8489 has them");
    }
}

fn get(daemon: &Daemon, path: &str, headers: &[(&str, &str)]) -> (String, serde_json::Value) {
    let url = Url::parse(&format!("http://{}{path}", daemon.http)).unwrap();
    let reply = http::exchange("GET", &url, headers, "").unwrap();
    (reply.second_word().to_owned(), serde_json::from_str(&reply.body).unwrap())
}

/// The way that a page from this address is sent.
fn way(daemon: &Daemon, from: &str) -> String {
    let (_, facts) = get(daemon, "/api/page", &[("CF-Connecting-IP", from)]);
    facts["path"].as_str().unwrap().to_owned()
}

#[test]
fn a_guest_behind_the_same_router_is_sent_the_direct_way_once_the_public_address_is_known() {
    let stun = StunServer::start();
    let server = stun.address.to_string();
    let setup = Setup { stun_server: &server, ..Setup::default() };
    let studio = Studio::with(sfu_sim::Options::default(), "", false, setup);
    let is_known = || way(&studio.daemon, "198.51.100.20") == "direct";
    wait_for("the daemon to know its public address", is_known, || studio.daemon.log());
    assert_eq!(way(&studio.daemon, "198.51.100.21"), "calls");
    // The stray response's.
    assert_eq!(way(&studio.daemon, "57.51.100.20"), "calls");
    studio.daemon.wait_for_log("knows this machine as 198.51.100.20");
}

#[test]
fn without_a_stun_server_only_private_addresses_are_near() {
    let studio = Studio::open(sfu_sim::Options::default(), "");
    assert_eq!(way(&studio.daemon, "198.51.100.20"), "calls");
    assert_eq!(way(&studio.daemon, "192.168.1.77"), "direct");
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = silent.local_addr().unwrap().to_string();
    let setup = Setup { stun_server: &server, ..Setup::default() };
    let studio = Studio::with(sfu_sim::Options::default(), "", false, setup);
    studio.daemon.wait_for_log("it does not answer");
    assert_eq!(way(&studio.daemon, "198.51.100.20"), "calls");
}

const TURN_KEY: &str = "fedcba9876543210fedcba9876543210";
const TURN_TOKEN: &str = "the-turn-keys-own-token";

fn turn_studio(token: &str) -> Studio {
    let key = (TURN_KEY.to_owned(), TURN_TOKEN.to_owned());
    let options = sfu_sim::Options { turn_key: Some(key), ..sfu_sim::Options::default() };
    let environment = [("CLOUDFLARE_TURN_TOKEN_ID", TURN_KEY), ("CLOUDFLARE_TURN_API_TOKEN", token)];
    Studio::with(options, "", false, Setup { environment: &environment, ..Setup::default() })
}

#[test]
fn with_a_turn_key_guests_get_fresh_credentials_without_port_53_by_either_way() {
    let studio = turn_studio(TURN_TOKEN);
    let (status, servers) = get(&studio.daemon, "/api/ice-servers", &[]);
    assert_eq!(status, "200");
    let [stun, turn] = servers["iceServers"].as_array().unwrap().as_slice() else { panic!("{servers}") };
    assert_eq!(*stun, serde_json::json!({"urls": ["stun:stun.cloudflare.com:3478"]}));
    let urls: Vec<_> = turn["urls"].as_array().unwrap().iter().map(|url| url.as_str().unwrap()).collect();
    assert!(urls.contains(&"turns:turn.cloudflare.com:443?transport=tcp"));
    assert!(urls.iter().all(|url| !url.contains(":53?")), "{urls:?}");
    let (username, credential) = (turn["username"].as_str().unwrap(), turn["credential"].as_str().unwrap());

    // The next guest gets the same ones: they are good for a day.
    assert_eq!(get(&studio.daemon, "/api/ice-servers", &[]).1, servers);
    assert_eq!(studio.calls("POST generate-ice-servers"), 1);

    let publisher = Publisher::connect(&studio.endpoint("guest1"), &Clip::chromium_360p()).unwrap();
    let links: Vec<_> = publisher.links().to_vec();
    assert_eq!(links.len(), 1 + urls.len());
    assert_eq!(links[0], "<stun:stun.cloudflare.com:3478>; rel=\"ice-server\"");
    for (url, link) in urls.iter().zip(&links[1..]) {
        let expected = format!(
            "<{url}>; rel=\"ice-server\"; username=\"{username}\"; credential=\"{credential}\"; credential-type=\"password\""
        );
        assert_eq!(*link, expected);
    }
    publisher.stop().unwrap();
    assert!(!studio.daemon.log().contains(TURN_TOKEN) && !studio.daemon.log().contains(credential));
    let direct = Publisher::connect(&studio.daemon.whip_url("guest1"), &Clip::chromium_360p()).unwrap();
    assert!(direct.links().is_empty());
    direct.stop().unwrap();
}

#[test]
fn without_credentials_guests_get_stun_and_the_operator_a_line() {
    let stun = serde_json::json!({"iceServers": [{"urls": ["stun:stun.cloudflare.com:3478"]}]});
    let wrong = turn_studio("not-the-token");
    assert_eq!(get(&wrong.daemon, "/api/ice-servers", &[]), ("200".to_owned(), stun.clone()));
    wrong.daemon.wait_for_log("no TURN credentials");
    let log = wrong.daemon.log();
    assert!(log.contains("check cloudflare.turn_api_token"), "{log}");
    assert!(!log.contains("not-the-token"));

    let failing = turn_studio(TURN_TOKEN);
    failing.sfu.inject(Fault::Fail { calls: 9, endpoint: Some(Endpoint::TurnCredentials) });
    for _ in 0..3 {
        assert_eq!(get(&failing.daemon, "/api/ice-servers", &[]).1, stun);
    }
    assert_eq!(failing.calls("POST generate-ice-servers"), 1, "the API is left alone for a while");

    // Nobody waits for a reply that does not come; it is of use to the next guest.
    let slow = turn_studio(TURN_TOKEN);
    let fault = Fault::SlowReply { calls: 1, endpoint: Some(Endpoint::TurnCredentials), milliseconds: 2_500 };
    slow.sfu.inject(fault);
    assert_eq!(get(&slow.daemon, "/api/ice-servers", &[]).1, stun);
    let deadline = Deadline::new("the credentials that came late");
    while get(&slow.daemon, "/api/ice-servers", &[]).1 == stun {
        deadline.check(|| slow.daemon.log());
        // No more than 30 a minute are answered.
        thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(slow.calls("POST generate-ice-servers"), 1);
}
