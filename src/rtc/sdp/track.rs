//! One m-line as a track: codec, feedback, header extensions and SSRCs picked by what they are.
//!
//! ```text
//! m=video 9 UDP/TLS/RTP/SAVPF 96 102 103
//! a=rtpmap:102 H264/90000                    <- payload types by their properties (RFC 6184 §8.1)
//! a=fmtp:102 ...;packetization-mode=1;profile-level-id=42e01f
//! a=rtpmap:103 rtx/90000                     <- its retransmissions (RFC 4588 §8.6)
//! a=fmtp:103 apt=102
//! a=ssrc-group:FID 1111 2222                 <- SSRCs, if the offer names them
//! ```

use guest_relay_muxer::TrackKind;
use sdp::MediaDescription;
use sdp::description::common::Attribute;

pub(super) const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
pub(super) const SDES_MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";

/// RFC 8285 §4.2: ids of one-byte header extensions. Others would need `extmap-allow-mixed`.
const ONE_BYTE_EXTENSION_IDS: std::ops::RangeInclusive<u8> = 1..=14;

/// A track that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// Audio: Opus. Video: H.264.
    pub kind: TrackKind,
    /// `a=mid`, which packets may carry in a header extension.
    pub mid: Option<String>,
    /// Payload types that are taken, the preferred one first; one at least.
    pub formats: Vec<Format>,
    /// Payload types of the m-line that carry something else.
    pub foreign: Vec<(u8, Codec)>,
    /// The media's SSRC, if the offer names it.
    pub ssrc: Option<u32>,
    /// The SSRC of its retransmissions, if the offer names it.
    pub rtx_ssrc: Option<u32>,
    /// RTCP feedback the peer acts on.
    pub feedback: Feedback,
    /// Header extension ids.
    pub extensions: HeaderExtensions,
    /// Reduced-size RTCP (RFC 5506) may be sent.
    pub reduced_size_rtcp: bool,
}

/// One payload type of a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// Of the media.
    pub payload_type: u8,
    /// Of its retransmissions.
    pub rtx_payload_type: Option<u8>,
    /// Of its redundant form.
    pub red_payload_type: Option<u8>,
    /// `profile-level-id` of H.264, as described.
    pub(super) profile_level_id: Option<String>,
    /// Of H.264: an answer says the same as the offer, or the format is another one (RFC 6184 §8.2.2).
    pub(super) packetization_mode: PacketizationMode,
}

/// How H.264 is packed (RFC 6184 §6): the depacketiser takes both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PacketizationMode {
    /// 1: with aggregates and fragments. Preferred, since without fragments a NAL unit has to fit into a packet.
    NonInterleaved,
    /// 0, which is also what no parameter means.
    SingleNal,
}

impl std::fmt::Display for PacketizationMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NonInterleaved => "1",
            Self::SingleNal => "0",
        })
    }
}

/// What a payload type stands for that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// H.264 in another profile, or interleaved.
    H264,
    /// H.265.
    H265,
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
    /// AV1.
    Av1,
    /// Opus under a further payload type.
    Opus,
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722.
    G722,
}

impl Codec {
    /// By the encoding name of `a=rtpmap` (RFC 4855); retransmission, redundancy and events are no codecs.
    fn named(encoding: &str) -> Option<Self> {
        const NAMES: [(&str, Codec); 9] = [
            ("H264", Codec::H264),
            ("H265", Codec::H265),
            ("VP8", Codec::Vp8),
            ("VP9", Codec::Vp9),
            ("AV1", Codec::Av1),
            ("opus", Codec::Opus),
            ("PCMU", Codec::Pcmu),
            ("PCMA", Codec::Pcma),
            ("G722", Codec::G722),
        ];
        NAMES.into_iter().find(|(name, _)| encoding.eq_ignore_ascii_case(name)).map(|(_, codec)| codec)
    }

    /// By the payload types that need no `a=rtpmap` (RFC 3551 table 4).
    fn fixed(payload_type: u8) -> Option<Self> {
        match payload_type {
            0 => Some(Self::Pcmu),
            8 => Some(Self::Pcma),
            9 => Some(Self::G722),
            _ => None,
        }
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::H264 => "H.264",
            Self::H265 => "H.265",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::Av1 => "AV1",
            Self::Opus => "Opus",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G.722",
        })
    }
}

