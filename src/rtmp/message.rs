//! Messages of a publishing conversation (RTMP 1.0 sections 5.4, 7.1, 7.2; enhanced RTMP v2 "Enhancing NetConnection").
//!
//! Out: functions append whole chunked messages. In: [`Inbound::parse`]. Commands other than the ones a publisher acts
//! on are not even parsed. AMF0 bounds are the muxer's: depth 16, 1024 values.

use std::fmt;

use guest_relay_muxer::TagKind;
use guest_relay_muxer::amf0::{self, Amf0Error, Value};
use guest_relay_muxer::bytes::{Reader, Truncated, Writer};

use super::chunk::{Header, Message, write_message};
use super::target::Target;

/// Message types.
mod type_id {
    pub(super) const SET_CHUNK_SIZE: u8 = 1;
    pub(super) const ABORT: u8 = 2;
    pub(super) const ACKNOWLEDGEMENT: u8 = 3;
    pub(super) const USER_CONTROL: u8 = 4;
    pub(super) const WINDOW_ACKNOWLEDGEMENT_SIZE: u8 = 5;
    pub(super) const SET_PEER_BANDWIDTH: u8 = 6;
    pub(super) const COMMAND_AMF3: u8 = 17;
    pub(super) const COMMAND_AMF0: u8 = 20;
}

/// User control events (§7.1.7).
mod event {
    pub(super) const PING_REQUEST: u16 = 6;
    pub(super) const PING_RESPONSE: u16 = 7;
}

/// Chunk streams we send on.
pub(super) mod csid {
    pub(in crate::rtmp) const CONTROL: u8 = 2;
    pub(in crate::rtmp) const COMMAND: u8 = 3;
    pub(in crate::rtmp) const AUDIO_AND_DATA: u8 = 4;
    pub(in crate::rtmp) const VIDEO: u8 = 6;
}

/// Transaction ids: fixed, as each command is sent once per connection.
pub(super) mod transaction {
    pub(in crate::rtmp) const CONNECT: f64 = 1.0;
    pub(in crate::rtmp) const RELEASE_STREAM: f64 = 2.0;
    pub(in crate::rtmp) const FC_PUBLISH: f64 = 3.0;
    pub(in crate::rtmp) const CREATE_STREAM: f64 = 4.0;
    pub(in crate::rtmp) const PUBLISH: f64 = 5.0;
}

/// capsEx flag of enhanced RTMP: a ReconnectRequest is understood.
const CAPS_EX_RECONNECT: f64 = 1.0;
/// FourCC capability flag of enhanced RTMP.
const CAN_ENCODE: f64 = 2.0;
/// What the server shows as the publisher's user agent.
const FLASH_VER: &str = concat!("guest-relay/", env!("CARGO_PKG_VERSION"));
/// In front of onMetaData in a data message; an FLV script tag does not have it.
const SET_DATA_FRAME: &[u8] = b"\x02\x00\x0d@setDataFrame";
/// Longest status code kept from a server.
const CODE_MAX: usize = 64;

/// Set Chunk Size.
pub(super) fn write_set_chunk_size(out: &mut Vec<u8>, size: u32) {
    control(out, type_id::SET_CHUNK_SIZE, &size.to_be_bytes());
}

/// Acknowledgement of all bytes received, modulo 2^32.
pub(super) fn write_acknowledgement(out: &mut Vec<u8>, received: u32) {
    control(out, type_id::ACKNOWLEDGEMENT, &received.to_be_bytes());
}

/// Window Acknowledgement Size.
pub(super) fn write_window_acknowledgement_size(out: &mut Vec<u8>, size: u32) {
    control(out, type_id::WINDOW_ACKNOWLEDGEMENT_SIZE, &size.to_be_bytes());
}

/// Ping Request with our `timestamp`.
pub(super) fn write_ping_request(out: &mut Vec<u8>, timestamp: u32) {
    user_control(out, event::PING_REQUEST, timestamp.to_be_bytes());
}

