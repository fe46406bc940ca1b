//! Several guests at once, several sessions for one slot, both forms of the pull, tracks that come later.

use std::thread;
use std::time::{Duration, Instant};

use ingest::Connection;
use loadgen::Driver;
use loadgen::clip::Clip;
use loadgen::http::{self, Url};
use loadgen::patience::{PATIENCE, wait_for};
use loadgen::publisher::{Options, PublishError, Publisher};
use sfu_sim::{EndReason, Endpoint, Fault, SessionInfo};

use super::studio::{RECOVERY, Studio, pictures};
use crate::daemon::Setup;
use crate::direct::assert_nothing_lost;

fn quick() -> sfu_sim::Options {
    sfu_sim::Options { speed: 5.0, ..sfu_sim::Options::default() }
}

#[test]
fn three_of_four_guests_lose_no_frame_while_everything_happens_to_the_fourth() {
    let guests = "guests: {guest1: {name: One}, guest2: {name: Two}, guest3: {name: Three}, guest4: {name: Four}}\n";
    let studio = Studio::with(quick(), "", true, Setup { sections: guests, ..Setup::default() });
    let clip = Clip::chromium_360p();
    let driver = Driver::start();
    let undisturbed = ["guest2", "guest3", "guest4"];
    let publishers = undisturbed
        .map(|guest| Publisher::connect_with(&driver, &studio.endpoint(guest), &clip, &Options::default()).unwrap());
    let unlucky = studio.join("guest1", &clip);
    for guest in ["guest1", "guest2", "guest3", "guest4"] {
        studio.wait_live(guest);
    }
    let pulling = || studio.pulling("guest1").unwrap();
    let publishing = || studio.publishing("guest1");
    let troubles: [(&str, &dyn Fn()); 4] = [
        ("its media stop", &|| {
            studio.sfu.inject(Fault::StopMedia { session: publishing(), track: None });
            thread::sleep(Duration::from_secs(2));
            studio.sfu.inject(Fault::ResumeMedia { session: publishing() });
        }),
        ("its pull is gone while every second call fails", &|| {
            studio.sfu.inject(Fault::FailOneIn { n: 2 });
            studio.sfu.inject(Fault::KillSession { session: pulling() });
            thread::sleep(Duration::from_secs(6));
            studio.sfu.clear_faults();
        }),
        ("its session is gone", &|| studio.sfu.inject(Fault::KillSession { session: publishing() })),
        ("its picture is collected", &|| {
            studio.sfu.inject(Fault::CollectTrack { session: publishing(), track: "video".to_owned() });
            let have_stopped = || {
                let before = studio.pictures("guest1");
                thread::sleep(Duration::from_millis(500));
                studio.pictures("guest1") < before + 5
            };
            wait_for("the pictures to stop", have_stopped, || studio.pictures("guest1"));
        }),
    ];
    for (name, trouble) in troubles {
        trouble();
        assert!(studio.more_pictures("guest1", RECOVERY).is_some(), "{name}: {:?}", unlucky.diary());
        studio.wait_live("guest1");
    }
    for (guest, publisher) in undisturbed.into_iter().zip(publishers) {
        assert!(publisher.is_alive());
        let finished = publisher.stop().unwrap();
        assert_nothing_lost(&finished, &studio.ingest, guest);
        let connection = studio.ingest.path(guest).unwrap();
        assert!(pictures(&connection) > 300, "{guest}: only {} pictures", pictures(&connection));
        studio.assert_one_connection(guest);
    }
    studio.assert_one_connection("guest1");
    unlucky.leave();
    studio.assert_clean_but_for(&[EndReason::NeverConnected]);
}

