//! Recordings of the field that are about time (`golden/field/README.md`): pictures that arrive evenly, 30 a second, come
//! out evenly, whatever the sender's clocks and reports say.
//!
//! The times are read out of the FLV by the reader of [`listing`](super::listing). Before and behind each second of sound
//! there is as much sound as time.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use super::{Scratch, listing, rtp2flv};

/// How far a picture may be off its even time.
const MAX_SHIFT_MS: i64 = 40;

/// Times in ms of the pictures, with their composition offsets, and of the Opus packets.
fn times(name: &str) -> (Vec<(i64, i64)>, Vec<i64>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/field");
    let file = |extension: &str| directory.join(name).with_extension(extension);
    let scratch = Scratch::new(&format!("field-{name}"));
    let flv = scratch.file("out.flv");
    rtp2flv::run(["--sdp".into(), file("sdp").into(), file("rtpdump").into(), flv.clone().into()])
        .unwrap_or_else(|error| panic!("{name}: rtp2flv refuses the recording: {error}"));
    let (mut pictures, mut sounds) = (Vec::new(), Vec::new());
    for tag in listing::listed_tags(&fs::read(flv).unwrap()) {
        let words: Vec<&str> = tag.line.split_whitespace().collect();
        match words[..] {
            [_, "video", at, "ms", _, "B", "key" | "inter", "cts", offset, ..] => {
                pictures.push((at.parse().unwrap(), offset.parse().unwrap()));
            }
            [_, "audio", at, "ms", _, "B", "Opus", "toc", ..] => sounds.push(at.parse().unwrap()),
            _ => {}
        }
    }
    (pictures, sounds)
}

fn assert_even(name: &str, count: usize) {
    let (pictures, sounds) = times(name);
    assert_eq!(pictures.len(), count, "{name}");
    let (first, _) = pictures[0];
    for (number, (at, offset)) in (0..).zip(&pictures) {
        let shift = at + offset - first - number * 1000 / 30;
        assert!(shift.abs() <= MAX_SHIFT_MS, "{name}: picture {number} at {at} ms is shifted by {shift} ms");
        assert_eq!(*offset, 0, "{name}: composition offset of picture {number}: a Baseline stream");
    }
    for (number, at) in (0..).zip(&sounds) {
        assert_eq!(*at, number * 20, "{name}: sound {number}");
    }
}

#[test]
fn reports_without_a_wall_clock_shift_no_picture() {
    assert_even("ntp_time_zero", 450);
}

#[test]
fn a_wall_clock_that_is_set_shifts_no_picture() {
    assert_even("wall_clock_set", 450);
}

#[test]
fn an_odd_report_shifts_no_picture() {
    assert_even("odd_report", 450);
}

#[test]
fn an_rtp_clock_that_steps_back_shifts_no_picture() {
    assert_even("rtp_clock_back", 300);
}