/// How many of the payload types that we could take are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// The one we like best.
    Best,
    /// Every one.
    All,
}

/// `a=rtcp-fb` of one payload type, as far as we use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Feedback {
    /// `nack`: generic NACK.
    pub nack: bool,
    /// `nack pli`.
    pub pli: bool,
    /// `ccm fir`.
    pub fir: bool,
    /// `goog-remb`.
    pub remb: bool,
    /// `transport-cc`.
    pub transport_cc: bool,
}

/// `a=extmap` ids, as far as we use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeaderExtensions {
    /// Transport-wide sequence number.
    pub transport_cc: Option<u8>,
    /// Absolute send time.
    pub abs_send_time: Option<u8>,
    /// MID (RFC 8843 §15).
    pub mid: Option<u8>,
}

impl HeaderExtensions {
    /// Each id with its URI.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u8, &'static str)> {
        [(self.transport_cc, TRANSPORT_CC), (self.abs_send_time, ABS_SEND_TIME), (self.mid, SDES_MID)]
            .into_iter()
            .filter_map(|(id, uri)| id.map(|id| (id, uri)))
    }
}

impl Track {
    /// A track of which nothing but the kind is known.
    #[cfg(test)]
    pub(in crate::rtc) fn bare(kind: TrackKind) -> Self {
        Self {
            kind,
            mid: None,
            formats: vec![Format {
                payload_type: 96,
                rtx_payload_type: None,
                red_payload_type: None,
                profile_level_id: None,
                packetization_mode: PacketizationMode::NonInterleaved,
            }],
            foreign: Vec::new(),
            ssrc: None,
            rtx_ssrc: None,
            feedback: Feedback::default(),
            extensions: HeaderExtensions::default(),
            reduced_size_rtcp: false,
        }
    }

    /// The track of an m-line, if it offers the codec that we take for its kind.
    pub(super) fn pick(kind: TrackKind, media: &MediaDescription, take: Take) -> Option<Self> {
        let attributes = Attributes(&media.attributes);
        let listed = Formats::new(media);
        let mut payload_types = match kind {
            TrackKind::Video => listed.h264(),
            TrackKind::Audio => listed.opus(),
        };
        if take == Take::Best {
            payload_types.truncate(1);
        }
        let preferred = *payload_types.first()?;
        let (ssrc, rtx_ssrc) = ssrcs(&attributes);
        let foreign = listed
            .in_order
            .iter()
            .filter(|payload_type| !payload_types.contains(payload_type))
            .filter_map(|payload_type| Some((*payload_type, listed.codec(*payload_type)?)))
            .collect();
        let formats = payload_types
            .iter()
            .map(|payload_type| Format {
                payload_type: *payload_type,
                rtx_payload_type: listed.rtx_of(*payload_type),
                red_payload_type: listed.red_of(*payload_type),
                profile_level_id: listed.parameter(*payload_type, "profile-level-id").map(str::to_owned),
                packetization_mode: listed.packetization_mode(*payload_type).unwrap_or(PacketizationMode::SingleNal),
            })
            .collect();
        Some(Self {
            kind,
            mid: attributes.value("mid").map(str::to_owned),
            formats,
            foreign,
            ssrc,
            rtx_ssrc,
            feedback: feedback(&attributes, preferred),
            extensions: extensions(&attributes),
            reduced_size_rtcp: attributes.has("rtcp-rsize"),
        })
    }

    /// All payload types that are taken, those of retransmissions and redundancy included.
    pub fn payload_types(&self) -> impl Iterator<Item = u8> {
        self.formats.iter().flat_map(Format::payload_types)
    }
}

impl Format {
    /// Of the media, its retransmissions and its redundant form.
    pub(in crate::rtc) fn payload_types(&self) -> impl Iterator<Item = u8> + use<> {
        [Some(self.payload_type), self.rtx_payload_type, self.red_payload_type].into_iter().flatten()
    }
}

