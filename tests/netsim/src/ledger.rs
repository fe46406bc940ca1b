//! What was sent and what became of it at the RTMP server, frame by frame.
//!
//! Input: the units a guest sent, the frames the ingest took; output: [`Figures`]. A frame counts as exact when its
//! digest is that of a unit that was sent and not shown yet, in order. The clip repeats, so of several units with the
//! digest the one is meant whose capture time fits the frame's timestamp. What comes while nothing arrives from the
//! network is the daemon's own: pictures held, silence.

use std::ops::{Range, RangeBounds};
use std::time::{Duration, Instant};

use guest_relay_muxer::Still;
use guest_relay_muxer::opus::SILENCE_20_MS;
use ingest::Kind;
use loadgen::clip::TrackKind;
use loadgen::h264;
use loadgen::replay::SentUnit;

use crate::freeze::{Freezes, freezes};
use crate::server::Shown;

/// Nothing waits this long for a missing packet (`relay.reorder_ms` is 400): what comes later is not the guest's.
const OURS_AFTER: Duration = Duration::from_millis(600);
/// How far a timestamp may be off the capture time of the unit it is taken for.
const MATCH_WITHIN_MICROS: i64 = 250_000;
/// The daemon's own silence is, bit by bit, what a guest sends who says nothing: it is theirs only in its place, to half a
/// packet.
const SILENCE_WITHIN_MICROS: i64 = 10_000;
/// After so long without a match the timeline may have been placed anew.
const MATCH_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// From a session's first frame to when sender reports must have put picture and sound together.
const SYNC_AFTER: Duration = Duration::from_secs(10);
/// Sound and picture are compared when they were shown this close together.
const COMPARE_WITHIN: Duration = Duration::from_millis(500);
/// What a patient reader of the stream buffers: as much as the daemon may wait for a packet.
pub const PATIENT_BUFFER: Duration = Duration::from_millis(400);
/// What the mixer buffers (`rtspsrc latency=50`).
pub const MIXER_BUFFER: Duration = Duration::from_millis(50);

/// What a picture at the server was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    /// The unit with this number.
    Exact(usize),
    /// The last IDR picture once more.
    Repeat,
    /// Black: nobody is there.
    Nobody,
    /// Nothing that was sent.
    Foreign,
}

/// A picture at the server.
#[derive(Clone, Copy, Debug)]
pub struct Picture {
    pub at: Instant,
    pub connection: usize,
    /// RTMP timestamp.
    pub ms: u32,
    pub was: Was,
}

/// Capture time against timestamp of the newest exact frame of a track.
#[derive(Clone, Copy, Debug)]
struct Match {
    at: Instant,
    connection: usize,
    session: u32,
    /// Timestamp less capture time since the start.
    offset_micros: i64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    unit: SentUnit,
    session: u32,
    shown: Option<Instant>,
}

#[derive(Debug, Default)]
struct Track {
    sent: Vec<Entry>,
    /// Where the next match is looked for.
    next: usize,
    last: Option<Match>,
}

impl Track {
    /// Of the units sent in a time that came: how much later than through the undisturbed network.
    fn delays(&self, network: Duration, between: impl RangeBounds<Instant>) -> Vec<Duration> {
        let sent = self.sent.iter().filter(|entry| between.contains(&entry.unit.sent));
        let mut delays: Vec<Duration> =
            sent.filter_map(|entry| Some(entry.shown?.saturating_duration_since(entry.unit.sent + network))).collect();
        delays.sort_unstable();
        delays
    }
}

