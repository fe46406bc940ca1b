//! Whole-daemon and whole-part tests on loopback and in virtual time: one binary, so that it links once.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says 'this cannot fail' by failing")]

mod config;
mod daemon;
mod direct;
mod doctor;
mod dtls;
mod handover;
mod http;
mod observe;
mod offers;
mod outages;
mod problems;
mod relay;
mod remote;
mod rng;
mod rtc;
mod rtmp;
mod service;
mod srtp;
mod stun;
