//! Opus packets as far as a relay must understand them (RFC 6716 §3): how long one plays, and whether it
//! keeps the rules R1-R7. RFC 7587: one Opus packet is one RTP payload, and the RTP clock runs at 48 kHz.
//!
//! ```text
//!  0 1 2 3 4 5 6 7
//! +-+-+-+-+-+-+-+-+   config: mode, bandwidth, frame size   s: stereo
//! | config  |s| c |   c: 0 one frame, 1 two of equal size, 2 two, 3 as many as the next byte says
//! +-+-+-+-+-+-+-+-+
//! ```

use std::fmt;

use crate::bytes::{Reader, Truncated};

/// The RTP clock of Opus (RFC 7587 §4.1).
pub const CLOCK_RATE: u32 = 48_000;
/// R5: no packet is longer than 120 ms.
pub const MAX_SAMPLES: u32 = 5760;
/// R2: no frame is larger.
const MAX_FRAME_BYTES: usize = 1275;

/// Why a payload is not an Opus packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpusError {
    /// R1: not one byte.
    Empty,
    /// The lengths inside add up to more than the packet.
    Truncated(Truncated),
    /// R2: a frame larger than 1275 bytes.
    FrameSize(usize),
    /// R3, R6: frames of equal size that do not divide the packet.
    UnequalFrames {
        /// Bytes to share out.
        bytes: usize,
        /// Frames that share them.
        frames: usize,
    },
    /// R5: no frame at all, or more than 120 ms of them.
    Duration {
        /// Samples at 48 kHz.
        samples: u32,
    },
}

impl fmt::Display for OpusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpusError::Empty => write!(f, "Opus packet without a byte"),
            OpusError::Truncated(truncated) => write!(f, "Opus packet {truncated}"),
            OpusError::FrameSize(bytes) => write!(f, "Opus frame of {bytes} bytes"),
            OpusError::UnequalFrames { bytes, frames } => {
                write!(f, "Opus: {bytes} bytes for {frames} equal frames")
            }
            OpusError::Duration { samples } => write!(f, "Opus packet of {samples} samples"),
        }
    }
}

impl std::error::Error for OpusError {}

impl From<Truncated> for OpusError {
    fn from(truncated: Truncated) -> Self {
        OpusError::Truncated(truncated)
    }
}

/// What the first bytes of an Opus packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpusPacket {
    /// Samples at 48 kHz the whole packet plays, 120..=5760.
    pub samples: u32,
    /// Frames inside, 1..=48.
    pub frames: u8,
    /// Two coded channels.
    pub stereo: bool,
}

impl OpusPacket {
    /// Reads the table of contents and checks R1-R7.
    pub fn parse(packet: &[u8]) -> Result<Self, OpusError> {
        let mut reader = Reader::new(packet);
        let toc = reader.u8().map_err(|_| OpusError::Empty)?;
        let frames = match toc & 3 {
            0 => {
                frame_fits(reader.len())?;
                1
            }
            1 => {
                equal_frames(reader.len(), 2)?;
                2
            }
            2 => {
                let first = frame_length(&mut reader)?;
                reader.take(first)?;
                frame_fits(reader.len())?;
                2
            }
            _ => many_frames(&mut reader, frame_samples(toc))?,
        };
        let samples = frame_samples(toc) * u32::from(frames);
        if samples > MAX_SAMPLES {
            return Err(OpusError::Duration { samples });
        }
        Ok(Self { samples, frames, stereo: toc & 4 != 0 })
    }
}

/// Table 2: samples at 48 kHz of each frame.
fn frame_samples(toc: u8) -> u32 {
    match (toc >> 3, (toc >> 3) & 3) {
        (0..=11, size @ 0..=2) => 480 << size,
        (0..=11, _) => 2880,
        (12..=15, size) => 480 << (size & 1),
        (_, size) => 120 << size,
    }
}

/// Code 3: `|v|p|     M     |`, padding lengths, with v the lengths of all frames but the last.
fn many_frames(reader: &mut Reader<'_>, frame_samples: u32) -> Result<u8, OpusError> {
    let count = reader.u8()?;
    let frames = count & 0x3f;
    let samples = frame_samples * u32::from(frames);
    if frames == 0 || samples > MAX_SAMPLES {
        return Err(OpusError::Duration { samples });
    }
    if count & 0x40 != 0 {
        let mut padding = 0;
        loop {
            // 255 stands for 254 bytes of padding and a further length byte.
            let length = reader.u8()?;
            padding += usize::from(length.min(254));
            if length != 255 {
                break;
            }
        }
        reader.take_back(padding)?;
    }
    if count & 0x80 == 0 {
        equal_frames(reader.len(), usize::from(frames))?;
        return Ok(frames);
    }
    let mut total = 0;
    for _ in 1..frames {
        total += frame_length(reader)?;
    }
    reader.take(total)?;
    frame_fits(reader.len())?;
    Ok(frames)
}

