//! The packet path of the daemon without its sockets: SRTP datagrams in, RTMP bytes out, through the slot that the media
//! thread drives, a wake-up for each packet. And the same datagrams through its SRTP alone, and through webrtc-srtp alone,
//! which is what any receiver built on that pays.
//!
//! The session is SRTP alone: ICE, DTLS and feedback are not in it. They cost per second, but for the feedback's record of
//! each packet, which `make profile` of a whole daemon has.

use std::error::Error;
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use guest_relay::guest::{SessionKey, Slot};
use guest_relay::rtc::demux::{Class, classify};
use guest_relay::rtc::peer::{self, Delivery, PeerStats, Received};
use guest_relay::rtc::srtp::{Inbound, Keys, SrtpProfile};
use guest_relay::rtmp::{State, Target};
use guest_relay::slot::{Joining, Output, RelayConfig, RtmpInput, SessionPeer, SlotMachine};
use guest_relay_muxer::{RtpPacket, TrackKind, amf0};
use webrtc_srtp::context::Context;
use webrtc_srtp::option::srtp_replay_protection;
use webrtc_srtp::protection_profile::ProtectionProfile;

use crate::recording::Datagram;

/// Both directions use the same key here.
const KEYING_MATERIAL: [u8; 60] = [0x5a; 60];
const REPLAY_WINDOW: usize = 512;

/// One protected packet.
pub(crate) struct Protected {
    arrival: Duration,
    kind: TrackKind,
    bytes: Vec<u8>,
}

