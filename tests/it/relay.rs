//! A guest's media through relay and publisher into the strict ingest, in virtual time: what the mixer's input sees while
//! the guest leaves, returns, falls silent, mutes, or the RTMP server goes away.

mod handover;
mod idle;
mod sender;
mod world;

use std::time::Duration;

use guest_relay::rtc::peer::Delivery;
use guest_relay::rtmp::{Event, LostReason, State};
use guest_relay::slot::RelayConfig;
use guest_relay_muxer::TrackKind::{Audio, Video};
use ingest::{Kind, Stage};

use sender::{Clip, Keyframes, picture_number};
use world::{HOLD, World, longest_steps, own_sounds, pictures, repetitions, seconds};

/// A guest that is live.
fn live(keyframes: Keyframes) -> World {
    live_with(keyframes, |_| {})
}

fn live_with(keyframes: Keyframes, change: impl FnOnce(&mut RelayConfig)) -> World {
    let mut world = World::with(change);
    world.join(Clip::large(), keyframes);
    world.pass(seconds(4.0));
    assert_eq!(world.rtmp_state(), State::Live, "{:?}", world.events);
    world
}

#[test]
fn nothing_is_added_to_a_guest_that_sends() {
    let mut world = live(Keyframes::OnRequest);
    world.pass(seconds(10.0));
    let guest_requests = world.guest().requests;
    let seen = world.finish_untouched();
    assert_eq!(repetitions(&seen).len(), 0);
    assert_eq!((longest_steps(&seen), seen.audio.unwrap().gaps), ((20, 40), 0));
    assert_eq!(guest_requests, 0, "the first keyframe is kept for the connection");
    assert_eq!(seen.video.unwrap().sequence_headers, 1);
}

#[test]
fn a_guest_that_leaves_and_returns_goes_on_in_the_same_publication() {
    let mut world = live(Keyframes::OnRequest);
    world.leave();
    world.pass(seconds(7.5));
    assert!(world.is_published() && !world.is_receiving());
    world.join(Clip::large(), Keyframes::OnRequest);
    world.pass(seconds(4.0));
    assert!(world.is_receiving());
    let seen = world.finish_untouched();
    assert_eq!(repetitions(&seen).len(), 7, "after 1 s and each second from there");
    let (audio, video) = longest_steps(&seen);
    assert!(audio <= 20 && video <= 1010, "{audio} {video}");
    assert_eq!(seen.audio.as_ref().unwrap().gaps, 0);
    assert_eq!(seen.video.as_ref().unwrap().sequence_headers, 1, "the parameter sets are the same");
    // 15.5 s passed since the first packet; the media time did too.
    for kind in [Kind::Audio, Kind::Video] {
        let last = *seen.timestamps(kind).last().unwrap();
        assert!((15_400..=15_520).contains(&last), "{kind:?} ends at {last} ms");
    }
}

#[test]
fn a_return_in_another_size_brings_one_sequence_header_and_no_reconnect() {
    let mut world = live(Keyframes::EachGop);
    world.leave();
    world.pass(seconds(3.5));
    world.join(Clip::small(), Keyframes::EachGop);
    world.pass(seconds(3.0));
    let seen = world.finish_untouched();
    let video = seen.video.as_ref().unwrap();
    assert_eq!((video.sequence_headers, video.width, video.height), (2, 64, 64));
    assert!(longest_steps(&seen).1 <= 1010);
}

#[test]
fn a_newer_session_that_takes_over_at_once_shows_no_old_picture() {
    let mut world = live(Keyframes::OnRequest);
    world.leave();
    world.join(Clip::large(), Keyframes::OnRequest);
    world.pass(seconds(2.0));
    let seen = world.finish_untouched();
    assert_eq!(repetitions(&seen).len(), 0);
    assert_eq!(seen.audio.unwrap().gaps, 0);
}

#[test]
fn the_hold_ends_with_a_clean_unpublish_and_the_next_guest_starts_afresh() {
    let mut world = live(Keyframes::EachGop);
    world.leave();
    world.pass(HOLD - seconds(0.1));
    assert_eq!(world.rtmp_state(), State::Live);
    world.pass(seconds(0.5));
    assert_eq!((world.is_published(), world.rtmp_state()), (false, State::Stopped));
    assert_eq!(world.slot.poll_timeout(), None, "an empty slot costs nothing");
    world.pass(seconds(5.0));
    world.join(Clip::small(), Keyframes::EachGop);
    world.pass(seconds(4.0));
    let connections = world.finish();
    assert_eq!(connections.len(), 2);
    assert!(connections[0].unpublished);
    assert_eq!(connections[1].video.as_ref().unwrap().width, 64);
    assert_eq!(connections[1].timestamps(Kind::Video)[0], 0);
}

