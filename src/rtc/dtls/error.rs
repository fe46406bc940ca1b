//! Why a handshake gave no keys.

use std::time::Duration;

use super::certificate::Fingerprint;
use super::choice::Unfit;

/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a handshake gave no keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DtlsError {
    /// No result within [`HANDSHAKE_TIMEOUT`].
    TimedOut {
        /// The description in the last fatal alert that came in the clear, which may be the reason (RFC 5246 §7.2).
        clear_alert: Option<u8>,
    },
    /// The peer's certificate is none of those that its description promises.
    FingerprintMismatch {
        /// Of the certificate that was presented.
        presented: Fingerprint,
    },
    /// The peer presented no certificate.
    NoPeerCertificate,
    /// The peer picked none of the SRTP profiles offered, or does not do SRTP.
    NoSrtpProfile,
    /// The peer does not do extended master secrets (RFC 7627).
    NoExtendedMasterSecret,
    /// The association was ended: by an alert under the peer's keys, or because webrtc-dtls stopped reading.
    Closed,
    /// The peer chose something that we do not take.
    Unfit(Unfit),
    /// What the peer sent does not add up, as webrtc-dtls puts it.
    Failed(String),
    /// webrtc-dtls panicked.
    Panicked,
}

impl std::fmt::Display for DtlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut { clear_alert } => {
                write!(f, "no DTLS handshake within {HANDSHAKE_TIMEOUT:?}")?;
                match clear_alert {
                    Some(description) => write!(f, ", peer's alert {description} ({})", alert_name(*description)),
                    None => Ok(()),
                }
            }
            Self::FingerprintMismatch { presented } => {
                write!(f, "peer presented another certificate: {presented}")
            }
            Self::NoPeerCertificate => write!(f, "peer presented no certificate"),
            Self::NoSrtpProfile => write!(f, "peer picked none of our SRTP profiles"),
            Self::NoExtendedMasterSecret => write!(f, "peer has no extended master secret"),
            Self::Closed => write!(f, "DTLS association was ended"),
            Self::Unfit(unfit) => write!(f, "{unfit}"),
            Self::Failed(reason) => write!(f, "DTLS handshake failed: {reason}"),
            Self::Panicked => write!(f, "DTLS implementation panicked"),
        }
    }
}

impl std::error::Error for DtlsError {}

/// Of the alerts that end a handshake (RFC 5246 §7.2.2).
fn alert_name(description: u8) -> &'static str {
    match description {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        40 => "handshake_failure: no cipher suite, curve or certificate in common",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        50 => "decode_error",
        51 => "decrypt_error",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        110 => "unsupported_extension",
        _ => "see the IANA registry of TLS alerts",
    }
}
