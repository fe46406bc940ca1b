//! Whole-daemon and whole-part tests on loopback and in virtual time: one binary, so that it links once.

mod config;
mod dtls;
mod rng;
mod http;
mod daemon;
mod direct;
mod srtp;
mod rtc;
