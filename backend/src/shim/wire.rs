//! One message: a little-endian `u32` length, that many bytes of JSON, descriptors with the length.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::sys::message;

/// No honest message is longer.
const LONGEST: usize = 16 << 20;

/// How long a whole message may take to be sent: whoever does not read must not hold up the sender.
const PATIENCE: Duration = Duration::from_secs(1);
/// Descriptors that one message may bring.
const DESCRIPTORS: usize = 8;

/// Sends a whole message (or fails when the socket does not take it in time).
///
/// # Errors
/// As sendmsg(2).
pub fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    value: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let body = serde_json::to_vec(value).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    let end = Instant::now() + PATIENCE;
    let mut sent = 0;
    while sent < bytes.len() {
        let along = if sent == 0 { descriptors } else { &[] };
        match message::send(socket, &bytes[sent..], along) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = end.saturating_duration_since(Instant::now());
                let mut fds = [nix::poll::PollFd::new(socket, nix::poll::PollFlags::POLLOUT)];
                match nix::poll::poll(&mut fds, left.as_millis() as u16) {
                    Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                    Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What has arrived of the next messages.
#[derive(Debug, Default)]
pub struct Inbox {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

impl Inbox {
    /// Reads once. `false` at the end of the stream.
    ///
    /// # Errors
    /// As recvmsg(2); WouldBlock when there is nothing yet.
    pub fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut chunk = [0; 4096];
        let count = message::receive(socket, &mut chunk, &mut self.descriptors)?;
        if self.descriptors.len() > DESCRIPTORS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors"));
        }
        self.bytes.extend_from_slice(&chunk[..count]);
        Ok(count > 0)
    }

    /// The next whole message and every descriptor that has come.
    ///
    /// # Errors
    /// The length or the JSON is wrong: the connection is of no more use.
    pub fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let Some(length) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
        }
        let Some(body) = self.bytes.get(4..4 + length) else {
            return Ok(None);
        };
        let value = serde_json::from_slice(body).map_err(io::Error::other);
        self.bytes.drain(..4 + length);
        if self.bytes.is_empty() {
            self.bytes.shrink_to(4096);
        }
        Ok(Some((value?, std::mem::take(&mut self.descriptors))))
    }
}
