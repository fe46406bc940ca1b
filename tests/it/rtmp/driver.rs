//! A `TcpStream` around [`Publisher`], and the tags of an FLV file to feed it. Time is the caller's: tests let it run
//! ahead of the clock.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use guest_relay::rtmp::{Disconnected, Event, Output, Publisher};
use guest_relay_muxer::bytes::{Reader, Truncated};
use guest_relay_muxer::{Frame, MediaTime, Tag, TagKind};

/// A publisher and its socket.
pub(crate) struct Driver {
    pub(crate) publisher: Publisher,
    pub(crate) now: Instant,
    stream: Option<TcpStream>,
    /// The connection before: for as long as it may take the server to read its end.
    closing: Option<TcpStream>,
    pub(crate) events: Vec<Event>,
    pub(crate) keyframe_requests: usize,
}

impl Driver {
    pub(crate) fn new(publisher: Publisher, now: Instant) -> Driver {
        Driver { publisher, now, stream: None, closing: None, events: Vec::new(), keyframe_requests: 0 }
    }

    /// Does what is due and what the socket allows, without blocking.
    pub(crate) fn turn(&mut self) {
        let now = self.now;
        if self.publisher.poll_timeout().is_some_and(|at| at <= now) {
            self.publisher.handle_timeout(now);
        }
        self.drain_outputs();
        let gone = match &mut self.stream {
            Some(stream) => {
                read(&mut self.publisher, stream, now).and_then(|()| write(&mut self.publisher, stream, now))
            }
            None => Ok(()),
        };
        if let Err(error) = gone {
            self.stream = None;
            self.publisher.handle_disconnected(Disconnected::from(&error), now);
        }
        self.drain_outputs();
    }

    fn drain_outputs(&mut self) {
        while let Some(output) = self.publisher.poll_output() {
            match output {
                Output::Connect => self.connect(),
                Output::Disconnect => self.closing = self.stream.take().map(close),
                Output::KeyframeNeeded => self.keyframe_requests += 1,
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    /// Blocks: the servers are on loopback.
    fn connect(&mut self) {
        let target = self.publisher.target();
        let stream = TcpStream::connect((target.host(), target.port()));
        match stream.and_then(|stream| stream.set_nonblocking(true).and(stream.set_nodelay(true)).map(|()| stream)) {
            Ok(stream) => {
                self.stream = Some(stream);
                self.publisher.handle_connected(self.now);
            }
            Err(error) => self.publisher.handle_disconnected(Disconnected::from(&error), self.now),
        }
    }

    /// Turns without letting time pass until `reached`; false after a minute of the real clock.
    pub(crate) fn settle(&mut self, mut reached: impl FnMut(&mut Driver) -> bool) -> bool {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            self.turn();
            if reached(self) {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn push(&mut self, tag: Tag, body: &[u8]) {
        self.publisher.push(tag, body, self.now);
    }
}

/// As the daemon does, the caller keeps the stream: one that is dropped would reset the connection before the server has
/// read its end.
pub(crate) fn close(stream: TcpStream) -> TcpStream {
    let _ = stream.shutdown(Shutdown::Write);
    stream
}

fn read(publisher: &mut Publisher, stream: &mut TcpStream, now: Instant) -> io::Result<()> {
    let mut bytes = [0; 4096];
    // bounded: the socket does not block, and the server is on loopback
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => publisher.handle_bytes(bytes.get(..count).expect("at most the buffer"), now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn write(publisher: &mut Publisher, stream: &mut TcpStream, now: Instant) -> io::Result<()> {
    // bounded: the socket does not block
    while !publisher.write_buffer().is_empty() {
        match stream.write(publisher.write_buffer()) {
            Ok(count) => publisher.handle_written(count, now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The tags of an FLV file that the muxer could have made: H.264 and Opus, metadata. Others are left out.
pub(crate) fn flv_tags(file: &[u8]) -> Result<Vec<(Tag, Vec<u8>)>, Truncated> {
    let mut reader = Reader::new(file);
    reader.take(13)?;
    let mut tags = Vec::new();
    while !reader.is_empty() {
        let kind = reader.u8()?;
        let len = usize::try_from(reader.u24()?).expect("24 bits");
        let low = reader.u24()?;
        let high = u32::from(reader.u8()?);
        reader.u24()?;
        let body = reader.take(len)?;
        reader.u32()?;
        let (kind, frame) = match (kind, body) {
            (18, _) => (TagKind::Script, Frame::Metadata),
            (9, [0x17, 0, ..]) => (TagKind::Video, Frame::VideoSequenceHeader),
            (9, [0x17, 1, ..]) => (TagKind::Video, Frame::Keyframe),
            (9, [0x27, 1, ..]) => (TagKind::Video, Frame::InterFrame),
            (8, [0x90, ..]) => (TagKind::Audio, Frame::AudioSequenceHeader),
            (8, [0x91, ..]) => (TagKind::Audio, Frame::Audio),
            _ => continue,
        };
        let dts = MediaTime::from_millis(i64::from(high << 24 | low));
        tags.push((Tag { kind, frame, dts, len }, body.to_vec()));
    }
    Ok(tags)
}
