//! A guest's offer, cut down to what the relay passes on (RFC 8866 line by line; RFC 9429 §5.2 says what a
//! browser writes).
//!
//! ```text
//! m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 ...   -> m=video 9 UDP/TLS/RTP/SAVPF 102 103
//! a=extmap:13 urn:3gpp:video-orientation          -> dropped: phones then rotate the picture before they encode it
//! a=rtpmap:96 VP8/90000                           -> dropped, with a=fmtp and a=rtcp-fb of 96
//! a=rtpmap:102 H264/90000                         -> kept
//! a=simulcast:send h;l                            -> dropped, with a=rid and the extensions that name streams
//! a=sendrecv                                      -> a=sendonly
//! ```
//!
//! Opus keeps RED around it (RFC 2198) where the guest offers that: the SFU negotiates it like any format, and the relay
//! unwraps what comes back. Everything else stays as it is and in its order; an answer to the result answers the offer.
//! Input: an offer that [`crate::rtc::sdp::Offer`] accepted, with the tracks it took.

use crate::rtc::sdp::Track;

/// Header extensions that would change what arrives: rotation left to the receiver, and names of simulcast streams.
const DROPPED_EXTENSIONS: [&str; 3] = [
    "urn:3gpp:video-orientation",
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
];

/// `None` when the offer has m-lines beside those of `taken`, which are in the order of the offer.
pub(super) fn for_sfu(offer: &str, taken: &[Track]) -> Option<String> {
    let mut edited = String::with_capacity(offer.len());
    let mut upcoming = taken.iter();
    let mut track: Option<&Track> = None;
    for line in offer.lines() {
        // An empty line, such as at the end of a text that was pasted together, is none of SDP's.
        if line.is_empty() {
            continue;
        }
        let line = if line.starts_with("m=") {
            let next = upcoming.next()?;
            track = Some(next);
            Some(media_line(line, next)?)
        } else {
            attribute_line(line, track)
        };
        if let Some(line) = line {
            edited.push_str(&line);
            edited.push_str("\r\n");
        }
    }
    upcoming.next().is_none().then_some(edited)
}

/// `m=<media> <port> <proto> <fmt> ...` with the formats that are kept. `None` when it is the m-line of another kind.
fn media_line(line: &str, track: &Track) -> Option<String> {
    let kind = match track.kind {
        guest_relay_muxer::TrackKind::Video => "m=video",
        guest_relay_muxer::TrackKind::Audio => "m=audio",
    };
    let mut words = line.split_ascii_whitespace();
    let media = words.next().filter(|media| *media == kind)?;
    let mut edited = format!("{media} {} {}", words.next()?, words.next()?);
    for payload_type in track.payload_types() {
        edited.push_str(&format!(" {payload_type}"));
    }
    Some(edited)
}

/// A line that is no m-line, as it goes on; `None` when it goes no further.
fn attribute_line(line: &str, track: Option<&Track>) -> Option<String> {
    let kept = Some(line.to_owned());
    let Some(attribute) = line.strip_prefix("a=") else {
        return kept;
    };
    let (key, value) = attribute.split_once(':').unwrap_or((attribute, ""));
    match key {
        "extmap" => {
            let uri = value.split_ascii_whitespace().nth(1).unwrap_or_default();
            (!DROPPED_EXTENSIONS.contains(&uri)).then(|| line.to_owned())
        }
        "simulcast" | "rid" => None,
        "ssrc-group" if value.starts_with("SIM") => None,
        // The relay sends nothing back.
        "sendrecv" => Some("a=sendonly".to_owned()),
        "rtpmap" | "fmtp" | "rtcp-fb" => {
            let track = track?;
            let format = value.split_ascii_whitespace().next().unwrap_or_default();
            let is_ours = match format.parse::<u8>() {
                Ok(format) => track.payload_types().any(|payload_type| payload_type == format),
                Err(_) => format == "*",
            };
            is_ours.then(|| line.to_owned())
        }
        _ => kept,
    }
}
