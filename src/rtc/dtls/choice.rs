//! What a server chose, so that a failure can be named: cipher suite, curve, certificate, signature (RFC 5246 §7.4.2,
//! §7.4.3; RFC 8422 §5.4; RFC 5280 §4.1).
//!
//! A server's well-formed messages in; what of them does not fit us out. Nothing is decided here: webrtc-dtls refuses what it
//! cannot use, but says no more than `ring::error::Unspecified`.

use std::fmt;

use super::message::MessageType;
use crate::rtc::bytes::{Reader, Truncated};

/// What we offer: the two suites of [`super::engine`].
const CIPHER_SUITES: [u16; 2] = [0xc02b, 0xc02f];
/// What webrtc-dtls offers: P-256, P-384, X25519.
const CURVES: [u16; 3] = [23, 24, 29];
/// RSA keys that ring takes.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;
/// `[0]`, a certificate's version.
const VERSION: u8 = 0xa0;

const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const RSA: &str = "1.2.840.113549.1.1.1";
const ED25519: &str = "1.3.101.112";

/// A choice of the peer that we do not take. Displays as a sentence with the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// A cipher suite that was not offered (IANA's number).
    CipherSuite(u16),
    /// A curve that was not offered, for the key exchange (IANA's number).
    Curve(u16),
    /// A certificate of this kind of key.
    Certificate(Key),
    /// A signature scheme that does not go with the certificate's key (IANA's number), or is not known.
    Signature(u16, Key),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CipherSuite(suite) => write!(
                f,
                "the peer chose the cipher suite {} ({suite:#06x}); offered were ECDHE_ECDSA and ECDHE_RSA with AES_128_GCM",
                suite_name(*suite)
            ),
            Self::Curve(curve) => write!(
                f,
                "the peer chose the curve {} ({curve}) for the key exchange; offered were P-256, P-384 and X25519",
                curve_name(*curve)
            ),
            Self::Certificate(key) => write!(
                f,
                "the peer's certificate has {key}; taken are P-256, P-384, Ed25519 and RSA of 2048 to 8192 bits: give the sender a \
                 certificate on P-256"
            ),
            Self::Signature(scheme, key) => {
                write!(f, "the peer signed by scheme {scheme:#06x} with {key}, which do not go together here")
            }
        }
    }
}

/// What kind of key a certificate has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// On this curve (its object identifier).
    Ec(String),
    /// So many bits of modulus.
    Rsa(usize),
    /// Of another algorithm (its object identifier).
    Other(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ec(curve) => match named(curve) {
                Some(name) => write!(f, "a key on the curve {name}"),
                None => write!(f, "a key on the curve {curve}"),
            },
            Self::Rsa(bits) => write!(f, "an RSA key of {bits} bits"),
            Self::Other(algorithm) if algorithm == ED25519 => write!(f, "an Ed25519 key"),
            Self::Other(algorithm) => write!(f, "a key of the algorithm {algorithm}"),
        }
    }
}

impl Key {
    fn fits(&self) -> bool {
        match self {
            Self::Ec(curve) => matches!(named(curve), Some("P-256" | "P-384")),
            Self::Rsa(bits) => RSA_BITS.contains(bits),
            Self::Other(algorithm) => algorithm == ED25519,
        }
    }

    /// As webrtc-dtls verifies: each scheme with one kind of key.
    fn goes_with(&self, scheme: u16) -> bool {
        match self {
            Self::Ec(curve) => match named(curve) {
                Some("P-256") => scheme == 0x0403,
                Some("P-384") => scheme == 0x0503,
                _ => false,
            },
            Self::Rsa(_) => matches!(scheme, 0x0401 | 0x0501 | 0x0601),
            Self::Other(_) => scheme == 0x0807,
        }
    }

