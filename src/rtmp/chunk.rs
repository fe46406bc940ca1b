//! The chunk layer (RTMP 1.0 §5.3): [`write_message`] cuts messages into chunks, [`ChunkReader`] puts the
//! server's chunks together.
//!
//! ```text
//! basic header     fmt(2) csid(6)                    csid 0: one more byte (64 + n); 1: two more (64 + n, low first)
//! message header   fmt 0: time u24, length u24, type u8, message stream id u32 little-endian
//!                  fmt 1: delta u24, length u24, type u8      fmt 2: delta u24      fmt 3: nothing
//! extended time    u32 when the u24 is FFFFFF, and again in each fmt 3 chunk of that message
//! payload          at most the chunk size
//! ```
//! Out: fmt 0 and fmt 3 only, csid below 64, one message after the other: what every server reads.
//! In: all forms. Bounds: [`CHUNK_STREAMS_MAX`] chunk streams, [`BUFFERED_MAX`] bytes of unfinished messages in all.

use std::fmt;

use guest_relay_muxer::bytes::{Reader, Truncated, Writer};
use guest_relay_muxer::handover::{self, HandoverError};

/// The chunk size both sides start with.
pub(super) const CHUNK_SIZE_AT_START: u32 = 128;
/// Chunk streams a server may use; real ones use four or five.
pub(super) const CHUNK_STREAMS_MAX: usize = 32;
/// Bytes of unfinished messages kept. What servers send a publisher is far smaller.
pub(super) const BUFFERED_MAX: usize = 1 << 20;
/// Buffer a chunk stream keeps between messages.
const KEPT_MAX: usize = 16 * 1024;
/// Longest message the 24-bit length can announce.
const MESSAGE_MAX: u32 = 0x00ff_ffff;
/// This value in the u24 time field announces the extended timestamp.
const EXTENDED: u32 = 0x00ff_ffff;
/// Basic header 3, message header 11, extended timestamp 4.
const HEADER_MAX: usize = 18;

/// What goes in front of a message's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// 2 to 63.
    pub(super) chunk_stream_id: u8,
    /// Milliseconds.
    pub(super) timestamp: u32,
    pub(super) type_id: u8,
    pub(super) message_stream_id: u32,
}

/// Appends one message, its payload in two parts, as chunks of at most `chunk_size` payload bytes.
///
/// # Panics
/// When the payload exceeds the 24-bit length; the publisher refuses such tags before. When `chunk_size` is 0; both that we
/// use are constants.
pub(super) fn write_message(out: &mut Vec<u8>, header: Header, chunk_size: u32, payload: [&[u8]; 2]) {
    let [front, back] = payload;
    let length = u32::try_from(front.len() + back.len())
        .ok()
        .filter(|length| *length <= MESSAGE_MAX)
        .expect("the publisher bounds its messages");
    let extended = (header.timestamp >= EXTENDED).then_some(header.timestamp);
    let chunk_size = usize::try_from(chunk_size).unwrap_or(usize::MAX);
    let chunks = 1 + (front.len() + back.len()) / chunk_size;
    out.reserve(front.len() + back.len() + chunks * HEADER_MAX);
    let mut writer = Writer::new(out);
    writer.u8(header.chunk_stream_id);
    writer.u24(header.timestamp.min(EXTENDED));
    writer.u24(length);
    writer.u8(header.type_id);
    writer.u32_le(header.message_stream_id);
    if let Some(timestamp) = extended {
        writer.u32(timestamp);
    }
    let mut room = chunk_size;
    for mut part in [front, back] {
        while !part.is_empty() {
            if room == 0 {
                writer.u8(0xc0 | header.chunk_stream_id);
                if let Some(timestamp) = extended {
                    writer.u32(timestamp);
                }
                room = chunk_size;
            }
            let (now, later) = part.split_at(room.min(part.len()));
            writer.bytes(now);
            room -= now.len();
            part = later;
        }
    }
}

