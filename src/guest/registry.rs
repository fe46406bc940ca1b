//! Which session holds which guest's slot: the one table that WHIP requests and session ends meet in.
//!
//! Input: publish and leave requests, ends reported by the media thread. Output: which session to start or end.
//! A slot has at most one session; a newer publish takes the slot over; a late leave names a resource that no longer
//! holds the slot and changes nothing. Bounds: one entry per configured guest.

use std::fmt;

use super::id::{GuestId, ResourceId};

/// Place of a guest in the configuration; the media thread's index of its relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub usize);

/// One WebRTC session; never reused within a run of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A guest of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    pub id: GuestId,
    pub name: String,
    pub enabled: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not in the configuration.
    Unknown,
    /// In the configuration, switched off.
    Disabled,
}

struct Held {
    key: SessionKey,
    resource: ResourceId,
}

/// The slots of all configured guests.
pub struct Registry {
    guests: Vec<(Guest, Option<Held>)>,
    /// Slots whose guest is not in the configuration any more.
    retired: Vec<Slot>,
    next_key: u64,
}

impl Registry {
    pub fn new(guests: impl IntoIterator<Item = Guest>) -> Self {
        Self { guests: guests.into_iter().map(|guest| (guest, None)).collect(), retired: Vec::new(), next_key: 1 }
    }

    /// The configured guests; one that is not configured any more as long as its session lasts.
    pub fn guests(&self) -> impl Iterator<Item = (Slot, &Guest)> {
        let slots = self.guests.iter().enumerate().map(|(index, (guest, held))| (Slot(index), guest, held));
        slots
            .filter(|(slot, _, held)| held.is_some() || !self.retired.contains(slot))
            .map(|(slot, guest, _)| (slot, guest))
    }

    /// How many slots there are, retired ones among them.
    pub fn slots(&self) -> usize {
        self.guests.len()
    }

    /// Takes over the names and switches of another configuration. Sessions go on; who is not in it takes no new one.
    /// Returns the guests that have no slot yet: [`add`](Self::add) gives each the next one.
    pub fn reload(&mut self, mut guests: Vec<Guest>) -> Vec<Guest> {
        self.retired.clear();
        for (index, (known, _)) in self.guests.iter_mut().enumerate() {
            match guests.iter().position(|guest| guest.id == known.id) {
                Some(found) => *known = guests.remove(found),
                None => self.retired.push(Slot(index)),
            }
        }
        guests
    }

    /// Gives a guest a slot, after all others.
    pub fn add(&mut self, guest: Guest) {
        self.guests.push((guest, None));
    }

    /// The guest whose slot it is.
    pub fn guest(&self, slot: Slot) -> &Guest {
        &self.guests.get(slot.0).expect("slots are made by this table").0
    }

    /// The slot of a guest that may publish.
    pub fn slot(&self, id: &GuestId) -> Result<Slot, Refusal> {
        let index = self.guests.iter().position(|(guest, _)| guest.id == *id).ok_or(Refusal::Unknown)?;
        match self.guests.get(index) {
            _ if self.retired.contains(&Slot(index)) => Err(Refusal::Unknown),
            Some((guest, _)) if guest.enabled => Ok(Slot(index)),
            _ => Err(Refusal::Disabled),
        }
    }

    /// Gives the slot to a session, named `resource` in its WHIP URL. Whoever held it before holds it no longer.
    pub fn take(&mut self, slot: Slot, key: SessionKey, resource: ResourceId) {
        let (_, held) = self.guests.get_mut(slot.0).expect("slots are made by this table");
        *held = Some(Held { key, resource });
    }

    /// Whether the slot is held by a session that began after this one: an offer that took long to be answered must not
    /// push out the one by which its guest, tired of waiting, has come in meanwhile.
    pub fn is_outdated(&self, slot: Slot, key: SessionKey) -> bool {
        let held = self.guests.get(slot.0).and_then(|(_, held)| held.as_ref());
        held.is_some_and(|held| held.key > key)
    }

    /// A key for a session that begins now: a guest's, or the connection by which one is pulled from the SFU. Keys are in
    /// the order of the beginnings.
    pub fn next_key(&mut self) -> SessionKey {
        let key = SessionKey(self.next_key);
        self.next_key += 1;
        key
    }

