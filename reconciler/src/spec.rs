//! What a step orders, in full: names, addresses and digests are decided here and nowhere later.
//!
//! These are also what the host remembers: the sealed record of a sandbox holds its [`SandboxSpec`]
//! and [`ContainerSpec`], a network's record its [`NetworkSpec`]. Fields are only ever added, with a
//! default, so that a newer stead reads what an older one wrote.

mod hook;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use model::fields::Fields;
/// Part of the contract: the backend does not know `model`.
pub use model::types::{
    Answer, Argument, BlockIo, CallCondition, CallRule, Comparison, Content, LogFiles, LogForward,
    LogSettings, NodeLike, OciHook, OciMoment, Profile, Propagation, Protocol, Recursive, RestartPolicy,
    SyslogAddress, SyslogFormat,
};
use serde::{Deserialize, Serialize};

use crate::key::{InstanceKey, ResourceKey};
pub use hook::HookSpec;

mod mounts;

pub use mounts::MountSpec;

/// An IPv4 network: `10.64.16.0/20`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subnet {
    /// The network address, host bits zero.
    pub address: Ipv4Addr,
    pub prefix: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    pub key: ResourceKey,
    pub subnet: Subnet,
    /// The bridge's own address in the subnet.
    pub gateway: Ipv4Addr,
    pub internal: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    pub key: ResourceKey,
}

/// The user namespace, the network namespace and the shim of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    pub key: InstanceKey,
    /// First host id of the project's 65,536 ids.
    pub id_base: u32,
    /// In order: `eth0`, `eth1`, … The first non-internal one carries the default route.
    pub endpoints: Vec<Endpoint>,
    /// Host ports this instance offers; the shim holds a bound, never listening socket for each.
    pub ports: Vec<PortBinding>,
    #[serde(default)]
    pub spaces: Spaces,
}

/// Whose namespaces the processes of a sandbox live in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spaces {
    /// There is no user namespace: ids are those of the host, and `id_base` is 0.
    pub host_ids: bool,
    pub network: Space,
    pub ipc: Space,
    pub pid: Space,
    /// The host's name is the container's.
    pub host_uts: bool,
    /// The whole tree of control groups is seen.
    pub host_cgroup: bool,
    /// The sandbox that those which are [`Space::Joined`] are of; its user namespace is joined, too.
    pub of: Option<InstanceKey>,
    /// Others join its process namespace: it outlives the container.
    pub lends_pid: bool,
    /// Others join its IPC namespace and /dev/shm, of so many bytes: both outlive the container.
    pub lends_ipc: Option<u64>,
}

/// Whose namespace of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    #[default]
    Own,
    Host,
    /// That of [`Spaces::of`].
    Joined,
}

/// One interface of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub network: ResourceKey,
    /// `eth0`, `eth1`, …: its name, if it has no other one, and what its host end is found by.
    pub interface: String,
    /// What it is called instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Settings that are asked for: paths below /proc/sys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    pub address: Ipv4Addr,
    pub prefix: u8,
    /// The network's gateway; `None` on an internal network.
    pub gateway: Option<Ipv4Addr>,
    /// Locally administered and derived from the key, if no other one is asked for.
    pub mac: [u8; 6],
    #[serde(default)]
    pub mac_asked: bool,
}

impl Endpoint {
    /// The name in the sandbox.
    pub fn inside(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.interface)
    }
}

/// `host_ip:published → container:target`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortBinding {
    /// 0.0.0.0 for every address of the host.
    pub host_ip: Ipv4Addr,
    pub published: u16,
    pub target: u16,
    pub protocol: Protocol,
}

