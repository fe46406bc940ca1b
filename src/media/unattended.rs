//! A media thread that never answers, for tests of who asks it.

use super::{Arc, COMMAND_QUEUE, Command, EventfdFlags, Handle, eventfd, mpsc};

/// The control thread's end of it, and its queue.
pub(crate) fn media_thread() -> (Handle, mpsc::Receiver<Command>) {
    let (commands, queue) = mpsc::sync_channel(COMMAND_QUEUE);
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("a descriptor");
    (Handle { commands, wake: Arc::new(wake), local_addr: ([127, 0, 0, 1], 8189).into() }, queue)
}
