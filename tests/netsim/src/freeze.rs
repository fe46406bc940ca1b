//! The freeze rule of W3C webrtc-stats (`freezeCount`, `totalFreezesDuration`): a picture that stays for at least
//! max(3 x average, average + 150 ms) is frozen, the average being that of the last 30 pictures.

use std::time::{Duration, Instant};

const AVERAGE_OF: usize = 30;
const MARGIN: Duration = Duration::from_millis(150);

/// Freezes of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freezes {
    pub count: u64,
    pub total: Duration,
    pub longest: Duration,
}

/// `rendered` are the times at which pictures were rendered, ascending.
pub fn freezes(rendered: &[Instant]) -> Freezes {
    let gaps: Vec<Duration> = rendered
        .windows(2)
        .filter_map(|pair| match pair {
            [before, after] => Some(*after - *before),
            _ => None,
        })
        .collect();
    let mut freezes = Freezes::default();
    for (index, gap) in gaps.iter().enumerate() {
        let before = gaps.get(index.saturating_sub(AVERAGE_OF)..index).unwrap_or_default();
        let Ok(count @ 1..) = u32::try_from(before.len()) else { continue };
        let average = before.iter().sum::<Duration>() / count;
        if *gap >= (average * 3).max(average + MARGIN) {
            freezes.count += 1;
            freezes.total += *gap;
            freezes.longest = freezes.longest.max(*gap);
        }
    }
    freezes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(gaps_ms: &[u64]) -> Vec<Instant> {
        let start = Instant::now();
        let mut at = start;
        let after = gaps_ms.iter().map(|ms| {
            at += Duration::from_millis(*ms);
            at
        });
        std::iter::once(start).chain(after).collect()
    }

    #[test]
    fn at_30_frames_a_second_a_gap_of_183_ms_is_a_freeze_and_182_is_none() {
        let mut gaps = [33; 40];
        gaps[39] = 182;
        assert_eq!(freezes(&rendered(&gaps)), Freezes::default());
        gaps[39] = 183;
        let gap = Duration::from_millis(183);
        assert_eq!(freezes(&rendered(&gaps)), Freezes { count: 1, total: gap, longest: gap });
    }

    #[test]
    fn at_10_frames_a_second_three_times_the_average_counts() {
        let mut gaps = [100; 40];
        gaps[39] = 299;
        assert_eq!(freezes(&rendered(&gaps)).count, 0);
        gaps[39] = 300;
        assert_eq!(freezes(&rendered(&gaps)).count, 1);
    }
}
