//! How Linux does it: the only crate that knows namespaces, netlink and `unsafe`.
//!
//! The reconciler sees [`LinuxBackend`] through its port and nothing else. Rooms do not reach into
//! each other; `observe` and `apply` put them together.

pub mod cgroup;
pub mod copy;
pub mod dns;
pub mod doctor;
pub mod firewall;
pub mod health;
pub mod image;
pub mod init;
pub mod layout;
pub mod linux;
pub mod lock;
pub mod logs;
pub mod names;
pub mod net;
mod oci;
mod procfs;
pub mod records;
pub mod registry;
pub mod rootfs;
pub mod sandbox;
pub mod shim;
pub mod stuck;
pub mod sys;
pub mod usage;
pub mod volume;

pub use linux::{LinuxBackend, OpenError};

/// The error and everything behind it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