#[derive(Debug)]
pub struct Ledger {
    start: Instant,
    /// What the undisturbed network takes.
    delay: Duration,
    session: u32,
    session_began: Option<Instant>,
    media_came: Instant,
    /// What is sent later is not counted.
    end: Option<Instant>,
    video: Track,
    audio: Track,
    pictures: Vec<Picture>,
    last_idr: Option<u64>,
    black: Option<u64>,
    /// Of the pictures that were shown, which the one before them was.
    last_exact: Option<(usize, usize)>,
    undecodable: u64,
    foreign: u64,
    filled: u64,
    skew_max: i64,
    skew_end: i64,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Pictures sent from the first one shown on, and how many came bit by bit.
    pub frames: u64,
    pub exact: u64,
    /// From the first picture sent to the first one shown; none was without one.
    pub first_after: Option<Duration>,
    /// The last IDR once more, while the guest was away.
    pub repeats: u64,
    /// Pictures that were never sent, or refer to one that was not shown.
    pub corrupt: u64,
    /// For a reader that buffers [`PATIENT_BUFFER`], and for one that buffers [`MIXER_BUFFER`].
    pub freezes: Freezes,
    pub mixer_freezes: Freezes,
    /// Length of the run from the first picture to the last.
    pub played: Duration,
    pub sounds: u64,
    pub sounds_exact: u64,
    /// Runs of sound that did not come.
    pub sound_gaps: u64,
    /// Packets of silence or concealment.
    pub filled: u64,
    pub delay_p50: Duration,
    pub delay_p95: Duration,
    pub sound_delay_p95: Duration,
    pub skew_max_ms: f64,
    pub skew_end_ms: f64,
    /// From the first IDR picture that the guest made after a lost picture to the next picture at the server, the longest.
    pub return_max: Duration,
}

impl Ledger {
    pub fn new(start: Instant, delay: Duration) -> Ledger {
        Ledger {
            start,
            delay,
            session: 0,
            session_began: None,
            media_came: start,
            end: None,
            video: Track::default(),
            audio: Track::default(),
            pictures: Vec::new(),
            last_idr: None,
            black: Still::black().body().get(5..).and_then(h264::avc_units).map(h264::digest),
            last_exact: None,
            undecodable: 0,
            foreign: 0,
            filled: 0,
            skew_max: 0,
            skew_end: 0,
        }
    }

    pub fn begin_session(&mut self) {
        self.session += 1;
        self.session_began = None;
    }

    /// What is sent from now on counts no more. It still goes on, so that what was lost before can be missed.
    pub fn end_count(&mut self, now: Instant) {
        self.end = Some(now);
    }

