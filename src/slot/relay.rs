//! One guest's media: received packets → [`Muxer`] → [`Publisher`], and what bridges the time in which a guest is away.
//!
//! A relay belongs to a slot, not to a session: a guest who comes back on a new session goes on in the same
//! publication, on the same timeline. While nothing comes of the guest, whether the session ended or stands, the last IDR
//! is repeated once a second and Opus silence runs ([`bridge`]), so that the mixer's input stays. It stays as long as a
//! session holds the slot, and for `hold` after the guest was last heard of. Then the slot is vacant, as it is at once where
//! the guest left for good: nobody's picture, the *still*, takes the place of the guest's, and the stream is unpublished,
//! unless the slot is published without a guest too (`idle`).
//!
//! ```text
//!   vacant ──begin_source──▶ joined ──first packet──▶ published ──end_source──▶ held ──`hold` is over──▶ vacant
//!     ▲                       │                         │  ▲                     │ │
//!     ├──────end_source───────┘                         │  └────begin_source─────┘ │
//!     └──────────────────────────────────────────────vacate────────────────────────┘
//! ```
//! Published and held, and vacant where it idles, it bridges what does not come. RTMP connections come and go below it: the
//! publisher's own states.
//!
//! A session that does not continue the one whose picture stands never inherits it: the still stands until its first IDR.
//!
//! A guest without a microphone is published with silence. In a slot that does not idle, one whose camera shows nothing for
//! [`SOUND_ALONE_AFTER`] is published as sound alone; a later picture moves the publication to a connection with both, since
//! a server fixes the set of tracks in the first two seconds. A slot that idles has both from the start.
//!
//! Input: RTP packets, sender reports and measurements of the live session, the state of the RTMP connection and its bytes.
//! Output: [`Output`], and the bytes for the server by [`Relay::write_buffer`]. Sans-IO: `now` is an argument.
//! Bounds: the muxer's (with its copy of the last IDR) and the publisher's own bounds.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_relay_muxer::bytes::{Reader, Writer};
use guest_relay_muxer::handover::{self, HandoverError};
use guest_relay_muxer::{Frame, MediaTime, Muxer, RtpPacket, SenderReport, Still, Tag, TrackKind};

use super::bridge::Bridge;
use super::freezes::Freezes;
use super::rates::Rates;
use super::wait;
use crate::deadline::earliest;
use crate::guest::SessionKey;
use crate::rtc::peer::Delivery;
use crate::rtmp::{self, Disconnected, Publisher, Target, Tracks};

/// Sound that has not begun so long after the picture begins as silence: a microphone may be missing, and a media server
/// refuses an audio track that starts late. Later on, sound may be behind the picture for as long as a missing packet of
/// it is waited for.
const SILENCE_AFTER: Duration = Duration::from_millis(400);
/// Silence for sound that has been heard stops this short of the picture and of real time: what is on its way, or begins
/// again, finds its place free. Where none was heard it reaches up to now: media servers map a track to wall time by the least
/// delay that they have seen on it, and silence that is always late teaches them a clock that is.
const SILENCE_MARGIN: Duration = Duration::from_millis(200);
/// The silence that fits into the publisher's queue, with room for what comes beside it: more would push itself out of it.
const SILENCE_AT_ONCE: Duration = Duration::from_millis(1_200);
/// A keyframe that answers a request comes so soon.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
/// A sender that left so many requests unanswered makes no keyframe on request.
const UNANSWERED_MAX: u32 = 2;
/// How long a publication waits for its first picture. Servers close a connection that stays idle for ten seconds, two
/// of which they need to find the tracks.
const SOUND_ALONE_AFTER: Duration = Duration::from_secs(5);

