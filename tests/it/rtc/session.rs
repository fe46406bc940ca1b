//! Our peer and a sender on another implementation (str0m), joined in memory in virtual time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_relay::rtc::demux::classify;
use guest_relay::rtc::dtls::Certificate;
use guest_relay::rtc::peer::{self, Answered, Event, Output, Peer, PeerConfig, State};
use guest_relay::rtc::sdp::{OpusSettings, RemoteAddresses};
use guest_relay::rtc::srtp::SrtpProfile;
use guest_relay::rtc::stun::{Message, MessageClass, MessageWriter};
use guest_relay_muxer::TrackKind;
use loadgen::netem::{Impairments, Netem};
use str0m::bwe::Bitrate;
use str0m::change::SdpAnswer;
use str0m::media::{Direction, Frequency, MediaKind, MediaTime, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RawPacket;
use str0m::rtp::RtpWrite;
use str0m::rtp::rtcp::Rtcp;
use str0m::{Candidate, Input, Rtc};

/// One way.
pub(crate) const DELAY: Duration = Duration::from_millis(20);

/// A datagram on its way.
#[derive(Clone)]
pub(crate) struct InFlight {
    from: SocketAddr,
    to: SocketAddr,
    datagram: Vec<u8>,
}

/// A packet that our peer delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) kind: TrackKind,
    pub(crate) sequence_number: u16,
    pub(crate) payload_type: u8,
    pub(crate) ssrc: u32,
    pub(crate) rtp_time: u32,
    pub(crate) payload: Vec<u8>,
}

/// Which datagrams are lost.
pub(crate) type Filter = Box<dyn FnMut(&[u8]) -> bool>;

pub(crate) struct Session {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) peer: Peer,
    pub(crate) rtc: Rtc,
    pub(crate) answer: String,
    pub(crate) audio: Option<Mid>,
    pub(crate) video: Option<Mid>,
    pub(crate) client_address: SocketAddr,
    pub(crate) our_address: SocketAddr,
    /// A NAT gives the client another address.
    pub(crate) client_appears_as: Option<SocketAddr>,
    /// Which datagrams of the client are lost.
    pub(crate) lose: Filter,
    /// The client's checks carry no USE-CANDIDATE, as libdatachannel's once it is connected.
    pub(crate) nominates_no_more: bool,
    pub(crate) to_peer: Netem<InFlight>,
    to_client: VecDeque<(Instant, InFlight)>,
    client_timeout: Instant,
    pub(crate) events: Vec<Event>,
    pub(crate) delivered: Vec<Delivered>,
    /// Datagrams that our peer sent.
    pub(crate) sent: Vec<(SocketAddr, Vec<u8>)>,
    pub(crate) client_events: Vec<str0m::Event>,
    /// RTCP as the client read it.
    pub(crate) rtcp: Vec<Rtcp>,
}

pub(crate) fn config(candidates: Vec<SocketAddr>) -> PeerConfig {
    PeerConfig {
        candidates,
        start_bitrate_kbps: 1500,
        max_bitrate_kbps: 2500,
        opus: OpusSettings { max_average_bitrate_bps: 64_000, stereo: false },
        certificate: Certificate::generate(),
        srtp_profiles: SrtpProfile::OFFERED.to_vec(),
        remote_addresses: RemoteAddresses::Remote,
    }
}

/// What the client offers.
pub(crate) struct Client {
    pub(crate) audio: bool,
    pub(crate) video: bool,
    /// The client estimates its bandwidth and paces what it sends by that.
    pub(crate) estimates: bool,
    /// The client does no checks, like an SFU.
    pub(crate) ice_lite: bool,
    /// The client packs its audio itself, each packet with the one before it (RFC 2198); see [`Session::write_opus`].
    pub(crate) redundant: bool,
    /// What the network does to what the client sends.
    pub(crate) uplink: Impairments,
    /// What becomes of the offer on its way to us.
    pub(crate) edit_offer: fn(String) -> String,
    /// What becomes of our answer on its way back.
    pub(crate) edit_answer: fn(String) -> String,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            audio: true,
            video: true,
            estimates: false,
            ice_lite: false,
            redundant: false,
            uplink: Impairments { delay: DELAY, ..Impairments::default() },
            edit_offer: |offer| offer,
            edit_answer: |answer| answer,
        }
    }
}

