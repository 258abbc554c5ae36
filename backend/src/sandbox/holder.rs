//! Fresh namespaces, and the process that keeps them until somebody holds them by descriptor.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{Pid, pipe2, read},
};

use super::{
    Namespaces, ResolverSockets,
    furnish::{furnish, open_to_users},
};
use crate::{
    procfs,
    rootfs::{Step, StepError, attach::sysctl},
    shim::protocol::Reason,
    sys::process::{self, Side},
};

/// A pair of namespaces whose id maps are not written yet, and the process that keeps that possible. All is in
/// the network namespace already that does not take the map.
#[derive(Debug)]
pub struct Holder {
    pid: Pid,
    namespaces: Namespaces,
    sockets: ResolverSockets,
}

impl Holder {
    /// Forks the holder of a user namespace and a network namespace that it owns.
    ///
    /// # Errors
    /// The host forbids user namespaces.
    pub fn new() -> Result<Self, StepError> {
        let both = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET;
        let (pid, net) = hold(None, both)?;
        let made = open(pid, "user").and_then(|user| Ok((user, furnish(net.as_fd())?)));
        let (user, sockets) = made.inspect_err(|_| end(pid))?;
        let namespaces = Namespaces {
            user: Some(user),
            net,
            ipc: None,
            pid: None,
            shm: None,
        };
        Ok(Holder {
            pid,
            namespaces,
            sockets,
        })
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Maps 65,536 ids from `base` on and kills the holder, which is to be reaped by the caller.
    ///
    /// # Errors
    /// The maps cannot be written.
    pub fn assign(self, base: u32) -> Result<(Namespaces, ResolverSockets), StepError> {
        for name in ["uid_map", "gid_map"] {
            let path = format!("/proc/{}/{name}", self.pid);
            procfs::write(&path, &format!("0 {base} 65536\n")).step("write", &path)?;
        }
        self.kill();
        open_to_users(self.namespaces.net.as_fd())?;
        Ok((self.namespaces, self.sockets))
    }

    pub fn end(&self) {
        end(self.pid);
    }

    /// To be reaped by the caller.
    pub fn kill(&self) {
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

/// A network namespace owned by `user`, or by the host's user namespace.
///
/// # Errors
/// As unshare(2) and setns(2).
pub fn network(user: Option<BorrowedFd<'_>>) -> Result<OwnedFd, StepError> {
    let (pid, net) = hold(user, CloneFlags::CLONE_NEWNET)?;
    end(pid);
    Ok(net)
}

fn end(pid: Pid) {
    let _ = kill(pid, Signal::SIGKILL);
    let _ = waitpid(pid, None);
}

fn open(pid: Pid, name: &str) -> Result<OwnedFd, StepError> {
    let path = format!("/proc/{pid}/ns/{name}");
    File::open(&path).map(OwnedFd::from).step("open", path)
}

/// A process with the namespaces `flags`, made in `user`, and its network namespace.
fn hold(user: Option<BorrowedFd<'_>>, flags: CloneFlags) -> Result<(Pid, OwnedFd), StepError> {
    let (ready, tell) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).step("make", "a pipe")?;
    let parent = Pid::this();
    let pid = match process::clone(0, None).step("fork", "the namespace holder")? {
        Side::Parent(pid) => Pid::from_raw(pid),
        Side::Child => {
            drop(ready);
            let _ = nix::sys::prctl::set_pdeathsig(Some(Signal::SIGKILL));
            // It was killed before it was to take its holder along.
            if Pid::parent() != parent {
                process::exit(1);
            }
            let entered = user.map_or(Ok(()), |user| setns(user, CloneFlags::CLONE_NEWUSER));
            let answer = entered.and_then(|()| unshare(flags));
            let code = answer.map_or_else(|errno| errno as i32, |()| 0);
            if code == 0 && flags.contains(CloneFlags::CLONE_NEWUSER) {
                // No user namespace within this one: a second wall behind the filter. A kernel that does not
                // let it be written leaves the filter.
                let _ = sysctl("user/max_user_namespaces", "0");
            }
            let _ = nix::unistd::write(&tell, &[code as u8]);
            drop(tell);
            if code != 0 {
                process::exit(1);
            }
            loop {
                nix::unistd::pause();
            }
        }
    };
    drop(tell);
    let mut code = [255];
    let count = loop {
        match read(&ready, &mut code) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other.step("read", "the pipe of the namespace holder")?,
        }
    };
    if count != 1 || code[0] != 0 {
        let _ = waitpid(pid, None);
        let error = io::Error::from_raw_os_error(i32::from(code[0]));
        return Err(StepError {
            message: format!(
                "this host does not let stead make a user namespace ({error}); set the sysctl \
                 user.max_user_namespaces to 15000 or more, see what `stead doctor` says, or write \
                 `userns_mode: host` for services that may do without"
            ),
            errno: error.raw_os_error(),
            reason: Reason::System,
        });
    }
    match open(pid, "net") {
        Ok(net) => Ok((pid, net)),
        Err(error) => {
            end(pid);
            Err(error)
        }
    }
}
