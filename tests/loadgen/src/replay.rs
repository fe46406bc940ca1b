//! A clip played in a loop in real time: which packet is due when, with which sequence number and timestamp.
//!
//! Input: time, keyframe requests; output: [`Due`] packets. No clock, no socket. Each track loops by itself; sequence
//! numbers and timestamps go on over the loop's end. A keyframe request makes the next unit an IDR picture. A track can
//! change to another clip between two units, as an encoder does that is given another resolution.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clip::{Clip, ClipTrack, TrackKind, Unit};

/// Where one track's numbers start and how its clock runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackStart {
    pub sequence_number: u16,
    pub rtp_time: u32,
    /// The sender's clock runs faster than the world's by this many millionths.
    pub clock_ppm: i32,
    /// The track's first packet comes so much later than the replay's start.
    pub delay: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayConfig {
    pub video: TrackStart,
    pub audio: TrackStart,
    /// Sends a unit's packets all at once instead of spread as they were recorded.
    pub bursts: bool,
}

/// One packet that is due.
#[derive(Clone, Debug)]
pub struct Due {
    pub kind: TrackKind,
    /// Extended: it does not wrap.
    pub sequence_number: u64,
    pub rtp_time: u32,
    pub marker: bool,
    pub payload: Arc<[u8]>,
    /// The capture time that `rtp_time` stands for.
    pub captured: Instant,
    /// Set on a unit's last packet.
    pub completes: Option<SentUnit>,
}

/// An access unit or Opus packet that was sent whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentUnit {
    pub kind: TrackKind,
    /// Index into the clip's units.
    pub clip_index: usize,
    pub rtp_time: u32,
    pub is_idr: bool,
    /// See [`Unit::digest`].
    pub digest: u64,
    pub captured: Instant,
    /// When its last packet was handed to the network.
    pub sent: Instant,
}

/// The state of a replay; it runs from [`Replay::start`] on.
#[derive(Debug)]
pub struct Replay {
    bursts: bool,
    video: Option<Track>,
    audio: Option<Track>,
}

#[derive(Debug)]
struct Track {
    kind: TrackKind,
    clip: Arc<Clip>,
    /// Takes the clip's place when the unit being sent is complete.
    next_clip: Option<Arc<Clip>>,
    clock_ppm: i32,
    /// The unit being sent, and the packet of it that is next.
    unit: usize,
    packet: usize,
    captured: Instant,
    rtp_time: u32,
    sequence_number: u64,
    idr_wanted: bool,
    state: TrackState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrackState {
    Playing,
    /// Stops when the unit being sent is complete.
    Pausing,
    Paused,
}

impl Replay {
    pub fn start(clip: &Arc<Clip>, config: &ReplayConfig, now: Instant) -> Replay {
        let track = |kind, start: TrackStart| {
            clip.track(kind).map(|track| Track {
                kind,
                clip: Arc::clone(clip),
                next_clip: None,
                clock_ppm: start.clock_ppm,
                unit: 0,
                packet: 0,
                captured: now + start.delay,
                rtp_time: start.rtp_time.wrapping_add(ticks(start.delay, track.clock_rate)),
                sequence_number: start.sequence_number.into(),
                idr_wanted: false,
                state: TrackState::Playing,
            })
        };
        Replay {
            bursts: config.bursts,
            video: track(TrackKind::Video, config.video),
            audio: track(TrackKind::Audio, config.audio),
        }
    }

    /// Jumps to the clip's next IDR picture as soon as the picture being sent is complete.
    pub fn request_idr(&mut self) {
        if let Some(video) = &mut self.video {
            video.idr_wanted = true;
        }
    }

    /// Goes on with another clip's track from its start, as soon as the unit being sent is complete; its first picture is
    /// an IDR. Nothing happens when the clip lacks the track.
    pub fn change_clip(&mut self, kind: TrackKind, clip: &Arc<Clip>) {
        if let Some(track) = self.track_mut(kind).filter(|_| clip.track(kind).is_some()) {
            track.next_clip = Some(Arc::clone(clip));
            if track.packet == 0 {
                track.take_next_clip();
            }
        }
    }

