//! `GET /metrics`: everything that is measured, in Prometheus' text format 0.0.4, under OpenMetrics names (base units in
//! the name, `_total` for counters).
//!
//! Input: [`GuestMeasurements`] of the backend, the SFU client's counts, `/proc/self`. Output: text. Everything is computed
//! when somebody asks, nothing before. A guest's counters begin anew with each session or publication, as those of a
//! restarted process would. Bounds: at most [`LINES_PER_GUEST`] for each guest, so some 200 kB with 64 of them.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::backend::{Backend, RtmpState};
pub use super::backend::{GuestMeasurements, RtmpMeasurements, TrackMeasurements};
use super::message::{Refusal, Response};
use super::process::Process;
use crate::guest::State;
use crate::sfu::counts::{self, Outcome};

/// What Prometheus asks for, and what it takes this text for.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Lines about one guest.
pub const LINES_PER_GUEST: usize = 48;

/// The response.
pub(super) async fn respond<B: Backend>(backend: &B) -> Result<Response, Refusal> {
    let text = exposition(&backend.measurements().await?, &Process::read());
    Ok(Response::new(200)
        .with("content-type", CONTENT_TYPE)
        .with("cache-control", "no-store")
        .with("x-content-type-options", "nosniff")
        .with_body(text.into_bytes()))
}

/// The whole text.
pub fn exposition(guests: &[GuestMeasurements], process: &Process) -> String {
    let mut out = Exposition::default();
    out.family("guest_relay_build_info", Kind::Gauge, "The running version.");
    out.sample(&[("version", env!("CARGO_PKG_VERSION"))], Value::Whole(1));
    write_guests(&mut out, guests);
    write_tracks(&mut out, guests);
    write_rtmp(&mut out, guests);
    out.family("guest_relay_sfu_calls_total", Kind::Counter, "Calls of the SFU's API that are over, by outcome.");
    for call in counts::CALLS {
        let endpoint = call.to_string();
        for outcome in Outcome::ALL {
            let labels = [("endpoint", endpoint.as_str()), ("outcome", outcome.as_str())];
            out.sample(&labels, Value::Whole(counts::total(call, outcome)));
        }
    }
    write_process(&mut out, process);
    out.text
}

fn write_guests(out: &mut Exposition, guests: &[GuestMeasurements]) {
    use Kind::{Counter, Gauge};
    out.family("guest_relay_guest_state", Gauge, "1 for the state the guest is in, 0 for the others.");
    for guest in guests {
        for state in State::ALL {
            let labels = [("guest", guest.id.as_str()), ("state", state.as_str())];
            out.sample(&labels, Value::Whole((guest.state == state).into()));
        }
    }
    type Of = fn(&GuestMeasurements) -> Option<Value>;
    let families: [(&'static str, Kind, &'static str, Of); 13] = [
        ("guest_relay_guest_hold_seconds_total", Counter, "Time the publication was kept for an absent guest.", |g| {
            Some(g.held.into())
        }),
        ("guest_relay_guest_received_bytes_per_second", Gauge, "Media received, lately.", |g| {
            g.bitrate_kbps.map(|kbps| Value::Whole(u64::from(kbps) * 1000 / 8))
        }),
        ("guest_relay_guest_frames_per_second", Gauge, "Pictures that went out, lately.", |g| g.fps.map(Value::Real)),
        ("guest_relay_guest_width_pixels", Gauge, "Picture width.", |g| Some(Value::Whole(g.size?.0.into()))),
        ("guest_relay_guest_height_pixels", Gauge, "Picture height.", |g| Some(Value::Whole(g.size?.1.into()))),
        ("guest_relay_guest_round_trip_seconds", Gauge, "Round trip time of the media path, smoothed.", |g| {
            g.round_trip.map(Value::from)
        }),
        ("guest_relay_guest_keyframe_age_seconds", Gauge, "Time since the last IDR picture.", |g| {
            g.keyframe_age.map(Value::from)
        }),
        ("guest_relay_guest_frames_total", Counter, "Pictures that went out.", |g| Some(Value::Whole(g.frames))),
        ("guest_relay_guest_keyframes_total", Counter, "IDR pictures that went out.", |g| {
            Some(Value::Whole(g.keyframes))
        }),
        ("guest_relay_guest_frames_dropped_total", Counter, "Pictures that came and could not go out.", |g| {
            Some(Value::Whole(g.frames_dropped))
        }),
        ("guest_relay_guest_freezes_total", Counter, "Times the picture stood still (W3C freezeCount).", |g| {
            Some(Value::Whole(g.freezes))
        }),
        (
            "guest_relay_guest_freeze_seconds_total",
            Counter,
            "Time the picture stood still (W3C totalFreezesDuration).",
            |g| Some(g.frozen.into()),
        ),
        (
            "guest_relay_guest_av_skew_seconds",
            Gauge,
            "How far the picture still has to be moved to be with the sound.",
            |g| g.av_skew_micros.map(Value::Micros),
        ),
    ];
    for (name, kind, help, value) in families {
        out.family(name, kind, help);
        for guest in guests {
            if let Some(value) = value(guest) {
                out.sample(&[("guest", guest.id.as_str())], value);
            }
        }
    }
    out.family("guest_relay_guest_keyframe_requests_total", Counter, "Requests for an IDR picture that were sent.");
    for guest in guests {
        for (message, count) in [("pli", guest.pli), ("fir", guest.fir)] {
            out.sample(&[("guest", guest.id.as_str()), ("message", message)], Value::Whole(count));
        }
    }
}

