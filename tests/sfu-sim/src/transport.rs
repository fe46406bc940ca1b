//! The PeerConnection of one session: str0m as an ICE-lite agent in RTP mode, set up without its SDP machinery, because
//! what is written in the descriptions is part of the simulation.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use loadgen::rng::Rng;
use loadgen::stack::{Stack, Transmit};
use str0m::config::Fingerprint;
use str0m::media::{MediaKind, Mid};
use str0m::rtp::Extension;
use str0m::{IceCreds, Rtc, RtcError};

use crate::api::ApiError;
use crate::codec::Format;
use crate::describe::Local;
use crate::padding::{PaddingHeader, PaddingSource};
use crate::sdp::{Kind, Remote, Setup, Source};

pub(crate) const MID_EXTENSION: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
pub(crate) const TRANSPORT_CC_EXTENSION: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// How many packets, and for how long, a NACK is answered.
const RTX_PACKETS: usize = 2048;
const RTX_AGE: Duration = Duration::from_secs(3);
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Transport {
    pub(crate) stack: Stack,
    pub(crate) local: Local,
    pub(crate) formats: Vec<Format>,
    pub(crate) extensions: Vec<(u8, String)>,
    /// Our peer's description was applied.
    pub(crate) negotiated: bool,
    /// From the end of the DTLS handshake on.
    pub(crate) connected: bool,
    pub(crate) last_heard: Instant,
    /// That came from the peer.
    pub(crate) datagrams: u64,
    /// Where its datagrams come from.
    peer: Option<SocketAddr>,
    padding: PaddingSource,
    transmits: VecDeque<Transmit>,
    is_dtls_client: bool,
    /// ufrag and pwd
    remote_credentials: Option<(String, String)>,
}

impl Transport {
    /// `extensions` are those of [`kept_extensions`] or ours.
    pub(crate) fn new(
        formats: Vec<Format>,
        extensions: Vec<(u8, String)>,
        address: SocketAddr,
        rng: &mut Rng,
        now: Instant,
    ) -> Transport {
        let credentials = IceCreds { ufrag: hex(rng, 8), pass: hex(rng, 32) };
        let (ufrag, pwd) = (credentials.ufrag.clone(), credentials.pass.clone());
        let (padding, provider) = PaddingSource::new();
        let mut config = Rtc::builder()
            .set_crypto_provider(provider)
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .set_local_ice_credentials(credentials)
            .set_rtcp_report_interval_audio(REPORT_INTERVAL)
            .set_rtcp_report_interval_video(REPORT_INTERVAL)
            .clear_codecs()
            .clear_extension_map();
        for (id, uri) in &extensions {
            if let Some(extension) = extension(uri) {
                config = config.set_extension(*id, extension);
            }
        }
        for format in &formats {
            format.configure(config.codec_config());
        }
        let mut stack = Stack::new(config, address, now);
        let mut api = stack.rtc.direct_api();
        api.set_ice_controlling(false);
        if extensions.iter().any(|(_, uri)| uri == TRANSPORT_CC_EXTENSION) {
            api.enable_twcc_feedback();
        }
        let fingerprint = api.local_dtls_fingerprint().to_string();
        stack.drain();
        let local = Local {
            // At most 19 digits.
            origin_id: rng.u64() >> 2,
            origin_version: unix_seconds(),
            fingerprint,
            ufrag,
            pwd,
            candidate: address,
            extmap_allow_mixed: true,
        };
        Transport {
            stack,
            local,
            formats,
            extensions,
            negotiated: false,
            connected: false,
            last_heard: now,
            datagrams: 0,
            peer: None,
            padding,
            transmits: VecDeque::new(),
            is_dtls_client: false,
            remote_credentials: None,
        }
    }

