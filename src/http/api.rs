//! What producers and monitoring read: `GET /api/guests` (JSON) and `GET /healthz` (plain text); and what the guest
//! page needs to know before it joins: `GET /api/page` (JSON).

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::backend::{Backend, ClientInfo, GuestStatus, Health, MediaPath};
use super::calls;
use super::message::Response;
use super::router::Site;
use crate::guest::id::GuestId;

/// `{"guests": […]}`, in the order of the configuration.
pub(super) async fn guests<B: Backend>(backend: &B) -> Response {
    #[derive(Serialize)]
    struct Guests {
        guests: Vec<GuestStatus>,
    }
    Response::json(200, &Guests { guests: backend.guests().await })
}

/// `{"public_url": …, "max_bitrate_kbps": …, "path": …, "calls_configured": …, "guests": [{"id", "name", "enabled"}]}`;
/// `path` is the way the media of this client should try first.
pub(super) async fn page_facts<B: Backend>(site: &Site<B>, client: &ClientInfo) -> Response {
    #[derive(Serialize)]
    struct Slot {
        id: GuestId,
        name: String,
        enabled: bool,
    }
    #[derive(Serialize)]
    struct Facts<'a> {
        public_url: Option<&'a str>,
        max_bitrate_kbps: u32,
        path: MediaPath,
        calls_configured: bool,
        guests: Vec<Slot>,
    }
    let slot = |guest: GuestStatus| Slot { id: guest.id, name: guest.name, enabled: guest.enabled };
    let facts = Facts {
        public_url: site.public_url.as_deref(),
        max_bitrate_kbps: site.max_bitrate_kbps,
        path: calls::path_for(&site.backend, client),
        calls_configured: site.backend.calls_configured(),
        guests: site.backend.guests().await.into_iter().map(slot).collect(),
    };
    Response::json(200, &facts)
}

/// 200 `ok`, or 503 with the reason.
pub(super) async fn health<B: Backend>(backend: &B) -> Response {
    let response = match backend.health().await {
        Health::Healthy => Response::text(200, "ok"),
        Health::Unhealthy(reason) => Response::text(503, reason),
    };
    response.with("cache-control", "no-store")
}

/// Writes a moment as `2026-02-28T23:59:59Z` (RFC 3339, whole seconds), or null.
pub(super) fn serialize_utc<S: Serializer>(moment: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match moment.and_then(|moment| moment.duration_since(UNIX_EPOCH).ok()) {
        Some(since_epoch) => serializer.serialize_str(&utc(since_epoch.as_secs())),
        None => serializer.serialize_none(),
    }
}

/// Calendar date of a Unix time. Counts in years that begin on 1 March, so that the leap day is the last of a year.
fn utc(unix_seconds: u64) -> String {
    let (days, second_of_day) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::utc;

    // Expected values: `date -u -d @N +%FT%TZ` of GNU coreutils.
    #[test]
    fn moments_are_written_as_gnu_date_writes_them() {
        for (unix_seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (1_767_225_600, "2026-01-01T00:00:00Z"),
            (1_795_360_399, "2026-11-22T15:13:19Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(unix_seconds), text);
        }
    }
}
