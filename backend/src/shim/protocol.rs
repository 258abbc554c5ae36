//! What agent and shim say to each other.
//!
//! A unix stream socket; each message is a little-endian `u32` length and that many bytes of JSON.
//! Descriptors travel with the length. Both ends say their version first. A field is only ever added,
//! with a default; a request the other end does not know is answered by `Failed`, never by silence.

use std::{collections::BTreeMap, path::PathBuf};

use reconciler::{
    key::InstanceKey,
    observed::{Fault, Hook},
    spec::{ContainerSpec, PortBinding, SandboxSpec},
};
use serde::{Deserialize, Serialize};

use crate::sandbox::Kind;

/// Raised when a message changes its meaning.
pub const VERSION: u32 = 1;

/// Agent (or `stead exec`) to shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    Hello {
        version: u32,
    },
    /// An idle shim becomes the supervisor of this sandbox: writes the id maps, moves to its cgroup,
    /// binds the resolver and the host ports. A connection comes along on which events are told, before what is
    /// lent. Answered by `Assigned` with the network namespace.
    Assign(Box<Assignment>),
    /// New port reservations and networks for a sandbox that runs.
    Update {
        sandbox: Box<SandboxSpec>,
        resolver: Resolver,
    },
    /// A start that is about to be asked for as the first in the sandbox: its first process may be made ahead.
    Prepare(Box<Start>),
    /// Answered when the container has exec'ed, or by `Failed` with the step that failed.
    Start(Box<Start>),
    /// New restart policy, labels or health check for the running process; rewrites the record.
    Amend {
        container: Box<ContainerSpec>,
    },
    /// Runs the `pre_stop` hooks, then signals, then kills once the grace is over; all of it once, whoever asks
    /// again. Answered at once.
    Stop,
    /// To the container's first process.
    Signal {
        signal: i32,
    },
    /// Kills everything in the payload cgroup, and the first process wherever it was moved.
    Kill,
    /// Hangs volumes and binds of the running container that are mounted no more where they were,
    /// into its tree; the processes go on. `volumes`: as in `Start`.
    Remount {
        volumes: BTreeMap<String, PathBuf>,
    },
    /// Two or three descriptors come along: stdin, stdout, stderr; with `terminal` none, and the
    /// answer `ExecStarted` carries the master of a new terminal. `ExecExited` follows at the end.
    Exec(Box<Exec>),
    /// Output from now on, and a way to standard input. `AttachEnded` follows at the end.
    Attach,
    State,
    /// Somebody asks how it is: what hangs is looked for at once and during the next seconds, and told as an
    /// event. Answered by `Attended`.
    Attend,
    /// Answered by `Lent` with descriptors of what others may join, in its order.
    Lend,
    /// From now on `Event`s are sent on this connection.
    Subscribe,
    /// Exec the binary that comes along as a descriptor, keeping children and descriptors.
    Upgrade,
    /// Refused while a container runs.
    Leave,
}

/// Shim to agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Welcome {
        version: u32,
        build: String,
        pid: u32,
    },
    /// The network namespace comes along as a descriptor.
    Assigned,
    Done,
    Started {
        pid: u32,
    },
    Lent {
        kinds: Vec<Kind>,
    },
    /// The pidfd of the container's first process comes along while it runs.
    State(Box<SandboxState>),
    /// What goes wrong just now; how the last run was ended is not among it.
    Attended {
        faults: Vec<Fault>,
        /// Since when something is suspected that is not certain yet (boot clock).
        suspected: Option<u64>,
    },
    ExecStarted {
        pid: u32,
    },
    ExecExited {
        code: i32,
    },
    /// A socket comes along: each packet is the number of a stream (1, 2) and what was printed there. Where
    /// there is a terminal its master follows, where standard input is open the end to write to.
    Attached {
        terminal: bool,
        input: bool,
    },
    /// The socket is closed. `None`: it was not read fast enough.
    AttachEnded {
        code: Option<i32>,
    },
    Event(Event),
    /// `message` ends with what to do next. `errno` where a system call failed.
    Failed {
        message: String,
        errno: Option<i32>,
        reason: Reason,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The request was not understood or does not fit the state.
    Request,
    /// A host port is held by somebody else.
    PortTaken,
    /// The image or the manifest must change (no such command, no such user).
    Spec,
    /// A system call failed; the same may work later.
    System,
}

/// Pushed to subscribers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Exited {
        code: i32,
    },
    Health {
        health: HealthState,
    },
    /// What goes wrong with what runs is something else than before.
    Faults,
    /// A hook has ended.
    Hook,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    None,
    Starting,
    Healthy,
    Unhealthy,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Assignment {
    pub sandbox: SandboxSpec,
    /// The mark of the root, for names.
    pub mark: String,
    /// Directory of the sandbox in the v2 tree; the leaves `shim` and `payload` are made below it.
    pub cgroup: PathBuf,
    /// Where the control socket is to listen.
    pub socket: PathBuf,
    /// Upper and work directory, hosts, resolv.conf, exit record.
    pub directory: PathBuf,
    pub logs: PathBuf,
    pub resolver: Resolver,
    pub boot_id: String,
    /// What comes along as descriptors, lent by another sandbox.
    #[serde(default)]
    pub lent: Vec<Kind>,
    /// Which sandbox that is: whose files `hosts`, `hostname` and `resolv.conf` are used, too.
    #[serde(default)]
    pub lender: Option<Lender>,
}

