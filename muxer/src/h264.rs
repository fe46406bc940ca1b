//! H.264 out of RTP (RFC 6184, packetization modes 0 and 1): packets in, access units out.
//!
//! Input: payloads in sequence, and the fact that one is missing. Output: one access unit at a time as the body of
//! an FLV video tag, slices and SEI behind 32-bit lengths. Parameter sets are kept aside; access unit delimiters,
//! filler and undefined types are dropped. An access unit with anything missing or malformed yields no bytes at all.
//! Bounds: [`MAX_NAL_BYTES`], [`MAX_ACCESS_UNIT_BYTES`], [`MAX_UNITS`].
//!
//! ```text
//! single    |F|NRI| 1..23 | RBSP                              §5.6
//! STAP-A    |F|NRI|   24  | (u16 size, NAL unit)*             §5.7.1
//! FU-A      |F|NRI|   28  | |S|E|R| type | part of the RBSP   §5.8
//! ```

use crate::bytes::Reader;
use crate::flv::VIDEO_HEADER_LEN;
use crate::output::MAX_SPARE_BYTES;
use crate::parameter_sets::ParameterSets;
use crate::reorder::MediaPacket;
use crate::sps::{MAX_PARAMETER_SET_BYTES, slice_ids};
use crate::time::MediaTime;

/// Largest NAL unit.
pub const MAX_NAL_BYTES: usize = 4 << 20;
/// Largest access unit; MediaMTX disconnects beyond 8 MiB.
pub const MAX_ACCESS_UNIT_BYTES: usize = 8 << 20;
/// Most NAL units written per access unit; MediaMTX disconnects beyond 50.
pub const MAX_UNITS: usize = 50;

/// The body grows by this part of itself, and by no less than so many bytes.
const GROWTH: usize = 4;
const MIN_GROWTH: usize = 8 << 10;

const SLICE: u8 = 1;
const IDR_SLICE: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;
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
}

#[derive(Clone, Copy, Debug)]
struct FirstSlice {
    idr: bool,
    /// first_mb_in_slice and pic_parameter_set_id, once the slice ended.
    ids: Option<(u32, u8)>,
}

/// Where the fragments of the FU-A in progress go.
#[derive(Clone, Copy, Debug)]
enum Target {
    /// Into the body, behind a length that stands at this offset.
    Body(usize),
    /// Into `fragmented_set`.
    Set,
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
    body: Vec<u8>,
    /// RTP time and arrival of the access unit in progress.
    in_progress: Option<(u32, MediaTime)>,
    units: usize,
    first_slice: Option<FirstSlice>,
    fragmented: Option<Fragmented>,
    fragmented_set: Vec<u8>,
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
            body: Vec::new(),
            in_progress: None,
            units: 0,
            first_slice: None,
            fragmented: None,
            fragmented_set: Vec::new(),
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

    /// Whether a packet of this RTP time starts another access unit than the one in progress.
    pub(crate) fn ends_before(&self, rtp_time: u32) -> bool {
        self.in_progress.is_some_and(|(current, _)| current != rtp_time)
    }

    /// Takes in one packet that is not empty.
    pub(crate) fn push(&mut self, packet: &MediaPacket<'_>) {
        self.in_progress.get_or_insert((packet.rtp_time, packet.arrival));
        self.gap |= std::mem::take(&mut self.gap_ahead);
        let mut reader = Reader::new(packet.payload);
        let Ok(header) = reader.u8() else { return };
        let is_fragment = header & 0x9f == FU_A;
        if self.fragmented.is_some() && !is_fragment {
            self.spoil_as_received();
        }
        match header & 0x1f {
            STAP_A if header & 0x80 == 0 => self.push_stap_a(reader),
            FU_A if is_fragment => self.push_fu_a(header, reader),
            _ => self.push_unit(packet.payload),
        }
    }

    /// Ends the access unit in progress.
    pub(crate) fn finish(&mut self) -> AccessUnit {
        if self.fragmented.is_some() {
            self.spoil_as_received();
        }
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
            self.clear_body();
            return damage.map_or(AccessUnit::NoPicture, AccessUnit::Damaged);
        };
        AccessUnit::Picture(Picture { rtp_time, arrival, idr: slice.idr, pps_id: slice.ids.map(|(_, pps_id)| pps_id) })
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