/// Section 3.2.1: one byte below 252, else `4 * second + first`.
fn frame_length(reader: &mut Reader<'_>) -> Result<usize, OpusError> {
    let first = usize::from(reader.u8()?);
    if first < 252 {
        return Ok(first);
    }
    Ok(usize::from(reader.u8()?) * 4 + first)
}

fn frame_fits(bytes: usize) -> Result<(), OpusError> {
    if bytes > MAX_FRAME_BYTES { Err(OpusError::FrameSize(bytes)) } else { Ok(()) }
}

fn equal_frames(bytes: usize, frames: usize) -> Result<(), OpusError> {
    if !bytes.is_multiple_of(frames) {
        return Err(OpusError::UnequalFrames { bytes, frames });
    }
    frame_fits(bytes / frames)
}

/// Samples of [`SILENCE_20_MS`].
pub const SILENCE_SAMPLES: u32 = 960;
/// A packet that every decoder turns into 20 ms of digital silence: CELT fullband, mono, the silence flag set.
pub const SILENCE_20_MS: [u8; 3] = [0xf8, 0xff, 0xfe];
/// As above for 10, 5 and 2.5 ms, with their samples.
const SHORT_SILENCES: [(u32, [u8; 3]); 3] =
    [(480, [0xf0, 0xff, 0xfe]), (240, [0xe8, 0xff, 0xfe]), (120, [0xe0, 0xff, 0xfe])];

/// A packet of one byte in the place of a lost one: a frame of length 0 is "no frame (DTX or lost packet)" (RFC 6716
/// §3.2.1), which the decoder conceals out of what it heard before. It has the mode, bandwidth and channels of
/// `toc`, so that no decoder changes mode for it, and its frame size, or the largest one no longer than `samples`.
/// Gives its samples; `None` when the mode has no frame that short.
pub fn no_frame(toc: u8, samples: u32) -> Option<(u32, [u8; 1])> {
    // Table 2: neighbouring configurations differ in nothing but frame size, hybrid ones come in pairs.
    let sizes = if (12..=15).contains(&(toc >> 3)) { 2 } else { 4 };
    let size = (toc >> 3) % sizes;
    (0..=size)
        .map(|shorter| (toc & !3) - 8 * shorter)
        .map(|toc| (frame_samples(toc), [toc]))
        .find(|(n, _)| *n <= samples)
}

