//! A recording made ready for replay: H.264 access units and Opus packets with their RTP payloads, timing and digests.
//!
//! Input: an rtpdump file and the SDP beside it; output: a [`Clip`]. RTP headers are not kept: sequence numbers,
//! timestamps and SSRCs are the replay's own.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::h264::{self, AccessUnitBuilder};
use crate::rtp::{self, Packet};
use crate::rtpdump::{self, Record, RecordKind, RtpdumpError};
use crate::sdp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrackKind {
    Audio,
    Video,
}

/// Video and audio of one recording; at least one of them.
#[derive(Clone, Debug)]
pub struct Clip {
    pub video: Option<ClipTrack>,
    pub audio: Option<ClipTrack>,
}

#[derive(Clone, Debug)]
pub struct ClipTrack {
    /// Access units, or Opus packets; never empty, the first video unit is an IDR picture.
    pub units: Vec<Unit>,
    /// RTP clock, Hz.
    pub clock_rate: u32,
    /// Mean distance between units in RTP clock ticks: the step from a unit to one that did not follow it.
    pub unit_ticks: u32,
}

/// One access unit, or one Opus packet.
#[derive(Clone, Debug)]
pub struct Unit {
    /// RTP clock ticks since the unit before in the clip.
    pub ticks_since_previous: u32,
    /// For video whether it is an IDR picture; true for audio.
    pub is_idr: bool,
    /// [`h264::digest`] of the NAL units, or [`h264::digest_bytes`] of the Opus packet.
    pub digest: u64,
    pub packets: Vec<UnitPacket>,
}

#[derive(Clone, Debug)]
pub struct UnitPacket {
    /// Arrival in the recording, since the unit's first packet.
    pub after_first: Duration,
    pub marker: bool,
    pub payload: Arc<[u8]>,
}

#[derive(Debug)]
pub enum ClipError {
    Io(std::io::Error),
    Rtpdump(RtpdumpError),
    /// The SDP names neither an H.264 nor an Opus payload type that the recording has.
    NoTracks,
    /// A packet is missing, so that a replay could not be told from a lossy network.
    Gap {
        kind: TrackKind,
        sequence_number: u64,
    },
    /// An access unit's fragments do not fit together.
    Damaged {
        rtp_time: u32,
    },
    /// The first picture is not an IDR picture.
    NoIdrAtStart,
}

impl fmt::Display for ClipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "clip: {error}"),
            Self::Rtpdump(error) => write!(f, "clip: {error}"),
            Self::NoTracks => write!(f, "clip has neither H.264 nor Opus"),
            Self::Gap { kind, sequence_number } => {
                write!(f, "clip lacks the {kind:?} packet with extended sequence number {sequence_number}")
            }
            Self::Damaged { rtp_time } => {
                write!(f, "clip's picture at RTP time {rtp_time} is damaged")
            }
            Self::NoIdrAtStart => write!(f, "clip does not start with an IDR picture"),
        }
    }
}

impl std::error::Error for ClipError {}

impl Clip {
    /// Chromium's 1280x720 at 30 frames/s and about 2.4 Mbit/s, 6 s, three IDR pictures, with Opus.
    pub fn chromium_720p() -> Arc<Clip> {
        let (dump, sdp) =
            (include_bytes!("../clips/chromium-720p30.rtpdump"), include_str!("../clips/chromium-720p30.sdp"));
        Arc::new(Clip::from_rtpdump(dump, sdp).expect("the tests read this clip"))
    }

    /// Chromium's 640x360 at 30 frames/s and about 0.2 Mbit/s, 4 s, IDR pictures 0 and 1, with Opus.
    pub fn chromium_360p() -> Arc<Clip> {
        let (dump, sdp) =
            (include_bytes!("../clips/chromium-360p30.rtpdump"), include_str!("../clips/chromium-360p30.sdp"));
        Arc::new(Clip::from_rtpdump(dump, sdp).expect("the tests read this clip"))
    }

