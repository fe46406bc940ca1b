//! The RTMP client: publishes one guest's H.264 + Opus to a media server (RTMP 1.0; enhanced RTMP v2 for Opus).
//!
//! Sans-IO: no socket, no clock, no thread. Input: FLV tags from the muxer, bytes from the server, the time. Output: bytes
//! for the server and [`Output`]s for the caller, which owns the TCP socket.
//!
//! ```text
//! tag -> publisher (when to connect, proof, backoff) -> flow (timestamps) -> queue (bounded, whole GOPs) -> write_buffer
//! bytes -> session (handshake -> chunk -> message) -> publisher
//! ```
//! Made for servers that are strict about what they take (MediaMTX): one Opus SequenceStart per connection, timestamps
//! from 0 strictly increasing per track, both tracks from the start, chunk stream ids below 64.
//!
//! Nothing a server sends can stop more than its own connection: inbound messages are bounded (1 MiB in all), what cannot
//! be understood ends the connection and the backoff begins.

mod chunk;
mod flow;
mod greeting;
mod handshake;
mod message;
mod output;
mod publisher;
mod queue;
mod session;
mod target;

pub use chunk::ChunkError;
pub use greeting::{Greeted, Greeting};
pub use handshake::WrongVersion;
pub use message::{MessageError, StatusCode};
pub use output::{Disconnected, Event, LostReason, Output, State, Stats};
pub use publisher::{
    CONNECT_DEADLINE, CONTROL_BYTES_MAX, PING_INTERVAL, PROOF, PUBLISH_DEADLINE, Publisher, PublisherConfig,
    QUEUE_BYTES_MAX, QUEUE_MEDIA_MS_MAX, SILENCE_DEADLINE, STOP_DEADLINE, Tracks, WRITE_STALL_DEADLINE,
};
pub use session::ProtocolError;
pub use target::{Target, TargetError};
