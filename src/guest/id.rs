//! The two names by which the outside world addresses a guest: the slot (`guest1`, chosen by the operator, public)
//! and the session resource (random, known only to the page that published).
//!
//! Every guest id of the process goes through [`GuestId::parse`], so that what is later put into an RTMP path, a log
//! line or a URL holds only `A-Z a-z 0-9 _ -`.
//!
//! Bounds: a guest id has 1 to 32 characters, a resource id exactly 32.

use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;

/// Name of a guest slot: `^[A-Za-z0-9_-]{1,32}$`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GuestId(Arc<str>);

/// Why a text is no guest id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestIdError {
    /// No characters at all.
    Empty,
    /// More than [`GuestId::MAX_LEN`] bytes.
    TooLong {
        /// Length found, in bytes.
        len: usize,
    },
    /// A character outside `A-Z a-z 0-9 _ -`.
    Character {
        /// Position of its first byte.
        at: usize,
    },
}

impl fmt::Display for GuestIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a guest id must not be empty"),
            Self::TooLong { len } => {
                write!(f, "a guest id has at most {} characters, this one has {len}", GuestId::MAX_LEN)
            }
            Self::Character { at } => {
                write!(f, "a guest id holds only letters, digits, '_' and '-'; character {} is none of them", at + 1)
            }
        }
    }
}

impl std::error::Error for GuestIdError {}

impl GuestId {
    /// Longest id, in characters.
    pub const MAX_LEN: usize = 32;

    /// Checks and takes over a guest id.
    pub fn parse(text: &str) -> Result<Self, GuestIdError> {
        if text.is_empty() {
            return Err(GuestIdError::Empty);
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if let Some(at) = text.bytes().position(|b| !allowed(b)) {
            return Err(GuestIdError::Character { at });
        }
        if text.len() > Self::MAX_LEN {
            return Err(GuestIdError::TooLong { len: text.len() });
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GuestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for GuestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestId({})", self.0)
    }
}

impl serde::Serialize for GuestId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Last path segment of a WHIP session URL (RFC 9725 §4.2, §5): 128 bits from the operating system, in lower-case
/// hexadecimal. Whoever knows it may end the session, therefore `Debug` shows only its beginning and comparison takes
/// the same time wherever two ids differ.
#[derive(Clone)]
pub struct ResourceId(Arc<str>);

impl ResourceId {
    const RANDOM_BYTES: usize = 16;
    const TEXT_LEN: usize = 2 * Self::RANDOM_BYTES;

    /// A new, unguessable id.
    pub fn generate() -> Self {
        let mut random = [0_u8; Self::RANDOM_BYTES];
        getrandom::fill(&mut random).expect("the operating system gives random bytes after boot");
        Self::from_random(random)
    }

    /// The id made of the given bytes, for callers that bring their own randomness (tests).
    pub fn from_random(random: [u8; 16]) -> Self {
        let text: String = random.iter().map(|b| format!("{b:02x}")).collect();
        Self(text.into())
    }

    /// Takes over an id from a URL; `None` when no id of ours can look like that.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (text.len() == Self::TEXT_LEN && text.bytes().all(hex)).then(|| Self(text.into()))
    }

    /// The id as text. It belongs into a `Location` header and the state file, never into a log line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for ResourceId {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for ResourceId {}

impl fmt::Debug for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResourceId({}…)", self.0.get(..6).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn guest_ids_of_letters_digits_underscore_and_hyphen_are_taken_as_they_are() {
        let longest = "a".repeat(32);
        for text in ["guest1", "A", "-", "_x-9", longest.as_str()] {
            assert_eq!(GuestId::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn everything_else_is_no_guest_id() {
        let too_long = "a".repeat(33);
        for (text, error) in [
            ("", GuestIdError::Empty),
            (too_long.as_str(), GuestIdError::TooLong { len: 33 }),
            ("a/../b", GuestIdError::Character { at: 1 }),
            ("a?x=1", GuestIdError::Character { at: 1 }),
            ("%0d%0a", GuestIdError::Character { at: 0 }),
            ("guest\r\n", GuestIdError::Character { at: 5 }),
            ("gjest1 ", GuestIdError::Character { at: 6 }),
            ("gæst", GuestIdError::Character { at: 1 }),
            ("..", GuestIdError::Character { at: 0 }),
        ] {
            assert_eq!(GuestId::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_resource_id_is_128_bits_in_hexadecimal() {
        let id = ResourceId::from_random([0xab; 16]);
        assert_eq!(id.as_str(), "abababababababababababababababab");
        assert_eq!(ResourceId::parse(id.as_str()), Some(id.clone()));
        assert_ne!(ResourceId::generate(), ResourceId::generate());
    }

    #[test]
    fn a_text_that_no_resource_id_can_be_is_refused_before_any_lookup() {
        let upper_case = "AB".repeat(16);
        let long = "ab".repeat(17);
        for text in ["", "ab", upper_case.as_str(), long.as_str(), "../../../../../../../../../../etc"] {
            assert_eq!(ResourceId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn debug_output_does_not_give_a_resource_id_away() {
        let id = ResourceId::from_random([0xab; 16]);
        assert_eq!(format!("{id:?}"), "ResourceId(ababab…)");
    }
}
