//! STUN messages: the vectors of RFC 5769, and what hostile bytes make of a message.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::wire::join_type;
use super::*;

/// RFC 5769: the short-term password of sections 2.1 to 2.3.
const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

/// RFC 5769 §2.1.
const SAMPLE_REQUEST: [u8; 108] = [
    0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf,
    0xae, 0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4e, 0x20, 0x74, 0x65, 0x73, 0x74, 0x20, 0x63, 0x6c, 0x69, 0x65,
    0x6e, 0x74, 0x00, 0x24, 0x00, 0x04, 0x6e, 0x00, 0x01, 0xff, 0x80, 0x29, 0x00, 0x08, 0x93, 0x2f, 0xf9, 0xb1, 0x51,
    0x26, 0x3b, 0x36, 0x00, 0x06, 0x00, 0x09, 0x65, 0x76, 0x74, 0x6a, 0x3a, 0x68, 0x36, 0x76, 0x59, 0x20, 0x20, 0x20,
    0x00, 0x08, 0x00, 0x14, 0x9a, 0xea, 0xa7, 0x0c, 0xbf, 0xd8, 0xcb, 0x56, 0x78, 0x1e, 0xf2, 0xb5, 0xb2, 0xd3, 0xf2,
    0x49, 0xc1, 0xb5, 0x71, 0xa2, 0x80, 0x28, 0x00, 0x04, 0xe5, 0x7a, 0x3b, 0xcf,
];

/// RFC 5769 §2.2.
const SAMPLE_IPV4_RESPONSE: [u8; 80] = [
    0x01, 0x01, 0x00, 0x3c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf,
    0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f, 0x72, 0x20, 0x00, 0x20,
    0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43, 0x00, 0x08, 0x00, 0x14, 0x2b, 0x91, 0xf5, 0x99, 0xfd,
    0x9e, 0x90, 0xc3, 0x8c, 0x74, 0x89, 0xf9, 0x2a, 0xf9, 0xba, 0x53, 0xf0, 0x6b, 0xe7, 0xd7, 0x80, 0x28, 0x00, 0x04,
    0xc0, 0x7d, 0x4c, 0x96,
];

/// RFC 5769 §2.3.
const SAMPLE_IPV6_RESPONSE: [u8; 92] = [
    0x01, 0x01, 0x00, 0x48, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf,
    0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f, 0x72, 0x20, 0x00, 0x20,
    0x00, 0x14, 0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe,
    0xd2, 0xb9, 0xd9, 0x00, 0x08, 0x00, 0x14, 0xa3, 0x82, 0x95, 0x4e, 0x4b, 0xe6, 0x7b, 0xf1, 0x17, 0x84, 0xc9, 0x7c,
    0x82, 0x92, 0xc2, 0x75, 0xbf, 0xe3, 0xed, 0x41, 0x80, 0x28, 0x00, 0x04, 0xc8, 0xfb, 0x0b, 0x4c,
];

const TRANSACTION: TransactionId =
    TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);

#[test]
fn rfc_5769_request_is_read_and_authentic() {
    let message = Message::parse(&SAMPLE_REQUEST).unwrap();
    assert_eq!(message.class, MessageClass::Request);
    assert_eq!(message.method, BINDING);
    assert_eq!(message.transaction_id, TRANSACTION);
    assert_eq!(message.username, Some(b"evtj:h6vY".as_slice()));
    assert_eq!(message.priority, Some(0x6e00_01ff));
    assert_eq!(message.role, Some(RoleAttribute::Controlled(0x932f_f9b1_5126_3b36)));
    assert!(!message.use_candidate);
    assert!(message.has_fingerprint);
    assert!(message.is_authentic(PASSWORD));
    assert!(!message.is_authentic(b"VOkJxbRl1RmTxUk/WvJxBT"));
    assert_eq!(named_ufrag(&SAMPLE_REQUEST), Some("evtj"));
}

