//! What is not a recording makes rtp2flv, as a process, end with exit code 2 and one line on stderr.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::{Scratch, golden_file};

const MAGIC: &[u8] = b"#!rtpplay1.0 127.0.0.1/5004\n";
const FILE_HEADER_BYTES: usize = 16;

/// Cargo builds the examples of a package before it runs its tests, next to them.
fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let path = profile.join("examples").join(format!("rtp2flv{}", std::env::consts::EXE_SUFFIX));
    assert!(path.is_file(), "no {}: cargo build -p guest-relay-muxer --example rtp2flv", path.display());
    path
}

fn rtp2flv<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(binary()).args(arguments).output().unwrap()
}

#[track_caller]
fn assert_refused(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "stderr: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "stderr: {stderr}");
    assert!(stderr.ends_with('\n') && stderr.trim().len() > 10, "stderr: {stderr:?}");
    assert!(output.stdout.is_empty(), "stdout: {}", String::from_utf8_lossy(&output.stdout));
}

/// Runs a good case with its dump or SDP replaced.
fn run_with(name: &str, dump: Option<&[u8]>, sdp: Option<&[u8]>) -> Output {
    let scratch = Scratch::new(name);
    let dump = dump.map_or_else(|| golden_file("stap_a_start", "rtpdump"), |bytes| scratch.write("in.rtpdump", bytes));
    let sdp = sdp.map_or_else(|| golden_file("stap_a_start", "sdp"), |bytes| scratch.write("in.sdp", bytes));
    rtp2flv(["--sdp".as_ref(), sdp.as_os_str(), dump.as_os_str(), scratch.file("out.flv").as_os_str()])
}

fn good_dump() -> Vec<u8> {
    fs::read(golden_file("stap_a_start", "rtpdump")).unwrap()
}

/// xorshift64: the same bytes in every run.
fn random_bytes(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    // bounded: whoever calls takes as many as are wanted
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    })
    .take(len)
    .collect()
}

#[test]
fn good_input_ends_with_code_0_and_prints_nothing() {
    let output = run_with("good", None, None);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*stderr), (Some(0), ""));
}

#[test]
fn no_arguments() {
    assert_refused(&rtp2flv::<&str>([]));
}

#[test]
fn unknown_option() {
    assert_refused(&rtp2flv(["--no-such-option"]));
}

#[test]
fn start_that_is_no_number() {
    let scratch = Scratch::new("start");
    let (sdp, dump) = (golden_file("stap_a_start", "sdp"), golden_file("stap_a_start", "rtpdump"));
    let out = scratch.file("out.flv");
    let arguments: [&OsStr; 6] =
        ["--start-ms".as_ref(), "soon".as_ref(), "--sdp".as_ref(), sdp.as_ref(), dump.as_ref(), out.as_ref()];
    assert_refused(&rtp2flv(arguments));
}

#[test]
fn no_sdp_argument() {
    let scratch = Scratch::new("no-sdp");
    assert_refused(&rtp2flv([golden_file("stap_a_start", "rtpdump"), scratch.file("out.flv")]));
}

#[test]
fn sdp_file_that_does_not_exist() {
    let scratch = Scratch::new("missing-sdp");
    let (sdp, out) = (scratch.file("missing.sdp"), scratch.file("out.flv"));
    let dump = golden_file("stap_a_start", "rtpdump");
    assert_refused(&rtp2flv(["--sdp".as_ref(), sdp.as_os_str(), dump.as_os_str(), out.as_os_str()]));
}

#[test]
fn dump_file_that_does_not_exist() {
    let scratch = Scratch::new("missing-dump");
    let (dump, out) = (scratch.file("missing.rtpdump"), scratch.file("out.flv"));
    let sdp = golden_file("stap_a_start", "sdp");
    assert_refused(&rtp2flv(["--sdp".as_ref(), sdp.as_os_str(), dump.as_os_str(), out.as_os_str()]));
}

#[test]
fn output_that_cannot_be_written() {
    let scratch = Scratch::new("no-output");
    let out = scratch.file("no-such-directory/out.flv");
    let (sdp, dump) = (golden_file("stap_a_start", "sdp"), golden_file("stap_a_start", "rtpdump"));
    assert_refused(&rtp2flv(["--sdp".as_ref(), sdp.as_os_str(), dump.as_os_str(), out.as_os_str()]));
}

#[test]
fn empty_dump() {
    assert_refused(&run_with("empty", Some(b""), None));
}

#[test]
fn dump_of_random_bytes() {
    assert_refused(&run_with("random", Some(&random_bytes(20_000)), None));
}

#[test]
fn dump_with_wrong_magic() {
    let mut dump = good_dump();
    dump[7] = b'9';
    assert_refused(&run_with("magic", Some(&dump), None));
}

#[test]
fn dump_cut_in_its_magic_line() {
    assert_refused(&run_with("cut-magic", Some(&MAGIC[..MAGIC.len() - 1]), None));
}

#[test]
fn dump_cut_in_its_file_header() {
    let mut dump = MAGIC.to_vec();
    dump.extend([0; FILE_HEADER_BYTES - 1]);
    assert_refused(&run_with("cut-header", Some(&dump), None));
}

#[test]
fn dump_cut_inside_a_datagram() {
    let dump = good_dump();
    assert_refused(&run_with("cut-datagram", Some(&dump[..dump.len() - 1]), None));
}

#[test]
fn dump_cut_inside_an_entry_header() {
    let mut dump = good_dump();
    dump.extend([0, 40, 0]);
    assert_refused(&run_with("cut-entry", Some(&dump), None));
}

#[test]
fn dump_with_an_entry_shorter_than_its_own_header() {
    let mut dump = good_dump();
    dump.extend([0, 7, 0, 0, 0, 0, 0, 0]);
    assert_refused(&run_with("short-entry", Some(&dump), None));
}

#[test]
fn dump_without_any_datagram() {
    let mut dump = MAGIC.to_vec();
    dump.extend([0; FILE_HEADER_BYTES]);
    assert_refused(&run_with("no-datagram", Some(&dump), None));
}

#[test]
fn dump_whose_datagrams_are_all_random() {
    let mut dump = MAGIC.to_vec();
    dump.extend([0; FILE_HEADER_BYTES]);
    for datagram in random_bytes(200 * 72).chunks(72) {
        dump.extend([0, 80, 0, 72, 0, 0, 0, 1]);
        dump.extend(datagram);
    }
    assert_refused(&run_with("random-datagrams", Some(&dump), None));
}

#[test]
fn empty_sdp() {
    assert_refused(&run_with("empty-sdp", None, Some(b"")));
}

#[test]
fn sdp_without_media_lines() {
    assert_refused(&run_with("no-media", None, Some(b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n")));
}

#[test]
fn sdp_with_neither_h264_nor_opus() {
    let sdp = b"v=0\r\ns=-\r\nm=video 9 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\nm=audio 9 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n";
    assert_refused(&run_with("other-codecs", None, Some(sdp)));
}

#[test]
fn sdp_of_random_bytes() {
    assert_refused(&run_with("random-sdp", None, Some(&random_bytes(5_000))));
}

#[test]
fn sdp_whose_payload_types_are_not_in_the_dump() {
    let sdp = b"v=0\r\ns=-\r\nm=video 9 RTP/AVP 120\r\na=rtpmap:120 H264/90000\r\na=fmtp:120 packetization-mode=1\r\n";
    assert_refused(&run_with("other-types", None, Some(sdp)));
}
