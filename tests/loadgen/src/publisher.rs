//! WHIP publishers on real sockets: connect, watch, stop.
//!
//! Input: a WHIP endpoint and a clip; output: live media at it. HTTP (RFC 9725: POST, DELETE) runs on the caller's
//! thread, media of any number of guests on one thread per [`Driver`].
//!
//! ```no_run
//! # use loadgen::{clip::Clip, publisher::Publisher};
//! # use std::time::Duration;
//! let publisher = Publisher::connect("http://127.0.0.1:8000/whip/guest1", &Clip::chromium_720p())?;
//! publisher.wait(Duration::from_secs(5), |stats| stats.video_frames >= 60);
//! let finished = publisher.stop()?;
//! assert_eq!(finished.stats.video_frames, 60);
//! # Ok::<(), loadgen::publisher::PublishError>(())
//! ```

use std::fmt;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::clip::{Clip, TrackKind};
use crate::driver::{Command, Driver, Handle, Seat};
use crate::guest::{AnswerError, Guest, GuestConfig, GuestStats};
use crate::http::{self, Message, Url};
use crate::netem::{Impairments, Netem, NetemStats};
use crate::replay::SentUnit;

#[derive(Clone, Debug)]
pub struct Options {
    pub guest: GuestConfig,
    /// From the guest to the server.
    pub outgoing: Impairments,
    /// From the server to the guest.
    pub incoming: Impairments,
    /// For both directions' impairments and for hostile datagrams.
    pub seed: u64,
    /// Where the media socket is bound; by default the address from which the server is reached.
    pub bind: Option<IpAddr>,
    /// How long the guest still answers NACKs after its last frame, before [`Publisher::stop`] deletes the session.
    pub linger: Duration,
    /// Whether [`Publisher::sent`] is kept; it grows without end.
    pub keep_sent: bool,
    /// Header fields of the offer beside its Content-Type.
    pub headers: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            guest: GuestConfig::default(),
            outgoing: Impairments::default(),
            incoming: Impairments::default(),
            seed: 1,
            bind: None,
            linger: Duration::from_millis(200),
            keep_sent: true,
            headers: Vec::new(),
        }
    }
}

#[derive(Debug)]
pub enum PublishError {
    Io(io::Error),
    /// Not an `http://` address.
    BadUrl(String),
    /// The endpoint answered with something other than 201; its body says why.
    Status {
        status: String,
        body: String,
    },
    Answer(AnswerError),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "publish: {error}"),
            Self::BadUrl(url) => write!(f, "'{url}' is not an http:// address"),
            Self::Status { status, body } => write!(f, "WHIP endpoint answered {status}: {body}"),
            Self::Answer(error) => write!(f, "publish: {error}"),
        }
    }
}

impl std::error::Error for PublishError {}

impl From<io::Error> for PublishError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What a publisher did, once it ended.
#[derive(Clone, Debug)]
pub struct Finished {
    pub stats: GuestStats,
    /// In order; empty without [`Options::keep_sent`].
    pub sent: Vec<SentUnit>,
    pub network: NetworkStats,
    /// Status of the goodbye over HTTP; `None` when none was sent.
    pub delete_status: Option<String>,
}

/// What the impairments did to a guest's datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkStats {
    pub outgoing: NetemStats,
    pub incoming: NetemStats,
}

/// A live session. Dropping it lets the guest vanish: no DELETE, no goodbye.
pub struct Publisher {
    handle: Handle,
    session: Url,
    linger: Duration,
    reply: Message,
    links: Vec<String>,
}

impl Publisher {
    /// Publishes with default options on a thread of its own. Returns once the answer is there; the media flow as soon
    /// as ICE and DTLS are through.
    pub fn connect(url: &str, clip: &Arc<Clip>) -> Result<Publisher, PublishError> {
        Self::connect_with(&Driver::start(), url, clip, &Options::default())
    }

