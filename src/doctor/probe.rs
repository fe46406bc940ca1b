//! Looks at files, ports, servers and clocks for [`Findings`](super::Findings). Blocking; nothing here judges.
//!
//! Bounds: every server has a time limit (see [`super::http`], [`super::rtmp`], [`STUN_PATIENCE`],
//! [`crate::sfu::https`]); MediaMTX is asked for at most [`crate::guest::GUESTS_MAX`] paths, and not at all once it
//! has not answered.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::findings::{Api, Clock, Configured, GuestPath, PathState, Port, Rtmp, Service, StateFile, Stun};
use super::http::{self, Answer};
use super::ports::{self, Protocol};
use super::rtmp;
use crate::config::Config;
use crate::guest::id::GuestId;
use crate::net::addresses;
use crate::net::stun_query::{self, Patience};
use crate::rtmp::Target;
use crate::sfu::client::Client;
use crate::sfu::error::Cause;
use crate::sfu::turn::TurnClient;

/// How our own process is called, in `/proc/{pid}/comm`.
const OWN_NAME: &str = "guest-relay";

/// Touched by systemd-timesyncd each time that it has synchronised the clock (systemd-timesyncd.service(8)).
const TIMESYNCD_MARK: &str = "/run/systemd/timesync/synchronized";

/// Between two looks at what a path has received. More than the second after which guest-relay stands in for a guest who
/// is silent, so that a gap in the network is no reason to warn.
const FLOW_PAUSE: Duration = Duration::from_millis(1_500);

/// A person waits for the sum.
const STUN_PATIENCE: Patience = Patience {
    name: Duration::from_secs(2),
    sendings: &[Duration::from_millis(500), Duration::from_millis(500), Duration::from_secs(1)],
};

pub(super) fn look(config: &Config) -> Configured {
    let guests: Vec<GuestId> =
        config.guests.iter().filter(|guest| guest.enabled).map(|guest| guest.id.clone()).collect();
    let http = look_at_http(config.http.listen);
    let rtc = look_at_udp(config.rtc.listen, matches!(http, Port::Ours { .. }));
    let targets: Vec<(GuestId, Result<Target, String>)> = guests
        .iter()
        .map(|guest| (guest.clone(), Target::parse(&config.relay.output.for_guest(guest)).map_err(|e| e.to_string())))
        .collect();
    let rtmp = match targets.first() {
        Some((_, Ok(target))) => rtmp::greet(target),
        Some((_, Err(reason))) => Rtmp::Unreachable(config.relay.output.to_string(), reason.clone()),
        None => Rtmp::Unreachable(config.relay.output.to_string(), "no guest to publish".to_owned()),
    };
    let targets: Vec<_> = targets.into_iter().filter_map(|(guest, target)| Some((guest, target.ok()?))).collect();
    let api = config.mediamtx.enabled.then(|| look_at_api(&targets, config.mediamtx.api_port));
    let paths = match api {
        Some(Api::Answers(server, _)) => look_at_paths(server, &targets),
        _ => Vec::new(),
    };
    let (sfu, clock) = look_at_sfu(config);
    Configured {
        guests,
        notices: config.notices.clone(),
        state_file: look_at_state_file(config.relay.state_file.as_deref()),
        http: (config.http.listen, http),
        rtc: (config.rtc.listen, rtc),
        // As guests on the LAN are told.
        candidates: addresses::candidates(config.rtc.listen, None, &config.rtc.candidates),
        stun: look_at_stun(config.rtc.stun_server.as_deref()),
        rtmp,
        api,
        paths,
        sfu,
        turn: look_at_turn(config),
        clock: or_synchronised(clock, Path::new(TIMESYNCD_MARK)),
    }
}

fn look_at_state_file(path: Option<&Path>) -> StateFile {
    let Some(path) = path else { return StateFile::Unwanted };
    let path: PathBuf = path.into();
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !directory.is_dir() {
        return StateFile::NoDirectory(path);
    }
    match fs::metadata(&path).map(|metadata| metadata.permissions().mode() & 0o7777) {
        Ok(mode) if mode & 0o077 != 0 => StateFile::ReadableByOthers(path, mode),
        _ => StateFile::Fine(path),
    }
}

fn look_at_http(listen: SocketAddr) -> Port {
    let Err(error) = ports::try_to_listen(Protocol::Tcp, listen) else { return Port::Free };
    if error.kind() != io::ErrorKind::AddrInUse {
        return Port::Unusable(error.to_string());
    }
    let owner = ports::owner(Protocol::Tcp, listen.port());
    let server = SocketAddr::new(reachable(listen.ip()), listen.port());
    let is_ours = match &owner {
        Some(program) => program.name == OWN_NAME,
        // Not to be seen: another user's. Ours is known by what it serves.
        None => http::get(server, "/api/page").is_ok_and(|answer| answer.body.contains("\"calls_configured\"")),
    };
    if !is_ours {
        return Port::Taken(owner);
    }
    let health = match http::get(server, "/healthz") {
        Ok(Answer { status: 200, .. }) => Ok(()),
        Ok(Answer { body, .. }) => Err(body),
        Err(error) => Err(error.to_string()),
    };
    Port::Ours { pid: owner.map(|program| program.pid), health }
}

