//! The direct path with real processes and sockets: a str0m publisher → the daemon → a strict RTMP ingest. Every frame
//! is told by its digest, so "arrived" means bit by bit.

use guest_relay_muxer::Still;
use ingest::{Connection, Ingest, Kind, Options};
use loadgen::clip::Clip;
use loadgen::http::{self, Url};
use loadgen::patience::{PATIENCE, wait_for};
use loadgen::publisher::{Finished, Publisher};
use loadgen::replay::SentUnit;
use loadgen::{h264, hostile};

use crate::daemon::Daemon;

fn strict_ingest() -> Ingest {
    Ingest::bind("127.0.0.1:0", Options { keep_frames: true, keep_bodies: true, ..Options::default() }).unwrap()
}

fn output(ingest: &Ingest) -> String {
    format!("rtmp://{}/{{guest_id}}", ingest.addr())
}

fn video_frames(connection: &Connection) -> u64 {
    connection.video.as_ref().map_or(0, |track| track.frames)
}

/// Digests of the guest's pictures that arrived, in order, and which are IDRs. Nobody's is black.
fn arrived(connection: &Connection) -> Vec<(u64, bool)> {
    let black = Still::black();
    let pictures = connection.frames.iter().filter(|frame| frame.kind == Kind::Video && frame.body != black.body());
    // FrameType and CodecID, AVCPacketType, CompositionTime: 5 bytes before the NAL units.
    pictures.map(|frame| (h264::digest(h264::avc_units(&frame.body[5..]).unwrap()), frame.key)).collect()
}

fn pictures(finished: &Finished) -> Vec<&SentUnit> {
    finished.sent.iter().filter(|unit| unit.kind == loadgen::clip::TrackKind::Video).collect()
}

/// Everything sent from the first arrived picture on has arrived, once and in order. Where a busy machine had nothing of the
/// guest come for a second, the last IDR stands in for it once more.
pub(crate) fn assert_nothing_lost(finished: &Finished, ingest: &Ingest, guest: &str) {
    // The clip begins anew whenever a keyframe is asked for, so its first picture may have been sent before.
    let sent: Vec<_> = pictures(finished).into_iter().map(|unit| unit.digest).collect();
    let came = || ingest.path(guest).map(|connection| arrived(&connection)).unwrap_or_default();
    wait_for(
        "all pictures to arrive, none of them lost",
        || (0..sent.len()).any(|from| is_all_of(&sent[from..], &came())),
        || format!("{} of {} have", came().len(), sent.len()),
    );
    let connection = ingest.path(guest).unwrap();
    assert_eq!(connection.violations, Vec::<String>::new());
    assert!(arrived(&connection).len() > 30, "only {} pictures arrived", arrived(&connection).len());
}

/// `arrived` is `sent`, but for repetitions of the last IDR.
fn is_all_of(sent: &[u64], arrived: &[(u64, bool)]) -> bool {
    let mut sent = sent.iter().peekable();
    let mut last_idr = None;
    let all_known = arrived.iter().all(|(digest, is_idr)| {
        let expected = sent.next_if_eq(&digest).is_some();
        let known = expected || (*is_idr && last_idr == Some(digest));
        last_idr = if *is_idr { Some(digest) } else { last_idr };
        known
    });
    all_known && sent.peek().is_none()
}

#[test]
fn a_guest_arrives_bit_by_bit_and_leaves_with_a_clean_unpublish() {
    let ingest = strict_ingest();
    let daemon = Daemon::start(&output(&ingest), "guests: {guest1: {name: Guest 1, enabled: true}}\n");
    let publisher = Publisher::connect(&daemon.whip_url("guest1"), &Clip::chromium_720p()).unwrap();
    assert!(ingest.wait_until(PATIENCE, |paths| { paths.iter().any(|path| video_frames(path) >= 90) }));
    daemon.wait_for_state("guest1", "live");
    let guest = daemon.guest("guest1");
    assert_eq!((&guest["width"], &guest["height"], &guest["codec"]), (&1280.into(), &720.into(), &"H264".into()));
    assert!(guest["fps"].as_f64().unwrap() > 20.0, "{guest}");
    let finished = publisher.stop().unwrap();
    assert!(finished.delete_status.as_deref().is_some_and(|status| status.contains("200")));
    assert_nothing_lost(&finished, &ingest, "guest1");
    let connection = ingest.path("guest1").unwrap();
    let audio = connection.audio.unwrap();
    assert_eq!((audio.sequence_starts, audio.gaps), (1, 0));
    assert!(audio.frames > 100, "{} audio frames", audio.frames);
}

/// A PATCH of a session, and the status it gets.
pub(crate) fn trickle(session: &Url, etag: &str, fragment: &str) -> String {
    let headers = [("Content-Type", "application/trickle-ice-sdpfrag"), ("If-Match", etag)];
    http::exchange("PATCH", session, &headers, fragment).unwrap().second_word().to_owned()
}

/// What a fragment is answered with in a session whose guest has this ufrag.
pub(crate) fn assert_fragments_are_checked(session: &Url, etag: &str, ufrag: &str) {
    let candidate = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
    let of = |ufrag: &str| format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:OtSK0WpNtpUjkY4+86js7Z/l\r\n{candidate}");
    for (what, fragment, status) in [
        ("the guest's own", of(ufrag), "204"),
        ("one without a ufrag", candidate.to_owned(), "204"),
        ("an ICE restart", of("another"), "422"),
        ("a ufrag that begins alike", of(&format!("{ufrag}x")), "422"),
        ("garbage", "GET / HTTP/1.1".to_owned(), "400"),
        ("garbage behind the guest's own", of(ufrag) + "garbage\r\n", "400"),
        ("more lines than a description has", "a=x\r\n".repeat(3000), "413"),
    ] {
        assert_eq!(trickle(session, etag, &fragment), status, "{what}");
    }
    // The entity tag comes first.
    assert_eq!(trickle(session, "\"other\"", &of("another")), "412");
    assert_eq!(trickle(session, "*", "GET / HTTP/1.1"), "422");
}