/// Ping Response with the server's timestamp.
pub(super) fn write_ping_response(out: &mut Vec<u8>, timestamp: [u8; 4]) {
    user_control(out, event::PING_RESPONSE, timestamp);
}

fn user_control(out: &mut Vec<u8>, event: u16, data: [u8; 4]) {
    let mut payload = Vec::with_capacity(6);
    let mut writer = Writer::new(&mut payload);
    writer.u16(event);
    writer.bytes(&data);
    control(out, type_id::USER_CONTROL, &payload);
}

fn control(out: &mut Vec<u8>, type_id: u8, payload: &[u8]) {
    let header = Header { chunk_stream_id: csid::CONTROL, timestamp: 0, type_id, message_stream_id: 0 };
    write_message(out, header, super::chunk::CHUNK_SIZE_AT_START, [payload, &[]]);
}

/// The connect command with our enhanced RTMP capabilities.
pub(super) fn write_connect(out: &mut Vec<u8>, chunk_size: u32, target: &Target) {
    let mut payload = Vec::with_capacity(512);
    let mut amf = amf0::Writer::new(&mut payload);
    amf.string("connect").number(transaction::CONNECT).object();
    amf.key("app").string(&target.app());
    amf.key("type").string("nonprivate");
    amf.key("flashVer").string(FLASH_VER);
    amf.key("tcUrl").string(&target.tc_url());
    amf.key("fourCcList").strict_array(2).string("avc1").string("Opus");
    amf.key("videoFourCcInfoMap").object().key("avc1").number(CAN_ENCODE).end();
    amf.key("audioFourCcInfoMap").object().key("Opus").number(CAN_ENCODE).end();
    amf.key("capsEx").number(CAPS_EX_RECONNECT).end();
    command(out, chunk_size, 0, &payload);
}

/// releaseStream, FCPublish and createStream. The first two are what some servers expect and others never answer.
pub(super) fn write_create_stream(out: &mut Vec<u8>, chunk_size: u32, target: &Target) {
    let name = target.stream_name();
    for (command_name, transaction, name) in [
        ("releaseStream", transaction::RELEASE_STREAM, Some(name.as_str())),
        ("FCPublish", transaction::FC_PUBLISH, Some(name.as_str())),
        ("createStream", transaction::CREATE_STREAM, None),
    ] {
        let mut payload = Vec::with_capacity(64);
        let mut amf = amf0::Writer::new(&mut payload);
        amf.string(command_name).number(transaction).null();
        if let Some(name) = name {
            amf.string(name);
        }
        command(out, chunk_size, 0, &payload);
    }
}

/// publish "live" on the stream the server created.
pub(super) fn write_publish(out: &mut Vec<u8>, chunk_size: u32, target: &Target, stream: u32) {
    let mut payload = Vec::with_capacity(64);
    amf0::Writer::new(&mut payload)
        .string("publish")
        .number(transaction::PUBLISH)
        .null()
        .string(&target.stream_name())
        .string("live");
    command(out, chunk_size, stream, &payload);
}

/// FCUnpublish and deleteStream: the end of a publication.
pub(super) fn write_unpublish(out: &mut Vec<u8>, chunk_size: u32, target: &Target, stream: u32) {
    let mut payload = Vec::with_capacity(64);
    amf0::Writer::new(&mut payload).string("FCUnpublish").number(0.0).null().string(&target.stream_name());
    command(out, chunk_size, 0, &payload);
    payload.clear();
    amf0::Writer::new(&mut payload).string("deleteStream").number(0.0).null().number(f64::from(stream));
    command(out, chunk_size, 0, &payload);
}

fn command(out: &mut Vec<u8>, chunk_size: u32, message_stream_id: u32, payload: &[u8]) {
    let header =
        Header { chunk_stream_id: csid::COMMAND, timestamp: 0, type_id: type_id::COMMAND_AMF0, message_stream_id };
    write_message(out, header, chunk_size, [payload, &[]]);
}

