//! Two forks from the shim to a program in the container.
//!
//! The first is born in the payload cgroup and prepares as the host's root; the second is born in the
//! container's namespaces, as a child of the shim, and becomes the program. Each speaks in [`Word`]s, and the end of
//! the stream is success.

use std::{
    convert::Infallible,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use nix::{
    fcntl::OFlag,
    sched::{CloneFlags, setns},
    sys::{prctl, signal::Signal},
    unistd::pipe2,
};
use reconciler::spec::{ContainerSpec, OciMoment, Space, Spaces};

use super::{
    protocol::{Assignment, Start},
    waiting::{self, Forked, Waiting},
    words::{Pipe, Word},
};
use crate::{
    cgroup::limits::Controllers,
    init::{self, Program, Stdio, rights},
    oci::{self, Hooks},
    rootfs::{
        Step, StepError, attach, bare,
        devices::Nodes,
        files::Held,
        stage::{self, Among},
    },
    sandbox::Namespaces,
    sys::process::{self, Side},
};

/// From the fork to the exec of a further process; nothing on the way waits for anything.
const PATIENCE: Duration = Duration::from_secs(4);

/// CLONE_NEWTIME, which a kernel may have been built without.
fn new_time() -> i32 {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    let known = KNOWN.get_or_init(|| Path::new("/proc/self/ns/time").exists());
    if *known { libc::CLONE_NEWTIME } else { 0 }
}

/// What the first process of a container is made from.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    pub assignment: &'a Assignment,
    pub start: &'a Start,
    pub files: Option<&'a Held>,
    pub devices: Option<&'a Nodes>,
    pub namespaces: &'a Namespaces,
    pub leaf: Leaf<'a>,
}

/// Starts the first process of a container: its process id. With [`Input::Terminal`] the container has a
/// terminal, whose master is sent on the socket.
///
/// # Errors
/// The step that failed; nothing of the attempt is left but what it wrote to disk.
pub fn container(plan: Plan<'_>, input: Input) -> Result<i32, StepError> {
    let Some(hooks) = Hooks::new(plan.assignment, &plan.start.container)? else {
        return first_process(plan, input, Gate::Open)?.end(None);
    };
    let begun = with_hooks(plan, input, &hooks);
    if begun.is_err() {
        // What others have made is to be undone; that something was wrong is told already.
        hooks.stopped();
    }
    begun
}

/// Those that run on the host have their turn while the first process waits, and once it is the program.
fn with_hooks(plan: Plan<'_>, input: Input, hooks: &Hooks<'_>) -> Result<i32, StepError> {
    let (inner, gate) = pipe2(OFlag::O_CLOEXEC).step("make", "a pipe")?;
    let waiting = first_process(plan, input, Gate::Hooks(inner, hooks))?.waits(gate)?;
    for moment in [OciMoment::Prestart, OciMoment::CreateRuntime] {
        if let Err(error) = hooks.run(moment, waiting.pid) {
            waiting.end();
            return Err(error);
        }
    }
    let pid = waiting.go()?;
    if let Err(error) = hooks.run(OciMoment::Poststart, pid) {
        waiting::end(pid);
        return Err(error);
    }
    Ok(pid)
}

/// Where a first process is to wait.
enum Gate<'a> {
    /// Nowhere.
    Open,
    /// In its tree, with nothing of the shim's open.
    Tree(OwnedFd),
    /// Before that, for the hooks of the host; then come its own.
    Hooks(OwnedFd, &'a Hooks<'a>),
}

/// As [`container`], up to where the process has its tree.
///
/// # Errors
/// As [`container`].
pub fn waiting(plan: Plan<'_>, stdio: Stdio) -> Result<Waiting, StepError> {
    let (inner, gate) = pipe2(OFlag::O_CLOEXEC).step("make", "a pipe")?;
    first_process(plan, Input::Given(stdio), Gate::Tree(inner))?.waits(gate)
}