/// The process of one instance and the file tree it sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The canonical service, flattened: what the next plan compares and names in causes.
    pub fields: Fields,
    /// `sha256:…` of the image's configuration.
    pub image_digest: String,
    pub argv: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// As written; looked up in the image's /etc/passwd and /etc/group at start. Empty: root.
    pub user: String,
    /// Absolute; made when missing.
    pub working_dir: PathBuf,
    /// Empty: that of the host.
    pub hostname: String,
    pub mounts: Vec<MountSpec>,
    pub health: Option<HealthSpec>,
    pub restart: RestartPolicy,
    /// Signal number.
    pub stop_signal: i32,
    /// Milliseconds between the stop signal and SIGKILL.
    pub stop_grace: u64,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub rights: Rights,
    /// The program is not the first process but the child of one that reaps.
    #[serde(default)]
    pub init: bool,
    /// Standard input, output and error are a terminal of the container's own.
    #[serde(default)]
    pub tty: bool,
    /// Standard input stays open for whoever attaches; else there is nothing to be read.
    #[serde(default)]
    pub stdin_open: bool,
    /// The root file system cannot be written; volumes and tmpfs can.
    #[serde(default)]
    pub read_only: bool,
    /// Bytes that /dev/shm holds; 0: there is none.
    #[serde(default = "shm_size")]
    pub shm_size: u64,
    /// The NIS domain name; empty: none.
    #[serde(default)]
    pub domainname: String,
    /// Who is asked for names that no network knows; none: whom the host asks.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Other names of services, that this one alone knows: alias to service, lower case.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
    /// Where names without dots are looked for: `search` of resolv.conf(5). `.` alone: nowhere.
    #[serde(default)]
    pub dns_search: Vec<String>,
    /// `options` of resolv.conf(5).
    #[serde(default)]
    pub dns_opt: Vec<String>,
    /// Settings below /proc/sys that belong to the namespaces of the container, with dots.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Lines of /etc/hosts beside those of the container itself.
    #[serde(default)]
    pub extra_hosts: Vec<HostName>,
    /// Configs and secrets.
    #[serde(default)]
    pub files: Vec<FileSpec>,
    #[serde(default)]
    pub devices: Vec<DeviceSpec>,
    /// What else may be opened: `TYPE MAJOR:MINOR ACCESS`.
    #[serde(default)]
    pub device_rules: Vec<String>,
    /// Where the output goes.
    #[serde(default)]
    pub logging: LogSettings,
    /// Run one after the other after each start; the first that fails ends it.
    #[serde(default)]
    pub post_start: Vec<HookSpec>,
    /// Run one after the other before the stop signal, within `stop_grace`.
    #[serde(default)]
    pub pre_stop: Vec<HookSpec>,
    /// What devices of vendors want to be run.
    #[serde(default)]
    pub oci_hooks: Vec<OciHook>,
}

/// A device of the host, or a directory of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    pub source: PathBuf,
    pub target: PathBuf,
    /// Of `r`, `w` and `m`.
    pub access: String,
    /// What is not to be as on the host.
    #[serde(default)]
    pub like: NodeLike,
}

/// A config or secret, read-only and never on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    /// As messages name it: `secrets.key`.
    pub name: String,
    pub target: PathBuf,
    pub uid: u32,
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Of the content; the supervisor that had it before has it still.
    pub digest: String,
    #[serde(skip)]
    pub content: Content,
}

/// Docker's 64 MiB.
pub const SHM_SIZE: u64 = 64 << 20;

fn shm_size() -> u64 {
    SHM_SIZE
}

impl Default for ContainerSpec {
    /// What a service has that asks for nothing, as Docker has it; there is no image and no command.
    fn default() -> Self {
        ContainerSpec {
            fields: Fields::default(),
            image_digest: String::new(),
            argv: Vec::new(),
            environment: BTreeMap::new(),
            user: String::new(),
            working_dir: PathBuf::from("/"),
            hostname: String::new(),
            mounts: Vec::new(),
            health: None,
            restart: RestartPolicy::No,
            stop_signal: 15,
            stop_grace: 10_000,
            limits: Limits::default(),
            rights: Rights::default(),
            init: false,
            tty: false,
            logging: LogSettings::default(),
            stdin_open: false,
            read_only: false,
            shm_size: SHM_SIZE,
            domainname: String::new(),
            dns: Vec::new(),
            links: BTreeMap::new(),
            dns_search: Vec::new(),
            dns_opt: Vec::new(),
            sysctls: BTreeMap::new(),
            extra_hosts: Vec::new(),
            files: Vec::new(),
            devices: Vec::new(),
            device_rules: Vec::new(),
            post_start: Vec::new(),
            pre_stop: Vec::new(),
            oci_hooks: Vec::new(),
        }
    }
}

