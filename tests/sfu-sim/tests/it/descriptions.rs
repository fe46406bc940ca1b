//! The descriptions that the service writes, against captures of the real one (ids, credentials and addresses replaced).

use serde_json::{Value, json};

use crate::media::{both, live_publisher, start};
use crate::peer::{Api, Publisher, Subscriber, remote};

fn session_lines(sdp: &str) -> Vec<&str> {
    sdp.lines().take_while(|line| !line.starts_with("m=")).collect()
}

fn sections(sdp: &str) -> Vec<Vec<&str>> {
    let sections = sdp.split("\r\nm=").skip(1);
    sections.map(|section| section.lines().collect()).collect()
}

fn pull_offer(api: &Api, tracks: &Value) -> (Value, String) {
    let (_, reply) = api.tracks_new(&api.new_session(), &json!({"tracks": tracks}));
    let sdp = reply["sessionDescription"]["sdp"].as_str().unwrap().to_owned();
    (reply, sdp)
}

/// Candidates: the same one for both components, in the first section only, and the end of them.
fn check_candidates(sdp: &str, address: std::net::SocketAddr) {
    let sections = sections(sdp);
    let of = |section: &Vec<&str>| -> Vec<String> {
        let lines = section.iter().filter(|line| line.contains("candidate"));
        lines.map(|line| (*line).to_owned()).collect()
    };
    let line = |component| {
        let (ip, port) = (address.ip(), address.port());
        format!("a=candidate:513273236 {component} udp 2130706431 {ip} {port} typ host")
    };
    assert_eq!(of(&sections[0]), [line(1), line(2), "a=end-of-candidates".to_owned()]);
    assert!(sections[1..].iter().all(|section| of(section).is_empty()));
}

#[test]
fn the_answer_to_a_publisher_is_ice_lite_passive_and_keeps_one_video_codec() {
    let (sfu, api) = start();
    let (publisher, _) = Publisher::prepare(&loadgen::clip::Clip::chromium_720p(), String::new());
    // What a browser offers besides: another H.264 profile, RED, an extension that the service does not take.
    let more = "a=rtpmap:102 H264/90000\r\na=fmtp:102 profile-level-id=42001f;packetization-mode=1\r\n\
        a=extmap:13 urn:3gpp:video-orientation\r\na=rtcp-mux\r\n";
    let offer = publisher.offer.replace("UDP/TLS/RTP/SAVPF 108", "UDP/TLS/RTP/SAVPF 102 108");
    let offer = offer.replace("a=rtcp-mux\r\n", more);
    assert!(offer.contains("SAVPF 102 108"));
    let body = json!({"sessionDescription": {"type": "offer", "sdp": offer}, "autoDiscover": true});
    let (_, reply) = api.tracks_new(&api.new_session(), &body);
    let sdp = reply["sessionDescription"]["sdp"].as_str().unwrap();

    let lines = session_lines(sdp);
    assert_eq!(lines[0], "v=0");
    let origin: Vec<&str> = lines[1].split(' ').collect();
    assert_eq!((origin[0], &origin[3..]), ("o=-", &["IN", "IP4", "0.0.0.0"][..]));
    assert!(origin[1].len() <= 19);
    assert_eq!(&lines[2..5], ["s=-", "t=0 0", "a=msid-semantic:WMS*"]);
    assert!(lines[5].starts_with("a=fingerprint:sha-256 "));
    let mids: Vec<&str> = offer.lines().filter_map(|line| line.strip_prefix("a=mid:")).collect();
    let bundle = format!("a=group:BUNDLE {}", mids.join(" "));
    assert_eq!(&lines[6..], ["a=ice-lite", "a=extmap-allow-mixed", &bundle]);

    check_candidates(sdp, sfu.media_address());
    let sections = sections(sdp);
    assert_eq!(sections.len(), 2);
    let credentials: Vec<&&str> = sections[0].iter().filter(|line| line.starts_with("a=ice-")).collect();
    for (section, mid) in sections.iter().zip(mids) {
        assert!(section[0].contains(" 9 UDP/TLS/RTP/SAVPF "));
        let mid = format!("a=mid:{mid}");
        for line in ["c=IN IP4 0.0.0.0", "a=setup:passive", &mid, "a=rtcp-mux", "a=rtcp-rsize", "a=recvonly"] {
            assert!(section.contains(&line), "{line} in {section:?}");
        }
        let same: Vec<&&str> = section.iter().filter(|line| line.starts_with("a=ice-")).collect();
        assert_eq!(same, credentials);
    }
    assert_eq!(credentials[0].len(), "a=ice-ufrag:".len() + 8);
    assert!(sdp.contains("m=video 9 UDP/TLS/RTP/SAVPF 108 109\r\n"), "{sdp}");
    for line in [
        "a=rtcp-fb:108 nack\r\n",
        "a=rtcp-fb:108 nack pli\r\n",
        "a=rtcp-fb:108 transport-cc\r\n",
        "a=fmtp:109 apt=108\r\n",
    ] {
        assert!(sdp.contains(line), "{line}");
    }
    assert!(!sdp.contains("goog-remb") && !sdp.contains("video-orientation") && !sdp.contains("rtpmap:102"));
}

