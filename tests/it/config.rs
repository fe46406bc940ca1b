//! Configuration files and environments, from text to values or to the lines an operator reads.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use guest_relay::config::{Config, Idle, OutputTemplate};
use guest_relay::guest::id::GuestId;
use guest_relay::sfu::pull::PullForm;

fn parse(text: &str) -> Config {
    Config::parse(text, "config.yml", &|_| None).unwrap()
}

/// One line each, as they are logged.
fn notices(config: &Config) -> Vec<String> {
    config.notices.iter().map(ToString::to_string).collect()
}

fn problems(text: &str) -> Vec<String> {
    let error = Config::parse(text, "config.yml", &|_| None).unwrap_err();
    error.to_string().lines().map(str::to_owned).collect()
}

fn with_environment(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let environment = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    Config::parse(text, "config.yml", &environment).map_err(|error| error.to_string())
}

#[test]
fn the_example_file_states_the_defaults() {
    let text = include_str!("../../config.example.yml");
    assert_eq!(parse(text), Config::default());
}

#[test]
fn an_empty_configuration_has_two_guests_and_the_documented_values() {
    let config = Config::default();
    let guests: Vec<_> =
        config.guests.iter().map(|guest| (guest.id.as_str(), guest.name.as_str(), guest.enabled)).collect();
    assert_eq!(guests, [("guest1", "Guest 1", true), ("guest2", "Guest 2", true)]);
    assert_eq!(config.http.listen.to_string(), "0.0.0.0:8000");
    assert_eq!(config.http.offers_per_minute, 10);
    assert_eq!(config.rtc.listen.to_string(), "0.0.0.0:8199");
    assert_eq!((config.rtc.start_bitrate_kbps, config.rtc.max_bitrate_kbps), (1500, 2500));
    assert_eq!(config.rtc.total_bitrate_kbps, None);
    assert_eq!(parse("rtc: {total_bitrate_kbps: 6000}").rtc.total_bitrate_kbps, Some(6000));
    assert_eq!(config.relay.output.to_string(), "rtmp://127.0.0.1:1935/{guest_id}");
    assert_eq!(config.relay.hold, Duration::from_secs(15));
    assert_eq!(config.relay.reorder, Duration::from_millis(400));
    assert_eq!(config.relay.keyframe_interval, Some(Duration::from_secs(2)));
    assert_eq!(config.relay.state_file.as_deref(), Some(Path::new("guest-relay.state.json")));
    assert_eq!(config.cloudflare.pull_form, PullForm::SfuOffers);
    assert_eq!(config.log.level, log::LevelFilter::Info);
    assert_eq!(config.cloudflare.api_base, "https://rtc.live.cloudflare.com/v1");
    assert!(config.cloudflare.app().is_none() && config.cloudflare.turn_key().is_none());
    assert_eq!((config.relay.idle, config.relay.slate.size()), (Idle::Unpublish, (1280, 720)));
    assert!(config.notices.is_empty());
}

/// The shape of the file of the application that the relay lives beside.
const DEPLOYMENT: &str = "\
mode: mixer
cameras:
  cam0:
    device: /dev/video0
    resolution: 1920x1080
    gain: .nan
recording: {enabled: on, base_path: /data/recordings}
cloudflare:
  account_id: 0123456789abcdef0123456789abcdef
  calls_app_id: 12345678901234567890123456789012
  calls_api_token: \"canary-token\"
  calls_app_name: r58-guests
guests:
  guest1:
    name: Remote Guest 1
    enabled: true
  guest2:
    name: Gjest på lufta
    enabled: false
    color: red
mediamtx:
  enabled: true
  rtsp_port: 8554
  rtmp_port: 1936
  srt_port: 8890
";

#[test]
fn the_file_of_the_existing_deployment_is_taken_as_it_is() {
    let config = parse(DEPLOYMENT);
    let (app_id, token) = config.cloudflare.app().unwrap();
    assert_eq!((app_id, token.expose().as_str()), ("12345678901234567890123456789012", "canary-token"));
    let guests: Vec<_> = config.guests.iter().map(|guest| (guest.name.as_str(), guest.enabled)).collect();
    assert_eq!(guests, [("Remote Guest 1", true), ("Gjest på lufta", false)]);
    assert_eq!(config.mediamtx.rtmp_port, 1936);
    let guest = GuestId::parse("guest1").unwrap();
    assert_eq!(config.relay.output.for_guest(&guest), "rtmp://127.0.0.1:1936/guest1");
    assert_eq!(
        notices(&config),
        [
            "config.yml:20: guests.guest2.color is not used here",
            "sections that are not used here: mode, cameras, recording"
        ]
    );
}

