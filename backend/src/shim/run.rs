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
use reconciler::{key::InstanceKey, spec::LogSettings};

use super::{attached::Attached, clock};
use crate::{
    init::Stdio,
    logs::{
        forward::{Dropped, Forward},
        writer::{Lines, Lost, Writer},
    },
    sys::process,
};

/// Read per turn of the loop: a service that prints without pause must not starve the rest.
const PER_TURN: usize = 8;

/// Output of a container: what has not been read yet outlives the process.
#[derive(Debug)]
pub struct Output {
    pub streams: [Option<OwnedFd>; 2],
    pub lines: [Lines; 2],
    /// The first stream is the master of a terminal. Its other end is held: without one, whoever closes all
    /// of theirs for a moment would hang it up.
    pub terminal: Option<OwnedFd>,
    /// What is written here, the process reads.
    pub input: Option<OwnedFd>,
    pub attached: Attached,
    /// What hooks print, until the last end of it is closed.
    pub beside: Vec<Beside>,
    writer: Writer,
    /// What is read at once.
    chunk: Box<[u8]>,
}

/// The output of a process beside the first one.
#[derive(Debug)]
pub struct Beside {
    pub streams: [Option<OwnedFd>; 2],
    pub lines: [Lines; 2],
}

impl Beside {
    /// Pipes for a process, and the ends it gets.
    ///
    /// # Errors
    /// As pipe2(2).
    pub fn new(base: u32) -> io::Result<(Self, [OwnedFd; 2])> {
        let (out, out_end) = pipe(base)?;
        let (err, err_end) = pipe(base)?;
        let beside = Beside {
            streams: [Some(out), Some(err)],
            lines: Default::default(),
        };
        Ok((beside, [out_end, err_end]))
    }

    /// As [`Output::drain`].
    fn drain(&mut self, chunk: &mut [u8], writer: &mut Writer, all: bool) {
        for (number, name) in NAMES.into_iter().enumerate() {
            let mut turns = 0;
            while let Some(stream) = self.streams[number].as_ref().filter(|_| all || turns < PER_TURN) {
                match read(stream.as_fd(), chunk) {
                    Ok(0) => {
                        self.lines[number].finish(name, writer, Timestamp::now());
                        self.streams[number] = None;
                    }
                    Ok(count) => self.lines[number].take(name, &chunk[..count], writer, Timestamp::now()),
                    Err(nix::errno::Errno::EINTR) => {}
                    Err(_) => break,
                }
                turns += 1;
            }
        }
    }
}

/// One whose other end, for the container, is of the host's id `base`. Reading does not wait.
fn pipe(base: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    fchown(&write_end, Some(Uid::from_raw(base)), Some(Gid::from_raw(base)))?;
    Ok((read_end, write_end))
}

const CHUNK: usize = 16 << 10;

const NAMES: [&str; 2] = ["stdout", "stderr"];

impl Output {
    pub fn resume(streams: [Option<OwnedFd>; 2], pending: [Vec<u8>; 2], logs: &Path, lost: Lost) -> Self {
        Output {
            streams,
            lines: pending.map(|pending| Lines {
                pending,
                terminal: false,
            }),
            terminal: None,
            input: None,
            attached: Attached::default(),
            beside: Vec::new(),
            writer: Writer::new(logs, lost),
            chunk: vec![0; CHUNK].into(),
        }
    }

