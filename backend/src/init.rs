//! The last steps in the child before the container's program: ids, capabilities, filter, exec.
//!
//! The same for the first process, for `exec` and for probes, so that none is less confined.

mod reaper;
pub mod rights;
pub mod seccomp;
pub mod user;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use caps::{CapSet, CapsHashSet};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        stat::{Mode, umask},
    },
    unistd::{Gid, Uid},
};
use reconciler::spec::{Rights, Seccomp};
use rustix::fs::OFlags;

use crate::{
    rootfs::{Step, StepError, tree},
    shim::protocol::Reason,
    sys::{
        mount::{Attributes, set_attributes},
        process,
    },
};

const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is to run.
pub struct Program<'a> {
    pub argv: &'a [String],
    pub environment: BTreeMap<String, String>,
    pub user: &'a str,
    pub working_dir: &'a Path,
    pub rights: &'a Rights,
    /// The root is to become so, once the working directory is there.
    pub read_only: bool,
    /// What is still to be done, as the program and with its rights, just before it.
    pub last: &'a dyn Fn() -> Result<(), StepError>,
}

/// Standard input, output and error.
pub struct Stdio {
    pub descriptors: [OwnedFd; 3],
    /// `descriptors[0]` becomes the controlling terminal.
    pub terminal: bool,
}

/// Becomes root of the user namespace it has just entered, and stays closed to ptrace and /proc.
///
/// # Errors
/// As setresuid(2).
pub fn become_namespace_root() -> Result<(), StepError> {
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setgroups(&[]).step("drop", "supplementary groups")?;
    nix::unistd::setresgid(group, group, group).step("become", "gid 0 of the container")?;
    nix::unistd::setresuid(user, user, user).step("become", "uid 0 of the container")?;
    // A change of ids sets the flag to what fs.suid_dumpable says.
    prctl::set_dumpable(false).step("set", "PR_SET_DUMPABLE")
}

/// What comes between the last look at files and the first step that cannot be taken back.
pub trait Gate: FnOnce(&Stdio) -> Result<(), StepError> {}

impl<G: FnOnce(&Stdio) -> Result<(), StepError>> Gate for G {}

/// There is nothing to wait for.
///
/// # Errors
/// None.
pub fn open(_: &Stdio) -> Result<(), StepError> {
    Ok(())
}

/// Does not come back when it succeeds. Called as root of the container, inside its tree.
///
/// # Errors
/// The first step that failed.
pub fn run(program: Program<'_>, stdio: Stdio, gate: impl Gate) -> Result<Infallible, StepError> {
    let root =
        rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty()).step("open", "/")?;
    let account = user::look_up(root.as_fd(), program.user, &program.rights.groups)?;
    umask(Mode::from_bits_truncate(0o022));
    enter_working_dir(root.as_fd(), program.working_dir, &account)?;
    if program.read_only {
        let attributes = Attributes {
            set: libc::MOUNT_ATTR_RDONLY,
            recursive: false,
            idmap: None,
            propagation: 0,
        };
        set_attributes(root.as_fd(), attributes).step("make read-only", "/")?;
    }
    drop(root);
    let mut environment = program.environment;
    environment
        .entry("PATH".into())
        .or_insert_with(|| SEARCH_PATH.into());
    environment.entry("HOSTNAME".into()).or_insert_with(hostname);
    environment
        .entry("HOME".into())
        .or_insert_with(|| account.home.clone());
    let argv: Vec<CString> = program
        .argv
        .iter()
        .map(|text| c_string(text))
        .collect::<Result<_, _>>()?;
    let envp: Vec<CString> = environment
        .iter()
        .map(|(name, value)| c_string(&format!("{name}={value}")))
        .collect::<Result<_, _>>()?;
    let Some(name) = program.argv.first() else {
        return Err(StepError::spec(
            "there is no command; set `command` or use an image that has one",
        ));
    };
    let candidates = candidates(name, &environment["PATH"]);
    let filter = match seccomp::filter(program.rights)? {
        // It lets pass what is still to be done, and takes a while: not behind the gate.
        Some(filter) if program.rights.seccomp == Seccomp::Builtin => {
            load(&filter)?;
            None
        }
        other => other,
    };
    gate(&stdio)?;

    process::default_signals();
    nix::unistd::setsid().step("start", "a session")?;
    for descriptor in &stdio.descriptors {
        // So that a program may open /dev/stdout; a descriptor from elsewhere stays as it is.
        let _ = nix::unistd::fchown(
            descriptor,
            Some(Uid::from_raw(account.uid)),
            Some(Gid::from_raw(account.gid)),
        );
    }
    for (number, descriptor) in stdio.descriptors.iter().enumerate() {
        process::place(descriptor.as_fd(), number as i32).step("set up", "standard input and output")?;
    }
    if stdio.terminal {
        process::control_terminal().step("take", "the terminal")?;
    }
    process::close_on_exec_from(3).step("close", "descriptors")?;

    confine(&account, program.rights, filter.as_deref())?;
    (program.last)()?;
    let mut refusal = Errno::ENOENT;
    for path in &candidates {
        let Err(error) = nix::unistd::execve(path, &argv, &envp);
        match error {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => refusal = error,
            other => {
                refusal = other;
                break;
            }
        }
    }
    Err(exec_error(name, refusal))
}

