//! A WHIP server that records one publisher: HTTP on one TCP port, media on one UDP port, both on the same address.
//!
//! Input: `GET /` (a page that publishes the browser's camera and microphone), `POST /whip` (any path below it too),
//! `DELETE`; output: a [`Recording`]. One publisher at a time; a second POST replaces the first.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use str0m::media::KeyframeRequestKind;

use crate::http::Message;
use crate::receiver::{Receiver, ReceiverConfig};
use crate::rtp;
use crate::rtpdump::{self, Record, RecordKind};
use crate::sdp;
use crate::socket;

const PAGE: &str = include_str!("record.html");
/// How long the loop sleeps at most, so that HTTP requests are seen.
const TICK: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, Default)]
pub struct RecordOptions {
    pub receiver: ReceiverConfig,
    /// Media that is thrown away first, so that the browser's bitrate ramp is over.
    pub skip: Duration,
    /// Length of the recording, from its first IDR on.
    pub length: Duration,
    /// Asks for a keyframe this often; one is always asked for at the start of the recording.
    pub keyframe_every: Option<Duration>,
    /// Gives up when no recording came together in this time.
    pub deadline: Duration,
}

/// What was recorded.
#[derive(Clone, Debug)]
pub struct Recording {
    pub header: rtpdump::Header,
    pub records: Vec<Record>,
    /// Payload types, clock rates and format parameters of what is in the records.
    pub sdp: String,
}

impl Recording {
    /// Writes `name.rtpdump` and `name.sdp`.
    pub fn save(&self, name: &str) -> io::Result<()> {
        let dump = rtpdump::write(&self.header, &self.records).map_err(io::Error::other)?;
        std::fs::write(format!("{name}.rtpdump"), dump)?;
        std::fs::write(format!("{name}.sdp"), &self.sdp)
    }
}

/// A request that the recording loop has to act on.
enum Request {
    Offer { sdp: String, answer: mpsc::Sender<Result<String, String>> },
    Delete,
}

/// The listening server.
pub struct Server {
    http: SocketAddr,
    socket: UdpSocket,
    requests: mpsc::Receiver<Request>,
}

impl Server {
    /// Listens on a TCP address (port 0: any) and on any UDP port of the same host address.
    pub fn bind(listen: SocketAddr) -> io::Result<Server> {
        let listener = TcpListener::bind(listen)?;
        let http = listener.local_addr()?;
        let socket = UdpSocket::bind((http.ip(), 0))?;
        socket.set_nonblocking(true)?;
        let (sender, requests) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sender = sender.clone();
                thread::spawn(move || {
                    if let Err(error) = serve(&stream, &sender) {
                        eprintln!("loadgen: {error}");
                    }
                });
            }
        });
        Ok(Server { http, socket, requests })
    }

    /// Where the page and the WHIP endpoint are.
    pub fn address(&self) -> SocketAddr {
        self.http
    }

    /// Waits for a publisher and records it. Ends after `options.length`, or early when the publisher leaves.
    pub fn record(&self, options: &RecordOptions) -> io::Result<Recording> {
        let local = self.socket.local_addr()?;
        let deadline = Instant::now() + options.deadline;
        let mut session: Option<Session> = None;
        let mut buffer = vec![0; 65_536];
        loop {
            let now = Instant::now();
            while let Ok(request) = self.requests.try_recv() {
                match request {
                    Request::Offer { sdp, answer } => {
                        let receiver = Receiver::answer(&sdp, options.receiver, local, now);
                        let reply = receiver.as_ref().map(|r| r.sdp().to_owned()).map_err(ToString::to_string);
                        session = receiver.ok().map(Session::new);
                        // The publisher may be gone already; its session then dies by ICE.
                        let _ = answer.send(reply);
                    }
                    Request::Delete => {
                        if let Some(session) = session.take() {
                            return Ok(session.finish(local));
                        }
                    }
                }
            }
            let mut wake = now + TICK;
            if let Some(session) = &mut session {
                while let Some((length, from)) = socket::receive(&self.socket, &mut buffer)? {
                    session.receiver.handle_datagram(&buffer[..length], from, Instant::now());
                }
                if session.advance(options, Instant::now()) {
                    break;
                }
                while let Some(transmit) = session.receiver.poll_transmit() {
                    socket::send(&self.socket, &transmit)?;
                }
                wake = wake.min(session.receiver.poll_timeout());
            }
            if now > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was recorded in time"));
            }
            socket::wait_readable(&[&self.socket], wake)?;
        }
        let session = session.expect("the loop is left with a session");
        Ok(session.finish(local))
    }
}

