//! Offers of Chromium and of the SFU, their answers, and offers that cannot be answered.
#![allow(clippy::unwrap_used)]

use guest_relay_muxer::TrackKind;

use super::super::dtls::{Fingerprint, FingerprintError};
use super::super::ice::Credentials;
use super::*;
use crate::http::status::of_offer;

mod offers;

use offers::{CHROMIUM, SFU};

fn parse(text: &str) -> Result<Offer, OfferError> {
    Offer::parse(text, RemoteAddresses::Remote)
}

fn tracks(text: &str) -> Vec<Track> {
    parse(text).unwrap().tracks().cloned().collect()
}

/// Payload type of the media and of its retransmissions, of each format.
fn formats(track: &Track) -> Vec<(u8, Option<u8>)> {
    let formats = track.formats.iter();
    formats.map(|format| (format.payload_type, format.rtx_payload_type)).collect()
}

fn refusal(text: &str) -> OfferError {
    parse(text).unwrap_err()
}

fn answer_to(text: &str) -> Vec<String> {
    let offer = parse(text).unwrap();
    let sdp = Answer {
        origin: Origin::generate(),
        offer: &offer,
        credentials: &Credentials::parse("oursours", "ourpasswordourpassword").unwrap(),
        fingerprint: Fingerprint::of(b"certificate"),
        candidates: &["192.168.1.5:8189".parse().unwrap(), "[fd00::1]:8189".parse().unwrap()],
        start_bitrate_kbps: 1500,
        max_bitrate_kbps: 2500,
        opus: OpusSettings { max_average_bitrate_bps: 64_000, stereo: false },
    }
    .to_sdp();
    assert!(sdp.ends_with("\r\n") && sdp.lines().all(|line| line.len() > 2));
    sdp.split_terminator("\r\n").map(str::to_owned).collect()
}

/// The answer's lines from one m-line up to the next.
fn section(answer: &[String], media: &str) -> Vec<String> {
    let start = answer.iter().position(|l| l.starts_with(media)).unwrap();
    let mut lines = answer.iter().skip(start).cloned();
    let first = lines.next();
    first.into_iter().chain(lines.take_while(|line| !line.starts_with("m="))).collect()
}

#[test]
fn chromiums_tracks_are_picked_by_property() {
    let [audio, video] = tracks(CHROMIUM).try_into().unwrap();
    assert_eq!(audio.kind, TrackKind::Audio);
    assert_eq!(formats(&audio), [(111, None)]);
    assert_eq!((audio.ssrc, audio.rtx_ssrc), (Some(3_570_614_608), None));
    assert_eq!(audio.mid.as_deref(), Some("0"));
    assert!(audio.feedback.transport_cc && !audio.feedback.nack);
    assert_eq!(video.kind, TrackKind::Video);
    assert_eq!(formats(&video), [(106, Some(107))]);
    assert_eq!((video.ssrc, video.rtx_ssrc), (Some(2_231_627_014), Some(632_943_048)));
    assert_eq!(video.feedback, Feedback { nack: true, pli: true, fir: true, remb: true, transport_cc: true });
    assert_eq!(video.extensions, HeaderExtensions { transport_cc: Some(3), abs_send_time: Some(2), mid: Some(4) });
    assert!(video.reduced_size_rtcp);
}

