//! The text of `--check-config`: every value in force, secrets as `***`.

use std::fmt::Write;

use guest_relay_muxer::Still;

use super::values::Config;
use crate::sfu::pull::PullForm;

pub(super) fn report(config: &Config) -> String {
    let mut text = String::from("The configuration is valid.\n\n");
    let mut line = |key: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key:<34}{value}");
    };
    line("http.listen", &config.http.listen.to_string());
    line("http.public_url", config.http.public_url.as_deref().unwrap_or("none"));
    line("http.offers_per_minute", &config.http.offers_per_minute.to_string());
    line("rtc.listen", &config.rtc.listen.to_string());
    let candidates: Vec<_> = config.rtc.candidates.iter().map(ToString::to_string).collect();
    line("rtc.candidates", &if candidates.is_empty() { "none".to_owned() } else { candidates.join(", ") });
    line("rtc.start_bitrate_kbps", &config.rtc.start_bitrate_kbps.to_string());
    line("rtc.max_bitrate_kbps", &config.rtc.max_bitrate_kbps.to_string());
    let total = config.rtc.total_bitrate_kbps;
    line("rtc.total_bitrate_kbps", &total.map_or_else(|| "0".to_owned(), |total| total.to_string()));
    line("rtc.stun_server", config.rtc.stun_server.as_deref().unwrap_or("none"));
    line("relay.output", &config.relay.output.to_string());
    line("relay.hold_seconds", &config.relay.hold.as_secs().to_string());
    line("relay.reorder_ms", &config.relay.reorder.as_millis().to_string());
    let keyframe_interval = config.relay.keyframe_interval.unwrap_or_default().as_secs();
    line("relay.keyframe_interval_seconds", &keyframe_interval.to_string());
    line("relay.idle", config.relay.idle.as_str());
    let (width, height) = config.relay.slate.size();
    let slate = if *config.relay.slate == Still::black() { "black" } else { "of its own" };
    line("relay.slate_file", &format!("{slate}, {width}x{height}"));
    let state_file = config.relay.state_file.as_deref();
    line("relay.state_file", &state_file.map_or_else(|| "none".into(), |path| path.display().to_string()));
    line("log.level", &config.log.level.to_string().to_lowercase());
    for guest in &config.guests {
        let state = if guest.enabled { "" } else { " (closed)" };
        line(&format!("guests.{}", guest.id), &format!("{}{state}", guest.name));
    }
    let cloudflare = &config.cloudflare;
    line("cloudflare", if cloudflare.app().is_some() { "app and token given" } else { "not configured" });
    line("cloudflare.api_base", &cloudflare.api_base);
    let form = match cloudflare.pull_form {
        PullForm::SfuOffers => "1 (the SFU offers)",
        PullForm::WeOffer => "2 (we offer)",
    };
    line("cloudflare.pull_form", form);
    line("cloudflare (TURN)", if cloudflare.turn_key().is_some() { "key and token given" } else { "not configured" });
    for notice in &config.notices {
        let _ = writeln!(text, "\nNote: {notice}");
    }
    text
}
