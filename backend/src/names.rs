//! Every kernel name, derived from keys; each carries the root's mark so that a leak can be found.

use std::fmt::Write;

use reconciler::key::{InstanceKey, ResourceKey};
use sha2::{Digest, Sha256};

/// First six hexadecimal digits of the SHA-256.
pub fn short_hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .take(3)
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The bridge of a network: 15 bytes, the longest a link name can be (IFNAMSIZ).
pub fn bridge(mark: &str, network: &ResourceKey) -> String {
    format!("stb{mark}{}", short_hash(network.to_string().as_bytes()))
}

/// The host end of an interface of a sandbox.
pub fn veth(mark: &str, instance: &InstanceKey, interface: &str) -> String {
    format!(
        "stv{mark}{}",
        short_hash(format!("{instance} {interface}").as_bytes())
    )
}

/// What every [`veth`] of a root starts with.
pub fn veth_prefix(mark: &str) -> String {
    format!("stv{mark}")
}

/// Both the `inet` and the `bridge` table.
pub fn table(mark: &str) -> String {
    format!("stead-{mark}")
}

/// The cgroup below the delegated root.
pub fn cgroup(mark: &str) -> String {
    format!("stead-{mark}")
}
