//! One guest's media: received packets → [`Muxer`] → [`Publisher`], and what bridges the time in which a guest is away.
//!
//! A relay belongs to a slot, not to a session: a guest who comes back on a new session goes on in the same
//! publication, on the same timeline. While the guest is away for up to `hold`, the last IDR is repeated once a second
//! and Opus silence runs, so that the mixer's input stays; after that the stream is unpublished.
//!
//! Input: RTP packets and sender reports of the current session. Output: through [`Relay::publisher`] RTMP bytes, through
//! [`Relay::take_keyframe_request`] the wish for an IDR. Sans-IO: `now` is an argument.
//! Bounds: one copy of the last IDR (≤ `HELD_IDR_BYTES`), one tag buffer; the muxer's and publisher's own bounds.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use guest_relay_muxer::{Frame, MediaTime, Muxer, Output, RtpPacket, SenderReport, Tag, TagKind, TrackKind};

use crate::rtmp::{self, Publisher, PublisherConfig, Target};

/// A larger IDR is not repeated during a hold: silence alone keeps the input then.
const HELD_IDR_BYTES: usize = 2 * 1024 * 1024;
/// How often the last IDR is repeated while the guest is away.
const HOLD_REPEAT: Duration = Duration::from_secs(1);
/// How often silence is added meanwhile: readers with small buffers must not run dry.
const HOLD_TICK: Duration = Duration::from_millis(100);
/// Audio that is this far behind the picture is filled with silence: a muted microphone may send nothing at all, and a
/// media server refuses an audio track that starts late.
const SILENCE_AFTER: Duration = Duration::from_millis(400);
/// Silence stops this short of the picture, so that a microphone that comes back finds its place free.
const SILENCE_MARGIN: Duration = Duration::from_millis(200);

/// What a relay is made of.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    pub target: Target,
    /// The target's host, resolved.
    pub servers: Vec<SocketAddr>,
    pub muxer: guest_relay_muxer::Config,
    /// How long a publication outlives its guest.
    pub hold: Duration,
    /// Spreads the reconnects of several guests.
    pub seed: u64,
}

/// What the API says about a relay.
#[derive(Clone, Debug)]
pub struct RelaySnapshot {
    pub rtmp: rtmp::State,
    pub width: u32,
    pub height: u32,
    pub fps: f64,
    pub bitrate_kbps: u32,
    pub last_keyframe: Option<Instant>,
}

/// The guest is away, or back without a picture yet.
#[derive(Clone, Copy, Debug)]
struct Hold {
    /// Unpublish then, unless a session holds the slot again.
    until: Instant,
    next_repeat: Instant,
    next_tick: Instant,
}

impl Hold {
    fn due(&self) -> Instant {
        self.until.min(self.next_tick)
    }
}

/// The session that holds the slot.
#[derive(Clone, Copy, Debug)]
struct Source {
    /// It sends pictures as well as sound, says its SDP.
    video: bool,
    /// Its media has come.
    receiving: bool,
}

/// One guest's way from RTP to RTMP.
pub struct Relay {
    config: RelayConfig,
    /// Arrival times of the muxer count from here.
    epoch: Instant,
    muxer: Muxer,
    publisher: Publisher,
    tag: Vec<u8>,
    source: Option<Source>,
    hold: Option<Hold>,
    /// A publication is wanted: started and not ended.
    published: bool,
    keyframe_request: bool,
    keyframe_received: bool,
    last_idr: Vec<u8>,
    last_keyframe: Option<Instant>,
    /// dts up to which the publication has sound.
    audio_until: Option<MediaTime>,
    rates: Rates,
}

impl Relay {
    pub fn new(config: RelayConfig, now: Instant) -> Self {
        Self {
            epoch: now,
            muxer: Muxer::new(config.muxer.clone()),
            publisher: new_publisher(&config, rtmp::Tracks::AudioVideo, now),
            tag: Vec::new(),
            source: None,
            hold: None,
            published: false,
            keyframe_request: false,
            keyframe_received: false,
            last_idr: Vec::new(),
            last_keyframe: None,
            audio_until: None,
            rates: Rates::new(now),
            config,
        }
    }

    /// A new session takes the slot; `video`: it will send pictures. The publication, if one is held, goes on with its
    /// media.
    pub fn begin_source(&mut self, video: bool, now: Instant) {
        if self.published {
            self.muxer.replace_source();
            self.drain_muxer(now);
        } else {
            self.reset(video, now);
        }
        self.source = Some(Source { video, receiving: false });
    }

