//! Moments as people and programs read them: RFC 3339, in UTC. A time in, text out; no time zones, no leap seconds.

use std::time::{SystemTime, UNIX_EPOCH};

/// `2026-02-28T23:59:59Z`; `None` before 1970.
pub fn seconds(moment: SystemTime) -> Option<String> {
    let since_epoch = moment.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{}Z", date_time(since_epoch.as_secs())))
}

/// `2026-02-28T23:59:59.042Z`; a clock before 1970 reads as 1970.
pub fn millis(moment: SystemTime) -> String {
    let since_epoch = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:03}Z", date_time(since_epoch.as_secs()), since_epoch.subsec_millis())
}

fn date_time(unix_seconds: u64) -> String {
    let (year, month, day) = date(unix_seconds / 86_400);
    let second = unix_seconds % 86_400;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60)
}

/// Year, month and day of a day since 1970. Counts in years that begin on 1 March, so that the leap day is the last of a
/// year.
fn date(unix_days: u64) -> (u64, u64, u64) {
    let days = unix_days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
            assert_eq!(seconds(UNIX_EPOCH + Duration::from_secs(unix_seconds)).as_deref(), Some(text));
        }
    }

    #[test]
    fn milliseconds_have_three_digits_and_a_clock_before_1970_reads_as_1970() {
        assert_eq!(millis(UNIX_EPOCH + Duration::from_millis(1_767_225_600_007)), "2026-01-01T00:00:00.007Z");
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!((seconds(before), millis(before).as_str()), (None, "1970-01-01T00:00:00.000Z"));
    }
}
