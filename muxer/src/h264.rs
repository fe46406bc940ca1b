//! H.264 out of RTP (RFC 6184, packetization modes 0 and 1): packets in, access units out.
//!
//! Input: payloads in sequence, and the fact that one is missing. Output: one access unit at a time as the body of
//! an FLV video tag, slices and SEI behind 32-bit lengths. Parameter sets are kept aside; access unit delimiters,
//! filler and undefined types are dropped and counted. An access unit with anything missing or malformed yields no
//! bytes at all. Bounds: [`MAX_NAL_BYTES`], [`MAX_ACCESS_UNIT_BYTES`], [`MAX_UNITS`].
//!
//! Senders break three rules of RFC 6184, and lose nothing by it:
//!
//! - FU-A (§5.8): sequence numbers say whether a fragment is missing, so start and end may stand in one packet, and
//!   where no packet is missing an end bit may: the next start, another kind of packet, the marker or another time
//!   ends the unit. A fragment without bytes is nothing.
//! - A unit that holds a byte stream is divided at its start codes ([`crate::annex_b`]).
//! - The marker is a hint ([`crate::marker`]): a slice behind it that is not a picture's first belongs to the picture
//!   before it, and a first one to another picture, also at the same time.
//!
//! ```text
//! single    |F|NRI| 1..23 | RBSP                              §5.6
//! STAP-A    |F|NRI|   24  | (u16 size, NAL unit)*             §5.7.1
//! FU-A      |F|NRI|   28  | |S|E|R| type | part of the RBSP   §5.8
//! ```

use crate::annex_b;
use crate::bytes::Reader;
use crate::flv::VIDEO_HEADER_LEN;
use crate::marker::Marker;
use crate::output::MAX_SPARE_BYTES;
use crate::parameter_sets::ParameterSets;
use crate::reorder::MediaPacket;
use crate::sps::{MAX_PARAMETER_SET_BYTES, SliceOrder, recovery_frame_count, slice_ids};
use crate::time::MediaTime;

/// Largest NAL unit.
pub const MAX_NAL_BYTES: usize = 4 << 20;
/// Largest access unit; MediaMTX disconnects beyond 8 MiB.
pub const MAX_ACCESS_UNIT_BYTES: usize = 8 << 20;
/// Most NAL units written per access unit; MediaMTX disconnects beyond 50.
pub const MAX_UNITS: usize = 50;

/// The body grows by this part of itself, and by no less than so many bytes.
const GROWTH: usize = 4;
/// Slices are looked through for start codes in so many pictures of a stream, and in all once there was one. Other units
/// always are: they are small and rare.
const PICTURES_LOOKED_THROUGH: u32 = 8;
const MIN_GROWTH: usize = 8 << 10;
/// In front of each unit of a body.
const LENGTH_BYTES: usize = 4;

const SLICE: u8 = 1;
const PARTITION_A: u8 = 2;
const IDR_SLICE: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;
const DELIMITER: u8 = 9;
const PREFIX: u8 = 14;
const AUXILIARY_SLICE: u8 = 19;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const FU_B: u8 = 29;

/// Why an access unit has no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Part of it was lost, or may have been.
    Loss,
    /// Its packets break RFC 6184.
    Malformed,
    /// Beyond the bounds.
    TooLarge,
}

/// What ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessUnit {
    /// Parameter sets, delimiters, nothing to show.
    NoPicture,
    /// Nothing of it may be used.
    Damaged(Damage),
    /// A whole picture; [`Depacketizer::swap_body`] has its bytes.
    Picture(Picture),
}

/// A whole picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) rtp_time: u32,
    /// Of its first packet.
    pub(crate) arrival: MediaTime,
    pub(crate) idr: bool,
    /// What its first slice names.
    pub(crate) pps_id: Option<u8>,
    /// nal_ref_idc of its first slice is not 0: others may refer to it.
    pub(crate) reference: bool,
    /// `None` while the SPS is not known.
    pub(crate) order: Option<SliceOrder>,
    /// recovery_frame_cnt of its recovery point SEI message.
    pub(crate) recovery_frames: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct FirstSlice {
    idr: bool,
    reference: bool,
    /// first_mb_in_slice and pic_parameter_set_id, once the slice ended.
    ids: Option<(u32, u8)>,
    order: Option<SliceOrder>,
}

