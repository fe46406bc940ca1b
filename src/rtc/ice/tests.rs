//! The ICE agent in both roles, against checks that are right, wrong and forged.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

const ID: TransactionId = TransactionId([7; 12]);

fn ours() -> Credentials {
    Credentials::parse("oursours", "ourpasswordourpassword").unwrap()
}

fn theirs() -> Credentials {
    Credentials::parse("them", "theirpasswordtheirpassword").unwrap()
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 5000))
}

fn lite(now: Instant) -> Agent {
    Agent::lite(ours(), theirs(), now)
}

/// A check as a browser sends it to us.
fn check() -> MessageWriter {
    MessageWriter::binding(MessageClass::Request, ID)
        .username("oursours:them")
        .role(RoleAttribute::Controlling(9))
        .priority(1)
}

fn key() -> &'static [u8] {
    b"ourpasswordourpassword"
}

fn drain(agent: &mut Agent) -> Vec<Output> {
    std::iter::from_fn(|| agent.poll_output()).collect()
}

fn transmitted(outputs: &[Output]) -> Vec<(SocketAddr, Vec<u8>)> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Transmit { to, datagram } => Some((*to, datagram.clone())),
            _ => None,
        })
        .collect()
}

#[test]
fn generated_credentials_are_long_enough_and_made_of_ice_chars() {
    let all: std::collections::HashSet<String> = (0..1000)
        .map(|_| {
            let new = Credentials::generate();
            assert!(new.ufrag.len() >= 8 && new.pwd.len() >= 22);
            assert!(Credentials::parse(&new.ufrag, &new.pwd).is_some());
            new.ufrag
        })
        .collect();
    assert_eq!(all.len(), 1000);
    assert!(!format!("{:?}", theirs()).contains("theirpassword"));
}

#[test]
fn received_credentials_have_the_lengths_and_characters_of_rfc_8839() {
    let long = "a".repeat(257);
    for (ufrag, pwd, valid) in [
        ("abcd", "aaaaaaaaaaaaaaaaaaaaaa", true),
        ("a+/9", "aaaaaaaaaaaaaaaaaaaaaa", true),
        ("abc", "aaaaaaaaaaaaaaaaaaaaaa", false),
        ("abcd", "aaaaaaaaaaaaaaaaaaaaa", false),
        ("ab:d", "aaaaaaaaaaaaaaaaaaaaaa", false),
        ("abcd", "aaaaaaaaaaa aaaaaaaaaa", false),
        (long.as_str(), "aaaaaaaaaaaaaaaaaaaaaa", false),
        ("abcd", long.as_str(), false),
        ("", "", false),
    ] {
        assert_eq!(Credentials::parse(ufrag, pwd).is_some(), valid, "{ufrag}");
    }
}

#[test]
fn a_check_is_answered_and_only_use_candidate_selects() {
    let now = Instant::now();
    let mut agent = lite(now);
    let request = check().finish(key());
    agent.handle_datagram(&request, address(1), now).unwrap();
    let outputs = drain(&mut agent);
    let [(to, reply)] = transmitted(&outputs).try_into().unwrap();
    assert_eq!(to, address(1));
    assert!(reply.len() <= request.len());
    let reply = Message::parse(&reply).unwrap();
    assert_eq!(reply.class, MessageClass::Success);
    assert_eq!(reply.transaction_id, ID);
    assert_eq!(reply.mapped_address, Some(address(1)));
    assert!(reply.has_fingerprint && reply.is_authentic(key()));
    assert!(outputs.contains(&Output::Validated(address(1))));
    assert_eq!(agent.selected(), None);

    let request = check().use_candidate().finish(key());
    agent.handle_datagram(&request, address(1), now).unwrap();
    assert!(drain(&mut agent).contains(&Output::Selected(address(1))));
    assert_eq!(agent.selected(), Some(address(1)));
    // The same request again changes nothing, but is answered.
    agent.handle_datagram(&request, address(1), now).unwrap();
    assert_eq!(drain(&mut agent).len(), 1);
}

