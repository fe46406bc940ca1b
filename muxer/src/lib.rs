//! Decrypted RTP (H.264, Opus) in, FLV tags out. No I/O, no clock, no threads, no dependencies.
//!
//! ```text
//!  handle_rtp(video) ─▶ source ─▶ reorder ─▶ h264 (access units, SPS/PPS) ─▶ gate ─┐
//!                       (ssrc,    (bounded                                         ├─▶ outbox ─▶ poll_output
//!  handle_rtp(audio) ─▶  sequence) wait)  ─▶ opus (durations, silence) ────────────┘      tags, "keyframe needed"
//!  handle_sender_report ────────────────────▶ timeline (RTP clocks -> one time)
//! ```
//!
//! [`Muxer`] is a state machine. The caller owns sockets and time: it hands in packets with their arrival times,
//! calls [`Muxer::handle_timeout`] when [`Muxer::poll_timeout`] says so, and after each call drains
//! [`Muxer::poll_output`]. What it gets are bodies of FLV tags, which are RTMP messages as well ([`flv`]).
//!
//! What holds at all times:
//!
//! - **Nothing is transcoded.** NAL units and Opus packets go out bit by bit as they came in.
//! - **No picture goes out that refers to one that did not.** After a loss nothing follows until the next IDR
//!   picture; [`Output::KeyframeNeeded`] asks for it. A stream that has none goes on when a refresh of its pictures is
//!   complete ([`Output::Recovered`]). Audio goes on.
//! - **Nothing waits when nothing is missing.** A gap is waited for by time, each track for itself ([`ReorderLimits`]).
//! - **dts is strictly increasing in each track**, in milliseconds too, starting at [`Config::start`]; audio keeps the
//!   exact steps of its sample clock, video is moved against it as sender reports demand.
//! - **A sequence header goes out when the SPS or PPS bytes change, and only then**; the Opus one goes out once.
//! - **Hostile packets cost a counter.** Everything is bounded by named constants; nothing panics.
//!
//! While a guest is gone the timeline goes on: [`Muxer::timeline_at`] says where it stands,
//! [`Muxer::fill_silence`], [`Muxer::repeat_keyframe`] and [`Muxer::show_still`] fill it, and after [`Muxer::replace_source`] the same guest's
//! next session goes on where it is.
//!
//! ```
//! use guest_relay_muxer::{Config, MediaTime, Muxer, Output, RtpPacket, TrackKind};
//!
//! let mut muxer = Muxer::new(Config::default());
//! // One Opus packet of 20 ms: version 2, payload type 111, sequence number 1, time 0, SSRC 7.
//! let datagram = [&[0x80, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7][..], &[0xf8, 0xff, 0xfe]].concat();
//! let packet = RtpPacket::parse(&datagram)?;
//! muxer.handle_rtp(TrackKind::Audio, &packet, MediaTime::from_millis(5000));
//!
//! let mut body = Vec::new();
//! let mut frames = Vec::new();
//! while let Some(output) = muxer.poll_output(&mut body) {
//!     if let Output::Tag(tag) = output {
//!         frames.push((tag.frame, tag.dts.millis(), body.len()));
//!     }
//!     body.clear();
//! }
//! use guest_relay_muxer::Frame;
//! assert_eq!(frames, [(Frame::AudioSequenceHeader, 0, 24), (Frame::Audio, 0, 8)]);
//! # Ok::<(), guest_relay_muxer::RtpError>(())
//! ```

mod annex_b;
mod audio;
mod bits;
mod dts;
#[cfg(test)]
mod fixtures;
mod h264;
mod marker;
mod order;
mod output;
mod packet;
mod parameter_sets;
mod recovery;
mod reorder;
mod source;
mod stats;
mod still;
mod time;
mod timeline;
mod video;

pub mod amf0;
pub mod bytes;
pub mod flv;
pub mod handover;
pub mod opus;
pub mod seq;
pub mod sps;

use std::time::Duration;

use audio::AudioTrack;
use bytes::{Reader, Writer};
use handover::HandoverError;
use output::Outbox;
use source::{Arrived, Restart};
use timeline::Timeline;
use video::VideoTrack;

