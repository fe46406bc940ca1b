//! Writing STUN messages.

use std::net::{IpAddr, SocketAddr};

use hmac::Mac;

use super::super::bytes::Writer;
use super::wire::{
    BINDING, HEADER_LEN, MAGIC_COOKIE, MAGIC_COOKIE_HIGH, MAX_UNKNOWN_ATTRIBUTES, MessageClass, RoleAttribute,
    TransactionId, attribute, fingerprint, integrity_of, join_type, xor_mask,
};

const FINGERPRINT_ATTRIBUTE_LEN: usize = 8;

/// Builds one message; attributes come out in the order of the calls.
#[derive(Debug)]
pub struct MessageWriter {
    writer: Writer,
    transaction_id: TransactionId,
}

impl MessageWriter {
    /// Starts a Binding message.
    pub fn binding(class: MessageClass, transaction_id: TransactionId) -> Self {
        let mut writer = Writer::with_capacity(128);
        writer.u16(join_type(class, BINDING));
        writer.u16(0);
        writer.u32(MAGIC_COOKIE);
        writer.bytes(&transaction_id.0);
        Self { writer, transaction_id }
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.writer.u16(kind);
        self.writer.u16(u16::try_from(value.len()).expect("our attribute values are short"));
        self.writer.bytes(value);
        self.writer.pad_to_word();
        self
    }

    /// USERNAME.
    pub fn username(self, username: &str) -> Self {
        self.attribute(attribute::USERNAME, username.as_bytes())
    }

    /// PRIORITY.
    pub fn priority(self, priority: u32) -> Self {
        self.attribute(attribute::PRIORITY, &priority.to_be_bytes())
    }

    /// USE-CANDIDATE.
    pub fn use_candidate(self) -> Self {
        self.attribute(attribute::USE_CANDIDATE, &[])
    }

    /// ICE-CONTROLLING or ICE-CONTROLLED.
    pub fn role(self, role: RoleAttribute) -> Self {
        let (kind, tie_breaker) = match role {
            RoleAttribute::Controlling(n) => (attribute::ICE_CONTROLLING, n),
            RoleAttribute::Controlled(n) => (attribute::ICE_CONTROLLED, n),
        };
        self.attribute(kind, &tie_breaker.to_be_bytes())
    }

    /// XOR-MAPPED-ADDRESS.
    pub fn mapped_address(self, address: SocketAddr) -> Self {
        let mut value = Writer::with_capacity(20);
        value.u8(0);
        value.u8(if address.is_ipv4() { 1 } else { 2 });
        value.u16(address.port() ^ MAGIC_COOKIE_HIGH);
        match address.ip() {
            IpAddr::V4(ip) => value.u32(u32::from(ip) ^ MAGIC_COOKIE),
            IpAddr::V6(ip) => {
                value.bytes(&(u128::from(ip) ^ xor_mask(self.transaction_id)).to_be_bytes());
            }
        }
        self.attribute(attribute::XOR_MAPPED_ADDRESS, value.as_slice())
    }

    /// ERROR-CODE without a reason phrase: the reply stays smaller than the request.
    pub fn error_code(self, code: u16) -> Self {
        let digits = |n: u16| u8::try_from(n).unwrap_or_default();
        self.attribute(attribute::ERROR_CODE, &[0, 0, digits(code / 100), digits(code % 100)])
    }

    /// UNKNOWN-ATTRIBUTES.
    pub fn unknown_attributes(self, types: &[u16]) -> Self {
        let mut value = Writer::with_capacity(2 * MAX_UNKNOWN_ATTRIBUTES);
        types.iter().take(MAX_UNKNOWN_ATTRIBUTES).for_each(|kind| value.u16(*kind));
        self.attribute(attribute::UNKNOWN_ATTRIBUTES, value.as_slice())
    }

    /// Any attribute, for requests that no agent of ours sends.
    #[cfg(test)]
    pub(in crate::rtc) fn raw_attribute(self, kind: u16, value: &[u8]) -> Self {
        self.attribute(kind, value)
    }

    /// The datagram as it is, for a server that asks nobody who they are (RFC 8489 §6.1).
    pub fn finish_without_integrity(mut self) -> Vec<u8> {
        let length = self.writer.len() - HEADER_LEN;
        self.writer.set_u16(2, u16::try_from(length).expect("our messages are shorter than a datagram"));
        self.writer.into_vec()
    }

    /// Appends MESSAGE-INTEGRITY made with `key` and FINGERPRINT: the datagram.
    pub fn finish(mut self, key: &[u8]) -> Vec<u8> {
        let tag = integrity_of(self.writer.as_slice(), key)
            .expect("HMAC takes keys of any length and the header was written")
            .finalize()
            .into_bytes();
        self = self.attribute(attribute::MESSAGE_INTEGRITY, &tag);
        let length = self.writer.len() - HEADER_LEN + FINGERPRINT_ATTRIBUTE_LEN;
        let length = u16::try_from(length).expect("our messages are shorter than a datagram");
        self.writer.set_u16(2, length);
        let crc = fingerprint(self.writer.as_slice());
        self.attribute(attribute::FINGERPRINT, &crc.to_be_bytes()).writer.into_vec()
    }
}
