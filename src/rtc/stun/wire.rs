//! The numbers and fields of STUN that reading and writing share.

use hmac::{Hmac, Mac};
use sha1::Sha1;

/// RFC 8489 §5.
pub(super) const MAGIC_COOKIE: u32 = 0x2112_A442;
/// Its first half, which ports are XORed with.
pub(super) const MAGIC_COOKIE_HIGH: u16 = 0x2112;
pub(super) const HEADER_LEN: usize = 20;
pub(super) const INTEGRITY_LEN: usize = 20;
/// RFC 8489 §14.7: what the CRC-32 is XORed with.
const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// Unknown comprehension-required attributes kept for the 420 answer; one more is as good as a hundred.
pub const MAX_UNKNOWN_ATTRIBUTES: usize = 8;

/// The method of every message that ICE sends (RFC 8489 §18.2).
pub const BINDING: u16 = 0x001;

/// Error codes of RFC 8489 §14.8 and RFC 8445 §7.1 that we send or look for.
pub mod error_code {
    /// A comprehension-required attribute was not understood.
    pub const UNKNOWN_ATTRIBUTE: u16 = 420;
    /// Both agents take the same ICE role.
    pub const ROLE_CONFLICT: u16 = 487;
}

pub(super) mod attribute {
    pub(in super::super) const USERNAME: u16 = 0x0006;
    pub(in super::super) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(in super::super) const ERROR_CODE: u16 = 0x0009;
    pub(in super::super) const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub(in super::super) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub(in super::super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub(in super::super) const PRIORITY: u16 = 0x0024;
    pub(in super::super) const USE_CANDIDATE: u16 = 0x0025;
    pub(in super::super) const FINGERPRINT: u16 = 0x8028;
    pub(in super::super) const ICE_CONTROLLED: u16 = 0x8029;
    pub(in super::super) const ICE_CONTROLLING: u16 = 0x802A;
    /// Types below this one must be understood (RFC 8489 §14).
    pub(in super::super) const COMPREHENSION_OPTIONAL: u16 = 0x8000;
}

/// Ties a response to its request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TransactionId(pub [u8; 12]);

/// RFC 8489 §5: the two class bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageClass {
    /// Wants a response.
    Request,
    /// Wants none.
    Indication,
    /// The request was accepted.
    Success,
    /// The request was refused.
    Error,
}

/// The role a sender of a check claims, with its tie-breaker (RFC 8445 §7.3.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleAttribute {
    /// ICE-CONTROLLING.
    Controlling(u64),
    /// ICE-CONTROLLED.
    Controlled(u64),
}

/// `M11..M7 C1 M6..M4 C0 M3..M0` (RFC 8489 §5, figure 3).
pub(super) fn split_type(message_type: u16) -> (MessageClass, u16) {
    let method = (message_type & 0x000F) | ((message_type & 0x00E0) >> 1) | ((message_type & 0x3E00) >> 2);
    let class = match (message_type & 0x0100 != 0, message_type & 0x0010 != 0) {
        (false, false) => MessageClass::Request,
        (false, true) => MessageClass::Indication,
        (true, false) => MessageClass::Success,
        (true, true) => MessageClass::Error,
    };
    (class, method)
}

/// The reverse of [`split_type`].
pub(super) fn join_type(class: MessageClass, method: u16) -> u16 {
    let class_bits = match class {
        MessageClass::Request => 0x0000,
        MessageClass::Indication => 0x0010,
        MessageClass::Success => 0x0100,
        MessageClass::Error => 0x0110,
    };
    class_bits | (method & 0x000F) | ((method & 0x0070) << 1) | ((method & 0x0F80) << 2)
}

pub(super) fn fingerprint(covered: &[u8]) -> u32 {
    crc32fast::hash(covered) ^ FINGERPRINT_XOR
}

/// HMAC-SHA1 over `covered` with the header's length as if MESSAGE-INTEGRITY were the last attribute.
pub(super) fn integrity_of(covered: &[u8], key: &[u8]) -> Option<Hmac<Sha1>> {
    let (message_type, rest) = covered.split_first_chunk::<2>()?;
    let (_length, rest) = rest.split_first_chunk::<2>()?;
    let length = u16::try_from(covered.len() - HEADER_LEN + 4 + INTEGRITY_LEN).ok()?;
    let mut mac = Hmac::<Sha1>::new_from_slice(key).ok()?;
    mac.update(message_type);
    mac.update(&length.to_be_bytes());
    mac.update(rest);
    Some(mac)
}

/// Cookie and transaction id, which IPv6 addresses are XORed with (RFC 8489 §14.2).
pub(super) fn xor_mask(transaction_id: TransactionId) -> u128 {
    let mut mask = [0; 16];
    let (cookie, id) = mask.split_at_mut(4);
    cookie.copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    id.copy_from_slice(&transaction_id.0);
    u128::from_be_bytes(mask)
}
