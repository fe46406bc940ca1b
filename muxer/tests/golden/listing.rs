//! FLV file bytes -> one readable line per tag, read by `scuffle-flv`, which shares no code with the muxer.
//!
//! The tag walk (FLV 10.1 Annex E.3) is repeated here for what that reader skips: `PreviousTagSize` is checked, and
//! NAL units are listed by their 4-byte lengths. Any input is accepted; what cannot be read becomes an error line.

use std::fmt::{self, Write};
use std::io::Cursor;

use bytes::Bytes;
use scuffle_flv::audio::AudioData;
use scuffle_flv::audio::body::AudioTagBody;
use scuffle_flv::audio::body::enhanced::{AudioPacket, ExAudioTagBody};
use scuffle_flv::audio::header::enhanced::AudioFourCc;
use scuffle_flv::header::FlvHeader;
use scuffle_flv::script::ScriptData;
use scuffle_flv::tag::{FlvTag, FlvTagData};
use scuffle_flv::video::VideoData;
use scuffle_flv::video::body::VideoTagBody;
use scuffle_flv::video::body::legacy::LegacyVideoTagBody;
use scuffle_flv::video::header::legacy::{LegacyVideoTagHeader, LegacyVideoTagHeaderAvcPacket};
use scuffle_flv::video::header::{VideoFrameType, VideoTagHeaderData};
use scuffle_h264::Sps;

const TAG_HEADER_BYTES: usize = 11;
const PREVIOUS_TAG_SIZE_BYTES: usize = 4;

/// Where a tag lies in the file, and how it reads.
pub(crate) struct ListedTag {
    pub(crate) offset: usize,
    pub(crate) len: usize,
    pub(crate) line: String,
}

/// The whole file, ended by a newline. Stops behind the first tag that cannot be read.
pub(crate) fn listing(flv: &[u8]) -> String {
    let mut text = String::new();
    for tag in listed_tags(flv) {
        text.push_str(&tag.line);
        text.push('\n');
    }
    text
}

/// The file header as the first entry, then the tags; an unreadable rest is the last entry.
pub(crate) fn listed_tags(flv: &[u8]) -> Vec<ListedTag> {
    let mut reader = Cursor::new(Bytes::copy_from_slice(flv));
    let mut tags = Vec::new();
    let error = |offset: usize, what: &dyn fmt::Display| ListedTag {
        offset,
        len: flv.len() - offset,
        line: format!("ERROR at byte {offset}: {what}"),
    };

    match FlvHeader::demux(&mut reader) {
        Ok(header) => tags.push(ListedTag {
            offset: 0,
            len: position(&reader) + PREVIOUS_TAG_SIZE_BYTES,
            line: format!(
                "FLV version {} audio {} video {}",
                header.version, header.is_audio_present, header.is_video_present
            ),
        }),
        Err(unreadable) => return vec![error(0, &unreadable)],
    }

    let mut expected_previous = 0;
    // bounded: by the bytes of the file
    loop {
        let offset = position(&reader);
        let Some(previous) = flv.get(offset..offset + PREVIOUS_TAG_SIZE_BYTES) else {
            tags.push(error(offset, &"PreviousTagSize is cut"));
            return tags;
        };
        let previous = be_number(previous);
        if previous != expected_previous {
            tags.push(error(offset, &format!("PreviousTagSize is {previous}, the tag has {expected_previous}")));
            return tags;
        }
        let start = offset + PREVIOUS_TAG_SIZE_BYTES;
        if start == flv.len() {
            return tags;
        }
        reader.set_position(start.try_into().expect("a file offset fits 64 bits"));
        let tag = match FlvTag::demux(&mut reader) {
            Ok(tag) => tag,
            Err(unreadable) => {
                tags.push(error(start, &unreadable));
                return tags;
            }
        };
        expected_previous = position(&reader) - start;
        let number = tags.len();
        let body_len = expected_previous - TAG_HEADER_BYTES;
        let (kind, content) = match &tag.data {
            FlvTagData::Audio(audio) => ("audio", describe_audio(audio)),
            FlvTagData::Video(video) => ("video", describe_video(video)),
            FlvTagData::ScriptData(script) => ("script", describe_script(script)),
            other => ("other", format!("{other:?}")),
        };
        let stream = if tag.stream_id == 0 { String::new() } else { format!(" STREAM ID {}", tag.stream_id) };
        tags.push(ListedTag {
            offset: start,
            len: expected_previous + PREVIOUS_TAG_SIZE_BYTES,
            line: format!("{number:4} {kind:6} {:8} ms {body_len:5} B  {content}{stream}", tag.timestamp_ms),
        });
    }
}

fn position(reader: &Cursor<Bytes>) -> usize {
    reader.position().try_into().expect("a position inside a buffer fits usize")
}

fn be_number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |value, byte| value << 8 | usize::from(*byte))
}

