//! guest-relay
