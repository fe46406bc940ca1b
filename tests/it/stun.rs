//! What a STUN server answers after RFC 8489, byte by byte.

/// The answers to a Binding request: one to a request that nobody made, then its own, which says that it came from
/// 198.51.100.20. `None` for anything but a Binding request without attributes.
pub(crate) fn responses(request: &[u8]) -> Option<[Vec<u8>; 2]> {
    // Section 5: type, length, and the magic cookie.
    if request.len() != 20 || request[..8] != [0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42] {
        return None;
    }
    // Section 14.2: port and address XORed with the cookie. 198.51.100.20 is c6 33 64 14.
    let attribute = [0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0x31, 0x12, 0xe7, 0x21, 0xc0, 0x56];
    let mut response = vec![0x01, 0x01, 0x00, 0x0c, 0x21, 0x12, 0xa4, 0x42];
    response.extend_from_slice(&request[8..20]);
    response.extend_from_slice(&attribute);
    let mut stray = response.clone();
    stray[8] ^= 0xff;
    stray[28] ^= 0xff;
    Some([stray, response])
}
