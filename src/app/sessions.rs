//! The one table of the sessions: which of them holds which slot, with everything that belongs to it, and what is kept of
//! a slot, whoever is in it.
//!
//! ```text
//!  publish, restart ─▶ take ─┬─▶ session: key, resource, etag, the guest's ufrag, publication at the SFU
//!                            └─▶ slot:    network of the last publisher
//!  leave, end, takeover ─▶ release ─▶ all of the session at once; the slot keeps what is its own
//! ```
//!
//! No borrow of the table outlives a call. Bounds: those of [`Table`].

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use guest_relay_muxer::TrackKind;
use log::Level;

use super::names::Name;
use super::problem::{Cause, Problems};
use super::profiles::Profiles;
use super::question::Question;
use super::sfu::Publication;
use crate::guest::id::{GuestId, ResourceId};
use crate::guest::{Guest, Held, Refusal, SessionKey, Slot, State, Table};
use crate::http::backend::{Hop, Problem};
use crate::log_once::LogOnce;
use crate::rtc::srtp::SrtpProfile;
use crate::rtmp::{LostReason, Target};
use crate::sfu::pull::PeerId;
use crate::sfu::store::SfuSession;
use crate::sfu::subscriber::Inputs;
use crate::slot::SessionEnd;

/// Between two warnings of a publication that stays away.
const REMIND_AFTER: Duration = Duration::from_secs(60);

/// A session that holds a slot.
pub(super) struct Session {
    /// Names it in its WHIP URL.
    pub(super) resource: ResourceId,
    /// Entity tag of the ICE session.
    pub(super) etag: String,
    /// The guest's own, of its offer; not known of a session that a state file without it told of.
    pub(super) ufrag: Option<String>,
    /// What the guest publishes at the SFU; `None` on the direct path.
    pub(super) publication: Option<Publication>,
}

/// Facts of a slot that outlast its sessions.
struct Facts {
    profiles: Profiles,
    problems: Problems,
    /// Where the slot is published at the media server.
    path: String,
    /// Warns of a publication that goes, and each [`REMIND_AFTER`] of one that stays away.
    rtmp_log: LogOnce,
    /// The last session that held the slot, whether or not it does so still.
    last: Option<(ResourceId, SessionKey)>,
    /// The network from which the last session of this run was published.
    publisher: Option<IpAddr>,
    /// Of the RTMP server, where that has to be looked up.
    server: Option<Name>,
    /// How the slot is, for those who ask of it alone.
    state: Rc<Question<State>>,
}

