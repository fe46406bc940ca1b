//! Our own sections of the file, key by key: names, defaults, ranges and remedies. A key that is not here is a mistake.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use guest_relay_muxer::Still;

use super::deployment;
use super::error::Place;
use super::reader::{Found, Reader, Section, excerpt, override_of};
use super::slate;
use super::tree::{Entry, Node, Value};
use super::values::{CANDIDATES_MAX, Config, Guest, Http, Idle, Log, MediaMtx, OutputTemplate, Relay, Rtc};

/// Reads all sections. What is wrong is left in `reader.problems`; the values then do not matter.
pub(super) fn read(reader: &mut Reader<'_>, root: Node) -> Config {
    let mut root = match root.value {
        Value::Mapping(entries) => entries,
        Value::Null => Vec::new(),
        Value::Scalar(_) | Value::Sequence(_) => {
            let place = reader.line(root.line);
            reader.problem(place, "", "this is not a configuration", "begin with a section such as 'guests:'");
            Vec::new()
        }
    };
    let http = http(reader, &mut root);
    let rtc = rtc(reader, &mut root);
    let mediamtx = deployment::mediamtx(reader, &mut root);
    let guests = deployment::guests(reader, &mut root);
    let relay = relay(reader, &mut root, &mediamtx, &guests);
    let log = log(reader, &mut root);
    let cloudflare = deployment::cloudflare(reader, &mut root);
    if !root.is_empty() {
        let names: Vec<_> = root.iter().map(|entry| excerpt(&entry.key)).collect();
        reader.notice(format!("sections that are not used here: {}", names.join(", ")));
    }
    Config { http, rtc, relay, log, cloudflare, guests, mediamtx, notices: Vec::new() }
}

fn http(reader: &mut Reader<'_>, root: &mut Vec<Entry>) -> Http {
    let mut section = reader.section(root, "http");
    let http = Http {
        listen: address(reader, &mut section, "listen", SocketAddr::from(([0, 0, 0, 0], 8000))),
        public_url: reader.parsed(
            &mut section,
            "public_url",
            None,
            |text| parse_public_url(text).map(Some),
            "write an address such as https://recorder.example.org",
        ),
        offers_per_minute: reader.number(&mut section, "offers_per_minute", 10, 1..=6000, "offers"),
    };
    reader.refuse_rest(section);
    http
}

fn rtc(reader: &mut Reader<'_>, root: &mut Vec<Entry>) -> Rtc {
    let mut section = reader.section(root, "rtc");
    let listen = address(reader, &mut section, "listen", SocketAddr::from(([0, 0, 0, 0], 8199)));
    let candidates = candidates(reader, &mut section, listen.port());
    let start = reader.number(&mut section, "start_bitrate_kbps", 1500, 100..=50_000, "kbit/s");
    let max_bitrate_kbps = reader.number(&mut section, "max_bitrate_kbps", 2500, 100..=50_000, "kbit/s");
    let total = reader.number(&mut section, "total_bitrate_kbps", 0, 0..=1_000_000, "kbit/s");
    let stun_server = reader.parsed(
        &mut section,
        "stun_server",
        Some(Rtc::STUN_SERVER.to_owned()),
        parse_stun_server,
        "write a host name or address, with :port unless that is 3478, or none",
    );
    reader.refuse_rest(section);
    if start > max_bitrate_kbps {
        reader.notice(format!(
            "rtc.start_bitrate_kbps: lowered from {start} to {max_bitrate_kbps}, which is rtc.max_bitrate_kbps"
        ));
    }
    Rtc {
        listen,
        candidates,
        start_bitrate_kbps: start.min(max_bitrate_kbps),
        max_bitrate_kbps,
        total_bitrate_kbps: (total > 0).then_some(total),
        stun_server,
    }
}

/// `host`, `host:port` or `none`; an IPv6 address in brackets. With RFC 8489's port where none is given.
fn parse_stun_server(text: &str) -> Result<Option<String>, &'static str> {
    if text == "none" {
        return Ok(None);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port: u16 = port.parse().map_err(|_| "what follows the colon is no port")?;
            (host, port)
        }
        _ => (text, 3478),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    if host.is_empty() || port == 0 || !host.bytes().all(allowed) || host.contains(':') && !host.starts_with('[') {
        return Err("this is no host");
    }
    Ok(Some(format!("{host}:{port}")))
}

fn relay(reader: &mut Reader<'_>, root: &mut Vec<Entry>, mediamtx: &MediaMtx, guests: &[Guest]) -> Relay {
    let mut section = reader.section(root, "relay");
    let default = OutputTemplate::parse(&format!("rtmp://127.0.0.1:{}/{{guest_id}}", mediamtx.rtmp_port))
        .expect("a port number is all that varies");
    let mut output = default.clone();
    if let Some(found) = reader.ours(&mut section, "output") {
        let (place, key) = (found.place.clone(), found.key.clone());
        let remedy = "write an address such as rtmp://127.0.0.1:1935/{guest_id}";
        output = reader.parse_found(found, OutputTemplate::parse, remedy).unwrap_or(default);
        if guests.iter().filter(|guest| guest.enabled).count() > 1 && !output.tells_guests_apart() {
            let remedy = "put {guest_id} into the path";
            reader.problem(place, key, "several guests would be published at the same address", remedy);
        }
    }
    let relay = Relay {
        output,
        hold: seconds(reader.number(&mut section, "hold_seconds", 15, 0..=600, "seconds")),
        reorder: Duration::from_millis(
            reader.number(&mut section, "reorder_ms", 400, 20..=2000, "milliseconds").into(),
        ),
        keyframe_interval: match reader.number(&mut section, "keyframe_interval_seconds", 2, 0..=60, "seconds") {
            0 => None,
            interval => Some(seconds(interval)),
        },
        idle: reader.parsed(
            &mut section,
            "idle",
            Idle::Unpublish,
            |text| match text {
                "slate" => Ok(Idle::Slate),
                "unpublish" => Ok(Idle::Unpublish),
                other => Err(format!("'{}' is neither slate nor unpublish", excerpt(other))),
            },
            "write slate to publish a slot also while nobody is in it, or unpublish to end its publication",
        ),
        slate: slate(reader, &mut section),
        state_file: state_file(reader, &mut section),
    };
    reader.refuse_rest(section);
    relay
}