#[test]
fn the_answer_to_chromium_says_what_a_receiver_has_to_say() {
    let answer = answer_to(CHROMIUM);
    assert_eq!(answer[0], "v=0");
    assert!(answer.contains(&"a=group:BUNDLE 0 1".to_owned()));
    assert!(answer.contains(&"a=ice-lite".to_owned()));
    assert!(!answer.iter().any(|line| line.contains("video-orientation")));
    let audio = section(&answer, "m=audio");
    let fingerprint = format!("a=fingerprint:{}", Fingerprint::of(b"certificate"));
    let transport =
        ["a=ice-ufrag:oursours", "a=ice-pwd:ourpasswordourpassword", fingerprint.as_str(), "a=setup:active"];
    let expected_audio = [
        ["m=audio 9 UDP/TLS/RTP/SAVPF 63 111", "c=IN IP4 0.0.0.0", "a=mid:0"].as_slice(),
        &transport,
        &[
            "a=candidate:1 1 udp 2130706431 192.168.1.5 8189 typ host",
            "a=candidate:2 1 udp 2130706175 fd00::1 8189 typ host",
            "a=end-of-candidates",
            "a=recvonly",
            "a=rtcp-mux",
            "a=rtcp-rsize",
            "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            "a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
            "a=rtpmap:111 opus/48000/2",
            "a=fmtp:111 minptime=10;useinbandfec=1;usedtx=0;maxaveragebitrate=64000",
            "a=rtcp-fb:111 transport-cc",
            "a=rtpmap:63 red/48000/2",
            "a=fmtp:63 111/111",
        ],
    ]
    .concat();
    assert_eq!(audio, expected_audio);
    let video = section(&answer, "m=video");
    let expected_video = [
        [
            "m=video 9 UDP/TLS/RTP/SAVPF 106 107",
            "c=IN IP4 0.0.0.0",
            "b=AS:2500",
            "a=mid:1",
        ]
        .as_slice(),
        &transport,
        &[
            "a=recvonly",
            "a=rtcp-mux",
            "a=rtcp-rsize",
            "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            "a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
            "a=rtpmap:106 H264/90000",
            "a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f;x-google-start-bitrate=1500",
            "a=rtcp-fb:106 goog-remb",
            "a=rtcp-fb:106 transport-cc",
            "a=rtcp-fb:106 ccm fir",
            "a=rtcp-fb:106 nack",
            "a=rtcp-fb:106 nack pli",
            "a=rtpmap:107 rtx/90000",
            "a=fmtp:107 apt=106",
        ],
    ]
    .concat();
    assert_eq!(video, expected_video);
}

#[test]
fn h264_profiles_are_taken_in_order_and_the_first_among_equals() {
    for (profiles, taken) in [
        (["42001f", "42e01f", "64001f", "4d001f"], Some(1)),
        (["4d001f", "64001f", "42001f", "64001f"], Some(2)),
        (["64001f", "4d001f", "640c1f", "4d001f"], Some(1)),
        (["640c1f", "64001f", "f4001f", "6e001f"], Some(0)),
        (["42e034", "42c01f", "42e01f", "42001f"], Some(0)),
        (["f4001f", "zz001f", "42e0", "42e01f0"], None),
    ] {
        let mut offer = CHROMIUM.replace("packetization-mode=0", "packetization-mode=2");
        for (payload_type, profile) in [102, 106, 108, 39].into_iter().zip(profiles) {
            let start = offer.find(&format!("a=fmtp:{payload_type} ")).unwrap();
            let end = start + offer[start..].find('\n').unwrap();
            offer.replace_range(
                start..end,
                &format!("a=fmtp:{payload_type} packetization-mode=1; Profile-Level-Id={profile}"),
            );
        }
        match taken {
            Some(index) => {
                let payload_type = [102, 106, 108, 39][index];
                let video = tracks(&offer).pop().unwrap();
                let expected = [(payload_type, Some(payload_type + 1))];
                assert_eq!(formats(&video), expected, "{profiles:?}");
            }
            None => assert_eq!(refusal(&offer), OfferError::NoH264),
        }
    }
}

#[test]
fn an_sfu_offer_makes_us_the_checking_side() {
    let offer = parse(SFU).unwrap();
    assert!(offer.transport.ice_lite);
    assert_eq!(offer.transport.candidates, ["192.0.2.7:1473".parse().unwrap()]);
    let [video, audio] = tracks(SFU).try_into().unwrap();
    assert_eq!(formats(&video), [(125, Some(37))]);
    assert_eq!(formats(&audio), [(111, None)]);
    assert_eq!((video.ssrc, audio.ssrc), (Some(77), Some(78)));
    let answer = answer_to(SFU);
    assert!(!answer.contains(&"a=ice-lite".to_owned()));
    assert!(section(&answer, "m=video").contains(&"a=setup:active".to_owned()));
    assert_eq!(
        refusal(&SFU.replace(" typ host", "").replace("192.0.2.7", "sfu.local")),
        OfferError::from(DescriptionError::NoCandidates)
    );
}