/// The payload types of an m-line with their `a=rtpmap` and `a=fmtp`, the first of each counting.
struct Formats<'a> {
    in_order: Vec<u8>,
    rtpmap: [Option<&'a str>; 128],
    fmtp: [Option<&'a str>; 128],
}

impl<'a> Formats<'a> {
    fn new(media: &'a MediaDescription) -> Self {
        let attributes = Attributes(&media.attributes);
        let by_payload_type = |key| {
            let mut table = [None; 128];
            for (payload_type, value) in attributes.values(key).filter_map(split_payload_type) {
                if let Some(slot) = table.get_mut(usize::from(payload_type)) {
                    *slot = slot.or(Some(value));
                }
            }
            table
        };
        let mut in_order: Vec<u8> = Vec::new();
        let formats = &media.media_name.formats;
        for payload_type in formats.iter().filter_map(|format| payload_type(format)) {
            if !in_order.contains(&payload_type) {
                in_order.push(payload_type);
            }
        }
        Self { in_order, rtpmap: by_payload_type("rtpmap"), fmtp: by_payload_type("fmtp") }
    }

    fn is(&self, payload_type: u8, encoding: &str) -> bool {
        self.rtpmap
            .get(usize::from(payload_type))
            .copied()
            .flatten()
            .is_some_and(|rtpmap| rtpmap.eq_ignore_ascii_case(encoding))
    }

    /// A parameter of `a=fmtp:<payload type> name=value;...`.
    fn parameter(&self, payload_type: u8, name: &str) -> Option<&'a str> {
        let fmtp = self.fmtp.get(usize::from(payload_type)).copied().flatten()?;
        fmtp.split(';')
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    /// Opus payload types, in order.
    fn opus(&self) -> Vec<u8> {
        let opus = self.in_order.iter().copied();
        opus.filter(|payload_type| self.is(*payload_type, "opus/48000/2")).collect()
    }

    /// RFC 2198 §5: `a=fmtp:<red> <primary>/<redundant>...`, all of them this one.
    fn red_of(&self, payload_type: u8) -> Option<u8> {
        let carries_it = |red: &u8| {
            let fmtp = self.fmtp.get(usize::from(*red)).copied().flatten();
            fmtp.is_some_and(|blocks| blocks.split('/').all(|block| block.parse() == Ok(payload_type)))
        };
        self.in_order.iter().copied().filter(|red| self.is(*red, "red/48000/2")).find(carries_it)
    }

    /// `None`: interleaved, or nothing that RFC 6184 knows.
    fn packetization_mode(&self, payload_type: u8) -> Option<PacketizationMode> {
        match self.parameter(payload_type, "packetization-mode") {
            Some("1") => Some(PacketizationMode::NonInterleaved),
            Some("0") | None => Some(PacketizationMode::SingleNal),
            Some(_) => None,
        }
    }

    /// The H.264 payload types that we read, those with fragments before the others, the simplest profile first, among
    /// equals in order.
    fn h264(&self) -> Vec<u8> {
        let mut ranked: Vec<((PacketizationMode, u8), u8)> = self
            .in_order
            .iter()
            .copied()
            .filter(|payload_type| self.is(*payload_type, "H264/90000"))
            .filter_map(|payload_type| {
                // RFC 6184 §8.1: without the parameter it is Baseline at level 1.
                let profile_level_id = self.parameter(payload_type, "profile-level-id").unwrap_or("420010");
                Some(((self.packetization_mode(payload_type)?, profile_rank(profile_level_id)?), payload_type))
            })
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, payload_type)| payload_type).collect()
    }

    fn codec(&self, payload_type: u8) -> Option<Codec> {
        match self.rtpmap.get(usize::from(payload_type)).copied().flatten() {
            Some(rtpmap) => Codec::named(rtpmap.split('/').next()?),
            None => Codec::fixed(payload_type),
        }
    }

    fn rtx_of(&self, payload_type: u8) -> Option<u8> {
        let clock_rate = self.rtpmap.get(usize::from(payload_type)).copied().flatten()?.split('/').nth(1)?;
        let encoding = format!("rtx/{clock_rate}");
        self.in_order.iter().copied().find(|rtx| {
            self.is(*rtx, &encoding)
                && self.parameter(*rtx, "apt").and_then(|apt| apt.parse().ok()) == Some(payload_type)
        })
    }
}

