//! `tracks/new` for local tracks: an offer, our answer, and the tracks that can be pulled from then on.

use std::time::Instant;

use crate::api::{ApiError, ItemError, Reply, SdpType, SessionDescription, TrackObject, TrackReply, TracksReply};
use crate::calls::Outcome;
use crate::codec::answered;
use crate::sdp::{Kind, Remote};
use crate::session::{LocalTrack, SectionState, TrackStatus};
use crate::sfu::Sfu;
use crate::state::State;
use crate::transport::{Transport, hex, kept_extensions};

impl Sfu {
    pub(crate) fn publish_call(&self, id: &str, offer: &Remote, items: &[TrackObject], auto_discover: bool) -> Outcome {
        if items.iter().any(|item| item.track_name.as_deref().is_none_or(str::is_empty)) {
            return Err(ApiError::decoding("trackName"));
        }
        if items.iter().any(|item| item.mid.is_none()) {
            return Err(ApiError::decoding("mid"));
        }
        if items.iter().any(|item| item.bidirectional_media_stream) {
            return Err(ApiError::params("bidirectionalMediaStream needs an offer of ours"));
        }
        let mut guard = self.hold_until_connected(self.lock(), id)?;
        let (sdp, tracks) = guard.publish(id, offer, items, auto_discover, Instant::now())?;
        let reply = TracksReply {
            requires_immediate_renegotiation: false,
            session_description: Some(SessionDescription { kind: SdpType::Answer, sdp }),
            tracks,
        };
        Ok(Reply::of(200, &reply))
    }
}

impl State {
    /// The answer, and the tracks as they were registered.
    pub(crate) fn publish(
        &mut self,
        id: &str,
        offer: &Remote,
        items: &[TrackObject],
        auto_discover: bool,
        now: Instant,
    ) -> Result<(String, Vec<TrackReply>), ApiError> {
        self.answer(id, offer, now)?;
        let names: Vec<String> = offer.sections.iter().map(|_| hex(&mut self.rng, 32)).collect();
        let session = self.session(id)?;
        for section in &offer.sections {
            let is_ours = session.has_section(&section.mid);
            let usable = section.direction.sends() && !section.rejected && section.kind != Kind::Other;
            if is_ours || !usable || answered(&section.formats).is_empty() {
                continue;
            }
            session.sections.push(SectionState { mid: section.mid.clone(), kind: section.kind });
            if let Some(transport) = &mut session.transport {
                transport.receive(&section.mid, section.kind, &section.sources);
            }
        }

        let mut wanted: Vec<(String, String)> = Vec::new();
        if auto_discover && items.is_empty() {
            let fresh = offer.sections.iter().zip(&names).filter(|(section, _)| {
                let is_new = session.local.iter().all(|track| track.mid != section.mid);
                is_new && section.direction.sends() && session.has_section(&section.mid)
            });
            wanted.extend(fresh.map(|(section, name)| (section.mid.clone(), name.clone())));
        }
        let named = items.iter().filter_map(|item| Some((item.mid.clone()?, item.track_name.clone()?)));
        wanted.extend(named);

        let mut replies = Vec::new();
        for (mid, name) in wanted {
            let mut reply = TrackReply { track_name: Some(name.clone()), mid: mid.clone(), ..TrackReply::default() };
            let section = offer.section(&mid).filter(|section| section.direction.sends());
            let is_taken = session.local.iter().any(|track| track.mid == mid && track.status == TrackStatus::Active);
            match section {
                _ if session.active_track(&name).is_some() => reply.fail(ItemError::RepeatedLocalTrack),
                Some(section) if session.has_section(&mid) && !is_taken => session.local.push(LocalTrack {
                    name,
                    poisoned: session.spent_mids.contains(&mid),
                    mid,
                    kind: section.kind,
                    status: TrackStatus::Active,
                    idle_since: now,
                    packets: 0,
                    stopped: false,
                }),
                _ => reply.fail(ItemError::Track),
            }
            replies.push(reply);
        }
        let sections: Vec<_> = offer.sections.iter().map(|section| session.receiving_section(section)).collect();
        let transport = session.transport.as_mut().ok_or_else(ApiError::gone)?;
        transport.local.origin_version += 1;
        Ok((transport.local.write("passive", &sections), replies))
    }

    /// Sets the transport up when it is the first description, and holds later ones against it.
    pub(crate) fn answer(&mut self, id: &str, offer: &Remote, now: Instant) -> Result<(), ApiError> {
        let address = self.settings.media_address;
        let mut formats = Vec::new();
        let mut extensions: Vec<(u8, String)> = Vec::new();
        for section in &offer.sections {
            for format in &section.formats {
                if formats.iter().all(|known: &crate::codec::Format| known.payload_type != format.payload_type) {
                    formats.push(format.clone());
                }
            }
            for kept in kept_extensions(&section.extensions) {
                if extensions.iter().all(|(id, _)| *id != kept.0) {
                    extensions.push(kept.clone());
                }
            }
        }
        if formats.is_empty() {
            return Err(ApiError::sdp(406, "SDP contains none of the codecs"));
        }
        let mut rng = self.rng.clone();
        let session = self.session(id)?;
        if session.transport.is_none() {
            let mut transport = Transport::new(formats, extensions, address, &mut rng, now);
            transport.local.extmap_allow_mixed = offer.extmap_allow_mixed;
            session.transport = Some(transport);
        }
        let transport = session.transport.as_mut().ok_or_else(ApiError::gone)?;
        let applied = transport.apply(offer, now);
        self.rng = rng;
        applied.map(|_| ())
    }
}