#[test]
fn keys_that_only_the_application_beside_us_needs_are_accepted_and_change_nothing() {
    let keys = ["account_id", "calls_app_name", "rtsp_port", "srt_port"];
    let without: Vec<_> = DEPLOYMENT.lines().filter(|line| !keys.iter().any(|key| line.contains(key))).collect();
    assert_eq!(without.len() + keys.len(), DEPLOYMENT.lines().count());
    let (with, without) = (parse(DEPLOYMENT), parse(&without.join("\n")));
    assert_eq!((with.cloudflare, with.mediamtx), (without.cloudflare, without.mediamtx));
    assert_eq!(with.notices.len(), without.notices.len(), "none about these keys");
    for key in ["account_id: [1, 2]", "calls_app_name: {a: b}"] {
        assert_eq!(parse(&format!("cloudflare: {{{key}}}\n")), Config::default(), "{key}");
    }
}

#[test]
fn the_short_names_of_the_cloudflare_keys_are_understood() {
    let config = parse("cloudflare: {app_id: app, api_token: token}\n");
    let (app_id, token) = config.cloudflare.app().unwrap();
    assert_eq!((app_id, token.expose().as_str()), ("app", "token"));
}

#[test]
fn half_of_a_pair_of_credentials_is_named() {
    assert_eq!(
        notices(&parse("cloudflare: {calls_app_id: app, turn_api_token: x}\n")),
        [
            "cloudflare.calls_app_id is not used, because cloudflare.calls_api_token is missing",
            "cloudflare.turn_api_token is not used, because cloudflare.turn_token_id is missing",
        ]
    );
}

#[test]
fn the_environment_wins_over_the_file() {
    let config = with_environment(
        "http: {listen: '127.0.0.1:1'}\nrelay: {hold_seconds: 1}\n\
         cloudflare: {calls_app_id: file, calls_api_token: file}\n",
        &[
            ("GUEST_RELAY_HTTP_LISTEN", "[::]:8000"),
            ("GUEST_RELAY_RELAY_HOLD_SECONDS", "30"),
            ("GUEST_RELAY_RTC_CANDIDATES", "203.0.113.7, [2001:db8::1]:9000"),
            ("GUEST_RELAY_LOG_LEVEL", "debug"),
            ("GUEST_RELAY_RELAY_REORDER_MS", ""),
            ("CLOUDFLARE_CALLS_APP_ID", "environment"),
        ],
    )
    .unwrap();
    assert_eq!(config.http.listen.to_string(), "[::]:8000");
    assert_eq!(config.relay.hold, Duration::from_secs(30));
    assert_eq!(config.relay.reorder, Duration::from_millis(400));
    assert_eq!(config.log.level, log::LevelFilter::Debug);
    let candidates: Vec<_> = config.rtc.candidates.iter().map(ToString::to_string).collect();
    assert_eq!(candidates, ["203.0.113.7:8199", "[2001:db8::1]:9000"]);
    let (app_id, token) = config.cloudflare.app().unwrap();
    assert_eq!((app_id, token.expose().as_str()), ("environment", "file"));
}

