//! Publications that outlive the process: a planned restart gives their connections to the service manager, and the next
//! process goes on in them.
//!
//! ```text
//!  SIGTERM ─▶ HandOver ══▶ media thread ══▶ connection + state ─▶ store (FDNAME slot.GUEST) ─▶ all read ─▶ the end
//!  start ─▶ what was kept ─▶ forget (FDNAME slot.GUEST) ─▶ Adopt ══▶ media thread ══▶ Adopted
//! ```
//! The service manager forgets a connection before the first byte goes out on it: should this process crash, the next one finds
//! no connection that is further on than its state, and publishes anew. A process that ends before that leaves all of it to the
//! one after.
//!
//! Bounds: one connection a slot; each wait is bounded by what answers.

use std::time::Duration;

use crate::guest::id::{GuestId, ResourceId};
use crate::media::{Command, HandedOver};
use crate::systemd::{Kept, Notifier};
use crate::within::within;

use super::daemon::Daemon;

/// What the names of ours begin with.
const PREFIX: &str = "slot.";
/// How long the media thread may take to give its publications away. It ends the sessions before.
const GIVEN_WITHIN: Duration = Duration::from_secs(1);

/// Gives the service manager what the next process can go on in; returns how many publications that are.
pub(super) async fn hand_over(daemon: &Daemon, notifier: &Notifier) -> usize {
    let (reply, given) = smol::channel::bounded(1);
    if daemon.media.send(Command::HandOver { reply }).is_err() {
        return 0;
    }
    let Some(Ok(given)) = within(GIVEN_WITHIN, given.recv()).await else {
        log::warn!("the media thread gave no publication away within {GIVEN_WITHIN:?}: all of them end");
        return 0;
    };
    let mut kept = 0;
    for HandedOver { slot, state, stream } in given {
        let name = daemon.sessions.name(slot);
        let state = with_resource(daemon.sessions.last_resource(slot).as_ref(), &state);
        match notifier.store(&format!("{PREFIX}{name}"), &state, &stream) {
            Ok(()) => kept += 1,
            Err(error) => log::warn!("{name}: the service manager does not keep the publication: {error}; it ends"),
        }
    }
    if kept > 0
        && let Err(error) = notifier.wait_for_all()
    {
        log::warn!("the service manager has not said that it keeps the publications: {error}");
    }
    kept
}

/// The state behind the address of the session whose picture stands: its guest's page will name it when it comes back.
fn with_resource(resource: Option<&ResourceId>, state: &[u8]) -> Vec<u8> {
    let text = resource.map_or("", ResourceId::as_str);
    let length = u8::try_from(text.len()).expect("32 digits");
    [&[length], text.as_bytes(), state].concat()
}

/// Takes the address off the front of the state.
fn take_resource(state: &mut Vec<u8>) -> Option<ResourceId> {
    let length = usize::from(*state.first()?);
    let text = String::from_utf8(state.get(1..=length)?.to_vec()).ok()?;
    state.drain(..=length);
    ResourceId::parse(&text)
}

/// Goes on in what the service manager kept. What cannot be used is closed, and nothing of it is kept any longer.
pub(super) fn adopt(daemon: &Daemon, notifier: &Notifier, kept: Vec<Kept>) {
    for Kept { name, connection } in kept {
        if let Err(error) = notifier.forget(&name) {
            log::warn!("{name}: the service manager cannot be told to forget it: {error}; the publication is closed");
            continue;
        }
        let slot = name.strip_prefix(PREFIX).and_then(|id| GuestId::parse(id).ok()).map(|id| daemon.sessions.slot(&id));
        match (slot, connection) {
            (Some(Ok(slot)), Some((stream, mut state))) => {
                if let Some(resource) = take_resource(&mut state) {
                    daemon.sessions.record_former(slot, resource);
                }
                if daemon.media.send(Command::Adopt { slot, state, stream }).is_err() {
                    log::warn!("{name}: the media thread takes no commands; the publication is closed");
                }
            }
            (Some(Ok(_)), None) => {
                log::warn!("{name}: the service manager has lost the connection or its state: closed")
            }
            _ => log::warn!("{name}: kept by the service manager, and of no guest who is switched on: closed"),
        }
    }
}
