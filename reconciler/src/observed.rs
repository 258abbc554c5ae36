//! What the host shows. A part that could not be read is `Unknown`, never absent.

pub mod abilities;
pub mod fault;
pub mod hook;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use abilities::{Abilities, Lack};
pub use fault::Fault;
pub use hook::{Hook, Moment};

use crate::{
    key::{InstanceKey, ResourceKey},
    spec::{ContainerSpec, FirewallSpec, NetworkSpec, SandboxSpec, Subnet, Zone},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact<T> {
    Known(T),
    /// Why it could not be read.
    Unknown(String),
}

/// A snapshot of the host, as far as it carries this root's mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// By reference as written. A reference nobody asked about is not here.
    pub images: BTreeMap<String, Fact<Image>>,
    pub networks: Fact<BTreeMap<ResourceKey, Network>>,
    pub volumes: Fact<BTreeMap<ResourceKey, Volume>>,
    pub instances: Fact<BTreeMap<InstanceKey, Instance>>,
    /// How containers without a live sandbox ended, from their exit records: these outlive sandbox and
    /// boot. A lost sandbox may have one beside it.
    pub ended: Fact<BTreeMap<InstanceKey, Ended>>,
    /// Instances of which there is a directory on the disk, and neither a sandbox nor anything left of one:
    /// a boot has ended them, or a removal broke off.
    pub remains: Fact<BTreeSet<InstanceKey>>,
    pub firewall: Fact<Firewall>,
    pub zones: Fact<BTreeMap<ResourceKey, Arc<Zone>>>,
    /// Routes of the host that are not ours: new subnets keep clear of them.
    pub routes: Fact<BTreeSet<Subnet>>,
    /// First host id of each project's range, as recorded.
    pub id_bases: Fact<BTreeMap<String, u32>>,
}

/// What an image reference stands for right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `sha256:…` of the configuration.
    pub digest: String,
    /// Its layers are in the store.
    pub unpacked: bool,
    pub config: ImageConfig,
    /// What its tag stands for in its registry, where that is another image. Whoever follows the tag takes it.
    pub latest: Option<Box<Image>>,
    /// When the registry was last asked; `None`: it never was, or there is none.
    pub asked: Option<Asked>,
}

/// An answer of a registry, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Milliseconds since the epoch of the last answer.
    pub at: u64,
    /// Why there was none since.
    pub failed: Option<String>,
}

impl Image {
    /// By itself, of no registry.
    pub fn new(digest: String, unpacked: bool, config: ImageConfig) -> Self {
        Image {
            digest,
            unpacked,
            config,
            latest: None,
            asked: None,
        }
    }
}

/// The part of an OCI image configuration that decides how a container runs (image-spec, config.md).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    pub user: String,
    pub environment: BTreeMap<String, String>,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub working_dir: String,
    pub stop_signal: Option<String>,
    /// Targets of anonymous volumes.
    pub volumes: BTreeSet<String>,
    pub healthcheck: Option<ImageHealthcheck>,
}

/// Docker's `Healthcheck` in an image configuration. Times in milliseconds, 0 is "the default".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageHealthcheck {
    pub test: Vec<String>,
    pub interval: u64,
    pub timeout: u64,
    pub retries: u32,
    pub start_period: u64,
    pub start_interval: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// From its record, or read back from the bridge.
    pub spec: NetworkSpec,
    /// What differs from the record, for people (`bridge is missing`). Empty: as it should be.
    pub drift: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// It has a record, but its data is missing or is another volume's: hold every service on it.
    pub lost: Option<String>,
}