    /// The session is over. What is published is held for the guest's return.
    pub fn end_source(&mut self, now: Instant) {
        self.source = None;
        if self.published {
            let until = now + self.config.hold;
            self.hold = Some(Hold { until, next_repeat: now + HOLD_REPEAT, next_tick: now + HOLD_TICK });
        }
    }

    /// Ends the publication now.
    pub fn release(&mut self, now: Instant) {
        self.hold = None;
        if self.published {
            self.published = false;
            self.publisher.stop(now);
        }
    }

    /// A decrypted packet of the current session. The first one starts the publication: the server is ready then before
    /// the first picture is whole.
    pub fn handle_rtp(&mut self, kind: TrackKind, packet: &RtpPacket<'_>, now: Instant) {
        let Some(source) = &mut self.source else {
            return;
        };
        source.receiving = true;
        self.rates.count_bytes(packet.payload.len(), now);
        self.publish(now);
        self.muxer.handle_rtp(kind, packet, self.media_time(now));
        self.drain_muxer(now);
    }

    /// A sender report of the current session: where its RTP clock stands against the other track's.
    pub fn handle_sender_report(&mut self, kind: TrackKind, ntp_time: u64, rtp_time: u32, now: Instant) {
        if self.source.is_some() {
            self.muxer.handle_sender_report(kind, SenderReport { ntp_time, rtp_time }, self.media_time(now));
            self.drain_muxer(now);
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let muxer = self.muxer.poll_timeout().map(|at| self.instant(at));
        let hold = self.hold.map(|hold| hold.due());
        [muxer, hold, self.publisher.poll_timeout()].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.muxer.handle_timeout(self.media_time(now));
        self.drain_muxer(now);
        if let Some(hold) = self.hold.filter(|hold| hold.due() <= now) {
            if now >= hold.until && self.source.is_none() {
                self.release(now);
            } else {
                let repeat = now >= hold.next_repeat;
                self.hold = Some(Hold {
                    until: if self.source.is_some() { now + self.config.hold } else { hold.until },
                    next_repeat: if repeat { now + HOLD_REPEAT } else { hold.next_repeat },
                    next_tick: now + HOLD_TICK,
                });
                self.bridge(repeat, now);
            }
        }
        self.publisher.handle_timeout(now);
    }

    /// The RTMP side: the media loop moves its bytes.
    pub fn publisher(&mut self) -> &mut Publisher {
        &mut self.publisher
    }

    /// What the RTMP side wants from the media loop.
    pub fn poll_output(&mut self, now: Instant) -> Option<rtmp::Output> {
        let output = self.publisher.poll_output();
        // The guest came back while the last publication was being closed.
        if self.published && output == Some(rtmp::Output::Event(rtmp::Event::Stopped)) {
            self.publisher.start(now);
        }
        output
    }

    /// Whether an IDR is needed; asked once.
    pub fn take_keyframe_request(&mut self) -> bool {
        std::mem::take(&mut self.keyframe_request)
    }

    /// Whether an IDR came; asked once.
    pub fn take_keyframe_received(&mut self) -> bool {
        std::mem::take(&mut self.keyframe_received)
    }

    /// Media of the current session has come.
    pub fn is_receiving(&self) -> bool {
        self.source.is_some_and(|source| source.receiving)
    }

    /// The publication was started and not ended.
    pub fn is_published(&self) -> bool {
        self.published
    }

    pub fn rtmp_state(&self) -> rtmp::State {
        self.publisher.state()
    }

    pub fn snapshot(&self, now: Instant) -> RelaySnapshot {
        let video = self.muxer.stats().video;
        let (fps, bitrate_kbps) = if self.is_receiving() { self.rates.rates(now) } else { (0.0, 0) };
        RelaySnapshot {
            rtmp: self.publisher.state(),
            width: video.width,
            height: video.height,
            fps,
            bitrate_kbps,
            last_keyframe: self.last_keyframe,
        }
    }

    /// Forgets the last guest: the next publication starts afresh.
    fn reset(&mut self, video: bool, now: Instant) {
        let tracks = if video { rtmp::Tracks::AudioVideo } else { rtmp::Tracks::AudioOnly };
        // A publication that is still being closed keeps its publisher, and with it its set of tracks.
        if matches!(self.publisher.state(), rtmp::State::Idle | rtmp::State::Stopped) {
            self.publisher = new_publisher(&self.config, tracks, now);
        }
        self.epoch = now;
        self.muxer = Muxer::new(self.config.muxer.clone());
        self.last_idr = Vec::new();
        self.last_keyframe = None;
        self.audio_until = None;
        self.rates = Rates::new(now);
    }

    fn publish(&mut self, now: Instant) {
        if !self.published {
            self.published = true;
            self.publisher.start(now);
        }
    }

    fn drain_muxer(&mut self, now: Instant) {
        loop {
            self.tag.clear();
            match self.muxer.poll_output(&mut self.tag) {
                Some(Output::Tag(tag)) => self.forward(tag, now),
                Some(Output::KeyframeNeeded(_)) => self.keyframe_request = true,
                None => return,
            }
        }
    }

    /// One tag, its body in `self.tag`, goes to the publisher.
    fn forward(&mut self, tag: Tag, now: Instant) {
        match tag.frame {
            Frame::KeyFrame => {
                self.hold = None;
                self.keyframe_received = true;
                self.last_keyframe = Some(now);
                self.last_idr.clear();
                if self.tag.len() <= HELD_IDR_BYTES {
                    self.last_idr.extend_from_slice(&self.tag);
                }
                self.note_picture(tag.dts, now);
            }
            Frame::InterFrame => self.note_picture(tag.dts, now),
            Frame::Audio => {
                self.audio_until = Some(tag.dts);
                if self.source.is_some_and(|source| source.receiving && !source.video) {
                    self.hold = None;
                }
            }
            Frame::Metadata | Frame::VideoSequenceHeader | Frame::AudioSequenceHeader => {}
        }
        self.publisher.push(tag, &self.tag, now);
    }

    /// A picture went out: sound must not stay behind it.
    fn note_picture(&mut self, dts: MediaTime, now: Instant) {
        self.rates.count_frame(now);
        let audio_until = *self.audio_until.get_or_insert(dts);
        if dts - audio_until > MediaTime::from(SILENCE_AFTER) {
            self.muxer.fill_silence(dts - MediaTime::from(SILENCE_MARGIN));
        }
    }

    /// The guest is away: sound that says nothing, and every now and then the last picture once more, in real time.
    fn bridge(&mut self, repeat_picture: bool, now: Instant) {
        let Some(dts) = self.muxer.timeline_at(self.media_time(now)) else {
            return;
        };
        if self.source.is_none_or(|source| !source.receiving) {
            self.muxer.fill_silence(dts);
            self.drain_muxer(now);
        }
        if repeat_picture && !self.last_idr.is_empty() {
            let tag = Tag { kind: TagKind::Video, frame: Frame::KeyFrame, dts, len: self.last_idr.len() };
            self.publisher.push(tag, &self.last_idr, now);
        }
    }

    fn media_time(&self, now: Instant) -> MediaTime {
        MediaTime::from(now.saturating_duration_since(self.epoch))
    }

    fn instant(&self, time: MediaTime) -> Instant {
        self.epoch + Duration::from_micros(u64::try_from(time.micros()).unwrap_or(0))
    }
}

fn new_publisher(config: &RelayConfig, tracks: rtmp::Tracks, now: Instant) -> Publisher {
    Publisher::new(config.target.clone(), PublisherConfig { tracks }, config.seed, now)
}

/// Bit rate and frame rate over the last full window, counted without a timer.
#[derive(Clone, Copy, Debug)]
struct Rates {
    since: Instant,
    bytes: u64,
    frames: u32,
    fps: f64,
    kbps: u32,
}

impl Rates {
    const WINDOW: Duration = Duration::from_secs(2);

    fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0, frames: 0, fps: 0.0, kbps: 0 }
    }

    fn count_bytes(&mut self, bytes: usize, now: Instant) {
        self.roll(now);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    fn count_frame(&mut self, now: Instant) {
        self.roll(now);
        self.frames += 1;
    }

    fn roll(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= Self::WINDOW {
            self.fps = f64::from(self.frames) / elapsed.as_secs_f64();
            let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            self.kbps = u32::try_from(self.bytes.saturating_mul(8) / millis).unwrap_or(u32::MAX);
            (self.since, self.bytes, self.frames) = (now, 0, 0);
        }
    }

    /// Frames per second and kbit/s; nothing when no packet came for two windows.
    fn rates(&self, now: Instant) -> (f64, u32) {
        if now.saturating_duration_since(self.since) > 2 * Self::WINDOW { (0.0, 0) } else { (self.fps, self.kbps) }
    }
}
