//! Bodies of audio and video messages: what they carry, or why MediaMTX would close the connection.
//!
//! Legacy AVC tags (FLV 10.1 E.4.3), enhanced RTMP v2 audio `Opus` and video `avc1`. MediaMTX takes more codecs;
//! this ingest is for H.264 + Opus and says so when another one comes.

use crate::session::End;
use crate::sps;

/// Largest number of NAL units and of bytes in an access unit.
const NAL_UNITS_MAX: usize = 50;
const ACCESS_UNIT_MAX: usize = 8 * 1024 * 1024;
/// `OpusHead` without a mapping table (RFC 7845 §5.1).
const OPUS_HEAD_MIN: usize = 19;

/// A video message that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Video {
    /// AVC sequence header; `legacy` as MediaMTX starts its clock on it then.
    Config {
        legacy: bool,
        size: Option<(u32, u32)>,
    },
    Frame {
        /// The tag says keyframe.
        key: bool,
        /// An IDR slice (NAL unit type 5) is in it.
        idr: bool,
    },
    EndOfSequence,
    Ignored,
}

/// An audio message that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audio {
    SequenceStart {
        channels: u8,
    },
    /// One Opus packet, its duration in 48 kHz samples.
    Frame {
        samples: u32,
    },
    Ignored,
}

/// `body` of a type 9 message.
pub(crate) fn video(body: &[u8]) -> Result<Video, End> {
    let Some((&first, rest)) = body.split_first() else {
        return Err(End::refused("not enough bytes"));
    };
    if first & 0x80 != 0 {
        return enhanced_video(first, rest);
    }
    // [frame type 4 | codec 4] [AVCPacketType] [composition time, SI24] data
    let Some(([packet_type, _, _, _], data)) = rest.split_first_chunk::<4>() else {
        return Err(End::refused("invalid body size"));
    };
    match first & 0x0F {
        7 => {}
        12 => {
            return Err(End::refused("H.265 is taken by MediaMTX, not by this ingest"));
        }
        codec => return Err(End::refused(format!("unsupported video codec: {codec}"))),
    }
    match packet_type {
        0 => config(data, true),
        1 if data.is_empty() => Err(End::refused("invalid body size")),
        1 => frame(first >> 4 == 1, data),
        2 => Ok(Video::EndOfSequence),
        other => Err(End::refused(format!("unsupported video message type: {other}"))),
    }
}

fn enhanced_video(first: u8, rest: &[u8]) -> Result<Video, End> {
    let packet_type = first & 0x0F;
    if packet_type > 6 || packet_type == 5 {
        return Err(End::refused(format!("unsupported video extended type: {packet_type}")));
    }
    let Some((four_cc, data)) = rest.split_first_chunk::<4>() else {
        return Err(End::refused("not enough bytes"));
    };
    if four_cc != b"avc1" {
        return Err(End::refused(format!("unsupported fourCC: {}", four_cc.escape_ascii())));
    }
    let key = (first >> 4) & 7 == 1;
    match packet_type {
        0 => config(data, false),
        1 => match data.split_first_chunk::<3>() {
            Some((_composition_time, data)) if !data.is_empty() => frame(key, data),
            _ => Err(End::refused("not enough bytes")),
        },
        3 if data.is_empty() => Err(End::refused("not enough bytes")),
        3 => frame(key, data),
        _ => Ok(Video::Ignored),
    }
}

/// AVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3.1).
fn config(avcc: &[u8], legacy: bool) -> Result<Video, End> {
    let broken = || End::refused("unable to parse H264 config: not enough bytes");
    let ([_version, _profile, _compatibility, _level, _length_size, sps_count], mut rest) =
        avcc.split_first_chunk::<6>().ok_or_else(broken)?;
    let mut first_sps = None;
    for _ in 0..sps_count & 0x1F {
        let (nal, tail) = sized_nal(rest).ok_or_else(broken)?;
        first_sps.get_or_insert(nal);
        rest = tail;
    }
    let (&pps_count, mut rest) = rest.split_first().ok_or_else(broken)?;
    for _ in 0..pps_count {
        (_, rest) = sized_nal(rest).ok_or_else(broken)?;
    }
    if !legacy && (sps_count & 0x1F != 1 || pps_count != 1) {
        return Err(End::refused("H264 parameters are missing"));
    }
    let sps = first_sps.ok_or_else(|| End::refused("no SPS found"))?;
    if pps_count == 0 {
        return Err(End::refused("no PPS found"));
    }
    Ok(Video::Config { legacy, size: sps::size(sps) })
}

