//! One connection: handshake, control messages, the command conversation, then media until the end
//! (RTMP 1.0 sections 5.2, 5.4 and 7.2, as MediaMTX speaks them). Bytes in, replies out; who moves them is `inlet` for a
//! socket and [`crate::Pipe`] for a test in virtual time.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::amf::{self, Value};
use crate::clock::Clocks;
use crate::flv::FlvFile;
use crate::media;
use crate::path;
use crate::report::{Connection, Event, Frame, Stage};
use crate::tracks::{Step, Tracks};
use crate::wire::{ChunkReader, Message, write_message};
use crate::{SecondPublisher, Shared};

const WINDOW_ACK_SIZE: u32 = 2_500_000;
const CHUNK_SIZE_OUT_U32: u32 = 65_536;
/// What [`write_message`] may use once Set Chunk Size went out.
pub(crate) const CHUNK_SIZE_OUT: usize = 65_536;

/// How a connection ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The publisher broke a rule.
    Refused(String),
    /// The socket ended.
    Io(io::Error),
}

impl End {
    pub(crate) fn refused(reason: impl Into<String>) -> End {
        End::Refused(reason.into())
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => End::refused("timeout"),
            _ => End::Io(error),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Refused(reason) => write!(f, "{reason}"),
            End::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                write!(f, "the publisher left")
            }
            End::Io(error) => write!(f, "{error}"),
        }
    }
}

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handshake {
    C0,
    C1,
    C2,
    Done,
}

pub(crate) struct Session {
    shared: Arc<Shared>,
    id: usize,
    reader: ChunkReader,
    handshake: Handshake,
    /// Bytes for the publisher, and how long they are kept back.
    replies: Vec<u8>,
    delay: Duration,
    messages: u64,
    connected: bool,
    published: bool,
    tracks: Tracks,
    clocks: Clocks,
    /// When the newest bytes came.
    now: Instant,
    /// The publisher's Window Acknowledgement Size; 0 until it sends one.
    ack_window: u64,
    acked: u64,
    flv: Option<FlvFile>,
    tc_url: String,
}

impl Session {
    /// Enters a new connection in the list.
    pub(crate) fn new(shared: &Arc<Shared>, id: usize) -> Session {
        Session {
            shared: Arc::clone(shared),
            id,
            reader: ChunkReader::new(),
            handshake: Handshake::C0,
            replies: Vec::new(),
            delay: Duration::ZERO,
            messages: 0,
            connected: false,
            published: false,
            tracks: Tracks::default(),
            clocks: Clocks::new(shared.options.clock_tolerance),
            now: Instant::now(),
            ack_window: 0,
            acked: 0,
            flv: None,
            tc_url: String::new(),
        }
    }