    /// The session that `resource` names, if it still holds the guest's slot.
    pub fn session(&self, id: &GuestId, resource: &ResourceId) -> Option<(Slot, SessionKey)> {
        self.guests.iter().enumerate().find_map(|(index, (guest, held))| {
            let held = held.as_ref().filter(|_| guest.id == *id)?;
            (held.resource == *resource).then_some((Slot(index), held.key))
        })
    }

    /// The session is over; its slot is free unless a newer one took it.
    pub fn release(&mut self, key: SessionKey) {
        for (_, held) in &mut self.guests {
            if held.as_ref().is_some_and(|held| held.key == key) {
                *held = None;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn registry() -> (Registry, GuestId) {
        let guest = |id: &str, enabled| Guest { id: GuestId::parse(id).unwrap(), name: id.to_owned(), enabled };
        (Registry::new([guest("guest1", true), guest("guest2", false)]), GuestId::parse("guest1").unwrap())
    }

    #[test]
    fn only_enabled_guests_of_the_configuration_have_a_slot() {
        let (registry, guest1) = registry();
        assert_eq!(registry.slot(&guest1), Ok(Slot(0)));
        assert_eq!(registry.slot(&GuestId::parse("guest2").unwrap()), Err(Refusal::Disabled));
        assert_eq!(registry.slot(&GuestId::parse("guest3").unwrap()), Err(Refusal::Unknown));
    }

    #[test]
    fn a_newer_session_takes_the_slot_and_a_late_leave_of_the_old_one_changes_nothing() {
        let (mut registry, guest1) = registry();
        let (first, second) = (ResourceId::generate(), ResourceId::generate());
        let (old, new) = (registry.next_key(), registry.next_key());
        registry.take(Slot(0), old, first.clone());
        assert!(!registry.is_outdated(Slot(0), old) && !registry.is_outdated(Slot(0), new));
        registry.take(Slot(0), new, second.clone());
        assert!(registry.is_outdated(Slot(0), old), "it began first");
        assert_eq!(registry.session(&guest1, &first), None);
        registry.release(old);
        assert_eq!(registry.session(&guest1, &second), Some((Slot(0), new)));
        registry.release(new);
        assert_eq!(registry.session(&guest1, &second), None);
        assert!(!registry.is_outdated(Slot(0), old), "the slot is free");
    }

    #[test]
    fn another_configuration_renames_switches_adds_and_retires_without_touching_sessions() {
        let guest =
            |id: &str, name: &str, enabled| Guest { id: GuestId::parse(id).unwrap(), name: name.to_owned(), enabled };
        let (mut registry, guest1) = registry();
        let resource = ResourceId::generate();
        let key = registry.next_key();
        registry.take(Slot(0), key, resource.clone());
        let new = registry.reload(vec![guest("guest3", "Three", true), guest("guest2", "Two", true)]);
        assert_eq!(new, [guest("guest3", "Three", true)]);
        new.into_iter().for_each(|guest| registry.add(guest));
        let listed = |registry: &Registry| {
            registry.guests().map(|(slot, guest)| format!("{} {} {}", slot.0, guest.id, guest.name)).collect::<Vec<_>>()
        };
        // guest1 stays as long as its session.
        assert_eq!(listed(&registry), ["0 guest1 guest1", "1 guest2 Two", "2 guest3 Three"]);
        assert_eq!(registry.session(&guest1, &resource), Some((Slot(0), key)));
        assert_eq!(registry.slot(&guest1), Err(Refusal::Unknown));
        assert_eq!(registry.slot(&GuestId::parse("guest2").unwrap()), Ok(Slot(1)));
        registry.release(key);
        assert_eq!(listed(&registry), ["1 guest2 Two", "2 guest3 Three"]);
        // It comes back to the slot it had.
        assert_eq!(registry.reload(vec![guest("guest1", "One", true)]), []);
        assert_eq!(registry.slot(&guest1), Ok(Slot(0)));
        assert_eq!(listed(&registry), ["0 guest1 One"]);
    }
}