#[test]
fn unusable_m_lines_are_refused_with_port_0_and_keep_their_place() {
    let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:data
a=sctp-port:5000
";
    // A screen share without H.264 before the camera, and a data channel behind it.
    let (session, rest) = CHROMIUM.split_at(CHROMIUM.find("m=audio").unwrap());
    let (audio, video) = rest.split_at(rest.find("m=video").unwrap());
    let session = session.replace("BUNDLE 0 1", "BUNDLE s 0 1 t data");
    let screen = video.replace("H264", "H265").replace("mid:1", "mid:s");
    let second_camera = video.replace("mid:1", "mid:t");
    let offer = format!("{session}{screen}{audio}{video}{second_camera}{data}");
    let answer = answer_to(&offer);
    let m_lines: Vec<&String> = answer.iter().filter(|l| l.starts_with("m=")).collect();
    assert_eq!(
        m_lines,
        [
            "m=video 0 UDP/TLS/RTP/SAVPF 96",
            "m=audio 9 UDP/TLS/RTP/SAVPF 63 111",
            "m=video 9 UDP/TLS/RTP/SAVPF 106 107",
            "m=video 0 UDP/TLS/RTP/SAVPF 96",
            "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
        ]
    );
    assert!(answer.contains(&"a=group:BUNDLE 0 1".to_owned()));
    let refused = section(&answer, "m=application");
    assert!(refused.contains(&"a=mid:data".to_owned()));
    assert!(refused.contains(&"a=inactive".to_owned()));
    // The candidates stand in the first m-line that is taken.
    let with_candidates = section(&answer, "m=audio");
    assert!(with_candidates.contains(&"a=end-of-candidates".to_owned()));
}

#[test]
fn one_track_alone_is_enough_and_needs_no_bundle() {
    let (session, rest) = CHROMIUM.split_at(CHROMIUM.find("m=audio").unwrap());
    let (audio, video) = rest.split_at(rest.find("m=video").unwrap());
    let session = session.replace("a=group:BUNDLE 0 1\n", "");
    for (name, media, kind) in [("m=audio", audio, TrackKind::Audio), ("m=video", video, TrackKind::Video)] {
        let offer = format!("{session}{media}");
        assert_eq!(tracks(&offer)[0].kind, kind);
        let answer = answer_to(&offer);
        assert!(!answer.iter().any(|line| line.starts_with("a=group")));
        assert!(section(&answer, name).contains(&"a=recvonly".to_owned()));
    }
    // A muted camera: the m-line is there, but receives only.
    let offer = format!("{session}{audio}{}", video.replace("sendonly", "recvonly"))
        .replace("s=-\n", "s=-\nc=IN IP4 0.0.0.0\n");
    assert_eq!(tracks(&offer).len(), 1);
}

