//! Sequence numbers: 16 wrapping bits on the wire, [`SeqNo`] inside (RFC 3550 appendix A.1).
//!
//! Input: a packet's 16-bit number. Output: where it stands against the highest one so far. State: 8 bytes.

/// RFC 3550 appendix A.1: a number this far ahead is no longer a gap but another stream.
pub const MAX_DROPOUT: u16 = 3000;
/// A number this far behind is no longer late but another stream. The RFC's typical value is 100; retransmissions
/// (RFC 4588) come later than reordering: 0.4 s at 5 Mbit/s are 210 packets.
pub const MAX_MISORDER: u16 = 500;

/// An unwrapped sequence number: counts on where the 16 bits wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqNo(pub u64);

impl SeqNo {
    /// The one after.
    pub const fn next(self) -> SeqNo {
        SeqNo(self.0 + 1)
    }
}

/// Where a number stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// New, and higher than all before.
    Ahead(SeqNo),
    /// Not higher than the highest: reordered, retransmitted or duplicate.
    Behind(SeqNo),
    /// Too far away to be of the same run of numbers.
    Jump,
}

/// Unwraps the numbers of one SSRC.
#[derive(Clone, Copy, Debug)]
pub struct Unwrapper {
    highest: SeqNo,
}

impl Unwrapper {
    /// Starts at `first`; the numbers just before it can still be told from those after it.
    pub fn new(first: u16) -> (Self, SeqNo) {
        let highest = SeqNo((1 << 16) + u64::from(first));
        (Self { highest }, highest)
    }

    /// Places the next number.
    pub fn step(&mut self, sequence_number: u16) -> Step {
        let [.., high, low] = self.highest.0.to_be_bytes();
        let ahead = sequence_number.wrapping_sub(u16::from_be_bytes([high, low]));
        let behind = ahead.wrapping_neg();
        if ahead == 0 {
            Step::Behind(self.highest)
        } else if ahead < MAX_DROPOUT {
            self.highest = SeqNo(self.highest.0 + u64::from(ahead));
            Step::Ahead(self.highest)
        } else if behind < MAX_MISORDER {
            Step::Behind(SeqNo(self.highest.0 - u64::from(behind)))
        } else {
            Step::Jump
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_on_across_the_wrap() {
        let (mut unwrapper, first) = Unwrapper::new(65534);
        assert_eq!(unwrapper.step(65535), Step::Ahead(SeqNo(first.0 + 1)));
        assert_eq!(unwrapper.step(1), Step::Ahead(SeqNo(first.0 + 3)));
        assert_eq!(unwrapper.step(0), Step::Behind(SeqNo(first.0 + 2)));
        assert_eq!(unwrapper.step(1), Step::Behind(SeqNo(first.0 + 3)));
        assert_eq!(unwrapper.step(65530), Step::Behind(SeqNo(first.0 - 4)));
    }

    #[test]
    fn the_bounds_are_those_of_the_appendix() {
        let (mut unwrapper, first) = Unwrapper::new(1000);
        assert_eq!(unwrapper.step(1000 + MAX_DROPOUT), Step::Jump);
        assert_eq!(unwrapper.step(1000 - MAX_MISORDER), Step::Jump);
        assert_eq!(unwrapper.step(1000 - MAX_MISORDER + 1), Step::Behind(SeqNo(first.0 - 499)));
        assert_eq!(unwrapper.step(1000 + MAX_DROPOUT - 1), Step::Ahead(SeqNo(first.0 + 2999)));
    }

    #[test]
    fn numbers_before_a_first_number_of_zero_do_not_underflow() {
        let (mut unwrapper, first) = Unwrapper::new(0);
        assert_eq!(unwrapper.step(65100), Step::Behind(SeqNo(first.0 - 436)));
    }

    #[test]
    fn a_thousand_wraps_keep_count() {
        let (mut unwrapper, first) = Unwrapper::new(0);
        let mut last = first;
        for n in 1..=65_536_000u64 / 2048 {
            let [.., a, b] = (n * 2048).to_be_bytes();
            let Step::Ahead(seq) = unwrapper.step(u16::from_be_bytes([a, b])) else { panic!("step {n}") };
            assert_eq!(seq.0, last.0 + 2048);
            last = seq;
        }
        assert_eq!(last.0 - first.0, 65_536_000);
    }
}
