//! muxer
