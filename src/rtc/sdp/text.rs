//! From text to lines, behind limits: the step before anything is understood.

use std::fmt;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sdp::SessionDescription;

/// Longest description that is looked at.
pub const MAX_DESCRIPTION_BYTES: usize = 64 * 1024;
/// Most lines of a description that is looked at.
pub const MAX_DESCRIPTION_LINES: usize = 2000;

/// Why a text is no session description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextError {
    /// More than [`MAX_DESCRIPTION_BYTES`] or [`MAX_DESCRIPTION_LINES`].
    TooLarge {
        /// Bytes of the text.
        bytes: usize,
        /// Its lines, counted as far as the bytes allow.
        lines: usize,
    },
    /// The grammar is another.
    Syntax(String),
    /// The `sdp` crate panicked on it.
    ParserPanicked,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, lines } => write!(
                f,
                "the SDP has {bytes} bytes and {lines} lines; {MAX_DESCRIPTION_BYTES} and {MAX_DESCRIPTION_LINES} are accepted"
            ),
            Self::Syntax(detail) => write!(f, "this is not SDP: {detail}"),
            Self::ParserPanicked => write!(f, "this is not SDP"),
        }
    }
}

impl std::error::Error for TextError {}

/// Reads the lines, after their number and size were checked.
pub(super) fn parse_lines(text: &str) -> Result<SessionDescription, TextError> {
    let bytes = text.len();
    let within = text.get(..MAX_DESCRIPTION_BYTES).unwrap_or(text);
    let lines = within.bytes().filter(|byte| *byte == b'\n').count();
    if bytes > MAX_DESCRIPTION_BYTES || lines > MAX_DESCRIPTION_LINES {
        return Err(TextError::TooLarge { bytes, lines });
    }
    // Parts of an offer come back in the answer: no control character may come back with them.
    let stray_control =
        text.replace("\r\n", "\n").bytes().any(|byte| byte.is_ascii_control() && !matches!(byte, b'\n' | b'\t'));
    if stray_control {
        return Err(TextError::Syntax("control characters".to_owned()));
    }
    catch_unwind(AssertUnwindSafe(|| SessionDescription::unmarshal(&mut Cursor::new(text.as_bytes()))))
        .map_err(|_| TextError::ParserPanicked)?
        .map_err(|error| TextError::Syntax(shortened(&error.to_string())))
}

/// What goes into an error text: printable, one line, not the peer's whole description.
fn shortened(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(80).collect()
}