    /// Of a DER certificate.
    fn of(certificate: &[u8]) -> Result<Self, Truncated> {
        let mut certificate = Reader::new(certificate);
        let mut certificate = inside(&mut certificate, SEQUENCE)?;
        let mut signed = inside(&mut certificate, SEQUENCE)?;
        if *signed.clone().take(1)? == [VERSION] {
            element(&mut signed)?;
        }
        // Serial number, signature, issuer, validity, subject.
        for _ in 0..5 {
            element(&mut signed)?;
        }
        let mut info = inside(&mut signed, SEQUENCE)?;
        let mut algorithm = inside(&mut info, SEQUENCE)?;
        let name = dotted(inside(&mut algorithm, OBJECT_IDENTIFIER)?);
        match name.as_str() {
            EC_PUBLIC_KEY => Ok(Self::Ec(dotted(inside(&mut algorithm, OBJECT_IDENTIFIER)?))),
            RSA => {
                let mut key = inside(&mut info, BIT_STRING)?;
                key.u8()?; // unused bits of the last byte
                let mut key = inside(&mut key, SEQUENCE)?;
                let mut modulus = inside(&mut key, INTEGER)?;
                let bytes = modulus.take(modulus.len())?;
                let significant: &[u8] =
                    bytes.iter().position(|byte| *byte != 0).and_then(|at| bytes.get(at..)).unwrap_or(&[]);
                let unset = significant.first().map_or(0, |first| first.leading_zeros());
                Ok(Self::Rsa(8 * significant.len() - usize::try_from(unset).unwrap_or(0)))
            }
            _ => Ok(Self::Other(name)),
        }
    }
}

/// What the server has said so far; the last of each counts.
#[derive(Debug, Default)]
pub(super) struct Choice {
    cipher_suite: Option<u16>,
    curve: Option<u16>,
    signature: Option<u16>,
    key: Option<Key>,
}

impl Choice {
    /// Takes note of a message that is well-formed.
    pub(super) fn record(&mut self, message_type: MessageType, body: &[u8]) {
        let mut body = Reader::new(body);
        match message_type {
            MessageType::ServerHello => self.cipher_suite = cipher_suite(&mut body).ok(),
            MessageType::Certificate => self.key = leaf(&mut body).and_then(Key::of).ok(),
            MessageType::ServerKeyExchange => {
                let parameters = curve_and_signature(&mut body).ok();
                (self.curve, self.signature) = parameters.unzip();
            }
            _ => {}
        }
    }

    /// The first choice that does not fit, in the order in which they are made.
    pub(super) fn unfit(&self) -> Option<Unfit> {
        let suite = self.cipher_suite.filter(|suite| !CIPHER_SUITES.contains(suite)).map(Unfit::CipherSuite);
        let curve = || self.curve.filter(|curve| !CURVES.contains(curve)).map(Unfit::Curve);
        let key = || self.key.clone().filter(|key| !key.fits()).map(Unfit::Certificate);
        let signature = || {
            let (scheme, key) = self.signature.zip(self.key.clone())?;
            (!key.goes_with(scheme)).then_some(Unfit::Signature(scheme, key))
        };
        suite.or_else(curve).or_else(key).or_else(signature)
    }
}

/// `version(2) random(32) session_id<0..32> cipher_suite(2) ...`
fn cipher_suite(hello: &mut Reader<'_>) -> Result<u16, Truncated> {
    hello.take(2 + 32)?;
    let session_id_len = hello.u8()?;
    hello.take(usize::from(session_id_len))?;
    hello.u16()
}

/// `certificate_list<0..2^24-1>` of `certificate<1..2^24-1>`: the first.
fn leaf<'a>(message: &mut Reader<'a>) -> Result<&'a [u8], Truncated> {
    message.u24()?;
    let len = message.u24()?;
    message.take(usize::try_from(len).unwrap_or(usize::MAX))
}

/// `curve_type(1) named_curve(2) public<1..2^8-1> hash(1) signature(1) ...`
fn curve_and_signature(message: &mut Reader<'_>) -> Result<(u16, u16), Truncated> {
    message.u8()?;
    let curve = message.u16()?;
    let public_len = message.u8()?;
    message.take(usize::from(public_len))?;
    Ok((curve, message.u16()?))
}

/// The next element's tag and content (X.690 §8.1), of fewer than 64 KiB.
fn element<'a>(der: &mut Reader<'a>) -> Result<(u8, Reader<'a>), Truncated> {
    let tag = der.u8()?;
    let len = match der.u8()? {
        short @ 0..=0x7f => usize::from(short),
        0x81 => usize::from(der.u8()?),
        0x82 => usize::from(der.u16()?),
        _ => usize::MAX,
    };
    Ok((tag, der.sub(len)?))
}

/// The content of the next element, which has this tag.
fn inside<'a>(der: &mut Reader<'a>, expected: u8) -> Result<Reader<'a>, Truncated> {
    match element(der)? {
        (tag, content) if tag == expected => Ok(content),
        // Another structure is as good as none: nothing is said of it.
        (_, mut content) => content.sub(usize::MAX),
    }
}

