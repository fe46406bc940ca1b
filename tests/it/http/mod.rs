//! The HTTP server over loopback, byte by byte, with a backend that only remembers what it was asked.
#![allow(clippy::unwrap_used)]

mod field;
mod metrics;
mod pages;
mod server;
mod sfu;
mod whip;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use guest_relay_muxer::TrackKind;

use guest_relay::config::Config;
use guest_relay::guest::id::{GuestId, ResourceId};
use guest_relay::guest::{Guest, State};
use guest_relay::http::backend::{
    Admission, Backend, ClientInfo, Farewell, Fault, GuestStatus, Health, Hop, IceServer, KeyframeRequest, Left,
    MediaPath, NoAnswer, Problem, Published, Refusal, RtmpState,
};
use guest_relay::http::metrics::{GuestMeasurements, RtmpMeasurements, TrackMeasurements};
use guest_relay::http::{Limits, Site, serve};
use guest_relay::secret::Secret;
use loadgen::patience::PATIENCE;

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";
const ANSWER: &str = "v=0\r\ns=answer\r\n";
/// The resource that the fake backend gives to its first session.
const FIRST: &str = "01010101010101010101010101010101";
const SECOND: &str = "02020202020202020202020202020202";

/// The address by which the internet knows the fake backend's network.
const OWN_PUBLIC_ADDRESS: &str = "198.51.100.20";

/// guest1 and guest2 are open, guest3 is closed; guest2's offers are refused, those of "slow" take a while, those of
/// "panic" end in a panic; since an offer of "mute" the media thread does not answer; of those through the SFU, guest2's are refused for a wrong secret. Every call is noted.
#[derive(Default)]
struct Fake {
    calls: RefCell<Vec<String>>,
    sessions: RefCell<u8>,
    holder: RefCell<Option<ResourceId>>,
    holder_path: RefCell<Option<MediaPath>>,
    publisher: RefCell<Option<IpAddr>>,
}

impl Fake {
    /// The media thread's answer, if it gives any.
    fn answer<T>(&self, answer: T) -> Result<T, NoAnswer> {
        let is_mute = self.calls.borrow().iter().any(|call| call.starts_with("publish mute"));
        if is_mute { Err(NoAnswer) } else { Ok(answer) }
    }
}

impl Backend for Fake {
    fn admission(&self, guest: &GuestId) -> Admission {
        match guest.as_str() {
            "guest1" | "guest2" | "slow" | "panic" | "mute" => Admission::Open,
            "guest3" => Admission::Closed,
            _ => Admission::Unknown,
        }
    }

    async fn publish(
        &self,
        guest: &GuestId,
        path: MediaPath,
        offer: String,
        former: Option<ResourceId>,
        client: ClientInfo,
    ) -> Result<Published, Refusal> {
        if let Some(former) = former {
            self.calls.borrow_mut().push(format!("goes on for {}", former.as_str()));
        }
        let (remote_ip, tunnelled) = (client.remote_ip, client.tunnelled);
        self.calls.borrow_mut().push(format!("publish {guest} {path:?} {remote_ip} tunnelled={tunnelled}"));
        assert!(client.local_addr.ip().is_loopback());
        match guest.as_str() {
            "guest2" if path == MediaPath::Sfu => Err(Refusal::new(503, "not set up correctly")
                .fault(Fault::SfuMisconfigured)
                .retry_after(Duration::from_secs(5))),
            "guest2" => Err(Refusal::new(406, "the offer has no H.264").retry_after(Duration::from_millis(1500))),
            "mute" => Err(Refusal::new(503, "mute")),
            "panic" => panic!("a panic that a test asked for"),
            "slow" => {
                smol::Timer::after(Duration::from_millis(400)).await;
                Err(Refusal::new(503, "slow"))
            }
            _ => {
                assert_eq!(offer, OFFER);
                *self.sessions.borrow_mut() += 1;
                let resource = ResourceId::from_random([*self.sessions.borrow(); 16]);
                *self.holder.borrow_mut() = Some(resource.clone());
                *self.holder_path.borrow_mut() = Some(path);
                *self.publisher.borrow_mut() = Some(client.network());
                Ok(Published { resource, etag: "ice-1".into(), answer_sdp: ANSWER.into() })
            }
        }
    }

    fn session_etag(&self, guest: &GuestId, resource: &ResourceId) -> Option<String> {
        let holds = guest.as_str() == "guest1" && self.holder.borrow().as_ref() == Some(resource);
        holds.then(|| "ice-1".to_owned())
    }

    async fn trickle(&self, guest: &GuestId, _: &ResourceId, fragment: String) -> Result<(), Refusal> {
        self.calls.borrow_mut().push(format!("trickle {guest} {fragment}"));
        Ok(())
    }

    async fn leave(&self, guest: &GuestId, resource: &ResourceId, farewell: Farewell) -> Left {
        self.calls.borrow_mut().push(format!("leave {guest} {farewell:?}"));
        if self.session_etag(guest, resource).is_none() {
            return Left::NoSuchSession;
        }
        *self.holder.borrow_mut() = None;
        Left::Ended
    }

