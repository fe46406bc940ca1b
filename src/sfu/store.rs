//! The state file: which guest has which session at the SFU, so that a restarted daemon pulls every living guest again
//! without the guest doing anything. JSON, for the operator to read; nothing in it opens anything at the SFU without the
//! app's secret, which is not in it. (A resource id does end its guest's session, therefore mode 0600.)
//!
//! ```text
//! {"version": 1, "sessions": [{"guest": "guest1", "resource": "<32 hex>", "etag": "...", "path": "calls",
//!   "ufrag": "...", "session_id": "<32 hex>", "tracks": [{"kind": "video", "mid": "1", "name": "video"}, ...]}]}
//! ```
//!
//! `ufrag` may be missing: earlier versions wrote none.
//!
//! A file is replaced as a whole: written beside it, synced, renamed, so that at every moment there is the old or the new
//! one. Whatever cannot be used of a file that is read (of another version, cut, edited badly, hostile) is left out, with
//! a warning; the daemon starts all the same.
//!
//! Bounds: [`FILE_MAX`] bytes, one session for each guest, [`TRACKS_MAX`] tracks.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use guest_relay_muxer::TrackKind;
use serde::{Deserialize, Serialize};

use crate::guest::GUESTS_MAX;
use crate::guest::id::{GuestId, ResourceId};
use crate::sfu::api::MID_MAX;
use crate::sfu::client::is_session_id;

/// Longest file that is read, in bytes; a session takes some 300.
pub const FILE_MAX: u64 = 256 * 1024;
/// Tracks of a session: one of each kind.
pub const TRACKS_MAX: usize = 2;
const VERSION: u32 = 1;
const NAME_MAX: usize = 64;
const ETAG_MAX: usize = 64;
const UFRAG_MAX: usize = 256;

/// One guest's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SfuSession {
    pub guest: GuestId,
    /// Names the session in its URL: the guest's goodbye after a restart still finds it.
    pub resource: ResourceId,
    /// Entity tag of the ICE session.
    pub etag: String,
    /// Of the guest's own ICE session; not known of sessions that an earlier version wrote down.
    pub ufrag: Option<String>,
    /// The guest's session at the SFU.
    pub session_id: String,
    pub tracks: Vec<Track>,
}

/// One track of a session at the SFU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    pub kind: TrackKind,
    pub mid: String,
    pub name: String,
}

/// Why the state was not written.
#[derive(Debug)]
pub struct StoreError {
    /// The file.
    pub path: PathBuf,
    pub error: io::Error,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(
            f,
            "cannot write {path}: {}; a restart would lose the remote guests; check relay.state_file and the directory's permissions",
            self.error
        )
    }
}

impl std::error::Error for StoreError {}

/// What a state file held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    pub sessions: Vec<SfuSession>,
    /// What could not be used, one line each, for the log.
    pub warnings: Vec<String>,
}

/// The state file of this daemon. All calls block.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Revision of the state that the file holds; held while it is written.
    written: Mutex<u64>,
}

