//! The publisher's media: tags in, messages of the flowing connection into the queue. Output: the queue, within its bounds.

use std::time::Instant;

use guest_relay_muxer::{Frame, Tag, TagKind};

use super::{BODY_MAX, Phase, Publisher, QUEUE_BYTES_MAX, QUEUE_MEDIA_MS_MAX, QUEUE_PICTURE_MS_MAX, Tracks};
use crate::rtmp::flow::{Flow, Verdict};
use crate::rtmp::message;
use crate::rtmp::output::LostReason;
use crate::rtmp::queue::{Bounds, Class};

impl Publisher {
    /// One tag of the muxer; `body` is what goes into the RTMP message. Metadata and sequence headers are remembered for
    /// the connections to come; media is dropped unless a connection can take it.
    pub fn push(&mut self, tag: Tag, body: &[u8], now: Instant) {
        if body.is_empty() || body.len() > BODY_MAX {
            self.stats.oversized += 1;
            if tag.frame == Frame::Keyframe || tag.frame == Frame::InterFrame {
                self.miss_picture(now);
            }
            return;
        }
        match tag.frame {
            Frame::Metadata => replace(&mut self.headers.metadata, body),
            Frame::VideoSequenceHeader => replace(&mut self.headers.video, body),
            Frame::AudioSequenceHeader => replace(&mut self.headers.audio, body),
            Frame::Keyframe | Frame::InterFrame | Frame::Audio => {}
        }
        if !matches!(self.phase, Phase::Publishing | Phase::Live) {
            self.record_unsent(tag.frame);
            return;
        }
        let starts_connection = if self.tracks == Tracks::AudioOnly { Frame::Audio } else { Frame::Keyframe };
        if tag.frame == starts_connection
            && let Some(reason) = self.handover.take()
        {
            return self.hand_over(reason, now);
        }
        if !self.carries(tag.frame) || (self.flow.is_none() && !self.begin_flow(tag)) {
            self.record_unsent(tag.frame);
            return;
        }
        self.forward(tag, body, now);
        self.keep_within_bounds(now);
    }

    /// Whether this connection, or the one to come, has the tag's track.
    fn carries(&self, frame: Frame) -> bool {
        let tracks = self.flow.as_ref().map_or(self.tracks, Flow::tracks);
        match frame {
            Frame::Metadata => true,
            Frame::VideoSequenceHeader | Frame::Keyframe | Frame::InterFrame => tracks != Tracks::AudioOnly,
            Frame::AudioSequenceHeader | Frame::Audio => tracks != Tracks::VideoOnly,
        }
    }

    fn record_unsent(&mut self, frame: Frame) {
        self.stats.frames_unsent += u64::from(matches!(frame, Frame::Keyframe | Frame::InterFrame | Frame::Audio));
    }

    /// A picture will not be sent: the ones that refer to it must not be either.
    fn miss_picture(&mut self, now: Instant) {
        if let Some(flow) = &mut self.flow {
            flow.await_keyframe();
            self.need_keyframe(now);
        }
    }

    /// Whether the connection's media starts with this tag: configurations are queued in front of it then.
    fn begin_flow(&mut self, tag: Tag) -> bool {
        let starts = match (self.tracks, tag.frame) {
            (Tracks::AudioOnly, Frame::Audio) => !self.headers.audio.is_empty(),
            (Tracks::AudioVideo | Tracks::VideoOnly, Frame::Keyframe) => !self.headers.video.is_empty(),
            _ => false,
        };
        if starts {
            self.flow = Some(Flow::new(tag.dts, self.tracks));
            self.timers.keyframe_retry = None;
            self.queue_message(Frame::Metadata, Class::Config, 0, None);
            self.queue_message(Frame::VideoSequenceHeader, Class::VideoConfig, 0, None);
            self.queue_audio_header(0);
        }
        starts
    }

    fn queue_audio_header(&mut self, ms: u32) {
        if !self.headers.audio.is_empty() && self.flow.as_mut().is_some_and(Flow::begin_audio) {
            self.queue_message(Frame::AudioSequenceHeader, Class::Config, ms, None);
        }
    }

    /// Queues a tag on the flowing connection, or one of the remembered headers when `body` is `None`.
    fn queue_message(&mut self, frame: Frame, class: Class, ms: u32, body: Option<&[u8]>) {
        let Some(session) = &self.session else { return };
        let (kind, remembered) = match frame {
            Frame::Metadata => (TagKind::Script, &self.headers.metadata),
            Frame::VideoSequenceHeader | Frame::Keyframe | Frame::InterFrame => (TagKind::Video, &self.headers.video),
            Frame::AudioSequenceHeader | Frame::Audio => (TagKind::Audio, &self.headers.audio),
        };
        let body = body.unwrap_or(remembered);
        if body.is_empty() || !self.carries(frame) {
            return;
        }
        let (chunk_size, stream) = (session.chunk_size(), session.stream());
        self.queue.push(class, ms, |out| message::write_media(out, chunk_size, stream, kind, ms, body));
    }

    /// Queues a tag with the connection's timestamp.
    fn forward(&mut self, tag: Tag, body: &[u8], now: Instant) {
        let Some(flow) = self.flow.as_mut() else {
            return;
        };
        let (class, ms) = match flow.admit(tag) {
            Verdict::Send { class, ms } => (class, ms),
            Verdict::Drop => return self.record_unsent(tag.frame),
            Verdict::Reconnect(reason) => {
                self.record_unsent(tag.frame);
                return match reason {
                    LostReason::TimeWentBack | LostReason::TimestampLimit => self.hand_over(reason, now),
                    reason => self.plan_handover(reason, now),
                };
            }
        };
        match tag.frame {
            Frame::AudioSequenceHeader => return self.queue_audio_header(ms),
            Frame::Audio => self.stats.audio_frames_queued += 1,
            Frame::Keyframe => {
                self.timers.keyframe_retry = None;
                self.stats.video_frames_queued += 1;
            }
            Frame::InterFrame => self.stats.video_frames_queued += 1,
            Frame::Metadata | Frame::VideoSequenceHeader => {}
        }
        self.queue_message(tag.frame, class, ms, Some(body));
        self.record_waiting(now);
    }

    fn keep_within_bounds(&mut self, now: Instant) {
        let trimmed = self.queue.trim(Bounds {
            picture_ms: QUEUE_PICTURE_MS_MAX,
            media_ms: QUEUE_MEDIA_MS_MAX,
            bytes: QUEUE_BYTES_MAX,
        });
        self.stats.video_frames_dropped += trimmed.pictures;
        self.stats.audio_frames_dropped += trimmed.audio_frames;
        self.stats.gops_dropped += trimmed.gops;
        if trimmed.needs_keyframe {
            self.miss_picture(now);
        }
        // What is left cannot be dropped: a partly written frame, or configurations beyond reason.
        if self.queue.len() > QUEUE_BYTES_MAX + BODY_MAX {
            self.lose(LostReason::Overflow, now);
        }
    }
}

fn replace(remembered: &mut Vec<u8>, body: &[u8]) {
    remembered.clear();
    remembered.extend_from_slice(body);
}