pub use flv::TagKind;
pub use h264::{MAX_ACCESS_UNIT_BYTES, MAX_NAL_BYTES, MAX_UNITS};
pub use output::{Frame, KeyframeReason, MAX_QUEUED, MAX_QUEUED_BYTES, Output, Tag};
pub use packet::{Extension, HeaderExtension, RtpError, RtpPacket};
pub use reorder::{MediaPacket, ReorderLimits};
pub use stats::{AudioStats, DroppedFrames, PacketStats, Stats, VideoStats};
pub use still::{MAX_STILL_BYTES, Still, StillError};
pub use time::MediaTime;
pub use timeline::SenderReport;

/// The RTP clock of H.264 (RFC 6184 §8.1).
pub const VIDEO_CLOCK_RATE: u32 = 90_000;

/// One of the two tracks of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrackKind {
    /// Opus.
    Audio,
    /// H.264.
    Video,
}

/// What a muxer is made for.
#[derive(Clone, Debug)]
pub struct Config {
    /// The H.264 track; `None` for a stream without video.
    pub video: Option<VideoConfig>,
    /// The Opus track; `None` for a stream without audio.
    pub audio: Option<AudioConfig>,
    /// Who made the stream, for the metadata.
    pub encoder: String,
    /// dts of the first media tag.
    pub start: MediaTime,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            video: Some(VideoConfig::default()),
            audio: Some(AudioConfig::default()),
            encoder: concat!("guest-relay ", env!("CARGO_PKG_VERSION")).to_owned(),
            start: MediaTime::ZERO,
        }
    }
}

/// The H.264 track.
#[derive(Clone, Debug, Default)]
pub struct VideoConfig {
    /// SPS and PPS NAL units of the SDP's `sprop-parameter-sets`, for streams that do not repeat them.
    pub parameter_sets: Vec<Vec<u8>>,
    /// How long to wait for missing packets.
    pub reorder: ReorderLimits,
    /// Keep a copy of the newest IDR picture up to 2 MiB, so that [`Muxer::repeat_keyframe`] has something to repeat.
    pub keep_keyframe: bool,
}

/// The Opus track.
#[derive(Clone, Copy, Debug)]
pub struct AudioConfig {
    /// Channels the sequence header promises, 1 or 2; each packet says itself what it has.
    pub channels: u8,
    /// How long to wait for missing packets.
    pub reorder: ReorderLimits,
}

impl Default for AudioConfig {
    fn default() -> Self {
        Self { channels: 2, reorder: ReorderLimits::DEFAULT }
    }
}

/// What both tracks work on.
#[derive(Debug)]
struct Shared {
    timeline: Timeline,
    outbox: Outbox,
    has_video: bool,
    audio_channels: Option<u8>,
    encoder: String,
}

impl Shared {
    /// Queues `onMetaData`; `false` when the queue is full.
    fn push_metadata(&mut self, video_size: Option<(u32, u32)>) -> bool {
        let metadata = flv::Metadata { video_size, audio_channels: self.audio_channels, encoder: &self.encoder };
        self.outbox.push_tag(Frame::Metadata, MediaTime::ZERO, |out| {
            flv::write_metadata(out, &metadata);
        })
    }
}

/// One guest's media: RTP packets of two tracks in, one sequence of tags out. See the [crate] page.
#[derive(Debug)]
pub struct Muxer {
    video: Option<VideoTrack>,
    audio: Option<AudioTrack>,
    shared: Shared,
}

impl Muxer {
    /// A muxer that has seen nothing.
    pub fn new(config: Config) -> Self {
        Self {
            video: config.video.as_ref().map(VideoTrack::new),
            audio: config.audio.as_ref().map(AudioTrack::new),
            shared: Shared {
                timeline: Timeline::new(config.start, opus::CLOCK_RATE, VIDEO_CLOCK_RATE),
                outbox: Outbox::default(),
                has_video: config.video.is_some(),
                audio_channels: config.audio.map(|audio| audio.channels),
                encoder: config.encoder,
            },
        }
    }

