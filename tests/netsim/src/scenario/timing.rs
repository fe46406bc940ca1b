//! Clocks that disagree, and numbers that come to their end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_relay::rtmp::{self, Publisher};
use guest_relay_muxer::{Frame, MediaTime, Muxer, Output, Tag, TagKind};
use ingest::Kind;
use loadgen::clip::Clip;
use loadgen::guest::GuestConfig;
use loadgen::replay::{Replay, ReplayConfig, TrackStart};

use super::{Length, MINUTE, SECOND, SYNC_MS, browser, finish, quiet, setup};
use crate::direct;
use crate::row::Row;
use crate::server::Server;
use crate::world::{World, target};

/// The camera's clock runs 50 ppm fast, the microphone's 50 ppm slow, for an hour: unheeded, 360 ms.
pub(super) fn drift(name: &'static str, length: Length, seed: u64) -> Row {
    let mut setup = setup(quiet(), seed);
    let clock = |clock_ppm| TrackStart { clock_ppm, ..TrackStart::default() };
    let replay = ReplayConfig { video: clock(50), audio: clock(-50), bursts: false };
    setup.guest = GuestConfig { replay, ..browser() };
    setup.clip = Clip::chromium_360p();
    let mut world = World::new(setup);
    world.run_for(length.of(60 * MINUTE, 2 * MINUTE));
    finish(&mut world);
    let mut row = Row::of(name, &world);
    row.require_everything();
    row.require_mixer_frozen(0);
    row.require_sync(SYNC_MS);
    row.notes.push(format!("{:.1} ms at the end", row.figures.skew_end_ms));
    row.require_one_connection(&world);
    row
}

/// Five hours, without SRTP: RTP sequence numbers wrap 26 times, the 90 kHz and 48 kHz clocks once each (they start
/// shortly before), and RTMP timestamps pass 2^24 ms after 4 h 39 min, where the chunk header becomes another. The short
/// run is over before that.
pub(super) fn wraps(name: &'static str, length: Length, seed: u64) -> Row {
    let before = |minutes: u32, clock_rate: u32| TrackStart {
        sequence_number: 65_000,
        rtp_time: u32::MAX - minutes * 60 * clock_rate,
        ..TrackStart::default()
    };
    let mut setup = setup(quiet(), seed);
    let replay = ReplayConfig { video: before(1, 90_000), audio: before(2, 48_000), bursts: false };
    setup.guest = GuestConfig { replay, ..browser() };
    setup.clip = Clip::chromium_360p();
    let mut world = World::without_webrtc(setup);
    world.run_for(length.of(300 * MINUTE, 3 * MINUTE));
    finish(&mut world);
    let mut row = Row::of(name, &world);
    row.require_everything();
    row.require_mixer_frozen(0);
    row.require_sync(SYNC_MS);
    row.require_one_connection(&world);
    // Sender reports have moved the picture to its sound in the first seconds; from then on nothing moves any more.
    let spread = world.ledger().timestamp_spread(world.start + MINUTE);
    row.require(spread <= Duration::from_millis(2), || format!("timestamps wander by {spread:?}"));
    row.notes.push(format!("timestamps within {:.1} ms", spread.as_secs_f64() * 1000.0));
    let last = world.ledger().pictures().last().map_or(0, |picture| picture.ms);
    row.notes.push(format!("last timestamp {last} ms"));
    row
}

/// The publisher alone, a picture a minute and its pings: before 2^32 ms it goes over to a new connection at an IDR.
/// The short run takes a picture every ten minutes.
pub(super) fn days(name: &'static str, length: Length, seed: u64) -> Row {
    const DAYS: Duration = Duration::from_secs(50 * 86_400);
    let every = length.of(MINUTE, 10 * MINUTE);
    let start = Instant::now();
    let mut publisher = Publisher::new(target(), seed, start);
    let mut server = Server::default();
    let mut row = Row { name, frames_only: true, ..Row::default() };
    let mut shown = Vec::new();
    let mut reconnects = Vec::new();
    let (mut now, mut next_picture) = (start, start);
    let (header, idr) = first_picture(&Clip::chromium_360p());
    let tag = |frame, body: &[u8], now: Instant| Tag {
        kind: TagKind::Video,
        frame,
        dts: MediaTime::from(now - start),
        len: body.len(),
    };
    publisher.push(tag(Frame::VideoSequenceHeader, &header, now), &header, now);
    publisher.start(now);
    while now - start < DAYS {
        if publisher.poll_timeout().is_some_and(|due| due <= now) {
            publisher.handle_timeout(now);
        }
        if next_picture <= now {
            row.figures.frames += 1;
            publisher.push(tag(Frame::Keyframe, &idr, now), &idr, now);
            next_picture += every;
        }
        loop {
            server.pump(&mut publisher, now);
            match publisher.poll_output() {
                Some(rtmp::Output::Connect) => server.connect(&mut publisher, now),
                Some(rtmp::Output::Disconnect) => {
                    server.hang_up();
                }
                // A guest answers with an IDR at once.
                Some(rtmp::Output::KeyframeNeeded) => next_picture = next_picture.min(now + SECOND / 10),
                Some(rtmp::Output::Event(rtmp::Event::Lost { reason, .. })) => reconnects.push(reason),
                Some(rtmp::Output::Event(_)) => {}
                None => break,
            }
        }
        shown.extend(server.take_shown());
        now = publisher.poll_timeout().into_iter().chain([next_picture]).min().unwrap_or(now).max(now);
    }
    row.figures.exact = shown.iter().filter(|shown| shown.frame.kind == Kind::Video && shown.frame.key).count() as u64;
    let missing = row.figures.frames.saturating_sub(row.figures.exact);
    // One is lost before the first connection stands, one at the hand-over; each is asked for again at once.
    row.require(missing <= 2, || format!("{missing} pictures missing"));
    row.require(reconnects == [rtmp::LostReason::TimestampLimit], || format!("reconnects: {reconnects:?}"));
    for report in server.reports() {
        row.require(report.violations.is_empty(), || format!("violations: {:?}", report.violations));
    }
    let wrong = shown.chunk_by(|a, b| a.connection == b.connection).flat_map(|connection| {
        let first = connection.first().expect("a chunk is not empty");
        connection.iter().filter(|shown| Duration::from_millis(shown.frame.timestamp.into()) != shown.at - first.at)
    });
    let wrong = wrong.count();
    row.require(wrong == 0, || format!("{wrong} wrong timestamps"));
    let last = shown.iter().map(|shown| shown.frame.timestamp).max().unwrap_or(0);
    row.notes.push(format!("up to {last} ms, then a new connection at 0"));
    row
}

/// The bodies of the clip's first sequence header and IDR picture.
fn first_picture(clip: &Arc<Clip>) -> (Vec<u8>, Vec<u8>) {
    let start = Instant::now();
    let mut replay = Replay::start(clip, &ReplayConfig { bursts: true, ..ReplayConfig::default() }, start);
    let mut muxer = Muxer::new(guest_relay_muxer::Config::default());
    while let Some(due) = replay.poll(start) {
        muxer.handle_rtp(direct::kind(due.kind), &direct::packet(&due), MediaTime::ZERO);
    }
    let (mut header, mut picture, mut body) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(output) = muxer.poll_output(&mut body) {
        match output {
            Output::Tag(Tag { frame: Frame::VideoSequenceHeader, .. }) => header.clone_from(&body),
            Output::Tag(Tag { frame: Frame::Keyframe, .. }) => picture.clone_from(&body),
            _ => {}
        }
        body.clear();
    }
    (header, picture)
}
