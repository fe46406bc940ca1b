//! STUN messages as ICE uses them (RFC 8489, RFC 8445 §7): datagram -> [`Message`], and
//! [`MessageWriter`] -> datagram.
//!
//! ```text
//!  0                   1                   2                   3
//! |0 0|     message type (14)     |      message length (16)      |  length: of the attributes,
//! |                  magic cookie 0x2112A442                      |  a multiple of 4
//! |                  transaction id (96 bits)                     |
//! |       attribute type (16)     |       value length (16)       |  value padded to 4 bytes,
//! |                  value ...                                    |  padding not in its length
//! ```
//!
//! A message is parsed in one walk without allocation; the first occurrence of an attribute counts, and what
//! follows MESSAGE-INTEGRITY is ignored but for FINGERPRINT. Bounds: a datagram; at most
//! [`MAX_UNKNOWN_ATTRIBUTES`] unknown attributes are remembered. Only the parts ICE needs are here: Binding,
//! short-term credentials, HMAC-SHA1.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hmac::{Hmac, Mac};
use sha1::Sha1;

use super::bytes::{Reader, Truncated};

mod write;

pub use write::MessageWriter;

/// RFC 8489 §5.
const MAGIC_COOKIE: u32 = 0x2112_A442;
/// Its first half, which ports are XORed with.
const MAGIC_COOKIE_HIGH: u16 = 0x2112;
const HEADER_LEN: usize = 20;
const INTEGRITY_LEN: usize = 20;
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

mod attribute {
    pub(super) const USERNAME: u16 = 0x0006;
    pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(super) const ERROR_CODE: u16 = 0x0009;
    pub(super) const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub(super) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub(super) const PRIORITY: u16 = 0x0024;
    pub(super) const USE_CANDIDATE: u16 = 0x0025;
    pub(super) const FINGERPRINT: u16 = 0x8028;
    pub(super) const ICE_CONTROLLED: u16 = 0x8029;
    pub(super) const ICE_CONTROLLING: u16 = 0x802A;
    /// Types below this one must be understood (RFC 8489 §14).
    pub(super) const COMPREHENSION_OPTIONAL: u16 = 0x8000;
}

/// Attributes of other STUN uses that a Binding request may carry and that change nothing for us: known, so
/// never a reason for 420 (MAPPED-ADDRESS, REALM, NONCE, MESSAGE-INTEGRITY-SHA256, PASSWORD-ALGORITHM, USERHASH).
const KNOWN_AND_IGNORED: [u16; 6] = [0x0001, 0x0014, 0x0015, attribute::MESSAGE_INTEGRITY_SHA256, 0x001D, 0x001E];

/// Ties a response to its request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TransactionId(pub [u8; 12]);

/// RFC 8489 §5: the two class bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
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

/// Why a datagram is no STUN message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StunError {
    /// The datagram ends within the header or an attribute.
    Truncated(Truncated),
    /// The first two bits are not zero.
    NotStun,
    /// The magic cookie is another number.
    BadCookie(u32),
    /// The length field is no multiple of four or not what follows the header.
    BadLength {
        /// The field's value.
        field: u16,
        /// Bytes after the header.
        have: usize,
    },
    /// An attribute we use has a size or content it cannot have.
    BadAttribute(u16),
    /// Something follows FINGERPRINT.
    AfterFingerprint,
    /// FINGERPRINT does not match the message.
    BadFingerprint,
}

impl From<Truncated> for StunError {
    fn from(error: Truncated) -> Self {
        Self::Truncated(error)
    }
}

impl fmt::Display for StunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(t) => write!(f, "truncated: {t}"),
            Self::NotStun => write!(f, "first two bits are not zero"),
            Self::BadCookie(cookie) => write!(f, "magic cookie is {cookie:08x}"),
            Self::BadLength { field, have } => {
                write!(f, "length field says {field}, {have} bytes follow")
            }
            Self::BadAttribute(kind) => write!(f, "attribute {kind:04x} is malformed"),
            Self::AfterFingerprint => write!(f, "attributes after FINGERPRINT"),
            Self::BadFingerprint => write!(f, "FINGERPRINT does not match"),
        }
    }
}

impl std::error::Error for StunError {}

/// Where MESSAGE-INTEGRITY stands and what it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Integrity<'a> {
    /// Offset of the attribute's header: what precedes it is covered.
    offset: usize,
    tag: &'a [u8; INTEGRITY_LEN],
}

