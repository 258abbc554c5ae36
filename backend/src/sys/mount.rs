//! mount_setattr(2), which neither nix nor rustix has.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// What to set on a mount; zero fields change nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    /// MOUNT_ATTR_… to set.
    pub set: u64,
    /// With it the ids of the tree are shifted as this user namespace maps them.
    pub idmap: Option<BorrowedFd<'a>>,
    /// MS_PRIVATE, MS_SLAVE or MS_SHARED.
    pub propagation: u64,
    /// Everything mounted below, too.
    pub recursive: bool,
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
const AT_RECURSIVE: u32 = 0x8000;

/// Changes the mount `fd` refers to.
///
/// # Errors
/// As mount_setattr(2); EINVAL for a file system that does not support id-mapped mounts.
pub fn set_attributes(fd: BorrowedFd<'_>, attributes: Attributes<'_>) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: attributes.set
            | if attributes.idmap.is_some() {
                MOUNT_ATTR_IDMAP
            } else {
                0
            },
        attr_clr: 0,
        propagation: attributes.propagation,
        userns_fd: attributes.idmap.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH as u32 | if attributes.recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated constant, `attr` has the size that is passed.
    match unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &attr,
            size_of::<MountAttr>(),
        )
    } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
