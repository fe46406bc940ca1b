//! What cannot be set up on every machine: a board that is well, a sick daemon, a MediaMTX of each age. The rest is
//! shown by `tests/it/doctor.rs` with real files, ports and servers.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::guest::id::GuestId;
use crate::sfu::error::{Call, CallError, Cause};

fn guest(id: &str) -> GuestId {
    GuestId::parse(id).unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ready(tracks: &[&str]) -> GuestPath {
    let tracks = tracks.iter().map(ToString::to_string).collect();
    let state = PathState::Ready { tracks, receives: Some(true), source_ready: false };
    GuestPath { guest: guest("guest1"), path: "guest1".to_owned(), state }
}

/// A board in the middle of a show.
fn well() -> Configured {
    Configured {
        guests: vec![guest("guest1"), guest("guest2")],
        notices: Vec::new(),
        state_file: StateFile::Fine("/var/lib/guest-relay/state.json".into()),
        http: (address("0.0.0.0:8010"), Port::Ours { pid: Some(812), health: Ok(()) }),
        rtc: (address("0.0.0.0:8199"), Port::Ours { pid: Some(812), health: Ok(()) }),
        candidates: vec![address("192.168.1.58:8199")],
        stun: Stun::Answers(
            "stun.cloudflare.com:3478".to_owned(),
            vec!["203.0.113.7".parse().unwrap(), "2001:db8::58".parse().unwrap()],
        ),
        rtmp: Rtmp::Connected("127.0.0.1:1935".to_owned()),
        api: Some(Api::Answers(address("127.0.0.1:9997"), Some("v1.15.6".to_owned()))),
        paths: vec![
            ready(&["H264", "Opus"]),
            GuestPath {
                guest: guest("guest2"),
                path: "guest2".to_owned(),
                state: PathState::Waiting { stands_in: false, source_ready: false },
            },
        ],
        sfu: Service::Works,
        turn: Service::Works,
        clock: Clock::Ahead(-1),
    }
}

const BOARD: Processor = Processor { architecture: "aarch64", can: true, built_in: true };

fn report(processor: Processor, configured: Configured) -> Report {
    examine(&Findings { processor, configured: Ok(configured) })
}

/// Severity and text of one check's line in a report.
fn line(change: impl FnOnce(&mut Configured), name: &str) -> (Severity, String) {
    let mut configured = well();
    change(&mut configured);
    let report = report(BOARD, configured);
    let check = report.checks.iter().rfind(|check| check.check == name).unwrap();
    (check.severity, format!("{} -> {}", check.finding, check.remedy.as_deref().unwrap_or("nothing")))
}

#[test]
fn a_board_that_is_well_reads_so_and_says_where_the_mixer_looks() {
    let report = report(BOARD, well());
    assert_eq!(report.to_string() + "\n", include_str!("../../../tests/it/doctor/well.txt"));
    assert_eq!((report.severity(), report.severity().exit_code()), (Severity::Note, 0));
}

#[test]
fn everything_that_can_be_wrong_says_what_to_do() {
    let failure = |status| {
        let cause = Cause::Refused {
            status,
            code: String::new(),
            description: String::new(),
            cf_ray: "8f1".to_owned(),
            retry_after: None,
        };
        Service::Fails(CallError { call: Call::NewSession, cause })
    };
    let sick = Configured {
        guests: Vec::new(),
        notices: vec![Notice::new(
            "cloudflare.turn_token_id is not used, because cloudflare.turn_api_token is missing",
        )],
        state_file: StateFile::ReadableByOthers("state.json".into(), 0o644),
        http: (
            address("0.0.0.0:8010"),
            Port::Ours { pid: Some(812), health: Err("the media thread does not answer".into()) },
        ),
        rtc: (address("0.0.0.0:8189"), Port::Taken(Some(Program { pid: 611, name: "mediamtx".to_owned() }))),
        candidates: Vec::new(),
        stun: Stun::NoName("stun.cloudflare.com:3478".to_owned(), "no name server answers within 2 s".to_owned()),
        rtmp: Rtmp::NotRtmp("127.0.0.1:8554".to_owned(), "it closes the connection".to_owned()),
        api: Some(Api::Answers(address("127.0.0.1:9997"), None)),
        paths: vec![GuestPath {
            guest: guest("guest1"),
            path: "live/guest1".to_owned(),
            state: PathState::Undeclared { patterns: false },
        }],
        sfu: failure(401),
        turn: failure(503),
        clock: Clock::Ahead(7200),
    };
    let processor = Processor { built_in: false, ..BOARD };
    let report = report(processor, sick);
    assert_eq!(report.to_string() + "\n", include_str!("../../../tests/it/doctor/sick.txt"));
    assert_eq!(report.severity().exit_code(), 2);
}

/// The versions are the ones of rtmp-mediamtx: Opus over RTMP is whole from 1.15.5 on.
#[test]
fn a_media_mtx_that_is_too_old_is_an_error_and_an_unreadable_version_is_not() {
    for (version, severity) in [
        ("v1.5.1", Severity::Error),
        ("v1.15.4", Severity::Error),
        ("v1.15.5", Severity::Ok),
        ("v1.15.5-1-gabcdef", Severity::Ok),
        ("v1.16.0", Severity::Ok),
        ("v2.0.0", Severity::Ok),
        ("v0.99.99", Severity::Error),
        ("development", Severity::Ok),
    ] {
        let api = Api::Answers(address("127.0.0.1:9997"), Some(version.to_owned()));
        assert_eq!(line(|configured| configured.api = Some(api), "mediamtx").0, severity, "{version}");
    }
}

#[test]
fn a_path_without_sound_and_a_clock_that_is_off_are_told() {
    let (severity, text) = line(|configured| configured.paths = vec![ready(&["H264"])], "path");
    assert_eq!(severity, Severity::Note);
    assert_eq!(text, "guest1 is ready and receives: H264; a guest usually brings H264 and Opus -> nothing");
    for (ahead, severity) in
        [(10, Severity::Ok), (11, Severity::Warning), (-10, Severity::Ok), (-11, Severity::Warning)]
    {
        assert_eq!(line(|configured| configured.clock = Clock::Ahead(ahead), "clock").0, severity, "{ahead}");
    }
    assert!(line(|configured| configured.clock = Clock::Ahead(-90), "clock").1.starts_with("90 s behind"));
    let (severity, text) = line(|configured| configured.clock = Clock::Synchronised, "clock");
    assert_eq!((severity, text.as_str()), (Severity::Ok, "synchronised by systemd-timesyncd -> nothing"));
}

#[test]
fn a_way_out_that_no_guest_needs_is_no_reason_to_warn() {
    let silent = Stun::Silent("stun.cloudflare.com:3478".to_owned(), "nothing comes back within 2 s".to_owned());
    for (stun, sfu, severity) in [
        (silent.clone(), Service::Works, Severity::Warning),
        (silent, Service::NotConfigured, Severity::Note),
        (well().stun, Service::NotConfigured, Severity::Ok),
    ] {
        let change = |configured: &mut Configured| (configured.stun, configured.sfu) = (stun, sfu);
        assert_eq!(line(change, "internet").0, severity);
    }
    let report = report(BOARD, Configured { stun: Stun::Unwanted, ..well() });
    assert!(report.checks.iter().all(|check| check.check != "internet"));
}

#[test]
fn a_media_mtx_that_still_says_source_ready_needs_no_word_about_the_mixer() {
    let mut configured = well();
    configured.paths = vec![GuestPath {
        guest: guest("guest1"),
        path: "guest1".to_owned(),
        state: PathState::Waiting { stands_in: false, source_ready: true },
    }];
    assert!(report(BOARD, configured).checks.iter().all(|check| check.check != "mixer"));
}

#[test]
fn a_reader_that_finds_nothing_is_told_of_and_one_that_finds_a_slate_is_not() {
    let waiting = |id: &str, stands_in| GuestPath {
        guest: guest(id),
        path: id.to_owned(),
        state: PathState::Waiting { stands_in, source_ready: false },
    };
    let both = |first, second| {
        move |configured: &mut Configured| configured.paths = vec![waiting("guest1", first), waiting("guest2", second)]
    };
    let (severity, text) = line(both(false, false), "readers");
    assert_eq!(severity, Severity::Note);
    assert!(text.starts_with("a mixer's input on guest1, guest2 ends"), "{text}");
    assert!(line(both(true, false), "readers").1.starts_with("a mixer's input on guest2 ends"));
    let mut configured = well();
    both(true, true)(&mut configured);
    assert!(report(BOARD, configured).checks.iter().all(|check| check.check != "readers"));
}

#[test]
fn without_a_media_mtx_nothing_is_said_of_one() {
    let mut configured = well();
    configured.api = None;
    let report = report(BOARD, configured);
    assert!(report.checks.iter().all(|check| !["mediamtx", "path", "readers", "mixer"].contains(&check.check)));
}