#[test]
fn a_new_nomination_moves_the_pair_and_a_plain_check_does_not() {
    let now = Instant::now();
    let mut agent = lite(now);
    let nominate = check().use_candidate().finish(key());
    agent.handle_datagram(&nominate, address(1), now).unwrap();
    agent.handle_datagram(&check().finish(key()), address(2), now).unwrap();
    assert_eq!(agent.selected(), Some(address(1)));
    agent.handle_datagram(&nominate, address(2), now).unwrap();
    assert_eq!(agent.selected(), Some(address(2)));
    assert!(agent.is_validated(address(1)));
}

#[test]
fn requests_that_prove_nothing_are_met_with_silence() {
    let now = Instant::now();
    let mut agent = lite(now);
    let mut no_fingerprint = check().use_candidate().finish(key());
    no_fingerprint.truncate(no_fingerprint.len() - 8);
    let length = u16::try_from(no_fingerprint.len() - 20).unwrap();
    no_fingerprint[2..4].copy_from_slice(&length.to_be_bytes());
    let named =
        |username| MessageWriter::binding(MessageClass::Request, ID).username(username).use_candidate().finish(key());
    for (name, datagram) in [
        ("wrong password", check().use_candidate().finish(b"another")),
        ("no fingerprint", no_fingerprint),
        ("another's ufrag", named("oursoura:them")),
        ("not the peer's ufrag", named("oursours:they")),
        ("one part", named("oursours")),
        ("no username", MessageWriter::binding(MessageClass::Request, ID).finish(key())),
        ("indication", MessageWriter::binding(MessageClass::Indication, ID).finish(key())),
        (
            "response nobody asked for",
            MessageWriter::binding(MessageClass::Success, ID).mapped_address(address(1)).finish(key()),
        ),
        ("noise", vec![0; 40]),
    ] {
        assert!(agent.handle_datagram(&datagram, address(1), now).is_err(), "{name}");
        assert_eq!(drain(&mut agent), [], "{name}");
        assert!(!agent.is_validated(address(1)), "{name}");
    }
}

#[test]
fn an_unknown_required_attribute_gets_420_and_a_controlled_peer_487() {
    let now = Instant::now();
    let mut agent = lite(now);
    // USERNAME, then attribute 0x0042, then MESSAGE-INTEGRITY: only the test builds such a request.
    let unknown = check().raw_attribute(0x0042, &[1, 2, 3]).finish(key());
    let conflict = MessageWriter::binding(MessageClass::Request, ID)
        .username("oursours:them")
        .role(RoleAttribute::Controlled(u64::MAX))
        .use_candidate()
        .finish(key());
    for (request, code) in [(unknown, 420), (conflict, 487)] {
        agent.handle_datagram(&request, address(1), now).unwrap();
        let outputs = drain(&mut agent);
        let [(_, reply)] = transmitted(&outputs).try_into().unwrap();
        assert!(reply.len() <= request.len());
        let reply = Message::parse(&reply).unwrap();
        assert_eq!(reply.class, MessageClass::Error);
        assert_eq!(reply.error_code, Some(code));
        assert!(reply.is_authentic(key()));
        assert_eq!(agent.selected(), None);
        assert!(!agent.is_validated(address(1)));
    }
}

#[test]
fn no_reply_is_larger_than_its_request() {
    let now = Instant::now();
    let mut agent = lite(now);
    // The smallest authentic request: 20 + 20 (USERNAME) + 24 + 8 bytes, from an IPv6 address (76 bytes of reply).
    let request = MessageWriter::binding(MessageClass::Request, ID).username("oursours:them").finish(key());
    let from = "[2001:db8::1]:9".parse().unwrap();
    agent.handle_datagram(&request, from, now).unwrap();
    for (_, reply) in transmitted(&drain(&mut agent)) {
        assert!(reply.len() <= request.len(), "{} for {}", reply.len(), request.len());
    }
}

#[test]
fn validated_addresses_are_bounded_and_the_selected_one_stays() {
    let now = Instant::now();
    let mut agent = lite(now);
    let nominate = check().use_candidate().finish(key());
    agent.handle_datagram(&nominate, address(0), now).unwrap();
    let mut forgotten = Vec::new();
    for last in 1..=100 {
        let at = now + Duration::from_millis(u64::from(last));
        agent.handle_datagram(&check().finish(key()), address(last), at).unwrap();
        forgotten.extend(drain(&mut agent).into_iter().filter_map(|o| match o {
            Output::Forgotten(address) => Some(address),
            _ => None,
        }));
    }
    let known = (0..=100).filter(|n| agent.is_validated(address(*n))).count();
    assert_eq!(known, MAX_VALIDATED);
    assert!(agent.is_validated(address(0)) && agent.is_validated(address(100)));
    assert_eq!(forgotten.len(), 101 - MAX_VALIDATED);
    assert_eq!(forgotten[0], address(1));
}

