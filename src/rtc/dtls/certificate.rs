//! Certificates and their fingerprints in SDP (RFC 8122 §5; RFC 8827 §6.5).
//!
//! `a=fingerprint` values in, sha-256 digests out, at most [`MAX_FINGERPRINTS`] of them; the same way back for our
//! own certificate. In WebRTC the fingerprint is what authenticates the peer: nothing else about its certificate is
//! checked.

use std::sync::Arc;

use sha2::{Digest, Sha256};

/// sha-256 fingerprints that one description may carry.
pub const MAX_FINGERPRINTS: usize = 8;

const SHA_256: &str = "sha-256";

/// The certificate and private key of this process: ECDSA P-256, self-signed, made at start.
#[derive(Clone)]
pub struct Certificate {
    inner: Arc<webrtc_dtls::crypto::Certificate>,
    fingerprint: Fingerprint,
}

impl Certificate {
    /// Makes a fresh key pair and a certificate for it.
    ///
    /// # Panics
    ///
    /// When the operating system has no random numbers to give.
    pub fn generate() -> Self {
        let certificate = webrtc_dtls::crypto::Certificate::generate_self_signed(vec!["guest-relay".to_owned()])
            .expect("a P-256 key pair that was just made can be loaded");
        let leaf = certificate.certificate.first().expect("a self-signed certificate is its own chain");
        Self { fingerprint: Fingerprint::of(leaf), inner: Arc::new(certificate) }
    }

    /// For `a=fingerprint` in our SDP.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn to_dtls(&self) -> webrtc_dtls::crypto::Certificate {
        (*self.inner).clone()
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate({})", self.fingerprint)
    }
}

/// A sha-256 digest of a DER certificate. Displays as the value of `a=fingerprint`: `sha-256 4A:AD:..`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a DER certificate.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }

    /// Reads `4A:AD:..`, in either case.
    fn from_hex(digest: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let mut pairs = digest.split(':');
        for byte in &mut bytes {
            let pair = pairs.next()?;
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        pairs.next().is_none().then_some(Self(bytes))
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{SHA_256}")?;
        for (index, byte) in self.0.iter().enumerate() {
            let separator = if index == 0 { ' ' } else { ':' };
            write!(f, "{separator}{byte:02X}")?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// The fingerprints that the peer's description promises; its certificate must have one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerFingerprints(Vec<Fingerprint>);

impl PeerFingerprints {
    /// Reads the values of all `a=fingerprint` lines that apply. Hash functions other than sha-256 are passed over,
    /// and when there is nothing else the description is refused.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Self, FingerprintError> {
        let mut fingerprints = Vec::new();
        let mut others = false;
        for value in values {
            let (hash, digest) = value.trim().split_once(' ').ok_or(FingerprintError::Malformed)?;
            if !hash.eq_ignore_ascii_case(SHA_256) {
                others = true;
                continue;
            }
            let fingerprint = Fingerprint::from_hex(digest.trim()).ok_or(FingerprintError::Malformed)?;
            if fingerprints.contains(&fingerprint) {
                continue;
            }
            if fingerprints.len() == MAX_FINGERPRINTS {
                return Err(FingerprintError::TooMany);
            }
            fingerprints.push(fingerprint);
        }
        match (fingerprints.is_empty(), others) {
            (false, _) => Ok(Self(fingerprints)),
            (true, true) => Err(FingerprintError::NoSha256),
            (true, false) => Err(FingerprintError::Missing),
        }
    }

    /// Whether `presented` is one of them.
    pub fn contains(&self, presented: &Fingerprint) -> bool {
        self.0.contains(presented)
    }
}

impl From<Fingerprint> for PeerFingerprints {
    fn from(fingerprint: Fingerprint) -> Self {
        Self(vec![fingerprint])
    }
}

/// Why a description's fingerprints were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FingerprintError {
    /// There is none.
    Missing,
    /// There is none of sha-256, but of another hash function.
    NoSha256,
    /// Not `sha-256` and 32 pairs of hexadecimal digits.
    Malformed,
    /// More than [`MAX_FINGERPRINTS`].
    TooMany,
}

impl std::fmt::Display for FingerprintError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => write!(f, "no a=fingerprint"),
            Self::NoSha256 => write!(f, "no a=fingerprint of sha-256"),
            Self::Malformed => write!(f, "malformed a=fingerprint"),
            Self::TooMany => write!(f, "more than {MAX_FINGERPRINTS} a=fingerprint"),
        }
    }
}

impl std::error::Error for FingerprintError {}
