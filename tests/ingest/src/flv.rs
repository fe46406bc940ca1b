//! An FLV file of what a publisher sent (FLV 10.1 annex E.3), tag bodies and timestamps untouched.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

const DATA_FRAME: &[u8] = b"\x02\x00\x0d@setDataFrame";

/// The file lags behind by this much media at most, so that a stopped ingest leaves a usable one.
const FLUSH_MS: u32 = 500;

pub(crate) struct FlvFile {
    out: BufWriter<File>,
    flushed_at: u32,
}

impl FlvFile {
    pub(crate) fn create(path: &Path) -> io::Result<FlvFile> {
        let mut out = BufWriter::new(File::create(path)?);
        // signature, version 1, audio and video present, header size 9, size of the tag before the first
        out.write_all(b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00")?;
        Ok(FlvFile { out, flushed_at: 0 })
    }

    /// Appends the body of an RTMP message of type 8, 9 or 18.
    pub(crate) fn write(&mut self, type_id: u8, timestamp: u32, body: &[u8]) -> io::Result<()> {
        let body = if type_id == 18 { body.strip_prefix(DATA_FRAME).unwrap_or(body) } else { body };
        let length = u32::try_from(body.len()).expect("at most 10 MiB");
        let [_, l2, l1, l0] = length.to_be_bytes();
        let [t3, t2, t1, t0] = timestamp.to_be_bytes();
        self.out.write_all(&[type_id, l2, l1, l0, t2, t1, t0, t3, 0, 0, 0])?;
        self.out.write_all(body)?;
        self.out.write_all(&(length + 11).to_be_bytes())?;
        if timestamp.abs_diff(self.flushed_at) >= FLUSH_MS {
            self.flushed_at = timestamp;
            self.out.flush()?;
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