#[test]
fn consent_ends_30_seconds_after_the_last_check() {
    let now = Instant::now();
    let mut agent = lite(now);
    let nominate = check().use_candidate().finish(key());
    agent.handle_datagram(&nominate, address(1), now).unwrap();
    let later = now + Duration::from_secs(20);
    agent.handle_datagram(&check().finish(key()), address(1), later).unwrap();
    drain(&mut agent);
    assert_eq!(agent.poll_timeout(), Some(later + CONSENT_TIMEOUT));
    agent.handle_timeout(later + CONSENT_TIMEOUT - Duration::from_millis(1));
    assert_eq!(agent.selected(), Some(address(1)));
    agent.handle_timeout(later + CONSENT_TIMEOUT);
    assert_eq!(agent.selected(), None);
    assert_eq!(drain(&mut agent), [Output::Forgotten(address(1)), Output::Expired]);
    assert_eq!(agent.poll_timeout(), None);
    assert_eq!(agent.handle_datagram(&nominate, address(1), later + CONSENT_TIMEOUT), Err(Ignored::Expired));
}

#[test]
fn a_selected_address_that_fell_silent_is_left_while_another_is_checked() {
    let now = Instant::now();
    let mut agent = lite(now);
    let nominate = check().use_candidate().finish(key());
    agent.handle_datagram(&nominate, address(1), now).unwrap();
    agent.handle_datagram(&check().finish(key()), address(2), now + Duration::from_secs(29)).unwrap();
    agent.handle_timeout(now + CONSENT_TIMEOUT);
    assert_eq!(agent.selected(), None);
    assert!(!drain(&mut agent).contains(&Output::Expired));
    agent.handle_datagram(&nominate, address(2), now + CONSENT_TIMEOUT).unwrap();
    assert_eq!(agent.selected(), Some(address(2)));
}

#[test]
fn an_agent_that_nobody_checks_expires() {
    let now = Instant::now();
    let mut agent = lite(now);
    assert_eq!(agent.poll_timeout(), Some(now + CONSENT_TIMEOUT));
    agent.handle_timeout(now + CONSENT_TIMEOUT);
    assert_eq!(drain(&mut agent), [Output::Expired]);
}

/// A controlling agent and the lite agent it checks, which is the other end of this file.
fn pair(now: Instant) -> (Agent, Agent) {
    let mut controlling = Agent::controlling(ours(), theirs(), &[address(1), address(2)], now);
    controlling.handle_timeout(now);
    assert_eq!(drain(&mut controlling), [], "not before it was told to");
    controlling.begin_checks(now);
    let lite = Agent::lite(theirs(), ours(), now);
    (controlling, lite)
}

/// Carries the datagrams of one agent to the other; `drop` says which are lost. Returns how many had an effect: a
/// repeated answer has none.
fn carry(
    from: &mut Agent,
    to: &mut Agent,
    seen_as: impl Fn(SocketAddr) -> SocketAddr,
    drop: impl Fn(SocketAddr) -> bool,
    now: Instant,
) -> usize {
    let sent = transmitted(&drain(from));
    sent.iter()
        .filter(|(destination, _)| !drop(*destination))
        .filter(|(destination, datagram)| to.handle_datagram(datagram, seen_as(*destination), now).is_ok())
        .count()
}

#[test]
fn the_controlling_agent_checks_then_nominates_then_selects() {
    let now = Instant::now();
    let us = address(100);
    let (mut controlling, mut lite) = pair(now);
    assert_eq!(controlling.selected(), None);
    // First check, its reply; then the nomination, its reply.
    assert_eq!(carry(&mut controlling, &mut lite, |_| us, |_| false, now), 1);
    assert_eq!(lite.selected(), None);
    assert_eq!(carry(&mut lite, &mut controlling, |_| address(1), |_| false, now), 1);
    assert_eq!(controlling.selected(), None);
    assert_eq!(carry(&mut controlling, &mut lite, |_| us, |_| false, now), 1);
    assert_eq!(lite.selected(), Some(us));
    carry(&mut lite, &mut controlling, |_| address(1), |_| false, now);
    assert_eq!(controlling.selected(), Some(address(1)));
}

