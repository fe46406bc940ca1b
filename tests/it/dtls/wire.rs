//! DTLS records and handshake messages, for tests that forge them.

pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const APPLICATION_DATA: u8 = 23;

pub(crate) const CLIENT_HELLO: u8 = 1;
pub(crate) const SERVER_HELLO: u8 = 2;
pub(crate) const HELLO_VERIFY_REQUEST: u8 = 3;
pub(crate) const CERTIFICATE: u8 = 11;
pub(crate) const SERVER_KEY_EXCHANGE: u8 = 12;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) content_type: u8,
    pub(crate) epoch: u16,
    pub(crate) sequence: u64,
    pub(crate) content: Vec<u8>,
}

impl Record {
    pub(crate) fn new(content_type: u8, epoch: u16, content: &[u8]) -> Self {
        Self { content_type, epoch, sequence: 0, content: content.to_vec() }
    }

    pub(crate) fn parse_all(mut datagram: &[u8]) -> Vec<Self> {
        let mut records = vec![];
        while !datagram.is_empty() {
            let mut sequence = [0; 8];
            sequence[2..].copy_from_slice(&datagram[5..11]);
            let end = 13 + usize::from(u16::from_be_bytes([datagram[11], datagram[12]]));
            records.push(Self {
                content_type: datagram[0],
                epoch: u16::from_be_bytes([datagram[3], datagram[4]]),
                sequence: u64::from_be_bytes(sequence),
                content: datagram[13..end].to_vec(),
            });
            datagram = &datagram[end..];
        }
        records
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.content_type, 0xfe, 0xfd];
        bytes.extend(self.epoch.to_be_bytes());
        bytes.extend(&self.sequence.to_be_bytes()[2..]);
        bytes.extend(u16::try_from(self.content.len()).unwrap().to_be_bytes());
        bytes.extend(&self.content);
        bytes
    }

    /// The handshake message in a clear record, when it is one and whole.
    pub(crate) fn message(&self) -> Option<Message> {
        let is_clear_handshake = self.content_type == HANDSHAKE && self.epoch == 0;
        is_clear_handshake.then(|| Message {
            message_type: self.content[0],
            seq: u16::from_be_bytes([self.content[4], self.content[5]]),
            body: self.content[12..].to_vec(),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) message_type: u8,
    pub(crate) seq: u16,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn new(message_type: u8, seq: u16, body: &[u8]) -> Self {
        Self { message_type, seq, body: body.to_vec() }
    }

    /// The message with another body.
    pub(crate) fn with(&self, body: &[u8]) -> Self {
        Self::new(self.message_type, self.seq, body)
    }

    /// A datagram with one record with the whole message.
    pub(crate) fn datagram(&self) -> Vec<u8> {
        self.fragment(0, &self.body)
    }

    /// A datagram with a fragment, which need not be true.
    pub(crate) fn fragment(&self, offset: usize, bytes: &[u8]) -> Vec<u8> {
        fragment(self.message_type, self.body.len(), self.seq, offset, bytes)
    }
}

/// A datagram with one handshake fragment.
pub(crate) fn fragment(message_type: u8, message_len: usize, seq: u16, offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut content = vec![message_type];
    content.extend(u24(message_len));
    content.extend(seq.to_be_bytes());
    content.extend(u24(offset));
    content.extend(u24(bytes.len()));
    content.extend(bytes);
    Record::new(HANDSHAKE, 0, &content).to_bytes()
}

pub(crate) fn u24(value: usize) -> [u8; 3] {
    let [_, a, b, c] = u32::try_from(value).unwrap().to_be_bytes();
    [a, b, c]
}
