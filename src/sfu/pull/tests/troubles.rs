//! What a pull makes of failures, losses and replies that make no sense.

use super::silence::inspected;
use super::*;
use crate::rtc::sdp::OfferError;

#[test]
fn a_peer_that_cannot_take_a_second_offer_is_replaced_when_its_successor_has_both_tracks() {
    let (mut script, peer) = audio_only();
    let (id, ..) = script.asked("one");
    script.reply(id, Ok(tracks(&[("video", Ok("1"))], Some("offer"))));
    let Some(Output::AnswerOffer { renewed: true, .. }) = script.next() else { panic!() };
    let refused = Err(DescriptionError::PeerGone);
    script.pull.handle_described(peer, refused, script.now);
    script.drain();
    if script.outputs.is_empty() {
        script.wait(S);
    }
    script.new_session("two");
    let (id, names, _) = script.asked("two");
    assert_eq!(names, ["video", "audio"]);
    assert_eq!(script.dropped, [], "audio flows on");
    script.reply(id, Ok(both("offer")));
    assert_eq!(script.dropped, [peer]);
    // The old session waits for an answer that will not come: a close would be refused.
    let successor = script.answer(false);
    script.renegotiated("two", Ok(ApiReply::Done));
    script.connect(successor);
    script.peer(successor, PeerEvent::Connected);
    script.flow(successor, &[Audio, Video], 3 * S);
    assert_eq!(*script.pull.state(), State::Flowing);
    // From now on a missing track comes with a new link, and with nothing less.
    script.flow(successor, &[Audio], 3 * S);
    let _hanging = script.asked_about_publisher();
    script.flow(successor, &[Audio], 28 * S);
    script.new_session("three");
    let (id, names, _) = script.asked("three");
    assert_eq!(names, ["video", "audio"]);
    let mixed = [("video", Err("empty_track_error")), ("audio", Ok("0"))];
    script.reply(id, Ok(tracks(&mixed, Some("offer"))));
    script.flow(successor, &[Audio], S);
    script.new_session("four");
    assert_eq!(script.dropped, [peer]);
    let (id, ..) = script.asked("four");
    script.reply(id, Ok(both("offer")));
    let third = script.answer(false);
    script.closed("two", &["1", "0"]);
    assert_eq!(script.dropped, [peer, successor]);
    script.renegotiated("four", Ok(ApiReply::Done));
    script.connect(third);
}

#[test]
fn a_successor_with_less_than_what_flows_is_not_taken() {
    let mut script = Script::new(PullForm::SfuOffers);
    let peer = script.up("one");
    // The session is of no more use, but both tracks flow.
    script.pull.link.as_mut().unwrap().spent = Some(Trouble::NoDescription);
    script.pull.handle_timeout(script.now);
    script.drain();
    script.new_session("two");
    let (id, ..) = script.asked("two");
    let mixed = [("video", Err("internal_error")), ("audio", Ok("0"))];
    script.reply(id, Ok(tracks(&mixed, Some("offer"))));
    assert_eq!(script.dropped, []);
    script.flow(peer, &[Audio, Video], S);
    assert_eq!(*script.pull.state(), State::Flowing);
}

#[test]
fn a_410_that_concerns_our_own_session_makes_a_new_one() {
    let mut script = Script::new(PullForm::SfuOffers);
    script.new_session("one");
    let (id, ..) = script.asked("one");
    script.reply(id, Err(refused(Call::NewTracks, 410, "session_error")));
    let (id, call) = script.call();
    assert!(matches!(call, ApiCall::Inspect { session } if session == "one"));
    script.reply(id, Err(refused(Call::Inspect, 410, "session_error")));
    script.wait(S);
    script.up("two");
}