#[test]
fn lost_checks_are_repeated_and_a_dead_candidate_does_not_hold_up_another() {
    let start = Instant::now();
    let us = address(100);
    let (mut controlling, mut lite) = pair(start);
    let mut now = start;
    let mut sent_to_dead = 0;
    while controlling.selected().is_none() {
        now = controlling.poll_timeout().unwrap().max(now);
        assert!(now < start + Duration::from_secs(5), "not selected in 5 s");
        controlling.handle_timeout(now);
        // Every second datagram to the living candidate is lost, too.
        let lossy = now.duration_since(start) < Duration::from_millis(400);
        sent_to_dead += 1;
        carry(&mut controlling, &mut lite, |_| us, |to| to == address(1) || lossy, now);
        carry(&mut lite, &mut controlling, |_| address(2), |_| false, now);
    }
    assert_eq!(controlling.selected(), Some(address(2)));
    assert!(sent_to_dead > 2);
}

/// A pair that stands between the two.
fn selected_pair(start: Instant) -> (Agent, Agent) {
    let (mut controlling, mut lite) = pair(start);
    let us = address(100);
    let them = address(1);
    for _ in 0..2 {
        carry(&mut controlling, &mut lite, |_| us, |_| false, start);
        carry(&mut lite, &mut controlling, |_| them, |_| false, start);
    }
    assert_eq!(controlling.selected(), Some(them));
    (controlling, lite)
}

#[test]
fn consent_is_asked_for_every_4_to_6_seconds_and_media_alone_keeps_the_session() {
    let start = Instant::now();
    let us = address(100);
    let (mut controlling, mut lite) = selected_pair(start);
    let mut last = start;
    let next = |controlling: &mut Agent, last: Instant| {
        let mut now = last;
        loop {
            // Media is heard all the time.
            now += Duration::from_millis(20);
            assert!(now < last + Duration::from_secs(60), "no check goes out and the pair stays");
            controlling.record_media(address(1), true, now);
            controlling.handle_timeout(now);
            assert_eq!(controlling.last_heard(), Some(now));
            let sent = transmitted(&drain(controlling));
            if let [(to, check)] = sent.as_slice() {
                assert_eq!(*to, address(1));
                let gap = now - last;
                let allowed = Duration::from_secs(4)..Duration::from_millis(6020);
                assert!(allowed.contains(&gap), "{gap:?}");
                return (now, check.clone());
            }
            if controlling.selected().is_none() {
                return (now, Vec::new());
            }
        }
    };
    for _ in 0..20 {
        let (now, check) = next(&mut controlling, last);
        lite.handle_datagram(&check, us, now).unwrap();
        carry(&mut lite, &mut controlling, |_| address(1), |_| false, now);
        last = now;
    }
    // The peer answers no more, but its media comes on.
    let last_answer = last;
    // bounded: each turn is a check later
    while last < last_answer + 4 * CONSENT_TIMEOUT {
        (last, _) = next(&mut controlling, last);
        assert_eq!(controlling.selected(), Some(address(1)));
    }
    controlling.handle_timeout(last + MEDIA_TIMEOUT - Duration::from_millis(1));
    assert_eq!(controlling.selected(), Some(address(1)));
    controlling.handle_timeout(last + MEDIA_TIMEOUT);
    assert_eq!(controlling.selected(), None);
    assert!(drain(&mut controlling).contains(&Output::Expired));
}

