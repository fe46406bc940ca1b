//! RTMP chunk layer, server side (RTMP 1.0 section 5.3): a byte stream in, whole messages out.
//!
//! Refuses what MediaMTX refuses: chunk stream ids above 63, a header in the middle of a message, a
//! continuation without a start, a chunk size or body above 10 MiB.

use std::collections::HashMap;
use std::io::{self, Read};

use crate::session::End;

/// Largest chunk size and largest message body.
pub(crate) const BODY_MAX: u32 = 10 * 1024 * 1024;
const CHUNK_SIZE_AT_START: u32 = 128;
const EXTENDED: u32 = 0x00FF_FFFF;

/// One whole RTMP message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) type_id: u8,
    /// Absolute, in milliseconds.
    pub(crate) timestamp: u32,
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
struct ChunkStream {
    type_id: u8,
    timestamp: u32,
    delta: u32,
    length: u32,
    extended: bool,
    body: Vec<u8>,
    /// A message was begun and is not complete.
    open: bool,
}

/// Reads chunks off `R` and puts messages together.
pub(crate) struct ChunkReader<R> {
    input: R,
    chunk_size: u32,
    streams: HashMap<u8, ChunkStream>,
    bytes_read: u64,
    /// The reader is between the first and the last byte of a chunk.
    in_chunk: bool,
}

impl<R: Read> ChunkReader<R> {
    pub(crate) fn new(input: R) -> Self {
        ChunkReader { input, chunk_size: CHUNK_SIZE_AT_START, streams: HashMap::new(), bytes_read: 0, in_chunk: false }
    }

    pub(crate) fn input(&mut self) -> &mut R {
        &mut self.input
    }

    /// Bytes taken off the connection so far, handshake included.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Whether the publisher left a message unfinished.
    pub(crate) fn in_message(&self) -> bool {
        self.in_chunk || self.streams.values().any(|stream| stream.open)
    }

    pub(crate) fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        self.bytes_read += u64::try_from(N).expect("array lengths fit");
        Ok(bytes)
    }

    fn u24(&mut self) -> io::Result<u32> {
        let [a, b, c] = self.take()?;
        Ok(u32::from_be_bytes([0, a, b, c]))
    }

    /// Set Chunk Size (type 1) from the publisher.
    pub(crate) fn set_chunk_size(&mut self, size: u32) -> Result<(), End> {
        if size > BODY_MAX {
            return Err(End::refused(format!("chunk size ({size}) exceeds maximum ({BODY_MAX})")));
        }
        if size == 0 {
            return Err(End::refused("chunk size is zero"));
        }
        self.chunk_size = size;
        Ok(())
    }

    /// Abort (type 2) from the publisher: the unfinished message of that chunk stream is dropped.
    pub(crate) fn abort(&mut self, chunk_stream_id: u32) {
        if let Some(stream) = u8::try_from(chunk_stream_id).ok().and_then(|id| self.streams.get_mut(&id)) {
            stream.open = false;
            stream.body.clear();
        }
    }

    /// Reads up to the end of the next message.
    pub(crate) fn message(&mut self) -> Result<Message, End> {
        loop {
            if let Some(message) = self.chunk()? {
                return Ok(message);
            }
        }
    }

    fn chunk(&mut self) -> Result<Option<Message>, End> {
        // +-+-+-+-+-+-+-+-+
        // |fmt|   csid    |   csid 0 and 1 announce a two or three byte form
        // +-+-+-+-+-+-+-+-+
        let [basic] = self.take()?;
        self.in_chunk = true;
        let (format, id) = (basic >> 6, basic & 0x3F);
        if id < 2 {
            return Err(End::refused("extended chunk stream IDs are not supported (yet)"));
        }
        let known = self.streams.contains_key(&id);
        if format != 0 && !known {
            return Err(End::refused(format!("received type {format} chunk without previous chunk")));
        }
        let mut stream = self.streams.remove(&id).unwrap_or_default();
        if format != 3 && stream.open {
            return Err(End::refused(format!("received type {format} chunk but expected type 3 chunk")));
        }

        if format < 3 {
            let time = self.u24()?;
            if format < 2 {
                stream.length = self.u24()?;
                [stream.type_id] = self.take()?;
            }
            if format == 0 {
                let _message_stream_id: [u8; 4] = self.take()?;
            }
            stream.extended = time == EXTENDED;
            let time = if stream.extended { u32::from_be_bytes(self.take()?) } else { time };
            if format == 0 {
                (stream.timestamp, stream.delta) = (time, 0);
            } else {
                stream.delta = time;
                stream.timestamp = stream.timestamp.wrapping_add(time);
            }
            if stream.length > BODY_MAX {
                let length = stream.length;
                return Err(End::refused(format!("body size ({length}) exceeds maximum ({BODY_MAX})")));
            }
        } else {
            if stream.extended {
                let _repeated: [u8; 4] = self.take()?;
            }
            if !stream.open {
                stream.timestamp = stream.timestamp.wrapping_add(stream.delta);
            }
        }

        let length = usize::try_from(stream.length).expect("at most 10 MiB");
        let chunk = usize::try_from(self.chunk_size).expect("at most 10 MiB");
        let have = stream.body.len();
        let part = chunk.min(length - have);
        stream.body.resize(have + part, 0);
        self.input.read_exact(stream.body.get_mut(have..).expect("just resized"))?;
        self.bytes_read += u64::try_from(part).expect("at most 10 MiB");
        stream.open = stream.body.len() < length;

        let done = (!stream.open).then(|| Message {
            type_id: stream.type_id,
            timestamp: stream.timestamp,
            body: std::mem::take(&mut stream.body),
        });
        self.streams.insert(id, stream);
        self.in_chunk = false;
        Ok(done)
    }
}

/// One message as chunks of at most `chunk_size` payload bytes: fmt 0, then fmt 3. Timestamp 0.
pub(crate) fn write_message(id: u8, type_id: u8, message_stream_id: u32, body: &[u8], chunk_size: usize) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("replies are short").to_be_bytes();
    let mut out = vec![id, 0, 0, 0, length[1], length[2], length[3], type_id];
    out.extend(message_stream_id.to_le_bytes());
    for (index, chunk) in body.chunks(chunk_size).enumerate() {
        if index > 0 {
            out.push(0xC0 | id);
        }
        out.extend(chunk);
    }
    out
}
