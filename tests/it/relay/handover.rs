//! A planned restart, in virtual time: one process gives its publication away, the next one goes on in it on the same
//! connection. What the ingest reads is the byte stream of both together.

use std::time::Duration;

use guest_relay::slot::{AWAY_MAX, AdoptError, RtmpInput};
use guest_relay_muxer::TrackKind::{Audio, Video};
use ingest::{Connection, Kind};

use super::sender::{Clip, Keyframes};
use super::world::{HOLD, World, longest_steps, own_sounds, pictures, repetitions, seconds};
use super::{live, live_with};

/// Media times at the end: what has passed since the first packet, a tick of the silence and its margin less.
fn assert_in_real_time(seen: &Connection, passed: Duration) {
    let passed = u32::try_from(passed.as_millis()).unwrap();
    let sound = *seen.timestamps(Kind::Audio).last().unwrap();
    let picture = *seen.timestamps(Kind::Video).last().unwrap();
    assert!((passed - 350..=passed + 20).contains(&sound), "sound ends at {sound} ms after {passed} ms");
    assert!((passed - 1050..=passed + 20).contains(&picture), "pictures end at {picture} ms after {passed} ms");
}

#[test]
fn a_restart_goes_on_in_the_same_publication_with_the_last_picture_and_silence() {
    let mut world = live(Keyframes::OnRequest);
    let away = Duration::from_millis(300);
    world.restart(away);
    assert!(world.is_published() && !world.is_receiving());
    world.pass(seconds(2.5));
    world.join(Clip::large(), Keyframes::OnRequest);
    world.pass(seconds(4.0));
    assert!(world.is_receiving());
    let seen = world.finish_untouched();
    let audio = seen.audio.as_ref().unwrap();
    assert_eq!((audio.sequence_starts, audio.gaps), (1, 0));
    assert_eq!(seen.video.as_ref().unwrap().sequence_headers, 1, "the parameter sets are the same");
    assert!(longest_steps(&seen).0 <= 20, "{:?}", longest_steps(&seen));
    let repeated: Vec<u32> = repetitions(&seen).iter().map(|frame| frame.timestamp).collect();
    let (first, rest) = repeated.split_first().unwrap();
    assert!((4_250..=4_320).contains(first), "the picture comes with the new process, not at {first} ms");
    assert_eq!(rest.len(), 2, "and each second from there: {repeated:?}");
    assert_in_real_time(&seen, seconds(4.0 + 0.3 + 2.5 + 4.0));
}

#[test]
fn one_restart_after_another_while_the_guest_is_away_keeps_time() {
    let mut world = live(Keyframes::EachGop);
    for _ in 0..5 {
        world.restart(seconds(0.7));
        world.pass(seconds(0.4));
    }
    world.pass(seconds(1.0));
    let seen = world.finish_untouched();
    assert_eq!(repetitions(&seen).len(), 6, "one for each process, and one a second later");
    assert_eq!(seen.audio.as_ref().unwrap().gaps, 0);
    let (sound, picture) = longest_steps(&seen);
    assert!(sound <= 20 && picture <= 1110, "{sound} {picture}");
    assert_in_real_time(&seen, seconds(4.0 + 5.0 * 1.1 + 1.0));
}

#[test]
fn what_the_kernel_had_not_taken_is_completed_by_the_next_process() {
    for takes in [0, 1, 11, 12, 13, 200, 1_000] {
        let mut world = live(Keyframes::EachGop);
        // Past the ping of the fourth second, which would be waited for.
        world.pass(seconds(0.5));
        world.kernel_takes = Some(takes);
        world.pass(seconds(0.5));
        let waits = world.slot.write_buffer().len();
        assert!(waits > 1_000, "{waits} bytes wait behind {takes}");
        world.restart(seconds(0.3));
        world.pass(seconds(1.0));
        // No message is cut, and none is missing: `finish` refuses what cannot be decoded.
        let seen = world.finish_untouched();
        assert_eq!(seen.audio.as_ref().unwrap().gaps, 0, "behind {takes} bytes");
        assert_in_real_time(&seen, seconds(4.0 + 1.0 + 0.3 + 1.0));
    }
}

#[test]
fn the_longest_time_away_is_filled_with_silence_within_two_seconds() {
    let mut world = live(Keyframes::EachGop);
    world.restart(AWAY_MAX);
    world.pass(seconds(1.5));
    let seen = world.finish_untouched();
    assert_eq!((seen.audio.as_ref().unwrap().gaps, longest_steps(&seen).0), (0, 20));
    assert_in_real_time(&seen, seconds(4.0 + 1.5) + AWAY_MAX);
}