    fn sfu_configured(&self) -> bool {
        true
    }

    fn own_public_addresses(&self) -> Vec<IpAddr> {
        vec![OWN_PUBLIC_ADDRESS.parse().unwrap(), "2001:db8:1:2::3".parse().unwrap()]
    }

    async fn ice_servers(&self) -> Vec<IceServer> {
        let turn = IceServer {
            urls: vec!["turn:turn.example.org:3478?transport=udp".into()],
            username: Some("somebody".into()),
            credential: Some(Secret::new("can\"ary".into())),
        };
        self.calls.borrow_mut().push(format!("ice servers {turn:?}"));
        vec![IceServer::cloudflare_stun(), turn]
    }

    fn dropped_tracks(&self, _: &GuestId) -> Vec<TrackKind> {
        match *self.holder_path.borrow() {
            Some(MediaPath::Sfu) => vec![TrackKind::Video],
            _ => vec![],
        }
    }

    fn sfu_sessions(&self) -> Vec<(GuestId, String)> {
        let held = self.holder.borrow().is_some();
        match *self.holder_path.borrow() {
            Some(MediaPath::Sfu) if held => {
                vec![(GuestId::parse("guest1").unwrap(), "5f".repeat(16))]
            }
            _ => vec![],
        }
    }

    async fn close_sfu_session(&self, guest: &GuestId) -> Left {
        self.calls.borrow_mut().push(format!("close {guest}"));
        match self.holder.borrow_mut().take() {
            Some(_) => Left::Ended,
            None => Left::NoSuchSession,
        }
    }

    fn publisher(&self, guest: &GuestId) -> Option<IpAddr> {
        (*self.publisher.borrow()).filter(|_| guest.as_str() == "guest1")
    }

    fn configured(&self) -> Vec<Guest> {
        let guest = |id, name: &str, enabled| Guest { id: GuestId::parse(id).unwrap(), name: name.into(), enabled };
        vec![guest("guest1", "Guest 1", true), guest("guest2", "Gjest på \"lufta\"", false)]
    }

    async fn state(&self, guest: &GuestId) -> Result<State, NoAnswer> {
        self.answer(if guest.as_str() == "guest1" { State::Live } else { State::Absent })
    }

    async fn request_keyframe(&self, guest: &GuestId) -> Result<KeyframeRequest, NoAnswer> {
        self.calls.borrow_mut().push(format!("keyframe {guest}"));
        self.answer(match guest.as_str() {
            "guest1" => KeyframeRequest::Asked,
            "guest2" => KeyframeRequest::NoPicture,
            _ => KeyframeRequest::NoSuchGuest,
        })
    }

    async fn guests(&self) -> Result<Vec<GuestStatus>, NoAnswer> {
        let id = |text| GuestId::parse(text).unwrap();
        self.answer(vec![
            GuestStatus {
                state: State::Live,
                path: Some(MediaPath::Direct),
                codec: Some("H264"),
                width: Some(1280),
                height: Some(720),
                fps: Some(29.97),
                bitrate_kbps: Some(2400),
                loss: Some(0.01),
                jitter_ms: Some(1.5),
                last_keyframe_age_ms: Some(1200),
                rtmp: RtmpState::Live,
                since: Some(UNIX_EPOCH + Duration::from_secs(1_767_225_599)),
                ..GuestStatus::absent(id("guest1"), "Guest 1".into(), true)
            },
            GuestStatus::absent(id("guest2"), "Gjest på \"lufta\"".into(), false).with_problems(vec![
                Problem {
                    hop: Hop::Rtmp,
                    code: "rtmp-unreachable",
                    words: "the media server cannot be reached".into(),
                    remedy: Some("start it".into()),
                    since: Some(UNIX_EPOCH + Duration::from_secs(1_767_225_599)),
                },
                Problem {
                    hop: Hop::Sfu,
                    code: "sfu-pull",
                    words: "sessions/new: refused with 401".into(),
                    remedy: None,
                    since: None,
                },
            ]),
        ])
    }

    async fn measurements(&self) -> Result<Vec<GuestMeasurements>, NoAnswer> {
        self.answer(measured())
    }

    async fn health(&self) -> Health {
        if let Err(no_answer) = self.answer(()) {
            return Health::Unhealthy(no_answer.to_string());
        }
        match self.calls.borrow().iter().any(|call| call.starts_with("trickle")) {
            true => Health::Unhealthy("no RTMP server".into()),
            false => Health::Healthy,
        }
    }
}

