//! [`Findings`] → [`Report`]: what each thing seen means, and what to do about it. Pure.

use std::net::SocketAddr;

use super::findings::{
    Api, Clock, Configured, Findings, GuestPath, PathState, Port, Processor, Program, Rtmp, Service, StateFile, Stun,
};
use super::report::{Check, Report, Severity};
use crate::config::Notice;

/// MediaMTX before this refuses Opus over RTMP or loses its first seconds.
const MEDIAMTX_MIN: [u32; 3] = [1, 15, 5];

/// From here on logs of two machines can no longer be laid side by side; TLS bears much more.
const CLOCK_TOLERANCE_SECONDS: u64 = 10;

pub(super) fn examine(findings: &Findings) -> Report {
    let mut checks = vec![processor(&findings.processor)];
    match &findings.configured {
        Ok(configured) => examine_configured(configured, &mut checks),
        Err(error) => {
            for problem in &error.problems {
                let key = if problem.key.is_empty() { String::new() } else { format!("{}: ", problem.key) };
                let finding = format!("{}: {key}{}", problem.place, problem.problem);
                checks.push(check("config", Severity::Error, finding).with(&problem.remedy));
            }
            checks.push(check("rest", Severity::Note, "not looked at without a configuration"));
        }
    }
    Report { checks }
}

fn examine_configured(configured: &Configured, checks: &mut Vec<Check>) {
    checks.push(config(configured));
    checks.extend(configured.notices.iter().map(|Notice { finding, remedy }| match remedy {
        Some(remedy) => check("config", Severity::Warning, finding).with(remedy),
        None => check("config", Severity::Note, finding),
    }));
    checks.push(state_file(&configured.state_file));
    checks.push(port("http", "http.listen", &configured.http));
    checks.push(port("udp", "rtc.listen", &configured.rtc));
    checks.push(candidates(&configured.candidates, configured.rtc.0.port()));
    checks.extend(internet(&configured.stun, &configured.sfu));
    checks.push(rtmp(&configured.rtmp));
    if let Some(api) = &configured.api {
        checks.push(mediamtx(api));
        checks.extend(configured.paths.iter().map(path));
        checks.extend(readers(&configured.paths));
        checks.extend(mixer(&configured.paths));
    }
    checks.push(sfu(&configured.sfu));
    checks.push(turn(&configured.turn));
    checks.push(clock(&configured.clock));
}

fn check(check: &'static str, severity: Severity, finding: impl Into<String>) -> Check {
    Check { check, severity, finding: finding.into(), remedy: None }
}