/// What a relay is made of.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    pub target: Target,
    /// The target's addresses, as far as known.
    pub servers: Vec<SocketAddr>,
    /// Its reorder waits are the longest ones; the path's round trip and jitter make them shorter.
    pub muxer: guest_relay_muxer::Config,
    /// How long a publication outlives its guest.
    pub hold: Duration,
    /// How old the last keyframe may become, for readers that join late.
    pub keyframe_interval: Option<Duration>,
    /// The slot is published without a guest too.
    pub idle: bool,
    /// What is shown where nobody is there.
    pub still: Arc<Still>,
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
    /// Times the picture stood still, and for how long in all.
    pub freezes: (u64, Duration),
    /// Counters of the current publication's media, and of its publisher.
    pub media: guest_relay_muxer::Stats,
    pub output: rtmp::Stats,
    /// What waits for the server's socket.
    pub queued_bytes: usize,
    pub queued_media: Duration,
}

/// A session that takes the slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined {
    /// The guest's session, which several connections may serve one after the other.
    pub(super) guest: SessionKey,
    /// The guest's session before this one, where the guest proved to have had it.
    pub(super) continues: Option<SessionKey>,
    /// It will send pictures.
    pub(super) video: bool,
}

/// What the publication shows while no picture comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing was shown yet.
    Nothing,
    Still,
    /// The guest's last IDR.
    Guest,
}

/// The session that holds the slot.
#[derive(Clone, Copy, Debug)]
struct Source {
    /// It sends pictures as well as sound, says its SDP.
    video: bool,
    /// Its media has come.
    receiving: bool,
}

/// Who made the tags that are drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Guest,
    Bridge,
}

/// A task for the session, or for whoever has the socket.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Output {
    /// An IDR of the guest's went out: no more requests.
    KeyframeReceived,
    /// Ask the guest for an IDR.
    KeyframeNeeded,
    /// Open a TCP connection to the RTMP server.
    Connect,
    /// Close it, or give up opening it.
    Disconnect,
    Event(rtmp::Event),
}

/// The RTMP connection's side of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtmpInput<'a> {
    /// The TCP connection stands.
    Connected,
    /// The server sent these bytes.
    Bytes(&'a [u8]),
    /// The kernel took so many bytes of the write buffer.
    Written(usize),
    /// The TCP connection ended, or did not come about.
    Disconnected(Disconnected),
}

/// One guest's way from RTP to RTMP; the module has its states. `source` and `has_media`: vacant has neither,
/// joined the first, published both, held the second.
pub(super) struct Relay {
    config: RelayConfig,
    /// Arrival times of the muxer count from here.
    epoch: Instant,
    muxer: Muxer,
    publisher: Publisher,
    source: Option<Source>,
    bridge: Bridge,
    standing: Standing,
    /// The session whose media the publication has, or had last.
    guest: Option<SessionKey>,
    /// Media of `guest`, or of a session that it continues, has come.
    has_media: bool,
    /// When the guest was last heard of.
    heard: Instant,
    /// Nobody holds the slot: unpublish then.
    hold_until: Option<Instant>,
    /// A publication is wanted: started and not ended.
    published: bool,
    /// No picture went out yet: go on without it then.
    sound_alone_at: Option<Instant>,
    delivery: [(TrackKind, Delivery); 2],
    keyframe_request: bool,
    /// When an IDR was last asked for because the last one had grown old.
    keyframe_asked: Option<Instant>,
    keyframe_received: bool,
    /// When the session was asked for a keyframe that has not come, and how many requests it left unanswered.
    asked: Option<Instant>,
    unanswered: u32,
    /// Bounded by what one call makes: the slot drains after each.
    outputs: VecDeque<Output>,
    last_keyframe: Option<Instant>,
    /// dts of the newest sound, or of the first picture.
    audio_until: Option<MediaTime>,
    audio_began: bool,
    /// Sound of the session's own has come since this connection takes media.
    heard_sound: bool,
    rates: Rates,
    freezes: Freezes,
}

