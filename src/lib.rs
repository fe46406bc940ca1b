//! guest-relay: brings remote guests into a live production mixer.
//!
//! A guest opens a page, presses Join, and their H.264 and Opus arrive, untouched by any transcoder, as an enhanced-RTMP
//! publication that the mixer's media server reads.
//!
//! ```text
//!  guest browser                       main thread: one smol executor
//!   │  │                  ┌──────────────────────────────────────────────────────────────────────┐
//!   │  └─HTTP────────────▶│ http ─────▶ app: sessions ─────▶ sfu: publish, pull, TURN ──HTTPS──┐ │
//!   │                     │ WHIP, API    │ ▲                  (calls on worker threads)        │ │
//!   │                     └──────────────┼─┼───────────────────────────────────────────────────┼─┘
//!   │                       commands     ▼ │ events   (bounded channels)                       ▼
//!   │                     ┌────────────────┴─────────────────────────────────────┐     Cloudflare's API
//!   │ WebRTC, direct path │ media: epoll, recvmmsg            media thread       │             ┆
//!   ├────────────────────▶│   one UDP socket for all guests  ┐                   │             ┆
//!   │                     │   one for each pulled guest      ┴▶ slot, one each:  │             ┆
//!   │                     │     rtc: demux → stun/ice | dtls | srtp              │  WebRTC     ┆
//!   │                     │      → muxer: reorder → depacketise → FLV tag        │◀─(pull)── SFU ◀─┐
//!   │                     │      → rtmp: chunks → one TCP socket                 │                 │
//!   │                     └──────────────────────────┬───────────────────────────┘                 │
//!   │                                                ▼ RTMP: media server → mixer                  │
//!   └─WebRTC, remote guests────────────────────────────────────────────────────────────────────────┘
//!
//!  config: file and environment → values, read at the start and on SIGHUP
//!  net: our addresses, STUN query    journal, utc: log lines    panics: where a caught one happened    systemd: notify
//! ```
//!
//! # Who may do what
//!
//! | part | sockets, threads | clock | allocation |
//! |---|---|---|---|
//! | [`guest_relay_muxer`] | no | no: arrival times are arguments | appends to the caller's buffer |
//! | [`rtc`], [`rtmp`], [`slot`], [`sfu::pull`] | no | `now` is an argument | at set-up; every queue has a named bound |
//! | [`guest`], [`secret`], [`utc`], `backoff`, `log_once` | no | as an argument | small values |
//! | [`media`] | yes: UDP and RTMP sockets, a thread of its own | yes | at set-up |
//! | [`app`], [`http`] | yes: HTTP, signals; on the main thread | yes | bounded |
//! | [`sfu`] but its pull | HTTPS on worker threads; the state file | yes | bounded replies |
//! | [`net`] | a STUN socket for each question; lists interfaces | yes | bounded |
//! | [`within`] | a timer of the caller's executor | yes | no |
//! | [`config`] | reads one file | no | bounded file |
//! | [`journal`], [`panics`], [`systemd`] | stderr, a notify socket | the journal: the time of a line | a line |
//! | [`doctor`] | yes, in a process of its own; blocks | yes | bounded answers |
//!
//! Protocol parts are state machines: `handle_*(input, now)`, then `poll_output()` until it is dry, then
//! `poll_timeout()` says when to come back. None of them reads the clock, spawns, or blocks; that is what lets tests run
//! them in virtual time.
//!
//! Uses run one way, down: main, app, then http and doctor, then media and config, then slot, sfu and net, then rtc,
//! rtmp and journal, then the leaves and the muxer. `tests/scripts/layout.py` holds the floors.
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
//! the slot's relay → [`guest_relay_muxer::Muxer`] → [`rtmp::Publisher`]. A remote guest's way is [`http`] → `app/sfu.rs` →
//! [`sfu::publish`], and back by [`sfu::subscriber`], which drives [`sfu::pull`], whose peers [`media`] holds.

pub mod app;
mod backoff;
pub mod config;
pub mod deadline;
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
