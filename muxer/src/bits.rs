//! The bits of a NAL unit's RBSP (H.264 sections 7.2, 7.3.1 and 9.1): emulation prevention bytes are skipped while
//! reading, nothing is copied. A read past the end, and an Exp-Golomb code of more than 32 bits, is an error.

/// The bits ended inside a syntax element, or the element is longer than any valid one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BitsEnded;

#[derive(Clone, Copy, Debug)]
pub(crate) struct RbspBits<'a> {
    rest: &'a [u8],
    zeros: u8,
    current: u8,
    left: u8,
}

impl<'a> RbspBits<'a> {
    /// Starts at the first bit of `bytes`: what follows the NAL unit header.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, zeros: 0, current: 0, left: 0 }
    }

    fn next_byte(&mut self) -> Result<u8, BitsEnded> {
        let (&byte, rest) = self.rest.split_first().ok_or(BitsEnded)?;
        self.rest = rest;
        if self.zeros >= 2 && byte == 3 {
            self.zeros = 0;
            return self.next_byte();
        }
        self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
        Ok(byte)
    }

    /// One bit.
    pub(crate) fn flag(&mut self) -> Result<bool, BitsEnded> {
        if self.left == 0 {
            self.current = self.next_byte()?;
            self.left = 8;
        }
        self.left -= 1;
        Ok(self.current >> self.left & 1 == 1)
    }

    /// u(n), n up to 32.
    pub(crate) fn u(&mut self, count: u32) -> Result<u32, BitsEnded> {
        let mut value = 0;
        for _ in 0..count.min(32) {
            value = value << 1 | u32::from(self.flag()?);
        }
        Ok(value)
    }

    /// Past so many whole bytes, from a byte's start.
    pub(crate) fn skip_bytes(&mut self, count: u32) -> Result<(), BitsEnded> {
        for _ in 0..count {
            self.next_byte()?;
        }
        Ok(())
    }

    /// ue(v): as many leading zeros as bits after the one, at most 31.
    pub(crate) fn ue(&mut self) -> Result<u32, BitsEnded> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return Err(BitsEnded);
            }
        }
        Ok((1 << zeros) - 1 + self.u(zeros)?)
    }

    /// se(v): 0, 1, -1, 2, -2, ...
    pub(crate) fn se(&mut self) -> Result<i32, BitsEnded> {
        let code = self.ue()?;
        let magnitude = i32::try_from(code.div_ceil(2)).map_err(|_| BitsEnded)?;
        Ok(if code % 2 == 0 { -magnitude } else { magnitude })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_follow_table_9_2_and_9_3() {
        // 1 | 010 | 011 | 00100 | 00101 | 00110 | 00111 | 0001000, then padding.
        let bytes = [0b1010_0110, 0b0100_0010, 0b1001_1000, 0b1110_0010, 0b0000_0000];
        let mut bits = RbspBits::new(&bytes);
        for code in 0..8 {
            assert_eq!(bits.ue(), Ok(code));
        }
        let mut bits = RbspBits::new(&bytes);
        for value in [0, 1, -1, 2, -2, 3, -3, 4] {
            assert_eq!(bits.se(), Ok(value));
        }
    }

    #[test]
    fn the_largest_code_is_read_and_a_longer_one_refused() {
        let largest = [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(RbspBits::new(&largest).ue(), Ok(u32::MAX - 1));
        assert_eq!(RbspBits::new(&[0, 0, 0, 0, 0x80, 0, 0, 0, 0]).ue(), Err(BitsEnded));
        assert_eq!(RbspBits::new(&[0; 64]).ue(), Err(BitsEnded));
    }

    #[test]
    fn emulation_prevention_bytes_are_no_bits() {
        let mut bits = RbspBits::new(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 3]);
        assert_eq!(bits.u(24), Ok(1));
        assert_eq!(bits.u(32), Ok(0));
        assert_eq!(bits.u(8), Ok(3));
        assert_eq!(bits.flag(), Err(BitsEnded));
    }

    #[test]
    fn a_code_cut_short_is_an_error() {
        assert_eq!(RbspBits::new(&[0b0000_1000]).ue(), Err(BitsEnded));
        assert_eq!(RbspBits::new(&[]).flag(), Err(BitsEnded));
    }
}