#[test]
fn with_our_own_offer_a_guest_arrives_bit_by_bit_and_without_renegotiation() {
    let studio = Studio::with(quick(), ", pull_form: 2", true, Setup::default());
    let clip = Clip::chromium_720p();
    let publisher = Publisher::connect(&studio.endpoint("guest1"), &clip).unwrap();
    studio.wait_live("guest1");
    thread::sleep(Duration::from_secs(2));
    assert_eq!((studio.calls("PUT renegotiate"), studio.calls("POST sessions/new")), (0, 2));
    assert_nothing_lost(&publisher.close_page().unwrap(), &studio.ingest, "guest1");
    // And once more after the loss of the path.
    let publisher = Publisher::connect(&studio.endpoint("guest1"), &clip).unwrap();
    studio.wait_live("guest1");
    studio.sfu.inject(Fault::KillSession { session: studio.pulling("guest1").unwrap() });
    assert!(studio.more_pictures("guest1", RECOVERY).is_some(), "{:#?}", studio.sfu.snapshot());
    assert_eq!(studio.calls("PUT renegotiate"), 0);
    publisher.stop().unwrap();
    studio.assert_one_connection("guest1");
    studio.assert_clean();
}

#[test]
fn an_answer_that_the_sfu_refuses_again_and_again_makes_the_other_form_stand_in() {
    let studio = Studio::open(quick(), "");
    studio.sfu.inject(Fault::Refuse { calls: 100, endpoint: Some(Endpoint::Renegotiate), status: 400 });
    let page = studio.join("guest1", &Clip::chromium_360p());
    studio.wait_live("guest1");
    page.leave();
    studio.assert_clean_but_for(&[EndReason::NeverConnected]);
}

#[test]
fn a_track_that_comes_later_is_taken_up_on_the_session_that_stands() {
    let studio = Studio::open(quick(), "");
    studio.sfu.inject(Fault::MixedResult { calls: 1 });
    let page = studio.join("guest1", &Clip::chromium_360p());
    studio.wait_live("guest1");
    let has_both = studio.ingest.wait_until(PATIENCE, |all| {
        all.iter().any(|connection| {
            connection.video.is_some() && connection.audio.as_ref().is_some_and(|audio| audio.frames > 20)
        })
    });
    assert!(has_both, "{:?}", studio.ingest.connections());
    // The guest's session and the one in which it is pulled, which was described twice.
    assert_eq!((studio.calls("POST sessions/new"), studio.calls("PUT renegotiate")), (2, 2));
    studio.assert_one_connection("guest1");
    page.leave();
    studio.assert_clean();
}

