//! `config.yml` and environment → one validated, immutable [`Config`].
//!
//! The file may be the one of the application that the relay lives beside: its sections `cloudflare`, `guests` and
//! `mediamtx` are read as they are, sections that are not ours are passed over with a notice. A key that does not exist
//! in one of our own sections (`http`, `rtc`, `relay`, `log`) is a mistake and an error. The environment wins over the
//! file, the file over the defaults.
//!
//! Bounds: a file of at most [`FILE_MAX`] bytes, at most [`GUESTS_MAX`](crate::guest::GUESTS_MAX) guests and [`CANDIDATES_MAX`] addresses.

mod deployment;
mod error;
mod notice;
mod reader;
mod report;
mod sections;
mod slate;
mod tree;
mod values;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub use error::{ConfigError, Place, Problem};
pub use notice::Notice;
pub use values::{CANDIDATES_MAX, Cloudflare, Config, Guest, Http, Idle, Log, MediaMtx, OutputTemplate, Relay, Rtc};

use reader::{Environment, Reader};

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "config.yml";
/// Longest file in bytes.
pub const FILE_MAX: u64 = 256 * 1024;

impl Config {
    /// Reads the file at `path`, or [`DEFAULT_FILE`] when there is one, and lays the environment over it.
    ///
    /// A file that was named must exist; without a file the defaults hold, and a notice says so.
    pub fn load(path: Option<&Path>, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let named = path.is_some();
        let path = path.unwrap_or(Path::new(DEFAULT_FILE));
        let file = path.display().to_string();
        match read(path) {
            Ok((text, mode)) => {
                let mut config = Self::parse(&text, &file, environment)?;
                if mode & 0o077 != 0 && config.has_secrets_not_in(environment) {
                    config.notices.push(Notice {
                        finding: format!("{file} holds a secret and other users may read it (mode {mode:04o})"),
                        remedy: Some(format!("run: chmod 600 {file}")),
                    });
                }
                Ok(config)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !named => {
                let mut config = Self::parse("", &file, environment)?;
                let finding = format!("no {file} here, the defaults hold: guests {}", config.guest_list());
                config.notices.insert(0, Notice::new(finding));
                Ok(config)
            }
            Err(error) => Err(ConfigError {
                problems: vec![Problem {
                    place: Place::File { file, line: None },
                    key: String::new(),
                    problem: format!("the file cannot be read: {error}"),
                    remedy: "check the path given with --config and the file's permissions".to_owned(),
                }],
            }),
        }
    }

    /// Reads the text of a configuration file; `file` names it in messages.
    pub fn parse(text: &str, file: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let environment: Environment<'_> = environment;
        let mut reader = Reader::new(file, environment);
        let root = tree::parse(text, file).map_err(|problem| ConfigError { problems: vec![problem] })?;
        let config = sections::read(&mut reader, root);
        if reader.problems.is_empty() {
            Ok(Self { notices: reader.notices, ..config })
        } else {
            reader.problems.sort_by_key(|problem| match problem.place {
                Place::File { line, .. } => line.unwrap_or(0),
                Place::Environment { .. } => u64::MAX,
            });
            Err(ConfigError { problems: reader.problems })
        }
    }

    /// What `--check-config` prints: the values in force, without secrets, and the notices.
    pub fn check(&self) -> String {
        report::report(self)
    }

    /// Whether a token is in force that the environment does not give, so that the file must have.
    fn has_secrets_not_in(&self, environment: Environment<'_>) -> bool {
        let given = |variable| environment(variable).is_some_and(|value| !value.trim().is_empty());
        (self.cloudflare.api_token.is_some() && !given("CLOUDFLARE_CALLS_API_TOKEN"))
            || (self.cloudflare.turn_api_token.is_some() && !given("CLOUDFLARE_TURN_API_TOKEN"))
    }

    fn guest_list(&self) -> String {
        self.guests.iter().map(|guest| guest.id.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::parse("", DEFAULT_FILE, &|_| None).expect("nothing is wrong with an empty configuration")
    }
}

/// The text of a file, and its permission bits.
fn read(path: &Path) -> io::Result<(String, u32)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    let mut text = String::new();
    file.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {FILE_MAX} bytes")));
    }
    Ok((text, mode))
}
