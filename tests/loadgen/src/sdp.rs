//! The SDP beside a recording: which payload type is what.
//!
//! Only `m=`, `a=rtpmap` and `a=fmtp` lines are written and read (RFC 8866).

pub(crate) const H264: &str = "H264";
pub(crate) const OPUS: &str = "opus";

/// Reduces a session's SDP to what describes the recorded primary streams.
pub(crate) fn of_recording(session: &str) -> String {
    let mut out = String::from("v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n");
    for (media, encoding) in [("video", H264), ("audio", OPUS)] {
        let Some((payload_type, rtpmap)) = rtpmap(session, encoding) else {
            continue;
        };
        out.push_str(&format!("m={media} 9 RTP/AVP {payload_type}\r\na=rtpmap:{payload_type} {rtpmap}\r\n"));
        if let Some(fmtp) = fmtp(session, payload_type) {
            out.push_str(&format!("a=fmtp:{payload_type} {fmtp}\r\n"));
        }
    }
    out
}

/// The first payload type with this encoding name.
pub(crate) fn payload_type(sdp: &str, encoding: &str) -> Option<u8> {
    rtpmap(sdp, encoding).map(|(payload_type, _)| payload_type)
}

/// `(108, "H264/90000")`
fn rtpmap<'a>(sdp: &'a str, encoding: &str) -> Option<(u8, &'a str)> {
    sdp.lines().find_map(|line| {
        let (payload_type, map) = line.strip_prefix("a=rtpmap:")?.split_once(' ')?;
        let name = map.split('/').next()?;
        if !name.eq_ignore_ascii_case(encoding) {
            return None;
        }
        Some((payload_type.parse().ok()?, map))
    })
}

fn fmtp(sdp: &str, wanted: u8) -> Option<&str> {
    sdp.lines().find_map(|line| {
        let (payload_type, parameters) = line.strip_prefix("a=fmtp:")?.split_once(' ')?;
        (payload_type.parse() == Ok(wanted)).then_some(parameters)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Lines of an answer to Chromium 156.
    const ANSWER: &str = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 109 114\r\na=rtpmap:109 H264/90000\r\n\
        a=rtcp-fb:109 nack\r\na=fmtp:109 packetization-mode=1;profile-level-id=42e01f\r\na=rtpmap:114 rtx/90000\r\n\
        a=fmtp:114 apt=109\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\n\
        a=fmtp:111 minptime=10;useinbandfec=1\r\n";

    #[test]
    fn the_recordings_sdp_has_the_primary_payload_types_only() {
        let sdp = of_recording(ANSWER);
        assert_eq!(payload_type(&sdp, H264), Some(109));
        assert_eq!(payload_type(&sdp, OPUS), Some(111));
        assert_eq!(payload_type(&sdp, "rtx"), None);
        let expected = "m=video 9 RTP/AVP 109\r\na=rtpmap:109 H264/90000\r\n\
            a=fmtp:109 packetization-mode=1;profile-level-id=42e01f\r\n\
            m=audio 9 RTP/AVP 111\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n";
        assert_eq!(sdp.split_once("t=0 0\r\n").map(|(_, media)| media), Some(expected));
    }
}