    /// Takes in one packet of a track. Retransmissions are undone before ([`RtpPacket::undo_rtx`]); packets of a
    /// track the muxer was not made for are ignored.
    pub fn handle_rtp(&mut self, kind: TrackKind, packet: &RtpPacket<'_>, arrival: MediaTime) {
        let media = MediaPacket { marker: packet.marker, rtp_time: packet.rtp_time, arrival, payload: packet.payload };
        match (kind, &mut self.video, &mut self.audio) {
            (TrackKind::Video, Some(track), _) => match track.source.push(packet, arrival) {
                Arrived::InOrder => track.handle(&media, 0, &mut self.shared),
                Arrived::Restarted(restart) => {
                    track.restart(restart == Restart::Sequence, &mut self.shared);
                }
                Arrived::Queued | Arrived::Dropped => {}
            },
            (TrackKind::Audio, _, Some(track)) => match track.source.push(packet, arrival) {
                Arrived::InOrder => track.handle(&media, 0, &mut self.shared),
                Arrived::Restarted(restart) => {
                    track.restart(restart == Restart::Sequence, &mut self.shared);
                }
                Arrived::Queued | Arrived::Dropped => {}
            },
            _ => {}
        }
        self.drain(arrival);
    }

    /// Takes in what an RTCP sender report says about a track's clock.
    pub fn handle_sender_report(&mut self, kind: TrackKind, report: SenderReport, arrival: MediaTime) {
        self.shared.timeline.handle_sender_report(kind, report, arrival);
    }

