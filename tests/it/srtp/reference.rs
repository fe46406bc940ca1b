//! SRTP written down from RFC 3711 and RFC 7714 on bare AES, AES-GCM and HMAC-SHA1: the other end in these tests.
//! Checked here against the RFCs' own vectors.

use aes::Aes128;
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes128Gcm, KeyInit, Nonce};
use ctr::cipher::{KeyIvInit, StreamCipher};
use guest_relay::rtc::srtp::SrtpProfile;
use hmac::{Hmac, Mac};
use sha1::Sha1;

use super::hex;

/// Session keys of RTP or RTCP (RFC 3711 §4.3.1).
pub(crate) struct Session {
    profile: SrtpProfile,
    key: [u8; 16],
    /// Of 14 bytes for AES-CM, and 12 and two zeros for AES-GCM (RFC 7714 §11).
    salt: [u8; 14],
    auth: [u8; 20],
}

/// The AES-CM keystream, added to `bytes` (RFC 3711 §4.1.1).
fn aes_cm(key: &[u8; 16], iv: &[u8; 16], bytes: &mut [u8]) {
    ctr::Ctr128BE::<Aes128>::new(key.into(), iv.into()).apply_keystream(bytes);
}

/// Key derivation with rate 0 (RFC 3711 §4.3.1, §4.3.3).
fn derive<const N: usize>(key: &[u8; 16], salt: &[u8; 14], label: u8) -> [u8; N] {
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(salt);
    iv[7] ^= label;
    let mut derived = [0; N];
    aes_cm(key, &iv, &mut derived);
    derived
}

impl Session {
    pub(crate) fn rtp(profile: SrtpProfile, key: &[u8], salt: &[u8]) -> Self {
        Self::new(profile, key, salt, 0)
    }

    pub(crate) fn rtcp(profile: SrtpProfile, key: &[u8], salt: &[u8]) -> Self {
        Self::new(profile, key, salt, 3)
    }

    fn new(profile: SrtpProfile, key: &[u8], salt: &[u8], label: u8) -> Self {
        let key = key.try_into().unwrap();
        let mut master_salt = [0; 14];
        master_salt[..salt.len()].copy_from_slice(salt);
        let mut session_salt: [u8; 14] = derive(&key, &master_salt, label + 2);
        session_salt[salt.len()..].fill(0);
        Self {
            profile,
            key: derive(&key, &master_salt, label),
            auth: derive(&key, &master_salt, label + 1),
            salt: session_salt,
        }
    }

    /// Protects `packet`, whose payload starts at `header_len` and whose index is `rollover counter << 16 | sequence
    /// number`.
    pub(crate) fn protect_rtp(&self, packet: &[u8], header_len: usize, index: u64) -> Vec<u8> {
        let roc = u32::try_from(index >> 16).unwrap().to_be_bytes();
        let (header, payload) = packet.split_at(header_len);
        match self.profile {
            SrtpProfile::Aes128CmSha1_80 => {
                let mut protected = packet.to_vec();
                aes_cm(&self.key, &self.iv(&packet[8..12], index), &mut protected[header_len..]);
                let tag = self.hmac(&[&protected, &roc]);
                protected.extend(&tag[..10]);
                protected
            }
            SrtpProfile::AeadAes128Gcm => {
                let nonce = [&[0; 2], &packet[8..12], &roc, &packet[2..4]].concat();
                [header, &self.seal(&nonce, payload, header)].concat()
            }
        }
    }

    /// Protects a compound RTCP packet with an SRTCP index of 31 bits.
    pub(crate) fn protect_rtcp(&self, packet: &[u8], index: u32) -> Vec<u8> {
        let (header, payload) = packet.split_at(8);
        let index_word = (index | 1 << 31).to_be_bytes();
        match self.profile {
            SrtpProfile::Aes128CmSha1_80 => {
                let mut protected = packet.to_vec();
                aes_cm(&self.key, &self.iv(&packet[4..8], index.into()), &mut protected[8..]);
                protected.extend(index_word);
                let tag = self.hmac(&[&protected]);
                protected.extend(&tag[..10]);
                protected
            }
            SrtpProfile::AeadAes128Gcm => {
                let nonce = [&[0; 2], &packet[4..8], &[0; 2], &index.to_be_bytes()[..]].concat();
                let associated = [header, &index_word].concat();
                let sealed = self.seal(&nonce, payload, &associated);
                [header, &sealed, &index_word].concat()
            }
        }
    }

    /// salt * 2^16 XOR ssrc * 2^64 XOR index * 2^16
    fn iv(&self, ssrc: &[u8], index: u64) -> [u8; 16] {
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt);
        let index = index.to_be_bytes();
        for (byte, value) in iv[4..14].iter_mut().zip(ssrc.iter().chain(&index[2..])) {
            *byte ^= value;
        }
        iv
    }

    fn hmac(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut mac = <Hmac<Sha1> as Mac>::new_from_slice(&self.auth).unwrap();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().to_vec()
    }

    fn seal(&self, nonce: &[u8], msg: &[u8], aad: &[u8]) -> Vec<u8> {
        let mut nonce: [u8; 12] = nonce.try_into().unwrap();
        for (byte, salt) in nonce.iter_mut().zip(&self.salt) {
            *byte ^= salt;
        }
        Aes128Gcm::new(&self.key.into()).encrypt(Nonce::from_slice(&nonce), Payload { msg, aad }).unwrap()
    }
}

#[test]
fn the_reference_makes_the_keystream_of_rfc_3711_b_2() {
    let key = hex("2B7E151628AED2A6ABF7158809CF4F3C").try_into().unwrap();
    let iv = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000").try_into().unwrap();
    let mut keystream = vec![0; 0xff02 * 16];
    aes_cm(&key, &iv, &mut keystream);
    assert_eq!(
        keystream[..48],
        hex("E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0")
    );
    assert_eq!(
        keystream[0xfeff * 16..],
        hex("EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE 6A2CC3787889374FBEB4C81B17BA6C44")
    );
}

#[test]
fn the_reference_derives_the_keys_of_rfc_3711_b_3() {
    let session = Session::rtp(
        SrtpProfile::Aes128CmSha1_80,
        &hex("E1F97A0D3E018BE0D64FA32C06DE4139"),
        &hex("0EC675AD498AFEEBB6960B3AABE6"),
    );
    assert_eq!(session.key.to_vec(), hex("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(session.salt.to_vec(), hex("30CBBC08863D8C85D49DB34A9AE1"));
    assert_eq!(session.auth.to_vec(), hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
}

/// The session that RFC 7714 §16 and §17 give, below key derivation.
fn rfc_7714() -> Session {
    let mut salt = [0; 14];
    salt[..12].copy_from_slice(b"Quid pro quo");
    Session {
        profile: SrtpProfile::AeadAes128Gcm,
        key: hex("000102030405060708090a0b0c0d0e0f").try_into().unwrap(),
        salt,
        auth: [0; 20],
    }
}

#[test]
fn the_reference_protects_the_rtp_packet_of_rfc_7714_16_1_1() {
    let packet = hex("8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070
                      61727465 73207472 6573");
    assert_eq!(
        rfc_7714().protect_rtp(&packet, 12, 0xf17b),
        hex("8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a
             51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce")
    );
}

#[test]
fn the_reference_protects_the_rtcp_packet_of_rfc_7714_17_1() {
    let packet = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef
                      deadbeef deadbeef deadbeef");
    assert_eq!(
        rfc_7714().protect_rtcp(&packet, 0x5d4),
        hex("81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda
             4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4")
    );
}
