//! How the guests share the way in: limits and a number of guests in, what each of them may send out.
//!
//! Each guest gets the same, however little another one uses of it: what a guest leaves is not lent, since that guest would
//! find it gone when the picture moves again.

/// The limits of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// For each guest.
    pub guest_kbps: u32,
    /// For all of them.
    pub total_kbps: Option<u32>,
}

impl Budget {
    /// What each of so many guests who send pictures may send.
    pub(super) fn share(&self, guests: usize) -> u32 {
        let guests = u32::try_from(guests).unwrap_or(u32::MAX).max(1);
        self.total_kbps.map_or(self.guest_kbps, |total| (total / guests).min(self.guest_kbps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_share_the_total_evenly_and_none_gets_more_than_a_guest_may() {
        let budget = Budget { guest_kbps: 2500, total_kbps: Some(6000) };
        let shares: Vec<u32> = (0..=4).map(|guests| budget.share(guests)).collect();
        assert_eq!(shares, [2500, 2500, 2500, 2000, 1500]);
        let unlimited = Budget { guest_kbps: 2500, total_kbps: None };
        assert_eq!(unlimited.share(100), 2500);
    }
}
