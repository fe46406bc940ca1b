//! `tracks/new` for remote tracks: form A, in which we offer, and form B, in which we answer a recvonly offer.

use std::time::Instant;

use crate::api::{ApiError, ItemError, Reply, SdpType, SessionDescription, TrackObject, TrackReply, TracksReply};
use crate::calls::Outcome;
use crate::codec::pull_formats;
use crate::rewrite::Rewriter;
use crate::sdp::{Kind, Remote};
use crate::session::{SectionState, Subscription, TrackStatus};
use crate::sfu::{Guard, Sfu};
use crate::state::State;
use crate::transport::{MID_EXTENSION, Transport};

/// What became of one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Ready(Kind),
    /// Registered, no packet yet.
    Waiting,
    Missing,
}

impl Sfu {
    pub(crate) fn pull_call(&self, id: &str, offer: Option<&Remote>, items: &[TrackObject]) -> Outcome {
        let wanted: Option<Vec<(&str, &str)>> =
            items.iter().map(|item| Some((item.session_id.as_deref()?, item.track_name.as_deref()?))).collect();
        let wanted = wanted.ok_or_else(|| {
            let no_session = items.iter().any(|item| item.session_id.is_none());
            ApiError::decoding(if no_session { "sessionId" } else { "trackName" })
        })?;
        let guard = self.hold_until_connected(self.lock(), id)?;
        let (mut guard, found) = self.hold_until_found(guard, id, &wanted)?;
        let state = &mut *guard;

        let mut replies: Vec<TrackReply> = Vec::new();
        let mut good: Vec<Option<Kind>> = Vec::new();
        for ((publisher, track), found) in wanted.iter().zip(&found) {
            let mut reply = TrackReply {
                session_id: Some((*publisher).to_owned()),
                track_name: Some((*track).to_owned()),
                ..TrackReply::default()
            };
            match found {
                Found::Ready(kind) => good.push(Some(*kind)),
                Found::Waiting | Found::Missing => {
                    let is_missing = *found == Found::Missing;
                    reply.fail(if is_missing { ItemError::NotFoundTrack } else { ItemError::EmptyTrack });
                    good.push(None);
                }
            }
            replies.push(reply);
        }
        let ready = good.iter().flatten().count();
        if ready > 1 && state.faults.mixes_result() {
            let last = good.iter_mut().zip(&mut replies).rfind(|(good, _)| good.is_some());
            if let Some((good, reply)) = last {
                *good = None;
                reply.fail(ItemError::Internal);
            }
        }
        let description = if good.iter().all(Option::is_none) {
            None
        } else if let Some(offer) = offer {
            let sdp = state.answer_pull(id, offer, &good, &mut replies)?;
            Some(SessionDescription { kind: SdpType::Answer, sdp })
        } else {
            let sdp = state.offer_pull(id, &good, &mut replies)?;
            Some(SessionDescription { kind: SdpType::Offer, sdp })
        };
        let is_offer = description.as_ref().is_some_and(|description| description.kind == SdpType::Offer);
        let reply = TracksReply {
            requires_immediate_renegotiation: is_offer,
            session_description: description,
            tracks: replies,
        };
        Ok(Reply::of(200, &reply))
    }

    /// Waits for the first packet of each registered track.
    fn hold_until_found<'a>(
        &'a self,
        mut guard: Guard<'a>,
        id: &str,
        wanted: &[(&str, &str)],
    ) -> Result<(Guard<'a>, Vec<Found>), ApiError> {
        let deadline = Instant::now() + guard.settings.times.empty_track_hold;
        loop {
            guard.session(id)?;
            let found: Result<Vec<Found>, ApiError> =
                wanted.iter().map(|(publisher, track)| guard.find(publisher, track)).collect();
            let found = found?;
            let is_over = Instant::now() >= deadline || self.is_stopping();
            if is_over || !found.contains(&Found::Waiting) {
                return Ok((guard, found));
            }
            guard = self.wait(guard, deadline);
        }
    }
}

impl State {
    fn find(&self, publisher: &str, track: &str) -> Result<Found, ApiError> {
        if self.end_reason(publisher).is_some() {
            return Err(ApiError::gone());
        }
        let session = self.sessions.get(publisher);
        let found = session.and_then(|session| session.active_track(track));
        Ok(match found {
            Some(track) if track.packets > 0 => Found::Ready(track.kind),
            Some(_) => Found::Waiting,
            None => Found::Missing,
        })
    }

