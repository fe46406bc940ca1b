//! The account's TURN service, as far as credentials go: `POST turn/keys/{id}/credentials/generate-ice-servers`. The reply is
//! the documented one, with the addresses on port 53 that older replies list too. There is no TURN server behind it.

use loadgen::http::Message;
use serde::Deserialize;
use serde_json::json;

use crate::api::{ApiError, Reply};
use crate::calls::{Outcome, decode};
use crate::server::unauthorized;
use crate::sfu::Sfu;
use crate::transport::hex;

/// 48 h.
const MAX_TTL: u64 = 172_800;

#[derive(Deserialize)]
struct Request {
    ttl: u64,
}

/// The key has a token of its own.
pub(crate) fn authorize(request: &Message, key: &str, sfu: &Sfu) -> Result<(), ApiError> {
    let guard = sfu.lock();
    let known = guard.settings.turn_key.as_ref().filter(|(id, _)| id == key);
    let Some((_, token)) = known else {
        return Err(ApiError::new(404, "not_found", "Key not found"));
    };
    let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    if bearer == Some(token.as_str()) { Ok(()) } else { Err(unauthorized()) }
}

impl Sfu {
    pub(crate) fn turn_credentials(&self, body: &str) -> Outcome {
        let request: Request = decode(body, &["ttl"])?;
        if request.ttl == 0 || request.ttl > MAX_TTL {
            return Err(ApiError::params("ttl is out of range"));
        }
        let mut guard = self.lock();
        let (username, credential) = (hex(&mut guard.rng, 64), hex(&mut guard.rng, 64));
        let turn = [
            "turn:turn.cloudflare.com:3478?transport=udp",
            "turn:turn.cloudflare.com:53?transport=udp",
            "turn:turn.cloudflare.com:3478?transport=tcp",
            "turn:turn.cloudflare.com:80?transport=tcp",
            "turns:turn.cloudflare.com:5349?transport=tcp",
            "turns:turn.cloudflare.com:443?transport=tcp",
        ];
        let stun = ["stun:stun.cloudflare.com:3478", "stun:stun.cloudflare.com:53"];
        let servers = json!([{"urls": stun}, {"urls": turn, "username": username, "credential": credential}]);
        Ok(Reply::of(201, &json!({"iceServers": servers})))
    }
}
