//! What the tests call the API with, and the two kinds of clients: a publisher (loadgen's) and a subscriber.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loadgen::clip::Clip;
use loadgen::guest::{Guest, GuestConfig};
use loadgen::http::{self, Url};
use loadgen::patience::Deadline;
pub(crate) use loadgen::patience::PATIENCE;
use loadgen::replay::SentUnit;
use loadgen::socket;
use loadgen::stack::{Stack, Transmit};
use serde_json::{Value, json};
use sfu_sim::SfuSim;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, KeyframeRequestKind, MediaKind};
use str0m::rtp::RtpPacket;
use str0m::{Event, Rtc};

/// Status and body.
pub(crate) type Answer = (u16, Value);

/// A client of the API.
pub(crate) struct Api {
    base: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Api {
    pub(crate) fn of(sfu: &SfuSim) -> Api {
        Api {
            base: format!("{}/apps/{}", sfu.api_base(), sfu.app_id()),
            headers: vec![
                ("User-Agent".to_owned(), "test".to_owned()),
                ("Authorization".to_owned(), format!("Bearer {}", sfu.secret())),
            ],
        }
    }

    pub(crate) fn try_call(&self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        let url = Url::parse(&format!("{}/{path}", self.base)).unwrap();
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let reply = http::exchange(method, &url, &headers, body)?;
        let status = reply.second_word().parse().unwrap();
        let body = serde_json::from_str(&reply.body).unwrap_or(Value::String(reply.body));
        Ok((status, body))
    }

    pub(crate) fn call(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.try_call(method, path, &body).unwrap()
    }

    pub(crate) fn new_session(&self) -> String {
        let (status, body) = self.call("POST", "sessions/new", &Value::Null);
        assert_eq!(status, 201, "{body}");
        body["sessionId"].as_str().unwrap().to_owned()
    }

    pub(crate) fn tracks_new(&self, session: &str, body: &Value) -> Answer {
        self.call("POST", &format!("sessions/{session}/tracks/new"), body)
    }

    pub(crate) fn renegotiate(&self, session: &str, kind: &str, sdp: &str) -> Answer {
        let body = json!({"sessionDescription": {"type": kind, "sdp": sdp}});
        self.call("PUT", &format!("sessions/{session}/renegotiate"), &body)
    }

    pub(crate) fn close(&self, session: &str, mids: &[&str]) -> Answer {
        let tracks: Vec<Value> = mids.iter().map(|mid| json!({"mid": mid})).collect();
        let body = json!({"force": true, "tracks": tracks});
        self.call("PUT", &format!("sessions/{session}/tracks/close"), &body)
    }

    pub(crate) fn get(&self, session: &str) -> Answer {
        self.call("GET", &format!("sessions/{session}"), &Value::Null)
    }
}

pub(crate) fn remote(session: &str, track: &str) -> Value {
    json!({"location": "remote", "sessionId": session, "trackName": track})
}

/// The mid of the n-th section of a kind.
pub(crate) fn mid_of(sdp: &str, kind: &str) -> String {
    let section = sdp.split("\r\nm=").find(|section| section.starts_with(kind)).unwrap();
    let mid = section.lines().find_map(|line| line.strip_prefix("a=mid:"));
    mid.unwrap().to_owned()
}

/// A peer with its socket.
pub(crate) trait Endpoint {
    fn socket(&self) -> &UdpSocket;
    fn step(&mut self, buffer: &mut [u8]) -> Instant;
}

/// Runs peers until `done`; false when that takes too long.
pub(crate) fn run(
    peers: &mut [&mut dyn Endpoint],
    patience: Duration,
    mut done: impl FnMut(&mut [&mut dyn Endpoint]) -> bool,
) -> bool {
    let deadline = Instant::now() + patience;
    let mut buffer = vec![0; 2048];
    loop {
        let mut wake = Instant::now() + Duration::from_millis(10);
        for peer in peers.iter_mut() {
            wake = wake.min(peer.step(&mut buffer));
        }
        if done(peers) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        let sockets: Vec<&UdpSocket> = peers.iter().map(|peer| peer.socket()).collect();
        socket::wait_readable(&sockets, wake).unwrap();
    }
}

/// Runs a publisher and a subscriber until they are `reached` by what is waited for.
#[track_caller]
pub(crate) fn run_until(
    what: &str,
    publisher: &mut Publisher,
    subscriber: &mut Subscriber,
    reached: impl Fn(&Publisher, &Subscriber) -> bool,
) {
    let deadline = Deadline::new(what);
    while !reached(publisher, subscriber) {
        deadline.check(|| format!("{:?}, {} packets", publisher.guest.stats(), subscriber.packets.len()));
        run(&mut [publisher, subscriber], Duration::from_millis(10), |_| false);
    }
}

fn media_socket() -> UdpSocket {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Publishes a clip in a session of its own.
pub(crate) struct Publisher {
    pub(crate) guest: Guest,
    pub(crate) session: String,
    pub(crate) answer: String,
    pub(crate) offer: String,
    pub(crate) sent: Vec<SentUnit>,
    pub(crate) silent: bool,
    pub(crate) video_delay: Duration,
    delayed: VecDeque<(Instant, Transmit)>,
    socket: UdpSocket,
}

impl Publisher {
    /// With explicit tracks `audio` and `video`; the media start when it is run.
    pub(crate) fn publish(api: &Api, clip: &Arc<Clip>) -> Publisher {
        let session = api.new_session();
        let (mut publisher, tracks) = Publisher::prepare(clip, session);
        let body = json!({
            "sessionDescription": {"type": "offer", "sdp": publisher.offer},
            "tracks": tracks,
        });
        let (status, reply) = api.tracks_new(&publisher.session, &body);
        assert_eq!(status, 200, "{reply}");
        assert_eq!(reply["requiresImmediateRenegotiation"], false);
        let answer = &reply["sessionDescription"];
        assert_eq!(answer["type"], "answer");
        publisher.accept(answer["sdp"].as_str().unwrap());
        publisher
    }

    /// Not yet published; with the `tracks` of the call that does it.
    pub(crate) fn prepare(clip: &Arc<Clip>, session: String) -> (Publisher, Value) {
        let publisher = Publisher::new(clip, session);
        let tracks = json!([
            {"location": "local", "mid": mid_of(&publisher.offer, "audio"), "trackName": "audio"},
            {"location": "local", "mid": mid_of(&publisher.offer, "video"), "trackName": "video"},
        ]);
        (publisher, tracks)
    }

    pub(crate) fn new(clip: &Arc<Clip>, session: String) -> Publisher {
        let socket = media_socket();
        let address = socket.local_addr().unwrap();
        let (guest, offer) = Guest::new(clip, GuestConfig::default(), address, Instant::now());
        Publisher {
            guest,
            session,
            answer: String::new(),
            offer,
            sent: Vec::new(),
            silent: false,
            video_delay: Duration::ZERO,
            delayed: VecDeque::new(),
            socket,
        }
    }

    pub(crate) fn accept(&mut self, answer: &str) {
        answer.clone_into(&mut self.answer);
        self.guest.handle_answer(answer, Instant::now()).unwrap();
    }
}

impl Endpoint for Publisher {
    fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    fn step(&mut self, buffer: &mut [u8]) -> Instant {
        while let Some((length, from)) = socket::receive(&self.socket, buffer).unwrap() {
            self.guest.handle_datagram(&buffer[..length], from, Instant::now());
        }
        let now = Instant::now();
        if self.guest.poll_timeout() <= now {
            self.guest.handle_timeout(now);
        }
        while let Some(transmit) = self.guest.poll_transmit() {
            let is_video =
                matches!(transmit.datagram[..], [128..=191, second, ..] if [108, 109].contains(&(second & 0x7F)));
            if is_video {
                self.delayed.push_back((now + self.video_delay, transmit));
            } else if !self.silent {
                socket::send(&self.socket, &transmit).unwrap();
            }
        }
        while let Some((_, transmit)) = self.delayed.pop_front_if(|(due, _)| *due <= now) {
            if !self.silent {
                socket::send(&self.socket, &transmit).unwrap();
            }
        }
        self.sent.extend(self.guest.take_sent());
        self.guest.poll_timeout()
    }
}

/// Pulls in a session of its own.
pub(crate) struct Subscriber {
    pub(crate) stack: Stack,
    pub(crate) session: String,
    pub(crate) connected: bool,
    pub(crate) packets: Vec<RtpPacket>,
    /// Of these datagrams with RTP in them every n-th is dropped.
    pub(crate) drop_every: Option<u32>,
    received: u32,
    pub(crate) dropped: u32,
    /// Packets with the P bit.
    pub(crate) paddings: u32,
    pub(crate) silent: bool,
    socket: UdpSocket,
    pending: Option<SdpPendingOffer>,
}

impl Subscriber {
    pub(crate) fn new(session: String) -> Subscriber {
        Subscriber::behind(media_socket(), session)
    }

    pub(crate) fn behind(socket: UdpSocket, session: String) -> Subscriber {
        let mut config = Rtc::builder().set_rtp_mode(true).clear_codecs().enable_opus(true, false);
        config.codec_config().add_h264(108.into(), Some(109.into()), true, 0x42_e034);
        let stack = Stack::new(config, socket.local_addr().unwrap(), Instant::now());
        Subscriber {
            stack,
            session,
            connected: false,
            packets: Vec::new(),
            drop_every: None,
            received: 0,
            dropped: 0,
            paddings: 0,
            silent: false,
            socket,
            pending: None,
        }
    }

    /// The answer to an offer; str0m takes the DTLS server's role by itself, so the caller is told to write `active`.
    pub(crate) fn answer(&mut self, offer: &str) -> String {
        // str0m answers actpass with passive; a description that asks for active leaves it no choice.
        let offer = offer.replace("a=setup:actpass", "a=setup:passive");
        let offer = SdpOffer::from_sdp_string(&offer).unwrap();
        let answer = self.stack.rtc.sdp_api().accept_offer(offer).unwrap();
        self.stack.drain();
        let answer = answer.to_sdp_string();
        assert!(answer.contains("a=setup:active"));
        answer
    }

    /// A recvonly offer for one audio and one video track.
    pub(crate) fn offer(&mut self) -> String {
        let mut api = self.stack.rtc.sdp_api();
        api.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
        api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        let (offer, pending) = api.apply().unwrap();
        self.pending = Some(pending);
        self.stack.drain();
        offer.to_sdp_string()
    }

    pub(crate) fn accept(&mut self, answer: &str) {
        let answer = SdpAnswer::from_sdp_string(answer).unwrap();
        let pending = self.pending.take().unwrap();
        self.stack.rtc.sdp_api().accept_answer(pending, answer).unwrap();
        self.stack.drain();
    }

    /// Form A in one go.
    pub(crate) fn pull(api: &Api, tracks: &Value) -> Subscriber {
        let mut subscriber = Subscriber::new(api.new_session());
        let reply = subscriber.pull_more(api, tracks);
        assert!(reply["tracks"].as_array().unwrap().iter().all(|track| track["errorCode"].is_null()), "{reply}");
        subscriber
    }

    pub(crate) fn pull_more(&mut self, api: &Api, tracks: &Value) -> Value {
        let (status, reply) = api.tracks_new(&self.session, &json!({"tracks": tracks}));
        assert_eq!(status, 200, "{reply}");
        assert_eq!(reply["requiresImmediateRenegotiation"], true, "{reply}");
        let answer = self.answer(reply["sessionDescription"]["sdp"].as_str().unwrap());
        let (status, body) = api.renegotiate(&self.session, "answer", &answer);
        assert_eq!((status, body), (200, json!({})));
        reply
    }

    pub(crate) fn request_keyframe(&mut self, kind: KeyframeRequestKind) {
        let ssrc = self.packets.iter().find(|packet| !self.is_audio(packet)).unwrap().header.ssrc;
        let mut api = self.stack.rtc.direct_api();
        api.stream_rx(&ssrc).unwrap().request_keyframe(kind);
        self.stack.drain();
        self.stack.handle_timeout(Instant::now());
    }

    /// str0m sends no NACK when the SSRC of retransmissions was not told.
    pub(crate) fn ask_for_lost_packets(&mut self) {
        let ssrc = self.packets.first().unwrap().header.ssrc;
        let mut api = self.stack.rtc.direct_api();
        api.stream_rx(&ssrc).unwrap().suppress_nack(false);
        self.stack.drain();
    }

    pub(crate) fn is_audio(&self, packet: &RtpPacket) -> bool {
        packet.time.frequency().get() == 48_000
    }

    pub(crate) fn close(&mut self) {
        self.stack.rtc.close().unwrap();
        self.stack.drain();
        self.stack.handle_timeout(Instant::now());
        while let Some(transmit) = self.stack.poll_transmit() {
            socket::send(&self.socket, &transmit).unwrap();
        }
    }
}

impl Endpoint for Subscriber {
    fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    fn step(&mut self, buffer: &mut [u8]) -> Instant {
        while let Some((length, from)) = socket::receive(&self.socket, buffer).unwrap() {
            let datagram = &buffer[..length];
            let is_rtp = matches!(datagram, [128..=191, second, ..] if !(192..=223).contains(second));
            if is_rtp {
                self.received += 1;
                // RTP headers are not encrypted.
                self.paddings += u32::from(datagram[0] & 0x20 != 0);
                if self.drop_every.is_some_and(|every| self.received.is_multiple_of(every)) {
                    self.dropped += 1;
                    continue;
                }
            }
            self.stack.handle_datagram(datagram, from, Instant::now());
        }
        let now = Instant::now();
        if self.stack.poll_timeout() <= now {
            self.stack.handle_timeout(now);
        }
        while let Some(event) = self.stack.poll_event() {
            match event {
                Event::Connected => self.connected = true,
                Event::RtpPacket(packet) => self.packets.push(packet),
                _ => {}
            }
        }
        while let Some(transmit) = self.stack.poll_transmit() {
            if !self.silent {
                socket::send(&self.socket, &transmit).unwrap();
            }
        }
        self.stack.poll_timeout()
    }
}