impl Relay {
    pub(super) fn new(config: RelayConfig, now: Instant) -> Self {
        let delivery = [TrackKind::Audio, TrackKind::Video].map(|kind| (kind, Delivery::default()));
        let mut relay = Self {
            epoch: now,
            muxer: new_muxer(&config, &delivery),
            publisher: Publisher::new(config.target.clone(), config.seed, now),
            source: None,
            bridge: Bridge::new(now),
            standing: Standing::Nothing,
            guest: None,
            has_media: false,
            heard: now,
            hold_until: None,
            published: false,
            sound_alone_at: None,
            delivery,
            keyframe_request: false,
            keyframe_asked: None,
            keyframe_received: false,
            asked: None,
            unanswered: 0,
            outputs: VecDeque::new(),
            last_keyframe: None,
            audio_until: None,
            audio_began: false,
            heard_sound: false,
            rates: Rates::new(now),
            freezes: Freezes::default(),
            config,
        };
        relay.vacate(now);
        relay
    }

    /// Where it publishes.
    pub(super) fn target(&self) -> &Target {
        &self.config.target
    }

    /// Writes what another process needs to go on in this publication ([`Relay::adopt`]); false when there is none that can be
    /// gone on in.
    pub(super) fn hand_over(&self, out: &mut Writer<&mut Vec<u8>>, now: Instant) -> bool {
        handover::write_flag(out, self.has_media);
        handover::write_flag(out, self.standing == Standing::Guest);
        self.published && self.muxer.hand_over(self.media_time(now), out) && self.publisher.hand_over(out)
    }

    /// A relay that goes on in the publication of another process, which ended `away` before `now`: held as if its guest had
    /// just left, or without anybody. The picture and the silence that is missing come as soon
    /// as time goes on.
    pub(super) fn adopt(&self, state: &mut Reader<'_>, away: Duration, now: Instant) -> Result<Self, HandoverError> {
        let mut relay = Self::new(self.config.clone(), now);
        relay.has_media = handover::read_flag(state, "whether a guest is waited for")?;
        let is_guest = handover::read_flag(state, "whose picture stands")?;
        relay.standing = if is_guest { Standing::Guest } else { Standing::Still };
        relay.muxer.adopt(state, away, MediaTime::ZERO)?;
        relay.publisher.adopt(state, now)?;
        relay.published = true;
        if relay.has_media {
            relay.guest = Some(SessionKey::FORMER);
            relay.end_source(None, now);
            relay.bridge.hasten_picture(now);
        } else {
            relay.bridge.idle(now);
        }
        Ok(relay)
    }

    /// A new session takes the slot. The publication, if there is one, goes on with its media.
    pub(super) fn begin_source(&mut self, joined: Joined, now: Instant) {
        let Joined { guest, continues, video } = joined;
        if self.published {
            self.muxer.replace_source();
            self.drain_muxer(Origin::Guest, now);
            let is_same = self.guest == Some(guest) || self.guest.is_some() && self.guest == continues;
            if !is_same {
                self.has_media = false;
                self.show_still(now);
            }
        } else {
            self.reset(video, now);
            self.publisher.prepare(now);
        }
        (self.asked, self.unanswered) = (None, 0);
        self.publisher.keep_pictures(false);
        self.guest = Some(guest);
        self.heard_sound = false;
        self.hold_until = None;
        self.bridge.begin(now);
        self.source = Some(Source { video, receiving: false });
        self.freezes.interrupt();
        self.drain_publisher(now);
    }

    /// The session is over; `last_heard`: when anything of the guest came last, where media was not all. What is published
    /// of the guest is held for the return.
    pub(super) fn end_source(&mut self, last_heard: Option<Instant>, now: Instant) {
        self.source = None;
        if self.has_media {
            self.heard = self.heard.max(last_heard.unwrap_or(self.heard));
            self.hold_until = Some((self.heard + self.config.hold).max(now));
            self.bridge.end(now);
        } else {
            self.vacate(now);
        }
        self.freezes.interrupt();
    }

