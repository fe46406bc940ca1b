//! AMF0 values, one after the other, as an RTMP server sends them in a command.
#![no_main]

use guest_relay_muxer::amf0::Value;
use guest_relay_muxer::bytes::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(bytes);
    let mut before = reader.len();
    while let Ok(value) = Value::parse(&mut reader) {
        assert!(reader.len() < before, "a value without bytes");
        before = reader.len();
        let _ = (value.as_number(), value.as_str(), value.property("code"));
    }
});
