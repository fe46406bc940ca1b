//! The Cloudflare Realtime SFU (formerly Calls): API shapes and the blocking client.

pub mod api;
pub mod client;