    /// Stops a track at the end of its unit, as a camera or microphone that is switched off.
    pub fn pause(&mut self, kind: TrackKind) {
        if let Some(track) = self.track_mut(kind) {
            let between_units = track.packet == 0;
            track.state = if between_units { TrackState::Paused } else { TrackState::Pausing };
        }
    }

    /// Goes on; the timestamps have gone on meanwhile. Video resumes with an IDR picture.
    pub fn resume(&mut self, kind: TrackKind, now: Instant) {
        let Some(track) = self.track_mut(kind) else {
            return;
        };
        let clock_rate = track.clip_track().clock_rate;
        if track.state == TrackState::Paused {
            let idle = now.saturating_duration_since(track.captured);
            track.captured = track.captured.max(now);
            track.rtp_time = track.rtp_time.wrapping_add(ticks(idle, clock_rate));
            track.idr_wanted = true;
        }
        track.state = TrackState::Playing;
    }

    /// Goes on where the track's clock stood still meanwhile, as that of a capture that stalled, or of a sender that stops it
    /// for a mute.
    pub fn resume_clock(&mut self, kind: TrackKind, now: Instant) {
        if let Some(track) = self.track_mut(kind) {
            track.captured = track.captured.max(now);
            track.state = TrackState::Playing;
        }
    }

    /// Goes on with other sequence numbers, as a new SSRC does: its receiver starts with rollover counter 0.
    pub fn restart_sequence_numbers(&mut self, kind: TrackKind, from: u16) {
        if let Some(track) = self.track_mut(kind) {
            track.sequence_number = from.into();
        }
    }

    /// True when each track has come to the end of its unit after [`pause`](Self::pause).
    pub fn is_paused(&self) -> bool {
        [&self.video, &self.audio].into_iter().flatten().all(|t| t.state == TrackState::Paused)
    }

    fn track_mut(&mut self, kind: TrackKind) -> Option<&mut Track> {
        match kind {
            TrackKind::Video => self.video.as_mut(),
            TrackKind::Audio => self.audio.as_mut(),
        }
    }

    /// When [`poll`](Self::poll) has the next packet.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |track: &Track| track.due(self.bursts);
        [&self.video, &self.audio].into_iter().flatten().filter_map(due).min()
    }

    /// The next packet that is due, in order of time.
    pub fn poll(&mut self, now: Instant) -> Option<Due> {
        let bursts = self.bursts;
        let next = [self.video.as_mut(), self.audio.as_mut()].into_iter().flatten();
        let next = next.filter_map(|track| Some((track.due(bursts)?, track)));
        let (due, track) = next.min_by_key(|(due, _)| *due)?;
        if due > now { None } else { track.next(now) }
    }
}

impl Track {
    fn clip_track(&self) -> &ClipTrack {
        self.clip.track(self.kind).expect("a track plays a clip that has it")
    }

    /// Settles which unit is next, if none has begun.
    fn unit(&self) -> Option<(usize, &Unit)> {
        let units = &self.clip_track().units;
        let mut index = self.unit;
        if self.packet == 0 && self.idr_wanted {
            let from_here = (0..units.len()).cycle().skip(index).take(units.len());
            index = from_here.into_iter().find(|i| units.get(*i).is_some_and(|u| u.is_idr))?;
        }
        Some((index, units.get(index)?))
    }

    fn due(&self, bursts: bool) -> Option<Instant> {
        if self.state == TrackState::Paused {
            return None;
        }
        let (_, unit) = self.unit()?;
        let after_first = unit.packets.get(self.packet)?.after_first;
        Some(if bursts { self.captured } else { self.captured + after_first })
    }

