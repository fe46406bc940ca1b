//! Trickled candidates over WHIP (`application/trickle-ice-sdpfrag`, RFC 8840): checked and otherwise ignored, because
//! a lite agent learns the peer's addresses from its checks.

use std::fmt;

use super::text::{MAX_DESCRIPTION_BYTES, MAX_DESCRIPTION_LINES};

/// Why a fragment was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrickleError {
    /// More than [`MAX_DESCRIPTION_BYTES`] or [`MAX_DESCRIPTION_LINES`].
    TooLarge,
    /// A line that is neither an attribute nor an m-line.
    Syntax,
    /// Another `ice-ufrag`: an ICE restart (RFC 9725 §4.3.3), which is done by a new session here.
    Restart,
}

impl fmt::Display for TrickleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the fragment is too large",
            Self::Syntax => "the fragment is not SDP",
            Self::Restart => "ICE restart is not supported; start a new session",
        })
    }
}

impl std::error::Error for TrickleError {}

/// Checks a fragment from the peer whose ufrag is `remote_ufrag`; where that is not known, its form alone.
pub fn check_trickle(fragment: &str, remote_ufrag: Option<&str>) -> Result<(), TrickleError> {
    if fragment.len() > MAX_DESCRIPTION_BYTES {
        return Err(TrickleError::TooLarge);
    }
    for (index, line) in fragment.lines().enumerate() {
        if index >= MAX_DESCRIPTION_LINES {
            return Err(TrickleError::TooLarge);
        }
        if let Some(ufrag) = line.strip_prefix("a=ice-ufrag:")
            && remote_ufrag.is_some_and(|known| known != ufrag.trim())
        {
            return Err(TrickleError::Restart);
        }
        if !(line.starts_with("a=") || line.starts_with("m=") || line.is_empty()) {
            return Err(TrickleError::Syntax);
        }
    }
    Ok(())
}
