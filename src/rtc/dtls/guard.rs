//! The record guard: what may reach webrtc-dtls at all (RFC 6347 §4.1, §4.1.2.7).
//!
//! A datagram in, records that a DTLS 1.2 client in this stage of its handshake waits for out; the rest is dropped
//! and counted, as RFC 6347 asks, and never answered:
//! - records whose type, version or length is wrong, and everything behind them in the datagram;
//! - alerts in the clear, which anyone can forge: a handshake that failed ends by its deadline;
//! - application data, which nobody reads;
//! - ChangeCipherSpec before our own went out, and encrypted records before the peer's: webrtc-dtls would queue them
//!   without bound. The peer repeats them;
//! - encrypted records too short for nonce and tag;
//! - handshake messages that are not a server's, not well-formed, or fragmented beyond reason.
//!
//! Clear handshake messages are reassembled here and written as new records with sequence numbers of our own: those
//! of the clear are not authenticated, and a forged high one must not close the replay window.

use super::choice::{Choice, Unfit};
use super::message::{MessageType, NotForClient};
use super::reassembly::{Fragment, Message, Reassembly, Stored};
use crate::rtc::bytes::{Reader, Truncated, Writer};

/// Datagrams of which anything in the clear was used, in one handshake.
const MAX_DATAGRAMS: u32 = 64;

/// Bytes in those datagrams.
const MAX_BYTES: usize = 64 * 1024;

/// Encrypted records that are handed on, in one handshake. Only the peer's Finished is waited for; the others are
/// forgeries that cost one failed decryption each.
const MAX_ENCRYPTED_RECORDS: u32 = 1024;

/// What webrtc-dtls receives into.
const RECEIVE_BUFFER_BYTES: usize = 8192;

/// Explicit nonce and tag of the AES-GCM suites (RFC 5288 §3).
const NONCE_AND_TAG_BYTES: usize = 8 + 16;

const DTLS_1_0: u16 = 0xfeff;
const DTLS_1_2: u16 = 0xfefd;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// What was dropped before webrtc-dtls saw it, by reason.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Records with a wrong type, version, epoch, length or content.
    pub malformed_records: u32,
    /// ClientHello messages: we are the client.
    pub client_hellos: u32,
    /// Other messages that a server does not send in the clear.
    pub unexpected_messages: u32,
    /// Server messages whose fields contradict each other.
    pub malformed_messages: u32,
    /// Fragments that contradict themselves or are needlessly small, far ahead or long.
    pub refused_fragments: u32,
    /// Fragments of messages that were there already.
    pub duplicate_fragments: u32,
    /// Alerts in the clear.
    pub clear_alerts: u32,
    /// Application data.
    pub application_data: u32,
    /// ChangeCipherSpec and encrypted records ahead of their time, or repeated.
    pub untimely_records: u32,
    /// Beyond the limits of one handshake.
    pub over_limit: u32,
}

/// ```text
///  type(1) | version(2) | epoch(2) | sequence_number(6) | length(2) | content
/// ```
struct Record<'a> {
    content_type: u8,
    version: u16,
    epoch: u16,
    content: &'a [u8],
    /// Header and content.
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    fn parse(datagram: &mut Reader<'a>) -> Result<Self, Truncated> {
        let mut whole = *datagram;
        let content_type = datagram.u8()?;
        let version = datagram.u16()?;
        let epoch = datagram.u16()?;
        datagram.take(6)?;
        let len = datagram.u16()?;
        let content = datagram.take(usize::from(len))?;
        let bytes = whole.take(whole.len() - datagram.len())?;
        Ok(Self { content_type, version, epoch, content, bytes })
    }
}

/// One handshake's guard.
#[derive(Default)]
pub(super) struct Guard {
    reassembly: Reassembly,
    our_cipher_is_on: bool,
    peer_cipher_is_on: bool,
    next_sequence_number: u32,
    datagrams: u32,
    bytes: usize,
    encrypted_records: u32,
    clear_alert: Option<u8>,
    choice: Choice,
    dropped: Dropped,
}

impl Guard {
    /// Datagrams for webrtc-dtls, made of what `datagram` completes. Usually none or one.
    pub(super) fn admit(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        if self.datagrams == MAX_DATAGRAMS || self.bytes + datagram.len() > MAX_BYTES {
            self.dropped.over_limit += 1;
            return Vec::new();
        }
        let mut admitted = Vec::new();
        let mut used_clear = false;
        let mut reader = Reader::new(datagram);
        while !reader.is_empty() {
            let Ok(record) = Record::parse(&mut reader) else {
                self.dropped.malformed_records += 1;
                break;
            };
            match (record.version, record.epoch) {
                (DTLS_1_0 | DTLS_1_2, 0) => used_clear |= self.admit_clear(&record, &mut admitted),
                (DTLS_1_2, 1) => self.admit_encrypted(&record, &mut admitted),
                _ => self.dropped.malformed_records += 1,
            }
        }
        if used_clear {
            self.datagrams += 1;
            self.bytes += datagram.len();
        }
        admitted
    }

    /// Sees what webrtc-dtls sends: once our ChangeCipherSpec is out it has keys, and the peer's may come.
    pub(super) fn record_sent(&mut self, datagram: &[u8]) {
        let mut reader = Reader::new(datagram);
        while let Ok(record) = Record::parse(&mut reader) {
            self.our_cipher_is_on |= record.content_type == CHANGE_CIPHER_SPEC;
        }
    }

    /// The description in the last fatal alert that came in the clear. It may be forged: a hint for people only.
    pub(super) fn clear_alert(&self) -> Option<u8> {
        self.clear_alert
    }

