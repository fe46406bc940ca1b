//! Which protocol a datagram is, and whose: the shared UDP socket's datagram -> [`Class`] and session key.
//!
//! RFC 7983 §7 tells the protocols apart by the first byte, RFC 5761 §4 RTCP from RTP by the second.
//! Bounds: [`MAX_SESSIONS`] sessions, [`MAX_VALIDATED`] addresses each; an address enters the table only after the
//! session's ICE agent has authenticated a check from it, so strangers leave no trace here.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::ice::MAX_VALIDATED;
use super::stun;

/// Sessions that can be routed to at once: 64 guests, as many whose place in the configuration is gone, and for each slot a
/// live and a prepared one.
pub const MAX_SESSIONS: usize = 2 * (2 * 64);

/// The protocol of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// First byte 0 to 3.
    Stun,
    /// First byte 20 to 63.
    Dtls,
    /// First byte 128 to 191, payload type not one of RTCP's.
    Rtp,
    /// First byte 128 to 191, packet type 192 to 223.
    Rtcp,
    /// Nothing we know; dropped.
    Other,
}

/// Tells the protocol by the first two bytes.
pub fn classify(datagram: &[u8]) -> Class {
    match *datagram {
        [0..=3, ..] => Class::Stun,
        [20..=63, ..] => Class::Dtls,
        [128..=191, 192..=223, ..] => Class::Rtcp,
        [128..=191, _, ..] => Class::Rtp,
        _ => Class::Other,
    }
}

/// The sessions behind one socket, each under a key of the driver's choice.
#[derive(Debug)]
pub struct Routes<K> {
    by_ufrag: HashMap<String, K>,
    by_address: HashMap<SocketAddr, K>,
}

impl<K> Default for Routes<K> {
    fn default() -> Self {
        Self { by_ufrag: HashMap::new(), by_address: HashMap::new() }
    }
}

impl<K: Copy + Eq> Routes<K> {
    /// No sessions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a session under its own ufrag, before its answer goes out: a browser's first check can follow within
    /// milliseconds. `false`: the table is full or the ufrag taken.
    #[must_use]
    pub fn insert(&mut self, local_ufrag: &str, key: K) -> bool {
        if self.by_ufrag.len() >= MAX_SESSIONS || self.by_ufrag.contains_key(local_ufrag) {
            return false;
        }
        self.by_ufrag.insert(local_ufrag.to_owned(), key);
        true
    }

    /// Enters an address that the session's agent reported as validated. The latest session to authenticate there
    /// gets its datagrams: a reloaded page may come back on the same port.
    pub fn validate(&mut self, address: SocketAddr, key: K) {
        let full = self.by_address.len() >= MAX_SESSIONS * MAX_VALIDATED;
        if !full || self.by_address.contains_key(&address) {
            self.by_address.insert(address, key);
        }
    }

    /// Takes out an address that the session's agent reported as forgotten.
    pub fn forget(&mut self, address: SocketAddr, key: K) {
        if self.by_address.get(&address) == Some(&key) {
            self.by_address.remove(&address);
        }
    }

    /// Takes out everything of a session.
    pub fn remove(&mut self, key: K) {
        self.by_ufrag.retain(|_, other| *other != key);
        self.by_address.retain(|_, other| *other != key);
    }

    /// Whose datagram this is, and of which class: a Binding request goes by the ufrag it names, everything else by its
    /// source address.
    pub fn route(&self, datagram: &[u8], from: SocketAddr) -> Option<(K, Class)> {
        let class = classify(datagram);
        let by_address = || self.by_address.get(&from).copied();
        let key = match class {
            Class::Other => None,
            Class::Stun => match stun::named_ufrag(datagram) {
                Some(ufrag) => self.by_ufrag.get(ufrag).copied(),
                None => by_address(),
            },
            Class::Dtls | Class::Rtp | Class::Rtcp => by_address(),
        }?;
        Some((key, class))
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.by_ufrag.len()
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.by_ufrag.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::stun::{MessageClass, MessageWriter, TransactionId};
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn all_256_first_bytes_are_classified_as_in_rfc_7983() {
        for first in 0..=u8::MAX {
            let expected = match first {
                0..=3 => Class::Stun,
                20..=63 => Class::Dtls,
                128..=191 => Class::Rtp,
                _ => Class::Other,
            };
            assert_eq!(classify(&[first, 0, 0, 0]), expected, "{first}");
        }
        assert_eq!(classify(&[]), Class::Other);
        assert_eq!(classify(&[0x80]), Class::Other);
    }

    #[test]
    fn rtcp_is_told_by_a_second_byte_of_192_to_223() {
        for second in 0..=u8::MAX {
            let expected = if (192..=223).contains(&second) { Class::Rtcp } else { Class::Rtp };
            assert_eq!(classify(&[0x80, second, 0, 0]), expected, "{second}");
        }
    }

    #[test]
    fn requests_go_by_ufrag_and_the_rest_by_validated_address() {
        let mut routes = Routes::new();
        assert!(routes.insert("aaaaaaaa", 1));
        assert!(routes.insert("bbbbbbbb", 2));
        assert!(!routes.insert("bbbbbbbb", 3));
        let request = |username| {
            MessageWriter::binding(MessageClass::Request, TransactionId([0; 12])).username(username).finish(b"x")
        };
        let response = MessageWriter::binding(MessageClass::Success, TransactionId([0; 12])).finish(b"x");
        let media = [0x80, 96, 0, 0];
        assert_eq!(routes.route(&request("aaaaaaaa:peer"), address(1)), Some((1, Class::Stun)));
        assert_eq!(routes.route(&request("bbbbbbbb:peer"), address(1)), Some((2, Class::Stun)));
        assert_eq!(routes.route(&request("cccccccc:peer"), address(1)), None);
        assert_eq!(routes.route(&media, address(1)), None);
        assert_eq!(routes.route(&response, address(1)), None);
        routes.validate(address(1), 1);
        assert_eq!(routes.route(&media, address(1)), Some((1, Class::Rtp)));
        assert_eq!(routes.route(&response, address(1)), Some((1, Class::Stun)));
        // A later session on the same port takes it over; the earlier one cannot take it away again.
        routes.validate(address(1), 2);
        routes.forget(address(1), 1);
        assert_eq!(routes.route(&media, address(1)), Some((2, Class::Rtp)));
        routes.remove(2);
        assert_eq!(routes.route(&media, address(1)), None);
        assert_eq!(routes.route(&request("bbbbbbbb:peer"), address(1)), None);
        assert_eq!(routes.len(), 1);
    }

    #[test]
    fn both_tables_are_bounded() {
        let mut routes = Routes::new();
        for n in 0..MAX_SESSIONS {
            assert!(routes.insert(&format!("ufrag{n:03}"), n));
        }
        assert!(!routes.insert("onemore", 0));
        for port in 1..=u16::try_from(MAX_SESSIONS * MAX_VALIDATED).unwrap() + 1 {
            routes.validate(address(port), 0);
        }
        assert_eq!(routes.by_address.len(), MAX_SESSIONS * MAX_VALIDATED);
    }
}
