//! guest-relay
pub mod config;
pub mod guest;
pub mod http;
