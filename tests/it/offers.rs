//! Offers as foreign senders make them, posted to the whole daemon: what it answers, and what the log says of a refusal.

use loadgen::http::{self, Message, Url};

use crate::daemon::Daemon;

const OUTPUT: &str = "rtmp://127.0.0.1:9/{guest_id}";

/// Each with the m-lines of its answer. `offers/README.md` says where they come from.
const ACCEPTED: [(&str, [&str; 3]); 4] = [
    (include_str!("offers/20-o-negative.sdp"), ["m=audio 9", "m=video 9", ""]),
    (include_str!("offers/24-h264-no-pm.sdp"), ["m=audio 9", "m=video 9", ""]),
    (include_str!("offers/27-extra-msrp.sdp"), ["m=audio 9", "m=video 9", "m=message 0 TCP/TLS/MSRP *"]),
    (include_str!("offers/27-extra-udp-bfcp.sdp"), ["m=audio 9", "m=video 9", "m=application 0 UDP/BFCP *"]),
];

fn post(daemon: &Daemon, guest: &str, offer: &str) -> Message {
    let endpoint = Url::parse(&daemon.whip_url(guest)).unwrap();
    let headers = [("Content-Type", "application/sdp"), ("User-Agent", "Sender/\\1 (\"x\")")];
    http::exchange("POST", &endpoint, &headers, offer).unwrap()
}

#[test]
fn odd_offers_of_the_field_are_answered_and_what_is_not_understood_gets_port_0() {
    let mut daemon = Daemon::start(OUTPUT, "");
    daemon.rewrite_config(|text| text.replace("rtc: {", "rtc: {candidates: ['203.0.113.7:9000'], "));
    daemon.crash_and_restart();
    for (offer, m_lines) in ACCEPTED {
        for offer in [offer.to_owned(), offer.replace('\r', "")] {
            let reply = post(&daemon, "guest1", &offer);
            assert_eq!(reply.second_word(), "201", "{}", reply.body);
            let answered: Vec<&str> = reply.body.lines().filter(|line| line.starts_with("m=")).collect();
            assert_eq!(answered.len(), m_lines.iter().filter(|line| !line.is_empty()).count(), "{}", reply.body);
            assert!(answered.iter().zip(m_lines).all(|(line, expected)| line.starts_with(expected)), "{answered:?}");
            let mode = if offer.contains("packetization-mode=1") { "1" } else { "0" };
            assert!(
                reply.body.contains(&format!(";packetization-mode={mode};profile-level-id=42e01f")),
                "{}",
                reply.body
            );
            // FFmpeg tries no other than the first.
            let candidates: Vec<&str> = reply.body.lines().filter(|line| line.starts_with("a=candidate:")).collect();
            assert_eq!(candidates.len(), 2);
            assert!(candidates[0].contains(" 203.0.113.7 9000 typ host"), "{candidates:?}");
        }
    }
}

#[test]
fn malformed_offers_are_refused_and_the_log_says_why_and_to_whom_without_being_filled() {
    let daemon = Daemon::start(OUTPUT, "");
    let good = ACCEPTED[0].0;
    let changed = |from: &str, to: &str| {
        let offer = good.replace(from, to);
        assert_ne!(offer, good, "{from}");
        offer
    };
    for (offer, status, reason) in [
        (changed("m=video 50001", "m=video 65536"), "400", "an impossible port"),
        (changed("SAVPF 96", "SAVPF 128"), "400", "an impossible payload type"),
        (changed("H264/90000", "H265/90000"), "406", "no H.264"),
        (changed("opus/48000/2", "opus/48000"), "406", "no opus/48000/2"),
        (changed("v=0", "v=1"), "400", "this is not SDP"),
    ] {
        let reply = post(&daemon, "guest1", &offer);
        assert_eq!(reply.second_word(), status, "{}", reply.body);
        assert!(reply.body.contains(reason), "{}", reply.body);
        daemon.wait_for_log(&format!(
            "guest1: offer of 127.0.0.1 (Sender/\\\\1 (\\\"x\\\")) refused with {status}: {}",
            reply.body.trim_end()
        ));
    }
    for _ in 0..40 {
        assert_eq!(post(&daemon, "nobody", good).second_word(), "404");
    }
    // Behind them all: a line of the daemon that comes once for each accepted offer.
    assert_eq!(post(&daemon, "guest1", good).second_word(), "201");
    daemon.wait_for_log("guest1: ");
    let log = daemon.log();
    let told = |level: &str| log.lines().filter(|line| line.contains(level) && line.contains("refused with")).count();
    // One more for the seconds that this takes.
    assert!((6..=8).contains(&told("INFO")), "{log}");
    assert!(told("DEBUG") >= 30, "{log}");
}
