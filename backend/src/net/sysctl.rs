//! Settings below /proc/sys/net, in the namespace of the calling thread.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use super::NetError;
use crate::procfs;

/// The host forwards IPv4 packets between its links.
pub const IP_FORWARD: &str = "ipv4/ip_forward";

/// The directory of settings of one link: `ipv4` or `ipv6`.
pub fn of_link(family: &str, link: &str, setting: &str) -> String {
    format!("{family}/conf/{link}/{setting}")
}

/// Milliseconds until a neighbour's address is asked for again (arp(7)); the kernel's second is most of a
/// repair.
pub const NEIGHBOUR_RETRY: u64 = 100;

/// Where that is to be read for one link.
pub fn neighbour_retry(link: &str) -> String {
    format!("ipv4/neigh/{link}/retrans_time_ms")
}

/// `setting` relative to /proc/sys/net.
///
/// # Errors
/// It does not exist (no such link, a kernel without IPv6).
pub fn read(setting: &str) -> io::Result<String> {
    // One read is all of a short value, and has no size to ask for.
    let mut value = [0; 64];
    let length = File::open(path(setting))?.read(&mut value)?;
    Ok(String::from_utf8_lossy(&value[..length]).trim_end().to_owned())
}

/// Writes a setting that this kernel may lack.
///
/// # Errors
/// It may not be changed (/proc/sys mounted read-only).
pub fn give(setting: &str, value: &str) -> Result<(), NetError> {
    match procfs::write(path(setting), value) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(NetError::Sysctl {
            setting: setting.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
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
