//! The editing of an offer line by line, and every reply that a publish can meet.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::super::error::Call;
use super::*;

/// Lines of a Chromium offer, with simulcast; those that go no further are marked, those that change say into what.
const OFFER: &str = "  v=0
  o=- 4611731400430051336 2 IN IP4 127.0.0.1
  s=-
  t=0 0
  a=group:BUNDLE 0 1
  a=extmap-allow-mixed
  a=msid-semantic: WMS stream
> m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126 => m=audio 9 UDP/TLS/RTP/SAVPF 111 63
  c=IN IP4 0.0.0.0
  a=rtcp:9 IN IP4 0.0.0.0
  a=candidate:1467250027 1 udp 2122260223 192.168.0.196 46243 typ host generation 0 network-id 1
  a=candidate:1467250028 1 udp 2122260222 2c2b1b0e-1cc1-4b5f-8bf6-3a5b1b8f0d5e.local 46243 typ host
  a=ice-ufrag:ETEn
  a=ice-pwd:OtSK0WpNtpUjkY4+86js7Z/l
  a=ice-options:trickle
  a=fingerprint:sha-256 4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B:19:E5:7C:AB:3B:2A:FA:44:28:D2:FA:9C:A2:9F:1A:6E
  a=setup:actpass
  a=mid:0
  a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
  a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
  a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
> a=sendrecv => a=sendonly
  a=msid:stream audio
  a=rtcp-mux
  a=rtcp-rsize
  a=rtpmap:111 opus/48000/2
  a=rtcp-fb:111 transport-cc
  a=fmtp:111 minptime=10;useinbandfec=1
  a=rtpmap:63 red/48000/2
  a=fmtp:63 111/111
- a=rtpmap:9 G722/8000
- a=rtpmap:0 PCMU/8000
- a=rtpmap:8 PCMA/8000
- a=rtpmap:13 CN/8000
- a=rtpmap:110 telephone-event/48000
- a=rtpmap:126 telephone-event/8000
  a=ssrc:3570614608 cname:4TOk42mSjXCkVIa6
> m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 106 107 108 109 39 40 => m=video 9 UDP/TLS/RTP/SAVPF 108 109
  c=IN IP4 0.0.0.0
  b=AS:2500
  a=ice-ufrag:ETEn
  a=ice-pwd:OtSK0WpNtpUjkY4+86js7Z/l
  a=fingerprint:sha-256 4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B:19:E5:7C:AB:3B:2A:FA:44:28:D2:FA:9C:A2:9F:1A:6E
  a=setup:actpass
  a=mid:1
  a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
- a=extmap:13 urn:3gpp:video-orientation
- a=extmap:13/sendonly urn:3gpp:video-orientation
- a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id
- a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id
  a=sendonly
  a=rtcp-mux
  a=rtcp-fb:* transport-cc
- a=rtpmap:96 VP8/90000
- a=rtcp-fb:96 goog-remb
- a=rtpmap:97 rtx/90000
- a=fmtp:97 apt=96
- a=rtpmap:102 H264/90000
- a=rtcp-fb:102 nack
- a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f
- a=rtpmap:103 rtx/90000
- a=fmtp:103 apt=102
- a=rtpmap:106 H264/90000
- a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f
- a=rtpmap:107 rtx/90000
- a=fmtp:107 apt=106
  a=rtpmap:108 H264/90000
  a=rtcp-fb:108 nack pli
  a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
  a=rtpmap:109 rtx/90000
  a=fmtp:109 apt=108
- a=rtpmap:39 AV1/90000
- a=rtpmap:40 rtx/90000
- a=fmtp:40 apt=39
- a=rid:h send
- a=rid:l send
- a=simulcast:send h;l
- a=ssrc-group:SIM 1 2 3
  a=ssrc-group:FID 1 4
  a=ssrc:1 cname:4TOk42mSjXCkVIa6
";

/// The offer as it comes, and as it goes on.
fn before_and_after() -> (Vec<&'static str>, Vec<&'static str>) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for line in OFFER.lines() {
        let (mark, line) = line.split_at(2);
        match mark {
            "- " => before.push(line),
            "> " => {
                let (old, new) = line.split_once(" => ").unwrap();
                before.push(old);
                after.push(new);
            }
            _ => {
                before.push(line);
                after.push(line);
            }
        }
    }
    (before, after)
}

