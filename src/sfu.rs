//! The Cloudflare Realtime SFU (formerly Calls): guests anywhere publish into it, the daemon pulls them out again.
//!
//! ```text
//!  guest ──WHIP──▶ publish ──┐                     ┌── subscriber ◀──▶ pull (sans-IO)
//!                            ├──▶ client ──HTTPS──▶│ SFU               │ peers: rtc, on the media thread
//!  page ◀── turn ────────────┘                     └── media ──────────▶ media
//! ```
//!
//! `https` is the only file that knows the HTTP client; [`api`] has the shapes of the API, [`client`] its calls,
//! [`error`] what becomes of them.

pub mod api;
pub mod client;
pub mod counts;
pub mod error;
mod https;
pub mod publish;
pub mod pull;
pub mod store;
pub mod subscriber;
pub mod turn;

pub use client::Client;
pub use error::{Call, CallError, Cause};
pub use https::Timeouts;