    /// Reads `name.rtpdump` and `name.sdp`.
    pub fn load(rtpdump: &Path) -> Result<Arc<Clip>, ClipError> {
        let dump = std::fs::read(rtpdump).map_err(ClipError::Io)?;
        let sdp = std::fs::read_to_string(rtpdump.with_extension("sdp")).map_err(ClipError::Io)?;
        Clip::from_rtpdump(&dump, &sdp).map(Arc::new)
    }

    pub fn from_rtpdump(dump: &[u8], sdp: &str) -> Result<Clip, ClipError> {
        let (_, records) = rtpdump::parse(dump).map_err(ClipError::Rtpdump)?;
        Clip::from_records(&records, sdp)
    }

    pub fn from_records(records: &[Record], sdp: &str) -> Result<Clip, ClipError> {
        let track = |kind, encoding, clock_rate| match sdp::payload_type(sdp, encoding) {
            Some(payload_type) => track(records, kind, payload_type, clock_rate),
            None => Ok(None),
        };
        let video = track(TrackKind::Video, sdp::H264, 90_000)?;
        let audio = track(TrackKind::Audio, sdp::OPUS, 48_000)?;
        if video.is_none() && audio.is_none() {
            return Err(ClipError::NoTracks);
        }
        if video.as_ref().and_then(|video| video.units.first()).is_some_and(|unit| !unit.is_idr) {
            return Err(ClipError::NoIdrAtStart);
        }
        Ok(Clip { video, audio })
    }

    pub fn track(&self, kind: TrackKind) -> Option<&ClipTrack> {
        match kind {
            TrackKind::Audio => self.audio.as_ref(),
            TrackKind::Video => self.video.as_ref(),
        }
    }

    /// A clip with one of the tracks only.
    pub fn only(&self, kind: TrackKind) -> Clip {
        let keep = |k: TrackKind| self.track(k).filter(|_| k == kind).cloned();
        Clip { video: keep(TrackKind::Video), audio: keep(TrackKind::Audio) }
    }
}