#[test]
fn a_guest_with_sound_alone_goes_on_as_well() {
    let mut world = World::new();
    world.join_with(false, Clip::large(), Keyframes::OnRequest);
    world.switch(Video, false);
    world.pass(seconds(4.0));
    world.restart(seconds(0.3));
    world.pass(seconds(1.0));
    world.join_with(false, Clip::large(), Keyframes::OnRequest);
    world.switch(Video, false);
    world.pass(seconds(2.0));
    let seen = world.finish_untouched();
    let audio = seen.audio.as_ref().unwrap();
    assert_eq!((audio.sequence_starts, audio.gaps, pictures(&seen).count()), (1, 0, 0));
    assert!(own_sounds(&seen).last().unwrap().timestamp > 7_000);
}

#[test]
fn the_hold_counts_from_the_new_process_and_ends_with_an_unpublish() {
    let mut world = live(Keyframes::EachGop);
    world.leave();
    world.pass(HOLD - seconds(1.0));
    world.restart(seconds(0.3));
    world.pass(HOLD - seconds(0.1));
    assert!(world.is_published());
    world.pass(seconds(0.2));
    assert!(!world.is_published());
    assert!(world.finish_untouched().unpublished);
}

#[test]
fn a_connection_without_media_or_that_waits_for_its_next_one_is_not_given_away() {
    let mut world = World::new();
    assert_eq!(world.hand_over(), None, "an idle slot");
    world.join(Clip::large(), Keyframes::OnRequest);
    world.pass_with(seconds(0.5), |packet| packet.kind == Audio);
    assert_eq!(world.hand_over(), None, "no picture has come yet");

    let mut world = live(Keyframes::OnRequest);
    world.ingest.request_reconnect("guest1", None).unwrap();
    world.pass_with(seconds(0.1), |packet| packet.kind == Audio);
    assert_eq!(world.hand_over(), None, "the server has asked for another connection");
}

#[test]
fn a_state_for_another_target_too_old_or_of_another_program_is_refused_and_changes_nothing() {
    let mut world = live(Keyframes::EachGop);
    let state = world.hand_over().unwrap();
    let mut elsewhere = live_with(Keyframes::EachGop, |config| config.hold += seconds(1.0));
    assert_eq!(elsewhere.adopt(&state, Duration::ZERO), Err(AdoptError::OtherTarget), "another server");
    let late = AWAY_MAX + Duration::from_micros(1);
    assert_eq!(world.adopt(&state, late), Err(AdoptError::Away(late)));
    let mut other = state.clone();
    other[7] += 1;
    assert!(matches!(world.adopt(&other, Duration::ZERO), Err(AdoptError::Version(_))));
    for wrong in [&state[..state.len() - 1], &[&state[..], &[0]].concat(), b"", b"GRHO"] {
        assert_eq!(world.adopt(wrong, Duration::ZERO), Err(AdoptError::NoState));
    }
    assert!(world.is_published());
}

#[test]
fn a_state_that_was_cut_or_changed_anywhere_is_refused() {
    let mut world = live(Keyframes::EachGop);
    let state = world.hand_over().unwrap();
    for length in 0..state.len() {
        assert_eq!(world.adopted(&state[..length]).err(), Some(AdoptError::NoState), "cut to {length} bytes");
    }
    let mut changed = state.clone();
    for bit in 0..8 * state.len() {
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(world.adopted(&changed).is_err(), "bit {bit}");
        changed[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(world.adopted(&state).is_ok());
}

/// What an attacker who can write the store could do: the sums are right, the values are not.
#[test]
fn a_hostile_state_costs_its_publication_alone() {
    let mut world = live(Keyframes::EachGop);
    world.kernel_takes = Some(100);
    world.pass(seconds(0.2));
    let state = world.hand_over().unwrap();
    let mut adopted = 0;
    for length in 16..state.len() {
        assert!(world.adopted(&sealed(&state[..length])).is_err(), "cut to {length} bytes");
    }
    // The fields stand in front of and behind the picture and what waits; each of them is tried with each kind of change.
    for at in 48..state.len() {
        for change in [0xff, 0x80, 0x01] {
            let mut hostile = state.clone();
            hostile[at] ^= change;
            let Ok(mut slot) = world.adopted(&sealed(&hostile)) else { continue };
            adopted += 1;
            let mut now = world.now;
            for _ in 0..30 {
                now += Duration::from_millis(100);
                slot.handle_rtmp(RtmpInput::Bytes(&[2, 0, 0, 0, 0, 0, 6, 4, 0, 0, 0, 0, 0, 6, 0, 0, 0, 1]), now);
                slot.handle_timeout(now);
                while slot.poll_output().is_some() {}
                let waits = slot.write_buffer().len();
                slot.handle_rtmp(RtmpInput::Written(waits), now);
            }
        }
    }
    assert!(adopted > 100, "{adopted}");
}

/// The same body behind a head that fits it.
fn sealed(state: &[u8]) -> Vec<u8> {
    let (head, body) = state.split_at(16);
    let length = u32::try_from(body.len()).unwrap();
    [&head[..8], &length.to_be_bytes(), &crc32fast::hash(body).to_be_bytes(), body].concat()
}
