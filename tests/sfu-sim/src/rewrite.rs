//! Sequence numbers of one subscription: the publisher's, moved to a start of their own and past the padding packets
//! that were put in between.
//!
//! Input and output: extended sequence numbers. Gaps stay gaps, so that what was lost on the way to the service is seen
//! to be missing; a packet that comes late gets the number that it would have had.

use std::collections::VecDeque;

/// How far back a late packet's place is known.
const REMEMBERED_INSERTIONS: usize = 64;

#[derive(Clone, Debug)]
pub(crate) struct Rewriter {
    /// Where the output starts; below 2^16, because a receiver starts without rollovers (RFC 3711 §3.3.1).
    start: u64,
    padding_every: Option<u32>,
    source: Option<Source>,
    newest_out: u64,
}

/// What is known of the incoming numbers; anew when the publisher's SSRC changes.
#[derive(Clone, Debug)]
struct Source {
    ssrc: u32,
    first_in: u64,
    newest_in: u64,
    /// From this incoming number on, so much is added to the distance from `first_in`.
    steps: VecDeque<(u64, u64)>,
    since_padding: u32,
}

impl Rewriter {
    /// Asks for one padding packet after each `padding_every` packets.
    pub(crate) fn new(start: u16, padding_every: Option<u32>) -> Self {
        Rewriter { start: start.into(), padding_every, source: None, newest_out: 0 }
    }

    /// The outgoing number; `None` for what is older than the subscription or too late.
    pub(crate) fn rewrite(&mut self, ssrc: u32, number: u64) -> Option<u64> {
        if self.source.as_ref().is_none_or(|source| source.ssrc != ssrc) {
            let is_first = self.source.is_none();
            let first_out = if is_first { self.start } else { self.newest_out + 1 };
            self.source = Some(Source {
                ssrc,
                first_in: number,
                newest_in: number,
                steps: VecDeque::from([(number, first_out)]),
                since_padding: 0,
            });
        }
        let source = self.source.as_mut()?;
        let (_, added) = source.steps.iter().rev().find(|(from, _)| *from <= number)?;
        let out = number - source.first_in + added;
        if number > source.newest_in {
            source.newest_in = number;
        }
        source.since_padding += 1;
        self.newest_out = self.newest_out.max(out);
        Some(out)
    }

    /// The number of a padding packet that is due after the newest packet.
    pub(crate) fn padding(&mut self) -> Option<u64> {
        let every = self.padding_every?;
        let source = self.source.as_mut().filter(|source| source.since_padding >= every)?;
        source.since_padding = 0;
        let (_, added) = source.steps.back()?;
        let step = (source.newest_in + 1, added + 1);
        if source.steps.len() == REMEMBERED_INSERTIONS {
            source.steps.pop_front();
        }
        source.steps.push_back(step);
        self.newest_out += 1;
        Some(self.newest_out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn padding_shifts_what_follows_and_not_what_comes_late() {
        let mut rewriter = Rewriter::new(100, Some(3));
        assert_eq!(rewriter.rewrite(1, 70_000), Some(100));
        assert_eq!(rewriter.rewrite(1, 70_002), Some(102));
        assert_eq!(rewriter.padding(), None);
        assert_eq!(rewriter.rewrite(1, 70_003), Some(103));
        assert_eq!(rewriter.padding(), Some(104));
        assert_eq!(rewriter.padding(), None);
        assert_eq!(rewriter.rewrite(1, 70_004), Some(105));
        assert_eq!(rewriter.rewrite(1, 70_001), Some(101));
        assert_eq!(rewriter.rewrite(1, 69_999), None);
    }

    #[test]
    fn a_new_source_goes_on_after_the_newest_number() {
        let mut rewriter = Rewriter::new(7, None);
        assert_eq!(rewriter.rewrite(1, 9), Some(7));
        assert_eq!(rewriter.rewrite(1, 12), Some(10));
        assert_eq!(rewriter.rewrite(2, 500), Some(11));
        assert_eq!(rewriter.rewrite(2, 501), Some(12));
    }
}