fn offer() -> String {
    before_and_after().0.join("\r\n") + "\r\n"
}

#[test]
fn only_what_the_relay_passes_on_goes_to_the_sfu_and_nothing_else_changes() {
    let (before, after) = before_and_after();
    let after = after.join("\r\n") + "\r\n";
    // However its lines end, and whether or not the last one ends at all.
    for text in [
        before.join("\r\n") + "\r\n",
        before.join("\n") + "\n",
        before.join("\r\n"),
        before.join("\n"),
        before.join("\r\n") + "\r\n\r\n",
    ] {
        let prepared = prepare(&text).unwrap();
        assert_eq!(prepared.offer, after);
    }
}

#[test]
fn the_edited_offer_is_one_that_edits_to_itself() {
    let once = prepare(&offer()).unwrap();
    assert_eq!(prepare(&once.offer).unwrap(), once);
}

#[test]
fn the_request_names_the_tracks_by_their_mids() {
    let prepared = prepare(&offer()).unwrap();
    let request = serde_json::to_value(prepared.request()).unwrap();
    assert_eq!(
        request["tracks"],
        json!([
            {"location": "local", "mid": "0", "trackName": "audio"},
            {"location": "local", "mid": "1", "trackName": "video"},
        ])
    );
    assert_eq!(request["sessionDescription"], json!({"type": "offer", "sdp": prepared.offer}));
    let kinds: Vec<_> = prepared.tracks.iter().map(|track| track.kind).collect();
    assert_eq!(kinds, [TrackKind::Audio, TrackKind::Video]);
}

#[test]
fn a_camera_or_a_microphone_alone_is_published_too() {
    for (media, name) in [("m=audio", "audio"), ("m=video", "video")] {
        let mut kept = true;
        let lines = offer()
            .lines()
            .filter(|line| {
                kept = if line.starts_with("m=") { line.starts_with(media) } else { kept };
                kept
            })
            .collect::<Vec<_>>()
            .join("\r\n");
        let prepared = prepare(&(lines + "\r\n")).unwrap();
        assert_eq!(prepared.tracks.iter().map(|track| track.name.as_str()).collect::<Vec<_>>(), [name]);
        assert_eq!(prepared.offer.matches("m=").count(), 1);
    }
}

#[test]
fn offers_that_the_sfu_could_not_serve_are_refused() {
    let data =
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\na=sctp-port:5000\r\n";
    let second_audio = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n";
    let first_data = offer().replacen("m=audio", &format!("{data}m=audio"), 1);
    let long_mid = "m".repeat(65);
    for (name, text, error) in [
        ("a data channel", offer() + data, PublishError::FurtherMedia),
        ("a data channel in front", first_data, PublishError::FurtherMedia),
        ("a second microphone", offer() + second_audio, PublishError::FurtherMedia),
        (
            "a long mid",
            offer()
                .replace("BUNDLE 0 1", &format!("BUNDLE 0 {long_mid}"))
                .replace("a=mid:1", &format!("a=mid:{long_mid}")),
            PublishError::NoMid,
        ),
        ("no H.264", offer().replace("H264/90000", "VP9/90000"), PublishError::Offer(OfferError::NoH264)),
        (
            "nothing sent",
            offer().replace("a=sendonly", "a=recvonly").replace("a=sendrecv", "a=recvonly"),
            PublishError::Offer(OfferError::NothingSent),
        ),
    ] {
        let refused = prepare(&text).unwrap_err();
        assert_eq!(refused, error, "{name}");
        assert!(!refused.is_worth_a_new_session());
    }
    let refused = prepare("hello").unwrap_err();
    assert!(matches!(refused, PublishError::Offer(OfferError::Text(_))), "{refused:?}");
    assert!(!refused.is_worth_a_new_session());
}

const ANSWER: &str = "v=0\r\na=fingerprint:sha-256 00\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:0011aabb\r\nm=video 9 UDP/TLS/RTP/SAVPF 108 109\r\n";

