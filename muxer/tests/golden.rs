//! Recorded RTP through rtp2flv gives exactly the stored FLV.
//!
//! A case is `golden/<name>.rtpdump` + `<name>.sdp` (+ `<name>.args`: further arguments of rtp2flv) -> `<name>.flv`,
//! with `<name>.txt`, a listing by an FLV reader that shares no code with the muxer. `golden/PROVENANCE.md` says where
//! each recording comes from and which tools confirmed its result; `golden/bless.sh` is the only way to change one.
//!
//! `golden/bad_input.rs` feeds rtp2flv what is not a recording; `golden/field.rs` holds recordings that are about time alone.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "golden/bad_input.rs"]
mod bad_input_ends_with_code_2_and_one_line;
#[path = "golden/field.rs"]
mod field;
#[path = "golden/listing.rs"]
mod listing;
#[path = "../examples/rtp2flv.rs"]
#[allow(dead_code, reason = "its main")]
mod rtp2flv;

fn golden_file(name: &str, extension: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension(extension)
}

/// A directory of this process and case, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn muxed(name: &str) -> Vec<u8> {
    let scratch = Scratch::new(name);
    let flv = scratch.file("out.flv");
    let extra = fs::read_to_string(golden_file(name, "args")).unwrap_or_default();
    let mut arguments: Vec<OsString> = extra.split_whitespace().map(OsString::from).collect();
    arguments.push("--sdp".into());
    arguments.push(golden_file(name, "sdp").into());
    arguments.push(golden_file(name, "rtpdump").into());
    arguments.push(flv.clone().into());
    if let Err(error) = rtp2flv::run(arguments) {
        panic!("{name}: rtp2flv refuses the recording: {error}");
    }
    fs::read(flv).unwrap()
}

/// The first tag in which the two files differ, as both sides read.
fn first_difference(expected: &[u8], actual: &[u8]) -> String {
    let (expected_tags, actual_tags) = (listing::listed_tags(expected), listing::listed_tags(actual));
    let bytes = |flv: &[u8], tag: &listing::ListedTag| flv.get(tag.offset..tag.offset + tag.len).map(<[u8]>::to_vec);
    for (index, pair) in expected_tags.iter().zip(&actual_tags).enumerate() {
        let (wanted, got) = (bytes(expected, pair.0), bytes(actual, pair.1));
        if wanted != got {
            let at = wanted.iter().flatten().zip(got.iter().flatten()).take_while(|(a, b)| a == b).count();
            return format!(
                "tag {index} differs from its byte {at} on\n  expected {}\n  actual   {}",
                pair.0.line, pair.1.line
            );
        }
    }
    let common = expected_tags.len().min(actual_tags.len());
    let line = |tags: &[listing::ListedTag]| tags.get(common).map_or("end of file".to_owned(), |tag| tag.line.clone());
    format!(
        "tag {common} is there on one side only\n  expected {}\n  actual   {}",
        line(&expected_tags),
        line(&actual_tags)
    )
}

fn assert_golden(name: &str) {
    let expected = fs::read(golden_file(name, "flv")).unwrap();
    let actual = muxed(name);
    assert!(expected == actual, "{name}: {}", first_difference(&expected, &actual));

    let stored = fs::read_to_string(golden_file(name, "txt")).unwrap();
    let read = listing::listing(&expected);
    for (number, (stored, read)) in stored.lines().zip(read.lines()).enumerate() {
        assert_eq!(stored, read, "{name}.txt line {}", number + 1);
    }
    assert_eq!(stored.lines().count(), read.lines().count(), "{name}.txt has another number of lines");
}

macro_rules! recordings {
    ($($name:ident)*) => {
        mod recording_gives_the_stored_flv {
            $(#[test]
            fn $name() {
                super::assert_golden(stringify!($name));
            })*
        }

        const RECORDINGS: &[&str] = &[$(stringify!($name)),*];
    };
}

recordings! {
    audio_only
    b_frames
    chromium
    chromium_rescale
    duplicates
    flv_time_24_bits
    field_annexb_in_fua
    field_clock_back_500ms
    field_control
    field_fua_no_end_bit
    field_fua_start_and_end
    field_intra_refresh_one_loss
    field_marker_each_nal
    fu_a
    headers_between_slices
    joined_mid_group
    loss_in_fu_a
    loss_of_idr
    loss_of_slice
    loss_of_sound
    loss_of_sps
    multi_slice
    no_marker
    opus_dtx
    padding_only_packets
    reordered_by_3
    rtp_time_wrap
    sender_reports
    sequence_wrap
    single_nal
    sprop_only
    slate
    sps_change
    stap_a_start
    video_only
}

#[test]
fn every_recording_in_the_directory_is_a_case_with_all_its_files() {
    let directory = golden_file("x", "y");
    let recorded: BTreeSet<String> = fs::read_dir(directory.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension() == Some(OsStr::new("rtpdump")))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let listed: BTreeSet<String> = RECORDINGS.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(recorded, listed);

    let provenance = fs::read_to_string(golden_file("PROVENANCE", "md")).unwrap();
    for name in RECORDINGS {
        for extension in ["sdp", "flv", "txt"] {
            assert!(golden_file(name, extension).is_file(), "{name}.{extension} is missing");
        }
        assert!(provenance.contains(&format!("\n| {name} | ")), "{name} has no row in PROVENANCE.md");
    }
}

#[test]
fn a_changed_tag_is_named_in_readable_form() {
    let flv = fs::read(golden_file("video_only", "flv")).unwrap();
    let tags = listing::listed_tags(&flv);
    let mut changed = flv.clone();
    let last_byte_of_tag_5 = tags[5].offset + tags[5].len - 5;
    changed[last_byte_of_tag_5] ^= 1;
    let text = first_difference(&flv, &changed);
    assert!(text.starts_with("tag 5 differs") && text.contains(&tags[5].line), "{text}");

    let text = first_difference(&flv, &flv[..tags[7].offset]);
    assert!(text.starts_with("tag 7 is there on one side only") && text.contains(&tags[7].line), "{text}");
}
