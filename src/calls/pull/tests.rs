//! The pull in virtual time: scripted replies here, random faults in `random_faults`.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind::{self, Audio, Video};
use serde_json::json;

use super::super::api::{SessionReply, Track, TracksReply};
use super::super::error::{Call, CallError, Cause};
use super::closing::CLOSINGS_MAX;
use super::*;

mod random_faults;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn publication() -> Publication {
    Publication {
        session_id: "publisher".to_owned(),
        tracks: vec![(Video, "video".to_owned()), (Audio, "audio".to_owned())],
    }
}

fn refused(call: Call, status: u16, code: &str) -> CallError {
    CallError {
        call,
        cause: Cause::Refused {
            status,
            code: code.to_owned(),
            description: String::new(),
            cf_ray: String::new(),
            retry_after: None,
        },
    }
}

fn lost(call: Call) -> CallError {
    let cause = Cause::ReplyLost("no complete reply within 15s".to_owned());
    CallError { call, cause }
}

/// A reply to tracks/new as the API writes it: `(name, Ok(mid) | Err(errorCode))`, and the description.
fn tracks(items: &[(&str, Result<&str, &str>)], description: Option<&str>) -> ApiReply {
    let items: Vec<_> = items
        .iter()
        .map(|(name, outcome)| match outcome {
            Ok(mid) => json!({"sessionId": "publisher", "trackName": name, "mid": mid}),
            Err(code) => {
                json!({"sessionId": "publisher", "trackName": name, "mid": "", "errorCode": code,
                                "errorDescription": "some words"})
            }
        })
        .collect();
    let mut reply =
        json!({"requiresImmediateRenegotiation": description == Some("offer"), "tracks": items});
    if let Some(kind) = description {
        reply["sessionDescription"] = json!({"type": kind, "sdp": format!("the SFU's {kind}")});
    }
    let reply: TracksReply = serde_json::from_value(reply).unwrap();
    ApiReply::Tracks(reply)
}

fn both(description: &str) -> ApiReply {
    tracks(&[("video", Ok("0")), ("audio", Ok("1"))], Some(description))
}

/// The pull, its clock, and what it asked for and has not got.
struct Script {
    pull: Pull,
    now: Instant,
    outputs: VecDeque<Output>,
    states: Vec<State>,
    troubles: Vec<Trouble>,
    /// Peers that were dropped.
    dropped: Vec<PeerId>,
}

impl Script {
    fn new(form: PullForm) -> Self {
        let now = Instant::now();
        let mut script = Self {
            pull: Pull::new(publication(), form, 7, now),
            now,
            outputs: VecDeque::new(),
            states: Vec::new(),
            troubles: Vec::new(),
            dropped: Vec::new(),
        };
        script.drain();
        script
    }

    fn drain(&mut self) {
        while let Some(output) = self.pull.poll_output() {
            match output {
                Output::State(state) => self.states.push(state),
                Output::Trouble(trouble) => self.troubles.push(trouble),
                Output::DropPeer { peer } => self.dropped.push(peer),
                other => self.outputs.push_back(other),
            }
        }
    }

