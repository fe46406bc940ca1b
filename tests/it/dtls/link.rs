//! Our DTLS client against a server on another implementation (dimpl), over a link in virtual time that a test can
//! watch, cut and write to.

use std::collections::VecDeque;
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
            .flight_start_rto(Duration::from_millis(100))
            .flight_retries(100)
            .dangerously_set_rng_seed(1)
            .build()
            .unwrap();
        let certificate: DtlsCertificate = dimpl::certificate::generate_self_signed_certificate().unwrap();
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
        // bounded: it drains the machine
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

    pub(crate) fn expecting(peer: PeerFingerprints, server: Server, profiles: &[SrtpProfile], now: Instant) -> Self {
        let certificate = Certificate::generate();
        Self { client: Handshake::new(&certificate, peer, profiles, now), certificate, server, started: now, now }
    }

    /// Runs until the client has a result and the server its keys, or patience ends. `network` gets every datagram
    /// with its number and gives what arrives instead of it, one delay later.
    pub(crate) fn run(mut self, mut network: impl FnMut(To, usize, &[u8]) -> Vec<Vec<u8>>) -> Run {
        let mut result = None;
        let mut ended = self.now;
        let mut on_the_way = VecDeque::new();
        let mut datagrams = 0;
        while self.now - self.started < PATIENCE {
            let from_client = std::iter::from_fn(|| self.client.poll_transmit());
            let mut sent: Vec<_> = from_client.map(|datagram| (To::Server, datagram)).collect();
            sent.extend(self.server.drain().into_iter().map(|datagram| (To::Client, datagram)));
            for (to, datagram) in sent {
                let arriving = network(to, datagrams, &datagram);
                on_the_way.extend(arriving.into_iter().map(|datagram| (self.now + DELAY, to, datagram)));
                datagrams += 1;
            }
            if let Some(outcome) = self.client.poll_result() {
                assert!(result.is_none(), "a second result");
                ended = self.now;
                result = Some(outcome);
            }
            if result
                .as_ref()
                .is_some_and(|result| result.is_err() || self.server.material.is_some() || self.server.failed)
            {
                break;
            }
            let arrival = on_the_way.front().map(|(at, ..)| *at);
            let server = (!self.server.failed).then_some(self.server.timeout);
            let due = [arrival, self.client.poll_timeout(), server];
            let due = due.into_iter().flatten().min().expect("something is due");
            self.now = self.now.max(due);
            while on_the_way.front().is_some_and(|(at, ..)| *at <= self.now) {
                match on_the_way.pop_front().unwrap() {
                    (_, To::Server, datagram) => self.server.handle(Some(&datagram), self.now),
                    (_, To::Client, datagram) => self.client.handle_datagram(&datagram, self.now),
                }
            }
            self.client.handle_timeout(self.now);
            self.server.handle(None, self.now);
        }
        Run {
            result: result.expect("a handshake ends by its deadline"),
            took: ended - self.started,
            datagrams,
            link: self,
        }
    }
}

impl Run {
    /// That both ends have the same keys, and the server our certificate.
    pub(crate) fn assert_same_keys(&self) {
        let keys = self.result.as_ref().unwrap();
        let (_, material) = self.link.server.material.as_ref().expect("the server has keys");
        let ours = [keys.local.key(), keys.remote.key(), keys.local.salt(), keys.remote.salt()];
        assert_eq!(ours.concat(), *material);
        assert_eq!(self.link.server.client, Some(self.link.certificate.fingerprint()));
    }
}

/// A network that changes nothing.
pub(crate) fn clean(_: To, _: usize, datagram: &[u8]) -> Vec<Vec<u8>> {
    vec![datagram.to_vec()]
}
