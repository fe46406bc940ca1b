//! `loadgen`.
#![forbid(unsafe_code)]
use std::process::ExitCode;
use std::time::Duration;
use loadgen::record::{RecordOptions, Server};
use loadgen::receiver::ReceiverConfig;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    let seconds = |name: &str| value(name).map(|v| Duration::from_secs_f64(v.parse().expect("seconds")));
    let server = Server::bind(value("--listen").expect("--listen").parse().expect("address")).expect("bind");
    let options = RecordOptions {
        receiver: ReceiverConfig { start_bitrate_kbps: value("--start-kbps").map(|v| v.parse().expect("kbps")) },
        skip: seconds("--skip").unwrap_or_default(),
        length: seconds("--seconds").expect("--seconds"),
        keyframe_every: seconds("--keyframe-every"),
        deadline: Duration::from_secs(90),
    };
    let mut recording = server.record(&options).expect("record");
    recording.trim(options.length);
    recording.save(&value("--out").expect("--out")).expect("save");
    ExitCode::SUCCESS
}
