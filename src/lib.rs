//! guest-relay

pub mod rtmp;
