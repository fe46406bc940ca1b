//! `flv_publish [--jump MS] FILE.flv rtmp://host:port/app/name`: publishes a recording (H.264 + Opus) in real time with the
//! daemon's RTMP client. Used to try the client against other people's servers; prints what happens. `--jump` lets the
//! media time leap by that much at the second keyframe.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use guest_relay::rtmp::{Publisher, State, Target};
use guest_relay_muxer::{Frame, MediaTime};

#[path = "../it/rtmp/driver.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod driver;

use driver::Driver;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flv_publish: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (jump, file, url) = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--jump", jump, file, url] => (jump.parse().map_err(|_| "--jump takes milliseconds")?, *file, *url),
        [file, url] => (0, *file, *url),
        _ => {
            return Err("usage: flv_publish [--jump MS] FILE.flv rtmp://host:port/app/name".into());
        }
    };
    let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    let tags = driver::flv_tags(&bytes).map_err(|error| format!("{file}: {error}"))?;
    let target = Target::parse(url).map_err(|error| error.to_string())?;
    let now = Instant::now();
    let mut driver = Driver::new(Publisher::new(target, 1, now), now);
    driver.publisher.start(now);

    wait(&mut driver, Duration::from_secs(10), |driver| driver.publisher.state() == State::Publishing)?;
    let start = Instant::now();
    let second_key = tags.iter().filter(|(tag, _)| tag.frame == Frame::Keyframe).nth(1).map(|(tag, _)| tag.dts);
    for (tag, body) in &tags {
        let due = start + Duration::from_micros(u64::try_from((tag.dts - MediaTime::ZERO).micros()).unwrap_or(0));
        while Instant::now() < due {
            driver.now = Instant::now();
            driver.turn();
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut tag = *tag;
        if second_key.is_some_and(|at| tag.dts >= at) {
            tag.dts = tag.dts + MediaTime::from_millis(jump);
        }
        driver.push(tag, body);
        driver.turn();
    }
    driver.publisher.stop(Instant::now());
    wait(&mut driver, Duration::from_secs(3), |driver| driver.publisher.state() == State::Stopped)?;
    println!("{:?}\n{:?}", driver.events, driver.publisher.stats());
    Ok(())
}

fn wait(driver: &mut Driver, limit: Duration, reached: impl Fn(&Driver) -> bool) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    while !reached(driver) {
        if Instant::now() > deadline {
            return Err(format!("not reached: {:?}, events {:?}", driver.publisher, driver.events));
        }
        driver.now = Instant::now();
        driver.turn();
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