    /// The next output that wants something done, without time passing.
    fn next(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next call, which must be the only thing wanted.
    #[track_caller]
    fn call(&mut self) -> (CallId, ApiCall) {
        match self.next() {
            Some(Output::Call(id, call)) => (id, call),
            other => panic!("a call was expected, not {other:?}"),
        }
    }

    #[track_caller]
    fn nothing(&mut self) {
        assert!(self.outputs.is_empty(), "{:?}", self.outputs);
    }

    fn reply(&mut self, id: CallId, reply: Result<ApiReply, CallError>) {
        self.pull.handle_reply(id, reply, self.now);
        self.drain();
    }

    fn peer(&mut self, peer: PeerId, event: PeerEvent) {
        self.pull.handle_peer(peer, event, self.now);
        self.drain();
    }

    /// Lets time pass until something is wanted; says how long that took.
    #[track_caller]
    fn wait(&mut self, at_most: Duration) -> Duration {
        let begin = self.now;
        while self.outputs.is_empty() {
            let due = self.pull.poll_timeout().expect("something is due");
            assert!(due <= begin + at_most, "nothing within {at_most:?}");
            self.now = self.now.max(due);
            self.pull.handle_timeout(self.now);
            self.drain();
        }
        self.now - begin
    }

    /// Lets time pass during which these tracks flow.
    fn flow(&mut self, peer: PeerId, kinds: &[TrackKind], duration: Duration) {
        let until = self.now + duration;
        while self.now < until {
            for kind in kinds {
                self.peer(peer, PeerEvent::Media(*kind));
            }
            let next = (self.now + 500 * MS).min(until);
            while let Some(due) = self.pull.poll_timeout().filter(|due| *due <= next) {
                self.now = self.now.max(due);
                self.pull.handle_timeout(self.now);
                self.drain();
            }
            self.now = next;
        }
    }

    /// Answers sessions/new.
    #[track_caller]
    fn new_session(&mut self, session: &str) {
        let (id, call) = self.call();
        assert!(matches!(call, ApiCall::NewSession), "{call:?}");
        self.reply(id, Ok(ApiReply::Session(session.to_owned())));
    }

    /// The names that tracks/new asks of a session.
    #[track_caller]
    fn asked(&mut self, of: &str) -> (CallId, Vec<String>, Option<String>) {
        let (id, call) = self.call();
        let ApiCall::NewTracks { session, request } = call else {
            panic!("{call:?}");
        };
        assert_eq!(session, of);
        for track in &request.tracks {
            assert_eq!(track.session_id.as_deref(), Some("publisher"));
        }
        let names = request
            .tracks
            .into_iter()
            .map(|track| track.track_name.unwrap());
        let offer = request
            .session_description
            .map(|description| description.sdp);
        (id, names.collect(), offer)
    }

    #[track_caller]
    fn closed(&mut self, of: &str, mids: &[&str]) {
        let (id, call) = self.call();
        let ApiCall::CloseTracks {
            session,
            mids: closed,
        } = call
        else {
            panic!("{call:?}");
        };
        assert_eq!(
            (session.as_str(), closed),
            (of, mids.iter().map(|mid| (*mid).to_owned()).collect())
        );
        self.reply(id, Ok(ApiReply::Done));
    }

    #[track_caller]
    fn answer(&mut self, is_renewed: bool) -> PeerId {
        match self.next() {
            Some(Output::AnswerOffer { peer, sdp, renewed }) => {
                assert_eq!((sdp.as_str(), renewed), ("the SFU's offer", is_renewed));
                let now = self.now;
                self.pull
                    .handle_described(peer, Ok("our answer".to_owned()), now);
                self.drain();
                peer
            }
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn renegotiated(&mut self, of: &str, reply: Result<ApiReply, CallError>) {
        let (id, call) = self.call();
        let ApiCall::Renegotiate { session, answer } = call else {
            panic!("{call:?}");
        };
        assert_eq!((session.as_str(), answer.as_str()), (of, "our answer"));
        self.reply(id, reply);
    }

    #[track_caller]
    fn connect(&mut self, peer: PeerId) {
        match self.next() {
            Some(Output::Connect { peer: told }) => assert_eq!(told, peer),
            other => panic!("{other:?}"),
        }
        self.nothing();
    }

    /// Form 1 from the beginning to both tracks flowing.
    #[track_caller]
    fn up(&mut self, session: &str) -> PeerId {
        self.new_session(session);
        let (id, names, offer) = self.asked(session);
        assert_eq!((names.join(" "), offer), ("video audio".to_owned(), None));
        self.reply(id, Ok(both("offer")));
        let peer = self.answer(false);
        self.renegotiated(session, Ok(ApiReply::Done));
        self.connect(peer);
        self.peer(peer, PeerEvent::Connected);
        self.flow(peer, &[Video, Audio], 3 * S);
        assert_eq!(*self.pull.state(), State::Flowing);
        peer
    }
}

#[test]
fn form_1_is_an_empty_session_the_sfus_offer_and_our_answer() {
    let mut script = Script::new(PullForm::SfuOffers);
    script.up("one");
    assert_eq!(
        script.states,
        [State::Connecting, State::Partial(Audio), State::Flowing]
    );
    assert_eq!(script.troubles, []);
    let stats = script.pull.stats();
    assert_eq!((stats.calls, stats.sessions_made, stats.links), (3, 1, 1));
}

#[test]
fn form_2_makes_its_offer_before_the_session_and_needs_no_renegotiation() {
    let mut script = Script::new(PullForm::WeOffer);
    let Some(Output::MakeOffer { peer, kinds }) = script.next() else {
        panic!()
    };
    assert_eq!(kinds, [Video, Audio]);
    script.nothing();
    script
        .pull
        .handle_described(peer, Ok("our offer".to_owned()), script.now);
    script.drain();
    script.new_session("one");
    let (id, names, offer) = script.asked("one");
    assert_eq!(
        (names.join(" "), offer.as_deref()),
        ("video audio".to_owned(), Some("our offer"))
    );
    script.reply(id, Ok(both("answer")));
    match script.next() {
        Some(Output::ApplyAnswer { peer: told, sdp }) => {
            assert_eq!((told, sdp.as_str()), (peer, "the SFU's answer"))
        }
        other => panic!("{other:?}"),
    }
    script.pull.handle_applied(peer, Ok(()), script.now);
    script.drain();
    script.connect(peer);
    script.peer(peer, PeerEvent::Connected);
    script.flow(peer, &[Video, Audio], S);
    assert_eq!(*script.pull.state(), State::Flowing);
}

#[test]
fn stopping_closes_the_tracks_and_then_it_is_over() {
    let mut script = Script::new(PullForm::SfuOffers);
    let peer = script.up("one");
    script.pull.stop(script.now);
    script.drain();
    assert!(!script.pull.is_finished());
    script.closed("one", &["0", "1"]);
    assert_eq!(script.dropped, [peer]);
    assert!(script.pull.is_finished());
    assert_eq!(script.pull.stats().sessions_closed, 1);
    assert_eq!(
        script.states.last(),
        Some(&State::Ended(EndReason::Stopped))
    );
}

#[test]
fn a_stop_during_a_call_waits_for_its_reply_and_closes_what_it_registered() {
    let mut script = Script::new(PullForm::SfuOffers);
    script.new_session("one");
    let (id, ..) = script.asked("one");
    script.pull.stop(script.now);
    script.drain();
    script.nothing();
    assert!(!script.pull.is_finished());
    script.reply(id, Ok(both("offer")));
    script.closed("one", &["0", "1"]);
    assert!(script.pull.is_finished());
}

#[test]
fn a_session_that_comes_after_the_stop_is_abandoned_and_counted() {
    let mut script = Script::new(PullForm::SfuOffers);
    let (id, _) = script.call();
    script.pull.stop(script.now);
    script.drain();
    assert!(!script.pull.is_finished());
    script.reply(id, Ok(ApiReply::Session("late".to_owned())));
    assert!(script.pull.is_finished());
    let stats = script.pull.stats();
    assert_eq!((stats.sessions_made, stats.sessions_abandoned), (1, 1));
}

#[test]
fn waits_double_from_half_a_second_to_eight_and_begin_anew_after_success() {
    let mut script = Script::new(PullForm::SfuOffers);
    for spacing in [500, 1000, 2000, 4000, 6400, 6400, 6400] {
        let (id, _) = script.call();
        script.reply(id, Err(refused(Call::NewSession, 503, "")));
        let waited = script.wait(8 * S);
        let spacing = spacing * MS;
        assert!(
            waited >= spacing && waited <= spacing * 5 / 4,
            "{waited:?} {spacing:?}"
        );
    }
    assert_eq!(*script.pull.state(), State::Recovering);
    let peer = script.up("one");
    script.peer(peer, PeerEvent::Ended("consent lost".to_owned()));
    // The first attempt after success needs no wait.
    script.new_session("two");
    script.closed("one", &["0", "1"]);
}

#[test]
fn a_call_that_was_held_long_is_followed_by_a_short_wait() {
    let mut script = Script::new(PullForm::SfuOffers);
    for session in ["one", "two", "three", "four", "five"] {
        script.new_session(session);
        let (id, ..) = script.asked(session);
        script.now += 8700 * MS;
        let empty = [
            ("video", Err("empty_track_error")),
            ("audio", Err("empty_track_error")),
        ];
        script.reply(id, Ok(tracks(&empty, None)));
        // The third denial in a row has the publisher's session looked at.
        if session == "three" {
            let (id, call) = script.call();
            assert!(matches!(call, ApiCall::Inspect { session } if session == "publisher"));
            script.reply(id, Ok(ApiReply::Inspected(SessionReply::default())));
        }
        let waited = script.wait(S);
        assert!(waited >= 500 * MS && waited <= 625 * MS, "{waited:?}");
    }
    assert_eq!(script.pull.stats().sessions_abandoned, 5);
    assert!(script.troubles.iter().all(
        |trouble| matches!(trouble, Trouble::Track { code, .. } if code == "empty_track_error")
    ));
}

#[test]
fn a_lost_reply_to_a_mutation_makes_a_new_session() {
    for lost_call in ["tracks/new", "renegotiate"] {
        let mut script = Script::new(PullForm::SfuOffers);
        script.new_session("one");
        let (id, ..) = script.asked("one");
        if lost_call == "tracks/new" {
            script.reply(id, Err(lost(Call::NewTracks)));
        } else {
            script.reply(id, Ok(both("offer")));
            let peer = script.answer(false);
            script.renegotiated("one", Err(lost(Call::Renegotiate)));
            assert_eq!(script.dropped, [peer]);
            script.closed("one", &["0", "1"]);
        }
        script.wait(S);
        script.up("two");
    }
}

#[test]
fn a_lost_reply_to_sessions_new_is_counted_as_a_session_that_nobody_knows() {
    let mut script = Script::new(PullForm::SfuOffers);
    let (id, _) = script.call();
    script.reply(id, Err(lost(Call::NewSession)));
    assert_eq!(script.pull.stats().sessions_unknown, 1);
    script.wait(S);
    script.up("two");
}

#[test]
fn of_a_good_and_a_failed_track_the_good_one_is_kept_and_only_the_other_asked_for_again() {
    let mut script = Script::new(PullForm::SfuOffers);
    script.new_session("one");
    let (id, ..) = script.asked("one");
    let mixed = [("video", Err("internal_error")), ("audio", Ok("0"))];
    script.reply(id, Ok(tracks(&mixed, Some("offer"))));
    let peer = script.answer(false);
    script.renegotiated("one", Ok(ApiReply::Done));
    script.connect(peer);
    // Before the transport stands the SFU would refuse it.
    assert!(script.pull.poll_timeout().unwrap() >= script.now + 5 * S);
    script.peer(peer, PeerEvent::Connected);
    script.flow(peer, &[Audio], 700 * MS);
    assert_eq!(*script.pull.state(), State::Partial(Video));
    let (id, names, _) = script.asked("one");
    assert_eq!(names, ["video"]);
    script.reply(id, Ok(tracks(&[("video", Err("empty_track_error"))], None)));
    script.flow(peer, &[Audio], 1300 * MS);
    let (id, names, _) = script.asked("one");
    assert_eq!(names, ["video"]);
    script.reply(id, Ok(tracks(&[("video", Ok("1"))], Some("offer"))));
    assert_eq!(script.answer(true), peer);
    script.renegotiated("one", Ok(ApiReply::Done));
    script.nothing();
    script.flow(peer, &[Audio, Video], 3 * S);
    assert_eq!(*script.pull.state(), State::Flowing);
    script.pull.stop(script.now);
    script.drain();
    script.closed("one", &["0", "1"]);
}

#[test]
fn a_peer_that_cannot_take_a_second_offer_is_replaced_when_its_successor_has_both_tracks() {
    let mut script = Script::new(PullForm::SfuOffers);
    script.new_session("one");
    let (id, ..) = script.asked("one");
    let mixed = [("video", Err("internal_error")), ("audio", Ok("0"))];
    script.reply(id, Ok(tracks(&mixed, Some("offer"))));
    let peer = script.answer(false);
    script.renegotiated("one", Ok(ApiReply::Done));
    script.connect(peer);
    script.peer(peer, PeerEvent::Connected);
    script.flow(peer, &[Audio], 700 * MS);
    let (id, ..) = script.asked("one");
    script.reply(id, Ok(tracks(&[("video", Ok("1"))], Some("offer"))));
    let Some(Output::AnswerOffer { renewed: true, .. }) = script.next() else {
        panic!()
    };
    script
        .pull
        .handle_described(peer, Err("one offer only".to_owned()), script.now);
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
    let successor = script.answer(false);
    script.closed("one", &["0", "1"]);
    script.renegotiated("two", Ok(ApiReply::Done));
    script.connect(successor);
    script.peer(successor, PeerEvent::Connected);
    script.flow(successor, &[Audio, Video], S);
    assert_eq!(*script.pull.state(), State::Flowing);
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
    script.closed("two", &["0"]);
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
        script.reply(
            id,
            Err(CallError {
                call: Call::NewSession,
                cause,
            }),
        );
        script.wait(8 * S);
    }
    let begin = script.now;
    while script.pull.ended.is_none() {
        assert!(script.now < begin + 150 * S);
        match script.call() {
            (id, ApiCall::NewSession) => script.reply(id, Ok(ApiReply::Session("ours".to_owned()))),
            (id, ApiCall::NewTracks { .. }) => {
                let missing = [
                    ("video", Err("not_found_track_error")),
                    ("audio", Err("not_found_track_error")),
                ];
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
                let missing = [
                    ("video", Err("not_found_track_error")),
                    ("audio", Err("not_found_track_error")),
                ];
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
    script.reply(
        id,
        Err(CallError {
            call: Call::NewSession,
            cause,
        }),
    );
    assert!(script.wait(30 * S) >= 20 * S);
}

#[test]
fn a_link_that_never_connects_is_replaced_after_five_seconds_and_the_second_time_by_the_other_form()
{
    let mut script = Script::new(PullForm::SfuOffers);
    for session in ["one", "two"] {
        script.new_session(session);
        let (id, ..) = script.asked(session);
        script.reply(id, Ok(both("offer")));
        let peer = script.answer(false);
        script.renegotiated(session, Ok(ApiReply::Done));
        script.connect(peer);
        assert_eq!(script.wait(10 * S), 5 * S);
        script.closed(session, &["0", "1"]);
        script.wait(S);
    }
    assert_eq!(
        script.troubles,
        [Trouble::NeverConnected, Trouble::NeverConnected]
    );
    let Some(Output::MakeOffer { peer, .. }) = script.next() else {
        panic!()
    };
    // A driver that cannot make offers is not asked again.
    script
        .pull
        .handle_described(peer, Err("not built in".to_owned()), script.now);
    script.drain();
    for session in ["three", "four"] {
        if script.outputs.is_empty() {
            script.wait(8 * S);
        }
        script.new_session(session);
        let (id, ..) = script.asked(session);
        script.reply(id, Ok(both("offer")));
        let peer = script.answer(false);
        script.renegotiated(session, Ok(ApiReply::Done));
        script.connect(peer);
        script.wait(10 * S);
        script.closed(session, &["0", "1"]);
    }
    script.wait(8 * S);
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
            let Some(Output::AnswerOffer { peer, .. }) = script.next() else {
                panic!()
            };
            script
                .pull
                .handle_described(peer, Err("no H.264".to_owned()), script.now);
            script.drain();
        } else {
            script.answer(false);
            script.renegotiated(
                "one",
                Err(refused(
                    Call::Renegotiate,
                    400,
                    "invalid_session_description",
                )),
            );
        }
        script.closed("one", &["0", "1"]);
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
    script.peer(peer, PeerEvent::Lost);
    let waited = script.wait(10 * S);
    assert_eq!(waited, 5 * S);
    assert_eq!(script.troubles, [Trouble::PathLost]);
    script.new_session("two");
    let (id, ..) = script.asked("two");
    script.reply(id, Ok(both("offer")));
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
    script.closed("two", &["0", "1"]);
    assert_eq!(script.dropped, []);
    assert_eq!(*script.pull.state(), State::Flowing);
}

#[test]
fn a_track_that_was_collected_is_asked_for_again_while_the_other_flows() {
    let mut script = Script::new(PullForm::SfuOffers);
    let peer = script.up("one");
    script.flow(peer, &[Video], 29 * S);
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
    let waited = script.wait(40 * S);
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
    assert_eq!(script.dropped, [peer]);
}

#[test]
fn a_close_that_fails_is_repeated_twice_and_then_left_to_expire() {
    for (error, tries, closed) in [
        (refused(Call::CloseTracks, 200, "internal_error"), 3, 0),
        (refused(Call::CloseTracks, 503, ""), 3, 0),
        (lost(Call::CloseTracks), 3, 0),
        (refused(Call::CloseTracks, 425, "session_error"), 1, 0),
        (refused(Call::CloseTracks, 400, "decoding_error"), 1, 0),
    ] {
        let mut script = Script::new(PullForm::SfuOffers);
        script.up("one");
        script.pull.stop(script.now);
        script.drain();
        let mut made = 0;
        while !script.pull.is_finished() {
            let (id, call) = script.call();
            assert!(matches!(call, ApiCall::CloseTracks { .. }));
            made += 1;
            script.reply(id, Err(error.clone()));
            if !script.pull.is_finished() {
                script.wait(4 * S);
            }
        }
        let stats = script.pull.stats();
        assert_eq!(
            (made, stats.sessions_closed, stats.sessions_abandoned),
            (tries, closed, 1 - closed),
            "{error}"
        );
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
        while !matches!(
            script.outputs.front(),
            Some(Output::Call(_, ApiCall::NewSession))
        ) {
            script.outputs.pop_front();
            if script.outputs.is_empty() {
                script.wait(8 * S);
            }
        }
        assert!(script.pull.closings.len() <= CLOSINGS_MAX);
    }
    let stats = script.pull.stats();
    assert_eq!(
        stats.sessions_made,
        stats.sessions_abandoned + u64::try_from(script.pull.open_sessions()).unwrap()
    );
}

#[test]
fn replies_and_events_that_nobody_waits_for_change_nothing() {
    let mut script = Script::new(PullForm::SfuOffers);
    let peer = script.up("one");
    script.reply(CallId(999), Ok(both("offer")));
    script.reply(CallId(1), Ok(ApiReply::Session("again".to_owned())));
    script.peer(PeerId(99), PeerEvent::Ended("unknown".to_owned()));
    script
        .pull
        .handle_described(peer, Ok("late".to_owned()), script.now);
    script
        .pull
        .handle_applied(peer, Err("late".to_owned()), script.now);
    script.drain();
    script.nothing();
    assert_eq!(*script.pull.state(), State::Flowing);
}

#[test]
fn items_that_were_not_asked_for_are_not_taken() {
    let mut script = Script::new(PullForm::SfuOffers);
    script.new_session("one");
    let (id, ..) = script.asked("one");
    let mut reply = TracksReply::default();
    reply.tracks = (0..1000)
        .map(|mid: u32| Track {
            mid: Some(mid.to_string()),
            track_name: Some("video".to_owned()),
            ..Track::default()
        })
        .collect();
    reply.tracks.push(Track {
        mid: Some("7".to_owned()),
        track_name: Some("screen".to_owned()),
        ..Track::default()
    });
    reply.session_description = Some(super::super::api::SessionDescription::offer(
        "the SFU's offer",
    ));
    script.reply(id, Ok(ApiReply::Tracks(reply)));
    script.answer(false);
    assert_eq!(script.pull.link.as_ref().unwrap().mids(), ["0"]);
}