/// Why the server's bytes cannot be followed any further. All of them end the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkError {
    /// Set Chunk Size with 0 or above 2^31 - 1.
    ChunkSize(u32),
    /// Unfinished messages would take more than `max` bytes.
    TooMuchBuffered {
        /// Bytes there would be.
        need: usize,
        /// The limit.
        max: usize,
    },
    /// More chunk streams than a server needs.
    TooManyChunkStreams,
    /// A chunk that continues a chunk stream nothing was received on.
    NoPreviousChunk {
        /// The header's form, 2 or 3.
        format: u8,
    },
    /// A new message header where the rest of a message was due.
    HeaderInsideMessage,
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChunkError::ChunkSize(size) => write!(f, "chunk size {size}"),
            ChunkError::TooMuchBuffered { need, max } => {
                write!(f, "unfinished messages of {need} bytes, limit {max}")
            }
            ChunkError::TooManyChunkStreams => {
                write!(f, "more than {CHUNK_STREAMS_MAX} chunk streams")
            }
            ChunkError::NoPreviousChunk { format } => {
                write!(f, "a type {format} chunk without a previous chunk")
            }
            ChunkError::HeaderInsideMessage => write!(f, "a message header inside a message"),
        }
    }
}

impl std::error::Error for ChunkError {}

/// One whole message from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) type_id: u8,
    pub(super) timestamp: u32,
    pub(super) message_stream_id: u32,
    pub(super) payload: &'a [u8],
}

/// The state of one chunk stream.
struct ChunkStream {
    id: u32,
    type_id: u8,
    message_stream_id: u32,
    timestamp: u32,
    delta: u32,
    length: usize,
    extended: bool,
    payload: Vec<u8>,
    /// A message has begun and is not complete.
    open: bool,
}

/// Where in a chunk the reader stands.
enum Position {
    Header,
    /// Bytes of payload left in this chunk of `streams[index]`.
    Payload {
        index: usize,
        left: usize,
    },
}

/// Puts the server's chunks together, however the bytes are cut.
pub(super) struct ChunkReader {
    chunk_size: usize,
    streams: Vec<ChunkStream>,
    /// Bytes of the header being read.
    header: Vec<u8>,
    position: Position,
}

/// A chunk's header fields as far as the format carries them.
struct ChunkHeader {
    format: u8,
    id: u32,
    /// Time or delta, the extended form resolved; `None` in fmt 3.
    time: Option<u32>,
    extended: bool,
    length_and_type: Option<(u32, u8)>,
    message_stream_id: Option<u32>,
}

impl ChunkReader {
    pub(super) fn new() -> ChunkReader {
        ChunkReader {
            chunk_size: usize::try_from(CHUNK_SIZE_AT_START).expect("128"),
            streams: Vec::new(),
            header: Vec::with_capacity(HEADER_MAX),
            position: Position::Header,
        }
    }

    /// Set Chunk Size (§5.4.1): 1 to 2^31 - 1. Large values cost nothing: payload is taken as it comes.
    pub(super) fn set_chunk_size(&mut self, size: u32) -> Result<(), ChunkError> {
        let valid = (1..1 << 31).contains(&size);
        self.chunk_size = usize::try_from(size).ok().filter(|_| valid).ok_or(ChunkError::ChunkSize(size))?;
        Ok(())
    }