/// The packets of one payload type in order of their sequence numbers, grouped by timestamp.
fn track(
    records: &[Record],
    kind: TrackKind,
    payload_type: u8,
    clock_rate: u32,
) -> Result<Option<ClipTrack>, ClipError> {
    let mut packets: BTreeMap<u64, (Duration, Packet<'_>)> = BTreeMap::new();
    let mut latest: Option<u64> = None;
    for record in records.iter().filter(|record| record.kind == RecordKind::Rtp) {
        let Some(packet) = Packet::parse(&record.packet) else {
            continue;
        };
        if packet.payload_type != payload_type || packet.payload.is_empty() {
            continue;
        }
        let number = rtp::extend_sequence_number(latest, packet.sequence_number);
        latest = latest.max(Some(number));
        packets.entry(number).or_insert((record.offset, packet));
    }
    let Some(first) = packets.keys().next().copied() else {
        return Ok(None);
    };
    let missing = packets.keys().zip(first..).find(|(have, want)| *have != want);
    if let Some((_, sequence_number)) = missing {
        return Err(ClipError::Gap { kind, sequence_number });
    }

    let packets: Vec<(Duration, Packet<'_>)> = packets.into_values().collect();
    let mut units = Vec::new();
    let mut previous: Option<u32> = None;
    let mut total_ticks = 0u32;
    for group in packets.chunk_by(|(_, a), (_, b)| a.rtp_time == b.rtp_time) {
        let Some((_, first)) = group.first() else {
            continue;
        };
        let ticks_since_previous = previous.map_or(0, |previous| first.rtp_time.wrapping_sub(previous));
        previous = Some(first.rtp_time);
        total_ticks = total_ticks.saturating_add(ticks_since_previous);
        units.push(unit(group, kind, ticks_since_previous)?);
    }
    let steps = u32::try_from(units.len()).unwrap_or(u32::MAX).saturating_sub(1).max(1);
    Ok(Some(ClipTrack { units, clock_rate, unit_ticks: (total_ticks / steps).max(1) }))
}

fn unit(group: &[(Duration, Packet<'_>)], kind: TrackKind, ticks_since_previous: u32) -> Result<Unit, ClipError> {
    let start = group.iter().map(|(offset, _)| *offset).min().unwrap_or_default();
    let packets = group.iter().map(|(offset, packet)| UnitPacket {
        after_first: *offset - start,
        marker: packet.marker,
        payload: packet.payload.into(),
    });
    let packets: Vec<UnitPacket> = packets.collect();
    let (is_idr, digest) = match kind {
        TrackKind::Audio => (true, packets.iter().map(|p| h264::digest_bytes(&p.payload)).sum()),
        TrackKind::Video => {
            let mut builder = AccessUnitBuilder::default();
            packets.iter().for_each(|packet| builder.push(&packet.payload));
            let rtp_time = group.first().map_or(0, |(_, packet)| packet.rtp_time);
            let units = builder.finish().ok_or(ClipError::Damaged { rtp_time })?;
            let units = || units.iter().map(Vec::as_slice);
            (h264::is_idr(units()), h264::digest(units()))
        }
    };
    Ok(Unit { ticks_since_previous, is_idr, digest, packets })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SDP: &str = "a=rtpmap:96 H264/90000\r\na=rtpmap:111 opus/48000/2\r\n";

    fn video(offset_ms: u64, sequence_number: u16, rtp_time: u32, payload: &[u8]) -> Record {
        let packet = Packet { payload_type: 96, marker: true, sequence_number, rtp_time, ssrc: 1, payload };
        Record { offset: Duration::from_millis(offset_ms), kind: RecordKind::Rtp, packet: packet.to_bytes() }
    }

    #[test]
    fn reordered_and_repeated_packets_over_both_wraps_become_units_in_order() {
        let records = [
            video(0, 0xFFFE, 0xFFFF_FF00, &[0x65, 1]),
            video(5, 0, 0xFFFF_FF00 + 0x80, &[0x41, 3]),
            video(6, 0xFFFF, 0xFFFF_FF00, &[0x65, 2]),
            video(7, 0, 0xFFFF_FF00 + 0x80, &[0x41, 3]),
            video(33, 1, 0x100, &[0x41, 4]),
        ];
        let clip = Clip::from_records(&records, SDP).unwrap();
        let track = clip.video.unwrap();
        let seen: Vec<_> = track.units.iter().map(|u| (u.packets.len(), u.ticks_since_previous, u.is_idr)).collect();
        assert_eq!(seen, [(2, 0, true), (1, 0x80, false), (1, 0x180, false)]);
        assert_eq!(track.unit_ticks, 0x100);
        assert_eq!(track.units[0].packets[1].after_first, Duration::from_millis(6));
        assert_eq!(track.units[0].digest, h264::digest([&[0x65, 1][..], &[0x65, 2]]));
    }

    #[test]
    fn a_clip_with_a_missing_packet_or_without_an_idr_at_its_start_is_refused() {
        let gap = [video(0, 7, 0, &[0x65]), video(0, 9, 3000, &[0x41])];
        let error = Clip::from_records(&gap, SDP).unwrap_err();
        assert!(matches!(error, ClipError::Gap { sequence_number: 0x1_0008, .. }), "{error}");
        let no_idr = Clip::from_records(&[video(0, 7, 0, &[0x41])], SDP);
        assert!(matches!(no_idr, Err(ClipError::NoIdrAtStart)));
        assert!(matches!(Clip::from_records(&[], SDP), Err(ClipError::NoTracks)));
    }

    #[test]
    fn the_chromium_clips_are_what_their_provenance_says() {
        for (clip, idr_pictures, seconds) in [(Clip::chromium_720p(), 3, 6), (Clip::chromium_360p(), 2, 4)] {
            let video = clip.video.as_ref().unwrap();
            let audio = clip.audio.as_ref().unwrap();
            assert_eq!(video.units.iter().filter(|unit| unit.is_idr).count(), idr_pictures);
            assert!((29 * seconds - 4..=30 * seconds + 2).contains(&video.units.len()));
            assert_eq!(audio.unit_ticks, 960);
            assert!((50 * seconds - 8..=50 * seconds + 4).contains(&audio.units.len()));
        }
    }
}
