//! The service manager's view of the daemon: ready once the media thread has answered, alive for as long as it goes on
//! answering. Nothing else feeds the watchdog, so a media thread that hangs gets the daemon restarted, and guests who
//! come through the SFU are pulled again by the next run.

use std::time::Duration;

use super::Daemon;
use crate::guest::State;
use crate::media_loop::SlotSnapshot;
use crate::systemd::Notifier;

/// Between two questions while there is no answer. Each waits for its answer first.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Runs as long as the daemon. Ends at once where nobody listens.
pub(super) async fn run(daemon: &Daemon, notifier: &Notifier) {
    if !notifier.is_watched() {
        return;
    }
    notifier.ready(&status(&answer(daemon).await));
    let Some(period) = notifier.watchdog_period() else {
        return;
    };
    loop {
        smol::Timer::after(period).await;
        let slots = answer(daemon).await;
        notifier.alive();
        notifier.status(&status(&slots));
    }
}

/// What the media thread says, however long it takes.
async fn answer(daemon: &Daemon) -> Vec<SlotSnapshot> {
    loop {
        if let Some(slots) = daemon.snapshot().await {
            return slots;
        }
        log::error!(
            "the media thread does not answer; if that goes on, the service manager's watchdog ends the daemon"
        );
        smol::Timer::after(ASK_AGAIN).await;
    }
}

fn status(slots: &[SlotSnapshot]) -> String {
    let live = slots.iter().filter(|slot| slot.state == State::Live).count();
    format!("{live} of {} guests live", slots.len())
}
