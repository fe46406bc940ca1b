//! Counters, for the API and the logs. They only ever grow; everything else here says how things stand now.

use crate::time::MediaTime;

/// RTP packets of one track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketStats {
    /// All that were handed in.
    pub packets: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Packets without payload; they count in the sequence and carry nothing.
    pub padding_only: u64,
    /// Never came in time.
    pub lost: u64,
    /// Came after a packet with a higher number, and still in time.
    pub recovered: u64,
    /// Came after their place was given up.
    pub late: u64,
    /// Came twice.
    pub duplicates: u64,
    /// Stray numbers or SSRCs that no second packet confirmed.
    pub rejected: u64,
    /// Waited behind a gap when another stream began.
    pub discarded: u64,
    /// Times another stream began (SSRC change, sequence jump).
    pub restarts: u64,
}

/// The video track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VideoStats {
    /// RTP packets.
    pub packets: PacketStats,
    /// Access units that ended, whether they went out or not.
    pub access_units: u64,
    /// Pictures that went out.
    pub frames: u64,
    /// IDR pictures among them.
    pub keyframes: u64,
    /// Times pictures went out again without an IDR picture ([`Output::Recovered`](crate::Output::Recovered)).
    pub recoveries: u64,
    /// Times the newest IDR picture was sent again.
    pub repeated: u64,
    /// Sequence headers that went out: the first, and one for each change of SPS or PPS.
    pub sequence_headers: u64,
    /// Pictures that did not go out, by reason.
    pub dropped: DroppedFrames,
    /// NAL units and fragments left out because they hold nothing to show: delimiters, filler, undefined types, empty ones.
    pub ignored_units: u64,
    /// SPS or PPS that could not be read or are beyond the limits.
    pub bad_parameter_sets: u64,
    /// Nothing goes out until the next IDR picture.
    pub waiting_for_keyframe: bool,
    /// Width in pixels after cropping; 0 until known.
    pub width: u32,
    /// Height in pixels after cropping; 0 until known.
    pub height: u32,
    /// profile_idc; 0 until known.
    pub profile_idc: u8,
    /// level_idc, ten times the level; 0 until known.
    pub level_idc: u8,
    /// dts of the newest IDR picture that went out.
    pub last_keyframe_dts: Option<MediaTime>,
}

/// Pictures that did not go out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DroppedFrames {
    /// A packet of it was lost, or may have been.
    pub loss: u64,
    /// Its packets break RFC 6184.
    pub malformed: u64,
    /// Larger than the limits.
    pub too_large: u64,
    /// Whole, but the pictures it refers to did not go out.
    pub waiting_for_keyframe: u64,
    /// An IDR picture whose SPS or PPS is not known.
    pub no_parameter_sets: u64,
}

impl DroppedFrames {
    /// For whatever reason.
    pub fn total(&self) -> u64 {
        let Self { loss, malformed, too_large, waiting_for_keyframe, no_parameter_sets } = *self;
        loss + malformed + too_large + waiting_for_keyframe + no_parameter_sets
    }
}

/// The audio track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AudioStats {
    /// RTP packets.
    pub packets: PacketStats,
    /// Opus packets that went out, without silence of ours.
    pub frames: u64,
    /// Payloads that are not Opus packets.
    pub malformed: u64,
    /// Packets of ours in the place of lost ones.
    pub concealed: u64,
    /// Silent packets that the caller asked for, and those that join them to what follows.
    pub silence: u64,
    /// Packets whose place on the timeline silence had taken.
    pub overtaken: u64,
}

/// Everything the muxer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The video track.
    pub video: VideoStats,
    /// The audio track.
    pub audio: AudioStats,
    /// Tags not queued because nobody polled.
    pub overflow: u64,
    /// How far video is being moved against its own clock to match the audio, microseconds.
    pub video_correction_micros: i64,
    /// How far it still has to be moved, microseconds.
    pub video_skew_micros: i64,
}