#[test]
fn the_offer_to_a_subscriber_has_several_codecs_under_payload_types_of_its_own() {
    let (sfu, api) = start();
    let publisher = live_publisher(&sfu, &api);
    let (reply, sdp) = pull_offer(&api, &both(&publisher));
    assert_eq!(reply["tracks"][0], json!({"sessionId": publisher.session, "trackName": "audio", "mid": "0"}));
    assert_eq!(reply["tracks"][1], json!({"sessionId": publisher.session, "trackName": "video", "mid": "1"}));

    let lines = session_lines(&sdp);
    assert_eq!(&lines[lines.len() - 3..], ["a=ice-lite", "a=extmap-allow-mixed", "a=group:BUNDLE 0 1"]);
    check_candidates(&sdp, sfu.media_address());
    let sections = sections(&sdp);
    let names = |section: &Vec<&str>| -> Vec<String> {
        let maps = section.iter().filter_map(|line| line.strip_prefix("a=rtpmap:"));
        maps.map(|map| map.split(' ').nth(1).unwrap().to_owned()).collect()
    };
    assert_eq!(names(&sections[0]), ["opus/48000/2"]);
    let video = ["H264/90000", "rtx/90000", "VP9/90000", "rtx/90000", "VP8/90000", "rtx/90000", "AV1/90000"];
    assert_eq!(names(&sections[1]), video);
    assert!(sdp.contains(" level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e034\r\n"));
    for section in &sections {
        for line in ["a=setup:actpass", "a=sendonly", "a=rtcp-mux"] {
            assert!(section.contains(&line), "{line} in {section:?}");
        }
        // One SSRC, with cname and msid.
        let ssrc: Vec<&&str> = section.iter().filter(|line| line.starts_with("a=ssrc")).collect();
        assert_eq!(ssrc.len(), 2, "{ssrc:?}");
        assert!(ssrc[0].contains(" cname:") && ssrc[1].contains(" msid:"));
    }

    let payload_types = |sdp: &str| -> Vec<u8> {
        let lines = sdp.lines().filter(|line| line.starts_with("m="));
        lines.flat_map(|line| line.split(' ').skip(3).map(|word| word.parse().unwrap())).collect()
    };
    let ours = payload_types(&sdp);
    let theirs = payload_types(&publisher.answer);
    assert_eq!(ours.len(), 8);
    assert!(ours.iter().all(|payload_type| !theirs.contains(payload_type)), "{ours:?} {theirs:?}");
    let mut unique = ours.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ours.len(), "unique in the BUNDLE group");
    // And others in the next session.
    let (_, other) = pull_offer(&api, &both(&publisher));
    assert_ne!(payload_types(&other), ours);
}

#[test]
fn a_later_offer_repeats_all_sections() {
    let (sfu, api) = start();
    let mut publisher = live_publisher(&sfu, &api);
    let mut subscriber = Subscriber::pull(&api, &json!([remote(&publisher.session, "audio")]));
    assert!(crate::peer::run(&mut [&mut publisher, &mut subscriber], crate::peer::PATIENCE, |_| {
        sfu.snapshot().sessions.iter().all(|session| session.connected)
    }));
    let reply = subscriber.pull_more(&api, &json!([remote(&publisher.session, "video")]));
    assert_eq!(reply["tracks"][0]["mid"], "1");
    let sdp = reply["sessionDescription"]["sdp"].as_str().unwrap();
    assert!(sdp.contains("a=group:BUNDLE 0 1\r\n"));
    let kinds: Vec<&str> = sections(sdp).iter().map(|section| &section[0][..5]).collect();
    assert_eq!(kinds, ["audio", "video"]);
    assert_eq!(sfu.violations(), []);
}