    /// What the peer chose that we do not take. It comes in the clear and may be forged: for people only, too.
    pub(super) fn unfit(&self) -> Option<Unfit> {
        self.choice.unfit()
    }

    pub(super) fn dropped(&self) -> Dropped {
        Dropped { malformed_messages: self.reassembly.malformed_messages(), ..self.dropped }
    }

    /// Whether anything in the record was of use.
    fn admit_clear(&mut self, record: &Record<'_>, admitted: &mut Vec<Vec<u8>>) -> bool {
        match (record.content_type, record.content) {
            (CHANGE_CIPHER_SPEC, [1]) => {
                if !self.our_cipher_is_on || self.peer_cipher_is_on {
                    self.dropped.untimely_records += 1;
                    return false;
                }
                self.peer_cipher_is_on = true;
                let record = self.clear_record(CHANGE_CIPHER_SPEC, &[1]);
                append(admitted, &record);
                true
            }
            (ALERT, &[level, description]) => {
                if level == 2 {
                    self.clear_alert = Some(description);
                }
                self.dropped.clear_alerts += 1;
                false
            }
            (HANDSHAKE, fragments) if !fragments.is_empty() => self.admit_fragments(fragments, admitted),
            (APPLICATION_DATA, _) => {
                self.dropped.application_data += 1;
                false
            }
            _ => {
                self.dropped.malformed_records += 1;
                false
            }
        }
    }

    fn admit_encrypted(&mut self, record: &Record<'_>, admitted: &mut Vec<Vec<u8>>) {
        let shortest_plaintext = match record.content_type {
            ALERT => 2,
            HANDSHAKE => 12,
            APPLICATION_DATA => {
                self.dropped.application_data += 1;
                return;
            }
            _ => {
                self.dropped.malformed_records += 1;
                return;
            }
        };
        if record.content.len() < NONCE_AND_TAG_BYTES + shortest_plaintext {
            self.dropped.malformed_records += 1;
        } else if !self.peer_cipher_is_on {
            self.dropped.untimely_records += 1;
        } else if self.encrypted_records == MAX_ENCRYPTED_RECORDS {
            self.dropped.over_limit += 1;
        } else {
            self.encrypted_records += 1;
            append(admitted, record.bytes);
        }
    }

    fn admit_fragments(&mut self, content: &[u8], admitted: &mut Vec<Vec<u8>>) -> bool {
        let mut used = false;
        let mut reader = Reader::new(content);
        while !reader.is_empty() {
            let Ok(parsed) = parse_fragment(&mut reader) else {
                self.dropped.malformed_records += 1;
                break;
            };
            match parsed.map(|fragment| self.reassembly.push(&fragment)) {
                Ok(Stored::New) => used = true,
                Ok(Stored::Duplicate) => self.dropped.duplicate_fragments += 1,
                Ok(Stored::Refused) => self.dropped.refused_fragments += 1,
                Ok(Stored::OverLimit) => self.dropped.over_limit += 1,
                Err(NotForClient::ClientHello) => self.dropped.client_hellos += 1,
                Err(NotForClient::Other) => self.dropped.unexpected_messages += 1,
            }
        }
        while let Some(message) = self.reassembly.pop() {
            self.choice.record(message.message_type, &message.body);
            let record = self.clear_record(HANDSHAKE, &write_message(&message));
            append(admitted, &record);
        }
        used
    }

    fn clear_record(&mut self, content_type: u8, content: &[u8]) -> Vec<u8> {
        let len = u16::try_from(content.len()).expect("messages are bounded below 8 KiB");
        let mut record = Writer::with_capacity(13 + content.len());
        record.u8(content_type);
        record.u16(DTLS_1_2);
        record.u16(0); // epoch
        record.u16(0); // high bits of the sequence number
        record.u32(self.next_sequence_number);
        record.u16(len);
        record.bytes(content);
        self.next_sequence_number += 1;
        record.into_vec()
    }
}

/// A fragment; or, inside, that its message is none of ours.
fn parse_fragment<'a>(reader: &mut Reader<'a>) -> Result<Result<Fragment<'a>, NotForClient>, Truncated> {
    let message_type = reader.u8()?;
    let message_len = length(reader)?;
    let message_seq = reader.u16()?;
    let offset = length(reader)?;
    let fragment_len = length(reader)?;
    let bytes = reader.take(fragment_len)?;
    Ok(MessageType::try_from(message_type).map(|message_type| Fragment {
        message_type,
        message_seq,
        message_len,
        offset,
        bytes,
    }))
}

fn length(reader: &mut Reader<'_>) -> Result<usize, Truncated> {
    Ok(usize::try_from(reader.u24()?).unwrap_or(usize::MAX))
}

/// The message as one fragment, the form in which it is hashed too (RFC 6347 §4.2.6).
fn write_message(message: &Message) -> Vec<u8> {
    let len = u32::try_from(message.body.len()).expect("messages are bounded below 8 KiB");
    let mut fragment = Writer::with_capacity(12 + message.body.len());
    fragment.u8(message.message_type.into());
    fragment.u24(len);
    fragment.u16(message.message_seq);
    fragment.u24(0);
    fragment.u24(len);
    fragment.bytes(&message.body);
    fragment.into_vec()
}

/// Adds a record to the last datagram, or to a new one when it would not fit the receive buffer.
fn append(datagrams: &mut Vec<Vec<u8>>, record: &[u8]) {
    match datagrams.last_mut() {
        Some(last) if last.len() + record.len() <= RECEIVE_BUFFER_BYTES => {
            last.extend_from_slice(record);
        }
        _ => datagrams.push(record.to_vec()),
    }
}
