//! [`Connection`]: RTMP on one TCP connection, from C0 to Publish.Start and on: server bytes in, replies and [`Notice`]s
//! out. No time, no media, no policy.
//!
//! ```text
//! start            -> C0 C1
//! Handshake        <- S0 S1 S2     -> C2, connect
//! Connecting       <- window, bandwidth, chunk size, _result
//!                                  -> Set Chunk Size, window, releaseStream, FCPublish, createStream
//! CreatingStream   <- _result(id)
//! Prepared                         -> publish, at once or when media has come
//! StartingPublish  <- onStatus NetStream.Publish.Start
//! Publishing
//! ```
//! An answer that belongs to another phase is ignored; nothing leads back. What ends a connection is the owner's decision.

use std::fmt;

use guest_relay_muxer::bytes::{Reader, Writer};
use guest_relay_muxer::handover::{self, HandoverError};

use super::chunk::{CHUNK_SIZE_AT_START, ChunkError, ChunkReader};
use super::handshake::{Handshake, WrongVersion};
use super::message::{self, Inbound, MessageError, StatusCode};
use super::target::Target;
use crate::backoff::Rng;

/// Our chunk size once connected: most frames are one chunk. The largest every known server takes.
const CHUNK_SIZE_OUT: u32 = 65_536;
/// The window we ask the server to acknowledge: its acknowledgements show that it still reads.
const WINDOW_OUT: u32 = 256 * 1024;
/// A smaller window of the server's is taken as this: it must not make us answer every byte.
const WINDOW_IN_MIN: u32 = 1024;

/// Why the server cannot be understood. All of them end the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The handshake.
    Version(WrongVersion),
    /// The chunk layer.
    Chunk(ChunkError),
    /// A message.
    Message(MessageError),
    /// The server makes us answer more than it reads.
    Flood,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProtocolError::Version(error) => error.fmt(f),
            ProtocolError::Chunk(error) => error.fmt(f),
            ProtocolError::Message(error) => error.fmt(f),
            ProtocolError::Flood => write!(f, "the server asks for more replies than it reads"),
        }
    }
}

impl std::error::Error for ProtocolError {}

impl From<ChunkError> for ProtocolError {
    fn from(error: ChunkError) -> Self {
        ProtocolError::Chunk(error)
    }
}

/// What the publisher has to know.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Notice {
    /// The server waits for media.
    PublishStarted,
    Rejected(StatusCode),
    ReconnectRequest {
        tc_url: Option<String>,
    },
    /// The answer to the ping with this timestamp.
    Pong(u32),
}

enum Phase {
    Handshake(Handshake),
    Connecting,
    CreatingStream,
    /// The stream is there; nothing is published yet.
    Prepared,
    StartingPublish,
    Publishing,
}

pub(super) struct Connection {
    phase: Phase,
    chunks: ChunkReader,
    chunk_size_out: u32,
    stream: u32,
    /// Bytes received, the handshake's too; wraps as the protocol's counter does.
    received: u32,
    acknowledged: u32,
    /// The server's Window Acknowledgement Size.
    window: Option<u32>,
    /// Publish as soon as there is a stream.
    publishes: bool,
}

impl Connection {
    /// Appends C0 and C1 to `out`.
    pub(super) fn start(out: &mut Vec<u8>, rng: &mut Rng) -> Connection {
        Connection {
            phase: Phase::Handshake(Handshake::start(out, rng)),
            chunks: ChunkReader::new(),
            chunk_size_out: CHUNK_SIZE_AT_START,
            stream: 0,
            received: 0,
            acknowledged: 0,
            window: None,
            publishes: true,
        }
    }

    /// As [`Connection::start`], and publishes nothing before [`Connection::publish`].
    pub(super) fn prepare(out: &mut Vec<u8>, rng: &mut Rng) -> Connection {
        Connection { publishes: false, ..Connection::start(out, rng) }
    }

    /// Publishes, now or as soon as there is a stream.
    pub(super) fn publish(&mut self, target: &Target, out: &mut Vec<u8>) {
        self.publishes = true;
        if matches!(self.phase, Phase::Prepared) {
            message::write_publish(out, self.chunk_size_out, target, self.stream);
            self.phase = Phase::StartingPublish;
        }
    }

    /// Writes the state of a connection that publishes, for [`Connection::adopt`] of another process; false for another one.
    pub(super) fn hand_over(&self, out: &mut Writer<&mut Vec<u8>>) -> bool {
        out.u32(self.chunk_size_out);
        out.u32(self.stream);
        out.u32(self.received);
        out.u32(self.acknowledged);
        handover::write_u32_or_none(out, self.window);
        self.chunks.hand_over(out);
        matches!(self.phase, Phase::Publishing)
    }

    /// The connection on which another process published.
    pub(super) fn adopt(state: &mut Reader<'_>) -> Result<Self, HandoverError> {
        let chunk_size_out = state.u32()?;
        if !(1..=CHUNK_SIZE_OUT).contains(&chunk_size_out) {
            return Err(HandoverError::Value("our chunk size"));
        }
        Ok(Self {
            publishes: true,
            phase: Phase::Publishing,
            chunk_size_out,
            stream: state.u32()?,
            received: state.u32()?,
            acknowledged: state.u32()?,
            window: handover::read_u32_or_none(state, "the window")?.map(|size| size.max(WINDOW_IN_MIN)),
            chunks: ChunkReader::adopt(state)?,
        })
    }

    /// The largest payload of one of our chunks.
    pub(super) fn chunk_size(&self) -> u32 {
        self.chunk_size_out
    }

