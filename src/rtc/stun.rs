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

use hmac::Mac;

use super::bytes::{Reader, Truncated};

mod wire;
mod write;

pub use wire::MessageClass as Class;
pub use wire::{BINDING, MAX_UNKNOWN_ATTRIBUTES, MessageClass, RoleAttribute, TransactionId, error_code};
use wire::{
    HEADER_LEN, INTEGRITY_LEN, MAGIC_COOKIE, MAGIC_COOKIE_HIGH, attribute, fingerprint, integrity_of, split_type,
    xor_mask,
};
pub use write::MessageWriter;

/// Attributes of other STUN uses that a Binding request may carry and that change nothing for us: known, so
/// never a reason for 420 (MAPPED-ADDRESS, REALM, NONCE, MESSAGE-INTEGRITY-SHA256, PASSWORD-ALGORITHM, USERHASH).
const KNOWN_AND_IGNORED: [u16; 6] = [0x0001, 0x0014, 0x0015, attribute::MESSAGE_INTEGRITY_SHA256, 0x001D, 0x001E];

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
    pub class: MessageClass,
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
    if class != MessageClass::Request || method != BINDING {
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

fn parse_error_code(value: &[u8]) -> Result<Option<u16>, Truncated> {
    let mut reader = Reader::new(value);
    reader.u16()?;
    let class = u16::from(reader.u8()? & 0x07);
    let number = u16::from(reader.u8()?);
    Ok(((3..=6).contains(&class) && number < 100).then_some(class * 100 + number))
}

#[cfg(test)]
mod tests;