    fn counted<'a>(&self, track: &'a Track) -> &'a [Entry] {
        let sent = track.sent.as_slice();
        let count = self.end.map_or(sent.len(), |end| sent.partition_point(|entry| entry.unit.sent <= end));
        sent.get(..count).unwrap_or_default()
    }

    /// A media packet reached the daemon.
    pub fn media_came(&mut self, now: Instant) {
        self.media_came = now;
    }

    pub fn sent(&mut self, unit: SentUnit) {
        let track = match unit.kind {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        };
        track.sent.push(Entry { unit, session: self.session, shown: None });
    }

    pub fn shown(&mut self, shown: &Shown) {
        let ours = shown.at.saturating_duration_since(self.media_came) > OURS_AFTER;
        let body = shown.frame.body.get(5..).unwrap_or_default();
        match shown.frame.kind {
            Kind::Video => {
                let digest = h264::avc_units(body).map(h264::digest);
                let found = digest.filter(|_| !ours).and_then(|digest| self.find(TrackKind::Video, digest, shown));
                self.picture(shown, digest, found);
            }
            Kind::Audio => {
                let digest = h264::digest_bytes(body);
                let found = if ours { None } else { self.find(TrackKind::Audio, digest, shown) };
                self.filled += u64::from(found.is_none());
            }
        }
    }

    fn picture(&mut self, shown: &Shown, digest: Option<u64>, found: Option<usize>) {
        let was = match found {
            Some(index) => Was::Exact(index),
            None if digest.is_some() && digest == self.last_idr => Was::Repeat,
            None if digest == self.black => Was::Nobody,
            None => Was::Foreign,
        };
        if let Was::Exact(index) = was {
            let is_idr = self.video.sent.get(index).is_some_and(|entry| entry.unit.is_idr);
            let follows = index.checked_sub(1).map(|before| (shown.connection, before));
            if is_idr {
                self.last_idr = digest;
            } else if self.last_exact != follows {
                self.undecodable += 1;
            }
            self.last_exact = Some((shown.connection, index));
            self.compare(shown);
        } else {
            self.last_exact = None;
            self.foreign += u64::from(was == Was::Foreign);
        }
        let Shown { connection, at, .. } = *shown;
        self.pictures.push(Picture { at, connection, ms: shown.frame.timestamp, was });
    }

    /// Looks for the unit that a frame is, and notes when it was shown.
    fn find(&mut self, kind: TrackKind, digest: u64, shown: &Shown) -> Option<usize> {
        let start = self.start;
        let since_start = |at: Instant| micros(at.saturating_duration_since(start));
        let track = match kind {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        };
        let timestamp = i64::from(shown.frame.timestamp) * 1000;
        let last = track.last.filter(|last| last.connection == shown.connection);
        let candidates = track.sent.iter().enumerate().skip(track.next);
        let candidates = candidates.filter(|(_, entry)| entry.unit.digest == digest && entry.unit.sent <= shown.at);
        let off = |entry: &Entry| {
            let expected = last.map(|last| since_start(entry.unit.captured) + last.offset_micros);
            // Without a match to go by, the newest one is meant.
            expected.map_or_else(
                || micros(shown.at.saturating_duration_since(entry.unit.sent)),
                |expected| (timestamp - expected).abs(),
            )
        };
        let (index, entry) = candidates.min_by_key(|(_, entry)| off(entry))?;
        let sure = last.is_none_or(|last| {
            if digest == h264::digest_bytes(&SILENCE_20_MS) && last.session == entry.session {
                return off(entry) <= SILENCE_WITHIN_MICROS;
            }
            let anew = last.session != entry.session || shown.at - last.at > MATCH_AGAIN_AFTER;
            anew || off(entry) <= MATCH_WITHIN_MICROS
        });
        if !sure {
            return None;
        }
        let entry = *entry;
        track.last = Some(Match {
            at: shown.at,
            connection: shown.connection,
            session: entry.session,
            offset_micros: timestamp - since_start(entry.unit.captured),
        });
        track.next = index + 1;
        if let Some(entry) = track.sent.get_mut(index) {
            entry.shown = Some(shown.at);
        }
        Some(index)
    }

    /// How far picture and sound are apart.
    fn compare(&mut self, shown: &Shown) {
        let (Some(video), Some(audio)) = (self.video.last, self.audio.last) else { return };
        let began = *self.session_began.get_or_insert(shown.at);
        let settled = shown.at - began >= SYNC_AFTER;
        let comparable = video.connection == audio.connection
            && video.session == audio.session
            && shown.at.saturating_duration_since(audio.at) <= COMPARE_WITHIN;
        if settled && comparable {
            self.skew_end = video.offset_micros - audio.offset_micros;
            if self.skew_end.abs() > self.skew_max.abs() {
                self.skew_max = self.skew_end;
            }
        }
    }

    /// Pictures in the order they were shown.
    pub fn pictures(&self) -> &[Picture] {
        &self.pictures
    }

    /// When the first picture of the guest was shown after `since`.
    pub fn picture_after(&self, since: Instant) -> Option<Instant> {
        let exact = |picture: &&Picture| picture.at > since && matches!(picture.was, Was::Exact(_));
        self.pictures.iter().find(exact).map(|picture| picture.at)
    }

    /// How much the distance between capture time and timestamp varies, over the pictures that were shown after `since`.
    pub fn timestamp_spread(&self, since: Instant) -> Duration {
        let offsets = self.pictures.iter().filter(|picture| picture.at >= since).filter_map(|picture| {
            let Was::Exact(index) = picture.was else { return None };
            let captured = self.video.sent.get(index)?.unit.captured;
            Some(i64::from(picture.ms) * 1000 - micros(captured.saturating_duration_since(self.start)))
        });
        let (least, most) = offsets.fold((i64::MAX, i64::MIN), |(least, most), off| (least.min(off), most.max(off)));
        Duration::from_micros(most.saturating_sub(least).try_into().unwrap_or(0))
    }

    /// Timestamp less capture time of the newest sound and picture that came, in ms: what a track has fallen behind shows here.
    pub fn behind_ms(&self) -> (f64, f64) {
        let behind = |track: &Track| -> f64 {
            let micros = track.last.map_or(0, |last| last.offset_micros);
            f64::from(i32::try_from(micros).unwrap_or(i32::MAX)) / 1000.0
        };
        (behind(&self.audio), behind(&self.video))
    }

    /// Repeated pictures between two times.
    pub fn repeats(&self, from: Instant, until: Instant) -> usize {
        let held = |picture: &&Picture| picture.was == Was::Repeat && (from..until).contains(&picture.at);
        self.pictures.iter().filter(held).count()
    }

    /// The pictures that were shown between two times, by what they were.
    pub fn shown_between(&self, from: Instant, until: Instant) -> Vec<Was> {
        let shown = self.pictures.iter().filter(|picture| (from..until).contains(&picture.at));
        shown.map(|picture| picture.was).collect()
    }

    /// When nobody was shown for the first time after `since`.
    pub fn nobody_after(&self, since: Instant) -> Option<Instant> {
        self.pictures.iter().find(|picture| picture.at >= since && picture.was == Was::Nobody).map(|picture| picture.at)
    }

    /// Pictures sent between two times, and how many of them came.
    pub fn exact_between(&self, from: Instant, until: Instant) -> (usize, usize) {
        let sent = self.counted(&self.video).iter().filter(|entry| (from..until).contains(&entry.unit.sent));
        sent.fold((0, 0), |(sent, exact), entry| (sent + 1, exact + usize::from(entry.shown.is_some())))
    }

    /// When the pictures were rendered by a reader that buffers so long: at their timestamps, or when they came if that was
    /// too late. The reader follows the sender's clock.
    pub fn rendered(&self, buffer: Duration) -> Vec<Instant> {
        const WINDOW_MICROS: i64 = 10_000_000;
        let count = self.counted(&self.video).len();
        let exact = self.pictures.iter().filter(|picture| matches!(picture.was, Was::Exact(index) if index < count));
        let transit = |picture: &Picture| micros(picture.at - self.start) - i64::from(picture.ms) * 1000;
        let mut out: Vec<Instant> = Vec::new();
        // Connection, and the least transit of this window and the one before.
        let mut window: Option<(usize, i64, i64, i64)> = None;
        for picture in exact {
            let at = micros(picture.at - self.start);
            let (mut began, mut before, mut least) = match window {
                Some((connection, began, before, least)) if connection == picture.connection => (began, before, least),
                _ => (at, transit(picture), transit(picture)),
            };
            if at - began >= WINDOW_MICROS {
                (began, before, least) = (at, least, transit(picture));
            }
            least = least.min(transit(picture));
            window = Some((picture.connection, began, before, least));
            let ideal = u64::try_from(i64::from(picture.ms) * 1000 + least.min(before)).unwrap_or(0);
            let due = self.start + Duration::from_micros(ideal) + buffer;
            let rendered = due.max(picture.at);
            out.push(out.last().map_or(rendered, |last| rendered.max(*last)));
        }
        out
    }

    /// The same, to the end of the run: a picture that stays until then is frozen too.
    fn rendered_to_the_end(&self, buffer: Duration) -> Vec<Instant> {
        let mut rendered = self.rendered(buffer);
        if let (Some(last), Some(sent)) = (rendered.last().copied(), self.counted(&self.video).last()) {
            rendered.push(last.max(sent.unit.sent + self.delay + buffer));
        }
        rendered
    }

    pub fn figures(&self) -> Figures {
        let rendered = self.rendered_to_the_end(PATIENT_BUFFER);
        let from_first = |track: &Track| {
            let sent = self.counted(track);
            let first = sent.iter().position(|entry| entry.shown.is_some()).unwrap_or(sent.len());
            sent.get(first..).unwrap_or_default().to_vec()
        };
        let (video, audio) = (from_first(&self.video), from_first(&self.audio));
        let exact = |entries: &[Entry]| entries.iter().filter(|entry| entry.shown.is_some()).count() as u64;
        let runs = audio.chunk_by(|a, b| a.shown.is_some() == b.shown.is_some());
        let delays = self.video.delays(self.delay, ..);
        let milliseconds = |micros: i64| Duration::from_micros(micros.unsigned_abs()).as_secs_f64() * 1000.0;
        Figures {
            frames: video.len() as u64,
            exact: exact(&video),
            first_after: self
                .video
                .sent
                .first()
                .zip(video.first())
                .and_then(|(sent, shown)| Some(shown.shown?.saturating_duration_since(sent.unit.sent))),
            repeats: self.pictures.iter().filter(|picture| picture.was == Was::Repeat).count() as u64,
            corrupt: self.undecodable + self.foreign,
            played: rendered.first().zip(rendered.last()).map_or(Duration::ZERO, |(first, last)| *last - *first),
            freezes: freezes(&rendered),
            mixer_freezes: freezes(&self.rendered_to_the_end(MIXER_BUFFER)),
            sounds: audio.len() as u64,
            sounds_exact: exact(&audio),
            sound_gaps: runs.filter(|run| run.first().is_some_and(|entry| entry.shown.is_none())).count() as u64,
            filled: self.filled,
            delay_p50: percentile(&delays, 50),
            delay_p95: percentile(&delays, 95),
            sound_delay_p95: percentile(&self.audio.delays(self.delay, ..), 95),
            skew_max_ms: milliseconds(self.skew_max),
            skew_end_ms: milliseconds(self.skew_end),
            return_max: self.return_max(&video),
        }
    }

    /// Whatever is sent after a lost picture refers to it, up to the next IDR picture: from there on the guest can be seen
    /// again. When that one is lost as well the time goes on, also to the end of the run.
    fn return_max(&self, video: &[Entry]) -> Duration {
        let end = video.last().map(|entry| entry.unit.sent + self.delay);
        let (mut lost, mut idr, mut longest) = (false, None, Duration::ZERO);
        for entry in video {
            lost |= entry.shown.is_none();
            if lost && entry.unit.is_idr {
                idr.get_or_insert(entry.unit.sent + self.delay);
            }
            if let Some(shown) = entry.shown.filter(|_| lost) {
                longest = longest.max(idr.map_or(Duration::ZERO, |idr| shown.saturating_duration_since(idr)));
                (lost, idr) = (false, None);
            }
        }
        longest.max(idr.zip(end).map_or(Duration::ZERO, |(idr, end)| end.saturating_duration_since(idr)))
    }

    /// Sounds that were sent between two times and came.
    pub fn sounds_between(&self, from: Instant, until: Instant) -> usize {
        let sent = self.audio.sent.iter().filter(|entry| (from..until).contains(&entry.unit.sent));
        sent.filter(|entry| entry.shown.is_some()).count()
    }

    /// The delay that 95 % of a track's units had at most, of those sent between two times and of those that came.
    pub fn delay_p95(&self, kind: TrackKind, between: Range<Instant>) -> Duration {
        let track = match kind {
            TrackKind::Video => &self.video,
            TrackKind::Audio => &self.audio,
        };
        percentile(&track.delays(self.delay, between), 95)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Of sorted values.
fn percentile(values: &[Duration], percent: usize) -> Duration {
    let index = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values.get(index).copied().unwrap_or_default()
}
