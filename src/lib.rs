//! guest-relay
pub mod rtc;