/// A tag body as a message on the published stream.
pub(super) fn write_media(out: &mut Vec<u8>, chunk_size: u32, stream: u32, kind: TagKind, ms: u32, body: &[u8]) {
    let chunk_stream_id = if kind == TagKind::Video { csid::VIDEO } else { csid::AUDIO_AND_DATA };
    let header = Header { chunk_stream_id, timestamp: ms, type_id: kind.id(), message_stream_id: stream };
    let front = if kind == TagKind::Script && !body.starts_with(SET_DATA_FRAME) { SET_DATA_FRAME } else { &[] };
    write_message(out, header, chunk_size, [front, body]);
}

/// What the server said, as far as a publisher acts on it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Inbound {
    SetChunkSize(u32),
    Abort {
        chunk_stream_id: u32,
    },
    Acknowledgement,
    WindowAcknowledgementSize(u32),
    SetPeerBandwidth(u32),
    PingRequest([u8; 4]),
    PingResponse(u32),
    /// connect succeeded.
    Connected,
    /// createStream's message stream id.
    StreamCreated(u32),
    /// NetStream.Publish.Start.
    PublishStarted,
    /// connect, createStream or publish failed; a code such as NetStream.Publish.BadName.
    Rejected(StatusCode),
    /// Enhanced RTMP's ReconnectRequest.
    ReconnectRequest {
        tc_url: Option<String>,
    },
    /// Nothing a publisher acts on.
    Ignored,
}

/// A status code from the server: printable ASCII, cut to 64 bytes, so that it may be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusCode(String);

impl StatusCode {
    fn new(code: &str) -> StatusCode {
        let printable = |c: char| if c.is_ascii_graphic() { c } else { '?' };
        StatusCode(code.chars().take(CODE_MAX).map(printable).collect())
    }

    /// Whether a wrong user or password is what it says.
    pub(super) fn is_about_credentials(&self) -> bool {
        self.0 == "NetStream.Publish.Unauthorized"
    }

    /// The code, for example `NetStream.Publish.BadName`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message whose payload is not what its type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// A control message ends inside a field.
    Truncated(Truncated),
    /// A command is not AMF0.
    Amf0(Amf0Error),
    /// createStream's result is no stream id.
    StreamId,
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MessageError::Truncated(truncated) => write!(f, "a control message {truncated}"),
            MessageError::Amf0(error) => write!(f, "a command: {error}"),
            MessageError::StreamId => write!(f, "createStream gave no usable stream id"),
        }
    }
}

impl std::error::Error for MessageError {}

impl From<Truncated> for MessageError {
    fn from(truncated: Truncated) -> Self {
        MessageError::Truncated(truncated)
    }
}

impl From<Amf0Error> for MessageError {
    fn from(error: Amf0Error) -> Self {
        MessageError::Amf0(error)
    }
}

impl Inbound {
    /// Reads one message.
    pub(super) fn parse(message: &Message<'_>) -> Result<Inbound, MessageError> {
        let mut reader = Reader::new(message.payload);
        Ok(match message.type_id {
            type_id::SET_CHUNK_SIZE => Inbound::SetChunkSize(reader.u32()?),
            type_id::ABORT => Inbound::Abort { chunk_stream_id: reader.u32()? },
            type_id::ACKNOWLEDGEMENT => {
                reader.u32()?;
                Inbound::Acknowledgement
            }
            type_id::WINDOW_ACKNOWLEDGEMENT_SIZE => Inbound::WindowAcknowledgementSize(reader.u32()?),
            type_id::SET_PEER_BANDWIDTH => Inbound::SetPeerBandwidth(reader.u32()?),
            type_id::USER_CONTROL => match reader.u16()? {
                event::PING_REQUEST => Inbound::PingRequest(reader.take_array()?),
                event::PING_RESPONSE => Inbound::PingResponse(reader.u32()?),
                _ => Inbound::Ignored,
            },
            type_id::COMMAND_AMF0 => Self::parse_command(reader)?,
            // AMF3 was not negotiated; servers that send it anyway put one zero byte before AMF0, or none.
            type_id::COMMAND_AMF3 => {
                if message.payload.first() == Some(&0) {
                    reader.u8()?;
                }
                Self::parse_command(reader)?
            }
            _ => Inbound::Ignored,
        })
    }