    /// One whole NAL unit, from a packet of its own or out of a STAP-A.
    fn push_unit(&mut self, nal: &[u8]) {
        let Some(header) = nal.first() else { return };
        if header & 0x80 != 0 {
            self.spoil_as_received();
            return;
        }
        match header & 0x1f {
            nal_type @ (SLICE..=SEI | AUXILIARY_SLICE) => {
                self.begin_slice(nal_type);
                let Some(start) = self.begin_unit() else {
                    return;
                };
                self.append(start, nal);
                self.record_slice_ids(nal_type, nal);
            }
            SPS | PPS => self.store_set(nal),
            // Aggregates inside aggregates, and the modes nobody negotiated: part of the picture is in there.
            STAP_A..=FU_B => self.spoil_as_received(),
            _ => {}
        }
    }

    fn push_fu_a(&mut self, indicator: u8, mut reader: Reader<'_>) {
        let Ok(fu_header) = reader.u8() else {
            return self.spoil_as_received();
        };
        let (start, end) = (fu_header & 0x80 != 0, fu_header & 0x40 != 0);
        let nal_type = fu_header & 0x1f;
        self.saw_slice |= (SLICE..=IDR_SLICE).contains(&nal_type);
        let continues = self.fragmented.is_some_and(|fragmented| fragmented.nal_type == nal_type);
        if reader.is_empty() || start == continues || (start && end) {
            return self.spoil_as_received();
        }
        if start {
            if self.fragmented.is_some() || nal_type == 0 || nal_type >= STAP_A {
                return self.spoil_as_received();
            }
            self.begin_fragments(indicator & 0x60 | nal_type, nal_type);
        }
        self.append_fragment(reader.rest());
        if end {
            self.end_fragments();
        }
    }

    fn begin_fragments(&mut self, header: u8, nal_type: u8) {
        let target = match nal_type {
            SLICE..=SEI | AUXILIARY_SLICE => {
                self.begin_slice(nal_type);
                match self.begin_unit() {
                    Some(start) => Target::Body(start),
                    None => return,
                }
            }
            SPS | PPS => {
                self.fragmented_set.clear();
                Target::Set
            }
            _ => Target::Nowhere,
        };
        self.fragmented = Some(Fragmented { nal_type, bytes: 0, target });
        self.append_fragment(&[header]);
    }

    fn append_fragment(&mut self, bytes: &[u8]) {
        let Some(fragmented) = &mut self.fragmented else {
            return;
        };
        fragmented.bytes += bytes.len();
        let (total, target) = (fragmented.bytes, fragmented.target);
        match target {
            Target::Set if total <= MAX_PARAMETER_SET_BYTES => self.fragmented_set.extend_from_slice(bytes),
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
            Target::Body(start) => {
                let ids = self.nal_at(start).and_then(|nal| slice_ids(nal).ok());
                self.set_slice_ids(fragmented.nal_type, ids);
            }
            Target::Set => {
                let nal = std::mem::take(&mut self.fragmented_set);
                self.store_set(&nal);
                self.fragmented_set = nal;
            }
            Target::Nowhere => {}
        }
    }

    /// In front of the first slice stand the parameter sets that have to.
    fn begin_slice(&mut self, nal_type: u8) {
        if !matches!(nal_type, SLICE..=IDR_SLICE) || self.first_slice.is_some() {
            return;
        }
        let idr = nal_type == IDR_SLICE;
        self.saw_slice = true;
        self.first_slice = Some(FirstSlice { idr, ids: None });
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

    fn record_slice_ids(&mut self, nal_type: u8, nal: &[u8]) {
        self.set_slice_ids(nal_type, slice_ids(nal).ok());
    }

    fn set_slice_ids(&mut self, nal_type: u8, ids: Option<(u32, u8)>) {
        // Partitions B and C begin otherwise.
        if matches!(nal_type, SLICE | 2 | IDR_SLICE)
            && let Some(slice) = self.first_slice.as_mut().filter(|slice| slice.ids.is_none())
        {
            slice.ids = ids;
        }
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
        self.body.extend_from_slice(&[0; 4]);
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
        if let Some((length, nal)) = unit.split_first_chunk_mut::<4>() {
            *length = u32::try_from(nal.len()).expect("at most MAX_ACCESS_UNIT_BYTES").to_be_bytes();
        }
    }

    fn nal_at(&self, start: usize) -> Option<&[u8]> {
        let (_, unit) = self.body.split_at_checked(start)?;
        unit.split_first_chunk::<4>().map(|(_, nal)| nal)
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

#[cfg(test)]
mod tests;