    /// The session whose media the publication has, or had last.
    pub(super) fn guest(&self) -> Option<SessionKey> {
        self.guest
    }

    /// Nobody is there, and nobody is waited for: the still takes the guest's place, in the same publication.
    pub(super) fn vacate(&mut self, now: Instant) {
        self.source = None;
        self.guest = None;
        self.has_media = false;
        self.hold_until = None;
        self.sound_alone_at = None;
        if self.published {
            // What waits behind a missing packet would go out when the wait is over.
            self.muxer.replace_source();
            self.drain_muxer(Origin::Bridge, now);
        }
        if self.config.idle {
            if !self.published {
                self.reset(true, now);
                self.published = true;
                self.publisher.start(now);
            }
            self.muxer.begin(self.media_time(now));
            self.bridge.idle(now);
        }
        self.show_still(now);
        if !self.config.idle {
            self.release(now);
        }
        self.drain_publisher(now);
    }

    /// Whether the slot is published without a guest too, from now on.
    pub(super) fn set_idle(&mut self, idle: bool, now: Instant) {
        let changes = std::mem::replace(&mut self.config.idle, idle) != idle;
        let is_vacant = self.source.is_none() && !self.has_media;
        if is_vacant && (changes || self.published != idle) {
            self.vacate(now);
        }
    }

    /// Whoever was shown is not shown any more.
    fn show_still(&mut self, now: Instant) {
        let Some(at) = self.muxer.timeline_at(self.media_time(now)).filter(|_| self.published) else {
            return;
        };
        self.standing = Standing::Still;
        self.muxer.show_still(&self.config.still, at);
        self.bridge.record_still(now);
        self.drain_muxer(Origin::Bridge, now);
    }

    /// Ends the publication now.
    pub(super) fn release(&mut self, now: Instant) {
        self.hold_until = None;
        self.sound_alone_at = None;
        self.publisher.abandon();
        if self.published {
            self.published = false;
            self.publisher.stop(now);
            self.drain_publisher(now);
        }
    }

    /// A decrypted packet of the current session. The first one starts the publication: the server is ready then before
    /// the first picture is whole.
    pub(super) fn handle_rtp(&mut self, kind: TrackKind, packet: &RtpPacket<'_>, now: Instant) {
        let Some(source) = &mut self.source else {
            return;
        };
        source.receiving = true;
        let video = source.video;
        self.has_media = true;
        self.heard = now;
        self.bridge.record_packet(kind, now);
        self.heard_sound |= kind == TrackKind::Audio && self.is_taken();
        self.rates.record_bytes(packet.payload.len(), now);
        self.publish(video, now);
        self.muxer.handle_rtp(kind, packet, self.media_time(now));
        self.drain_muxer(Origin::Guest, now);
        self.drain_publisher(now);
    }

    /// A sender report of the current session: where its RTP clock stands against the other track's.
    pub(super) fn handle_sender_report(&mut self, kind: TrackKind, ntp_time: u64, rtp_time: u32, now: Instant) {
        if self.source.is_some() {
            self.muxer.handle_sender_report(kind, SenderReport { ntp_time, rtp_time }, self.media_time(now));
            self.drain_muxer(Origin::Guest, now);
            self.drain_publisher(now);
        }
    }

    /// What the path does to a track's packets. Returns how long a missing one is waited for from now on.
    pub(super) fn set_delivery(&mut self, kind: TrackKind, delivery: Delivery) -> Duration {
        for (_, known) in self.delivery.iter_mut().filter(|(known, _)| *known == kind) {
            *known = delivery;
        }
        let max_wait = wait::max_wait(&delivery, limit(&self.config.muxer, kind));
        self.muxer.set_max_wait(kind, max_wait);
        max_wait
    }

