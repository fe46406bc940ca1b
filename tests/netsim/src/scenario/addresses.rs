//! Senders whose checks end, and NATs that change their mind.

use loadgen::netem::Impairments;

use super::{ADDED_DELAY, DELAY, JITTER, Length, SECOND, SYNC_MS, finish, live, quiet};
use crate::checks::Checks;
use crate::row::Row;

/// GStreamer 1.22: once it is connected it checks no more. Then its network is gone, and the session must be missed.
pub(super) fn no_consent(name: &'static str, _: Length, seed: u64) -> Row {
    let mut world = live(quiet(), seed);
    world.set_checks(Checks::None);
    world.run_for(120 * SECOND);
    finish(&mut world);
    let mut row = Row::of(name, &world);
    row.require_everything();
    row.require_sync(SYNC_MS);
    row.require_one_connection(&world);
    let gone = world.now;
    world.leave();
    while world.peer_stats().is_some() && world.now < gone + 60 * SECOND {
        world.run_for(SECOND / 10);
    }
    let missed = world.now - gone;
    row.notes.push(format!("missed after {:.1} s", missed.as_secs_f64()));
    row.require(missed <= 30 * SECOND, || format!("session over {missed:?} after the guest"));
    row
}

/// How soon the guest's next check has shown its new address to us.
const SEEN_WITHIN: u32 = 6;

/// A NAT gives the guest another port, and its checks carry no nomination.
pub(super) fn port_change(name: &'static str, length: Length, seed: u64) -> Row {
    let lossy = Impairments { loss: 0.03, burst: 1.0, delay: DELAY, jitter: JITTER, ..Impairments::default() };
    let mut world = live(lossy, seed);
    world.set_checks(Checks::Plain);
    let changed = world.now;
    let port = world.change_port();
    let repaired = world.guest().stats().rtx_packets;
    let past = length.of(120 * SECOND, 30 * SECOND);
    world.run_for(past);
    let followed = world.peer_stats().and_then(|stats| stats.remote_address);
    finish(&mut world);
    let mut row = Row::of(name, &world);
    row.require(followed == Some(port), || format!("feedback goes to {followed:?}, the guest is at {port}"));
    let back = world.ledger().picture_after(changed + SECOND).map(|at| at - changed);
    row.notes.push(format!("back after {:.1} s", back.unwrap_or_default().as_secs_f64()));
    let (sent, exact) = world.ledger().exact_between(changed + (SEEN_WITHIN + 1) * SECOND, world.now);
    row.require(sent == exact && sent > 0, || format!("{} of {sent} frames missing after the change", sent - exact));
    let repaired = world.guest().stats().rtx_packets - repaired;
    row.notes.push(format!("{repaired} packets sent again"));
    row.require(repaired > 0, || "no NACK reached the new port".to_owned());
    row.require_delay(ADDED_DELAY);
    row.require_sync(SYNC_MS);
    row.require_one_connection(&world);
    row
}
