//! From text to lines, behind limits: the step before anything is understood.
//!
//! The `sdp` crate refuses a whole description for one line that nobody here reads: an origin with a negative number, a
//! protocol or a medium that it does not know, a bandwidth that is no integer. So it is given the lines that matter:
//! - `m=` lines are read here (RFC 8866 §5.14). The crate counts one for each, and what was read takes its place;
//! - of `o=` and `t=` it is told that they are there, of lines that stand for people or for multicast nothing.

use std::borrow::Cow;
use std::fmt;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use guest_relay_muxer::TrackKind;
use sdp::SessionDescription;
use sdp::description::media::{MediaName, RangedPort};

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

/// The kind that an m-line of this media name is.
pub(super) fn kind_of(media: &str) -> Option<TrackKind> {
    match media {
        "audio" => Some(TrackKind::Audio),
        "video" => Some(TrackKind::Video),
        _ => None,
    }
}

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
    let mut names = Vec::new();
    let mut wanted = String::with_capacity(bytes);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("m=") {
            names.push(media_name(name).map_err(|fault| TextError::Syntax(shortened(&format!("{fault} in {line}"))))?);
        }
        if let Some(line) = for_the_crate(line) {
            wanted.push_str(&line);
            wanted.push('\n');
        }
    }
    let mut description =
        catch_unwind(AssertUnwindSafe(|| SessionDescription::unmarshal(&mut Cursor::new(wanted.as_bytes()))))
            .map_err(|_| TextError::ParserPanicked)?
            .map_err(|error| TextError::Syntax(shortened(&error.to_string())))?;
    if description.media_descriptions.len() != names.len() {
        return Err(TextError::Syntax("m-lines out of place".to_owned()));
    }
    for (media, name) in description.media_descriptions.iter_mut().zip(names) {
        media.media_name = name;
    }
    Ok(description)
}

/// A line as the crate gets it; `None`: not at all.
fn for_the_crate(line: &str) -> Option<Cow<'_, str>> {
    match line.get(..2) {
        Some("m=") => Some("m=application 9 UDP 0".into()),
        Some("o=") => Some("o=- 0 0 IN IP4 0.0.0.0".into()),
        Some("t=") => Some("t=0 0".into()),
        Some("i=" | "u=" | "e=" | "p=" | "c=" | "b=" | "r=" | "z=" | "k=") => None,
        _ => Some(line.into()),
    }
}

/// `<media> <port>["/"<number>] <proto> <fmt> ...` (RFC 8866 §5.14), whatever media and protocol it is; of audio and video
/// over RTP a format is a payload type, which has 7 bits.
fn media_name(value: &str) -> Result<MediaName, &'static str> {
    let mut fields = value.split_ascii_whitespace();
    let (Some(media), Some(port), Some(proto)) = (fields.next(), fields.next(), fields.next()) else {
        return Err("too few fields");
    };
    let formats: Vec<String> = fields.map(str::to_owned).collect();
    if formats.is_empty() {
        return Err("no format");
    }
    let (port, range) = match port.split_once('/') {
        Some((port, range)) => (port, Some(range)),
        None => (port, None),
    };
    let number = |text: &str| {
        let number = text.parse::<u16>().ok().and_then(|number| isize::try_from(number).ok());
        number.ok_or("an impossible port")
    };
    let port = RangedPort { value: number(port)?, range: range.map(number).transpose()? };
    let protos: Vec<String> = proto.split('/').map(str::to_owned).collect();
    let is_rtp = kind_of(media).is_some() && protos.iter().any(|part| part == "RTP");
    if is_rtp && !formats.iter().all(|format| format.parse().is_ok_and(|number: u8| number < 128)) {
        return Err("an impossible payload type");
    }
    Ok(MediaName { media: media.to_owned(), port, protos, formats })
}

/// What goes into an error text: printable, one line, not the peer's whole description.
fn shortened(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(80).collect()
}
