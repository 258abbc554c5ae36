//! One variant, one idempotent backend call, with everything it needs inside.

use serde::{Deserialize, Serialize};

use crate::{
    key::{InstanceKey, ResourceKey},
    spec::{ContainerSpec, FirewallSpec, NetworkSpec, SandboxSpec, VolumeSpec, Zone},
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// Bring the image into the store and unpack its layers. Fails if the reference no longer stands
    /// for `digest`.
    UnpackImage {
        reference: String,
        digest: String,
        /// Only who follows the tag takes it; for all others the name stands for what it stood for.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        latest: bool,
    },
    /// From now on the reference stands for `digest`, which is in the store, also to those who do not follow its tag.
    PinImage {
        reference: String,
        digest: String,
    },
    /// Make the bridge, or repair what differs.
    EnsureNetwork(NetworkSpec),
    RemoveNetwork(ResourceKey),
    EnsureVolume(VolumeSpec),
    /// Only ever planned with consent.
    RemoveVolume(ResourceKey),
    /// Make the sandbox, or bring endpoints and port reservations to what is asked; never touches a
    /// running process. A host port somebody else
    /// holds is an error that may be tried again.
    EnsureSandbox(SandboxSpec),
    /// Kill what is left in it, wait until its cgroup is empty, remove sandbox, upper directory and
    /// record. Logs stay until the project is gone. Of a lost sandbox the exit record stays, so that a
    /// finished job is not run again; where nothing else is left, it is the exit record that goes.
    RemoveSandbox(InstanceKey),
    /// Start the container in its sandbox. `fresh`: with a new upper directory.
    StartContainer {
        key: InstanceKey,
        spec: Box<ContainerSpec>,
        fresh: bool,
        restarts: u32,
        streak: u32,
        /// Restarts in a row for being unhealthy.
        flaps: u32,
    },
    /// Stop signal, grace, SIGKILL; done when nothing is left. The sandbox stays. `drain`: before the
    /// signal, up to so many milliseconds until no TCP connection passes through its host ports any more.
    StopContainer {
        key: InstanceKey,
        drain: u64,
    },
    /// Policies that the shim or the record carry but the process does not notice: restart policy,
    /// healthcheck, labels, limits.
    UpdateContainer {
        key: InstanceKey,
        spec: Box<ContainerSpec>,
    },
    /// Bring our tables to exactly this, in one transaction.
    SyncFirewall(FirewallSpec),
    /// Replace the names of a network; `None` when the network goes.
    SyncNames {
        network: ResourceKey,
        zone: Option<Zone>,
    },
}
