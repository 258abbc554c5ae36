//! What a step orders, in full: names, addresses and digests are decided here and nowhere later.
//!
//! These are also what the host remembers: the sealed record of a sandbox holds its [`SandboxSpec`]
//! and [`ContainerSpec`], a network's record its [`NetworkSpec`]. Fields are only ever added, with a
//! default, so that a newer stead reads what an older one wrote.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
};

use model::fields::Fields;
/// Part of the contract: the backend does not know `model`.
pub use model::types::{Protocol, RestartPolicy};
use serde::{Deserialize, Serialize};

use crate::key::{InstanceKey, ResourceKey};

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
}

/// One interface of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub network: ResourceKey,
    /// `eth0`, `eth1`, …
    pub interface: String,
    pub address: Ipv4Addr,
    pub prefix: u8,
    /// The network's gateway; `None` on an internal network.
    pub gateway: Option<Ipv4Addr>,
    /// Locally administered, derived from the key.
    pub mac: [u8; 6],
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
}

/// A mount with its source decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum MountSpec {
    /// A named volume; filled from the image when new, unless `nocopy`.
    Volume {
        volume: ResourceKey,
        target: PathBuf,
        read_only: bool,
        nocopy: bool,
    },
    Bind {
        source: PathBuf,
        target: PathBuf,
        read_only: bool,
        create_host_path: bool,
    },
    /// `size` in bytes, `mode` as permission bits.
    Tmpfs {
        target: PathBuf,
        size: Option<u64>,
        mode: Option<u32>,
    },
}

/// A probe with every default filled in. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSpec {
    pub argv: Vec<String>,
    pub interval: u64,
    pub timeout: u64,
    pub retries: u32,
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
