//! The slots and who holds each of them: guests of the configuration, retired ones, sessions and their keys.
//!
//! Input: publish and leave requests, ends of sessions, configurations that are read again. Output: which session holds
//! which slot, and what was kept of a session that has gone. `F` is what the owner keeps of a slot, whoever is in it, `S`
//! what it keeps of a session. One way in, [`Table::take`]; one way out, [`Table::release`]: everything of a session goes
//! with it. A newer session takes the slot over; a late leave names a session that no longer holds the slot and changes
//! nothing. Bounds: one session a slot; one slot for each guest that ever was in the configuration.

use std::fmt;

use super::id::GuestId;

/// Most guests of a configuration.
pub const GUESTS_MAX: usize = 64;

/// Place of a guest in the configuration; the media thread's index of its relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub usize);

/// One WebRTC session; never reused within a run of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

impl SessionKey {
    /// Whoever had the slot in the process before, in whose publication this one goes on. A table gives it to nobody.
    pub const FORMER: Self = Self(0);
}

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

/// Why a guest may not publish.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not in the configuration.
    Unknown,
    /// In the configuration, switched off.
    Disabled,
}

/// A session that holds a slot.
#[derive(Debug, PartialEq, Eq)]
pub struct Held<S> {
    pub key: SessionKey,
    pub session: S,
}

struct Entry<F, S> {
    guest: Guest,
    /// The guest is not in the configuration any more.
    retired: bool,
    facts: F,
    held: Option<Held<S>>,
}

/// See the module.
pub struct Table<F, S> {
    entries: Vec<Entry<F, S>>,
    next_key: u64,
}

impl<F, S> Default for Table<F, S> {
    fn default() -> Self {
        Self { entries: Vec::new(), next_key: 1 }
    }
}

impl<F, S> Table<F, S> {
    /// Gives a guest a slot, after all others.
    pub fn add(&mut self, guest: Guest, facts: F) -> Slot {
        self.entries.push(Entry { guest, retired: false, facts, held: None });
        Slot(self.entries.len() - 1)
    }

    /// How many slots there are, retired ones among them.
    pub fn slots(&self) -> usize {
        self.entries.len()
    }

    /// The configured guests; one that is not configured any more as long as its session lasts.
    pub fn guests(&self) -> impl Iterator<Item = (Slot, &Guest)> {
        let listed = |(_, entry): &(usize, &Entry<F, S>)| entry.held.is_some() || !entry.retired;
        self.entries.iter().enumerate().filter(listed).map(|(index, entry)| (Slot(index), &entry.guest))
    }

    /// Takes over the names and switches of another configuration. Sessions go on; who is not in it takes no new one.
    /// Returns the guests that have no slot yet: [`Table::add`] gives each the next one.
    pub fn reload(&mut self, mut guests: Vec<Guest>) -> Vec<Guest> {
        for entry in &mut self.entries {
            let found = guests.iter().position(|guest| guest.id == entry.guest.id);
            entry.retired = found.is_none();
            if let Some(found) = found {
                entry.guest = guests.remove(found);
            }
        }
        guests
    }

    /// The guest whose slot it is.
    pub fn guest(&self, slot: Slot) -> &Guest {
        &self.entry(slot).guest
    }

    /// What is kept of the slot.
    pub fn facts(&self, slot: Slot) -> &F {
        &self.entry(slot).facts
    }

    /// The same, to be changed.
    pub fn facts_mut(&mut self, slot: Slot) -> &mut F {
        &mut self.entries.get_mut(slot.0).expect("slots are made by this table").facts
    }

    /// The slot of a guest that may publish.
    pub fn slot(&self, id: &GuestId) -> Result<Slot, Refusal> {
        let found = self.entries.iter().enumerate().find(|(_, entry)| entry.guest.id == *id);
        match found {
            Some((index, entry)) if !entry.retired && entry.guest.enabled => Ok(Slot(index)),
            Some((_, entry)) if !entry.retired => Err(Refusal::Disabled),
            _ => Err(Refusal::Unknown),
        }
    }

    /// The slot of a guest who is listed: one who may not publish any more has it as long as the session lasts.
    pub fn listed_slot(&self, id: &GuestId) -> Option<Slot> {
        self.guests().find(|(_, guest)| guest.id == *id).map(|(slot, _)| slot)
    }

    /// A key for a session that begins now: a guest's, or the connection by which one is pulled from the SFU. Keys are in
    /// the order of the beginnings.
    pub fn next_key(&mut self) -> SessionKey {
        let key = SessionKey(self.next_key);
        self.next_key += 1;
        key
    }

    /// Gives the slot to a session. Returns the one that held it before, which holds it no longer.
    pub fn take(&mut self, slot: Slot, key: SessionKey, session: S) -> Option<Held<S>> {
        let entry = self.entries.get_mut(slot.0).expect("slots are made by this table");
        entry.held.replace(Held { key, session })
    }