/// One sandbox and what runs in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// From the sealed record.
    pub sandbox: Arc<SandboxSpec>,
    /// What was last started, from the sealed record; `None`: nothing yet.
    /// Shared: a snapshot of a thousand is copied with each change of one.
    pub container: Option<Arc<ContainerSpec>>,
    pub state: State,
    /// What differs from the record, for people (`eth0 is missing`). Empty: as it should be.
    pub drift: Vec<String>,
    /// What is wrong under the process and cannot be put right while it runs (its root is gone): it must
    /// be started again.
    pub broken: Option<String>,
    /// Of this sandbox and no later one of the same key. Empty: it is lost.
    pub identity: String,
    /// The identity of the sandbox whose namespaces it has joined.
    pub joined: Option<String>,
    /// Restarts since the container was created, as `ps` shows them.
    pub restarts: u32,
    /// Restarts in a row without 10 s of running: what the back-off counts.
    pub streak: u32,
    /// Restarts in a row for being unhealthy.
    pub flaps: u32,
    /// Boot-clock milliseconds of the last start.
    pub started_at: Option<u64>,
    /// Wall-clock milliseconds of the last start.
    pub started_wall: Option<u64>,
    pub health: Health,
    /// The hook that its process is about, or did not get beyond.
    pub hook: Option<Hook>,
    /// What goes wrong with what runs, and how the last run was ended.
    pub faults: Vec<Fault>,
}

impl Instance {
    /// What is left when the supervisor is gone: nothing is known of it but that it must go.
    pub fn lost(key: &InstanceKey) -> Self {
        Instance {
            sandbox: Arc::new(SandboxSpec {
                key: key.clone(),
                id_base: 0,
                endpoints: Vec::new(),
                ports: Vec::new(),
                spaces: Default::default(),
            }),
            container: None,
            state: State::Lost,
            drift: Vec::new(),
            broken: None,
            identity: String::new(),
            joined: None,
            restarts: 0,
            streak: 0,
            flaps: 0,
            started_at: None,
            started_wall: None,
            health: Health::None,
            hook: None,
            faults: Vec::new(),
        }
    }

    /// Its process runs or ran, and its `post_start` hooks are not done: it does not count as started.
    pub fn is_starting(&self) -> bool {
        matches!(
            self.hook,
            Some(Hook {
                moment: Moment::PostStart,
                ..
            })
        ) && !planted!("hooks-ignored")
    }

    /// How the last run was ended, where its status does not say it.
    pub fn died(&self) -> Option<&Fault> {
        self.faults.iter().find(|fault| fault.is_end())
    }
}

/// The last end of a container, as its exit record keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub container: ContainerSpec,
    /// Exit status, or 128 + signal.
    pub code: i32,
    pub restarts: u32,
    /// Why, where `code` does not say it.
    pub died: Option<Fault>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Sandbox ready, nothing started in it.
    Created,
    Running {
        /// As the host sees it.
        pid: u32,
    },
    /// `code` is the exit status, or 128 + signal. `at`: boot-clock milliseconds.
    Exited { code: i32, at: u64 },
    /// Its supervisor is gone. Whatever lives in its cgroup must be killed, and the cgroup be empty,
    /// before anything may start.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// No healthcheck.
    None,
    Starting,
    Healthy,
    Unhealthy,
}

/// What our tables in the kernel hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// What the sets and maps hold. An incomplete skeleton shows as an empty spec with a drift.
    pub spec: FirewallSpec,
    pub drift: Vec<String>,
}

impl<T> Fact<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Fact::Known(value) => Some(value),
            Fact::Unknown(_) => None,
        }
    }
}

impl Observed {
    /// Before anything was looked at: everything is unknown.
    pub fn nothing_known() -> Self {
        let why = || "not observed yet".to_owned();
        Observed {
            boot_id: String::new(),
            images: BTreeMap::new(),
            networks: Fact::Unknown(why()),
            volumes: Fact::Unknown(why()),
            instances: Fact::Unknown(why()),
            ended: Fact::Unknown(why()),
            remains: Fact::Unknown(why()),
            firewall: Fact::Unknown(why()),
            zones: Fact::Unknown(why()),
            routes: Fact::Unknown(why()),
            id_bases: Fact::Unknown(why()),
        }
    }
}
