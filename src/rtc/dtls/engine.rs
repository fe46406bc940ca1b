//! webrtc-dtls, driven by hand: the only file that knows tokio.
//!
//! Datagrams that the guard has admitted in, datagrams to send and in the end SRTP keys out. The crate is written for
//! a tokio runtime with timers: it spawns a reader and a writer, and sleeps between flights. Here each handshake has
//! a current-thread runtime without I/O whose clock stands still, and [`Engine::pump`] moves it: it sets the clock
//! forward to the caller's `now` and lets every task run until it waits. Nothing runs in between, and the crate sees
//! no other time than the caller's.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use webrtc_dtls::cipher_suite::CipherSuiteId;
use webrtc_dtls::config::{Config, ExtendedMasterSecretType};
use webrtc_dtls::conn::DTLSConn;
use webrtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use webrtc_util::conn::Conn;
use webrtc_util::{Error as ConnError, KeyingMaterialExporter};
use zeroize::Zeroizing;

use super::certificate::{Certificate, Fingerprint, PeerFingerprints};
use super::error::DtlsError;
use crate::rtc::srtp::{Keys, SrtpProfile};

/// How long an unanswered flight waits before it is sent again.
pub const FLIGHT_INTERVAL: Duration = Duration::from_millis(100);

/// Datagrams that may wait to be sent, or to be processed.
pub const MAX_QUEUED_DATAGRAMS: usize = 32;

/// Yields per pump. One lets reader, handshake and writer each make a step; a server flight of six messages takes a
/// step of reader and handshake each, then the answer is written.
const YIELDS: u32 = 24;

/// The longest datagram we send.
const MTU_BYTES: usize = 1200;

/// RFC 5764 §4.2.
const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";

/// What the ClientHello's server_name says; without one the crate would put an address there, which RFC 6066 §3
/// forbids. WebRTC peers do not look at it.
const SERVER_NAME: &str = "guest-relay";

pub(super) struct Engine {
    runtime: Runtime,
    handshake: JoinHandle<Result<Keys, DtlsError>>,
    received: mpsc::Sender<Vec<u8>>,
    sent: Arc<Sent>,
    now: Instant,
}

impl Engine {
    pub(super) fn new(
        certificate: &Certificate,
        peer: PeerFingerprints,
        profiles: &[SrtpProfile],
        now: Instant,
    ) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let (received, to_receive) = mpsc::channel(MAX_QUEUED_DATAGRAMS);
        let sent = Arc::new(Sent::default());
        let connection = DatagramConn { received: tokio::sync::Mutex::new(to_receive), sent: Arc::clone(&sent) };
        let handshake = runtime.spawn(handshake(connection, certificate.to_dtls(), peer, profiles.to_vec()));
        Ok(Self { runtime, handshake, received, sent, now })
    }

    /// Queues a datagram for the next pump; one too many is dropped, as a network would.
    pub(super) fn receive(&self, datagram: Vec<u8>) {
        let _ = self.received.try_send(datagram);
    }

    /// Lets the handshake run up to `now`. Its outcome, once it has one.
    pub(super) fn pump(&mut self, now: Instant) -> Option<Result<Keys, DtlsError>> {
        let elapsed = now.saturating_duration_since(self.now);
        self.now += elapsed;
        let Self { runtime, handshake, .. } = self;
        let ran = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async {
                if elapsed > Duration::ZERO {
                    tokio::time::advance(elapsed).await;
                }
                for _ in 0..YIELDS {
                    tokio::task::yield_now().await;
                }
                if handshake.is_finished() { Some(handshake.await) } else { None }
            })
        }));
        match ran {
            Ok(None) => None,
            Ok(Some(Ok(outcome))) => Some(outcome),
            Ok(Some(Err(_))) | Err(_) => Some(Err(DtlsError::Panicked)),
        }
    }

    /// The next datagram that the crate wants to send.
    pub(super) fn poll_transmit(&self) -> Option<Vec<u8>> {
        self.sent.lock().pop_front()
    }
}

/// Datagrams on their way out, at most [`MAX_QUEUED_DATAGRAMS`].
#[derive(Default)]
struct Sent(Mutex<VecDeque<Vec<u8>>>);

impl Sent {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The crate's view of the network: the two queues.
struct DatagramConn {
    received: tokio::sync::Mutex<mpsc::Receiver<Vec<u8>>>,
    sent: Arc<Sent>,
}

#[async_trait]
impl Conn for DatagramConn {
    async fn connect(&self, _: SocketAddr) -> Result<(), ConnError> {
        Ok(())
    }

    /// Never fails: on an error the crate's reader would ask again at once, for ever, and hang the pump.
    async fn recv(&self, buffer: &mut [u8]) -> Result<usize, ConnError> {
        let Some(datagram) = self.received.lock().await.recv().await else {
            return std::future::pending().await;
        };
        let len = datagram.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(&datagram) {
            *to = *from;
        }
        Ok(len)
    }

    async fn recv_from(&self, _: &mut [u8]) -> Result<(usize, SocketAddr), ConnError> {
        std::future::pending().await
    }

    /// Never fails: what does not fit is lost, and the crate sends its flight again.
    async fn send(&self, datagram: &[u8]) -> Result<usize, ConnError> {
        let mut sent = self.sent.lock();
        if sent.len() < MAX_QUEUED_DATAGRAMS {
            sent.push_back(datagram.to_vec());
        }
        Ok(datagram.len())
    }

    async fn send_to(&self, datagram: &[u8], _: SocketAddr) -> Result<usize, ConnError> {
        self.send(datagram).await
    }

    fn local_addr(&self) -> Result<SocketAddr, ConnError> {
        Err(ConnError::Other("sans-IO".to_owned()))
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        None
    }