    /// Takes the peer's credentials and starts the handshakes; later descriptions must repeat what the first one had.
    /// `Ok(false)`: the DTLS roles were changed, which loses the connection.
    pub(crate) fn apply(&mut self, remote: &Remote, now: Instant) -> Result<bool, ApiError> {
        let client = remote.setup == Setup::Passive;
        if self.negotiated {
            let credentials = (&remote.ufrag, &remote.pwd);
            if self.remote_credentials.as_ref().map(|(ufrag, pwd)| (ufrag, pwd)) != Some(credentials) {
                return Err(ApiError::sdp(406, "ICE restart is not supported"));
            }
            return Ok(client == self.is_dtls_client || remote.setup == Setup::ActPass);
        }
        let fingerprint: Fingerprint =
            remote.fingerprint.parse().map_err(|_| ApiError::sdp(400, "Unable to parse SDP"))?;
        let started = self.start(remote, fingerprint, client);
        self.stack.drain();
        started.map_err(|error| ApiError::sdp(406, error.to_string()))?;
        self.negotiated = true;
        self.remote_credentials = Some((remote.ufrag.clone(), remote.pwd.clone()));
        self.is_dtls_client = client;
        self.stack.handle_timeout(now);
        Ok(true)
    }

    fn start(&mut self, remote: &Remote, fingerprint: Fingerprint, client: bool) -> Result<(), RtcError> {
        let mut api = self.stack.rtc.direct_api();
        api.set_remote_ice_credentials(IceCreds { ufrag: remote.ufrag.clone(), pass: remote.pwd.clone() });
        api.set_remote_fingerprint(fingerprint);
        api.start_dtls(client)
    }

    pub(crate) fn handle_datagram(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        self.last_heard = now;
        self.datagrams += 1;
        self.peer = Some(from);
        self.stack.handle_datagram(datagram, from, now);
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.collect();
        self.transmits.pop_front()
    }

    fn collect(&mut self) {
        while let Some(transmit) = self.stack.poll_transmit() {
            self.transmits.push_back(transmit);
        }
    }

    /// A packet of padding goes out behind what is waiting already.
    pub(crate) fn send_padding(&mut self, header: PaddingHeader) {
        self.collect();
        let datagram = self.padding.packet(header);
        if let (Some(datagram), Some(to)) = (datagram, self.peer) {
            self.transmits.push_back(Transmit { to, datagram });
        }
    }

    /// A section in which we receive.
    pub(crate) fn receive(&mut self, mid: &str, kind: Kind, sources: &[Source]) {
        let mid = Mid::from(mid);
        let mut api = self.stack.rtc.direct_api();
        api.declare_media(mid, media_kind(kind));
        for source in sources {
            api.expect_stream_rx(source.ssrc.into(), source.rtx.map(Into::into), mid, None);
        }
        self.stack.drain();
    }

    /// A section in which we send; with the SSRCs of media and retransmissions.
    pub(crate) fn send(&mut self, mid: &str, kind: Kind) -> Source {
        let mid = Mid::from(mid);
        let mut api = self.stack.rtc.direct_api();
        api.declare_media(mid, media_kind(kind));
        let ssrc = api.new_ssrc();
        let rtx = (kind == Kind::Video).then(|| api.new_ssrc());
        let stream = api.declare_stream_tx(ssrc, rtx, mid, None);
        stream.set_rtx_cache(RTX_PACKETS, RTX_AGE, None);
        stream.set_unpaced(true);
        self.stack.drain();
        Source { ssrc: *ssrc, rtx: rtx.map(|rtx| *rtx) }
    }

    pub(crate) fn has_transport_cc(&self) -> bool {
        self.extensions.iter().any(|(_, uri)| uri == TRANSPORT_CC_EXTENSION)
    }
}

/// The header extensions that the service takes over from an offer.
pub(crate) fn kept_extensions(offered: &[(u8, String)]) -> impl Iterator<Item = &(u8, String)> {
    // One-byte form only (RFC 8285 §4.2).
    offered.iter().filter(|(id, uri)| (1..=14).contains(id) && extension(uri).is_some())
}

fn extension(uri: &str) -> Option<Extension> {
    match uri {
        MID_EXTENSION => Some(Extension::RtpMid),
        TRANSPORT_CC_EXTENSION => Some(Extension::TransportSequenceNumber),
        _ => None,
    }
}

fn media_kind(kind: Kind) -> MediaKind {
    match kind {
        Kind::Video => MediaKind::Video,
        _ => MediaKind::Audio,
    }
}

/// So many random hexadecimal digits; at most 64.
pub(crate) fn hex(rng: &mut Rng, digits: usize) -> String {
    let mut text: String = (0..4).map(|_| format!("{:016x}", rng.u64())).collect();
    text.truncate(digits);
    text
}

fn unix_seconds() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    since.map_or(0, |since| since.as_secs())
}
