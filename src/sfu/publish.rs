//! Publishing a guest into the SFU: what stands behind the WHIP endpoint. The guest's offer in; a session with named
//! tracks and the answer out.
//!
//! ```text
//!  offer ─▶ prepare ─▶ sessions/new (no body) ─▶ tracks/new (offer + local tracks, named by us) ─▶ answer
//! ```
//!
//! The tracks are named here ([`VIDEO`], [`AUDIO`]), so that the pull needs no look-up. A publish whose outcome is
//! unknown, or that registered only a part of the tracks, is given up together with its session, and tried once more on
//! a new one: the abandoned session was never connected and expires by itself.
//!
//! Bounds: those of an offer ([`crate::rtc::sdp`]); [`ATTEMPTS`] within [`RETRY_WITHIN`]; [`ANSWER_WITHIN`].

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;

use super::api::{MID_MAX, SdpType, SessionDescription, Track, TracksReply, TracksRequest};
use super::client::Client;
use super::error::{Call, CallError, Cause};
use crate::rtc::sdp::{MAX_DESCRIPTION_BYTES, Offer, OfferError, RemoteAddresses};
use crate::within::within;

mod edit;

/// Name of every guest's video track.
pub const VIDEO: &str = "video";
/// Name of every guest's audio track.
pub const AUDIO: &str = "audio";
/// Sessions that one publish may use.
pub const ATTEMPTS: u32 = 2;
/// A failure that comes later is not tried again: somebody waits for the answer.
pub const RETRY_WITHIN: Duration = Duration::from_secs(10);
/// The guest's page waits 15 s for its answer, and is to be told why there is none.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(14);
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Tries of [`close`], and the pause before the second; it doubles. The SFU itself takes 30 s to notice that nobody is there
/// any more.
const CLOSE_ATTEMPTS: u32 = 5;
const CLOSE_PAUSE: Duration = Duration::from_secs(1);

/// The name under which a track of this kind is published.
pub fn track_name(kind: TrackKind) -> &'static str {
    match kind {
        TrackKind::Video => VIDEO,
        TrackKind::Audio => AUDIO,
    }
}

/// One track of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTrack {
    pub mid: String,
    pub name: String,
    pub kind: TrackKind,
}

/// A guest's session at the SFU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedSession {
    pub session_id: String,
    pub tracks: Vec<PublishedTrack>,
    /// The guest's own, of the offer.
    pub ufrag: String,
    /// For the guest.
    pub answer: String,
}

/// An offer that was checked and edited for the SFU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// With H.264 and its retransmissions, and Opus; each line ended by CRLF.
    pub offer: String,
    /// What it sends.
    pub tracks: Vec<PublishedTrack>,
    /// The guest's own.
    pub ufrag: String,
}

/// Why a guest was not published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// The offer cannot be answered.
    Offer(OfferError),
    /// An m-line that is neither the audio nor the video we take; an answer would have to refuse it.
    FurtherMedia,
    /// A track without `a=mid`, or with one that is too long: the SFU's tracks are named by it.
    NoMid,
    /// A call failed as a whole.
    Call(CallError),
    /// The SFU did not take one of the tracks.
    Track { name: String, code: String, description: String, cf_ray: String },
    /// The reply holds no answer that could be given to a guest.
    NoAnswer(&'static str),
}

impl PublishError {
    /// Whether a new session may do better.
    fn is_worth_a_new_session(&self) -> bool {
        match self {
            Self::Offer(_) | Self::FurtherMedia | Self::NoMid => false,
            Self::Call(error) => error.is_transient() || matches!(error.status(), Some(406 | 410)),
            Self::Track { .. } | Self::NoAnswer(_) => true,
        }
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offer(error) => error.fmt(f),
            Self::FurtherMedia => {
                f.write_str("the offer has m-lines beside one audio and one video that are sent; offer only those")
            }
            Self::NoMid => write!(f, "a=mid is missing or longer than {MID_MAX} bytes"),
            Self::Call(error) => error.fmt(f),
            Self::Track { name, code, description, cf_ray } => {
                write!(f, "tracks/new: {name} was not registered: {code} \"{description}\" (cf-ray {cf_ray})")
            }
            Self::NoAnswer(reason) => write!(f, "tracks/new: {reason}"),
        }
    }
}

impl std::error::Error for PublishError {}

/// Checks a guest's offer and makes it the SFU's: only the codecs that the relay passes on, payload types as they were.
pub fn prepare(offer: &str) -> Result<Prepared, PublishError> {
    let parsed = Offer::parse(offer, RemoteAddresses::Remote).map_err(PublishError::Offer)?;
    let taken: Vec<_> = parsed.tracks().cloned().collect();
    let tracks = taken
        .iter()
        .map(|track| match &track.mid {
            Some(mid) if (1..=MID_MAX).contains(&mid.len()) => {
                Ok(PublishedTrack { mid: mid.clone(), name: track_name(track.kind).to_owned(), kind: track.kind })
            }
            _ => Err(PublishError::NoMid),
        })
        .collect::<Result<_, _>>()?;
    let offer = edit::for_sfu(offer, &taken).ok_or(PublishError::FurtherMedia)?;
    Ok(Prepared { offer, tracks, ufrag: parsed.transport.credentials.ufrag })
}

