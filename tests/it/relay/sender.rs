//! A guest's sending side: pictures and sound of a recording as RTP, in virtual time. Each picture carries a number of
//! its own, so that a test can tell which of them arrived and what each of them refers to.

use std::time::{Duration, Instant};

use guest_relay_muxer::bytes::{Reader, Truncated};
use guest_relay_muxer::{Frame, RtpPacket, TrackKind};

use crate::rtmp::driver::flv_tags;

/// RTP payload bytes of a packet at most.
const PAYLOAD_MAX: usize = 1200;
const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
/// Hexadecimal digits of a picture's number, behind its last NAL unit.
const NUMBER_LEN: usize = 16;

/// One GOP and the sound of a recording.
#[derive(Clone)]
pub(crate) struct Clip {
    parameter_sets: Vec<Vec<u8>>,
    /// The NAL units of each picture; the first is an IDR picture.
    gop: Vec<Vec<Vec<u8>>>,
    interval: Duration,
    sound: Vec<Vec<u8>>,
}

impl Clip {
    /// 320x240, 25 pictures a second, an IDR picture each second.
    pub(crate) fn large() -> Self {
        Self::read(include_bytes!("../rtmp/testsrc2_320x240.flv"), Duration::from_millis(40)).unwrap()
    }

    /// 64x64, 10 pictures a second, an IDR picture each half second.
    pub(crate) fn small() -> Self {
        Self::read(include_bytes!("../rtmp/testsrc2_64x64.flv"), Duration::from_millis(100)).unwrap()
    }

    fn read(flv: &[u8], interval: Duration) -> Result<Self, Truncated> {
        let mut clip = Clip { parameter_sets: Vec::new(), gop: Vec::new(), interval, sound: Vec::new() };
        let mut gops = 0;
        for (tag, body) in flv_tags(flv)? {
            match tag.frame {
                Frame::VideoSequenceHeader => {
                    // One SPS behind five bytes of avcC and their count, one PPS behind its own.
                    let mut avcc = Reader::new(&body);
                    avcc.take(5 + 6)?;
                    let length = usize::from(avcc.u16()?);
                    let sps = avcc.take(length)?.to_vec();
                    avcc.u8()?;
                    let length = usize::from(avcc.u16()?);
                    clip.parameter_sets = vec![sps, avcc.take(length)?.to_vec()];
                }
                Frame::Keyframe | Frame::InterFrame => {
                    gops += usize::from(tag.frame == Frame::Keyframe);
                    if gops == 1 {
                        clip.gop.push(nal_units(&body)?);
                    }
                }
                Frame::Audio => clip.sound.push(body[5..].to_vec()),
                Frame::Metadata | Frame::AudioSequenceHeader => {}
            }
        }
        Ok(clip)
    }
}

/// Those of a video tag.
fn nal_units(body: &[u8]) -> Result<Vec<Vec<u8>>, Truncated> {
    let mut reader = Reader::new(body);
    reader.take(5)?;
    let mut units = Vec::new();
    while !reader.is_empty() {
        let length = usize::try_from(reader.u32()?).unwrap();
        units.push(reader.take(length)?.to_vec());
    }
    Ok(units)
}

/// The number of a picture that no guest sent.
pub(crate) const SLATE: u64 = 0;

/// The number of the picture in a video tag.
pub(crate) fn picture_number(body: &[u8]) -> u64 {
    let digits = std::str::from_utf8(&body[body.len() - NUMBER_LEN..]).ok();
    digits.map_or(SLATE, |digits| u64::from_str_radix(digits, 16).unwrap())
}

/// When the camera makes IDR pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyframes {
    /// One each GOP of the recording, and on request.
    EachGop,
    /// At the start and on request, as browsers do.
    OnRequest,
}

/// A packet with its own payload.
#[derive(Clone)]
pub(crate) struct Packet {
    pub(crate) kind: TrackKind,
    payload_type: u8,
    marker: bool,
    sequence_number: u16,
    rtp_time: u32,
    ssrc: u32,
    payload: Vec<u8>,
}

impl Packet {
    pub(crate) fn rtp(&self) -> RtpPacket<'_> {
        RtpPacket {
            payload_type: self.payload_type,
            marker: self.marker,
            sequence_number: self.sequence_number,
            rtp_time: self.rtp_time,
            ssrc: self.ssrc,
            extension: None,
            payload: &self.payload,
        }
    }
}

/// One track's RTP state.
struct Stream {
    ssrc: u32,
    payload_type: u8,
    sequence_number: u16,
    clock_offset: u32,
    next: Instant,
    on: bool,
}

pub(crate) struct Sender {
    clip: Clip,
    keyframes: Keyframes,
    began: Instant,
    video: Stream,
    audio: Stream,
    /// Capture time that the audio clock does not count: it stood still.
    audio_stood: Duration,
    place_in_gop: usize,
    pub(crate) sounds: usize,
    next_number: u64,
    idr_wanted: bool,
    pub(crate) requests: usize,
}

impl Sender {
    /// `session` makes SSRCs, offsets and picture numbers differ.
    pub(crate) fn new(clip: Clip, keyframes: Keyframes, session: u32, now: Instant) -> Self {
        let stream = |kind: u32, payload_type| Stream {
            ssrc: session << 8 | kind,
            payload_type,
            sequence_number: 65_500,
            clock_offset: session.wrapping_mul(0x9e37_79b9),
            next: now,
            on: true,
        };
        Self {
            clip,
            keyframes,
            began: now,
            video: stream(1, 102),
            audio: stream(2, 111),
            audio_stood: Duration::ZERO,
            place_in_gop: 0,
            sounds: 0,
            next_number: u64::from(session) << 32,
            idr_wanted: false,
            requests: 0,
        }
    }

