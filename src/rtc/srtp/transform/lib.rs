//! The packet transforms of SRTP's receiving direction (RFC 3711 §3.3, §4; RFC 7714 §8): what is done to each media packet,
//! hundreds of times a second.
//!
//! A protected packet in the caller's buffer in; the same buffer, decrypted and without its tag, out. webrtc-srtp would
//! allocate eight times a packet; this allocates nothing after its keys are derived. It is a crate of its own because the
//! daemon is compiled for size, and ciphers that are not inlined through all of their generic layers take several times as
//! long.
//!
//! ```text
//!  header, extensions | ciphertext | tag      AES-CM: tag = HMAC-SHA1 over all before it and the rollover counter
//!                                             AES-GCM: tag over header and ciphertext
//! ```
//! Replay, SSRCs and where a header ends are the caller's.

use aes::Aes128;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipherCore};
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;
use hmac::{Hmac, Mac};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha1::Sha1;
use zeroize::Zeroizing;

/// Bytes of a master key, of either profile.
pub const KEY_LEN: usize = 16;
/// Bytes of the master salt of AES-CM.
pub const COUNTER_MODE_SALT_LEN: usize = 14;
/// Bytes of the master salt of AES-GCM.
pub const GCM_SALT_LEN: usize = 12;

const COUNTER_MODE_TAG_LEN: usize = 10;
/// Labels of RFC 3711 §4.3.1.
const ENCRYPTION: u8 = 0;
const AUTHENTICATION: u8 = 1;
const SALT: u8 = 2;

const AUTH_KEY_LEN: usize = 20;

/// The session keys of one direction's RTP. All its SSRCs share them.
pub struct RtpKeys {
    transform: Transform,
    /// XORed into the counter or nonce. AES-GCM uses the first twelve bytes.
    salt: [u8; COUNTER_MODE_SALT_LEN],
}

enum Transform {
    CounterMode { aes: Box<Aes128>, mac: Box<Hmac<Sha1>> },
    Gcm(Box<LessSafeKey>),
}

/// The tag does not fit: forged, damaged, or not with this index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unauthentic;

impl RtpKeys {
    /// `SRTP_AES128_CM_HMAC_SHA1_80` (RFC 5764 §4.1.2).
    pub fn counter_mode(master_key: &[u8; KEY_LEN], master_salt: &[u8; COUNTER_MODE_SALT_LEN]) -> Self {
        let derivation = Derivation { prf: Aes128::new(master_key.into()), master_salt: *master_salt };
        let auth_key: Zeroizing<[u8; AUTH_KEY_LEN]> = derivation.derive(AUTHENTICATION);
        let transform = Transform::CounterMode {
            aes: Box::new(Aes128::new((&*derivation.derive::<KEY_LEN>(ENCRYPTION)).into())),
            mac: Box::new(<Hmac<Sha1> as Mac>::new_from_slice(&*auth_key).expect("HMAC takes any key")),
        };
        Self { transform, salt: *derivation.derive(SALT) }
    }

    /// `SRTP_AEAD_AES_128_GCM` (RFC 7714 §14.2). For the derivation zeros follow its salt (§11).
    pub fn gcm(master_key: &[u8; KEY_LEN], master_salt: &[u8; GCM_SALT_LEN]) -> Self {
        let mut padded = [0; COUNTER_MODE_SALT_LEN];
        mix(&mut padded, 0, master_salt);
        let derivation = Derivation { prf: Aes128::new(master_key.into()), master_salt: padded };
        let key: Zeroizing<[u8; KEY_LEN]> = derivation.derive(ENCRYPTION);
        let key = UnboundKey::new(&AES_128_GCM, &*key).expect("AES-128 takes keys of 16 bytes");
        Self { transform: Transform::Gcm(Box::new(LessSafeKey::new(key))), salt: *derivation.derive(SALT) }
    }

