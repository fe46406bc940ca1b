//! RTMP servers that are configured by name: their addresses are looked up at the start and again whenever a connection
//! is lost, beside the media thread, which meanwhile tries the addresses it has.
//!
//! Input: targets. Output: [`Command::Servers`]. Bounds: one lookup a slot at a time.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::rc::Rc;

use smol::LocalExecutor;

use crate::guest::Slot;
use crate::media::{Command, Handle};
use crate::rtmp::Target;

/// The address of a target that names none but an address.
pub(super) fn addresses(target: &Target) -> Vec<SocketAddr> {
    target.host().parse::<IpAddr>().map(|ip| SocketAddr::new(ip, target.port())).into_iter().collect()
}

/// The name of a slot's RTMP server.
#[derive(Clone)]
pub(super) struct Name {
    host: String,
    port: u16,
    /// A lookup is under way.
    busy: Rc<Cell<bool>>,
}

impl Name {
    /// The host name to look up for a target, if it has one.
    pub(super) fn of(target: &Target) -> Option<Self> {
        let name = Self { host: target.host().to_owned(), port: target.port(), busy: Rc::default() };
        addresses(target).is_empty().then_some(name)
    }

    /// Looks the name up for `slot`, unless that is being done.
    pub(super) fn look_up(&self, slot: Slot, executor: &LocalExecutor<'static>, media: &Handle) {
        let Self { host, port, busy } = self;
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
        assert_eq!([&v4, &name, &v6].map(|target| Name::of(target).is_some()), [false, true, false]);
    }
}