/// Constrained Baseline before Baseline before Main before High (RFC 6184 table 5): the simpler, the surer every
/// decoder behind us takes it. `None`: another profile, or not six hexadecimal digits.
fn profile_rank(profile_level_id: &str) -> Option<u8> {
    const CONSTRAINT_SET1: u32 = 0x40;
    if profile_level_id.len() != 6 {
        return None;
    }
    let [_, profile_idc, constraints, _level] = u32::from_str_radix(profile_level_id, 16).ok()?.to_be_bytes();
    match profile_idc {
        0x42 if u32::from(constraints) & CONSTRAINT_SET1 != 0 => Some(0),
        0x42 => Some(1),
        0x4D => Some(2),
        0x64 => Some(3),
        _ => None,
    }
}

/// A payload type that can be told from RTCP when both share a port (RFC 5761 §4).
fn payload_type(format: &str) -> Option<u8> {
    let payload_type: u8 = format.parse().ok()?;
    matches!(payload_type, 0..=63 | 96..=127).then_some(payload_type)
}

fn split_payload_type(value: &str) -> Option<(u8, &str)> {
    let (format, rest) = value.split_once(' ')?;
    Some((payload_type(format)?, rest.trim()))
}

fn feedback(attributes: &Attributes<'_>, wanted: u8) -> Feedback {
    let mut feedback = Feedback::default();
    for value in attributes.values("rtcp-fb") {
        let Some((format, kind)) = value.split_once(' ') else {
            continue;
        };
        if format != "*" && payload_type(format) != Some(wanted) {
            continue;
        }
        match kind.trim() {
            "nack" => feedback.nack = true,
            "nack pli" => feedback.pli = true,
            "ccm fir" => feedback.fir = true,
            "goog-remb" => feedback.remb = true,
            "transport-cc" => feedback.transport_cc = true,
            _ => {}
        }
    }
    feedback
}

fn extensions(attributes: &Attributes<'_>) -> HeaderExtensions {
    let mut extensions = HeaderExtensions::default();
    for value in attributes.values("extmap") {
        let mut words = value.split(' ');
        // `<id>["/"<direction>] <uri> [<attributes>]`, the direction being the peer's.
        let (id, direction) = words.next().map_or(("", ""), |id| id.split_once('/').unwrap_or((id, "sendrecv")));
        let id = id
            .parse()
            .ok()
            .filter(|id| ONE_BYTE_EXTENSION_IDS.contains(id))
            .filter(|_| matches!(direction, "sendrecv" | "sendonly"));
        let slot = match words.next() {
            Some(TRANSPORT_CC) => &mut extensions.transport_cc,
            Some(ABS_SEND_TIME) => &mut extensions.abs_send_time,
            Some(SDES_MID) => &mut extensions.mid,
            _ => continue,
        };
        *slot = slot.or(id);
    }
    extensions
}

/// Media and retransmission SSRC (RFC 5576 sections 4.1, 4.2). With `ssrc-group:FID` both, else the first one named.
fn ssrcs(attributes: &Attributes<'_>) -> (Option<u32>, Option<u32>) {
    let fid = attributes.values("ssrc-group").filter_map(|group| group.strip_prefix("FID ")).find_map(|pair| {
        let (media, rtx) = pair.trim().split_once(' ')?;
        Some((media.parse().ok()?, rtx.trim().parse().ok()?))
    });
    match fid {
        Some((media, rtx)) => (Some(media), Some(rtx)),
        None => {
            let first = attributes.values("ssrc").find_map(|value| value.split(' ').next()?.parse().ok());
            (first, None)
        }
    }
}

/// The `a=` lines of one level.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(pub(super) &'a [Attribute]);

impl<'a> Attributes<'a> {
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|attribute| attribute.key == key)
    }

    pub(super) fn value(&self, key: &'a str) -> Option<&'a str> {
        self.values(key).next()
    }

    pub(super) fn values(&self, key: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0.iter().filter(move |attribute| attribute.key == key).filter_map(|attribute| attribute.value.as_deref())
    }
}
