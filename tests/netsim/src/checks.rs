//! What becomes of a guest's connectivity checks on their way (RFC 8445 §7.2, RFC 7675).
//!
//! A check in; the check as another sender makes it, or an answer to it, out. Both are made anew, since the password is
//! known here: the peer must not be able to tell.

use std::net::SocketAddr;

use guest_relay::rtc::demux::{Class, classify};
use guest_relay::rtc::stun::{Message, MessageClass, MessageWriter};

/// How a guest's checks look from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checks {
    /// As they are.
    #[default]
    Whole,
    /// Without USE-CANDIDATE, as libdatachannel's are once it is connected.
    Plain,
    /// There are none, as with GStreamer 1.22 once it is connected. The guest's own stack does send some: the network answers them.
    None,
}

/// What a datagram of the guest turns into.
#[derive(Debug)]
pub(crate) enum Passed {
    On(Vec<u8>),
    /// Nothing goes on; this comes back.
    Answered(Vec<u8>),
}

impl Checks {
    /// Of a datagram that appears to come from `from`; `password` is the daemon's.
    pub(crate) fn pass(self, datagram: Vec<u8>, from: SocketAddr, password: &str) -> Passed {
        if self == Checks::Whole || classify(&datagram) != Class::Stun {
            return Passed::On(datagram);
        }
        let Some(check) = Message::parse(&datagram).ok().filter(|check| check.class == MessageClass::Request) else {
            return Passed::On(datagram);
        };
        let key = password.as_bytes();
        if self == Checks::None {
            let answer = MessageWriter::binding(MessageClass::Success, check.transaction_id).mapped_address(from);
            return Passed::Answered(answer.finish(key));
        }
        let username = check.username.and_then(|username| std::str::from_utf8(username).ok()).unwrap_or_default();
        let mut plain = MessageWriter::binding(MessageClass::Request, check.transaction_id)
            .username(username)
            .priority(check.priority.unwrap_or(1));
        if let Some(role) = check.role {
            plain = plain.role(role);
        }
        Passed::On(plain.finish(key))
    }
}