#[test]
fn a_410_that_concerns_the_publishers_session_ends_the_pull_once_the_api_confirms_it() {
    let mut script = Script::new(PullForm::SfuOffers);
    script.new_session("one");
    let (id, ..) = script.asked("one");
    script.reply(id, Err(refused(Call::NewTracks, 410, "session_error")));
    let (id, _) = script.call();
    script.reply(id, Ok(ApiReply::Inspected(SessionReply::default())));
    let (id, call) = script.call();
    assert!(matches!(call, ApiCall::Inspect { session } if session == "publisher"));
    script.reply(id, Err(refused(Call::Inspect, 410, "session_error")));
    assert_eq!(*script.pull.state(), State::Ended(EndReason::PublisherGone));
    assert!(script.pull.is_finished());
}

#[test]
fn a_410_to_a_further_track_leaves_our_session_to_be_closed() {
    let (mut script, peer) = audio_only();
    let (id, ..) = script.asked("one");
    script.reply(id, Err(refused(Call::NewTracks, 410, "session_error")));
    script.pull.stop(script.now);
    script.drain();
    script.outputs.retain(|output| matches!(output, Output::Call(_, ApiCall::CloseTracks { .. })));
    script.closed("one", &["0"]);
    assert_eq!(script.dropped, [peer]);
    assert!(script.pull.is_finished());
}

#[test]
fn an_inquiry_that_hangs_does_not_hold_up_the_next_attempt() {
    let mut script = Script::new(PullForm::SfuOffers);
    script.new_session("one");
    let (id, ..) = script.asked("one");
    script.reply(id, Err(refused(Call::NewTracks, 410, "session_error")));
    let (_hanging, call) = script.call();
    assert!(matches!(call, ApiCall::Inspect { .. }));
    script.wait(S);
    script.up("two");
}

#[test]
fn a_publisher_without_a_sign_of_life_for_two_minutes_is_gone_but_not_while_the_api_is_down() {
    let mut script = Script::new(PullForm::SfuOffers);
    let begin = script.now;
    while script.now < begin + 300 * S {
        let (id, call) = script.call();
        assert!(matches!(call, ApiCall::NewSession));
        let cause = Cause::Unreachable("connection refused".to_owned());
        script.reply(id, Err(CallError { call: Call::NewSession, cause }));
        script.wait(8 * S);
    }
    let begin = script.now;
    while script.pull.ended.is_none() {
        assert!(script.now < begin + 150 * S);
        match script.call() {
            (id, ApiCall::NewSession) => script.reply(id, Ok(ApiReply::Session("ours".to_owned()))),
            (id, ApiCall::NewTracks { .. }) => {
                let missing = [("video", Err("not_found_track_error")), ("audio", Err("not_found_track_error"))];
                script.reply(id, Ok(tracks(&missing, None)));
            }
            // Of an unknown session it hangs.
            (id, ApiCall::Inspect { .. }) => script.reply(id, Err(lost(Call::Inspect))),
            (_, other) => panic!("{other:?}"),
        }
        if script.outputs.is_empty() && script.pull.ended.is_none() {
            script.wait(8 * S);
        }
    }
    assert_eq!(script.pull.ended, Some(EndReason::PublisherGone));
}

#[test]
fn a_publisher_that_the_api_knows_is_waited_for_without_end() {
    let mut script = Script::new(PullForm::SfuOffers);
    let begin = script.now;
    while script.now < begin + 1000 * S {
        match script.call() {
            (id, ApiCall::NewSession) => script.reply(id, Ok(ApiReply::Session("ours".to_owned()))),
            (id, ApiCall::NewTracks { .. }) => {
                let missing = [("video", Err("not_found_track_error")), ("audio", Err("not_found_track_error"))];
                script.reply(id, Ok(tracks(&missing, None)));
            }
            (id, ApiCall::Inspect { .. }) => {
                script.reply(id, Ok(ApiReply::Inspected(SessionReply::default())));
            }
            (_, other) => panic!("{other:?}"),
        }
        if script.outputs.is_empty() {
            script.wait(8 * S);
        }
    }
    assert_eq!(script.pull.ended, None);
}

