//! The simulated SFU against its specification: its API rule by rule, descriptions line by line, media through it, faults.

#![allow(clippy::unwrap_used)]

mod api;
mod descriptions;
mod faults;
mod lifetimes;
mod media;
mod peer;
