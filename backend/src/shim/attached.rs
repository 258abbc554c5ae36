//! Who sees the output of a container as it comes.
//!
//! Each has a socket that holds a bounded amount and is never waited for: whoever falls behind is cut off,
//! and neither the service nor its log notices.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, setsockopt, socketpair,
    sockopt::SndBufForce,
};

use super::{
    assigned::{Answer, Sandbox, request_error},
    protocol::Reply,
};
use crate::rootfs::Step;

/// At one time: each may hold as much as [`ROOM`] of the kernel's memory.
const MOST: usize = 16;

/// What one socket holds of what its reader has not taken.
const ROOM: usize = 1 << 20;

/// One reader.
#[derive(Debug)]
pub struct One {
    /// The connection that asked.
    pub connection: u64,
    pub socket: OwnedFd,
}

/// All of one container.
#[derive(Debug, Default)]
pub struct Attached {
    pub readers: Vec<One>,
    /// Connections whose reader did not keep up, and that were not told yet.
    pub cut_off: Vec<u64>,
}

impl Attached {
    /// The reader's end. Each message is the number of a stream and what was printed there.
    ///
    /// # Errors
    /// There are too many, or as socketpair(2).
    pub fn add(&mut self, connection: u64) -> io::Result<OwnedFd> {
        if self.readers.len() >= MOST {
            return Err(io::Error::other(format!("{MOST} are attached already")));
        }
        let (socket, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )?;
        setsockopt(&socket, SndBufForce, &ROOM)?;
        self.readers.push(One { connection, socket });
        Ok(theirs)
    }

    /// What was read of stream `number`.
    pub fn tell(&mut self, number: u8, bytes: &[u8]) {
        let head = [number];
        let slices = [IoSlice::new(&head), IoSlice::new(bytes)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let cut_off = &mut self.cut_off;
        self.readers.retain(|one| {
            match sendmsg::<UnixAddr>(one.socket.as_fd().as_raw_fd(), &slices, &[], flags, None) {
                Ok(_) => true,
                Err(_) => {
                    cut_off.push(one.connection);
                    false
                }
            }
        });
    }

    /// The connection is closed.
    pub fn remove(&mut self, connection: u64) {
        self.readers.retain(|one| one.connection != connection);
    }
}

impl Sandbox {
    pub fn attach(&mut self, number: u64) -> Answer {
        let Some(output) = &mut self.output else {
            return Err(request_error("the container does not run; start it first"));
        };
        let along = output
            .attach(number)
            .step("attach to", "the container; detach another first")?;
        let reply = Reply::Attached {
            terminal: output.terminal.is_some(),
            input: output.input.is_some(),
        };
        Ok(Some((reply, along)))
    }

    pub fn attached(&self) -> impl Iterator<Item = &One> {
        self.output.iter().flat_map(|output| &output.attached.readers)
    }
}