#[test]
fn a_425_or_406_on_a_fresh_session_makes_a_new_one() {
    for status in [406, 425] {
        let mut script = Script::new(PullForm::SfuOffers);
        script.new_session("one");
        let (id, ..) = script.asked("one");
        script.reply(id, Err(refused(Call::NewTracks, status, "session_error")));
        script.wait(S);
        script.up("two");
        assert_eq!(script.pull.stats().sessions_abandoned, 1);
    }
}

#[test]
fn an_api_that_asks_for_patience_gets_it() {
    let mut script = Script::new(PullForm::SfuOffers);
    let (id, _) = script.call();
    let cause = Cause::Refused {
        status: 429,
        code: String::new(),
        description: String::new(),
        cf_ray: String::new(),
        retry_after: Some(20 * S),
    };
    script.reply(id, Err(CallError { call: Call::NewSession, cause }));
    assert!(script.wait(30 * S) >= 20 * S);
}

#[test]
fn a_link_that_never_connects_is_replaced_after_five_seconds_and_the_second_time_by_the_other_form() {
    let mut script = Script::new(PullForm::SfuOffers);
    for session in ["one", "two"] {
        script.new_session(session);
        let (id, ..) = script.asked(session);
        script.reply(id, Ok(both("offer")));
        let peer = script.answer(false);
        script.renegotiated(session, Ok(ApiReply::Done));
        script.connect(peer);
        let waited = script.wait(10 * S);
        assert!(waited >= 5500 * MS && waited <= 5625 * MS, "{waited:?}");
        assert_eq!(open_sessions(&script.pull), 0);
    }
    assert_eq!(script.troubles, [Trouble::NeverConnected, Trouble::NeverConnected]);
    let Some(Output::MakeOffer { peer, .. }) = script.next() else { panic!() };
    // A driver that cannot make offers is not asked again.
    script.pull.handle_described(peer, Err(DescriptionError::Ending), script.now);
    script.drain();
    for session in ["three", "four"] {
        script.new_session(session);
        let (id, ..) = script.asked(session);
        script.reply(id, Ok(both("offer")));
        let peer = script.answer(false);
        script.renegotiated(session, Ok(ApiReply::Done));
        script.connect(peer);
        script.wait(10 * S);
    }
    script.up("five");
}

#[test]
fn an_offer_that_we_cannot_answer_or_an_answer_that_is_refused_makes_the_other_form_try() {
    for is_ours in [true, false] {
        let mut script = Script::new(PullForm::SfuOffers);
        script.new_session("one");
        let (id, ..) = script.asked("one");
        script.reply(id, Ok(both("offer")));
        if is_ours {
            let Some(Output::AnswerOffer { peer, .. }) = script.next() else { panic!() };
            script.pull.handle_described(peer, Err(DescriptionError::Offer(OfferError::NoH264)), script.now);
            script.drain();
        } else {
            script.answer(false);
            script.renegotiated("one", Err(refused(Call::Renegotiate, 400, "invalid_session_description")));
        }
        script.wait(S);
        assert!(matches!(script.next(), Some(Output::MakeOffer { .. })));
    }
}

#[test]
fn a_lost_path_is_replaced_after_five_seconds_unless_it_comes_back() {
    let mut script = Script::new(PullForm::SfuOffers);
    let peer = script.up("one");
    script.peer(peer, PeerEvent::Lost);
    script.now += 4 * S;
    script.pull.handle_timeout(script.now);
    script.peer(peer, PeerEvent::Media(Video));
    script.nothing();
    script.flow(peer, &[Video, Audio], 10 * S);
    script.nothing();
    // However late it is noticed: the last packet counts.
    script.now += 3 * S;
    script.peer(peer, PeerEvent::Lost);
    let waited = script.wait(10 * S);
    assert_eq!(waited, 1500 * MS);
    assert_eq!(script.troubles, [Trouble::PathLost]);
    script.new_session("two");
    let (id, ..) = script.asked("two");
    script.reply(id, Ok(both("offer")));
    script.answer(false);
    script.closed("one", &["0", "1"]);
    assert_eq!(script.dropped, [peer]);
}