    /// Authenticates and decrypts in place the packet of `ssrc` with this index (rollover counter and sequence number), of
    /// which `header_len` bytes are not encrypted. Returns how long it is without its tag. What is in `packet` after an
    /// error is of no use.
    pub fn open(&self, packet: &mut [u8], header_len: usize, ssrc: u32, index: u64) -> Result<usize, Unauthentic> {
        let [_, _, roc_and_sequence @ ..] = index.to_be_bytes();
        match &self.transform {
            Transform::CounterMode { aes, mac } => {
                let signed_len = packet.len().checked_sub(COUNTER_MODE_TAG_LEN).ok_or(Unauthentic)?;
                let (signed, tag) = packet.split_at_mut_checked(signed_len).ok_or(Unauthentic)?;
                let [roc @ .., _, _] = &roc_and_sequence;
                let mut mac = (**mac).clone();
                mac.update(signed);
                mac.update(roc);
                mac.verify_truncated_left(tag).map_err(|_| Unauthentic)?;
                // RFC 3711 §4.1.1: salt * 2^16 XOR SSRC * 2^64 XOR index * 2^16
                let mut counter = [0; 16];
                mix(&mut counter, 0, &self.salt);
                mix(&mut counter, 4, &ssrc.to_be_bytes());
                mix(&mut counter, 8, &roc_and_sequence);
                let payload = signed.get_mut(header_len..).ok_or(Unauthentic)?;
                apply_keystream(aes, counter, payload);
                Ok(signed_len)
            }
            Transform::Gcm(key) => {
                // RFC 7714 §8.1: 0 0 | SSRC | rollover counter | sequence number, XOR salt
                let mut nonce = [0; GCM_SALT_LEN];
                mix(&mut nonce, 0, &self.salt);
                mix(&mut nonce, 2, &ssrc.to_be_bytes());
                mix(&mut nonce, 6, &roc_and_sequence);
                let (header, sealed) = packet.split_at_mut_checked(header_len).ok_or(Unauthentic)?;
                let nonce = Nonce::assume_unique_for_key(nonce);
                let payload = key.open_in_place(nonce, Aad::from(&*header), sealed).map_err(|_| Unauthentic)?;
                Ok(header_len + payload.len())
            }
        }
    }
}

/// Adds the keystream that begins at `counter` (RFC 3711 §4.1.1).
fn apply_keystream(aes: &Aes128, counter: [u8; 16], bytes: &mut [u8]) {
    CtrCore::<_, Ctr128BE>::inner_iv_init(aes, &counter.into()).apply_keystream_partial(bytes.into());
}

/// XORs `value` into `block` from `at` on, as far as there is room.
fn mix(block: &mut [u8], at: usize, value: &[u8]) {
    for (byte, value) in block.iter_mut().skip(at).zip(value) {
        *byte ^= value;
    }
}

/// Key derivation with rate 0 (RFC 3711 §4.3.1, §4.3.3): the AES-CM keystream at the label's place.
struct Derivation {
    prf: Aes128,
    master_salt: [u8; COUNTER_MODE_SALT_LEN],
}

impl Derivation {
    fn derive<const N: usize>(&self, label: u8) -> Zeroizing<[u8; N]> {
        let mut counter = [0; 16];
        mix(&mut counter, 0, &self.master_salt);
        mix(&mut counter, 7, &[label]);
        let mut out = Zeroizing::new([0; N]);
        apply_keystream(&self.prf, counter, &mut *out);
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn both() -> [RtpKeys; 2] {
        [
            RtpKeys::counter_mode(&[1; KEY_LEN], &[2; COUNTER_MODE_SALT_LEN]),
            RtpKeys::gcm(&[1; KEY_LEN], &[2; GCM_SALT_LEN]),
        ]
    }

    /// RFC 3711 appendix B.3: the session keys and the salt of a known master key.
    #[test]
    fn keys_are_derived_as_in_the_rfc() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
        };
        let key: [u8; KEY_LEN] = hex("E1F97A0D3E018BE0D64FA32C06DE4139").try_into().unwrap();
        let master_salt = hex("0EC675AD498AFEEBB6960B3AABE6").try_into().unwrap();
        let derivation = Derivation { prf: Aes128::new((&key).into()), master_salt };
        assert_eq!(derivation.derive::<16>(ENCRYPTION).to_vec(), hex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(derivation.derive::<14>(SALT).to_vec(), hex("30CBBC08863D8C85D49DB34A9AE1"));
        let auth_key: Zeroizing<[u8; AUTH_KEY_LEN]> = derivation.derive(AUTHENTICATION);
        assert_eq!(auth_key.to_vec(), hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
    }

    #[test]
    fn no_length_and_no_end_of_the_header_makes_it_panic() {
        for keys in both() {
            for len in 0..48 {
                for header_len in [0, 1, 12, len, len + 1, usize::MAX] {
                    assert_eq!(
                        keys.open(&mut vec![0x80; len], header_len, 7, 1),
                        Err(Unauthentic),
                        "{len}, {header_len}"
                    );
                }
            }
        }
    }
}
