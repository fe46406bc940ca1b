//! A slot in which nobody is: what stands in the guest's place, and who is never shown again.

use guest_relay::guest::State as GuestState;
use guest_relay::rtc::peer::Delivery;
use guest_relay::rtmp::State;
use guest_relay_muxer::TrackKind::{Audio, Video};
use ingest::{Connection, Kind};

use super::sender::{Clip, Keyframes, SLATE, picture_number};
use super::world::{HOLD, World, longest_steps, own_sounds, pictures, seconds};

/// A slot that is published without a guest too, before anybody joins.
fn idle() -> World {
    let mut world = World::with(|config| config.idle = true);
    world.pass(seconds(5.0));
    assert_eq!(world.rtmp_state(), State::Live, "{:?}", world.events);
    world
}

fn idle_with_a_guest() -> World {
    let mut world = idle();
    world.join(Clip::large(), Keyframes::EachGop);
    world.pass(seconds(4.0));
    assert!(world.is_receiving());
    world
}

/// The sessions that pictures from `from_ms` to `to_ms` are of, each once in a row; 0 is nobody's.
fn shown(connection: &Connection, from_ms: u32, to_ms: u32) -> Vec<u64> {
    let mut shown: Vec<u64> = pictures(connection)
        .filter(|frame| (from_ms..to_ms).contains(&frame.timestamp))
        .map(|frame| picture_number(&frame.body) >> 32)
        .collect();
    shown.dedup();
    shown
}

#[test]
fn nobody_is_a_picture_a_second_and_silence_that_is_never_late() {
    let mut world = idle();
    world.pass(seconds(20.0));
    let seen = world.finish_untouched();
    assert_eq!(shown(&seen, 0, u32::MAX), [SLATE]);
    let (audio, video) = longest_steps(&seen);
    assert!(audio == 20 && (990..=1030).contains(&video), "{audio} {video}");
    let (sound, picture) = (seen.timestamps(Kind::Audio), seen.timestamps(Kind::Video));
    let end = picture.last().unwrap();
    assert!((24_000..=25_100).contains(end), "{end}");
    assert!(sound.last().unwrap().abs_diff(*end) <= 40, "each picture comes with the silence up to it");
    assert_eq!((seen.audio.unwrap().gaps, own_sounds_of(&sound)), (0, 0));
    let video = seen.video.unwrap();
    assert_eq!((video.width, video.height, video.sequence_headers), (1280, 720, 1));
}

/// Sounds that stand out of the steps of 20 ms.
fn own_sounds_of(times: &[u32]) -> usize {
    times.windows(2).filter(|pair| pair[1] - pair[0] != 20).count()
}

#[test]
fn nobody_is_handed_over_as_nobody_and_is_on_time_again_within_seconds() {
    for away in [0.3, 6.0] {
        let mut world = idle();
        world.restart(seconds(away));
        world.pass(seconds(4.0));
        let seen = world.finish_untouched();
        assert_eq!(shown(&seen, 0, u32::MAX), [SLATE]);
        let (sound, picture) = (seen.timestamps(Kind::Audio), seen.timestamps(Kind::Video));
        let passed = u32::try_from(seconds(5.0 + away + 4.0).as_millis()).unwrap();
        let (sound_end, picture_end) = (*sound.last().unwrap(), *picture.last().unwrap());
        assert!((passed - 1100..=passed + 20).contains(&sound_end), "{sound_end} after {passed} ms");
        assert!((passed - 1100..=passed + 20).contains(&picture_end), "{picture_end} after {passed} ms");
        assert_eq!((seen.audio.unwrap().gaps, own_sounds_of(&sound)), (0, 0), "{away} s away");
    }
}

