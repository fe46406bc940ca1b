//! `bench count|time|allocations path|open|bare gcm|cm FILE.rtpdump`: a recording, protected as a browser would, through the
//! daemon's packet path, through its SRTP alone, or through webrtc-srtp alone.
//!
//! `bench wake-ups SECONDS`: the CPU seconds of a minute that a thread is charged for nothing but waking up as often as a guest's
//! media comes and writing a few bytes to a local TCP connection.
//!
//! The first quarter of the recording warms up, the rest is measured. `count` runs it once, for callgrind to count; `time`
//! prints the median of many runs in ns per packet; `allocations` those of the measured part. All print the number of
//! packets first. tests/scripts/bench.sh makes the table; tests/bench/whole.sh and tests/scripts/size.sh ask for the wake-ups.

#![forbid(unsafe_code)]

mod path;
mod recording;
mod wake_up;

use std::error::Error;
use std::time::Instant;

use guest_relay::rtc::srtp::SrtpProfile;

use path::{Bare, Open, Path, Protected};

const USAGE: &str = "usage: bench count|time|allocations path|open|bare gcm|cm FILE.rtpdump, or bench wake-ups SECONDS";
const TIMED_RUNS: usize = 101;

/// One run: the measured part returns bytes, so that nothing of it can be left out.
enum Subject {
    Path(Box<Path>),
    Open(Box<Open>),
    Bare(Bare),
}

impl Subject {
    fn warmed_up(name: &str, profile: SrtpProfile, packets: &[Protected]) -> Result<Self, Box<dyn Error>> {
        match name {
            "path" => {
                let mut path = Path::new(profile)?;
                path.warm_up(packets);
                Ok(Self::Path(Box::new(path)))
            }
            "open" => {
                let mut open = Open::new(profile)?;
                open.run(packets);
                Ok(Self::Open(Box::new(open)))
            }
            "bare" => {
                let mut bare = Bare::new(profile)?;
                bare.run(packets);
                Ok(Self::Bare(bare))
            }
            _ => Err(USAGE.into()),
        }
    }

    /// What is measured, without the warm-up. Its name is what callgrind is told to count.
    #[inline(never)]
    fn run(&mut self, packets: &[Protected]) -> usize {
        match self {
            Self::Path(path) => path.run(packets),
            Self::Open(open) => open.run(packets),
            Self::Bare(bare) => bare.run(packets),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (what, subject, profile, file) = match arguments.as_slice() {
        [what, subject, profile, file] => (what, subject, profile, file),
        [what, seconds] if what == "wake-ups" => {
            let seconds = seconds.parse()?;
            let cost = wake_up::cost(seconds)?;
            println!("{:.3}", cost.as_secs_f64() * 60.0 / f64::from(seconds));
            return Ok(());
        }
        _ => return Err(USAGE.into()),
    };
    let profile = match profile.as_str() {
        "gcm" => SrtpProfile::AeadAes128Gcm,
        "cm" => SrtpProfile::Aes128CmSha1_80,
        _ => return Err(USAGE.into()),
    };
    let packets = path::protect(&recording::read(&std::fs::read(file)?)?, profile)?;
    let (warm_up, measured) = packets.split_at(packets.len() / 4);
    println!("{}", measured.len());
    match what.as_str() {
        "count" => {
            let bytes = Subject::warmed_up(subject, profile, warm_up)?.run(measured);
            assert!(bytes > 0, "something came out");
        }
        "time" => {
            let mut nanos = Vec::with_capacity(TIMED_RUNS);
            for _ in 0..TIMED_RUNS {
                let mut run = Subject::warmed_up(subject, profile, warm_up)?;
                let start = Instant::now();
                assert!(run.run(measured) > 0, "something came out");
                nanos.push(start.elapsed().as_nanos());
            }
            nanos.sort_unstable();
            let median = nanos.get(TIMED_RUNS / 2).copied().unwrap_or_default();
            println!("{}", median / measured.len().max(1) as u128);
        }
        "allocations" => {
            let mut run = Subject::warmed_up(subject, profile, warm_up)?;
            let counted = allocation_counter::measure(|| {
                assert!(run.run(measured) > 0, "something came out");
            });
            println!("{}", counted.count_total);
        }
        _ => return Err(USAGE.into()),
    }
    Ok(())
}
