//! The packet path of the daemon without its sockets: SRTP datagrams in, RTMP bytes out, through the parts that the media
//! thread drives. And the same datagrams through its SRTP alone, and through webrtc-srtp alone, which is what any receiver
//! built on that pays.
//!
//! ICE, DTLS and feedback are not in it: they cost per second, but for the feedback's notes of each packet, which
//! `make profile` of a whole daemon has.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use guest_relay::relay::{Relay, RelayConfig};
use guest_relay::rtc::srtp::{Inbound, Keys, SrtpProfile};
use guest_relay::rtmp::{Output, State, Target};
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

/// One guest's receiving end, publishing to a server that takes everything at once.
pub(crate) struct Path {
    inbound: Inbound,
    relay: Relay,
    start: Instant,
}

impl Path {
    /// Ready for media: the server has said Publish.Start.
    pub(crate) fn new(profile: SrtpProfile) -> Result<Self, Box<dyn Error>> {
        let start = Instant::now();
        let inbound = inbound(profile, start)?;
        let config = RelayConfig {
            target: Target::parse("rtmp://127.0.0.1/guest1")?,
            servers: Vec::new(),
            muxer: guest_relay_muxer::Config::default(),
            hold: Duration::from_secs(15),
            keyframe_interval: Some(Duration::from_secs(4)),
            seed: 1,
        };
        let mut relay = Relay::new(config, start);
        relay.begin_source(true, start);
        Ok(Self { inbound, relay, start })
    }

    /// Has the server accept the publication, once the first packet has begun it.
    fn accept(&mut self) {
        let now = self.start;
        let publisher = self.relay.publisher();
        publisher.handle_connected(now);
        for reply in server_replies() {
            let written = publisher.write_buffer().len();
            publisher.handle_written(written, now);
            publisher.handle_bytes(&reply, now);
        }
        assert_eq!(publisher.state(), State::Publishing, "the server's part is complete");
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
        let mut bytes = 0;
        for packet in packets {
            let now = self.start + packet.arrival;
            let Ok(plain) = self.inbound.unprotect_rtp(&packet.bytes, now) else {
                continue;
            };
            let Ok(rtp) = RtpPacket::parse(plain) else {
                continue;
            };
            self.relay.handle_rtp(packet.kind, &rtp, now);
            if self.relay.poll_timeout().is_some_and(|at| at <= now) {
                self.relay.handle_timeout(now);
            }
            while let Some(output) = self.relay.poll_output(now) {
                black_box::<Output>(output);
            }
            let publisher = self.relay.publisher();
            let written = black_box(publisher.write_buffer()).len();
            publisher.handle_written(written, now);
            bytes += written;
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
                inbound.unprotect_rtp(&packet.bytes, *start + packet.arrival).ok().map(|plain| black_box(plain).len())
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
