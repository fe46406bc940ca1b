//! SRTP protection profiles and the keys a DTLS handshake yields for them (RFC 5764 §4.1.2, §4.2; RFC 7714 §14.2).
//!
//! Exported keying material in, one master key and salt per direction out. Master keys are wiped on drop and have no
//! `Debug`.

use guest_relay_srtp_transform::RtpKeys;
use zeroize::Zeroizing;

use crate::rtc::bytes::{Reader, Truncated};

/// An SRTP protection profile that this receiver offers in `use_srtp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SrtpProfile {
    /// `SRTP_AEAD_AES_128_GCM` (RFC 7714 §14.2).
    AeadAes128Gcm,
    /// `SRTP_AES128_CM_HMAC_SHA1_80` (RFC 5764 §4.1.2).
    Aes128CmSha1_80,
}

impl SrtpProfile {
    /// What is offered unless the configuration says otherwise, the preferred one first; the peer picks.
    pub const OFFERED: [Self; 2] = [Self::AeadAes128Gcm, Self::Aes128CmSha1_80];

    /// Master key length in bytes.
    pub const fn key_len(self) -> usize {
        16
    }

    /// Master salt length in bytes.
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm => 12,
            Self::Aes128CmSha1_80 => 14,
        }
    }

    /// Length of the authentication tag at the end of an SRTP packet, and inside an SRTCP packet.
    pub const fn tag_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm => 16,
            Self::Aes128CmSha1_80 => 10,
        }
    }

    /// Bytes of keying material to export: both directions' keys and salts.
    pub const fn export_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }
}

/// The master key and master salt of one direction.
#[derive(Clone)]
pub struct KeySalt {
    key: Zeroizing<Vec<u8>>,
    salt: Zeroizing<Vec<u8>>,
}

impl KeySalt {
    fn copied(key: &[u8], salt: &[u8]) -> Self {
        Self { key: Zeroizing::new(key.to_vec()), salt: Zeroizing::new(salt.to_vec()) }
    }

    /// What opens the RTP packets of this direction.
    pub(super) fn rtp_keys(&self, profile: SrtpProfile) -> RtpKeys {
        const FITS: &str = "KeySalt holds what its profile asks for";
        let key = self.key().try_into().expect(FITS);
        match profile {
            SrtpProfile::AeadAes128Gcm => RtpKeys::gcm(key, self.salt().try_into().expect(FITS)),
            SrtpProfile::Aes128CmSha1_80 => RtpKeys::counter_mode(key, self.salt().try_into().expect(FITS)),
        }
    }

    /// The master key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The master salt.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }
}

/// What a finished handshake hands to SRTP.
pub struct Keys {
    /// The profile that the peer picked.
    pub profile: SrtpProfile,
    /// What we protect with.
    pub local: KeySalt,
    /// What the peer protects with.
    pub remote: KeySalt,
}

impl Keys {
    /// Splits the material exported under `EXTRACTOR-dtls_srtp`. We are the DTLS client, so the client half is ours.
    ///
    /// ```text
    ///  client_write_key | server_write_key | client_write_salt | server_write_salt      RFC 5764 §4.2
    /// ```
    pub fn from_client_export(profile: SrtpProfile, material: &[u8]) -> Result<Self, Truncated> {
        let mut material = Reader::new(material);
        let client_key = material.take(profile.key_len())?;
        let server_key = material.take(profile.key_len())?;
        let client_salt = material.take(profile.salt_len())?;
        let server_salt = material.take(profile.salt_len())?;
        Ok(Self {
            profile,
            local: KeySalt::copied(client_key, client_salt),
            remote: KeySalt::copied(server_key, server_salt),
        })
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("profile", &self.profile).finish_non_exhaustive()
    }
}
