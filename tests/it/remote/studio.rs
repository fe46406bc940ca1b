//! A daemon between a simulated SFU and a strict ingest, and what is asked of the three.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use ingest::{Connection, Ingest};
use loadgen::clip::Clip;
use loadgen::patience::{PATIENCE, Stopwatch, wait_for};
use sfu_sim::{EndReason, SessionInfo, SfuSim, Snapshot};

use super::page::Page;
use crate::daemon::{Daemon, Setup};

/// How long after the end of a fault a guest may stay away, by a [`Stopwatch`]: that a guest comes back by itself is what is
/// meant, and a crowded machine has most of what brings them back wait its turn. Idle, it takes a second or two.
pub(super) const RECOVERY: Duration = Duration::from_secs(45);
/// Pictures within [`WINDOW`] that count as live: one a second is the last one of a guest who is away.
const PICTURES: u64 = 4;
const WINDOW: Duration = Duration::from_secs(1);
/// After this a session that has not connected belongs to an attempt that has failed.
const FAILED: Duration = Duration::from_secs(3);

/// The daemon ends first: the ports of the others may be somebody else's at once.
pub(super) struct Studio {
    pub(super) daemon: Daemon,
    pub(super) ingest: Ingest,
    pub(super) sfu: SfuSim,
}

/// The lines of a configuration that lead to the simulated SFU.
pub(super) fn cloudflare(sfu: &SfuSim, further: &str) -> String {
    format!(
        "cloudflare: {{calls_app_id: '{}', calls_api_token: '{}', api_base: '{}'{further}}}\n",
        sfu.app_id(),
        sfu.secret(),
        sfu.api_base()
    )
}

pub(super) fn pictures(connection: &Connection) -> u64 {
    connection.video.as_ref().map_or(0, |track| track.frames)
}

/// How often calls met the faults that are on. A question about a session does not count: nobody's return depends on it.
pub(super) fn hits(snapshot: &Snapshot) -> u64 {
    let hits = snapshot.faults.iter().flat_map(|on| &on.hits);
    hits.filter(|(call, _)| call.as_str() != "GET session").map(|(_, times)| times).sum()
}

/// Whether packets go out in a session other than this one.
pub(super) fn is_pulled(snapshot: &Snapshot, but_for: &str) -> bool {
    let mut sessions = snapshot.sessions.iter().filter(|session| session.id != but_for && session.connected);
    sessions.any(|session| session.subscriptions.iter().any(|sub| sub.packets > 0))
}

impl Studio {
    /// `further` is added to the section `cloudflare`.
    pub(super) fn open(sfu: sfu_sim::Options, further: &str) -> Self {
        Self::with(sfu, further, false, Setup::default())
    }

