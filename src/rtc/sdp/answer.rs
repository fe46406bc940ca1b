//! The text of an answer (RFC 9429 §5.3, RFC 9725 §4.4): as many m-lines as the offer, those we take
//! `recvonly`, the others with port 0.

use std::fmt::Write;
use std::net::SocketAddr;

use guest_relay_muxer::TrackKind;

use super::super::dtls::Fingerprint;
use super::super::ice::Credentials;
use super::super::random::random_u64;
use super::offer::{Offer, Section};
use super::track::{Format, Track};

/// What the answer asks of the guest's Opus encoder (RFC 7587 §6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpusSettings {
    /// `maxaveragebitrate`, bits per second.
    pub max_average_bitrate_bps: u32,
    /// `stereo=1`: music rather than speech.
    pub stereo: bool,
}

/// Everything of ours that goes into an answer.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Of our description, this one of its versions.
    pub origin: Origin,
    /// What is answered.
    pub offer: &'a Offer,
    /// Our ICE credentials.
    pub credentials: &'a Credentials,
    /// Our certificate's.
    pub fingerprint: Fingerprint,
    /// Our addresses, the preferred one first.
    pub candidates: &'a [SocketAddr],
    /// Where Chromium starts its bandwidth estimate; its own default shows a blurred picture for ten seconds.
    pub start_bitrate_kbps: u32,
    /// `b=AS` of the video.
    pub max_bitrate_kbps: u32,
    /// For the audio.
    pub opus: OpusSettings,
}

/// `o=` of our descriptions of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    session_id: u64,
    version: u64,
}

impl Origin {
    /// Of a new session.
    pub fn generate() -> Self {
        Self {
            // RFC 9429 §5.2.1: 63 random bits.
            session_id: random_u64() >> 1,
            version: 2,
        }
    }

    /// Of the session's next description.
    #[must_use]
    pub fn next(self) -> Self {
        Self { version: self.version + 1, ..self }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { session_id, version } = self;
        write!(f, "o=- {session_id} {version} IN IP4 0.0.0.0\r\n")
    }
}

