//! How Linux does it: the only crate that knows namespaces, netlink and `unsafe`.
//!
//! The reconciler sees [`LinuxBackend`] through its port and nothing else. Rooms do not reach into
//! each other; `observe` and `apply` put them together.

pub mod doctor;
pub mod image;
pub mod dns;
pub mod firewall;
pub mod layout;
pub mod lock;
pub mod names;
pub mod records;
pub mod net;
pub mod shim;
pub mod volume;
pub mod cgroup;
pub mod health;
pub mod init;
pub mod layout;
pub mod logs;
pub mod names;
pub mod rootfs;
pub mod sandbox;
pub mod shim;
pub mod sys;
