//! The rtptools `rtpdump` binary format, version 1.0: recorded RTP and RTCP packets with their arrival times.
//!
//! ```text
//! #!rtpplay1.0 ADDRESS/PORT\n
//! start: seconds u32, microseconds u32 | source address u32 | port u16 | padding u16
//! then per packet:
//! length u16 (this header and the packet) | rtp length u16 (0: an RTCP packet) | offset u32 (ms since start) | packet
//! ```
//!
//! Everything is big endian. Input: a whole file; output: [`Record`]s, and back. A record holds at most 65,527 bytes.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

const MAGIC: &str = "#!rtpplay1.0";
const RECORD_HEADER_BYTES: u16 = 8;

/// One recorded packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Arrival, since the start of the recording; the format keeps whole milliseconds.
    pub offset: Duration,
    pub kind: RecordKind,
    /// The packet from its first header byte on, in the clear.
    pub packet: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    Rtp,
    Rtcp,
}

/// What stands before the first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Start of the recording since the Unix epoch, in whole microseconds.
    pub start: Duration,
    pub source: Ipv4Addr,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RtpdumpError {
    /// The file does not begin with `#!rtpplay1.0 address/port` and a line feed.
    NotRtpdump,
    /// The file ends inside its header or inside a packet.
    Truncated { at: usize },
    /// A record's length is smaller than its own header.
    BadLength { at: usize, length: u16 },
    /// A packet that does not fit into a record.
    TooLong { bytes: usize },
}

impl fmt::Display for RtpdumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRtpdump => {
                write!(f, "not an rtpdump 1.0 file: no '{MAGIC} address/port' line")
            }
            Self::Truncated { at } => write!(f, "rtpdump ends in the middle of byte {at}'s record"),
            Self::BadLength { at, length } => {
                write!(f, "rtpdump record at byte {at} says it is {length} bytes long")
            }
            Self::TooLong { bytes } => {
                write!(f, "a packet of {bytes} bytes does not fit into rtpdump")
            }
        }
    }
}

impl std::error::Error for RtpdumpError {}

/// Writes a whole file.
pub fn write(header: &Header, records: &[Record]) -> Result<Vec<u8>, RtpdumpError> {
    let mut out = format!("{MAGIC} {}/{}\n", header.source, header.port).into_bytes();
    let seconds = u32::try_from(header.start.as_secs()).unwrap_or(u32::MAX);
    out.extend(seconds.to_be_bytes());
    out.extend(header.start.subsec_micros().to_be_bytes());
    out.extend(header.source.octets());
    out.extend(header.port.to_be_bytes());
    out.extend([0, 0]);
    for record in records {
        let too_long = RtpdumpError::TooLong { bytes: record.packet.len() };
        let bytes = u16::try_from(record.packet.len()).map_err(|_| too_long.clone())?;
        let length = bytes.checked_add(RECORD_HEADER_BYTES).ok_or(too_long)?;
        out.extend(length.to_be_bytes());
        let rtp_bytes = if record.kind == RecordKind::Rtp { bytes } else { 0 };
        out.extend(rtp_bytes.to_be_bytes());
        let offset_ms = u32::try_from(record.offset.as_millis()).unwrap_or(u32::MAX);
        out.extend(offset_ms.to_be_bytes());
        out.extend(&record.packet);
    }
    Ok(out)
}

/// Reads a whole file.
pub fn parse(file: &[u8]) -> Result<(Header, Vec<Record>), RtpdumpError> {
    let end = file.iter().take(80).position(|&b| b == b'\n').ok_or(RtpdumpError::NotRtpdump)?;
    let (line, rest) = file.split_at(end);
    if !line.starts_with(MAGIC.as_bytes()) {
        return Err(RtpdumpError::NotRtpdump);
    }
    let mut reader = Reader { file, rest };
    let [_line_feed] = reader.take()?;
    let start = Duration::from_secs(reader.u32()?.into()) + Duration::from_micros(reader.u32()?.into());
    let source = Ipv4Addr::from_bits(reader.u32()?);
    let port = reader.u16()?;
    let [_, _] = reader.take()?;

    let mut records = Vec::new();
    while !reader.rest.is_empty() {
        let at = reader.at();
        let length = reader.u16()?;
        let rtp_length = reader.u16()?;
        let offset = Duration::from_millis(reader.u32()?.into());
        let bytes = length.checked_sub(RECORD_HEADER_BYTES).ok_or(RtpdumpError::BadLength { at, length })?;
        let packet = reader.bytes(bytes.into())?.to_vec();
        let kind = if rtp_length == 0 { RecordKind::Rtcp } else { RecordKind::Rtp };
        records.push(Record { offset, kind, packet });
    }
    Ok((Header { start, source, port }, records))
}

struct Reader<'a> {
    file: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn at(&self) -> usize {
        self.file.len() - self.rest.len()
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], RtpdumpError> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(RtpdumpError::Truncated { at: self.at() })?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn u16(&mut self) -> Result<u16, RtpdumpError> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, RtpdumpError> {
        self.take().map(u32::from_be_bytes)
    }

    fn bytes(&mut self, n: usize) -> Result<&'a [u8], RtpdumpError> {
        let (bytes, rest) = self.rest.split_at_checked(n).ok_or(RtpdumpError::Truncated { at: self.at() })?;
        self.rest = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // Written by hand from the description in rtptools' rtpdump(1) and rtpplay's `rd_hdr_t` and `rd_packet_t`.
    const FIXTURE: &[u8] = b"#!rtpplay1.0 10.1.2.3/5004\n\
        \x65\x00\x00\x01\x00\x0F\x42\x3F\x0A\x01\x02\x03\x13\x8C\x00\x00\
        \x00\x15\x00\x0D\x00\x00\x00\x00\x80\x60\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03\xAA\
        \x00\x10\x00\x00\x00\x01\x11\x70\x80\xC9\x00\x01\x00\x00\x00\x03";

    fn fixture() -> (Header, Vec<Record>) {
        let header = Header {
            start: Duration::from_micros(0x6500_0001 * 1_000_000 + 999_999),
            source: Ipv4Addr::new(10, 1, 2, 3),
            port: 5004,
        };
        let rtp = Record {
            offset: Duration::ZERO,
            kind: RecordKind::Rtp,
            packet: vec![0x80, 0x60, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0xAA],
        };
        let rtcp = Record {
            offset: Duration::from_secs(70),
            kind: RecordKind::Rtcp,
            packet: vec![0x80, 0xC9, 0, 1, 0, 0, 0, 3],
        };
        (header, vec![rtp, rtcp])
    }

    #[test]
    fn a_hand_made_file_reads_as_its_packets_and_is_written_back_byte_for_byte() {
        let (header, records) = fixture();
        assert_eq!(parse(FIXTURE).unwrap(), (header.clone(), records.clone()));
        assert_eq!(write(&header, &records).unwrap(), FIXTURE);
    }

    #[test]
    fn a_file_cut_anywhere_but_between_records_is_refused() {
        let record_ends = [27 + 16, 27 + 16 + 21, FIXTURE.len()];
        for cut in 0..=FIXTURE.len() {
            let parsed = parse(&FIXTURE[..cut]);
            assert_eq!(parsed.is_ok(), record_ends.contains(&cut), "cut at {cut}: {parsed:?}");
        }
    }

    #[test]
    fn a_record_shorter_than_its_header_is_refused() {
        let mut file = FIXTURE[..43].to_vec();
        file.extend([0, 7, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parse(&file), Err(RtpdumpError::BadLength { at: 43, length: 7 }));
    }
}
