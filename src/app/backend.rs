//! The HTTP handlers' view of the daemon: [`Backend`] over the table of sessions and what the media thread says.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use guest_relay_muxer::{PacketStats, TrackKind};

use crate::guest::id::{GuestId, ResourceId};
use crate::guest::{self, Guest, Slot, State};
use crate::http::backend::{
    Admission, Backend, ClientInfo, Farewell, GuestStatus, Health, IceServer, KeyframeRequest, Left, MediaPath,
    NoAnswer, Published, Refusal, RtmpState,
};
use crate::http::backend::{GuestMeasurements, RtmpMeasurements, TrackMeasurements};
use crate::http::status::of_trickle;
use crate::media::{Command, SlotSnapshot};
use crate::rtc::peer::TrackStats;
use crate::rtc::sdp::check_trickle;
use crate::rtmp;
use crate::within::within;

use super::daemon::Daemon;
use super::sfu;

pub(super) struct DaemonBackend(pub(super) Rc<Daemon>);

impl Backend for DaemonBackend {
    fn admission(&self, guest: &GuestId) -> Admission {
        match self.0.sessions.slot(guest) {
            Ok(_) => Admission::Open,
            Err(guest::Refusal::Disabled) => Admission::Closed,
            Err(guest::Refusal::Unknown) => Admission::Unknown,
        }
    }

    async fn publish(
        &self,
        guest: &GuestId,
        path: MediaPath,
        offer: String,
        former: Option<ResourceId>,
        client: ClientInfo,
    ) -> Result<Published, Refusal> {
        match path {
            MediaPath::Direct => self.0.publish_direct(guest, &offer, former.as_ref(), &client).await,
            MediaPath::Sfu => sfu::publish_at_sfu(&self.0, guest, &offer, former.as_ref(), &client).await,
        }
    }

    fn session_etag(&self, guest: &GuestId, resource: &ResourceId) -> Option<String> {
        self.0.sessions.etag(guest, resource)
    }

    /// An ICE-lite agent learns the guest's addresses from its checks (RFC 8445 §2.5): candidates are not needed. So do
    /// those at the SFU, as far as it is told of none.
    async fn trickle(&self, guest: &GuestId, resource: &ResourceId, fragment: String) -> Result<(), Refusal> {
        let ufrag = self.0.sessions.ufrag(guest, resource).ok_or_else(|| Refusal::new(404, "this session is over"))?;
        check_trickle(&fragment, ufrag.as_deref()).map_err(|error| Refusal::new(of_trickle(error), error.to_string()))
    }

    async fn leave(&self, guest: &GuestId, resource: &ResourceId, farewell: Farewell) -> Left {
        let session = self.0.sessions.find(guest, resource);
        let gone = match farewell {
            Farewell::Final => self.0.sessions.take_last(guest, resource),
            Farewell::MayReturn => None,
        };
        if let Some((slot, key)) = gone {
            self.0.vacate(slot, key);
        }
        let Some((slot, key)) = session else {
            return if gone.is_some() { Left::Ended } else { Left::NoSuchSession };
        };
        if let Some(closed) = self.0.release(key).flatten() {
            // Nothing is sent: the channel's end is the news. A close that takes longer goes on by itself.
            let _ = within(sfu::CLOSE_WAIT, closed.recv()).await;
            return Left::Ended;
        }
        if self.0.media.send(Command::Leave { slot, key }).is_err() {
            log::warn!("{guest} {key}: left, but the media thread takes no commands; its session ends by itself");
        }
        Left::Ended
    }

    fn sfu_configured(&self) -> bool {
        self.0.sfu.is_some()
    }

    fn own_public_addresses(&self) -> Vec<IpAddr> {
        self.0.public_addresses.all()
    }

    async fn ice_servers(&self) -> Vec<IceServer> {
        self.0.ice_servers.current().await
    }

    fn dropped_tracks(&self, guest: &GuestId) -> Vec<TrackKind> {
        self.0.sessions.slot(guest).map(|slot| self.0.sessions.dropped_tracks(slot)).unwrap_or_default()
    }

    fn sfu_sessions(&self) -> Vec<(GuestId, String)> {
        self.0.sessions.sfu_sessions()
    }

    async fn close_sfu_session(&self, guest: &GuestId) -> Left {
        // Whoever is listed: a session outlasts its guest's place in the configuration, and ends by the same call.
        match self.0.sessions.published(guest).and_then(|(slot, key)| {
            self.0.vacate(slot, key);
            self.0.release(key)
        }) {
            Some(_) => Left::Ended,
            None => Left::NoSuchSession,
        }
    }