    /// Publishes on a thread that is shared with other publishers.
    pub fn connect_with(
        driver: &Driver,
        url: &str,
        clip: &Arc<Clip>,
        options: &Options,
    ) -> Result<Publisher, PublishError> {
        let endpoint = Url::parse(url).ok_or_else(|| PublishError::BadUrl(url.to_owned()))?;
        let bind = options.bind.map_or_else(|| http::local_address_towards(&endpoint), Ok)?;
        let socket = UdpSocket::bind((bind, 0))?;
        socket.set_nonblocking(true)?;
        let now = Instant::now();
        let (mut guest, offer) = Guest::new(clip, options.guest.clone(), socket.local_addr()?, now);

        let further = options.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let headers: Vec<_> = [("Content-Type", "application/sdp")].into_iter().chain(further).collect();
        let response = http::exchange("POST", &endpoint, &headers, &offer)?;
        if response.second_word() != "201" {
            let status = response.second_word().to_owned();
            return Err(PublishError::Status { status, body: response.body });
        }
        let session = endpoint.join(response.header("location").unwrap_or_default());
        guest.handle_answer(&response.body, Instant::now()).map_err(PublishError::Answer)?;

        let seat = Seat::new(guest, socket, options, Instant::now());
        let handle = driver.add(seat);
        let links = response.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("link"));
        let links = links.map(|(_, value)| value.clone()).collect();
        Ok(Publisher { handle, session, linger: options.linger, reply: response, links })
    }

    /// The SDP answer.
    pub fn answer(&self) -> &str {
        &self.reply.body
    }

    /// All that the endpoint answered.
    pub fn reply(&self) -> &Message {
        &self.reply
    }

    /// The `Link` fields that came with it, such as those of ICE servers (RFC 9725 §4.6).
    pub fn links(&self) -> &[String] {
        &self.links
    }

    /// The WHIP session's address.
    pub fn session(&self) -> &Url {
        &self.session
    }

    pub fn is_connected(&self) -> bool {
        self.handle.shared().connected
    }

    /// False once the server ended the session, or ICE failed.
    pub fn is_alive(&self) -> bool {
        self.handle.shared().alive
    }

    pub fn stats(&self) -> GuestStats {
        self.handle.shared().stats
    }

    pub fn network(&self) -> NetworkStats {
        self.handle.shared().network
    }

    /// What was sent so far, in order.
    pub fn sent(&self) -> Vec<SentUnit> {
        self.handle.shared().sent.clone()
    }

    /// Waits until the stats satisfy `is_enough`; false when they did not in time.
    pub fn wait(&self, at_most: Duration, is_enough: impl Fn(&GuestStats) -> bool) -> bool {
        let deadline = Instant::now() + at_most;
        while !is_enough(&self.stats()) {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// Changes the network between guest and server. Blackouts count from now.
    pub fn set_impairments(&self, outgoing: Impairments, incoming: Impairments) {
        self.handle.command(Command::Impair(Box::new([outgoing, incoming])));
    }

    /// Switches the camera or the microphone off and on.
    pub fn set_paused(&self, kind: TrackKind, paused: bool) {
        self.handle.command(Command::Pause { kind, paused });
    }

    /// Sends hostile datagrams from the guest's own socket, media going on meanwhile.
    pub fn send_hostile(&self, count: u64) {
        self.handle.command(Command::Hostile { count });
    }

    /// How many datagrams of [`send_hostile`](Self::send_hostile) were sent.
    pub fn hostile_sent(&self) -> u64 {
        self.handle.shared().hostile_sent
    }

    /// Ends as a browser does whose guest leaves for good: the frames being sent are completed, NACKs answered for
    /// [`Options::linger`], the session deleted, then the goodbye of RTCP and DTLS.
    pub fn stop(self) -> Result<Finished, PublishError> {
        let session = self.session.clone();
        self.say_goodbye("DELETE", &session)
    }

    /// The same for a page that is closed or reloaded: `POST …/leave`, after which the guest may come back.
    pub fn close_page(self) -> Result<Finished, PublishError> {
        let session = Url { path: format!("{}/leave", self.session.path), ..self.session.clone() };
        self.say_goodbye("POST", &session)
    }

    fn say_goodbye(self, method: &str, to: &Url) -> Result<Finished, PublishError> {
        for kind in [TrackKind::Video, TrackKind::Audio] {
            self.set_paused(kind, true);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.handle.shared().paused && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        thread::sleep(self.linger);
        let response = http::exchange(method, to, &[], "")?;
        let status = response.second_word().to_owned();
        Ok(self.end(true, Some(status)))
    }

    /// Ends as a page does that closes: its word that the guest may return, and the goodbye of RTCP and DTLS.
    pub fn leave(self) -> Result<Finished, PublishError> {
        let leave = Url { path: format!("{}/leave", self.session.path), ..self.session.clone() };
        let response = http::exchange("POST", &leave, &[], "")?;
        let status = response.second_word().to_owned();
        Ok(self.end(true, Some(status)))
    }

    /// Ends as a page does that replaces its connection by a new one: the goodbye of RTCP and DTLS, and no DELETE.
    pub fn close(self) -> Finished {
        self.end(true, None)
    }

    /// Ends as a crash does: nothing is sent any more, not even a goodbye.
    pub fn vanish(self) -> Finished {
        self.end(false, None)
    }

    fn end(self, goodbye: bool, delete_status: Option<String>) -> Finished {
        let (done, ended) = mpsc::channel();
        self.handle.command(Command::End { goodbye, done });
        // The driver thread may be gone already when the process ends.
        let _ = ended.recv_timeout(Duration::from_secs(10));
        let shared = self.handle.shared();
        Finished { stats: shared.stats, sent: shared.sent.clone(), network: shared.network, delete_status }
    }
}

impl Seat {
    fn new(guest: Guest, socket: UdpSocket, options: &Options, now: Instant) -> Seat {
        // Two directions must not lose the same packets.
        let (out_seed, in_seed) = (options.seed, options.seed ^ 0x5555_5555_5555_5555);
        Seat::with_network(
            guest,
            socket,
            Netem::new(options.outgoing.clone(), out_seed, now),
            Netem::new(options.incoming.clone(), in_seed, now),
            options.seed,
            options.keep_sent,
        )
    }
}
