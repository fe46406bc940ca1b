//! RTP packets of nothing but padding (P bit, RFC 3550 §5.1) on a media SSRC, which str0m does not send: they are built
//! and protected here, with the keys that the session's DTLS handshake gave, and numbers that str0m's own packets leave
//! free.
//!
//! The keys are taken where they come out: a DTLS provider that passes everything on to str0m's and notes them.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use str0m::config::CryptoProvider;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion, SrtpProfile,
};
use str0m::crypto::{CryptoError, from_feature_flags};
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

/// Padding bytes of a packet, the count among them.
const PADDING_BYTES: u8 = 224;
/// Packets may be at most so many numbers apart, or a receiver could not tell rollovers (RFC 3711 §3.3.1).
pub(crate) const MAX_DISTANCE: u32 = 0x4000;

/// Master key and salt with which we protect.
#[derive(Clone)]
struct Keys {
    profile: ProtectionProfile,
    key: Vec<u8>,
    salt: Vec<u8>,
}

type Slot = Arc<Mutex<Option<Keys>>>;

thread_local! {
    /// Where the next DTLS instance of this thread puts its keys.
    static NEXT_SLOT: RefCell<Slot> = RefCell::default();
}

/// The source of one session's padding packets.
pub(crate) struct PaddingSource {
    slot: Slot,
    context: Option<Context>,
}

/// What a padding packet has in common with the media around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PaddingHeader {
    pub(crate) payload_type: u8,
    pub(crate) sequence_number: u16,
    pub(crate) rtp_time: u32,
    pub(crate) ssrc: u32,
}

impl PaddingSource {
    /// With the provider that the session's connection is to be built with, on this thread and at once.
    pub(crate) fn new() -> (PaddingSource, Arc<CryptoProvider>) {
        static TAPPED: TappedProvider = TappedProvider;
        let slot = Slot::default();
        NEXT_SLOT.replace(Arc::clone(&slot));
        let source = PaddingSource { slot, context: None };
        let mut provider = from_feature_flags();
        provider.dtls_provider = &TAPPED;
        (source, Arc::new(provider))
    }

    /// A protected packet; `None` before the handshake is through.
    pub(crate) fn packet(&mut self, header: PaddingHeader) -> Option<Vec<u8>> {
        if self.context.is_none() {
            let keys = self.slot.lock().expect("no thread panics while it holds this lock").clone()?;
            let context = Context::new(&keys.key, &keys.salt, keys.profile, None, None);
            self.context = Some(context.expect("the keys have the profile's lengths"));
        }
        let mut packet = vec![0xA0, header.payload_type];
        packet.extend(header.sequence_number.to_be_bytes());
        packet.extend(header.rtp_time.to_be_bytes());
        packet.extend(header.ssrc.to_be_bytes());
        packet.resize(packet.len() + usize::from(PADDING_BYTES) - 1, 0);
        packet.push(PADDING_BYTES);
        let protected = self.context.as_mut()?.encrypt_rtp(&packet);
        Some(protected.expect("a session ends before 2^48 packets").to_vec())
    }
}

#[derive(Debug)]
struct TappedProvider;

impl DtlsProvider for TappedProvider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        from_feature_flags().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let inner = from_feature_flags().dtls_provider.new_dtls(cert, now, version, mtu)?;
        let slot = NEXT_SLOT.take();
        Ok(Box::new(Tapped { inner, slot }))
    }
}

struct Tapped {
    inner: Box<dyn DtlsInstance>,
    slot: Slot,
}

impl std::fmt::Debug for Tapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tapped")
    }
}

impl DtlsInstance for Tapped {
    fn set_active(&mut self, active: bool) {
        self.inner.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.inner.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let output = self.inner.poll_output(buf);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output {
            let keys = ours(material, *profile, self.inner.is_active());
            *self.slot.lock().expect("no thread panics while it holds this lock") = keys;
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.inner.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.inner.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.inner.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.inner.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.inner.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.inner.close()
    }
}

/// `client key | server key | client salt | server salt` (RFC 5764 §4.2).
fn ours(material: &[u8], profile: SrtpProfile, is_client: bool) -> Option<Keys> {
    let profile = match profile {
        SrtpProfile::AES128_CM_SHA1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        SrtpProfile::AEAD_AES_128_GCM => ProtectionProfile::AeadAes128Gcm,
        SrtpProfile::AEAD_AES_256_GCM => ProtectionProfile::AeadAes256Gcm,
        _ => return None,
    };
    let (keys, salts) = material.split_at_checked(2 * profile.key_len())?;
    let of = |pair: &[u8], length: usize| {
        let mut halves = pair.chunks(length);
        let half = if is_client { halves.next() } else { halves.nth(1) };
        half.map(<[u8]>::to_vec)
    };
    Some(Keys { profile, key: of(keys, profile.key_len())?, salt: of(salts, profile.salt_len())? })
}
