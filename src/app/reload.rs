//! SIGHUP: the configuration is read again, and what can change under living sessions does: guests (new ones, names,
//! switches; one that is gone takes no further session), limits, bitrates for sessions to come, the log's level.
//!
//! A configuration with a mistake in it changes nothing: each mistake is a line in the log, and the old one stays. What
//! needs a restart is named and stays as it was. Bounds: [`SLOTS_MAX`] slots, retired ones among them.

use std::fmt;

use super::backend::DaemonBackend;
use super::daemon::{Bitrates, Daemon, budget, relay_config, slot_guest};
use crate::config::{self, Config, ConfigError};
use crate::guest::GUESTS_MAX;
use crate::http::Site;
use crate::journal;
use crate::media::{Command, Unavailable};
use crate::rtmp::TargetError;

/// A slot once given is kept for its guest.
const SLOTS_MAX: usize = 2 * GUESTS_MAX;

/// Reads the configuration again.
pub type Source = dyn Fn() -> Result<Config, ConfigError>;

/// Why a guest gets no slot.
enum NoSlot {
    /// As many were given since the start as there may be.
    Full,
    Target(TargetError),
    MediaThread,
}

impl fmt::Display for NoSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(f, "there were {SLOTS_MAX} since the start; a restart makes room"),
            Self::Target(error) => write!(f, "it cannot be published: {error}; check relay.output"),
            Self::MediaThread => f.write_str("the media thread takes no commands"),
        }
    }
}

pub(super) fn reload(daemon: &Daemon, site: &Site<DaemonBackend>, source: &Source) {
    let config = match source() {
        Ok(config) => config,
        Err(error) => {
            for problem in error.problems {
                log::error!("{problem}");
            }
            return log::error!("the configuration has mistakes: it was not reloaded, the old one stays");
        }
    };
    for notice in &config.notices {
        log::warn!("{notice}");
    }
    for key in need_restart(&daemon.config, &config) {
        log::warn!("{key} has changed: that takes a restart");
    }
    journal::set_level(config.log.level);
    daemon.bitrates.set(Bitrates::of(&config));
    if daemon.media.send(Command::Limit(budget(&config))).is_err() {
        log::warn!("the media thread takes no commands: its limits stay as they were");
    }
    site.set_limits(&config);
    let new = daemon.sessions.reload(config.guests.iter().map(slot_guest).collect());
    for guest in config.guests.iter().filter(|configured| new.iter().any(|guest| guest.id == configured.id)) {
        if let Err(reason) = add(daemon, guest) {
            log::error!("{} gets no slot: {reason}", guest.id);
        }
    }
    daemon.publish_idle_slots();
    let guests: Vec<_> = daemon.sessions.guests().into_iter().map(|(_, guest)| guest.id.to_string()).collect();
    log::info!("configuration reloaded; guests: {}", guests.join(", "));
}

/// Makes the next slot, in the media thread and in the table.
fn add(daemon: &Daemon, guest: &config::Guest) -> Result<(), NoSlot> {
    if daemon.sessions.slots() >= SLOTS_MAX {
        return Err(NoSlot::Full);
    }
    // As the running daemon publishes, not as the new configuration says: that takes a restart.
    let relay = relay_config(&daemon.config, guest).map_err(NoSlot::Target)?;
    let target = relay.target.clone();
    let sent = daemon.media.send(Command::AddSlot(Box::new(relay)));
    sent.map_err(|Unavailable| NoSlot::MediaThread)?;
    let slot = daemon.sessions.add(slot_guest(guest), &target);
    daemon.look_up_server(slot);
    Ok(())
}

/// Keys whose value differs and cannot be taken over.
fn need_restart(running: &Config, read: &Config) -> Vec<&'static str> {
    let changed = [
        ("http.listen", running.http.listen != read.http.listen),
        ("http.public_url", running.http.public_url != read.http.public_url),
        ("rtc.listen", running.rtc.listen != read.rtc.listen),
        ("rtc.candidates", running.rtc.candidates != read.rtc.candidates),
        ("section relay", running.relay != read.relay),
        ("section cloudflare", running.cloudflare != read.cloudflare),
    ];
    changed.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_a_restart_is_named_and_nothing_else() {
        let running = Config::default();
        let mut read = running.clone();
        read.guests.clear();
        read.http.offers_per_minute += 1;
        read.rtc.max_bitrate_kbps += 1;
        read.log.level = log::LevelFilter::Debug;
        assert_eq!(need_restart(&running, &read), Vec::<&str>::new());
        read.http.listen.set_port(1);
        read.relay.hold += std::time::Duration::from_secs(1);
        read.cloudflare.app_id = Some("other".to_owned());
        assert_eq!(need_restart(&running, &read), ["http.listen", "section relay", "section cloudflare"]);
    }
}
