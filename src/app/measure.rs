//! One slot's snapshot of the media thread as monitoring reads it.

use std::time::Instant;

use guest_relay_muxer::PacketStats;

use super::backend::rtmp_state;
use crate::guest::{Guest, State};
use crate::http::metrics::{GuestMeasurements, RtmpMeasurements, TrackMeasurements};
use crate::media::SlotSnapshot;
use crate::rtc::peer::TrackStats;

/// What has no meaning without a session is `None` without one.
pub(super) fn measure(guest: &Guest, snapshot: &SlotSnapshot, now: Instant) -> GuestMeasurements {
    let relay = &snapshot.relay;
    let session = snapshot.session.as_ref();
    let stats = session.map(|session| &session.stats);
    let present = snapshot.state != State::Absent;
    let (freezes, frozen) = relay.freezes;
    GuestMeasurements {
        id: guest.id.clone(),
        state: snapshot.state,
        held: snapshot.held,
        bitrate_kbps: session.map(|_| relay.bitrate_kbps),
        fps: session.map(|_| relay.fps),
        size: (present && relay.width > 0).then_some((relay.width, relay.height)),
        audio: track(stats.map(|stats| &stats.audio), &relay.media.audio.packets),
        video: track(stats.map(|stats| &stats.video), &relay.media.video.packets),
        round_trip: stats.and_then(|stats| stats.round_trip.or(stats.ice_round_trip)),
        pli: stats.map_or(0, |stats| stats.video.stream.pli),
        fir: stats.map_or(0, |stats| stats.video.stream.fir),
        keyframe_age: relay.last_keyframe.filter(|_| present).map(|at| now.saturating_duration_since(at)),
        frames: relay.media.video.frames,
        keyframes: relay.media.video.keyframes,
        frames_dropped: relay.media.video.dropped.total(),
        freezes,
        frozen,
        av_skew_micros: session.map(|_| relay.media.video_skew_micros),
        rtmp: RtmpMeasurements {
            state: rtmp_state(relay.rtmp),
            connections: relay.output.attempts,
            bytes_written: relay.output.bytes_written,
            pictures_dropped: relay.output.video_frames_dropped,
            audio_frames_dropped: relay.output.audio_frames_dropped,
            queued_bytes: u64::try_from(relay.queued_bytes).unwrap_or(u64::MAX),
            queued: relay.queued_media,
            round_trip: relay.output.round_trip,
        },
    }
}

/// What the session counted of a track, and what the muxer never got of it.
fn track(stats: Option<&TrackStats>, packets: &PacketStats) -> TrackMeasurements {
    let Some(stats) = stats else {
        return TrackMeasurements { lost: packets.lost, ..TrackMeasurements::default() };
    };
    TrackMeasurements {
        packets: stats.packets,
        payload_bytes: stats.payload_bytes,
        lost: packets.lost,
        recovered_by_rtx: stats.retransmissions,
        recovered_by_nack: stats.stream.recovered,
        recovered_by_red: stats.stream.redundant,
        nacked: stats.stream.nacked,
        jitter: (stats.packets > 0).then_some(stats.stream.jitter),
    }
}
