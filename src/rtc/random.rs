//! Random numbers of the operating system, for what strangers must not guess.

/// Fills `bytes` with them.
///
/// # Panics
///
/// When the operating system has none to give.
pub(super) fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system has a random source");
}

/// 64 bits of them.
pub(super) fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    fill_random(&mut bytes);
    u64::from_be_bytes(bytes)
}