#[test]
fn a_path_that_comes_back_during_the_attempt_to_replace_it_is_kept() {
    let mut script = Script::new(PullForm::SfuOffers);
    let peer = script.up("one");
    script.peer(peer, PeerEvent::Lost);
    script.wait(10 * S);
    script.new_session("two");
    let (id, ..) = script.asked("two");
    script.peer(peer, PeerEvent::Connected);
    script.flow(peer, &[Video, Audio], S);
    script.nothing();
    script.reply(id, Ok(both("offer")));
    script.nothing();
    assert_eq!(script.dropped, []);
    assert_eq!(*script.pull.state(), State::Flowing);
}

#[test]
fn a_track_that_was_collected_is_asked_for_again_while_the_other_flows() {
    let mut script = Script::new(PullForm::SfuOffers);
    let peer = script.up("one");
    // Without the API's help: the question hangs.
    script.flow(peer, &[Video], 3 * S);
    let _hanging = script.asked_about_publisher();
    script.flow(peer, &[Video], 26 * S);
    script.nothing();
    script.flow(peer, &[Video], 2 * S);
    let (id, names, _) = script.asked("one");
    assert_eq!(names, ["audio"]);
    script.reply(id, Ok(tracks(&[("audio", Ok("2"))], Some("offer"))));
    assert_eq!(script.answer(true), peer);
    script.renegotiated("one", Ok(ApiReply::Done));
    script.flow(peer, &[Video, Audio], 40 * S);
    script.nothing();
    script.pull.stop(script.now);
    script.drain();
    script.closed("one", &["0", "2", "1"]);
}

#[test]
fn a_link_without_any_packets_is_replaced() {
    // From the beginning: after five seconds.
    let mut script = Script::new(PullForm::SfuOffers);
    script.new_session("one");
    let (id, ..) = script.asked("one");
    script.reply(id, Ok(both("offer")));
    let peer = script.answer(false);
    script.renegotiated("one", Ok(ApiReply::Done));
    script.connect(peer);
    script.peer(peer, PeerEvent::Connected);
    let waited = script.wait(10 * S);
    assert!(waited >= 5 * S && waited <= 5 * S + 625 * MS, "{waited:?}");
    assert_eq!(script.troubles, [Trouble::Silent]);
    // Later: after the thirty in which the SFU keeps the tracks.
    let mut script = Script::new(PullForm::SfuOffers);
    let peer = script.up("one");
    let mut waited = script.wait(40 * S);
    while matches!(script.outputs.front(), Some(Output::Call(_, ApiCall::Inspect { .. }))) {
        let id = script.asked_about_publisher();
        script.reply(id, inspected("active", "active"));
        waited += script.wait(40 * S);
        assert!(waited <= 60 * S, "it only asks");
    }
    assert!(waited >= 29 * S && waited <= 30 * S, "{waited:?}");
    assert_eq!(script.dropped, []);
    script.new_session("two");
    let (id, ..) = script.asked("two");
    // The old one is kept until the new one has tracks.
    script.reply(id, Ok(tracks(&[("video", Err("empty_track_error"))], None)));
    assert_eq!(script.dropped, []);
    script.wait(S);
    script.new_session("three");
    let (id, ..) = script.asked("three");
    script.reply(id, Ok(both("offer")));
    script.answer(false);
    script.closed("one", &["0", "1"]);
    assert_eq!(script.dropped, [peer]);
}

