//! The messages between control thread and media thread: commands in, events and snapshots out.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use guest_relay_muxer::TrackKind;

use crate::guest::{SessionKey, Slot, State};
use crate::rtc::peer::Peer;
use crate::rtmp;
use crate::slot::{self, AdoptError, RelayConfig, RelaySnapshot, ReofferError, SessionEnd, SessionSnapshot};

/// A command of the control thread.
pub enum Command {
    /// A session takes the slot; `ready`, if anybody waits, hears when its STUN requests will be answered. Once that one has
    /// given up, nothing happens.
    Join {
        slot: Slot,
        key: SessionKey,
        /// See [`slot::Joining`].
        guest: SessionKey,
        continues: Option<SessionKey>,
        peer: Box<Peer>,
        /// The guest sends pictures, even if this peer's first description should lack them.
        video: bool,
        socket: UdpSocketKind,
        ready: Option<smol::channel::Sender<()>>,
    },
    /// The other side describes a session anew, that goes on: `answer` hears ours.
    Reoffer { slot: Slot, key: SessionKey, offer: String, answer: smol::channel::Sender<Result<String, ReofferError>> },
    /// The session ends, if it still holds its slot; the guest may come back.
    Leave { slot: Slot, key: SessionKey },
    /// The guest, by the guest's session, left for good: nothing more is shown.
    Vacate { slot: Slot, guest: SessionKey },
    /// Whether the slot is published without a guest too.
    Idle { slot: Slot, idle: bool },
    /// Ask the slot's guest for a keyframe; `reply` hears whether a picture of theirs goes out, without which nothing is asked.
    RequestKeyframe { slot: Slot, reply: smol::channel::Sender<bool> },
    /// One more slot, after all others.
    AddSlot(Box<RelayConfig>),
    /// Other limits, from the next guest on that comes or goes.
    Limit(Budget),
    /// Where the slot's RTMP server is, for the connections to come.
    Servers { slot: Slot, servers: Vec<SocketAddr> },
    /// The state of one slot.
    State { slot: Slot, reply: smol::channel::Sender<State> },
    /// The state of every slot, in order.
    Snapshot { reply: smol::channel::Sender<Vec<SlotSnapshot>> },
    /// Ends every session, and gives away each publication that another process can go on in.
    HandOver { reply: smol::channel::Sender<Vec<HandedOver>> },
    /// Goes on in a publication that another process gave away; [`Event::Adopted`] tells how that went. One that cannot be
    /// gone on in is closed.
    Adopt { slot: Slot, state: Vec<u8>, stream: TcpStream },
    /// Unpublish everything and end.
    Shutdown,
    /// The slot's next datagram has it panic.
    #[cfg(test)]
    Panic { slot: Slot },
}

/// A publication that was given away.
pub struct HandedOver {
    pub slot: Slot,
    /// What another process needs to know of it.
    pub state: Vec<u8>,
    pub stream: TcpStream,
}

/// Why a publication was not gone on in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdopted {
    NoSlot,
    Socket(io::ErrorKind),
    /// It leads to none of the slot's servers.
    OtherServer(SocketAddr),
    State(AdoptError),
    /// The state had this program fail.
    Panicked,
}

impl fmt::Display for NotAdopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlot => f.write_str("there is no such slot"),
            Self::Socket(kind) => write!(f, "its connection is over: {kind}"),
            Self::OtherServer(peer) => {
                write!(f, "its connection leads to {peer}, which is not the server of relay.output")
            }
            Self::State(error) => error.fmt(f),
            Self::Panicked => f.write_str("this program failed over its state"),
        }
    }
}

impl std::error::Error for NotAdopted {}

/// How the guests share the way in. Each gets the same, however little another one uses of it: what a guest leaves is not
/// lent, since that guest would find it gone when the picture moves again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// For each guest.
    pub guest_kbps: u32,
    /// For all of them.
    pub total_kbps: Option<u32>,
}

impl Budget {
    /// What each of so many guests who send pictures may send.
    pub(super) fn share(&self, guests: usize) -> u32 {
        let guests = u32::try_from(guests).unwrap_or(u32::MAX).max(1);
        self.total_kbps.map_or(self.guest_kbps, |total| (total / guests).min(self.guest_kbps))
    }
}

/// How a session's datagrams travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpSocketKind {
    /// Over the socket that all guests share.
    Shared,
    /// Over a socket of its own, our side sending the first check: the SFU answers all sessions from one address, which
    /// only different ports on our side tell apart.
    Own,
}

/// An event for the control thread.
#[derive(Debug)]
pub enum Event {
    /// ICE and DTLS are done.
    Connected { slot: Slot, key: SessionKey },
    /// Packets of the track came: the first of a second. Of sessions with their own socket alone ([`UdpSocketKind::Own`]).
    Media { slot: Slot, key: SessionKey, kind: TrackKind },
    /// Nothing authentic came of the session for [`crate::rtc::peer::QUIET_AFTER`]; told once for each silence.
    Quiet { slot: Slot, key: SessionKey },
    /// Something authentic came after all.
    Heard { slot: Slot, key: SessionKey },
    /// The session is over. Its slot is free, unless another session has it.
    Ended { slot: Slot, key: SessionKey, reason: SessionEnd },
    /// The RTMP side changed.
    Rtmp { slot: Slot, event: rtmp::Event },
    /// The guest's state changed.
    State { slot: Slot, state: State },
    /// Whether the slot goes on in the publication of another process.
    Adopted { slot: Slot, outcome: Result<(), NotAdopted> },
    /// The media thread cannot go on.
    Failed(String),
}

/// One slot as it is now.
pub struct SlotSnapshot {
    pub state: State,
    /// When `state` was entered.
    pub since: SystemTime,
    /// How long the publication was kept for an absent guest, in all.
    pub held: Duration,
    pub session: Option<SessionSnapshot>,
    pub relay: RelaySnapshot,
}

impl SlotSnapshot {
    pub(super) fn new(snapshot: slot::Snapshot, since: SystemTime) -> Self {
        let slot::Snapshot { state, held, session, relay } = snapshot;
        Self { state, since, held, session, relay }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_share_the_total_evenly_and_none_gets_more_than_a_guest_may() {
        let budget = Budget { guest_kbps: 2500, total_kbps: Some(6000) };
        let shares: Vec<u32> = (0..=4).map(|guests| budget.share(guests)).collect();
        assert_eq!(shares, [2500, 2500, 2500, 2000, 1500]);
        let unlimited = Budget { guest_kbps: 2500, total_kbps: None };
        assert_eq!(unlimited.share(100), 2500);
    }
}