/// A sandbox whose namespaces another one has joined.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lender {
    /// Of this sandbox and no later one of the same key.
    pub identity: String,
    /// Its [`Assignment::directory`].
    pub directory: PathBuf,
}

/// What the resolver inside the sandbox answers from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// Zone files of the networks the sandbox is on, in the order of its endpoints.
    pub zones: Vec<PathBuf>,
    /// Forward what no zone knows: false when every network is internal.
    pub forward: bool,
}

/// Everything one start needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Start {
    pub container: ContainerSpec,
    /// Directories of the image's layers, the topmost first.
    pub layers: Vec<PathBuf>,
    /// Data directories of the volumes named in `container.mounts`, by full name.
    pub volumes: BTreeMap<String, PathBuf>,
    /// Empty the upper directory first.
    pub fresh: bool,
    pub restarts: u32,
    pub streak: u32,
    #[serde(default)]
    pub flaps: u32,
    /// How much of the descriptor that comes along each of `container.files` holds; `None`: what it held.
    #[serde(default)]
    pub contents: Vec<Option<u64>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exec {
    pub argv: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// Empty: the container's own.
    pub user: String,
    /// `None`: the container's own.
    pub working_dir: Option<PathBuf>,
    pub terminal: bool,
}

/// The mark adoption reads: a sealed memfd named [`RECORD_NAME`] in the shim, found through
/// cgroup → pid → /proc/PID/fd. A new one takes the place of the old at each start and each end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    pub mark: String,
    pub key: InstanceKey,
    pub assignment: Assignment,
    pub container: Option<ContainerSpec>,
    /// Payload: first process and its start time in clock ticks (proc_pid_stat(5), field 22).
    pub pid: Option<u32>,
    pub start_ticks: Option<u64>,
    pub restarts: u32,
    pub streak: u32,
    pub boot_id: String,
    /// Boot-clock and wall-clock milliseconds.
    pub started_boot: Option<u64>,
    pub started_wall: Option<u64>,
    /// Restarts in a row for being unhealthy.
    #[serde(default)]
    pub flaps: u32,
    /// The way in that is no path: number of a datagram socket among the shim's descriptors. Whoever may
    /// take it (pidfd_getfd(2)) and sends a connected stream socket over it has a connection.
    #[serde(default)]
    pub door: Option<i32>,
    /// What the container stood on when it was started.
    #[serde(default)]
    pub ground: Ground,
    /// How the payload ended: exit status or 128 + signal, and boot-clock milliseconds.
    #[serde(default)]
    pub ended: Option<(i32, u64)>,
    /// Why the payload, or the one before it, ended, where the status does not say it.
    #[serde(default)]
    pub died: Option<Fault>,
    #[serde(default)]
    pub hooks: Hooks,
}

/// How far the hooks of the last run are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// The one that runs, or is the next to run; after the end, the one of `post_start` it did not get beyond.
    pub current: Option<Hook>,
    /// The one of `post_start` for which it is stopped.
    pub failed: Option<Fault>,
    /// Those of `pre_stop` that failed.
    pub faults: Vec<Fault>,
    /// It is to end.
    pub stop: Option<Stop>,
}

/// An end that the shim sees to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// When it is killed (boot clock).
    pub until: u64,
    /// It was given its stop signal, or is past it.
    pub signalled: bool,
}

/// What is under a process that was started, to be compared with what is there later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ground {
    /// Everything mounted in its mount namespace. Empty: it could not be read.
    pub mounts: Vec<PathBuf>,
    /// Which mount each of them was. Empty: an older stead has started it.
    #[serde(default)]
    pub ids: Vec<MountId>,
    /// The upper directory and the image's layers.
    pub directories: Vec<Directory>,
}

/// A mount, wherever it is. The number alone is given away again when a mount is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountId {
    pub id: u64,
    /// `8:1`
    pub device: String,
}

/// A directory, and not another of its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    pub path: PathBuf,
    pub device: u64,
    pub inode: u64,
}

/// `exit` in the directory of a container: how it ended, for when its shim is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit status or 128 + signal.
    pub code: i32,
    /// Boot-clock milliseconds, of the boot `boot_id`.
    pub at: u64,
    pub boot_id: String,
    pub key: InstanceKey,
    pub container: ContainerSpec,
    pub restarts: u32,
    #[serde(default)]
    pub died: Option<Fault>,
}

/// The name of the memfd: `/proc/PID/fd/N` reads `/memfd:stead-record (deleted)`.
pub const RECORD_NAME: &str = "stead-record";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxState {
    pub record: Record,
    pub run: Run,
    pub health: HealthState,
    /// Ports that are reserved right now.
    pub ports: Vec<PortBinding>,
    /// 0: it has none, because the network is another's.
    pub resolver_port: u16,
    /// What goes wrong with what runs.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// What held the namespaces that others share has ended: they cannot be joined any more.
    #[serde(default)]
    pub unpaused: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "run", rename_all = "snake_case")]
pub enum Run {
    Created,
    Running {
        pid: u32,
    },
    /// Exit status or 128 + signal; boot-clock milliseconds.
    Exited {
        code: i32,
        at: u64,
    },
}
