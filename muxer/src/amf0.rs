//! AMF0 (Action Message Format, "amf0-file-format-specification"), the part RTMP and FLV use.
//!
//! [`Writer`] appends values to a buffer; [`Value::parse`] reads one from bytes somebody else sent. Bounds when
//! reading: nesting of [`MAX_DEPTH`], [`MAX_ITEMS`] values in all; a string is no longer than its input.
//!
//! ```text
//! number 00 f64 | boolean 01 u8 | string 02 u16 utf8 | object 03 (u16 key, value)* 00 00 09 | null 05
//! undefined 06 | reference 07 u16 | ECMA array 08 u32 (as object) | strict array 0A u32 value* | date 0B f64 i16
//! long string 0C u32 | unsupported 0D | XML 0F u32 | typed object 10 u16 class (as object)
//! ```

use std::fmt;

use crate::bytes::{self, Reader, Truncated};

/// Values inside values; deeper input is refused.
pub const MAX_DEPTH: usize = 16;
/// Values in one parsed value, itself included; more is refused.
pub const MAX_ITEMS: usize = 1024;

const NUMBER: u8 = 0x00;
const BOOLEAN: u8 = 0x01;
const STRING: u8 = 0x02;
const OBJECT: u8 = 0x03;
const NULL: u8 = 0x05;
const UNDEFINED: u8 = 0x06;
const ECMA_ARRAY: u8 = 0x08;
const REFERENCE: u8 = 0x07;
const OBJECT_END: u8 = 0x09;
const STRICT_ARRAY: u8 = 0x0a;
const DATE: u8 = 0x0b;
const LONG_STRING: u8 = 0x0c;
const UNSUPPORTED: u8 = 0x0d;
const XML: u8 = 0x0f;
const TYPED_OBJECT: u8 = 0x10;

/// Appends AMF0 values.
#[derive(Debug)]
pub struct Writer<'a> {
    out: bytes::Writer<&'a mut Vec<u8>>,
}

impl<'a> Writer<'a> {
    /// Appends after what `out` already holds.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out: bytes::Writer::new(out) }
    }

    /// A number.
    pub fn number(&mut self, value: f64) -> &mut Self {
        self.out.u8(NUMBER);
        self.out.f64(value);
        self
    }

    /// A boolean.
    pub fn boolean(&mut self, value: bool) -> &mut Self {
        self.out.u8(BOOLEAN);
        self.out.u8(u8::from(value));
        self
    }

    /// A string; a long string when it takes more than 65535 bytes.
    pub fn string(&mut self, value: &str) -> &mut Self {
        if let Ok(len) = u16::try_from(value.len()) {
            self.out.u8(STRING);
            self.out.u16(len);
        } else {
            self.out.u8(LONG_STRING);
            self.out.u32(u32::try_from(value.len()).expect("no name or URL reaches 4 GiB"));
        }
        self.out.bytes(value.as_bytes());
        self
    }

    /// Null.
    pub fn null(&mut self) -> &mut Self {
        self.out.u8(NULL);
        self
    }

    /// Opens an object; [`key`](Self::key) and a value for each property, then [`end`](Self::end).
    pub fn object(&mut self) -> &mut Self {
        self.out.u8(OBJECT);
        self
    }

    /// Opens an ECMA array of about `count` properties; filled and ended like an object.
    pub fn ecma_array(&mut self, count: u32) -> &mut Self {
        self.out.u8(ECMA_ARRAY);
        self.out.u32(count);
        self
    }

    /// Opens a strict array; exactly `count` values follow, and no end.
    pub fn strict_array(&mut self, count: u32) -> &mut Self {
        self.out.u8(STRICT_ARRAY);
        self.out.u32(count);
        self
    }

    /// The name of a property.
    pub fn key(&mut self, name: &str) -> &mut Self {
        self.out.u16(u16::try_from(name.len()).expect("property names are short literals"));
        self.out.bytes(name.as_bytes());
        self
    }

    /// Ends an object or an ECMA array.
    pub fn end(&mut self) -> &mut Self {
        self.out.u16(0);
        self.out.u8(OBJECT_END);
        self
    }
}