impl Prepared {
    /// The body of `tracks/new`.
    pub fn request(&self) -> TracksRequest {
        TracksRequest {
            session_description: Some(SessionDescription::offer(self.offer.as_str())),
            tracks: self.tracks.iter().map(|track| Track::local(&track.mid, &track.name)).collect(),
        }
    }

    /// Reads the reply to [`Prepared::request`]: all tracks registered and an answer, or an error.
    pub fn answer(&self, reply: TracksReply) -> Result<String, PublishError> {
        for wanted in &self.tracks {
            let item = reply.tracks.iter().find(|item| item.track_name.as_ref() == Some(&wanted.name));
            let outcome = item.map(Track::outcome);
            let (code, description) = match outcome {
                Some(Ok(mid)) if *mid == wanted.mid => continue,
                Some(Ok(_)) => ("wrong_mid", "registered for another transceiver"),
                Some(Err(error)) => (error.code, error.description),
                None => ("no_item", "the reply does not mention it"),
            };
            return Err(PublishError::Track {
                name: wanted.name.clone(),
                code: code.to_owned(),
                description: description.to_owned(),
                cf_ray: reply.cf_ray.clone(),
            });
        }
        if reply.requires_immediate_renegotiation {
            return Err(PublishError::NoAnswer("the reply to our offer asks for a renegotiation"));
        }
        let answer = match reply.session_description {
            Some(description) if description.kind == SdpType::Answer => description.sdp,
            Some(_) => return Err(PublishError::NoAnswer("the reply to our offer is an offer")),
            None => return Err(PublishError::NoAnswer("the reply holds no answer")),
        };
        let m_lines = |sdp: &str| sdp.lines().filter(|line| line.starts_with("m=")).count();
        // RFC 3264 §6; a browser would refuse it, with words that help nobody.
        if m_lines(&answer) != self.tracks.len() {
            return Err(PublishError::NoAnswer("the answer has not as many m-lines as the offer"));
        }
        if answer.len() > MAX_DESCRIPTION_BYTES {
            return Err(PublishError::NoAnswer("the answer is too long"));
        }
        if !answer.contains("a=ice-ufrag:") || !answer.contains("a=fingerprint:") {
            return Err(PublishError::NoAnswer("the answer has no ICE credentials or no fingerprint"));
        }
        Ok(answer)
    }
}

/// Publishes a guest. Takes at most two calls on each of [`ATTEMPTS`] sessions; what is still under way after
/// [`ANSWER_WITHIN`] makes a session that nobody will connect to.
pub async fn publish(client: &Arc<Client>, offer: &str) -> Result<PublishedSession, PublishError> {
    let prepared = Arc::new(prepare(offer)?);
    let late = PublishError::Call(CallError { call: Call::NewTracks, cause: Cause::TimedOut(ANSWER_WITHIN) });
    within(ANSWER_WITHIN, publish_prepared(client, prepared)).await.unwrap_or(Err(late))
}

async fn publish_prepared(client: &Arc<Client>, prepared: Arc<Prepared>) -> Result<PublishedSession, PublishError> {
    let started = Instant::now();
    let mut attempt = 1;
    loop {
        let (client, task) = (Arc::clone(client), Arc::clone(&prepared));
        let error = match smol::unblock(move || publish_once(&client, &task)).await {
            Ok(published) => return Ok(published),
            Err(error) => error,
        };
        let late = started.elapsed() + RETRY_PAUSE > RETRY_WITHIN;
        if attempt >= ATTEMPTS || late || !error.is_worth_a_new_session() {
            return Err(error);
        }
        log::warn!("publishing a guest: {error}; trying once more on a new session");
        attempt += 1;
        smol::Timer::after(RETRY_PAUSE).await;
    }
}

fn publish_once(client: &Client, prepared: &Prepared) -> Result<PublishedSession, PublishError> {
    let session_id = client.new_session().map_err(PublishError::Call)?;
    let reply = client.new_tracks(&session_id, &prepared.request()).map_err(PublishError::Call)?;
    let answer = prepared.answer(reply)?;
    Ok(PublishedSession { session_id, tracks: prepared.tracks.clone(), ufrag: prepared.ufrag.clone(), answer })
}

/// Closes a guest's tracks, whether or not the guest is still connected; the session then ends by itself. May take
/// long when the session is dead: do not let anybody wait for it.
pub async fn close(client: &Arc<Client>, session_id: &str, mids: &[String]) -> Result<(), CallError> {
    let mut pause = CLOSE_PAUSE;
    let mut attempt = 1;
    loop {
        let (client, session, mids) = (Arc::clone(client), session_id.to_owned(), Vec::from_iter(mids.iter().cloned()));
        match smol::unblock(move || client.close_tracks(&session, &mids)).await {
            Ok(()) => return Ok(()),
            // It has no transport to close anything on, and will not get one any more.
            Err(error) if error.status() == Some(425) => return Ok(()),
            Err(error) if attempt >= CLOSE_ATTEMPTS || !error.is_worth_repeating() => {
                return Err(error);
            }
            Err(error) => log::debug!("{error}"),
        }
        attempt += 1;
        smol::Timer::after(pause).await;
        pause *= 2;
    }
}

#[cfg(test)]
mod tests;
