//! What has to stand in for a guest's media that does not come, and when: the guest left, fell silent while the session
//! stands, switched the camera off, or has no microphone. Each track for itself.
//!
//! | what stopped | sound | picture |
//! |---|---|---|
//! | the session ended | silence at once | last IDR again after 1 s, then once a second |
//! | no packet of any track for [`SILENT_AFTER`] | silence | last IDR once a second |
//! | pictures alone, for [`CAMERA_OFF_AFTER`] | goes on | last IDR once a second |
//! | sound alone, for [`SILENT_AFTER`] | silence | goes on |
//!
//! | nobody is there | silence for the second that has passed | the still, once a second |
//!
//! Sound ends its own stand-in with the first packet, a picture only as an IDR: nothing may refer past a repeated one.
//! Which picture stands in is the relay's business. Silence is never written ahead of time: a media server maps a track to
//! wall time by the least delay that it has seen on it, so silence that comes late teaches it nothing as long as its end is
//! of now.
//!
//! Input: which packets came. Output: what is due. State: four instants, and whether anybody is there.

use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;

/// A guest of whom nothing comes for this long is bridged: no network holds packets back so long and then delivers them.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(1);
/// While sound comes, pictures may be this far apart: few a second are what a congested link leaves of a camera, and each
/// repeated IDR costs the guest another one.
pub(super) const CAMERA_OFF_AFTER: Duration = Duration::from_secs(3);
/// How often the last IDR is repeated.
pub(super) const REPEAT: Duration = Duration::from_secs(1);
/// How often silence is added: readers with small buffers must not run dry.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// In an idle slot what is due so soon is done with what is due now: pings and pictures then share their wake-ups.
const TOGETHER: Duration = Duration::from_millis(990);

/// One track.
#[derive(Clone, Copy, Debug)]
struct Feed {
    /// When its last packet came.
    heard: Instant,
    /// It is bridged; when next.
    next: Option<Instant>,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) silence: bool,
    pub(super) picture: bool,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bridge {
    audio: Feed,
    video: Feed,
    /// Nobody is there: a second's silence goes out at once.
    idle: bool,
}

impl Bridge {
    pub(super) fn new(now: Instant) -> Self {
        let feed = Feed { heard: now, next: None };
        Self { audio: feed, video: feed, idle: false }
    }

    /// A session takes the slot. What is bridged stays so until its media comes.
    pub(super) fn begin(&mut self, now: Instant) {
        if std::mem::take(&mut self.idle) {
            self.audio.next = Some(now);
        }
        self.audio.heard = now;
        self.video.heard = now;
    }

    /// Nobody is there, from now on.
    pub(super) fn idle(&mut self, now: Instant) {
        self.idle = true;
        self.audio.next = Some(now);
        self.video.next = Some(now);
    }

    /// The picture stands still, and was sent just now.
    pub(super) fn record_still(&mut self, now: Instant) {
        self.video.next = Some(now + REPEAT);
    }

    /// The session is over.
    pub(super) fn end(&mut self, now: Instant) {
        self.audio.next.get_or_insert(now + TICK);
        self.video.next.get_or_insert(now + REPEAT);
    }

    /// A packet came.
    pub(super) fn record_packet(&mut self, kind: TrackKind, now: Instant) {
        match kind {
            TrackKind::Audio => self.audio = Feed { heard: now, next: None },
            TrackKind::Video => self.video.heard = now,
        }
    }

    /// An IDR of the guest's went out.
    pub(super) fn end_picture(&mut self) {
        self.video.next = None;
    }

    /// A connection waits for a keyframe: the repetition comes now.
    pub(super) fn hasten_picture(&mut self, now: Instant) {
        for next in [&mut self.video.next, &mut self.audio.next].into_iter().flatten() {
            *next = now.min(*next);
        }
    }

    /// What was due was not all of it: the rest comes soon, and the picture with it.
    pub(super) fn catch_up(&mut self, now: Instant) {
        for next in [&mut self.video.next, &mut self.audio.next].into_iter().flatten() {
            *next = (now + TICK).min(*next);
        }
    }

    /// The last picture stands in for the camera.
    pub(super) fn repeats_picture(&self) -> bool {
        self.video.next.is_some()
    }

    /// Nothing of the guest's own goes out.
    pub(super) fn is_silent(&self) -> bool {
        self.audio.next.is_some() && self.video.next.is_some()
    }

    fn silence_at(&self) -> Instant {
        self.audio.next.unwrap_or(self.audio.heard + SILENT_AFTER)
    }

    fn picture_at(&self) -> Instant {
        self.video.next.unwrap_or_else(|| {
            let silent = self.audio.heard.max(self.video.heard) + SILENT_AFTER;
            silent.min(self.video.heard + CAMERA_OFF_AFTER)
        })
    }

    /// When [`Bridge::take_due`] will have something.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.silence_at().min(self.picture_at())
    }

    /// What is due at `now`, and not due again before its time.
    pub(super) fn take_due(&mut self, now: Instant) -> Due {
        let soon = now + if self.idle { TOGETHER } else { Duration::ZERO };
        let due = Due { silence: self.silence_at() <= soon, picture: self.picture_at() <= soon };
        if due.silence {
            self.audio.next = Some(now + if self.idle { REPEAT } else { TICK });
        }
        if due.picture {
            self.video.next = Some(now + REPEAT);
        }
        due
    }
}
