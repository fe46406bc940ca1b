//! The addresses by which the internet knows this machine's network, as a STUN server sees them. A guest who reaches the
//! page from the same address sits behind the same router, so that their media need not go out to the SFU and back.
//!
//! Asked once at the start and every [`REFRESH`], of one server, by [`stun_query`]. What is known stays known until the
//! server says something else.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::log_once::LogOnce;
use crate::net::addresses;
use crate::net::stun_query::{self, Patience};

/// Addresses of a household or an office change now and then, at night mostly.
const REFRESH: Duration = Duration::from_secs(600);
/// After a question without an answer, doubling up to [`REFRESH`].
const RETRY: Duration = Duration::from_secs(15);
/// Fewer sendings than RFC 8489's seven, since nobody else's wait depends on it.
const PATIENCE: Patience = Patience {
    name: Duration::from_secs(10),
    sendings: &[Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)],
};

/// What is known.
#[derive(Default)]
pub(super) struct PublicAddresses(RefCell<Vec<IpAddr>>);

impl PublicAddresses {
    /// What the STUN server said, and what the interfaces have: with IPv6 they are global themselves.
    pub(super) fn all(&self) -> Vec<IpAddr> {
        self.0.borrow().iter().copied().chain(addresses::of_interfaces().unwrap_or_default()).collect()
    }

    /// Asks `server` (`host:port`) for as long as the daemon runs.
    pub(super) async fn keep_asking(&self, server: &str) {
        let mut retry = RETRY;
        let mut failures = LogOnce::new(None);
        loop {
            let pause = match stun_query::ask(server, PATIENCE).await {
                Ok(addresses) => {
                    if *self.0.borrow() != addresses {
                        let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                        log::info!("the internet knows this machine as {} (says {server})", list.join(" and "));
                        self.0.replace(addresses);
                    }
                    retry = RETRY;
                    failures.reset();
                    REFRESH
                }
                Err(failure) => {
                    let what = if failure.is_of_the_name() { "its name has no address" } else { "it does not answer" };
                    log::log!(
                        failures.level((), Instant::now()),
                        "STUN server {server}: {what}: {failure}; guests on this machine's own network who come through a tunnel \
                         are sent through the SFU until it answers; check rtc.stun_server and outgoing UDP"
                    );
                    let pause = retry;
                    retry = (retry * 2).min(REFRESH);
                    pause
                }
            };
            smol::Timer::after(pause).await;
        }
    }
}
