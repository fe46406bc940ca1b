//! Our own offer to receive (RFC 9429 §5.2.1), and the answer to it: which tracks come, and from where.
//!
//! Payload types, header extension ids and mids are fixed: audio has mid `0`, video mid `1`. We offer `actpass`, as an
//! offerer has to, and take no answer but `passive`: we are the DTLS client everywhere.

use std::fmt::Write;
use std::net::SocketAddr;

use guest_relay_muxer::TrackKind;
use sdp::MediaDescription;

use super::super::dtls::Fingerprint;
use super::super::ice::Credentials;
use super::answer::{OpusSettings, Origin, write_transport};
use super::error::{AnswerError, DescriptionError};
use super::offer::{is_bundled, sends};
use super::text::{kind_of, parse_lines};
use super::track::{Attributes, SDES_MID, TRANSPORT_CC, Take, Track};
use super::transport::{BundleTransport, RemoteAddresses, Setup, setup};

/// Opus, and its redundant form.
const OPUS: u8 = 111;
const RED: u8 = 63;
/// H.264 in packetization mode 1, each with its retransmissions and `profile-level-id`: Constrained Baseline and
/// Baseline at level 3.1, which is what browsers send.
const H264: [(u8, u8, &str); 2] = [(102, 103, "42e01f"), (104, 105, "42001f")];
/// Header extension ids.
const TRANSPORT_CC_ID: u8 = 3;
const MID_ID: u8 = 4;

/// What we offer to receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecvOnlyOffer {
    kinds: Vec<TrackKind>,
}

/// Everything of ours that goes into the offer's text.
#[derive(Debug)]
pub struct RecvOnlyText<'a> {
    /// Of our description.
    pub origin: Origin,
    /// Our ICE credentials.
    pub credentials: &'a Credentials,
    /// Our certificate's.
    pub fingerprint: Fingerprint,
    /// Our addresses, the preferred one first.
    pub candidates: &'a [SocketAddr],
    /// `b=AS` of the video.
    pub max_bitrate_kbps: u32,
    /// For the audio.
    pub opus: OpusSettings,
}

/// What an answer grants.
#[derive(Debug, Clone)]
pub struct Granted {
    /// How to reach the peer, and who it is.
    pub transport: BundleTransport,
    /// The tracks that will come: one of each kind at most, one at least.
    pub tracks: Vec<Track>,
}

impl RecvOnlyOffer {
    /// An offer of an m-line for each of `kinds`; repetitions do not count, and audio stands first.
    pub fn new(kinds: &[TrackKind]) -> Self {
        let both = [TrackKind::Audio, TrackKind::Video];
        Self { kinds: both.into_iter().filter(|kind| kinds.contains(kind)).collect() }
    }

    /// The offer, each line ended by CRLF.
    pub fn to_sdp(&self, text: &RecvOnlyText<'_>) -> String {
        let mut sdp = String::with_capacity(2048);
        self.write_to(text, &mut sdp).expect("writing to a String does not fail");
        sdp
    }

    fn write_to(&self, text: &RecvOnlyText<'_>, out: &mut String) -> std::fmt::Result {
        write!(out, "v=0\r\n{}s=-\r\nt=0 0\r\n", text.origin)?;
        if !self.kinds.is_empty() {
            out.push_str("a=group:BUNDLE");
            for kind in &self.kinds {
                write!(out, " {}", mid(*kind))?;
            }
            out.push_str("\r\n");
        }
        let mut candidates = text.candidates;
        for kind in &self.kinds {
            let candidates = std::mem::take(&mut candidates);
            match kind {
                TrackKind::Audio => write!(out, "m=audio 9 UDP/TLS/RTP/SAVPF {OPUS} {RED}\r\n")?,
                TrackKind::Video => {
                    out.push_str("m=video 9 UDP/TLS/RTP/SAVPF");
                    for (media, rtx, _) in H264 {
                        write!(out, " {media} {rtx}")?;
                    }
                    out.push_str("\r\n");
                }
            }
            out.push_str("c=IN IP4 0.0.0.0\r\n");
            if *kind == TrackKind::Video {
                write!(out, "b=AS:{}\r\n", text.max_bitrate_kbps)?;
            }
            write!(out, "a=mid:{}\r\n", mid(*kind))?;
            write_transport(out, text.credentials, text.fingerprint, "actpass", candidates)?;
            write!(
                out,
                "a=recvonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
                 a=extmap:{TRANSPORT_CC_ID} {TRANSPORT_CC}\r\n\
                 a=extmap:{MID_ID} {SDES_MID}\r\n"
            )?;
            match kind {
                TrackKind::Audio => write_opus(out, text.opus)?,
                TrackKind::Video => write_h264(out)?,
            }
        }
        Ok(())
    }

