//! WHIP publishers for tests, on a WebRTC stack (str0m) that shares no code with the one under test.
pub mod h264;
pub mod http;
pub mod receiver;
pub mod record;
pub mod rtp;
pub mod rtpdump;
mod sdp;
mod socket;
mod stack;