    /// What came next from the publisher.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8], now: Instant) -> Result<(), End> {
        self.now = now;
        self.reader.push(bytes);
        while self.handshake != Handshake::Done {
            if !self.shake_hands()? {
                return Ok(());
            }
        }
        while let Some(message) = self.reader.message()? {
            self.messages += 1;
            self.handle(&message)?;
        }
        Ok(())
    }

    /// Bytes for the publisher, and how long to keep them back.
    pub(crate) fn take_replies(&mut self) -> (Vec<u8>, Duration) {
        (std::mem::take(&mut self.replies), std::mem::take(&mut self.delay))
    }

    /// Messages so far once track detection is over: each one moves the deadline.
    pub(crate) fn messages_when_ready(&self) -> Option<u64> {
        self.tracks.is_over().then_some(self.messages)
    }

    /// Changes this connection's report and wakes the waiting tests.
    fn report<T>(&self, change: impl FnOnce(&mut Connection) -> T) -> T {
        let mut state = self.shared.lock();
        let result = change(state.connections.get_mut(self.id).expect("connections are never removed"));
        drop(state);
        self.shared.changed.notify_all();
        result
    }

    fn violation(&self, text: &str) {
        let path = self.report(|seen| {
            seen.violations.push(text.into());
            seen.path.clone()
        });
        self.shared.emit(Event::Violation { path, text: text.into() });
    }

    fn send(&mut self, bytes: &[u8]) {
        self.replies.extend_from_slice(bytes);
    }

    /// One step of C0 C1 -> S0 S1 S2 -> C2; false until the bytes for it are there. S2 is C1; C2 should be S1.
    fn shake_hands(&mut self) -> Result<bool, End> {
        match self.handshake {
            Handshake::C0 => {
                let Some([version]) = self.reader.take() else { return Ok(false) };
                if version != 3 {
                    return Err(End::refused(format!("handshake version {version} is not 3")));
                }
                self.handshake = Handshake::C1;
            }
            Handshake::C1 => {
                let Some(c1) = self.reader.take::<1536>() else { return Ok(false) };
                self.send(&[&[3], s1().as_slice(), c1.as_slice()].concat());
                self.handshake = Handshake::C2;
            }
            Handshake::C2 => {
                let Some(c2) = self.reader.take::<1536>() else { return Ok(false) };
                if c2 != s1() {
                    self.violation("C2 is not the echo of S1");
                }
                self.handshake = Handshake::Done;
            }
            Handshake::Done => {}
        }
        Ok(true)
    }

    fn handle(&mut self, message: &Message) -> Result<(), End> {
        let body = message.body.as_slice();
        match message.type_id {
            1 => self.reader.set_chunk_size(u32_body(body)?)?,
            2 => {
                let chunk_stream_id = u32_body(body)?;
                self.reader.abort(chunk_stream_id);
            }
            3 => {
                u32_body(body)?;
                self.report(|seen| seen.keepalives += 1);
            }
            4 => self.user_control(body)?,
            5 => self.ack_window = u64::from(u32_body(body)?),
            6 if body.len() != 5 => return Err(End::refused("invalid body size")),
            6 => {}
            8 | 9 => self.handle_media(message)?,
            18 => self.handle_data(message)?,
            20 => self.handle_command(body)?,
            other => return Err(End::refused(format!("invalid message type: {other}"))),
        }
        self.acknowledge();
        if self.published && self.tracks.handle_message()? {
            self.become_ready()?;
        }
        let bytes_read = self.reader.bytes_read();
        self.report(|seen| seen.bytes_read = bytes_read);
        Ok(())
    }

    fn acknowledge(&mut self) {
        let read = self.reader.bytes_read();
        if self.ack_window > 0 && read - self.acked > self.ack_window {
            self.acked = read;
            let wrapping = u32::try_from(read & u64::from(u32::MAX)).expect("masked");
            self.send(&write_message(2, 3, 0, &wrapping.to_be_bytes(), CHUNK_SIZE_OUT));
        }
    }

    fn user_control(&mut self, body: &[u8]) -> Result<(), End> {
        let Some((event, data)) = body.split_first_chunk::<2>() else {
            return Err(End::refused("not enough bytes"));
        };
        match u16::from_be_bytes(*event) {
            6 => {
                self.report(|seen| seen.keepalives += 1);
                self.send(&write_message(2, 4, 0, &[&[0, 7], data].concat(), CHUNK_SIZE_OUT));
                Ok(())
            }
            0..=4 | 7 | 31 | 32 => Ok(()),
            other => Err(End::refused(format!("invalid user control type: {other}"))),
        }
    }

    fn handle_command(&mut self, body: &[u8]) -> Result<(), End> {
        let values = amf::parse(body).map_err(|error| End::refused(error.to_string()))?;
        let name = values.first().and_then(Value::as_str).ok_or_else(|| End::refused("command without a name"))?;
        let transaction = values.get(1).and_then(Value::as_number).unwrap_or(0.0);
        self.report(|seen| seen.commands.push(name.into()));
        if !self.connected {
            return self.connect(name, transaction, &values);
        }
        match name {
            "createStream" if !self.published => {
                let result =
                    [Value::String("_result".into()), Value::Number(transaction), Value::Null, Value::Number(1.0)];
                self.send(&write_message(3, 20, 0, &amf::write(&result), CHUNK_SIZE_OUT));
                Ok(())
            }
            "publish" if !self.published => match values.get(3).and_then(Value::as_str) {
                Some(stream) => self.publish(stream, transaction),
                None => Err(End::refused("invalid publish command arguments")),
            },
            "FCUnpublish" | "deleteStream" => {
                self.report(|seen| seen.unpublished = true);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn connect(&mut self, name: &str, transaction: f64, values: &[Value]) -> Result<(), End> {
        let info = values.get(2);
        let member = |key| info.and_then(|info| info.member(key)).and_then(Value::as_str);
        let (true, Some(_app), Some(tc_url)) = (name == "connect", member("app"), member("tcUrl")) else {
            return Err(End::refused(format!("invalid connect command ({name})")));
        };
        self.tc_url = tc_url.into();
        self.connected = true;
        if let Some(Value::Object(members)) = info {
            self.report(|seen| seen.connect.clone_from(members));
        }
        let text = |text: &str| Value::String(text.into());
        let reply = [
            text("_result"),
            Value::Number(transaction),
            Value::Object(vec![("fmsVer".into(), text("LNX 9,0,124,2")), ("capabilities".into(), Value::Number(31.0))]),
            Value::Object(vec![
                ("level".into(), text("status")),
                ("code".into(), text("NetConnection.Connect.Success")),
                ("description".into(), text("Connection succeeded.")),
                ("objectEncoding".into(), Value::Number(0.0)),
            ]),
        ];
        let dynamic = [WINDOW_ACK_SIZE.to_be_bytes().as_slice(), &[2]].concat();
        self.send(&write_message(2, 5, 0, &WINDOW_ACK_SIZE.to_be_bytes(), CHUNK_SIZE_OUT));
        self.send(&write_message(2, 6, 0, &dynamic, CHUNK_SIZE_OUT));
        self.send(&write_message(2, 1, 0, &CHUNK_SIZE_OUT_U32.to_be_bytes(), CHUNK_SIZE_OUT));
        self.send(&write_message(3, 20, 0, &amf::write(&reply), CHUNK_SIZE_OUT));
        Ok(())
    }

    fn send_status(&mut self, transaction: f64, level: &str, code: &str) {
        let text = |text: &str| Value::String(text.into());
        let info = vec![
            ("level".into(), text(level)),
            ("code".into(), text(code)),
            ("description".into(), text(if level == "error" { "authentication failed" } else { "publish start" })),
        ];
        let body = amf::write(&[text("onStatus"), Value::Number(transaction), Value::Null, Value::Object(info)]);
        self.send(&write_message(5, 20, 1, &body, CHUNK_SIZE_OUT));
    }

    fn publish(&mut self, stream: &str, transaction: f64) -> Result<(), End> {
        let (path, query) = path::path_and_query(&self.tc_url, stream);
        if let Err(why) = path::check(&path) {
            return Err(End::refused(format!("invalid path name: {why} ({path:?})")));
        }
        if self.shared.options.required_query.as_ref().is_some_and(|required| *required != query) {
            self.delay = self.shared.options.unauthorized_delay;
            self.send_status(transaction, "error", "NetStream.Publish.Unauthorized");
            return Err(End::refused("authentication failed"));
        }
        if self.shared.lock().undeclared.contains(&path) {
            return Err(End::refused(format!("path '{path}' is not configured")));
        }
        self.published = true;
        let peer = self.report(|seen| {
            seen.path = Some(path.clone());
            seen.stage = Stage::Detecting;
            seen.peer
        });
        if let Some(dir) = &self.shared.options.flv_dir {
            let name = path.replace('/', "_");
            let count = {
                let mut state = self.shared.lock();
                let count = state.recordings.entry(name.clone()).or_default();
                *count += 1;
                *count
            };
            let file = if count == 1 { format!("{name}.flv") } else { format!("{name}-{count}.flv") };
            self.flv = Some(FlvFile::create(&dir.join(file))?);
        }
        self.shared.emit(Event::Publishing { peer, path });
        self.send_status(transaction, "status", "NetStream.Publish.Start");
        Ok(())
    }

    fn handle_data(&mut self, message: &Message) -> Result<(), End> {
        let values = amf::parse(&message.body).map_err(|error| End::refused(error.to_string()))?;
        let named = |value: &Value| value.as_str() == Some("onMetaData");
        if let Some(at) = values.iter().position(named) {
            self.report(|seen| seen.metadata = values.get(at + 1).cloned());
        }
        self.record(message)
    }

    fn record(&mut self, message: &Message) -> Result<(), End> {
        match &mut self.flv {
            Some(flv) => Ok(flv.write(message.type_id, message.timestamp, &message.body)?),
            None => Ok(()),
        }
    }

    fn handle_media(&mut self, message: &Message) -> Result<(), End> {
        let body = message.body.as_slice();
        let timestamp = message.timestamp;
        enum Parsed {
            Audio(media::Audio),
            Video(media::Video),
        }
        let parsed =
            if message.type_id == 8 { Parsed::Audio(media::audio(body)?) } else { Parsed::Video(media::video(body)?) };
        if !self.published {
            return Ok(());
        }
        let (keep_frames, keep_bodies) = (self.shared.options.keep_frames, self.shared.options.keep_bodies);
        let mut state = self.shared.lock();
        let seen = state.connections.get_mut(self.id).expect("connections are never removed");
        let noted = seen.violations.len();
        if seen.unpublished {
            seen.violations.push("media after deleteStream".into());
        }
        let step = match parsed {
            Parsed::Audio(audio) => self.tracks.handle_audio(audio, timestamp, seen)?,
            Parsed::Video(video) => self.tracks.handle_video(video, timestamp, seen)?,
        };
        let mut late_clock = None;
        if let Step::Frame { kind, key } = step {
            late_clock = self.clocks.handle_frame(kind, timestamp, self.now);
            seen.late_clocks.extend(late_clock.clone());
            if keep_frames {
                let kept = if keep_bodies { body.to_vec() } else { Vec::new() };
                seen.frames.push(Frame { kind, key, timestamp, arrived: self.now, len: body.len(), body: kept });
            }
        }
        let new: Vec<_> = seen.violations.get(noted..).unwrap_or_default().to_vec();
        let path = seen.path.clone();
        drop(state);
        for text in new {
            self.shared.emit(Event::Violation { path: path.clone(), text });
        }
        if let Some(text) = late_clock {
            self.shared.emit(Event::LateClock { path, text });
        }
        self.record(message)
    }

    /// Detection is over: the path is taken, or refused, and readers could join.
    fn become_ready(&mut self) -> Result<(), End> {
        let mut state = self.shared.lock();
        let seen = state.connections.get(self.id).expect("connections are never removed");
        let path = seen.path.clone().expect("media counts only after publish");
        let mut tracks = Vec::new();
        if let Some(video) = &seen.video {
            tracks.push(format!("H264 {}x{}", video.width, video.height));
        }
        if seen.audio.as_ref().is_some_and(|audio| audio.frames > 0) {
            tracks.push("Opus".into());
        }
        if tracks.is_empty() {
            return Err(End::refused("no tracks found"));
        }
        if let Some(&owner) = state.owners.get(&path)
            && owner != self.id
            && state.connections.get(owner).is_some_and(|other| other.stage != Stage::Ended)
        {
            match self.shared.options.second_publisher {
                SecondPublisher::Override => state.kick(owner, "terminated: a new publisher took the path"),
                SecondPublisher::Refuse => {
                    return Err(End::refused(format!("someone is already publishing to path '{path}'")));
                }
            }
        }
        state.owners.insert(path.clone(), self.id);
        drop(state);
        self.report(|seen| seen.stage = Stage::Ready);
        self.shared.emit(Event::Ready { path, tracks: tracks.join(" + ") });
        Ok(())
    }

    /// The connection is over.
    pub(crate) fn finish(&mut self, end: &End) {
        if let Some(flv) = &mut self.flv
            && let Err(error) = flv.flush()
        {
            self.violation(&format!("the FLV file is not complete: {error}"));
        }
        let kicked = {
            let mut state = self.shared.lock();
            let link = state.links.get_mut(self.id).expect("links are never removed");
            link.open = false;
            link.socket = None;
            link.kicked
        };
        let greeted = self.handshake == Handshake::Done;
        if kicked.is_none() && !matches!(end, End::Refused(_)) && greeted && self.reader.in_message() {
            self.violation("left in the middle of a message");
        }
        let reason = kicked.map_or_else(|| end.to_string(), Into::into);
        let refused = kicked.is_none() && matches!(end, End::Refused(_));
        let (peer, path) = self.report(|seen| {
            seen.stage = Stage::Ended;
            seen.end = Some(reason.clone());
            seen.refused = refused;
            (seen.peer, seen.path.clone())
        });
        self.shared.emit(match refused {
            true => Event::Refused { peer, path, reason },
            false => Event::Closed { path, reason },
        });
    }
}

/// What this side sends as S1.
fn s1() -> [u8; 1536] {
    let mut s1 = [0_u8; 1536];
    for (byte, value) in s1.iter_mut().skip(8).zip((0..=250_u8).cycle()) {
        *byte = value;
    }
    s1
}

fn u32_body(body: &[u8]) -> Result<u32, End> {
    body.try_into().map(u32::from_be_bytes).map_err(|_| End::refused("invalid body size"))
}
