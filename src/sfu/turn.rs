//! STUN and TURN servers for the guest's page: `POST turn/keys/{id}/credentials/generate-ice-servers`. The daemon itself
//! needs none: its side of the SFU, and of the LAN, is reached directly.
//!
//! Input: a TURN key of the account, if there is one. Output: the `iceServers` of an `RTCConfiguration`, with
//! credentials that live for [`TTL`]. Servers on port 53 are dropped: browsers block that port or wait for it in vain.
//!
//! Bounds: [`SERVERS_MAX`] entries with [`URLS_MAX`] URLs each; what does not look like a STUN or TURN URL, or like a name
//! and a password that fit into a header field, is dropped.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{Call, CallError, Cause};
use super::https::{Https, Reply, Timeouts};
use crate::secret::Secret;

/// Of the credentials. A guest who stays longer keeps what is allocated, but could not come back through the relay.
pub const TTL: Duration = Duration::from_secs(86_400);
pub const SERVERS_MAX: usize = 8;
pub const URLS_MAX: usize = 16;
/// Longest user name or password; 64 hexadecimal digits are usual.
const CREDENTIAL_MAX: usize = 256;

/// One `RTCIceServer`.
#[derive(Clone, PartialEq, Eq)]
pub struct IceServer {
    pub urls: Vec<String>,
    pub username: Option<String>,
    pub credential: Option<String>,
}

impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credential = self.credential.as_ref().map(|_| "***");
        f.debug_struct("IceServer").field("urls", &self.urls).field("credential", &credential).finish()
    }
}

/// One TURN key.
pub struct TurnClient {
    https: Https,
    url: String,
}

impl TurnClient {
    pub fn new(api_base: &str, key_id: &str, token: Secret<String>) -> Self {
        let base = api_base.trim_end_matches('/');
        Self {
            https: Https::new(base, token, Timeouts::default()),
            url: format!("{base}/turn/keys/{key_id}/credentials/generate-ice-servers"),
        }
    }

    /// Fresh credentials. Blocks.
    pub fn generate(&self) -> Result<Vec<IceServer>, CallError> {
        let call = Call::TurnCredentials;
        let request = Generate { ttl: TTL.as_secs() };
        let reply: Reply<Generated> = self.https.post(call, &self.url, &request)?;
        let servers = match reply.body.ice_servers {
            OneOrMany::One(server) => vec![server],
            OneOrMany::Many(servers) => servers,
        };
        let servers = servers.into_iter().filter_map(GeneratedServer::checked);
        let servers: Vec<_> = servers.take(SERVERS_MAX).collect();
        if servers.is_empty() {
            let cause = Cause::ReplyLost("it names no usable server".to_owned());
            return Err(CallError { call, cause });
        }
        Ok(servers)
    }
}

#[derive(Serialize)]
struct Generate {
    ttl: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Generated {
    ice_servers: OneOrMany<GeneratedServer>,
}

#[derive(Deserialize)]
struct GeneratedServer {
    urls: OneOrMany<String>,
    username: Option<String>,
    credential: Option<String>,
}

/// An older form of the reply has one object where the newer has a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl GeneratedServer {
    fn checked(self) -> Option<IceServer> {
        let urls = match self.urls {
            OneOrMany::One(url) => vec![url],
            OneOrMany::Many(urls) => urls,
        };
        let urls: Vec<_> = urls.into_iter().filter(|url| is_usable(url)).take(URLS_MAX).collect();
        let is_text = |text: &String| text.len() <= CREDENTIAL_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        let fits = !urls.is_empty() && [&self.username, &self.credential].into_iter().flatten().all(is_text);
        fits.then_some(IceServer { urls, username: self.username, credential: self.credential })
    }
}

/// `stun:host[:port]`, `turn:host[:port][?transport=...]` (RFC 7064, RFC 7065), not on port 53.
fn is_usable(url: &str) -> bool {
    const SCHEMES: [&str; 4] = ["stun:", "stuns:", "turn:", "turns:"];
    let Some(rest) = SCHEMES.iter().find_map(|scheme| url.strip_prefix(scheme)) else {
        return false;
    };
    let host_and_port = rest.split('?').next().unwrap_or_default();
    url.len() <= 256
        && url.bytes().all(|byte| byte.is_ascii_graphic())
        && !host_and_port.is_empty()
        && !host_and_port.ends_with(":53")
}

#[cfg(test)]
mod tests;
