//! The muxer as a black box: a recording of RTP in, an FLV file out.
//!
//! ```text
//! rtp2flv --sdp in.sdp [--start-ms N] [--slate-seconds N] [--stats] in.rtpdump out.flv
//! ```
//!
//! The recording is an rtptools dump (`rtpdump -F dump`, version 1.0); payload types, RTX (`apt`) and
//! `sprop-parameter-sets` come from the SDP. Time is what the recording says, so the output is the same on each run.
//! `--slate-seconds` puts so many seconds of a slot in which nobody is in front of the recording, and behind it.
//! `--stats` prints the counters on the standard error output. Exit code 0, or 2 with one line that says what is wrong with the input.
//!
//! ```text
//! file    "#!rtpplay1.0 address/port\n" | start sec u32, usec u32, source u32, port u16, padding u16 | record*
//! record  length u16 (with these 8 bytes), packet length u16 (0: RTCP), offset in ms u32, packet
//! ```

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use guest_relay_muxer::bytes::{Reader, Truncated};
use guest_relay_muxer::{
    AudioConfig, Config, Frame, MediaTime, Muxer, Output, RtpPacket, SenderReport, Still, TagKind, TrackKind,
    VideoConfig, flv,
};

/// What is wrong, in one line.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn failure(text: impl Into<String>) -> Failure {
    Failure(text.into())
}

const USAGE: &str = "usage: rtp2flv --sdp in.sdp [--start-ms N] [--slate-seconds N] [--stats] in.rtpdump out.flv";

fn main() -> ExitCode {
    match run(std::env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("rtp2flv: {failure}");
            ExitCode::from(2)
        }
    }
}

/// What the command line asks for, without the name of the program.
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let arguments = Arguments::parse(arguments.into_iter())?;
    let sdp = read(&arguments.sdp)?;
    let sdp = Sdp::parse(&String::from_utf8_lossy(&sdp))
        .map_err(|Failure(text)| failure(format!("{}: {text}", arguments.sdp.display())))?;
    let dump = read(&arguments.rtpdump)?;
    let flv = convert(&sdp, &dump, &arguments)
        .map_err(|Failure(text)| failure(format!("{}: {text}", arguments.rtpdump.display())))?;
    std::fs::write(&arguments.flv, flv).map_err(|error| failure(format!("{}: {error}", arguments.flv.display())))
}

fn read(path: &PathBuf) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| failure(format!("{}: {error}", path.display())))
}

struct Arguments {
    sdp: PathBuf,
    rtpdump: PathBuf,
    flv: PathBuf,
    start: MediaTime,
    slate_seconds: i64,
    stats: bool,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, Failure> {
        let mut sdp = None;
        let mut start = MediaTime::ZERO;
        let mut slate_seconds = 0;
        let mut stats = false;
        let mut files = Vec::new();
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--sdp") => sdp = arguments.next().map(PathBuf::from),
                Some("--start-ms") => {
                    let value = arguments.next().and_then(|value| value.to_str().and_then(|text| text.parse().ok()));
                    // An FLV timestamp has 32 bits.
                    let millis = value.filter(|millis| (0..1 << 32).contains(millis));
                    start = MediaTime::from_millis(millis.ok_or_else(|| failure("--start-ms takes 0..4294967295"))?);
                }
                Some("--slate-seconds") => {
                    let value = arguments.next().and_then(|value| value.to_str().and_then(|text| text.parse().ok()));
                    slate_seconds = value
                        .filter(|seconds| (0..=3600).contains(seconds))
                        .ok_or_else(|| failure("--slate-seconds takes 0..3600"))?;
                }
                Some("--stats") => stats = true,
                Some(option) if option.starts_with("--") => {
                    return Err(failure(format!("{option}? {USAGE}")));
                }
                _ => files.push(PathBuf::from(argument)),
            }
        }
        let (Some(sdp), Ok([rtpdump, flv])) = (sdp, <[PathBuf; 2]>::try_from(files)) else {
            return Err(failure(USAGE));
        };
        Ok(Self { sdp, rtpdump, flv, start, slate_seconds, stats })
    }
}

/// What the SDP says about a payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payload {
    Media(TrackKind),
    Rtx { kind: TrackKind, apt: u8 },
}

#[derive(Debug, Default)]
struct Sdp {
    payloads: Vec<(u8, Payload)>,
    parameter_sets: Vec<Vec<u8>>,
}

