//! The objects of the simulated kernel and of its disk, at the grain at which they are made and damaged.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use crate::{
    key::ResourceKey,
    observed::{Fault, Health, Hook},
    spec::{ContainerSpec, Endpoint, Limits, PortBinding, SandboxSpec},
};

/// The bridge of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// A link made anew is another one.
    pub index: u32,
    pub up: bool,
    /// It has the address that its network's key gives.
    pub own_mac: bool,
    pub alias: bool,
    pub spanning_tree: bool,
    pub addresses: BTreeSet<(Ipv4Addr, u8)>,
    pub mtu: u32,
    /// Somebody has set its MTU; until then it is the least of its ports.
    pub mtu_set: bool,
    /// Somebody else's link of that name is no bridge.
    pub is_bridge: bool,
    /// `route_localnet`: set by the firewall.
    pub localnet: bool,
    pub quiet_ipv6: bool,
    /// The route to its subnet.
    pub route: bool,
    /// Somebody gave it another name: it is found by its alias.
    pub renamed: bool,
}

/// The usual MTU.
pub const MTU: u32 = 1500;

/// A veth pair: both ends come and go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Index of the bridge that the host end is a port of.
    pub bridge: Option<u32>,
    pub up: bool,
    pub hairpin: bool,
    pub mtu: u32,
    pub inner: Inner,
}

/// The end inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inner {
    pub up: bool,
    pub mac: [u8; 6],
    pub mtu: u32,
    pub addresses: BTreeSet<(Ipv4Addr, u8)>,
    /// Gateway of a default route through it.
    pub way_out: Option<Ipv4Addr>,
}

/// A network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Netns {
    pub loopback: bool,
    /// Names asked at 127.0.0.11 reach the resolver.
    pub resolver: bool,
    pub pairs: BTreeMap<String, Pair>,
}

/// How a process takes a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Ends at SIGTERM.
    Obedient,
    /// Ends at SIGKILL only.
    Deaf,
    /// In an uninterruptible sleep: ends when that ends.
    Stuck,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub manner: Manner,
    /// It was killed, and ends as soon as it can.
    pub doomed: bool,
}

/// What a shim says of its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    Created,
    Running { pid: u32 },
    Exited { code: i32, at: u64 },
}

/// The supervisor of one sandbox, with its sealed record.
#[derive(Debug, Clone)]
pub struct Shim {
    pub pid: u32,
    /// It lives, but does not answer: what its record has said since.
    pub silent: Option<Run>,
    pub sandbox: Arc<SandboxSpec>,
    pub container: Option<Arc<ContainerSpec>>,
    /// Host ports it holds.
    pub ports: Vec<PortBinding>,
    pub run: Run,
    pub restarts: u32,
    pub streak: u32,
    pub flaps: u32,
    pub started_boot: Option<u64>,
    pub started_wall: Option<u64>,
    pub health: Health,
    /// The one that its process is about; of `post_start`: or did not get beyond.
    pub hook: Option<Hook>,
    /// It is being stopped, and killed at this time at the latest.
    pub stops_at: Option<u64>,
    /// How it was ended, where its status does not say it.
    pub died: Option<Fault>,
    /// The exit record could not be written yet.
    pub exit_due: bool,
    /// The supervisor whose namespaces it has joined.
    pub joined: Option<u32>,
    pub lives: Lives,
    /// What held the namespaces that it lends has ended.
    pub unpaused: bool,
}

/// Whose namespaces the processes of a sandbox live in, by the supervisor that made them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lives {
    pub network: u32,
    pub ipc: u32,
    pub pid: u32,
}

/// The cgroup of one instance: that of its shim and that of its container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroup {
    pub limits: Limits,
    /// Processes of the container that somebody moved elsewhere.
    pub strayed: BTreeSet<u32>,
}

/// What the container sees as its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    pub overlay: bool,
    /// Number of the upper directory.
    pub upper: u64,
    /// Index into the mounts of the container's specification: those that are in place.
    pub mounts: BTreeSet<usize>,
    /// Identity of each volume as it was mounted.
    pub volumes: BTreeMap<ResourceKey, u64>,
}

/// The identity in the record of a volume that was gone when the record was made: any fits it.
pub const UNKNOWN: u64 = 0;

/// What there is of one instance in the kernel.
#[derive(Debug, Clone, Default)]
pub struct Place {
    pub shim: Option<Shim>,
    pub cgroup: Option<Cgroup>,
    pub netns: Option<Netns>,
    /// The agent holds a descriptor of the namespace.
    pub held: bool,
    /// The container's first process, or what is left of it.
    pub processes: Vec<Process>,
    pub tree: Option<Tree>,
    /// TCP connections through its host ports.
    pub connections: u32,
    /// Its sandbox is being removed.
    pub leaving: bool,
}

/// `state/containers/<project>/<service>-<n><slot>`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directory {
    /// First of the ids that own what is in it.
    pub base: u32,
    /// A fresh upper directory has a new number; `None`: there is none.
    pub upper: Option<u64>,
    pub work: bool,
}

/// `state/volumes/<full name>`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeDirectory {
    /// What its identity file says; `None`: the file is missing or damaged.
    pub identity: Option<u64>,
    /// For whom it was made, as its identity file says.
    pub key: ResourceKey,
    /// Its data directory is there.
    pub data: bool,
    /// How often services have written.
    pub written: u64,
}

/// The layers of an image in the store, by its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    Half,
    Whole,
}

/// What somebody else has on this host. Nothing of stead may change it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreign {
    pub tables: BTreeSet<String>,
    pub links: BTreeSet<String>,
    pub processes: BTreeSet<u32>,
}

/// The rules of our tables that are no sets. Broken ones hide the sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Skeleton {
    /// Neither table is there.
    #[default]
    Absent,
    Whole,
    /// A table, a chain, a rule or a set is missing or another.
    Broken,
}

impl Place {
    pub fn is_empty(&self) -> bool {
        self.shim.is_none() && self.cgroup.is_none() && self.netns.is_none() && self.processes.is_empty()
    }

    /// The container's first process.
    pub fn first(&self) -> Option<&Process> {
        match &self.shim {
            Some(shim) => match shim.run {
                Run::Running { pid } => self.processes.iter().find(|process| process.pid == pid),
                _ => None,
            },
            None => self.processes.first(),
        }
    }

    /// A namespace that nobody holds goes, and its links with it.
    pub fn let_go(&mut self) {
        if self.shim.is_none() && !self.held && self.processes.is_empty() {
            self.netns = None;
        }
    }

    /// Ends what can be ended. Returns whether anything did.
    pub fn kill(&mut self) -> bool {
        let before = self.processes.len();
        self.processes.retain_mut(|process| {
            process.doomed = true;
            process.manner == Manner::Stuck
        });
        before != self.processes.len()
    }
}

impl Bridge {
    pub fn new(index: u32) -> Self {
        Bridge {
            index,
            up: false,
            own_mac: true,
            alias: false,
            spanning_tree: false,
            addresses: BTreeSet::new(),
            mtu: MTU,
            mtu_set: false,
            is_bridge: true,
            localnet: false,
            quiet_ipv6: false,
            route: false,
            renamed: false,
        }
    }
}

impl Pair {
    pub fn new(bridge: u32, endpoint: &Endpoint) -> Self {
        Pair {
            bridge: Some(bridge),
            up: true,
            hairpin: true,
            mtu: MTU,
            inner: Inner {
                up: false,
                mac: endpoint.mac,
                mtu: MTU,
                addresses: BTreeSet::new(),
                way_out: None,
            },
        }
    }
}
