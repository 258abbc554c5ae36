//! Further processes in the container: `exec`, health probes and hooks.

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use nix::{
    sys::{
        signal::{Signal, killpg},
        socket::{AddressFamily, SockFlag, SockType, socketpair},
    },
    unistd::Pid,
};
use reconciler::{
    observed::Hook,
    spec::{ContainerSpec, HookSpec},
};
use serde::{Deserialize, Serialize};

use super::{
    launch::{self, Input, Leaf},
    protocol::{Exec, Reason},
};
use crate::{
    init::{Program, Stdio},
    rootfs::{Step, StepError},
};

/// Why a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// For the connection with this number.
    Exec { connection: u64 },
    /// Killed at the boot-clock time `deadline`.
    Probe { deadline: u64 },
    /// A command around the life of the container.
    Hook {
        hook: Hook,
        /// The first process, by which the run is told from the next one.
        of: i32,
    },
}

/// One that runs.
#[derive(Debug)]
pub struct Joined {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub purpose: Purpose,
}

impl Joined {
    /// SIGKILL to it and what shares its process group.
    pub fn kill(&self) {
        let _ = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
    }
}

/// Descriptor of a child that is not reaped yet.
///
/// # Errors
/// As pidfd_open(2).
pub fn pidfd(pid: i32) -> Result<OwnedFd, StepError> {
    let known = rustix::process::Pid::from_raw(pid).ok_or_else(|| StepError::spec("no pid"))?;
    rustix::process::pidfd_open(known, rustix::process::PidfdFlags::empty())
        .step("open a descriptor of process", pid)
}

/// Starts a probe.
///
/// # Errors
/// The step that failed.
pub fn probe(
    container: &ContainerSpec,
    argv: &[String],
    first: &OwnedFd,
    host_ids: bool,
    leaf: Leaf<'_>,
) -> Result<i32, StepError> {
    let open = || {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map(OwnedFd::from)
    };
    let null = || open().step("open", "/dev/null");
    let stdio = Stdio {
        descriptors: [null()?, null()?, null()?],
        terminal: false,
    };
    let program = program(container, argv, BTreeMap::new(), "", None);
    let pid = launch::joined(first.as_fd(), host_ids, leaf, program, Input::Given(stdio))?;
    Ok(pid)
}

/// Starts a hook that prints to `output`: standard output and error.
///
/// # Errors
/// The step that failed.
pub fn hook(
    container: &ContainerSpec,
    hook: &HookSpec,
    [out, err]: [OwnedFd; 2],
    first: &OwnedFd,
    host_ids: bool,
    leaf: Leaf<'_>,
) -> Result<i32, StepError> {
    let null = File::open("/dev/null").step("open", "/dev/null")?;
    let stdio = Stdio {
        descriptors: [null.into(), out, err],
        terminal: false,
    };
    let program = program(
        container,
        &hook.argv,
        hook.environment.clone(),
        &hook.user,
        hook.working_dir.as_ref(),
    );
    let program = Program {
        rights: hook.rights.as_deref().unwrap_or(program.rights),
        ..program
    };
    launch::joined(first.as_fd(), host_ids, leaf, program, Input::Given(stdio))
}

/// Starts what `exec` asks for. The second value is the terminal's master.
///
/// # Errors
/// The step that failed.
pub fn exec(
    container: &ContainerSpec,
    wish: &Exec,
    mut descriptors: Vec<OwnedFd>,
    first: &OwnedFd,
    host_ids: bool,
    leaf: Leaf<'_>,
) -> Result<(i32, Option<OwnedFd>), StepError> {
    let program = program(
        container,
        &wish.argv,
        wish.environment.clone(),
        &wish.user,
        wish.working_dir.as_ref(),
    );
    if wish.terminal {
        let (ours, theirs) = terminal_sockets()?;
        let input = Input::Terminal(theirs, descriptors.pop());
        let pid = launch::joined(first.as_fd(), host_ids, leaf, program, input)?;
        return Ok((pid, Some(take_master(&ours)?)));
    }
    if descriptors.len() == 2 {
        descriptors.push(descriptors[1].try_clone().step("copy", "standard output")?);
    }
    let descriptors = <[OwnedFd; 3]>::try_from(descriptors).map_err(|_| StepError {
        message: "exec needs two or three descriptors; update the program that asks".into(),
        errno: None,
        reason: Reason::Request,
    })?;
    let stdio = Stdio {
        descriptors,
        terminal: false,
    };
    let pid = launch::joined(first.as_fd(), host_ids, leaf, program, Input::Given(stdio))?;
    Ok((pid, None))
}

/// Where the master of a new terminal is taken, and where it is sent.
///
/// # Errors
/// As socketpair(2).
pub fn terminal_sockets() -> Result<(OwnedFd, OwnedFd), StepError> {
    socketpair(
        AddressFamily::Unix,
        SockType::Stream,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .step("make", "a socket pair")
}

/// Once the process has started that it was made for.
///
/// # Errors
/// As recvmsg(2).
pub fn take_master(socket: &OwnedFd) -> Result<OwnedFd, StepError> {
    let mut master = Vec::new();
    crate::sys::message::receive(socket.as_fd(), &mut [0; 1], &mut master).step("take", "the terminal")?;
    let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
    master.pop().ok_or(missing).step("take", "the terminal")
}

fn program<'a>(
    container: &'a ContainerSpec,
    argv: &'a [String],
    more: BTreeMap<String, String>,
    user: &'a str,
    working_dir: Option<&'a PathBuf>,
) -> Program<'a> {
    let mut environment = container.environment.clone();
    environment.extend(more);
    Program {
        argv,
        environment,
        user: if user.is_empty() { &container.user } else { user },
        working_dir: working_dir.unwrap_or(&container.working_dir),
        rights: &container.rights,
        read_only: false,
        last: &|| Ok(()),
    }
}
