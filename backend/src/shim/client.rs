//! Speaks to one shim: blocking, with a time limit per answer.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use reconciler::observed::Fault;

use super::{
    door,
    protocol::{Event, Exec, Reason, Reply, Request, SandboxState, VERSION},
    wire::{self, Inbox},
};
use crate::cgroup;

/// An answer that nobody has taken for so long is of another look.
const FRESH: Duration = Duration::from_secs(1);
/// A start may fill volumes; nothing else takes long.
const PATIENCE: Duration = Duration::from_secs(10);
const START_PATIENCE: Duration = Duration::from_secs(600);
/// One that has listened for long says its version at once, or stands still: a look at all waits for it.
const GREETING: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no answer from the shim; it is looked for again at the next observation")]
    Io(#[from] io::Error),
    #[error("{message}")]
    Refused {
        message: String,
        errno: Option<i32>,
        reason: Reason,
    },
    #[error("the shim speaks version {0} of the protocol, this stead {VERSION}; use the newer stead")]
    Version(u32),
    #[error("the shim answered what was not asked; upgrade it")]
    Unexpected,
}

/// A connection whose ends have said their version.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    inbox: Inbox,
    /// Process id of the shim.
    pub pid: u32,
    /// Its build, as `CARGO_PKG_VERSION`.
    pub build: String,
    /// When its state was asked for, and the answer has not been taken.
    ahead: Option<Instant>,
    /// An answer that nobody waits for is still to come.
    owed: bool,
}

/// What [`Reply::Attended`] says.
#[derive(Debug, Default)]
pub struct Attended {
    pub faults: Vec<Fault>,
    pub suspected: Option<u64>,
}

