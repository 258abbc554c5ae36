//! What supervisors execute: the agent's own program, by a mount of its own that nothing can be written through.
//!
//! A container can execute the program it came from (an interpreter `/proc/self/exe`), and a process of that
//! is the container's to look at. What it finds there is a file without a path, read-only also for one who
//! is root of the host.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::CWD,
    mount::{OpenTreeFlags, open_tree},
};

use crate::sys::mount::{Attributes, set_attributes};

/// The running program.
pub const OWN: &str = "/proc/self/exe";

/// A detached, read-only clone of the file at `path`.
///
/// # Errors
/// As open_tree(2) and mount_setattr(2).
pub fn sealed(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(CWD, path, flags)?;
    let attributes = Attributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..Attributes::default()
    };
    set_attributes(clone.as_fd(), attributes)?;
    Ok(clone)
}
