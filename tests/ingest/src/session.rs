//! One connection: handshake, control messages, the command conversation, then media until the end
//! (RTMP 1.0 sections 5.2, 5.4 and 7.2, as MediaMTX speaks them).

use std::fmt;
use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::amf::{self, Value};
use crate::flv::FlvFile;
use crate::inlet::Inlet;
use crate::media;
use crate::path;
use crate::report::{Connection, Event, Frame, Stage};
use crate::tracks::{Step, Tracks};
use crate::wire::{ChunkReader, Message, write_message};
use crate::{Link, SecondPublisher, Shared};

const WINDOW_ACK_SIZE: u32 = 2_500_000;
const CHUNK_SIZE_OUT_U32: u32 = 65_536;
/// What [`write_message`] may use once Set Chunk Size went out.
pub(crate) const CHUNK_SIZE_OUT: usize = 65_536;
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
const READ_BUFFER: usize = 64 * 1024;

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

/// Enters a new connection in the list and gives it a thread.
pub(crate) fn start(shared: &Arc<Shared>, stream: TcpStream) {
    let Ok(peer) = stream.peer_addr() else { return };
    let _best_effort = (stream.set_nodelay(true), stream.set_write_timeout(Some(WRITE_TIMEOUT)));
    let stream = Arc::new(stream);
    let writing = Arc::new(Mutex::new(()));
    let id = {
        let mut state = shared.lock();
        state.connections.push(Connection::new(peer));
        state.links.push(Link { socket: Some(Arc::clone(&stream)), writing: Arc::clone(&writing), kicked: None });
        state.connections.len() - 1
    };
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let deadline = Instant::now() + shared.options.detection_deadline;
        let inlet = Inlet::new(Arc::clone(&stream), Arc::clone(&shared), id, deadline);
        let mut session = Session {
            reader: ChunkReader::new(BufReader::with_capacity(READ_BUFFER, inlet)),
            shared,
            id,
            stream,
            writing,
            connected: false,
            published: false,
            tracks: Tracks::default(),
            ack_window: 0,
            acked: 0,
            flv: None,
            tc_url: String::new(),
        };
        let end = session.run();
        session.finish(&end);
    });
}

struct Session {
    shared: Arc<Shared>,
    id: usize,
    stream: Arc<TcpStream>,
    writing: Arc<Mutex<()>>,
    reader: ChunkReader<BufReader<Inlet>>,
    connected: bool,
    published: bool,
    tracks: Tracks,
    /// The publisher's Window Acknowledgement Size; 0 until it sends one.
    ack_window: u64,
    acked: u64,
    flv: Option<FlvFile>,
    tc_url: String,
}

impl Session {
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

    fn send(&self, bytes: &[u8]) -> Result<(), End> {
        let _one_at_a_time = self.writing.lock().expect("no thread panics while it holds the lock");
        Ok((&*self.stream).write_all(bytes)?)
    }

