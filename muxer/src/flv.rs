//! FLV: the file around the tags ("Adobe Flash Video File Format Specification" 10.1, annex E) and the bodies of
//! the tags themselves. The bodies are also the payloads of RTMP messages of type 8, 9 and 18.
//!
//! ```text
//! file    "FLV" 01 flags(4 audio, 1 video) 00000009 00000000 | (tag, u32 size of that tag)*
//! tag     kind(8, 9, 18) u24 body size, u24 time in ms, u8 time bits 24..32, u24 0, body
//! video   17 00 000000 avcC        17|27 01 cts(SI24) (u32 length, NAL unit)*
//! audio   90 "Opus" OpusHead       91 "Opus" one Opus packet              (enhanced RTMP v2)
//! ```
//! Video stays with the legacy CodecID 7 form: servers follow a parameter set change mid-stream only there.

use crate::amf0;
use crate::bytes::Writer;
use crate::time::MediaTime;

/// The type of an FLV tag, equal to the RTMP message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TagKind {
    /// 8.
    Audio,
    /// 9.
    Video,
    /// 18.
    Script,
}

impl TagKind {
    /// The tag type, which is also the RTMP message type.
    pub const fn id(self) -> u8 {
        match self {
            TagKind::Audio => 8,
            TagKind::Video => 9,
            TagKind::Script => 18,
        }
    }
}

/// Bytes of a tag before its body.
pub const TAG_HEADER_LEN: u32 = 11;

/// Opus as a FourCC.
pub const FOURCC_OPUS: u32 = 0x4f70_7573;
/// CodecID of AVC in legacy video tags.
pub const CODEC_ID_AVC: u8 = 7;

/// The file header and the first PreviousTagSize.
pub fn write_header(out: &mut Vec<u8>, has_audio: bool, has_video: bool) {
    let mut writer = Writer::new(out);
    writer.bytes(b"FLV");
    writer.u8(1);
    writer.u8(u8::from(has_audio) << 2 | u8::from(has_video));
    writer.u32(9);
    writer.u32(0);
}

/// One tag with the PreviousTagSize behind it. `dts` is rounded down to a millisecond and wraps at 2^32 ms.
///
/// # Panics
/// When the body does not fit the 24-bit size; the muxer's access units end far below.
pub fn write_tag(out: &mut Vec<u8>, kind: TagKind, dts: MediaTime, body: &[u8]) {
    let size = u32::try_from(body.len()).ok().filter(|size| *size < 1 << 24).expect("a tag body is below 16 MiB");
    let [_, _, _, _, high, a, b, c] = dts.millis().to_be_bytes();
    let mut writer = Writer::new(out);
    writer.u8(kind.id());
    writer.u24(size);
    writer.bytes(&[a, b, c, high]);
    writer.u24(0);
    writer.bytes(body);
    writer.u32(TAG_HEADER_LEN + size);
}

/// Bytes in front of avcC or of the NAL units in a video tag's body.
pub const VIDEO_HEADER_LEN: usize = 5;

/// What a video tag's body starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoHeader {
    /// AVCPacketType 0: avcC follows.
    SequenceHeader,
    /// AVCPacketType 1: NAL units follow, each behind its 32-bit length.
    Picture {
        /// FrameType 1 (an IDR picture) instead of 2.
        key: bool,
        /// pts - dts in milliseconds.
        composition_time_ms: i32,
    },
}

impl VideoHeader {
    /// The bytes.
    pub fn to_bytes(self) -> [u8; VIDEO_HEADER_LEN] {
        let (frame_type, packet_type, composition_time_ms) = match self {
            VideoHeader::SequenceHeader => (1, 0, 0),
            VideoHeader::Picture { key: true, composition_time_ms } => (1, 1, composition_time_ms),
            VideoHeader::Picture { key: false, composition_time_ms } => (2, 1, composition_time_ms),
        };
        let [_, a, b, c] = composition_time_ms.to_be_bytes();
        [frame_type << 4 | CODEC_ID_AVC, packet_type, a, b, c]
    }
}

/// Pre-skip every Opus encoder in a browser uses: 6.5 ms of look-ahead at 48 kHz (RFC 7845 §5.1).
const OPUS_PRE_SKIP: u16 = 312;
const OPUS_SAMPLE_RATE: u32 = 48_000;

/// The body of the Opus SequenceStart tag: an RFC 7845 ID header of mapping family 0, little-endian as there.
pub fn write_opus_sequence_header(out: &mut Vec<u8>, channels: u8) {
    let mut writer = Writer::new(out);
    writer.u8(0x90);
    writer.u32(FOURCC_OPUS);
    writer.bytes(b"OpusHead");
    writer.u8(1);
    writer.u8(channels);
    writer.u16_le(OPUS_PRE_SKIP);
    writer.u32_le(OPUS_SAMPLE_RATE);
    writer.u16_le(0);
    writer.u8(0);
}

/// The body of an Opus CodedFrames tag: one Opus packet as RTP carried it.
pub fn write_opus_frames(out: &mut Vec<u8>, packet: &[u8]) {
    let mut writer = Writer::new(out);
    writer.u8(0x91);
    writer.u32(FOURCC_OPUS);
    writer.bytes(packet);
}

