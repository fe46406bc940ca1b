//! A guest as the guest page is one (static/publisher.js), without a browser: it publishes through the SFU, asks the
//! daemon now and then whether its session still holds the slot, and joins again by itself when it does not, or when the
//! media connection is lost. Its times are the page's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use loadgen::Driver;
use loadgen::clip::{Clip, TrackKind};
use loadgen::guest::GuestStats;
use loadgen::http;
use loadgen::publisher::{Options, Publisher};

const TICK: Duration = Duration::from_millis(50);
/// `BACKOFF_MS`
const BACKOFF: [Duration; 4] = [
    Duration::from_millis(1_000),
    Duration::from_millis(2_000),
    Duration::from_millis(4_000),
    Duration::from_millis(6_500),
];
/// `CALLS_CONNECT_MS` of path.js
const CONNECT: Duration = Duration::from_secs(7);
/// `QUIET_MS`, `ASK_QUIET_MS`, `ASK_CALLS_MS`, `STABLE_MS`
const QUIET: Duration = Duration::from_secs(2);
const ASK_QUIET: Duration = Duration::from_secs(3);
const ASK_CALLS: Duration = Duration::from_secs(3);
const STABLE: Duration = Duration::from_secs(5);

/// What the page has been through.
#[derive(Debug, Default)]
pub(super) struct Diary {
    /// Offers that were answered.
    pub(super) joins: u32,
    /// What the others were refused with.
    pub(super) refusals: Vec<String>,
    pub(super) is_live: bool,
    /// Of the newest connection.
    pub(super) stats: GuestStats,
}

pub(super) struct Page {
    leaving: Arc<AtomicBool>,
    diary: Arc<Mutex<Diary>>,
    paused: Arc<Mutex<Vec<TrackKind>>>,
    thread: Option<JoinHandle<()>>,
}

impl Page {
    /// Presses Join. `endpoint` is the WHIP endpoint of the slot.
    pub(super) fn join(endpoint: String, clip: Arc<Clip>) -> Self {
        let leaving = Arc::new(AtomicBool::new(false));
        let diary = Arc::<Mutex<Diary>>::default();
        let paused = Arc::<Mutex<Vec<TrackKind>>>::default();
        let visit = Visit {
            endpoint,
            clip,
            driver: Driver::start(),
            leaving: Arc::clone(&leaving),
            diary: Arc::clone(&diary),
            paused: Arc::clone(&paused),
        };
        let thread = thread::Builder::new().name("page".to_owned()).spawn(move || visit.run()).unwrap();
        Self { leaving, diary, paused, thread: Some(thread) }
    }

    pub(super) fn diary(&self) -> MutexGuard<'_, Diary> {
        self.diary.lock().unwrap()
    }

    /// Sends nothing of these any more, as a phone's camera in the background.
    pub(super) fn pause(&self, kinds: &[TrackKind]) {
        *self.paused.lock().unwrap() = kinds.to_vec();
    }

    /// Closes the page, and waits until that is done.
    pub(super) fn leave(mut self) {
        self.leaving.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.leaving.store(true, Ordering::SeqCst);
    }
}

struct Visit {
    endpoint: String,
    clip: Arc<Clip>,
    driver: Driver,
    leaving: Arc<AtomicBool>,
    diary: Arc<Mutex<Diary>>,
    paused: Arc<Mutex<Vec<TrackKind>>>,
}

impl Visit {
    fn run(self) {
        let mut replaces: Option<String> = None;
        let mut failures = 0_usize;
        while !self.is_leaving() {
            let headers = replaces.iter().map(|resource| ("Guest-Relay-Replaces".to_owned(), resource.clone()));
            let options = Options { keep_sent: false, headers: headers.collect(), ..Options::default() };
            match Publisher::connect_with(&self.driver, &self.endpoint, &self.clip, &options) {
                Ok(publisher) => {
                    self.diary.lock().unwrap().joins += 1;
                    replaces = publisher.session().path.rsplit('/').next().map(str::to_owned);
                    let was_stable = self.watch(&publisher);
                    self.diary.lock().unwrap().is_live = false;
                    if self.is_leaving() {
                        // The daemon may be gone by then.
                        let _ = publisher.close_page();
                        return;
                    }
                    publisher.close();
                    failures = if was_stable { 0 } else { failures + 1 };
                }
                Err(error) => {
                    self.diary.lock().unwrap().refusals.push(error.to_string());
                    failures += 1;
                }
            }
            let pause = failures.checked_sub(1).map_or(Duration::ZERO, |at| BACKOFF[at.min(BACKOFF.len() - 1)]);
            let until = Instant::now() + pause;
            while Instant::now() < until && !self.is_leaving() {
                thread::sleep(TICK);
            }
        }
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Until the session is lost or the guest leaves; whether it was a good one.
    fn watch(&self, publisher: &Publisher) -> bool {
        let began = Instant::now();
        let mut live_since: Option<Instant> = None;
        let (mut received, mut heard, mut asked) = (0, Instant::now(), Instant::now());
        let mut paused = Vec::new();
        // bounded: a page is there until its test has it leave, or drops it
        while !self.is_leaving() {
            thread::sleep(TICK);
            let now = Instant::now();
            self.diary.lock().unwrap().stats = publisher.stats();
            let wanted = self.paused.lock().unwrap().clone();
            if wanted != paused {
                for kind in [TrackKind::Video, TrackKind::Audio] {
                    publisher.set_paused(kind, wanted.contains(&kind));
                }
                paused = wanted;
            }
            if live_since.is_none() && publisher.is_connected() {
                live_since = Some(now);
                (heard, asked) = (now, now);
                self.diary.lock().unwrap().is_live = true;
            }
            let Some(since) = live_since else {
                if now >= began + CONNECT {
                    return false;
                }
                continue;
            };
            let stable = now - since > STABLE;
            if !publisher.is_alive() {
                return stable;
            }
            let count = publisher.stats().datagrams_received;
            if count != received {
                (received, heard) = (count, now);
            }
            let every = if now - heard >= QUIET { ASK_QUIET } else { ASK_CALLS };
            if now - asked >= every {
                asked = now;
                if self.is_lost(publisher, &paused) {
                    return stable;
                }
            }
        }
        true
    }

    /// Only a clear word of the daemon counts: another session has the slot, or the SFU has given up a track that is sent.
    fn is_lost(&self, publisher: &Publisher, paused: &[TrackKind]) -> bool {
        let mut status = publisher.session().clone();
        status.path.push_str("/status");
        let Ok(reply) = http::exchange("GET", &status, &[], "") else { return false };
        let Ok(status) = serde_json::from_str::<serde_json::Value>(&reply.body) else { return false };
        let is_sent = |kind: &serde_json::Value| match kind.as_str() {
            Some("video") => !paused.contains(&TrackKind::Video),
            Some("audio") => !paused.contains(&TrackKind::Audio),
            _ => false,
        };
        let dropped = status["dropped"].as_array().is_some_and(|kinds| kinds.iter().any(is_sent));
        status["holds_slot"] == false || dropped
    }
}