    fn publisher(&self, guest: &GuestId) -> Option<IpAddr> {
        self.0.sessions.publisher(guest)
    }

    fn configured(&self) -> Vec<Guest> {
        self.0.sessions.guests().into_iter().map(|(_, guest)| guest).collect()
    }

    async fn state(&self, guest: &GuestId) -> Result<State, NoAnswer> {
        match self.0.sessions.slot(guest) {
            Ok(slot) => self.0.state(slot).await,
            // Nobody comes in there.
            Err(_) => Ok(State::Absent),
        }
    }

    async fn request_keyframe(&self, guest: &GuestId) -> Result<KeyframeRequest, NoAnswer> {
        let Some(slot) = self.0.sessions.listed_slot(guest) else {
            return Ok(KeyframeRequest::NoSuchGuest);
        };
        let asked = self.0.request_keyframe(slot).await?;
        Ok(if asked { KeyframeRequest::Asked } else { KeyframeRequest::NoPicture })
    }

    async fn guests(&self) -> Result<Vec<GuestStatus>, NoAnswer> {
        let snapshots = self.0.snapshot().await?;
        let sessions = &self.0.sessions;
        let now = Instant::now();
        let status = |(slot, guest): (Slot, Guest)| {
            let mut status = GuestStatus::absent(guest.id, guest.name, guest.enabled);
            // A slot that was made after the snapshot is empty.
            if let Some(snapshot) = snapshots.get(slot.0) {
                fill(&mut status, snapshot, now);
            }
            if sessions.publication(slot, |_, _| ()).is_some() {
                status.path = Some(MediaPath::Sfu);
                status.state = self.0.state_with_pull(slot, status.state);
            }
            status.with_problems(sessions.problems(slot, now))
        };
        Ok(sessions.guests().into_iter().map(status).collect())
    }

    async fn measurements(&self) -> Result<Vec<GuestMeasurements>, NoAnswer> {
        let snapshots = self.0.snapshot().await?;
        let now = Instant::now();
        let measured = |(slot, guest): (Slot, Guest)| {
            let measured = measure(&guest, snapshots.get(slot.0)?, now);
            Some(GuestMeasurements { state: self.0.state_with_pull(slot, measured.state), ..measured })
        };
        Ok(self.0.sessions.guests().into_iter().filter_map(measured).collect())
    }

    async fn health(&self) -> Health {
        match self.0.snapshot().await {
            Ok(_) => Health::Healthy,
            Err(no_answer) => Health::Unhealthy(no_answer.to_string()),
        }
    }
}

fn rtmp_state(state: rtmp::State) -> RtmpState {
    match state {
        rtmp::State::Idle | rtmp::State::Stopping | rtmp::State::Stopped => RtmpState::Idle,
        rtmp::State::Connecting | rtmp::State::Handshaking => RtmpState::Connecting,
        rtmp::State::Publishing => RtmpState::Publishing,
        rtmp::State::Live => RtmpState::Live,
        rtmp::State::Backoff => RtmpState::Backoff,
    }
}

/// Puts what the media thread knows into a guest's line. What has no meaning now stays `None`.
fn fill(status: &mut GuestStatus, snapshot: &SlotSnapshot, now: Instant) {
    status.state = snapshot.state;
    status.since = Some(snapshot.since);
    status.rtmp = rtmp_state(snapshot.relay.rtmp);
    let relay = &snapshot.relay;
    if relay.width > 0 {
        status.codec = Some("H264");
        (status.width, status.height) = (Some(relay.width), Some(relay.height));
    }
    status.last_keyframe_age_ms =
        relay.last_keyframe.map(|at| u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX));
    let Some(session) = &snapshot.session else {
        return;
    };
    status.path = Some(MediaPath::Direct);
    status.fps = Some(relay.fps);
    status.bitrate_kbps = Some(relay.bitrate_kbps);
    let (audio, video) = (&session.stats.audio, &session.stats.video);
    if audio.packets > 0 {
        status.audio_codec = Some("opus");
    }
    if video.packets > 0 {
        status.jitter_ms = Some(video.stream.jitter.as_secs_f64() * 1e3);
    }
    let lost = audio.stream.lost + video.stream.lost;
    let expected = audio.packets + video.packets + lost;
    if expected > 0 {
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people; 52 bits are more than enough")]
        let loss = lost as f64 / expected as f64;
        status.loss = Some(loss);
    }
}

/// One slot's snapshot as monitoring reads it. What has no meaning without a session is `None` without one.
fn measure(guest: &Guest, snapshot: &SlotSnapshot, now: Instant) -> GuestMeasurements {
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
