//! Everything that goes wrong at the simulated SFU, one thing after the other, with a guest live and with a guest joining:
//! within 10 s of the fault's end the guest is live by itself, in the same RTMP publication, and nothing is left over at
//! the SFU.

use std::thread;
use std::time::{Duration, Instant};

use loadgen::clip::{Clip, TrackKind};
use loadgen::patience::{PATIENCE, Stopwatch, wait_for};
use loadgen::publisher::{PublishError, Publisher};
use sfu_sim::{EndReason, Endpoint, Fault, Options, Snapshot, TrackStatus};

use super::page::Page;
use super::studio::{RECOVERY, Studio, hits, is_pulled};

const SPEED: f64 = 5.0;
const STUDIOS: usize = 12;
/// How long a fault without an end of its own is left on once it was met.
const ON: Duration = Duration::from_millis(2_500);
/// Times that a guest joins, or has to be pulled anew, until that meets a fault of one call in so many.
const MEETINGS: usize = 4;
/// Sessions of attempts that failed are not closed: they were never connected.
const ATTEMPTS_FAILED: [EndReason; 1] = [EndReason::NeverConnected];

type Case = (String, Fault);

fn options() -> Options {
    Options { speed: SPEED, ..Options::default() }
}

/// Faults of the API, each with a name for the failure message. `tracks_new`: which of these calls those concern that concern one.
fn api_faults(tracks_new: Endpoint) -> Vec<Case> {
    let renegotiate = Some(Endpoint::Renegotiate);
    // While there is an answer of ours: other faults make a pull take the form that has none.
    let mut faults = vec![
        ("a reply of renegotiate is lost".to_owned(), Fault::LoseReply { calls: 1, endpoint: renegotiate }),
        ("renegotiate hangs".to_owned(), Fault::Hang { calls: 1, endpoint: renegotiate }),
    ];
    for status in [410, 425, 406] {
        let fault = Fault::Refuse { calls: 1, endpoint: renegotiate, status };
        faults.push((format!("{status} to our answer"), fault));
    }
    faults.extend(of_tracks_new(tracks_new));
    let sessions_new = Some(Endpoint::SessionsNew);
    let further = [
        ("every second call fails", Fault::FailOneIn { n: 2 }),
        ("every third call fails", Fault::FailOneIn { n: 3 }),
        ("every sixth call fails", Fault::FailOneIn { n: 6 }),
        ("three calls fail", Fault::Fail { calls: 3, endpoint: None }),
        ("a reply of sessions/new is lost", Fault::LoseReply { calls: 1, endpoint: sessions_new }),
        ("sessions/new hangs", Fault::Hang { calls: 1, endpoint: sessions_new }),
        ("three replies are lost", Fault::LoseReply { calls: 3, endpoint: None }),
        ("replies are slow", Fault::SlowReply { calls: 4, endpoint: None, milliseconds: 700 }),
        ("429", Fault::TooManyRequests { calls: 3, endpoint: None }),
        ("wrong secret", Fault::WrongSecret),
        ("unknown app", Fault::UnknownApp),
        ("no service", Fault::NoService),
        ("nothing connects", Fault::NeverConnectOneIn { n: 1 }),
        ("every second session never connects", Fault::NeverConnectOneIn { n: 2 }),
        ("mixed results", Fault::MixedResult { calls: 2 }),
    ];
    faults.extend(further.map(|(name, fault)| (name.to_owned(), fault)));
    faults
}

