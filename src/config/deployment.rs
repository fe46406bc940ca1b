//! The sections that the application beside us reads too: `cloudflare`, `guests`, `mediamtx`. Keys that are not known here
//! may be its own and only give a notice.

use super::reader::{Found, Reader, excerpt, parse_bool};
use super::tree::{Entry, Value};
use super::values::{Cloudflare, Guest, MediaMtx};
use crate::guest::GUESTS_MAX;
use crate::guest::id::GuestId;
use crate::secret::Secret;
use crate::sfu::pull::PullForm;

pub(super) fn cloudflare(reader: &mut Reader<'_>, root: &mut Vec<Entry>) -> Cloudflare {
    let mut section = reader.section(root, "cloudflare");
    let mut either = |keys: &[&'static str], variable: &str| {
        let mut value = None;
        for key in keys {
            let found = reader.found(&mut section, key, Some(variable));
            value = value.or(found);
        }
        let found = value?;
        // What goes into a URL or a header; the value itself is not quoted, it may be a secret in the wrong place.
        let parse = |text: &str| match text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(text.to_owned()),
            false => Err("the value holds white space or characters outside ASCII"),
        };
        reader.parse_found(found, parse, "copy it again from the Cloudflare dashboard")
    };
    let app_id = either(&["calls_app_id", "app_id"], "CLOUDFLARE_CALLS_APP_ID");
    let api_token = either(&["calls_api_token", "api_token"], "CLOUDFLARE_CALLS_API_TOKEN").map(Secret::new);
    let turn_token_id = either(&["turn_token_id"], "CLOUDFLARE_TURN_TOKEN_ID");
    let turn_api_token = either(&["turn_api_token"], "CLOUDFLARE_TURN_API_TOKEN").map(Secret::new);
    let api_base = reader.parsed(
        &mut section,
        "api_base",
        Cloudflare::API_BASE.to_owned(),
        parse_api_base,
        "write an address such as https://rtc.live.cloudflare.com/v1",
    );
    let pull_form = reader.parsed(
        &mut section,
        "pull_form",
        PullForm::default(),
        |text| match text {
            "1" => Ok(PullForm::SfuOffers),
            "2" => Ok(PullForm::WeOffer),
            _ => Err("there is no such form"),
        },
        "write 1, or 2 to have the relay make the offer",
    );
    for (key, present, other, other_present) in [
        ("calls_app_id", app_id.is_some(), "calls_api_token", api_token.is_some()),
        ("turn_token_id", turn_token_id.is_some(), "turn_api_token", turn_api_token.is_some()),
    ] {
        let (there, missing) = match (present, other_present) {
            (true, false) => (key, other),
            (false, true) => (other, key),
            _ => continue,
        };
        reader.notice(format!("cloudflare.{there} is not used, because cloudflare.{missing} is missing"));
    }
    reader.pass_over(&mut section, &["account_id", "calls_app_name"]);
    reader.tolerate_rest(section);
    let is_local = is_this_host(&api_base);
    Cloudflare { app_id, api_token, api_base, is_local, pull_form, turn_token_id, turn_api_token }
}

pub(super) fn mediamtx(reader: &mut Reader<'_>, root: &mut Vec<Entry>) -> MediaMtx {
    let mut section = reader.section(root, "mediamtx");
    let mut port = |key, default| {
        let parse = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!("'{}' is no port", excerpt(text))),
        };
        reader.parsed(&mut section, key, default, parse, "write a port number from 1 to 65535")
    };
    let (rtmp_port, api_port) = (port("rtmp_port", 1935), port("api_port", 9997));
    let enabled = reader.parsed(&mut section, "enabled", true, parse_bool, "write true or false");
    reader.pass_over(&mut section, &["rtsp_port", "srt_port"]);
    reader.tolerate_rest(section);
    MediaMtx { enabled, rtmp_port, api_port }
}

pub(super) fn guests(reader: &mut Reader<'_>, root: &mut Vec<Entry>) -> Vec<Guest> {
    let entry = root.iter().position(|entry| entry.key == "guests").map(|at| root.remove(at));
    let entries = entry.map(|entry| reader.entries(entry.node, "guests")).unwrap_or_default();
    if entries.is_empty() {
        return ["guest1", "guest2"].into_iter().map(default_guest).collect();
    }
    if let Some(surplus) = entries.get(GUESTS_MAX) {
        let place = reader.line(surplus.line);
        reader.problem(place, "guests", format!("there are {} guests", entries.len()), format!("keep {GUESTS_MAX}"));
    }
    entries.into_iter().filter_map(|entry| guest(reader, entry)).collect()
}

fn default_guest(id: &str) -> Guest {
    let id = GuestId::parse(id).expect("the default ids are letters and a digit");
    Guest { name: default_name(&id), id, enabled: true }
}

/// `guest1` is shown as "Guest 1", any other id as itself.
fn default_name(id: &GuestId) -> String {
    match id.as_str().strip_prefix("guest") {
        Some(number) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => {
            format!("Guest {number}")
        }
        _ => id.to_string(),
    }
}

fn guest(reader: &mut Reader<'_>, entry: Entry) -> Option<Guest> {
    const NAME_MAX: usize = 64;
    let key = format!("guests.{}", excerpt(&entry.key));
    let place = reader.line(entry.line);
    let id = match GuestId::parse(&entry.key) {
        Ok(id) => id,
        Err(error) => {
            reader.problem(place, key, error.to_string(), "rename it, for example to guest1");
            return None;
        }
    };
    let mut guest = Guest { name: default_name(&id), id, enabled: true };
    for setting in reader.entries(entry.node, &key) {
        let (place, path) = (reader.line(setting.line), format!("{key}.{}", excerpt(&setting.key)));
        let Value::Scalar(text) = setting.node.value else {
            continue;
        };
        let found = Found { text, place: place.clone(), key: path.clone() };
        match setting.key.as_str() {
            "enabled" => {
                guest.enabled = reader.parse_found(found, parse_bool, "write true or false").unwrap_or(true);
            }
            "name" if found.text.chars().count() > NAME_MAX || found.text.chars().any(char::is_control) => {
                let problem = "the name is longer than 64 characters or holds control characters";
                reader.problem(place, path, problem, "write a short name in one line");
            }
            "name" => guest.name = found.text,
            _ => reader.notice(format!("{place}: {path} is not used here")),
        }
    }
    Some(guest)
}

/// https, or http to this host (for a simulator).
fn parse_api_base(text: &str) -> Result<String, &'static str> {
    let is_local_http = text.starts_with("http://") && is_this_host(text);
    if !text.starts_with("https://") && !is_local_http {
        return Err("this is neither an https:// address nor one of this host");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains(['@', '?', '#']) {
        return Err("the address holds characters that an API address does not have");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// True if the URL's host is this one.
fn is_this_host(url: &str) -> bool {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest);
    let ends = |rest: &str| rest.is_empty() || rest.starts_with([':', '/']);
    ["127.0.0.1", "localhost", "[::1]"].iter().any(|host| authority.strip_prefix(host).is_some_and(ends))
}
