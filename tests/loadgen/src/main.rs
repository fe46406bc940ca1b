//! `loadgen`: publishes recorded media over WHIP, records browsers, makes networks bad.

#![forbid(unsafe_code)]

mod args;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use args::Args;
use loadgen::Driver;
use loadgen::clip::Clip;
use loadgen::guest::GuestConfig;
use loadgen::hostile;
use loadgen::latency::{self, Delays};
use loadgen::proxy::Proxy;
use loadgen::publisher::{Finished, Options, Publisher};
use loadgen::receiver::ReceiverConfig;
use loadgen::record::{RecordOptions, Server};

const USAGE: &str = "\
loadgen publish --url http://HOST:PORT/whip/guest1 [--guests N] [--guest-prefix guest] [--threads N] [--clip FILE.rtpdump]
                [--seconds S] [--vanish | --leave] [--hostile COUNT] [--estimate] [NETWORK]
    Replays the clip in a loop (built in: Chromium's 720p30, 2.4 Mbit/s). With --guests the last part of the URL's path
    becomes guest1..N. Ends with DELETE after S seconds, else with the process; --vanish ends without a word, --leave
    as a page that closes, whose guest may return.
    --hostile sends so many hostile datagrams from each guest's own socket. --estimate runs bandwidth estimation.
loadgen latency --listen HOST:PORT --url http://HOST:PORT/whip/guest1 [--guests N] [--threads N] --seconds S
    Serves RTMP on --listen, publishes to the relay at --url, which publishes there, and says how long pictures took.
loadgen hostile --to HOST:PORT [--count 200000] [--seed S]
    Sends hostile datagrams from other sockets.
loadgen proxy --listen HOST:PORT --to HOST:PORT [--seconds S] [NETWORK]
    Forwards UDP both ways through a bad network.
loadgen record --listen HOST:PORT --out NAME --seconds S [--skip S] [--keyframe-every S] [--start-kbps N]
    Serves a page that publishes camera and microphone to it, and records what comes as NAME.rtpdump and NAME.sdp.
NETWORK, for each direction: --loss 3% --burst LENGTH --delay-ms N --jitter-ms N --reorder 1% --duplicate 1%
                --rate-kbps N --queue-ms N --blackout AT:SECONDS (repeatable) --seed S
";

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let args = Args::new(arguments.collect());
    let outcome = match command.as_str() {
        "publish" => publish(args),
        "latency" => latency(args),
        "hostile" => hostile(args),
        "proxy" => proxy(args),
        "record" => record(args),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen {command}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn publish(mut args: Args) -> Outcome {
    let url: String = args.required("--url")?;
    let guests: Option<u32> = args.value("--guests")?;
    let prefix: String = args.value("--guest-prefix")?.unwrap_or_else(|| "guest".to_owned());
    let threads: usize = args.value("--threads")?.unwrap_or(1);
    let clip = match args.value::<PathBuf>("--clip")? {
        Some(path) => Clip::load(&path)?,
        None => Clip::chromium_720p(),
    };
    let length = args.seconds("--seconds")?;
    let (vanish, leave) = (args.flag("--vanish"), args.flag("--leave"));
    let hostile: Option<u64> = args.value("--hostile")?;
    let seed = args.value("--seed")?.unwrap_or(1);
    let guest = GuestConfig { estimate_bandwidth: args.flag("--estimate"), ..GuestConfig::default() };
    let network = args.impairments()?;
    args.finish()?;

    let urls = guest_urls(url, guests, &prefix)?;
    println!("seed {seed}");
    let drivers: Vec<Driver> = (0..threads.max(1)).map(|_| Driver::start()).collect();
    let mut publishers = Vec::new();
    for ((url, driver), seed) in urls.iter().zip(drivers.iter().cycle()).zip(seed..) {
        let options = Options {
            guest: guest.clone(),
            outgoing: network.clone(),
            incoming: network.clone(),
            seed,
            keep_sent: false,
            ..Options::default()
        };
        let name = url.rsplit('/').next().unwrap_or_default();
        publishers.push((name, Publisher::connect_with(driver, url, &clip, &options)?));
    }
    let start = Instant::now();
    if let Some(count) = hostile {
        thread::sleep(Duration::from_secs(1));
        publishers.iter().for_each(|(_, publisher)| publisher.send_hostile(count));
    }
    let mut next = start;
    while length.is_none_or(|length| start.elapsed() < length) {
        next += Duration::from_secs(1);
        let end = length.map_or(next, |length| next.min(start + length));
        thread::sleep(end.saturating_duration_since(Instant::now()));
        for (name, publisher) in &publishers {
            println!("{}", line(name, publisher, start.elapsed()));
        }
    }
    // All at once: they should have published for the same time.
    thread::scope(|scope| {
        let ending = publishers.into_iter().map(|(name, publisher)| {
            let end = move || match (vanish, leave) {
                (true, _) => Ok(publisher.vanish()),
                (false, true) => publisher.leave(),
                (false, false) => publisher.stop(),
            };
            (name, scope.spawn(end))
        });
        let ending: Vec<_> = ending.collect();
        for (name, end) in ending {
            println!("{}", last_line(name, &end.join().expect("stopping does not panic")?));
        }
        Ok(())
    })
}

/// The address as it is, or one for each of `guests`.
fn guest_urls(url: String, guests: Option<u32>, prefix: &str) -> Result<Vec<String>, &'static str> {
    let Some(guests) = guests else {
        return Ok(vec![url]);
    };
    let (parent, _) = url.rsplit_once('/').ok_or("--url has no path")?;
    Ok((1..=guests).map(|number| format!("{parent}/{prefix}{number}")).collect())
}

/// What comes before it is not measured: connecting, the first keyframe.
const WARM_UP: Duration = Duration::from_secs(3);

fn latency(mut args: Args) -> Outcome {
    let listen: SocketAddr = args.required("--listen")?;
    let urls = guest_urls(args.required("--url")?, args.value("--guests")?, "guest")?;
    let threads: usize = args.value("--threads")?.unwrap_or(1);
    let length = args.seconds("--seconds")?.ok_or("--seconds is missing")?;
    args.finish()?;
    let options = ingest::Options { keep_frames: true, keep_bodies: true, ..ingest::Options::default() };
    let ingest = ingest::Ingest::bind(listen, options)?;
    let drivers: Vec<Driver> = (0..threads.max(1)).map(|_| Driver::start()).collect();
    let clip = Clip::chromium_720p();
    let mut publishers = Vec::new();
    for (url, driver) in urls.iter().zip(drivers.iter().cycle()) {
        let name = url.rsplit('/').next().unwrap_or_default();
        publishers.push((name, Publisher::connect_with(driver, url, &clip, &Options::default())?));
    }
    thread::sleep(WARM_UP);
    let from = Instant::now();
    println!("measuring");
    thread::sleep(length);
    let mut delays = Delays::default();
    let arrived = latency::connections(&ingest);
    for (name, publisher) in publishers {
        let connection = arrived.get(name).ok_or_else(|| format!("{name} is not published"))?;
        delays.add(&publisher.sent(), connection, from);
        publisher.stop()?;
    }
    println!("{delays}");
    Ok(())
}

fn line(name: &str, publisher: &Publisher, elapsed: Duration) -> String {
    let stats = publisher.stats();
    let state = match (publisher.is_alive(), publisher.is_connected()) {
        (false, _) => "ended",
        (true, false) => "connecting",
        (true, true) => "live",
    };
    let optional = |value: Option<u128>, unit: &str| value.map_or("-".to_owned(), |v| format!("{v} {unit}"));
    format!(
        "{:.0} s {name} {state} frames {} audio {} packets {} rtx {} pli {} fir {} nack {} rtt {} estimate {}",
        elapsed.as_secs_f64(),
        stats.video_frames,
        stats.audio_frames,
        stats.video_packets + stats.audio_packets,
        stats.rtx_packets,
        stats.plis,
        stats.firs,
        stats.nacks,
        optional(stats.rtt.map(|rtt| rtt.as_millis()), "ms"),
        optional(stats.estimate_kbps.map(u128::from), "kbit/s"),
    )
}

fn last_line(name: &str, finished: &Finished) -> String {
    let Finished { stats, network, delete_status, .. } = finished;
    format!(
        "{name} ended: DELETE {} frames {} (idr {}) audio {} bytes {} lost out {} in {}",
        delete_status.as_deref().unwrap_or("not sent"),
        stats.video_frames,
        stats.idr_frames,
        stats.audio_frames,
        stats.bytes_sent,
        network.outgoing.lost + network.outgoing.queue_full + network.outgoing.blacked_out,
        network.incoming.lost + network.incoming.queue_full + network.incoming.blacked_out,
    )
}

fn hostile(mut args: Args) -> Outcome {
    let to: SocketAddr = args.required("--to")?;
    let count = args.value("--count")?.unwrap_or(200_000);
    let seed = args.value("--seed")?.unwrap_or(1);
    args.finish()?;
    println!("seed {seed}");
    let took = hostile::flood(to, count, seed)?;
    println!("{count} datagrams in {:.1} s", took.as_secs_f64());
    Ok(())
}

fn proxy(mut args: Args) -> Outcome {
    let listen: SocketAddr = args.required("--listen")?;
    let to: SocketAddr = args.required("--to")?;
    let length = args.seconds("--seconds")?;
    let seed = args.value("--seed")?.unwrap_or(1);
    let network = args.impairments()?;
    args.finish()?;
    let proxy = Proxy::bind(listen, to, network.clone(), network, seed)?;
    println!("listening on {} seed {seed}", proxy.address()?);
    let stop = Arc::new(AtomicBool::new(false));
    if let Some(length) = length {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            thread::sleep(length);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
    let (up, down) = proxy.run(&stop)?;
    println!("up {up:?}\ndown {down:?}");
    Ok(())
}

fn record(mut args: Args) -> Outcome {
    let server = Server::bind(args.required("--listen")?)?;
    let name: String = args.required("--out")?;
    let length = args.seconds("--seconds")?.ok_or("--seconds is missing")?;
    let skip = args.seconds("--skip")?.unwrap_or_default();
    let options = RecordOptions {
        receiver: ReceiverConfig { start_bitrate_kbps: args.value("--start-kbps")? },
        skip,
        length,
        keyframe_every: args.seconds("--keyframe-every")?,
        deadline: skip + length + Duration::from_secs(60),
    };
    args.finish()?;
    println!("listening on {}", server.address());
    let mut recording = server.record(&options)?;
    recording.trim(length);
    recording.save(&name)?;
    println!("{} packets", recording.records.len());
    Ok(())
}
