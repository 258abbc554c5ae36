//! The way into a shim that is no path: whoever deletes every file of the run directory locks nobody out.
//!
//! A pair of datagram sockets, both ends held by the shim. The agent takes the outer one with
//! pidfd_getfd(2), which the kernel grants to those who may trace the shim, that is, to root; its number
//! is in the sealed record. What is sent over it is one end of a connection.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::{cgroup, sys::message};

/// Both ends; [`AsFd`] is the inner one, to wait for those who enter.
#[derive(Debug)]
pub struct Door {
    inner: OwnedFd,
    outer: OwnedFd,
}

impl Door {
    /// # Errors
    /// As socketpair(2).
    pub fn new() -> io::Result<Self> {
        let (inner, outer) = UnixDatagram::pair()?;
        inner.set_nonblocking(true)?;
        // Whoever has a copy shares this: nobody waits for a shim that is stopped.
        outer.set_nonblocking(true)?;
        Ok(Door {
            inner: inner.into(),
            outer: outer.into(),
        })
    }

    /// The ends that passed an exec.
    pub fn resume(inner: OwnedFd, outer: OwnedFd) -> Self {
        Door { inner, outer }
    }

    /// What the record says.
    pub fn number(&self) -> i32 {
        self.outer.as_raw_fd()
    }

    /// The connections that have come.
    pub fn take(&self) -> Vec<UnixStream> {
        let mut come = Vec::new();
        while message::receive(self.inner.as_fd(), &mut [0; 1], &mut come).is_ok_and(|length| length > 0) {}
        come.into_iter().map(UnixStream::from).collect()
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// A connection to the shim `pid`.
///
/// # Errors
/// It is no shim or one without a door, or it takes no more connections for now.
pub fn enter(pid: u32) -> io::Result<UnixStream> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = pidfd_open(number.ok_or(io::ErrorKind::InvalidInput)?, PidfdFlags::empty())?;
    // Read under the pidfd: should the number be used anew, taking the descriptor fails.
    let door = cgroup::record_of(pid)
        .and_then(|record| record.door)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the supervisor has no second way in"))?;
    let door = pidfd_getfd(&process, door, PidfdGetfdFlags::empty())?;
    let (ours, theirs) = UnixStream::pair()?;
    message::send(door.as_fd(), b"c", &[theirs.as_fd()])?;
    Ok(ours)
}
