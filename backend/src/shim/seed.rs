//! What supervisors are forked from: executed once for an agent, so that none of them is.
//!
//! A supervisor that is executed costs as much as half of its start: the program is mapped, linked and read in,
//! the processor asked what it can, the mounts of the host looked through. The seed has done all that and nothing
//! else. What it forks is a child of the agent, born in its own leaf.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            net::UnixStream,
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal};

use super::{PROGRAM, serve, state::leave_leaf};
use crate::{
    cgroup::{self, limits::Controllers},
    init::seccomp,
    rootfs::bare,
    sys::{
        message,
        process::{self, Side},
    },
};

/// What the program is asked to be.
pub const VERB: &str = "supervise";
/// Milliseconds in which a seed ends that shall.
const PATIENCE: i32 = 5_000;
/// The longest name of a leaf.
const LONGEST: usize = 255;

/// The agent's side.
#[derive(Debug)]
pub struct Seed {
    socket: OwnedFd,
    pidfd: OwnedFd,
    idle: PathBuf,
}

/// A child of the agent: readable when it has ended, and where it lives.
pub struct Started {
    pub pidfd: OwnedFd,
    pub leaf: PathBuf,
}

impl Started {
    fn new(pid: Pid, leaf: PathBuf) -> io::Result<Self> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Started { pidfd, leaf })
    }
}

impl Seed {
    /// `idle`: where the leaves are. The process is to be reaped by the caller.
    ///
    /// # Errors
    /// As execve(2).
    pub fn new(program: &Path, idle: &Path, errors: Stdio) -> io::Result<(Self, Started)> {
        let kind = SockType::SeqPacket;
        let (socket, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
        // Standard input carries the socket, since nothing but the three standard descriptors passes a
        // [`Command`]. Nothing is asked for that would need a fork of this whole process, as a working directory
        // does: a shim goes to "/" by itself.
        let child = Command::new(program)
            .arg0(PROGRAM)
            .arg(VERB)
            .arg(idle)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()?;
        let leaf = own_leaf(idle, std::process::id(), child.id());
        let started = Started::new(Pid::from_child(&child), leaf)?;
        let seed = Seed {
            socket,
            pidfd: started.pidfd.try_clone()?,
            idle: idle.to_owned(),
        };
        Ok((seed, started))
    }

    /// Asks for a shim in the leaf `name`, which is spoken to by the other end of `socket`: it says itself that it
    /// is there, or the socket is closed. Nobody waits here: many are asked for at once.
    ///
    /// # Errors
    /// The seed is gone.
    pub fn ask(&self, name: &str, socket: BorrowedFd<'_>) -> io::Result<()> {
        message::send(self.socket.as_fd(), name.as_bytes(), &[socket]).map(drop)
    }

    /// Readable when [`Seed::forked`] has something to say.
    pub fn poll_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// What was forked and not told of yet, each to be reaped by the caller.
    pub fn forked(&self) -> Vec<Started> {
        let readable = || {
            let ready = process::poll(&[(self.poll_fd(), libc::POLLIN)], 0);
            ready.is_ok_and(|events| events[0] & libc::POLLIN != 0)
        };
        let told = std::iter::from_fn(|| readable().then(|| self.told()).flatten());
        told.flatten().collect()
    }

    /// One answer; the inner `None`: that one has been reaped, which cannot be. The outer one: the seed has ended.
    fn told(&self) -> Option<Option<Started>> {
        let mut answer = [0; size_of::<i32>() + LONGEST];
        let count = message::receive(self.socket.as_fd(), &mut answer, &mut Vec::new()).ok()?;
        let (pid, name) = answer[..count].split_first_chunk()?;
        let pid = Pid::from_raw(i32::from_ne_bytes(*pid))?;
        Some(Started::new(pid, self.idle.join(OsStr::from_bytes(name))).ok())
    }

    /// Nothing is asked of it any more: waits until it has ended, and tells what it forked before.
    pub fn finish(&self) -> Vec<Started> {
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
        let ended = [(self.pidfd.as_raw_fd(), libc::POLLIN)];
        if process::poll(&ended, PATIENCE).is_ok_and(|events| events[0] == 0) {
            self.end();
        }
        self.forked()
    }

    /// One that has failed shall not go on.
    pub fn end(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// A new one for each seed: the kernel does not forget that a cgroup was killed.
fn own_leaf(idle: &Path, agent: u32, pid: u32) -> PathBuf {
    idle.join(format!("{agent}-seed-{pid}"))
}

/// The seed itself, and whatever it forks.
///
/// # Errors
/// The host lacks something; said on standard error.
pub fn run(idle: &Path) -> io::Result<()> {
    process::close_leaked_from(3)?;
    let null = File::open("/dev/null")?;
    let agent = process::inherited(0)?.try_clone()?;
    process::place(null.as_fd(), 0)?;
    drop(null);
    serve::prepare()?;
    // What is typed at the agent's terminal is for the agent.
    nix::unistd::setsid()?;
    let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get() as u32);
    let leaf = own_leaf(idle, parent, std::process::id());
    cgroup::create(&leaf)?;
    cgroup::enter(&leaf, 0)?;
    let controllers = Controllers::find();
    // Made here for all. Whom it cannot be made for is told by the start.
    seccomp::warm();
    let _ = bare::namespace();
    loop {
        // It goes with its agent.
        let Some((name, socket)) = asked(&agent) else {
            leave_leaf(&leaf);
            return Ok(());
        };
        let own = idle.join(&name);
        match fork(&own) {
            Ok(Side::Child) => {
                drop(agent);
                return serve::idle(own, socket, controllers);
            }
            Ok(Side::Parent(pid)) => {
                drop(socket);
                let answer = [&pid.to_ne_bytes(), name.as_bytes()].concat();
                // One that is gone is seen by the next look for a question.
                let _ = message::send(agent.as_fd(), &answer, &[]);
            }
            // The socket is closed.
            Err(error) => eprintln!("shim: cannot be forked in {}: {error}", own.display()),
        }
    }
}

/// The name of a leaf, and what its shim shall speak on. `None`: nobody asks any more.
fn asked(agent: &OwnedFd) -> Option<(OsString, UnixStream)> {
    let (mut name, mut sockets) = ([0; LONGEST], Vec::new());
    let count = loop {
        match message::receive(agent.as_fd(), &mut name, &mut sockets) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other.ok()?,
        }
    };
    let socket = sockets.pop().filter(|_| count > 0)?;
    Some((OsString::from_vec(name[..count].to_vec()), socket.into()))
}

/// Born where it lives: a move would wait for others.
fn fork(leaf: &Path) -> io::Result<Side> {
    cgroup::create(leaf)?;
    let made = File::open(leaf).and_then(|place| process::clone(libc::CLONE_PARENT, Some(place.as_fd())));
    if made.is_err() {
        let _ = fs::remove_dir(leaf);
    }
    made
}