/// Black, unless the file names a picture.
fn slate(reader: &mut Reader<'_>, section: &mut Section) -> Arc<Still> {
    let remedy = "write the path of an H.264 file (Annex B) with one IDR picture; README shows how to make one";
    let slate = reader.parsed(section, "slate_file", None, |text| slate::read(Path::new(text)).map(Some), remedy);
    Arc::new(slate.unwrap_or_else(Still::black))
}

/// In the directory that systemd made for the service (`StateDirectory=`), unless the file says otherwise.
fn state_file(reader: &mut Reader<'_>, section: &mut Section) -> Option<PathBuf> {
    let directory = reader.variable("STATE_DIRECTORY");
    // There may be several, separated by colons.
    let directory = directory.as_deref().and_then(|list| list.split(':').next());
    let default = directory.map_or_else(PathBuf::new, PathBuf::from).join(Relay::STATE_FILE);
    let parse = |text: &str| match text {
        "none" => Ok(None),
        text if text.ends_with('/') || text.chars().any(char::is_control) => Err("this is no file name"),
        text => Ok(Some(PathBuf::from(text))),
    };
    let remedy = "write the path of a file that need not exist, or none to keep nothing over a restart";
    reader.parsed(section, "state_file", Some(default), parse, remedy)
}

fn log(reader: &mut Reader<'_>, root: &mut Vec<Entry>) -> Log {
    let mut section = reader.section(root, "log");
    let parse =
        |text: &str| text.parse::<log::LevelFilter>().map_err(|_| format!("'{}' is no log level", excerpt(text)));
    let remedy = "write one of off, error, warn, info, debug, trace";
    let level = reader.parsed(&mut section, "level", log::LevelFilter::Info, parse, remedy);
    reader.refuse_rest(section);
    Log { level }
}

fn address(reader: &mut Reader<'_>, section: &mut Section, key: &'static str, default: SocketAddr) -> SocketAddr {
    let parse = |text: &str| {
        text.parse::<SocketAddr>().map_err(|_| format!("'{}' is not an address with a port", excerpt(text)))
    };
    let remedy = format!("write {default} for every IPv4 address, or [::]:{} for IPv6 too", default.port());
    reader.parsed(section, key, default, parse, &remedy)
}

/// A list in the file, or a list separated by commas in the environment. The port may be left out.
fn candidates(reader: &mut Reader<'_>, section: &mut Section, port: u16) -> Vec<SocketAddr> {
    const KEY: &str = "candidates";
    let path = "rtc.candidates";
    let node = reader.node(section, KEY);
    let variable = override_of("rtc", KEY);
    let list: Vec<Found> = if let Some(value) = reader.variable(&variable) {
        let found = |text: &str| Found {
            text: text.trim().to_owned(),
            place: Place::Environment { variable: variable.clone() },
            key: path.to_owned(),
        };
        value.split(',').map(found).collect()
    } else {
        match node.map(|node| (node.line, node.value)) {
            None | Some((_, Value::Null)) => Vec::new(),
            Some((_, Value::Sequence(items))) => items
                .into_iter()
                .map(|item| Found {
                    text: if let Value::Scalar(text) = item.value { text } else { String::new() },
                    place: reader.line(item.line),
                    key: path.to_owned(),
                })
                .collect(),
            Some((line, _)) => {
                let place = reader.line(line);
                reader.problem(place, path, "this is not a list", "write one address per line, each after '- '");
                Vec::new()
            }
        }
    };
    if let Some(surplus) = list.get(CANDIDATES_MAX) {
        let (place, problem) = (surplus.place.clone(), format!("there are {} addresses", list.len()));
        reader.problem(place, path, problem, format!("keep {CANDIDATES_MAX}"));
    }
    let parse = |text: &str| {
        let with_port = text.parse::<SocketAddr>();
        let address = with_port.or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port)));
        match address {
            Ok(address) if !address.ip().is_unspecified() && !address.ip().is_multicast() => Ok(address),
            _ => Err(format!("'{}' is not an address that guests can reach", excerpt(text))),
        }
    };
    let remedy = "write an IP address such as 203.0.113.7, with :port when it differs from rtc.listen";
    list.into_iter().filter_map(|found| reader.parse_found(found, parse, remedy)).collect()
}

/// Scheme and host, with a port if need be.
fn parse_public_url(text: &str) -> Result<String, &'static str> {
    let origin = text.trim_end_matches('/');
    let Some(host) = origin.strip_prefix("https://") else {
        return Err("this is no https:// address");
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    if host.is_empty() || !host.bytes().all(allowed) {
        return Err("the address is not just a host name");
    }
    Ok(origin.to_owned())
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}
