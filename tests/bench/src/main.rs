//! `bench PASSES FILE.rtpdump`: a recording through the muxer to FLV bytes, PASSES times.
//!
//! Prints the number of RTP packets in one pass. tests/bench.sh runs it under callgrind with different PASSES: the
//! difference is what the packets cost, without start-up and reading of the file.
//!
//! The recording is an rtptools dump, as `muxer/examples/rtp2flv.rs` reads it. Payload types 97 and 111 are audio.

#![forbid(unsafe_code)]

use std::error::Error;
use std::hint::black_box;

use guest_relay_muxer::bytes::Reader;
use guest_relay_muxer::{Config, MediaTime, Muxer, Output, RtpPacket, TrackKind, flv};

const FILE_HEADER_LEN: usize = 16;
const RECORD_HEADER_LEN: usize = 8;

struct Datagram {
    arrival: MediaTime,
    kind: TrackKind,
    bytes: Vec<u8>,
}

/// The RTP packets of a recording.
fn read(dump: &[u8]) -> Result<Vec<Datagram>, Box<dyn Error>> {
    let line = dump
        .iter()
        .position(|&byte| byte == b'\n')
        .ok_or("this is no rtpdump")?;
    let mut reader = Reader::new(dump);
    reader.take(line + 1 + FILE_HEADER_LEN)?;
    let mut datagrams = Vec::new();
    while !reader.is_empty() {
        let length = usize::from(reader.u16()?);
        let is_rtcp = reader.u16()? == 0;
        let arrival = MediaTime::from_millis(i64::from(reader.u32()?));
        let bytes = reader.take(
            length
                .checked_sub(RECORD_HEADER_LEN)
                .ok_or("a record shorter than its header")?,
        )?;
        if is_rtcp {
            continue;
        }
        let kind = match RtpPacket::parse(bytes)?.payload_type {
            97 | 111 => TrackKind::Audio,
            _ => TrackKind::Video,
        };
        datagrams.push(Datagram {
            arrival,
            kind,
            bytes: bytes.to_vec(),
        });
    }
    Ok(datagrams)
}

fn pass(
    datagrams: &[Datagram],
    body: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), Box<dyn Error>> {
    let mut muxer = Muxer::new(Config::default());
    for datagram in datagrams {
        let packet = RtpPacket::parse(&datagram.bytes)?;
        muxer.handle_rtp(datagram.kind, &packet, datagram.arrival);
        loop {
            body.clear();
            match muxer.poll_output(body) {
                Some(Output::Tag(tag)) => {
                    out.clear();
                    flv::write_tag(out, tag.kind, tag.dts, body);
                    black_box(&*out);
                }
                Some(Output::KeyframeNeeded(_)) => {}
                None => break,
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(passes), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bench PASSES FILE.rtpdump".into());
    };
    let datagrams = read(&std::fs::read(file)?)?;
    let (mut body, mut out) = (Vec::new(), Vec::new());
    for _ in 0..passes.parse::<u32>()? {
        pass(&datagrams, &mut body, &mut out)?;
    }
    println!("{}", datagrams.len());
    Ok(())
}
