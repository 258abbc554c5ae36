//! The terminal of a container: of its own devpts, its master held by the shim, its other end /dev/console.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags, fstat, major, minor, openat},
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::{
    init::Stdio,
    rootfs::{Step, StepError},
    sys::{message, process},
};

/// The major number of the terminals of every devpts (the kernel's devices.txt).
const TERMINALS: u32 = 136;

/// Both ends.
#[derive(Debug)]
pub struct Terminal {
    /// Never blocks: the shim reads it.
    pub master: OwnedFd,
    peer: OwnedFd,
}

impl Terminal {
    /// In the devpts mounted as `pts`, and bound to `console` in `dev`. Both are file systems that were just
    /// made: no path of the image is walked, so no symbolic link of it can lead elsewhere.
    ///
    /// # Errors
    /// The step that failed.
    pub fn new(pts: BorrowedFd<'_>, dev: BorrowedFd<'_>) -> Result<Self, StepError> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let master = openat(pts, "ptmx", flags, Mode::empty()).step("open", "/dev/pts/ptmx")?;
        let peer = process::terminal_peer(master.as_fd()).step("open", "the terminal")?;
        let own = fstat(&peer).step("look at", "the terminal")?;
        let number = minor(own.st_rdev).to_string();
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
        let node = open_tree(pts, number.as_str(), flags).step("clone", "the terminal")?;
        let found = fstat(&node).step("look at", "the terminal")?;
        let ours = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
            && major(found.st_rdev) == TERMINALS
            && (found.st_rdev, found.st_dev, found.st_ino) == (own.st_rdev, own.st_dev, own.st_ino)
            && found.st_dev == fstat(pts).step("look at", "/dev/pts")?.st_dev;
        if !ours {
            return Err(StepError::spec(
                "the terminal made for the container is not in its own /dev/pts; remove `tty: true`",
            ));
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        openat(dev, "console", flags, Mode::from(0o600)).step("make", "/dev/console")?;
        let point = openat(
            dev,
            "console",
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .step("open", "/dev/console")?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&node, "", &point, "", flags).step("mount on", Path::new("/dev/console").display())?;
        Ok(Terminal { master, peer })
    }

    /// Sends the master over `socket`; what the program gets.
    ///
    /// # Errors
    /// The step that failed.
    pub fn hand_out(self, socket: BorrowedFd<'_>) -> Result<Stdio, StepError> {
        message::send(socket, b"t", &[self.master.as_fd()]).step("hand out", "the terminal")?;
        let copy = || self.peer.try_clone().step("copy", "the terminal");
        Ok(Stdio {
            descriptors: [copy()?, copy()?, copy()?],
            terminal: true,
        })
    }
}
