//! Stable numbers from text: the same key gives the same address, port and jitter on every run.

use sha2::{Digest, Sha256};

/// The first eight bytes of the SHA-256, big-endian.
pub fn number(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The first `digits` hexadecimal digits of the SHA-256, at most 16.
pub fn short(text: &str, digits: usize) -> String {
    let mut hex = format!("{:016x}", number(text));
    hex.truncate(digits);
    hex
}
