//! The whole simulated host as values; tests look into it and break it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::mpsc;

use super::{
    SimError,
    disk::Files,
    error,
    objects::{Bridge, Directory, Foreign, Layers, Manner, Place, Run, Skeleton, UNKNOWN, VolumeDirectory},
    registry::Registry,
};
use crate::{
    converge::Kept,
    key::{InstanceKey, ResourceKey},
    observed::{Ended, Fault, Image, Moment},
    plan::action::Action,
    port::{ActionError, HostEvent, Retry},
    spec::{FirewallSpec, NetworkSpec, Subnet, Zone},
};

/// Kinds of objects, as bits: what was touched since somebody last asked.
pub mod touch {
    pub const NETWORKS: u32 = 1;
    pub const VOLUMES: u32 = 1 << 1;
    pub const INSTANCES: u32 = 1 << 2;
    pub const FIREWALL: u32 = 1 << 3;
    pub const NAMES: u32 = 1 << 4;
    pub const IMAGES: u32 = 1 << 5;
    pub const RECORDS: u32 = 1 << 6;
    pub const FOREIGN: u32 = 1 << 7;
    pub const ALL: u32 = u32::MAX;
}

/// What has become of the directory of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    Missing,
    NoData,
    NoIdentity,
    Another,
}

impl Lost {
    /// For people, as the real host tells it.
    pub fn of(self, volume: &ResourceKey) -> String {
        let place = match self {
            Lost::Missing => " is missing",
            Lost::NoData => "/data is missing",
            Lost::NoIdentity => "/identity is missing",
            Lost::Another => " holds another volume",
        };
        format!(
            "{STATE}/volumes/{}{place}. Restore the directory from a backup, or give the volume up with `stead \
             down --volumes`",
            volume.name
        )
    }
}

/// The simulated host has the system's own root.
pub const STATE: &str = "/var/lib/stead";

/// See the parent module. Maps by key are small, and in the order of their keys.
#[derive(Debug, Default)]
pub struct World {
    pub boot_id: String,
    /// What references stand for where images come from. `unpacked` says nothing here.
    pub images: BTreeMap<String, Image>,
    pub registry: Registry,
    /// The store, by digest.
    pub layers: BTreeMap<String, Layers>,
    /// Digests whose layers somebody has damaged.
    pub layers_hurt: BTreeSet<String>,
    /// How the processes of a service take signals, where not as usual.
    pub manners: BTreeMap<String, Manner>,
    /// Records of networks.
    pub networks: Files<ResourceKey, NetworkSpec>,
    pub bridges: BTreeMap<ResourceKey, Bridge>,
    /// Records of volumes: the identity each was made with.
    pub volumes: Files<ResourceKey, u64>,
    /// By full name.
    pub directories: BTreeMap<String, VolumeDirectory>,
    /// Volume directories that somebody has moved away.
    pub aside: BTreeMap<String, VolumeDirectory>,
    /// What is half made or half removed beside the volumes.
    pub debris: BTreeSet<u64>,
    /// Names of volume directories that a power cut may take back.
    pub(super) loose_directories: BTreeSet<String>,
    /// Identities of volumes that were removed by order.
    pub removed_volumes: BTreeSet<u64>,
    /// What the kernel has of each instance.
    pub instances: BTreeMap<InstanceKey, Place>,
    /// What the disk has of each instance.
    pub trees: BTreeMap<InstanceKey, Directory>,
    /// Exit records.
    pub ended: Files<InstanceKey, Ended>,
    /// What the sets of our tables hold.
    pub firewall: FirewallSpec,
    pub skeleton: Skeleton,
    pub ip_forward: bool,
    /// The note that stead turned forwarding on.
    pub turned_on: bool,
    pub zones: BTreeMap<ResourceKey, Arc<Zone>>,
    pub id_bases: Files<String, u32>,
    /// Routes of somebody else.
    pub routes: BTreeSet<Subnet>,
    /// Host ports of programs that are not ours.
    pub foreign_ports: BTreeSet<u16>,
    pub foreign: Foreign,
    /// No room is left for a write.
    pub disk_full: bool,
    /// Instances whose supervisor refuses what it is to start.
    pub refused: BTreeSet<InstanceKey>,
    /// Next failures by text form of a key: how often still, and how.
    pub failing: BTreeMap<String, (u32, Retry)>,
    /// Parts that cannot be read now: `networks`, `volumes`, `instances`, `firewall`, `zones`.
    pub unreadable: BTreeSet<&'static str>,
    /// After so many mutations the agent is dead: nothing it does has an effect any more.
    pub dies_after: Option<u32>,
    /// Every action that came to its end, in order, while `keeps_history`.
    pub done: Vec<Action>,
    pub keeps_history: bool,
    /// What the agent keeps of its own.
    pub kept: Kept,
    /// Starts, with the moment.
    pub starts: Vec<(InstanceKey, u64)>,
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// Calls of the backend, and mutations.
    pub steps: u64,
    /// Bits of [`touch`] since they were last taken.
    pub touched: u32,
    /// Set by damage to rules, cleared by the next complete [`Action::SyncFirewall`].
    pub rules_hurt: bool,
    /// Set by damage to records, cleared once they are made again.
    pub records_hurt: bool,
    /// The last look found them whole again.
    pub(super) records_whole: bool,
    /// Actions that have begun and neither ended nor failed.
    pub(super) under_way: u32,
    /// Moment of the boot clock, without what a runtime adds.
    pub boot: u64,
    pub wall: u64,
    pub(super) next_pid: u32,
    pub(super) next_number: u64,
    pub(super) listeners: Vec<mpsc::UnboundedSender<HostEvent>>,
}

