//! One connection to the RTMP server: TCP, handshake, connect command; nothing is published. Blocking.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::findings::Rtmp;
use crate::rtmp::{Greeted, Greeting, Target};

/// For connecting, and between bytes.
const TIMEOUT: Duration = Duration::from_secs(3);
/// A server that talks more than this before it accepts a connect command is none.
const READS_MAX: usize = 64;

pub(super) fn greet(target: &Target) -> Rtmp {
    let server = format!("{}:{}", target.host(), target.port());
    match connect(target) {
        Ok(stream) => match shake_hands(stream, target) {
            Ok(()) => Rtmp::Connected(server),
            Err(reason) => Rtmp::NotRtmp(server, reason),
        },
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Rtmp::Unreachable(server, "nothing listens there".to_owned())
        }
        Err(error) => Rtmp::Unreachable(server, error.to_string()),
    }
}

fn connect(target: &Target) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (target.host(), target.port()).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn shake_hands(mut stream: TcpStream, target: &Target) -> Result<(), String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("it says nothing for {} s", TIMEOUT.as_secs()),
        _ => error.to_string(),
    };
    stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
    let mut out = Vec::new();
    // The handshake's filling need not be random for anybody.
    let mut greeting = Greeting::start(target.clone(), 0, &mut out);
    let mut buffer = [0; 4096];
    for _ in 0..READS_MAX {
        stream.write_all(&out).map_err(failed)?;
        out.clear();
        let length = stream.read(&mut buffer).map_err(failed)?;
        if length == 0 {
            return Err("it closes the connection".to_owned());
        }
        let bytes = buffer.get(..length).expect("read returns at most the buffer");
        match greeting.handle_bytes(bytes, &mut out).map_err(|error| error.to_string())? {
            Greeted::NotYet => {}
            Greeted::Accepted => return Ok(()),
            Greeted::Rejected(code) => return Err(format!("it refuses the application: {code}")),
        }
    }
    Err("it talks on and accepts nothing".to_owned())
}