fn of_tracks_new(which: Endpoint) -> Vec<Case> {
    let endpoint = Some(which);
    let mut faults = vec![
        (format!("a reply of {which:?} is lost"), Fault::LoseReply { calls: 1, endpoint }),
        (format!("{which:?} hangs"), Fault::Hang { calls: 1, endpoint }),
    ];
    for status in [400, 404, 406, 408, 410, 425, 503] {
        faults.push((format!("{status} to {which:?}"), Fault::Refuse { calls: 3, endpoint, status }));
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
fn in_several_studios(faults: &[Case], test: impl Fn(&[Case]) + Sync) {
    thread::scope(|scope| {
        for share in faults.chunks(faults.len().div_ceil(STUDIOS)) {
            scope.spawn(|| test(share));
        }
    });
}

/// Has the session in which the guest is pulled die, so that there is something to be done while the API is ill. A path that
/// is silent is taken for lost after 5 s.
fn pull_anew_until_met(studio: &Studio, name: &str) {
    for _ in 0..MEETINGS {
        let session = studio.pulling("guest1").unwrap();
        studio.sfu.inject(Fault::KillSession { session: session.clone() });
        let is_over = |snapshot: &Snapshot| hits(snapshot) > 0 || is_pulled(snapshot, &session);
        assert!(studio.sfu.wait(PATIENCE, is_over), "{name}: {:#?}", studio.sfu.snapshot());
        if hits(&studio.sfu.snapshot()) > 0 {
            return;
        }
    }
    panic!("{name}: no pull met it: {:#?}", studio.sfu.snapshot().faults);
}

/// Has the guest join, so that it meets the fault.
fn join_until_met(studio: &Studio, name: &str) -> Page {
    for _ in 0..MEETINGS {
        let before = hits(&studio.sfu.snapshot());
        let page = studio.join("guest1", &Clip::chromium_360p());
        let is_over = |snapshot: &Snapshot| hits(snapshot) > before || is_pulled(snapshot, "");
        assert!(studio.sfu.wait(PATIENCE, is_over), "{name}: {:#?}", studio.sfu.snapshot());
        if hits(&studio.sfu.snapshot()) > before {
            return page;
        }
        page.leave();
        studio.wait_empty();
    }
    panic!("{name}: nobody met it: {:#?}", studio.sfu.snapshot().faults);
}

#[test]
fn a_live_guest_comes_back_after_each_fault_of_the_api() {
    in_several_studios(&api_faults(Endpoint::TracksNew), |faults| {
        let studio = Studio::open(options(), "");
        let page = studio.join("guest1", &Clip::chromium_360p());
        studio.wait_live("guest1");
        for (name, fault) in faults {
            studio.sfu.inject(fault.clone());
            pull_anew_until_met(&studio, name);
            thread::sleep(ON);
            studio.sfu.clear_faults();
            assert_live_again(&studio, &page, name);
            studio.wait_live("guest1");
        }
        let diary = format!("{:?}", page.diary());
        assert_eq!(page.diary().joins, 1, "the guest itself was to notice nothing of {faults:?}: {diary}");
        studio.assert_one_connection("guest1");
        page.leave();
        studio.assert_clean_but_for(&ATTEMPTS_FAILED);
    });
}

#[test]
fn a_joining_guest_is_live_after_each_fault_of_the_api() {
    let mut faults = api_faults(Endpoint::TracksNew);
    // The guest is published and cannot be pulled yet.
    faults.extend(of_tracks_new(Endpoint::Pull));
    in_several_studios(&faults, |faults| {
        let studio = Studio::open(options(), "");
        for (name, fault) in faults {
            studio.sfu.inject(fault.clone());
            let page = join_until_met(&studio, name);
            thread::sleep(ON);
            studio.sfu.clear_faults();
            assert_live_again(&studio, &page, name);
            page.leave();
            studio.wait_empty();
        }
        studio.assert_one_connection("guest1");
        studio.assert_clean_but_for(&ATTEMPTS_FAILED);
    });
}

#[track_caller]
fn assert_live_after_joins(studio: &Studio, page: &Page, name: &str, joins: u32) {
    assert_live_again(studio, page, name);
    studio.wait_live("guest1");
    let diary = format!("{:?}", page.diary());
    assert_eq!(page.diary().joins, joins, "{name}: {diary}");
}

/// What happens to the media, and how the guest comes back: by a new pull alone, or by publishing anew.
#[test]
fn a_guest_comes_back_after_each_fault_of_the_media() {
    let studio = Studio::open(options(), "");
    let page = studio.join("guest1", &Clip::chromium_360p());
    studio.wait_live("guest1");
    let joins_after = |name: &str, joins: u32| assert_live_after_joins(&studio, &page, name, joins);

    let session = studio.publishing("guest1");
    studio.sfu.inject(Fault::StopMedia { session: session.clone(), track: None });
    thread::sleep(Duration::from_secs(2));
    studio.sfu.inject(Fault::ResumeMedia { session });
    joins_after("the media stop for 2 s", 1);

    studio.sfu.inject(Fault::KillSession { session: studio.pulling("guest1").unwrap() });
    joins_after("the session in which the guest is pulled is gone", 1);

    studio.sfu.inject(Fault::KillSession { session: studio.publishing("guest1") });
    joins_after("the guest's session is gone", 2);

    studio.sfu.inject(Fault::CollectTrack { session: studio.publishing("guest1"), track: "video".to_owned() });
    studio.sfu.inject(Fault::CollectTrack { session: studio.publishing("guest1"), track: "audio".to_owned() });
    joins_after("both tracks were collected in the middle of everything", 3);

    for (track, joins) in [("video", 4), ("audio", 5)] {
        studio.sfu.inject(Fault::CollectTrack { session: studio.publishing("guest1"), track: track.to_owned() });
        wait_joins(&page, joins, track);
        joins_after(track, joins);
    }

    studio.assert_one_connection("guest1");
    page.leave();
    studio.assert_clean_but_for(&ATTEMPTS_FAILED);
}

#[test]
fn a_guest_who_sent_nothing_for_so_long_that_its_tracks_were_collected_comes_back() {
    let studio = Studio::open(options(), "");
    let page = studio.join("guest1", &Clip::chromium_360p());
    studio.wait_live("guest1");
    let joins_after = |name: &str, joins: u32| assert_live_after_joins(&studio, &page, name, joins);

    // A phone in the background: its tracks are collected, and the SFU takes nothing more of them.
    page.pause(&[TrackKind::Video, TrackKind::Audio]);
    wait_collected(&studio, &["audio", "video"]);
    thread::sleep(ON);
    page.pause(&[]);
    joins_after("both tracks were collected", 2);

    // A camera that is off, while the microphone goes on.
    page.pause(&[TrackKind::Video]);
    wait_collected(&studio, &["video"]);
    thread::sleep(ON);
    assert_eq!(page.diary().joins, 2, "a guest who sends no pictures has nothing to publish anew");
    page.pause(&[]);
    joins_after("the video was collected", 3);

    studio.assert_one_connection("guest1");
    page.leave();
    studio.assert_clean_but_for(&ATTEMPTS_FAILED);
}

/// Waits until the SFU has ended these tracks of the guest, and no others.
fn wait_collected(studio: &Studio, tracks: &[&str]) {
    let publishing = studio.publishing("guest1");
    let is_collected = |snapshot: &Snapshot| {
        let session = snapshot.sessions.iter().find(|open| open.id == publishing);
        session.is_some_and(|session| {
            session.tracks.iter().all(|track| {
                let is_due = tracks.contains(&track.name.as_str());
                track.status == if is_due { TrackStatus::Ended } else { TrackStatus::Active }
            })
        })
    };
    assert!(studio.sfu.wait(PATIENCE, is_collected), "{:#?}", studio.sfu.snapshot().sessions);
}

/// Waits until the page has joined so often. The pictures go on when only the sound was collected.
fn wait_joins(page: &Page, joins: u32, name: &str) {
    let seen = || format!("{:?}", page.diary());
    wait_for(format_args!("join {joins}, {name}"), || page.diary().joins >= joins, seen);
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
        assert!(studio.sfu.wait(PATIENCE, |snapshot| hits(snapshot) > 0), "{name}: nothing was closed");
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
    let asked =
        studio.sfu.snapshot().faults.iter().map(|on| on.hits.get("GET session").copied().unwrap_or(0)).sum::<u64>();
    assert!(asked > 0, "{:#?}", studio.sfu.snapshot().faults);
    studio.sfu.clear_faults();
    assert_live_again(&studio, &page, "GET hangs");
    page.leave();
    studio.assert_clean_but_for(&ATTEMPTS_FAILED);
}

/// The service's own clock: it lets calls hang for 25 s, and nobody waits for one that long.
#[test]
fn a_call_that_hangs_longer_than_it_is_waited_for_is_given_up_and_made_anew() {
    /// What a call may take at most.
    const CALL: Duration = Duration::from_secs(12);
    let faults =
        [Endpoint::Pull, Endpoint::Renegotiate].map(|endpoint| Fault::Hang { calls: 1, endpoint: Some(endpoint) });
    thread::scope(|scope| {
        for fault in &faults {
            scope.spawn(move || {
                let studio = Studio::open(Options::default(), "");
                studio.sfu.inject(fault.clone());
                let began = Instant::now();
                let page = join_until_met(&studio, "hang");
                let back = studio.more_pictures("guest1", CALL + RECOVERY);
                assert!(back.is_some(), "{fault:?}: {:#?}", studio.sfu.snapshot());
                assert!(began.elapsed() >= CALL, "{fault:?} does not hang");
                assert_eq!(page.diary().joins, 1);
                studio.assert_one_connection("guest1");
                page.leave();
                studio.assert_clean_but_for(&ATTEMPTS_FAILED);
            });
        }
        scope.spawn(|| {
            let studio = Studio::open(Options::default(), "");
            let page = studio.join("guest1", &Clip::chromium_360p());
            studio.wait_live("guest1");
            studio.sfu.inject(Fault::Hang { calls: 2, endpoint: Some(Endpoint::TracksClose) });
            page.leave();
            assert!(studio.sfu.wait(PATIENCE, |snapshot| hits(snapshot) == 2), "{:#?}", studio.sfu.snapshot().faults);
            thread::sleep(CALL + Duration::from_secs(3));
            // Those two are still under way, and were not repeated; what is closed is counted when it is answered.
            assert_eq!(studio.calls("PUT tracks/close"), 0);
            studio.assert_clean();
        });
        scope.spawn(|| {
            let studio = Studio::open(Options::default(), "");
            let sessions = Some(Endpoint::SessionsNew);
            studio.sfu.inject(Fault::SlowReply { calls: 1, endpoint: sessions, milliseconds: 8_000 });
            studio.sfu.inject(Fault::Hang { calls: 1, endpoint: Some(Endpoint::TracksNew) });
            let watch = Stopwatch::start();
            match Publisher::connect(&studio.endpoint("guest1"), &Clip::chromium_360p()) {
                Err(PublishError::Status { status, body }) => {
                    assert_eq!(status, "502", "{body}");
                    assert!(body.contains("did not answer properly"), "{body}");
                }
                Err(error) => panic!("{error}"),
                Ok(_) => panic!("published"),
            }
            // The page waits 15 s.
            assert!(watch.elapsed() < Duration::from_secs(15), "{:?}", watch.elapsed());
            assert_eq!(hits(&studio.sfu.snapshot()), 2);
            studio.wait_empty();
        });
    });
}