#[test]
fn offers_that_cannot_be_answered_say_why_and_with_which_status() {
    let without =
        |line: &str| CHROMIUM.lines().filter(|l| !l.starts_with(line)).fold(String::new(), |text, l| text + l + "\n");
    let replaced = |from: &str, to: &str| {
        let text = CHROMIUM.replace(from, to);
        assert_ne!(text, CHROMIUM, "{from} is not in the offer");
        text
    };
    let fingerprint = |error| DescriptionError::Fingerprint(error).into();
    for (offer, error, status) in [
        (replaced("H264", "H263"), OfferError::NoH264, 406),
        (
            replaced("packetization-mode=1", "packetization-mode=2")
                .replace("packetization-mode=0", "packetization-mode=2"),
            OfferError::NoH264,
            406,
        ),
        (replaced("opus/48000/2", "opus/48000"), OfferError::NoOpus, 406),
        (replaced("a=sendonly", "a=inactive"), OfferError::NothingSent, 422),
        (replaced("a=sendonly", "a=recvonly"), OfferError::NothingSent, 422),
        (replaced("RTP/SAVPF", "RTP/AVPF"), OfferError::NothingSent, 422),
        (without("a=rtcp-mux"), DescriptionError::NoRtcpMux.into(), 422),
        (without("a=group"), DescriptionError::NoBundle.into(), 422),
        (replaced("BUNDLE 0 1", "BUNDLE 0"), DescriptionError::NoBundle.into(), 422),
        (replaced("a=mid:1", "a=mid:0"), OfferError::DuplicateMid, 400),
        (replaced("111", "106"), DescriptionError::DuplicatePayloadType.into(), 400),
        (without("a=ice-ufrag"), DescriptionError::IceCredentials.into(), 400),
        (without("a=ice-pwd"), DescriptionError::IceCredentials.into(), 400),
        (replaced("a=ice-ufrag:ETEn", "a=ice-ufrag:a:b c"), DescriptionError::IceCredentials.into(), 400),
        (replaced("actpass", "active"), OfferError::SetupActive, 422),
        (without("a=setup"), OfferError::SetupActive, 422),
        (replaced("actpass", "holdconn"), OfferError::Setup, 400),
        (without("a=fingerprint"), fingerprint(FingerprintError::Missing), 422),
        (replaced("sha-256", "sha-1"), fingerprint(FingerprintError::NoSha256), 422),
        (replaced("4A:AD", "4A:AG"), fingerprint(FingerprintError::Malformed), 400),
    ] {
        let refused = refusal(&offer);
        assert_eq!(refused, error);
        assert_eq!(of_offer(&refused), status, "{error}");
        assert!(!refused.to_string().is_empty());
    }
    for nonsense in ["", "v=0", "hello", "\r\n\r\n", "v=0\no=- 1 1 IN IP4 x\ns=-\n"] {
        assert!(matches!(refusal(nonsense), OfferError::Description(DescriptionError::Text(TextError::Syntax(_)))));
        assert_eq!(of_offer(&refusal(nonsense)), 400);
    }
}

#[test]
fn fingerprint_and_setup_may_stand_at_session_level_and_in_lower_case() {
    let line = CHROMIUM.lines().find(|line| line.starts_with("a=fingerprint")).unwrap();
    let moved = CHROMIUM
        .replace(&format!("{line}\n"), "")
        .replace("a=setup:actpass\n", "")
        .replace("a=extmap-allow-mixed\n", &format!("{}\na=setup:passive\n", line.to_lowercase()));
    assert_eq!(parse(&moved).unwrap().transport.fingerprints, parse(CHROMIUM).unwrap().transport.fingerprints);
}

#[test]
fn payload_types_that_look_like_rtcp_are_passed_over_and_impossible_ones_refused() {
    for (number, status) in [("72", 406), ("95", 406), ("128", 400), ("300", 400), ("-1", 400), ("x", 400)] {
        let offer = CHROMIUM.replace(" 111 ", &format!(" {number} ")).replace(":111 ", &format!(":{number} "));
        let refused = refusal(&offer);
        assert_eq!(of_offer(&refused), status, "{number}: {refused}");
        assert_eq!(refused == OfferError::NoOpus, status == 406);
    }
}

/// Lines that nobody here reads, in forms that the `sdp` crate refuses or that nobody ever wrote.
#[test]
fn odd_lines_that_mean_nothing_to_us_are_passed_over() {
    let expected = parse(CHROMIUM).unwrap();
    let origin = CHROMIUM.lines().find(|line| line.starts_with("o=")).unwrap();
    for odd in [
        "o=- -2208991488 2208991488 IN IP4 127.0.0.1",
        "o=- 99999999999999999999999 -1 IN IP4 0.0.0.0",
        "o=me and you 1 2 IN IP4 host",
        "o=- 1 2 ATM NSAP 47.0091",
        "o=- 1.5 0x2 IN IP6 ::1",
        "o=-",
        "o=",
    ] {
        let offer = CHROMIUM.replace(origin, odd);
        assert_eq!(parse(&offer).unwrap().transport, expected.transport, "{odd}");
    }
    for odd in [
        "t=-1 0",
        "t=0",
        "t=3034423619.5 never",
        "i=a\u{e9}\nt=0 0",
        "u=not a uri\nt=0 0",
        "c=ATM NSAP x\nb=AS:1.5\nt=0 0",
        "e=\np=\nc=\nt=0 0\nr=7d\nz=1\nk=prompt",
    ] {
        let offer = CHROMIUM.replace("t=0 0", odd);
        assert_ne!(offer, CHROMIUM);
        assert_eq!(parse(&offer).unwrap().transport, expected.transport, "{odd}");
    }
    let offer = CHROMIUM.replace("c=IN IP4 0.0.0.0", "c=IN IP4\nb=TIAS:-1\nb=X-YZ\ni=camera\nk=clear:x");
    assert_eq!(tracks(&offer), tracks(CHROMIUM));
}

