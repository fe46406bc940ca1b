//! `ingest --listen 127.0.0.1:1935 [--flv-dir DIR]`: a stand-in for MediaMTX's RTMP port.
//!
//! Prints a line a second for each path, says why it refused somebody, and what a publication had been once it is over.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ingest::{Connection, Ingest, Options, Stage};

const USAGE: &str = "usage: ingest [--listen 127.0.0.1:1935] [--flv-dir DIR]";

fn main() -> ExitCode {
    let mut listen = "127.0.0.1:1935".to_owned();
    let mut flv_dir = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--listen", Some(address)) => listen = address,
            ("--flv-dir", Some(dir)) => flv_dir = Some(PathBuf::from(dir)),
            ("--help" | "-h", _) => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let options =
        Options { keep_frames: false, flv_dir, on_event: Some(|event| println!("{event}")), ..Options::default() };
    let ingest = match Ingest::bind(&listen, options) {
        Ok(ingest) => ingest,
        Err(error) => {
            eprintln!("ingest: cannot listen on {listen}: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("listening on rtmp://{}", ingest.addr());
    let mut before = HashMap::new();
    let mut told = HashSet::new();
    loop {
        let since = Instant::now();
        std::thread::sleep(Duration::from_secs(1));
        let seconds = since.elapsed().as_secs_f64();
        ingest.inspect(|connections| {
            for (id, connection) in connections.iter().enumerate() {
                if connection.path.is_none() {
                    continue;
                }
                if connection.stage == Stage::Ended {
                    if told.insert(id) {
                        println!("{}", ledger(connection));
                    }
                } else {
                    let now = Counters::of(connection);
                    let last = before.insert(id, now).unwrap_or_default();
                    println!("{}", line(connection, now, last, seconds));
                }
            }
        });
    }
}

#[derive(Clone, Copy, Default)]
struct Counters {
    video_frames: u64,
    audio_packets: u64,
    bytes: u64,
}

impl Counters {
    fn of(connection: &Connection) -> Counters {
        Counters {
            video_frames: connection.video.as_ref().map_or(0, |track| track.frames),
            audio_packets: connection.audio.as_ref().map_or(0, |track| track.frames),
            bytes: connection.bytes_read,
        }
    }
}

fn line(connection: &Connection, now: Counters, last: Counters, seconds: f64) -> String {
    let rate = |now: u64, last: u64| f64::from(u32::try_from(now - last).unwrap_or(u32::MAX)) / seconds;
    let path = connection.path.as_deref().unwrap_or_default();
    let state = if connection.stage == Stage::Ready { "ready" } else { "detecting" };
    let size = connection
        .video
        .as_ref()
        .map_or_else(|| "no video".into(), |video| format!("{}x{}", video.width, video.height));
    let violations = match connection.violations.len() {
        0 => String::new(),
        count => format!(", {count} VIOLATIONS"),
    };
    format!(
        "{path}: {state}, {size}, {:.1} fps, {:.0} kbit/s, audio {:.1} packets/s{violations}",
        rate(now.video_frames, last.video_frames),
        rate(now.bytes, last.bytes) * 8.0 / 1000.0,
        rate(now.audio_packets, last.audio_packets),
    )
}

/// What a publication was, from its beginning to its end.
fn ledger(connection: &Connection) -> String {
    let path = connection.path.as_deref().unwrap_or_default();
    let video = connection.video.clone().unwrap_or_default();
    let audio = connection.audio.clone().unwrap_or_default();
    format!(
        "{path}: was {} pictures ({} keyframes, {} sequence headers), {} Opus packets ({} audio starts), {} violations",
        video.frames,
        video.keyframes,
        video.sequence_headers,
        audio.frames,
        audio.sequence_starts,
        connection.violations.len(),
    )
}
