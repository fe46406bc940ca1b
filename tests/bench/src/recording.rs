//! An rtptools dump in, its RTP packets with their arrival times out; RTCP is passed over. Payload types 97 and 111 are
//! audio, as in the recordings of this repository.

use std::error::Error;
use std::time::Duration;

use guest_relay_muxer::bytes::Reader;
use guest_relay_muxer::{RtpPacket, TrackKind};

const FILE_HEADER_LEN: usize = 16;
const RECORD_HEADER_LEN: usize = 8;

pub(crate) struct Datagram {
    pub(crate) arrival: Duration,
    pub(crate) kind: TrackKind,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn read(dump: &[u8]) -> Result<Vec<Datagram>, Box<dyn Error>> {
    let line = dump.iter().position(|&byte| byte == b'\n').ok_or("this is no rtpdump")?;
    let mut reader = Reader::new(dump);
    reader.take(line + 1 + FILE_HEADER_LEN)?;
    let mut datagrams = Vec::new();
    while !reader.is_empty() {
        let length = usize::from(reader.u16()?);
        let is_rtcp = reader.u16()? == 0;
        let arrival = Duration::from_millis(reader.u32()?.into());
        let length = length.checked_sub(RECORD_HEADER_LEN).ok_or("a record shorter than its header")?;
        let bytes = reader.take(length)?;
        if !is_rtcp {
            let kind = match RtpPacket::parse(bytes)?.payload_type {
                97 | 111 => TrackKind::Audio,
                _ => TrackKind::Video,
            };
            datagrams.push(Datagram { arrival, kind, bytes: bytes.to_vec() });
        }
    }
    Ok(datagrams)
}
