//! The state file: what is saved comes back, whoever may read it, whatever stands in it.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A directory of its own, removed with it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("guest-relay-store-{}-{serial}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn store(&self) -> Store {
        Store::new(self.0.join("state.json"))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn session(guest: &str) -> SfuSession {
    let track = |kind, mid: &str, name: &str| Track { kind, mid: mid.to_owned(), name: name.to_owned() };
    SfuSession {
        guest: GuestId::parse(guest).unwrap(),
        resource: ResourceId::from_random([7; 16]),
        etag: "Ab3-9".to_owned(),
        ufrag: Some("ET+n".to_owned()),
        session_id: "00112233445566778899aabbccddeeff".to_owned(),
        tracks: vec![track(TrackKind::Audio, "0", "audio"), track(TrackKind::Video, "1", "video")],
    }
}

/// What is written for `session("guest1")`.
const FILE: &str = r#"{"version": 1, "sessions": [{"guest": "guest1", "resource": "07070707070707070707070707070707",
    "etag": "Ab3-9", "ufrag": "ET+n", "path": "calls", "session_id": "00112233445566778899aabbccddeeff",
    "tracks": [{"kind": "audio", "mid": "0", "name": "audio"}, {"kind": "video", "mid": "1", "name": "video"}]}]}"#;

#[test]
fn what_is_saved_is_loaded_again_and_the_file_reads_as_documented() {
    let directory = Directory::new();
    let store = directory.store();
    assert_eq!(store.load(), Loaded::default(), "no file is nothing to warn of");
    store.save(1, &[session("guest1")]).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&fs::read(store.path()).unwrap()).unwrap();
    assert_eq!(written, serde_json::from_str::<serde_json::Value>(FILE).unwrap());
    store.save(2, &[session("guest1"), session("guest2")]).unwrap();
    let loaded = directory.store().load();
    assert_eq!(loaded, Loaded { sessions: vec![session("guest1"), session("guest2")], warnings: vec![] });
    store.save(3, &[]).unwrap();
    assert_eq!(directory.store().load(), Loaded::default());
}

#[test]
fn a_file_of_an_earlier_version_names_no_ufrag_and_is_used_all_the_same() {
    let directory = Directory::new();
    let store = directory.store();
    let earlier = FILE.replace("\"ufrag\": \"ET+n\", ", "");
    assert_ne!(earlier, FILE);
    fs::write(store.path(), earlier).unwrap();
    let unknown = SfuSession { ufrag: None, ..session("guest1") };
    assert_eq!(store.load(), Loaded { sessions: vec![unknown.clone()], warnings: vec![] });
    store.save(1, std::slice::from_ref(&unknown)).unwrap();
    assert!(!fs::read_to_string(store.path()).unwrap().contains("ufrag"));
    assert_eq!(store.load().sessions, [unknown]);
}