    /// The message stream id media goes on.
    pub(super) fn stream(&self) -> u32 {
        self.stream
    }

    /// Whether the server has a stream of ours to delete.
    pub(super) fn is_publishing(&self) -> bool {
        matches!(self.phase, Phase::StartingPublish | Phase::Publishing)
    }

    /// Whether there is a stream on which nothing is published yet.
    pub(super) fn is_prepared(&self) -> bool {
        matches!(self.phase, Phase::Prepared)
    }

    /// Whether the server has accepted the connect command.
    pub(super) fn is_connected(&self) -> bool {
        !matches!(self.phase, Phase::Handshake(_) | Phase::Connecting)
    }

    /// Takes bytes off the front of `bytes` until there is something to tell, or all of them. Replies go to `out`.
    pub(super) fn handle_bytes(
        &mut self,
        bytes: &mut &[u8],
        target: &Target,
        out: &mut Vec<u8>,
    ) -> Result<Option<Notice>, ProtocolError> {
        while !bytes.is_empty() {
            let before = bytes.len();
            let step = self.step(bytes, target, out);
            // A slice is far below 4 GiB, and the counter is meant to wrap.
            let taken = u32::try_from(before - bytes.len()).unwrap_or(0);
            self.received = self.received.wrapping_add(taken);
            let notice = step?;
            self.acknowledge(out);
            if notice.is_some() {
                return Ok(notice);
            }
        }
        Ok(None)
    }

    /// One handshake step or one message.
    fn step(&mut self, bytes: &mut &[u8], target: &Target, out: &mut Vec<u8>) -> Result<Option<Notice>, ProtocolError> {
        if let Phase::Handshake(handshake) = &mut self.phase {
            if handshake.handle_bytes(bytes, out).map_err(ProtocolError::Version)? {
                self.phase = Phase::Connecting;
                message::write_connect(out, self.chunk_size_out, target);
            }
            return Ok(None);
        }
        let inbound = match self.chunks.read(bytes)? {
            Some(message) => Inbound::parse(&message).map_err(ProtocolError::Message)?,
            None => return Ok(None),
        };
        match (inbound, &self.phase) {
            (Inbound::SetChunkSize(size), _) => self.chunks.set_chunk_size(size)?,
            (Inbound::Abort { chunk_stream_id }, _) => self.chunks.abort(chunk_stream_id),
            (Inbound::WindowAcknowledgementSize(size), _) => self.window = Some(size.max(WINDOW_IN_MIN)),
            (Inbound::PingRequest(timestamp), _) => message::write_ping_response(out, timestamp),
            (Inbound::PingResponse(timestamp), _) => return Ok(Some(Notice::Pong(timestamp))),
            (Inbound::Connected, Phase::Connecting) => {
                message::write_set_chunk_size(out, CHUNK_SIZE_OUT);
                self.chunk_size_out = CHUNK_SIZE_OUT;
                message::write_window_acknowledgement_size(out, WINDOW_OUT);
                message::write_create_stream(out, self.chunk_size_out, target);
                self.phase = Phase::CreatingStream;
            }
            (Inbound::StreamCreated(stream), Phase::CreatingStream) => {
                self.stream = stream;
                self.phase = Phase::Prepared;
                if self.publishes {
                    self.publish(target, out);
                }
            }
            (Inbound::PublishStarted, Phase::StartingPublish) => {
                self.phase = Phase::Publishing;
                return Ok(Some(Notice::PublishStarted));
            }
            (Inbound::Rejected(code), _) => return Ok(Some(Notice::Rejected(code))),
            (Inbound::ReconnectRequest { tc_url }, _) => {
                return Ok(Some(Notice::ReconnectRequest { tc_url }));
            }
            // Set Peer Bandwidth: our window went, or goes, out by itself. The rest came out of turn.
            _ => {}
        }
        Ok(None)
    }

    fn acknowledge(&mut self, out: &mut Vec<u8>) {
        // At half the window, so that the server never waits for it.
        if let Some(window) = self.window
            && self.received.wrapping_sub(self.acknowledged) >= window / 2
        {
            self.acknowledged = self.received;
            message::write_acknowledgement(out, self.received);
        }
    }
}

/// How far a greeting is.
#[derive(Clone, Debug, PartialEq)]
pub enum Greeted {
    NotYet,
    /// The server has accepted the connect command. The connection may be closed.
    Accepted,
    Rejected(StatusCode),
}

/// Handshake and connect command, and no further: whether a server speaks RTMP, without publishing there. Server bytes
/// in, bytes to write out; no socket, no clock.
pub struct Greeting {
    connection: Connection,
    target: Target,
}

impl Greeting {
    /// Appends the first bytes to `out`. `seed` fills the handshake.
    pub fn start(target: Target, seed: u64, out: &mut Vec<u8>) -> Self {
        Self { connection: Connection::start(out, &mut Rng::new(seed)), target }
    }

    /// Takes bytes of the server, appends what is to be written next, unless the greeting is over.
    pub fn handle_bytes(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<Greeted, ProtocolError> {
        while !bytes.is_empty() && !self.connection.is_connected() {
            if let Some(Notice::Rejected(code)) = self.connection.handle_bytes(&mut bytes, &self.target, out)? {
                return Ok(Greeted::Rejected(code));
            }
        }
        Ok(if self.connection.is_connected() { Greeted::Accepted } else { Greeted::NotYet })
    }
}

#[cfg(test)]
mod tests;
