//! RTMP chunk layer, server side (RTMP 1.0 §5.3): a byte stream in, whole messages out.
//!
//! Refuses what MediaMTX refuses: chunk stream ids above 63, a header in the middle of a message, a
//! continuation without a start, a chunk size or body above 10 MiB.

use std::collections::HashMap;

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

impl ChunkStream {
    fn without_body(&self) -> ChunkStream {
        ChunkStream { body: Vec::new(), ..*self }
    }
}

/// Puts the bytes of a connection together to messages, however they were cut.
pub(crate) struct ChunkReader {
    /// What came and was not read yet begins at `at`: at most one chunk, and what came with it.
    buffer: Vec<u8>,
    at: usize,
    chunk_size: u32,
    streams: HashMap<u8, ChunkStream>,
    bytes_read: u64,
}

/// The header of one chunk.
struct Header {
    id: u8,
    stream: ChunkStream,
}

impl ChunkReader {
    pub(crate) fn new() -> Self {
        ChunkReader {
            buffer: Vec::new(),
            at: 0,
            chunk_size: CHUNK_SIZE_AT_START,
            streams: HashMap::new(),
            bytes_read: 0,
        }
    }

    /// What came next on the connection.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes taken off the connection so far, handshake included.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Whether the publisher left a message unfinished.
    pub(crate) fn in_message(&self) -> bool {
        self.at < self.buffer.len() || self.streams.values().any(|stream| stream.open)
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        self.bytes_read += u64::try_from(bytes).expect("a buffer's length");
    }

    /// The next bytes outside of any message, once they are all there.
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = *self.unread().first_chunk()?;
        self.advance(N);
        Some(bytes)
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

    /// The next message; `None` until the rest of it came.
    pub(crate) fn message(&mut self) -> Result<Option<Message>, End> {
        loop {
            let unread = self.buffer.get(self.at..).unwrap_or_default();
            let mut rest = unread;
            let Some(Header { id, mut stream }) = header(&mut rest, &self.streams)? else {
                return Ok(None);
            };
            let length = usize::try_from(stream.length).expect("at most 10 MiB");
            let chunk = usize::try_from(self.chunk_size).expect("at most 10 MiB");
            let have = self.streams.get(&id).map_or(0, |stream| stream.body.len());
            let Some((part, after)) = rest.split_at_checked(chunk.min(length - have)) else {
                return Ok(None);
            };
            let read = unread.len() - after.len();
            if let Some(known) = self.streams.get_mut(&id) {
                stream.body = std::mem::take(&mut known.body);
            }
            stream.body.extend_from_slice(part);
            stream.open = stream.body.len() < length;
            let done = (!stream.open).then(|| Message {
                type_id: stream.type_id,
                timestamp: stream.timestamp,
                body: std::mem::take(&mut stream.body),
            });
            self.streams.insert(id, stream);
            self.advance(read);
            if done.is_some() {
                return Ok(done);
            }
        }
    }
}

/// The header of the chunk that begins `bytes`, which are moved behind it; `None` while it is not complete. The chunk
/// stream is as it will be after this chunk, its body left out.
fn header(bytes: &mut &[u8], streams: &HashMap<u8, ChunkStream>) -> Result<Option<Header>, End> {
    // +-+-+-+-+-+-+-+-+
    // |fmt|   csid    |   csid 0 and 1 announce a two or three byte form
    // +-+-+-+-+-+-+-+-+
    let Some([basic]) = take(bytes) else { return Ok(None) };
    let (format, id) = (basic >> 6, basic & 0x3F);
    if id < 2 {
        return Err(End::refused("extended chunk stream IDs are not supported (yet)"));
    }
    let known = streams.get(&id);
    if format != 0 && known.is_none() {
        return Err(End::refused(format!("received type {format} chunk without previous chunk")));
    }
    let open = known.is_some_and(|stream| stream.open);
    if format != 3 && open {
        return Err(End::refused(format!("received type {format} chunk but expected type 3 chunk")));
    }
    let mut stream = known.map(ChunkStream::without_body).unwrap_or_default();

    if format < 3 {
        let Some([t0, t1, t2]) = take(bytes) else { return Ok(None) };
        let time = u32::from_be_bytes([0, t0, t1, t2]);
        if format < 2 {
            let Some([l0, l1, l2, type_id]) = take(bytes) else { return Ok(None) };
            stream.length = u32::from_be_bytes([0, l0, l1, l2]);
            stream.type_id = type_id;
        }
        if format == 0 && take::<4>(bytes).is_none() {
            return Ok(None); // the message stream id
        }
        stream.extended = time == EXTENDED;
        let time = match (stream.extended, time) {
            (false, time) => time,
            (true, _) => match take(bytes) {
                Some(extended) => u32::from_be_bytes(extended),
                None => return Ok(None),
            },
        };
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
        if stream.extended && take::<4>(bytes).is_none() {
            return Ok(None); // the timestamp, repeated
        }
        if !open {
            stream.timestamp = stream.timestamp.wrapping_add(stream.delta);
        }
    }
    Ok(Some(Header { id, stream }))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
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