/// That of the UTS namespace.
fn hostname() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// As [`run`], with the program as the child of a process that hands it every signal and reaps what it
/// leaves. That one ends as the program does.
///
/// # Errors
/// The first step that failed.
pub fn run_below(program: Program<'_>, stdio: Stdio, gate: impl Gate) -> Result<Infallible, StepError> {
    let filter = seccomp::filter(program.rights)?;
    gate(&stdio)?;
    process::block_signals().step("block", "signals")?;
    match process::clone(0, None).step("fork", "the program")? {
        process::Side::Child => run(program, stdio, open),
        process::Side::Parent(child) => {
            let own = reaper::CAPABILITIES.into_iter().collect();
            bound(&own, filter.as_deref())?;
            hold(&own)?;
            // Its own name and arguments are of the host.
            prctl::set_name(c"init").step("rename", "the first process")?;
            process::rename("init").step("rename", "the first process")?;
            reaper::reap(child)
        }
    }
}

fn exec_error(name: &str, errno: Errno) -> StepError {
    let (advice, reason) = match errno {
        Errno::ENOENT => (
            "is not in the image (or its interpreter is not); correct `command`",
            Reason::Spec,
        ),
        Errno::EACCES => (
            "may not be executed; make it executable in the image or correct `command`",
            Reason::Spec,
        ),
        Errno::ENOEXEC => (
            "is no program for this machine; use an image of this architecture",
            Reason::Spec,
        ),
        _ => ("could not be executed; look at the error number", Reason::System),
    };
    StepError {
        message: format!("the command `{name}` {advice} ({})", errno.desc()),
        errno: Some(errno as i32),
        reason,
    }
}

fn candidates(name: &str, search: &str) -> Vec<CString> {
    if name.contains('/') {
        return CString::new(name).into_iter().collect();
    }
    search
        .split(':')
        .map(|directory| if directory.is_empty() { "." } else { directory })
        .filter_map(|directory| CString::new(format!("{directory}/{name}")).ok())
        .collect()
}

fn c_string(text: &str) -> Result<CString, StepError> {
    CString::new(text).map_err(|_| {
        StepError::spec(format!(
            "{text:?} has a NUL byte; remove it from the command or environment"
        ))
    })
}

fn enter_working_dir(root: BorrowedFd<'_>, path: &Path, account: &user::Account) -> Result<(), StepError> {
    let refused = |why: String| {
        StepError::spec(format!(
            "working_dir {} cannot be entered: {why}; choose a directory of the image",
            path.display()
        ))
    };
    let directory = tree::make_owned(
        root,
        path,
        tree::Kind::Directory,
        Some((account.uid, account.gid)),
    )
    .map_err(|error| refused(error.message))?;
    nix::unistd::fchdir(&directory).map_err(|error| refused(error.desc().to_owned()))
}

fn load(filter: &[libc::sock_filter]) -> Result<(), StepError> {
    process::load_filter(filter).step("load", "the seccomp filter")
}

/// Filter first (it needs CAP_SYS_ADMIN while no_new_privs is off), then the set that nothing gets beyond.
fn bound(most: &CapsHashSet, filter: Option<&[libc::sock_filter]>) -> Result<(), StepError> {
    if let Some(filter) = filter {
        load(filter)?;
    }
    for capability in caps::runtime::thread_all_supported() {
        if !most.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability).map_err(refused)?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(refused)?;
    caps::clear(None, CapSet::Inheritable).map_err(refused)
}

fn hold(capabilities: &CapsHashSet) -> Result<(), StepError> {
    caps::set(None, CapSet::Effective, capabilities).map_err(refused)?;
    caps::set(None, CapSet::Permitted, capabilities).map_err(refused)
}

fn refused(error: caps::errors::CapsError) -> StepError {
    StepError {
        message: format!("cannot set the capabilities: {error}"),
        errno: None,
        reason: Reason::System,
    }
}

/// What is held comes last: it may not be enough to change ids.
fn confine(
    account: &user::Account,
    rights: &Rights,
    filter: Option<&[libc::sock_filter]>,
) -> Result<(), StepError> {
    if let Some(profile) = &rights.apparmor {
        rights::apparmor(profile)?;
    }
    let most = rights::capabilities(rights)?;
    bound(&most, filter)?;
    let groups: Vec<Gid> = account.groups.iter().map(|id| Gid::from_raw(*id)).collect();
    let (user, group) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    nix::unistd::setgroups(&groups).step("set", "supplementary groups")?;
    nix::unistd::setresgid(group, group, group).step("become", format!("gid {group}"))?;
    nix::unistd::setresuid(user, user, user).step("become", format!("uid {user}"))?;
    hold(&if user.is_root() { most } else { CapsHashSet::new() })?;
    if rights.no_new_privileges {
        prctl::set_no_new_privs().step("set", "PR_SET_NO_NEW_PRIVS")?;
    }
    rights::limit(rights)?;
    // A shortcut only: programs that change their ids clear it.
    prctl::set_pdeathsig(Some(nix::sys::signal::Signal::SIGKILL)).step("set", "PR_SET_PDEATHSIG")
}