fn look_at_udp(listen: SocketAddr, we_run: bool) -> Port {
    let Err(error) = ports::try_to_listen(Protocol::Udp, listen) else { return Port::Free };
    if error.kind() != io::ErrorKind::AddrInUse {
        return Port::Unusable(error.to_string());
    }
    match ports::owner(Protocol::Udp, listen.port()) {
        Some(program) if program.name == OWN_NAME => Port::Ours { pid: Some(program.pid), health: Ok(()) },
        // It would not have started without its UDP port.
        None if we_run => Port::Ours { pid: None, health: Ok(()) },
        owner => Port::Taken(owner),
    }
}

/// Where a server that listens on every address is reached from here.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// From sockets of its own, so that a daemon that runs is not disturbed.
fn look_at_stun(server: Option<&str>) -> Stun {
    let Some(server) = server else { return Stun::Unwanted };
    match smol::block_on(stun_query::ask(server, STUN_PATIENCE)) {
        Ok(addresses) => Stun::Answers(server.to_owned(), addresses),
        Err(failure) if failure.is_of_the_name() => Stun::NoName(server.to_owned(), failure.to_string()),
        Err(failure) => Stun::Silent(server.to_owned(), failure.to_string()),
    }
}

/// MediaMTX's API is asked where its RTMP server is.
fn look_at_api(targets: &[(GuestId, Target)], port: u16) -> Api {
    let host = targets.first().map_or("127.0.0.1", |(_, target)| target.host());
    let resolved = (host, port).to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    let server = resolved.unwrap_or((Ipv4Addr::LOCALHOST, port).into());
    match http::get(server, "/v3/info") {
        Ok(Answer { status: 200, body }) => match serde_json::from_str::<Info>(&body) {
            Ok(info) => Api::Answers(server, Some(info.version)),
            Err(_) => Api::NotMediaMtx(server),
        },
        Ok(Answer { status: status @ (401 | 403), .. }) => Api::Closed(server, status),
        Ok(_) => match http::get(server, "/v3/paths/list") {
            Ok(Answer { status: 200, body }) if body.contains("\"itemCount\"") => Api::Answers(server, None),
            _ => Api::NotMediaMtx(server),
        },
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Api::NotMediaMtx(server),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Api::Silent(server, "nothing listens there".to_owned())
        }
        Err(error) => Api::Silent(server, error.to_string()),
    }
}

/// `GET /v3/info`
#[derive(Deserialize)]
struct Info {
    version: String,
}

/// `GET /v3/paths/get/{name}`. `online`, since 1.16: somebody publishes. `ready`, deprecated since 1.17 and still sent, and
/// `available`, in its place: a reader gets something, which with `alwaysAvailable` on the path is always so.
#[derive(Deserialize)]
struct PathAnswer {
    online: Option<bool>,
    #[serde(default)]
    ready: bool,
    #[serde(default)]
    available: bool,
    #[serde(default)]
    tracks: Vec<String>,
    #[serde(rename = "sourceReady")]
    source_ready: Option<bool>,
    #[serde(rename = "bytesReceived")]
    bytes_received: Option<u64>,
    /// What newer versions call it.
    #[serde(rename = "inboundBytes")]
    inbound_bytes: Option<u64>,
}

impl PathAnswer {
    /// Somebody publishes.
    fn is_online(&self) -> bool {
        self.online.unwrap_or_else(|| self.is_readable())
    }

    fn is_readable(&self) -> bool {
        self.ready || self.available || self.source_ready == Some(true)
    }

    fn bytes(&self) -> Option<u64> {
        self.inbound_bytes.or(self.bytes_received)
    }
}

/// `GET /v3/config/paths/list`
#[derive(Deserialize)]
struct PathList {
    items: Vec<PathConfig>,
}

#[derive(Deserialize)]
struct PathConfig {
    name: String,
}

/// All of them, and after one pause those again that are online: what they have received has to grow.
fn look_at_paths(server: SocketAddr, targets: &[(GuestId, Target)]) -> Vec<GuestPath> {
    let looked = targets.iter().map(|(guest, target)| look_at_path(server, guest, target));
    let (mut paths, before): (Vec<GuestPath>, Vec<Option<u64>>) = looked.unzip();
    if before.iter().any(Option::is_some) {
        thread::sleep(FLOW_PAUSE);
    }
    for (path, before) in paths.iter_mut().zip(before) {
        let PathState::Ready { receives, .. } = &mut path.state else { continue };
        let after = before.and_then(|_| http::get(server, &path_call(&path.path)).ok());
        let after = after.and_then(|answer| serde_json::from_str::<PathAnswer>(&answer.body).ok());
        // Of one whom another publisher follows meanwhile, less is counted than before.
        let after = after.filter(PathAnswer::is_online).and_then(|answer| answer.bytes());
        *receives = before.zip(after).map(|(before, after)| before != after);
    }
    paths
}

