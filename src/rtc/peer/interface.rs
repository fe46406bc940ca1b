//! A peer's state, events and outputs, for its driver.

use std::fmt;
use std::net::SocketAddr;

use guest_relay_muxer::TrackKind;

use super::super::dtls::DtlsError;
use super::super::sdp::Codec;
use super::super::srtp::SrtpProfile;

/// Where a session stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nobody has proved to be the peer yet.
    New,
    /// Checks come, no pair is nominated.
    Checking,
    /// A pair stands, DTLS is under way.
    Handshaking,
    /// Media may flow.
    Connected,
    /// Over, for this reason.
    Ended(EndReason),
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndReason {
    /// We closed it.
    Closed,
    /// No check ever came, or none of ours led to a pair.
    NeverConnected,
    /// Its consent is over ([`CONSENT_TIMEOUT`](super::super::ice::CONSENT_TIMEOUT)), and its media stopped
    /// [`MEDIA_TIMEOUT`](super::super::ice::MEDIA_TIMEOUT) ago.
    FellSilent,
    /// No keys.
    Dtls(DtlsError),
    /// The SRTP crate panicked.
    SrtpPanicked,
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => write!(f, "closed"),
            Self::NeverConnected => write!(f, "no connectivity check succeeded"),
            Self::FellSilent => write!(f, "the peer fell silent"),
            Self::Dtls(error) => write!(f, "{error}"),
            Self::SrtpPanicked => write!(f, "SRTP implementation panicked"),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Datagrams from this address are the peer's: for the driver's routes.
    AddressValidated(SocketAddr),
    /// They are not any more.
    AddressForgotten(SocketAddr),
    /// Media may flow.
    Connected {
        /// What it is protected with.
        profile: SrtpProfile,
    },
    /// The sender's wall clock beside its media clock.
    SenderReport {
        /// Which track.
        kind: TrackKind,
        /// 32.32 fixed point seconds since 1900.
        ntp_time: u64,
        /// In units of the track's clock.
        rtp_time: u32,
    },
    /// The sender says that the track's stream is over.
    Bye {
        /// Which track.
        kind: TrackKind,
    },
    /// The peer sends a codec that we do not take; its packets are dropped. Told once for each payload type.
    UnexpectedCodec {
        /// Which track.
        kind: TrackKind,
        /// As it is in the packets.
        payload_type: u8,
        /// What the payload type stands for in the peer's description.
        codec: Codec,
    },
    /// Nothing authentic came for [`QUIET_AFTER`](super::QUIET_AFTER): the path may be lost. Told once for each silence; should something
    /// come after all, the session goes on.
    Quiet,
    /// Something authentic came after [`Event::Quiet`].
    Heard,
    /// The session is over; nothing follows.
    Ended(EndReason),
}

/// A task for the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram.
    Transmit {
        /// Destination.
        to: SocketAddr,
        /// STUN, DTLS or SRTCP.
        datagram: Vec<u8>,
    },
    /// Take note.
    Event(Event),
}
