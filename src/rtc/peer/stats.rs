//! What a peer counts.

use std::net::SocketAddr;
use std::time::Duration;

use guest_relay_muxer::TrackKind;

use super::super::dtls::Dropped;
use super::super::feedback::StreamStats;
use super::super::srtp::{InboundStats, SrtpProfile};

/// Counters and measurements of one session.
#[derive(Debug, Clone, Default)]
pub struct PeerStats {
    /// Where feedback goes: the nominated pair's remote end, and once there is media the address from which it comes.
    pub remote_address: Option<SocketAddr>,
    /// What media is protected with.
    pub profile: Option<SrtpProfile>,
    /// Of the path, smoothed; `None` until something told it.
    pub round_trip: Option<Duration>,
    /// From a check of ours to its answer, smoothed; `None` where the peer checks.
    pub ice_round_trip: Option<Duration>,
    /// The audio track.
    pub audio: TrackStats,
    /// The video track.
    pub video: TrackStats,
    /// Authenticated STUN messages.
    pub stun_accepted: u64,
    /// STUN messages that proved nothing.
    pub stun_ignored: u64,
    /// Datagrams of no protocol we know.
    pub unknown_datagrams: u64,
    /// DTLS, SRTP and SRTCP from an address without an authenticated check.
    pub from_unvalidated_address: u64,
    /// DTLS before a pair was nominated or after the handshake.
    pub untimely_dtls: u64,
    /// What the handshake did not look at.
    pub dtls_dropped: Dropped,
    /// SRTP and SRTCP before there were keys.
    pub untimely_media: u64,
    /// SRTP and SRTCP by what became of them.
    pub srtp: InboundStats,
    /// Decrypted, but no RTP or RTCP.
    pub malformed_packets: u64,
    /// RTP of a payload type or MID that was not negotiated.
    pub unknown_payload_types: u64,
    /// Of these, packets of a payload type that the peer's description gives to a codec we do not take.
    pub unexpected_codec: u64,
    /// RTCP of ours that could not be protected.
    pub rtcp_not_sent: u64,
}

impl PeerStats {
    pub(super) fn track(&mut self, kind: TrackKind) -> &mut TrackStats {
        match kind {
            TrackKind::Audio => &mut self.audio,
            TrackKind::Video => &mut self.video,
        }
    }
}

/// How a track's packets reach us: what decides how long a missing one is worth waiting for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Smoothed; `None` until it was measured.
    pub round_trip: Option<Duration>,
    /// Interarrival jitter.
    pub jitter: Duration,
    /// What is asked for again is sent again.
    pub retransmits: bool,
}

/// Counters of one track.
#[derive(Debug, Clone, Copy, Default)]
pub struct TrackStats {
    /// Packets of the media stream itself.
    pub packets: u64,
    /// Payload bytes, retransmitted ones included.
    pub payload_bytes: u64,
    /// Packets that came by RTX and were missing.
    pub retransmissions: u64,
    /// Redundant payloads (RFC 2198) that could not be unpacked.
    pub malformed_redundancy: u64,
    /// RTX without payload, of a packet that is there, or of another stream than the current one.
    pub useless_retransmissions: u64,
    /// Loss, jitter and what was asked for.
    pub stream: StreamStats,
}