    /// When [`Relay::handle_timeout`] is due on the media's account.
    pub(super) fn media_timeout(&self) -> Option<Instant> {
        let muxer = self.muxer.poll_timeout().map(|at| self.instant(at));
        let bridge = self.published.then(|| self.bridge.poll_timeout());
        earliest([muxer, bridge, self.hold_until, self.sound_alone_at, self.keyframe_at()])
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.muxer.handle_timeout(self.media_time(now));
        self.drain_muxer(Origin::Guest, now);
        if due(self.hold_until) {
            self.vacate(now);
        }
        if due(self.sound_alone_at) {
            self.sound_alone_at = None;
            self.publisher.set_tracks(Tracks::AudioOnly, now);
        }
        if due(self.keyframe_at()) {
            self.keyframe_asked = Some(now);
            self.request_keyframe(now);
        }
        if self.published {
            self.bridge(now);
        }
        self.publisher.handle_timeout(now);
        self.drain_publisher(now);
    }

    /// A change of the RTMP connection.
    pub(super) fn handle_rtmp(&mut self, input: RtmpInput<'_>, now: Instant) {
        match input {
            RtmpInput::Connected => self.publisher.handle_connected(now),
            RtmpInput::Bytes(bytes) => self.publisher.handle_bytes(bytes, now),
            RtmpInput::Written(count) => self.publisher.handle_written(count, now),
            RtmpInput::Disconnected(how) => self.publisher.handle_disconnected(how, now),
        }
        self.drain_publisher(now);
    }

    /// Bytes for the RTMP server; [`RtmpInput::Written`] says how many of them the kernel took.
    pub(super) fn write_buffer(&mut self) -> &[u8] {
        self.publisher.write_buffer()
    }

    /// When [`Relay::handle_timeout`] is due on the publisher's account: writing to the socket moves that alone.
    pub(super) fn rtmp_timeout(&self) -> Option<Instant> {
        self.publisher.poll_timeout()
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        if std::mem::take(&mut self.keyframe_received) {
            return Some(Output::KeyframeReceived);
        }
        if std::mem::take(&mut self.keyframe_request) {
            return Some(Output::KeyframeNeeded);
        }
        self.outputs.pop_front()
    }

    /// The guest is asked for a keyframe.
    fn request_keyframe(&mut self, now: Instant) {
        self.keyframe_request = true;
        if self.is_receiving() {
            self.settle_request(now);
            self.asked = Some(now);
        }
    }

    /// Whether the last request was answered: a keyframe that comes at last may be none on request. A sender that leaves
    /// [`UNANSWERED_MAX`] of them unanswered makes none, and has the newest group of pictures kept for the next connection.
    fn settle_request(&mut self, now: Instant) {
        let Some(asked) = self.asked.take_if(|asked| now - *asked >= ANSWERED_WITHIN) else { return };
        log::trace!("no keyframe {:?} after it was asked for", now - asked);
        self.unanswered = self.unanswered.saturating_add(1);
        if self.unanswered >= UNANSWERED_MAX {
            self.publisher.keep_pictures(true);
        }
    }

    /// A keyframe came.
    fn record_keyframe(&mut self, now: Instant) {
        self.settle_request(now);
        if self.asked.take().is_some() {
            self.unanswered = 0;
            self.publisher.keep_pictures(false);
        }
    }

    /// `poll_output` has something.
    pub(super) fn has_output(&self) -> bool {
        self.keyframe_received || self.keyframe_request || !self.outputs.is_empty()
    }

    fn drain_publisher(&mut self, now: Instant) {
        while let Some(output) = self.publisher.poll_output() {
            match output {
                rtmp::Output::Connect => self.outputs.push_back(Output::Connect),
                rtmp::Output::Disconnect => self.outputs.push_back(Output::Disconnect),
                rtmp::Output::KeyframeNeeded => {
                    self.bridge.hasten_picture(now);
                    self.request_keyframe(now);
                }
                rtmp::Output::Event(event) => {
                    // The guest came back while the last publication was being closed.
                    if event == rtmp::Event::Stopped && self.published {
                        self.publisher.start(now);
                    }
                    if event == rtmp::Event::Publishing {
                        self.heard_sound = false;
                    }
                    self.outputs.push_back(Output::Event(event));
                }
            }
        }
    }