/// A parsed message, borrowing from its datagram.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    datagram: &'a [u8],
    /// Request, indication, success or error.
    pub class: Class,
    /// [`BINDING`] in ICE.
    pub method: u16,
    /// Chosen by the requester.
    pub transaction_id: TransactionId,
    /// USERNAME: `receiver's ufrag:sender's ufrag` in a check.
    pub username: Option<&'a [u8]>,
    /// PRIORITY of the peer-reflexive candidate the check could reveal.
    pub priority: Option<u32>,
    /// Whether the controlling agent nominates the pair with this check.
    pub use_candidate: bool,
    /// ICE-CONTROLLING or ICE-CONTROLLED.
    pub role: Option<RoleAttribute>,
    /// XOR-MAPPED-ADDRESS: what the responder saw as source.
    pub mapped_address: Option<SocketAddr>,
    /// ERROR-CODE.
    pub error_code: Option<u16>,
    /// Whether a FINGERPRINT was there; a wrong one is an error.
    pub has_fingerprint: bool,
    integrity: Option<Integrity<'a>>,
    unknown: UnknownAttributes,
}

/// Comprehension-required attributes that were not understood, up to a bound.
#[derive(Clone, Copy, Debug, Default)]
struct UnknownAttributes {
    types: [u16; MAX_UNKNOWN_ATTRIBUTES],
    len: usize,
}

impl UnknownAttributes {
    fn push(&mut self, kind: u16) {
        if let Some(slot) = self.types.get_mut(self.len) {
            *slot = kind;
            self.len += 1;
        }
    }
}

impl<'a> Message<'a> {
    /// Parses a datagram that is one STUN message, no more and no less.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, StunError> {
        let mut reader = Reader::new(datagram);
        let message_type = reader.u16()?;
        if message_type & 0xC000 != 0 {
            return Err(StunError::NotStun);
        }
        let length = reader.u16()?;
        let cookie = reader.u32()?;
        let transaction_id = TransactionId(reader.take_array()?);
        if cookie != MAGIC_COOKIE {
            return Err(StunError::BadCookie(cookie));
        }
        if !length.is_multiple_of(4) || usize::from(length) != reader.len() {
            return Err(StunError::BadLength { field: length, have: reader.len() });
        }
        let (class, method) = split_type(message_type);
        let mut message = Self {
            datagram,
            class,
            method,
            transaction_id,
            username: None,
            priority: None,
            use_candidate: false,
            role: None,
            mapped_address: None,
            error_code: None,
            has_fingerprint: false,
            integrity: None,
            unknown: UnknownAttributes::default(),
        };
        while !reader.is_empty() {
            if message.has_fingerprint {
                return Err(StunError::AfterFingerprint);
            }
            let offset = datagram.len() - reader.len();
            let kind = reader.u16()?;
            let value_len = usize::from(reader.u16()?);
            let value = reader.take(value_len)?;
            reader.take(value_len.next_multiple_of(4) - value_len)?;
            message.take_attribute(offset, kind, value)?;
        }
        Ok(message)
    }

    fn take_attribute(&mut self, offset: usize, kind: u16, value: &'a [u8]) -> Result<(), StunError> {
        let malformed = StunError::BadAttribute(kind);
        if kind == attribute::FINGERPRINT {
            let crc = <[u8; 4]>::try_from(value).map_err(|_| malformed)?;
            let covered = self.datagram.get(..offset).ok_or(malformed)?;
            if u32::from_be_bytes(crc) != fingerprint(covered) {
                return Err(StunError::BadFingerprint);
            }
            self.has_fingerprint = true;
            return Ok(());
        }
        if self.integrity.is_some() {
            return Ok(()); // RFC 8489 §14.5
        }
        match kind {
            attribute::USERNAME => {
                // RFC 8489 §14.3: less than 509 bytes.
                if value.is_empty() || value.len() > 508 {
                    return Err(malformed);
                }
                self.username.get_or_insert(value);
            }
            attribute::MESSAGE_INTEGRITY => {
                let tag = value.try_into().map_err(|_| malformed)?;
                self.integrity = Some(Integrity { offset, tag });
            }
            attribute::PRIORITY => {
                let bytes = value.try_into().map_err(|_| malformed)?;
                self.priority.get_or_insert(u32::from_be_bytes(bytes));
            }
            attribute::USE_CANDIDATE => {
                if !value.is_empty() {
                    return Err(malformed);
                }
                self.use_candidate = true;
            }
            attribute::ICE_CONTROLLED | attribute::ICE_CONTROLLING => {
                let tie_breaker = u64::from_be_bytes(value.try_into().map_err(|_| malformed)?);
                self.role.get_or_insert(if kind == attribute::ICE_CONTROLLING {
                    RoleAttribute::Controlling(tie_breaker)
                } else {
                    RoleAttribute::Controlled(tie_breaker)
                });
            }
            attribute::XOR_MAPPED_ADDRESS => {
                let address = parse_xor_address(value, self.transaction_id).map_err(|_| malformed)?;
                self.mapped_address.get_or_insert(address.ok_or(malformed)?);
            }
            attribute::ERROR_CODE => {
                let code = parse_error_code(value).map_err(|_| malformed)?;
                self.error_code.get_or_insert(code.ok_or(malformed)?);
            }
            attribute::UNKNOWN_ATTRIBUTES => {}
            _ if kind >= attribute::COMPREHENSION_OPTIONAL => {}
            _ if KNOWN_AND_IGNORED.contains(&kind) => {}
            _ => self.unknown.push(kind),
        }
        Ok(())
    }

    /// Comprehension-required attributes that we do not know, in order.
    pub fn unknown_attributes(&self) -> &[u16] {
        self.unknown.types.get(..self.unknown.len).unwrap_or_default()
    }

    /// Whether MESSAGE-INTEGRITY is there and was made with `key`, compared in constant time
    /// (RFC 8489 §14.5; the key is the ICE password).
    pub fn is_authentic(&self, key: &[u8]) -> bool {
        let Some(integrity) = self.integrity else {
            return false;
        };
        let Some(covered) = self.datagram.get(..integrity.offset) else {
            return false;
        };
        integrity_of(covered, key).is_some_and(|mac| mac.verify_slice(integrity.tag).is_ok())
    }
}