fn first_process(plan: Plan<'_>, input: Input, gate: Gate<'_>) -> Result<Forked, StepError> {
    let Plan {
        assignment,
        start,
        files,
        devices,
        namespaces,
        leaf,
    } = plan;
    // Looked for here, once, and not by each child.
    let time = new_time();
    let among = match &gate {
        Gate::Hooks(..) => Among::Host,
        Gate::Open | Gate::Tree(_) => Among::Bare(bare::namespace()?),
    };
    fork_twice(leaf.payload, (input, gate), |pipe, (input, gate)| {
        leaf.enter()?;
        rights::raise(&start.container.rights)?;
        let staged = stage::stage(assignment, start, files, devices, namespaces, among)?;
        let place = match &gate {
            Gate::Hooks(_, hooks) => hooks.lay()?,
            Gate::Open | Gate::Tree(_) => PathBuf::from(stage::PLACE),
        };
        let spaces = &assignment.sandbox.spaces;
        let flags = enter(spaces, namespaces)? | time;
        second(pipe, flags, || {
            let spec = &start.container;
            name(spaces, spec)?;
            rights::sysctls(&spec.sysctls)?;
            let stdio = match (attach::attach(&staged, spec, &place)?, input) {
                (Some(made), Input::Terminal(socket, _)) => made.hand_out(socket.as_fd())?,
                (None, Input::Given(stdio)) => stdio,
                _ => {
                    return Err(StepError::spec(
                        "the container and its shim disagree about a terminal",
                    ));
                }
            };
            let pid = match &gate {
                Gate::Hooks(gate, hooks) => {
                    wait_at(gate, pipe)?;
                    let pid = oci::own_pid()?;
                    hooks.run(OciMoment::CreateContainer, pid)?;
                    pid
                }
                Gate::Open | Gate::Tree(_) => 0,
            };
            attach::pivot(&staged)?;
            let last = || match &gate {
                Gate::Hooks(_, hooks) => hooks.run(OciMoment::StartContainer, pid),
                Gate::Open | Gate::Tree(_) => Ok(()),
            };
            let program = Program {
                argv: &spec.argv,
                environment: spec.environment.clone(),
                user: &spec.user,
                working_dir: &spec.working_dir,
                rights: &spec.rights,
                read_only: spec.read_only,
                last: &last,
            };
            let gate = |stdio: &Stdio| match &gate {
                Gate::Tree(gate) => wait_closed(gate, pipe, stdio),
                Gate::Open | Gate::Hooks(..) => Ok(()),
            };
            match spec.init {
                true => init::run_below(program, stdio, gate),
                false => init::run(program, stdio, gate),
            }
        })
    })
}

/// As [`wait_at`]. It may take long: nothing of the shim stays open here meanwhile.
fn wait_closed(gate: &OwnedFd, pipe: &Pipe, stdio: &Stdio) -> Result<(), StepError> {
    let [input, out, err] = &stdio.descriptors;
    let kept = [gate, &pipe.0, input, out, err].map(AsRawFd::as_raw_fd);
    process::close_leaked_but(kept).step("close", "descriptors of the shim")?;
    wait_at(gate, pipe)
}

/// Until the shim says so, or is gone.
fn wait_at(gate: &OwnedFd, pipe: &Pipe) -> Result<(), StepError> {
    pipe.say(&Word::Waits);
    loop {
        match nix::unistd::read(gate, &mut [0]) {
            Ok(0) => process::exit(0),
            Err(nix::errno::Errno::EINTR) => {}
            told => return told.map(drop).step("wait for", "the start of the container"),
        }
    }
}

/// Enters the namespaces that are there; those that the next child is to be born in.
fn enter(spaces: &Spaces, namespaces: &Namespaces) -> Result<i32, StepError> {
    if let Some(user) = &namespaces.user {
        setns(user, CloneFlags::CLONE_NEWUSER).step("enter", "the user namespace")?;
    }
    let there = [
        (
            Some(&namespaces.net),
            CloneFlags::CLONE_NEWNET,
            "the network namespace",
        ),
        (
            namespaces.ipc.as_ref(),
            CloneFlags::CLONE_NEWIPC,
            "the shared IPC namespace",
        ),
        (
            namespaces.pid.as_ref(),
            CloneFlags::CLONE_NEWPID,
            "the shared process namespace",
        ),
    ];
    for (namespace, kind, name) in there {
        if let Some(namespace) = namespace {
            setns(namespace, kind).step("enter", name)?;
        }
    }
    init::become_namespace_root()?;
    let fresh = [
        (
            libc::CLONE_NEWPID,
            namespaces.pid.is_none() && spaces.pid == Space::Own,
        ),
        (
            libc::CLONE_NEWIPC,
            namespaces.ipc.is_none() && spaces.ipc == Space::Own,
        ),
        (libc::CLONE_NEWUTS, !spaces.host_uts),
        (libc::CLONE_NEWCGROUP, !spaces.host_cgroup),
        (libc::CLONE_NEWNS, true),
    ];
    let fresh = fresh.into_iter().filter(|(_, wanted)| *wanted);
    Ok(fresh.fold(0, |flags, (flag, _)| flags | flag))
}

/// Gives the UTS namespace its names. The host's keeps its own, and a service may have that of the host.
fn name(spaces: &Spaces, spec: &ContainerSpec) -> Result<(), StepError> {
    if spaces.host_uts {
        return Ok(());
    }
    if !spec.hostname.is_empty() {
        nix::unistd::sethostname(&spec.hostname).step("set the host name", &spec.hostname)?;
    }
    rustix::system::setdomainname(spec.domainname.as_bytes()).step("set the domain name", &spec.domainname)
}

