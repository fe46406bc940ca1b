//! Sound clocks that stand still or begin late, and a wall clock that is set.

use std::time::Duration;

use loadgen::clip::{Clip, TrackKind};
use loadgen::guest::GuestConfig;
use loadgen::replay::{ReplayConfig, TrackStart};

use super::{Length, SECOND, SYNC_MS, browser, finish, live, quiet, setup};
use crate::row::Row;
use crate::world::World;

/// What sound may have fallen behind for good: jitter.
const BEHIND_MS: f64 = 40.0;

/// Sound stops for so long, and its clock with it.
fn stand_still(world: &mut World, duration: Duration) {
    if let Some(replay) = world.replay() {
        replay.pause(TrackKind::Audio);
    }
    world.run_for(duration);
    let now = world.now;
    if let Some(replay) = world.replay() {
        replay.resume_clock(TrackKind::Audio, now);
    }
}

/// All that was said and shown came, both are in sync at the end, and no further behind than they were `before`.
fn require_no_trace(world: &World, row: &mut Row, before: (f64, f64)) {
    let figures = &row.figures;
    let (frames, exact, skew) = (figures.frames, figures.exact, figures.skew_end_ms);
    row.require(exact == frames, || format!("{} of {frames} frames missing", frames - exact));
    // Packets of silence in other places than their clock says cannot be told from the daemon's: it counts them itself.
    let stats = world.sound_stats();
    let (came, out) = (stats.packets.packets, stats.frames);
    row.require(out + 1 >= came, || format!("{} of {came} sounds missing", came - out));
    row.require(skew <= SYNC_MS, || format!("picture and sound {skew:.0} ms apart at the end"));
    row.require_one_connection(world);
    let (sound, picture) = world.ledger().behind_ms();
    let (sound, picture) = (before.0 - sound, before.1 - picture);
    row.notes.push(format!("sound {sound:.0} ms, picture {picture:.0} ms behind before"));
    row.require(sound.abs() <= BEHIND_MS, || format!("sound is {sound:.0} ms behind"));
    row.require(picture.abs() <= BEHIND_MS, || format!("the picture is {picture:.0} ms behind"));
}

/// A mute of 3 s that stops the sound clock.
pub(super) fn mute(name: &'static str, _: Length, seed: u64) -> Row {
    let mut world = live(quiet(), seed);
    let before = world.ledger().behind_ms();
    stand_still(&mut world, 3 * SECOND);
    world.run_for(14 * SECOND);
    finish(&mut world);
    let mut row = Row::of(name, &world);
    require_no_trace(&world, &mut row, before);
    row
}

/// The capture of sound stalls five times for 200 ms, and its clock with it.
pub(super) fn capture(name: &'static str, _: Length, seed: u64) -> Row {
    let mut world = live(quiet(), seed);
    let before = world.ledger().behind_ms();
    for _ in 0..5 {
        stand_still(&mut world, Duration::from_millis(200));
        world.run_for(2 * SECOND);
    }
    world.run_for(12 * SECOND);
    finish(&mut world);
    let mut row = Row::of(name, &world);
    require_no_trace(&world, &mut row, before);
    row
}

/// The sender's wall clock is set forward by 3 s; sound reports each 5 s, pictures each second.
pub(super) fn wall_clock(name: &'static str, _: Length, seed: u64) -> Row {
    let mut world = World::without_webrtc(setup(quiet(), seed));
    world.set_sound_reports(5);
    world.run_for(17 * SECOND);
    let from = world.now;
    world.set_wall_clock(3 * SECOND);
    world.run_for(20 * SECOND);
    finish(&mut world);
    let mut row = Row::of(name, &world);
    row.require_everything();
    row.require_sync(SYNC_MS);
    row.require_one_connection(&world);
    let moved = world.ledger().timestamp_spread(from);
    row.notes.push(format!("pictures moved by {:.0} ms", moved.as_secs_f64() * 1000.0));
    row.require(moved <= Duration::from_millis(40), || format!("the picture moved by {moved:?}"));
    row
}

/// A microphone that begins 8 s in: silence stands in for it, and must not teach the media server a late clock.
pub(super) fn late_microphone(name: &'static str, _: Length, seed: u64) -> Row {
    let mut setup = setup(quiet(), seed);
    let audio = TrackStart { delay: 8 * SECOND, ..TrackStart::default() };
    setup.guest = GuestConfig { replay: ReplayConfig { audio, ..ReplayConfig::default() }, ..browser() };
    setup.clip = Clip::chromium_720p();
    let mut world = World::new(setup);
    world.run_for(22 * SECOND);
    finish(&mut world);
    let mut row = Row::of(name, &world);
    row.require_everything();
    row.require_sync(SYNC_MS);
    row.require_one_connection(&world);
    row
}
