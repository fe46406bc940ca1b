//! The simulated SFU against its specification: its API, rule by rule, and media through it.

#![allow(clippy::unwrap_used)]

mod media;
mod peer;