impl Sdp {
    fn parse(text: &str) -> Result<Self, Failure> {
        let mut sdp = Sdp::default();
        let mut kind = None;
        let mut rtx = Vec::new();
        for line in text.lines().map(str::trim_end) {
            if let Some(media) = line.strip_prefix("m=") {
                kind = match media.split_whitespace().next() {
                    Some("video") => Some(TrackKind::Video),
                    Some("audio") => Some(TrackKind::Audio),
                    _ => None,
                };
            } else if let (Some(kind), Some(rtpmap)) = (kind, line.strip_prefix("a=rtpmap:")) {
                let (payload_type, encoding) = numbered(rtpmap, line)?;
                let mut parts = encoding.split('/');
                let name = parts.next().unwrap_or_default().to_ascii_lowercase();
                let clock_rate = parts.next().unwrap_or_default();
                match (name.as_str(), kind, clock_rate) {
                    ("h264", TrackKind::Video, "90000") | ("opus", TrackKind::Audio, "48000") => {
                        sdp.payloads.push((payload_type, Payload::Media(kind)));
                    }
                    ("h264", ..) | ("opus", ..) => {
                        return Err(failure(format!("\"{line}\": H264/90000 video or opus/48000 audio expected")));
                    }
                    ("rtx", ..) => rtx.push((payload_type, kind)),
                    _ => {}
                }
            } else if let (Some(_), Some(fmtp)) = (kind, line.strip_prefix("a=fmtp:")) {
                let (payload_type, parameters) = numbered(fmtp, line)?;
                for parameter in parameters.split(';') {
                    match parameter.trim().split_once('=') {
                        Some(("apt", apt)) => {
                            let kind = rtx.iter().find(|(rtx, _)| *rtx == payload_type).map(|(_, kind)| *kind);
                            if let (Some(kind), Ok(apt)) = (kind, apt.parse()) {
                                sdp.payloads.push((payload_type, Payload::Rtx { kind, apt }));
                            }
                        }
                        Some(("sprop-parameter-sets", sets)) => {
                            for set in sets.split(',').filter(|set| !set.is_empty()) {
                                let nal = base64(set).ok_or_else(|| failure(format!("\"{line}\": not base64")))?;
                                sdp.parameter_sets.push(nal);
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        if !sdp.has(TrackKind::Video) && !sdp.has(TrackKind::Audio) {
            return Err(failure("no H264 video and no opus audio"));
        }
        Ok(sdp)
    }

    fn has(&self, kind: TrackKind) -> bool {
        self.payloads.iter().any(|(_, payload)| *payload == Payload::Media(kind))
    }

    fn payload(&self, payload_type: u8) -> Option<Payload> {
        self.payloads.iter().find(|(known, _)| *known == payload_type).map(|(_, payload)| *payload)
    }
}

/// `96 rest`: a payload type and what is said of it.
fn numbered<'a>(value: &'a str, line: &str) -> Result<(u8, &'a str), Failure> {
    let (number, rest) = value.split_once(' ').unwrap_or((value, ""));
    let payload_type = number.parse().ok().filter(|payload_type| *payload_type < 128);
    Ok((payload_type.ok_or_else(|| failure(format!("\"{line}\": payload type 0..127 expected")))?, rest.trim()))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for symbol in text.trim_end_matches('=').bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 & 0xffff | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            let [.., byte] = (bits >> count).to_be_bytes();
            bytes.push(byte);
        }
    }
    Some(bytes)
}

struct Record<'a> {
    is_rtcp: bool,
    offset: MediaTime,
    packet: &'a [u8],
}

fn convert(sdp: &Sdp, dump: &[u8], arguments: &Arguments) -> Result<Vec<u8>, Failure> {
    let muxer = Muxer::new(Config {
        video: sdp
            .has(TrackKind::Video)
            .then(|| VideoConfig { parameter_sets: sdp.parameter_sets.clone(), ..VideoConfig::default() }),
        audio: sdp.has(TrackKind::Audio).then(AudioConfig::default),
        start: arguments.start,
        ..Config::default()
    });
    let mut conversion = Conversion {
        sdp,
        muxer,
        ssrcs: VecDeque::new(),
        body: Vec::new(),
        tags: Vec::new(),
        has_audio: false,
        has_video: false,
    };
    conversion.show_slate(MediaTime::ZERO, arguments.slate_seconds);
    let mut end = MediaTime::from_millis(1000 * arguments.slate_seconds);
    let begin = end;
    let mut reader = file_header(dump)?;
    let mut number = 0;
    while !reader.is_empty() {
        number += 1;
        let record = record(&mut reader).map_err(|Failure(text)| failure(format!("record {number}: {text}")))?;
        let record = Record { offset: begin + record.offset, ..record };
        end = record.offset;
        conversion.handle(&record);
    }
    conversion.muxer.flush();
    conversion.collect();
    conversion.show_slate(end, arguments.slate_seconds);
    if arguments.stats {
        eprintln!("{:#?}", conversion.muxer.stats());
    }
    if conversion.tags.is_empty() {
        return Err(failure(format!("{number} records, but no picture and no sound to write")));
    }
    let mut flv = Vec::with_capacity(conversion.tags.len() + 13);
    flv::write_header(&mut flv, conversion.has_audio, conversion.has_video);
    flv.append(&mut conversion.tags);
    Ok(flv)
}

fn file_header(dump: &[u8]) -> Result<Reader<'_>, Failure> {
    let line_end = dump.iter().take(256).position(|byte| *byte == b'\n');
    let mut reader = Reader::new(dump);
    let line = line_end.and_then(|end| reader.take(end + 1).ok()).unwrap_or_default();
    if !line.starts_with(b"#!rtpplay1.0 ") {
        return Err(failure("not an rtptools dump (#!rtpplay1.0)"));
    }
    reader.take(16).map_err(|truncated| failure(format!("file header {truncated}")))?;
    Ok(reader)
}

fn record<'a>(reader: &mut Reader<'a>) -> Result<Record<'a>, Failure> {
    let truncated = |truncated: Truncated| failure(truncated.to_string());
    let length = reader.u16().map_err(truncated)?;
    let packet_length = reader.u16().map_err(truncated)?;
    let offset = reader.u32().map_err(truncated)?;
    let length = length.checked_sub(8).ok_or_else(|| failure(format!("length {length} is below 8")))?;
    let packet = reader.take(usize::from(length)).map_err(truncated)?;
    if packet_length > length {
        return Err(failure(format!("holds {length} of {packet_length} bytes (payload was not recorded)")));
    }
    // Some writers put RTCP down like RTP.
    let is_rtcp = packet_length == 0 || packet.get(1).is_some_and(|second| (192..=223).contains(second));
    Ok(Record { is_rtcp, offset: MediaTime::from_millis(i64::from(offset)), packet })
}

