//! [`Greeting`]: handshake and connect command, and no further: whether a server speaks RTMP, without publishing there.
//! Server bytes in, bytes to write out; no socket, no clock.

use super::message::StatusCode;
use super::session::{Notice, ProtocolError, Session};
use super::target::Target;
use crate::backoff::Rng;

/// How far a greeting is.
#[derive(Clone, Debug, PartialEq)]
pub enum Greeted {
    NotYet,
    /// The server has accepted the connect command. The connection may be closed.
    Accepted,
    Rejected(StatusCode),
}

/// See the module.
pub struct Greeting {
    session: Session,
    target: Target,
}

impl Greeting {
    /// Appends the first bytes to `out`. `seed` fills the handshake.
    pub fn start(target: Target, seed: u64, out: &mut Vec<u8>) -> Self {
        Self { session: Session::start(out, &mut Rng::new(seed)), target }
    }

    /// Takes bytes of the server, appends what is to be written next, unless the greeting is over.
    pub fn handle_bytes(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<Greeted, ProtocolError> {
        while !bytes.is_empty() && !self.session.is_connected() {
            if let Some(Notice::Rejected(code)) = self.session.handle_bytes(&mut bytes, &self.target, out)? {
                return Ok(Greeted::Rejected(code));
            }
        }
        Ok(if self.session.is_connected() { Greeted::Accepted } else { Greeted::NotYet })
    }
}