#[test]
fn who_has_left_for_good_is_not_shown_by_the_next_process_and_who_is_there_is() {
    let mut world = idle_with_a_guest();
    world.restart(seconds(0.3));
    world.pass(seconds(1.5));
    world.join(Clip::large(), Keyframes::EachGop);
    world.pass(seconds(2.0));
    world.leave_for_good();
    world.pass(seconds(0.5));
    world.restart(seconds(0.3));
    world.pass(seconds(2.0));
    let seen = world.finish_untouched();
    assert_eq!(shown(&seen, 5_200, 12_700), [1, 2], "held over the restart, and back");
    assert_eq!(shown(&seen, 13_300, u32::MAX), [SLATE]);
}

#[test]
fn an_idle_slot_is_due_once_a_second() {
    let mut world = idle();
    let before = world.wake_ups;
    world.pass(seconds(60.0));
    let wake_ups = world.wake_ups - before;
    assert!((60..=66).contains(&wake_ups), "{wake_ups} in 60 s");
    assert_eq!(world.guest_state(), GuestState::Absent);
    world.finish_untouched();
}

#[test]
fn a_guest_comes_and_leaves_for_good_in_one_publication_and_is_not_shown_again() {
    let mut world = idle_with_a_guest();
    world.leave_for_good();
    let left = world.media_ms();
    assert_eq!(world.guest_state(), GuestState::Absent);
    world.pass(seconds(20.0));
    let seen = world.finish_untouched();
    assert_eq!(shown(&seen, 0, left), [SLATE, 1]);
    assert_eq!(shown(&seen, left + 20, u32::MAX), [SLATE]);
    let next = pictures(&seen).map(|frame| frame.timestamp).find(|ms| *ms >= left).unwrap();
    assert!(next - left <= 20, "black {} ms after the goodbye", next - left);
    assert_eq!(seen.audio.unwrap().gaps, 0);
    assert_eq!(seen.video.unwrap().sequence_headers, 3, "black, the guest, black");
}

#[test]
fn a_goodbye_for_good_that_comes_after_the_connection_s_end_is_as_good() {
    let mut world = idle_with_a_guest();
    world.leave();
    world.pass(seconds(0.3));
    assert_eq!(world.guest_state(), GuestState::Holding);
    world.leave_for_good();
    let left = world.media_ms();
    world.pass(seconds(5.0));
    let seen = world.finish_untouched();
    assert_eq!(shown(&seen, left + 20, u32::MAX), [SLATE]);
}

#[test]
fn a_hold_shows_the_last_picture_and_then_nobody() {
    let mut world = idle_with_a_guest();
    world.leave();
    let left = world.media_ms();
    world.pass(HOLD + seconds(6.0));
    assert_eq!(world.guest_state(), GuestState::Absent);
    let seen = world.finish_untouched();
    let over = left + u32::try_from(HOLD.as_millis()).unwrap();
    assert_eq!(shown(&seen, left + 100, over - 100), [1]);
    assert_eq!(shown(&seen, over + 100, u32::MAX), [SLATE]);
    assert!(longest_steps(&seen).1 <= 1030);
}

#[test]
fn the_next_guest_of_sound_alone_is_black_and_not_the_face_before() {
    for hold_is_over in [false, true] {
        let mut world = idle_with_a_guest();
        world.leave();
        world.pass(if hold_is_over { HOLD + seconds(1.0) } else { seconds(2.5) });
        let joined = world.media_ms();
        world.join_as_another(false, Clip::large(), Keyframes::EachGop);
        world.switch(Video, false);
        world.pass(seconds(6.0));
        assert_eq!(world.guest_state(), GuestState::Live);
        let seen = world.finish_untouched();
        assert_eq!(shown(&seen, joined + 20, u32::MAX), [SLATE]);
        assert!(own_sounds(&seen).filter(|frame| frame.timestamp > joined).count() > 280, "the sound is there");
        assert_eq!(seen.audio.unwrap().gaps, 0);
    }
}

