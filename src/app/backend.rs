//! The HTTP handlers' view of the daemon: [`Backend`] over the registry and snapshots of the media thread.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use guest_relay_muxer::TrackKind;

use crate::guest::id::{GuestId, ResourceId};
use crate::guest::{self, Slot, State};
use crate::http::backend::{
    Admission, Backend, ClientInfo, GuestStatus, Health, IceServer, Left, MediaPath, Published, Refusal, RtmpState,
};
use crate::http::metrics::GuestMeasurements;
use crate::media_loop::{Command, SlotSnapshot};
use crate::rtmp;

use super::measure::measure;
use super::{Daemon, calls};

pub(super) struct DaemonBackend(pub(super) Rc<Daemon>);

impl Backend for DaemonBackend {
    fn admission(&self, guest: &GuestId) -> Admission {
        match self.0.registry.borrow().slot(guest) {
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
        client: ClientInfo,
    ) -> Result<Published, Refusal> {
        match path {
            MediaPath::Direct => self.0.publish_direct(guest, &offer, &client).await,
            MediaPath::Calls => calls::publish_calls(&self.0, guest, &offer).await,
        }
    }

    fn session_etag(&self, guest: &GuestId, resource: &ResourceId) -> Option<String> {
        let (_, key) = self.0.registry.borrow().session(guest, resource)?;
        self.0.etags.borrow().get(&key).cloned()
    }

    /// An ICE-lite agent learns the guest's addresses from its checks (RFC 8445 section 2.5): candidates are not needed.
    async fn trickle(&self, guest: &GuestId, resource: &ResourceId, _fragment: String) -> Result<(), Refusal> {
        match self.0.registry.borrow().session(guest, resource) {
            Some(_) => Ok(()),
            None => Err(Refusal::new(404, "this session is over")),
        }
    }

    async fn leave(&self, guest: &GuestId, resource: &ResourceId) -> Left {
        let Some((slot, key)) = self.0.registry.borrow().session(guest, resource) else {
            return Left::NoSuchSession;
        };
        self.0.registry.borrow_mut().release(key);
        if let Some(calls) = self.0.calls.as_ref().filter(|calls| calls.key(slot) == Some(key)) {
            if let Some(closed) = calls.end(slot) {
                let late = async {
                    smol::Timer::after(calls::CLOSE_WAIT).await;
                };
                let closed = async {
                    let _ = closed.recv().await;
                };
                smol::future::or(closed, late).await;
            }
            return Left::Ended;
        }
        if self.0.media.send(Command::Leave { slot, key }).is_err() {
            log::warn!("{guest} {key}: left, but the media thread takes no commands; its session ends by itself");
        }
        Left::Ended
    }

    fn calls_configured(&self) -> bool {
        self.0.calls.is_some()
    }

    fn own_public_addresses(&self) -> Vec<IpAddr> {
        self.0.public_addresses.all()
    }

    async fn ice_servers(&self) -> Vec<IceServer> {
        self.0.ice_servers.current().await
    }

    fn dropped_tracks(&self, guest: &GuestId) -> Vec<TrackKind> {
        let slot = self.0.registry.borrow().slot(guest);
        match (&self.0.calls, slot) {
            (Some(calls), Ok(slot)) => calls.dropped_tracks(slot),
            _ => Vec::new(),
        }
    }

    fn calls_sessions(&self) -> Vec<(GuestId, String)> {
        let Some(calls) = &self.0.calls else {
            return Vec::new();
        };
        let registry = self.0.registry.borrow();
        let session = |(slot, guest): (Slot, &guest::Guest)| Some((guest.id.clone(), calls.session(slot)?));
        registry.guests().filter_map(session).collect()
    }

    async fn close_calls_session(&self, guest: &GuestId) -> Left {
        // Whoever is listed: a session outlasts its guest's place in the configuration, and ends by the same call.
        let slot = self.0.registry.borrow().guests().find(|(_, known)| known.id == *guest).map(|(slot, _)| slot);
        match slot {
            Some(slot) if self.0.end_slot(slot) => Left::Ended,
            _ => Left::NoSuchSession,
        }
    }

    async fn guests(&self) -> Vec<GuestStatus> {
        let snapshots = self.0.snapshot().await.unwrap_or_default();
        let registry = self.0.registry.borrow();
        let now = Instant::now();
        let status = |(slot, guest): (Slot, &guest::Guest)| {
            let mut status = GuestStatus::absent(guest.id.clone(), guest.name.clone(), guest.enabled);
            if let Some(snapshot) = snapshots.get(slot.0) {
                fill(&mut status, snapshot, now);
            }
            status.problem = self.0.calls.as_ref().and_then(|calls| calls.problem(slot));
            if self.0.calls.as_ref().is_some_and(|calls| calls.key(slot).is_some()) {
                status.path = Some(MediaPath::Calls);
                if status.state == State::Absent {
                    status.state = State::Joining;
                }
            }
            status
        };
        registry.guests().map(status).collect()
    }

    async fn measurements(&self) -> Vec<GuestMeasurements> {
        let snapshots = self.0.snapshot().await.unwrap_or_default();
        let registry = self.0.registry.borrow();
        let now = Instant::now();
        let guests = registry.guests();
        guests.filter_map(|(slot, guest)| Some(measure(guest, snapshots.get(slot.0)?, now))).collect()
    }

    async fn health(&self) -> Health {
        match self.0.snapshot().await {
            Some(_) => Health::Healthy,
            None => Health::Unhealthy("the media thread does not answer".to_owned()),
        }
    }
}

pub(super) fn rtmp_state(state: rtmp::State) -> RtmpState {
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