#[test]
fn rfc_5769_responses_give_the_mapped_address() {
    for (bytes, address) in [
        (SAMPLE_IPV4_RESPONSE.as_slice(), "192.0.2.1:32853"),
        (SAMPLE_IPV6_RESPONSE.as_slice(), "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let message = Message::parse(bytes).unwrap();
        assert_eq!(message.class, MessageClass::Success);
        assert_eq!(message.mapped_address, Some(address.parse().unwrap()));
        assert!(message.has_fingerprint);
        assert!(message.is_authentic(PASSWORD), "{address}");
    }
}

#[test]
fn mapped_addresses_are_written_as_rfc_5769_has_them() {
    for (vector, address) in [
        (&SAMPLE_IPV4_RESPONSE[36..48], "192.0.2.1:32853"),
        (&SAMPLE_IPV6_RESPONSE[36..60], "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let datagram = MessageWriter::binding(MessageClass::Success, TRANSACTION)
            .mapped_address(address.parse().unwrap())
            .finish(PASSWORD);
        assert_eq!(&datagram[HEADER_LEN..HEADER_LEN + vector.len()], vector);
        assert_eq!(&datagram[..2], &SAMPLE_IPV4_RESPONSE[..2]);
        assert_eq!(&datagram[4..20], &SAMPLE_IPV4_RESPONSE[4..20]);
    }
}

#[test]
fn a_written_message_is_read_back() {
    let datagram = MessageWriter::binding(MessageClass::Request, TRANSACTION)
        .username("abcd:efgh")
        .priority(77)
        .role(RoleAttribute::Controlling(5))
        .use_candidate()
        .finish(b"secret");
    let message = Message::parse(&datagram).unwrap();
    assert_eq!(message.username, Some(b"abcd:efgh".as_slice()));
    assert_eq!(message.priority, Some(77));
    assert_eq!(message.role, Some(RoleAttribute::Controlling(5)));
    assert!(message.use_candidate && message.has_fingerprint);
    assert!(message.is_authentic(b"secret"));
    assert!(message.unknown_attributes().is_empty());

    let datagram = MessageWriter::binding(MessageClass::Error, TRANSACTION)
        .error_code(error_code::UNKNOWN_ATTRIBUTE)
        .unknown_attributes(&[0x0042, 0x0043, 0x0044])
        .finish(b"secret");
    let message = Message::parse(&datagram).unwrap();
    assert_eq!(message.class, MessageClass::Error);
    assert_eq!(message.error_code, Some(420));
}

#[test]
fn class_and_method_bits_interleave_as_in_rfc_8489_figure_3() {
    // Binding request, indication, success, error; TURN Allocate success and Refresh error (RFC 8656 §17).
    for (message_type, class, method) in [
        (0x0001, MessageClass::Request, 1),
        (0x0011, MessageClass::Indication, 1),
        (0x0101, MessageClass::Success, 1),
        (0x0111, MessageClass::Error, 1),
        (0x0103, MessageClass::Success, 3),
        (0x0114, MessageClass::Error, 4),
        (0x3EEF, MessageClass::Request, 0xFFF),
    ] {
        assert_eq!(split_type(message_type), (class, method));
        assert_eq!(join_type(class, method), message_type);
    }
}

#[test]
fn every_flipped_byte_of_a_request_is_noticed() {
    for at in 0..SAMPLE_REQUEST.len() {
        let mut bytes = SAMPLE_REQUEST;
        bytes[at] ^= 0x20;
        let accepted = Message::parse(&bytes).is_ok_and(|message| {
            message.has_fingerprint && message.is_authentic(PASSWORD) && message.class == MessageClass::Request
        });
        assert!(!accepted, "byte {at}");
    }
}

/// A Binding request of raw attributes, with the length fixed and no integrity.
fn request(attributes: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 1];
    bytes.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    bytes.extend(0x2112_a442_u32.to_be_bytes());
    bytes.extend(TRANSACTION.0);
    bytes.extend(attributes);
    bytes
}

#[test]
fn malformed_messages_are_refused_with_their_reason() {
    let mut bad_cookie = request(&[]);
    bad_cookie[4] = 0;
    let mut bad_length = request(&[]);
    bad_length[3] = 4;
    let truncated = |need, have| StunError::Truncated(Truncated { need, have });
    for (bytes, error) in [
        (vec![], truncated(2, 0)),
        (vec![0; 19], truncated(12, 11)),
        (vec![0x40; 20], StunError::NotStun),
        (bad_cookie, StunError::BadCookie(0x0012_a442)),
        (bad_length, StunError::BadLength { field: 4, have: 0 }),
        (request(&[0, 6, 0]), StunError::BadLength { field: 3, have: 3 }),
        // value longer than the message; padding missing; USERNAME empty
        (request(&[0, 6, 0, 5, 1, 2, 3, 4]), truncated(5, 4)),
        (request(&[0, 6, 0, 0]), StunError::BadAttribute(6)),
        // XOR-MAPPED-ADDRESS of no bytes, of an unknown family, IPv4 with an IPv6 length
        (request(&[0, 0x20, 0, 0]), StunError::BadAttribute(0x20)),
        (request(&[0, 0x20, 0, 8, 0, 3, 1, 1, 1, 1, 1, 1]), StunError::BadAttribute(0x20)),
        (request(&[0, 0x20, 0, 12, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]), StunError::BadAttribute(0x20)),
        (request(&[0, 8, 0, 4, 0, 0, 0, 0]), StunError::BadAttribute(8)),
        (request(&[0, 0x24, 0, 0]), StunError::BadAttribute(0x24)),
        (request(&[0, 0x25, 0, 1, 0, 0, 0, 0]), StunError::BadAttribute(0x25)),
        (request(&[0x80, 0x28, 0, 4, 0, 0, 0, 0]), StunError::BadFingerprint),
    ] {
        assert_eq!(Message::parse(&bytes).unwrap_err(), error, "{bytes:02x?}");
    }
    // FINGERPRINT that matches, and one more attribute behind it.
    let mut bytes = request(&[0x80, 0x28, 0, 4, 0, 0, 0, 0, 0x80, 0x22, 0, 0]);
    let crc = crc32fast::hash(&bytes[..20]) ^ 0x5354_554e;
    bytes[24..28].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(Message::parse(&bytes).unwrap_err(), StunError::AfterFingerprint);
}

#[test]
fn attributes_after_message_integrity_are_ignored() {
    // MESSAGE-INTEGRITY, then USE-CANDIDATE and an unknown required attribute, none of them covered.
    let mut bytes = MessageWriter::binding(MessageClass::Request, TRANSACTION).username("a:b").finish(b"k");
    bytes.truncate(bytes.len() - 8);
    bytes.extend([0x00, 0x25, 0, 0, 0x00, 0x42, 0, 0]);
    let message = Message::parse(&bytes).unwrap();
    assert!(message.is_authentic(b"k"));
    assert!(!message.use_candidate);
    assert!(message.unknown_attributes().is_empty());
}

#[test]
fn unknown_required_attributes_are_remembered_up_to_the_bound() {
    let attributes: Vec<u8> = (0..100_u8).flat_map(|n| [0x01, n, 0, 0]).collect();
    let bytes = request(&attributes);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.unknown_attributes().len(), MAX_UNKNOWN_ATTRIBUTES);
    assert_eq!(message.unknown_attributes()[..2], [0x0100, 0x0101]);
    // REALM and an optional attribute are not among them.
    let bytes = request(&[0x00, 0x14, 0, 0, 0xC0, 0x57, 0, 0]);
    assert!(Message::parse(&bytes).unwrap().unknown_attributes().is_empty());
}

