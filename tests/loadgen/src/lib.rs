//! WHIP publishers for tests and load, on a WebRTC stack (str0m) that shares no code with the one under test.
//!
//! ```text
//! clip (rtpdump + sdp) ─▶ replay ─▶ guest (str0m) ─▶ netem ─▶ UDP socket        publisher = HTTP + driver thread
//!                          what is    SDP, SRTP,      bad       of its own
//!                          due when   RTX, reports    network
//! ```
//!
//! `replay`, `guest`, `receiver` and `netem` have neither sockets nor a clock: they run in virtual time as well.
//! A [`publisher::Publisher`] knows the digest of each access unit it sent, and [`h264::digest`] computes the same from
//! the AVC bytes at an RTMP server, so a test can ask for bit-exact arrival.

mod audio;
pub mod clip;
mod driver;
pub mod guest;
pub mod h264;
pub mod hostile;
pub mod http;
pub mod latency;
pub mod netem;
pub mod patience;
pub mod proxy;
pub mod publisher;
pub mod receiver;
pub mod record;
pub mod replay;
pub mod rng;
pub mod rtp;
pub mod rtpdump;
mod sdp;
pub mod socket;
pub mod stack;

pub use driver::Driver;
pub use stack::Transmit;
