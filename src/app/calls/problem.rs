//! What is wrong with a guest's way through the SFU just now, in words for the producer: one line a slot, gone when all is
//! well again, when the guest leaves, or when it was not repeated for [`STALE`]: whoever retries says it again and again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::guest::Slot;

/// The longest pause between two attempts, of a pull or of a page, and the longest call, and some.
const STALE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Problems(RefCell<HashMap<Slot, (String, Instant)>>);

impl Problems {
    pub(super) fn note(&self, slot: Slot, text: String, now: Instant) {
        self.0.borrow_mut().insert(slot, (text, now));
    }

    pub(super) fn clear(&self, slot: Slot) {
        self.0.borrow_mut().remove(&slot);
    }

    pub(super) fn text(&self, slot: Slot, now: Instant) -> Option<String> {
        let problems = self.0.borrow();
        let (text, at) = problems.get(&slot)?;
        (now.saturating_duration_since(*at) < STALE).then(|| text.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_until_it_is_solved_or_nobody_repeats_it() {
        let (problems, now) = (Problems::default(), Instant::now());
        problems.note(Slot(0), "refused with 401".to_owned(), now);
        assert_eq!(problems.text(Slot(0), now + STALE / 2).as_deref(), Some("refused with 401"));
        assert_eq!(problems.text(Slot(1), now), None);
        assert_eq!(problems.text(Slot(0), now + STALE), None);
        problems.note(Slot(0), "refused with 404".to_owned(), now + STALE);
        assert_eq!(problems.text(Slot(0), now + STALE).as_deref(), Some("refused with 404"));
        problems.clear(Slot(0));
        assert_eq!(problems.text(Slot(0), now + STALE), None);
    }
}
