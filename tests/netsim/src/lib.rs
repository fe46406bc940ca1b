//! Guests behind bad networks, in virtual time: `make netsim` prints what becomes of them.
//!
//! ```text
//!  scenario ─▶ world: guest ─▶ network ─▶ the daemon's parts ─▶ TCP ─▶ strict ingest ─▶ ledger ─▶ row of the table
//! ```
//!
//! A guest is a WebRTC stack that shares no code with the daemon (str0m) and plays what Chromium's encoders made. Ten
//! minutes of media take seconds, and the same seed gives the same losses. Ciphers and handshakes are real, so what the
//! bytes are differs from run to run, what happens to them does not.
//!
//! How the figures are meant:
//!
//! - *exact*: the picture at the RTMP server is the one that was sent, bit by bit ([`ledger`]).
//! - *frozen*: by the rule of W3C webrtc-stats, for a reader that buffers 400 ms and for one that buffers 50 ms, as the mixer
//!   does ([`freeze`]). Either shows a picture that comes too late when it comes.
//! - *delay*: from the last packet's departure to the arrival at the server, less what the network takes undisturbed.
//! - *skew*: what timestamps put picture and sound apart, the greatest value from 10 s into a session on.
//! - *PLI*: how soon a keyframe is asked for counts from when a missing packet is given up, which is up to 400 ms after its loss.
//! - *corrupt*: a picture that nobody sent, or whose reference was not shown. Allowed in no scenario.

mod checks;
mod direct;
pub mod freeze;
pub mod ledger;
mod observed;
pub mod plain;
pub mod row;
pub mod scenario;
pub mod server;
pub mod world;
