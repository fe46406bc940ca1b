//! What the probes saw: plain data, without judgement.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::config::{ConfigError, Notice};
use crate::guest::id::GuestId;
use crate::sfu::error::CallError;

/// All of it.
#[derive(Debug)]
pub struct Findings {
    pub processor: Processor,
    /// The configuration; what it leads to can be looked at only when it can be read.
    pub configured: Result<Configured, ConfigError>,
}

/// What the configuration leads to.
#[derive(Debug)]
pub struct Configured {
    /// The slots that are open.
    pub guests: Vec<GuestId>,
    /// Of the configuration: modes of files, keys without effect.
    pub notices: Vec<Notice>,
    pub state_file: StateFile,
    pub http: (SocketAddr, Port),
    pub rtc: (SocketAddr, Port),
    /// Where guests are told to send media.
    pub candidates: Vec<SocketAddr>,
    pub stun: Stun,
    pub rtmp: Rtmp,
    /// `None`: the deployment has no MediaMTX.
    pub api: Option<Api>,
    pub paths: Vec<GuestPath>,
    pub sfu: Service,
    pub turn: Service,
    pub clock: Clock,
}

/// The CPU and what of it the binary uses for SRTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    pub architecture: &'static str,
    /// AES rounds and carry-less products: what AES-GCM is made of.
    pub can: bool,
    /// Whether the binary was built to use them for AES-CM, SRTCP and key derivation. For RTP under AES-GCM ring finds
    /// them at run time.
    pub built_in: bool,
}

impl Processor {
    /// This one.
    pub fn here() -> Self {
        #[cfg(target_arch = "aarch64")]
        let (can, built_in) = {
            use std::arch::is_aarch64_feature_detected as detected;
            (detected!("aes") && detected!("pmull"), cfg!(all(aes_armv8, polyval_armv8)))
        };
        #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
        let (can, built_in) = {
            use std::is_x86_feature_detected as detected;
            (detected!("aes") && detected!("pclmulqdq"), true)
        };
        #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64", target_arch = "x86")))]
        let (can, built_in) = (false, false);
        Self { architecture: std::env::consts::ARCH, can, built_in }
    }
}

/// Where sessions are kept over a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateFile {
    /// `relay.state_file: none`
    Unwanted,
    /// The directory is there, and the file is private or yet to be written.
    Fine(PathBuf),
    NoDirectory(PathBuf),
    /// With the permission bits.
    ReadableByOthers(PathBuf, u32),
}

/// Somebody's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub pid: u32,
    pub name: String,
}

/// What an attempt to listen says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    Free,
    /// guest-relay runs already; `health` is the answer of its `/healthz`, where that was asked for.
    Ours {
        pid: Option<u32>,
        health: Result<(), String>,
    },
    /// Another program has it; which one, only its owner and root can see.
    Taken(Option<Program>),
    /// It cannot be listened on at all.
    Unusable(String),
}

/// What a STUN server says of the way out over UDP. Whether anything gets in cannot be seen from inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stun {
    /// `rtc.stun_server: none`
    Unwanted,
    /// Server, and the addresses from which it sees our requests come.
    Answers(String, Vec<IpAddr>),
    /// Server and reason: nothing came back.
    Silent(String, String),
    /// Server and reason: there was nothing to send to.
    NoName(String, String),
}

/// How far the RTMP server went along: TCP, handshake, connect command. Nothing is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rtmp {
    Connected(String),
    /// Server and reason.
    Unreachable(String, String),
    /// Something answers, and it is no RTMP server.
    NotRtmp(String, String),
}

/// MediaMTX's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Api {
    /// With the version it gives; `None` before 1.15.2, which has no such call.
    Answers(SocketAddr, Option<String>),
    /// Nothing listens, or nothing comes back.
    Silent(SocketAddr, String),
    /// It wants credentials (401, 403).
    Closed(SocketAddr, u16),
    /// Something else has the port.
    NotMediaMtx(SocketAddr),
}

/// What MediaMTX knows of a guest's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestPath {
    pub guest: GuestId,
    /// As MediaMTX names it.
    pub path: String,
    pub state: PathState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathState {
    /// Somebody publishes: the tracks, whether bytes came in within a second (`None`: the answers do not count them),
    /// and whether the answer still has the field `sourceReady`.
    Ready { tracks: Vec<String>, receives: Option<bool>, source_ready: bool },
    /// Declared, nobody publishes; `stands_in`: MediaMTX does, with a slate of its own (`alwaysAvailable`).
    Waiting { stands_in: bool, source_ready: bool },
    /// Not declared by name. A pattern, or `all_others`, may take it.
    Undeclared { patterns: bool },
    /// The API said something else.
    Unclear(String),
}

/// A service of Cloudflare's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    NotConfigured,
    Works,
    Fails(CallError),
}

/// Our clock beside that of the SFU's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clock {
    /// Nobody to compare with.
    Unknown(&'static str),
    /// Nobody to compare with, and systemd-timesyncd says that it has set the clock.
    Synchronised,
    /// Seconds that ours is ahead; negative: behind.
    Ahead(i64),
}