#[test]
fn the_hold_counts_from_when_the_guest_was_last_heard_of() {
    // The network is gone for 30 s, and with it the session, before anybody can tell.
    let mut world = live(Keyframes::EachGop);
    world.network = false;
    world.pass(seconds(30.0));
    assert_eq!(world.rtmp_state(), State::Live, "while the session stands the guest may come back");
    world.leave();
    world.pass(seconds(0.2));
    assert!(!world.is_published());
    world.finish_untouched();
}

#[test]
fn a_blackout_is_bridged_and_ends_with_the_guest_s_next_idr() {
    let mut world = live(Keyframes::OnRequest);
    world.network = false;
    world.pass(seconds(0.9));
    assert!(world.is_receiving());
    world.pass(seconds(8.6));
    assert!(!world.is_receiving());
    world.network = true;
    let returned = world.now;
    world.guest().request_keyframe(); // repeated by the feedback until it is answered
    world.pass(seconds(0.1));
    assert!(world.is_receiving(), "{:?} after the return", world.now - returned);
    world.pass(seconds(3.0));
    let seen = world.finish_untouched();
    assert_eq!(repetitions(&seen).len(), 9);
    let (audio, video) = longest_steps(&seen);
    assert!(audio <= 20 && video <= 1010, "{audio} {video}");
    assert_eq!(seen.audio.as_ref().unwrap().gaps, 0);
    let last = *seen.timestamps(Kind::Video).last().unwrap();
    assert!((16_500..=16_600).contains(&last), "video is {last} ms on after 16.6 s");
}

#[test]
fn a_camera_that_is_off_is_bridged_while_the_sound_goes_on() {
    let mut world = live(Keyframes::OnRequest);
    world.switch(Video, false);
    world.pass(seconds(2.9));
    let before = world.ingest.inspect(|all| repetitions(&all[0]).len());
    assert_eq!(before, 0, "few pictures a second are no camera that is off");
    world.pass(seconds(16.6));
    assert!(world.is_receiving());
    // The encoder goes on where it was: with pictures that refer to others than the repeated one.
    world.guest().forget_requests();
    world.switch(Video, true);
    world.pass(seconds(0.3));
    world.guest().request_keyframe();
    world.pass(seconds(3.0));
    let seen = world.finish_untouched();
    assert_eq!(repetitions(&seen).len(), 17);
    let (audio, video) = longest_steps(&seen);
    assert!(audio <= 20 && video <= 3040, "{audio} {video}");
    assert_eq!(seen.audio.as_ref().unwrap().gaps, 0);
}

#[test]
fn a_microphone_that_is_off_for_a_minute_leaves_no_gap() {
    let mut world = live(Keyframes::EachGop);
    world.switch(Audio, false);
    world.pass(seconds(61.0));
    world.switch(Audio, true);
    world.pass(seconds(2.0));
    let seen = world.finish_untouched();
    assert_eq!((longest_steps(&seen), seen.audio.as_ref().unwrap().gaps), ((20, 40), 0));
    assert_eq!(repetitions(&seen).len(), 0);
    let (audio, video) = (seen.timestamps(Kind::Audio), seen.timestamps(Kind::Video));
    assert!(audio.last().unwrap().abs_diff(*video.last().unwrap()) <= 40, "in step again");
}

#[test]
fn a_microphone_whose_clock_stood_still_while_it_was_off_is_heard_again_in_step() {
    let mut world = live(Keyframes::EachGop);
    world.switch(Audio, false);
    world.pass(seconds(31.0));
    world.switch(Audio, true);
    world.guest().stand_still(seconds(31.0));
    world.pass(seconds(4.0));
    let seen = world.finish_untouched();
    assert_eq!(seen.audio.as_ref().unwrap().gaps, 0);
    let (audio, video) = (seen.timestamps(Kind::Audio), seen.timestamps(Kind::Video));
    assert!(audio.last().unwrap().abs_diff(*video.last().unwrap()) <= 40, "in step again");
}