/// What a packet behind a picture's marker, of the same time, is to that picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follows {
    /// A later part of it.
    Continues,
    /// The beginning of another one (H.264 §7.4.1.2.3).
    Begins,
    /// Either.
    Unknown,
}

/// Where the fragments of the FU-A in progress go.
#[derive(Clone, Copy, Debug)]
enum Target {
    /// Into the body, behind a length that stands at this offset.
    Body(usize),
    /// Into `gathered`: what is no part of a picture, unless it turns out to be a byte stream.
    Gathered,
    Nowhere,
}

#[derive(Clone, Copy, Debug)]
struct Fragmented {
    nal_type: u8,
    bytes: usize,
    target: Target,
}

/// Turns the packets of one stream into access units.
#[derive(Debug)]
pub(crate) struct Depacketizer {
    pub(crate) sets: ParameterSets,
    pub(crate) bad_parameter_sets: u64,
    /// Units and fragments that were left out because they hold nothing to show.
    pub(crate) ignored_units: u64,
    body: Vec<u8>,
    /// RTP time and arrival of the access unit in progress.
    in_progress: Option<(u32, MediaTime)>,
    marker: Marker,
    /// Markers in the access unit in progress.
    markers: u32,
    /// Arrival of its last packet, if that had the marker.
    marked_at: Option<MediaTime>,
    /// A marker stands behind a slice of it, and nothing since then was part of it for sure.
    marked_picture: bool,
    /// RTP time of the picture that ended last, and of the access unit without one that ended at its marker.
    ended: Option<u32>,
    ended_without_picture: Option<u32>,
    /// The access unit in progress went on behind a marker that stood in front of its picture.
    early_marker: bool,
    recovery_frames: Option<u32>,
    /// The sender puts start codes into units.
    byte_stream: bool,
    /// Pictures whose slices are still looked through for one.
    to_look_through: u32,
    units: usize,
    first_slice: Option<FirstSlice>,
    fragmented: Option<Fragmented>,
    /// The header of an FU-A that started a unit and held nothing of it.
    empty_start: Option<u8>,
    gathered: Vec<u8>,
    damage: Option<Damage>,
    /// A slice, or part of one, was among the packets.
    saw_slice: bool,
    /// Packets may be missing right before the next one.
    gap_ahead: bool,
    /// Packets may be missing in the access unit in progress, or between it and the last picture before it.
    gap: bool,
    /// SPS and PPS that came in the stream since the gap.
    sets_since: (bool, bool),
    /// Parameter sets ever came in the stream, not only with the SDP.
    sets_in_band: bool,
}

