//! RTMP servers that are configured by name: their addresses are looked up at the start and again whenever a connection
//! is lost, beside the media thread, which meanwhile tries the addresses it has.
//!
//! Input: targets. Output: [`Command::Servers`]. Bounds: one lookup a slot at a time.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::rc::Rc;

use smol::LocalExecutor;

use crate::guest::Slot;
use crate::media_loop::{Command, Handle};
use crate::rtmp::Target;

/// The address of a target that names none but an address.
pub(super) fn addresses(target: &Target) -> Vec<SocketAddr> {
    target.host().parse::<IpAddr>().map(|ip| SocketAddr::new(ip, target.port())).into_iter().collect()
}

struct Name {
    host: String,
    port: u16,
    /// A lookup is under way.
    busy: Rc<Cell<bool>>,
}

/// What has to be looked up for a target, if anything.
fn name(target: &Target) -> Option<Name> {
    let name = Name { host: target.host().to_owned(), port: target.port(), busy: Rc::default() };
    addresses(target).is_empty().then_some(name)
}

/// The names of all slots.
pub(super) struct Names(RefCell<Vec<Option<Name>>>);

impl Names {
    /// `targets`: one for each slot, in order.
    pub(super) fn new<'a>(targets: impl Iterator<Item = &'a Target>) -> Self {
        Self(RefCell::new(targets.map(name).collect()))
    }

    /// The target of the next slot.
    pub(super) fn add(&self, target: &Target) {
        self.0.borrow_mut().push(name(target));
    }

    pub(super) fn look_up_all(&self, executor: &LocalExecutor<'static>, media: &Handle) {
        let slots = self.0.borrow().len();
        for slot in 0..slots {
            self.look_up(Slot(slot), executor, media);
        }
    }

    /// Looks the slot's name up, if it has one and that is not done already.
    pub(super) fn look_up(&self, slot: Slot, executor: &LocalExecutor<'static>, media: &Handle) {
        let names = self.0.borrow();
        let Some(Name { host, port, busy }) = names.get(slot.0).and_then(Option::as_ref) else {
            return;
        };
        if busy.replace(true) {
            return;
        }
        let (busy, media, host, port) = (Rc::clone(busy), media.clone(), host.clone(), *port);
        let lookup = async move {
            let asked = host.clone();
            let found = smol::unblock(move || (asked.as_str(), port).to_socket_addrs().map(Vec::from_iter)).await;
            busy.set(false);
            match found {
                // A full queue: the next loss asks again.
                Ok(servers) => drop(media.send(Command::Servers { slot, servers })),
                Err(error) => {
                    log::warn!("the RTMP server {host} has no address: {error}; asking again when it is needed")
                }
            }
        };
        executor.spawn(lookup).detach();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn addresses_are_taken_as_they_are_and_names_are_looked_up() {
        let target = |url| Target::parse(url).unwrap();
        let (v4, v6, name) =
            (target("rtmp://192.0.2.7/a"), target("rtmp://[2001:db8::7]:1936/a"), target("rtmp://mtx/a"));
        assert_eq!(addresses(&v4), ["192.0.2.7:1935".parse().unwrap()]);
        assert_eq!(addresses(&v6), ["[2001:db8::7]:1936".parse().unwrap()]);
        assert_eq!(addresses(&name), []);
        let names = Names::new([&v4, &name, &v6].into_iter());
        assert_eq!(names.0.borrow().iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
    }
}
