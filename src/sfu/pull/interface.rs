//! What goes into a pull and what comes out of it.

use std::fmt;
use std::time::Duration;

use guest_relay_muxer::TrackKind;

use super::super::api::{
    SdpType, SessionDescription, SessionReply, TRACK_NOT_FOUND, Track, TracksReply, TracksRequest,
};
use super::super::error::CallError;
use crate::rtc::sdp::{AnswerError, OfferError};

/// Who makes the offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullForm {
    /// Form 1: the SFU, and we answer with `renegotiate`. The documented recipe.
    #[default]
    SfuOffers,
    /// Form 2: we, receive-only, and the SFU answers.
    WeOffer,
}

impl PullForm {
    pub(super) fn other(self) -> Self {
        match self {
            Self::SfuOffers => Self::WeOffer,
            Self::WeOffer => Self::SfuOffers,
        }
    }
}

/// The publication that is pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The publisher's session.
    pub session_id: String,
    /// Kind and name of each track, at most one of a kind.
    pub tracks: Vec<(TrackKind, String)>,
}

/// What a reply to `tracks/new` says.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Tracks with their mids.
    pub(super) good: Vec<(TrackKind, String)>,
    /// The first that failed.
    pub(super) failed: Option<Trouble>,
    /// Those that the publisher's session has not got.
    pub(super) unknown: Vec<TrackKind>,
    pub(super) offer: Option<String>,
    pub(super) answer: Option<String>,
}

impl Publication {
    /// The body of `tracks/new` for some of the tracks.
    pub(super) fn request(&self, tracks: &[(TrackKind, String)], offer: Option<String>) -> TracksRequest {
        let remote = |(_, name): &(TrackKind, String)| Track::remote(&self.session_id, name);
        TracksRequest {
            session_description: offer.map(SessionDescription::offer),
            tracks: tracks.iter().map(remote).collect(),
        }
    }

    /// Each item of a reply counts by itself; one that was not asked for does not count at all.
    pub(super) fn read(&self, reply: &TracksReply) -> Outcome {
        let mut outcome = Outcome { good: Vec::new(), failed: None, unknown: Vec::new(), offer: None, answer: None };
        for item in &reply.tracks {
            let asked = |(_, name): &&(TrackKind, String)| item.track_name.as_ref() == Some(name);
            let Some((kind, _)) = self.tracks.iter().find(asked) else {
                continue;
            };
            match item.outcome() {
                Ok(mid) if outcome.good.iter().all(|(known, _)| known != kind) => {
                    outcome.good.push((*kind, mid.to_owned()));
                }
                Ok(_) => {}
                Err(error) => {
                    if error.code == TRACK_NOT_FOUND && !outcome.unknown.contains(kind) {
                        outcome.unknown.push(*kind);
                    }
                    outcome.failed.get_or_insert_with(|| Trouble::Track {
                        kind: *kind,
                        code: error.code.to_owned(),
                        description: error.description.to_owned(),
                        cf_ray: reply.cf_ray.clone(),
                    });
                }
            }
        }
        if let Some(description) = &reply.session_description {
            let sdp = Some(description.sdp.clone());
            match description.kind {
                SdpType::Offer => outcome.offer = sdp,
                SdpType::Answer => outcome.answer = sdp,
            }
        }
        outcome
    }
}

/// One call. Of those that name the same session, all but [`ApiCall::Inspect`] change it, and are made one after the
/// other.
#[derive(Clone, Debug)]
pub enum ApiCall {
    NewSession,
    NewTracks { session: String, request: TracksRequest },
    Renegotiate { session: String, answer: String },
    CloseTracks { session: String, mids: Vec<String> },
    Inspect { session: String },
}

/// The result of a call that worked.
#[derive(Clone, Debug)]
pub enum ApiReply {
    /// To [`ApiCall::NewSession`]: the session's id.
    Session(String),
    /// To [`ApiCall::NewTracks`].
    Tracks(TracksReply),
    /// To [`ApiCall::Renegotiate`] and [`ApiCall::CloseTracks`].
    Done,
    /// To [`ApiCall::Inspect`].
    Inspected(SessionReply),
}

/// Names a call until its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// Names a peer from the description that makes it to [`Output::DropPeer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