#[test]
fn an_m_line_of_another_medium_or_protocol_gets_port_0_wherever_it_stands() {
    let (session, rest) = CHROMIUM.split_at(CHROMIUM.find("m=audio").unwrap());
    let (audio, video) = rest.split_at(rest.find("m=video").unwrap());
    for (m_line, answered) in [
        ("m=message 9 TCP/TLS/MSRP *", "m=message 0 TCP/TLS/MSRP *"),
        ("m=application 9 UDP/BFCP *", "m=application 0 UDP/BFCP *"),
        ("m=application 50001 TCP/WSS/BFCP *", "m=application 0 TCP/WSS/BFCP *"),
        ("m=image 9 UDPTL t38", "m=image 0 UDPTL t38"),
        ("m=hologram 9 QUIC/v1 a b c", "m=hologram 0 QUIC/v1 a"),
        ("m=text 9 RTP/AVP 98", "m=text 0 RTP/AVP 98"),
        ("m=audio 9 RTP/AVP 0", "m=audio 0 RTP/AVP 0"),
        ("m=video 9 TCP/RTP/AVP 96", "m=video 0 TCP/RTP/AVP 96"),
        ("m=video 9/2 MP2T/UDP 33", "m=video 0 MP2T/UDP 33"),
    ] {
        let other = format!("{m_line}\nc=IN IP4 0.0.0.0\na=mid:x\na=inactive\n");
        for offer in [[audio, video, &other], [audio, &other, video], [&other, audio, video]] {
            let offer = format!("{}{}", session.replace("BUNDLE 0 1", "BUNDLE 0 x 1"), offer.concat());
            let answer = answer_to(&offer);
            assert!(answer.contains(&answered.to_owned()), "{m_line}: {answer:?}");
            assert!(answer.contains(&"a=group:BUNDLE 0 1".to_owned()));
            assert_eq!(section(&answer, "m=video 9").len(), section(&answer_to(CHROMIUM), "m=video 9").len());
            assert_eq!(answer.iter().filter(|line| line.starts_with("m=")).count(), 3);
            assert_eq!(answer.iter().filter(|line| *line == "a=end-of-candidates").count(), 1);
        }
    }
}

#[test]
fn m_lines_that_cannot_be_are_refused_whatever_they_are_for() {
    for m_line in [
        "m=audio 65536 UDP/TLS/RTP/SAVPF 111",
        "m=audio -1 UDP/TLS/RTP/SAVPF 111",
        "m=audio x UDP/TLS/RTP/SAVPF 111",
        "m=audio 9/ UDP/TLS/RTP/SAVPF 111",
        "m=audio 9/70000 UDP/TLS/RTP/SAVPF 111",
        "m=audio 9 UDP/TLS/RTP/SAVPF",
        "m=audio 9",
        "m=",
        "m=video 9 RTP/AVP 128",
        "m=message 99999 TCP/TLS/MSRP *",
        "m=application 9 UDP/BFCP",
    ] {
        let refused = refusal(&format!("{CHROMIUM}{m_line}\n"));
        assert_eq!(of_offer(&refused), 400, "{m_line}: {refused}");
        assert!(refused.to_string().starts_with("this is not SDP: "), "{refused}");
    }
}

