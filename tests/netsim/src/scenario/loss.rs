//! Networks that lose, shuffle, repeat and choke.

use std::time::Duration;

use loadgen::clip::{Clip, TrackKind};
use loadgen::guest::GuestConfig;
use loadgen::netem::Impairments;

use super::{ADDED_DELAY, DELAY, JITTER, Length, MINUTE, SECOND, SYNC_MS, browser, finish, quiet, setup};
use crate::ledger::PATIENT_BUFFER;
use crate::row::Row;
use crate::world::{Want, World};

const NO_LOSS_DELAY: Duration = Duration::from_millis(2);

fn lossy(loss: f64, burst: f64) -> Impairments {
    Impairments { loss, burst, delay: DELAY, jitter: JITTER, ..Impairments::default() }
}

fn play(network: Impairments, length: Length, seed: u64) -> World {
    let mut world = World::new(setup(network, seed));
    world.run_for(length.of(10 * MINUTE, 20 * SECOND));
    finish(&mut world);
    world
}

pub(super) fn none(name: &'static str, length: Length, seed: u64) -> Row {
    let world = play(quiet(), length, seed);
    let mut row = Row::of(name, &world);
    row.require_everything();
    row.require_mixer_frozen(0);
    row.require_delay(NO_LOSS_DELAY);
    row.require_sync(SYNC_MS);
    row.require_one_connection(&world);
    row
}

fn repaired(name: &'static str, loss: f64, length: Length, seed: u64) -> Row {
    let world = play(lossy(loss, 1.0), length, seed);
    let mut row = Row::of(name, &world);
    row.require_everything();
    // One repair is a large part of a short run.
    if length == Length::Full {
        row.require_mixer_frozen(2);
    }
    row.require_delay(ADDED_DELAY);
    row.require_sync(SYNC_MS);
    row.require_one_connection(&world);
    row
}

pub(super) fn one_percent(name: &'static str, length: Length, seed: u64) -> Row {
    repaired(name, 0.01, length, seed)
}

pub(super) fn three_percent(name: &'static str, length: Length, seed: u64) -> Row {
    repaired(name, 0.03, length, seed)
}

pub(super) fn five_percent(name: &'static str, length: Length, seed: u64) -> Row {
    repaired(name, 0.05, length, seed)
}

/// In full at any length: a packet is lost for good every few minutes, and then half a second of pictures with it.
pub(super) fn bursts(name: &'static str, _length: Length, seed: u64) -> Row {
    let world = play(lossy(0.1, 4.0), Length::Full, seed);
    let mut row = Row::of(name, &world);
    let (frames, exact) = (row.figures.frames, row.figures.exact);
    row.require(exact * 1000 >= frames * 995, || format!("{} of {frames} frames missing", frames - exact));
    let (frozen, played) = (row.figures.freezes.total, row.figures.played);
    row.require(frozen * 100 <= played, || format!("frozen for {frozen:?} of {played:?}"));
    row.require_mixer_frozen(10);
    row.require_delay(ADDED_DELAY);
    row.require_sync(SYNC_MS);
    row.require_one_connection(&world);
    row
}

pub(super) fn twenty_percent(name: &'static str, length: Length, seed: u64) -> Row {
    let world = play(lossy(0.2, 1.0), length, seed);
    let mut row = Row::of(name, &world);
    row.require_mixer_frozen(10);
    row.require_delay(ADDED_DELAY);
    row.require_sync(SYNC_MS);
    row.require_one_connection(&world);
    require_prompt_requests(&mut row, &world);
    let back = row.figures.return_max;
    row.require(back <= SECOND, || format!("back {back:?} after an IDR"));
    row.notes.push(format!("back {} ms after an IDR at most", back.as_millis()));
    row
}

/// A PLI (or the picture itself) within 200 ms of the need for it, or of when the limit of two a second allows it.
fn require_prompt_requests(row: &mut Row, world: &World) {
    const WITHIN: Duration = Duration::from_millis(200);
    const BETWEEN: Duration = Duration::from_millis(500);
    let wants = world.keyframe_wants();
    row.require(!wants.is_empty(), || "no picture was ever lost".to_owned());
    let waited = |want: &Want| {
        let allowed = want.request_before.map_or(want.since, |before| want.since.max(before + BETWEEN));
        want.until.saturating_duration_since(allowed)
    };
    let slowest = wants.iter().map(waited).max().unwrap_or_default();
    row.require(slowest <= WITHIN, || format!("a PLI came {slowest:?} after the need"));
    row.notes.push(format!("PLI after {} ms at most", slowest.as_millis()));
}