fn path_call(path: &str) -> String {
    format!("/v3/paths/get/{path}")
}

/// With the bytes that a path which is online has received.
fn look_at_path(server: SocketAddr, guest: &GuestId, target: &Target) -> (GuestPath, Option<u64>) {
    let mut bytes = None;
    let state = match http::get(server, &path_call(target.path())) {
        Ok(Answer { status: 200, body }) => match serde_json::from_str::<PathAnswer>(&body) {
            Ok(answer) => {
                let source_ready = answer.source_ready.is_some();
                match answer.is_online() {
                    true => {
                        bytes = answer.bytes();
                        PathState::Ready { tracks: answer.tracks, receives: None, source_ready }
                    }
                    false => PathState::Waiting { stands_in: answer.is_readable(), source_ready },
                }
            }
            Err(error) => PathState::Unclear(format!("an answer that makes no sense: {error}")),
        },
        Ok(Answer { status: 404, .. }) => PathState::Undeclared { patterns: has_patterns(server) },
        Ok(Answer { status, .. }) => PathState::Unclear(format!("the API answers {status}")),
        Err(error) => PathState::Unclear(error.to_string()),
    };
    (GuestPath { guest: guest.clone(), path: target.path().to_owned(), state }, bytes)
}

/// Names that begin with `~`, and `all` or `all_others`, take paths that are not declared by name.
fn has_patterns(server: SocketAddr) -> bool {
    let answer = http::get(server, "/v3/config/paths/list?itemsPerPage=1000");
    let list = answer.ok().and_then(|answer| serde_json::from_str::<PathList>(&answer.body).ok());
    list.is_some_and(|list| {
        list.items.iter().any(|path| path.name.starts_with('~') || path.name == "all" || path.name == "all_others")
    })
}

fn look_at_sfu(config: &Config) -> (Service, Clock) {
    let Some((app_id, token)) = config.cloudflare.app() else {
        return (Service::NotConfigured, Clock::Unknown("no SFU is configured"));
    };
    let client = Client::new(&config.cloudflare.api_base, app_id, token.clone());
    let service = match client.new_session() {
        Ok(_) => Service::Works,
        Err(error) => Service::Fails(error),
    };
    if matches!(&service, Service::Fails(error) if matches!(error.cause, Cause::Unreachable(_))) {
        return (service, Clock::Unknown("the SFU's API is unreachable"));
    }
    let clock = match client.date() {
        Ok(Some(date)) => ahead_of(&date).map_or(Clock::Unknown("the SFU's API gives an odd date"), Clock::Ahead),
        _ => Clock::Unknown("the SFU's API gives no date"),
    };
    (service, clock)
}

fn look_at_turn(config: &Config) -> Service {
    let Some((key, token)) = config.cloudflare.turn_key() else { return Service::NotConfigured };
    match TurnClient::new(&config.cloudflare.api_base, key, token.clone()).generate() {
        Ok(_) => Service::Works,
        Err(error) => Service::Fails(error),
    }
}

/// A clock that nobody could be compared with is right all the same where this mark is.
fn or_synchronised(clock: Clock, mark: &Path) -> Clock {
    match clock {
        Clock::Unknown(_) if mark.exists() => Clock::Synchronised,
        clock => clock,
    }
}

/// Seconds that our clock is ahead of this date.
fn ahead_of(date: &str) -> Option<i64> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()?;
    Some(now - unix_seconds(date)?)
}

/// An IMF-fixdate: a server writes no other form (RFC 9110 §5.6.7).
fn unix_seconds(date: &str) -> Option<i64> {
    let moment = httpdate::parse_http_date(date).ok()?;
    let is_fixdate = httpdate::fmt_http_date(moment) == date;
    let since_epoch = moment.duration_since(UNIX_EPOCH).ok().filter(|_| is_fixdate)?;
    i64::try_from(since_epoch.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_timesyncd_counts_only_where_nobody_could_be_compared_with() {
        let (here, nowhere) = (Path::new("."), Path::new("./no-such-mark"));
        let unknown = Clock::Unknown("no SFU is configured");
        assert_eq!(or_synchronised(unknown.clone(), here), Clock::Synchronised);
        assert_eq!(or_synchronised(unknown.clone(), nowhere), unknown);
        assert_eq!(or_synchronised(Clock::Ahead(90), here), Clock::Ahead(90));
    }

    /// The first is RFC 9110's example; values: `date -d DATE +%s` of GNU coreutils.
    #[test]
    fn http_dates_are_read_as_gnu_date_reads_them() {
        for (date, seconds) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Thu, 29 Feb 2024 23:59:59 GMT", Some(1_709_251_199)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(1_709_251_200)),
            ("Wed, 25 Nov 2026 09:41:00 GMT", Some(1_795_599_660)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("", None),
        ] {
            assert_eq!(unix_seconds(date), seconds, "{date}");
        }
    }
}
