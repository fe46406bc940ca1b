//! The audio track: packets in sequence in, enhanced-RTMP Opus tags out.
//!
//! Packets go through unchanged; their times are the RTP clock's. In the place of lost packets come packets without a
//! frame, which the decoder conceals, then silence; silence also comes where the caller says that something is missing
//! ([`fill_silence`](AudioTrack::fill_silence)), and from there up to the next packet. DTX gaps stay gaps.
//!
//! A packet whose place silence has taken:
//!
//! | how much later the silence ends | why | what becomes of the packet |
//! |---|---|---|
//! | half a packet at most | rounding | goes out |
//! | [`MAX_JITTER`] at most | the network's jitter | dropped: the next ones find their places free |
//! | more | a clock that stood still, or the network held packets back | goes out behind the silence, at the pace of real time |
//!
//! The first of the latter wait 40 ms: packets that the network held back come faster than real time, and are dropped. When
//! they have caught up, or the timeline has set the clock forward ([`Timeline::stood_still`](crate::timeline::Timeline)), each
//! has its own place again.

use std::collections::VecDeque;

use crate::bytes::{Reader, Writer};
use crate::flv;
use crate::handover::{self, HandoverError};
use crate::opus::{self, OpusPacket};
use crate::output::Frame;
use crate::reorder::MediaPacket;
use crate::source::Source;
use crate::stats::AudioStats;
use crate::time::MediaTime;
use crate::timeline::StrictlyIncreasing;
use crate::{AudioConfig, Shared, TrackKind};

/// Most silence made by one call; the next one goes on.
const MAX_FILL: MediaTime = MediaTime::from_millis(10_000);
/// A decoder's concealment makes something of the first 100 ms of a gap; what it makes of more is noise.
const MAX_CONCEALED: u32 = 4800;
/// Packets are late by so much without a reason.
const MAX_JITTER: MediaTime = MediaTime::from_millis(60);
/// What comes sooner than real time by more was held back; what comes no sooner for so long was not.
const MAX_EARLY: MediaTime = MediaTime::from_millis(40);
const PACE_SHOWN: MediaTime = MediaTime::from_millis(40);
/// Packets that wait until their pace is known: 80 ms of sound in the shortest that senders use, of 5 ms.
const MAX_UNSURE: usize = 16;
/// Audio may be dropped in favour of silence for this long; then it goes on where the silence ends.
const MAX_OVERTAKEN: MediaTime = MediaTime::from_millis(1000);

/// What becomes of a packet.
enum Place {
    /// It goes out then.
    At(MediaTime),
    /// Silence has taken its place.
    Taken,
    /// Silence has taken its place, which is there; the packets behind it will show whether it has another one.
    Unsure(MediaTime),
}

/// A packet that waits for the ones behind it.
#[derive(Debug)]
struct Unsure {
    payload: Vec<u8>,
    samples: u32,
    own: MediaTime,
    arrival: MediaTime,
}

#[derive(Debug)]
pub(crate) struct AudioTrack {
    pub(crate) source: Source,
    channels: u8,
    header_sent: bool,
    dts: StrictlyIncreasing,
    /// Where what went out so far ends.
    end: Option<MediaTime>,
    /// Of the guest's last packet.
    samples: u32,
    /// Its first byte.
    toc: Option<u8>,
    /// Packets missing since it, for good.
    lost: u64,
    /// The next packet is not the one behind the last: silence joins it to what went out. So it is after silence that the
    /// caller asked for, and where another stream takes over.
    join: bool,
    /// Arrival of the first packet of a run that silence had overtaken.
    overtaken_since: Option<MediaTime>,
    /// Packets whose places silence has taken, before it is known whether they come at the pace of real time. At most
    /// [`MAX_UNSURE`].
    unsure: VecDeque<Unsure>,
    /// They do, and go out so much behind their own places.
    detour: Option<MediaTime>,
    stats: AudioStats,
}

impl AudioTrack {
    pub(crate) fn new(config: &AudioConfig) -> Self {
        Self {
            source: Source::new(config.reorder),
            channels: config.channels,
            header_sent: false,
            dts: StrictlyIncreasing::default(),
            end: None,
            samples: opus::SILENCE_SAMPLES,
            toc: None,
            lost: 0,
            join: false,
            overtaken_since: None,
            unsure: VecDeque::new(),
            detour: None,
            stats: AudioStats::default(),
        }
    }

    pub(crate) fn stats(&self) -> AudioStats {
        AudioStats { packets: self.source.stats, ..self.stats }
    }