fn write_tracks(out: &mut Exposition, guests: &[GuestMeasurements]) {
    use Kind::{Counter, Gauge};
    type Of = fn(&TrackMeasurements) -> Option<Value>;
    let families: [(&'static str, Kind, &'static str, Of); 5] = [
        ("guest_relay_guest_packets_total", Counter, "RTP packets of the media stream itself.", |t| {
            Some(Value::Whole(t.packets))
        }),
        ("guest_relay_guest_payload_bytes_total", Counter, "RTP payload, retransmissions included.", |t| {
            Some(Value::Whole(t.payload_bytes))
        }),
        ("guest_relay_guest_packets_lost_total", Counter, "RTP packets missing after every repair.", |t| {
            Some(Value::Whole(t.lost))
        }),
        ("guest_relay_guest_packets_requested_total", Counter, "RTP packets asked for again by NACK.", |t| {
            Some(Value::Whole(t.nacked))
        }),
        ("guest_relay_guest_jitter_seconds", Gauge, "Interarrival jitter (RFC 3550).", |t| t.jitter.map(Value::from)),
    ];
    let tracks = |guest: &GuestMeasurements| [("audio", guest.audio), ("video", guest.video)];
    for (name, kind, help, value) in families {
        out.family(name, kind, help);
        for guest in guests {
            for (track, measurements) in tracks(guest) {
                if let Some(value) = value(&measurements) {
                    out.sample(&[("guest", guest.id.as_str()), ("track", track)], value);
                }
            }
        }
    }
    out.family(
        "guest_relay_guest_packets_recovered_total",
        Counter,
        "RTP packets that were missing and came: by retransmission, after a NACK, as redundancy.",
    );
    for guest in guests {
        for (track, measurements) in tracks(guest) {
            let TrackMeasurements { recovered_by_rtx, recovered_by_nack, recovered_by_red, .. } = measurements;
            for (by, count) in [("rtx", recovered_by_rtx), ("nack", recovered_by_nack), ("red", recovered_by_red)] {
                out.sample(&[("guest", guest.id.as_str()), ("track", track), ("by", by)], Value::Whole(count));
            }
        }
    }
}

