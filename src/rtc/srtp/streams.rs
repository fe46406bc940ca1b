//! Where each SSRC stands in its numbering (RFC 3711 §3.3.1), and which SSRCs hold state: at most [`MAX_SSRCS`].
//!
//! An SSRC that was silent for [`IDLE_AFTER`] gives its place to a new one. What it had reached stays known, so that
//! nothing it sent before can be replayed: it comes back further on, or not at all. After [`MAX_RETIRED`] such changes a
//! session takes no further SSRC.

use std::time::{Duration, Instant};

/// SSRCs that may hold state, for RTP and for RTCP each. A guest needs two to four.
pub const MAX_SSRCS: usize = 8;
/// An SSRC that was silent for so long gives way to another one.
pub const IDLE_AFTER: Duration = Duration::from_secs(10);
/// SSRCs that gave way and are still known. Nobody changes encoders so often within one session.
pub const MAX_RETIRED: usize = 64;

const CYCLE: u64 = 1 << 16;
const HALF_CYCLE: u64 = 1 << 15;

/// What a packet says of its place in the numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    /// RTP: the low 16 bits of the index; the rollover counter above them is not sent.
    Sequence(u16),
    /// RTCP: all of it.
    Index(u32),
}

impl Number {
    /// The index that RFC 3711 appendix A takes it for: the nearest to the highest one so far.
    pub(super) fn nearest(self, highest: u64) -> u64 {
        let sequence = match self {
            Self::Index(index) => return index.into(),
            Self::Sequence(sequence) => u64::from(sequence),
        };
        let same_cycle = highest - highest % CYCLE + sequence;
        if same_cycle + HALF_CYCLE < highest {
            same_cycle + CYCLE
        } else if same_cycle > highest + HALF_CYCLE {
            same_cycle.checked_sub(CYCLE).unwrap_or(same_cycle)
        } else {
            same_cycle
        }
    }

    /// Where a packet may stand if it is further on than all before: at the nearest index, or one cycle on when so many
    /// were missed that the nearest is wrong.
    pub(super) fn beyond(self, highest: u64) -> impl Iterator<Item = u64> + use<> {
        let nearest = self.nearest(highest);
        let a_cycle_on = match self {
            Self::Index(_) => None,
            Self::Sequence(_) => Some(nearest + CYCLE),
        };
        [Some(nearest), a_cycle_on].into_iter().flatten().filter(move |index| *index > highest)
    }

    /// Where the first packet of an SSRC may stand, the likely place first. A sender begins in cycle 0; if it begins just
    /// before the wrap and those packets are lost, the first that comes stands in cycle 1.
    fn first(self) -> [Option<u64>; 2] {
        match self {
            Self::Index(index) => [Some(index.into()), None],
            Self::Sequence(sequence) => {
                let sequence = u64::from(sequence);
                [Some(sequence), (sequence < HALF_CYCLE).then_some(sequence + CYCLE)]
            }
        }
    }
}

/// An SSRC of which at least one packet has authenticated.
pub(super) struct Stream<S> {
    ssrc: u32,
    /// What is known of its packets.
    pub(super) state: S,
    /// Of the packets that authenticated.
    highest: u64,
    heard_at: Instant,
}

impl<S> Stream<S> {
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard_at)
    }

    /// Takes note of a packet that authenticated; whether it is the newest.
    pub(super) fn record_heard(&mut self, index: u64, now: Instant) -> bool {
        let is_newest = index > self.highest;
        self.highest = self.highest.max(index);
        self.heard_at = now;
        is_newest
    }
}

struct Retired {
    ssrc: u32,
    highest: u64,
}

/// The SSRCs of one kind of packet.
pub(super) struct Streams<S> {
    live: Vec<Stream<S>>,
    retired: Vec<Retired>,
}

impl<S> Streams<S> {
    pub(super) fn new() -> Self {
        Self { live: Vec::with_capacity(MAX_SSRCS), retired: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn find(&mut self, ssrc: u32) -> Option<&mut Stream<S>> {
        self.live.iter_mut().find(|stream| stream.ssrc == ssrc)
    }

    /// Whether one more SSRC may be tried.
    pub(super) fn has_room(&self, ssrc: u32, now: Instant) -> bool {
        let is_known = self.retired.iter().any(|retired| retired.ssrc == ssrc);
        let may_retire = self.retired.len() < MAX_RETIRED || is_known;
        self.live.len() < MAX_SSRCS || may_retire && self.longest_idle(now).is_some()
    }

    /// The indices that the packet of an SSRC without state may have, the likely one first.
    pub(super) fn candidates(&self, ssrc: u32, number: Number) -> impl Iterator<Item = u64> + use<S> {
        let retired = self.retired.iter().find(|retired| retired.ssrc == ssrc).map(|retired| retired.highest);
        let first = number.first().into_iter().flatten().filter(move |_| retired.is_none());
        first.chain(retired.into_iter().flat_map(move |highest| number.beyond(highest)))
    }

    /// Keeps the state of an SSRC that has authenticated, in place of the one that was silent for longest if need be.
    pub(super) fn admit(&mut self, ssrc: u32, state: S, index: u64, now: Instant) {
        self.retired.retain(|retired| retired.ssrc != ssrc);
        if self.live.len() == MAX_SSRCS
            && let Some(idle) = self.longest_idle(now)
        {
            let Stream { ssrc, highest, .. } = self.live.swap_remove(idle);
            self.retired.push(Retired { ssrc, highest });
        }
        self.live.push(Stream { ssrc, state, highest: index, heard_at: now });
    }

    fn longest_idle(&self, now: Instant) -> Option<usize> {
        let idle = self.live.iter().enumerate().filter(|(_, stream)| stream.silence(now) >= IDLE_AFTER);
        idle.min_by_key(|(_, stream)| stream.heard_at).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3711 appendix A, in its own words: `index = (seq, v)` with v by s_l and ROC.
    fn appendix_a(highest: u64, seq: u64) -> Option<u64> {
        let (roc, s_l) = (highest / CYCLE, highest % CYCLE);
        let v = if s_l < HALF_CYCLE {
            if seq > s_l + HALF_CYCLE { roc.checked_sub(1)? } else { roc }
        } else if s_l - HALF_CYCLE > seq {
            roc + 1
        } else {
            roc
        };
        Some(v * CYCLE + seq)
    }

    #[test]
    fn the_index_is_guessed_as_in_appendix_a() {
        for highest in (0..4 * CYCLE).step_by(1237).chain([HALF_CYCLE, CYCLE - 1, CYCLE, CYCLE + HALF_CYCLE]) {
            for sequence in (0..=u16::MAX).step_by(511).chain([0, 1, 0x7fff, 0x8000, 0x8001, 0xffff]) {
                let expected = appendix_a(highest, sequence.into());
                let guessed = Number::Sequence(sequence).nearest(highest);
                // Before cycle 0 there is nothing, so the packet can only be ahead.
                assert_eq!(guessed, expected.unwrap_or(sequence.into()), "{sequence} after {highest}");
            }
        }
    }
}
