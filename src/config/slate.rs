//! Reads the file of `relay.slate_file`: an H.264 stream of one picture ([`Still`]).

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use guest_relay_muxer::{MAX_STILL_BYTES, Still, StillError};

/// Why there is no slate.
#[derive(Debug)]
pub(super) enum SlateError {
    Read(io::Error),
    NotAFile,
    Picture(StillError),
}

impl fmt::Display for SlateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "the file cannot be read: {error}"),
            Self::NotAFile => f.write_str("this is not a file"),
            Self::Picture(error) => write!(f, "the file is no slate: {error}"),
        }
    }
}

/// Reads at most one byte more than a slate may have.
pub(super) fn read(path: &Path) -> Result<Still, SlateError> {
    // Opening a pipe would wait for a writer.
    if !path.metadata().map_err(SlateError::Read)?.is_file() {
        return Err(SlateError::NotAFile);
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_STILL_BYTES + 1).expect("a megabyte");
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(SlateError::Read)?;
    Still::parse(&bytes).map_err(SlateError::Picture)
}