#[test]
fn only_the_owner_may_read_it_whatever_stood_there_before() {
    let directory = Directory::new();
    let store = directory.store();
    fs::write(store.path(), "{}").unwrap();
    fs::set_permissions(store.path(), fs::Permissions::from_mode(0o666)).unwrap();
    store.save(1, &[session("guest1")]).unwrap();
    assert_eq!(fs::metadata(store.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(directory.names(), ["state.json"]);
}

#[test]
fn a_kill_between_writing_and_renaming_leaves_the_old_file_and_does_no_harm_to_the_next_save() {
    let directory = Directory::new();
    let store = directory.store();
    store.save(1, &[session("guest1")]).unwrap();
    // What such a kill leaves behind: a new file, whole or in part, beside the old one.
    for leftover in [FILE, &FILE[..40], ""] {
        fs::write(beside(store.path()), leftover).unwrap();
        assert_eq!(directory.store().load().sessions, [session("guest1")]);
        let restarted = directory.store();
        restarted.save(1, &[session("guest1"), session("guest2")]).unwrap();
        assert_eq!(restarted.load().sessions.len(), 2);
        restarted.save(2, &[session("guest1")]).unwrap();
        assert_eq!(directory.names(), ["state.json"]);
    }
}

#[test]
fn a_symbolic_link_in_the_place_of_the_new_file_is_not_followed() {
    let directory = Directory::new();
    let store = directory.store();
    let elsewhere = directory.0.join("precious");
    fs::write(&elsewhere, "precious").unwrap();
    symlink(&elsewhere, beside(store.path())).unwrap();
    store.save(1, &[session("guest1")]).unwrap();
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "precious");
    assert_eq!(store.load().sessions.len(), 1);
}

#[test]
fn a_save_that_cannot_be_done_says_so_and_the_old_state_stays() {
    let directory = Directory::new();
    let store = directory.store();
    store.save(1, &[session("guest1")]).unwrap();
    // A directory in the way stands for every reason why the new file cannot be made, root or not.
    fs::create_dir(beside(store.path())).unwrap();
    let error = store.save(2, &[]).unwrap_err();
    assert!(error.to_string().contains("check relay.state_file"), "{error}");
    assert_eq!(store.load().sessions, [session("guest1")]);
    fs::remove_dir(beside(store.path())).unwrap();
    store.save(2, &[]).unwrap();
    assert_eq!(store.load().sessions, []);
}

#[test]
fn a_directory_that_does_not_exist_or_is_none_is_an_error_and_no_panic() {
    for path in ["/nonexistent/state.json", "/dev/null/state.json", "/proc/state.json", "/dev/full/x", "/"] {
        let store = Store::new(path);
        assert!(store.save(1, &[session("guest1")]).is_err(), "{path}");
        assert_eq!(store.load().sessions, []);
    }
}

#[test]
fn a_save_that_fails_after_the_bytes_were_written_leaves_no_rubbish() {
    let directory = Directory::new();
    let store = directory.store();
    store.save(1, &[session("guest1")]).unwrap();
    // A directory that is not empty cannot be renamed over.
    let blocked = Store::new(directory.0.join("blocked"));
    fs::create_dir_all(directory.0.join("blocked/child")).unwrap();
    assert!(blocked.save(1, &[session("guest1")]).is_err());
    assert_eq!(directory.names(), ["blocked", "state.json"]);
}

#[test]
fn an_older_save_does_not_undo_a_newer_one() {
    let directory = Directory::new();
    let store = directory.store();
    store.save(2, &[session("guest1")]).unwrap();
    store.save(1, &[]).unwrap();
    assert_eq!(store.load().sessions, [session("guest1")]);
}

#[test]
fn a_file_that_is_no_state_file_is_nothing_with_a_warning() {
    let long = " ".repeat(300_000);
    let deep = "[".repeat(100_000);
    for (name, text, why) in [
        ("empty", "", "line 1, column 0"),
        ("cut", &FILE[..200], "no state file"),
        ("another thing", "version: 1", "no state file"),
        ("a number", "1", "no state file"),
        ("too long", long.as_str(), "longer than"),
        ("deep", deep.as_str(), "no state file"),
        ("of the future", r#"{"version": 2, "sessions": []}"#, "version 2"),
        ("of the past", r#"{"version": 0, "sessions": []}"#, "version 0"),
        ("no UTF-8", "\u{0}", "no state file"),
    ] {
        let directory = Directory::new();
        let store = directory.store();
        fs::write(store.path(), text).unwrap();
        let loaded = store.load();
        assert_eq!(loaded.sessions, [], "{name}");
        let [warning] = loaded.warnings.as_slice() else { panic!("{name}: {:?}", loaded.warnings) };
        assert!(warning.contains(why) && warning.contains("state.json") && warning.len() < 300, "{name}: {warning}");
        // It is replaced by the next save.
        store.save(1, &[session("guest1")]).unwrap();
        assert_eq!(store.load().sessions.len(), 1, "{name}");
    }
}

#[test]
fn a_directory_or_a_device_in_its_place_is_not_read() {
    let directory = Directory::new();
    let store = directory.store();
    fs::create_dir(store.path()).unwrap();
    assert_eq!(store.load().warnings.len(), 1);
    assert_eq!(Store::new("/dev/zero").load().warnings.len(), 1);
}

#[test]
fn a_session_that_was_tampered_with_is_left_out_and_the_others_are_kept() {
    let good = FILE.split_once("[{\"guest\"").unwrap().1;
    let good = format!("{{\"guest\"{}", good.strip_suffix("]}").unwrap());
    for (what, with) in [
        ("guest1", "../../etc"),
        ("07070707070707070707070707070707", "short"),
        ("Ab3-9", "a\\r\\nSet-Cookie: x"),
        ("\"calls\"", "\"direct\""),
        ("00112233445566778899aabbccddeeff", "../../turn/keys"),
        ("\"mid\": \"0\"", "\"mid\": \"\""),
        ("\"mid\": \"0\"", "\"mid\": 0"),
        ("\"name\": \"audio\"", "\"name\": \"a\\u0000b\""),
        ("\"kind\": \"audio\"", "\"kind\": \"data\""),
        ("\"kind\": \"audio\"", "\"kind\": \"video\""),
        ("\"etag\": \"Ab3-9\",", ""),
        ("ET+n", "ET\\u0000n"),
        ("ET+n", "E-n"),
    ] {
        let bad = good.replacen(what, with, 1);
        assert_ne!(bad, good, "{what}");
        let text = format!(r#"{{"version": 1, "sessions": [{bad}, {}]}}"#, good.replace("guest1", "guest2"));
        let loaded = parse(text.as_bytes(), Path::new("state.json"));
        assert_eq!(loaded.sessions, [session("guest2")], "{with}");
        assert!(
            loaded.warnings.len() == 1 && loaded.warnings[0].contains("session 1 is left out"),
            "{:?}",
            loaded.warnings
        );
        assert!(!loaded.warnings[0].contains(with) || with.is_empty() || with == "short", "{:?}", loaded.warnings);
    }
    let twice = format!(r#"{{"version": 1, "sessions": [{good}, {good}]}}"#);
    assert_eq!(parse(twice.as_bytes(), Path::new("x")).sessions.len(), 1);
    let many = vec![good; 100].join(",");
    let many = format!(r#"{{"version": 1, "sessions": [{many}]}}"#);
    assert!(parse(many.as_bytes(), Path::new("x")).warnings.len() <= GUESTS_MAX);
}

#[test]
fn no_cut_of_a_file_panics_or_yields_a_session_that_was_not_there() {
    for end in 0..FILE.len() {
        assert_eq!(parse(&FILE.as_bytes()[..end], Path::new("x")).sessions, [], "{end}");
    }
}