impl Store {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), written: Mutex::new(0) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file. That there is none is nothing to warn of.
    pub fn load(&self) -> Loaded {
        match read(&self.path) {
            Ok(text) => parse(&text, &self.path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Loaded::default(),
            Err(error) => nothing(&self.path, &format!("it cannot be read: {error}")),
        }
    }

    /// Replaces the file. `revision` counts the changes of the state from 1: of two saves that overtake each other on
    /// their way to a worker thread the newer one stays.
    pub fn save(&self, revision: u64, sessions: &[SfuSession]) -> Result<(), StoreError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if revision <= *written {
            return Ok(());
        }
        let text = to_json(sessions);
        replace(&self.path, &text).map_err(|error| StoreError { path: self.path.clone(), error })?;
        *written = revision;
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct StateFile {
    version: u32,
    sessions: Vec<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct SessionEntry {
    guest: String,
    resource: String,
    etag: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ufrag: Option<String>,
    #[serde(flatten)]
    path: PathEntry,
}

/// How the guest's media comes. The direct path ends with the daemon: there is nothing to keep of it.
#[derive(Serialize, Deserialize)]
#[serde(tag = "path", rename_all = "lowercase")]
enum PathEntry {
    Calls { session_id: String, tracks: Vec<TrackEntry> },
}

#[derive(Serialize, Deserialize)]
struct TrackEntry {
    kind: KindEntry,
    mid: String,
    name: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindEntry {
    Audio,
    Video,
}

impl From<&SfuSession> for SessionEntry {
    fn from(session: &SfuSession) -> Self {
        let tracks = session.tracks.iter().map(|track| TrackEntry {
            kind: match track.kind {
                TrackKind::Audio => KindEntry::Audio,
                TrackKind::Video => KindEntry::Video,
            },
            mid: track.mid.clone(),
            name: track.name.clone(),
        });
        Self {
            guest: session.guest.as_str().to_owned(),
            resource: session.resource.as_str().to_owned(),
            etag: session.etag.clone(),
            ufrag: session.ufrag.clone(),
            path: PathEntry::Calls { session_id: session.session_id.clone(), tracks: tracks.collect() },
        }
    }
}

impl SessionEntry {
    /// Everything in a file is checked as if a guest had sent it.
    fn check(self) -> Result<SfuSession, &'static str> {
        let guest = GuestId::parse(&self.guest).map_err(|_| "its guest is no guest id")?;
        let resource = ResourceId::parse(&self.resource).ok_or("its resource is none")?;
        let in_etag = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if !(1..=ETAG_MAX).contains(&self.etag.len()) || !self.etag.bytes().all(in_etag) {
            return Err("its etag is none");
        }
        // RFC 8839 §5.4.
        let in_ufrag = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        let is_ufrag = |text: &String| (4..=UFRAG_MAX).contains(&text.len()) && text.bytes().all(in_ufrag);
        if self.ufrag.as_ref().is_some_and(|ufrag| !is_ufrag(ufrag)) {
            return Err("its ufrag is none");
        }
        let PathEntry::Calls { session_id, tracks } = self.path;
        if !is_session_id(&session_id) {
            return Err("its session_id is none");
        }
        if !(1..=TRACKS_MAX).contains(&tracks.len()) {
            return Err("it has no tracks, or too many");
        }
        let tracks: Vec<_> = tracks.into_iter().map(TrackEntry::check).collect::<Result<_, _>>()?;
        if let [first, second] = tracks.as_slice()
            && first.kind == second.kind
        {
            return Err("it has two tracks of one kind");
        }
        Ok(SfuSession { guest, resource, etag: self.etag, ufrag: self.ufrag, session_id, tracks })
    }
}

impl TrackEntry {
    fn check(self) -> Result<Track, &'static str> {
        let is_text =
            |text: &str, max| (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_text(&self.mid, MID_MAX) || !is_text(&self.name, NAME_MAX) {
            return Err("a track's mid or name is empty, too long or not printable");
        }
        let kind = match self.kind {
            KindEntry::Audio => TrackKind::Audio,
            KindEntry::Video => TrackKind::Video,
        };
        Ok(Track { kind, mid: self.mid, name: self.name })
    }
}

fn to_json(sessions: &[SfuSession]) -> Vec<u8> {
    let entry = |session| serde_json::to_value(SessionEntry::from(session));
    let entries = sessions.iter().take(GUESTS_MAX).map(entry);
    let file = StateFile {
        version: VERSION,
        sessions: entries.collect::<Result<_, _>>().expect("strings and lists become JSON"),
    };
    let mut text = serde_json::to_vec_pretty(&file).expect("strings and lists become JSON");
    text.push(b'\n');
    text
}

fn nothing(path: &Path, why: &str) -> Loaded {
    let path = path.display();
    let warning = format!("{path} is not used, remote guests have to join again: {why}");
    Loaded { sessions: Vec::new(), warnings: vec![warning] }
}

fn parse(text: &[u8], path: &Path) -> Loaded {
    let file: StateFile = match serde_json::from_slice(text) {
        Ok(file) => file,
        // The text of the error could repeat what a file holds, at any length.
        Err(error) => {
            let why = format!("it is no state file (line {}, column {})", error.line(), error.column());
            return nothing(path, &why);
        }
    };
    if file.version != VERSION {
        return nothing(path, &format!("it has version {}, this program reads {VERSION}", file.version));
    }
    let mut loaded = Loaded::default();
    let mut left_out = |number: usize, why: &str| {
        let path = path.display();
        loaded.warnings.push(format!("{path}: session {number} is left out: {why}"));
    };
    for (number, entry) in (1..).zip(file.sessions) {
        if number > GUESTS_MAX {
            left_out(number, "there are more than there can be guests");
            break;
        }
        let session = match serde_json::from_value::<SessionEntry>(entry) {
            Ok(entry) => entry.check(),
            Err(_) => Err("it lacks something, or has something of the wrong type"),
        };
        match session {
            Ok(session) if loaded.sessions.iter().any(|known| known.guest == session.guest) => {
                left_out(number, "its guest has another one");
            }
            Ok(session) => loaded.sessions.push(session),
            Err(why) => left_out(number, why),
        }
    }
    loaded
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    file.take(FILE_MAX + 1).read_to_end(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|length| length <= FILE_MAX) {
        return Ok(text);
    }
    let why = format!("it is longer than {FILE_MAX} bytes");
    Err(io::Error::new(io::ErrorKind::FileTooLarge, why))
}

/// The name under which a new file is written, in the same directory: a rename across file systems is none.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// rename(2) replaces atomically; what it names has to be on the disk before, and the directory after.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = beside(path);
    // Left over from a crash in the middle of this.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write_synced(&new, text).and_then(|()| fs::rename(&new, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn write_synced(path: &Path, text: &[u8]) -> io::Result<()> {
    // `create_new` follows no symbolic link that somebody may have put there.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // Whatever the umask says.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