    fn parse_command(mut reader: Reader<'_>) -> Result<Inbound, MessageError> {
        let name = Value::parse(&mut reader)?;
        let Some(name @ ("_result" | "_error" | "onStatus")) = name.as_str() else {
            return Ok(Inbound::Ignored);
        };
        let transaction = Value::parse(&mut reader)?.as_number().unwrap_or(0.0);
        if name == "onStatus" {
            return Self::parse_status(reader);
        }
        // Equal bits: the server repeats the number it was sent. Who answers releaseStream or FCPublish is not heard.
        let answers = |sent: f64| transaction.to_bits() == sent.to_bits();
        if !answers(transaction::CONNECT) && !answers(transaction::CREATE_STREAM) {
            return Ok(Inbound::Ignored);
        }
        if name == "_error" {
            let _command_object = parse_optional(&mut reader)?;
            let info = parse_optional(&mut reader)?;
            let command = if answers(transaction::CONNECT) { "connect" } else { "createStream" };
            let code = info.property("code").and_then(Value::as_str);
            return Ok(Inbound::Rejected(StatusCode::new(code.unwrap_or(command))));
        }
        let properties = parse_optional(&mut reader)?;
        // Some servers leave the null in front of the stream id out.
        let result = if reader.is_empty() { properties } else { parse_optional(&mut reader)? };
        if answers(transaction::CONNECT) {
            return Ok(match result.property("code").and_then(Value::as_str) {
                Some(code) if is_fatal(&result, code) => Inbound::Rejected(StatusCode::new(code)),
                _ => Inbound::Connected,
            });
        }
        let id = result.as_number().filter(|id| id.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(id));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: integral and in range")]
        let id = id.ok_or(MessageError::StreamId)? as u32;
        Ok(Inbound::StreamCreated(id))
    }

    /// onStatus is known by its name alone: servers disagree about its transaction id.
    fn parse_status(mut reader: Reader<'_>) -> Result<Inbound, MessageError> {
        let command_object = parse_optional(&mut reader)?;
        let info = if reader.is_empty() { command_object } else { parse_optional(&mut reader)? };
        let Some(code) = info.property("code").and_then(Value::as_str) else {
            return Ok(Inbound::Ignored);
        };
        Ok(match code {
            "NetStream.Publish.Start" => Inbound::PublishStarted,
            "NetConnection.Connect.ReconnectRequest" => {
                Inbound::ReconnectRequest { tc_url: info.property("tcUrl").and_then(Value::as_str).map(str::to_owned) }
            }
            code if is_fatal(&info, code) => Inbound::Rejected(StatusCode::new(code)),
            _ => Inbound::Ignored,
        })
    }
}

/// The next argument: null where there is none, and where it is of a type that AMF0 does not have.
fn parse_optional(reader: &mut Reader<'_>) -> Result<Value, Amf0Error> {
    if reader.is_empty() {
        return Ok(Value::Null);
    }
    match Value::parse(reader) {
        Err(Amf0Error::Marker(_)) => {
            reader.take(reader.rest().len())?;
            Ok(Value::Null)
        }
        value => value,
    }
}

/// Codes after which a server will not take the stream, with or without the level saying so.
fn is_fatal(info: &Value, code: &str) -> bool {
    let codes = [
        "NetConnection.Connect.Rejected",
        "NetConnection.Connect.InvalidApp",
        "NetConnection.Connect.Failed",
        "NetConnection.Connect.Closed",
        "NetStream.Publish.BadName",
        "NetStream.Publish.Denied",
        "NetStream.Publish.Rejected",
        "NetStream.Publish.Unauthorized",
        "NetStream.Publish.Failed",
    ];
    info.property("level").and_then(Value::as_str) == Some("error") || codes.contains(&code)
}

#[cfg(test)]
mod tests;
