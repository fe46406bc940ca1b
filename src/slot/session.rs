//! A WebRTC session as its slot sees it: [`SessionPeer`], and why one ended.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;

use crate::rtc::demux::Class;
use crate::rtc::peer::{self, Delivery, Output, Peer, PeerStats, Received};

/// The methods of a session's peer that a slot calls. The daemon's is [`Peer`]; tests and measurements bring others, whose packets need
/// no ICE, DTLS or SRTP. Each method is described there.
pub trait SessionPeer {
    fn handle_datagram(
        &mut self,
        class: Class,
        datagram: &[u8],
        from: SocketAddr,
        now: Instant,
    ) -> Option<Received<'_>>;
    fn handle_batch_end(&mut self, now: Instant);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_output(&mut self) -> Option<Output>;
    fn poll_timeout(&self) -> Option<Instant>;
    fn has_track(&self, kind: TrackKind) -> bool;
    fn delivery(&self, kind: TrackKind) -> Delivery;
    fn last_heard(&self) -> Option<Instant>;
    fn stats(&self) -> PeerStats;
    fn request_keyframe(&mut self, now: Instant);
    fn notify_keyframe(&mut self);
    fn set_max_bitrate(&mut self, max_bitrate_kbps: u32, now: Instant);
    fn set_max_wait(&mut self, kind: TrackKind, max_wait: Duration);
    fn close(&mut self, now: Instant);
}

impl SessionPeer for Peer {
    fn handle_datagram(
        &mut self,
        class: Class,
        datagram: &[u8],
        from: SocketAddr,
        now: Instant,
    ) -> Option<Received<'_>> {
        Peer::handle_datagram(self, class, datagram, from, now)
    }

    fn handle_batch_end(&mut self, now: Instant) {
        Peer::handle_batch_end(self, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        Peer::handle_timeout(self, now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        Peer::poll_output(self)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Peer::poll_timeout(self)
    }

    fn has_track(&self, kind: TrackKind) -> bool {
        Peer::has_track(self, kind)
    }

    fn delivery(&self, kind: TrackKind) -> Delivery {
        Peer::delivery(self, kind)
    }

    fn last_heard(&self) -> Option<Instant> {
        Peer::last_heard(self)
    }

    fn stats(&self) -> PeerStats {
        Peer::stats(self)
    }

    fn request_keyframe(&mut self, now: Instant) {
        Peer::request_keyframe(self, now);
    }

    fn notify_keyframe(&mut self) {
        Peer::notify_keyframe(self);
    }

    fn set_max_bitrate(&mut self, max_bitrate_kbps: u32, now: Instant) {
        Peer::set_max_bitrate(self, max_bitrate_kbps, now);
    }

    fn set_max_wait(&mut self, kind: TrackKind, max_wait: Duration) {
        Peer::set_max_wait(self, kind, max_wait);
    }

    fn close(&mut self, now: Instant) {
        Peer::close(self, now);
    }
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The WebRTC peer says why.
    Peer(peer::EndReason),
    /// A newer session took the slot.
    Replaced,
    /// The guest said goodbye.
    Left,
    /// As many sessions as the routes take, or no socket for one more.
    NoRoom,
    /// The session's own socket failed.
    Socket(io::ErrorKind),
    /// Our code for this slot panicked.
    Panicked,
    /// The daemon ends.
    Shutdown,
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(reason) => write!(f, "{reason}"),
            Self::Replaced => write!(f, "a newer session took the slot"),
            Self::Left => write!(f, "the guest left"),
            Self::NoRoom => write!(f, "too many sessions"),
            Self::Socket(kind) => write!(f, "its UDP socket failed: {kind}"),
            Self::Panicked => write!(f, "a fault in this program ended it"),
            Self::Shutdown => write!(f, "the daemon ends"),
        }
    }
}