impl Answer<'_> {
    /// The answer, each line ended by CRLF.
    pub fn to_sdp(&self) -> String {
        let mut sdp = String::with_capacity(2048);
        self.write_to(&mut sdp).expect("writing to a String does not fail");
        sdp
    }

    fn write_to(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "v=0\r\n{}s=-\r\nt=0 0\r\n", self.origin)?;
        let mut bundled = self
            .offer
            .sections
            .iter()
            .filter(|section| section.track.is_some() && section.bundled)
            .filter_map(|section| section.mid.as_deref())
            .peekable();
        if bundled.peek().is_some() {
            out.push_str("a=group:BUNDLE");
            for mid in bundled {
                write!(out, " {mid}")?;
            }
            out.push_str("\r\n");
        }
        if !self.offer.transport.ice_lite {
            // We do the checks where the peer does not (RFC 8445 §6.1.1).
            out.push_str("a=ice-lite\r\n");
        }
        // Browsers look for candidates in the first m-line of the group only.
        let mut candidates = self.candidates;
        for section in &self.offer.sections {
            match &section.track {
                Some(track) => self.write_taken(out, section, track, std::mem::take(&mut candidates))?,
                None => write_refused(out, section)?,
            }
        }
        Ok(())
    }

    fn write_taken(
        &self,
        out: &mut String,
        section: &Section,
        track: &Track,
        candidates: &[SocketAddr],
    ) -> std::fmt::Result {
        write!(out, "m={} 9 {}", section.media, section.proto)?;
        // Browsers send the redundant form of Opus where it stands before the plain one.
        let red = track.formats.iter().filter_map(|format| format.red_payload_type);
        let plain = track.formats.iter().flat_map(|format| [Some(format.payload_type), format.rtx_payload_type]);
        for payload_type in red.chain(plain.flatten()) {
            write!(out, " {payload_type}")?;
        }
        out.push_str("\r\nc=IN IP4 0.0.0.0\r\n");
        if track.kind == TrackKind::Video {
            write!(out, "b=AS:{}\r\n", self.max_bitrate_kbps)?;
        }
        write_mid(out, section)?;
        write_transport(out, self.credentials, self.fingerprint, "active", candidates)?;
        out.push_str("a=recvonly\r\na=rtcp-mux\r\n");
        if track.reduced_size_rtcp {
            out.push_str("a=rtcp-rsize\r\n");
        }
        for (id, uri) in track.extensions.iter() {
            write!(out, "a=extmap:{id} {uri}\r\n")?;
        }
        for format in &track.formats {
            self.write_format(out, track, format)?;
        }
        Ok(())
    }

    fn write_format(&self, out: &mut String, track: &Track, format: &Format) -> std::fmt::Result {
        let payload_type = format.payload_type;
        let clock_rate = match track.kind {
            TrackKind::Video => {
                let profile_level_id = format.profile_level_id.as_deref().unwrap_or("420010");
                let mode = format.packetization_mode;
                write!(
                    out,
                    "a=rtpmap:{payload_type} H264/90000\r\n\
                     a=fmtp:{payload_type} level-asymmetry-allowed=1;packetization-mode={mode};profile-level-id={profile_level_id};x-google-start-bitrate={}\r\n",
                    self.start_bitrate_kbps
                )?;
                90_000
            }
            TrackKind::Audio => {
                write!(
                    out,
                    "a=rtpmap:{payload_type} opus/48000/2\r\n\
                     a=fmtp:{payload_type} minptime=10;useinbandfec=1;usedtx=0;maxaveragebitrate={}",
                    self.opus.max_average_bitrate_bps
                )?;
                if self.opus.stereo {
                    out.push_str(";stereo=1");
                }
                out.push_str("\r\n");
                48_000
            }
        };
        let feedback = track.feedback;
        for (taken, kind) in [
            (feedback.remb, "goog-remb"),
            (feedback.transport_cc, "transport-cc"),
            (feedback.fir, "ccm fir"),
            (feedback.nack, "nack"),
            (feedback.pli, "nack pli"),
        ] {
            if taken {
                write!(out, "a=rtcp-fb:{payload_type} {kind}\r\n")?;
            }
        }
        if let Some(rtx) = format.rtx_payload_type {
            write!(out, "a=rtpmap:{rtx} rtx/{clock_rate}\r\na=fmtp:{rtx} apt={payload_type}\r\n")?;
        }
        if let Some(red) = format.red_payload_type {
            write!(out, "a=rtpmap:{red} red/48000/2\r\na=fmtp:{red} {payload_type}/{payload_type}\r\n")?;
        }
        Ok(())
    }
}

/// ICE credentials, certificate and addresses of ours; the addresses only where there are any.
pub(super) fn write_transport(
    out: &mut String,
    credentials: &Credentials,
    fingerprint: Fingerprint,
    setup: &str,
    candidates: &[SocketAddr],
) -> std::fmt::Result {
    write!(
        out,
        "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:{fingerprint}\r\na=setup:{setup}\r\n",
        credentials.ufrag, credentials.pwd
    )?;
    for (index, address) in (0_u32..).zip(candidates) {
        write!(
            out,
            "a=candidate:{} 1 udp {} {} {} typ host\r\n",
            index + 1,
            host_priority(index),
            address.ip(),
            address.port()
        )?;
    }
    if !candidates.is_empty() {
        out.push_str("a=end-of-candidates\r\n");
    }
    Ok(())
}

fn write_mid(out: &mut String, section: &Section) -> std::fmt::Result {
    match &section.mid {
        Some(mid) => write!(out, "a=mid:{mid}\r\n"),
        None => Ok(()),
    }
}

/// RFC 9429 §5.3.1: port 0, the protocol and a format as offered.
fn write_refused(out: &mut String, section: &Section) -> std::fmt::Result {
    write!(out, "m={} 0 {} {}\r\nc=IN IP4 0.0.0.0\r\n", section.media, section.proto, section.format)?;
    write_mid(out, section)?;
    out.push_str("a=inactive\r\n");
    Ok(())
}

/// RFC 8445 §5.1.2.1: type preference 126 (host), local preference falling with the index, component 1.
fn host_priority(index: u32) -> u32 {
    (126 << 24) | (65_535_u32.saturating_sub(index) << 8) | 255
}
