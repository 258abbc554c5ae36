//! The side of the container: this program once more, as root of the container's user namespace and nowhere else
//! in it. What it is given comes over the socket that is its standard input.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command},
};

use nix::sched::{CloneFlags, setns};
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

use super::{CopyError, Found, Tree, Warnings, pack, unpack};
use crate::{
    init,
    shim::{client::Client, protocol::Request, wire},
    sys::process,
};

/// What `argv[0]` reads when the program is to be one.
const PROGRAM: &str = "stead-copy";

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
enum Order {
    /// The root directory and, where the container has a user namespace of its own, the descriptor of its first
    /// process come along.
    Begin,
    Look {
        path: PathBuf,
        follow: bool,
    },
    /// The stream to write comes along.
    Pack {
        path: PathBuf,
        follow: bool,
        name: String,
    },
    /// The stream to read comes along.
    Unpack {
        directory: PathBuf,
        archive: bool,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
enum Answer {
    Found {
        found: Found,
    },
    Done {
        warnings: Warnings,
    },
    /// The far end of the stream has gone: it says why.
    Broken,
    Failed {
        message: String,
    },
}

/// The asking end.
pub struct Worker {
    child: Child,
    socket: UnixStream,
    inbox: wire::Inbox,
}

impl Worker {
    /// For the container whose shim listens on `socket`. Its root directory is pinned before anything else.
    ///
    /// # Errors
    /// The container does not run.
    pub fn start(socket: &Path) -> Result<Self, CopyError> {
        let lost = |error: io::Error| CopyError::Container(error);
        let mut client = Client::connect(socket).map_err(|error| lost(io::Error::other(error)))?;
        let (reply, mut along) = client
            .request(&Request::State, &[])
            .map_err(|error| lost(io::Error::other(error)))?;
        let crate::shim::protocol::Reply::State(state) = reply else {
            return Err(lost(io::Error::other("no state")));
        };
        let (Some(pid), Some(first)) = (state.record.pid, along.pop()) else {
            return Err(lost(io::ErrorKind::NotFound.into()));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, format!("/proc/{pid}/root"), flags, Mode::empty());
        let root = root.map_err(|error| lost(error.into()))?;
        let other = other_user_namespace(pid).map_err(lost)?;
        // It was its process id all the while: it has not ended yet.
        if process::poll(&[(first.as_raw_fd(), libc::POLLIN)], 0)? != [0] {
            return Err(lost(io::ErrorKind::NotFound.into()));
        }
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg0(PROGRAM)
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .spawn()?;
        let mut worker = Worker {
            child,
            socket: ours,
            inbox: wire::Inbox::default(),
        };
        let along = [root.as_fd(), first.as_fd()];
        worker.done(&Order::Begin, if other { &along } else { &along[..1] })?;
        Ok(worker)
    }

    fn ask(&mut self, order: &Order, along: &[BorrowedFd<'_>]) -> Result<Answer, CopyError> {
        let lost = || CopyError::Container(io::ErrorKind::BrokenPipe.into());
        wire::send(self.socket.as_fd(), order, along).map_err(|_| lost())?;
        loop {
            if let Some((answer, _)) = self.inbox.take()? {
                return Ok(answer);
            }
            if !self.inbox.fill(self.socket.as_fd())? {
                return Err(lost());
            }
        }
    }

    fn done(&mut self, order: &Order, along: &[BorrowedFd<'_>]) -> Result<Warnings, CopyError> {
        match self.ask(order, along)? {
            Answer::Done { warnings } => Ok(warnings),
            Answer::Failed { message } => Err(CopyError::Path(message)),
            Answer::Broken => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
            Answer::Found { .. } => Err(CopyError::Container(io::ErrorKind::InvalidData.into())),
        }
    }

    /// What stands at the end of `path`, where symbolic links are followed.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn look(&mut self, path: &Path) -> Result<Found, CopyError> {
        self.look_as(path, true)
    }

    /// # Errors
    /// As [`Worker::look`].
    pub fn look_as(&mut self, path: &Path, follow: bool) -> Result<Found, CopyError> {
        let path = path.to_owned();
        match self.ask(&Order::Look { path, follow }, &[])? {
            Answer::Found { found } => Ok(found),
            Answer::Failed { message } => Err(CopyError::Path(message)),
            _ => Err(CopyError::Container(io::ErrorKind::InvalidData.into())),
        }
    }

    pub(super) fn pack(
        &mut self,
        path: &Path,
        follow: bool,
        name: &str,
        to: OwnedFd,
    ) -> Result<Warnings, CopyError> {
        let order = Order::Pack {
            path: path.to_owned(),
            follow,
            name: name.to_owned(),
        };
        self.hand_over(&order, to)
    }

    pub(super) fn unpack(
        &mut self,
        directory: &Path,
        archive: bool,
        from: OwnedFd,
    ) -> Result<Warnings, CopyError> {
        let directory = directory.to_owned();
        self.hand_over(&Order::Unpack { directory, archive }, from)
    }

    /// Our end of the stream is closed before the answer is waited for, or its far end would never see an end.
    fn hand_over(&mut self, order: &Order, stream: OwnedFd) -> Result<Warnings, CopyError> {
        wire::send(self.socket.as_fd(), order, &[stream.as_fd()])?;
        drop(stream);
        loop {
            if let Some((answer, _)) = self.inbox.take()? {
                return match answer {
                    Answer::Done { warnings } => Ok(warnings),
                    Answer::Failed { message } => Err(CopyError::Path(message)),
                    _ => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
                };
            }
            if !self.inbox.fill(self.socket.as_fd())? {
                return Err(CopyError::Container(io::ErrorKind::BrokenPipe.into()));
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

fn other_user_namespace(pid: u32) -> io::Result<bool> {
    let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user"));
    Ok(of(&pid.to_string())? != of("self")?)
}

/// To be called first in `main`, before any thread: serves and ends the process when it was started as one,
/// else does nothing.
pub fn dispatch() {
    if std::env::args_os().next().is_some_and(|name| name == PROGRAM) {
        let served = serve();
        std::process::exit(i32::from(served.is_err()));
    }
}

fn serve() -> io::Result<()> {
    process::default_signals();
    process::ignore_sigpipe();
    process::close_leaked_from(3)?;
    nix::sys::prctl::set_pdeathsig(Some(nix::sys::signal::Signal::SIGKILL))?;
    let socket = UnixStream::from(process::inherited(0)?.try_clone()?);
    process::place(File::open("/dev/null")?.as_fd(), 0)?;
    let mut inbox = wire::Inbox::default();
    let mut root = None;
    loop {
        let Some((order, mut along)) = inbox.take::<Order>()? else {
            if !inbox.fill(socket.as_fd())? {
                return Ok(());
            }
            continue;
        };
        let answer = match (order, &root) {
            (Order::Begin, None) => begin(&mut along).map(|pinned| {
                root = Some(pinned);
                Answer::Done { warnings: Vec::new() }
            }),
            (order, Some(root)) => carry_out(order, root, along.pop()),
            _ => Err(CopyError::Path("nothing was begun".into())),
        };
        let answer = answer.unwrap_or_else(|error| match error {
            CopyError::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => Answer::Broken,
            error => Answer::Failed {
                message: error.to_string(),
            },
        });
        wire::send(socket.as_fd(), &answer, &[])?;
    }
}

fn begin(along: &mut Vec<OwnedFd>) -> Result<OwnedFd, CopyError> {
    if along.len() == 2
        && let Some(first) = along.pop()
    {
        setns(&first, CloneFlags::CLONE_NEWUSER).map_err(|error| CopyError::Container(error.into()))?;
        init::become_namespace_root().map_err(|error| CopyError::Path(error.message))?;
        // Cleared by the change of ids.
        nix::sys::prctl::set_pdeathsig(Some(nix::sys::signal::Signal::SIGKILL)).map_err(io::Error::from)?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    along
        .pop()
        .ok_or_else(|| CopyError::Container(io::ErrorKind::NotFound.into()))
}

fn carry_out(order: Order, root: &OwnedFd, stream: Option<OwnedFd>) -> Result<Answer, CopyError> {
    let tree = Tree::Container(root);
    let warnings = match (order, stream) {
        (Order::Look { path, follow }, _) => {
            let found = tree.look(&path, follow)?;
            return Ok(Answer::Found { found });
        }
        (Order::Pack { path, follow, name }, Some(stream)) => {
            pack::pack(&tree, &path, follow, &name, &mut File::from(stream))?
        }
        (Order::Unpack { directory, archive }, Some(stream)) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let into = tree
                .open(&directory, flags)
                .map_err(|error| CopyError::Path(format!("{}: {error}", directory.display())))?;
            let owner = unpack::Owner {
                ids: (!archive).then_some((0, 0)),
                trusted: true,
            };
            unpack::unpack(&into, owner, stream.into())?
        }
        _ => return Err(CopyError::Path("an order without its stream".into())),
    };
    Ok(Answer::Done { warnings })
}