/// One parsed value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A double.
    Number(f64),
    /// A boolean.
    Boolean(bool),
    /// A string or long string; bytes that are not UTF-8 are replaced.
    String(String),
    /// An object or ECMA array, in the order of the bytes.
    Object(Vec<(String, Value)>),
    /// A strict array.
    Array(Vec<Value>),
    /// Milliseconds since 1970.
    Date(f64),
    /// Null or undefined.
    Null,
}

/// Why bytes are not an AMF0 value this crate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amf0Error {
    /// The value runs past the end.
    Truncated(Truncated),
    /// A type marker outside the table above.
    Marker(u8),
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// More than [`MAX_ITEMS`] values.
    TooMany,
}

impl fmt::Display for Amf0Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amf0Error::Truncated(truncated) => write!(f, "AMF0 value {truncated}"),
            Amf0Error::Marker(marker) => write!(f, "AMF0 type marker {marker:#04x}"),
            Amf0Error::TooDeep => write!(f, "AMF0 nested deeper than {MAX_DEPTH}"),
            Amf0Error::TooMany => write!(f, "AMF0 with more than {MAX_ITEMS} values"),
        }
    }
}

impl std::error::Error for Amf0Error {}

impl From<Truncated> for Amf0Error {
    fn from(truncated: Truncated) -> Self {
        Amf0Error::Truncated(truncated)
    }
}