/// Starts a further process in a container that runs, as confined as its first. With `terminal` the
/// three descriptors come from a new terminal of the container, whose master is sent on the socket.
///
/// # Errors
/// The step that failed.
pub fn joined(
    first: BorrowedFd<'_>,
    host_ids: bool,
    leaf: Leaf<'_>,
    program: Program<'_>,
    input: Input,
) -> Result<i32, StepError> {
    let time = CloneFlags::from_bits_retain(new_time());
    let forked = fork_twice(leaf.payload, input, |pipe, input| {
        leaf.enter()?;
        rights::raise(program.rights)?;
        // The user namespace that one is in already cannot be entered.
        let user = match host_ids {
            true => CloneFlags::empty(),
            false => CloneFlags::CLONE_NEWUSER,
        };
        let flags = user
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWCGROUP
            | time;
        setns(first, flags).step("enter", "the container; it may have just ended")?;
        init::become_namespace_root()?;
        second(pipe, 0, || {
            let stdio = match input {
                Input::Given(stdio) => stdio,
                Input::Terminal(socket, like) => terminal(&socket, like.as_ref())?,
            };
            init::run(program, stdio, init::open)
        })
    });
    forked?.end(Some(PATIENCE))
}

/// Where processes are born: the payload cgroup of an instance.
#[derive(Clone, Copy)]
pub struct Leaf<'a> {
    pub instance: &'a Path,
    pub payload: BorrowedFd<'a>,
    pub controllers: &'a Controllers,
}

impl Leaf<'_> {
    /// Under the limits that are not in the tree of the payload.
    fn enter(self) -> Result<(), StepError> {
        let entered = self.controllers.enter(self.instance);
        entered.step("enter the limits of", self.instance.display())
    }
}

/// Where the three descriptors of a joined process come from.
pub enum Input {
    Given(Stdio),
    /// A stream socket that takes the master, and the terminal whose size it is to have.
    Terminal(OwnedFd, Option<OwnedFd>),
}

/// A new terminal of the container's own devpts. /dev is the container's to change: what is opened
/// there is looked at before it is trusted.
fn terminal(socket: &OwnedFd, like: Option<&OwnedFd>) -> Result<Stdio, StepError> {
    use rustix::fs::{Mode, OFlags, fstat, major, minor, open};
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let master = open("/dev/pts/ptmx", flags, Mode::empty()).step("open", "/dev/pts/ptmx")?;
    let device = fstat(&master).step("look at", "/dev/pts/ptmx")?.st_rdev;
    if (major(device), minor(device)) != (5, 2) {
        return Err(StepError::spec(
            "/dev/pts/ptmx of the container is no terminal; run without one (-T)",
        ));
    }
    rustix::fs::fcntl_setfl(&master, OFlags::RDWR).step("set up", "the terminal")?;
    let peer = process::terminal_peer(master.as_fd()).step("open", "the terminal")?;
    // Before the program starts: it may ask at once. What is no terminal has no size to give.
    if let Some(like) = like {
        let _ = process::copy_window_size(like.as_fd(), master.as_fd());
    }
    crate::sys::message::send(socket.as_fd(), b"t", &[master.as_fd()]).step("hand out", "the terminal")?;
    let copy = || peer.try_clone().step("copy", "the terminal");
    Ok(Stdio {
        descriptors: [copy()?, copy()?, copy()?],
        terminal: true,
    })
}

/// `first` runs in the first child and is to end in [`second`].
fn fork_twice<S>(
    payload: BorrowedFd<'_>,
    given: S,
    first: impl FnOnce(&Pipe, S) -> Result<Infallible, StepError>,
) -> Result<Forked, StepError> {
    let (ear, mouth) = pipe2(OFlag::O_CLOEXEC).step("make", "a pipe")?;
    match process::clone(0, Some(payload)).step("fork into", "the payload cgroup")? {
        Side::Parent(child) => Ok(Forked { child, ear }),
        Side::Child => {
            drop(ear);
            let _ = prctl::set_dumpable(false);
            // Without a shim there is to be no start; `confine` says it again after the ids have changed.
            let _ = prctl::set_pdeathsig(Some(Signal::SIGKILL));
            let pipe = Pipe(mouth);
            let Err(error) = first(&pipe, given);
            pipe.say(&Word::Failed(error));
            process::exit(127);
        }
    }
}

/// The second child. The first ends here.
fn second(
    pipe: &Pipe,
    flags: i32,
    last: impl FnOnce() -> Result<Infallible, StepError>,
) -> Result<Infallible, StepError> {
    match process::clone(libc::CLONE_PARENT | flags, None).step("fork into", "the container's namespaces")? {
        Side::Parent(pid) => {
            pipe.say(&Word::Born(pid));
            process::exit(0);
        }
        Side::Child => {
            let _ = prctl::set_pdeathsig(Some(Signal::SIGKILL));
            let Err(error) = last();
            pipe.say(&Word::Failed(error));
            process::exit(127);
        }
    }
}
