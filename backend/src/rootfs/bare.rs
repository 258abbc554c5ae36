//! A mount namespace with next to nothing in it, in which the trees of containers are built.
//!
//! A copy of the host's would cost the more the more is mounted there, twice for each start, and would show the
//! container's root what it then has to leave.

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::OnceLock,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::wait::{WaitPidFlag, waitpid},
    unistd::{Pid, chdir, pipe2, pivot_root, read, write},
};

use super::{Step, StepError};
use crate::sys::process::{self, Side};

/// An empty directory of it.
pub const PLACE: &str = "/tree";

/// Where it is made: every host has that, and nothing of it is needed meanwhile.
const FIRST: &str = "/proc";

static MADE: OnceLock<OwnedFd> = OnceLock::new();

/// The one of this process and of all that it forks.
///
/// # Errors
/// As mount(2) and pivot_root(2).
pub fn namespace() -> Result<BorrowedFd<'static>, StepError> {
    if let Some(made) = MADE.get() {
        return Ok(made.as_fd());
    }
    let made = make()?;
    Ok(MADE.get_or_init(|| made).as_fd())
}

/// By a child, since who fails on the way shall not be left in between. It stays until nobody listens any more.
fn make() -> Result<OwnedFd, StepError> {
    let (ear, mouth) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).step("make", "a pipe")?;
    let pid = match process::clone(0, None).step("fork", "to make a mount namespace")? {
        Side::Parent(pid) => Pid::from_raw(pid),
        Side::Child => {
            drop(ear);
            let told = match enter() {
                Ok(()) => write(&mouth, b"+"),
                Err(error) => write(&mouth, &serde_json::to_vec(&error).unwrap_or_default()),
            };
            if told.is_ok() {
                let _ = process::poll(&[(mouth.as_raw_fd(), 0)], -1);
            }
            process::exit(0);
        }
    };
    drop(mouth);
    let made = heard(&ear).and_then(|()| {
        let path = format!("/proc/{pid}/ns/mnt");
        File::open(&path).map(OwnedFd::from).step("open", path)
    });
    drop(ear);
    let _ = waitpid(pid, Some(WaitPidFlag::__WALL));
    made
}

fn heard(ear: &OwnedFd) -> Result<(), StepError> {
    let mut text = [0; 4096];
    let count = loop {
        match read(ear, &mut text) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other.step("hear of", "a mount namespace")?,
        }
    };
    match &text[..count] {
        b"+" => Ok(()),
        text => Err(serde_json::from_slice(text).unwrap_or_else(|_| StepError {
            message: "the process that makes a mount namespace has ended; try again".into(),
            errno: None,
            reason: crate::shim::protocol::Reason::System,
        })),
    }
}

fn enter() -> Result<(), StepError> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).step("make", "a mount namespace")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).step("make private", "/")?;
    let (tmpfs, flags) = (
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
    );
    mount(tmpfs, FIRST, tmpfs, flags, Some("mode=755,size=64k")).step("mount a tmpfs on", FIRST)?;
    chdir(FIRST).step("enter", FIRST)?;
    for name in ["proc", "sys", PLACE.trim_start_matches('/')] {
        std::fs::create_dir(name).step("make", name)?;
    }
    // The kernel gives a user namespace its own instance of these only where it sees all of another.
    for (kind, place) in [("proc", "proc"), ("sysfs", "sys")] {
        mount(Some(kind), place, Some(kind), flags, none).step("mount", kind)?;
    }
    pivot_root(".", ".").step("change the root to", "a tmpfs")?;
    umount2(".", MntFlags::MNT_DETACH).step("leave", "the host's tree")?;
    chdir("/").step("enter", "/")
}