    /// Reads the answer to this offer.
    pub fn accept(&self, answer: &str, addresses: RemoteAddresses) -> Result<Granted, AnswerError> {
        let description = parse_lines(answer).map_err(DescriptionError::Text)?;
        let sections = &description.media_descriptions;
        let is_ours = |(kind, media): (&TrackKind, &MediaDescription)| {
            let answered = Attributes(&media.attributes).value("mid");
            kind_of(&media.media_name.media) == Some(*kind) && answered.is_none_or(|answered| answered == mid(*kind))
        };
        if sections.len() != self.kinds.len() || !self.kinds.iter().zip(sections).all(is_ours) {
            return Err(AnswerError::OtherMLines);
        }
        let mut tracks: Vec<Track> = Vec::with_capacity(2);
        let mut first_granted = None;
        let granted = sections.iter().filter(|media| sends(media, &description));
        let is_bundle = granted.count() > 1;
        for (index, (kind, media)) in self.kinds.iter().zip(sections).enumerate() {
            if !sends(media, &description) {
                continue;
            }
            let mut track = Track::pick(*kind, media, Take::All).ok_or(AnswerError::NoCodec(*kind))?;
            let attributes = Attributes(&media.attributes);
            if !attributes.has("rtcp-mux") {
                return Err(DescriptionError::NoRtcpMux.into());
            }
            track.mid = Some(mid(*kind).to_owned());
            if is_bundle && !is_bundled(&description, track.mid.as_deref()) {
                return Err(DescriptionError::NoBundle.into());
            }
            first_granted.get_or_insert(index);
            tracks.push(track);
        }
        let first_granted = first_granted.ok_or(AnswerError::NothingGranted)?;
        if has_duplicates(tracks.iter().flat_map(Track::payload_types)) {
            return Err(DescriptionError::DuplicatePayloadType.into());
        }
        let transport = BundleTransport::parse(&description, first_granted, addresses)?;
        match setup(&description, first_granted) {
            Some(Setup::Passive) => Ok(Granted { transport, tracks }),
            _ => Err(AnswerError::NotPassive),
        }
    }
}

fn has_duplicates(mut payload_types: impl Iterator<Item = u8>) -> bool {
    let mut seen = [false; 256];
    payload_types
        .any(|payload_type| seen.get_mut(usize::from(payload_type)).is_some_and(|seen| std::mem::replace(seen, true)))
}

fn mid(kind: TrackKind) -> &'static str {
    match kind {
        TrackKind::Audio => "0",
        TrackKind::Video => "1",
    }
}

fn write_opus(out: &mut String, opus: OpusSettings) -> std::fmt::Result {
    write!(
        out,
        "a=rtpmap:{OPUS} opus/48000/2\r\n\
         a=fmtp:{OPUS} minptime=10;useinbandfec=1;maxaveragebitrate={}{}\r\n\
         a=rtcp-fb:{OPUS} transport-cc\r\n\
         a=rtcp-fb:{OPUS} nack\r\n\
         a=rtpmap:{RED} red/48000/2\r\n\
         a=fmtp:{RED} {OPUS}/{OPUS}\r\n",
        opus.max_average_bitrate_bps,
        if opus.stereo { ";stereo=1" } else { "" },
    )
}

fn write_h264(out: &mut String) -> std::fmt::Result {
    for (media, rtx, profile_level_id) in H264 {
        write!(
            out,
            "a=rtpmap:{media} H264/90000\r\n\
             a=fmtp:{media} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile_level_id}\r\n"
        )?;
        for kind in ["transport-cc", "ccm fir", "nack", "nack pli"] {
            write!(out, "a=rtcp-fb:{media} {kind}\r\n")?;
        }
        write!(out, "a=rtpmap:{rtx} rtx/90000\r\na=fmtp:{rtx} apt={media}\r\n")?;
    }
    Ok(())
}