    /// Takes in the next packet in sequence, with `lost` packets missing in front of it.
    pub(crate) fn handle(&mut self, packet: &MediaPacket<'_>, lost: u64, shared: &mut Shared) {
        self.lost = self.lost.saturating_add(lost);
        if packet.payload.is_empty() {
            return;
        }
        let Ok(parsed) = OpusPacket::parse(packet.payload) else {
            self.stats.malformed += 1;
            self.lost = self.lost.saturating_add(1);
            return;
        };
        match self.place(packet, parsed.samples, shared) {
            Place::At(pts) => self.forward(packet.payload, parsed.samples, pts, shared),
            Place::Taken => self.stats.overtaken += 1,
            Place::Unsure(own) => self.hold(packet, parsed.samples, own, shared),
        }
    }

    /// A packet goes out, behind whatever stands in for what is missing in front of it.
    fn forward(&mut self, payload: &[u8], samples: u32, pts: MediaTime, shared: &mut Shared) {
        let lost = std::mem::take(&mut self.lost);
        if self.join {
            self.fill_up_to(pts, shared);
        } else {
            self.conceal(lost, pts, shared);
        }
        if self.push(payload, samples, pts, shared) {
            self.stats.frames += 1;
            self.samples = samples;
            self.toc = payload.first().copied();
            self.join = false;
        }
    }

    /// When a packet goes out.
    fn place(&mut self, packet: &MediaPacket<'_>, samples: u32, shared: &mut Shared) -> Place {
        let floor = self.end.unwrap_or(shared.timeline.start());
        let own = shared.timeline.stamp(TrackKind::Audio, packet.rtp_time, packet.arrival, floor);
        let own = own + self.set_clock_forward(own, shared);
        let taken = floor - own;
        if self.end.is_none() || taken <= span(samples / 2) {
            self.overtaken_since = None;
            self.end_detour();
            return Place::At(own);
        }
        if taken <= MAX_JITTER {
            self.end_detour();
            if packet.arrival - *self.overtaken_since.get_or_insert(packet.arrival) < MAX_OVERTAKEN {
                return Place::Taken;
            }
            self.overtaken_since = None;
            shared.timeline.restart(TrackKind::Audio);
            return Place::At(shared.timeline.stamp(TrackKind::Audio, packet.rtp_time, packet.arrival, floor));
        }
        self.overtaken_since = None;
        let now = shared.timeline.at(packet.arrival).unwrap_or(floor);
        let follows = |pts: &MediaTime| *pts + span(samples / 2) >= floor && now - *pts <= MAX_JITTER;
        match self.detour.map(|detour| own + detour).filter(follows) {
            None => {
                self.detour = None;
                Place::Unsure(own)
            }
            // Real time has no room for it: its successor is next.
            Some(pts) if pts - now > MAX_EARLY => {
                self.detour = Some(pts - own - span(samples));
                Place::Taken
            }
            Some(pts) => Place::At(pts),
        }
    }

    fn end_detour(&mut self) {
        self.detour = None;
        self.stats.overtaken += u64::try_from(self.unsure.len()).unwrap_or(u64::MAX);
        self.unsure.clear();
    }

    /// Keeps a packet whose place silence has taken until those behind it show their pace.
    fn hold(&mut self, packet: &MediaPacket<'_>, samples: u32, own: MediaTime, shared: &mut Shared) {
        let arrival = packet.arrival;
        self.unsure.push_back(Unsure { payload: packet.payload.to_vec(), samples, own, arrival });
        // More sound than time: the network had held it back.
        let is_early = |first: &Unsure| own - first.own - (arrival - first.arrival) > MAX_EARLY;
        while self.unsure.len() > MAX_UNSURE || self.unsure.front().is_some_and(is_early) {
            self.unsure.pop_front();
            self.stats.overtaken += 1;
        }
        let Some(first) = self.unsure.front().filter(|first| arrival - first.arrival >= PACE_SHOWN) else { return };
        let floor = self.end.unwrap_or(shared.timeline.start());
        let detour = shared.timeline.at(first.arrival).map_or(floor, |now| now.max(floor)) - first.own;
        self.detour = Some(detour);
        self.join = true;
        for Unsure { payload, samples, own, .. } in std::mem::take(&mut self.unsure) {
            self.forward(&payload, samples, own + detour, shared);
        }
    }

    /// After a clock has stood still it is right again; returns by how much it was set.
    fn set_clock_forward(&mut self, own: MediaTime, shared: &mut Shared) -> MediaTime {
        let Some(stood) = shared.timeline.stood_still() else { return MediaTime::ZERO };
        // Packets that went a detour go on without a break where that led, unless its first one was late.
        let by = self.detour.filter(|detour| *detour - stood <= MAX_JITTER).unwrap_or(stood);
        shared.timeline.set_forward(by);
        self.join |= self.end.is_some_and(|end| own + by > end);
        by
    }

    /// Where what went out so far ends.
    pub(crate) fn end(&self) -> Option<MediaTime> {
        self.end
    }

