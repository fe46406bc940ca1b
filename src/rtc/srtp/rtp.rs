//! SRTP packets of the receiving direction (RFC 3711 §3.3, RFC 7714 §8): the hot path, on bare AES, GCM and HMAC.
//!
//! A protected packet in the caller's buffer in; the same buffer, decrypted and without its tag, out. webrtc-srtp would
//! allocate eight times a packet and build a replay window anew for each look at one; this allocates nothing after its
//! keys are derived. A packet that fails changes nothing but the buffer it lies in.
//!
//! ```text
//!  header, extensions | ciphertext | tag      AES-CM: tag = HMAC-SHA1 over all before it and the rollover counter
//!                                             AES-GCM: tag over header and ciphertext
//! ```
//! Bounds: [`REPLAY_WINDOW_PACKETS`] bits per SSRC.

use aes::Aes128;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipherCore};
use aes_gcm::Aes128Gcm;
use aes_gcm::aead::AeadInPlace;
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use zeroize::Zeroizing;

use super::shape::RtpShape;
use super::{KeySalt, REPLAY_WINDOW_PACKETS, SrtpError, SrtpProfile};

/// Labels of RFC 3711 §4.3.1.
const ENCRYPTION: u8 = 0;
const AUTHENTICATION: u8 = 1;
const SALT: u8 = 2;

const AUTH_KEY_LEN: usize = 20;
const SESSION_SALT_LEN: usize = 14;
/// Past this the 48-bit packet index would repeat (RFC 3711 §9.2).
const LAST_INDEX: u64 = (1 << 48) - 1;
const WORD_BITS: u64 = 64;
const WORDS: usize = REPLAY_WINDOW_PACKETS.div_ceil(64);

/// The session keys of one direction's RTP. All its SSRCs share them.
pub(super) struct RtpKeys {
    transform: Transform,
    /// XORed into the counter or nonce. AES-GCM uses the first twelve bytes.
    salt: [u8; SESSION_SALT_LEN],
}

enum Transform {
    CounterMode { aes: Box<Aes128>, mac: Box<Hmac<Sha1>> },
    Gcm(Box<Aes128Gcm>),
}

impl RtpKeys {
    pub(super) fn new(profile: SrtpProfile, master: &KeySalt) -> Self {
        let prf = Aes128::new_from_slice(master.key()).expect("master keys have 16 bytes");
        let mut master_salt = [0; SESSION_SALT_LEN];
        // RFC 7714 §11: a salt of twelve bytes is followed by zeros.
        for (to, from) in master_salt.iter_mut().zip(master.salt()) {
            *to = *from;
        }
        let derive = |label| Derivation { prf: &prf, master_salt: &master_salt, label };
        let mut key = Zeroizing::new([0; 16]);
        derive(ENCRYPTION).fill(&mut *key);
        let mut salt = [0; SESSION_SALT_LEN];
        derive(SALT).fill(&mut salt);
        let transform = match profile {
            SrtpProfile::Aes128CmSha1_80 => {
                let mut auth_key = Zeroizing::new([0; AUTH_KEY_LEN]);
                derive(AUTHENTICATION).fill(&mut *auth_key);
                Transform::CounterMode {
                    aes: Box::new(Aes128::new((&*key).into())),
                    mac: Box::new(<Hmac<Sha1> as Mac>::new_from_slice(&*auth_key).expect("HMAC takes any key")),
                }
            }
            SrtpProfile::AeadAes128Gcm => Transform::Gcm(Box::new(Aes128Gcm::new((&*key).into()))),
        };
        Self { transform, salt }
    }