struct Session {
    receiver: Receiver,
    /// When the first packet came.
    first_media: Option<Instant>,
    /// When the recording proper began.
    started: Option<Instant>,
    next_keyframe: Option<Instant>,
}

impl Session {
    fn new(receiver: Receiver) -> Session {
        Session { receiver, first_media: None, started: None, next_keyframe: None }
    }

    /// Does what is due; true when the recording is long enough.
    fn advance(&mut self, options: &RecordOptions, now: Instant) -> bool {
        if now >= self.receiver.poll_timeout() {
            self.receiver.handle_timeout(now);
        }
        if self.receiver.records().is_empty() {
            return false;
        }
        let first_media = *self.first_media.get_or_insert(now);
        if self.started.is_none() && now >= first_media + options.skip {
            if !options.skip.is_zero() {
                self.receiver.restart(now);
            }
            self.started = Some(now);
            self.next_keyframe = Some(now);
        }
        if self.next_keyframe.is_some_and(|due| now >= due)
            && self.receiver.request_keyframe(KeyframeRequestKind::Pli, now)
        {
            self.next_keyframe = options.keyframe_every.map(|every| now + every);
        }
        // A second on top: the time until the first IDR is cut off the front.
        self.started.is_some_and(|started| now >= started + options.length + Duration::from_secs(1))
    }

    fn finish(self, local: SocketAddr) -> Recording {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let start = unix.saturating_sub(self.started.map_or(Duration::ZERO, |started| started.elapsed()));
        let header = rtpdump::Header {
            start: Duration::from_micros(u64::try_from(start.as_micros()).unwrap_or(0)),
            source: Ipv4Addr::LOCALHOST,
            port: local.port(),
        };
        let sdp = sdp::of_recording(self.receiver.sdp());
        Recording { header, records: self.receiver.records().to_vec(), sdp }
    }
}

impl Recording {
    /// Keeps `length` from the first video packet that starts an IDR picture on, up to the end of a picture.
    pub fn trim(&mut self, length: Duration) {
        let video = sdp::payload_type(&self.sdp, sdp::H264).unwrap_or(H264_UNKNOWN);
        let is_video = |record: &Record| {
            record.kind == RecordKind::Rtp
                && rtp::Packet::parse(&record.packet).is_some_and(|p| p.payload_type == video)
        };
        let starts_idr = |record: &Record| {
            is_video(record) && rtp::Packet::parse(&record.packet).is_some_and(|p| crate::h264::starts_idr(p.payload))
        };
        let Some(first) = self.records.iter().position(starts_idr) else {
            return;
        };
        self.records.drain(..first);
        let Some(begin) = self.records.first().map(|record| record.offset) else {
            return;
        };
        self.header.start += begin;
        for record in &mut self.records {
            record.offset -= begin;
        }
        let ends_picture =
            |record: &Record| is_video(record) && rtp::Packet::parse(&record.packet).is_some_and(|p| p.marker);
        let end = self.records.iter().position(|r| r.offset >= length && ends_picture(r));
        self.records.truncate(end.map_or(self.records.len(), |last| last + 1));
        // What is left behind the last whole picture would be half a picture.
        while self.records.last().is_some_and(|r| is_video(r) && !ends_picture(r)) {
            self.records.pop();
        }
    }
}

/// No RTP packet has this payload type.
const H264_UNKNOWN: u8 = 0xFF;

fn serve(stream: &TcpStream, requests: &mpsc::Sender<Request>) -> io::Result<()> {
    if stream.peek(&mut [0])? == 0 {
        // Browsers open connections ahead of need and close them unused.
        return Ok(());
    }
    let request = Message::read_from(stream)?;
    let respond = |status: &str, headers: &[(&str, &str)], body: String| {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Message { start_line: format!("HTTP/1.1 {status}"), headers, body }.write_to(stream)
    };
    match request.method() {
        "GET" => respond("200 OK", &[("Content-Type", "text/html; charset=utf-8")], PAGE.to_owned()),
        "POST" => {
            let (answer, answered) = mpsc::channel();
            let gone = |_| io::Error::other("the recording is over");
            requests.send(Request::Offer { sdp: request.body, answer }).map_err(|_| gone(()))?;
            match answered.recv().map_err(|_| gone(()))? {
                Ok(sdp) => {
                    let headers = [("Content-Type", "application/sdp"), ("Location", "/whip/session")];
                    respond("201 Created", &headers, sdp)
                }
                Err(reason) => respond("400 Bad Request", &[], reason),
            }
        }
        "DELETE" => {
            // Nobody records any more: nothing is left to delete.
            let _ = requests.send(Request::Delete);
            respond("200 OK", &[], String::new())
        }
        _ => respond("405 Method Not Allowed", &[], String::new()),
    }
}