    /// Abort (§5.4.2): drops what was received of the message on this chunk stream.
    pub(super) fn abort(&mut self, chunk_stream_id: u32) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == chunk_stream_id) {
            stream.open = false;
            stream.payload.clear();
        }
    }

    /// Writes where in the server's chunks the reader stands, for [`ChunkReader::adopt`] of another process.
    pub(super) fn hand_over(&self, out: &mut Writer<&mut Vec<u8>>) {
        out.u32(u32::try_from(self.chunk_size).expect("31 bits"));
        handover::write_bytes(out, &self.header);
        let (in_payload, index, left) = match self.position {
            Position::Header => (false, 0, 0),
            Position::Payload { index, left } => (true, index, left),
        };
        handover::write_flag(out, in_payload);
        out.u8(u8::try_from(index).expect("CHUNK_STREAMS_MAX"));
        out.u32(u32::try_from(left).expect("BUFFERED_MAX"));
        out.u8(u8::try_from(self.streams.len()).expect("CHUNK_STREAMS_MAX"));
        for stream in &self.streams {
            out.u32(stream.id);
            out.u8(stream.type_id);
            out.u32(stream.message_stream_id);
            out.u32(stream.timestamp);
            out.u32(stream.delta);
            out.u24(u32::try_from(stream.length).expect("24 bits"));
            handover::write_flag(out, stream.extended);
            handover::write_flag(out, stream.open);
            handover::write_bytes(out, if stream.open { &stream.payload } else { &[] });
        }
    }

    /// A reader that goes on where another process stood in the server's chunks.
    pub(super) fn adopt(state: &mut Reader<'_>) -> Result<Self, HandoverError> {
        let mut chunks = Self::new();
        chunks.set_chunk_size(state.u32()?).map_err(|_| HandoverError::Value("the chunk size"))?;
        chunks.header = handover::read_bytes(state, HEADER_MAX, "a chunk's header")?.to_vec();
        let in_payload = handover::read_flag(state, "the place in a chunk")?;
        let index = usize::from(state.u8()?);
        let left = usize::try_from(state.u32()?).unwrap_or(usize::MAX);
        let streams = usize::from(state.u8()?);
        if streams > CHUNK_STREAMS_MAX {
            return Err(HandoverError::Value("the number of chunk streams"));
        }
        for _ in 0..streams {
            let stream = ChunkStream {
                id: state.u32()?,
                type_id: state.u8()?,
                message_stream_id: state.u32()?,
                timestamp: state.u32()?,
                delta: state.u32()?,
                length: usize::try_from(state.u24()?).expect("24 bits"),
                extended: handover::read_flag(state, "an extended time")?,
                open: handover::read_flag(state, "whether a message is open")?,
                payload: handover::read_bytes(state, BUFFERED_MAX, "an unfinished message")?.to_vec(),
            };
            if stream.payload.len() > stream.length || chunks.streams.iter().any(|known| known.id == stream.id) {
                return Err(HandoverError::Value("a chunk stream"));
            }
            chunks.streams.push(stream);
        }
        let open: usize = chunks.streams.iter().filter(|stream| stream.open).map(|stream| stream.length).sum();
        if open > BUFFERED_MAX {
            return Err(HandoverError::Value("what is unfinished"));
        }
        if in_payload {
            let stream = chunks.streams.get(index).filter(|stream| stream.open);
            let room = stream.map_or(0, |stream| stream.length - stream.payload.len());
            if left == 0 || left > room {
                return Err(HandoverError::Value("the rest of a chunk"));
            }
            chunks.position = Position::Payload { index, left };
        }
        Ok(chunks)
    }

    /// Takes bytes off the front of `bytes` up to the end of a message, or all of them.
    pub(super) fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<Message<'_>>, ChunkError> {
        while !bytes.is_empty() {
            match self.position {
                Position::Header => {
                    let Some((&byte, rest)) = bytes.split_first() else {
                        break;
                    };
                    *bytes = rest;
                    self.header.push(byte);
                    if let Ok(header) = self.parse_header() {
                        self.header.clear();
                        self.position = self.begin_chunk(&header)?;
                    }
                }
                Position::Payload { index, left } => {
                    let (now, rest) = bytes.split_at(left.min(bytes.len()));
                    *bytes = rest;
                    let stream = self.streams.get_mut(index).expect("chunk streams are never removed");
                    stream.payload.extend_from_slice(now);
                    self.position = Position::Payload { index, left: left - now.len() };
                }
            }
            if let Position::Payload { index, left: 0 } = self.position {
                self.position = Position::Header;
                let stream = self.streams.get_mut(index).expect("chunk streams are never removed");
                if stream.payload.len() >= stream.length {
                    stream.open = false;
                    return Ok(self.streams.get(index).map(|stream| Message {
                        type_id: stream.type_id,
                        timestamp: stream.timestamp,
                        message_stream_id: stream.message_stream_id,
                        payload: &stream.payload,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Reads `self.header`; `Truncated` while bytes are missing.
    fn parse_header(&self) -> Result<ChunkHeader, Truncated> {
        let mut reader = Reader::new(&self.header);
        let basic = reader.u8()?;
        let format = basic >> 6;
        let id = match basic & 0x3f {
            0 => u32::from(reader.u8()?) + 64,
            1 => u32::from(reader.u8()?) + u32::from(reader.u8()?) * 256 + 64,
            id => u32::from(id),
        };
        let time = if format < 3 { Some(reader.u24()?) } else { None };
        let length_and_type = if format < 2 { Some((reader.u24()?, reader.u8()?)) } else { None };
        let message_stream_id = if format == 0 { Some(reader.u32_le()?) } else { None };
        let extended = match time {
            Some(time) => time == EXTENDED,
            None => self.streams.iter().any(|stream| stream.id == id && stream.extended),
        };
        let extended_time = if extended { Some(reader.u32()?) } else { None };
        let time = time.map(|time| extended_time.unwrap_or(time));
        Ok(ChunkHeader { format, id, time, extended, length_and_type, message_stream_id })
    }

    /// Applies a complete header; says what payload follows.
    fn begin_chunk(&mut self, header: &ChunkHeader) -> Result<Position, ChunkError> {
        let index = match self.streams.iter().position(|stream| stream.id == header.id) {
            Some(index) => index,
            // Some servers begin with type 1: a time from 0, on message stream 0.
            None if header.format > 1 => {
                return Err(ChunkError::NoPreviousChunk { format: header.format });
            }
            None if self.streams.len() >= CHUNK_STREAMS_MAX => {
                return Err(ChunkError::TooManyChunkStreams);
            }
            None => {
                self.streams.push(ChunkStream {
                    id: header.id,
                    type_id: 0,
                    message_stream_id: 0,
                    timestamp: 0,
                    delta: 0,
                    length: 0,
                    extended: false,
                    payload: Vec::new(),
                    open: false,
                });
                self.streams.len() - 1
            }
        };
        // Large buffers of finished messages are given back, or each chunk stream would keep its own.
        for stream in self.streams.iter_mut().filter(|stream| !stream.open && stream.payload.capacity() > KEPT_MAX) {
            stream.payload = Vec::new();
        }
        let open_bytes: usize = self.streams.iter().filter(|stream| stream.open).map(|stream| stream.length).sum();
        let stream = self.streams.get_mut(index).expect("just found");
        if header.format != 3 && stream.open {
            return Err(ChunkError::HeaderInsideMessage);
        }
        if let Some((length, type_id)) = header.length_and_type {
            stream.length = usize::try_from(length).expect("24 bits");
            stream.type_id = type_id;
        }
        if let Some(message_stream_id) = header.message_stream_id {
            stream.message_stream_id = message_stream_id;
        }
        stream.extended = header.extended;
        match (header.format, header.time) {
            // A fmt 3 that starts a message after a fmt 0 uses that time as the delta (§5.3.1.2.4).
            (0, Some(time)) => (stream.timestamp, stream.delta) = (time, time),
            (_, Some(delta)) => {
                stream.delta = delta;
                stream.timestamp = stream.timestamp.wrapping_add(delta);
            }
            (_, None) if !stream.open => stream.timestamp = stream.timestamp.wrapping_add(stream.delta),
            (_, None) => {}
        }
        if !stream.open {
            stream.open = true;
            stream.payload.clear();
            let need = open_bytes + stream.length;
            if need > BUFFERED_MAX {
                return Err(ChunkError::TooMuchBuffered { need, max: BUFFERED_MAX });
            }
        }
        let left = self.chunk_size.min(stream.length - stream.payload.len());
        Ok(Position::Payload { index, left })
    }
}

#[cfg(test)]
mod tests;
