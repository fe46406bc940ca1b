//! The shapes of the Cloudflare Realtime SFU's HTTP API (OpenAPI `realtime-api-2024-05-21`), no more than the daemon uses.
//!
//! Replies are hostile input: unknown fields are ignored, absent ones are `None`, and a track item that failed inside an
//! HTTP 200 is told apart from one that did not ([`Track::outcome`]).

use serde::{Deserialize, Serialize};

/// Longest mid that is taken over, in bytes.
pub const MID_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SdpType {
    Offer,
    Answer,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionDescription {
    #[serde(rename = "type")]
    pub kind: SdpType,
    pub sdp: String,
}

impl SessionDescription {
    pub fn offer(sdp: impl Into<String>) -> Self {
        Self { kind: SdpType::Offer, sdp: sdp.into() }
    }

    pub fn answer(sdp: impl Into<String>) -> Self {
        Self { kind: SdpType::Answer, sdp: sdp.into() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Location {
    /// Published into the session that the call names.
    Local,
    /// Pulled from another session.
    Remote,
}

/// One item of a `tracks` list, in requests and replies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Track {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Transceiver; empty or absent in a failed item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mid: Option<String>,
    /// The publisher's session; remote tracks only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track_name: Option<String>,
    /// `active` or `inactive`, of a session that was asked about.
    #[serde(skip_serializing)]
    pub status: Option<String>,
    #[serde(skip_serializing)]
    pub error_code: Option<String>,
    #[serde(skip_serializing)]
    pub error_description: Option<String>,
}

/// `errorCode` of a track that the publisher's session has not got: never had, or that was collected.
pub const TRACK_NOT_FOUND: &str = "not_found_track_error";

impl Track {
    /// A track that the offer sends on `mid`, under a name of our own.
    pub fn local(mid: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            location: Some(Location::Local),
            mid: Some(mid.into()),
            track_name: Some(name.into()),
            ..Self::default()
        }
    }

    /// A track that `publisher` registered.
    pub fn remote(publisher: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            location: Some(Location::Remote),
            session_id: Some(publisher.into()),
            track_name: Some(name.into()),
            ..Self::default()
        }
    }

    /// The transceiver of a track that worked, or why it did not.
    pub fn outcome(&self) -> Result<&str, TrackError<'_>> {
        let code = self.error_code.as_deref().filter(|code| !code.is_empty());
        match (code, self.mid.as_deref()) {
            (Some(code), _) => {
                Err(TrackError { code, description: self.error_description.as_deref().unwrap_or_default() })
            }
            (None, Some(mid)) if (1..=MID_MAX).contains(&mid.len()) => Ok(mid),
            (None, _) => {
                Err(TrackError { code: "no_mid", description: "the reply names no transceiver for the track" })
            }
        }
    }
}

/// Why one track of a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackError<'a> {
    pub code: &'a str,
    pub description: &'a str,
}

/// `POST sessions/{sid}/tracks/new`
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TracksRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_description: Option<SessionDescription>,
    pub tracks: Vec<Track>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TracksReply {
    pub requires_immediate_renegotiation: bool,
    pub session_description: Option<SessionDescription>,
    pub tracks: Vec<Track>,
    pub error_code: Option<String>,
    pub error_description: Option<String>,
    /// Of the reply's head; identifies it in a request for support.
    #[serde(skip)]
    pub cf_ray: String,
}

/// `POST sessions/new`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NewSessionReply {
    pub session_id: String,
    pub error_code: Option<String>,
    pub error_description: Option<String>,
}

/// `PUT sessions/{sid}/renegotiate`
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RenegotiateRequest {
    pub session_description: SessionDescription,
}

/// One item of [`CloseTracksRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CloseTrack {
    pub mid: String,
}

/// `PUT sessions/{sid}/tracks/close`
#[derive(Clone, Debug, Serialize)]
pub struct CloseTracksRequest {
    pub tracks: Vec<CloseTrack>,
    /// Without an SDP exchange. A negotiated close of the last track ends the transport.
    pub force: bool,
}

/// `GET sessions/{sid}`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionReply {
    pub tracks: Vec<Track>,
    pub error_code: Option<String>,
    pub error_description: Option<String>,
}

/// Replies of which only the errors matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ErrorReply {
    pub error_code: Option<String>,
    pub error_description: Option<String>,
    pub tracks: Vec<Track>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_request_names_each_track_with_its_mid() {
        let request = TracksRequest {
            session_description: Some(SessionDescription::offer("v=0\r\n")),
            tracks: vec![Track::local("0", "audio"), Track::local("1", "video")],
        };
        assert_eq!(
            serde_json::to_value(&request).unwrap(),
            serde_json::json!({
                "sessionDescription": {"type": "offer", "sdp": "v=0\r\n"},
                "tracks": [
                    {"location": "local", "mid": "0", "trackName": "audio"},
                    {"location": "local", "mid": "1", "trackName": "video"},
                ],
            })
        );
    }

    #[test]
    fn a_failed_item_inside_a_good_reply_is_an_error() {
        let reply: TracksReply = serde_json::from_str(
            r#"{"requiresImmediateRenegotiation":true,"sessionDescription":{"type":"offer","sdp":"v=0"},
                "tracks":[{"mid":"","sessionId":"p","trackName":"video","errorCode":"internal_error","errorDescription":"x"},
                          {"mid":"0","sessionId":"p","trackName":"audio","somethingNew":1}, {"mid":null,"trackName":"odd"}]}"#,
        )
        .unwrap();
        let outcomes: Vec<_> = reply.tracks.iter().map(|track| track.outcome().map_err(|error| error.code)).collect();
        assert_eq!(outcomes, [Err("internal_error"), Ok("0"), Err("no_mid")]);
    }
}