    /// Media of the current session comes.
    pub(super) fn is_receiving(&self) -> bool {
        self.source.is_some_and(|source| source.receiving) && !self.bridge.is_silent()
    }

    /// Pictures of the current session go out, as far as is known.
    pub(super) fn shows_picture(&self) -> bool {
        self.source.is_some_and(|source| source.video) && !self.bridge.repeats_picture()
    }

    /// The publication was started and not ended.
    pub(super) fn is_published(&self) -> bool {
        self.published
    }

    /// The publication has media of a guest, who is there or is waited for.
    pub(super) fn has_media(&self) -> bool {
        self.has_media
    }

    pub(super) fn rtmp_state(&self) -> rtmp::State {
        self.publisher.state()
    }

    pub(super) fn snapshot(&self, now: Instant) -> RelaySnapshot {
        let media = self.muxer.stats();
        let video = media.video;
        let (fps, bitrate_kbps) = if self.is_receiving() { self.rates.rates(now) } else { (0.0, 0) };
        RelaySnapshot {
            rtmp: self.publisher.state(),
            width: video.width,
            height: video.height,
            fps,
            bitrate_kbps,
            last_keyframe: self.last_keyframe,
            freezes: (self.freezes.count, self.freezes.total),
            media,
            output: *self.publisher.stats(),
            queued_bytes: self.publisher.queued_bytes(),
            queued_media: self.publisher.queued_media(),
        }
    }

    /// Forgets the last guest: the next publication starts afresh.
    fn reset(&mut self, video: bool, now: Instant) {
        self.publisher.renew(if video { Tracks::AudioVideo } else { Tracks::AudioOnly });
        self.epoch = now;
        self.muxer = new_muxer(&self.config, &self.delivery);
        self.bridge = Bridge::new(now);
        self.standing = Standing::Nothing;
        self.keyframe_asked = None;
        self.last_keyframe = None;
        self.audio_until = None;
        self.audio_began = false;
        self.rates = Rates::new(now);
    }

    fn publish(&mut self, video: bool, now: Instant) {
        if !self.published {
            self.published = true;
            self.sound_alone_at = video.then_some(now + SOUND_ALONE_AFTER);
            self.publisher.start(now);
        }
    }

    fn drain_muxer(&mut self, origin: Origin, now: Instant) {
        let mut body = Vec::new();
        while let Some(output) = self.muxer.poll_output(&mut body) {
            match output {
                guest_relay_muxer::Output::Tag(tag) => self.forward(tag, &body, origin, now),
                guest_relay_muxer::Output::KeyframeNeeded(_) => self.request_keyframe(now),
                guest_relay_muxer::Output::Recovered => {
                    self.bridge.end_picture();
                    self.keyframe_received = true;
                }
            }
            body.clear();
        }
        self.muxer.recycle(body);
    }

    /// One tag goes to the publisher.
    fn forward(&mut self, tag: Tag, body: &[u8], origin: Origin, now: Instant) {
        let own = origin == Origin::Guest;
        match tag.frame {
            Frame::Keyframe if own => {
                self.bridge.end_picture();
                self.standing = Standing::Guest;
                self.keyframe_received = true;
                self.record_keyframe(now);
                self.last_keyframe = Some(now);
                self.sound_alone_at = None;
                self.publisher.set_tracks(Tracks::AudioVideo, now);
                self.record_picture(tag.dts, now);
            }
            Frame::InterFrame if own => self.record_picture(tag.dts, now),
            Frame::Audio => {
                self.audio_until = Some(tag.dts);
                self.audio_began = true;
            }
            _ => {}
        }
        self.publisher.push(tag, body, now);
    }