#[test]
fn sound_that_comes_back_on_a_slower_path_is_not_lost_to_the_silence_before_it() {
    let mut world = live(Keyframes::EachGop);
    world.switch(Audio, false);
    world.pass(seconds(5.0));
    let before = world.guest().sounds;
    world.delay = Duration::from_millis(150);
    world.switch(Audio, true);
    world.pass(seconds(2.0));
    // Slower still, once the silence is over: nothing stands in for sound that comes.
    world.delay = Duration::from_millis(350);
    world.pass(seconds(3.0));
    let sent = world.guest().sounds - before;
    world.delay = Duration::ZERO;
    world.switch(Audio, false);
    world.switch(Video, false);
    world.pass(seconds(0.5));
    let seen = world.finish_untouched();
    assert_eq!(own_sounds(&seen).filter(|frame| frame.timestamp > 6000).count(), sent);
    assert_eq!(seen.audio.as_ref().unwrap().gaps, 0);
}

#[test]
fn sound_behind_a_gap_is_not_lost_to_silence_while_the_gap_is_waited_for() {
    let mut world = live(Keyframes::EachGop);
    let repeated = Delivery { round_trip: Some(Duration::from_millis(100)), jitter: Duration::ZERO, retransmits: true };
    world.path.set(Audio, repeated);
    world.pass(seconds(0.03));
    let mut late = None;
    world.pass_with(seconds(0.42), |packet| {
        let lost = packet.kind == Audio && late.is_none();
        if lost {
            late = Some(packet.clone());
        }
        !lost
    });
    world.deliver(&late.expect("sound was sent"));
    world.pass(seconds(1.0));
    let seen = world.finish_untouched();
    let sounds = seen.frames.iter().filter(|frame| frame.kind == Kind::Audio).count();
    assert_eq!((own_sounds(&seen).count(), seen.audio.as_ref().unwrap().gaps), (sounds, 0));
}

#[test]
fn camera_and_microphone_off_for_a_minute_is_a_picture_and_silence() {
    let mut world = live(Keyframes::OnRequest);
    world.switch(Video, false);
    world.switch(Audio, false);
    world.pass(seconds(60.0));
    assert_eq!(world.rtmp_state(), State::Live);
    world.switch(Audio, true);
    world.pass(seconds(2.0));
    world.switch(Video, true);
    world.pass(seconds(2.0));
    let seen = world.finish_untouched();
    assert!((60..=62).contains(&repetitions(&seen).len()), "{}", repetitions(&seen).len());
    assert_eq!(seen.audio.as_ref().unwrap().gaps, 0);
    assert!(longest_steps(&seen).1 <= 1010);
}

#[test]
fn tracks_that_start_seconds_apart_begin_together() {
    for (first, second) in [(Audio, Video), (Video, Audio)] {
        let mut world = World::new();
        world.join(Clip::large(), Keyframes::EachGop);
        world.switch(second, false);
        world.pass(seconds(3.0));
        world.switch(second, true);
        world.pass(seconds(4.0));
        let seen = world.finish_untouched();
        let starts = [Kind::Audio, Kind::Video].map(|kind| seen.timestamps(kind)[0]);
        assert!(starts.iter().all(|start| *start <= 20), "{first:?} first: {starts:?}");
        assert_eq!(seen.audio.as_ref().unwrap().gaps, 0, "{first:?} first");
    }
}

#[test]
fn a_guest_without_a_microphone_is_published_with_silence() {
    let mut world = World::new();
    world.join(Clip::large(), Keyframes::EachGop);
    world.switch(Audio, false);
    world.pass(seconds(10.0));
    assert_eq!(world.rtmp_state(), State::Live);
    let seen = world.finish_untouched();
    assert!(
        seen.frames
            .iter()
            .filter(|frame| frame.kind == Kind::Audio)
            .all(|frame| { frame.body.ends_with(&[0xf8, 0xff, 0xfe]) })
    );
    let audio = seen.audio.as_ref().unwrap();
    assert!(audio.frames > 480 && audio.gaps == 0, "{audio:?}");
}

#[test]
fn a_guest_whose_camera_never_comes_is_published_as_sound_and_a_late_camera_joins() {
    let mut world = World::new();
    world.join(Clip::large(), Keyframes::OnRequest);
    world.switch(Video, false);
    world.pass(seconds(4.9));
    assert_eq!(world.rtmp_state(), State::Publishing);
    world.pass(seconds(5.1));
    assert_eq!(world.rtmp_state(), State::Live, "sound alone");
    world.switch(Video, true);
    world.pass(seconds(5.0));
    assert_eq!(world.rtmp_state(), State::Live, "{:?}", world.events);
    let late = world
        .events
        .iter()
        .any(|event| matches!(event, Event::Lost { reason: LostReason::LateTrack, retry_in: Duration::ZERO }));
    assert!(late, "{:?}", world.events);
    let connections = world.finish();
    assert_eq!(connections.len(), 2);
    let [sound, both] = [&connections[0], &connections[1]];
    assert!(sound.video.is_none() && sound.unpublished && sound.audio.as_ref().unwrap().gaps == 0);
    assert!(pictures(both).count() > 100 && both.audio.as_ref().unwrap().gaps == 0);
}

