//! One way in, one way out: after a session has gone nothing of it is left, and what is the slot's own stays.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::rtc::dtls::DtlsError;
use crate::rtc::peer::EndReason;

fn id(id: &str) -> GuestId {
    GuestId::parse(id).unwrap()
}

fn guest(name: &str) -> Guest {
    Guest { id: id(name), name: name.to_owned(), enabled: true }
}

fn target() -> Target {
    Target::parse("rtmp://mediamtx/live").unwrap()
}

fn sessions() -> Sessions {
    Sessions::new([(guest("guest1"), target()), (guest("guest2"), target())])
}

fn network(last: u8) -> Option<IpAddr> {
    Some([192, 0, 2, last].into())
}

/// A session with everything that can belong to one; the first through the SFU, the second straight to us.
fn through_the_sfu() -> Session {
    Session {
        resource: ResourceId::from_random([1; 16]),
        etag: "calls-1".to_owned(),
        ufrag: Some("ufrag1".to_owned()),
        publication: Some(Publication::unpulled("5f5f")),
    }
}

fn direct() -> Session {
    Session {
        resource: ResourceId::from_random([2; 16]),
        etag: "ice-2".to_owned(),
        ufrag: Some("ufrag2".to_owned()),
        publication: None,
    }
}

/// Everything that can be asked of a session by its name.
fn known_of(sessions: &Sessions, resource: [u8; 16]) -> (Option<SessionKey>, Option<String>, Option<Option<String>>) {
    let resource = ResourceId::from_random(resource);
    let guest1 = id("guest1");
    let found = sessions.find(&guest1, &resource).map(|(_, key)| key);
    (found, sessions.etag(&guest1, &resource), sessions.ufrag(&guest1, &resource))
}

/// Nothing of a session through the SFU is left in the slot.
fn assert_no_publication(sessions: &Sessions, slot: Slot) {
    assert_eq!(known_of(sessions, [1; 16]), (None, None, None));
    assert_eq!(sessions.publication(slot, |key, _| key), None);
    assert_eq!((sessions.published(&id("guest1")), sessions.dropped_tracks(slot)), (None, vec![]));
    assert_eq!((sessions.stored(), sessions.sfu_sessions()), (vec![], vec![]));
    assert_eq!(sessions.problems(slot, Instant::now()), []);
}

#[test]
fn a_session_comes_with_everything_and_goes_with_everything() {
    let (sessions, slot, now) = (sessions(), Slot(0), Instant::now());
    let key = sessions.next_key();
    assert!(sessions.take(slot, key, network(1), through_the_sfu()).is_none());
    let known = (Some(key), Some("calls-1".to_owned()), Some(Some("ufrag1".to_owned())));
    assert_eq!(known_of(&sessions, [1; 16]), known);
    assert_eq!(sessions.published(&id("guest1")), Some((slot, key)));
    assert_eq!(sessions.sfu_sessions(), [(id("guest1"), "5f5f".to_owned())]);
    let [stored] = sessions.stored().try_into().unwrap();
    assert_eq!((stored.etag.as_str(), stored.ufrag.as_deref(), stored.tracks.len()), ("calls-1", Some("ufrag1"), 1));
    let cause = || Cause::SfuPull { facts: "refused with 401".to_owned(), remedy: None };
    sessions.record_problem_of(slot, key, cause(), now);
    assert_eq!(sessions.problems(slot, now)[0].words, "refused with 401");
    sessions.record_pull_well(slot, key);
    assert_eq!(sessions.problems(slot, now), []);
    sessions.record_problem_of(slot, key, cause(), now);

    let (released, session) = sessions.release(key).unwrap();
    assert_eq!((released, session.publication.unwrap().session_id.as_str()), (slot, "5f5f"));
    assert_no_publication(&sessions, slot);
    assert!(sessions.release(key).is_none(), "it goes once");
    // Its pull, which is still closing the tracks, has no more say here.
    sessions.record_problem_of(slot, key, cause(), now);
    assert_no_publication(&sessions, slot);
    assert_eq!(sessions.publisher(&id("guest1")), network(1), "the network from which it came last is the slot's");
}

