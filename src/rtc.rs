//! WebRTC reception, sans-IO: one [`peer::Peer`] for each guest, [`demux::Routes`] for the socket they share.
//!
//! ```text
//!             offer ─▶ sdp ─▶ answer
//!  datagram ─▶ demux ─▶ stun, ice      who may send to us, and where we may send
//!                     ├▶ dtls          keys, with the certificate that the offer promised
//!                     ├▶ srtp ─▶ peer  RTP packets of the two tracks, retransmissions undone, redundancy unpacked (red)
//!                     └▶ srtp ─▶ rtcp  sender reports
//!             feedback ─▶ rtcp ─▶ srtp what arrived, what is missing, when a keyframe is needed
//! ```
//!
//! Nothing here has a socket or reads a clock. `webrtc-dtls`, `webrtc-srtp` and `sdp` are each known to one module.

use guest_relay_muxer::bytes;

pub mod demux;
pub mod dtls;
pub mod feedback;
pub mod ice;
pub mod peer;
mod random;
pub mod red;
pub mod round_trip;
pub mod rtcp;
pub mod sdp;
pub mod srtp;
pub mod stun;
