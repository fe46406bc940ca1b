//! Everything that goes wrong at the simulated SFU, one thing after the other, with a guest live and with a guest joining:
//! within 10 s of the fault's end the guest is live by itself, in the same RTMP publication, and nothing is left over at
//! the SFU.

use std::thread;
use std::time::Duration;

use loadgen::clip::{Clip, TrackKind};
use sfu_sim::{Endpoint, Fault, Options, Snapshot, TrackStatus};

use super::page::Page;
use super::studio::{RECOVERY, SETTLE, Studio};

const SPEED: f64 = 5.0;
const STUDIOS: usize = 4;
/// How long a fault without an end of its own is left on.
const ON: Duration = Duration::from_millis(2_500);

fn options() -> Options {
    Options { speed: SPEED, ..Options::default() }
}

/// Faults of the API, each with a name for the failure message.
fn api_faults() -> Vec<(&'static str, Fault)> {
    let at = Some;
    let mut faults = vec![
        ("every second call fails", Fault::FailOneIn { n: 2 }),
        ("every third call fails", Fault::FailOneIn { n: 3 }),
        ("three calls fail", Fault::Fail { calls: 3, endpoint: None }),
        ("a reply of sessions/new is lost", Fault::LoseReply { calls: 1, endpoint: at(Endpoint::SessionsNew) }),
        ("a reply of tracks/new is lost", Fault::LoseReply { calls: 1, endpoint: at(Endpoint::TracksNew) }),
        ("a reply of renegotiate is lost", Fault::LoseReply { calls: 1, endpoint: at(Endpoint::Renegotiate) }),
        ("three replies are lost", Fault::LoseReply { calls: 3, endpoint: None }),
        ("replies are slow", Fault::SlowReply { calls: 4, endpoint: None, milliseconds: 1_200 }),
        ("tracks/new hangs", Fault::Hang { calls: 1, endpoint: at(Endpoint::TracksNew) }),
        ("renegotiate hangs", Fault::Hang { calls: 1, endpoint: at(Endpoint::Renegotiate) }),
        ("429", Fault::TooManyRequests { calls: 3, endpoint: None }),
        ("wrong secret", Fault::WrongSecret),
        ("unknown app", Fault::UnknownApp),
        ("no service", Fault::NoService),
        ("nothing connects", Fault::NeverConnectOneIn { n: 1 }),
        ("every second session never connects", Fault::NeverConnectOneIn { n: 2 }),
        ("mixed results", Fault::MixedResult { calls: 2 }),
    ];
    for (name, status) in [("400", 400), ("404", 404), ("406", 406), ("410", 410), ("425", 425), ("503", 503)] {
        faults.push((name, Fault::Refuse { calls: 3, endpoint: at(Endpoint::TracksNew), status }));
    }
    for (name, status) in [("406 to our answer", 406), ("410 to our answer", 410), ("425 to our answer", 425)] {
        faults.push((name, Fault::Refuse { calls: 1, endpoint: at(Endpoint::Renegotiate), status }));
    }
    faults
}

#[track_caller]
fn assert_live_again(studio: &Studio, page: &Page, name: &str) {
    let Some(after) = studio.more_pictures("guest1", RECOVERY) else {
        panic!(
            "{name}: no pictures; {:?}\n{}\n{:#?}",
            page.diary(),
            studio.daemon.guest("guest1"),
            studio.sfu.snapshot()
        );
    };
    println!("{name}: live again after {after:.1?}");
}

