//! The earliest of several deadlines: each machine asks this of its parts, for each packet.

use std::time::Instant;

/// The earliest one, if there is any. Inlined, and by reference: where code is compiled for size, an array's own iterator and
/// calls cost several times as much, for each packet.
#[inline(always)]
pub fn earliest<const N: usize>(deadlines: [Option<Instant>; N]) -> Option<Instant> {
    let mut earliest: Option<Instant> = None;
    for deadline in &deadlines {
        if let Some(deadline) = deadline
            && earliest.is_none_or(|earliest| *deadline < earliest)
        {
            earliest = Some(*deadline);
        }
    }
    earliest
}

/// It has come.
pub fn is_due(deadline: Option<Instant>, now: Instant) -> bool {
    deadline.is_some_and(|at| at <= now)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_deadline_is_none_and_not_the_earliest() {
        let now = Instant::now();
        let (soon, late) = (now + Duration::from_secs(1), now + Duration::from_secs(2));
        assert_eq!(earliest([None, Some(late), None, Some(soon)]), Some(soon));
        assert_eq!(earliest([None, None]), None);
        assert!(is_due(Some(now), now) && !is_due(Some(soon), now) && !is_due(None, now));
    }
}