fn context(profile: SrtpProfile) -> Result<Context, Box<dyn Error>> {
    let theirs = match profile {
        SrtpProfile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpProfile::Aes128CmSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    let (key, salt) = (&KEYING_MATERIAL[..profile.key_len()], &KEYING_MATERIAL[..profile.salt_len()]);
    Ok(Context::new(key, salt, theirs, Some(srtp_replay_protection(REPLAY_WINDOW)), None)?)
}

/// What a browser would have sent.
pub(crate) fn protect(recording: &[Datagram], profile: SrtpProfile) -> Result<Vec<Protected>, Box<dyn Error>> {
    let mut context = context(profile)?;
    let protect = |datagram: &Datagram| {
        let bytes = context.encrypt_rtp(&datagram.bytes)?.to_vec();
        Ok(Protected { arrival: datagram.arrival, kind: datagram.kind, bytes })
    };
    recording.iter().map(protect).collect()
}

const KEY: SessionKey = SessionKey(1);

/// The address that a track's packets come from tells the track.
fn source(kind: TrackKind) -> SocketAddr {
    let port = match kind {
        TrackKind::Audio => 1,
        TrackKind::Video => 2,
    };
    ([192, 0, 2, 1], port).into()
}

/// A session that is nothing but SRTP.
struct Srtp(Inbound);

impl SessionPeer for Srtp {
    fn handle_datagram(
        &mut self,
        _class: Class,
        datagram: &[u8],
        from: SocketAddr,
        now: Instant,
    ) -> Option<Received<'_>> {
        let kind = if from == source(TrackKind::Audio) { TrackKind::Audio } else { TrackKind::Video };
        let plain = self.0.unprotect_rtp(datagram, now).ok()?.packet;
        RtpPacket::parse(plain).ok().map(|packet| Received::plain(kind, packet))
    }

    fn handle_batch_end(&mut self, _now: Instant) {}

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_output(&mut self) -> Option<peer::Output> {
        None
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn has_track(&self, _kind: TrackKind) -> bool {
        true
    }

    fn delivery(&self, _kind: TrackKind) -> Delivery {
        Delivery::default()
    }

    fn last_heard(&self) -> Option<Instant> {
        None
    }

    fn stats(&self) -> PeerStats {
        PeerStats::default()
    }

    fn request_keyframe(&mut self, _now: Instant) {}

    fn notify_keyframe(&mut self) {}

    fn set_max_bitrate(&mut self, _max_bitrate_kbps: u32, _now: Instant) {}

    fn set_max_wait(&mut self, _kind: TrackKind, _max_wait: Duration) {}

    fn close(&mut self, _now: Instant) {}
}

/// One guest's receiving end, publishing to a server that takes everything at once.
pub(crate) struct Path {
    slot: SlotMachine<Srtp>,
    start: Instant,
}

impl Path {
    /// Ready for media: the server has said Publish.Start.
    pub(crate) fn new(profile: SrtpProfile) -> Result<Self, Box<dyn Error>> {
        let start = Instant::now();
        let config = RelayConfig {
            target: Target::parse("rtmp://127.0.0.1/guest1")?,
            servers: Vec::new(),
            muxer: guest_relay_muxer::Config::default(),
            hold: Duration::from_secs(15),
            keyframe_interval: Some(Duration::from_secs(2)),
            idle: false,
            still: std::sync::Arc::new(guest_relay_muxer::Still::black()),
            seed: 1,
        };
        let mut slot = SlotMachine::new(Slot(0), config, start);
        let peer = Box::new(Srtp(inbound(profile, start)?));
        slot.prepare(Joining { key: KEY, guest: KEY, continues: None, peer, video: true, announces: false }, start);
        slot.handle_timeout(start);
        Ok(Self { slot, start })
    }

    /// Has the server accept the publication, once the first packet has begun it.
    fn accept(&mut self) {
        let (slot, now) = (&mut self.slot, self.start);
        slot.handle_rtmp(RtmpInput::Connected, now);
        for reply in server_replies() {
            let written = slot.write_buffer().len();
            slot.handle_rtmp(RtmpInput::Written(written), now);
            slot.handle_rtmp(RtmpInput::Bytes(&reply), now);
        }
        assert_eq!(slot.snapshot(now).relay.rtmp, State::Publishing, "the server's part is complete");
    }

    /// Everything up to the first byte of media at the server, and the buffers' growth.
    pub(crate) fn warm_up(&mut self, packets: &[Protected]) -> usize {
        let Some((first, rest)) = packets.split_first() else {
            return 0;
        };
        let bytes = self.run(std::slice::from_ref(first));
        self.accept();
        bytes + self.run(rest)
    }

    /// The packets' way; bytes for the server. Kept whole, so that a profile names it.
    #[inline(never)]
    pub(crate) fn run(&mut self, packets: &[Protected]) -> usize {
        let slot = &mut self.slot;
        let mut bytes = 0;
        for packet in packets {
            let now = self.start + packet.arrival;
            slot.handle_datagram(KEY, classify(&packet.bytes), &packet.bytes, source(packet.kind), now);
            slot.handle_timeout(now);
            while let Some(output) = slot.poll_output() {
                black_box::<Output>(output);
            }
            let written = black_box(slot.write_buffer()).len();
            if written > 0 {
                slot.handle_rtmp(RtmpInput::Written(written), now);
            }
            bytes += written;
            black_box(slot.poll_timeout());
        }
        bytes
    }
}

/// The same packets through our SRTP.
pub(crate) struct Open {
    inbound: Inbound,
    start: Instant,
}

impl Open {
    pub(crate) fn new(profile: SrtpProfile) -> Result<Self, Box<dyn Error>> {
        let start = Instant::now();
        Ok(Self { inbound: inbound(profile, start)?, start })
    }

    pub(crate) fn run(&mut self, packets: &[Protected]) -> usize {
        let Self { inbound, start } = self;
        packets
            .iter()
            .filter_map(|packet| {
                inbound
                    .unprotect_rtp(&packet.bytes, *start + packet.arrival)
                    .ok()
                    .map(|plain| black_box(plain).packet.len())
            })
            .sum()
    }
}

fn inbound(profile: SrtpProfile, now: Instant) -> Result<Inbound, Box<dyn Error>> {
    let material = KEYING_MATERIAL.get(..profile.export_len()).ok_or("the material is too short")?;
    Ok(Inbound::new(&Keys::from_client_export(profile, material)?, now))
}

/// The same packets through webrtc-srtp.
pub(crate) struct Bare(Context);

impl Bare {
    pub(crate) fn new(profile: SrtpProfile) -> Result<Self, Box<dyn Error>> {
        Ok(Self(context(profile)?))
    }

    pub(crate) fn run(&mut self, packets: &[Protected]) -> usize {
        packets
            .iter()
            .filter_map(|packet| self.0.decrypt_rtp(&packet.bytes).ok())
            .map(|plain| black_box(plain).len())
            .sum()
    }
}

/// What an RTMP server says until it waits for media: handshake, `_result` of connect and createStream, onStatus.
fn server_replies() -> [Vec<u8>; 4] {
    let mut handshake = vec![0; 1 + 2 * 1536];
    handshake[0] = 3;
    let command = |write: &dyn Fn(&mut amf0::Writer<'_>)| {
        let mut body = Vec::new();
        write(&mut amf0::Writer::new(&mut body));
        // One chunk of type 0 on chunk stream 3: time 0, length, type 20, message stream 0.
        let length = u8::try_from(body.len()).expect("within one chunk of 128 bytes");
        [&[3, 0, 0, 0, 0, 0, length, 20, 0, 0, 0, 0], &body[..]].concat()
    };
    [
        handshake,
        command(&|out| {
            out.string("_result").number(1.0).null().object().key("code").string("NetConnection.Connect.Success").end();
        }),
        command(&|out| {
            out.string("_result").number(4.0).null().number(1.0);
        }),
        command(&|out| {
            out.string("onStatus").number(0.0).null().object().key("code").string("NetStream.Publish.Start").end();
        }),
    ]
}