#[test]
fn each_variable_is_the_key_that_it_stands_for_and_wins_over_it() {
    for (variable, section, key, value, other) in [
        ("GUEST_RELAY_HTTP_LISTEN", "http", "listen", "127.0.0.1:81", "127.0.0.1:82"),
        ("GUEST_RELAY_HTTP_PUBLIC_URL", "http", "public_url", "https://a.example", "https://b.example"),
        ("GUEST_RELAY_HTTP_OFFERS_PER_MINUTE", "http", "offers_per_minute", "7", "8"),
        ("GUEST_RELAY_RTC_LISTEN", "rtc", "listen", "127.0.0.1:81", "127.0.0.1:82"),
        ("GUEST_RELAY_RTC_START_BITRATE_KBPS", "rtc", "start_bitrate_kbps", "700", "800"),
        ("GUEST_RELAY_RTC_MAX_BITRATE_KBPS", "rtc", "max_bitrate_kbps", "2700", "2800"),
        ("GUEST_RELAY_RTC_TOTAL_BITRATE_KBPS", "rtc", "total_bitrate_kbps", "7000", "8000"),
        ("GUEST_RELAY_RTC_STUN_SERVER", "rtc", "stun_server", "none", "stun.example"),
        ("GUEST_RELAY_RELAY_OUTPUT", "relay", "output", "rtmp://a/{guest_id}", "rtmp://b/{guest_id}"),
        ("GUEST_RELAY_RELAY_HOLD_SECONDS", "relay", "hold_seconds", "7", "8"),
        ("GUEST_RELAY_RELAY_REORDER_MS", "relay", "reorder_ms", "70", "80"),
        ("GUEST_RELAY_RELAY_KEYFRAME_INTERVAL_SECONDS", "relay", "keyframe_interval_seconds", "7", "8"),
        ("GUEST_RELAY_RELAY_IDLE", "relay", "idle", "slate", "unpublish"),
        ("GUEST_RELAY_RELAY_STATE_FILE", "relay", "state_file", "/a", "/b"),
        ("GUEST_RELAY_LOG_LEVEL", "log", "level", "trace", "error"),
        ("CLOUDFLARE_CALLS_APP_ID", "cloudflare", "calls_app_id", "a", "b"),
        ("CLOUDFLARE_CALLS_APP_ID", "cloudflare", "app_id", "a", "b"),
        ("CLOUDFLARE_CALLS_API_TOKEN", "cloudflare", "calls_api_token", "a", "b"),
        ("CLOUDFLARE_CALLS_API_TOKEN", "cloudflare", "api_token", "a", "b"),
        ("CLOUDFLARE_TURN_TOKEN_ID", "cloudflare", "turn_token_id", "a", "b"),
        ("CLOUDFLARE_TURN_API_TOKEN", "cloudflare", "turn_api_token", "a", "b"),
    ] {
        let file = |value: &str| format!("{section}: {{{key}: '{value}'}}\n");
        let wanted = parse(&file(value));
        assert_ne!(wanted, Config::default(), "{variable}");
        assert_eq!(with_environment("", &[(variable, value)]).unwrap(), wanted, "{variable}");
        assert_eq!(with_environment(&file(other), &[(variable, value)]).unwrap(), wanted, "{variable} over {key}");
        // One that is empty is none.
        assert_eq!(with_environment(&file(other), &[(variable, " ")]).unwrap(), parse(&file(other)), "{variable}");
    }
}

#[test]
fn problems_in_the_environment_name_the_variable_and_do_not_repeat_a_token() {
    assert_eq!(
        with_environment("", &[("CLOUDFLARE_TURN_API_TOKEN", "canary token")]).unwrap_err(),
        "environment CLOUDFLARE_TURN_API_TOKEN: cloudflare.turn_api_token: the value holds white space or characters \
         outside ASCII; copy it again from the Cloudflare dashboard"
    );
    assert_eq!(
        with_environment("", &[("GUEST_RELAY_RTC_MAX_BITRATE_KBPS", "2.5M")]).unwrap_err(),
        "environment GUEST_RELAY_RTC_MAX_BITRATE_KBPS: rtc.max_bitrate_kbps: '2.5M' is not a whole number; write a \
         whole number of kbit/s from 100 to 50000"
    );
}

#[test]
fn every_problem_names_place_key_and_remedy_in_one_line() {
    let text = "\
http:
  listen: 8000
  port: 8000
rtc:
  candidates:
    - 192.168.1.58
    - guest.example.org
    - 0.0.0.0
  start_bitrate_kbps: fast
  max_bitrate_kbps: 9
relay:
  output: rtsp://127.0.0.1/{guest_id}
  hold_seconds: -1
log:
  level: [info]
guests:
  guest 1: {}
  guest2: {enabled: perhaps}
mediamtx: {rtmp_port: 0}
cloudflare: {api_base: 'http://example.org'}
";
    assert_eq!(
        problems(text),
        [
            "config.yml:2: http.listen: '8000' is not an address with a port; write 0.0.0.0:8000 for every IPv4 \
             address, or [::]:8000 for IPv6 too",
            "config.yml:3: http.port: this key does not exist; remove it; the keys of 'http' are listen, \
             public_url, offers_per_minute",
            "config.yml:7: rtc.candidates: 'guest.example.org' is not an address that guests can reach; write an IP \
             address such as 203.0.113.7, with :port when it differs from rtc.listen",
            "config.yml:8: rtc.candidates: '0.0.0.0' is not an address that guests can reach; write an IP address such \
             as 203.0.113.7, with :port when it differs from rtc.listen",
            "config.yml:9: rtc.start_bitrate_kbps: 'fast' is not a whole number; write a whole number of kbit/s from \
             100 to 50000",
            "config.yml:10: rtc.max_bitrate_kbps: 9 is out of range; write a whole number of kbit/s from 100 to 50000",
            "config.yml:12: relay.output: this is no rtmp:// address; write an address such as \
             rtmp://127.0.0.1:1935/{guest_id}",
            "config.yml:13: relay.hold_seconds: '-1' is not a whole number; write a whole number of seconds from 0 to \
             600",
            "config.yml:15: log.level: this is not a single value; write 'level: value' on one line",
            "config.yml:17: guests.guest 1: a guest id holds only letters, digits, '_' and '-'; character 6 is none of \
             them; rename it, for example to guest1",
            "config.yml:18: guests.guest2.enabled: 'perhaps' is neither true nor false; write true or false",
            "config.yml:19: mediamtx.rtmp_port: '0' is no port; write a port number from 1 to 65535",
            "config.yml:20: cloudflare.api_base: this is neither an https:// address nor one of this host; write an \
             address such as https://rtc.live.cloudflare.com/v1",
        ]
    );
}

