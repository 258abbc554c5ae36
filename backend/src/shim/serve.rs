//! The loop: one poll(2), then whatever is ready.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::{
    clock,
    protocol::{Reason, Reply, Request},
    state::{Phase, Supervisor},
    stub::Stub,
    wire::{self, Inbox},
};
use crate::{
    cgroup::limits::{Controllers, LimitError},
    logs::forward::Forward,
    sandbox::Holder,
    sys::process,
};

/// One who asks.
#[derive(Debug)]
pub struct Connection {
    /// Counts up; what runs for a connection names it.
    pub number: u64,
    pub socket: UnixStream,
    pub inbox: Inbox,
    pub subscribed: bool,
    /// The last whole request (boot clock); `None`: not one yet.
    pub heard: Option<u64>,
}

impl Connection {
    /// A connection that cannot take its answer is closed by the next read.
    pub fn send(&self, reply: &Reply, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
        if wire::send(self.socket.as_fd(), reply, descriptors).is_err() {
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Listener,
    Door,
    Connection(u64),
    Output,
    Forward,
    First,
    Limits,
    Pause,
    Joined(i32),
    Stub,
    Maker,
    Names,
}

/// A shim without a sandbox, just forked in `leaf`: makes its namespaces, then waits.
///
/// # Errors
/// The host lacks something; said on standard error.
pub fn idle(
    leaf: PathBuf,
    socket: UnixStream,
    controllers: Result<Controllers, LimitError>,
) -> io::Result<()> {
    nix::unistd::setsid()?;
    // Keyrings are of no namespace: what a container runs without the filter would have the agent's.
    let _ = process::leave_session_keyring();
    // A host that forbids it can still run what shall have none.
    let holder = Holder::new();
    process::populate_text();
    let mut supervisor = Supervisor::new(Phase::Idle {
        holder,
        controllers,
        leaf,
    });
    supervisor.connect(socket)?;
    serve(&mut supervisor)
}

/// What holds for all that is forked from a seed, and for a shim that was replaced.
pub fn prepare() -> io::Result<()> {
    process::default_signals();
    process::ignore_sigpipe();
    let _ = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::prctl::set_name(c"stead-shim")?;
    std::env::set_current_dir("/")
}

/// Until there is nothing left to supervise.
///
/// # Errors
/// poll(2) fails.
pub fn serve(supervisor: &mut Supervisor) -> io::Result<()> {
    while !supervisor.finished() {
        let (wanted, tokens) = wanted(supervisor);
        let now = clock::boot();
        let timeout = supervisor
            .deadline()
            .map_or(-1, |at| at.saturating_sub(now).min(3_600_000) as i32);
        let events = process::poll(&wanted, timeout)?;
        for ((&(fd, _), &token), &event) in wanted.iter().zip(&tokens).zip(&events) {
            if event != 0 {
                ready(supervisor, token, fd, event);
            }
        }
        supervisor.tick(clock::boot());
    }
    Ok(())
}

fn wanted(supervisor: &Supervisor) -> (Vec<(i32, i16)>, Vec<Token>) {
    let mut wanted = Vec::new();
    let mut tokens = Vec::new();
    for connection in &supervisor.connections {
        wanted.push((connection.socket.as_raw_fd(), libc::POLLIN));
        tokens.push(Token::Connection(connection.number));
    }
    if let Phase::Assigned(sandbox) = &supervisor.phase {
        wanted.push((sandbox.listener.as_raw_fd(), libc::POLLIN));
        tokens.push(Token::Listener);
        wanted.push((sandbox.door.as_fd().as_raw_fd(), libc::POLLIN));
        tokens.push(Token::Door);
        // Output before the end of its process: lines first.
        for fd in sandbox.output.iter().flat_map(super::run::Output::poll_fds) {
            wanted.push((fd, libc::POLLIN));
            tokens.push(Token::Output);
        }
        if let Some(fd) = sandbox
            .output
            .iter()
            .filter_map(super::run::Output::forwarded)
            .find_map(Forward::poll_fd)
        {
            wanted.push((fd, libc::POLLOUT));
            tokens.push(Token::Forward);
        }
        if let Some((_, pidfd)) = &sandbox.first {
            wanted.push((pidfd.as_raw_fd(), libc::POLLIN));
            tokens.push(Token::First);
        }
        for wish in sandbox.watch.poll_fds().filter(|_| sandbox.first.is_some()) {
            wanted.push(wish);
            tokens.push(Token::Limits);
        }
        for joined in &sandbox.joined {
            wanted.push((joined.pidfd.as_raw_fd(), libc::POLLIN));
            tokens.push(Token::Joined(joined.pid));
        }
        if let Some((_, pidfd)) = &sandbox.pause {
            wanted.push((pidfd.as_raw_fd(), libc::POLLIN));
            tokens.push(Token::Pause);
        }
        for wish in sandbox.stub.iter().flat_map(Stub::poll_fds) {
            wanted.push(wish);
            tokens.push(Token::Stub);
        }
        if let Some(maker) = sandbox.stub.as_ref().and_then(Stub::maker) {
            wanted.push((maker.as_raw_fd(), libc::POLLIN));
            tokens.push(Token::Maker);
        }
        if let Some(names) = &sandbox.names {
            names.server.poll_fds(&mut wanted);
        }
        tokens.resize(wanted.len(), Token::Names);
    }
    (wanted, tokens)
}

fn ready(supervisor: &mut Supervisor, token: Token, fd: i32, event: i16) {
    match token {
        Token::Connection(number) => listen(supervisor, number),
        Token::First => supervisor.first_ended(),
        Token::Limits => supervisor.limits_told(),
        Token::Joined(pid) => supervisor.joined_ended(pid),
        Token::Output => supervisor.printed(),
        Token::Forward => supervisor.forward(),
        Token::Listener | Token::Door | Token::Names | Token::Pause | Token::Stub | Token::Maker => {
            let Phase::Assigned(sandbox) = &mut supervisor.phase else {
                return;
            };
            match token {
                Token::Pause => sandbox.pause_ended(),
                Token::Stub => sandbox.end_stub(),
                Token::Maker => {
                    if let Some(stub) = &mut sandbox.stub {
                        stub.reap_maker();
                    }
                }
                Token::Names => {
                    if let Some(names) = &mut sandbox.names {
                        names.server.ready(fd, event);
                    }
                }
                // Whoever could take the door from us is root.
                Token::Door => {
                    for socket in sandbox.door.take() {
                        let _ = supervisor.connect(socket);
                    }
                }
                _ => {
                    // The mode of the socket says the same; but a mode can be changed.
                    if let Ok((socket, _)) = sandbox.listener.accept()
                        && getsockopt(&socket, PeerCredentials)
                            .is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw())
                    {
                        let _ = supervisor.connect(socket);
                    }
                }
            }
        }
    }
}

/// Reads from one connection and answers every whole request.
fn listen(supervisor: &mut Supervisor, number: u64) {
    let Some(connection) = supervisor.connection(number) else {
        return;
    };
    let open = match connection.inbox.fill(connection.socket.as_fd()) {
        Ok(open) => open,
        Err(error) => matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
        ),
    };
    loop {
        let Some(connection) = supervisor.connection(number) else {
            return;
        };
        match connection.inbox.take::<Request>() {
            Ok(Some((request, descriptors))) => {
                connection.heard = Some(clock::boot());
                answer(supervisor, number, request, descriptors);
            }
            Ok(None) => break,
            Err(error) => {
                connection.send(
                    &Reply::Failed {
                        message: format!(
                            "the request was not understood ({error}); use a stead of this version"
                        ),
                        errno: None,
                        reason: Reason::Request,
                    },
                    &[],
                );
                if error.kind() == io::ErrorKind::InvalidData {
                    return supervisor.disconnect(number);
                }
            }
        }
    }
    if !open {
        supervisor.disconnect(number);
    }
}

fn answer(supervisor: &mut Supervisor, number: u64, request: Request, descriptors: Vec<OwnedFd>) {
    match supervisor.answer(number, request, descriptors) {
        Ok(Some((reply, along))) => {
            let along: Vec<_> = along.iter().map(AsFd::as_fd).collect();
            if let Some(connection) = supervisor.connection(number) {
                connection.send(&reply, &along);
            }
        }
        Ok(None) => {}
        Err(error) => {
            let reply = Reply::Failed {
                message: error.message,
                errno: error.errno,
                reason: error.reason,
            };
            if let Some(connection) = supervisor.connection(number) {
                connection.send(&reply, &[]);
            }
        }
    }
    supervisor.settle();
}