#[test]
fn a_close_that_fails_is_repeated_for_a_quarter_of_a_minute_and_then_left_to_expire() {
    for (error, tries, closed) in [
        (refused(Call::CloseTracks, 200, "internal_error"), 5, 0),
        (refused(Call::CloseTracks, 503, ""), 5, 0),
        (lost(Call::CloseTracks), 5, 0),
        (CallError { call: Call::CloseTracks, cause: Cause::TimedOut(12 * S) }, 1, 0),
        (refused(Call::CloseTracks, 425, "session_error"), 1, 0),
        (refused(Call::CloseTracks, 400, "decoding_error"), 1, 0),
    ] {
        let mut script = Script::new(PullForm::SfuOffers);
        script.up("one");
        script.pull.stop(script.now);
        script.drain();
        let (mut made, stopped) = (0, script.now);
        while !script.pull.is_finished() {
            let (id, call) = script.call();
            assert!(matches!(call, ApiCall::CloseTracks { .. }));
            made += 1;
            assert!(made <= tries, "{error}");
            script.reply(id, Err(error.clone()));
            if !script.pull.is_finished() {
                script.wait(8 * S);
            }
        }
        assert_eq!(script.now - stopped, if tries == 5 { 15 * S } else { Duration::ZERO }, "{error}");
        let stats = script.pull.stats();
        assert_eq!((made, stats.sessions_closed, stats.sessions_abandoned), (tries, closed, 1 - closed), "{error}");
    }
}

#[test]
fn no_more_sessions_are_being_closed_than_the_bound_allows() {
    let mut script = Script::new(PullForm::SfuOffers);
    let mut sessions = 0;
    while sessions < 3 * CLOSINGS_MAX {
        sessions += 1;
        let session = format!("session-{sessions}");
        script.new_session(&session);
        let (id, ..) = script.asked(&session);
        script.reply(id, Ok(both("offer")));
        let peer = script.answer(false);
        script.peer(peer, PeerEvent::Ended("test".to_owned()));
        // The close and the renegotiation hang.
        let until = script.now + 60 * S;
        while !matches!(script.outputs.front(), Some(Output::Call(_, ApiCall::NewSession))) {
            assert!(script.now < until, "no new session");
            script.outputs.pop_front();
            if script.outputs.is_empty() {
                script.wait(8 * S);
            }
        }
        assert!(script.pull.closings.len() <= CLOSINGS_MAX);
    }
    let stats = script.pull.stats();
    assert_eq!(stats.sessions_made, stats.sessions_abandoned + u64::try_from(open_sessions(&script.pull)).unwrap());
}

#[test]
fn replies_and_events_that_nobody_waits_for_change_nothing() {
    let mut script = Script::new(PullForm::SfuOffers);
    let peer = script.up("one");
    script.reply(CallId(999), Ok(both("offer")));
    script.reply(CallId(1), Ok(ApiReply::Session("again".to_owned())));
    script.peer(PeerId(99), PeerEvent::Ended("unknown".to_owned()));
    script.pull.handle_described(peer, Ok("late".to_owned()), script.now);
    script.pull.handle_applied(peer, Err(DescriptionError::PeerGone), script.now);
    script.drain();
    script.nothing();
    assert_eq!(*script.pull.state(), State::Flowing);
}

#[test]
fn items_that_were_not_asked_for_are_not_taken() {
    let mut script = Script::new(PullForm::SfuOffers);
    script.new_session("one");
    let (id, ..) = script.asked("one");
    let stray =
        |mid: u32| Track { mid: Some(mid.to_string()), track_name: Some("video".to_owned()), ..Track::default() };
    let mut reply = TracksReply { tracks: (0..1000).map(stray).collect(), ..TracksReply::default() };
    reply.tracks.push(Track { mid: Some("7".to_owned()), track_name: Some("screen".to_owned()), ..Track::default() });
    reply.session_description = Some(crate::sfu::api::SessionDescription::offer("the SFU's offer"));
    script.reply(id, Ok(ApiReply::Tracks(reply)));
    script.answer(false);
    let pulled = &script.pull.link.as_ref().unwrap().pulled;
    assert_eq!((pulled.len(), pulled[0].mid.as_str()), (1, "0"));
}
