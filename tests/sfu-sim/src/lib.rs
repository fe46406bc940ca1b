//! A simulated Cloudflare Realtime SFU: the HTTP API as strict as the real one, and media between sessions on a WebRTC
//! stack (str0m) that the daemon does not share.
//!
//! ```text
//! HTTP ─▶ server ─▶ calls, publish, pull ─┐             media thread
//!           │ faults, rate, rules         ├─▶ state ◀─── UDP socket (one address for all sessions)
//! /control ─┘                             │   sessions: transport (str0m, ICE-lite), tracks, subscriptions
//! ```
//!
//! Threads: one for media, one that accepts, one for each HTTP connection; one lock around all state. All times of the
//! service are divided by a clock factor ([`Times`]), so that a test need not wait 30 s for a track to be collected.
//!
//! What is observed of the real service and not documented is imitated too: a track that has no packets yet holds a pull
//! for 8.5 s, a mid that was force-closed never carries data again, errors of items stand inside a reply with status 200.
//!
//! ```
//! use sfu_sim::{Options, SfuSim};
//! let sfu = SfuSim::start(Options { speed: 10.0, ..Options::default() })?;
//! assert!(sfu.api_base().ends_with("/v1"));
//! assert!(sfu.snapshot().sessions.is_empty());
//! # Ok::<(), std::io::Error>(())
//! ```

mod api;
mod calls;
mod codec;
mod control;
mod describe;
mod fault;
mod forward;
mod ledger;
mod media;
mod padding;
mod publish;
mod pull;
mod rewrite;
mod sdp;
mod server;
mod session;
mod sfu;
mod state;
mod times;
mod transport;
mod turn;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use control::{EndedSession, SessionInfo, Snapshot, SubscriptionInfo, TrackInfo};
pub use fault::{Endpoint, Fault, FaultInfo};
pub use ledger::{CallCount, Rule, Violation};
pub use session::{EndReason, TrackStatus};
pub use times::Times;

use sfu::Sfu;
use state::{Settings, State};

#[derive(Clone, Debug)]
pub struct Options {
    /// Of the HTTP API; media get a port of their own at the same address.
    pub listen: SocketAddr,
    pub app_id: String,
    pub secret: String,
    /// The clock factor.
    pub speed: f64,
    /// In place of [`Times::scaled`] of `speed`.
    pub times: Option<Times>,
    /// One padding-only packet after so many packets of a subscription (at most 16384) or, for video, at the end of
    /// the picture; `None`: never.
    pub padding_every: Option<u32>,
    /// Whether descriptions tell the SSRC of retransmissions (`a=ssrc-group:FID`).
    pub announce_rtx: bool,
    /// For session ids, payload types, SSRCs; the same seed gives the same.
    pub seed: u64,
    /// A TURN key of the account and its token, which is another secret than the app's.
    pub turn_key: Option<(String, String)>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: ([127, 0, 0, 1], 0).into(),
            app_id: "0123456789abcdef0123456789abcdef".to_owned(),
            secret: "simulated-secret".to_owned(),
            speed: 1.0,
            times: None,
            padding_every: Some(50),
            announce_rtx: false,
            seed: 1,
            turn_key: None,
        }
    }
}

/// A running service; dropping it ends it.
pub struct SfuSim {
    sfu: Arc<Sfu>,
    address: SocketAddr,
    media_address: SocketAddr,
    app_id: String,
    secret: String,
    threads: Vec<JoinHandle<()>>,
}

impl SfuSim {
    pub fn start(options: Options) -> io::Result<SfuSim> {
        let listener = TcpListener::bind(options.listen)?;
        let address = listener.local_addr()?;
        let udp = UdpSocket::bind((address.ip(), 0))?;
        udp.set_nonblocking(true)?;
        let media_address = udp.local_addr()?;
        let settings = Settings {
            app_id: options.app_id.clone(),
            secret: options.secret.clone(),
            times: options.times.unwrap_or_else(|| Times::scaled(options.speed)),
            padding_every: options.padding_every.map(|every| every.min(padding::MAX_DISTANCE)),
            announce_rtx: options.announce_rtx,
            media_address,
            turn_key: options.turn_key,
        };
        let sfu = Arc::new(Sfu::new(State::new(settings, options.seed)));
        let (http, media) = (Arc::clone(&sfu), Arc::clone(&sfu));
        let threads = vec![
            spawn("sfu-sim-http", move || server::run(&listener, &http))?,
            spawn("sfu-sim-media", move || media::run(&udp, &media))?,
        ];
        Ok(SfuSim { sfu, address, media_address, app_id: options.app_id, secret: options.secret, threads })
    }

    /// `http://127.0.0.1:PORT/v1`, in place of `https://rtc.live.cloudflare.com/v1`.
    pub fn api_base(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// `http://127.0.0.1:PORT/control`
    pub fn control_url(&self) -> String {
        format!("http://{}/control", self.address)
    }

    /// Where all sessions' media go.
    pub fn media_address(&self) -> SocketAddr {
        self.media_address
    }

    pub fn app_id(&self) -> &str {
        &self.app_id
    }

    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Turns a fault on.
    ///
    /// # Panics
    /// When it names a session that is not there.
    pub fn inject(&self, fault: Fault) {
        let injected = self.sfu.lock().inject(fault);
        if let Err(error) = injected {
            panic!("{}", error.description);
        }
        self.sfu.notify();
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.inject(Fault::None);
    }

    /// Ends the sessions that have not connected for `age`, before their time is over.
    pub fn expire_unconnected(&self, age: Duration) {
        self.sfu.lock().expire_unconnected(age, Instant::now());
        self.sfu.notify();
    }

    pub fn snapshot(&self) -> Snapshot {
        self.sfu.lock().snapshot()
    }

    pub fn violations(&self) -> Vec<Violation> {
        self.snapshot().violations
    }

    /// Waits until the snapshot is as wanted; false when it is not within `patience`.
    pub fn wait(&self, patience: Duration, mut wanted: impl FnMut(&Snapshot) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while !wanted(&self.snapshot()) {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

impl Drop for SfuSim {
    fn drop(&mut self) {
        self.sfu.stop();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            // It has reported its own panic.
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}
