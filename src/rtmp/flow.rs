//! [`Flow`]: the media of one connection. The muxer's times become RTMP timestamps that start at 0 and strictly increase
//! per track; what would make a server close, or a picture break, is held back.

use guest_relay_muxer::bytes::{Reader, Writer};
use guest_relay_muxer::handover::{self, HandoverError};
use guest_relay_muxer::{Frame, MediaTime, Tag};

use super::interface::{LostReason, Tracks};
use super::queue::Class;

/// Servers fix the tracks after 2 s of media: a track that begins later than this gets a new connection.
const TRACK_START_MAX_MS: i64 = 1500;
/// A step back up to this is smoothed into +1 ms; a larger one gets a new connection.
const STEP_BACK_MAX_MS: i64 = 1000;
/// An hour before 2^32 ms, after 49 days, the next keyframe goes to a new connection.
const RECONNECT_AT_MS: i64 = (1 << 32) - 3_600_000;

/// What to do with a tag.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Send { class: Class, ms: u32 },
    Drop,
    Reconnect(LostReason),
}

/// See the module.
pub(super) struct Flow {
    /// The dts that became timestamp 0.
    base: MediaTime,
    tracks: Tracks,
    last_audio: Option<u32>,
    last_video: Option<u32>,
    audio_began: bool,
    awaits_keyframe: bool,
    written_ms: u32,
}

impl Flow {
    /// Starts at `base`, the dts of the first frame, with these tracks for as long as it lasts.
    pub(super) fn new(base: MediaTime, tracks: Tracks) -> Flow {
        Flow {
            base,
            tracks,
            last_audio: None,
            last_video: None,
            audio_began: false,
            awaits_keyframe: false,
            written_ms: 0,
        }
    }

    /// Writes where the media stands, for [`Flow::adopt`] of another process.
    pub(super) fn hand_over(&self, out: &mut Writer<&mut Vec<u8>>) {
        handover::write_time(out, self.base);
        handover::write_flag(out, self.tracks == Tracks::AudioVideo);
        handover::write_u32_or_none(out, self.last_audio);
        handover::write_u32_or_none(out, self.last_video);
        handover::write_flag(out, self.audio_began);
        out.u32(self.written_ms);
    }

    /// Goes on where the media of another process stood. Pictures begin with a keyframe.
    pub(super) fn adopt(state: &mut Reader<'_>) -> Result<Self, HandoverError> {
        let base = handover::read_time(state, "the first timestamp")?;
        let video = handover::read_flag(state, "the tracks")?;
        Ok(Self {
            base,
            tracks: if video { Tracks::AudioVideo } else { Tracks::AudioOnly },
            last_audio: handover::read_u32_or_none(state, "the last sound")?,
            last_video: handover::read_u32_or_none(state, "the last picture")?,
            audio_began: handover::read_flag(state, "whether sound began")?,
            awaits_keyframe: true,
            written_ms: state.u32()?,
        })
    }

    pub(super) fn tracks(&self) -> Tracks {
        self.tracks
    }

    /// A picture was lost: nothing but a keyframe may follow.
    pub(super) fn await_keyframe(&mut self) {
        self.awaits_keyframe = true;
    }

    /// Whether the Opus SequenceStart is still to be sent; once per connection, as servers close on a second one.
    pub(super) fn begin_audio(&mut self) -> bool {
        !std::mem::replace(&mut self.audio_began, true)
    }

    /// Media up to this timestamp was written.
    pub(super) fn record_written(&mut self, ms: u32) {
        self.written_ms = self.written_ms.max(ms);
    }

    pub(super) fn written_ms(&self) -> u32 {
        self.written_ms
    }

    /// Decides about one tag.
    pub(super) fn admit(&mut self, tag: Tag) -> Verdict {
        let ms = tag.dts.millis() - self.base.millis();
        match tag.frame {
            Frame::Metadata => self.send_config(Class::Config, ms),
            Frame::AudioSequenceHeader => match self.audio_began || ms <= TRACK_START_MAX_MS {
                true => self.send_config(Class::Config, ms),
                false => Verdict::Reconnect(LostReason::LateTrack),
            },
            Frame::VideoSequenceHeader => self.send_config(Class::VideoConfig, ms),
            Frame::Audio => self.admit_audio(ms),
            Frame::Keyframe if ms >= RECONNECT_AT_MS => Verdict::Reconnect(LostReason::TimestampLimit),
            Frame::Keyframe => {
                self.awaits_keyframe = false;
                match step(self.last_video, ms) {
                    Ok(ms) => {
                        self.last_video = Some(ms);
                        Verdict::Send { class: Class::Keyframe, ms }
                    }
                    Err(reason) => Verdict::Reconnect(reason),
                }
            }
            Frame::InterFrame if self.awaits_keyframe => Verdict::Drop,
            Frame::InterFrame => match step(self.last_video, ms) {
                Ok(ms) => {
                    self.last_video = Some(ms);
                    Verdict::Send { class: Class::InterFrame, ms }
                }
                Err(reason) => Verdict::Reconnect(reason),
            },
        }
    }

    fn admit_audio(&mut self, ms: i64) -> Verdict {
        if !self.audio_began || (self.last_audio.is_none() && ms < 0) {
            return Verdict::Drop; // no SequenceStart yet, or older than the first picture
        }
        if self.last_audio.is_none() && ms > TRACK_START_MAX_MS {
            return Verdict::Reconnect(LostReason::LateTrack);
        }
        match step(self.last_audio, ms) {
            Ok(ms) => {
                self.last_audio = Some(ms);
                Verdict::Send { class: Class::Audio, ms }
            }
            Err(reason) => Verdict::Reconnect(reason),
        }
    }

    /// Configurations go between frames: not before what was sent.
    fn send_config(&self, class: Class, ms: i64) -> Verdict {
        let ms = u32::try_from(ms.max(0)).unwrap_or(u32::MAX);
        Verdict::Send { class, ms: ms.max(self.last_video.unwrap_or(0)) }
    }
}

/// The timestamp after `last` for a frame at `ms`.
fn step(last: Option<u32>, ms: i64) -> Result<u32, LostReason> {
    let next = last.map_or(0, |last| i64::from(last) + 1);
    if ms < next - STEP_BACK_MAX_MS {
        return Err(LostReason::TimeWentBack);
    }
    u32::try_from(ms.max(next)).map_err(|_| LostReason::TimestampLimit)
}
