//! A body in the chunked transfer coding (RFC 9112 §7.1), read strictly: bytes in, the body or [`Malformed`] out. Sans-IO.
//!
//! ```text
//!        digits, ;extension, CR LF      size bytes
//! Size ───────────────────────────▶ Data ─────────▶ its CR LF ─▶ Size
//!   └── size 0 ─▶ the last CR LF ─▶ Done
//! ```
//! Strict, because a reader in front of us that sees another end of the body would see another request behind it: hex digits
//! alone, no white space, no bare CR or LF, no trailer fields (which nothing here reads).
//!
//! Bounds: the body by `max`, a size line by [`LINE_MAX`], everything around the body by [`AROUND_MAX`].

use std::fmt;

/// Longest size line, with its extension.
pub const LINE_MAX: usize = 256;
/// Most bytes of size lines and line ends; a client that sends a chunk for each packet needs a few hundred.
pub const AROUND_MAX: usize = 64 * 1024;
/// Digits of a size; more are leading zeros or beyond every bound.
const DIGITS_MAX: u8 = 8;

/// Why a chunked body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// A size that is not one to eight hex digits.
    Size,
    /// A byte in an extension that is not printable ASCII.
    Extension,
    /// A size line beyond [`LINE_MAX`].
    LineTooLong,
    /// Not CR LF where a line or a chunk ends.
    LineEnd,
    /// A trailer field.
    Trailer,
    /// More than [`AROUND_MAX`] bytes around the body.
    TooMuchAround,
    /// More body than allowed.
    TooLong,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size => f.write_str("the size of a chunk must be one to eight hex digits"),
            Self::Extension => f.write_str("a chunk extension holds a byte that is not printable ASCII"),
            Self::LineTooLong => write!(f, "the line with the size of a chunk is longer than {LINE_MAX} bytes"),
            Self::LineEnd => f.write_str("a chunk and the line with its size end with CR LF"),
            Self::Trailer => f.write_str("trailer fields are not read here"),
            Self::TooMuchAround => write!(f, "the chunks are too small: more than {AROUND_MAX} bytes around the body"),
            Self::TooLong => f.write_str("the body is too long"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size {
        size: usize,
        digits: u8,
    },
    Extension {
        size: usize,
    },
    /// The LF of a size line.
    SizeEnd {
        size: usize,
    },
    Data {
        left: usize,
    },
    DataCr,
    DataLf,
    LastCr,
    LastLf,
    Done,
}

const SIZE: State = State::Size { size: 0, digits: 0 };

/// Collects a body.
#[derive(Debug)]
pub struct ChunkedBody {
    body: Vec<u8>,
    max: usize,
    state: State,
    /// Bytes of the size line so far.
    line: usize,
    around: usize,
}