impl Facts {
    fn new(target: &Target) -> Self {
        Self {
            profiles: Profiles::new(),
            problems: Problems::default(),
            path: target.path().to_owned(),
            rtmp_log: LogOnce::new(Some(REMIND_AFTER)),
            last: None,
            publisher: None,
            server: Name::of(target),
            // Whoever asks of one slot decides by the answer: that of a moment ago will not do.
            state: Question::new(Duration::ZERO),
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Sessions(RefCell<Table<Facts, Session>>);

impl Sessions {
    /// `guests`: each with where it is published, in the order of the slots.
    pub(super) fn new(guests: impl IntoIterator<Item = (Guest, Target)>) -> Self {
        let sessions = Self::default();
        for (guest, target) in guests {
            sessions.add(guest, &target);
        }
        sessions
    }

    /// Gives a guest the next slot, with all that is kept of one.
    pub(super) fn add(&self, guest: Guest, target: &Target) -> Slot {
        self.0.borrow_mut().add(guest, Facts::new(target))
    }

    /// Takes over another configuration; returns the guests that have no slot yet.
    pub(super) fn reload(&self, guests: Vec<Guest>) -> Vec<Guest> {
        self.0.borrow_mut().reload(guests)
    }

    pub(super) fn slots(&self) -> usize {
        self.0.borrow().slots()
    }

    /// The guests of the configuration, and those whose session outlasts their place in it.
    pub(super) fn guests(&self) -> Vec<(Slot, Guest)> {
        self.0.borrow().guests().map(|(slot, guest)| (slot, guest.clone())).collect()
    }

    /// Every slot, and whether guests may come in there.
    pub(super) fn open_slots(&self) -> Vec<(Slot, bool)> {
        let table = self.0.borrow();
        let is_open = |slot| table.slot(&table.guest(slot).id).is_ok_and(|of_guest| of_guest == slot);
        (0..table.slots()).map(Slot).map(|slot| (slot, is_open(slot))).collect()
    }

    pub(super) fn name(&self, slot: Slot) -> GuestId {
        self.0.borrow().guest(slot).id.clone()
    }

    /// The slot of a guest that may publish.
    pub(super) fn slot(&self, id: &GuestId) -> Result<Slot, Refusal> {
        self.0.borrow().slot(id)
    }

    /// The slot of a guest who is listed, whether or not it may publish.
    pub(super) fn listed_slot(&self, id: &GuestId) -> Option<Slot> {
        self.0.borrow().listed_slot(id)
    }

    pub(super) fn next_key(&self) -> SessionKey {
        self.0.borrow_mut().next_key()
    }

    /// See [`Table::is_outdated`].
    pub(super) fn is_outdated(&self, slot: Slot, key: SessionKey) -> bool {
        self.0.borrow().is_outdated(slot, key)
    }

    /// The way in: the session, published from `network`, holds the slot. Returns the one that held it before.
    pub(super) fn take(
        &self,
        slot: Slot,
        key: SessionKey,
        network: Option<IpAddr>,
        session: Session,
    ) -> Option<Session> {
        let mut table = self.0.borrow_mut();
        let last = (session.resource.clone(), key);
        let former = table.take(slot, key, session).map(|held| held.session);
        let facts = table.facts_mut(slot);
        facts.last = Some(last);
        facts.publisher = network;
        facts.forget_problem_of(former.as_ref());
        former
    }

    /// The way out: nothing of the session is kept. `None` when it holds no slot any more.
    pub(super) fn release(&self, key: SessionKey) -> Option<(Slot, Session)> {
        let mut table = self.0.borrow_mut();
        let (slot, session) = table.release(key)?;
        table.facts_mut(slot).forget_problem_of(Some(&session));
        Some((slot, session))
    }

    /// The session that `resource` names, if it still holds the guest's slot.
    pub(super) fn find(&self, id: &GuestId, resource: &ResourceId) -> Option<(Slot, SessionKey)> {
        self.look(id, resource, |slot, held| (slot, held.key))
    }

    /// The key of the session that `resource` names, where it holds the slot or was the last one to do so.
    pub(super) fn last(&self, slot: Slot, resource: &ResourceId) -> Option<SessionKey> {
        let table = self.0.borrow();
        let (_, key) = table.facts(slot).last.as_ref().filter(|(last, _)| last == resource)?;
        Some(*key)
    }

    /// The address of the last session that held the slot.
    pub(super) fn last_resource(&self, slot: Slot) -> Option<ResourceId> {
        self.0.borrow().facts(slot).last.as_ref().map(|(resource, _)| resource.clone())
    }

    /// The last session that held the slot did so in the process before.
    pub(super) fn record_former(&self, slot: Slot, resource: ResourceId) {
        self.0.borrow_mut().facts_mut(slot).last = Some((resource, SessionKey::FORMER));
    }

    /// The same, for the last time: the guest has said goodbye for good.
    pub(super) fn take_last(&self, id: &GuestId, resource: &ResourceId) -> Option<(Slot, SessionKey)> {
        let mut table = self.0.borrow_mut();
        let slot = table.listed_slot(id)?;
        let (_, key) = table.facts_mut(slot).last.take_if(|(last, _)| last == resource)?;
        Some((slot, key))
    }

    /// Its entity tag.
    pub(super) fn etag(&self, id: &GuestId, resource: &ResourceId) -> Option<String> {
        self.look(id, resource, |_, held| held.session.etag.clone())
    }

    /// The ufrag of its guest, as far as that is known.
    pub(super) fn ufrag(&self, id: &GuestId, resource: &ResourceId) -> Option<Option<String>> {
        self.look(id, resource, |_, held| held.session.ufrag.clone())
    }

    fn look<T>(&self, id: &GuestId, resource: &ResourceId, of: impl FnOnce(Slot, &Held<Session>) -> T) -> Option<T> {
        let table = self.0.borrow();
        let (slot, _, held) =
            table.sessions().find(|(_, guest, held)| guest.id == *id && held.session.resource == *resource)?;
        Some(of(slot, held))
    }

    /// The session at the SFU of the guest in this slot, and its key.
    pub(super) fn publication<T>(&self, slot: Slot, of: impl FnOnce(SessionKey, &Publication) -> T) -> Option<T> {
        let table = self.0.borrow();
        let held = table.held(slot)?;
        Some(of(held.key, held.session.publication.as_ref()?))
    }

    /// The slot of a guest who publishes through the SFU, and the session's key.
    pub(super) fn published(&self, id: &GuestId) -> Option<(Slot, SessionKey)> {
        let slot = self.listed_slot(id)?;
        self.publication(slot, |key, _| (slot, key))
    }

    /// The SFU's session id of each guest that publishes there.
    pub(super) fn sfu_sessions(&self) -> Vec<(GuestId, String)> {
        self.stored().into_iter().map(|session| (session.guest, session.session_id)).collect()
    }

    /// Where a pull's peer of this name in the media thread is known.
    pub(super) fn pull_of(&self, slot: Slot, key: SessionKey) -> Option<(Inputs, PeerId)> {
        self.publication(slot, |_, publication| publication.pull_of(key))?
    }

    /// Tracks of the guest that the SFU has dropped.
    pub(super) fn dropped_tracks(&self, slot: Slot) -> Vec<TrackKind> {
        self.publication(slot, |_, publication| publication.dropped_tracks()).unwrap_or_default()
    }

    /// What a restarted daemon has to know.
    pub(super) fn stored(&self) -> Vec<SfuSession> {
        let table = self.0.borrow();
        let stored = |(_, guest, held): (Slot, &Guest, &Held<Session>)| {
            let Session { resource, etag, ufrag, publication } = &held.session;
            let publication = publication.as_ref()?;
            Some(SfuSession {
                guest: guest.id.clone(),
                resource: resource.clone(),
                etag: etag.clone(),
                ufrag: ufrag.clone(),
                session_id: publication.session_id.clone(),
                tracks: publication.tracks.clone(),
            })
        };
        table.sessions().filter_map(stored).collect()
    }

    /// The network from which the slot was published last.
    pub(super) fn publisher(&self, id: &GuestId) -> Option<IpAddr> {
        let table = self.0.borrow();
        table.facts(table.listed_slot(id)?).publisher
    }

    /// What is wrong in this slot, for the producer: the worst first.
    pub(super) fn problems(&self, slot: Slot, now: Instant) -> Vec<Problem> {
        self.0.borrow().facts(slot).problems.current(now)
    }

    pub(super) fn record_problem(&self, slot: Slot, cause: Cause, now: Instant) {
        self.0.borrow_mut().facts_mut(slot).problems.record(cause, now);
    }

    /// Notes the problem of a session, if it still holds the slot.
    pub(super) fn record_problem_of(&self, slot: Slot, key: SessionKey, cause: Cause, now: Instant) {
        let mut table = self.0.borrow_mut();
        if table.held(slot).is_some_and(|held| held.key == key) {
            table.facts_mut(slot).problems.record(cause, now);
        }
    }

    /// The session's tracks come from the SFU, if it still holds the slot.
    pub(super) fn record_pull_well(&self, slot: Slot, key: SessionKey) {
        let mut table = self.0.borrow_mut();
        if table.held(slot).is_some_and(|held| held.key == key) {
            table.facts_mut(slot).problems.clear(Hop::Sfu);
        }
    }

    /// The publication is interrupted; returns the level of the line about it.
    pub(super) fn record_rtmp_loss(&self, slot: Slot, reason: &LostReason, now: Instant) -> Level {
        let mut table = self.0.borrow_mut();
        let facts = table.facts_mut(slot);
        if let Some(trouble) = reason.trouble() {
            facts.problems.record(Cause::Rtmp { trouble, path: facts.path.clone() }, now);
        }
        facts.rtmp_log.level((), now)
    }

    /// The publication is live, or there is none.
    pub(super) fn record_rtmp_well(&self, slot: Slot) {
        let mut table = self.0.borrow_mut();
        let facts = table.facts_mut(slot);
        facts.problems.clear(Hop::Rtmp);
        facts.rtmp_log.reset();
    }

    /// What to protect the media of the next guest on the direct path with.
    pub(super) fn srtp_profiles(&self, slot: Slot) -> Vec<SrtpProfile> {
        self.0.borrow().facts(slot).profiles.offer()
    }

    /// Learns from how a session ended.
    pub(super) fn record_end(&self, slot: Slot, reason: &SessionEnd) {
        self.0.borrow_mut().facts_mut(slot).profiles.record_end(slot, reason);
    }

    /// The RTMP server's name, where that has to be looked up.
    pub(super) fn server(&self, slot: Slot) -> Option<Name> {
        self.0.borrow().facts(slot).server.clone()
    }

    /// The question how the slot is.
    pub(super) fn state_question(&self, slot: Slot) -> Rc<Question<State>> {
        Rc::clone(&self.0.borrow().facts(slot).state)
    }
}

impl Facts {
    /// A problem of the way through the SFU goes with the guest who took it.
    fn forget_problem_of(&mut self, session: Option<&Session>) {
        if session.is_some_and(|session| session.publication.is_some()) {
            self.problems.clear(Hop::Sfu);
        }
    }
}

#[cfg(test)]
mod tests;
