//! Settings below /proc/sys/net, in the namespace of the calling thread.

use std::{fs, io, path::PathBuf};

use crate::procfs;

/// The host forwards IPv4 packets between its links.
pub const IP_FORWARD: &str = "ipv4/ip_forward";

/// The directory of settings of one link: `ipv4` or `ipv6`.
pub fn of_link(family: &str, link: &str, setting: &str) -> String {
    format!("{family}/conf/{link}/{setting}")
}

/// Milliseconds until a neighbour's address is asked for again (arp(7)); the kernel's second is most of a
/// repair.
pub const NEIGHBOUR_RETRY: &str = "100";

/// Where that is set for one link.
pub fn neighbour_retry(link: &str) -> String {
    format!("ipv4/neigh/{link}/retrans_time_ms")
}

/// `setting` relative to /proc/sys/net.
///
/// # Errors
/// It does not exist (no such link, a kernel without IPv6).
pub fn read(setting: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(setting))?.trim_end().to_owned())
}

/// Writes only what differs; true when it did.
///
/// # Errors
/// It does not exist, or may not be changed (/proc/sys mounted read-only).
pub fn set(setting: &str, value: &str) -> io::Result<bool> {
    if read(setting)? == value {
        return Ok(false);
    }
    procfs::write(path(setting), value)?;
    Ok(true)
}

pub fn path(setting: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(setting)
}