impl Depacketizer {
    /// `sets` come with the SDP (`sprop-parameter-sets`); those that cannot be read are left out.
    pub(crate) fn new<'a>(sets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut depacketizer = Self {
            sets: ParameterSets::default(),
            bad_parameter_sets: 0,
            ignored_units: 0,
            body: Vec::new(),
            in_progress: None,
            marker: Marker::default(),
            markers: 0,
            marked_at: None,
            marked_picture: false,
            ended: None,
            ended_without_picture: None,
            early_marker: false,
            recovery_frames: None,
            byte_stream: false,
            to_look_through: PICTURES_LOOKED_THROUGH,
            units: 0,
            first_slice: None,
            fragmented: None,
            empty_start: None,
            gathered: Vec::new(),
            damage: None,
            saw_slice: false,
            gap_ahead: true,
            gap: false,
            sets_since: (false, false),
            sets_in_band: false,
        };
        for nal in sets {
            depacketizer.store_set(nal);
        }
        depacketizer.sets_since = (false, false);
        depacketizer.sets_in_band = false;
        depacketizer
    }

    /// Packets are missing in front of the next one.
    pub(crate) fn lose(&mut self) {
        if self.in_progress.is_some() {
            self.spoil(Damage::Loss);
        }
        self.gap_ahead = true;
        self.sets_since = (false, false);
    }

    /// Whether the access unit in progress was over before this packet.
    pub(crate) fn ends_before(&self, packet: &MediaPacket<'_>) -> bool {
        self.in_progress.is_some_and(|(current, _)| {
            current != packet.rtp_time || (self.marked_picture && follows(packet.payload) == Follows::Begins)
        })
    }

    /// Whether the access unit in progress is over, now that its newest packet is in.
    pub(crate) fn is_over(&self) -> bool {
        // Behind a marker that has no picture in front of it the picture may follow: what it shall find stays.
        self.marked_at.is_some() && if self.saw_slice { self.marker.is_trusted() } else { self.body.is_empty() }
    }

    /// Whether the access unit in progress was over before the packets that are missing now.
    pub(crate) fn is_over_before_loss(&self) -> bool {
        self.marked_at.is_some() && !(self.saw_slice && self.marker.is_refuted())
    }

    /// Whether part of a picture is in.
    pub(crate) fn is_in_picture(&self) -> bool {
        self.saw_slice
    }

    /// When the picture in progress is over if nothing more of it comes. `behind_gap`: packets are being waited for.
    pub(crate) fn deadline(&self, behind_gap: bool) -> Option<MediaTime> {
        let marked_at = self.marked_at.filter(|_| self.marked_picture && !(behind_gap && self.marker.is_refuted()))?;
        Some(marked_at + self.marker.wait())
    }

    /// Takes in one packet that is not empty.
    pub(crate) fn push(&mut self, packet: &MediaPacket<'_>) {
        if self.in_progress.is_none() {
            self.in_progress = Some((packet.rtp_time, packet.arrival));
            self.early_marker = self.ended_without_picture.take() == Some(packet.rtp_time);
        } else if self.marked_at.is_some() && !self.saw_slice {
            self.early_marker = true;
        }
        self.gap |= std::mem::take(&mut self.gap_ahead);
        if self.marked_picture && follows(packet.payload) == Follows::Continues {
            self.marker.refute();
            self.marked_picture = false;
        }
        self.push_payload(packet.payload);
        if self.early_marker && self.saw_slice {
            self.early_marker = false;
            self.marker.suspect();
        }
        self.marked_at = packet.marker.then_some(packet.arrival);
        self.markers += u32::from(packet.marker);
        self.marked_picture |= packet.marker && self.saw_slice;
    }

    fn push_payload(&mut self, payload: &[u8]) {
        let mut reader = Reader::new(payload);
        let Ok(header) = reader.u8() else { return };
        if header & 0x9f == FU_A {
            return self.push_fu_a(header, reader);
        }
        self.empty_start = None;
        // No packet is missing, so its end bit is.
        self.end_fragments();
        match header & 0x1f {
            STAP_A if header & 0x80 == 0 => self.push_stap_a(reader),
            _ => self.push_unit(payload),
        }
    }

    /// Ends the access unit in progress.
    pub(crate) fn finish(&mut self) -> AccessUnit {
        self.end_fragments();
        self.empty_start = None;
        if self.saw_slice {
            if self.markers == 1 && self.marked_at.is_some() && self.damage.is_none() {
                self.marker.confirm();
            }
            self.ended = self.in_progress.map(|(rtp_time, _)| rtp_time);
            self.to_look_through = self.to_look_through.saturating_sub(1);
        } else if self.marked_at.is_some() {
            self.ended_without_picture = self.in_progress.map(|(rtp_time, _)| rtp_time);
        }
        self.markers = 0;
        self.marked_at = None;
        self.marked_picture = false;
        let recovery_frames = self.recovery_frames.take();
        let damage = self.damage.take();
        let first_slice = self.first_slice.take();
        let in_progress = self.in_progress.take();
        self.units = 0;
        // Behind parameter sets alone the gap is still right before the next picture.
        let gap = self.gap;
        self.gap &= !std::mem::take(&mut self.saw_slice);
        let Some((rtp_time, arrival)) = in_progress else {
            return AccessUnit::NoPicture;
        };
        let damage = damage.or_else(|| {
            let slice = first_slice.filter(|slice| slice.idr && gap)?;
            (!self.has_head(slice)).then_some(Damage::Loss)
        });
        let (None, Some(slice)) = (damage, first_slice) else {
            self.ignored_units += u64::from(damage.is_none() && !self.body.is_empty());
            self.clear_body();
            return damage.map_or(AccessUnit::NoPicture, AccessUnit::Damaged);
        };
        AccessUnit::Picture(Picture {
            rtp_time,
            arrival,
            idr: slice.idr,
            pps_id: slice.ids.map(|(_, pps_id)| pps_id),
            reference: slice.reference,
            order: slice.order,
            recovery_frames,
        })
    }

    /// The body of the picture that just ended, for an empty buffer; its first [`VIDEO_HEADER_LEN`] bytes are free
    /// for the tag's header.
    pub(crate) fn swap_body(&mut self, other: &mut Vec<u8>) {
        std::mem::swap(&mut self.body, other);
        self.clear_body();
    }

    /// The picture that just ended is not used.
    pub(crate) fn clear_body(&mut self) {
        self.body.clear();
        if self.body.capacity() > MAX_SPARE_BYTES {
            self.body = Vec::new();
        }
    }

    /// Whether an IDR picture is whole although packets in front of it are missing: its parameter sets, which come
    /// first, are there; or it never has any and its first slice is the picture's first.
    fn has_head(&self, slice: FirstSlice) -> bool {
        self.sets_since == (true, true) || (!self.sets_in_band && slice.ids.is_some_and(|(first_mb, _)| first_mb == 0))
    }

    fn push_stap_a(&mut self, mut reader: Reader<'_>) {
        // A size that is cut short comes after the last unit and takes nothing with it.
        while let Ok(size) = reader.u16() {
            let Ok(nal) = reader.take(usize::from(size)) else {
                self.spoil_as_received();
                return;
            };
            if !nal.is_empty() {
                self.push_unit(nal);
            }
        }
    }

    /// One whole NAL unit, from a packet of its own or out of a STAP-A, or a byte stream in the place of one.
    fn push_unit(&mut self, nal: &[u8]) {
        if self.is_byte_stream(nal) {
            annex_b::units(nal).for_each(|nal| self.push_nal(nal));
        } else {
            self.push_nal(nal);
        }
    }

    fn is_byte_stream(&mut self, unit: &[u8]) -> bool {
        let nal_type = unit.first().map_or(0, |header| header & 0x1f);
        let looked_through = self.byte_stream || self.to_look_through > 0 || !is_slice(nal_type);
        let found = looked_through && annex_b::has_start_code(unit);
        self.byte_stream |= found;
        found
    }

    fn push_nal(&mut self, nal: &[u8]) {
        let Some(header) = nal.first() else { return };
        if header & 0x80 != 0 {
            self.spoil_as_received();
            return;
        }
        match header & 0x1f {
            nal_type @ (SLICE..=SEI | AUXILIARY_SLICE) => {
                self.begin_slice(*header);
                let Some(start) = self.begin_unit() else {
                    return;
                };
                self.append(start, nal);
                self.record_unit(nal_type, nal);
            }
            SPS | PPS => self.store_set(nal),
            // Aggregates inside aggregates, and the modes nobody negotiated: part of the picture is in there.
            STAP_A..=FU_B => self.spoil_as_received(),
            _ => self.ignored_units += 1,
        }
    }

    fn push_fu_a(&mut self, indicator: u8, mut reader: Reader<'_>) {
        let Ok(fu_header) = reader.u8() else {
            return self.spoil_as_received();
        };
        let (start, end) = (fu_header & 0x80 != 0, fu_header & 0x40 != 0);
        let nal_type = fu_header & 0x1f;
        let header = indicator & 0x60 | nal_type;
        self.saw_slice |= (SLICE..=IDR_SLICE).contains(&nal_type);
        let empty_start = self.empty_start.take();
        if reader.is_empty() {
            self.ignored_units += 1;
            self.empty_start = (start && !end).then_some(header).or(empty_start);
            if end && self.fragmented.is_some_and(|fragmented| fragmented.nal_type == nal_type) {
                self.end_fragments();
            }
            return;
        }
        if start || empty_start == Some(header) {
            // No packet is missing: the unit before this one lacks its end bit.
            self.end_fragments();
            if nal_type >= STAP_A {
                return self.spoil_as_received();
            }
            self.begin_fragments(header, nal_type);
        } else if self.fragmented.is_none_or(|fragmented| fragmented.nal_type != nal_type) {
            self.doubt_marker();
            return self.spoil_as_received();
        }
        self.append_fragment(reader.rest());
        if end {
            self.end_fragments();
        }
    }

    fn begin_fragments(&mut self, header: u8, nal_type: u8) {
        let target = match nal_type {
            SLICE..=SEI | AUXILIARY_SLICE => {
                self.begin_slice(header);
                match self.begin_unit() {
                    Some(start) => Target::Body(start),
                    None => return,
                }
            }
            _ => {
                self.gathered.clear();
                Target::Gathered
            }
        };
        self.fragmented = Some(Fragmented { nal_type, bytes: 0, target });
        self.append_fragment(&[header]);
    }

    fn append_fragment(&mut self, bytes: &[u8]) {
        let Some(Fragmented { nal_type, bytes: before, target }) = self.fragmented else {
            return;
        };
        let total = before + bytes.len();
        self.fragmented = Some(Fragmented { nal_type, bytes: total, target });
        match target {
            Target::Gathered if total <= MAX_PARAMETER_SET_BYTES || self.gathers_byte_stream(total) => {
                self.gathered.extend_from_slice(bytes);
            }
            Target::Gathered if !matches!(nal_type, SPS | PPS) => {
                self.fragmented = Some(Fragmented { nal_type, bytes: total, target: Target::Nowhere });
            }
            Target::Body(start) if total <= MAX_NAL_BYTES => self.append(start, bytes),
            Target::Nowhere if total <= MAX_NAL_BYTES => {}
            _ => self.spoil(Damage::TooLarge),
        }
    }

    fn end_fragments(&mut self) {
        let Some(fragmented) = self.fragmented.take() else {
            return;
        };
        match fragmented.target {
            Target::Body(start) => self.end_in_body(fragmented.nal_type, start),
            Target::Gathered => {
                let unit = std::mem::take(&mut self.gathered);
                self.push_unit(&unit);
                if unit.capacity() <= MAX_PARAMETER_SET_BYTES {
                    self.gathered = unit;
                }
            }
            Target::Nowhere => self.ignored_units += 1,
        }
    }

    /// The unit at `start` of the body is whole.
    fn end_in_body(&mut self, nal_type: u8, start: usize) {
        let body = std::mem::take(&mut self.body);
        let nal = body.get(start + LENGTH_BYTES..).unwrap_or_default();
        if self.is_byte_stream(nal) {
            let stream = nal.to_vec();
            self.body = body;
            self.body.truncate(start);
            self.units -= 1;
            annex_b::units(&stream).for_each(|nal| self.push_nal(nal));
            return;
        }
        self.record_unit(nal_type, nal);
        // What is damaged has no body.
        if self.damage.is_none() {
            self.body = body;
        }
    }

    /// Whether what was gathered, which will be `total` bytes, is a byte stream and not a parameter set.
    fn gathers_byte_stream(&self, total: usize) -> bool {
        total <= MAX_NAL_BYTES
            && annex_b::has_start_code(self.gathered.get(..MAX_PARAMETER_SET_BYTES).unwrap_or(&self.gathered))
    }

    /// In front of the first slice stand the parameter sets that have to.
    fn begin_slice(&mut self, header: u8) {
        let nal_type = header & 0x1f;
        if !matches!(nal_type, SLICE..=IDR_SLICE) || self.first_slice.is_some() {
            return;
        }
        let idr = nal_type == IDR_SLICE;
        self.saw_slice = true;
        self.first_slice = Some(FirstSlice { idr, reference: header & 0x60 != 0, ids: None, order: None });
        if self.damage.is_none() {
            let sets = std::mem::take(&mut self.sets);
            for nal in sets.in_band(idr) {
                if let Some(start) = self.begin_unit() {
                    self.append(start, nal);
                }
            }
            self.sets = sets;
        }
        self.sets.settle();
    }

    /// What a whole unit of the body says.
    fn record_unit(&mut self, nal_type: u8, nal: &[u8]) {
        match nal_type {
            SEI => self.recovery_frames = self.recovery_frames.or_else(|| recovery_frame_count(nal)),
            // Partitions B and C begin otherwise.
            SLICE | PARTITION_A | IDR_SLICE if self.first_slice.is_some_and(|slice| slice.ids.is_none()) => {
                let Ok((first_mb, pps_id)) = slice_ids(nal) else { return };
                let order = self.sets.sps(pps_id).and_then(|sps| SliceOrder::parse(nal, sps).ok());
                if let Some(slice) = &mut self.first_slice {
                    slice.ids = Some((first_mb, pps_id));
                    slice.order = order;
                }
                if first_mb > 0 && self.doubt_marker() {
                    self.spoil_as_received();
                }
            }
            _ => {}
        }
    }

    /// Part of a picture comes first in its access unit: if the picture before it has the same time, that one was not
    /// over at its marker, and went out without this.
    fn doubt_marker(&mut self) -> bool {
        let torn = !self.gap && self.ended.is_some() && self.ended == self.in_progress.map(|(rtp_time, _)| rtp_time);
        if torn {
            self.marker.refute();
        }
        torn
    }

    /// Room for a length; the offset it stands at. `None` if nothing more may be written.
    fn begin_unit(&mut self) -> Option<usize> {
        if self.damage.is_some() {
            return None;
        }
        self.units += 1;
        if self.units > MAX_UNITS {
            self.spoil(Damage::TooLarge);
            return None;
        }
        if self.body.is_empty() {
            self.body.extend_from_slice(&[0; VIDEO_HEADER_LEN]);
        }
        let start = self.body.len();
        self.body.extend_from_slice(&[0; LENGTH_BYTES]);
        Some(start)
    }

    /// Appends to the unit at `start`, which is the last one, and counts the bytes in its length.
    fn append(&mut self, start: usize, bytes: &[u8]) {
        if self.body.len() + bytes.len() > MAX_ACCESS_UNIT_BYTES {
            return self.spoil(Damage::TooLarge);
        }
        let free = self.body.capacity() - self.body.len();
        if free < bytes.len() {
            // By less than the doubling that is usual: a guest's IDR picture is the most memory that it takes.
            self.body.reserve_exact(bytes.len().max(self.body.len() / GROWTH).max(MIN_GROWTH));
        }
        self.body.extend_from_slice(bytes);
        let (_, unit) = self.body.split_at_mut(start);
        if let Some((length, nal)) = unit.split_first_chunk_mut::<LENGTH_BYTES>() {
            *length = u32::try_from(nal.len()).expect("at most MAX_ACCESS_UNIT_BYTES").to_be_bytes();
        }
    }

    fn store_set(&mut self, nal: &[u8]) {
        let is_sps = nal.first().is_some_and(|header| header & 0x1f == SPS);
        let stored = if is_sps { self.sets.store_sps(nal) } else { self.sets.store_pps(nal) };
        self.sets_in_band = true;
        match stored {
            Ok(()) if is_sps => self.sets_since.0 = true,
            Ok(()) => self.sets_since.1 = true,
            Err(_) => self.bad_parameter_sets += 1,
        }
    }

    /// Right behind a loss, what does not fit together is part of the loss.
    fn spoil_as_received(&mut self) {
        self.spoil(if self.gap { Damage::Loss } else { Damage::Malformed });
    }

    fn spoil(&mut self, damage: Damage) {
        self.damage.get_or_insert(damage);
        self.fragmented = None;
        self.clear_body();
    }
}