/// What `onMetaData` says. Fields that are `None` are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata<'a> {
    /// Width and height in pixels after cropping; `None` without video.
    pub video_size: Option<(u32, u32)>,
    /// Channels of the Opus track; `None` without audio.
    pub audio_channels: Option<u8>,
    /// Who made the stream.
    pub encoder: &'a str,
}

/// The body of an `onMetaData` script tag. RTMP puts the string `@setDataFrame` in front.
pub fn write_metadata(out: &mut Vec<u8>, metadata: &Metadata<'_>) {
    let properties = 1 + metadata.video_size.map_or(0, |_| 3) + metadata.audio_channels.map_or(0, |_| 4);
    let mut writer = amf0::Writer::new(out);
    writer.string("onMetaData").ecma_array(properties);
    if let Some((width, height)) = metadata.video_size {
        writer.key("width").number(f64::from(width));
        writer.key("height").number(f64::from(height));
        writer.key("videocodecid").number(f64::from(CODEC_ID_AVC));
    }
    if let Some(channels) = metadata.audio_channels {
        writer.key("audiocodecid").number(f64::from(FOURCC_OPUS));
        writer.key("audiosamplerate").number(f64::from(OPUS_SAMPLE_RATE));
        writer.key("audiosamplesize").number(16.0);
        writer.key("stereo").boolean(channels == 2);
    }
    writer.key("encoder").string(metadata.encoder).end();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::amf0::Value;
    use crate::bytes::Reader;

    #[test]
    fn the_file_header_names_the_tracks() {
        for (audio, video, flags) in [(true, true, 5), (true, false, 4), (false, true, 1)] {
            let mut out = Vec::new();
            write_header(&mut out, audio, video);
            assert_eq!(out, [b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0]);
        }
    }

    #[test]
    fn a_tag_carries_its_time_in_24_bits_and_an_extension_byte_and_its_size_behind() {
        let mut out = Vec::new();
        write_tag(&mut out, TagKind::Video, MediaTime::from_millis(0x0123_4567), &[0xaa, 0xbb]);
        assert_eq!(out, [9, 0, 0, 2, 0x23, 0x45, 0x67, 0x01, 0, 0, 0, 0xaa, 0xbb, 0, 0, 0, 13]);
    }

    #[test]
    fn time_wraps_after_32_bits_of_milliseconds() {
        let mut out = Vec::new();
        write_tag(&mut out, TagKind::Audio, MediaTime::from_millis((1 << 32) + 5), &[]);
        assert_eq!(out, [8, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 11]);
    }

    #[test]
    fn video_headers_are_the_legacy_avc_ones() {
        assert_eq!(VideoHeader::SequenceHeader.to_bytes(), [0x17, 0, 0, 0, 0]);
        assert_eq!(VideoHeader::Picture { key: true, composition_time_ms: 0 }.to_bytes(), [0x17, 1, 0, 0, 0]);
        assert_eq!(VideoHeader::Picture { key: false, composition_time_ms: 80 }.to_bytes(), [0x27, 1, 0, 0, 80]);
        assert_eq!(VideoHeader::Picture { key: false, composition_time_ms: -1 }.to_bytes(), [0x27, 1, 255, 255, 255]);
    }

    #[test]
    fn opus_tags_are_the_bytes_other_enhanced_rtmp_writers_send() {
        // What FFmpeg 8 writes for stereo Opus.
        let mut out = Vec::new();
        write_opus_sequence_header(&mut out, 2);
        assert_eq!(out, b"\x90OpusOpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00");
        out.clear();
        write_opus_frames(&mut out, &[0xf8, 0xff, 0xfe]);
        assert_eq!(out, b"\x91Opus\xf8\xff\xfe");
    }

    #[test]
    fn metadata_names_size_and_codecs_and_counts_its_properties() {
        for (video_size, audio_channels) in [(Some((1280, 720)), Some(2)), (None, Some(1)), (Some((320, 180)), None)] {
            let mut out = Vec::new();
            write_metadata(&mut out, &Metadata { video_size, audio_channels, encoder: "test" });
            let mut reader = Reader::new(&out);
            assert_eq!(Value::parse(&mut reader).unwrap(), Value::String("onMetaData".into()));
            let mut count = reader;
            count.u8().unwrap();
            let count = usize::try_from(count.u32().unwrap()).unwrap();
            let value = Value::parse(&mut reader).unwrap();
            assert!(reader.is_empty());
            let Value::Object(properties) = &value else { panic!("an ECMA array") };
            assert_eq!(properties.len(), count);
            assert_eq!(value.property("width"), video_size.map(|(w, _)| Value::Number(f64::from(w))).as_ref());
            assert_eq!(value.property("videocodecid"), video_size.map(|_| Value::Number(7.0)).as_ref());
            let codec = audio_channels.map(|_| Value::Number(1_332_770_163.0));
            assert_eq!(value.property("audiocodecid"), codec.as_ref());
            assert_eq!(value.property("stereo"), audio_channels.map(|c| Value::Boolean(c == 2)).as_ref());
        }
    }
}