/// The delay that a bad minute has caused is gone soon after it.
pub(super) fn calm(name: &'static str, length: Length, seed: u64) -> Row {
    let mut world = World::new(setup(lossy(0.1, 4.0), seed));
    world.run_for(length.of(MINUTE, 15 * SECOND));
    world.set_network(quiet(), quiet());
    world.run_for(20 * SECOND);
    let settled = world.now - 10 * SECOND..world.now;
    finish(&mut world);
    let mut row = Row::of(name, &world);
    for kind in [TrackKind::Video, TrackKind::Audio] {
        let delay = world.ledger().delay_p95(kind, settled.clone());
        row.require(delay <= NO_LOSS_DELAY, || format!("{kind:?} is {delay:?} late after the loss"));
        row.notes.push(format!("{kind:?} {:.1} ms late afterwards", delay.as_secs_f64() * 1000.0));
    }
    row.require_sync(SYNC_MS);
    row.require_one_connection(&world);
    row
}

pub(super) fn disorder(name: &'static str, length: Length, seed: u64) -> Row {
    let network =
        Impairments { duplicate: 0.05, reorder: 0.05, delay: DELAY, jitter: JITTER, ..Impairments::default() };
    let mut world = World::new(setup(network, seed));
    world.run_for(length.of(2 * MINUTE, 15 * SECOND));
    finish(&mut world);
    let mut row = Row::of(name, &world);
    row.require_everything();
    row.require_mixer_frozen(0);
    row.require_delay(ADDED_DELAY);
    row.require_sync(SYNC_MS);
    row.require_one_connection(&world);
    row
}

/// How far above the link's rate an encoder may aim before it drops to the small picture, and when it comes back.
const FALL_BELOW_KBPS: u32 = 2000;
const RISE_ABOVE_KBPS: u32 = 2600;

/// An encoder that follows its estimate: 720p at 2.4 Mbit/s, or 360p at 0.2. The link falls from 4 to 1 Mbit/s.
pub(super) fn congestion(name: &'static str, length: Length, seed: u64) -> Row {
    let link = |kbps| Impairments { rate_kbps: Some(kbps), queue: Duration::from_millis(300), ..quiet() };
    let mut setup = setup(link(4000), seed);
    setup.guest = GuestConfig { estimate_bandwidth: true, ..browser() };
    let mut world = World::new(setup);
    let mut large = true;
    follow_estimate(&mut world, &mut large, 20 * SECOND);
    world.set_network(link(1000), quiet());
    let fell = world.now;
    follow_estimate(&mut world, &mut large, length.of(2 * MINUTE, 15 * SECOND));
    finish(&mut world);
    let mut row = Row::of(name, &world);
    row.require(!large, || "the estimate does not follow the link".to_owned());
    // What the encoder takes to hear of it, and the round trip to the next IDR.
    let settled = fell + 3 * SECOND;
    let (sent, exact) = world.ledger().exact_between(settled, world.now);
    row.require(sent == exact, || format!("{} of {sent} frames missing after the fall", sent - exact));
    let rendered = world.ledger().rendered(PATIENT_BUFFER);
    let after =
        crate::freeze::freezes(rendered.get(rendered.partition_point(|at| *at < settled)..).unwrap_or_default());
    row.require(after.count == 0, || format!("{} freezes after the fall, longest {:?}", after.count, after.longest));
    row.notes.push(format!("estimate {} kbit/s", world.guest().stats().estimate_kbps.unwrap_or(0)));
    row.require_one_connection(&world);
    row
}

fn follow_estimate(world: &mut World, large: &mut bool, duration: Duration) {
    let (until, step) = (world.now + duration, Duration::from_millis(50));
    while world.now < until {
        world.run_for(step);
        let estimate = world.guest().stats().estimate_kbps.unwrap_or(u32::MAX);
        let wanted = if *large { estimate >= FALL_BELOW_KBPS } else { estimate > RISE_ABOVE_KBPS };
        if wanted != *large {
            *large = wanted;
            let clip = if wanted { Clip::chromium_720p() } else { Clip::chromium_360p() };
            if let Some(replay) = world.replay() {
                replay.change_clip(TrackKind::Video, &clip);
            }
        }
    }
}
