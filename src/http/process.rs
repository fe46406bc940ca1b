//! What the kernel says of this process: `/proc/self` in, numbers out. What cannot be read is `None`.
//!
//! Nothing outside of `/proc/self` is read: the unit's `ProcSubset=pid` hides all of it, the time of the boot in
//! `/proc/stat` and `/proc/uptime` among it. So the time of the start is the clock's when the daemon began.

use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Clock ticks a second in /proc (`USER_HZ`), the same on every Linux architecture we run on.
const TICKS_PER_SECOND: u64 = 100;

/// When the process began; the clock as it was then, whatever it was set to since.
static STARTED: OnceLock<Option<Duration>> = OnceLock::new();

/// Seconds since 1970 at the first call, which is to be one of the first things that the process does.
pub fn started() -> Option<f64> {
    let since_1970 = STARTED.get_or_init(|| SystemTime::now().duration_since(UNIX_EPOCH).ok());
    since_1970.map(|time| time.as_secs_f64())
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Process {
    /// User and system time of all threads.
    pub cpu: Option<Duration>,
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Resident memory that is no file's.
    pub anonymous_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// And how many there may be.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Seconds since 1970: [`started`].
    pub started: Option<f64>,
}

impl Process {
    /// As it is now.
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut process = Self::parse(&text("/proc/self/status"), &text("/proc/self/stat"), &text("/proc/self/limits"));
        process.started = started();
        process.open_fds = fs::read_dir("/proc/self/fd").ok().map(|entries| {
            // One of them is the directory that is being read.
            u64::try_from(entries.count()).unwrap_or(u64::MAX).saturating_sub(1)
        });
        process
    }

    /// From the texts of proc(5): `status`, `stat` and `limits` of the process.
    pub fn parse(status: &str, stat: &str, limits: &str) -> Self {
        let status = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
            line.split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        let kib = |field| status(field).map(|kib| kib.saturating_mul(1024));
        // The second field is a name in brackets, in which anything may stand. `field` counts as proc(5) does.
        let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
        let stat = |field: usize| after_name.split_ascii_whitespace().nth(field.checked_sub(3)?)?.parse::<u64>().ok();
        let ticks = |ticks: u64| Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND));
        let max_fds = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        Self {
            cpu: stat(14).zip(stat(15)).map(|(user, system)| ticks(user.saturating_add(system))),
            resident_bytes: kib("VmRSS"),
            anonymous_bytes: kib("RssAnon"),
            open_fds: None,
            max_fds: max_fds.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()),
            threads: status("Threads"),
            started: None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// As Linux 6.1 wrote them for `cat`, shortened; the name is one that a careless reader trips over.
    #[test]
    fn the_kernels_texts_are_read() {
        let status = "Name:\tcat\nVmRSS:\t    6420 kB\nRssAnon:\t     912 kB\nThreads:\t3\n";
        let stat = "4711 (a) b (c) S 1 4711 4711 0 -1 4194560 900 0 3 0 1234 56 0 0 20 0 3 0 98765 9000000 1605 0\n";
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024  524288  files\n";
        let process = Process::parse(status, stat, limits);
        assert_eq!(
            process,
            Process {
                cpu: Some(Duration::from_millis(12_900)),
                resident_bytes: Some(6_574_080),
                anonymous_bytes: Some(933_888),
                open_fds: None,
                max_fds: Some(1024),
                threads: Some(3),
                started: None,
            }
        );
    }

    #[test]
    fn what_is_missing_is_none() {
        assert_eq!(Process::parse("", "", ""), Process::default());
        assert_eq!(Process::parse("VmRSS:\n", "1 (x) S", "Max open files  unlimited\n"), Process::default());
    }

    #[test]
    fn this_process_is_found() {
        let process = Process::read();
        assert!(process.resident_bytes > Some(100_000) && process.threads > Some(0) && process.open_fds > Some(2));
        assert!(process.cpu.is_some() && process.max_fds > Some(0));
    }

    #[test]
    fn the_start_is_the_clock_at_the_first_call_and_stays() {
        let now = || Some(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64());
        let first = started();
        assert!(first > Some(1_600_000_000.0) && first <= now());
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(started(), first);
        assert_eq!(Process::read().started, first);
    }
}