    /// What went out last, for [`AudioTrack::adopt`] of another process.
    pub(crate) fn hand_over(&self, out: &mut Writer<&mut Vec<u8>>) {
        let began = self.dts.last().zip(self.end);
        handover::write_flag(out, began.is_some());
        if let Some((last, end)) = began {
            handover::write_time(out, last);
            handover::write_time(out, end);
        }
    }

    /// Goes on, in a new track, behind what another process sent last.
    pub(crate) fn adopt(&mut self, state: &mut Reader<'_>) -> Result<(), HandoverError> {
        if handover::read_flag(state, "whether sound began")? {
            self.dts.set(handover::read_time(state, "the last sound")?);
            self.end = Some(handover::read_time(state, "the end of the sound")?);
            self.header_sent = true;
            self.join = true;
        }
        Ok(())
    }

    /// Another stream takes over; `same_encoder` if only its sequence numbers went elsewhere.
    pub(crate) fn restart(&mut self, same_encoder: bool, shared: &mut Shared) {
        if !same_encoder {
            self.toc = None;
            self.join = true;
            self.end_detour();
            shared.timeline.restart(TrackKind::Audio);
        }
    }

    /// Silence from where the track ends up to `until`, in packets of 20 ms, at most [`MAX_FILL`] of it.
    pub(crate) fn fill_silence(&mut self, until: MediaTime, shared: &mut Shared) {
        let mut end = self.end.unwrap_or(shared.timeline.start());
        let until = until.min(end + MAX_FILL);
        while end + span(opus::SILENCE_SAMPLES) <= until {
            if !self.push(&opus::SILENCE_20_MS, opus::SILENCE_SAMPLES, end, shared) {
                return;
            }
            self.stats.silence += 1;
            self.join = true;
            end = end + span(opus::SILENCE_SAMPLES);
        }
    }

    /// Joins what went out and what comes next.
    fn fill_up_to(&mut self, pts: MediaTime, shared: &mut Shared) {
        let Some(mut end) = self.end else { return };
        let until = pts.min(end + MAX_FILL);
        while let Some((samples, silence)) = opus::silence(samples_between(end, until)) {
            if !self.push(&silence, samples, end, shared) {
                return;
            }
            self.stats.silence += 1;
            end = end + span(samples);
        }
    }

    /// Fills the place of `lost` packets, as far as there is time between what went out and `pts`.
    fn conceal(&mut self, lost: u64, pts: MediaTime, shared: &mut Shared) {
        let Some(mut end) = self.end else { return };
        let most = u64::from(self.samples).saturating_mul(lost).min(u64::from(opus::CLOCK_RATE));
        let most = u32::try_from(most).expect("at most a second");
        let mut made = 0;
        loop {
            let room = (most - made).min(samples_between(end, pts));
            let lost = self.toc.filter(|_| made < MAX_CONCEALED).and_then(|toc| opus::no_frame(toc, room));
            let (samples, sent) = match (lost, opus::silence(room)) {
                (Some((samples, packet)), _) => (samples, self.push(&packet, samples, end, shared)),
                (None, Some((samples, packet))) => (samples, self.push(&packet, samples, end, shared)),
                (None, None) => return,
            };
            if !sent {
                return;
            }
            self.stats.concealed += 1;
            made += samples;
            end = end + span(samples);
        }
    }

    fn push(&mut self, payload: &[u8], samples: u32, pts: MediaTime, shared: &mut Shared) -> bool {
        let dts = self.dts.after(pts);
        if !self.header_sent && !self.push_headers(dts, shared) {
            return false;
        }
        let sent = shared.outbox.push_tag(Frame::Audio, dts, |out| flv::write_opus_frames(out, payload));
        if sent {
            self.dts.set(dts);
            self.end = Some(pts + span(samples));
        }
        sent
    }

    fn push_headers(&mut self, dts: MediaTime, shared: &mut Shared) -> bool {
        // With video the metadata comes when its size is known.
        if !shared.has_video && !shared.push_metadata(None) {
            return false;
        }
        let channels = self.channels;
        self.header_sent = shared.outbox.push_tag(Frame::AudioSequenceHeader, dts, |out| {
            flv::write_opus_sequence_header(out, channels);
        });
        self.header_sent
    }
}

/// How long so many samples play. Opus packets are multiples of 2.5 ms: exact in microseconds.
fn span(samples: u32) -> MediaTime {
    MediaTime::from_micros(i64::from(samples) * 1_000_000 / i64::from(opus::CLOCK_RATE))
}

/// Whole samples between two times, none when they are the wrong way round.
fn samples_between(from: MediaTime, to: MediaTime) -> u32 {
    let micros = (to - from).micros().clamp(0, 10_000_000);
    u32::try_from(micros * i64::from(opus::CLOCK_RATE) / 1_000_000).expect("ten seconds of samples")
}
