//! Work in a network namespace: that of the host, or for a moment another one.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
};

use nix::sched::{CloneFlags, setns};

/// The namespace it was made in ("the host").
///
/// What depends on the namespace of the running thread (new sockets, /proc/sys/net) goes through here; a
/// socket once made stays with its namespace and can be used by any thread.
#[derive(Debug)]
pub struct Home(File);

impl Home {
    /// The network namespace of the caller.
    ///
    /// # Errors
    /// No more descriptors, or /proc is not mounted.
    pub fn here() -> io::Result<Self> {
        own().map(Home)
    }

    /// Runs `work` in the host's namespace.
    ///
    /// # Errors
    /// The namespace cannot be entered (setns(2)).
    pub fn at_home<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        inside(self.0.as_fd(), work)
    }
}

/// Runs `work` in the network namespace `netns`, and comes back.
///
/// # Errors
/// The namespace cannot be entered (setns(2)).
pub fn inside<T>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T) -> io::Result<T> {
    let before = own()?;
    if identity(before.as_fd())? == identity(netns)? {
        return Ok(work());
    }
    setns(netns, CloneFlags::CLONE_NEWNET)?;
    let _back = Back(before);
    Ok(work())
}

/// Of this thread: another may be elsewhere for a moment.
fn own() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

fn identity(netns: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(netns)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Brings the thread back, also out of a panic.
struct Back(File);

impl Drop for Back {
    fn drop(&mut self) {
        // It would go on to do to a container what is meant for the host. Services outlive this process.
        if setns(&self.0, CloneFlags::CLONE_NEWNET).is_err() {
            std::process::abort();
        }
    }
}
