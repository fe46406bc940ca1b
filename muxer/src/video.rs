//! The video track: packets in sequence in, AVC tags out, with the gate that keeps corrupt pictures in.
//!
//! The gate is shut at the start and after anything that a later picture may refer to did not go out; an IDR
//! picture with known parameter sets opens it. While it is shut nothing goes out and the sender is asked for an IDR. If
//! none comes, a refresh that is complete opens it too ([`crate::recovery`]).

use crate::bytes::{Reader, Writer};
use crate::dts::{DecodeTimes, Times, reorder_depth};
use crate::flv::VideoHeader;
use crate::h264::{AccessUnit, Damage, Depacketizer, Picture};
use crate::handover::{self, HandoverError};
use crate::order::{Order, PictureOrder};
use crate::output::{Frame, KeyframeReason};
use crate::recovery::{Recovery, Verdict};
use crate::reorder::MediaPacket;
use crate::source::Source;
use crate::sps::Sps;
use crate::stats::VideoStats;
use crate::still::Still;
use crate::time::MediaTime;
use crate::{Shared, TrackKind, VideoConfig};

/// A larger IDR picture is not kept for repetition.
const MAX_KEPT_BYTES: usize = 2 << 20;
/// No avcC of the parameter sets that are kept is larger.
const MAX_AVCC_BYTES: usize = 128 << 10;

#[derive(Debug)]
pub(crate) struct VideoTrack {
    pub(crate) source: Source,
    depacketizer: Depacketizer,
    initial_sets: Vec<Vec<u8>>,
    /// The gate is open.
    open: bool,
    /// The sender was asked for an IDR picture since the gate was shut.
    asked: bool,
    /// avcC of the last sequence header, and room for the next one.
    avcc: Vec<u8>,
    next_avcc: Vec<u8>,
    size: Option<(u32, u32)>,
    /// The body of the newest IDR picture's tag; empty when there is none to repeat.
    keyframe: Option<Vec<u8>>,
    order: PictureOrder,
    recovery: Recovery,
    times: DecodeTimes,
    stats: VideoStats,
}

impl VideoTrack {
    pub(crate) fn new(config: &VideoConfig) -> Self {
        Self {
            source: Source::new(config.reorder),
            depacketizer: new_depacketizer(&config.parameter_sets),
            initial_sets: config.parameter_sets.clone(),
            open: false,
            asked: false,
            avcc: Vec::new(),
            next_avcc: Vec::new(),
            size: None,
            keyframe: config.keep_keyframe.then(Vec::new),
            order: PictureOrder::default(),
            recovery: Recovery::default(),
            times: DecodeTimes::default(),
            stats: VideoStats::default(),
        }
    }

    pub(crate) fn stats(&self) -> VideoStats {
        VideoStats {
            packets: self.source.stats,
            waiting_for_keyframe: !self.open,
            bad_parameter_sets: self.stats.bad_parameter_sets + self.depacketizer.bad_parameter_sets,
            ignored_units: self.stats.ignored_units + self.depacketizer.ignored_units,
            ..self.stats
        }
    }