impl World {
    pub(super) fn new() -> Self {
        World {
            boot_id: "boot-1".to_owned(),
            next_pid: 100,
            boot: 1_000_000,
            wall: 1_700_001_000_000,
            keeps_history: true,
            foreign: Foreign {
                tables: BTreeSet::from(["ip nat".to_owned()]),
                links: BTreeSet::from(["eth0".to_owned()]),
                processes: BTreeSet::from([1, 42]),
            },
            ..World::default()
        }
    }

    /// A number that was never given out before.
    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(super) fn pid(&mut self) -> u32 {
        self.next_pid += 1;
        self.next_pid
    }

    /// One mutation of `kinds` took place.
    pub(super) fn moved(&mut self, kinds: u32) {
        self.steps += 1;
        self.touched |= kinds;
    }

    /// What was touched since the last call, as bits of [`touch`].
    pub fn take_touched(&mut self) -> u32 {
        std::mem::take(&mut self.touched)
    }

    pub fn tell(&mut self, event: &HostEvent) {
        self.listeners
            .retain(|listener| listener.send(event.clone()).is_ok());
    }

    /// Nothing can be written.
    pub(super) fn room(&self) -> Result<(), ActionError> {
        if self.disk_full {
            return Err(error(Retry::Again, SimError::DiskFull));
        }
        Ok(())
    }

    /// Why a volume is no longer the one its record speaks of; `None`: it is, or there is no record.
    pub fn lost(&self, key: &ResourceKey) -> Option<Lost> {
        let identity = self.volumes.whole(key)?;
        match self.directories.get(&key.name) {
            None => Some(Lost::Missing),
            Some(directory) if !directory.data => Some(Lost::NoData),
            Some(directory) => match directory.identity {
                None => Some(Lost::NoIdentity),
                Some(found) if found != *identity && *identity != UNKNOWN => Some(Lost::Another),
                Some(_) => None,
            },
        }
    }

    /// The agent is gone: its descriptors close.
    pub fn agent_dies(&mut self) {
        for place in self.instances.values_mut() {
            place.held = false;
            place.let_go();
        }
        self.instances.retain(|_, place| !place.is_empty());
        self.touched |= touch::INSTANCES;
    }

    /// The next agent clears away what its forerunner left half done, and adopts.
    pub fn agent_starts(&mut self) {
        self.networks.sweep();
        self.volumes.sweep();
        self.id_bases.sweep();
        self.under_way = 0;
        self.debris.clear();
        self.loose_directories.clear();
        self.layers.retain(|_, layers| *layers == Layers::Whole);
        for place in self.instances.values_mut() {
            place.leaving = false;
            place.held = place.shim.as_ref().is_some_and(|shim| shim.silent.is_none());
        }
        self.moved(touch::ALL);
    }

    /// Processes of instances by pid: what stead may signal.
    pub fn has_process(&self, key: &InstanceKey, pid: u32) -> bool {
        self.instances.get(key).is_some_and(|place| {
            place.shim.as_ref().is_some_and(|shim| shim.pid == pid)
                || place.processes.iter().any(|process| process.pid == pid)
        })
    }

    /// The container's first process ends: the kernel ends the others, the shim writes it down.
    pub(super) fn ended(&mut self, key: &InstanceKey, code: i32, now: u64) {
        let full = self.disk_full;
        let Some(place) = self.instances.get_mut(key) else {
            return;
        };
        place.processes.clear();
        place.tree = None;
        place.connections = 0;
        if let Some(shim) = &mut place.shim
            && matches!(shim.run, Run::Running { .. })
        {
            // A start that failed ends with the status of what failed.
            let code = match shim.died {
                Some(Fault::PostStart { status, .. }) => status,
                _ => code,
            };
            shim.hook = shim.hook.filter(|hook| hook.moment == Moment::PostStart);
            shim.stops_at = None;
            shim.run = Run::Exited { code, at: now };
            shim.health = crate::observed::Health::None;
            shim.exit_due = full;
            if let (false, Some(container)) = (full, &shim.container) {
                let record = Ended {
                    container: (**container).clone(),
                    code,
                    restarts: shim.restarts,
                    died: shim.died.clone(),
                };
                self.ended.set(key.clone(), record);
            }
        }
        place.let_go();
        self.moved(touch::INSTANCES | touch::RECORDS);
    }

    /// A supervisor dies. What it supervises dies with it, except what a signal cannot end.
    pub(super) fn shim_dies(&mut self, key: &InstanceKey) {
        let mut lends = None;
        if let Some(place) = self.instances.get_mut(key) {
            let lent = place.shim.take().filter(|shim| shim.sandbox.spaces.lends_pid);
            lends = lent.map(|shim| shim.pid);
            place.kill();
            place.connections = 0;
            if place.processes.is_empty() {
                place.tree = None;
            }
            place.let_go();
        }
        if let Some(shim) = lends {
            self.pause_ends(shim);
        }
        self.moved(touch::INSTANCES);
    }

    /// Exit records that did not fit on the disk are tried again.
    pub fn write_due(&mut self) {
        if self.disk_full {
            return;
        }
        for (key, place) in &mut self.instances {
            if let Some(shim) = &mut place.shim
                && shim.exit_due
                && let (Run::Exited { code, .. }, Some(container)) = (&shim.run, &shim.container)
            {
                shim.exit_due = false;
                let record = Ended {
                    container: (**container).clone(),
                    code: *code,
                    restarts: shim.restarts,
                    died: shim.died.clone(),
                };
                self.ended.set(key.clone(), record);
            }
        }
    }
}