/// An object identifier as people write it (X.690 §8.19), as far as its numbers have 32 bits.
fn dotted(mut content: Reader<'_>) -> String {
    let mut parts: Vec<u32> = Vec::new();
    let mut number: u32 = 0;
    while let Ok(byte) = content.u8() {
        number = number << 7 | u32::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if parts.is_empty() {
                let first = (number / 40).min(2);
                parts.extend([first, number - 40 * first]);
            } else {
                parts.push(number);
            }
            number = 0;
        }
    }
    parts.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

/// A curve's name by its object identifier.
fn named(curve: &str) -> Option<&'static str> {
    Some(match curve {
        "1.2.840.10045.3.1.7" => "P-256",
        "1.3.132.0.34" => "P-384",
        "1.3.132.0.35" => "P-521",
        "1.3.132.0.33" => "P-224 (secp224r1)",
        "1.2.840.10045.3.1.1" => "P-192",
        "1.3.132.0.10" => "secp256k1",
        _ => return None,
    })
}

/// A curve's name by IANA's number, where senders have it.
fn curve_name(number: u16) -> &'static str {
    match number {
        21 => "P-224 (secp224r1)",
        22 => "secp256k1",
        25 => "P-521",
        26 => "brainpoolP256r1",
        30 => "X448",
        _ => "that is not known here",
    }
}

/// A cipher suite's name by IANA's number, where senders have it.
fn suite_name(number: u16) -> &'static str {
    match number {
        0xc00a => "ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
        0xc009 => "ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
        0xc02c => "ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        0xc030 => "ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        0xcca8 => "ECDHE_RSA_WITH_CHACHA20_POLY1305",
        0xcca9 => "ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        0x009c => "RSA_WITH_AES_128_GCM_SHA256",
        _ => "that is not known here",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rtc::dtls::Certificate;

    #[test]
    fn our_own_certificate_is_on_p_256() {
        let certificate = Certificate::generate().to_dtls();
        let key = Key::of(certificate.certificate.first().unwrap()).unwrap();
        assert_eq!(key, Key::Ec("1.2.840.10045.3.1.7".to_owned()));
        assert!(key.fits() && key.goes_with(0x0403) && !key.goes_with(0x0503));
    }

    #[test]
    fn a_certificate_that_is_cut_or_damaged_says_nothing_and_does_no_harm() {
        let certificate = Certificate::generate().to_dtls();
        let der = certificate.certificate.first().unwrap().to_vec();
        for end in 0..der.len() {
            assert!(Key::of(&der[..end]).is_err(), "cut at {end}");
        }
        for at in 0..der.len() {
            for byte in [0, 0x30, 0x7f, 0x80, 0x81, 0x82, 0xff] {
                let mut damaged = der.clone();
                damaged[at] = byte;
                let _ = Key::of(&damaged);
            }
        }
    }

    #[test]
    fn object_identifiers_are_written_as_numbers() {
        for (bytes, text) in [
            (&[0x2b, 0x81, 0x04, 0x00, 0x21][..], "1.3.132.0.33"),
            (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01], EC_PUBLIC_KEY),
            (&[0x88, 0x37], "2.999"),
            (&[], ""),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], ""),
        ] {
            assert_eq!(dotted(Reader::new(bytes)), text);
        }
    }

    #[test]
    fn the_first_choice_that_does_not_fit_is_named() {
        let p_256 = Key::Ec("1.2.840.10045.3.1.7".to_owned());
        let fine = || Choice {
            cipher_suite: Some(0xc02b),
            curve: Some(29),
            signature: Some(0x0403),
            key: Some(p_256.clone()),
        };
        assert_eq!((fine().unfit(), Choice::default().unfit()), (None, None));
        let p_224 = Key::Ec("1.3.132.0.33".to_owned());
        for (choice, unfit, word) in [
            (Choice { cipher_suite: Some(0xc02c), ..fine() }, Unfit::CipherSuite(0xc02c), "AES_256_GCM"),
            (Choice { curve: Some(25), ..fine() }, Unfit::Curve(25), "P-521"),
            (Choice { key: Some(p_224.clone()), ..fine() }, Unfit::Certificate(p_224), "P-224"),
            (Choice { key: Some(Key::Rsa(1024)), ..fine() }, Unfit::Certificate(Key::Rsa(1024)), "1024 bits"),
            (Choice { signature: Some(0x0503), ..fine() }, Unfit::Signature(0x0503, p_256.clone()), "0x0503"),
        ] {
            assert_eq!(choice.unfit(), Some(unfit.clone()));
            assert!(unfit.to_string().contains(word), "{unfit}");
        }
    }
}
