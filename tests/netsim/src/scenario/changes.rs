//! What a guest does in the middle of a show: loses the network, reloads, changes path, camera, microphone.

use std::time::{Duration, Instant};

use loadgen::clip::{Clip, TrackKind};
use loadgen::guest::GuestConfig;
use loadgen::netem::{Blackout, Impairments};
use loadgen::replay::{ReplayConfig, TrackStart};

use super::{ADDED_DELAY, Length, SECOND, SYNC_MS, browser, finish, live, quiet};
use crate::row::Row;
use crate::world::World;

/// How soon the picture has to be back after an interruption.
const BACK_WITHIN: Duration = Duration::from_millis(1500);

/// The picture is back in time, and the gap until `end` was filled with the last one.
fn require_bridged(row: &mut Row, world: &World, began: Instant, end: Instant) {
    let back = world.ledger().picture_after(end).map(|at| at - end);
    row.notes.push(format!("back after {:.0} ms", back.unwrap_or_default().as_secs_f64() * 1000.0));
    row.require(back.is_some_and(|back| back <= BACK_WITHIN), || format!("picture back after {back:?}"));
    let held = world.ledger().repeats(began, end + BACK_WITHIN);
    let seconds = usize::try_from((end - began).as_secs()).unwrap_or(usize::MAX);
    row.notes.push(format!("{held} held"));
    row.require(held + 2 >= seconds, || format!("{held} pictures held in {seconds} s"));
    row.require_one_connection(world);
    row.require_sync(SYNC_MS);
}

pub(super) fn blackout(name: &'static str, _: Length, seed: u64) -> Row {
    let mut world = live(quiet(), seed);
    let dark = 10 * SECOND;
    let blackout = Impairments { blackouts: vec![Blackout { at: Duration::ZERO, duration: dark }], ..quiet() };
    world.set_network(blackout.clone(), blackout);
    let began = world.now;
    world.run_for(dark + 15 * SECOND);
    finish(&mut world);
    let mut row = Row::of(name, &world);
    require_bridged(&mut row, &world, began, began + dark);
    let (sent, exact) = world.ledger().exact_between(began + dark + 2 * SECOND, world.now);
    row.require(sent == exact, || format!("{} of {sent} frames missing after the blackout", sent - exact));
    row
}

/// The browser is gone for 3 s, then the same guest is back on a new session.
pub(super) fn reload(name: &'static str, _: Length, seed: u64) -> Row {
    let mut world = live(quiet(), seed);
    let began = world.now;
    world.leave();
    world.run_for(3 * SECOND);
    let back = world.now;
    world.join(&Clip::chromium_720p(), elsewhere(browser()));
    world.run_for(15 * SECOND);
    finish(&mut world);
    let mut row = Row::of(name, &world);
    require_bridged(&mut row, &world, began, back);
    let (sent, exact) = world.ledger().exact_between(back + 2 * SECOND, world.now);
    row.require(sent == exact, || format!("{} of {sent} frames missing after the return", sent - exact));
    row
}

/// Other sequence numbers and timestamps, as each new session has them.
fn elsewhere(config: GuestConfig) -> GuestConfig {
    let video = TrackStart { sequence_number: 40_000, rtp_time: 3_000_000_000, ..TrackStart::default() };
    let audio = TrackStart { sequence_number: 7, rtp_time: 1_234_567, ..TrackStart::default() };
    GuestConfig { replay: ReplayConfig { video, audio, bursts: false }, ..config }
}