#[test]
fn a_restart_of_ice_and_garbage_are_refused_by_the_guests_own_ufrag_and_the_session_goes_on() {
    let ingest = strict_ingest();
    let daemon = Daemon::start(&output(&ingest), "");
    let endpoint = Url::parse(&daemon.whip_url("guest2")).unwrap();
    let offer = include_str!("../fuzz/seeds/offer/chromium");
    let reply = http::exchange("POST", &endpoint, &[("Content-Type", "application/sdp")], offer).unwrap();
    assert_eq!(reply.second_word(), "201", "{}", reply.body);
    let session = endpoint.join(reply.header("location").unwrap());
    let ufrag = offer.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap();
    assert_fragments_are_checked(&session, reply.header("etag").unwrap(), ufrag);

    let publisher = Publisher::connect(&daemon.whip_url("guest1"), &Clip::chromium_360p()).unwrap();
    daemon.wait_for_state("guest1", "live");
    let etag = publisher.reply().header("etag").unwrap().to_owned();
    assert_eq!(trickle(publisher.session(), &etag, &format!("a=ice-ufrag:{ufrag}\r\n")), "422");
    let seen = ingest.path("guest1").map_or(0, |path| video_frames(&path));
    assert!(ingest.wait_until(PATIENCE, |paths| paths.iter().any(|path| video_frames(path) >= seen + 30)));
    let finished = publisher.stop().unwrap();
    assert_nothing_lost(&finished, &ingest, "guest1");
}

#[test]
fn when_one_of_two_guests_leaves_the_other_loses_no_frame() {
    let ingest = strict_ingest();
    let daemon = Daemon::start(&output(&ingest), "");
    let clip = Clip::chromium_360p();
    let staying = Publisher::connect(&daemon.whip_url("guest1"), &clip).unwrap();
    let leaving = Publisher::connect(&daemon.whip_url("guest2"), &clip).unwrap();
    assert!(ingest.wait_until(PATIENCE, |paths| paths.len() == 2 && paths.iter().all(|path| video_frames(path) >= 30)));
    leaving.stop().unwrap();
    let so_far = ingest.path("guest1").map_or(0, |path| video_frames(&path));
    assert!(ingest.wait_until(PATIENCE, |paths| {
        paths.iter().any(|path| path.path.as_deref() == Some("guest1") && video_frames(path) >= so_far + 60)
    }));
    let finished = staying.stop().unwrap();
    assert_nothing_lost(&finished, &ingest, "guest1");
}

#[test]
fn a_guest_outlives_its_rtmp_server_and_is_published_again_when_it_returns() {
    let ingest = strict_ingest();
    let daemon = Daemon::start(&output(&ingest), "");
    let publisher = Publisher::connect(&daemon.whip_url("guest1"), &Clip::chromium_360p()).unwrap();
    daemon.wait_for_state("guest1", "live");
    ingest.stop_listening();
    ingest.kill_connections();
    daemon.wait_for_state("guest1", "publishing");
    assert!(publisher.is_alive(), "the guest was dropped with the server");
    ingest.start_listening().unwrap();
    let before = ingest.connections().len();
    let back = ingest.wait_until(PATIENCE, |paths| {
        paths.len() > before.saturating_sub(1)
            && paths.iter().any(|path| path.end.is_none() && video_frames(path) >= 30)
    });
    assert!(back, "not published again:\n{}", daemon.log());
    daemon.wait_for_state("guest1", "live");
    assert!(publisher.is_alive());
    let connection = ingest.connections().into_iter().rfind(|connection| connection.end.is_none()).unwrap();
    let finished = publisher.stop().unwrap();
    assert!(finished.stats.video_frames > video_frames(&connection));
    assert_eq!(connection.violations, Vec::<String>::new());
}

#[test]
fn two_hundred_thousand_hostile_datagrams_cost_the_live_guest_nothing() {
    const FROM_ELSEWHERE: u64 = 160_000;
    const FROM_THE_GUEST: u64 = 40_000;
    let ingest = strict_ingest();
    let mut daemon = Daemon::start(&output(&ingest), "");
    let publisher = Publisher::connect(&daemon.whip_url("guest1"), &Clip::chromium_360p()).unwrap();
    daemon.wait_for_state("guest1", "live");
    // Warm: what the first hostile datagrams make the allocator keep is not growth.
    hostile::flood(daemon.udp, 2_000, 1).unwrap();
    let memory_before = daemon.anonymous_kb();
    publisher.send_hostile(FROM_THE_GUEST);
    hostile::flood(daemon.udp, FROM_ELSEWHERE, 2).unwrap();
    let sent = || publisher.hostile_sent();
    wait_for("the guest's hostile datagrams to be sent", || sent() == FROM_THE_GUEST, sent);
    let growth = daemon.anonymous_kb().saturating_sub(memory_before);
    assert!(daemon.is_running());
    assert!(publisher.is_alive());
    let finished = publisher.stop().unwrap();
    assert_nothing_lost(&finished, &ingest, "guest1");
    assert!(growth <= 1024, "{growth} kB more after the flood");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}