fn describe_audio(audio: &AudioData) -> String {
    let AudioTagBody::Enhanced(ExAudioTagBody::NoMultitrack { audio_four_cc, packet }) = &audio.body else {
        return format!("{audio:?}");
    };
    let four_cc = if *audio_four_cc == AudioFourCc::Opus { "Opus".into() } else { format!("{audio_four_cc:?}") };
    match packet {
        AudioPacket::SequenceStart { header_data } => {
            format!("{four_cc} sequence start {}", hex(header_data))
        }
        AudioPacket::CodedFrames { data } => match data.first() {
            Some(toc) => format!("{four_cc} toc {toc:02x} fnv {:016x}", fnv1a(data)),
            None => format!("{four_cc} EMPTY"),
        },
        other => format!("{four_cc} {other:?}"),
    }
}

fn describe_video(video: &VideoData<'_>) -> String {
    let VideoTagHeaderData::Legacy(LegacyVideoTagHeader::AvcPacket(packet)) = &video.header.data else {
        return format!("{video:?}");
    };
    let frame = match video.header.frame_type {
        VideoFrameType::KeyFrame => "key",
        VideoFrameType::InterFrame => "inter",
        _ => return format!("{video:?}"),
    };
    match (packet, &video.body) {
        (
            LegacyVideoTagHeaderAvcPacket::SequenceHeader,
            VideoTagBody::Legacy(LegacyVideoTagBody::AvcVideoPacketSeqHdr(config)),
        ) => {
            let mut text = format!(
                "AVC sequence header profile {} compat {:02x} level {} length size {}",
                config.profile_indication,
                config.profile_compatibility,
                config.level_indication,
                config.length_size_minus_one + 1
            );
            for sps in &config.sps {
                let size = match Sps::parse_with_emulation_prevention(Cursor::new(sps.clone())) {
                    Ok(parsed) => format!("{}x{}", parsed.width(), parsed.height()),
                    Err(unreadable) => unreadable.to_string(),
                };
                let _ = write!(text, " SPS {} ({size})", hex(sps));
            }
            for pps in &config.pps {
                let _ = write!(text, " PPS {}", hex(pps));
            }
            if let Some(extension) = &config.extended_config {
                let _ = write!(
                    text,
                    " chroma {} depth {} {}",
                    extension.chroma_format_idc,
                    extension.bit_depth_luma_minus8 + 8,
                    extension.bit_depth_chroma_minus8 + 8
                );
            }
            text
        }
        (
            LegacyVideoTagHeaderAvcPacket::Nalu { composition_time_offset },
            VideoTagBody::Legacy(LegacyVideoTagBody::Other { data }),
        ) => format!("{frame} cts {composition_time_offset}{} fnv {:016x}", nal_units(data), fnv1a(data)),
        (LegacyVideoTagHeaderAvcPacket::EndOfSequence, _) => "AVC end of sequence".into(),
        _ => format!("{video:?}"),
    }
}

/// The NAL units of one access unit (ISO/IEC 14496-15 §5.3.3: 4-byte length, NAL unit), as `type:bytes`.
fn nal_units(access_unit: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = access_unit;
    while !rest.is_empty() {
        let Some((len, after)) = rest.split_at_checked(4) else {
            return text + " CUT";
        };
        let Some((nal, after)) = after.split_at_checked(be_number(len)) else {
            return text + " CUT";
        };
        let name = match nal.first().map(|octet| octet & 0x1f) {
            Some(1) => "slice".into(),
            Some(5) => "IDR".into(),
            Some(6) => "SEI".into(),
            Some(7) => "SPS".into(),
            Some(8) => "PPS".into(),
            Some(9) => "AUD".into(),
            Some(other) => format!("nal{other}"),
            None => "EMPTY".into(),
        };
        let _ = write!(text, " {name}:{}", nal.len());
        rest = after;
    }
    text
}

fn describe_script(script: &ScriptData<'_>) -> String {
    let ScriptData::OnMetaData(metadata) = script else {
        return format!("{script:?}");
    };
    let mut entries = vec![
        ("audiocodecid", metadata.audiocodecid.as_ref().map(|value| format!("{value:?}"))),
        ("audiodatarate", metadata.audiodatarate.map(|value| value.to_string())),
        ("audiosamplerate", metadata.audiosamplerate.map(|value| value.to_string())),
        ("audiosamplesize", metadata.audiosamplesize.map(|value| value.to_string())),
        ("duration", metadata.duration.map(|value| value.to_string())),
        ("filesize", metadata.filesize.map(|value| value.to_string())),
        ("framerate", metadata.framerate.map(|value| value.to_string())),
        ("height", metadata.height.map(|value| value.to_string())),
        ("stereo", metadata.stereo.map(|value| value.to_string())),
        ("videocodecid", metadata.videocodecid.as_ref().map(|value| format!("{value:?}"))),
        ("videodatarate", metadata.videodatarate.map(|value| value.to_string())),
        ("width", metadata.width.map(|value| value.to_string())),
    ];
    let mut other: Vec<_> =
        metadata.other.iter().map(|(key, value)| (key.as_str(), Some(format!("{value:?}")))).collect();
    entries.append(&mut other);
    entries.sort();
    let mut text = String::from("onMetaData");
    for (key, value) in entries {
        if let Some(value) = value {
            let _ = write!(text, " {key}={value}");
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// FNV-1a, 64 bits: tells payloads apart in a line, nothing more.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