impl ChunkedBody {
    /// Nothing read yet of a body of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { body: Vec::new(), max, state: SIZE, line: 0, around: 0 }
    }

    /// Takes what was received; `true` once the body is complete. What follows it is not looked at.
    pub fn push(&mut self, mut received: &[u8]) -> Result<bool, Malformed> {
        while self.state != State::Done {
            if let State::Data { left } = self.state {
                let (now, rest) = received.split_at(left.min(received.len()));
                self.body.extend_from_slice(now);
                received = rest;
                self.state = if now.len() == left { State::DataCr } else { State::Data { left: left - now.len() } };
            }
            let Some((&byte, rest)) = received.split_first() else { break };
            received = rest;
            self.around += 1;
            if self.around > AROUND_MAX {
                return Err(Malformed::TooMuchAround);
            }
            self.state = self.step(byte)?;
        }
        Ok(self.state == State::Done)
    }

    /// The body so far.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// One byte around the body.
    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        self.line += 1;
        if self.line > LINE_MAX {
            return Err(Malformed::LineTooLong);
        }
        match (self.state, byte) {
            (State::Size { size, digits: 1.. } | State::Extension { size }, b'\r') => Ok(State::SizeEnd { size }),
            (State::Size { size, digits: 1.. }, b';') => Ok(State::Extension { size }),
            (State::Size { size, digits: digits @ ..DIGITS_MAX }, _) => {
                let digit = char::from(byte).to_digit(16).and_then(|digit| usize::try_from(digit).ok());
                Ok(State::Size { size: size * 16 + digit.ok_or(Malformed::Size)?, digits: digits + 1 })
            }
            (State::Size { .. }, _) => Err(Malformed::Size),
            (State::Extension { .. }, b'\t' | b' '..=b'~') => Ok(self.state),
            (State::Extension { .. }, b'\n') => Err(Malformed::LineEnd),
            (State::Extension { .. }, _) => Err(Malformed::Extension),
            (State::SizeEnd { size: 0 }, b'\n') => self.begin_line(State::LastCr),
            (State::SizeEnd { size }, b'\n') if size <= self.max - self.body.len() => {
                self.begin_line(State::Data { left: size })
            }
            (State::SizeEnd { .. }, b'\n') => Err(Malformed::TooLong),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => self.begin_line(SIZE),
            (State::LastCr, b'\r') => Ok(State::LastLf),
            (State::LastLf, b'\n') => Ok(State::Done),
            (State::LastCr, byte) if byte.is_ascii_graphic() => Err(Malformed::Trailer),
            _ => Err(Malformed::LineEnd),
        }
    }

    fn begin_line(&mut self, next: State) -> Result<State, Malformed> {
        self.line = 0;
        Ok(next)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The same in one piece and byte by byte.
    fn read(bytes: &[u8], max: usize) -> Result<Option<Vec<u8>>, Malformed> {
        let mut whole = ChunkedBody::new(max);
        let outcome = whole.push(bytes);
        let mut dripped = ChunkedBody::new(max);
        let mut each = Ok(false);
        for byte in bytes {
            each = dripped.push(&[*byte]);
            if each != Ok(false) {
                break;
            }
        }
        assert_eq!(outcome, each, "{}", String::from_utf8_lossy(bytes));
        assert_eq!(whole.body, dripped.body);
        outcome.map(|done| done.then(|| whole.into_body()))
    }

    #[test]
    fn chunks_become_the_body_and_what_follows_is_not_looked_at() {
        // The example of Wikipedia's article on the chunked coding.
        let wiki = b"4\r\nWiki\r\n6\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\n\r\n";
        assert_eq!(read(wiki, 100), Ok(Some(b"Wikipedia in \r\n\r\nchunks.".to_vec())));
        for (bytes, body) in [
            (&b"0\r\n\r\n"[..], &b""[..]),
            (b"00000003\r\nabc\r\n0\r\n\r\n", b"abc"),
            (b"a\r\n0123456789\r\n000\r\n\r\n", b"0123456789"),
            (b"A;name=\"value; x\"\r\n0123456789\r\n0;last\r\n\r\n", b"0123456789"),
            (b"1\r\n\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n", b"\n"),
        ] {
            assert_eq!(read(bytes, 10), Ok(Some(body.to_vec())), "{}", String::from_utf8_lossy(bytes));
        }
        for cut in 0..wiki.len() {
            assert_eq!(read(&wiki[..cut], 100), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn what_another_reader_could_take_for_another_end_is_refused() {
        for (bytes, malformed) in [
            (&b"\r\n"[..], Malformed::Size),
            (b"x\r\n", Malformed::Size),
            (b"0x5\r\n", Malformed::Size),
            (b"+5\r\n", Malformed::Size),
            (b"-5\r\n", Malformed::Size),
            (b" 5\r\n", Malformed::Size),
            (b"5 \r\n", Malformed::Size),
            (b"5\n", Malformed::Size),
            (b"5\t;x\r\n", Malformed::Size),
            (b";x\r\n", Malformed::Size),
            (b"000000005\r\n", Malformed::Size),
            (b"FFFFFFFFFFFFFFFF5\r\n", Malformed::Size),
            (b"\xff\r\n", Malformed::Size),
            (b"5;a\nb\r\n", Malformed::LineEnd),
            (b"5;\0\r\n", Malformed::Extension),
            (b"5;\xe6\r\n", Malformed::Extension),
            (b"5\rhello", Malformed::LineEnd),
            (b"5;x\rhello", Malformed::LineEnd),
            (b"5\r\nhello0\r\n\r\n", Malformed::LineEnd),
            (b"5\r\nhello\n0\r\n\r\n", Malformed::LineEnd),
            (b"5\r\nhello\r0\r\n\r\n", Malformed::LineEnd),
            (b"0\r\n\n", Malformed::LineEnd),
            (b"0\r\n\rX", Malformed::LineEnd),
            (b"0\r\nTrailer: x\r\n\r\n", Malformed::Trailer),
            (b"b\r\n", Malformed::TooLong),
            (b"8\r\n01234567\r\n3\r\n", Malformed::TooLong),
            (b"FFFFFFFF\r\n", Malformed::TooLong),
        ] {
            assert_eq!(read(bytes, 10), Err(malformed), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn size_lines_and_all_that_is_around_the_body_are_bounded() {
        let line = |length: usize| format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(length - 4));
        assert_eq!(read(line(LINE_MAX).as_bytes(), 10), Ok(Some(b"hello".to_vec())));
        assert_eq!(read(line(LINE_MAX + 1).as_bytes(), 10), Err(Malformed::LineTooLong));
        // Each chunk of a byte brings five more.
        let chunks = |count: usize| ["1\r\nx\r\n".repeat(count), "0\r\n\r\n".to_owned()].concat();
        let most = (AROUND_MAX - 5) / 5;
        assert_eq!(read(chunks(most).as_bytes(), 1 << 20).unwrap().unwrap().len(), most);
        assert_eq!(read(chunks(most + 1).as_bytes(), 1 << 20), Err(Malformed::TooMuchAround));
    }
}
