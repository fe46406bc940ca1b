//! A guest without WebRTC: the replay's packets as [`plain`](crate::plain) takes them, and sender reports once a second.

use std::time::{Duration, Instant};

use guest_relay::rtc::demux::Class;
use guest_relay_muxer::{RtpPacket, TrackKind, VIDEO_CLOCK_RATE, opus};
use loadgen::clip;
use loadgen::replay::{Due, Replay};

use crate::ledger::Ledger;
use crate::plain;

const REPORT_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Direct {
    replay: Replay,
    start: Instant,
    next_report: Instant,
    /// What the sender's wall clock was set forward by, and how often sound reports, in multiples of [`REPORT_EVERY`].
    wall_clock: Duration,
    sound_reports_every: u32,
    reports: u32,
    /// RTP time and capture time of the newest packet.
    newest: [(TrackKind, Option<(u32, Instant)>); 2],
}

impl Direct {
    pub(crate) fn new(replay: Replay, now: Instant) -> Direct {
        let newest = [(TrackKind::Video, None), (TrackKind::Audio, None)];
        Direct {
            replay,
            start: now,
            next_report: now + REPORT_EVERY,
            wall_clock: Duration::ZERO,
            sound_reports_every: 1,
            reports: 0,
            newest,
        }
    }

    /// Sets the sender's wall clock forward.
    pub(crate) fn set_wall_clock(&mut self, by: Duration) {
        self.wall_clock += by;
    }

    /// Sound reports only so many times more seldom than pictures.
    pub(crate) fn set_sound_reports(&mut self, every: u32) {
        self.sound_reports_every = every;
    }

    pub(crate) fn replay_mut(&mut self) -> &mut Replay {
        &mut self.replay
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.replay.poll_timeout().map_or(self.next_report, |due| due.min(self.next_report))
    }

    /// Sends what is due at `now`.
    pub(crate) fn step(&mut self, ledger: &mut Ledger, now: Instant, mut send: impl FnMut(TrackKind, Class, Vec<u8>)) {
        while let Some(due) = self.replay.poll(now) {
            let kind = kind(due.kind);
            for (track, newest) in &mut self.newest {
                if *track == kind {
                    *newest = Some((due.rtp_time, due.captured));
                }
            }
            send(kind, Class::Rtp, plain::serialise(&packet(&due)));
            if let Some(unit) = due.completes {
                ledger.sent(unit);
            }
        }
        if now >= self.next_report {
            self.next_report += REPORT_EVERY;
            self.reports += 1;
            for (kind, newest) in self.newest {
                let Some((rtp_time, captured)) = newest else { continue };
                if kind == TrackKind::Audio && !self.reports.is_multiple_of(self.sound_reports_every) {
                    continue;
                }
                let rtp_time = rtp_time.wrapping_add(ticks(now.saturating_duration_since(captured), kind));
                let since = now - self.start + self.wall_clock;
                let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
                let ntp_time = (since.as_secs() << 32) | fraction;
                send(kind, Class::Rtcp, plain::sender_report(ntp_time, rtp_time));
            }
        }
    }
}

pub(crate) fn kind(kind: clip::TrackKind) -> TrackKind {
    match kind {
        clip::TrackKind::Audio => TrackKind::Audio,
        clip::TrackKind::Video => TrackKind::Video,
    }
}

pub(crate) fn packet(due: &Due) -> RtpPacket<'_> {
    let (payload_type, ssrc) = match due.kind {
        clip::TrackKind::Audio => (111, 2),
        clip::TrackKind::Video => (108, 1),
    };
    let [.., high, low] = due.sequence_number.to_be_bytes();
    RtpPacket {
        payload_type,
        marker: due.marker,
        sequence_number: u16::from_be_bytes([high, low]),
        rtp_time: due.rtp_time,
        ssrc,
        extension: None,
        payload: &due.payload,
    }
}

fn ticks(duration: Duration, kind: TrackKind) -> u32 {
    let rate = match kind {
        TrackKind::Audio => opus::CLOCK_RATE,
        TrackKind::Video => VIDEO_CLOCK_RATE,
    };
    u32::try_from(duration.as_micros() * u128::from(rate) / 1_000_000).unwrap_or(u32::MAX)
}