#[test]
fn a_guest_of_sound_alone_is_held_and_may_come_back_with_a_camera() {
    let mut world = World::new();
    world.join_with(false, Clip::large(), Keyframes::EachGop);
    world.switch(Video, false);
    world.pass(seconds(5.0));
    assert_eq!(world.rtmp_state(), State::Live);
    world.leave();
    world.pass(seconds(5.0));
    assert_eq!(world.rtmp_state(), State::Live);
    world.join(Clip::large(), Keyframes::EachGop);
    world.pass(seconds(5.0));
    let connections = world.finish();
    assert_eq!(connections.len(), 2);
    assert!(connections[0].video.is_none() && connections[0].audio.as_ref().unwrap().gaps == 0);
    assert!(pictures(&connections[1]).count() > 50 && connections[1].audio.as_ref().unwrap().gaps == 0);
}

#[test]
fn clocks_that_jump_leave_no_trace_in_the_publication() {
    let mut world = live(Keyframes::EachGop);
    for jump in [48_000 * 600, -48_000 * 600, i32::MIN, i32::MAX, -90_000 * 3] {
        for kind in [Audio, Video] {
            world.guest().jump(kind, jump);
            world.pass(seconds(1.5));
        }
    }
    let seen = world.finish_untouched();
    let (audio, video) = longest_steps(&seen);
    assert!(audio <= 40 && video <= 80, "{audio} {video}");
    let (audio, video) = (seen.timestamps(Kind::Audio), seen.timestamps(Kind::Video));
    assert!(audio.last().unwrap().abs_diff(*video.last().unwrap()) <= 60, "in step");
}

#[test]
fn a_server_that_is_lost_during_a_hold_gets_the_last_picture_when_it_is_back() {
    let mut world = live(Keyframes::EachGop);
    world.leave();
    world.pass(seconds(3.0));
    world.ingest.stop_listening();
    world.ingest.kill_connections();
    assert!(world.ingest.wait_until(seconds(5.0), |all| all[0].stage == Stage::Ended));
    world.pass(seconds(3.0));
    world.ingest.start_listening().unwrap();
    let started = world.now;
    let mut queued = 0;
    while world.rtmp_state() != State::Publishing {
        queued = world.output().video_frames_queued;
        world.pass(Duration::from_millis(10));
        assert!(world.now < started + seconds(20.0), "not published again: {:?}", world.events);
    }
    world.pass(Duration::from_millis(50));
    assert_eq!(world.output().video_frames_queued, queued + 1, "at once, not with the next second");
    world.pass(seconds(5.0));
    let frames = world.ingest.inspect(|all| all.get(1).map_or(0, |connection| pictures(connection).count()));
    assert!(frames >= 2, "{frames} pictures while the guest is away: {:?}", world.events);
    world.join(Clip::large(), Keyframes::EachGop);
    world.pass(seconds(4.0));
    assert_eq!(world.rtmp_state(), State::Live);
    let connections = world.finish();
    assert_eq!(connections.len(), 2);
    let back = &connections[1];
    let numbers: Vec<_> = pictures(back).map(|frame| picture_number(&frame.body) >> 32).collect();
    assert_eq!(numbers.first(), Some(&1), "the first guest's last IDR");
    assert_eq!(numbers.last(), Some(&2));
    assert_eq!((back.timestamps(Kind::Video)[0], back.audio.as_ref().unwrap().gaps), (0, 0));
}

#[test]
fn ssrc_and_payload_type_may_change_without_a_reconnect() {
    let mut world = live(Keyframes::OnRequest);
    for kind in [Audio, Video] {
        world.guest().change_ssrc(kind);
        world.pass(seconds(2.0));
        world.guest().change_payload_type(kind);
        world.pass(seconds(2.0));
    }
    let seen = world.finish_untouched();
    assert_eq!(seen.video.as_ref().unwrap().sequence_headers, 1);
    assert_eq!(repetitions(&seen).len(), 0);
    let (audio, video) = longest_steps(&seen);
    assert!(audio <= 40 && video <= 80, "{audio} {video}");
}

#[test]
fn a_camera_that_turns_changes_the_size_at_its_idr() {
    let mut world = live(Keyframes::OnRequest);
    world.guest().change_clip(Clip::small());
    world.pass(seconds(2.0));
    world.guest().change_clip(Clip::large());
    world.pass(seconds(2.0));
    let seen = world.finish_untouched();
    let video = seen.video.as_ref().unwrap();
    assert_eq!((video.sequence_headers, video.width, video.height), (3, 320, 240));
    assert!(longest_steps(&seen).1 <= 100);
}

