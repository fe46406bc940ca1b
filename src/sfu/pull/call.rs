//! What the state machine asks of the API, and what it gets.

use super::super::api::{SessionReply, TracksReply, TracksRequest};
use super::super::client::Client;
use super::super::error::CallError;

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

/// What a call gives when it works.
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

impl ApiCall {
    /// Makes the call. Blocks.
    pub fn make(&self, client: &Client) -> Result<ApiReply, CallError> {
        match self {
            Self::NewSession => client.new_session().map(ApiReply::Session),
            Self::NewTracks { session, request } => client.new_tracks(session, request).map(ApiReply::Tracks),
            Self::Renegotiate { session, answer } => client.renegotiate(session, answer).map(|()| ApiReply::Done),
            Self::CloseTracks { session, mids } => client.close_tracks(session, mids).map(|()| ApiReply::Done),
            Self::Inspect { session } => client.inspect(session).map(ApiReply::Inspected),
        }
    }

    /// The session that the call changes.
    pub fn mutates(&self) -> Option<&str> {
        match self {
            Self::NewSession | Self::Inspect { .. } => None,
            Self::NewTracks { session, .. } | Self::Renegotiate { session, .. } | Self::CloseTracks { session, .. } => {
                Some(session)
            }
        }
    }
}