    /// The session is over: what was kept of it, and whose slot is free now. `None` when it holds none any more.
    pub fn release(&mut self, key: SessionKey) -> Option<(Slot, S)> {
        let holds = |entry: &Entry<F, S>| entry.held.as_ref().is_some_and(|held| held.key == key);
        let index = self.entries.iter().position(holds)?;
        let held = self.entries.get_mut(index)?.held.take()?;
        Some((Slot(index), held.session))
    }

    /// The session that holds the slot.
    pub fn held(&self, slot: Slot) -> Option<&Held<S>> {
        self.entry(slot).held.as_ref()
    }

    /// All sessions, in the order of the slots.
    pub fn sessions(&self) -> impl Iterator<Item = (Slot, &Guest, &Held<S>)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(index, entry)| Some((Slot(index), &entry.guest, entry.held.as_ref()?)))
    }

    /// Whether the slot is held by a session that began after this one: an offer that took long to be answered must not
    /// push out the one by which its guest, tired of waiting, has come in meanwhile.
    pub fn is_outdated(&self, slot: Slot, key: SessionKey) -> bool {
        self.held(slot).is_some_and(|held| held.key > key)
    }

    fn entry(&self, slot: Slot) -> &Entry<F, S> {
        self.entries.get(slot.0).expect("slots are made by this table")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn guest(id: &str, name: &str, enabled: bool) -> Guest {
        Guest { id: GuestId::parse(id).unwrap(), name: name.to_owned(), enabled }
    }

    /// Slots keep a number, sessions a word.
    fn table() -> (Table<u32, &'static str>, GuestId) {
        let mut table = Table::default();
        assert_eq!(table.add(guest("guest1", "guest1", true), 10), Slot(0));
        assert_eq!(table.add(guest("guest2", "guest2", false), 20), Slot(1));
        (table, GuestId::parse("guest1").unwrap())
    }

    fn holder(table: &Table<u32, &'static str>, slot: Slot) -> Option<(SessionKey, &'static str)> {
        table.held(slot).map(|held| (held.key, held.session))
    }

    #[test]
    fn only_enabled_guests_of_the_configuration_have_a_slot() {
        let (table, guest1) = table();
        assert_eq!(table.slot(&guest1), Ok(Slot(0)));
        assert_eq!(table.slot(&GuestId::parse("guest2").unwrap()), Err(Refusal::Disabled));
        assert_eq!(table.slot(&GuestId::parse("guest3").unwrap()), Err(Refusal::Unknown));
    }

    #[test]
    fn a_newer_session_takes_the_slot_and_a_late_leave_of_the_old_one_changes_nothing() {
        let (mut table, _) = table();
        let (old, new) = (table.next_key(), table.next_key());
        assert_eq!(table.take(Slot(0), old, "first"), None);
        assert!(!table.is_outdated(Slot(0), old) && !table.is_outdated(Slot(0), new));
        assert_eq!(table.take(Slot(0), new, "second"), Some(Held { key: old, session: "first" }));
        assert!(table.is_outdated(Slot(0), old), "it began first");
        assert_eq!(table.release(old), None);
        assert_eq!(holder(&table, Slot(0)), Some((new, "second")));
        assert_eq!(table.release(new), Some((Slot(0), "second")));
        assert_eq!(holder(&table, Slot(0)), None);
        assert!(!table.is_outdated(Slot(0), old), "the slot is free");
        assert_eq!((table.sessions().count(), table.facts(Slot(0))), (0, &10), "what is the slot's stays");
    }

    #[test]
    fn another_configuration_renames_switches_adds_and_retires_without_touching_sessions() {
        let (mut table, guest1) = table();
        let key = table.next_key();
        table.take(Slot(0), key, "one");
        let new = table.reload(vec![guest("guest3", "Three", true), guest("guest2", "Two", true)]);
        assert_eq!(new, [guest("guest3", "Three", true)]);
        for guest in new {
            assert_eq!(table.add(guest, 30), Slot(2));
        }
        let listed = |table: &Table<u32, &'static str>| {
            table.guests().map(|(slot, guest)| format!("{} {} {}", slot.0, guest.id, guest.name)).collect::<Vec<_>>()
        };
        // guest1 stays as long as its session.
        assert_eq!(listed(&table), ["0 guest1 guest1", "1 guest2 Two", "2 guest3 Three"]);
        assert_eq!((holder(&table, Slot(0)), table.listed_slot(&guest1)), (Some((key, "one")), Some(Slot(0))));
        assert_eq!(table.slot(&guest1), Err(Refusal::Unknown));
        assert_eq!(table.slot(&GuestId::parse("guest2").unwrap()), Ok(Slot(1)));
        assert_eq!(table.release(key), Some((Slot(0), "one")));
        assert_eq!(
            (listed(&table), table.listed_slot(&guest1)),
            (vec!["1 guest2 Two".into(), "2 guest3 Three".into()], None)
        );
        // It comes back to the slot it had, with what was kept of it.
        assert_eq!(table.reload(vec![guest("guest1", "One", true)]), []);
        assert_eq!((table.slot(&guest1), table.facts(Slot(0)), table.slots()), (Ok(Slot(0)), &10, 3));
        assert_eq!(listed(&table), ["0 guest1 One"]);
    }
}