    fn stream(&mut self, kind: TrackKind) -> &mut Stream {
        match kind {
            TrackKind::Audio => &mut self.audio,
            TrackKind::Video => &mut self.video,
        }
    }

    /// A track stops without a packet (`replaceTrack(null)`), or goes on with its clock where time is.
    pub(crate) fn switch(&mut self, kind: TrackKind, on: bool, now: Instant) {
        let stream = self.stream(kind);
        if on && !stream.on {
            stream.next = now;
        }
        stream.on = on;
    }

    /// The audio clock did not count while the microphone was off.
    pub(crate) fn stand_still(&mut self, span: Duration) {
        self.audio_stood += span;
    }

    /// Another encoder: SSRC, sequence numbers and clock are new ones.
    pub(crate) fn change_ssrc(&mut self, kind: TrackKind) {
        let stream = self.stream(kind);
        stream.ssrc ^= 0x5500_0000;
        stream.sequence_number = stream.sequence_number.wrapping_add(20_000);
        stream.clock_offset ^= 0x7777_7777;
        self.idr_wanted |= kind == TrackKind::Video;
    }

    /// A track's clock jumps.
    pub(crate) fn jump(&mut self, kind: TrackKind, ticks: i32) {
        let stream = self.stream(kind);
        stream.clock_offset = stream.clock_offset.wrapping_add_signed(ticks);
    }

    pub(crate) fn change_payload_type(&mut self, kind: TrackKind) {
        self.stream(kind).payload_type += 1;
    }

    /// Another camera, or the same one turned.
    pub(crate) fn change_clip(&mut self, clip: Clip) {
        self.clip = clip;
        self.idr_wanted = true;
    }

    /// The encoder did not hear the requests so far.
    pub(crate) fn forget_requests(&mut self) {
        self.idr_wanted = false;
    }

    pub(crate) fn request_keyframe(&mut self) {
        self.requests += 1;
        self.idr_wanted = true;
    }

    /// What is sent by `now`.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Packet> {
        let mut packets = Vec::new();
        while self.audio.on && self.audio.next <= now {
            let sound = self.clip.sound[self.sounds % self.clip.sound.len()].clone();
            self.sounds += 1;
            let captured = self.audio.next.duration_since(self.began) - self.audio_stood;
            self.audio.next += AUDIO_INTERVAL;
            packets.push(packet(&mut self.audio, TrackKind::Audio, captured, 48_000, true, sound));
        }
        while self.video.on && self.video.next <= now {
            let captured = self.video.next.duration_since(self.began);
            self.video.next += self.clip.interval;
            let payloads = self.picture();
            let last = payloads.len() - 1;
            for (n, payload) in payloads.into_iter().enumerate() {
                packets.push(packet(&mut self.video, TrackKind::Video, captured, 90_000, n == last, payload));
            }
        }
        packets
    }

    /// The payloads of the next picture: SPS and PPS in a STAP-A, large NAL units in FU-As (RFC 6184 sections 5.7, 5.8).
    fn picture(&mut self) -> Vec<Vec<u8>> {
        if self.place_in_gop == self.clip.gop.len() {
            self.place_in_gop = usize::from(self.keyframes == Keyframes::OnRequest);
        }
        if std::mem::take(&mut self.idr_wanted) {
            self.place_in_gop = 0;
        }
        let mut payloads = Vec::new();
        if self.place_in_gop == 0 {
            let mut aggregate = vec![0x78];
            for set in &self.clip.parameter_sets {
                aggregate.extend(u16::try_from(set.len()).unwrap().to_be_bytes());
                aggregate.extend(set);
            }
            payloads.push(aggregate);
        }
        let mut units = self.clip.gop[self.place_in_gop].clone();
        self.place_in_gop += 1;
        units.last_mut().unwrap().extend(format!("{:0NUMBER_LEN$x}", self.next_number).bytes());
        self.next_number += 1;
        for unit in units {
            if unit.len() <= PAYLOAD_MAX {
                payloads.push(unit);
                continue;
            }
            let (header, rbsp) = unit.split_first().unwrap();
            let count = rbsp.len().div_ceil(PAYLOAD_MAX);
            payloads.extend(rbsp.chunks(PAYLOAD_MAX).enumerate().map(|(n, part)| {
                let flags = if n == 0 { 0x80 } else { 0 } | if n + 1 == count { 0x40 } else { 0 };
                [&[header & 0xe0 | 28, flags | header & 0x1f][..], part].concat()
            }));
        }
        payloads
    }
}

fn packet(
    stream: &mut Stream,
    kind: TrackKind,
    captured: Duration,
    clock_rate: u128,
    marker: bool,
    payload: Vec<u8>,
) -> Packet {
    let ticks = captured.as_micros() * clock_rate / 1_000_000;
    let ticks = u32::try_from(ticks & u128::from(u32::MAX)).unwrap();
    let sequence_number = stream.sequence_number;
    stream.sequence_number = sequence_number.wrapping_add(1);
    Packet {
        kind,
        payload_type: stream.payload_type,
        marker,
        sequence_number,
        rtp_time: ticks.wrapping_add(stream.clock_offset),
        ssrc: stream.ssrc,
        payload,
    }
}
