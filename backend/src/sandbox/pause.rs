//! The first process of what several containers share: it holds an IPC namespace with its /dev/shm, and reaps in
//! a process namespace. It does nothing else, and is not in the cgroup that a stop kills.

use std::{
    convert::Infallible,
    fs::{self, File},
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::{Pid, pipe2, read},
};
use reconciler::spec::SandboxSpec;

use super::Namespaces;
use crate::{
    init,
    rootfs::{Step, StepError},
    sys::process::{self, Side},
};

/// Starts it in the cgroup `leaf` and adds what it holds to `namespaces`. `scratch` is where it mounts /dev/shm.
/// Its process id.
///
/// # Errors
/// The step that failed; nothing is left of it.
pub fn start(
    sandbox: &SandboxSpec,
    namespaces: &mut Namespaces,
    leaf: BorrowedFd<'_>,
    scratch: &Path,
) -> Result<i32, StepError> {
    fs::create_dir_all(scratch).step("make", scratch.display())?;
    let (ear, mouth) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).step("make", "a pipe")?;
    let first = match process::clone(0, Some(leaf)).step("fork", "the holder of shared namespaces")? {
        Side::Parent(pid) => pid,
        Side::Child => {
            drop(ear);
            let Err(error) = prepare(sandbox, namespaces, scratch, &mouth);
            say(&mouth, &Err(error));
            process::exit(127);
        }
    };
    drop(mouth);
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    let heard = loop {
        match read(&ear, &mut chunk) {
            Ok(0) => break Ok(()),
            Ok(count) => text.extend_from_slice(&chunk[..count]),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => break Err(error),
        }
        if text.ends_with(b"\n") {
            break Ok(());
        }
    };
    let _ = waitpid(Pid::from_raw(first), Some(WaitPidFlag::__WALL));
    heard.step("hear of", "the holder of shared namespaces")?;
    let answer: Result<i32, StepError> = serde_json::from_slice(&text).map_err(|_| StepError {
        message: "the holder of shared namespaces ended without a word; it is tried again".into(),
        errno: None,
        reason: crate::shim::protocol::Reason::System,
    })?;
    let pid = answer?;
    let held = hold(sandbox, namespaces, pid);
    if held.is_err() {
        end(pid);
    }
    held.map(|()| pid)
}

/// Its end is the end of every process in its process namespace.
pub fn end(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::__WALL));
}

fn hold(sandbox: &SandboxSpec, namespaces: &mut Namespaces, pid: i32) -> Result<(), StepError> {
    let open = |name: &str| {
        let path = format!("/proc/{pid}/ns/{name}");
        File::open(&path).map(OwnedFd::from).step("open", path)
    };
    if sandbox.spaces.lends_ipc.is_some() {
        namespaces.ipc = Some(open("ipc")?);
        namespaces.shm = Some(open("mnt")?);
    }
    if sandbox.spaces.lends_pid {
        namespaces.pid = Some(open("pid")?);
    }
    Ok(())
}

fn say(mouth: &OwnedFd, answer: &Result<i32, StepError>) {
    if let Ok(mut line) = serde_json::to_vec(answer) {
        line.push(b'\n');
        let _ = nix::unistd::write(mouth, &line);
    }
}

/// As the host's root in a mount namespace of its own, then as that of the sandbox.
fn prepare(
    sandbox: &SandboxSpec,
    namespaces: &Namespaces,
    scratch: &Path,
    mouth: &OwnedFd,
) -> Result<Infallible, StepError> {
    let mut flags = 0;
    if let Some(size) = sandbox.spaces.lends_ipc {
        unshare(CloneFlags::CLONE_NEWNS).step("make", "a mount namespace")?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).step("make private", "/")?;
        let base = sandbox.id_base;
        let options = format!("mode=1777,uid={base},gid={base},size={size}");
        let strict = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(
            Some("tmpfs"),
            scratch,
            Some("tmpfs"),
            strict,
            Some(options.as_str()),
        )
        .step("mount a tmpfs on", scratch.display())?;
        flags |= libc::CLONE_NEWIPC;
    }
    if sandbox.spaces.lends_pid {
        flags |= libc::CLONE_NEWPID;
    }
    if let Some(user) = &namespaces.user {
        setns(user, CloneFlags::CLONE_NEWUSER).step("enter", "the user namespace")?;
        init::become_namespace_root()?;
    }
    match process::clone(libc::CLONE_PARENT | flags, None).step("fork into", "the shared namespaces")? {
        Side::Parent(pid) => {
            say(mouth, &Ok(pid));
            process::exit(0);
        }
        Side::Child => {
            rest();
            process::exit(1);
        }
    }
}

/// Nothing of the supervisor stays in it but its memory, which is closed to others.
fn rest() {
    let _ = prctl::set_pdeathsig(Some(Signal::SIGKILL));
    let _ = prctl::set_dumpable(false);
    let _ = prctl::set_name(c"pause");
    let _ = process::rename("pause");
    let _ = process::close_leaked_from(0);
    let none = caps::CapsHashSet::new();
    for set in [caps::CapSet::Effective, caps::CapSet::Permitted] {
        let _ = caps::set(None, set, &none);
    }
    process::reap_children();
    loop {
        nix::unistd::pause();
    }
}