    /// Authenticates and decrypts `packet` in place; returns how long it is without its tag.
    pub(super) fn open(&self, packet: &mut [u8], shape: &RtpShape, index: u64) -> Result<usize, SrtpError> {
        let unauthentic = SrtpError::Unauthentic;
        let [_, _, roc_and_sequence @ ..] = index.to_be_bytes();
        let [a, b, c, d, ..] = roc_and_sequence;
        match &self.transform {
            Transform::CounterMode { aes, mac } => {
                let signed_len = packet.len().checked_sub(10).ok_or(unauthentic)?;
                let (signed, tag) = packet.split_at_mut_checked(signed_len).ok_or(unauthentic)?;
                let mut mac = (**mac).clone();
                mac.update(signed);
                mac.update(&[a, b, c, d]);
                mac.verify_truncated_left(tag).map_err(|_| unauthentic)?;
                // RFC 3711 §4.1.1: salt * 2^16 XOR SSRC * 2^64 XOR index * 2^16
                let mut counter = [0; 16];
                mix(&mut counter, 0, &self.salt);
                mix(&mut counter, 4, &shape.ssrc.to_be_bytes());
                mix(&mut counter, 8, &roc_and_sequence);
                let payload = signed.get_mut(shape.header_len..).ok_or(unauthentic)?;
                apply_keystream(aes, counter, payload);
                Ok(signed_len)
            }
            Transform::Gcm(gcm) => {
                // RFC 7714 §8.1: 0 0 | SSRC | rollover counter | sequence number, XOR salt
                let mut nonce = [0; 12];
                mix(&mut nonce, 0, &self.salt);
                mix(&mut nonce, 2, &shape.ssrc.to_be_bytes());
                mix(&mut nonce, 6, &roc_and_sequence);
                let sealed_len = packet.len().checked_sub(16).ok_or(unauthentic)?;
                let (sealed, tag) = packet.split_at_mut_checked(sealed_len).ok_or(unauthentic)?;
                let (header, payload) = sealed.split_at_mut_checked(shape.header_len).ok_or(unauthentic)?;
                let tag: [u8; 16] = (&*tag).try_into().map_err(|_| unauthentic)?;
                gcm.decrypt_in_place_detached(&nonce.into(), header, payload, &tag.into()).map_err(|_| unauthentic)?;
                Ok(sealed_len)
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
struct Derivation<'a> {
    prf: &'a Aes128,
    master_salt: &'a [u8; SESSION_SALT_LEN],
    label: u8,
}

impl Derivation<'_> {
    fn fill(&self, out: &mut [u8]) {
        let mut counter = [0; 16];
        mix(&mut counter, 0, self.master_salt);
        mix(&mut counter, 7, &[self.label]);
        out.fill(0);
        apply_keystream(self.prf, counter, out);
    }
}

/// What is known of one SSRC's sequence: its newest packet, and which of those before it came (RFC 3711 §3.3.1, §3.3.2).
pub(super) struct Sequence {
    /// Rollover counter and sequence number of the newest authentic packet.
    newest: u64,
    /// Bit n of all: packet `newest - n` came.
    came: [u64; WORDS],
}

impl Sequence {
    /// Begins with its first authentic packet. Its rollover counter is 0: whoever joins later has to be told, and here
    /// nobody does.
    pub(super) fn beginning(sequence_number: u16) -> Self {
        let mut sequence = Self { newest: sequence_number.into(), came: [0; WORDS] };
        sequence.record(sequence.newest);
        sequence
    }

    /// The index that a packet with this number has: the nearest to the newest one. An error when it is taken already.
    pub(super) fn index_of(&self, sequence_number: u16) -> Result<u64, SrtpError> {
        let [.., high, low] = self.newest.to_be_bytes();
        let ahead = sequence_number.wrapping_sub(u16::from_be_bytes([high, low])).cast_signed();
        let index = self.newest.checked_add_signed(ahead.into()).ok_or(SrtpError::Replayed)?;
        if index > LAST_INDEX {
            return Err(SrtpError::KeyExhausted);
        }
        match self.newest.checked_sub(index) {
            None => Ok(index),
            Some(age) => match self.came.get(usize::try_from(age / WORD_BITS).unwrap_or(usize::MAX)) {
                Some(word) if word >> (age % WORD_BITS) & 1 == 0 => Ok(index),
                _ => Err(SrtpError::Replayed),
            },
        }
    }

    /// Takes note of an authentic packet.
    pub(super) fn record(&mut self, index: u64) {
        if let Some(steps) = index.checked_sub(self.newest).filter(|steps| *steps > 0) {
            self.shift(steps);
            self.newest = index;
        }
        let age = self.newest - index;
        if let Some(word) = self.came.get_mut(usize::try_from(age / WORD_BITS).unwrap_or(usize::MAX)) {
            *word |= 1 << (age % WORD_BITS);
        }
    }

    /// Makes room for `steps` newer packets.
    fn shift(&mut self, steps: u64) {
        let words = usize::try_from(steps / WORD_BITS).unwrap_or(usize::MAX);
        if words >= WORDS {
            self.came = [0; WORDS];
            return;
        }
        self.came.rotate_right(words);
        self.came.iter_mut().take(words).for_each(|word| *word = 0);
        let bits = steps % WORD_BITS;
        if bits > 0 {
            let mut carry = 0;
            for word in self.came.iter_mut().skip(words) {
                let next = *word >> (WORD_BITS - bits);
                *word = *word << bits | carry;
                carry = next;
            }
        }
    }
}