fn write_rtmp(out: &mut Exposition, guests: &[GuestMeasurements]) {
    use Kind::{Counter, Gauge};
    out.family("guest_relay_rtmp_state", Gauge, "1 for the state the publication is in, 0 for the others.");
    for guest in guests {
        for state in RtmpState::ALL {
            let labels = [("guest", guest.id.as_str()), ("state", state.as_str())];
            out.sample(&labels, Value::Whole((guest.rtmp.state == state).into()));
        }
    }
    type Of = fn(&RtmpMeasurements) -> Option<Value>;
    let families: [(&'static str, Kind, &'static str, Of); 7] = [
        ("guest_relay_rtmp_connections_total", Counter, "TCP connections begun, reconnects among them.", |r| {
            Some(Value::Whole(r.connections))
        }),
        ("guest_relay_rtmp_written_bytes_total", Counter, "Bytes the server's socket took.", |r| {
            Some(Value::Whole(r.bytes_written))
        }),
        ("guest_relay_rtmp_pictures_dropped_total", Counter, "Pictures dropped because the server is slow.", |r| {
            Some(Value::Whole(r.pictures_dropped))
        }),
        (
            "guest_relay_rtmp_audio_frames_dropped_total",
            Counter,
            "Audio frames dropped because the server is slow.",
            |r| Some(Value::Whole(r.audio_frames_dropped)),
        ),
        ("guest_relay_rtmp_queue_bytes", Gauge, "Bytes that wait for the server's socket.", |r| {
            Some(Value::Whole(r.queued_bytes))
        }),
        ("guest_relay_rtmp_queue_seconds", Gauge, "Media time that waits for the server's socket.", |r| {
            Some(r.queued.into())
        }),
        ("guest_relay_rtmp_round_trip_seconds", Gauge, "From the last ping to its answer.", |r| {
            r.round_trip.map(Value::from)
        }),
    ];
    for (name, kind, help, value) in families {
        out.family(name, kind, help);
        for guest in guests {
            if let Some(value) = value(&guest.rtmp) {
                out.sample(&[("guest", guest.id.as_str())], value);
            }
        }
    }
}

/// Under the names that Prometheus' own client libraries use.
fn write_process(out: &mut Exposition, process: &Process) {
    use Kind::{Counter, Gauge};
    for (name, kind, help, value) in [
        ("process_cpu_seconds_total", Counter, "CPU time of all threads.", process.cpu.map(Value::from)),
        ("process_resident_memory_bytes", Gauge, "Resident memory.", process.resident_bytes.map(Value::Whole)),
        (
            "process_resident_anonymous_bytes",
            Gauge,
            "Resident memory that is no file's.",
            process.anonymous_bytes.map(Value::Whole),
        ),
        ("process_open_fds", Gauge, "Open file descriptors.", process.open_fds.map(Value::Whole)),
        ("process_max_fds", Gauge, "Limit of open file descriptors.", process.max_fds.map(Value::Whole)),
        ("process_threads", Gauge, "Threads.", process.threads.map(Value::Whole)),
        (
            "process_start_time_seconds",
            Gauge,
            "When the process started, in seconds since 1970.",
            process.started.map(Value::Real),
        ),
    ] {
        if let Some(value) = value {
            out.family(name, kind, help);
            out.sample(&[], value);
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// A number as the format writes it.
#[derive(Debug, Clone, Copy)]
enum Value {
    Whole(u64),
    Real(f64),
    /// Written in seconds.
    Micros(i64),
}

impl From<Duration> for Value {
    fn from(duration: Duration) -> Self {
        Self::Real(duration.as_secs_f64())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => write!(f, "{value}"),
            Self::Real(value) => write!(f, "{value}"),
            Self::Micros(micros) => {
                let sign = if *micros < 0 { "-" } else { "" };
                let micros = micros.unsigned_abs();
                write!(f, "{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000)
            }
        }
    }
}

/// The text so far, and the family that samples belong to.
#[derive(Default)]
struct Exposition {
    text: String,
    name: &'static str,
}

impl Exposition {
    fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.name = name;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Label values are ids, versions and names of ours: nothing in them has to be escaped.
    fn sample(&mut self, labels: &[(&str, &str)], value: Value) {
        self.text.push_str(self.name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}
