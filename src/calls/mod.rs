//! The Cloudflare Realtime SFU (formerly Calls): API shapes and the blocking client.

pub mod api;
pub mod client;
pub mod error;
pub mod publish;
pub mod pull;
mod transport;

pub use error::{Call, CallError, Cause};
pub use transport::Timeouts;