    fn next(&mut self, now: Instant) -> Option<Due> {
        let (index, unit) = self.unit()?;
        let packet = unit.packets.get(self.packet)?;
        let mut due = Due {
            kind: self.kind,
            sequence_number: self.sequence_number,
            rtp_time: self.rtp_time,
            marker: packet.marker,
            payload: Arc::clone(&packet.payload),
            captured: self.captured,
            completes: None,
        };
        let is_last = self.packet + 1 == unit.packets.len();
        let sent = SentUnit {
            kind: self.kind,
            clip_index: index,
            rtp_time: self.rtp_time,
            is_idr: unit.is_idr,
            digest: unit.digest,
            captured: self.captured,
            sent: now,
        };
        if self.packet == 0 && unit.is_idr {
            self.idr_wanted = false;
        }
        self.unit = index;
        self.sequence_number += 1;
        self.packet += 1;
        if is_last {
            due.completes = Some(sent);
            self.advance();
        }
        Some(due)
    }

    /// To the unit after this one, or after a jump.
    fn advance(&mut self) {
        self.packet = 0;
        self.unit += 1;
        let clip = self.clip_track();
        let (is_jump, clock_rate) = (self.unit >= clip.units.len(), clip.clock_rate);
        let step = match clip.units.get(self.unit) {
            Some(unit) if !self.idr_wanted && self.next_clip.is_none() => unit.ticks_since_previous,
            _ => clip.unit_ticks,
        };
        if is_jump {
            self.unit = 0;
        }
        self.rtp_time = self.rtp_time.wrapping_add(step);
        self.captured += duration(step, clock_rate, self.clock_ppm);
        self.take_next_clip();
        if self.state == TrackState::Pausing {
            self.state = TrackState::Paused;
        }
    }

    fn take_next_clip(&mut self) {
        if let Some(clip) = self.next_clip.take() {
            (self.clip, self.unit) = (clip, 0);
        }
    }
}

fn ticks(duration: Duration, clock_rate: u32) -> u32 {
    let ticks = duration.as_nanos() * u128::from(clock_rate) / 1_000_000_000;
    u32::try_from(ticks & u128::from(u32::MAX)).expect("masked to 32 bits")
}