fn is_slice(nal_type: u8) -> bool {
    matches!(nal_type, SLICE..=IDR_SLICE)
}

/// Looks at a packet behind a picture's marker without taking it in.
fn follows(payload: &[u8]) -> Follows {
    let mut reader = Reader::new(payload);
    let Ok(header) = reader.u8() else { return Follows::Unknown };
    match header & 0x1f {
        STAP_A => {
            let mut found = Follows::Unknown;
            while found == Follows::Unknown
                && let Ok(size) = reader.u16()
                && let Ok(unit) = reader.take(usize::from(size))
            {
                found = unit_follows(unit);
            }
            found
        }
        FU_A => {
            let Ok(fu_header) = reader.u8() else { return Follows::Unknown };
            match fu_header & 0x1f {
                nal_type if !is_slice(nal_type) && fu_header & 0x80 != 0 => Follows::Begins,
                nal_type if !is_slice(nal_type) || reader.is_empty() => Follows::Unknown,
                _ if fu_header & 0x80 == 0 => Follows::Continues,
                nal_type => slice_follows(nal_type, reader.rest()),
            }
        }
        _ => unit_follows(payload),
    }
}

/// The same for a unit, or for the first of a byte stream that says it.
fn unit_follows(unit: &[u8]) -> Follows {
    let of_nal = |nal: &[u8]| {
        let Some((header, rbsp)) = nal.split_first() else { return Follows::Unknown };
        match header & 0x1f {
            nal_type if is_slice(nal_type) => slice_follows(nal_type, rbsp),
            SEI | DELIMITER | PREFIX..=18 => Follows::Begins,
            _ => Follows::Unknown,
        }
    };
    annex_b::units(unit).map(of_nal).find(|found| *found != Follows::Unknown).unwrap_or(Follows::Unknown)
}

fn slice_follows(nal_type: u8, rbsp: &[u8]) -> Follows {
    let starts_with_first_mb = matches!(nal_type, SLICE | PARTITION_A | IDR_SLICE);
    // ue(v) of first_mb_in_slice: a one alone is 0.
    let first_mb_is_0 = rbsp.first().is_some_and(|byte| byte & 0x80 != 0);
    if starts_with_first_mb && first_mb_is_0 { Follows::Begins } else { Follows::Continues }
}

#[cfg(test)]
mod tests;