#[test]
fn h264_without_fragments_is_taken_where_there_is_no_other_and_answered_in_its_mode() {
    let without_fmtp = CHROMIUM
        .lines()
        .filter(|line| !line.starts_with("a=fmtp:106 "))
        .fold(String::new(), |text, line| text + line + "\n");
    let only_106 = |offer: &str| {
        let m_line = offer.lines().find(|line| line.starts_with("m=video")).unwrap().to_owned();
        offer.replace(&m_line, "m=video 9 UDP/TLS/RTP/SAVPF 106 107")
    };
    let fmtp = "a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
    assert!(CHROMIUM.contains(fmtp));
    let with = |fmtp_106: &str| only_106(&CHROMIUM.replace(fmtp, fmtp_106));
    for (offer, mode, profile) in [
        (only_106(CHROMIUM), "1", "42e01f"),
        (only_106(&without_fmtp), "0", "420010"),
        (with("a=fmtp:106 profile-level-id=42e01f;level-asymmetry-allowed=1"), "0", "42e01f"),
        (with("a=fmtp:106 packetization-mode=0"), "0", "420010"),
        (with("a=fmtp:106 packetization-mode=0; profile-level-id=64001f"), "0", "64001f"),
    ] {
        let answer = answer_to(&offer);
        let expected = format!(
            "a=fmtp:106 level-asymmetry-allowed=1;packetization-mode={mode};profile-level-id={profile};x-google-start-bitrate=1500"
        );
        assert!(answer.contains(&expected), "{expected} is not in {answer:?}");
    }
    assert_eq!(refusal(&with("a=fmtp:106 packetization-mode=2")), OfferError::NoH264);
    // A better profile does not make up for packets that no fragment helps to fill.
    let high = CHROMIUM
        .replace("packetization-mode=1;profile-level-id=42e01f", "packetization-mode=1;profile-level-id=64001f");
    let high =
        high.replace("packetization-mode=1;profile-level-id=42001f", "packetization-mode=1;profile-level-id=64001f");
    let video = tracks(&high).pop().unwrap();
    assert_eq!(video.formats[0].packetization_mode, super::track::PacketizationMode::NonInterleaved);
}

#[test]
fn wildcard_feedback_counts_and_extensions_that_cannot_be_received_do_not() {
    let offer = CHROMIUM
        .replace("a=rtcp-fb:111 transport-cc", "a=rtcp-fb:* nack")
        .replace("a=extmap:3 ", "a=extmap:15 ")
        .replace("a=extmap:4 ", "a=extmap:4/sendonly ")
        .replace("a=extmap:2 ", "a=extmap:2/recvonly ");
    let [audio, video] = tracks(&offer).try_into().unwrap();
    assert!(audio.feedback.nack && !audio.feedback.transport_cc);
    assert_eq!(video.extensions.transport_cc, None);
    assert_eq!(video.extensions.mid, Some(4));
    assert_eq!(video.extensions.abs_send_time, None);
}

