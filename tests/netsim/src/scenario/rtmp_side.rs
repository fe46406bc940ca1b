//! The media server is slow, stopped or gone; the guest stays.

use std::time::Duration;

use super::{Length, SECOND, finish, live, quiet};
use crate::row::Row;
use crate::server::Mood;
use crate::world::World;

/// Media that may wait for the server.
const QUEUE: Duration = Duration::from_secs(2);

fn trouble(mood: Mood, duration: Duration, seed: u64) -> (World, Duration) {
    let mut world = live(quiet(), seed);
    world.set_mood(mood);
    let until = world.now + duration;
    let mut queued = Duration::ZERO;
    while world.now < until {
        world.run_for(Duration::from_millis(100));
        queued = queued.max(world.queued());
    }
    world.set_mood(Mood::Well);
    (world, queued)
}

/// How long after its return the server has a picture: the 2 s in which the daemon finds it, and the keyframe that it asks for.
const BACK_WITHIN: Duration = Duration::from_millis(2500);

/// Live again within 2 s and a keyframe.
fn returned(name: &'static str, mut world: World, queued: Duration) -> Row {
    let well = world.now;
    world.run_for(15 * SECOND);
    finish(&mut world);
    let mut row = Row::of(name, &world);
    let back = world.ledger().picture_after(well).map(|at| at - well);
    row.notes.push(format!("back after {:.0} ms", back.unwrap_or_default().as_secs_f64() * 1000.0));
    row.require(back.is_some_and(|back| back <= BACK_WITHIN), || format!("picture back after {back:?}"));
    row.require(queued <= QUEUE, || format!("{queued:?} of media queued"));
    let (sent, exact) = world.ledger().exact_between(well + 4 * SECOND, world.now);
    row.require(sent == exact, || format!("{} of {sent} frames missing afterwards", sent - exact));
    row
}

pub(super) fn away(name: &'static str, _: Length, seed: u64) -> Row {
    let (world, queued) = trouble(Mood::Away, 3 * SECOND, seed);
    let connections = world.server().connections();
    let mut row = returned(name, world, queued);
    row.require(connections == 1, || format!("{connections} connections before the return"));
    row
}

/// It takes 1.5 Mbit/s of the 2.4 for 20 s: pictures go in whole groups, sound stays.
pub(super) fn slow(name: &'static str, _: Length, seed: u64) -> Row {
    let (world, queued) = trouble(Mood::Slow { kbps: 1500 }, 20 * SECOND, seed);
    let mut row = returned(name, world, queued);
    let (gaps, sounds) = (row.figures.sound_gaps, row.figures.sounds);
    row.require(gaps == 0, || format!("{gaps} gaps in {sounds} sounds"));
    row
}

/// As by SIGSTOP: the connection takes nothing for 8 s.
pub(super) fn stopped(name: &'static str, _: Length, seed: u64) -> Row {
    let (world, queued) = trouble(Mood::Stopped, 8 * SECOND, seed);
    returned(name, world, queued)
}
