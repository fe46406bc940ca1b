//! What is wrong with a guest's way through the SFU just now, in words for the producer: one line a slot, gone when all is
//! well again, when the guest leaves, or when it was not repeated for [`STALE`]: whoever retries says it again and again.

use std::time::{Duration, Instant};

/// The longest pause between two attempts, of a pull or of a page, and the longest call, and some.
const STALE: Duration = Duration::from_secs(60);

pub(super) struct Problem {
    text: String,
    at: Instant,
}

impl Problem {
    pub(super) fn new(text: String, now: Instant) -> Self {
        Self { text, at: now }
    }

    /// The line, while it is true.
    pub(super) fn text(&self, now: Instant) -> Option<String> {
        (now.saturating_duration_since(self.at) < STALE).then(|| self.text.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_until_nobody_repeats_it() {
        let now = Instant::now();
        let problem = Problem::new("refused with 401".to_owned(), now);
        assert_eq!(problem.text(now + STALE / 2).as_deref(), Some("refused with 401"));
        assert_eq!(problem.text(now + STALE), None);
    }
}