#[test]
fn a_keyframe_is_asked_for_when_the_last_one_has_grown_old() {
    let interval = |config: &mut RelayConfig| config.keyframe_interval = Some(seconds(4.0));
    let mut world = live_with(Keyframes::OnRequest, interval);
    let before = world.guest().requests;
    world.pass(seconds(20.0));
    assert_eq!(world.guest().requests - before, 5);
    let seen = world.finish_untouched();
    let keys: Vec<_> = pictures(&seen).filter(|frame| frame.key).map(|frame| frame.timestamp).collect();
    assert!(keys.windows(2).all(|pair| pair[1] - pair[0] <= 4100), "{keys:?}");

    // A stream that has them anyway is left alone.
    let mut world = live_with(Keyframes::EachGop, interval);
    let before = world.guest().requests;
    world.pass(seconds(21.0));
    assert_eq!(world.guest().requests, before);

    // So is one that nobody reads: no server, or none asked for.
    let mut world = live_with(Keyframes::OnRequest, interval);
    world.ingest.stop_listening();
    world.ingest.kill_connections();
    assert!(world.ingest.wait_until(seconds(5.0), |all| all[0].stage == Stage::Ended));
    world.pass(seconds(0.1));
    let before = world.guest().requests;
    world.pass(seconds(21.0));
    assert_eq!(world.guest().requests, before);
    let mut world = live(Keyframes::OnRequest);
    let before = world.guest().requests;
    world.pass(seconds(21.0));
    assert_eq!(world.guest().requests, before);
}

#[test]
fn a_keyframe_is_asked_for_on_demand_as_long_as_the_guest_shows_a_picture() {
    let mut world = World::new();
    assert!(!world.slot.request_keyframe(world.now), "nobody is there");
    let mut world = live(Keyframes::OnRequest);
    let before = world.guest().requests;
    assert!(world.slot.request_keyframe(world.now));
    world.pass(seconds(0.5));
    assert_eq!(world.guest().requests - before, 1);
    world.switch(Video, false);
    world.pass(seconds(4.0));
    assert!(!world.slot.request_keyframe(world.now), "the camera is off");
    world.guest().request_keyframe();
    world.switch(Video, true);
    world.pass(seconds(1.0));
    assert!(world.slot.request_keyframe(world.now));
    world.leave();
    assert!(!world.slot.request_keyframe(world.now), "the guest has left");
    world.finish_untouched();

    let mut world = World::new();
    world.join_with(false, Clip::small(), Keyframes::OnRequest);
    world.switch(Video, false);
    world.pass(seconds(2.0));
    assert!(!world.slot.request_keyframe(world.now), "the guest has no camera");
}

#[test]
fn each_track_waits_for_a_missing_packet_as_its_own_path_demands() {
    let mut world = live(Keyframes::OnRequest);
    let delivery = |round_trip, jitter, retransmits| Delivery {
        round_trip: Some(Duration::from_millis(round_trip)),
        jitter: Duration::from_millis(jitter),
        retransmits,
    };
    world.path.set(Audio, delivery(50, 5, false));
    world.path.set(Video, delivery(30, 5, true));
    // Session and relay agree twice a second.
    world.pass(seconds(0.6));
    // From the loss of a packet until the relay goes on without it.
    let mut given_up = |kind, over: &dyn Fn(&mut World) -> bool| {
        let mut lost = false;
        // bounded: one packet at least comes every 40 ms
        while !lost {
            world.pass_with(Duration::from_millis(10), |packet| {
                packet.kind != kind || std::mem::replace(&mut lost, true)
            });
        }
        let lost_at = world.now;
        while !over(&mut world) {
            world.pass(Duration::from_millis(10));
            assert!(world.now < lost_at + seconds(1.0), "{kind:?}");
        }
        (world.now - lost_at).as_millis()
    };
    let before = std::cell::Cell::new(u64::MAX);
    let sound = given_up(Audio, &|world| {
        let queued = world.output().audio_frames_queued;
        before.set(before.get().min(queued));
        queued > before.get()
    });
    let picture = given_up(Video, &|world| world.guest().requests > 0);
    // The next packet shows the gap, 20 and 40 ms later; then 4 x 5 ms, and 5 + 7 x 30 + 4 x 5 ms.
    assert!((30..=50).contains(&sound) && (265..=285).contains(&picture), "{sound} ms, {picture} ms");
    world.finish_untouched();
}
