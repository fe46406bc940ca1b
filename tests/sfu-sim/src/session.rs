//! One session: its PeerConnection, what it publishes and what it pulls.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::describe::{LocalSection, LocalSource};
use crate::ledger::Rate;
use crate::rewrite::Rewriter;
use crate::sdp::{Direction, Kind, Section};
use crate::transport::{MID_EXTENSION, Transport};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackStatus {
    Active,
    /// Collected: no packets for 30 s, or its publisher is gone.
    Ended,
    /// By `tracks/close`.
    Closed,
}

/// Why a session is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// 15 s without a connection.
    NeverConnected,
    /// 30 s without a sign of life.
    ConnectivityLost,
    /// DTLS close_notify.
    PeerClosed,
    /// A negotiated close of the last m-section.
    TransportClosed,
    /// An answer changed the DTLS role.
    DtlsRestarted,
    /// The handshake or something later failed.
    Failed,
    /// By a fault.
    Killed,
}

impl EndReason {
    /// The client did it and knows it.
    pub(crate) fn is_deliberate(self) -> bool {
        matches!(self, Self::PeerClosed | Self::TransportClosed)
    }
}

/// What a session publishes.
#[derive(Clone, Debug)]
pub(crate) struct LocalTrack {
    pub(crate) name: String,
    pub(crate) mid: String,
    pub(crate) kind: Kind,
    pub(crate) status: TrackStatus,
    /// Where the 30 s without packets start.
    pub(crate) idle_since: Instant,
    pub(crate) packets: u64,
    /// Published on a mid that was force-closed before: never has data.
    pub(crate) poisoned: bool,
    /// By a fault: what comes is not seen.
    pub(crate) stopped: bool,
}

/// What a session pulls.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) mid: String,
    pub(crate) kind: Kind,
    pub(crate) publisher: String,
    pub(crate) track: String,
    pub(crate) status: TrackStatus,
    pub(crate) source: crate::sdp::Source,
    /// What the subscriber takes in this section; nothing until its description is there.
    pub(crate) accepted: Vec<u8>,
    pub(crate) rewriter: Rewriter,
    pub(crate) packets: u64,
    pub(crate) paddings: u64,
    pub(crate) keyframe_requests: u64,
}

/// An m-section, in the order of the descriptions.
#[derive(Clone, Debug)]
pub(crate) struct SectionState {
    pub(crate) mid: String,
    pub(crate) kind: Kind,
}

pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) created: Instant,
    /// False: a fault keeps its media away.
    pub(crate) connects: bool,
    pub(crate) transport: Option<Transport>,
    pub(crate) local: Vec<LocalTrack>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) sections: Vec<SectionState>,
    /// Our offer waits for its answer.
    pub(crate) offer_pending: bool,
    /// A mutation is being carried out.
    pub(crate) busy: bool,
    pub(crate) reply_lost: bool,
    pub(crate) rate: Rate,
    /// Mids of force-closed publications.
    pub(crate) spent_mids: Vec<String>,
    /// Has been reported.
    pub(crate) shares_address: bool,
}

impl Session {
    pub(crate) fn new(id: String, connects: bool, now: Instant) -> Session {
        Session {
            id,
            created: now,
            connects,
            transport: None,
            local: Vec::new(),
            subscriptions: Vec::new(),
            sections: Vec::new(),
            offer_pending: false,
            busy: false,
            reply_lost: false,
            rate: Rate::default(),
            spent_mids: Vec::new(),
            shares_address: false,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.transport.as_ref().is_some_and(|transport| transport.connected)
    }

    pub(crate) fn is_negotiated(&self) -> bool {
        self.transport.as_ref().is_some_and(|transport| transport.negotiated)
    }

    /// It had tracks, and its client closed them all: it counts as left.
    pub(crate) fn is_left(&self) -> bool {
        let local = self.local.iter().map(|track| track.status);
        let all = || local.clone().chain(self.subscriptions.iter().map(|sub| sub.status));
        all().next().is_some() && all().all(|status| status == TrackStatus::Closed)
    }

    pub(crate) fn active_track(&self, name: &str) -> Option<&LocalTrack> {
        let mut tracks = self.local.iter();
        tracks.find(|track| track.name == name && track.status == TrackStatus::Active)
    }

    pub(crate) fn has_section(&self, mid: &str) -> bool {
        self.sections.iter().any(|section| section.mid == mid)
    }

    /// Our m-section for what we send there.
    pub(crate) fn sending_section(&self, section: &SectionState, announce_rtx: bool) -> Option<LocalSection> {
        let transport = self.transport.as_ref()?;
        let sub = self.subscriptions.iter().rev().find(|sub| sub.mid == section.mid)?;
        let is_active = sub.status == TrackStatus::Active;
        let formats = transport.formats.iter().filter(|format| format.kind() == section.kind);
        let source = LocalSource {
            ssrc: sub.source.ssrc,
            rtx: sub.source.rtx.filter(|_| announce_rtx),
            cname: self.id.clone(),
            msid: format!("{} {}-{}", sub.publisher, sub.track, section.mid),
        };
        Some(LocalSection {
            kind: section.kind,
            mid: section.mid.clone(),
            direction: Some(if is_active { Direction::SendOnly } else { Direction::Inactive }),
            rejected_m_line: String::new(),
            formats: formats.cloned().collect(),
            extensions: transport.extensions.clone(),
            source: is_active.then_some(source),
            transport_cc: false,
        })
    }

    /// Our answer to a section in which the peer sends, or may have sent.
    pub(crate) fn receiving_section(&self, section: &Section) -> LocalSection {
        let Some(transport) = self.transport.as_ref().filter(|_| self.has_section(&section.mid)) else {
            return LocalSection::rejecting(section);
        };
        let formats = crate::codec::answered(&section.formats);
        let receives = section.direction.sends() && !section.rejected;
        let extensions = section.extensions.iter().filter(|kept| transport.extensions.contains(kept));
        LocalSection {
            kind: section.kind,
            mid: section.mid.clone(),
            direction: Some(if receives { Direction::RecvOnly } else { Direction::Inactive }),
            rejected_m_line: String::new(),
            formats,
            extensions: extensions.cloned().collect(),
            source: None,
            transport_cc: transport.has_transport_cc(),
        }
    }

    /// The answer to a recvonly section of a peer that offers to pull: its own payload types.
    pub(crate) fn answering_section(&self, section: &Section, announce_rtx: bool) -> LocalSection {
        let state = self.sections.iter().find(|state| state.mid == section.mid);
        let sending = state.and_then(|state| self.sending_section(state, announce_rtx));
        let Some(mut sending) = sending else {
            return LocalSection::rejecting(section);
        };
        sending.formats = section.formats.clone();
        let extensions = section.extensions.iter();
        sending.extensions = extensions.filter(|(_, uri)| uri == MID_EXTENSION).cloned().collect();
        sending
    }
}