/// Almost all of the time is spent waiting, so several studios, each with a share of the faults, wait at the same time.
fn in_several_studios(test: impl Fn(&[(&'static str, Fault)]) + Sync) {
    let faults = api_faults();
    thread::scope(|scope| {
        for share in faults.chunks(faults.len().div_ceil(STUDIOS)) {
            scope.spawn(|| test(share));
        }
    });
}

/// The connection of the daemon to the SFU dies while the API is ill, so that there is something to be done.
#[test]
fn a_live_guest_comes_back_after_each_fault_of_the_api() {
    in_several_studios(|faults| {
        let studio = Studio::open(options(), "");
        let page = studio.join("guest1", &Clip::chromium_360p());
        studio.wait_live("guest1");
        for (name, fault) in faults {
            let session = studio.pulling("guest1").unwrap();
            let pulls = |snapshot: &Snapshot| snapshot.calls.get("POST sessions/new").map_or(0, |count| count.total);
            let before = pulls(&studio.sfu.snapshot());
            studio.sfu.inject(fault.clone());
            studio.sfu.inject(Fault::KillSession { session });
            // A path that is silent is taken for lost after 5 s. Where there is no service, nobody counts the calls.
            let is_noticed = |snapshot: &Snapshot| pulls(snapshot) > before;
            assert!(*fault == Fault::NoService || studio.sfu.wait(SETTLE, is_noticed), "{name}");
            thread::sleep(ON);
            studio.sfu.clear_faults();
            assert_live_again(&studio, &page, name);
            studio.wait_live("guest1");
        }
        let diary = format!("{:?}", page.diary());
        assert_eq!(page.diary().joins, 1, "the guest itself was to notice nothing of {faults:?}: {diary}");
        studio.assert_one_connection("guest1");
        page.leave();
        studio.assert_clean();
    });
}

#[test]
fn a_joining_guest_is_live_after_each_fault_of_the_api() {
    in_several_studios(|faults| {
        let studio = Studio::open(options(), "");
        for (name, fault) in faults {
            studio.sfu.inject(fault.clone());
            let page = studio.join("guest1", &Clip::chromium_360p());
            thread::sleep(ON);
            studio.sfu.clear_faults();
            assert_live_again(&studio, &page, name);
            page.leave();
        }
        studio.assert_one_connection("guest1");
        studio.assert_clean();
    });
}

/// What happens to the media, and how the guest comes back: by a new pull alone, or by publishing anew.
#[test]
fn a_guest_comes_back_after_each_fault_of_the_media() {
    let studio = Studio::open(options(), "");
    let page = studio.join("guest1", &Clip::chromium_360p());
    studio.wait_live("guest1");
    let joins_after = |name: &str, joins: u32| {
        assert_live_again(&studio, &page, name);
        studio.wait_live("guest1");
        let diary = format!("{:?}", page.diary());
        assert_eq!(page.diary().joins, joins, "{name}: {diary}");
    };

    let session = studio.publishing("guest1");
    studio.sfu.inject(Fault::StopMedia { session: session.clone(), track: None });
    thread::sleep(Duration::from_secs(2));
    studio.sfu.inject(Fault::ResumeMedia { session });
    joins_after("the media stop for 2 s", 1);

    studio.sfu.inject(Fault::KillSession { session: studio.pulling("guest1").unwrap() });
    joins_after("the session in which the guest is pulled is gone", 1);

    studio.sfu.inject(Fault::KillSession { session: studio.publishing("guest1") });
    joins_after("the guest's session is gone", 2);

    // A phone in the background: its tracks are collected, and the SFU takes nothing more of them.
    page.pause(&[TrackKind::Video, TrackKind::Audio]);
    let session = studio.publishing("guest1");
    let is_collected = |snapshot: &Snapshot| {
        let session = snapshot.sessions.iter().find(|open| open.id == session);
        session.is_some_and(|session| session.tracks.iter().all(|track| track.status == TrackStatus::Ended))
    };
    assert!(studio.sfu.wait(SETTLE, is_collected));
    thread::sleep(ON);
    page.pause(&[]);
    joins_after("both tracks were collected", 3);

    studio.sfu.inject(Fault::CollectTrack { session: studio.publishing("guest1"), track: "video".to_owned() });
    studio.sfu.inject(Fault::CollectTrack { session: studio.publishing("guest1"), track: "audio".to_owned() });
    joins_after("both tracks were collected in the middle of everything", 4);

    studio.assert_one_connection("guest1");
    page.leave();
    studio.assert_clean();
}

/// Nobody waits for a reply that hangs, and nothing is left over for it.
#[test]
fn a_guest_who_leaves_while_the_api_hangs_leaves_nothing_behind() {
    for (name, fault) in [
        ("close hangs", Fault::Hang { calls: 2, endpoint: Some(Endpoint::TracksClose) }),
        ("close fails", Fault::Fail { calls: 2, endpoint: Some(Endpoint::TracksClose) }),
        ("the reply to a close is lost", Fault::LoseReply { calls: 2, endpoint: Some(Endpoint::TracksClose) }),
        ("no service", Fault::NoService),
    ] {
        let studio = Studio::open(options(), "");
        let page = studio.join("guest1", &Clip::chromium_360p());
        studio.wait_live("guest1");
        studio.sfu.inject(fault);
        page.leave();
        thread::sleep(ON);
        studio.sfu.clear_faults();
        println!("{name}");
        studio.assert_clean();
    }
}

/// The API does not say that the publisher is gone: it hangs.
#[test]
fn an_unknown_session_that_hangs_is_not_waited_for() {
    let studio = Studio::open(options(), "");
    studio.sfu.inject(Fault::HangUnknownSession);
    studio.sfu.inject(Fault::Hang { calls: 2, endpoint: Some(Endpoint::GetSession) });
    let page = studio.join("guest1", &Clip::chromium_360p());
    studio.wait_live("guest1");
    studio.sfu.inject(Fault::KillSession { session: studio.publishing("guest1") });
    let Some(_) = studio.more_pictures("guest1", 2 * RECOVERY) else {
        panic!("{:?}\n{:#?}", page.diary(), studio.sfu.snapshot());
    };
    studio.sfu.clear_faults();
    assert_live_again(&studio, &page, "GET hangs");
    page.leave();
    studio.assert_clean();
}
