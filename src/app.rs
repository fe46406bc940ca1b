//! The composition root: builds every part, joins them, and runs the control side until a signal ends it.
//!
//! Threads: this one (HTTP, events, signals, one smol executor) and the media thread. Channels: commands to the media
//! thread and events from it, both bounded (see [`crate::media`]).

mod backend;
mod daemon;
mod handover;
mod ice_servers;
mod names;
mod problem;
mod profiles;
mod public_address;
mod question;
mod reload;
mod sessions;
mod sfu;
mod supervision;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use async_signal::{Signal, Signals};
use smol::LocalExecutor;
use smol::stream::StreamExt;

use crate::config::Config;
use crate::guest::Slot;
use crate::guest::id::GuestId;
use crate::http::{Limits, Site, process, serve};
use crate::journal;
use crate::media::{self, Command, Event};
use crate::panics;
use crate::rtc::dtls::Certificate;
use crate::rtmp::TargetError;
use crate::systemd::{self, Notifier};

use backend::DaemonBackend;
use daemon::{Daemon, budget, relay_config, slot_guest};
use sessions::Sessions;

pub use daemon::MediaEnd;
pub use reload::Source;

/// Why the daemon could not start or go on; says what to do about it.
#[derive(Debug)]
pub enum AppError {
    Listen { what: &'static str, key: &'static str, address: SocketAddr, error: io::Error },
    Output { guest: GuestId, reason: TargetError },
    Signals(io::Error),
    MediaThread(MediaEnd),
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { what, key, address, error } => {
                write!(f, "cannot listen for {what} on {address}: {error}; free the port or set {key} to another one")
            }
            Self::Output { guest, reason } => {
                write!(f, "cannot publish {guest}: {reason}; check relay.output")
            }
            Self::Signals(error) => write!(f, "cannot listen for signals: {error}"),
            Self::MediaThread(reason) => write!(f, "the media thread ended: {reason}"),
        }
    }
}

impl std::error::Error for AppError {}

/// Runs the daemon until SIGTERM or SIGINT. SIGHUP has it read the configuration again, from `source`.
pub fn run(config: Config, source: &Source) -> Result<(), AppError> {
    process::started();
    journal::start(config.log.level);
    panics::keep_places();
    for notice in &config.notices {
        log::warn!("{notice}");
    }
    // Lives as long as the process; its tasks borrow it.
    let executor: &'static LocalExecutor<'static> = Box::leak(Box::default());
    smol::block_on(executor.run(serve_until_signal(config, source, executor)))
}

async fn serve_until_signal(
    config: Config,
    source: &Source,
    executor: &'static LocalExecutor<'static>,
) -> Result<(), AppError> {
    let mut signals = Signals::new([Signal::Term, Signal::Int, Signal::Hup]).map_err(AppError::Signals)?;
    let certificate = Certificate::generate();
    let listener = smol::net::TcpListener::bind(config.http.listen).await.map_err(|error| AppError::Listen {
        what: "HTTP",
        key: "http.listen",
        address: config.http.listen,
        error,
    })?;
    let relays = config
        .guests
        .iter()
        .map(|guest| {
            relay_config(&config, guest).map_err(|reason| AppError::Output { guest: guest.id.clone(), reason })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let targets = relays.iter().map(|relay| relay.target.clone());
    let sessions = Sessions::new(config.guests.iter().map(slot_guest).zip(targets));
    let (media, events, thread) = media::spawn(config.rtc.listen, relays, budget(&config)).map_err(|error| {
        AppError::Listen { what: "WebRTC media (UDP)", key: "rtc.listen", address: config.rtc.listen, error }
    })?;
    let http_address = listener.local_addr().unwrap_or(config.http.listen);
    log::info!(
        "guest-relay {} serves http://{http_address}/guest_join; media on UDP {}; publishes to {}",
        env!("CARGO_PKG_VERSION"),
        media.local_addr(),
        config.relay.output,
    );

    let daemon = Rc::new(Daemon::new(config, media, sessions, certificate, executor));
    let notifier = Rc::new(Notifier::from_environment(&|name| std::env::var_os(name), std::process::id()));
    // Nothing can fail any more: until here another start would have found all of it again.
    handover::adopt(&daemon, &notifier, systemd::kept());
    daemon.publish_idle_slots();
    (0..daemon.sessions.slots()).for_each(|slot| daemon.look_up_server(Slot(slot)));
    sfu::restore(&daemon);
    // Without the way through the SFU there is nothing to choose.
    if let Some(server) = daemon.config.rtc.stun_server.clone().filter(|_| daemon.sfu.is_some()) {
        let daemon = Rc::clone(&daemon);
        executor.spawn(async move { daemon.public_addresses.keep_asking(&server).await }).detach();
    }
    let site = Rc::new(Site::new(DaemonBackend(Rc::clone(&daemon)), &daemon.config));
    let http = executor.spawn(serve(listener, executor, Rc::clone(&site), Limits::default()));
    let supervision = executor.spawn({
        let (daemon, notifier) = (Rc::clone(&daemon), Rc::clone(&notifier));
        async move { supervision::run(async || daemon.snapshot().await.ok(), &notifier).await }
    });
    let ended = smol::future::or(
        async {
            while let Some(signal) = signals.next().await {
                match signal {
                    Ok(Signal::Hup) => reload::reload(&daemon, &site, source),
                    Ok(signal) => return Ok(signal),
                    Err(error) => log::warn!("a signal could not be read: {error}"),
                }
            }
            Ok(Signal::Int)
        },
        async {
            loop {
                match events.recv().await {
                    Ok(event) => {
                        if let Event::State { slot, state } = event {
                            site.events.publish_state(&daemon.sessions.name(slot), state);
                        }
                        daemon.handle_event(event, Instant::now()).map_err(AppError::MediaThread)?;
                    }
                    Err(_) => return Err(AppError::MediaThread(MediaEnd::Silent)),
                }
            }
        },
    )
    .await;
    notifier.stopping();
    drop((http, supervision));
    let signal = ended?;
    if signal == Signal::Term && notifier.is_watched() {
        let kept = handover::hand_over(&daemon, &notifier).await;
        log::info!("{signal:?}: ending; publications that the next process can go on in: {kept}");
    } else {
        log::info!("{signal:?}: unpublishing every guest and ending");
    }
    if daemon.media.send(Command::Shutdown).is_ok() {
        // The thread bounds its own shutdown; waiting for it lets the last bytes of every stream out.
        let _ = smol::unblock(move || thread.join()).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