    fn offer_pull(&mut self, id: &str, good: &[Option<Kind>], replies: &mut [TrackReply]) -> Result<String, ApiError> {
        let now = Instant::now();
        let publishers = replies.iter().filter_map(|reply| self.sessions.get(reply.session_id.as_ref()?));
        let transports = publishers.filter_map(|publisher| publisher.transport.as_ref());
        let formats = transports.flat_map(|transport| &transport.formats);
        let taken: Vec<u8> = formats.flat_map(|format| format.payload_types()).collect();
        let mut rng = self.rng.clone();
        let address = self.settings.media_address;
        let session = self.session(id)?;
        if session.transport.is_none() {
            let formats = pull_formats(&taken, &mut rng);
            let extensions = vec![(4, MID_EXTENSION.to_owned())];
            session.transport = Some(Transport::new(formats, extensions, address, &mut rng, now));
        }
        self.rng = rng;
        for (kind, reply) in good.iter().zip(replies) {
            let Some(kind) = *kind else { continue };
            let session = self.session(id)?;
            let mut numbers = 0..;
            let mid = numbers.find_map(|number: u32| {
                let mid = number.to_string();
                (!session.has_section(&mid)).then_some(mid)
            });
            let mid = mid.expect("numbers do not run out");
            self.subscribe(id, &mid, kind, reply, Vec::new())?;
        }
        let announce_rtx = self.settings.announce_rtx;
        let session = self.session(id)?;
        session.offer_pending = true;
        let sections = session.sections.iter();
        let sections: Vec<_> = sections.filter_map(|section| session.sending_section(section, announce_rtx)).collect();
        let transport = session.transport.as_mut().ok_or_else(ApiError::gone)?;
        transport.local.origin_version += 1;
        Ok(transport.local.write("actpass", &sections))
    }

    fn answer_pull(
        &mut self,
        id: &str,
        offer: &Remote,
        good: &[Option<Kind>],
        replies: &mut [TrackReply],
    ) -> Result<String, ApiError> {
        self.answer(id, offer, Instant::now())?;
        for (kind, reply) in good.iter().zip(replies) {
            let Some(kind) = *kind else { continue };
            let session = self.session(id)?;
            let section = offer.sections.iter().find(|section| {
                section.kind == kind && section.direction.receives() && !session.has_section(&section.mid)
            });
            match section {
                Some(section) => {
                    let accepted = section.payload_types.clone();
                    self.subscribe(id, &section.mid, kind, reply, accepted)?;
                }
                None => reply.fail(ItemError::Track),
            }
        }
        let announce_rtx = self.settings.announce_rtx;
        let session = self.session(id)?;
        let sections = offer.sections.iter();
        let sections: Vec<_> = sections.map(|section| session.answering_section(section, announce_rtx)).collect();
        let transport = session.transport.as_mut().ok_or_else(ApiError::gone)?;
        transport.local.extmap_allow_mixed = offer.extmap_allow_mixed;
        transport.local.origin_version += 1;
        Ok(transport.local.write("passive", &sections))
    }

    fn subscribe(
        &mut self,
        id: &str,
        mid: &str,
        kind: Kind,
        reply: &mut TrackReply,
        accepted: Vec<u8>,
    ) -> Result<(), ApiError> {
        // Low enough that the first packets do not wrap around, which a receiver could not know.
        let start = u16::try_from(self.rng.below(0x8000)).expect("below 2^15");
        let padding_every = self.settings.padding_every;
        let session = self.session(id)?;
        let transport = session.transport.as_mut().ok_or_else(ApiError::gone)?;
        let source = transport.send(mid, kind);
        session.sections.push(SectionState { mid: mid.to_owned(), kind });
        session.subscriptions.push(Subscription {
            mid: mid.to_owned(),
            kind,
            publisher: reply.session_id.clone().unwrap_or_default(),
            track: reply.track_name.clone().unwrap_or_default(),
            status: TrackStatus::Active,
            source,
            accepted,
            rewriter: Rewriter::new(start, padding_every),
            packets: 0,
            paddings: 0,
            keyframe_requests: 0,
        });
        mid.clone_into(&mut reply.mid);
        Ok(())
    }
}