    /// Takes in the next packet in sequence, with `lost` packets missing in front of it.
    pub(crate) fn handle(&mut self, packet: &MediaPacket<'_>, lost: u64, shared: &mut Shared) {
        if lost > 0 {
            if self.depacketizer.is_over_before_loss() {
                self.finish(shared);
            }
            self.depacketizer.lose();
            self.shut(KeyframeReason::Loss, shared);
        }
        if packet.payload.is_empty() {
            return;
        }
        if self.depacketizer.ends_before(packet) {
            self.finish(shared);
        }
        self.depacketizer.push(packet);
        if self.depacketizer.is_over() {
            self.finish(shared);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn deadline(&self) -> Option<MediaTime> {
        let gap = self.source.deadline();
        self.depacketizer.deadline(gap.is_some()).into_iter().chain(gap).min()
    }

    /// Ends a picture of which no more has come.
    pub(crate) fn handle_timeout(&mut self, now: MediaTime, shared: &mut Shared) {
        let gap = self.source.deadline();
        if self.depacketizer.deadline(gap.is_some()).is_some_and(|deadline| now >= deadline) {
            self.finish(shared);
        }
    }

    /// Another stream takes over; `same_encoder` if only its sequence numbers went elsewhere.
    pub(crate) fn restart(&mut self, same_encoder: bool, shared: &mut Shared) {
        if same_encoder {
            if self.depacketizer.is_over_before_loss() {
                self.finish(shared);
            }
            self.depacketizer.lose();
            self.shut(KeyframeReason::Loss, shared);
            return;
        }
        if self.depacketizer.is_over_before_loss() {
            self.finish(shared);
        } else if self.depacketizer.is_in_picture() {
            self.stats.access_units += 1;
            self.stats.dropped.loss += 1;
        }
        self.stats.bad_parameter_sets += self.depacketizer.bad_parameter_sets;
        self.stats.ignored_units += self.depacketizer.ignored_units;
        self.depacketizer = new_depacketizer(&self.initial_sets);
        self.order.restart();
        shared.timeline.restart(TrackKind::Video);
        self.shut(KeyframeReason::SourceChanged, shared);
    }

    /// What went out last, and the picture to repeat, for [`VideoTrack::adopt`] of another process.
    pub(crate) fn hand_over(&self, out: &mut Writer<&mut Vec<u8>>) {
        let began = self.times.last().zip(self.size);
        handover::write_flag(out, began.is_some());
        if let Some((last, (width, height))) = began {
            handover::write_time(out, last);
            out.u32(width);
            out.u32(height);
            out.u8(self.stats.profile_idc);
            out.u8(self.stats.level_idc);
            handover::write_bytes(out, &self.avcc);
            handover::write_bytes(out, self.keyframe.as_deref().unwrap_or_default());
        }
    }

    /// Goes on, in a new track, behind what another process sent last.
    pub(crate) fn adopt(&mut self, state: &mut Reader<'_>) -> Result<(), HandoverError> {
        if handover::read_flag(state, "whether pictures began")? {
            self.times.set(handover::read_time(state, "the last picture")?);
            let size = (state.u32()?, state.u32()?);
            self.size = Some(size);
            (self.stats.width, self.stats.height) = size;
            self.stats.profile_idc = state.u8()?;
            self.stats.level_idc = state.u8()?;
            self.avcc = handover::read_bytes(state, MAX_AVCC_BYTES, "avcC")?.to_vec();
            let kept = handover::read_bytes(state, MAX_KEPT_BYTES, "the picture to repeat")?;
            if let Some(keyframe) = &mut self.keyframe {
                *keyframe = kept.to_vec();
            }
        }
        Ok(())
    }

    /// Sends the newest IDR picture again, at `at` or as soon after what went out as possible.
    pub(crate) fn repeat_keyframe(&mut self, at: MediaTime, shared: &mut Shared) {
        let Some(body) = self.keyframe.as_ref().filter(|body| !body.is_empty()) else {
            return;
        };
        let dts = self.times.floor(at).max(at);
        let header = VideoHeader::Picture { key: true, composition_time_ms: 0 };
        let sent = shared.outbox.push_tag(Frame::Keyframe, dts, |out| {
            out.extend_from_slice(body);
            overwrite_header(out, header);
        });
        if sent {
            self.times.set(dts);
            self.stats.repeated += 1;
        }
        self.shut(KeyframeReason::Hold, shared);
    }

    /// Sends a picture that is nobody's, at `at` or as soon after the last one as possible. The newest IDR picture is
    /// forgotten: nothing shows it again.
    pub(crate) fn show_still(&mut self, still: &Still, at: MediaTime, shared: &mut Shared) {
        let dts = self.times.floor(at).max(at);
        self.next_avcc.clone_from(&still.avcc);
        let sent = self.push_headers(&still.sps, dts, shared)
            && shared.outbox.push_tag(Frame::Keyframe, dts, |out| out.extend_from_slice(&still.body));
        if sent {
            self.times.set(dts);
            self.stats.repeated += 1;
            // The picture of a guest has a size; there is none.
            (self.stats.width, self.stats.height) = (0, 0);
            self.keyframe.iter_mut().for_each(|kept| *kept = Vec::new());
        }
        self.shut(KeyframeReason::Hold, shared);
    }

    fn finish(&mut self, shared: &mut Shared) {
        match self.depacketizer.finish() {
            AccessUnit::NoPicture => {}
            AccessUnit::Damaged(damage) => {
                self.stats.access_units += 1;
                let (counter, reason) = match damage {
                    Damage::Loss => (&mut self.stats.dropped.loss, KeyframeReason::Loss),
                    Damage::Malformed => (&mut self.stats.dropped.malformed, KeyframeReason::Malformed),
                    Damage::TooLarge => (&mut self.stats.dropped.too_large, KeyframeReason::TooLarge),
                };
                *counter += 1;
                self.shut(reason, shared);
            }
            AccessUnit::Picture(picture) => {
                self.stats.access_units += 1;
                self.emit(&picture, shared);
                self.depacketizer.clear_body();
            }
        }
    }

    fn emit(&mut self, picture: &Picture, shared: &mut Shared) {
        let in_force = picture.pps_id.and_then(|pps_id| self.depacketizer.sets.sps(pps_id));
        let order = self.order.next(picture, in_force);
        let mut sps = None;
        if picture.idr {
            self.next_avcc.clear();
            sps = self.depacketizer.sets.write_avcc(picture.pps_id, &mut self.next_avcc);
            if sps.is_none() {
                self.stats.dropped.no_parameter_sets += 1;
                self.open = false;
                self.stats.dropped.waiting_for_keyframe += self.recovery.discard();
                return self.ask(KeyframeReason::NoParameterSets, shared);
            }
        } else if !self.open {
            return self.recover(picture, order, shared);
        }
        let floor = self.times.floor(shared.timeline.start());
        let pts = stamp(picture, order, floor, shared);
        if let Some(sps) = &sps {
            self.times.begin(reorder_depth(sps), pts, !self.open);
        }
        let times = self.times.next(pts, order);
        let dts = times.dts;
        let sent = sps.is_none_or(|sps| self.push_headers(&sps, dts, shared))
            && self.push_picture(picture.idr, &times, shared);
        if !sent {
            if picture.idr {
                // The copy may not go with the sequence header any more.
                self.keyframe.iter_mut().for_each(Vec::clear);
            }
            return self.shut(KeyframeReason::Overflow, shared);
        }
        self.times.set(dts);
        self.stats.frames += 1;
        if let Some(sps) = &sps {
            (self.stats.width, self.stats.height) = (sps.width, sps.height);
            self.stats.keyframes += 1;
            self.stats.last_keyframe_dts = Some(dts);
            self.open();
        }
    }

    /// A picture behind the shut gate: dropped, or part of a recovery.
    fn recover(&mut self, picture: &Picture, order: Order, shared: &mut Shared) {
        if !self.asked {
            self.ask(KeyframeReason::Start, shared);
        }
        let mut order = order;
        if self.recovery.wants(picture)
            && let Some(sps) = self.sps_of_sequence_header(picture)
        {
            self.order.restart();
            order = self.order.next(picture, Some(&sps));
            self.recovery.begin(picture, reorder_depth(&sps));
        }
        let in_force = picture.pps_id.and_then(|pps_id| self.depacketizer.sets.sps(pps_id)).copied();
        match (self.recovery.next(picture, in_force.as_ref()), &in_force) {
            (Verdict::Open, Some(sps)) => self.release(picture, order, sps, shared),
            (Verdict::Hold, _) => {
                let floor = self.times.floor(shared.timeline.start());
                stamp(picture, order, floor, shared);
                let mut body = Vec::new();
                self.depacketizer.swap_body(&mut body);
                if !self.recovery.hold(body) {
                    self.stats.dropped.waiting_for_keyframe += 1 + self.recovery.discard();
                }
            }
            _ => self.stats.dropped.waiting_for_keyframe += 1 + self.recovery.discard(),
        }
    }

    /// The SPS of a picture whose parameter sets are those that readers have.
    fn sps_of_sequence_header(&mut self, picture: &Picture) -> Option<Sps> {
        self.next_avcc.clear();
        let sps = self.depacketizer.sets.write_avcc(picture.pps_id, &mut self.next_avcc)?;
        (self.next_avcc == self.avcc).then_some(sps)
    }

    /// The recovery is complete: what it took goes out, as late and as close together as its times allow, so that readers
    /// learn no latency of it and show at most a glimpse of it; then the picture that is exact, at its own time.
    fn release(&mut self, picture: &Picture, order: Order, sps: &Sps, shared: &mut Shared) {
        let floor = self.times.floor(shared.timeline.start());
        let pts = stamp(picture, order, floor, shared);
        shared.outbox.push_recovered();
        let held = self.recovery.take();
        let mut ahead = i64::try_from(held.len()).expect("at most MAX_PICTURES");
        for body in held {
            let wanted = pts - MediaTime::from_millis(ahead);
            let dts = self.times.floor(wanted).max(wanted);
            ahead -= 1;
            let header = VideoHeader::Picture { key: false, composition_time_ms: 0 };
            let sent = shared.outbox.push_tag(Frame::InterFrame, dts, |out| {
                out.extend_from_slice(&body);
                overwrite_header(out, header);
            });
            if !sent {
                return self.shut(KeyframeReason::Overflow, shared);
            }
            self.times.set(dts);
            self.stats.frames += 1;
        }
        self.times.begin(reorder_depth(sps), pts, true);
        let times = self.times.next(pts, order);
        if !self.push_picture(false, &times, shared) {
            return self.shut(KeyframeReason::Overflow, shared);
        }
        self.times.set(times.dts);
        self.stats.frames += 1;
        self.stats.recoveries += 1;
        self.open();
    }

    fn open(&mut self) {
        self.open = true;
        self.asked = false;
        self.stats.dropped.waiting_for_keyframe += self.recovery.end();
    }

    /// Metadata when the size changed, a sequence header when avcC did.
    fn push_headers(&mut self, sps: &Sps, dts: MediaTime, shared: &mut Shared) -> bool {
        if self.avcc == self.next_avcc {
            return true;
        }
        let size = (sps.width, sps.height);
        if self.size != Some(size) && !shared.push_metadata(Some(size)) {
            return false;
        }
        let avcc = &self.next_avcc;
        let sent = shared.outbox.push_tag(Frame::VideoSequenceHeader, dts, |out| {
            out.extend_from_slice(&VideoHeader::SequenceHeader.to_bytes());
            out.extend_from_slice(avcc);
        });
        if sent {
            self.size = Some(size);
            std::mem::swap(&mut self.avcc, &mut self.next_avcc);
            self.stats.sequence_headers += 1;
            self.stats.profile_idc = sps.profile_idc;
            self.stats.level_idc = sps.level_idc;
        }
        sent
    }

    fn push_picture(&mut self, key: bool, times: &Times, shared: &mut Shared) -> bool {
        let composition_time_ms = times.composition_time_ms();
        let frame = if key { Frame::Keyframe } else { Frame::InterFrame };
        let header = VideoHeader::Picture { key, composition_time_ms };
        let (depacketizer, keyframe) = (&mut self.depacketizer, &mut self.keyframe);
        shared.outbox.push_tag(frame, times.dts, |out| {
            depacketizer.swap_body(out);
            overwrite_header(out, header);
            if let Some(copy) = keyframe.as_mut().filter(|_| key) {
                copy.clear();
                if out.len() <= MAX_KEPT_BYTES {
                    copy.extend_from_slice(out);
                }
            }
        })
    }

    fn shut(&mut self, reason: KeyframeReason, shared: &mut Shared) {
        if self.open {
            self.open = false;
            self.asked = false;
        }
        // A picture that is repeated meanwhile takes nothing from what is held.
        if reason != KeyframeReason::Hold {
            self.stats.dropped.waiting_for_keyframe += self.recovery.discard();
        }
        if !self.asked {
            self.ask(reason, shared);
        }
    }

    fn ask(&mut self, reason: KeyframeReason, shared: &mut Shared) {
        self.asked = true;
        shared.outbox.push_keyframe_needed(reason);
    }
}

fn stamp(picture: &Picture, order: Order, floor: MediaTime, shared: &mut Shared) -> MediaTime {
    shared.timeline.expect_picture(order);
    shared.timeline.stamp(TrackKind::Video, picture.rtp_time, picture.arrival, floor)
}

fn overwrite_header(body: &mut [u8], header: VideoHeader) {
    if let Some(room) = body.first_chunk_mut() {
        *room = header.to_bytes();
    }
}

fn new_depacketizer(sets: &[Vec<u8>]) -> Depacketizer {
    Depacketizer::new(sets.iter().map(Vec::as_slice))
}