#[test]
fn of_simulcast_nothing_is_answered_so_that_one_stream_comes() {
    let simulcast = "a=rid:h send\na=rid:l send\na=simulcast:send h;l\na=ssrc:2231627014 ";
    let offer = CHROMIUM.replacen("a=ssrc:2231627014 ", simulcast, 1).replace(
        "a=extmap:14 urn:ietf:params:rtp-hdrext:toffset",
        "a=extmap:14 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    );
    assert_ne!(offer, CHROMIUM);
    // RFC 8853 §5.3.2: an answer without it means that the offerer sends no simulcast.
    assert_eq!(answer_to(&offer)[2..], answer_to(CHROMIUM)[2..]);
}

#[test]
fn redundant_audio_is_taken_only_where_it_carries_the_opus_that_is_taken() {
    for (line, edited, red) in [
        ("a=fmtp:63 111/111", "a=fmtp:63 111/111", Some(63)),
        ("a=fmtp:63 111/111", "a=fmtp:63 111", Some(63)),
        ("a=fmtp:63 111/111", "a=fmtp:63 111/111/111", Some(63)),
        ("a=fmtp:63 111/111", "a=fmtp:63 111/9", None),
        ("a=fmtp:63 111/111", "a=fmtp:63 111/", None),
        ("a=fmtp:63 111/111", "a=x", None),
        ("a=rtpmap:63 red/48000/2", "a=rtpmap:63 red/8000", None),
    ] {
        let offer = CHROMIUM.replace(line, edited);
        assert_ne!((offer == CHROMIUM, line == edited), (true, false));
        let [audio, _] = tracks(&offer).try_into().unwrap();
        assert_eq!(audio.formats[0].red_payload_type, red, "{edited}");
        let answer = answer_to(&offer);
        let m_line = section(&answer, "m=audio")[0].clone();
        assert_eq!(m_line.ends_with(" 63 111"), red.is_some(), "{m_line}");
    }
}

#[test]
fn stereo_is_asked_for_only_when_configured() {
    let offer = parse(CHROMIUM).unwrap();
    let sdp = Answer {
        origin: Origin::generate(),
        offer: &offer,
        credentials: &Credentials::generate(),
        fingerprint: Fingerprint::of(b"x"),
        candidates: &[],
        start_bitrate_kbps: 1,
        max_bitrate_kbps: 2,
        opus: OpusSettings { max_average_bitrate_bps: 128_000, stereo: true },
    }
    .to_sdp();
    assert!(sdp.contains(";maxaveragebitrate=128000;stereo=1\r\n"));
    assert!(!sdp.contains("end-of-candidates"));
}

#[test]
fn size_and_lines_are_limited_before_anything_is_parsed() {
    let huge_line = format!("{CHROMIUM}a={}\n", "x".repeat(1 << 20));
    let many_lines = format!("{CHROMIUM}{}", "a=x\n".repeat(10_000));
    let many_m_lines = format!("{CHROMIUM}{}", "m=video 9 UDP/TLS/RTP/SAVPF 96\n".repeat(10_000));
    for offer in [huge_line, many_lines, many_m_lines] {
        let error = refusal(&offer);
        assert!(matches!(error, OfferError::Description(DescriptionError::Text(TextError::TooLarge { .. }))));
        assert_eq!(of_offer(&error), 413);
    }
    let at_the_limit = format!("{CHROMIUM}{}", "a=x\n".repeat(MAX_DESCRIPTION_LINES - CHROMIUM.lines().count()));
    assert!(parse(&at_the_limit).is_ok());
}

#[test]
fn control_characters_cannot_be_smuggled_into_the_answer() {
    for bad in ["0\ra=evil", "0\u{0}", "0\u{7f}"] {
        let offer = CHROMIUM.replace("a=mid:0\n", &format!("a=mid:{bad}\n"));
        assert!(matches!(refusal(&offer), OfferError::Description(DescriptionError::Text(TextError::Syntax(_)))));
    }
}

#[test]
fn no_cut_and_no_changed_byte_of_an_offer_panics() {
    for offer in [CHROMIUM, SFU] {
        for end in 0..offer.len() {
            let _ = parse(&offer[..end]);
        }
        for at in 0..offer.len() {
            for byte in [b' ', b':', b'\n', b'0', b'/', b';'] {
                let mut bytes = offer.as_bytes().to_vec();
                bytes[at] = byte;
                let _ = parse(&String::from_utf8(bytes).unwrap());
            }
        }
    }
}

#[test]
fn trickled_candidates_are_checked_and_a_restart_is_refused() {
    let fragment = "a=ice-ufrag:ETEn\r\na=ice-pwd:OtSK0WpNtpUjkY4+86js7Z/l\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 1 typ host\r\na=end-of-candidates\r\n";
    assert_eq!(check_trickle(fragment, Some("ETEn")), Ok(()));
    assert_eq!(check_trickle("", Some("ETEn")), Ok(()));
    assert_eq!(check_trickle(fragment, Some("else")), Err(TrickleError::Restart));
    assert_eq!(check_trickle(fragment, None), Ok(()));
    assert_eq!(check_trickle("GET / HTTP/1.1", None), Err(TrickleError::Syntax));
    assert_eq!(check_trickle("GET / HTTP/1.1", Some("ETEn")), Err(TrickleError::Syntax));
    assert_eq!(check_trickle(&"a=\n".repeat(3000), Some("ETEn")), Err(TrickleError::TooLarge));
    assert_eq!(check_trickle(&"a".repeat(70_000), Some("ETEn")), Err(TrickleError::TooLarge));
}