#[test]
fn a_takeover_leaves_nothing_of_the_former_session_and_its_late_end_changes_nothing() {
    let (sessions, slot) = (sessions(), Slot(0));
    let (old, new) = (sessions.next_key(), sessions.next_key());
    sessions.take(slot, old, network(1), through_the_sfu());
    sessions.record_problem(slot, Cause::SfuPublish { facts: "refused".to_owned(), remedy: None }, Instant::now());
    assert!(!sessions.is_outdated(slot, old));
    let former = sessions.take(slot, new, network(2), direct()).unwrap();
    assert_eq!(former.etag, "calls-1");
    assert!(sessions.is_outdated(slot, old));
    assert_no_publication(&sessions, slot);
    let known = (Some(new), Some("ice-2".to_owned()), Some(Some("ufrag2".to_owned())));
    assert_eq!((known_of(&sessions, [2; 16]), sessions.publisher(&id("guest1"))), (known.clone(), network(2)));
    assert!(sessions.release(old).is_none());
    assert_eq!(known_of(&sessions, [2; 16]), known);
    assert!(sessions.release(new).is_some());
    assert_eq!(known_of(&sessions, [2; 16]), (None, None, None));
    assert!(!sessions.is_outdated(slot, old), "the slot is free");
    // A session of another guest has nothing to do with this name.
    sessions.take(Slot(1), new, network(2), direct());
    assert_eq!(known_of(&sessions, [2; 16]), (None, None, None));
}

#[test]
fn a_slot_that_is_taken_out_of_the_configuration_keeps_its_session_and_what_is_its_own() {
    let (sessions, slot) = (sessions(), Slot(0));
    let key = sessions.next_key();
    sessions.take(slot, key, network(1), through_the_sfu());
    let failed = SessionEnd::Peer(EndReason::Dtls(DtlsError::NoSrtpProfile));
    sessions.record_end(slot, &failed);
    let new = sessions.reload(vec![guest("guest2"), guest("guest3")]);
    assert_eq!(new, [guest("guest3")]);
    assert_eq!(sessions.add(guest("guest3"), &Target::parse("rtmp://192.0.2.1/live").unwrap()), Slot(2));
    // One call gave the new slot all that is kept of one.
    assert!(sessions.server(Slot(2)).is_none() && sessions.server(slot).is_some());
    assert_eq!((sessions.problems(Slot(2), Instant::now()), sessions.publisher(&id("guest3"))), (vec![], None));
    let listed = || sessions.guests().into_iter().map(|(_, guest)| guest.id).collect::<Vec<_>>();
    assert_eq!(listed(), [id("guest1"), id("guest2"), id("guest3")]);
    assert_eq!(
        (sessions.slot(&id("guest1")), sessions.published(&id("guest1"))),
        (Err(Refusal::Unknown), Some((slot, key)))
    );
    assert!(sessions.release(key).is_some());
    assert_no_publication(&sessions, slot);
    assert_eq!(listed(), [id("guest2"), id("guest3")]);
    // The guest comes back to the slot as it was left.
    assert_eq!(sessions.reload(vec![guest("guest1")]), []);
    assert_eq!((sessions.slot(&id("guest1")), sessions.publisher(&id("guest1"))), (Ok(slot), network(1)));
    assert_eq!(sessions.srtp_profiles(slot), SrtpProfile::OFFERED, "a handshake failed there");
}

#[test]
fn a_publication_that_stays_away_is_warned_of_once_a_minute_and_told_until_it_is_live() {
    let (sessions, slot, now) = (sessions(), Slot(0), Instant::now());
    let refused = LostReason::Unreachable(std::io::ErrorKind::ConnectionRefused);
    let warned =
        |seconds: &u64| sessions.record_rtmp_loss(slot, &refused, now + Duration::from_secs(*seconds)) == Level::Warn;
    let attempts: Vec<u64> = (0..200).filter(warned).collect();
    assert_eq!(attempts, [0, 60, 120, 180]);
    let [problem] = sessions.problems(slot, now + Duration::from_secs(199)).try_into().unwrap();
    assert_eq!((problem.hop, problem.code), (Hop::Rtmp, "rtmp-unreachable"));
    // A reconnect of our own plan is no problem of anybody's.
    sessions.record_rtmp_well(slot);
    assert_eq!(sessions.record_rtmp_loss(slot, &LostReason::LateTrack, now), Level::Warn, "it is a new one");
    assert_eq!(sessions.problems(slot, now), []);
}
