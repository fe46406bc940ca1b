//! One WebRTC peer, sans-IO.

pub mod bytes;
pub mod demux;
pub mod dtls;
pub mod feedback;
pub mod ice;
pub mod peer;
pub mod rtcp;
pub mod sdp;
pub mod srtp;
pub mod stun;
