//! What a pull makes of a link that stands and over which nothing comes.

use super::*;

/// `GET` of the publisher's session, with the status of its tracks.
pub(super) fn inspected(video: &str, audio: &str) -> Result<ApiReply, CallError> {
    let tracks = json!({"tracks": [
        {"location": "local", "mid": "1", "trackName": "video", "status": video},
        {"location": "local", "mid": "0", "trackName": "audio", "status": audio},
    ]});
    Ok(ApiReply::Inspected(serde_json::from_value::<SessionReply>(tracks).unwrap()))
}

impl Script {
    #[track_caller]
    pub(super) fn asked_about_publisher(&mut self) -> CallId {
        let (id, call) = self.call();
        assert!(matches!(&call, ApiCall::Inspect { session } if session == "publisher"), "{call:?}");
        id
    }
}

#[test]
fn a_publisher_who_is_gone_is_noticed_after_two_seconds_without_a_packet() {
    let mut script = Script::new(PullForm::SfuOffers);
    script.up("one");
    assert!(script.wait(10 * S) <= 2 * S);
    let id = script.asked_about_publisher();
    script.reply(id, Err(refused(Call::Inspect, 410, "session_error")));
    assert_eq!(*script.pull.state(), State::Ended(EndReason::PublisherGone));
    script.closed("one", &["0", "1"]);
    assert!(script.pull.is_finished());
}

#[test]
fn a_publisher_who_is_there_is_asked_about_every_five_seconds_until_something_comes() {
    let mut script = Script::new(PullForm::SfuOffers);
    let peer = script.up("one");
    script.wait(2 * S);
    for _ in 0..3 {
        let id = script.asked_about_publisher();
        script.reply(id, inspected("active", "active"));
        assert_eq!(script.wait(10 * S), 5 * S);
    }
    let id = script.asked_about_publisher();
    script.reply(id, inspected("active", "active"));
    script.flow(peer, &[Audio, Video], 8 * S);
    script.nothing();
    assert_eq!(script.lost_tracks, [[]; 0]);
}

#[test]
fn a_question_that_hangs_is_not_repeated_and_a_track_that_only_sends_nothing_is_asked_about_and_left_alone() {
    let mut script = Script::new(PullForm::SfuOffers);
    let peer = script.up("one");
    script.wait(2 * S);
    let hanging = script.asked_about_publisher();
    script.flow(peer, &[], 2 * S);
    script.nothing();
    script.reply(hanging, Err(lost(Call::Inspect)));
    // A microphone that is muted. What the API says of the video, which flows, is not asked.
    for answer in [inspected("active", "active"), inspected("inactive", "active"), Err(lost(Call::Inspect))] {
        script.flow(peer, &[Video], 5 * S);
        let id = script.asked_about_publisher();
        script.nothing();
        script.reply(id, answer);
        script.nothing();
    }
    script.flow(peer, &[Video, Audio], 10 * S);
    script.nothing();
    assert_eq!((script.lost_tracks.len(), script.dropped.len()), (0, 0));
    assert_eq!(*script.pull.state(), State::Flowing);
}

#[test]
fn a_track_that_was_collected_is_asked_for_within_seconds_while_the_other_flows_and_then_told_of() {
    for (kind, other, name, mid) in [(Video, Audio, "video", "0"), (Audio, Video, "audio", "1")] {
        let mut script = Script::new(PullForm::SfuOffers);
        let peer = script.up("one");
        script.flow(peer, &[other], 3 * S);
        let id = script.asked_about_publisher();
        let status = |of| if of == kind { "inactive" } else { "active" };
        script.reply(id, inspected(status(Video), status(Audio)));
        let (id, names, _) = script.asked("one");
        assert_eq!(names, [name]);
        assert_eq!(*script.pull.state(), State::Partial(kind));
        script.reply(id, Ok(tracks(&[(name, Err("not_found_track_error"))], None)));
        assert_eq!(script.lost_tracks, [[]; 0], "it may come from a corner that has not heard of it");
        script.flow(peer, &[other], S);
        let (id, ..) = script.asked("one");
        script.reply(id, Ok(tracks(&[(name, Err("not_found_track_error"))], None)));
        assert_eq!(script.lost_tracks, [[kind]]);
        // The other flows all the time, on the peer that it had.
        assert_eq!(script.dropped, []);
        script.flow(peer, &[other], 4 * S);
        let (id, ..) = script.asked("one");
        script.reply(id, Ok(tracks(&[(name, Ok("2"))], Some("offer"))));
        assert_eq!(script.answer(true), peer);
        script.renegotiated("one", Ok(ApiReply::Done));
        script.flow(peer, &[Video, Audio], 3 * S);
        script.nothing();
        assert_eq!(*script.pull.state(), State::Flowing);
        script.pull.stop(script.now);
        script.drain();
        let kept = if kind == Video { "1" } else { "0" };
        script.closed("one", &[kept, "2", mid]);
    }
}

#[test]
fn tracks_that_the_sfu_has_collected_are_told_of_once_two_requests_for_them_were_refused() {
    let mut script = Script::new(PullForm::SfuOffers);
    script.up("one");
    script.wait(2 * S);
    let id = script.asked_about_publisher();
    script.reply(id, inspected("inactive", "inactive"));
    let missing = [("video", Err("not_found_track_error")), ("audio", Err("not_found_track_error"))];
    for (session, lost) in [("two", 0), ("three", 1)] {
        if script.outputs.is_empty() {
            script.wait(S);
        }
        script.new_session(session);
        let (id, ..) = script.asked(session);
        script.reply(id, Ok(tracks(&missing, None)));
        assert_eq!(script.lost_tracks.len(), lost, "after {session}");
    }
    assert_eq!(script.lost_tracks.last().unwrap().len(), 2);
    // The guest came back to the page before it was asked: the tracks are there again.
    if script.outputs.is_empty() {
        script.wait(2 * S);
    }
    script.new_session("four");
    let (id, ..) = script.asked("four");
    script.reply(id, Ok(both("offer")));
    assert_eq!(script.lost_tracks.last().unwrap(), &[]);
}

#[test]
fn a_track_without_packets_yet_is_not_one_that_the_sfu_has_dropped() {
    let mut script = Script::new(PullForm::SfuOffers);
    for session in ["one", "two", "three", "four", "five"] {
        if script.outputs.is_empty() {
            script.wait(10 * S);
        }
        script.new_session(session);
        let (id, ..) = script.asked(session);
        script.reply(id, Ok(tracks(&[("video", Err("empty_track_error")), ("audio", Err("empty_track_error"))], None)));
        if let Some(Output::Call(id, ApiCall::Inspect { .. })) = script.outputs.front().cloned() {
            script.outputs.pop_front();
            script.reply(id, inspected("inactive", "inactive"));
        }
    }
    assert_eq!(script.lost_tracks, [[]; 0]);
}