impl Client {
    /// To the shim that listens on the control socket `path`, also where somebody has deleted the file.
    ///
    /// # Errors
    /// Nobody listens (the shim is gone), or it does not answer.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        match Self::at(path) {
            Err(ClientError::Io(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                let pid = cgroup::shim_listening_at(path)?.ok_or(error)?;
                Self::greet(door::enter(pid)?, GREETING)
            }
            other => other,
        }
    }

    fn at(path: &Path) -> Result<Self, ClientError> {
        // Through /proc/self/fd: a socket's address has 108 bytes at most.
        let name = path
            .file_name()
            .ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
        let parent = std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?;
        let short = Path::new("/proc/self/fd")
            .join(parent.as_raw_fd().to_string())
            .join(name);
        Self::greet(UnixStream::connect(short)?, GREETING)
    }

    /// On a socket that is connected already.
    ///
    /// # Errors
    /// No answer, or another version.
    pub fn new(socket: UnixStream) -> Result<Self, ClientError> {
        Self::greet(socket, PATIENCE)
    }

    fn greet(socket: UnixStream, patience: Duration) -> Result<Self, ClientError> {
        let mut client = Client {
            socket,
            inbox: Inbox::default(),
            pid: 0,
            build: String::new(),
            ahead: None,
            owed: false,
        };
        client.limit(patience)?;
        wire::send(client.socket.as_fd(), &Request::Hello { version: VERSION }, &[])?;
        match client.answer()? {
            (
                Reply::Welcome {
                    version: VERSION,
                    build,
                    pid,
                },
                _,
            ) => {
                client.pid = pid;
                client.build = build;
                Ok(client)
            }
            (Reply::Welcome { version, .. }, _) => Err(ClientError::Version(version)),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// One question, one answer. Events that come in between are dropped: subscribe on a connection of
    /// its own.
    ///
    /// # Errors
    /// `Refused` carries what the shim said.
    pub fn request(
        &mut self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), ClientError> {
        self.request_and_tell(request, descriptors, None)
    }

    /// As [`Client::request`]; `more` goes along, so that the shim need not wait for it. Its answer is passed over by
    /// the next request.
    ///
    /// # Errors
    /// Those of `request`.
    pub fn request_and_tell(
        &mut self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
        more: Option<&Request>,
    ) -> Result<(Reply, Vec<OwnedFd>), ClientError> {
        let patience = if matches!(request, Request::Start(_)) {
            START_PATIENCE
        } else {
            PATIENCE
        };
        self.limit(patience)?;
        if std::mem::take(&mut self.owed)
            && let Err(error @ ClientError::Io(_)) = self.answer()
        {
            return Err(error);
        }
        match (request, self.ahead.take()) {
            (Request::State, Some(asked)) if asked.elapsed() < FRESH => return self.answer(),
            (_, Some(_)) => {
                if let Err(error @ ClientError::Io(_)) = self.answer() {
                    return Err(error);
                }
            }
            (_, None) => {}
        }
        wire::send(self.socket.as_fd(), request, descriptors)?;
        if let Some(more) = more {
            wire::send(self.socket.as_fd(), more, &[])?;
        }
        let answer = self.answer();
        self.owed = more.is_some();
        answer
    }

    /// Asks for the state, and leaves the answer to a request for it that follows at once: whoever looks at
    /// many waits for all of them together.
    ///
    /// # Errors
    /// The shim is gone.
    pub fn ask_ahead(&mut self) -> Result<(), ClientError> {
        if self.ahead.is_none() {
            self.socket.set_write_timeout(Some(PATIENCE))?;
            wire::send(self.socket.as_fd(), &Request::State, &[])?;
            self.ahead = Some(Instant::now());
        }
        Ok(())
    }

    /// Asks how it is; the answer is for [`Client::attended`], which is to follow.
    ///
    /// # Errors
    /// The shim is gone, or has not answered what it was asked before.
    pub fn attend(&mut self) -> Result<(), ClientError> {
        if self.owed || self.ahead.is_some() {
            return Err(io::Error::from(io::ErrorKind::WouldBlock).into());
        }
        self.socket.set_write_timeout(Some(PATIENCE))?;
        wire::send(self.socket.as_fd(), &Request::Attend, &[])?;
        self.owed = true;
        Ok(())
    }

    /// How it is, unless it does not say so in time.
    ///
    /// # Errors
    /// No answer so far; one that comes later is passed over.
    pub fn attended(&mut self, patience: Duration) -> Result<Attended, ClientError> {
        // None at all would be for ever.
        self.limit(patience.max(Duration::from_millis(1)))?;
        let answer = self.answer();
        self.owed = matches!(answer, Err(ClientError::Io(_)));
        match answer?.0 {
            Reply::Attended { faults, suspected } => Ok(Attended { faults, suspected }),
            // An older one tells it as an event.
            _ => Ok(Attended::default()),
        }
    }

    /// Waits until there is something to be read of what was asked ahead.
    pub fn wait_ahead(&self) {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        if self.ahead.is_some() {
            let patience = PollTimeout::try_from(FRESH).unwrap_or(PollTimeout::ZERO);
            let _ = poll(
                &mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)],
                patience,
            );
        }
    }

    fn limit(&self, patience: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(patience))?;
        self.socket.set_write_timeout(Some(PATIENCE))
    }

    fn answer(&mut self) -> Result<(Reply, Vec<OwnedFd>), ClientError> {
        loop {
            match self.receive()? {
                (Reply::Event(_), _) => {}
                (
                    Reply::Failed {
                        message,
                        errno,
                        reason,
                    },
                    _,
                ) => {
                    return Err(ClientError::Refused {
                        message,
                        errno,
                        reason,
                    });
                }
                answer => return Ok(answer),
            }
        }
    }

    /// For requests that are answered by `Done`.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn order(&mut self, request: &Request) -> Result<(), ClientError> {
        match self.request(request, &[])? {
            (Reply::Done, _) => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// # Errors
    /// As [`Client::request`].
    pub fn state(&mut self) -> Result<SandboxState, ClientError> {
        match self.request(&Request::State, &[])? {
            (Reply::State(state), _) => Ok(*state),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Replaces the shim's program by the one open as `binary`.
    ///
    /// # Errors
    /// The shim goes on as it was.
    pub fn upgrade(&mut self, binary: BorrowedFd<'_>) -> Result<(), ClientError> {
        match self.request(&Request::Upgrade, &[binary])? {
            (Reply::Done, _) => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// The shim has closed its end, or is dead.
    pub fn hung_up(&self) -> bool {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    fn receive(&mut self) -> Result<(Reply, Vec<OwnedFd>), ClientError> {
        loop {
            if let Some(answer) = self.inbox.take()? {
                return Ok(answer);
            }
            match self.inbox.fill(self.socket.as_fd()) {
                Ok(true) => {}
                Ok(false) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The connection becomes a source of events.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn subscribe(mut self) -> Result<Subscription, ClientError> {
        self.order(&Request::Subscribe)?;
        self.socket.set_read_timeout(None)?;
        Ok(Subscription { client: self })
    }

    /// Starts a process in the container. With a terminal the master comes back. The end is told by
    /// [`Client::wait`].
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn exec(
        &mut self,
        exec: Exec,
        stdio: &[BorrowedFd<'_>],
    ) -> Result<(u32, Option<OwnedFd>), ClientError> {
        // With a terminal only the caller's own, for its size.
        let given = if exec.terminal {
            &stdio[..stdio.len().min(1)]
        } else {
            stdio
        };
        match self.request(&Request::Exec(Box::new(exec)), given)? {
            (Reply::ExecStarted { pid }, mut along) => Ok((pid, along.pop())),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Sends what is not waited for: the answer, which nobody takes, is passed over by [`Client::wait`] and
    /// [`Client::attach_ended`].
    ///
    /// # Errors
    /// The shim is gone.
    pub fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        Ok(wire::send(self.socket.as_fd(), request, &[])?)
    }

    /// Waits for the end of what `Request::Attach` began, as [`Reply::AttachEnded`] has it.
    ///
    /// # Errors
    /// The shim is gone.
    pub fn attach_ended(&mut self) -> Result<Option<i32>, ClientError> {
        self.socket.set_read_timeout(Some(PATIENCE))?;
        loop {
            if let (Reply::AttachEnded { code }, _) = self.receive()? {
                return Ok(code);
            }
        }
    }

    /// Waits for the end of what [`Client::exec`] started: its exit status, or 128 + signal.
    ///
    /// # Errors
    /// The shim is gone.
    pub fn wait(&mut self) -> Result<i32, ClientError> {
        self.socket.set_read_timeout(None)?;
        loop {
            if let (Reply::ExecExited { code }, _) = self.receive()? {
                return Ok(code);
            }
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Events as they come; [`AsFd`] to wait for more than one.
#[derive(Debug)]
pub struct Subscription {
    client: Client,
}

impl Subscription {
    /// Waits for the next event.
    ///
    /// # Errors
    /// The shim is gone.
    pub fn next_event(&mut self) -> Result<Event, ClientError> {
        loop {
            if let (Reply::Event(event), _) = self.client.receive()? {
                return Ok(event);
            }
        }
    }
}

impl From<Subscription> for OwnedFd {
    fn from(subscription: Subscription) -> Self {
        subscription.client.socket.into()
    }
}

impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.as_fd()
    }
}

/// `stead exec`: starts the process, relays the terminal if there is one, answers its exit status.
///
/// # Errors
/// As [`Client::request`].
pub fn exec(socket: &Path, exec: Exec, stdio: [BorrowedFd<'_>; 3]) -> Result<i32, ClientError> {
    let mut client = Client::connect(socket)?;
    let (_, master) = client.exec(exec, &stdio)?;
    if let Some(master) = master {
        let _raw = super::relay::Raw::enter(stdio[0]);
        super::relay::relay(stdio[0], stdio[1], &master)?;
    }
    client.wait()
}

#[cfg(test)]
mod tests;