fn reply(value: serde_json::Value) -> TracksReply {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_reply_with_both_tracks_and_an_answer_is_a_publication() {
    let prepared = prepare(&offer()).unwrap();
    // The order of the items is the SFU's.
    let good =
        reply(json!({"requiresImmediateRenegotiation": false, "sessionDescription": {"type": "answer", "sdp": ANSWER},
        "tracks": [{"mid": "1", "trackName": "video"}, {"mid": "0", "trackName": "audio", "location": "local"}]}));
    assert_eq!(prepared.answer(good).unwrap(), ANSWER);
}

#[test]
fn every_other_reply_fails_the_publish_and_is_worth_a_new_session() {
    let prepared = prepare(&offer()).unwrap();
    let audio = json!({"mid": "0", "trackName": "audio"});
    let video = json!({"mid": "1", "trackName": "video"});
    let answer = |sdp: &str| json!({"type": "answer", "sdp": sdp});
    for (name, value, words) in [
        (
            "a failed item",
            json!({"sessionDescription": answer(ANSWER), "tracks": [audio, {"mid": "1", "trackName": "video", "errorCode": "internal_error", "errorDescription": "Backend error"}]}),
            "video was not registered: internal_error",
        ),
        (
            "a missing item",
            json!({"sessionDescription": answer(ANSWER), "tracks": [audio]}),
            "video was not registered: no_item",
        ),
        (
            "another mid",
            json!({"sessionDescription": answer(ANSWER), "tracks": [audio, {"mid": "7", "trackName": "video"}]}),
            "wrong_mid",
        ),
        ("no items", json!({"sessionDescription": answer(ANSWER)}), "audio was not registered"),
        ("no answer", json!({"tracks": [audio, video]}), "no answer"),
        (
            "an offer",
            json!({"sessionDescription": {"type": "offer", "sdp": ANSWER}, "tracks": [audio, video]}),
            "is an offer",
        ),
        (
            "renegotiation",
            json!({"requiresImmediateRenegotiation": true, "sessionDescription": answer(ANSWER), "tracks": [audio, video]}),
            "renegotiation",
        ),
        ("an empty answer", json!({"sessionDescription": answer(""), "tracks": [audio, video]}), "m-lines"),
        (
            "another number of m-lines",
            json!({"sessionDescription": answer(&ANSWER.replace("m=video", "x=video")), "tracks": [audio, video]}),
            "m-lines",
        ),
        (
            "no ICE credentials",
            json!({"sessionDescription": answer(&ANSWER.replace("a=ice-ufrag", "a=x")), "tracks": [audio, video]}),
            "ICE credentials",
        ),
        (
            "an endless answer",
            json!({"sessionDescription": answer(&(ANSWER.to_owned() + &"a=x\r\n".repeat(20_000))), "tracks": [audio, video]}),
            "too long",
        ),
    ] {
        let error = prepared.answer(reply(value)).unwrap_err();
        assert!(error.to_string().contains(words), "{name}: {error}");
        assert!(error.is_worth_a_new_session(), "{name}");
    }
}

#[test]
fn only_a_call_that_may_do_better_is_made_again_on_a_new_session() {
    let refused = |call, status, code: &str, retry_after| CallError {
        call,
        cause: Cause::Refused {
            status,
            code: code.to_owned(),
            description: "words".to_owned(),
            cf_ray: "ray".to_owned(),
            retry_after,
        },
    };
    let lost = CallError { call: Call::NewTracks, cause: Cause::ReplyLost("x".to_owned()) };
    let unreachable = CallError { call: Call::NewSession, cause: Cause::Unreachable("x".to_owned()) };
    let nine = Duration::from_secs(9);
    for (error, again) in [
        (unreachable, true),
        (lost, true),
        (refused(Call::NewSession, 401, "unauthorized", None), false),
        (refused(Call::NewSession, 404, "not_found", None), false),
        (refused(Call::NewTracks, 400, "invalid_session_description", None), false),
        (refused(Call::NewTracks, 400, "decoding_error", None), false),
        (refused(Call::NewTracks, 406, "invalid_params", None), true),
        (refused(Call::NewTracks, 410, "session_error", None), true),
        (refused(Call::NewTracks, 429, "", Some(nine)), true),
        (refused(Call::NewTracks, 500, "internal_error", None), true),
    ] {
        let name = error.to_string();
        let error = PublishError::Call(error);
        assert_eq!(error.is_worth_a_new_session(), again, "{name}");
    }
}