    /// Pipes for a new process whose root is the host's id `base`, and the ends it gets. `open`: standard
    /// input is one of them.
    ///
    /// # Errors
    /// As pipe2(2) and open(2) of /dev/null.
    pub fn new(logs: &Path, base: u32, lost: Lost, open: bool) -> io::Result<(Self, Stdio)> {
        let (input, input_end) = if open {
            let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
            fcntl(&write_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            fchown(&read_end, Some(Uid::from_raw(base)), Some(Gid::from_raw(base)))?;
            (Some(write_end), read_end)
        } else {
            (None, std::fs::File::open("/dev/null")?.into())
        };
        let (out, out_end) = pipe(base)?;
        let (err, err_end) = pipe(base)?;
        let mut output = Output::resume([Some(out), Some(err)], [Vec::new(), Vec::new()], logs, lost);
        output.input = input;
        let stdio = Stdio {
            descriptors: [input_end, out_end, err_end],
            terminal: false,
        };
        Ok((output, stdio))
    }

    /// A line of our own.
    pub fn note(&mut self, text: &str) {
        let text = format!("stead: {text}\n");
        Lines::default().take("stderr", text.as_bytes(), &mut self.writer, Timestamp::now());
    }

    /// For a process that has the other end of `master`. `open`: what is typed there is for it to read.
    ///
    /// # Errors
    /// As dup(2) and ioctl_tty(2).
    pub fn of_terminal(logs: &Path, lost: Lost, master: OwnedFd, open: bool) -> io::Result<Self> {
        let input = open.then(|| master.try_clone()).transpose()?;
        let mut output = Output::resume([Some(master), None], [Vec::new(), Vec::new()], logs, lost);
        output.input = input;
        output.hold_terminal()?;
        Ok(output)
    }

    /// Once more after a hang-up: the program may open its terminal again.
    ///
    /// # Errors
    /// As ioctl_tty(2).
    pub fn hold_terminal(&mut self) -> io::Result<()> {
        let Some(master) = &self.streams[0] else {
            return Ok(());
        };
        self.terminal = Some(process::terminal_peer(master.as_fd())?);
        self.lines[0].terminal = true;
        Ok(())
    }

    /// Whoever attaches gets these: where they read, what they may write to and resize.
    ///
    /// # Errors
    /// As [`Attached::add`].
    pub fn attach(&mut self, connection: u64) -> io::Result<Vec<OwnedFd>> {
        let master = self.streams[0].as_ref().filter(|_| self.terminal.is_some());
        let along = master
            .or(self.input.as_ref())
            .map(OwnedFd::try_clone)
            .transpose()?;
        let socket = self.attached.add(connection)?;
        Ok([socket].into_iter().chain(along).collect())
    }

    /// The descriptors to wait for.
    pub fn poll_fds(&self) -> impl Iterator<Item = RawFd> {
        let beside = self.beside.iter().flat_map(|beside| &beside.streams);
        self.streams
            .iter()
            .chain(beside)
            .flatten()
            .map(AsRawFd::as_raw_fd)
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
                        self.attached.tell(number as u8 + 1, &self.chunk[..count]);
                        let now = Timestamp::now();
                        self.lines[number].take(name, &self.chunk[..count], &mut self.writer, now);
                    }
                    Err(nix::errno::Errno::EINTR) => {}
                    // Hung up by the program (vhangup(2)), or by its end.
                    Err(nix::errno::Errno::EIO) if !all && self.terminal.is_some() => {
                        if self.hold_terminal().is_err() {
                            self.streams[number] = None;
                        }
                        break;
                    }
                    Err(_) => break,
                }
                turns += 1;
                if !all && turns == PER_TURN {
                    break;
                }
            }
        }
        for beside in &mut self.beside {
            beside.drain(&mut self.chunk, &mut self.writer, all);
        }
        self.beside
            .retain(|beside| beside.streams.iter().any(Option::is_some));
    }

    /// Where it goes, from now on. `dropped`: by the one before.
    pub fn set(&mut self, settings: &LogSettings, key: &InstanceKey, dropped: Dropped) {
        self.writer.set(settings, key, dropped);
    }

    /// Who gets each line as well.
    pub fn forward(&mut self) -> Option<&mut Forward> {
        self.writer.forward()
    }

    pub fn forwarded(&self) -> Option<&Forward> {
        self.writer.forwarded()
    }

    /// What could not be written so far.
    pub fn lost(&self) -> &Lost {
        &self.writer.lost
    }

    /// The process is gone: reads the rest and ends. What could not be written is left to the next; those who
    /// are attached are still to be told.
    pub fn finish(mut self) -> (Lost, Attached) {
        self.drain(true);
        for (number, name) in NAMES.into_iter().enumerate() {
            self.lines[number].finish(name, &mut self.writer, Timestamp::now());
            for beside in &mut self.beside {
                beside.lines[number].finish(name, &mut self.writer, Timestamp::now());
            }
        }
        if let Some(forward) = self.writer.forward() {
            forward.flush(clock::boot());
        }
        (self.writer.lost, self.attached)
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