    /// `keep`: the ingest keeps what it gets.
    pub(super) fn with(sfu: sfu_sim::Options, further: &str, keep: bool, setup: Setup<'_>) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let options = ingest::Options { keep_frames: keep, keep_bodies: keep, ..Default::default() };
        let ingest = Ingest::bind("127.0.0.1:0", options).unwrap();
        // An app of its own: nobody who has this port still in mind makes sessions here.
        let app_id = format!("{:016x}{:016x}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let sfu = SfuSim::start(sfu_sim::Options { app_id, ..sfu }).unwrap();
        let sections = cloudflare(&sfu, further) + setup.sections;
        let output = format!("rtmp://{}/{{guest_id}}", ingest.addr());
        let daemon = Daemon::start_with(&output, Setup { sections: &sections, ..setup });
        Self { ingest, sfu, daemon }
    }

    /// Waits until a guest is live and new pictures of it come.
    pub(super) fn wait_live(&self, guest: &str) {
        self.daemon.wait_for_state(guest, "live");
        assert!(self.more_pictures(guest, PATIENCE).is_some(), "{guest} is live and brings no pictures");
    }

    pub(super) fn calls(&self, endpoint: &str) -> u64 {
        self.sfu.snapshot().calls.get(endpoint).map_or(0, |count| count.total)
    }

    pub(super) fn endpoint(&self, guest: &str) -> String {
        format!("http://{}/api/calls/whip/{guest}", self.daemon.http)
    }

    pub(super) fn join(&self, guest: &str, clip: &Arc<Clip>) -> Page {
        Page::join(self.endpoint(guest), Arc::clone(clip))
    }

    /// Pictures of a guest over all its connections.
    pub(super) fn pictures(&self, guest: &str) -> u64 {
        self.ingest.inspect(|all| {
            all.iter().filter(|connection| connection.path.as_deref() == Some(guest)).map(pictures).sum()
        })
    }

    /// Waits until a guest's pictures come at a guest's pace; how long that took, or `None` when they did not within
    /// `patience`, by a [`Stopwatch`].
    pub(super) fn more_pictures(&self, guest: &str, patience: Duration) -> Option<Duration> {
        let watch = Stopwatch::start();
        let mut seen = VecDeque::from([(Duration::ZERO, self.pictures(guest))]);
        while watch.elapsed() < patience {
            thread::sleep(Duration::from_millis(50));
            let (now, count) = (watch.elapsed(), self.pictures(guest));
            seen.push_back((now, count));
            while seen.front().is_some_and(|(at, _)| now - *at > WINDOW) {
                seen.pop_front();
            }
            if seen.front().is_some_and(|(_, before)| count >= before + PICTURES) {
                return Some(now);
            }
        }
        None
    }

    /// The session that a guest publishes, or the one in which it is pulled; the newest.
    fn session(&self, is_it: impl Fn(&SessionInfo) -> bool) -> Option<SessionInfo> {
        let sessions = self.sfu.snapshot().sessions;
        sessions.into_iter().filter(is_it).min_by_key(|session| session.age_milliseconds)
    }

    pub(super) fn publishing(&self, guest: &str) -> String {
        let sessions: serde_json::Value = serde_json::from_str(&self.daemon.get("/api/calls/sessions")).unwrap();
        sessions["sessions"][guest].as_str().unwrap_or_default().to_owned()
    }

    pub(super) fn pulling(&self, guest: &str) -> Option<String> {
        let publisher = self.publishing(guest);
        let pulls = |session: &SessionInfo| session.subscriptions.iter().any(|sub| sub.session == publisher);
        self.session(pulls).map(|session| session.id)
    }

    /// Nothing is left at the SFU or had to expire there, nothing forbidden was done, the secret was told to nobody.
    #[track_caller]
    pub(super) fn assert_clean(&self) {
        self.assert_clean_but_for(&[]);
    }

    /// `explained`: how sessions may have ended, for what happened to them, that nobody had closed. The simulated service
    /// throws out what is left there as the real one does, only sooner.
    #[track_caller]
    pub(super) fn assert_clean_but_for(&self, explained: &[EndReason]) {
        if explained.contains(&EndReason::NeverConnected) {
            self.wait_empty();
        } else {
            let sessions = || self.sfu.snapshot().sessions;
            let is_empty = || sessions().is_empty();
            wait_for("all sessions to be closed", is_empty, || format!("{:#?}", sessions()));
        }
        let snapshot = self.sfu.snapshot();
        let is_leak = |reason| matches!(reason, EndReason::NeverConnected | EndReason::ConnectivityLost);
        let mut ended = snapshot.ended.iter();
        let leak = ended.find(|end| !end.left && is_leak(end.reason) && !explained.contains(&end.reason));
        assert_eq!(leak, None, "left to expire, of {:#?}\n{}", snapshot.ended, self.daemon.log());
        assert!(self.sfu.violations().is_empty(), "{:#?}", self.sfu.violations());
        assert!(!self.daemon.log().contains(self.sfu.secret()), "the app's secret stands in the log");
        assert!(!self.daemon.log().contains("panicked"));
    }

    /// Waits until nothing is left at the SFU, which throws out at once what belongs to attempts that have failed.
    #[track_caller]
    pub(super) fn wait_empty(&self) {
        let sessions = || self.sfu.snapshot().sessions;
        let is_empty = || {
            self.sfu.expire_unconnected(FAILED);
            sessions().is_empty()
        };
        wait_for("no session to be left over", is_empty, || format!("{:#?}", sessions()));
    }

    /// A guest's publication was never interrupted, and nothing was wrong with it.
    pub(super) fn assert_one_connection(&self, guest: &str) {
        self.ingest.inspect(|all| {
            let of_guest: Vec<_> = all.iter().filter(|connection| connection.path.as_deref() == Some(guest)).collect();
            let ends: Vec<_> = of_guest.iter().map(|connection| &connection.end).collect();
            assert_eq!(of_guest.len(), 1, "{guest} was published anew: {ends:?}");
            assert_eq!(of_guest[0].violations, Vec::<String>::new());
        });
    }
}
