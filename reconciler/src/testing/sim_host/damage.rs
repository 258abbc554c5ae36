//! What somebody else, or chance, does to the host, with the hints that the real watcher would give.
//!
//! Rows of the fault matrix without a variant: stale connection tracking (F-46), the name server list of
//! the host (F-53) and its uplink (F-54) are no objects of this host; a namespace has no file that could
//! be unlinked (F-51), and the responder (F-52) dies with its supervisor only.

mod possible;
mod power;

use std::{net::Ipv4Addr, sync::Arc};

use super::{
    World,
    objects::{Inner, Manner, Pair, Run, Skeleton, VolumeDirectory},
    world::touch,
};
use crate::{
    key::{InstanceKey, ResourceKey},
    observed::Health,
    port::HostEvent,
    spec::{FirewallSpec, Subnet},
};

/// One accident. Those that say what they undo are the end of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// F-38
    PortTaken(u16),
    PortFreed(u16),
    /// F-39
    RouteAdded(Subnet),
    RouteRemoved(Subnet),
    /// F-40
    BridgeDeleted(ResourceKey),
    BridgeDown(ResourceKey),
    BridgeAddressRemoved(ResourceKey),
    BridgeAddressAdded(ResourceKey, Ipv4Addr),
    BridgeMtu(ResourceKey),
    BridgeMac(ResourceKey),
    BridgeAlias(ResourceKey),
    BridgeSpanningTree(ResourceKey),
    BridgeRenamed(ResourceKey),
    BridgeIpv6(ResourceKey),
    BridgeRouteRemoved(ResourceKey),
    /// F-41; the pair goes, with the inner end.
    VethDeleted(InstanceKey, String),
    VethDown(InstanceKey, String),
    VethOffBridge(InstanceKey, String),
    VethHairpin(InstanceKey, String),
    VethMtu(InstanceKey, String),
    /// F-42
    InnerDown(InstanceKey, String),
    InnerAddressRemoved(InstanceKey, String),
    InnerRouteRemoved(InstanceKey, String),
    InnerMac(InstanceKey, String),
    LoopbackDown(InstanceKey),
    /// F-43
    RulesFlushed,
    RuleDeleted,
    EndpointElementDeleted(ResourceKey),
    PortElementDeleted,
    /// F-45
    ForwardingOff,
    LocalnetOff(ResourceKey),
    /// What it is to start is refused, until something has changed.
    StartRefused(InstanceKey),
    StartAllowed(InstanceKey),
    /// F-47
    OverlayUnmounted(InstanceKey),
    MountUnmounted(InstanceKey, usize),
    /// F-48
    UpperDeleted(InstanceKey),
    LayersDeleted(String),
    /// F-49
    VolumeMovedAway(String),
    VolumePutBack(String),
    VolumeReplaced(String),
    /// The data that is aside takes the place of another's again.
    VolumeRestored(String),
    /// F-50
    LimitsChanged(InstanceKey),
    ProcessStrayed(InstanceKey),
    /// F-55, F-06
    DiskFull,
    DiskFreed,
    ShimKilled(InstanceKey),
    /// The process that holds what a sandbox lends to others.
    PauseKilled(InstanceKey),
    ShimSilent(InstanceKey),
    ShimAnswers(InstanceKey),
    ProcessKilled(InstanceKey, i32),
    ProcessStuck(InstanceKey),
    ProcessFree(InstanceKey),
    ZoneDeleted(ResourceKey),
    ZoneChanged(ResourceKey),
    NetworkRecordTorn(ResourceKey),
    NetworkRecordDeleted(ResourceKey),
    /// The record of a volume.
    VolumeRecordDeleted(ResourceKey),
    IdRecordDeleted(String),
    /// A part cannot be read, and can be read again.
    Unreadable(&'static str),
    Readable(&'static str),
}

impl World {
    /// Does it, and tells what the watcher would tell. What does not apply does nothing.
    pub fn damage(&mut self, damage: &Damage) {
        let events = self.hurt(damage);
        self.moved(touch::ALL);
        for event in &events {
            self.tell(event);
        }
    }

    fn hurt(&mut self, damage: &Damage) -> Vec<HostEvent> {
        match damage {
            Damage::PortTaken(port) => {
                let held = self.instances.values().any(|place| {
                    let shim = place.shim.as_ref();
                    shim.is_some_and(|shim| shim.ports.iter().any(|held| held.published == *port))
                });
                if !held {
                    self.foreign_ports.insert(*port);
                }
                Vec::new()
            }
            Damage::PortFreed(port) => {
                self.foreign_ports.remove(port);
                Vec::new()
            }
            Damage::RouteAdded(subnet) => {
                self.routes.insert(*subnet);
                Vec::new()
            }
            Damage::RouteRemoved(subnet) => {
                self.routes.remove(subnet);
                Vec::new()
            }
            Damage::BridgeDeleted(key) => {
                self.delete_link(key);
                vec![HostEvent::Network(key.clone())]
            }
            Damage::BridgeDown(key)
            | Damage::BridgeMtu(key)
            | Damage::BridgeMac(key)
            | Damage::BridgeAlias(key)
            | Damage::BridgeSpanningTree(key)
            | Damage::BridgeRenamed(key)
            | Damage::BridgeIpv6(key)
            | Damage::BridgeRouteRemoved(key)
            | Damage::BridgeAddressRemoved(key)
            | Damage::BridgeAddressAdded(key, _) => {
                let Some(bridge) = self.bridges.get_mut(key) else {
                    return Vec::new();
                };
                match damage {
                    Damage::BridgeDown(_) => bridge.up = false,
                    Damage::BridgeMtu(_) => (bridge.mtu, bridge.mtu_set) = (1280, true),
                    Damage::BridgeMac(_) => bridge.own_mac = false,
                    Damage::BridgeAlias(_) => bridge.alias = false,
                    Damage::BridgeSpanningTree(_) => bridge.spanning_tree = true,
                    Damage::BridgeRenamed(_) => {
                        bridge.renamed = bridge.alias;
                        bridge.up = false;
                    }
                    Damage::BridgeIpv6(_) => bridge.quiet_ipv6 = false,
                    Damage::BridgeRouteRemoved(_) => bridge.route = false,
                    Damage::BridgeAddressAdded(_, address) => {
                        bridge.addresses.insert((*address, 24));
                    }
                    _ => bridge.addresses.clear(),
                }
                vec![HostEvent::Network(key.clone())]
            }
            Damage::VethDeleted(key, interface) => {
                if let Some(netns) = self.instances.get_mut(key).and_then(|place| place.netns.as_mut()) {
                    netns.pairs.remove(interface);
                }
                vec![HostEvent::Instance(key.clone())]
            }
            Damage::VethDown(key, interface) => self.on_pair(key, interface, |pair| pair.up = false),
            Damage::VethOffBridge(key, interface) => self.on_pair(key, interface, |pair| pair.bridge = None),
            Damage::VethHairpin(key, interface) => self.on_pair(key, interface, |pair| pair.hairpin = false),
            Damage::VethMtu(key, interface) => {
                let events = self.on_pair(key, interface, |pair| pair.mtu = 1280);
                self.follow_ports();
                events
            }
            // Its routes go with it.
            Damage::InnerDown(key, interface) => self.on_inner(key, interface, |inner| {
                inner.up = false;
                inner.way_out = None;
            }),
            Damage::InnerAddressRemoved(key, interface) => self.on_inner(key, interface, |inner| {
                inner.addresses.clear();
                inner.way_out = None;
            }),
            Damage::InnerRouteRemoved(key, interface) => {
                self.on_inner(key, interface, |inner| inner.way_out = None)
            }
            Damage::InnerMac(key, interface) => self.on_inner(key, interface, |inner| inner.mac[5] ^= 1),
            Damage::LoopbackDown(key) => {
                if let Some(netns) = self.instances.get_mut(key).and_then(|place| place.netns.as_mut()) {
                    netns.loopback = false;
                }
                vec![HostEvent::Instance(key.clone())]
            }
            Damage::RulesFlushed => {
                self.skeleton = Skeleton::Absent;
                self.firewall = FirewallSpec::default();
                self.rules_hurt = true;
                vec![HostEvent::Firewall]
            }
            Damage::RuleDeleted => {
                if self.skeleton == Skeleton::Whole {
                    self.skeleton = Skeleton::Broken;
                    self.rules_hurt = true;
                }
                vec![HostEvent::Firewall]
            }
            Damage::EndpointElementDeleted(key) => {
                if let Some(network) = self.firewall.networks.get_mut(key) {
                    network.endpoints.pop_first();
                    self.rules_hurt = true;
                }
                vec![HostEvent::Firewall]
            }
            Damage::PortElementDeleted => {
                self.firewall.ports.pop_first();
                self.rules_hurt = true;
                vec![HostEvent::Firewall]
            }
            Damage::ForwardingOff => {
                self.ip_forward = false;
                vec![HostEvent::Firewall]
            }
            Damage::LocalnetOff(key) => {
                if let Some(bridge) = self.bridges.get_mut(key) {
                    bridge.localnet = false;
                }
                vec![HostEvent::Firewall]
            }
            Damage::ZoneDeleted(key) => {
                self.zones.remove(key);
                vec![HostEvent::Names(key.clone())]
            }
            Damage::ZoneChanged(key) => {
                if let Some(zone) = self.zones.get_mut(key).map(Arc::make_mut) {
                    zone.pop_first();
                    zone.insert("intruder".to_owned(), [Ipv4Addr::new(192, 0, 2, 66)].into());
                }
                vec![HostEvent::Names(key.clone())]
            }
            damage => self.hurt_more(damage),
        }
    }

    fn hurt_more(&mut self, damage: &Damage) -> Vec<HostEvent> {
        match damage {
            Damage::OverlayUnmounted(key) => {
                if let Some(tree) = self.instances.get_mut(key).and_then(|place| place.tree.as_mut()) {
                    tree.overlay = false;
                }
                vec![HostEvent::Instance(key.clone())]
            }
            Damage::MountUnmounted(key, index) => {
                if let Some(tree) = self.instances.get_mut(key).and_then(|place| place.tree.as_mut()) {
                    tree.mounts.remove(index);
                }
                vec![HostEvent::Instance(key.clone())]
            }
            Damage::UpperDeleted(key) => {
                if let Some(directory) = self.trees.get_mut(key) {
                    directory.upper = None;
                }
                vec![HostEvent::Instance(key.clone())]
            }
            Damage::LayersDeleted(digest) => {
                self.layers.remove(digest);
                self.layers_hurt.insert(digest.clone());
                vec![HostEvent::Lost]
            }
            Damage::VolumeMovedAway(name) => {
                if !self.aside.contains_key(name)
                    && let Some(directory) = self.directories.remove(name)
                {
                    self.aside.insert(name.clone(), directory);
                }
                self.volume_events(name)
            }
            Damage::VolumePutBack(name) => {
                if !self.directories.contains_key(name)
                    && let Some(directory) = self.aside.remove(name)
                    && !self.given_up(&directory)
                {
                    self.directories.insert(name.clone(), directory);
                }
                vec![HostEvent::Lost]
            }
            Damage::VolumeReplaced(name) => {
                let other = self.number();
                if !self.aside.contains_key(name)
                    && let Some(directory) = self.directories.get_mut(name)
                {
                    self.aside.insert(name.clone(), directory.clone());
                    directory.identity = Some(other);
                    directory.written = 0;
                }
                self.volume_events(name)
            }
            Damage::VolumeRestored(name) => {
                if let Some(directory) = self.aside.remove(name)
                    && !self.given_up(&directory)
                {
                    self.directories.insert(name.clone(), directory);
                }
                vec![HostEvent::Lost]
            }
            Damage::LimitsChanged(key) => {
                if let Some(cgroup) = self
                    .instances
                    .get_mut(key)
                    .and_then(|place| place.cgroup.as_mut())
                {
                    cgroup.limits.pids = Some(7);
                }
                vec![HostEvent::Instance(key.clone())]
            }
            Damage::ProcessStrayed(key) => {
                if let Some(place) = self.instances.get_mut(key)
                    && let (Some(cgroup), Some(process)) = (&mut place.cgroup, place.processes.first())
                {
                    cgroup.strayed.insert(process.pid);
                }
                Vec::new()
            }
            Damage::StartRefused(key) => {
                self.refused.insert(key.clone());
                Vec::new()
            }
            Damage::StartAllowed(key) => {
                self.refused.remove(key);
                Vec::new()
            }
            Damage::DiskFull => {
                self.disk_full = true;
                Vec::new()
            }
            Damage::DiskFreed => {
                self.disk_full = false;
                self.write_due();
                Vec::new()
            }
            Damage::ShimKilled(key) => {
                self.shim_dies(key);
                vec![HostEvent::Instance(key.clone())]
            }
            Damage::PauseKilled(key) => {
                self.kill_pause(key);
                vec![HostEvent::Instance(key.clone())]
            }
            Damage::ShimSilent(key) | Damage::ShimAnswers(key) => {
                let place = self.instances.get_mut(key);
                if let Some(shim) = place.and_then(|place| place.shim.as_mut()) {
                    let silent = matches!(damage, Damage::ShimSilent(_));
                    shim.silent = silent.then(|| shim.run.clone());
                }
                Vec::new()
            }
            Damage::ProcessKilled(key, code) => {
                self.ended(key, *code, self.boot);
                vec![HostEvent::Instance(key.clone())]
            }
            Damage::ProcessStuck(key) => {
                for process in self.processes(key) {
                    process.manner = Manner::Stuck;
                }
                Vec::new()
            }
            Damage::ProcessFree(key) => self.free(key),
            Damage::NetworkRecordTorn(key) => {
                self.networks.tear(key);
                self.records_hurt = true;
                Vec::new()
            }
            Damage::NetworkRecordDeleted(key) => {
                self.networks.remove(key);
                self.records_hurt = true;
                vec![HostEvent::Lost]
            }
            Damage::VolumeRecordDeleted(key) => {
                self.volumes.remove(key);
                self.records_hurt = true;
                vec![HostEvent::Lost]
            }
            Damage::IdRecordDeleted(project) => {
                self.id_bases.remove(project);
                self.records_hurt = true;
                vec![HostEvent::Lost]
            }
            Damage::Unreadable(part) => {
                self.unreadable.insert(part);
                Vec::new()
            }
            Damage::Readable(part) => {
                self.unreadable.remove(part);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn processes(&mut self, key: &InstanceKey) -> impl Iterator<Item = &mut super::objects::Process> {
        self.instances
            .get_mut(key)
            .into_iter()
            .flat_map(|place| place.processes.iter_mut())
    }

    /// What it slept for has come: signals that were sent meanwhile take effect.
    fn free(&mut self, key: &InstanceKey) -> Vec<HostEvent> {
        for process in self.processes(key) {
            process.manner = Manner::Obedient;
        }
        let Some(place) = self.instances.get(key) else {
            return Vec::new();
        };
        let killed = place.processes.iter().any(|process| process.doomed);
        let alone = place.shim.is_none();
        if killed || alone {
            if let Some(place) = self.instances.get_mut(key)
                && alone
            {
                place.processes.clear();
                place.tree = None;
                place.let_go();
            }
            self.ended(key, 137, self.boot);
        }
        vec![HostEvent::Instance(key.clone())]
    }

    /// Nobody puts back what was removed by order meanwhile.
    fn given_up(&self, directory: &VolumeDirectory) -> bool {
        let identity = directory.identity;
        identity.is_some_and(|identity| self.removed_volumes.contains(&identity))
    }

    fn volume_events(&self, name: &str) -> Vec<HostEvent> {
        let keys = self.volumes.keys().filter(|key| key.name == name);
        keys.map(|key| HostEvent::Volume(key.clone())).collect()
    }

    fn on_pair(
        &mut self,
        key: &InstanceKey,
        interface: &str,
        change: impl FnOnce(&mut Pair),
    ) -> Vec<HostEvent> {
        let netns = self.instances.get_mut(key).and_then(|place| place.netns.as_mut());
        if let Some(pair) = netns.and_then(|netns| netns.pairs.get_mut(interface)) {
            change(pair);
        }
        vec![HostEvent::Instance(key.clone())]
    }

    fn on_inner(
        &mut self,
        key: &InstanceKey,
        interface: &str,
        change: impl FnOnce(&mut Inner),
    ) -> Vec<HostEvent> {
        self.on_pair(key, interface, |pair| change(&mut pair.inner))
    }

    fn runs(&self, key: &InstanceKey) -> bool {
        let shim = self.instances.get(key).and_then(|place| place.shim.as_ref());
        shim.is_some_and(|shim| matches!(shim.run, Run::Running { .. }))
    }

    /// A probe says so.
    pub fn set_health(&mut self, key: &InstanceKey, health: Health) {
        let place = self.instances.get_mut(key);
        if let Some(shim) = place.and_then(|place| place.shim.as_mut())
            && matches!(shim.run, Run::Running { .. })
        {
            shim.health = health;
            self.moved(touch::INSTANCES);
            self.tell(&HostEvent::Instance(key.clone()));
        }
    }
}