/// Directly, then by way of an SFU (ICE-lite, no SSRC lines, nothing repeated for audio), then directly again. The page
/// gives the old connection up without a word when it makes the new one.
pub(super) fn path(name: &'static str, _: Length, seed: u64) -> Row {
    let mut world = live(quiet(), seed);
    let sfu = GuestConfig { ice_lite: true, hide_ssrcs: true, ..GuestConfig::default() };
    let mut changes = Vec::new();
    for config in [elsewhere(sfu), browser()] {
        changes.push(world.now);
        world.join(&Clip::chromium_720p(), config);
        world.run_for(15 * SECOND);
    }
    finish(&mut world);
    let mut row = Row::of(name, &world);
    let ends: Vec<Instant> = changes.iter().skip(1).copied().chain([world.now]).collect();
    for (change, end) in changes.into_iter().zip(ends) {
        let (sent, exact) = world.ledger().exact_between(change + 2 * SECOND, end - Duration::from_millis(100));
        row.require(sent == exact && sent > 0, || format!("{} of {sent} frames missing after a change", sent - exact));
        let back = world.ledger().picture_after(change + Duration::from_millis(100)).map(|at| at - change);
        row.notes.push(format!("picture after {:.0} ms", back.unwrap_or_default().as_secs_f64() * 1000.0));
        row.require(back.is_some_and(|back| back <= BACK_WITHIN), || format!("picture back after {back:?}"));
    }
    row.require_one_connection(&world);
    row.require_sync(SYNC_MS);
    row
}

pub(super) fn ssrc(name: &'static str, _: Length, seed: u64) -> Row {
    let mut world = live(quiet(), seed);
    for kind in [TrackKind::Video, TrackKind::Audio, TrackKind::Video] {
        // Between two frames, as a sender does it.
        let replay = |world: &mut World, resume: bool| {
            let now = world.now;
            if let Some(replay) = world.replay() {
                if resume { replay.resume(kind, now) } else { replay.pause(kind) }
            }
        };
        replay(&mut world, false);
        world.run_for(Duration::from_millis(30));
        world.guest().change_ssrc(kind);
        replay(&mut world, true);
        world.run_for(12 * SECOND);
    }
    finish(&mut world);
    let mut row = Row::of(name, &world);
    row.require_everything();
    row.require_mixer_frozen(0);
    row.require_delay(ADDED_DELAY);
    row.require_sync(SYNC_MS);
    row.require_one_connection(&world);
    row
}

/// 720p, 360p and back, each with its SPS in front of an IDR.
pub(super) fn resolution(name: &'static str, _: Length, seed: u64) -> Row {
    let mut world = live(quiet(), seed);
    for clip in [Clip::chromium_360p(), Clip::chromium_720p()] {
        if let Some(replay) = world.replay() {
            replay.change_clip(TrackKind::Video, &clip);
        }
        world.run_for(10 * SECOND);
    }
    finish(&mut world);
    let mut row = Row::of(name, &world);
    row.require_everything();
    row.require_mixer_frozen(0);
    row.require_delay(ADDED_DELAY);
    row.require_sync(SYNC_MS);
    row.require_one_connection(&world);
    let headers = world.server().reports().first().and_then(|report| report.video.clone()).unwrap_or_default();
    row.require((headers.sequence_headers, headers.width) == (3, 1280), || format!("{headers:?}"));
    row
}

/// The camera is off for 5 s, then the microphone.
pub(super) fn mute(name: &'static str, _: Length, seed: u64) -> Row {
    let mut world = live(quiet(), seed);
    for kind in [TrackKind::Video, TrackKind::Audio] {
        if let Some(replay) = world.replay() {
            replay.pause(kind);
        }
        world.run_for(5 * SECOND);
        let now = world.now;
        if let Some(replay) = world.replay() {
            replay.resume(kind, now);
        }
        world.run_for(12 * SECOND);
    }
    finish(&mut world);
    let mut row = Row::of(name, &world);
    let (frames, exact) = (row.figures.frames, row.figures.exact);
    row.require(exact == frames, || format!("{} of {frames} frames missing", frames - exact));
    let (sounds, heard) = (row.figures.sounds, row.figures.sounds_exact);
    row.require(sounds == heard, || format!("{} of {sounds} sounds missing", sounds - heard));
    row.require_sync(SYNC_MS);
    row.require_one_connection(&world);
    row
}