#[test]
fn media_keeps_a_peer_that_checks_no_more_and_one_that_checked_is_missed_no_later_for_it() {
    let (now, step) = (Instant::now(), Duration::from_secs(5));
    let nominate = check().use_candidate().finish(key());
    // Media every 5 s for so long, and checks with it until then.
    for (checks_until, media_until, ends) in
        [(0, 120, 120 + 24), (120, 120, 120 + 30), (115, 120, 115 + 30), (0, 0, 30)]
    {
        let mut agent = lite(now);
        let mut at = now;
        // bounded: 25 steps
        while at <= now + Duration::from_secs(media_until) {
            if at <= now + Duration::from_secs(checks_until) {
                agent.handle_datagram(&nominate, address(1), at).unwrap();
            }
            agent.record_media(address(1), true, at);
            agent.handle_timeout(at);
            assert_eq!(agent.selected(), Some(address(1)));
            at += step;
        }
        let end = agent.poll_timeout().unwrap();
        assert_eq!(end - now, Duration::from_secs(ends), "{checks_until} {media_until}");
        agent.handle_timeout(end - Duration::from_millis(1));
        assert_eq!(agent.selected(), Some(address(1)));
        agent.handle_timeout(end);
        assert_eq!(agent.selected(), None);
        assert!(drain(&mut agent).contains(&Output::Expired));
    }
}

#[test]
fn media_that_is_not_the_newest_or_comes_from_a_stranger_proves_nothing() {
    let now = Instant::now();
    let mut agent = lite(now);
    agent.handle_datagram(&check().use_candidate().finish(key()), address(1), now).unwrap();
    agent.handle_datagram(&check().finish(key()), address(2), now).unwrap();
    let later = now + Duration::from_secs(20);
    agent.record_media(address(2), false, later);
    agent.record_media(address(3), true, later);
    assert_eq!((agent.selected(), agent.is_validated(address(3))), (Some(address(1)), false));
    assert_eq!(agent.poll_timeout(), Some(now + CONSENT_TIMEOUT));
}

#[test]
fn once_there_is_media_it_alone_moves_the_pair() {
    let now = Instant::now();
    let mut agent = lite(now);
    let nominate = check().use_candidate().finish(key());
    agent.handle_datagram(&nominate, address(1), now).unwrap();
    agent.record_media(address(1), true, now);
    // Somebody else sends a nomination again that was recorded on its way.
    agent.handle_datagram(&nominate, address(2), now).unwrap();
    assert_eq!((agent.selected(), agent.is_validated(address(2))), (Some(address(1)), true));
    agent.record_media(address(2), true, now);
    assert_eq!(agent.selected(), Some(address(2)));
    // Where nothing proves itself any more, a nomination does.
    agent.handle_datagram(&check().finish(key()), address(3), now + CONSENT_TIMEOUT).unwrap();
    agent.handle_timeout(now + CONSENT_TIMEOUT);
    assert_eq!(agent.selected(), None);
    agent.handle_datagram(&nominate, address(3), now + CONSENT_TIMEOUT).unwrap();
    assert_eq!(agent.selected(), Some(address(3)));
}

#[test]
fn a_silent_pair_is_checked_after_1500_ms_and_then_twice_a_second() {
    let start = Instant::now();
    let us = address(100);
    let (mut controlling, mut lite) = selected_pair(start);
    assert_eq!(controlling.last_heard(), Some(start));
    let mut sent_at = Vec::new();
    let mut checks = Vec::new();
    // bounded: each turn adds one
    while sent_at.len() < 8 {
        let now = controlling.poll_timeout().unwrap();
        controlling.handle_timeout(now);
        let [(_, check)] = transmitted(&drain(&mut controlling)).try_into().unwrap();
        sent_at.push((now - start).as_millis());
        checks.push(check);
    }
    assert_eq!(sent_at, [1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000]);
    // An answer to the last but three, after two seconds on the way, still counts.
    let now = start + Duration::from_millis(5_400);
    lite.handle_datagram(&checks[4], us, now).unwrap();
    carry(&mut lite, &mut controlling, |_| address(1), |_| false, now);
    assert_eq!(controlling.last_heard(), Some(now));
    assert_eq!(controlling.poll_timeout(), Some(now + checks::PROBE_AFTER));
    // One that is older does not, nor does one that was answered before.
    for check in [&checks[3], &checks[4]] {
        lite.handle_datagram(check, us, now).unwrap();
        assert_eq!(carry(&mut lite, &mut controlling, |_| address(1), |_| false, now), 0);
    }
    // The peer is gone.
    while controlling.selected().is_some() {
        let due = controlling.poll_timeout().unwrap();
        assert!(due <= now + CONSENT_TIMEOUT, "the pair stays");
        controlling.handle_timeout(due);
        if controlling.selected().is_none() {
            assert_eq!(due, now + CONSENT_TIMEOUT);
        }
    }
    assert!(drain(&mut controlling).contains(&Output::Expired));
}