impl Session {
    pub(crate) fn new(client: Client) -> Self {
        let now = Instant::now();
        let client_address: SocketAddr = "192.168.1.20:50000".parse().unwrap();
        let our_address: SocketAddr = "192.168.1.5:8189".parse().unwrap();
        let mut rtc = Rtc::builder()
            .set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()))
            .clear_codecs()
            .enable_opus(true, client.redundant)
            .enable_h264(true)
            .enable_vp8(true)
            .set_ice_lite(client.ice_lite)
            .set_rtp_mode(!client.redundant)
            .enable_raw_packets(true)
            .enable_bwe(client.estimates.then(|| Bitrate::kbps(500)))
            .build(now);
        rtc.add_local_candidate(Candidate::host(client_address, "udp").unwrap());
        let mut changes = rtc.sdp_api();
        let mut add = |kind| changes.add_media(kind, Direction::SendOnly, None, None, None);
        let audio = client.audio.then(|| add(MediaKind::Audio));
        let video = client.video.then(|| add(MediaKind::Video));
        let (offer, pending) = changes.apply().unwrap();
        let offer = (client.edit_offer)(offer.to_sdp_string());
        let Answered { mut peer, sdp } = peer::answer(&offer, &config(vec![our_address]), now).unwrap();
        let answer = (client.edit_answer)(sdp);
        let parsed = SdpAnswer::from_sdp_string(&answer).unwrap();
        rtc.sdp_api().accept_answer(pending, parsed).unwrap();
        rtc.handle_input(Input::Timeout(now)).unwrap();
        peer.begin_checks(now);
        Self {
            start: now,
            now,
            peer,
            rtc,
            answer,
            audio,
            video,
            client_address,
            our_address,
            client_appears_as: None,
            lose: Box::new(|_| false),
            nominates_no_more: false,
            to_peer: Netem::new(client.uplink, 1, now),
            to_client: VecDeque::new(),
            client_timeout: now,
            events: Vec::new(),
            delivered: Vec::new(),
            sent: Vec::new(),
            client_events: Vec::new(),
            rtcp: Vec::new(),
        }
    }

    /// A session in which media may flow.
    pub(crate) fn connected(client: Client) -> Self {
        let mut session = Self::new(client);
        session.run_until(Duration::from_secs(5), Session::is_connected);
        session
    }

    pub(crate) fn is_connected(&self) -> bool {
        *self.peer.state() == State::Connected && self.rtc.is_connected()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Runs until `done`; panics when that takes longer than `limit`.
    pub(crate) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let deadline = self.now + limit;
        self.settle();
        while !done(self) {
            assert!(
                self.now < deadline,
                "not done after {limit:?}; we are {:?}, heard {:?}",
                self.peer.state(),
                self.events
            );
            self.step(deadline);
        }
    }

    pub(crate) fn run_for(&mut self, duration: Duration) {
        let deadline = self.now + duration;
        self.settle();
        while self.now < deadline {
            self.step(deadline);
        }
    }

    /// Lets time pass to the next thing that happens, `deadline` at the latest.
    fn step(&mut self, deadline: Instant) {
        let next = [
            self.to_peer.poll_timeout(),
            self.to_client.front().map(|(arrives, _)| *arrives),
            Some(self.client_timeout),
            self.peer.poll_timeout(),
            Some(deadline),
        ];
        let next = next.into_iter().flatten().min().unwrap();
        self.now = next.max(self.now + Duration::from_micros(100)).min(deadline.max(next));
        let now = self.now;
        while let Some(InFlight { from, datagram, .. }) = self.to_peer.poll(now) {
            self.give_to_peer(&datagram, from);
        }
        while self.to_client.front().is_some_and(|(arrives, _)| *arrives <= now) {
            let (_, arrived) = self.to_client.pop_front().unwrap();
            self.give_to_client(&arrived);
        }
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        if self.peer.poll_timeout().is_some_and(|due| due <= now) {
            self.peer.handle_timeout(now);
        }
        self.settle();
    }

    pub(crate) fn give_to_peer(&mut self, datagram: &[u8], from: SocketAddr) {
        if let Some(received) = self.peer.handle_datagram(classify(datagram), datagram, from, self.now) {
            self.delivered.extend(received.packets().map(|packet| Delivered {
                kind: received.kind,
                sequence_number: packet.sequence_number,
                payload_type: packet.payload_type,
                ssrc: packet.ssrc,
                rtp_time: packet.rtp_time,
                payload: packet.payload.to_vec(),
            }));
        }
        self.peer.handle_batch_end(self.now);
        self.drain_peer();
    }

    fn give_to_client(&mut self, arrived: &InFlight) {
        let Ok(contents) = arrived.datagram.as_slice().try_into() else {
            panic!("str0m cannot tell what {:02x?} is", arrived.datagram);
        };
        let receive = Receive { proto: Protocol::Udp, source: arrived.from, destination: arrived.to, contents };
        self.rtc.handle_input(Input::Receive(self.now, receive)).unwrap();
        self.drain_client();
    }

    pub(crate) fn settle(&mut self) {
        self.drain_peer();
        self.drain_client();
    }

    fn drain_peer(&mut self) {
        while let Some(output) = self.peer.poll_output() {
            match output {
                Output::Event(event) => self.events.push(event),
                Output::Transmit { to, datagram } => {
                    self.sent.push((to, datagram.clone()));
                    let in_flight = InFlight {
                        from: self.our_address,
                        // The NAT undoes what it did.
                        to: match self.client_appears_as {
                            Some(seen) if seen == to => self.client_address,
                            _ => to,
                        },
                        datagram,
                    };
                    self.to_client.push_back((self.now + DELAY, in_flight));
                }
            }
        }
    }

    fn drain_client(&mut self) {
        // bounded: it drains the machine
        loop {
            match self.rtc.poll_output().unwrap() {
                str0m::Output::Timeout(at) => {
                    self.client_timeout = at;
                    return;
                }
                str0m::Output::Transmit(transmit) => {
                    let datagram = transmit.contents.to_vec();
                    if transmit.destination == self.our_address && !(self.lose)(&datagram) {
                        let datagram = if self.nominates_no_more { self.plain(datagram) } else { datagram };
                        let bytes = datagram.len();
                        let from = self.client_appears_as.unwrap_or(self.client_address);
                        self.to_peer.push(InFlight { from, to: transmit.destination, datagram }, bytes, self.now);
                    }
                }
                str0m::Output::Event(event) => {
                    if let Some(RawPacket::RtcpRx(rtcp)) = event.as_raw_packet() {
                        self.rtcp.push(rtcp.clone());
                    } else {
                        self.client_events.push(event);
                    }
                }
            }
        }
    }

    /// A check without its nomination; another datagram as it is.
    fn plain(&self, datagram: Vec<u8>) -> Vec<u8> {
        let Some(check) = Message::parse(&datagram).ok().filter(|message| message.class == MessageClass::Request)
        else {
            return datagram;
        };
        let password = self.answer.lines().find_map(|line| line.strip_prefix("a=ice-pwd:")).unwrap();
        MessageWriter::binding(MessageClass::Request, check.transaction_id)
            .username(std::str::from_utf8(check.username.unwrap()).unwrap())
            .role(check.role.unwrap())
            .priority(1)
            .finish(password.as_bytes())
    }

    /// Has the client send one RTP packet.
    pub(crate) fn write(&mut self, kind: TrackKind, sequence: u64, rtp_time: u32, payload: &[u8]) {
        let mid = match kind {
            TrackKind::Audio => self.audio,
            TrackKind::Video => self.video,
        }
        .unwrap();
        let pt = self.rtc.media(mid).unwrap().remote_pts()[0];
        let now = self.now;
        let mut direct = self.rtc.direct_api();
        let stream = direct.stream_tx_by_mid(mid, None).unwrap();
        stream.write_rtp(
            RtpWrite::new(pt, sequence.into(), rtp_time, now, payload.to_vec())
                .marker(true)
                .nackable(kind == TrackKind::Video),
        );
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        self.settle();
    }

    /// 20 ms of media: one audio packet, one video packet of `size` bytes.
    pub(crate) fn write_both(&mut self, n: u64, size: usize) {
        let ticks = u32::try_from(n).unwrap();
        let marked = |len| [n.to_be_bytes().as_slice(), &vec![0x5a; len]].concat();
        if self.audio.is_some() {
            self.write(TrackKind::Audio, 1000 + n, ticks * 960, &marked(80));
        }
        if self.video.is_some() {
            self.write(TrackKind::Video, 65_500 + n, ticks * 1800, &marked(size));
        }
        self.run_for(Duration::from_millis(20));
    }

    /// Has a client that packs for itself send one Opus packet of 20 ms.
    pub(crate) fn write_opus(&mut self, n: u64, packet: &[u8]) {
        let (mid, now) = (self.audio.unwrap(), self.now);
        let pt = self.rtc.media(mid).unwrap().remote_pts()[0];
        let time = MediaTime::new(n * 960, Frequency::FORTY_EIGHT_KHZ);
        self.rtc.writer(mid).unwrap().write(pt, now, time, packet.to_vec()).unwrap();
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        self.settle();
        self.run_for(Duration::from_millis(20));
    }

    pub(crate) fn video_ssrc(&mut self) -> u32 {
        let mid = self.video.unwrap();
        let mut direct = self.rtc.direct_api();
        *direct.stream_tx_by_mid(mid, None).unwrap().ssrc()
    }

    pub(crate) fn sequences(&self, kind: TrackKind) -> Vec<u16> {
        self.delivered
            .iter()
            .filter(|delivered| delivered.kind == kind)
            .map(|delivered| delivered.sequence_number)
            .collect()
    }
}

/// The SSRC of a protected RTP packet.
pub(crate) fn ssrc(datagram: &[u8]) -> Option<u32> {
    let is_rtp = (128..192).contains(datagram.first()?) && !(192..224).contains(datagram.get(1)?);
    let ssrc = datagram.get(8..12)?.try_into().ok()?;
    is_rtp.then_some(u32::from_be_bytes(ssrc))
}