impl Value {
    /// Reads one value; the reader stands behind it afterwards.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Value, Amf0Error> {
        let mut items = 0;
        Self::parse_at(reader, 0, &mut items)
    }

    /// The number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        if let Value::Number(number) = self { Some(*number) } else { None }
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(string) = self { Some(string) } else { None }
    }

    /// The first property called `name`, if this is an object that has it.
    pub fn property(&self, name: &str) -> Option<&Value> {
        let Value::Object(properties) = self else {
            return None;
        };
        properties.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    fn parse_at(reader: &mut Reader<'_>, depth: usize, items: &mut usize) -> Result<Value, Amf0Error> {
        if depth >= MAX_DEPTH {
            return Err(Amf0Error::TooDeep);
        }
        *items += 1;
        if *items > MAX_ITEMS {
            return Err(Amf0Error::TooMany);
        }
        Ok(match reader.u8()? {
            NUMBER => Value::Number(reader.f64()?),
            BOOLEAN => Value::Boolean(reader.u8()? != 0),
            STRING => {
                let len = usize::from(reader.u16()?);
                Value::String(text(reader.take(len)?))
            }
            LONG_STRING | XML => {
                let len = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
                Value::String(text(reader.take(len)?))
            }
            OBJECT => Value::Object(Self::parse_properties(reader, depth, items)?),
            TYPED_OBJECT => {
                let len = usize::from(reader.u16()?);
                reader.take(len)?;
                Value::Object(Self::parse_properties(reader, depth, items)?)
            }
            ECMA_ARRAY => {
                // The count is a hint: writers get it wrong, and the end marker decides.
                reader.u32()?;
                Value::Object(Self::parse_properties(reader, depth, items)?)
            }
            STRICT_ARRAY => {
                let mut values = Vec::new();
                for _ in 0..reader.u32()? {
                    values.push(Self::parse_at(reader, depth + 1, items)?);
                }
                Value::Array(values)
            }
            DATE => {
                let millis = reader.f64()?;
                reader.u16()?;
                Value::Date(millis)
            }
            // To an object before: nobody here follows it.
            REFERENCE => {
                reader.u16()?;
                Value::Null
            }
            NULL | UNDEFINED | UNSUPPORTED => Value::Null,
            marker => return Err(Amf0Error::Marker(marker)),
        })
    }

    fn parse_properties(
        reader: &mut Reader<'_>,
        depth: usize,
        items: &mut usize,
    ) -> Result<Vec<(String, Value)>, Amf0Error> {
        let mut properties = Vec::new();
        loop {
            let len = usize::from(reader.u16()?);
            let key = reader.take(len)?;
            if key.is_empty() && reader.rest().first() == Some(&OBJECT_END) {
                reader.u8()?;
                return Ok(properties);
            }
            match Self::parse_at(reader, depth + 1, items) {
                Ok(value) => properties.push((text(key), value)),
                // AMF3, or a type of nobody's: its length is not known, so nothing behind it can be read. What came
                // before it is told.
                Err(Amf0Error::Marker(_)) if depth == 0 => {
                    reader.take(reader.rest().len())?;
                    return Ok(properties);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Bytes laid out by hand from the specification, with the value they stand for.
    fn table() -> Vec<(&'static [u8], Value)> {
        vec![
            (b"\x00\x3f\xf0\0\0\0\0\0\0", Value::Number(1.0)),
            (b"\x01\x01", Value::Boolean(true)),
            (b"\x02\x00\x04live", Value::String("live".into())),
            (
                b"\x03\x00\x03app\x02\x00\x01g\x00\x00\x09",
                Value::Object(vec![("app".into(), Value::String("g".into()))]),
            ),
            (b"\x05", Value::Null),
            (
                b"\x08\x00\x00\x00\x01\x00\x01w\x00\x40\x94\0\0\0\0\0\0\x00\x00\x09",
                Value::Object(vec![("w".into(), Value::Number(1280.0))]),
            ),
            (b"\x0a\x00\x00\x00\x01\x02\x00\x04avc1", Value::Array(vec![Value::String("avc1".into())])),
        ]
    }

    fn write(value: &Value, out: &mut Vec<u8>, ecma: bool) {
        match value {
            Value::Number(number) => _ = Writer::new(out).number(*number),
            Value::Boolean(flag) => _ = Writer::new(out).boolean(*flag),
            Value::String(string) => _ = Writer::new(out).string(string),
            Value::Object(properties) => {
                if ecma {
                    Writer::new(out).ecma_array(u32::try_from(properties.len()).unwrap());
                } else {
                    Writer::new(out).object();
                }
                for (key, value) in properties {
                    Writer::new(out).key(key);
                    write(value, out, false);
                }
                Writer::new(out).end();
            }
            Value::Array(values) => {
                Writer::new(out).strict_array(u32::try_from(values.len()).unwrap());
                values.iter().for_each(|value| write(value, out, false));
            }
            Value::Date(_) => unreachable!("never written"),
            Value::Null => _ = Writer::new(out).null(),
        }
    }

    #[test]
    fn each_value_of_the_table_is_read_and_written() {
        for (bytes, value) in table() {
            let mut reader = Reader::new(bytes);
            assert_eq!(Value::parse(&mut reader).unwrap(), value);
            assert!(reader.is_empty());
            let mut written = Vec::new();
            write(&value, &mut written, bytes.first() == Some(&ECMA_ARRAY));
            assert_eq!(written, bytes);
        }
    }

    #[test]
    fn every_cut_value_is_truncated() {
        for (bytes, _) in table() {
            for len in 0..bytes.len() {
                let result = Value::parse(&mut Reader::new(&bytes[..len]));
                assert!(matches!(result, Err(Amf0Error::Truncated(_))), "{bytes:?} cut at {len}: {result:?}");
            }
        }
    }

    #[test]
    fn nesting_and_counts_are_bounded() {
        let deep: Vec<u8> = std::iter::repeat_n([STRICT_ARRAY, 0, 0, 0, 1], 10_000).flatten().collect();
        assert_eq!(Value::parse(&mut Reader::new(&deep)), Err(Amf0Error::TooDeep));
        let mut wide = vec![STRICT_ARRAY, 0xff, 0xff, 0xff, 0xff];
        wide.resize(5000, NULL);
        assert_eq!(Value::parse(&mut Reader::new(&wide)), Err(Amf0Error::TooMany));
    }

    #[test]
    fn an_unknown_marker_is_named() {
        assert_eq!(Value::parse(&mut Reader::new(&[0x11])), Err(Amf0Error::Marker(0x11)));
    }

    #[test]
    fn properties_are_found_by_name() {
        let (_, object) = table().remove(3);
        assert_eq!(object.property("app").and_then(Value::as_str), Some("g"));
        assert_eq!(object.property("code"), None);
        assert_eq!(object.as_number(), None);
    }
}
