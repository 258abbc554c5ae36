//! The container's first process while it runs, and what it prints.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    path::Path,
};

use jiff::Timestamp;
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::{Gid, Pid, Uid, fchown, pipe2, read},
};

use crate::{
    init::Stdio,
    logs::writer::{Lines, Lost, Writer},
};

/// Read per turn of the loop: a service that prints without pause must not starve the rest.
const PER_TURN: usize = 8;

/// Output of a container: what has not been read yet outlives the process.
#[derive(Debug)]
pub struct Output {
    pub streams: [Option<OwnedFd>; 2],
    pub lines: [Lines; 2],
    writer: Writer,
    /// What is read at once.
    chunk: Box<[u8]>,
}

const CHUNK: usize = 16 << 10;

const NAMES: [&str; 2] = ["stdout", "stderr"];

impl Output {
    pub fn resume(streams: [Option<OwnedFd>; 2], pending: [Vec<u8>; 2], logs: &Path, lost: Lost) -> Self {
        Output {
            streams,
            lines: pending.map(|pending| Lines { pending }),
            writer: Writer::new(logs, lost),
            chunk: vec![0; CHUNK].into(),
        }
    }

    /// Pipes for a new process whose root is the host's id `base`, and the ends it gets.
    ///
    /// # Errors
    /// As pipe2(2) and open(2) of /dev/null.
    pub fn new(logs: &Path, base: u32, lost: Lost) -> io::Result<(Self, Stdio)> {
        let null = std::fs::File::open("/dev/null")?;
        let mut pipes = Vec::new();
        for _ in 0..2 {
            let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
            fcntl(&read_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            fchown(&write_end, Some(Uid::from_raw(base)), Some(Gid::from_raw(base)))?;
            pipes.push((read_end, write_end));
        }
        let [(out, out_end), (err, err_end)] =
            <[_; 2]>::try_from(pipes).map_err(|_| io::Error::other("two pipes"))?;
        let output = Output::resume([Some(out), Some(err)], [Vec::new(), Vec::new()], logs, lost);
        let stdio = Stdio {
            descriptors: [null.into(), out_end, err_end],
            terminal: false,
        };
        Ok((output, stdio))
    }

    /// The descriptors to wait for.
    pub fn poll_fds(&self) -> impl Iterator<Item = RawFd> {
        self.streams.iter().flatten().map(AsRawFd::as_raw_fd)
    }

    /// Reads what is there; `all` until nothing is left.
    pub fn drain(&mut self, all: bool) {
        for (number, name) in NAMES.into_iter().enumerate() {
            let mut turns = 0;
            while let Some(stream) = &self.streams[number] {
                match read(stream.as_fd(), &mut self.chunk) {
                    Ok(0) => {
                        self.lines[number].finish(name, &mut self.writer, Timestamp::now());
                        self.streams[number] = None;
                    }
                    Ok(count) => {
                        let now = Timestamp::now();
                        self.lines[number].take(name, &self.chunk[..count], &mut self.writer, now);
                    }
                    Err(nix::errno::Errno::EINTR) => {}
                    Err(_) => break,
                }
                turns += 1;
                if !all && turns == PER_TURN {
                    break;
                }
            }
        }
    }

    /// What could not be written so far.
    pub fn lost(&self) -> &Lost {
        &self.writer.lost
    }

    /// The process is gone: reads the rest and ends. What could not be written is left to the next.
    pub fn finish(mut self) -> Lost {
        self.drain(true);
        for (number, name) in NAMES.into_iter().enumerate() {
            self.lines[number].finish(name, &mut self.writer, Timestamp::now());
        }
        self.writer.lost
    }
}

/// Exit status, or 128 + signal; `None` while it runs.
pub fn reap(pid: i32) -> Option<i32> {
    match waitpid(
        Pid::from_raw(pid),
        Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG),
    ) {
        Ok(WaitStatus::Exited(_, code)) => Some(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
        Ok(_) | Err(nix::errno::Errno::EINTR) => None,
        // Not ours any more: it cannot be asked, so it counts as killed.
        Err(_) => Some(137),
    }
}
