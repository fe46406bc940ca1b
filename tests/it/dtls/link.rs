//! Our DTLS client against a server on another implementation (dimpl), over a link in virtual time that a test can
//! watch, cut and write to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, DtlsCertificate, Output};
use guest_relay::rtc::dtls::{Certificate, DtlsError, Fingerprint, Handshake, PeerFingerprints};
use guest_relay::rtc::srtp::{Keys, SrtpProfile};

/// One way, each datagram.
const DELAY: Duration = Duration::from_millis(5);

/// When to stop waiting: longer than the client's own deadline.
const PATIENCE: Duration = Duration::from_secs(12);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Server,
    Client,
}

pub(crate) struct Server {
    dtls: Dtls,
    pub(crate) fingerprint: Fingerprint,
    /// Exported under `EXTRACTOR-dtls_srtp`.
    pub(crate) material: Option<(dimpl::SrtpProfile, Vec<u8>)>,
    pub(crate) client: Option<Fingerprint>,
    failed: bool,
    timeout: Instant,
}

impl Server {
    pub(crate) fn new(cookie: bool, mtu: usize, now: Instant) -> Self {
        let config = Config::builder()
            .use_server_cookie(cookie)
            .mtu(mtu)
            .flight_start_rto(Duration::from_millis(400))
            .flight_retries(100)
            .build()
            .unwrap();
        let certificate: DtlsCertificate =
            dimpl::certificate::generate_self_signed_certificate().unwrap();
        Self {
            fingerprint: Fingerprint::of(&certificate.certificate),
            dtls: Dtls::new_12(Arc::new(config), certificate, now),
            material: None,
            client: None,
            failed: false,
            timeout: now,
        }
    }

    fn handle(&mut self, datagram: Option<&[u8]>, now: Instant) {
        if self.failed {
            return;
        }
        self.failed |= self.dtls.handle_timeout(now).is_err();
        if let Some(datagram) = datagram {
            self.failed |= self.dtls.handle_packet(datagram).is_err();
        }
    }

    fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut datagrams = vec![];
        let mut buffer = vec![0; 4096];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(datagram) => datagrams.push(datagram.to_vec()),
                Output::PeerCert(der) => self.client = Some(Fingerprint::of(der)),
                Output::KeyingMaterial(material, profile) => {
                    self.material = Some((profile, material.to_vec()));
                }
                Output::Timeout(at) => {
                    self.timeout = at;
                    return datagrams;
                }
                _ => {}
            }
        }
    }
}

pub(crate) struct Link {
    pub(crate) client: Handshake,
    pub(crate) certificate: Certificate,
    pub(crate) server: Server,
    pub(crate) started: Instant,
    pub(crate) now: Instant,
}

/// What a whole run came to.
pub(crate) struct Run {
    pub(crate) result: Result<Keys, DtlsError>,
    pub(crate) took: Duration,
    pub(crate) datagrams: usize,
    pub(crate) link: Link,
}

impl Link {
    pub(crate) fn new() -> Self {
        Self::with_server(true, 1150)
    }

    pub(crate) fn with_server(cookie: bool, mtu: usize) -> Self {
        let now = Instant::now();
        let server = Server::new(cookie, mtu, now);
        let peer = PeerFingerprints::from(server.fingerprint);
        Self::expecting(peer, server, &SrtpProfile::OFFERED, now)
    }

    pub(crate) fn expecting(
        peer: PeerFingerprints,
        server: Server,
        profiles: &[SrtpProfile],
        now: Instant,
    ) -> Self {
        let certificate = Certificate::generate();
        Self {
            client: Handshake::new(&certificate, peer, profiles, now),
            certificate,
            server,
            started: now,
            now,
        }
    }

    /// Runs until the client has a result and the server its keys, or patience ends. `network` gets every datagram
    /// with its number and gives what arrives instead of it.
    pub(crate) fn run(mut self, mut network: impl FnMut(To, usize, &[u8]) -> Vec<Vec<u8>>) -> Run {
        let mut result = None;
        let mut took = Duration::ZERO;
        let mut datagrams = 0;
        while self.now - self.started < PATIENCE {
            let mut moved = false;
            while let Some(datagram) = self.client.poll_transmit() {
                moved = true;
                for arriving in network(To::Server, datagrams, &datagram) {
                    self.server.handle(Some(&arriving), self.now);
                }
                datagrams += 1;
            }
            for datagram in self.server.drain() {
                moved = true;
                for arriving in network(To::Client, datagrams, &datagram) {
                    self.client.handle_datagram(&arriving, self.now);
                }
                datagrams += 1;
            }
            if let Some(outcome) = self.client.poll_result() {
                assert!(result.is_none(), "a second result");
                took = self.now - self.started;
                result = Some(outcome);
            }
            if result.as_ref().is_some_and(|result| {
                result.is_err() || self.server.material.is_some() || self.server.failed
            }) {
                break;
            }
            let next = self
                .client
                .poll_timeout()
                .map_or(self.server.timeout, |at| {
                    if self.server.failed {
                        at
                    } else {
                        at.min(self.server.timeout)
                    }
                });
            self.now = if moved {
                self.now + DELAY
            } else {
                next.max(self.now)
            };
            self.client.handle_timeout(self.now);
            self.server.handle(None, self.now);
        }
        Run {
            result: result.expect("a handshake ends by its deadline"),
            took,
            datagrams,
            link: self,
        }
    }
}

impl Run {
    /// That both ends have the same keys, and the server our certificate.
    pub(crate) fn assert_same_keys(&self) {
        let keys = self.result.as_ref().unwrap();
        let (_, material) = self
            .link
            .server
            .material
            .as_ref()
            .expect("the server has keys");
        let ours = [
            keys.local.key(),
            keys.remote.key(),
            keys.local.salt(),
            keys.remote.salt(),
        ];
        assert_eq!(ours.concat(), *material);
        assert_eq!(
            self.link.server.client,
            Some(self.link.certificate.fingerprint())
        );
    }
}

/// A network that changes nothing.
pub(crate) fn clean(_: To, _: usize, datagram: &[u8]) -> Vec<Vec<u8>> {
    vec![datagram.to_vec()]
}