#[test]
fn the_round_trip_is_measured_by_checks_that_were_sent_once() {
    let start = Instant::now();
    let us = address(100);
    let (mut controlling, mut lite) = pair(start);
    let [(_, lost)] = transmitted(&drain(&mut controlling)).try_into().unwrap();
    let again = start + Duration::from_millis(500);
    controlling.handle_timeout(again);
    let repeated = transmitted(&drain(&mut controlling));
    assert!(repeated.iter().any(|(_, check)| *check == lost));
    lite.handle_datagram(&lost, us, again).unwrap();
    carry(&mut lite, &mut controlling, |_| address(1), |_| false, again);
    assert_eq!(controlling.round_trip(), None);
    // The nomination went out with that answer.
    carry(&mut controlling, &mut lite, |_| us, |_| false, again);
    let answered = again + Duration::from_millis(30);
    carry(&mut lite, &mut controlling, |_| address(1), |_| false, answered);
    assert_eq!(controlling.round_trip(), Some(Duration::from_millis(30)));
}

#[test]
fn checks_that_lead_to_no_pair_end_after_ten_seconds() {
    let start = Instant::now();
    let us = address(100);
    // No answer at all; then: answers to the checks, none to the nomination.
    for nominates in [false, true] {
        let (mut controlling, mut lite) = pair(start);
        let mut outputs = Vec::new();
        let mut now = start;
        while let Some(due) = controlling.poll_timeout() {
            now = due;
            controlling.handle_timeout(now);
            let sent = drain(&mut controlling);
            for (_, check) in transmitted(&sent) {
                if nominates && !Message::parse(&check).unwrap().use_candidate {
                    lite.handle_datagram(&check, us, now).unwrap();
                }
            }
            for (_, answer) in transmitted(&drain(&mut lite)) {
                let _ = controlling.handle_datagram(&answer, address(1), now);
            }
            outputs.extend(sent);
        }
        assert_eq!(now, start + checks::CHECKS_TIMEOUT);
        assert_eq!(outputs.last(), Some(&Output::Expired));
        assert_eq!(controlling.selected(), None);
    }
}

#[test]
fn responses_from_elsewhere_or_with_a_wrong_password_do_not_count() {
    let now = Instant::now();
    let (mut controlling, _) = pair(now);
    let [(to, request)] = transmitted(&drain(&mut controlling)).try_into().unwrap();
    let id = Message::parse(&request).unwrap().transaction_id;
    let reply = |key: &[u8]| MessageWriter::binding(MessageClass::Success, id).mapped_address(address(9)).finish(key);
    let theirs = b"theirpasswordtheirpassword";
    assert_eq!(controlling.handle_datagram(&reply(theirs), address(77), now), Err(Ignored::Unexpected));
    assert_eq!(controlling.handle_datagram(&reply(b"guess"), to, now), Err(Ignored::NotAuthentic));
    assert_eq!(drain(&mut controlling), []);
    assert_eq!(controlling.handle_datagram(&reply(theirs), to, now), Ok(()));
}

/// An error response of the peer to a check of ours.
fn refuse(check: &[u8], code: u16) -> Vec<u8> {
    let id = Message::parse(check).unwrap().transaction_id;
    MessageWriter::binding(MessageClass::Error, id).error_code(code).finish(b"theirpasswordtheirpassword")
}

fn claimed(check: &[u8]) -> RoleAttribute {
    Message::parse(check).unwrap().role.unwrap()
}

#[test]
fn the_ten_seconds_count_from_the_first_check() {
    let start = Instant::now();
    let mut controlling = Agent::controlling(ours(), theirs(), &[address(1)], start);
    assert_eq!(controlling.poll_timeout(), Some(start + CONSENT_TIMEOUT));
    // The peer had our credentials only then.
    let begun = start + Duration::from_secs(12);
    controlling.begin_checks(begun);
    let mut now = begun;
    while let Some(due) = controlling.poll_timeout() {
        now = due;
        controlling.handle_timeout(now);
        controlling.begin_checks(now);
    }
    assert_eq!(now, begun + checks::CHECKS_TIMEOUT);
}

