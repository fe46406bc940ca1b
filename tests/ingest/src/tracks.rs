//! Track detection and the rules of media in time: MediaMTX's (an error ends the connection) and our own
//! (a violation is noted).
//!
//! Detection reads until a media timestamp is 2000 ms after the first one. The set of tracks is fixed then.

use crate::media::{Audio, Video};
use crate::report::{AudioTrack, Connection, Kind, VideoTrack};
use crate::session::End;

/// Media time MediaMTX analyses before a path is ready.
const WINDOW_MS: i64 = 2000;
const MESSAGES_MAX: u32 = 5000;
/// Our own rule: a connection starts near 0.
const START_MAX_MS: u32 = 100;
/// Rounding of sample times to milliseconds, both ways.
const ROUNDING_MS: i64 = 1;

/// What a message did to the connection's media state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// No frame: configuration or something ignored.
    Quiet,
    Frame {
        kind: Kind,
        key: bool,
    },
}

#[derive(Default)]
pub(crate) struct Tracks {
    first: Option<u32>,
    now: Option<u32>,
    messages: u32,
    over: bool,
    opus_started: bool,
    first_audio: Option<u32>,
    first_video: Option<u32>,
    last_video: Option<u32>,
    /// Timestamp and duration in samples of the last Opus packet.
    last_audio: Option<(u32, u32)>,
}

impl Tracks {
    /// Counts a message of any type; true when this one ends detection.
    pub(crate) fn handle_message(&mut self) -> Result<bool, End> {
        if self.over {
            return Ok(false);
        }
        self.messages += 1;
        if self.messages > MESSAGES_MAX {
            return Err(End::refused(format!("timeout: track detection is not over after {MESSAGES_MAX} messages")));
        }
        if let (Some(first), Some(now)) = (self.first, self.now) {
            self.over = i64::from(now) - i64::from(first) >= WINDOW_MS;
        }
        Ok(self.over)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    fn tick(&mut self, timestamp: u32) {
        self.first.get_or_insert(timestamp);
        self.now = Some(timestamp);
    }

    pub(crate) fn handle_video(&mut self, video: Video, timestamp: u32, seen: &mut Connection) -> Result<Step, End> {
        let late = || End::refused("received a packet for video track 0, but track is not set up");
        match video {
            Video::Ignored | Video::EndOfSequence => Ok(Step::Quiet),
            Video::Config { legacy, size } => {
                if self.over && seen.video.is_none() {
                    return Err(late());
                }
                if legacy {
                    self.tick(timestamp);
                } else if seen.video.is_some() {
                    if !self.over {
                        return Err(End::refused("video track 0 already setupped"));
                    }
                    return Ok(Step::Quiet); // MediaMTX does not take a new SPS from it
                }
                if size.is_none() {
                    seen.violations.push("the SPS cannot be read".into());
                }
                let track = seen.video.get_or_insert_with(VideoTrack::default);
                track.sequence_headers += 1;
                (track.width, track.height) = size.unwrap_or_default();
                Ok(Step::Quiet)
            }
            Video::Frame { key, idr } => {
                self.tick(timestamp);
                let Some(track) = seen.video.as_mut() else {
                    if self.over {
                        return Err(late());
                    }
                    seen.violations.push("video frame before the sequence header".into());
                    return Ok(Step::Quiet);
                };
                track.frames += 1;
                track.keyframes += u64::from(idr);
                if key != idr {
                    seen.violations
                        .push(format!("at {timestamp} ms the tag says key={key}, the access unit idr={idr}"));
                }
                if self.first_video.is_none() {
                    if !idr {
                        seen.violations.push(format!("video starts without an IDR at {timestamp} ms"));
                    }
                    self.first_video = Some(timestamp);
                    self.check_start(Kind::Video, timestamp, seen);
                }
                check_order(Kind::Video, self.last_video, timestamp, seen);
                self.last_video = Some(timestamp);
                Ok(Step::Frame { kind: Kind::Video, key: idr })
            }
        }
    }

    pub(crate) fn handle_audio(&mut self, audio: Audio, timestamp: u32, seen: &mut Connection) -> Result<Step, End> {
        match audio {
            Audio::Ignored => Ok(Step::Quiet),
            Audio::SequenceStart { channels } => {
                if self.opus_started {
                    if !self.over {
                        return Err(End::refused("audio track 0 already setupped"));
                    }
                    seen.violations.push("a second Opus SequenceStart".into());
                    return Ok(Step::Quiet);
                }
                self.opus_started = true;
                seen.audio = Some(AudioTrack { channels, sequence_starts: 1, ..AudioTrack::default() });
                Ok(Step::Quiet)
            }
            Audio::Frame { samples } => {
                self.tick(timestamp);
                if self.over && self.first_audio.is_none() {
                    return Err(End::refused("received a packet for audio track 0, but track is not set up"));
                }
                let Some(track) = seen.audio.as_mut() else {
                    return Err(End::refused("sequence start not received"));
                };
                track.frames += 1;
                if let Some((last, duration)) = self.last_audio {
                    let step = i64::from(timestamp) - i64::from(last);
                    let whole_ms = i64::from(duration / 48);
                    if step > whole_ms + 1 + ROUNDING_MS {
                        track.gaps += 1;
                    } else if step < whole_ms - ROUNDING_MS {
                        seen.violations.push(format!(
                            "audio is off its sample clock: {step} ms after a packet of {whole_ms} ms, at {timestamp} ms"
                        ));
                    }
                }
                if self.first_audio.is_none() {
                    self.first_audio = Some(timestamp);
                    self.check_start(Kind::Audio, timestamp, seen);
                }
                check_order(Kind::Audio, self.last_audio.map(|(last, _)| last), timestamp, seen);
                self.last_audio = Some((timestamp, samples));
                Ok(Step::Frame { kind: Kind::Audio, key: false })
            }
        }
    }

    fn check_start(&self, kind: Kind, timestamp: u32, seen: &mut Connection) {
        if let (Some(audio), Some(video)) = (self.first_audio, self.first_video) {
            if i64::from(audio).abs_diff(i64::from(video)) > WINDOW_MS.unsigned_abs() {
                seen.violations.push(format!("audio starts at {audio} ms, video at {video} ms"));
            }
        } else if timestamp > START_MAX_MS {
            seen.violations.push(format!("{kind:?} starts at {timestamp} ms, later than {START_MAX_MS} ms"));
        }
    }
}

fn check_order(kind: Kind, last: Option<u32>, timestamp: u32, seen: &mut Connection) {
    if let Some(last) = last
        && timestamp <= last
    {
        seen.violations.push(format!("{kind:?} timestamp {timestamp} ms after {last} ms"));
    }
}
