//! AMF0 (Adobe "Action Message Format", AMF 0, §2): bytes -> [`Value`] list, and back for the few
//! replies the ingest sends. Bounds: depth 16, 1024 values a message; strings end with the message.
//!
//! This is the ingest's own code on purpose: a test peer must not share the code under test.

use std::fmt;

const DEPTH_MAX: usize = 16;
const VALUES_MAX: usize = 1024;

/// One AMF0 value. Dates, XML and typed objects are not needed by any publisher and are refused.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Number(f64),
    Boolean(bool),
    String(String),
    /// Object (marker 3) and ECMA array (marker 8): keys in the order sent.
    Object(Vec<(String, Value)>),
    StrictArray(Vec<Value>),
    Null,
    Undefined,
}

/// Why a message body is not AMF0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmfError {
    Truncated,
    UnknownMarker(u8),
    TooDeep,
    TooManyValues,
    NotUtf8,
}

impl fmt::Display for AmfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AmfError::Truncated => write!(f, "AMF0: not enough bytes"),
            AmfError::UnknownMarker(marker) => write!(f, "AMF0: unsupported marker 0x{marker:02x}"),
            AmfError::TooDeep => write!(f, "AMF0: nested deeper than {DEPTH_MAX}"),
            AmfError::TooManyValues => write!(f, "AMF0: more than {VALUES_MAX} values"),
            AmfError::NotUtf8 => write!(f, "AMF0: string is not UTF-8"),
        }
    }
}

impl Value {
    /// The member `key` of an object or ECMA array.
    pub fn member(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_number(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }
}

/// Reads the values of a command or data message one after the other.
pub fn parse(mut bytes: &[u8]) -> Result<Vec<Value>, AmfError> {
    let mut left = VALUES_MAX;
    let mut values = Vec::new();
    while !bytes.is_empty() {
        values.push(value(&mut bytes, 0, &mut left)?);
    }
    Ok(values)
}

/// Takes `N` bytes off the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], AmfError> {
    let (head, tail) = bytes.split_first_chunk::<N>().ok_or(AmfError::Truncated)?;
    *bytes = tail;
    Ok(*head)
}

fn text(bytes: &mut &[u8], len: usize) -> Result<String, AmfError> {
    let (head, tail) = bytes.split_at_checked(len).ok_or(AmfError::Truncated)?;
    *bytes = tail;
    String::from_utf8(head.to_vec()).map_err(|_| AmfError::NotUtf8)
}

fn short_text(bytes: &mut &[u8]) -> Result<String, AmfError> {
    let len = u16::from_be_bytes(take(bytes)?);
    text(bytes, usize::from(len))
}

fn value(bytes: &mut &[u8], depth: usize, left: &mut usize) -> Result<Value, AmfError> {
    if depth > DEPTH_MAX {
        return Err(AmfError::TooDeep);
    }
    *left = left.checked_sub(1).ok_or(AmfError::TooManyValues)?;
    let [marker] = take(bytes)?;
    Ok(match marker {
        0 => Value::Number(f64::from_be_bytes(take(bytes)?)),
        1 => Value::Boolean(take::<1>(bytes)? != [0]),
        2 => Value::String(short_text(bytes)?),
        3 => Value::Object(members(bytes, depth, left)?),
        5 => Value::Null,
        6 => Value::Undefined,
        8 => {
            let _approximate_count: [u8; 4] = take(bytes)?;
            Value::Object(members(bytes, depth, left)?)
        }
        10 => {
            let count = u32::from_be_bytes(take(bytes)?);
            let mut items = Vec::new();
            for _ in 0..count {
                items.push(value(bytes, depth + 1, left)?);
            }
            Value::StrictArray(items)
        }
        12 => {
            let len = u32::from_be_bytes(take(bytes)?);
            Value::String(text(bytes, usize::try_from(len).map_err(|_| AmfError::Truncated)?)?)
        }
        other => return Err(AmfError::UnknownMarker(other)),
    })
}

/// Key and value pairs up to the empty key and end marker 9.
fn members(bytes: &mut &[u8], depth: usize, left: &mut usize) -> Result<Vec<(String, Value)>, AmfError> {
    let mut members = Vec::new();
    loop {
        if let Some(rest) = bytes.strip_prefix(&[0, 0, 9]) {
            *bytes = rest;
            return Ok(members);
        }
        let key = short_text(bytes)?;
        members.push((key, value(bytes, depth + 1, left)?));
    }
}

/// Writes values one after the other. Strings are short (replies of this server).
pub(crate) fn write(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        write_value(&mut out, value);
    }
    out
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("replies are short");
    out.extend(len.to_be_bytes());
    out.extend(text.as_bytes());
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Number(number) => {
            out.push(0);
            out.extend(number.to_be_bytes());
        }
        Value::Boolean(flag) => out.extend([1, u8::from(*flag)]),
        Value::String(text) => {
            out.push(2);
            write_text(out, text);
        }
        Value::Object(members) => {
            out.push(3);
            for (key, member) in members {
                write_text(out, key);
                write_value(out, member);
            }
            out.extend([0, 0, 9]);
        }
        Value::StrictArray(items) => {
            out.push(10);
            out.extend(u32::try_from(items.len()).expect("replies are short").to_be_bytes());
            for item in items {
                write_value(out, item);
            }
        }
        Value::Null => out.push(5),
        Value::Undefined => out.push(6),
    }
}