/// The longest silent packet that is no longer than `samples`, and its samples; `None` below 2.5 ms.
pub fn silence(samples: u32) -> Option<(u32, [u8; 3])> {
    if samples >= SILENCE_SAMPLES {
        return Some((SILENCE_SAMPLES, SILENCE_20_MS));
    }
    SHORT_SILENCES.into_iter().find(|(short, _)| *short <= samples)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// RFC 6716 table 2, in tenths of a millisecond, one row for each range of configurations.
    const TABLE_2: [(std::ops::RangeInclusive<u8>, &[u32]); 5] = [
        (0..=11, &[100, 200, 400, 600]),
        (12..=13, &[100, 200]),
        (14..=15, &[100, 200]),
        (16..=23, &[25, 50, 100, 200]),
        (24..=31, &[25, 50, 100, 200]),
    ];

    #[test]
    fn all_256_first_bytes_have_the_duration_of_table_2() {
        for (configs, sizes) in TABLE_2 {
            for (config, tenths) in configs.zip(sizes.iter().cycle()) {
                let frame = tenths * 48 / 10;
                for stereo in [0, 4] {
                    let toc = config << 3 | stereo;
                    for (packet, frames) in [
                        (vec![toc, 1, 2], 1u8),
                        (vec![toc | 1, 1, 2], 2),
                        (vec![toc | 2, 1, 1, 2], 2),
                        (vec![toc | 3, 1, 2], 1),
                    ] {
                        let parsed = OpusPacket::parse(&packet).unwrap();
                        let samples = frame * u32::from(frames);
                        assert_eq!(parsed, OpusPacket { samples, frames, stereo: stereo != 0 }, "{packet:02x?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_rules_r1_to_r7_are_kept() {
        let long = |head: &[u8], len: usize| [head, &vec![0; len][..]].concat();
        // Config 31 is 20 ms, so six frames are 120 ms and seven too many; config 16 is 2.5 ms.
        let cases: Vec<(&str, Vec<u8>, Result<u32, OpusError>)> = vec![
            ("R1", vec![], Err(OpusError::Empty)),
            ("DTX", vec![0xf8], Ok(960)),
            ("R2 at the bound", long(&[0xf8], 1275), Ok(960)),
            ("R2 beyond", long(&[0xf8], 1276), Err(OpusError::FrameSize(1276))),
            ("R3 odd", long(&[0xf9], 3), Err(OpusError::UnequalFrames { bytes: 3, frames: 2 })),
            ("R3 empty frames", vec![0xf9], Ok(1920)),
            ("R4 no length", vec![0xfa], Err(OpusError::Truncated(Truncated { need: 1, have: 0 }))),
            ("R4 half a length", vec![0xfa, 252], Err(OpusError::Truncated(Truncated { need: 1, have: 0 }))),
            ("R4 too long", vec![0xfa, 2, 1], Err(OpusError::Truncated(Truncated { need: 2, have: 1 }))),
            ("R4 two-byte length", long(&[0xfa, 252, 1], 256), Ok(1920)),
            ("R5 without count", vec![0xfb], Err(OpusError::Truncated(Truncated { need: 1, have: 0 }))),
            ("R5 no frames", vec![0xfb, 0], Err(OpusError::Duration { samples: 0 })),
            ("R5 120 ms", vec![0xfb, 6], Ok(5760)),
            ("R5 140 ms", vec![0xfb, 7], Err(OpusError::Duration { samples: 6720 })),
            ("R5 48 frames of 2.5 ms", vec![0x83, 48], Ok(5760)),
            ("R5 49 frames of 2.5 ms", vec![0x83, 49], Err(OpusError::Duration { samples: 5880 })),
            ("R6", long(&[0xfb, 3], 7), Err(OpusError::UnequalFrames { bytes: 7, frames: 3 })),
            ("R6 padding", vec![0xfb, 0x42, 2, 1, 1, 0, 0], Ok(1920)),
            ("R6 padding beyond", vec![0xfb, 0x42, 5, 0, 0], Err(OpusError::Truncated(Truncated { need: 5, have: 2 }))),
            ("R6 padding chain", long(&[0xfb, 0x41, 255, 255, 1], 509), Ok(960)),
            (
                "R6 endless padding chain",
                vec![0xfb; 1].into_iter().chain([0x41]).chain([255; 40]).collect(),
                Err(OpusError::Truncated(Truncated { need: 1, have: 0 })),
            ),
            ("R7", vec![0xfb, 0x83, 1, 2, 9, 9, 9, 9], Ok(2880)),
            ("R7 beyond", vec![0xfb, 0x83, 1, 2, 9, 9], Err(OpusError::Truncated(Truncated { need: 3, have: 2 }))),
            ("R7 last too large", long(&[0xfb, 0x82, 0], 1276), Err(OpusError::FrameSize(1276))),
        ];
        for (name, packet, expected) in cases {
            assert_eq!(OpusPacket::parse(&packet).map(|p| p.samples), expected, "{name}");
        }
    }

    #[test]
    fn a_packet_without_a_frame_keeps_mode_bandwidth_and_channels_and_plays_no_longer_than_asked() {
        for toc in 0..=255u8 {
            let own = OpusPacket::parse(&[toc & !3]).unwrap();
            assert_eq!(no_frame(toc, MAX_SAMPLES), Some((own.samples, [toc & !3])), "{toc:02x}");
            for asked in [120, 240, 480, 960, 1920, 2880] {
                let Some((samples, packet)) = no_frame(toc, asked) else { continue };
                let parsed = OpusPacket::parse(&packet).unwrap();
                assert_eq!((parsed.samples, parsed.frames, parsed.stereo), (samples, 1, own.stereo), "{toc:02x}");
                assert!(samples <= asked.min(own.samples), "{toc:02x}: {samples} of {asked}");
            }
        }
        // RFC 6716 table 2: rows of configurations, each a mode and bandwidth of its own.
        for (row, longest) in [(0..=3, 2880), (8..=11, 2880), (12..=13, 960), (14..=15, 960), (28..=31, 960)] {
            let (first, last) = (*row.start(), *row.end());
            for asked in [120, 240, 480, 960, longest] {
                if let Some((_, [toc])) = no_frame(last << 3 | 4, asked) {
                    assert!(row.contains(&(toc >> 3)) && toc & 7 == 4, "{toc:02x} for {first}..={last}");
                }
            }
        }
        // SILK and hybrid have no frame below 10 ms.
        assert_eq!((no_frame(0x08, 479), no_frame(0x78, 479), no_frame(0xfc, 479)), (None, None, Some((240, [0xec]))));
    }

    #[test]
    fn silence_comes_in_the_largest_piece_that_fits() {
        for (asked, expected) in
            [(5760, Some(960)), (960, Some(960)), (959, Some(480)), (240, Some(240)), (120, Some(120)), (119, None)]
        {
            let found = silence(asked);
            assert_eq!(found.map(|(samples, _)| samples), expected);
            if let Some((samples, packet)) = found {
                assert_eq!(OpusPacket::parse(&packet).unwrap().samples, samples);
            }
        }
    }
}