#[test]
fn a_487_switches_the_role_once_with_a_new_tie_breaker() {
    let now = Instant::now();
    let mut controlling = Agent::offering(ours(), now);
    controlling.set_remote(theirs(), &[address(1)], false);
    controlling.begin_checks(now);
    let [(to, request)] = transmitted(&drain(&mut controlling)).try_into().unwrap();
    let RoleAttribute::Controlling(tie_breaker) = claimed(&request) else {
        panic!("the first check claims {:?}", claimed(&request));
    };
    let refusal = refuse(&request, 487);
    controlling.handle_datagram(&refusal, to, now).unwrap();
    let later = now + Duration::from_millis(100);
    controlling.handle_timeout(later);
    let repeated = transmitted(&drain(&mut controlling));
    let (_, request) = repeated.first().unwrap();
    match claimed(request) {
        RoleAttribute::Controlled(new) => assert_ne!(new, tie_breaker),
        other => panic!("after 487 it claims {other:?}"),
    }
    // Now it is the peer who nominates.
    let nominate = check().use_candidate().finish(key());
    controlling.handle_datagram(&nominate, to, later).unwrap();
    assert_eq!(controlling.selected(), Some(to));
}

#[test]
fn a_lite_peer_that_answers_487_is_not_left_without_a_controlling_side() {
    let start = Instant::now();
    let us = address(100);
    let mut controlling = Agent::controlling(ours(), theirs(), &[address(1)], start);
    let mut lite = Agent::lite(theirs(), ours(), start);
    controlling.begin_checks(start);
    let mut now = start;
    let mut claims = Vec::new();
    for _ in 0..3 {
        let [(to, check)] = transmitted(&drain(&mut controlling)).try_into().unwrap();
        claims.push(claimed(&check));
        controlling.handle_datagram(&refuse(&check, 487), to, now).unwrap();
        now = controlling.poll_timeout().unwrap();
        controlling.handle_timeout(now);
    }
    assert!(now < start + Duration::from_secs(1));
    for (index, claim) in claims.iter().enumerate() {
        assert!(matches!(claim, RoleAttribute::Controlling(_)));
        assert!(!claims[..index].contains(claim), "the same tie-breaker");
    }
    for _ in 0..2 {
        carry(&mut controlling, &mut lite, |_| us, |_| false, now);
        carry(&mut lite, &mut controlling, |_| address(1), |_| false, now);
    }
    assert_eq!(controlling.selected(), Some(address(1)));
    // Nor does it give way to one that claims the role with the highest tie-breaker there is.
    let claim = MessageWriter::binding(MessageClass::Request, ID)
        .username("oursours:them")
        .role(RoleAttribute::Controlling(u64::MAX))
        .use_candidate()
        .finish(key());
    controlling.handle_datagram(&claim, address(66), now).unwrap();
    assert_eq!(controlling.selected(), Some(address(1)));
}

#[test]
fn refused_checks_are_repeated_ever_more_slowly() {
    let start = Instant::now();
    let mut controlling = Agent::controlling(ours(), theirs(), &[address(1)], start);
    controlling.begin_checks(start);
    let mut checks = 0;
    while let Some(due) = controlling.poll_timeout() {
        for (to, check) in transmitted(&drain(&mut controlling)) {
            checks += 1;
            let refusal = refuse(&check, 400);
            controlling.handle_datagram(&refusal, to, due).unwrap();
        }
        controlling.handle_timeout(due);
    }
    assert!((6..=12).contains(&checks), "{checks} checks in 10 s");
}

#[test]
fn an_offer_without_an_answer_checks_nobody_and_believes_nobody() {
    let start = Instant::now();
    let mut agent = Agent::offering(ours(), start);
    agent.begin_checks(start);
    for request in [
        check().use_candidate().finish(key()),
        MessageWriter::binding(MessageClass::Request, ID).username("oursours").use_candidate().finish(key()),
        MessageWriter::binding(MessageClass::Request, ID).username("oursours:").use_candidate().finish(key()),
    ] {
        let result = agent.handle_datagram(&request, address(1), start);
        assert_eq!(result, Err(Ignored::NotAuthentic));
    }
    assert_eq!(agent.poll_timeout(), Some(start + CONSENT_TIMEOUT));
    assert_eq!(drain(&mut agent), []);
    agent.handle_timeout(start + CONSENT_TIMEOUT);
    assert_eq!(drain(&mut agent), [Output::Expired]);
}
