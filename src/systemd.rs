//! What systemd asks of a service, by hand: the notify protocol of sd_notify(3) (readiness, watchdog, stopping), its file
//! descriptor store, and the priority prefixes of sd-daemon(3) on stderr.
//!
//! Input: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`, `LISTEN_FDS` and its like, `JOURNAL_STREAM`. Output: one datagram a
//! message, on a Unix socket that may live in the file system or in the abstract name space. Without systemd nothing is sent.
//!
//! What is kept over a restart: a connection together with a memory file that holds its state, under one name, so that neither
//! is ever there alone. The store takes both by one message, and forgets both by one.
//!
//! A message that cannot be sent is dropped: the service manager then does what it does with a silent service, and a
//! guest's session does not depend on it. Those of the store wait [`STORE_WAIT`] for their place, and tell when they get
//! none. Bounds: no queue; a full socket drops the message; [`KEPT_MAX`] bytes of a memory file.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// How long a message of the store waits for its place in the service manager's queue, and the end of the process for the
/// service manager to have them all.
const STORE_WAIT: Duration = Duration::from_secs(1);
/// The largest memory file that is read.
const KEPT_MAX: u64 = 16 << 20;

/// A variable of the environment.
pub type Variable<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The service manager's end, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says. `pid` is this process: a watchdog that is meant for another one is not ours.
    pub fn from_environment(variable: Variable<'_>, pid: u32) -> Self {
        let Some(to) = variable("NOTIFY_SOCKET").and_then(|name| open(&name)) else {
            return Self::default();
        };
        let text = |name| variable(name).and_then(|value| value.into_string().ok());
        let ours = text("WATCHDOG_PID").is_none_or(|value| value.parse() == Ok(pid));
        let limit = text("WATCHDOG_USEC").and_then(|value| value.parse().ok()).filter(|limit| *limit > 0 && ours);
        Self { to: Some(to), watchdog: limit.map(Duration::from_micros) }
    }

    /// Whether anybody listens.
    pub fn is_watched(&self) -> bool {
        self.to.is_some()
    }

    /// How often [`alive`](Self::alive) is due: half of the time after which the service counts as hung.
    pub fn watchdog_period(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// Guests are served from now on.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The service has just proved that it turns.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// What `systemctl status` shows.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", one_line(status)));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Has the service manager keep a connection and its state for the next process, under `name`.
    pub fn store(&self, name: &str, state: &[u8], connection: &TcpStream) -> io::Result<()> {
        let mut file = File::from(memfd_create("guest-relay", MemfdFlags::CLOEXEC)?);
        file.write_all(state)?;
        self.send_with(&format!("FDSTORE=1\nFDNAME={name}"), &[file.as_fd(), connection.as_fd()])
    }

    /// Has the service manager forget what it keeps under `name`.
    pub fn forget(&self, name: &str) -> io::Result<()> {
        self.send_with(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
    }

    /// Waits until the service manager has read all messages.
    pub fn wait_for_all(&self) -> io::Result<()> {
        let (ours, theirs) = io::pipe()?;
        self.send_with("BARRIER=1", &[theirs.as_fd()])?;
        // It closes the last of the writing ends.
        drop(theirs);
        let limit = Timespec { tv_sec: STORE_WAIT.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: 0 };
        match poll(&mut [PollFd::new(&ours, PollFlags::IN)], Some(&limit))? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }

    fn send_with(&self, message: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some((_, address)) = &self.to else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(address)?;
        socket.set_write_timeout(Some(STORE_WAIT))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(&socket, &[IoSlice::new(message.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.to {
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

/// What the service manager kept under one name.
#[derive(Debug)]
pub struct Kept {
    pub name: String,
    /// A connection, and the bytes that were stored with it; `None` when it is anything else.
    pub connection: Option<(TcpStream, Vec<u8>)>,
}

/// What the service manager kept for this process. To be called once: the descriptors are the caller's from then on.
pub fn kept() -> Vec<Kept> {
    match sd_listen_fds::get() {
        Ok(received) => {
            pairs(received.into_iter().map(|(name, descriptor)| (name.unwrap_or_default(), descriptor.into_std())))
        }
        Err(error) => {
            log::warn!("what the service manager kept cannot be taken: {error}");
            Vec::new()
        }
    }
}

/// Connections with their states, by name.
fn pairs(received: impl Iterator<Item = (String, OwnedFd)>) -> Vec<Kept> {
    let mut parts: Vec<(String, Vec<TcpStream>, Vec<Vec<u8>>)> = Vec::new();
    for (name, descriptor) in received {
        if !parts.iter().any(|(known, ..)| *known == name) {
            parts.push((name.clone(), Vec::new(), Vec::new()));
        }
        let Some((_, connections, states)) = parts.iter_mut().find(|(known, ..)| *known == name) else { continue };
        let file = File::from(descriptor);
        match file.metadata() {
            Ok(metadata) if metadata.file_type().is_socket() => connections.push(TcpStream::from(OwnedFd::from(file))),
            Ok(metadata) if metadata.is_file() && metadata.len() <= KEPT_MAX => {
                let mut state = vec![0; usize::try_from(metadata.len()).unwrap_or(0)];
                if file.read_exact_at(&mut state, 0).is_ok() {
                    states.push(state);
                }
            }
            _ => {}
        }
    }
    let kept = parts.into_iter().map(|(name, mut connections, mut states)| {
        let whole = connections.len() == 1 && states.len() == 1;
        Kept { name, connection: connections.pop().zip(states.pop()).filter(|_| whole) }
    });
    kept.collect()
}

/// A line feed would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

/// `@name` is a name of the abstract name space, `/path` one of the file system; systemd has no other kinds here.
fn open(name: &OsString) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes().split_first()? {
        (b'@', name) => SocketAddr::from_abstract_name(name).ok()?,
        (b'/', _) => SocketAddr::from_pathname(name).ok()?,
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, address))
}

/// Whether stderr is the journal: `JOURNAL_STREAM` names its device and inode, which a child whose stderr was redirected
/// inherits all the same.
pub fn stderr_is_journal(variable: Variable<'_>) -> bool {
    let Some(stream) = variable("JOURNAL_STREAM").and_then(|value| value.into_string().ok()) else {
        return false;
    };
    fs::metadata("/proc/self/fd/2").is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev(), stderr.st_ino()))
}

/// What tells the journal the importance of a line (sd-daemon(3)).
pub fn priority_prefix(level: log::Level) -> &'static str {
    match level {
        log::Level::Error => "<3>",
        log::Level::Warn => "<4>",
        log::Level::Info => "<6>",
        log::Level::Debug | log::Level::Trace => "<7>",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn notifier(socket: &str, further: &[(&str, &str)]) -> Notifier {
        let variable = |name: &str| match name {
            "NOTIFY_SOCKET" => Some(OsString::from(socket)),
            name => further.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value)),
        };
        Notifier::from_environment(&variable, 77)
    }

    fn received(listener: &UnixDatagram) -> String {
        listener.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 512];
        let length = listener.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// The messages as sd_notify(3) writes them.
    #[test]
    fn readiness_watchdog_and_end_are_told_over_an_abstract_socket() {
        let name = format!("guest-relay-notify-{}", std::process::id());
        let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
        let notifier = notifier(&format!("@{name}"), &[]);
        notifier.ready("two\nlines");
        notifier.alive();
        notifier.stopping();
        assert_eq!(received(&listener), "READY=1\nSTATUS=two lines");
        assert_eq!(received(&listener), "WATCHDOG=1");
        assert_eq!(received(&listener), "STOPPING=1");
    }

    #[test]
    fn a_socket_of_the_file_system_works_as_well() {
        let path = std::env::temp_dir().join(format!("guest-relay-notify-{}", std::process::id()));
        let listener = UnixDatagram::bind(&path).unwrap();
        notifier(path.to_str().unwrap(), &[]).status("one guest");
        let message = received(&listener);
        fs::remove_file(&path).unwrap();
        assert_eq!(message, "STATUS=one guest");
    }

    #[test]
    fn the_watchdog_is_fed_twice_as_often_as_it_asks_and_only_if_it_is_ours() {
        for (further, period) in [
            (&[("WATCHDOG_USEC", "20000000")][..], Some(Duration::from_secs(10))),
            (&[("WATCHDOG_USEC", "20000000"), ("WATCHDOG_PID", "77")], Some(Duration::from_secs(10))),
            (&[("WATCHDOG_USEC", "20000000"), ("WATCHDOG_PID", "78")], None),
            (&[("WATCHDOG_USEC", "0")], None),
            (&[("WATCHDOG_USEC", "soon")], None),
            (&[], None),
        ] {
            assert_eq!(notifier("@guest-relay-nobody", further).watchdog_period(), period, "{further:?}");
        }
    }

    #[test]
    fn without_a_service_manager_and_with_one_that_is_gone_nothing_happens() {
        let silent = Notifier::from_environment(&|_| None, 77);
        assert!(!silent.is_watched());
        silent.ready("nobody hears");
        assert!(!notifier("relative/path", &[]).is_watched());
        notifier("@guest-relay-nobody-listens", &[]).alive();
    }

    #[test]
    fn a_stream_that_is_not_our_stderr_is_no_journal() {
        let stderr = fs::metadata("/proc/self/fd/2").unwrap();
        let ours = OsString::from(format!("{}:{}", stderr.st_dev(), stderr.st_ino()));
        assert!(stderr_is_journal(&|_| Some(ours.clone())));
        assert!(!stderr_is_journal(&|_| Some("1:1".into())));
        assert!(!stderr_is_journal(&|_| None));
    }
}