    /// A picture went out: sound must not stay behind it.
    fn record_picture(&mut self, dts: MediaTime, now: Instant) {
        self.rates.record_frame(now);
        self.freezes.record_picture(now);
        let audio_until = *self.audio_until.get_or_insert(dts);
        let waited_for = limit(&self.config.muxer, TrackKind::Audio) + SILENCE_MARGIN;
        if dts - audio_until > MediaTime::from(if self.audio_began { waited_for } else { SILENCE_AFTER }) {
            self.muxer.fill_silence(dts - self.silence_margin());
        }
    }

    /// See [`SILENCE_MARGIN`].
    fn silence_margin(&self) -> MediaTime {
        MediaTime::from(if self.source.is_some() && self.heard_sound { SILENCE_MARGIN } else { Duration::ZERO })
    }

    /// Stands in for what does not come: sound that says nothing, the picture that stands once more, in real time.
    fn bridge(&mut self, now: Instant) {
        let due = self.bridge.take_due(now);
        let Some(dts) = self.muxer.timeline_at(self.media_time(now)) else {
            return;
        };
        if due.silence && !self.fill_silence(dts - self.silence_margin()) {
            self.bridge.catch_up(now);
        } else if due.picture {
            match self.standing {
                Standing::Nothing => {}
                Standing::Still => self.muxer.show_still(&self.config.still, dts),
                Standing::Guest => self.muxer.repeat_keyframe(dts),
            }
        }
        self.drain_muxer(Origin::Bridge, now);
    }

    /// Silence up to `until`. Sound that is far behind would have to go from the publisher's queue for a picture of now: it comes
    /// bit by bit, and the picture after it. False when there is more to come.
    fn fill_silence(&mut self, until: MediaTime) -> bool {
        let most = self.muxer.sound_end().map(|end| end + SILENCE_AT_ONCE).filter(|most| *most < until);
        self.muxer.fill_silence(most.unwrap_or(until));
        most.is_none()
    }

    /// When the last keyframe is too old for readers that join: while the guest shows pictures and the server takes them.
    /// A stream that has keyframes more often is never asked.
    fn keyframe_at(&self) -> Option<Instant> {
        let interval = self.config.keyframe_interval?;
        let last = self.last_keyframe?.max(self.keyframe_asked.unwrap_or(self.epoch));
        (self.shows_picture() && self.is_taken()).then(|| last + interval)
    }

    /// The server takes media.
    fn is_taken(&self) -> bool {
        matches!(self.publisher.state(), rtmp::State::Publishing | rtmp::State::Live)
    }

    fn media_time(&self, now: Instant) -> MediaTime {
        MediaTime::from(now.saturating_duration_since(self.epoch))
    }

    fn instant(&self, time: MediaTime) -> Instant {
        self.epoch + Duration::from_micros(u64::try_from(time.micros()).unwrap_or(0))
    }
}

fn new_muxer(config: &RelayConfig, delivery: &[(TrackKind, Delivery)]) -> Muxer {
    let mut muxer = config.muxer.clone();
    if let Some(video) = &mut muxer.video {
        video.keep_keyframe = true;
    }
    let mut muxer = Muxer::new(muxer);
    for (kind, delivery) in delivery {
        muxer.set_max_wait(*kind, wait::max_wait(delivery, limit(&config.muxer, *kind)));
    }
    muxer
}

/// The longest wait for a missing packet of a track.
fn limit(muxer: &guest_relay_muxer::Config, kind: TrackKind) -> Duration {
    let reorder = match kind {
        TrackKind::Audio => muxer.audio.map(|audio| audio.reorder),
        TrackKind::Video => muxer.video.as_ref().map(|video| video.reorder),
    };
    reorder.map_or(Duration::ZERO, |reorder| reorder.max_wait)
}
