//! Codecs and payload types: what the service keeps of an offer, and what it offers to those who pull.

use loadgen::rng::Rng;
use str0m::format::{Codec, CodecConfig, FormatParams};
use str0m::media::Frequency;

use crate::sdp::Kind;

/// The level-asymmetric High-level label that pull offers carry for H.264, whatever the publisher sends.
const PULL_H264: &str = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e034";
const OPUS: &str = "minptime=10;useinbandfec=1";

/// A payload type with what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) codec: Codec,
    pub(crate) payload_type: u8,
    pub(crate) rtx: Option<u8>,
    fmtp: String,
}

impl Format {
    /// `None` for what the service does not carry: RED, G.722, telephone-event, other H.264 profiles and modes.
    pub(crate) fn from_sdp(payload_type: u8, rtx: Option<u8>, map: &str, fmtp: &str) -> Option<Format> {
        let name = map.split('/').next().unwrap_or_default();
        let codec = match name.to_ascii_lowercase().as_str() {
            "opus" => Codec::Opus,
            "pcmu" => Codec::PCMU,
            "pcma" => Codec::PCMA,
            "h264" => Codec::H264,
            "vp8" => Codec::Vp8,
            "vp9" => Codec::Vp9,
            "av1" => Codec::Av1,
            _ => return None,
        };
        let has = |wanted: &str| fmtp.split(';').any(|field| field.trim().eq_ignore_ascii_case(wanted));
        let is_constrained_baseline = fmtp.to_ascii_lowercase().contains("profile-level-id=42e0");
        if codec == Codec::H264 && !(has("packetization-mode=1") && is_constrained_baseline) {
            return None;
        }
        Some(Format { codec, payload_type, rtx, fmtp: fmtp.to_owned() })
    }

    pub(crate) fn kind(&self) -> Kind {
        Kind::of(self.codec)
    }

    pub(crate) fn payload_types(&self) -> impl Iterator<Item = u8> + use<> {
        std::iter::once(self.payload_type).chain(self.rtx)
    }

    fn map(&self) -> &'static str {
        match self.codec {
            Codec::Opus => "opus/48000/2",
            Codec::PCMU => "PCMU/8000",
            Codec::PCMA => "PCMA/8000",
            Codec::H264 => "H264/90000",
            Codec::Vp8 => "VP8/90000",
            Codec::Vp9 => "VP9/90000",
            _ => "AV1/90000",
        }
    }

    /// `a=rtpmap`, `a=fmtp`, `a=rtcp-fb`.
    pub(crate) fn lines(&self, transport_cc: bool) -> Vec<String> {
        let payload_type = self.payload_type;
        let mut lines = vec![format!("a=rtpmap:{payload_type} {}", self.map())];
        if !self.fmtp.is_empty() {
            lines.push(format!("a=fmtp:{payload_type} {}", self.fmtp));
        }
        let mut feedback = Vec::new();
        if self.kind() == Kind::Video {
            feedback.extend(["ccm fir", "nack", "nack pli"]);
        }
        feedback.extend(transport_cc.then_some("transport-cc"));
        lines.extend(feedback.iter().map(|name| format!("a=rtcp-fb:{payload_type} {name}")));
        if let Some(rtx) = self.rtx {
            lines.push(format!("a=rtpmap:{rtx} rtx/90000"));
            lines.push(format!("a=fmtp:{rtx} apt={payload_type}"));
        }
        lines
    }

    pub(crate) fn configure(&self, config: &mut CodecConfig) {
        let (clock_rate, channels) = match self.codec {
            Codec::Opus => (Frequency::FORTY_EIGHT_KHZ, Some(2)),
            Codec::PCMU | Codec::PCMA => (Frequency::EIGHT_KHZ, None),
            _ => (Frequency::NINETY_KHZ, None),
        };
        let rtx = self.rtx.map(Into::into);
        // Which format it is was decided above; str0m gets no description to compare with.
        let format = FormatParams::default();
        config.add_config(self.payload_type.into(), rtx, self.codec, clock_rate, channels, format);
    }
}

/// What the service offers to a session that pulls: several codecs, H.264 first, under payload types that are none of
/// the publishers' and, as they are BUNDLE-wide, unique across audio and video.
pub(crate) fn pull_formats(taken: &[u8], rng: &mut Rng) -> Vec<Format> {
    let mut pool: Vec<u8> = (96..=127).chain(35..=63).filter(|pt| !taken.contains(pt)).collect();
    let mut fresh = || {
        let bound = u64::try_from(pool.len()).expect("less than 128 payload types");
        let index = usize::try_from(rng.below(bound)).expect("an index into the pool");
        pool.swap_remove(index)
    };
    let mut format = |codec, has_rtx: bool, fmtp: &str| Format {
        codec,
        payload_type: fresh(),
        rtx: has_rtx.then(&mut fresh),
        fmtp: fmtp.to_owned(),
    };
    vec![
        format(Codec::H264, true, PULL_H264),
        format(Codec::Vp9, true, "profile-id=0"),
        format(Codec::Vp8, true, ""),
        format(Codec::Av1, false, ""),
        format(Codec::Opus, false, OPUS),
    ]
}

/// What an answer keeps of an offered section: of video the one best codec, as seen; of audio all of ours.
pub(crate) fn answered(offered: &[Format]) -> Vec<Format> {
    let is_video = |format: &&Format| format.kind() == Kind::Video;
    let best = offered.iter().filter(is_video).min_by_key(|format| format.codec != Codec::H264);
    let audio = offered.iter().filter(|format| format.kind() == Kind::Audio);
    best.into_iter().chain(audio).cloned().collect()
}