impl Check {
    fn with(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

fn processor(processor: &Processor) -> Check {
    let Processor { architecture, can, built_in } = processor;
    match (can, built_in) {
        (true, true) => check("processor", Severity::Ok, format!("{architecture} with AES instructions, in use")),
        (true, false) => {
            let finding = format!(
                "{architecture} with AES instructions, which this binary uses for RTP under AES-GCM only;\n\
                 AES-CM, SRTCP and key derivation are in software"
            );
            check("processor", Severity::Warning, finding)
                .with("build it with make cross: a guest whose browser takes AES-CM then costs less CPU")
        }
        (false, _) => {
            let finding = format!("{architecture} without AES instructions: encryption costs several times as much");
            check("processor", Severity::Warning, finding).with("expect more CPU per guest; nothing else suffers")
        }
    }
}

fn config(configured: &Configured) -> Check {
    let guests: Vec<_> = configured.guests.iter().map(ToString::to_string).collect();
    match guests.is_empty() {
        false => check("config", Severity::Ok, format!("valid; guests: {}", guests.join(", "))),
        true => check("config", Severity::Error, "valid, but every guest is switched off")
            .with("set enabled: true for a guest under guests:"),
    }
}

fn state_file(state_file: &StateFile) -> Check {
    match state_file {
        StateFile::Unwanted => {
            check("state", Severity::Note, "none: a restart loses the guests who come through the SFU")
        }
        StateFile::Fine(path) => check("state", Severity::Ok, format!("kept in {}", path.display())),
        StateFile::NoDirectory(path) => {
            let finding = format!("{} cannot be written: its directory is missing", path.display());
            let directory = path.parent().unwrap_or(path);
            check("state", Severity::Warning, finding)
                .with(format!("mkdir -p {}   (under systemd: StateDirectory=)", directory.display()))
        }
        StateFile::ReadableByOthers(path, mode) => {
            let finding = format!("other users may read {} (mode {mode:04o})", path.display());
            check("state", Severity::Warning, finding).with(format!("chmod 600 {}", path.display()))
        }
    }
}

fn port(name: &'static str, key: &str, (address, port): &(SocketAddr, Port)) -> Check {
    let program = |program: &Program| format!("{} (pid {})", program.name, program.pid);
    match port {
        Port::Free => check(name, Severity::Ok, format!("{address} is free; guest-relay does not run")),
        Port::Ours { pid, health: Ok(()) } => {
            let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
            check(name, Severity::Ok, format!("guest-relay{pid} runs on {address}"))
        }
        Port::Ours { health: Err(reason), .. } => {
            check(name, Severity::Error, format!("guest-relay runs on {address} and is not well: {reason}"))
                .with("systemctl restart guest-relay; what happened: journalctl -u guest-relay")
        }
        Port::Taken(Some(by)) => check(name, Severity::Error, format!("{address} is taken by {}", program(by)))
            .with(format!("set {key} to another port, or end {}", by.name)),
        Port::Taken(None) => check(name, Severity::Error, format!("{address} is taken by another program"))
            .with(format!("set {key} to another port; as root, this command says which program it is")),
        Port::Unusable(reason) => check(name, Severity::Error, format!("{address} cannot be used: {reason}"))
            .with(format!("set {key} to an address of this machine and a port above 1023")),
    }
}

fn candidates(candidates: &[SocketAddr], port: u16) -> Check {
    let list: Vec<_> = candidates.iter().map(ToString::to_string).collect();
    if candidates.iter().any(|candidate| !candidate.ip().is_loopback()) {
        let hint = format!("They get through only if a firewall lets UDP {port} in, which cannot be seen from here.");
        return check(
            "addresses",
            Severity::Ok,
            format!("guests who come directly send media to {}\n{hint}", list.join(", ")),
        );
    }
    let finding = match list.is_empty() {
        true => "this machine has no address that guests could send media to".to_owned(),
        false => format!("guests are told {}, which only this machine reaches", list.join(", ")),
    };
    check("addresses", Severity::Warning, finding)
        .with("set rtc.listen to 0.0.0.0 and check the network (ip addr), or name an address in rtc.candidates;\nwithout one, guests can come through the SFU only")
}

/// Guests on the LAN need no way out, so that a studio without internet has nothing to mend.
fn internet(stun: &Stun, sfu: &Service) -> Option<Check> {
    let (finding, remedy) = match stun {
        Stun::Unwanted => return None,
        Stun::Answers(server, addresses) => {
            let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            let finding = format!("UDP gets out; public address: {} (says {server})", list.join(", "));
            return Some(check("internet", Severity::Ok, finding));
        }
        Stun::Silent(server, reason) => (
            format!("UDP may not get out: the STUN server {server} does not answer: {reason}"),
            format!(
                "let UDP out to {server} and to the SFU's servers: without it no picture of a remote guest comes;\n\
                 if remote guests do come, set rtc.stun_server to a server that answers, or to none"
            ),
        ),
        Stun::NoName(server, reason) => (
            format!("the STUN server {server} is not found: {reason}"),
            format!(
                "check the name server (getent hosts {}), or set rtc.stun_server to another, or to none",
                server.rsplit_once(':').map_or(server.as_str(), |(host, _)| host)
            ),
        ),
    };
    Some(match sfu {
        Service::NotConfigured => {
            check("internet", Severity::Note, format!("{finding}\nWithout an SFU no guest needs it."))
        }
        Service::Works | Service::Fails(_) => check("internet", Severity::Warning, finding).with(remedy),
    })
}

fn rtmp(rtmp: &Rtmp) -> Check {
    match rtmp {
        Rtmp::Connected(server) => check("rtmp", Severity::Ok, format!("{server} speaks RTMP")),
        Rtmp::Unreachable(server, reason) => check("rtmp", Severity::Error, format!("{server}: {reason}"))
            .with("start the media server (systemctl start mediamtx), or set relay.output to where it is"),
        Rtmp::NotRtmp(server, reason) => {
            check("rtmp", Severity::Error, format!("{server} answers, but not as an RTMP server: {reason}"))
                .with("set relay.output to MediaMTX's rtmpAddress; without encryption (rtmpEncryption: no)")
        }
    }
}

fn mediamtx(api: &Api) -> Check {
    match api {
        Api::Answers(address, Some(version)) if is_recent(version) => {
            check("mediamtx", Severity::Ok, format!("{version}; its API answers on {address}"))
        }
        Api::Answers(_, version) => {
            let version = version.as_deref().unwrap_or("older than v1.15.2");
            let [major, minor, patch] = MEDIAMTX_MIN;
            check("mediamtx", Severity::Error, format!("{version}: guests' sound does not pass, or begins late"))
                .with(format!("install MediaMTX {major}.{minor}.{patch} or newer"))
        }
        Api::Silent(address, reason) => {
            check("mediamtx", Severity::Warning, format!("its API does not answer on {address}: {reason}"))
                .with("set api: yes and apiAddress: 127.0.0.1:9997 in mediamtx.yml, then systemctl restart mediamtx;\nthe mixer's readiness check needs it, and so do the next lines here")
        }
        Api::Closed(address, status) => {
            check("mediamtx", Severity::Warning, format!("its API on {address} refuses this machine ({status})"))
                .with("allow action: api for 127.0.0.1 under authInternalUsers: in mediamtx.yml, as its default does")
        }
        Api::NotMediaMtx(address) => {
            check("mediamtx", Severity::Warning, format!("what answers on {address} is not MediaMTX's API"))
                .with("set mediamtx.api_port to the port of MediaMTX's apiAddress")
        }
    }
}

/// `v1.15.5`, with or without more behind the numbers. What cannot be read is taken as a build of today.
fn is_recent(version: &str) -> bool {
    let numbers = version.trim_start_matches('v').split(|character: char| !character.is_ascii_digit());
    let numbers: Vec<u32> = numbers.map_while(|number| number.parse().ok()).take(MEDIAMTX_MIN.len()).collect();
    numbers.len() < MEDIAMTX_MIN.len() || numbers.as_slice() >= MEDIAMTX_MIN.as_slice()
}

fn path(path: &GuestPath) -> Check {
    let GuestPath { guest, path, state } = path;
    match state {
        PathState::Ready { tracks, receives: Some(false), .. } => {
            let finding = format!("{path} is ready: {}; but nothing came in for a second", tracks.join(", "));
            check("path", Severity::Warning, finding).with(format!(
                "the mixer shows a frozen picture now; what /api/guests says of {guest} and journalctl -u guest-relay tell\n\
                 why; if another program publishes {path}, restart that one"
            ))
        }
        PathState::Ready { tracks, receives, .. } => {
            let flow = if *receives == Some(true) { " and receives" } else { "" };
            let finding = format!("{path} is ready{flow}: {}", tracks.join(", "));
            match ["H264", "Opus"].iter().all(|track| tracks.iter().any(|name| name == track)) {
                true => check("path", Severity::Ok, finding),
                false => check("path", Severity::Note, format!("{finding}; a guest usually brings H264 and Opus")),
            }
        }
        PathState::Waiting { stands_in: true, .. } => {
            let finding = format!("{path}: nobody publishes it now; readers get MediaMTX's slate (alwaysAvailable)");
            check("path", Severity::Ok, finding)
        }
        PathState::Waiting { stands_in: false, .. } => {
            check("path", Severity::Ok, format!("{path} is declared; nobody publishes it now"))
        }
        PathState::Undeclared { patterns: true } => {
            check("path", Severity::Ok, format!("{path} is not there; a pattern may take it once {guest} is live"))
        }
        PathState::Undeclared { patterns: false } => {
            check("path", Severity::Error, format!("MediaMTX does not know {path} and will refuse {guest}"))
                .with(format!("add `{path}: {{}}` under paths: in mediamtx.yml"))
        }
        PathState::Unclear(reason) => check("path", Severity::Warning, format!("{path}: {reason}"))
            .with("ask again; if it stays, journalctl -u mediamtx"),
    }
}

/// A path that nobody publishes now has nothing for a reader, whose pipeline ended with the publication. What is set up
/// against that cannot be told from a path that somebody publishes.
fn readers(paths: &[GuestPath]) -> Option<Check> {
    let is_empty = |path: &&GuestPath| matches!(path.state, PathState::Waiting { stands_in: false, .. });
    let empty: Vec<&str> = paths.iter().filter(is_empty).map(|path| path.path.as_str()).collect();
    let finding = format!("a mixer's input on {} ends, or does not begin, while nobody publishes", empty.join(", "));
    (!empty.is_empty()).then(|| {
        check("readers", Severity::Note, finding).with(
            "relay.idle: slate publishes a slate while no guest is there; MediaMTX (1.16 or newer) stands in also while\n\
             guest-relay is away, with alwaysAvailable: true and alwaysAvailableTracks: [{codec: H264}, {codec: Opus}]\n\
             on the path",
        )
    })
}

/// The mixer cannot be seen from here; what its check is going to read can.
fn mixer(paths: &[GuestPath]) -> Option<Check> {
    let source_ready = paths.iter().find_map(|path| match path.state {
        PathState::Ready { source_ready, .. } | PathState::Waiting { source_ready, .. } => Some(source_ready),
        PathState::Undeclared { .. } | PathState::Unclear(_) => None,
    })?;
    let remedy = "if the mixer says \"not streaming, skipping\" of a guest that is ready: have it test `ready`, in\n\
                  _check_mediamtx_stream of src/mixer/core.py and in GET /api/guests/status;\n\
                  if the guest is black instead: apply the scene again, it was built before the guest came";
    let note = "MediaMTX's answer has no `sourceReady` (removed in 1.2.0): a mixer that tests it skips every guest";
    (!source_ready).then(|| check("mixer", Severity::Note, note).with(remedy))
}

fn sfu(service: &Service) -> Check {
    match service {
        Service::NotConfigured => check("sfu", Severity::Note, "not configured: guests can come over the LAN only")
            .with("for guests from anywhere, set cloudflare.calls_app_id and cloudflare.calls_api_token"),
        Service::Works => check("sfu", Severity::Ok, "the Cloudflare app takes sessions"),
        Service::Fails(_) => failed("sfu", Severity::Error, service),
    }
}

fn turn(service: &Service) -> Check {
    match service {
        Service::NotConfigured => {
            check("turn", Severity::Note, "no TURN key: guests behind firewalls that block UDP stay outside")
        }
        Service::Works => check("turn", Severity::Ok, "the TURN key gives credentials"),
        Service::Fails(_) => failed("turn", Severity::Warning, service),
    }
}

fn failed(name: &'static str, severity: Severity, service: &Service) -> Check {
    let Service::Fails(error) = service else {
        return check(name, Severity::Ok, "");
    };
    let check = check(name, severity, error.facts());
    match error.remedy() {
        Some(remedy) => check.with(remedy),
        None => check.with("try again in a minute; https://www.cloudflarestatus.com says whether it is them"),
    }
}

fn clock(clock: &Clock) -> Check {
    match clock {
        Clock::Unknown(reason) => check("clock", Severity::Note, format!("not compared: {reason}"))
            .with("timedatectl says whether something keeps it right"),
        Clock::Synchronised => check("clock", Severity::Ok, "synchronised by systemd-timesyncd"),
        Clock::Ahead(seconds) if seconds.unsigned_abs() <= CLOCK_TOLERANCE_SECONDS => {
            check("clock", Severity::Ok, "agrees with that of the SFU's API")
        }
        Clock::Ahead(seconds) => {
            let direction = if *seconds > 0 { "ahead of" } else { "behind" };
            let finding = format!("{} s {direction} that of the SFU's API", seconds.unsigned_abs());
            check("clock", Severity::Warning, finding)
                .with("timedatectl set-ntp true; a clock far off makes every https connection fail")
        }
    }
}

#[cfg(test)]
mod tests;
