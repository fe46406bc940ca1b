//! The RTMP client: publishes one guest's H.264 + Opus to a media server (RTMP 1.0; enhanced RTMP v2 for Opus).
//!
//! Sans-IO: no socket, no clock, no thread. Input: FLV tags from the muxer, bytes from the server, the time. Output: bytes
//! for the server and [`Output`]s for the caller, which owns the TCP socket.
//!
//! ```text
//! tag -> publisher (when to connect, proof, backoff) -> flow (timestamps) -> queue (bounded, whole GOPs) -> write_buffer
//! bytes -> connection (handshake -> chunk -> message) -> publisher
//! ```
//! Made for servers that are strict about what they take (MediaMTX): one Opus SequenceStart per connection, timestamps
//! from 0 strictly increasing per track, both tracks from the start, chunk stream ids below 64.
//!
//! Nothing a server sends can stop more than its own connection: inbound messages are bounded (1 MiB in all), what cannot
//! be understood ends the connection and the backoff begins.

mod chunk;
mod connection;
mod flow;
mod handshake;
mod interface;
mod kept;
mod message;
mod publisher;
mod queue;
mod target;

pub use chunk::ChunkError;
pub use connection::{Greeted, Greeting, ProtocolError};
pub use handshake::WrongVersion;
pub use interface::{
    CONNECT_DEADLINE, Disconnected, Event, LostReason, Output, PUBLISH_DEADLINE, Reached, SILENCE_DEADLINE, State,
    Stats, Tracks, Trouble, WRITE_STALL_DEADLINE,
};
pub use kept::{KEPT_BYTES_MAX, KEPT_TIME_MAX};
pub use message::{MessageError, StatusCode};
pub use publisher::{
    CONTROL_BYTES_MAX, PING_INTERVAL, PROOF, Publisher, QUEUE_BYTES_MAX, QUEUE_MEDIA_MS_MAX, STOP_DEADLINE,
};
pub use target::{Target, TargetError};