    /// Gives up the gaps that were waited for long enough at `now`.
    pub fn handle_timeout(&mut self, now: MediaTime) {
        self.drain(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<MediaTime> {
        let video = self.video.as_ref().and_then(VideoTrack::deadline);
        let audio = self.audio.as_ref().and_then(|track| track.source.deadline());
        video.into_iter().chain(audio).min()
    }

    /// The input is over: gives up every gap. A picture whose end neither a marker nor another picture shows may not
    /// be whole, and does not go out.
    pub fn flush(&mut self) {
        self.drain(MediaTime::MAX);
    }

    /// The next output; the body of a tag is appended to `out`, which becomes another buffer if it is empty. Drain it after
    /// each `handle_*` call.
    pub fn poll_output(&mut self, out: &mut Vec<u8>) -> Option<Output> {
        self.shared.outbox.pop(out)
    }

    /// Takes a buffer that was passed to [`Muxer::poll_output`], to use it again. A caller with many muxers need not keep one
    /// for each.
    pub fn recycle(&mut self, body: Vec<u8>) {
        self.shared.outbox.recycle(body);
    }

    /// How long a gap of the track is waited for from now on (round trip and jitter change).
    pub fn set_max_wait(&mut self, kind: TrackKind, max_wait: Duration) {
        match kind {
            TrackKind::Video => {
                if let Some(track) = &mut self.video {
                    track.source.set_max_wait(max_wait);
                }
            }
            TrackKind::Audio => {
                if let Some(track) = &mut self.audio {
                    track.source.set_max_wait(max_wait);
                }
            }
        }
    }

    /// The guest comes back by another session or path: what was received so far is forgotten, the timeline goes
    /// on. The next packets are placed by their arrival, and pictures start with an IDR.
    pub fn replace_source(&mut self) {
        if let Some(track) = &mut self.video {
            track.source.forget();
            track.restart(false, &mut self.shared);
        }
        if let Some(track) = &mut self.audio {
            track.source.forget();
            track.restart(false, &mut self.shared);
        }
    }

    /// Where the timeline stands at `now` (a time like the arrivals); `None` before the first media.
    pub fn timeline_at(&self, now: MediaTime) -> Option<MediaTime> {
        self.shared.timeline.at(now)
    }

    /// Where the sound that went out so far ends; `None` before the first.
    pub fn sound_end(&self) -> Option<MediaTime> {
        self.audio.as_ref().and_then(AudioTrack::end)
    }

    /// Fills the audio track with Opus silence up to `until` on the timeline ([`timeline_at`](Self::timeline_at)),
    /// in packets of 20 ms, ten seconds a call at most. Audio that comes later for that time is dropped in favour of the silence.
    pub fn fill_silence(&mut self, until: MediaTime) {
        if let Some(track) = &mut self.audio {
            track.fill_silence(until, &mut self.shared);
        }
    }

    /// Shows the newest IDR picture again at `at` on the timeline ([`timeline_at`](Self::timeline_at)), while the guest
    /// is gone. Pictures that refer to what was sent before do not follow it: the next one is an IDR picture. Does
    /// nothing before the first one, or without [`VideoConfig::keep_keyframe`].
    pub fn repeat_keyframe(&mut self, at: MediaTime) {
        if let Some(track) = &mut self.video {
            track.repeat_keyframe(at, &mut self.shared);
        }
    }

    /// Shows `still` at `at` on the timeline ([`timeline_at`](Self::timeline_at)), where nobody is to be seen. The guest's
    /// newest IDR picture is forgotten, and the next picture of a guest is an IDR picture.
    pub fn show_still(&mut self, still: &Still, at: MediaTime) {
        if let Some(track) = &mut self.video {
            track.show_still(still, at, &mut self.shared);
        }
    }

    /// Has the timeline begin at `now` (a time like the arrivals), where it does not run yet: what is to be shown before any
    /// media needs one.
    pub fn begin(&mut self, now: MediaTime) {
        self.shared.timeline.begin(now);
    }

    /// Writes what another process needs to go on in the same publication: where the timeline stands at `now`, what went
    /// out last, and the picture to repeat. What is still being put together is not among it. False before the first media.
    pub fn hand_over(&self, now: MediaTime, out: &mut Writer<&mut Vec<u8>>) -> bool {
        let Some(stands) = self.timeline_at(now) else {
            return false;
        };
        handover::write_time(out, stands);
        handover::write_flag(out, self.audio.is_some());
        if let Some(track) = &self.audio {
            track.hand_over(out);
        }
        handover::write_flag(out, self.video.is_some());
        if let Some(track) = &self.video {
            track.hand_over(out);
        }
        true
    }

    /// Goes on, in a new muxer, where another one stood `away` before `now`. The next packets are placed by their arrival, and
    /// pictures start with an IDR.
    pub fn adopt(&mut self, state: &mut Reader<'_>, away: Duration, now: MediaTime) -> Result<(), HandoverError> {
        let stood = handover::read_time(state, "the timeline")?;
        self.shared.timeline.resume(stood + away, now);
        if handover::read_flag(state, "the sound track")? != self.audio.is_some() {
            return Err(HandoverError::Value("the sound track"));
        }
        if let Some(track) = &mut self.audio {
            track.adopt(state)?;
        }
        if handover::read_flag(state, "the picture track")? != self.video.is_some() {
            return Err(HandoverError::Value("the picture track"));
        }
        if let Some(track) = &mut self.video {
            track.adopt(state)?;
        }
        Ok(())
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        let (video_correction_micros, video_skew_micros) = self.shared.timeline.correction();
        Stats {
            video: self.video.as_ref().map(VideoTrack::stats).unwrap_or_default(),
            audio: self.audio.as_ref().map(AudioTrack::stats).unwrap_or_default(),
            overflow: self.shared.outbox.overflow,
            video_correction_micros,
            video_skew_micros,
        }
    }

    fn drain(&mut self, now: MediaTime) {
        if let Some(track) = &mut self.video {
            while let Some((lost, held)) = track.source.pop(now) {
                track.handle(&held.packet(), lost, &mut self.shared);
                track.source.recycle(held);
            }
            track.handle_timeout(now, &mut self.shared);
        }
        if let Some(track) = &mut self.audio {
            while let Some((lost, held)) = track.source.pop(now) {
                track.handle(&held.packet(), lost, &mut self.shared);
                track.source.recycle(held);
            }
        }
    }
}

#[cfg(test)]
mod tests;