/// SSRCs remembered.
const MAX_SSRCS: usize = 16;

struct Conversion<'a> {
    sdp: &'a Sdp,
    muxer: Muxer,
    /// Which track each SSRC belongs to, the one heard last at the end.
    ssrcs: VecDeque<(u32, TrackKind)>,
    body: Vec<u8>,
    tags: Vec<u8>,
    has_audio: bool,
    has_video: bool,
}

impl Conversion<'_> {
    fn handle(&mut self, record: &Record<'_>) {
        while let Some(timeout) = self.muxer.poll_timeout().filter(|timeout| *timeout <= record.offset) {
            self.muxer.handle_timeout(timeout);
            self.collect();
        }
        if record.is_rtcp {
            self.handle_rtcp(record);
        } else {
            self.handle_rtp(record);
        }
        self.collect();
    }

    fn handle_rtp(&mut self, record: &Record<'_>) {
        let Ok(packet) = RtpPacket::parse(record.packet) else {
            return;
        };
        match self.sdp.payload(packet.payload_type) {
            Some(Payload::Media(kind)) => {
                self.ssrcs.retain(|(ssrc, _)| *ssrc != packet.ssrc);
                self.ssrcs.push_back((packet.ssrc, kind));
                if self.ssrcs.len() > MAX_SSRCS {
                    self.ssrcs.pop_front();
                }
                self.muxer.handle_rtp(kind, &packet, record.offset);
            }
            Some(Payload::Rtx { kind, apt }) => {
                let newest = self.ssrcs.iter().rev().find(|(_, known)| *known == kind);
                if let Some(original) = newest.and_then(|(ssrc, _)| packet.undo_rtx(apt, *ssrc)) {
                    self.muxer.handle_rtp(kind, &original, record.offset);
                }
            }
            None => {}
        }
    }

    fn handle_rtcp(&mut self, record: &Record<'_>) {
        let mut compound = Reader::new(record.packet);
        while !compound.is_empty() {
            let Ok(report) = sender_report(&mut compound) else {
                return;
            };
            let Some((ssrc, report)) = report else {
                continue;
            };
            if let Some((_, kind)) = self.ssrcs.iter().find(|(known, _)| *known == ssrc) {
                self.muxer.handle_sender_report(*kind, report, record.offset);
            }
        }
    }

    /// So many seconds, from `from` on, in which nobody is there.
    fn show_slate(&mut self, from: MediaTime, seconds: i64) {
        if seconds > 0 {
            self.muxer.begin(from);
            self.muxer.replace_source();
        }
        for second in 0..seconds {
            let now = from + MediaTime::from_millis(1000 * second);
            let at = self.muxer.timeline_at(now).expect("it has begun");
            self.muxer.show_still(&Still::black(), at);
            self.muxer.fill_silence(at);
            self.collect();
        }
    }

    fn collect(&mut self) {
        while let Some(output) = self.muxer.poll_output(&mut self.body) {
            if let Output::Tag(tag) = output {
                self.has_audio |= tag.frame == Frame::Audio;
                self.has_video |= tag.kind == TagKind::Video;
                flv::write_tag(&mut self.tags, tag.kind, tag.dts, &self.body);
            }
            self.body.clear();
        }
    }
}

/// Reads the next packet of a compound: sender SSRC and times, if it is a sender report (RFC 3550 §6.4.1).
fn sender_report(compound: &mut Reader<'_>) -> Result<Option<(u32, SenderReport)>, Truncated> {
    const SENDER_REPORT: u8 = 200;
    let [_, packet_type] = compound.take_array()?;
    let words = usize::from(compound.u16()?);
    let mut body = compound.sub(words * 4)?;
    if packet_type != SENDER_REPORT {
        return Ok(None);
    }
    let ssrc = body.u32()?;
    let ntp_time = body.u64()?;
    let rtp_time = body.u32()?;
    Ok(Some((ssrc, SenderReport { ntp_time, rtp_time })))
}
