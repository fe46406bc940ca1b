//! SDP (RFC 8866, RFC 8829) as the service reads it.
//!
//! Input: a peer's offer or answer; output: what of it matters here ([`Remote`]).

use str0m::format::Codec;

use crate::api::ApiError;
use crate::codec::Format;

/// How many m-sections a description may have.
const MAX_SECTIONS: usize = 64;
/// What str0m can carry.
const MAX_MID_CHARS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Audio,
    Video,
    /// Rejected.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    pub(crate) fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    pub(crate) fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    fn parse(line: &str) -> Option<Direction> {
        match line {
            "a=sendrecv" => Some(Self::SendRecv),
            "a=sendonly" => Some(Self::SendOnly),
            "a=recvonly" => Some(Self::RecvOnly),
            "a=inactive" => Some(Self::Inactive),
            _ => None,
        }
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    ActPass,
    Active,
    Passive,
}

/// One `a=ssrc` source, with the source of its retransmissions (`a=ssrc-group:FID`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) ssrc: u32,
    pub(crate) rtx: Option<u32>,
}

/// One m-section of a peer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Section {
    pub(crate) kind: Kind,
    pub(crate) rejected: bool,
    pub(crate) mid: String,
    pub(crate) direction: Direction,
    /// In the order of the m-line.
    pub(crate) payload_types: Vec<u8>,
    /// Those of our codecs among them, in the order of the m-line.
    pub(crate) formats: Vec<Format>,
    pub(crate) extensions: Vec<(u8, String)>,
    pub(crate) sources: Vec<Source>,
    /// The words of the m-line after the kind, to repeat them when it is rejected.
    pub(crate) m_line: String,
}

/// A peer's description.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Remote {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
    pub(crate) fingerprint: String,
    pub(crate) setup: Setup,
    pub(crate) extmap_allow_mixed: bool,
    pub(crate) sections: Vec<Section>,
}

impl Remote {
    pub(crate) fn parse(text: &str) -> Result<Remote, ApiError> {
        if !text.ends_with("\r\n") {
            let what = "Unable to parse SDP, common issue: missing termination at the end";
            return Err(ApiError::sdp(400, what));
        }
        if !text.starts_with("v=0\r\n") {
            return Err(ApiError::sdp(400, "Unable to parse SDP"));
        }
        let lines: Vec<&str> = text.lines().collect();
        let starts = lines.iter().enumerate();
        let starts: Vec<usize> = starts.filter(|(_, line)| line.starts_with("m=")).map(|(index, _)| index).collect();
        let (session, media) = lines.split_at(starts.first().copied().unwrap_or(lines.len()));
        let media: Vec<&[&str]> = media.chunk_by(|_, next| !next.starts_with("m=")).collect();
        if media.len() > MAX_SECTIONS {
            return Err(ApiError::sdp(406, "Too many media sections"));
        }
        let anywhere = |prefix: &str| {
            let mut scopes = std::iter::once(&session).chain(&media);
            scopes.find_map(|scope| attribute(scope, prefix))
        };
        let missing = |what: &str| ApiError::sdp(400, format!("SDP contains no {what}"));
        let ufrag = anywhere("a=ice-ufrag:").ok_or_else(|| missing("ice-ufrag"))?;
        let pwd = anywhere("a=ice-pwd:").ok_or_else(|| missing("ice-pwd"))?;
        let fingerprint = anywhere("a=fingerprint:").ok_or_else(|| missing("fingerprint"))?;
        let setup = match anywhere("a=setup:") {
            Some("active") => Setup::Active,
            Some("passive") => Setup::Passive,
            _ => Setup::ActPass,
        };
        let sections: Result<Vec<Section>, ApiError> = media.iter().map(|lines| section(lines)).collect();
        let sections = sections?;
        if sections.is_empty() {
            return Err(ApiError::sdp(400, "SDP contains no media"));
        }
        Ok(Remote {
            ufrag: ufrag.to_owned(),
            pwd: pwd.to_owned(),
            fingerprint: fingerprint.to_owned(),
            setup,
            extmap_allow_mixed: anywhere("a=extmap-allow-mixed").is_some(),
            sections,
        })
    }

    pub(crate) fn section(&self, mid: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.mid == mid)
    }
}

