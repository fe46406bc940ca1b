//! The JSON of the HTTP API, as Cloudflare's schema has it: requests, replies and error texts.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ledger::Rule;

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionDescription {
    #[serde(rename = "type")]
    pub(crate) kind: SdpType,
    pub(crate) sdp: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SdpType {
    Offer,
    Answer,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Location {
    Local,
    Remote,
}

/// One item of `tracks`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct TrackObject {
    pub(crate) location: Location,
    pub(crate) mid: Option<String>,
    pub(crate) session_id: Option<String>,
    pub(crate) track_name: Option<String>,
    #[serde(rename = "kind")]
    pub(crate) _kind: Option<String>,
    #[serde(default)]
    pub(crate) bidirectional_media_stream: bool,
    #[serde(rename = "simulcast")]
    pub(crate) _simulcast: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TracksRequest {
    pub(crate) session_description: Option<SessionDescription>,
    #[serde(default)]
    pub(crate) tracks: Vec<TrackObject>,
    #[serde(default)]
    pub(crate) auto_discover: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionRequest {
    pub(crate) session_description: SessionDescription,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CloseTrackObject {
    pub(crate) mid: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CloseRequest {
    pub(crate) tracks: Vec<CloseTrackObject>,
    pub(crate) force: bool,
    pub(crate) session_description: Option<SessionDescription>,
}

/// An error with a status of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) description: String,
    /// What the client did wrong; `None` when it is not to blame.
    pub(crate) breaks: Option<Rule>,
}

impl ApiError {
    pub(crate) fn new(status: u16, code: &'static str, description: impl Into<String>) -> Self {
        ApiError {
            status,
            code,
            description: description.into(),
            breaks: matches!(status, 400 | 406 | 413).then_some(Rule::BadRequest),
        }
    }

    pub(crate) fn breaks(mut self, rule: Rule) -> Self {
        self.breaks = Some(rule);
        self
    }

    pub(crate) fn decoding(field: &str) -> Self {
        let mut description = "Body JSON validation error".to_owned();
        if !field.is_empty() {
            description = format!("{description}: {field}");
        }
        Self::new(400, "decoding_error", description)
    }

    pub(crate) fn params(description: impl Into<String>) -> Self {
        Self::new(406, "invalid_params", description)
    }

    pub(crate) fn sdp(status: u16, description: impl Into<String>) -> Self {
        Self::new(status, "invalid_session_description", description)
    }

    pub(crate) fn gone() -> Self {
        Self::new(
            410,
            "session_error",
            "Session appears to be disconnected. Please check if the PeerConnection is connected.",
        )
    }

    pub(crate) fn not_ready() -> Self {
        Self::new(
            425,
            "session_error",
            "Session is not ready yet. Please ensure the PeerConnection is connected before making this request",
        )
    }

    /// What the service says with this status, for a fault: nobody is to blame.
    pub(crate) fn on_demand(status: u16) -> Self {
        let error = match status {
            400 => Self::decoding(""),
            404 => Self::new(404, "not_found", "Session not found"),
            406 => Self::params("sessionDescription.type=answer is expected"),
            410 => Self::gone(),
            425 => Self::not_ready(),
            _ => Self::new(status, "temporarily_unavailable_error", "Temporarily unavailable"),
        };
        Self { breaks: None, ..error }
    }

    pub(crate) fn overlap() -> Self {
        Self::params("Another operation on this session has not ended yet").breaks(Rule::ConcurrentMutation)
    }

    pub(crate) fn body(&self) -> Value {
        json!({"errorCode": self.code, "errorDescription": self.description})
    }
}

/// An error of one item of `tracks`, inside a reply with status 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ItemError {
    NotFoundTrack,
    EmptyTrack,
    RepeatedLocalTrack,
    UpdateTrack,
    CloseTrack,
    /// The m-section that is named is not there or sends nothing.
    Track,
    Internal,
}

impl ItemError {
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::NotFoundTrack => "not_found_track_error",
            Self::EmptyTrack => "empty_track_error",
            Self::RepeatedLocalTrack => "repeated_local_track_error",
            Self::UpdateTrack => "update_track_error",
            Self::CloseTrack => "close_track_error",
            Self::Track => "track_error",
            Self::Internal => "internal_error",
        }
    }

    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::NotFoundTrack => {
                "Track not found on remote peer. Make sure the publisher peer is connected and sending packets for this track"
            }
            Self::EmptyTrack => {
                "No track data from remote peer. Make sure the publisher peer is connected and sending packets for this track"
            }
            Self::RepeatedLocalTrack => "A local track with this name exists already",
            Self::UpdateTrack => "The track is not configured for simulcast, no updates applicable.",
            Self::CloseTrack => "Track doesn't exist or was already closed",
            Self::Track => "The mid belongs to no sending transceiver of the session description",
            Self::Internal => "Backend error",
        }
    }
}

/// One item of a reply's `tracks`.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TrackReply {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) track_name: Option<String>,
    pub(crate) mid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_description: Option<&'static str>,
}

impl TrackReply {
    pub(crate) fn fail(&mut self, error: ItemError) {
        self.error_code = Some(error.code());
        self.error_description = Some(error.description());
    }
}

/// Reply of `tracks/new` and `tracks/close`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TracksReply {
    pub(crate) requires_immediate_renegotiation: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session_description: Option<SessionDescription>,
    pub(crate) tracks: Vec<TrackReply>,
}

/// What a call is answered with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn of(status: u16, body: &impl Serialize) -> Reply {
        let body = serde_json::to_value(body).expect("replies are plain data");
        Reply { status, body }
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Reply {
        Reply { status: error.status, body: error.body() }
    }
}