/// guest1 is live and each of its numbers is another one, guest2 is absent.
fn measured() -> Vec<GuestMeasurements> {
    let ms = Duration::from_millis;
    let absent = |id: &str| GuestMeasurements {
        id: GuestId::parse(id).unwrap(),
        state: State::Absent,
        held: Duration::ZERO,
        bitrate_kbps: None,
        fps: None,
        size: None,
        audio: TrackMeasurements::default(),
        video: TrackMeasurements::default(),
        round_trip: None,
        pli: 0,
        fir: 0,
        keyframe_age: None,
        frames: 0,
        keyframes: 0,
        frames_dropped: 0,
        freezes: 0,
        frozen: Duration::ZERO,
        av_skew_micros: None,
        rtmp: RtmpMeasurements {
            state: RtmpState::Idle,
            connections: 0,
            bytes_written: 0,
            pictures_dropped: 0,
            audio_frames_dropped: 0,
            queued_bytes: 0,
            queued: Duration::ZERO,
            round_trip: None,
        },
    };
    let live = GuestMeasurements {
        state: State::Live,
        held: ms(12_500),
        bitrate_kbps: Some(2400),
        fps: Some(29.97),
        size: Some((1280, 720)),
        audio: TrackMeasurements {
            packets: 1500,
            payload_bytes: 90_000,
            recovered_by_red: 6,
            ..TrackMeasurements::default()
        },
        video: TrackMeasurements {
            packets: 8000,
            payload_bytes: 8_800_000,
            lost: 7,
            recovered_by_rtx: 40,
            recovered_by_nack: 45,
            recovered_by_red: 0,
            nacked: 60,
            jitter: Some(Duration::from_micros(1500)),
        },
        round_trip: Some(ms(42)),
        pli: 5,
        fir: 1,
        keyframe_age: Some(ms(1200)),
        frames: 900,
        keyframes: 3,
        frames_dropped: 4,
        freezes: 2,
        frozen: ms(750),
        av_skew_micros: Some(-12_500),
        rtmp: RtmpMeasurements {
            state: RtmpState::Live,
            connections: 2,
            bytes_written: 9_000_000,
            pictures_dropped: 30,
            audio_frames_dropped: 8,
            queued_bytes: 4096,
            queued: ms(33),
            round_trip: Some(ms(1)),
        },
        ..absent("guest1")
    };
    vec![live, absent("guest2")]
}

/// A server on a thread of its own; ends with the test.
struct Server {
    address: SocketAddr,
    /// Has a guest's life go on.
    changes: smol::channel::Sender<(GuestId, State)>,
    /// Asks for the backend's notes.
    notes: smol::channel::Sender<mpsc::Sender<Vec<String>>>,
}

fn quick() -> Limits {
    Limits {
        connections: 64,
        idle: Duration::from_secs(1),
        head: Duration::from_secs(1),
        body: Duration::from_secs(1),
        write: Duration::from_secs(1),
        linger: Duration::from_secs(1),
    }
}

impl Server {
    fn start(limits: Limits, offers_per_minute: u32) -> Self {
        let mut config = Config::default();
        config.http.offers_per_minute = offers_per_minute;
        config.http.public_url = Some("https://recorder.example.org".into());
        let (address_out, address) = mpsc::channel();
        let (notes, wanted) = smol::channel::unbounded::<mpsc::Sender<Vec<String>>>();
        let (changes, changed) = smol::channel::unbounded();
        thread::spawn(move || {
            let executor = smol::LocalExecutor::new();
            smol::block_on(executor.run(async {
                let listener = smol::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                address_out.send(listener.local_addr().unwrap()).unwrap();
                let site = Rc::new(Site::new(Fake::default(), &config));
                let reported = Rc::clone(&site);
                let report = async move {
                    // bounded: ends with the server, when its test drops the sender
                    while let Ok(asker) = wanted.recv().await {
                        asker.send(reported.backend.calls.borrow().clone()).unwrap();
                    }
                };
                let changing = Rc::clone(&site);
                let change = async move {
                    // bounded: as above
                    while let Ok((guest, state)) = changed.recv().await {
                        changing.events.publish_state(&guest, state);
                    }
                };
                let asked = smol::future::zip(report, change);
                smol::future::or(serve(listener, &executor, site, limits), async {
                    asked.await;
                })
                .await;
            }));
        });
        Self { address: address.recv_timeout(PATIENCE).expect("the server listens"), changes, notes }
    }

    fn change(&self, guest: &str, state: State) {
        self.changes.send_blocking((GuestId::parse(guest).unwrap(), state)).unwrap();
    }

    fn new() -> Self {
        Self::start(quick(), 1000)
    }

    fn calls(&self) -> Vec<String> {
        let (asker, answer) = mpsc::channel();
        self.notes.send_blocking(asker).unwrap();
        answer.recv_timeout(PATIENCE).expect("the backend tells its calls")
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes, closes nothing, reads until the server closes.
    fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // The server may refuse and close before everything is sent.
        let _ = stream.write_all(bytes);
        Answer::read(&mut stream)
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.raw(format!("{head}\r\n{body}").as_bytes())
    }

    fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "")
    }

    fn offer(&self, guest: &str, headers: &[(&str, &str)]) -> Answer {
        let headers = [&[("Content-Type", "application/sdp")], headers].concat();
        self.request("POST", &format!("/whip/{guest}"), &headers, OFFER)
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Self::parse(&bytes)
    }

    /// Status 0 stands for a connection that was closed without a word.
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    fn headers(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    fn header(&self, name: &str) -> &str {
        let values = self.headers(name);
        assert_eq!(values.len(), 1, "{name} in {}", self.head);
        values[0]
    }
}