#[test]
fn the_public_address_is_an_https_origin() {
    for (text, taken) in [
        ("https://recorder.example.org", Some("https://recorder.example.org")),
        ("https://recorder.example.org:8443/", Some("https://recorder.example.org:8443")),
        ("http://recorder.example.org", None),
        ("https://recorder.example.org/guest_join", None),
        ("https://user@example.org", None),
        ("https://", None),
    ] {
        let config = Config::parse(&format!("http: {{public_url: '{text}'}}"), "config.yml", &|_| None);
        assert_eq!(config.ok().and_then(|config| config.http.public_url).as_deref(), taken, "{text}");
    }
}

#[test]
fn text_that_is_no_configuration_is_one_problem() {
    for (text, beginning) in [
        ("just words\n", "config.yml:1: this is not a configuration; begin with a section"),
        ("- a\n- b\n", "config.yml:1: this is not a configuration; begin with a section"),
        ("http:\n  listen: [\n", "config.yml:"),
        ("http: 8000\n", "config.yml:1: http: this is not a section; write 'http:' and indented keys below it"),
        ("http: {}\nhttp: {}\n", "config.yml:2: this is not valid YAML"),
        ("a: *nowhere\n", "config.yml:1: this is not valid YAML"),
    ] {
        let problems = problems(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(beginning), "{problems:?}");
    }
}

#[test]
fn an_output_without_guest_id_is_refused_while_several_guests_are_open() {
    let one = "relay: {output: 'rtmp://h/live'}\nguests: {a: {}, b: {enabled: false}}\n";
    assert_eq!(parse(one).relay.output.to_string(), "rtmp://h/live");
    assert_eq!(
        problems("relay: {output: 'rtmp://h/live'}\n"),
        [
            "config.yml:1: relay.output: several guests would be published at the same address; put {guest_id} into the path"
        ]
    );
}