#[test]
fn a_session_that_pushes_another_one_out_shows_nobody_until_its_first_keyframe() {
    let mut world = idle_with_a_guest();
    let joined = world.media_ms();
    world.join_as_another(true, Clip::large(), Keyframes::EachGop);
    world.switch(Video, false);
    world.pass(seconds(2.0));
    world.switch(Video, true);
    world.pass(seconds(2.0));
    let seen = world.finish_untouched();
    assert_eq!(shown(&seen, joined + 20, u32::MAX), [SLATE, 2]);
}

#[test]
fn a_guest_who_comes_back_goes_on_from_the_last_picture() {
    let mut world = idle_with_a_guest();
    world.leave();
    let left = world.media_ms();
    world.pass(seconds(5.0));
    world.join(Clip::large(), Keyframes::EachGop);
    world.pass(seconds(3.0));
    let seen = world.finish_untouched();
    assert_eq!(shown(&seen, left, u32::MAX), [1, 2]);
}

#[test]
fn late_cameras_and_microphones_never_make_another_publication() {
    let mut world = idle();
    world.join_with(true, Clip::large(), Keyframes::EachGop);
    world.switch(Video, false);
    world.switch(Audio, false);
    world.pass(seconds(8.0));
    world.switch(Audio, true);
    world.pass(seconds(8.0));
    world.switch(Video, true);
    world.pass(seconds(4.0));
    let seen = world.finish_untouched();
    assert_eq!(shown(&seen, 0, u32::MAX), [SLATE, 1]);
    assert_eq!(seen.audio.unwrap().gaps, 0);
}

#[test]
fn where_nobody_is_published_a_goodbye_for_good_ends_in_black() {
    let mut world = World::new();
    world.join(Clip::large(), Keyframes::EachGop);
    world.pass(seconds(4.0));
    world.leave_for_good();
    assert_eq!(world.guest_state(), GuestState::Absent);
    world.pass(seconds(1.5));
    assert_eq!(world.rtmp_state(), State::Stopped);
    assert_eq!(world.slot.poll_timeout(), None, "an empty slot costs nothing");
    let connections = world.finish();
    assert!(connections.len() == 1 && connections[0].unpublished);
    let last = pictures(&connections[0]).last().unwrap();
    assert_eq!(picture_number(&last.body), SLATE);
}

#[test]
fn a_slot_that_is_opened_or_closed_under_way_begins_or_ends() {
    let mut world = World::new();
    world.pass(seconds(1.0));
    assert_eq!(world.rtmp_state(), State::Idle);
    world.slot.set_idle(true, world.now);
    world.pass(seconds(5.0));
    assert_eq!(world.rtmp_state(), State::Live);
    world.join(Clip::large(), Keyframes::EachGop);
    world.pass(seconds(2.0));
    world.slot.set_idle(false, world.now);
    world.pass(seconds(2.0));
    assert!(world.is_receiving(), "whoever is there stays");
    world.leave();
    world.pass(HOLD + seconds(1.5));
    assert_eq!(world.rtmp_state(), State::Stopped);
    assert_eq!(world.finish().len(), 1);
}

#[test]
fn a_picture_that_waited_behind_a_gap_is_not_shown_after_a_goodbye_for_good() {
    // Wherever the packet is missing: somewhere an IDR picture waits behind it.
    for step in 0..40 {
        let mut world = idle_with_a_guest();
        world.path.set(Video, Delivery { round_trip: Some(seconds(0.1)), jitter: seconds(0.1), retransmits: true });
        world.pass(seconds(0.6 + 0.04 * f64::from(step)));
        let mut lost = false;
        world.pass_with(seconds(0.3), |packet| packet.kind != Video || std::mem::replace(&mut lost, true));
        world.leave_for_good();
        let left = world.media_ms();
        world.pass(seconds(6.0));
        let seen = world.finish_untouched();
        assert_eq!(shown(&seen, left + 20, u32::MAX), [SLATE], "step {step}");
    }
}