    async fn close(&self) -> Result<(), ConnError> {
        Ok(())
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}

/// A whole handshake in client role, up to the export of keys.
async fn handshake(
    datagrams: DatagramConn,
    certificate: webrtc_dtls::crypto::Certificate,
    peer: PeerFingerprints,
    profiles: Vec<SrtpProfile>,
) -> Result<Keys, DtlsError> {
    let peer = Arc::new(peer);
    let mismatch = Arc::new(OnceLock::new());
    let config = Config {
        certificates: vec![certificate],
        cipher_suites: vec![
            CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256,
            CipherSuiteId::Tls_Ecdhe_Rsa_With_Aes_128_Gcm_Sha256,
        ],
        srtp_protection_profiles: profiles.into_iter().map(to_dtls).collect(),
        extended_master_secret: ExtendedMasterSecretType::Require,
        flight_interval: FLIGHT_INTERVAL,
        // There is no chain to verify; the fingerprint is what authenticates. The signature over the key exchange is
        // still checked against the certificate.
        insecure_skip_verify: true,
        verify_peer_certificate: Some(Arc::new({
            let (peer, mismatch) = (Arc::clone(&peer), Arc::clone(&mismatch));
            move |chain: &[Vec<u8>], _: &[_]| match verify(&peer, chain) {
                Ok(()) => Ok(()),
                Err(error) => {
                    let _ = mismatch.set(error);
                    // Makes the crate send bad_certificate, as RFC 8122 §6.2 asks.
                    Err(webrtc_dtls::Error::Other("fingerprint".to_owned()))
                }
            }
        })),
        server_name: SERVER_NAME.to_owned(),
        mtu: MTU_BYTES,
        ..Config::default()
    };
    let connection = DTLSConn::new(Arc::new(datagrams), config, true, None)
        .await
        .map_err(|error| mismatch.get().cloned().unwrap_or_else(|| error.into()))?;
    let state = connection.connection_state().await;
    verify(&peer, &state.peer_certificates)?;
    let profile = from_dtls(connection.selected_srtpprotection_profile()).ok_or(DtlsError::NoSrtpProfile)?;
    let material = state
        .export_keying_material(EXPORTER_LABEL, &[], profile.export_len())
        .await
        .map(Zeroizing::new)
        .map_err(|error| DtlsError::Failed(error.to_string()))?;
    Keys::from_client_export(profile, &material).map_err(|error| DtlsError::Failed(error.to_string()))
}

/// Whether the first certificate of the chain is one that the peer's description promised.
fn verify(peer: &PeerFingerprints, chain: &[Vec<u8>]) -> Result<(), DtlsError> {
    let leaf = chain.first().ok_or(DtlsError::NoPeerCertificate)?;
    let presented = Fingerprint::of(leaf);
    if peer.contains(&presented) { Ok(()) } else { Err(DtlsError::FingerprintMismatch { presented }) }
}

fn to_dtls(profile: SrtpProfile) -> SrtpProtectionProfile {
    match profile {
        SrtpProfile::AeadAes128Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
        SrtpProfile::Aes128CmSha1_80 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
    }
}

fn from_dtls(profile: SrtpProtectionProfile) -> Option<SrtpProfile> {
    match profile {
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => Some(SrtpProfile::AeadAes128Gcm),
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => Some(SrtpProfile::Aes128CmSha1_80),
        _ => None,
    }
}

impl From<webrtc_dtls::Error> for DtlsError {
    fn from(error: webrtc_dtls::Error) -> Self {
        use webrtc_dtls::Error;
        match error {
            Error::ErrRequestedButNoSrtpExtension | Error::ErrClientNoMatchingSrtpProfile => Self::NoSrtpProfile,
            Error::ErrClientRequiredButNoServerEms => Self::NoExtendedMasterSecret,
            // Raised by the check of the key exchange's signature when the certificate list is empty.
            Error::ErrLengthMismatch => Self::NoPeerCertificate,
            Error::ErrAlertFatalOrClose => Self::Closed,
            other => Self::Failed(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(handshake: impl Future<Output = Result<Keys, DtlsError>> + Send + 'static) -> (Engine, Instant) {
        let now = Instant::now();
        let peer = Fingerprint::of(b"peer").into();
        let mut engine = Engine::new(&Certificate::generate(), peer, &SrtpProfile::OFFERED, now).expect("threads");
        engine.handshake.abort();
        engine.handshake = engine.runtime.spawn(handshake);
        (engine, now)
    }

    #[test]
    fn a_panic_in_the_handshake_is_an_error() {
        let (mut engine, now) = engine(async { panic!("index out of bounds") });
        let outcome = engine.pump(now).expect("it has ended");
        assert_eq!(outcome.err(), Some(DtlsError::Panicked));
    }

    #[test]
    fn timers_follow_the_callers_clock() {
        let (mut engine, now) = engine(async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Err(DtlsError::Closed)
        });
        assert!(engine.pump(now).is_none());
        assert!(engine.pump(now + Duration::from_secs(3599)).is_none());
        let outcome = engine.pump(now + Duration::from_millis(3_600_001));
        assert_eq!(outcome.and_then(Result::err), Some(DtlsError::Closed));
    }

    /// Otherwise the crate's reader would spin, and with it the pump.
    #[test]
    fn receiving_waits_for_ever_when_the_other_end_is_gone() {
        let (received, to_receive) = mpsc::channel(1);
        drop(received);
        let connection = DatagramConn { received: tokio::sync::Mutex::new(to_receive), sent: Arc::default() };
        let (mut engine, now) = engine(async move {
            let _ = connection.recv(&mut [0; 16]).await;
            Err(DtlsError::Closed)
        });
        assert!(engine.pump(now).is_none());
    }
}
