//! One WebRTC peer, sans-IO.
pub mod bytes;
pub mod dtls;
pub mod srtp;