#[test]
fn credentials_in_the_output_are_used_and_never_shown() {
    let guest = GuestId::parse("guest1").unwrap();
    let template = OutputTemplate::parse("rtmp://user:canary@h:1935/{guest_id}?user=u&pass=canary").unwrap();
    assert_eq!(template.for_guest(&guest), "rtmp://user:canary@h:1935/guest1?user=u&pass=canary");
    assert_eq!(template.to_string(), "rtmp://***@h:1935/{guest_id}?***");
    assert_eq!(format!("{template:?}"), "OutputTemplate(rtmp://***@h:1935/{guest_id}?***)");
    for text in
        ["", "rtmp://", "rtmp:///x", "rtmp://h", "rtmp://h/", "rtmp://h/?x", "rtmp://{guest_id}/x", "rtmp://h/a b"]
    {
        assert!(OutputTemplate::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn neither_the_report_nor_debug_output_shows_a_token() {
    let text = DEPLOYMENT.to_owned() + "relay: {output: 'rtmp://h/{guest_id}?pass=canary'}\n";
    let config = parse(&text);
    let report = config.check();
    assert!(report.starts_with("The configuration is valid.\n"), "{report}");
    assert!(report.contains("guests.guest2") && report.contains("Gjest på lufta (closed)"), "{report}");
    for shown in [report, format!("{config:?}"), format!("{config:#?}")] {
        assert!(!shown.contains("canary"), "{shown}");
    }
}

#[test]
fn a_start_bitrate_above_the_maximum_is_lowered_with_a_notice() {
    let config = parse("rtc: {start_bitrate_kbps: 3000, max_bitrate_kbps: 2000}\n");
    assert_eq!((config.rtc.start_bitrate_kbps, config.rtc.max_bitrate_kbps), (2000, 2000));
    assert_eq!(config.notices.len(), 1);
}

#[test]
fn a_named_file_that_is_missing_is_an_error_and_a_directory_is_no_file() {
    for path in ["no/such/file.yml", "."] {
        let error = Config::load(Some(Path::new(path)), &|_| None).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{path}: the file cannot be read: ")), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}

#[test]
fn a_file_with_a_secret_that_others_may_read_is_told() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("secrets-{}.yml", std::process::id()));
    std::fs::write(&path, "cloudflare: {calls_app_id: a, calls_api_token: canary}\n").unwrap();
    let noticed = |mode: u32, environment: &dyn Fn(&str) -> Option<String>| {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        notices(&Config::load(Some(&path), environment).unwrap())
    };
    let open = noticed(0o644, &|_| None);
    assert_eq!(open.len(), 1);
    assert!(open[0].ends_with(&format!("(mode 0644); run: chmod 600 {}", path.display())), "{open:?}");
    assert!(noticed(0o600, &|_| None).is_empty());
    let given = |name: &str| (name == "CLOUDFLARE_CALLS_API_TOKEN").then(|| "x".to_owned());
    assert!(noticed(0o644, &given).is_empty());
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn without_a_file_the_defaults_hold_and_a_notice_says_so() {
    // Tests run in the package's directory, which holds the example only.
    assert!(!Path::new("config.yml").exists(), "a config.yml here would be read by this test");
    let config = Config::load(None, &|_| None).unwrap();
    assert_eq!(config.guests, Config::default().guests);
    assert_eq!(notices(&config), ["no config.yml here, the defaults hold: guests guest1, guest2"]);
}

#[test]
fn the_state_file_stands_in_systemds_directory_unless_the_file_or_the_environment_says_otherwise() {
    let state_file = |text: &str, variables: &[(&str, &str)]| {
        let config = with_environment(text, variables).unwrap();
        let path = config.relay.state_file;
        path.map(|path| path.display().to_string())
    };
    let systemd = [("STATE_DIRECTORY", "/var/lib/guest-relay:/var/lib/other")];
    let default = "/var/lib/guest-relay/guest-relay.state.json";
    assert_eq!(state_file("", &systemd).as_deref(), Some(default));
    let named = "relay: {state_file: /data/state.json}";
    assert_eq!(state_file(named, &systemd).as_deref(), Some("/data/state.json"));
    assert_eq!(state_file("relay: {state_file: none}", &systemd), None);
    let by_variable = [("GUEST_RELAY_RELAY_STATE_FILE", "here.json")];
    assert_eq!(state_file(named, &by_variable).as_deref(), Some("here.json"));
    let refused = with_environment("relay: {state_file: /var/lib/}", &[]).unwrap_err();
    assert!(refused.contains("relay.state_file: this is no file name"), "{refused}");
}

#[test]
fn the_form_of_the_pull_is_1_or_2() {
    for (text, form) in [("1", PullForm::SfuOffers), ("2", PullForm::WeOffer)] {
        let config = parse(&format!("cloudflare: {{pull_form: {text}}}"));
        assert_eq!(config.cloudflare.pull_form, form);
    }
    let refused = with_environment("cloudflare: {pull_form: 3}", &[]).unwrap_err();
    assert!(refused.contains("cloudflare.pull_form: there is no such form"), "{refused}");
}

#[test]
fn a_slate_is_read_from_its_file_and_one_that_is_no_picture_says_why() {
    let folder = std::env::temp_dir().join(format!("guest-relay-slate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    // What x264 makes of one picture: SPS, PPS, SEI, IDR.
    let good = write("good.h264", include_bytes!("data/slate_320x240.h264"));
    let config = parse(&format!("relay: {{idle: slate, slate_file: '{good}'}}"));
    assert_eq!((config.relay.idle, config.relay.slate.size()), (Idle::Slate, (320, 240)));
    let bad = write("bad.h264", b"GIF89a");
    let absent = folder.join("absent").display().to_string();
    for (file, why) in [
        (bad.as_str(), "the file is no slate: no H.264 stream with start codes (Annex B)"),
        (absent.as_str(), "the file cannot be read: No such file or directory (os error 2)"),
        ("/dev/zero", "this is not a file"),
    ] {
        let expected = format!(
            "config.yml:1: relay.slate_file: {why}; write the path of an H.264 file (Annex B) with one IDR picture; README \
             shows how to make one"
        );
        assert_eq!(problems(&format!("relay: {{slate_file: {file}}}")), [expected]);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