#[test]
fn no_length_and_no_first_byte_makes_the_parser_panic() {
    for fill in [0x00, 0x01, 0x08, 0x21, 0x80, 0xff] {
        for len in 0..=1500 {
            for first in 0..=u8::MAX {
                let mut bytes = vec![fill; len];
                if let Some(byte) = bytes.first_mut() {
                    *byte = first;
                }
                if len >= 20 {
                    bytes[4..8].copy_from_slice(&0x2112_a442_u32.to_be_bytes());
                    let claimed = u16::try_from(len - 20).unwrap();
                    bytes[2..4].copy_from_slice(&claimed.to_be_bytes());
                }
                let _ = Message::parse(&bytes).map(|message| message.is_authentic(b"key"));
                let _ = named_ufrag(&bytes);
                if first > 3 {
                    break;
                }
            }
        }
    }
    // Every cut of a real request, with and without a length that fits.
    for len in 0..SAMPLE_REQUEST.len() {
        let mut cut = SAMPLE_REQUEST[..len].to_vec();
        assert!(Message::parse(&cut).is_err());
        if len >= 20 {
            cut[2..4].copy_from_slice(&u16::try_from(len - 20).unwrap().to_be_bytes());
            let _ = Message::parse(&cut).map(|message| message.is_authentic(PASSWORD));
        }
    }
}