/// How long `ticks` of a clock take that is `clock_ppm` millionths fast.
fn duration(ticks: u32, clock_rate: u32, clock_ppm: i32) -> Duration {
    let rate = u64::from(clock_rate) * 1_000_000;
    let rate = rate.saturating_add_signed(i64::from(clock_rate) * i64::from(clock_ppm));
    let nanoseconds = u128::from(ticks) * 1_000_000_000 * 1_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clip::UnitPacket;

    /// Four pictures of two packets, the first and third IDR, 3000 ticks apart but for the third (6000).
    fn clip() -> Arc<Clip> {
        let unit = |n: u8, ticks_since_previous| Unit {
            ticks_since_previous,
            is_idr: n.is_multiple_of(2),
            digest: n.into(),
            packets: [0, 5]
                .map(|ms| UnitPacket {
                    after_first: Duration::from_millis(ms),
                    marker: ms == 5,
                    payload: Arc::from([n]),
                })
                .to_vec(),
        };
        let units = vec![unit(0, 0), unit(1, 3000), unit(2, 6000), unit(3, 3000)];
        let video = Some(ClipTrack { units, clock_rate: 90_000, unit_ticks: 4000 });
        Arc::new(Clip { video, audio: None })
    }

    fn play(replay: &mut Replay, from: Instant, packets: usize) -> Vec<(u8, u64, u32, f64)> {
        let mut seen = Vec::new();
        // bounded: each turn adds one, and a clip that has ended panics
        while seen.len() < packets {
            let due = replay.poll_timeout().unwrap();
            let packet = replay.poll(due).unwrap();
            let ms = (due - from).as_secs_f64() * 1000.0;
            seen.push((packet.payload[0], packet.sequence_number, packet.rtp_time, ms.round()));
        }
        seen
    }

    #[test]
    fn a_loop_goes_on_with_sequence_numbers_timestamps_and_the_recorded_rhythm() {
        let start = Instant::now();
        let video = TrackStart { sequence_number: 65_533, rtp_time: u32::MAX - 2999, ..TrackStart::default() };
        let config = ReplayConfig { video, ..ReplayConfig::default() };
        let mut replay = Replay::start(&clip(), &config, start);
        let expected = [
            (0, 65_533, u32::MAX - 2999, 0.0),
            (0, 65_534, u32::MAX - 2999, 5.0),
            (1, 65_535, 0, 33.0),
            (1, 65_536, 0, 38.0),
            (2, 65_537, 6000, 100.0),
            (2, 65_538, 6000, 105.0),
            (3, 65_539, 9000, 133.0),
            (3, 65_540, 9000, 138.0),
            (0, 65_541, 13_000, 178.0),
        ];
        assert_eq!(play(&mut replay, start, 9), expected);
    }

    #[test]
    fn a_keyframe_request_takes_effect_at_the_next_picture_boundary() {
        let start = Instant::now();
        let mut replay = Replay::start(&clip(), &ReplayConfig::default(), start);
        play(&mut replay, start, 7);
        replay.request_idr();
        let next: Vec<u8> = play(&mut replay, start, 7).iter().map(|p| p.0).collect();
        assert_eq!(next, [3, 0, 0, 1, 1, 2, 2], "the rest of picture 3, then from the clip's start");
    }

    #[test]
    fn a_fast_clock_sends_sooner() {
        let start = Instant::now();
        let video = TrackStart { clock_ppm: 250_000, ..TrackStart::default() };
        let config = ReplayConfig { video, bursts: true, ..ReplayConfig::default() };
        let mut replay = Replay::start(&clip(), &config, start);
        let times: Vec<f64> = play(&mut replay, start, 6).iter().map(|p| p.3).collect();
        assert_eq!(times, [0.0, 0.0, 27.0, 27.0, 80.0, 80.0]);
    }

    #[test]
    fn a_delayed_track_starts_later_on_the_same_clock() {
        let start = Instant::now();
        let video = TrackStart { delay: Duration::from_secs(2), ..TrackStart::default() };
        let config = ReplayConfig { video, ..ReplayConfig::default() };
        let mut replay = Replay::start(&clip(), &config, start);
        assert_eq!(play(&mut replay, start, 1), [(0, 0, 180_000, 2000.0)]);
    }

    #[test]
    fn another_clip_takes_over_at_the_next_picture_and_the_numbers_go_on() {
        let start = Instant::now();
        let mut replay = Replay::start(&clip(), &ReplayConfig::default(), start);
        play(&mut replay, start, 3);
        let mut other = Clip::clone(&clip());
        other.video.as_mut().unwrap().units.rotate_left(2);
        replay.change_clip(TrackKind::Video, &Arc::new(other));
        let next: Vec<_> = play(&mut replay, start, 4).iter().map(|p| (p.0, p.1, p.2)).collect();
        assert_eq!(next, [(1, 3, 3000), (2, 4, 7000), (2, 5, 7000), (3, 6, 10_000)]);
    }

    #[test]
    fn a_pause_ends_with_the_picture_and_the_timestamps_go_on_meanwhile() {
        let start = Instant::now();
        let mut replay = Replay::start(&clip(), &ReplayConfig::default(), start);
        play(&mut replay, start, 3);
        replay.pause(TrackKind::Video);
        assert!(!replay.is_paused());
        play(&mut replay, start, 1);
        assert!(replay.is_paused());
        assert_eq!(replay.poll_timeout(), None);
        // The third picture would have been captured after 100 ms.
        replay.resume(TrackKind::Video, start + Duration::from_millis(1100));
        assert_eq!(play(&mut replay, start, 1), [(2, 4, 9000 + 90_000, 1100.0)]);
    }
}