    fn run(&mut self) -> End {
        if let Err(end) = self.handshake() {
            return end;
        }
        loop {
            let step = self.reader.message().and_then(|message| self.handle(&message));
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// C0 C1 -> S0 S1 S2 -> C2. S2 is C1; C2 should be S1.
    fn handshake(&mut self) -> Result<(), End> {
        let [version] = self.reader.take()?;
        if version != 3 {
            return Err(End::refused(format!("handshake version {version} is not 3")));
        }
        let c1: [u8; 1536] = self.reader.take()?;
        let mut s1 = [0_u8; 1536];
        for (byte, value) in s1.iter_mut().skip(8).zip((0..=250_u8).cycle()) {
            *byte = value;
        }
        self.send(&[&[3], s1.as_slice(), c1.as_slice()].concat())?;
        let c2: [u8; 1536] = self.reader.take()?;
        if c2 != s1 {
            self.violation("C2 is not the echo of S1");
        }
        Ok(())
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
        self.acknowledge()?;
        if self.published {
            if self.tracks.handle_message()? {
                self.become_ready()?;
            }
            if self.tracks.is_over() {
                let deadline = Instant::now() + self.shared.options.idle_deadline;
                self.reader.input().get_mut().set_deadline(deadline);
            }
        }
        let bytes_read = self.reader.bytes_read();
        self.report(|seen| seen.bytes_read = bytes_read);
        Ok(())
    }

    fn acknowledge(&mut self) -> Result<(), End> {
        let read = self.reader.bytes_read();
        if self.ack_window > 0 && read - self.acked > self.ack_window {
            self.acked = read;
            let wrapping = u32::try_from(read & u64::from(u32::MAX)).expect("masked");
            self.send(&write_message(2, 3, 0, &wrapping.to_be_bytes(), CHUNK_SIZE_OUT))?;
        }
        Ok(())
    }

    fn user_control(&mut self, body: &[u8]) -> Result<(), End> {
        let Some((event, data)) = body.split_first_chunk::<2>() else {
            return Err(End::refused("not enough bytes"));
        };
        match u16::from_be_bytes(*event) {
            6 => {
                self.report(|seen| seen.keepalives += 1);
                self.send(&write_message(2, 4, 0, &[&[0, 7], data].concat(), CHUNK_SIZE_OUT))
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
                self.send(&write_message(3, 20, 0, &amf::write(&result), CHUNK_SIZE_OUT))
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
        self.send(&write_message(2, 5, 0, &WINDOW_ACK_SIZE.to_be_bytes(), CHUNK_SIZE_OUT))?;
        self.send(&write_message(2, 6, 0, &dynamic, CHUNK_SIZE_OUT))?;
        self.send(&write_message(2, 1, 0, &CHUNK_SIZE_OUT_U32.to_be_bytes(), CHUNK_SIZE_OUT))?;
        self.send(&write_message(3, 20, 0, &amf::write(&reply), CHUNK_SIZE_OUT))
    }

    fn send_status(&self, transaction: f64, level: &str, code: &str) -> Result<(), End> {
        let text = |text: &str| Value::String(text.into());
        let info = vec![
            ("level".into(), text(level)),
            ("code".into(), text(code)),
            ("description".into(), text(if level == "error" { "authentication failed" } else { "publish start" })),
        ];
        let body = amf::write(&[text("onStatus"), Value::Number(transaction), Value::Null, Value::Object(info)]);
        self.send(&write_message(5, 20, 1, &body, CHUNK_SIZE_OUT))
    }

    fn publish(&mut self, stream: &str, transaction: f64) -> Result<(), End> {
        let (path, query) = path::path_and_query(&self.tc_url, stream);
        if let Err(why) = path::check(&path) {
            return Err(End::refused(format!("invalid path name: {why} ({path:?})")));
        }
        if self.shared.options.required_query.as_ref().is_some_and(|required| *required != query) {
            std::thread::sleep(self.shared.options.unauthorized_delay);
            self.send_status(transaction, "error", "NetStream.Publish.Unauthorized")?;
            return Err(End::refused("authentication failed"));
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
        self.send_status(transaction, "status", "NetStream.Publish.Start")
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
        if let Step::Frame { kind, key } = step
            && keep_frames
        {
            let kept = if keep_bodies { body.to_vec() } else { Vec::new() };
            seen.frames.push(Frame { kind, key, timestamp, len: body.len(), body: kept });
        }
        let new: Vec<_> = seen.violations.get(noted..).unwrap_or_default().to_vec();
        let path = seen.path.clone();
        drop(state);
        for text in new {
            self.shared.emit(Event::Violation { path: path.clone(), text });
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

    fn finish(mut self, end: &End) {
        if let Some(flv) = &mut self.flv
            && let Err(error) = flv.flush()
        {
            self.violation(&format!("the FLV file is not complete: {error}"));
        }
        let kicked = {
            let mut state = self.shared.lock();
            let link = state.links.get_mut(self.id).expect("links are never removed");
            link.socket = None;
            link.kicked
        };
        if kicked.is_none() && !matches!(end, End::Refused(_)) && self.reader.in_message() {
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
        // after the report: who sees the close finds the reason
        let _gone_already = self.stream.shutdown(std::net::Shutdown::Both);
        self.shared.emit(match refused {
            true => Event::Refused { peer, path, reason },
            false => Event::Closed { path, reason },
        });
    }
}

fn u32_body(body: &[u8]) -> Result<u32, End> {
    body.try_into().map(u32::from_be_bytes).map_err(|_| End::refused("invalid body size"))
}