/// The ufrag of ours that a Binding request names (the part of USERNAME before the colon): what datagrams from a
/// new address are routed by. It looks at nothing else and proves nothing.
pub fn named_ufrag(datagram: &[u8]) -> Option<&str> {
    let mut reader = Reader::new(datagram);
    let (class, method) = split_type(reader.u16().ok()?);
    if class != Class::Request || method != BINDING {
        return None;
    }
    reader.take(HEADER_LEN - 2).ok()?;
    while !reader.is_empty() {
        let kind = reader.u16().ok()?;
        let value_len = usize::from(reader.u16().ok()?);
        let value = reader.take(value_len).ok()?;
        if kind == attribute::USERNAME {
            let ufrag = value.split(|byte| *byte == b':').next()?;
            return std::str::from_utf8(ufrag).ok();
        }
        reader.take(value_len.next_multiple_of(4) - value_len).ok()?;
    }
    None
}

/// `M11..M7 C1 M6..M4 C0 M3..M0` (RFC 8489 §5, figure 3).
fn split_type(message_type: u16) -> (Class, u16) {
    let method = (message_type & 0x000F) | ((message_type & 0x00E0) >> 1) | ((message_type & 0x3E00) >> 2);
    let class = match (message_type & 0x0100 != 0, message_type & 0x0010 != 0) {
        (false, false) => Class::Request,
        (false, true) => Class::Indication,
        (true, false) => Class::Success,
        (true, true) => Class::Error,
    };
    (class, method)
}

fn fingerprint(covered: &[u8]) -> u32 {
    crc32fast::hash(covered) ^ FINGERPRINT_XOR
}

/// HMAC-SHA1 over `covered` with the header's length as if MESSAGE-INTEGRITY were the last attribute.
fn integrity_of(covered: &[u8], key: &[u8]) -> Option<Hmac<Sha1>> {
    let (message_type, rest) = covered.split_first_chunk::<2>()?;
    let (_length, rest) = rest.split_first_chunk::<2>()?;
    let length = u16::try_from(covered.len() - HEADER_LEN + 4 + INTEGRITY_LEN).ok()?;
    let mut mac = Hmac::<Sha1>::new_from_slice(key).ok()?;
    mac.update(message_type);
    mac.update(&length.to_be_bytes());
    mac.update(rest);
    Some(mac)
}

/// `None`: a family that is neither IPv4 nor IPv6, or a length that is not the family's.
fn parse_xor_address(value: &[u8], transaction_id: TransactionId) -> Result<Option<SocketAddr>, Truncated> {
    let mut reader = Reader::new(value);
    reader.u8()?;
    let family = reader.u8()?;
    let port = reader.u16()? ^ MAGIC_COOKIE_HIGH;
    let ip: IpAddr = match family {
        1 => Ipv4Addr::from(reader.u32()? ^ MAGIC_COOKIE).into(),
        2 => Ipv6Addr::from(u128::from_be_bytes(reader.take_array()?) ^ xor_mask(transaction_id)).into(),
        _ => return Ok(None),
    };
    Ok(reader.is_empty().then_some(SocketAddr::new(ip, port)))
}

/// Cookie and transaction id, which IPv6 addresses are XORed with (RFC 8489 §14.2).
fn xor_mask(transaction_id: TransactionId) -> u128 {
    let mut mask = [0; 16];
    let (cookie, id) = mask.split_at_mut(4);
    cookie.copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    id.copy_from_slice(&transaction_id.0);
    u128::from_be_bytes(mask)
}

fn parse_error_code(value: &[u8]) -> Result<Option<u16>, Truncated> {
    let mut reader = Reader::new(value);
    reader.u16()?;
    let class = u16::from(reader.u8()? & 0x07);
    let number = u16::from(reader.u8()?);
    Ok(((3..=6).contains(&class) && number < 100).then_some(class * 100 + number))
}

#[cfg(test)]
mod tests;