/// A task for the driver.
#[derive(Clone, Debug)]
pub enum Output {
    /// Make this call and report with [`Pull::handle_reply`](super::Pull::handle_reply).
    Call(CallId, ApiCall),
    /// Answer the SFU's offer, with a new peer or, if `renewed`, with the one that exists; report with
    /// [`Pull::handle_described`](super::Pull::handle_described).
    AnswerOffer { peer: PeerId, sdp: String, renewed: bool },
    /// Make a new peer and an offer to receive these tracks, everything in it that there will be (nothing can be
    /// trickled); report with [`Pull::handle_described`](super::Pull::handle_described).
    MakeOffer { peer: PeerId, kinds: Vec<TrackKind> },
    /// Give the SFU's answer to the peer that made the offer; report with [`Pull::handle_applied`](super::Pull::handle_applied).
    ApplyAnswer { peer: PeerId, sdp: String },
    /// The SFU knows our side: connectivity checks may begin.
    Connect { peer: PeerId },
    /// The peer is of no more use. Comes after its tracks were closed, if that does not take long; so there can be two
    /// peers for a moment.
    DropPeer { peer: PeerId },
    /// Where the pull stands has changed.
    State(State),
    /// The tracks that the SFU no longer has, all of them, though the publisher's session lives: collected after a pause in
    /// which nothing was sent. Only a new publication brings them back.
    Dropped(Vec<TrackKind>),
    /// Something went wrong; for the log.
    Trouble(Trouble),
}

/// A peer's event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// Keys are there, media may flow.
    Connected,
    /// Packets of the track came since this was last said. To be said at least every second while they come.
    Media(TrackKind),
    /// Nothing comes any more, not even answers to connectivity checks. Undone by [`PeerEvent::Connected`] and by media.
    Lost,
    /// The peer is over, for this reason.
    Ended(String),
}

/// Where a pull stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The SFU is being asked for the tracks.
    Requesting,
    /// There are tracks; the transport is being set up, or has brought nothing yet.
    Connecting,
    /// Every track flows.
    Flowing,
    /// A track flows, this one does not.
    Partial(TrackKind),
    /// Between two attempts, or in one that follows a failure.
    Recovering,
    /// Over.
    Ended(EndReason),
}

/// Why a pull is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// [`Pull::stop`](super::Pull::stop).
    Stopped,
    /// The publisher's session is no more.
    PublisherGone,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A call failed as a whole.
    Call(CallError),
    /// The SFU has no packets of a track, or has not got it at all.
    Track { kind: TrackKind, code: String, description: String, cf_ray: String },
    /// A reply with tracks, but without the description that belongs to them.
    NoDescription,
    /// The SFU's offer or answer is of no use to us, or we could not make ours.
    Description(HostError),
    /// The transport did not come up.
    NeverConnected,
    /// Nothing was heard from the SFU for [`LOST_FOR`](super::link::LOST_FOR).
    PathLost,
    /// The transport stands, but no packets come.
    Silent,
    /// One track is missing for a while.
    Missing(TrackKind),
    /// The peer ended.
    PeerEnded(String),
}

/// Why a host has made no session description, or has not taken the one of the SFU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostError {
    /// The SFU's offer cannot be answered.
    Offer(OfferError),
    /// The SFU's answer does not fit our offer.
    Answer(AnswerError),
    /// Of the peer that was to answer anew.
    SessionOver,
    PeerGone,
    /// The daemon is being stopped.
    Ending,
    MediaBusy,
    MediaEnded,
    MediaSilent,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offer(error) => return error.fmt(f),
            Self::Answer(error) => return error.fmt(f),
            Self::SessionOver => "the session is over",
            Self::PeerGone => "the peer is gone",
            Self::Ending => "the daemon ends",
            Self::MediaBusy => "the media thread takes no commands",
            Self::MediaEnded => "the media thread ended",
            Self::MediaSilent => "the media thread does not answer",
        })
    }
}

impl std::error::Error for HostError {}

/// What has been done so far. Sessions made are closed, abandoned, about to be, or in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub calls: u64,
    pub calls_failed: u64,
    /// Sessions that the API told us of.
    pub sessions_made: u64,
    /// Of them, those whose tracks were closed.
    pub sessions_closed: u64,
    /// Of them, those left to expire: they were never connected, or closing their tracks failed.
    pub sessions_abandoned: u64,
    /// `sessions/new` without a reply: there may be a session that nobody knows.
    pub sessions_unknown: u64,
    /// Times that the tracks began to flow.
    pub links: u64,
}

impl Trouble {
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Call(error) => error.retry_after(),
            _ => None,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::Track { kind, code, description, cf_ray } => {
                write!(f, "the SFU does not give the guest's {kind:?}: {code} \"{description}\" (cf-ray {cf_ray})")
            }
            Self::NoDescription => f.write_str("the SFU's reply lacks its session description"),
            Self::Description(reason) => write!(f, "no session with the SFU: {reason}"),
            Self::NeverConnected => f.write_str("the SFU does not answer over UDP, or did not let us connect"),
            Self::PathLost => f.write_str("nothing more is heard from the SFU"),
            Self::Silent => f.write_str("the SFU sends no packets of the guest"),
            Self::Missing(kind) => write!(f, "the guest's {kind:?} is still missing"),
            Self::PeerEnded(reason) => write!(f, "the connection to the SFU ended: {reason}"),
        }
    }
}
