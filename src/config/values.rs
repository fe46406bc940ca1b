//! The values of a configuration, as the rest of the daemon reads them. Plain data: keys, defaults and ranges stand in
//! `sections` and `deployment`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use guest_relay_muxer::Still;

use super::notice::Notice;
use crate::guest::id::GuestId;
use crate::secret::Secret;
use crate::sfu::pull::PullForm;

/// Most additional addresses offered to guests.
pub const CANDIDATES_MAX: usize = 8;

/// Everything the operator may decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Section `http`.
    pub http: Http,
    /// Section `rtc`.
    pub rtc: Rtc,
    /// Section `relay`.
    pub relay: Relay,
    /// Section `log`.
    pub log: Log,
    /// Section `cloudflare`.
    pub cloudflare: Cloudflare,
    /// Section `guests`, in the order of the file. Never empty.
    pub guests: Vec<Guest>,
    /// Section `mediamtx`.
    pub mediamtx: MediaMtx,
    /// What an operator should know although nothing is wrong, one line each, to be logged at start.
    pub notices: Vec<Notice>,
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// TCP address.
    pub listen: SocketAddr,
    /// Address under which guests reach the page with https; it is shown to those who came without.
    pub public_url: Option<String>,
    /// How often one client may try to publish as one guest.
    pub offers_per_minute: u32,
}

/// WebRTC reception.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rtc {
    /// UDP address shared by all guests.
    pub listen: SocketAddr,
    /// Further addresses under which guests reach `listen`, such as one forwarded by a router.
    pub candidates: Vec<SocketAddr>,
    /// Bitrate a guest's encoder is asked to begin with.
    pub start_bitrate_kbps: u32,
    /// Bitrate a guest's encoder is asked not to exceed.
    pub max_bitrate_kbps: u32,
    /// Bitrate that all guests together are asked not to exceed.
    pub total_bitrate_kbps: Option<u32>,
    /// `host:port` of the STUN server that tells us our public address; `None`: it is not asked for.
    pub stun_server: Option<String>,
}

impl Rtc {
    /// Cloudflare's, which guests are told of too.
    pub const STUN_SERVER: &'static str = "stun.cloudflare.com:3478";
}

/// What happens to the media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Where each guest is published.
    pub output: OutputTemplate,
    /// How long the mixer's input is kept while a guest is gone.
    pub hold: Duration,
    /// How long a missing packet is waited for at most.
    pub reorder: Duration,
    /// A keyframe is asked for when none came for this long; `None` asks only after loss.
    pub keyframe_interval: Option<Duration>,
    /// What becomes of a slot in which nobody is.
    pub idle: Idle,
    /// The picture that is shown where nobody is.
    pub slate: Arc<Still>,
    /// Where guests' sessions are kept over a restart; `None` keeps them nowhere.
    pub state_file: Option<PathBuf>,
}

impl Relay {
    /// Name of the state file where nothing else is said: in systemd's state directory, else in the working directory.
    pub const STATE_FILE: &'static str = "guest-relay.state.json";
}

/// What becomes of a slot in which nobody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// It is published all the same, with the slate and silence: the mixer's input never ends.
    Slate,
    /// Its publication ends.
    Unpublish,
}

impl Idle {
    /// As it stands in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slate => "slate",
            Self::Unpublish => "unpublish",
        }
    }
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Least important level that is printed.
    pub level: log::LevelFilter,
}

/// Credentials of the Cloudflare Realtime SFU and of Cloudflare's TURN service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloudflare {
    /// App of the SFU.
    pub app_id: Option<String>,
    /// The app's secret.
    pub api_token: Option<Secret<String>>,
    /// Where the API is.
    pub api_base: String,
    /// The API is on this host: that of a simulated SFU.
    pub is_local: bool,
    /// Who makes the offer when a guest is pulled.
    pub pull_form: PullForm,
    /// TURN key.
    pub turn_token_id: Option<String>,
    /// The TURN key's secret.
    pub turn_api_token: Option<Secret<String>>,
}

impl Cloudflare {
    /// Public address of the API.
    pub const API_BASE: &'static str = "https://rtc.live.cloudflare.com/v1";

    /// The app and its secret, when both are there.
    pub fn app(&self) -> Option<(&str, &Secret<String>)> {
        Some((self.app_id.as_deref()?, self.api_token.as_ref()?))
    }

    /// The TURN key and its secret, when both are there.
    pub fn turn_key(&self) -> Option<(&str, &Secret<String>)> {
        Some((self.turn_token_id.as_deref()?, self.turn_api_token.as_ref()?))
    }
}

/// A guest slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Name in URLs and at the RTMP server.
    pub id: GuestId,
    /// Name shown to people.
    pub name: String,
    /// Whether guests may join.
    pub enabled: bool,
}

/// The media server beside us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaMtx {
    /// Whether the deployment uses it.
    pub enabled: bool,
    /// Where we publish, unless `relay.output` says otherwise.
    pub rtmp_port: u16,
    /// Its API, which `doctor` asks.
    pub api_port: u16,
}

/// An RTMP URL in which `{guest_id}` stands for the guest. `Debug` and `Display` hide user, password and query, which
/// may hold credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct OutputTemplate(String);

impl OutputTemplate {
    const PLACEHOLDER: &'static str = "{guest_id}";

    /// Checks and takes over a template.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(rest) = text.strip_prefix("rtmp://") else {
            return Err("this is no rtmp:// address");
        };
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the address holds white space or characters outside ASCII");
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() || authority.ends_with('@') || authority.starts_with(':') {
            return Err("the address has no host");
        }
        if authority.contains(['{', '}']) {
            return Err("the guest's id can only be part of the path");
        }
        if path.trim_matches('/').is_empty() || path.starts_with('?') {
            return Err("the address has no path");
        }
        Ok(Self(text.to_owned()))
    }

    /// The address of one guest.
    pub fn for_guest(&self, guest: &GuestId) -> String {
        self.0.replace(Self::PLACEHOLDER, guest.as_str())
    }

    pub(super) fn tells_guests_apart(&self) -> bool {
        self.0.contains(Self::PLACEHOLDER)
    }
}

impl fmt::Display for OutputTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, query) = self.0.split_once('?').map_or((self.0.as_str(), ""), |(address, _)| (address, "?***"));
        let rest = address.strip_prefix("rtmp://").unwrap_or(address);
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        match authority.rsplit_once('@') {
            Some((_, host)) => write!(f, "rtmp://***@{host}{path}{query}"),
            None => write!(f, "rtmp://{authority}{path}{query}"),
        }
    }
}

impl fmt::Debug for OutputTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutputTemplate({self})")
    }
}
