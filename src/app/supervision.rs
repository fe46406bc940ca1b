//! The service manager's view of the daemon: ready once the media thread has answered, alive for as long as it goes on
//! answering. Nothing else feeds the watchdog, so a media thread that hangs gets the daemon restarted, and guests who
//! come through the SFU are pulled again by the next run.

use std::rc::Rc;
use std::time::Duration;

use crate::guest::State;
use crate::media::SlotSnapshot;
use crate::systemd::Notifier;

/// Between two questions while there is no answer. Each waits for its answer first.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Runs as long as the daemon; ends at once where nobody listens. `ask` has the media thread say what it knows, `None`
/// when it does not answer in time.
pub(super) async fn run(ask: impl AsyncFn() -> Option<Rc<Vec<SlotSnapshot>>>, notifier: &Notifier) {
    if !notifier.is_watched() {
        return;
    }
    notifier.ready(&status(&answer(&ask).await));
    let Some(period) = notifier.watchdog_period() else {
        return;
    };
    loop {
        smol::Timer::after(period).await;
        let slots = answer(&ask).await;
        notifier.alive();
        notifier.status(&status(&slots));
    }
}

/// What the media thread says, however long it takes.
async fn answer(ask: &impl AsyncFn() -> Option<Rc<Vec<SlotSnapshot>>>) -> Rc<Vec<SlotSnapshot>> {
    loop {
        if let Some(slots) = ask().await {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;
    use std::io::ErrorKind;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use loadgen::patience::Deadline;

    use super::*;

    /// Runs up to the `questions`th question to a media thread that answers while `answers` says so; gives what was told.
    fn told(name: &str, questions: u32, answers: impl Fn(u32) -> bool) -> Vec<String> {
        let name = format!("guest-relay-supervision-{name}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let variable = |variable: &str| match variable {
            "NOTIFY_SOCKET" => Some(format!("@{name}").into()),
            "WATCHDOG_USEC" => Some("20000".into()),
            _ => None,
        };
        let notifier = Notifier::from_environment(&variable, 1);
        let asked = Cell::new(0);
        let ask = async || {
            asked.set(asked.get() + 1);
            answers(asked.get()).then(Rc::default)
        };
        smol::block_on(smol::future::or(run(ask, &notifier), async {
            let deadline = Deadline::new(format_args!("question {questions}"));
            while asked.get() < questions {
                deadline.check(|| asked.get());
                smol::Timer::after(Duration::from_millis(5)).await;
            }
        }));
        let mut told = Vec::new();
        let mut buffer = [0; 256];
        // bounded: the socket does not block, and nobody sends any more
        loop {
            match listener.recv(&mut buffer) {
                Ok(length) => told.push(String::from_utf8(buffer[..length].to_vec()).unwrap()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    return told;
                }
            }
        }
    }

    #[test]
    fn a_media_thread_that_never_answers_is_neither_ready_nor_alive() {
        assert_eq!(told("never", 2, |_| false), Vec::<String>::new());
    }

    #[test]
    fn a_media_thread_that_hangs_after_three_answers_feeds_the_watchdog_twice() {
        let told = told("hangs", 4, |asked| asked <= 3);
        assert_eq!(told.first().map(String::as_str), Some("READY=1\nSTATUS=0 of 0 guests live"));
        assert_eq!(told.iter().filter(|message| *message == "WATCHDOG=1").count(), 2);
    }
}
