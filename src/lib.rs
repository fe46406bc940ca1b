//! guest-relay: brings remote guests into a live production mixer.
//!
//! A guest opens a page, presses Join, and their H.264 and Opus arrive, untouched by any transcoder, as an enhanced-RTMP
//! publication that the mixer's media server reads.
//!
//! ```text
//!  guest browser ──HTTP──▶ http ──────────┐                              control: one smol executor, main thread
//!       │                    (WHIP, API)  │ commands ▼   ▲ events         (bounded channels)
//!       │ WebRTC             ┌────────────┴──────────────┴──────────────────────────────────┐
//!       ▼                    │ rtc: demux → stun/ice | dtls | srtp                          │
//!  one UDP socket ─────────▶ │  → muxer: reorder → depacketise → access unit → FLV tag      │  media thread: poll +
//!                            │  → rtmp: chunks → one TCP socket per guest                   │  recvmmsg, no hand-over
//!                            └──────────────────────────┬───────────────────────────────────┘
//!                                                       ▼ RTMP: media server → mixer
//! ```
//!
//! # Who may do what
//!
//! | part | sockets, threads | clock | allocation |
//! |---|---|---|---|
//! | [`guest_relay_muxer`] | no | no: arrival times are arguments | appends to the caller's buffer |
//! | [`rtc`], [`rtmp`], [`slot`], [`guest`] | no | `now` is an argument | at set-up; every queue has a named bound |
//! | [`media`], [`http`], [`app`], [`systemd`] | yes | yes | - |
//! | [`doctor`] | yes, in a process of its own | yes | - |
//!
//! Protocol parts are state machines: `handle_*(input, now)`, then `poll_output()` until it is dry, then
//! `poll_timeout()` says when to come back. None of them reads the clock, spawns, or blocks; that is what lets tests run
//! them in virtual time.
//!
//! # Invariants
//!
//! * The packet path makes no thread hand-over: datagram in, RTMP bytes out, on the media thread.
//! * Nothing on the network can stop the daemon: a bad datagram is counted and dropped, a bad request refused, a bad
//!   server reply ends one connection.
//! * After unrepairable loss nothing of the picture is forwarded until the next IDR.
//! * A guest has one slot; a slot has at most one live and one prepared WebRTC session, and one RTMP connection.
//! * One slot is the unit of failure: a panic in a slot's turn ends its session and its publication, and nothing else.
//!
//! # Where to start reading
//!
//! [`app::run`] builds everything. The path of one packet is [`media`] → [`slot::SlotMachine`] → [`rtc::peer`] →
//! the slot's relay → [`guest_relay_muxer::Muxer`] → [`rtmp::Publisher`].

pub mod app;
mod backoff;
pub mod config;
pub mod doctor;
pub mod guest;
pub mod http;
pub mod journal;
mod log_once;
pub mod media;
pub mod net;
pub mod panics;
pub mod rtc;
pub mod rtmp;
pub mod secret;
pub mod sfu;
pub mod slot;
pub mod systemd;
pub mod utc;
pub mod within;
