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
    script.flow(peer, &[Audio], 5 * S);
    script.nothing();
    assert_eq!(script.lost_tracks, [[]; 0]);
}

#[test]
fn a_question_that_hangs_is_not_repeated_and_one_silent_track_is_no_reason_to_ask() {
    let mut script = Script::new(PullForm::SfuOffers);
    let peer = script.up("one");
    script.wait(2 * S);
    let hanging = script.asked_about_publisher();
    script.flow(peer, &[], 2 * S);
    script.nothing();
    script.reply(hanging, Err(lost(Call::Inspect)));
    // A microphone that is muted may send nothing for hours.
    script.flow(peer, &[Video], 20 * S);
    script.nothing();
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
