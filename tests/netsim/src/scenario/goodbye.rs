//! Who leaves is gone: a slot that is published without a guest too, and what the mixer sees when guests come and go there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loadgen::clip::{Clip, TrackKind};

use super::{Length, SECOND, browser, finish, quiet, setup};
use crate::ledger::Was;
use crate::row::Row;
use crate::world::{HOLD, World};

/// How soon after the goodbye nobody has to be shown.
const GONE_WITHIN: Duration = Duration::from_millis(500);

/// A guest who is live in a slot that was published before.
fn live(seed: u64) -> World {
    let mut world = World::published_before(setup(quiet(), seed));
    world.run_for(12 * SECOND);
    world
}

/// From `since` on the slot shows nobody, soon and every second, and no guest's picture again.
fn require_nobody(row: &mut Row, world: &World, since: Instant, within: Duration) {
    let black = world.ledger().nobody_after(since).map(|at| at - since);
    row.notes.push(format!("black after {:.0} ms", black.unwrap_or_default().as_secs_f64() * 1000.0));
    row.require(black.is_some_and(|black| black <= within), || format!("black after {black:?}"));
    let later = world.ledger().shown_between(since + within, world.now);
    let foreign = later.iter().filter(|was| **was != Was::Nobody).count();
    row.require(foreign == 0, || format!("{foreign} pictures of a guest who has left"));
    let seconds = usize::try_from((world.now - since - within).as_secs()).unwrap_or(usize::MAX);
    row.require(later.len() + 1 >= seconds, || format!("{} pictures in {seconds} s", later.len()));
    row.require_one_connection(world);
}

pub(super) fn leaves(name: &'static str, _: Length, seed: u64) -> Row {
    let mut world = live(seed);
    world.end_count();
    world.run_for(SECOND);
    let left = world.now;
    world.leave_for_good();
    world.run_for(10 * SECOND);
    let mut row = Row::of(name, &world);
    require_nobody(&mut row, &world, left, GONE_WITHIN);
    row
}

/// The face before is gone when the next guest is there, and not only when the hold is over.
pub(super) fn sound_alone(name: &'static str, _: Length, seed: u64) -> Row {
    let mut world = live(seed);
    world.end_count();
    world.run_for(SECOND);
    world.leave();
    world.run_for(3 * SECOND);
    let joined = world.now;
    world.join_as_another(&Arc::new(Clip::chromium_720p().only(TrackKind::Audio)), browser());
    world.run_for(10 * SECOND);
    let mut row = Row::of(name, &world);
    require_nobody(&mut row, &world, joined, GONE_WITHIN);
    let heard = world.ledger().sounds_between(joined + SECOND, world.now - SECOND);
    row.notes.push(format!("{heard} sounds"));
    row.require(heard >= 8 * 50 - 1, || format!("{heard} sounds of the next guest in 8 s"));
    row
}

/// A guest vanishes: the last picture for the hold, then nobody.
pub(super) fn hold(name: &'static str, _: Length, seed: u64) -> Row {
    let mut world = live(seed);
    finish(&mut world);
    let gone = world.now;
    world.close_session();
    world.run_for(HOLD + 10 * SECOND);
    let mut row = Row::of(name, &world);
    let held = world.ledger().repeats(gone, gone + HOLD);
    row.notes.push(format!("{held} held"));
    row.require(held + 2 >= usize::try_from(HOLD.as_secs()).unwrap_or(usize::MAX), || format!("{held} pictures held"));
    require_nobody(&mut row, &world, gone + HOLD - Duration::from_millis(100), GONE_WITHIN);
    row
}