fn attribute<'a>(lines: &[&'a str], prefix: &str) -> Option<&'a str> {
    lines.iter().find_map(|line| line.strip_prefix(prefix))
}

fn section(lines: &[&str]) -> Result<Section, ApiError> {
    let unreadable = || ApiError::sdp(400, "Unable to parse SDP");
    let m_line = lines.first().and_then(|line| line.strip_prefix("m="));
    let (kind, m_line) = m_line.and_then(|line| line.split_once(' ')).ok_or_else(unreadable)?;
    let kind = match kind {
        "audio" => Kind::Audio,
        "video" => Kind::Video,
        _ => Kind::Other,
    };
    let mut words = m_line.split(' ');
    let port = words.next().ok_or_else(unreadable)?;
    let payload_types: Vec<u8> = words.skip(1).filter_map(|word| word.parse().ok()).collect();
    let mid = attribute(lines, "a=mid:").ok_or_else(|| ApiError::sdp(400, "SDP contains no mid"))?;
    if mid.is_empty() || mid.len() > MAX_MID_CHARS || !mid.is_ascii() {
        return Err(unreadable());
    }
    let direction = lines.iter().find_map(|line| Direction::parse(line));
    let extensions = lines.iter().filter_map(|line| {
        let (id, uri) = line.strip_prefix("a=extmap:")?.split_once(' ')?;
        let id = id.split('/').next()?.parse().ok()?;
        Some((id, uri.split(' ').next()?.to_owned()))
    });
    Ok(Section {
        kind,
        rejected: port == "0",
        mid: mid.to_owned(),
        direction: direction.unwrap_or(Direction::SendRecv),
        formats: formats(lines, &payload_types),
        payload_types,
        extensions: extensions.collect(),
        sources: sources(lines),
        m_line: m_line.to_owned(),
    })
}

/// The codecs that the service carries, with their retransmission payload types.
fn formats(lines: &[&str], payload_types: &[u8]) -> Vec<Format> {
    let of = |prefix: &str, payload_type: u8| {
        lines.iter().find_map(|line| {
            let (number, value) = line.strip_prefix(prefix)?.split_once(' ')?;
            (number.parse() == Ok(payload_type)).then_some(value)
        })
    };
    let static_map = |payload_type| match payload_type {
        0 => Some("PCMU/8000"),
        8 => Some("PCMA/8000"),
        _ => None,
    };
    let rtx_of = |wanted: u8| {
        payload_types.iter().copied().find(|rtx| {
            let map = of("a=rtpmap:", *rtx).unwrap_or_default();
            let apt = of("a=fmtp:", *rtx).and_then(|fmtp| fmtp.strip_prefix("apt="));
            map.eq_ignore_ascii_case("rtx/90000") && apt.and_then(|apt| apt.parse().ok()) == Some(wanted)
        })
    };
    payload_types
        .iter()
        .filter_map(|&payload_type| {
            let map = of("a=rtpmap:", payload_type).or_else(|| static_map(payload_type))?;
            let fmtp = of("a=fmtp:", payload_type).unwrap_or_default();
            Format::from_sdp(payload_type, rtx_of(payload_type), map, fmtp)
        })
        .collect()
}

fn sources(lines: &[&str]) -> Vec<Source> {
    let groups: Vec<(u32, u32)> = lines
        .iter()
        .filter_map(|line| {
            let (ssrc, rtx) = line.strip_prefix("a=ssrc-group:FID ")?.split_once(' ')?;
            Some((ssrc.parse().ok()?, rtx.parse().ok()?))
        })
        .collect();
    let mut sources: Vec<Source> = Vec::new();
    for line in lines {
        let Some(rest) = line.strip_prefix("a=ssrc:") else {
            continue;
        };
        let Some(ssrc) = rest.split(' ').next().and_then(|word| word.parse().ok()) else {
            continue;
        };
        let is_rtx = groups.iter().any(|(_, rtx)| *rtx == ssrc);
        if !is_rtx && sources.iter().all(|source| source.ssrc != ssrc) {
            let rtx = groups.iter().find(|(primary, _)| *primary == ssrc);
            sources.push(Source { ssrc, rtx: rtx.map(|(_, rtx)| *rtx) });
        }
    }
    sources
}

impl Kind {
    pub(crate) fn of(codec: Codec) -> Kind {
        if codec.is_audio() { Kind::Audio } else { Kind::Video }
    }
}
