//! What a DTLS 1.2 server may say in the clear, checked for shape (RFC 5246 §7.4; RFC 6347 §4.2; RFC 8422 §5.4).
//!
//! A handshake message's type and body in, yes or no out. webrtc-dtls indexes into ServerHello extensions and
//! ServerKeyExchange without looking, and believes the lengths in Certificate when it allocates; a body that passes
//! here is one it reads to the end.

use crate::rtc::bytes::{Reader, Truncated};

/// Certificates in a chain. A WebRTC peer presents one.
const MAX_CHAIN: usize = 8;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const HELLO_VERIFY_REQUEST: u8 = 3;
const CERTIFICATE: u8 = 11;
const SERVER_KEY_EXCHANGE: u8 = 12;
const CERTIFICATE_REQUEST: u8 = 13;
const SERVER_HELLO_DONE: u8 = 14;

const USE_SRTP: u16 = 14;
const NAMED_CURVE: u8 = 3;

/// Messages of the server's flights before it encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageType {
    ServerHello,
    HelloVerifyRequest,
    Certificate,
    ServerKeyExchange,
    CertificateRequest,
    ServerHelloDone,
}

/// A handshake type that no server sends us in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotForClient {
    ClientHello,
    Other,
}

impl TryFrom<u8> for MessageType {
    type Error = NotForClient;

    fn try_from(value: u8) -> Result<Self, NotForClient> {
        Ok(match value {
            SERVER_HELLO => Self::ServerHello,
            HELLO_VERIFY_REQUEST => Self::HelloVerifyRequest,
            CERTIFICATE => Self::Certificate,
            SERVER_KEY_EXCHANGE => Self::ServerKeyExchange,
            CERTIFICATE_REQUEST => Self::CertificateRequest,
            SERVER_HELLO_DONE => Self::ServerHelloDone,
            CLIENT_HELLO => return Err(NotForClient::ClientHello),
            _ => return Err(NotForClient::Other),
        })
    }
}

impl From<MessageType> for u8 {
    fn from(value: MessageType) -> u8 {
        match value {
            MessageType::ServerHello => SERVER_HELLO,
            MessageType::HelloVerifyRequest => HELLO_VERIFY_REQUEST,
            MessageType::Certificate => CERTIFICATE,
            MessageType::ServerKeyExchange => SERVER_KEY_EXCHANGE,
            MessageType::CertificateRequest => CERTIFICATE_REQUEST,
            MessageType::ServerHelloDone => SERVER_HELLO_DONE,
        }
    }
}

/// Whether `body` is a whole message of that type and nothing more.
pub(super) fn is_well_formed(message_type: MessageType, body: &[u8]) -> bool {
    let mut reader = Reader::new(body);
    let shape = match message_type {
        MessageType::ServerHello => server_hello(&mut reader),
        MessageType::HelloVerifyRequest => hello_verify_request(&mut reader),
        MessageType::Certificate => certificate(&mut reader),
        MessageType::ServerKeyExchange => server_key_exchange(&mut reader),
        MessageType::CertificateRequest => certificate_request(&mut reader),
        MessageType::ServerHelloDone => Ok(true),
    };
    shape == Ok(true) && reader.is_empty()
}

type Shape = Result<bool, Truncated>;

/// `version(2) random(32) session_id<0..32> cipher_suite(2) compression_method(1) extensions<0..2^16-1>`
fn server_hello(body: &mut Reader<'_>) -> Shape {
    body.take(2 + 32)?;
    let session_id_len = body.u8()?;
    body.take(usize::from(session_id_len))?;
    body.take(2 + 1)?;
    let extensions_len = body.u16()?;
    let mut extensions = body.sub(usize::from(extensions_len))?;
    while !extensions.is_empty() {
        let extension_type = extensions.u16()?;
        let len = extensions.u16()?;
        let mut extension = extensions.sub(usize::from(len))?;
        if extension_type == USE_SRTP && !use_srtp(&mut extension)? {
            return Ok(false);
        }
    }
    Ok(session_id_len <= 32)
}

/// One profile, as a server answers, and no MKI, which we did not offer (RFC 5764 §4.1.1, §4.1.3).
fn use_srtp(extension: &mut Reader<'_>) -> Shape {
    let profiles_len = extension.u16()?;
    let _profile = extension.u16()?;
    let mki_len = extension.u8()?;
    Ok(profiles_len == 2 && mki_len == 0 && extension.is_empty())
}

/// `server_version(2) cookie<0..2^8-1>`
fn hello_verify_request(body: &mut Reader<'_>) -> Shape {
    body.take(2)?;
    let cookie_len = body.u8()?;
    body.take(usize::from(cookie_len))?;
    Ok(true)
}

/// `certificate_list<0..2^24-1>` of `certificate<1..2^24-1>`
fn certificate(body: &mut Reader<'_>) -> Shape {
    let mut list = body.vec24()?;
    let mut count = 0;
    while !list.is_empty() {
        if list.vec24()?.is_empty() {
            return Ok(false);
        }
        count += 1;
    }
    Ok(count <= MAX_CHAIN)
}

/// `curve_type(1)=3 named_curve(2) public<1..2^8-1> hash(1) signature(1) signature<0..2^16-1>`
fn server_key_exchange(body: &mut Reader<'_>) -> Shape {
    let curve_type = body.u8()?;
    let _named_curve = body.u16()?;
    let public_len = body.u8()?;
    body.take(usize::from(public_len))?;
    let _hash_and_signature = body.u16()?;
    let signature_len = body.u16()?;
    body.take(usize::from(signature_len))?;
    Ok(curve_type == NAMED_CURVE)
}

/// `certificate_types<1..2^8-1> signature_algorithms<2..2^16-2> certificate_authorities<0..2^16-1>`
fn certificate_request(body: &mut Reader<'_>) -> Shape {
    let types_len = body.u8()?;
    body.take(usize::from(types_len))?;
    let algorithms_len = body.u16()?;
    body.take(usize::from(algorithms_len))?;
    let authorities_len = body.u16()?;
    body.take(usize::from(authorities_len))?;
    Ok(algorithms_len % 2 == 0)
}

trait Vec24<'a> {
    /// The bytes of a vector with a 24-bit length.
    fn vec24(&mut self) -> Result<Reader<'a>, Truncated>;
}

impl<'a> Vec24<'a> for Reader<'a> {
    fn vec24(&mut self) -> Result<Reader<'a>, Truncated> {
        let len = self.u24()?;
        self.sub(usize::try_from(len).unwrap_or(usize::MAX))
    }
}