#[test]
fn a_second_post_takes_the_slot_over_and_the_mixers_input_goes_on() {
    let studio = Studio::open(quick(), "");
    let clip = Clip::chromium_360p();
    let first = Publisher::connect(&studio.endpoint("guest1"), &clip).unwrap();
    studio.wait_live("guest1");
    let old = studio.publishing("guest1");
    let second = Publisher::connect(&studio.endpoint("guest1"), &clip).unwrap();
    assert!(studio.more_pictures("guest1", RECOVERY).is_some());
    studio.wait_live("guest1");
    assert_ne!(studio.publishing("guest1"), old);
    // Its tracks were closed: for the SFU it has left.
    assert!(studio.sfu.wait(PATIENCE, |snapshot| snapshot.sessions.iter().all(|session| session.id != old)));
    let mut status = first.session().clone();
    status.path.push_str("/status");
    let reply = http::exchange("GET", &status, &[], "").unwrap();
    assert_eq!(reply.body, r#"{"holds_slot":false,"dropped":[]}"#);
    studio.assert_one_connection("guest1");
    first.close();
    second.stop().unwrap();
    studio.assert_clean();
}

/// The page gives an answer up after 15 s and asks anew; the old one must not push the new one out.
#[test]
fn an_offer_that_is_answered_late_does_not_push_out_a_newer_one() {
    let studio = Studio::open(quick(), "");
    let clip = Clip::chromium_360p();
    studio.sfu.inject(Fault::SlowReply { calls: 1, endpoint: Some(Endpoint::TracksNew), milliseconds: 3_000 });
    let late = thread::spawn({
        let (endpoint, clip) = (studio.endpoint("guest1"), clip.clone());
        move || Publisher::connect(&endpoint, &clip).map(|_| ())
    });
    // `tracks/new` is counted once it is carried out, and answered 3 s later.
    assert!(studio.sfu.wait(PATIENCE, |snapshot| snapshot.calls.contains_key("POST tracks/new")));
    let prompt = Publisher::connect(&studio.endpoint("guest1"), &clip).unwrap();
    let session = studio.publishing("guest1");
    match late.join().unwrap() {
        Err(PublishError::Status { status, body }) => {
            assert_eq!((status.as_str(), body.as_str()), ("409", "a newer session has taken the slot guest1\n"));
        }
        other => panic!("{other:?}"),
    }
    studio.wait_live("guest1");
    assert_eq!(studio.publishing("guest1"), session);
    assert!(prompt.is_alive());
    prompt.stop().unwrap();
    // The late one was closed before it was connected, which the SFU does not do.
    studio.assert_clean_but_for(&[EndReason::NeverConnected]);
}

/// A guest whose browser is gone without a word: nothing is left over, and the input is released after the hold.
#[test]
fn a_guest_who_vanishes_is_released_and_leaves_nothing_at_the_sfu() {
    /// `relay.hold_seconds`, unless it is set.
    const HOLD: Duration = Duration::from_secs(15);
    /// Until the simulated service gives the session up, and until the daemon asks about it the next time.
    const NOTICED: Duration = Duration::from_secs(7 + 5);
    let studio = Studio::open(quick(), "");
    let publisher = Publisher::connect(&studio.endpoint("guest1"), &Clip::chromium_360p()).unwrap();
    studio.wait_live("guest1");
    let session = studio.publishing("guest1");
    let began = Instant::now();
    publisher.vanish();
    let is_released = |all: &[Connection]| all.iter().all(|each| each.unpublished);
    assert!(studio.ingest.wait_until(HOLD + NOTICED + PATIENCE, is_released), "{}", studio.daemon.guest("guest1"));
    let released = began.elapsed();
    println!("released after {released:.1?}");
    assert!(released >= HOLD, "released after {released:.1?}");
    studio.daemon.wait_for_state("guest1", "absent");
    studio.assert_clean_but_for(&[EndReason::ConnectivityLost, EndReason::NeverConnected]);
    let ended = studio.sfu.snapshot().ended;
    let expired = ended.iter().filter(|end| end.reason == EndReason::ConnectivityLost && !end.left);
    assert_eq!(
        expired.map(|end| &end.id).collect::<Vec<_>>(),
        [&session],
        "only the guest's own was nobody's to close"
    );
}

#[test]
fn a_session_has_a_relative_url_that_nobody_guesses_and_a_tag_and_can_be_ended_by_its_guests_name() {
    let studio = Studio::open(quick(), "");
    let clip = Clip::chromium_360p();
    let resources = ["guest1", "guest2"].map(|guest| {
        let publisher = Publisher::connect(&studio.endpoint(guest), &clip).unwrap();
        let location = publisher.reply().header("location").unwrap().to_owned();
        let resource =
            location.strip_prefix(&format!("/api/calls/whip/{guest}/")).unwrap_or_else(|| panic!("{location}"));
        assert_eq!(resource.len(), 32);
        assert!(resource.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{resource}");
        assert!(!studio.publishing(guest).is_empty() && !location.contains(&studio.publishing(guest)));
        let etag = publisher.reply().header("etag").unwrap().to_owned();
        assert!(etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'), "{etag}");
        (publisher, resource.to_owned(), etag)
    });
    let [(first, resource, etag), (second, other, another)] = resources;
    assert!(resource != other && etag != another);
    studio.wait_live("guest1");
    let session = studio.publishing("guest1");
    let url = Url::parse(&format!("http://{}/api/calls/session/guest1", studio.daemon.http)).unwrap();
    let ended = |status: &str| {
        let reply = http::exchange("DELETE", &url, &[], "").unwrap();
        assert_eq!(reply.second_word(), "200");
        let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(body, serde_json::json!({"status": status, "guest_id": "guest1"}));
    };
    ended("closed");
    assert_eq!(studio.publishing("guest1"), "");
    let is_of_it =
        |open: &SessionInfo| open.id == session || open.subscriptions.iter().any(|sub| sub.session == session);
    assert!(studio.sfu.wait(PATIENCE, |snapshot| !snapshot.sessions.iter().any(is_of_it)));
    ended("no_session");
    studio.wait_live("guest2");
    first.close();
    // The slot is free.
    let next = Publisher::connect(&studio.endpoint("guest1"), &clip).unwrap();
    studio.wait_live("guest1");
    next.stop().unwrap();
    second.stop().unwrap();
    studio.assert_clean();
}
