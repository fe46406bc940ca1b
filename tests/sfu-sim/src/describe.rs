//! SDP as the service writes it: answers and offers, line by line in the order that was seen at the real service, with
//! fingerprint and `ice-lite` at session level, and the one UDP candidate twice (component 1 and 2) in the first m-section
//! only, followed by `end-of-candidates`.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::codec::Format;
use crate::sdp::{Direction, Kind, Section};

/// What every description of ours has.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    /// Stays the same for a session's life (RFC 8866 §5.2).
    pub(crate) origin_id: u64,
    /// Grows with each description.
    pub(crate) origin_version: u64,
    pub(crate) fingerprint: String,
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
    pub(crate) candidate: SocketAddr,
    pub(crate) extmap_allow_mixed: bool,
}

/// One m-section of ours.
#[derive(Clone, Debug)]
pub(crate) struct LocalSection {
    pub(crate) kind: Kind,
    pub(crate) mid: String,
    /// `None`: rejected; with the words of the peer's m-line.
    pub(crate) direction: Option<Direction>,
    pub(crate) rejected_m_line: String,
    pub(crate) formats: Vec<Format>,
    pub(crate) extensions: Vec<(u8, String)>,
    pub(crate) source: Option<LocalSource>,
    pub(crate) transport_cc: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct LocalSource {
    pub(crate) ssrc: u32,
    /// Only when it is to be announced.
    pub(crate) rtx: Option<u32>,
    pub(crate) cname: String,
    pub(crate) msid: String,
}

impl LocalSection {
    /// The answer to a section that is not wanted.
    pub(crate) fn rejecting(section: &Section) -> LocalSection {
        LocalSection {
            kind: section.kind,
            mid: section.mid.clone(),
            direction: None,
            rejected_m_line: section.m_line.clone(),
            formats: Vec::new(),
            extensions: Vec::new(),
            source: None,
            transport_cc: false,
        }
    }
}

impl Local {
    pub(crate) fn write(&self, setup: &str, sections: &[LocalSection]) -> String {
        let mut out = String::new();
        let mut line = |text: &str| {
            out.push_str(text);
            out.push_str("\r\n");
        };
        line("v=0");
        line(&format!("o=- {} {} IN IP4 0.0.0.0", self.origin_id, self.origin_version));
        line("s=-");
        line("t=0 0");
        line("a=msid-semantic:WMS*");
        line(&format!("a=fingerprint:{}", self.fingerprint));
        line("a=ice-lite");
        if self.extmap_allow_mixed {
            line("a=extmap-allow-mixed");
        }
        let bundled = sections.iter().filter(|section| section.direction.is_some());
        let bundled = bundled.fold(String::new(), |mids, section| mids + " " + &section.mid);
        line(&format!("a=group:BUNDLE{bundled}"));
        let mut is_first = true;
        for section in sections {
            self.write_section(&mut out, section, setup, is_first);
            is_first &= section.direction.is_none();
        }
        out
    }

    fn write_section(&self, out: &mut String, section: &LocalSection, setup: &str, is_first: bool) {
        let mut line = |text: &str| {
            out.push_str(text);
            out.push_str("\r\n");
        };
        let kind = match section.kind {
            Kind::Audio => "audio",
            Kind::Video => "video",
            Kind::Other => "application",
        };
        let Some(direction) = section.direction else {
            let rest = section.rejected_m_line.split_once(' ').map_or("", |(_, rest)| rest);
            line(&format!("m={kind} 0 {rest}"));
            line("c=IN IP4 0.0.0.0");
            line(&format!("a=mid:{}", section.mid));
            line("a=inactive");
            return;
        };
        let payload_types = section.formats.iter().flat_map(Format::payload_types);
        let payload_types = payload_types.fold(String::new(), |mut all, payload_type| {
            write!(all, " {payload_type}").expect("a string takes everything");
            all
        });
        line(&format!("m={kind} 9 UDP/TLS/RTP/SAVPF{payload_types}"));
        line("c=IN IP4 0.0.0.0");
        line(&format!("a=setup:{setup}"));
        line(&format!("a=mid:{}", section.mid));
        line(&format!("a=ice-ufrag:{}", self.ufrag));
        line(&format!("a=ice-pwd:{}", self.pwd));
        line("a=rtcp-mux");
        line("a=rtcp-rsize");
        for format in &section.formats {
            format.lines(section.transport_cc).iter().for_each(|text| line(text));
        }
        for (id, uri) in &section.extensions {
            line(&format!("a=extmap:{id} {uri}"));
        }
        if let Some(source) = &section.source {
            if let Some(rtx) = source.rtx {
                line(&format!("a=ssrc-group:FID {} {rtx}", source.ssrc));
            }
            for ssrc in std::iter::once(source.ssrc).chain(source.rtx) {
                line(&format!("a=ssrc:{ssrc} cname:{}", source.cname));
                line(&format!("a=ssrc:{ssrc} msid:{}", source.msid));
            }
            line(&format!("a=msid:{}", source.msid));
        }
        line(&format!("a={}", direction.text()));
        if is_first {
            for component in [1, 2] {
                let (ip, port) = (self.candidate.ip(), self.candidate.port());
                line(&format!("a=candidate:513273236 {component} udp 2130706431 {ip} {port} typ host"));
            }
            line("a=end-of-candidates");
        }
    }
}
