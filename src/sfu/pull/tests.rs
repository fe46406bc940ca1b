//! The pull in virtual time: scripted replies here, random faults in `random_faults`.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind::{self, Audio, Video};
use serde_json::json;

use super::super::api::{SessionReply, Track, TracksReply};
use super::super::error::{Call, CallError, Cause};
use super::closing::CLOSINGS_MAX;
use super::*;

mod random_faults;
mod silence;
mod troubles;

/// Sessions that are in use or about to be closed.
fn open_sessions(pull: &Pull) -> usize {
    let attempt = usize::from(matches!(pull.attempt, Attempt::Requesting { .. }));
    attempt + usize::from(pull.link.is_some()) + pull.closings.len()
}

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
    let cause = Cause::ReplyLost("the connection was closed".to_owned());
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
    let mut reply = json!({"requiresImmediateRenegotiation": description == Some("offer"), "tracks": items});
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
    /// Tracks that the SFU was said to have no more.
    lost_tracks: Vec<Vec<TrackKind>>,
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
            lost_tracks: Vec::new(),
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
                Output::Dropped(kinds) => self.lost_tracks.push(kinds),
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
        let names = request.tracks.into_iter().map(|track| track.track_name.unwrap());
        let offer = request.session_description.map(|description| description.sdp);
        (id, names.collect(), offer)
    }

    #[track_caller]
    fn closed(&mut self, of: &str, mids: &[&str]) {
        let (id, call) = self.call();
        let ApiCall::CloseTracks { session, mids: closed } = call else {
            panic!("{call:?}");
        };
        assert_eq!((session.as_str(), closed), (of, mids.iter().map(|mid| (*mid).to_owned()).collect()));
        self.reply(id, Ok(ApiReply::Done));
    }

    #[track_caller]
    fn answer(&mut self, is_renewed: bool) -> PeerId {
        match self.next() {
            Some(Output::AnswerOffer { peer, sdp, renewed }) => {
                assert_eq!((sdp.as_str(), renewed), ("the SFU's offer", is_renewed));
                let now = self.now;
                self.pull.handle_described(peer, Ok("our answer".to_owned()), now);
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
    assert_eq!(script.states, [State::Connecting, State::Partial(Audio), State::Flowing]);
    assert_eq!(script.troubles, []);
    let stats = script.pull.stats();
    assert_eq!((stats.calls, stats.sessions_made, stats.links), (3, 1, 1));
}

#[test]
fn form_2_makes_its_offer_before_the_session_and_needs_no_renegotiation() {
    let mut script = Script::new(PullForm::WeOffer);
    let Some(Output::MakeOffer { peer, kinds }) = script.next() else { panic!() };
    assert_eq!(kinds, [Video, Audio]);
    script.nothing();
    script.pull.handle_described(peer, Ok("our offer".to_owned()), script.now);
    script.drain();
    script.new_session("one");
    let (id, names, offer) = script.asked("one");
    assert_eq!((names.join(" "), offer.as_deref()), ("video audio".to_owned(), Some("our offer")));
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
    assert_eq!(script.dropped, [], "tracks first, then the peer");
    script.closed("one", &["0", "1"]);
    assert_eq!(script.dropped, [peer]);
    assert!(script.pull.is_finished());
    assert_eq!(script.pull.stats().sessions_closed, 1);
    assert_eq!(script.states.last(), Some(&State::Ended(EndReason::Stopped)));
}

#[test]
fn a_close_that_hangs_does_not_keep_the_peer_for_long() {
    let mut script = Script::new(PullForm::SfuOffers);
    let peer = script.up("one");
    script.pull.stop(script.now);
    script.drain();
    let (_hanging, call) = script.call();
    assert!(matches!(call, ApiCall::CloseTracks { .. }));
    let due = script.pull.poll_timeout().unwrap();
    assert_eq!(due, script.now + 2 * S);
    script.now = due;
    script.pull.handle_timeout(due);
    script.drain();
    assert_eq!(script.dropped, [peer]);
    assert!(!script.pull.is_finished());
}

#[test]
fn a_stop_during_a_call_waits_for_its_reply_and_leaves_a_session_that_never_connected_to_expire() {
    let mut script = Script::new(PullForm::SfuOffers);
    script.new_session("one");
    let (id, ..) = script.asked("one");
    script.pull.stop(script.now);
    script.drain();
    script.nothing();
    assert!(!script.pull.is_finished());
    script.reply(id, Ok(both("offer")));
    assert!(script.pull.is_finished());
    let stats = script.pull.stats();
    assert_eq!((stats.sessions_made, stats.sessions_abandoned), (1, 1));
}

#[test]
fn a_stop_while_a_missing_track_is_asked_for_closes_the_others_once_no_offer_is_open() {
    for (reply, closes) in [
        (Ok(tracks(&[("video", Err("empty_track_error"))], None)), true),
        (Err(refused(Call::NewTracks, 425, "session_error")), true),
        (Ok(tracks(&[("video", Ok("1"))], Some("offer"))), false),
        (Err(lost(Call::NewTracks)), false),
    ] {
        let (mut script, _) = audio_only();
        let (id, ..) = script.asked("one");
        script.pull.stop(script.now);
        script.drain();
        script.nothing();
        script.reply(id, reply);
        if closes {
            script.closed("one", &["0"]);
        }
        assert!(script.pull.is_finished());
        let stats = script.pull.stats();
        assert_eq!((stats.sessions_closed, stats.sessions_abandoned), if closes { (1, 0) } else { (0, 1) });
    }
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
        assert!(waited >= spacing && waited <= spacing * 5 / 4, "{waited:?} {spacing:?}");
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
        let empty = [("video", Err("empty_track_error")), ("audio", Err("empty_track_error"))];
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
    assert!(
        script
            .troubles
            .iter()
            .all(|trouble| matches!(trouble, Trouble::Track { code, .. } if code == "empty_track_error"))
    );
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

/// Only the microphone came, and the camera is about to be asked for.
fn audio_only() -> (Script, PeerId) {
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
    (script, peer)
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