/// A name in /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostName {
    pub name: String,
    /// `None`: of the host, as the container reaches it.
    pub address: Option<IpAddr>,
}

/// What the processes of a container may do: its first one, those of `exec` and probes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rights {
    /// The bounding set: names of capabilities(7), upper case without `CAP_`.
    pub capabilities: BTreeSet<String>,
    /// Beside the groups of the user: numbers, or names of the image's group(5).
    pub groups: Vec<String>,
    /// By the names of Compose (`nofile`); others are the supervisor's.
    pub rlimits: BTreeMap<String, Rlimit>,
    /// `None`: as the supervisor leaves it, 0.
    pub oom_score_adj: Option<i32>,
    /// PR_SET_NO_NEW_PRIVS of prctl(2).
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    /// A profile that the host has loaded, or `unconfined`. `None`: as the supervisor is.
    pub apparmor: Option<String>,
    /// Nothing of /proc and /sys is hidden or read-only that is not so by itself.
    pub unmasked: bool,
    /// /sys can be written, and every device of the host opened. Only ever without a user namespace.
    pub privileged: bool,
}

/// A limit of setrlimit(2); -1: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    pub soft: i64,
    pub hard: i64,
}

/// Which system calls there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// The default profile, with what the capabilities add to it.
    #[default]
    Builtin,
    /// All of them.
    Unconfined,
    /// As a file of the project says.
    Profile(Box<Profile>),
}

/// What Docker gives a container.
pub const CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

impl Default for Rights {
    fn default() -> Self {
        Rights {
            capabilities: CAPABILITIES.map(str::to_owned).into(),
            groups: Vec::new(),
            rlimits: BTreeMap::new(),
            oom_score_adj: None,
            no_new_privileges: false,
            seccomp: Seccomp::Builtin,
            apparmor: None,
            unmasked: false,
            privileged: false,
        }
    }
}

/// What the container's control group allows; `None`: no limit of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Thousandths of a processor.
    pub cpu: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Bytes that others are asked for first when memory is short.
    #[serde(default)]
    pub memory_reservation: Option<u64>,
    /// Bytes of memory and swap together; -1: as much swap as there is. `None`: twice the memory, where the
    /// host counts swap.
    #[serde(default)]
    pub memory_swap: Option<i64>,
    /// Instead of `cpu`: microseconds of processor time in each period.
    #[serde(default)]
    pub cpu_quota: Option<u64>,
    /// Microseconds; `None`: 100,000.
    #[serde(default)]
    pub cpu_period: Option<u64>,
    /// Weight against others, from 2 to 262,144; `None`: 1,024.
    #[serde(default)]
    pub cpu_shares: Option<u64>,
    /// As cpuset(7) lists processors: `0-3,5`.
    #[serde(default)]
    pub cpuset: Option<String>,
    #[serde(default)]
    pub block: Option<BlockIo>,
}

/// A probe with every default filled in. Times in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSpec {
    pub argv: Vec<String>,
    pub interval: u64,
    pub timeout: u64,
    pub retries: u32,
    /// So long after the start failures do not count, unless a probe has succeeded; 0: for the first interval.
    #[serde(default)]
    pub start_period: u64,
    /// Between two probes in that time.
    #[serde(default)]
    pub start_interval: u64,
}

/// The firewall of one root, whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallSpec {
    #[serde(with = "pairs")]
    pub networks: BTreeMap<ResourceKey, FirewallNetwork>,
    /// Which container answers on which host port.
    #[serde(with = "pairs")]
    pub ports: BTreeMap<PublishKey, PublishTarget>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallNetwork {
    pub subnet: Subnet,
    pub gateway: Ipv4Addr,
    pub internal: bool,
    /// Address and MAC of each endpoint on this network: nobody may use another's.
    pub endpoints: BTreeSet<(Ipv4Addr, [u8; 6])>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublishKey {
    pub host_ip: Ipv4Addr,
    pub published: u16,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublishTarget {
    pub address: Ipv4Addr,
    pub port: u16,
}

/// The names of one network: lower-case name to addresses.
pub type Zone = BTreeMap<String, BTreeSet<Ipv4Addr>>;

/// Maps with structured keys, written as lists of pairs: JSON knows only text keys.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
    }
}