fn sized_nal(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// An access unit with four byte NAL unit lengths.
fn frame(key: bool, mut avcc: &[u8]) -> Result<Video, End> {
    if avcc.len() > ACCESS_UNIT_MAX {
        let len = avcc.len();
        return Err(End::refused(format!("access unit size ({len}) exceeds maximum ({ACCESS_UNIT_MAX})")));
    }
    let mut nal_units = 0;
    let mut idr = false;
    while !avcc.is_empty() {
        let nal = avcc
            .split_first_chunk::<4>()
            .and_then(|(len, rest)| rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?));
        let Some((nal, rest)) = nal else {
            return Err(End::refused("unable to decode AVCC: invalid length"));
        };
        nal_units += 1;
        if nal_units > NAL_UNITS_MAX {
            return Err(End::refused(format!("NALU count exceeds maximum ({NAL_UNITS_MAX})")));
        }
        idr |= nal.first().is_some_and(|header| header & 0x1F == 5);
        avcc = rest;
    }
    Ok(Video::Frame { key, idr })
}

/// `body` of a type 8 message.
pub(crate) fn audio(body: &[u8]) -> Result<Audio, End> {
    let Some((&first, rest)) = body.split_first() else {
        return Err(End::refused("not enough bytes"));
    };
    match first >> 4 {
        9 => {}
        2 | 3 | 7 | 8 | 10 => {
            return Err(End::refused(
                "AAC, MP3, PCM are taken by MediaMTX, not by this ingest: send Opus (enhanced RTMP)",
            ));
        }
        codec => return Err(End::refused(format!("unsupported audio codec: {codec}"))),
    }
    let packet_type = first & 0x0F;
    if !matches!(packet_type, 0 | 1 | 2 | 4 | 5) {
        return Err(End::refused(format!("unsupported audio extended type: {packet_type}")));
    }
    let Some((four_cc, data)) = rest.split_first_chunk::<4>() else {
        return Err(End::refused("not enough bytes"));
    };
    if packet_type == 5 {
        return Err(End::refused("Multitrack is taken by MediaMTX, not by this ingest"));
    }
    if packet_type == 1 && data.is_empty() {
        return Err(End::refused("not enough bytes"));
    }
    if four_cc != b"Opus" {
        return Err(End::refused(format!("unsupported fourCC: {}", four_cc.escape_ascii())));
    }
    match packet_type {
        0 => opus_head(data),
        1 => Ok(Audio::Frame { samples: opus_samples(data) }),
        _ => Ok(Audio::Ignored),
    }
}

/// RFC 7845 §5.1: magic, version, channel count; the rest is not looked at.
fn opus_head(head: &[u8]) -> Result<Audio, End> {
    let refuse = |why: &str| End::refused(format!("invalid Opus ID header: {why}"));
    if head.len() < OPUS_HEAD_MIN {
        return Err(refuse("not enough bytes"));
    }
    match head.strip_prefix(b"OpusHead") {
        Some([1, channels, ..]) => Ok(Audio::SequenceStart { channels: *channels }),
        Some([version, ..]) => Err(refuse(&format!("version {version}"))),
        _ => Err(refuse("magic signature not corresponding")),
    }
}

/// Duration of an Opus packet in 48 kHz samples, from its TOC byte (RFC 6716 §3.1).
fn opus_samples(packet: &[u8]) -> u32 {
    let Some(&toc) = packet.first() else { return 0 };
    let frame = match toc >> 3 {
        config @ 0..=11 => [480, 960, 1920, 2880][usize::from(config % 4)],
        config @ 12..=15 => [480, 960][usize::from(config % 2)],
        config => [120, 240, 480, 960][usize::from(config % 4)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1).map_or(0, |count| count & 0x3F)),
    };
    frame * frames
}
