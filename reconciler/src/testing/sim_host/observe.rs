//! From objects to what the plan compares, as the Linux backend derives it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::{
    World,
    disk::Content,
    objects::{Bridge, MTU, Netns, Place, Run, Skeleton, UNKNOWN},
    world::STATE,
};
use crate::{
    key::{InstanceKey, ResourceKey},
    observed::{Ended, Fact, Firewall, Health, Image, Instance, Network, Observed, State, Volume},
    port::Scope,
    spec::{ContainerSpec, Endpoint, FirewallSpec, Limits, MountSpec, NetworkSpec, SandboxSpec, Subnet},
};

impl World {
    /// Looks again at the parts in `scope` and replaces them in `observed`.
    pub fn look(&mut self, scope: &Scope, observed: &mut Observed) {
        self.steps += 1;
        let all = scope.all;
        if all {
            self.hold_what_answers();
            self.restore();
        }
        if observed.boot_id != self.boot_id {
            observed.boot_id.clone_from(&self.boot_id);
        }
        for reference in &scope.images {
            observed
                .images
                .insert(reference.clone(), self.see_image(reference));
        }
        if all || !scope.networks.is_empty() {
            if all {
                observed.networks = self.see_networks();
            } else {
                self.see_some_networks(&scope.networks, &mut observed.networks);
            }
            observed.routes = Fact::Known(self.routes.clone());
        }
        if all || !scope.volumes.is_empty() {
            self.see_volumes(&scope.volumes, all, &mut observed.volumes);
        }
        if all {
            observed.instances = self.read("instances", || {
                let places = self.instances.iter();
                places
                    .filter_map(|(key, place)| Some((key.clone(), self.see_place(key, place)?)))
                    .collect()
            });
            observed.ended = self.see_ended();
            observed.remains = self.read("instances", || {
                let keys = self.trees.keys().chain(self.ended.keys());
                keys.filter(|key| self.remains(key)).cloned().collect()
            });
            observed.id_bases = self.see_id_bases();
        } else if !scope.instances.is_empty() {
            if let Fact::Known(instances) = &mut observed.instances {
                for key in &scope.instances {
                    if self.unreadable.contains("instances") {
                        break;
                    }
                    let seen = self
                        .instances
                        .get(key)
                        .and_then(|place| self.see_place(key, place));
                    match seen {
                        Some(instance) => drop(instances.insert(key.clone(), instance)),
                        None => drop(instances.remove(key)),
                    }
                }
            }
            if let Fact::Known(ended) = &mut observed.ended {
                for key in &scope.instances {
                    match self.see_one_ended(key) {
                        Some(one) => drop(ended.insert(key.clone(), one)),
                        None => drop(ended.remove(key)),
                    }
                }
            }
            if let Fact::Known(remains) = &mut observed.remains {
                for key in &scope.instances {
                    match self.remains(key) {
                        true => remains.insert(key.clone()),
                        false => remains.remove(key),
                    };
                }
            }
            if self.unreadable.contains("instances") {
                observed.instances = unreadable("instances");
                observed.ended = unreadable("instances");
                observed.remains = unreadable("instances");
            }
            observed.id_bases = self.see_id_bases();
        }
        if all || scope.firewall {
            observed.firewall = self.read("firewall", || self.see_firewall());
        }
        if all || scope.zones {
            observed.zones = self.read("zones", || self.zones.clone());
        }
    }

    fn read<T>(&self, part: &'static str, value: impl FnOnce() -> T) -> Fact<T> {
        if self.unreadable.contains(part) {
            unreadable(part)
        } else {
            Fact::Known(value())
        }
    }

    fn see_image(&self, reference: &str) -> Fact<Image> {
        match self.images.get(reference) {
            Some(image) => Fact::Known(Image {
                unpacked: self.unpacked(&image.digest),
                ..image.clone()
            }),
            None => Fact::Unknown("there is no such image; put it there or change `image`".to_owned()),
        }
    }

    fn see_networks(&self) -> Fact<BTreeMap<ResourceKey, Network>> {
        if let Some(key) = self.networks.torn() {
            return damaged("network", key);
        }
        self.read("networks", || {
            let records = self.networks.iter();
            records
                .filter_map(|(key, content)| match content {
                    Content::Whole(spec) => Some((key.clone(), self.see_network(key, spec))),
                    Content::Torn => None,
                })
                .collect()
        })
    }

    /// Every record is read; only those in question are compared.
    fn see_some_networks(
        &self,
        keys: &BTreeSet<ResourceKey>,
        known: &mut Fact<BTreeMap<ResourceKey, Network>>,
    ) {
        if let Some(key) = self.networks.torn() {
            *known = damaged("network", key);
            return;
        }
        if self.unreadable.contains("networks") {
            *known = unreadable("networks");
            return;
        }
        match known {
            Fact::Known(known) => {
                for key in keys {
                    match self.networks.whole(key) {
                        Some(spec) => drop(known.insert(key.clone(), self.see_network(key, spec))),
                        None => drop(known.remove(key)),
                    }
                }
            }
            Fact::Unknown(_) => *known = self.see_networks(),
        }
    }

    fn see_network(&self, key: &ResourceKey, spec: &NetworkSpec) -> Network {
        Network {
            spec: spec.clone(),
            drift: bridge_drift(self.bridges.get(key), spec),
        }
    }

    fn see_volumes(
        &self,
        keys: &BTreeSet<ResourceKey>,
        all: bool,
        known: &mut Fact<BTreeMap<ResourceKey, Volume>>,
    ) {
        if let Some(key) = self.volumes.torn() {
            *known = damaged("volume", key);
            return;
        }
        if self.unreadable.contains("volumes") {
            *known = unreadable("volumes");
            return;
        }
        let see = |key: &ResourceKey| Volume {
            lost: self.lost(key).map(|lost| lost.of(key)),
        };
        match known {
            Fact::Known(known) if !all => {
                for key in keys {
                    match self.volumes.contains_key(key) {
                        true => drop(known.insert(key.clone(), see(key))),
                        false => drop(known.remove(key)),
                    }
                }
            }
            _ => {
                let keys = self.volumes.keys();
                *known = Fact::Known(keys.map(|key| (key.clone(), see(key))).collect());
            }
        }
    }

    fn see_id_bases(&self) -> Fact<BTreeMap<String, u32>> {
        if let Some(project) = self.id_bases.torn() {
            return damaged("id-base", project);
        }
        let records = self.id_bases.keys();
        Fact::Known(
            records
                .filter_map(|project| Some((project.clone(), *self.id_bases.whole(project)?)))
                .collect(),
        )
    }

    fn see_ended(&self) -> Fact<BTreeMap<InstanceKey, Ended>> {
        self.read("instances", || {
            let keys = self.ended.keys();
            keys.filter_map(|key| Some((key.clone(), self.see_one_ended(key)?)))
                .collect()
        })
    }

    /// While there is a sandbox that answers, it says itself how its container ended.
    fn see_one_ended(&self, key: &InstanceKey) -> Option<Ended> {
        let has_sandbox = self.instances.get(key).is_some_and(|place| place.shim.is_some());
        if has_sandbox {
            return None;
        }
        self.ended.whole(key).cloned()
    }

    /// The disk has something of it, and the kernel nothing.
    fn remains(&self, key: &InstanceKey) -> bool {
        let on_disk = self.trees.contains_key(key) || self.ended.contains_key(key);
        on_disk && !self.instances.contains_key(key)
    }

    /// The agent connects to every supervisor that answers, and holds its namespace from then on.
    fn hold_what_answers(&mut self) {
        for place in self.instances.values_mut() {
            place.held |= place.shim.as_ref().is_some_and(|shim| !shim.silent);
        }
    }

    /// Records that somebody has removed are made again from the host's own marks.
    fn restore(&mut self) {
        let mut answering = Vec::new();
        for (key, place) in &self.instances {
            if let Some(shim) = place.shim.as_ref().filter(|shim| !shim.silent) {
                answering.push((key, shim));
            }
        }
        if self.id_bases.torn().is_none() {
            let live = answering
                .iter()
                .map(|(key, shim)| (&key.project, shim.sandbox.id_base));
            let used = self.trees.iter().filter(|(_, tree)| tree.base != 0);
            for (project, base) in live.chain(used.map(|(key, tree)| (&key.project, tree.base))) {
                if !self.id_bases.contains_key(project) {
                    self.id_bases.set(project.clone(), base);
                }
            }
        }
        if self.networks.torn().is_none() {
            let endpoints = || answering.iter().flat_map(|(_, shim)| &shim.sandbox.endpoints);
            let known = endpoints().map(|endpoint| &endpoint.network);
            // A bridge is known by its name and its alias.
            let marked = self.bridges.iter();
            let marked = marked.filter(|(_, bridge)| bridge.alias && !bridge.renamed);
            let missing: BTreeSet<&ResourceKey> = known
                .chain(marked.map(|(key, _)| key))
                .filter(|key| !self.networks.contains_key(key))
                .collect();
            let found: Vec<NetworkSpec> = missing
                .into_iter()
                .filter_map(|key| {
                    self.found_network(key, endpoints().filter(|endpoint| endpoint.network == *key))
                })
                .collect();
            for spec in found {
                self.networks.set(spec.key.clone(), spec);
            }
        }
        if self.volumes.torn().is_none() {
            let whole = self.directories.values().filter(|directory| directory.data);
            let whole = whole.filter_map(|directory| Some((&directory.key, directory.identity?)));
            // Of one that is mounted and gone there is a record all the same: it is lost, not new.
            let containers = answering.iter().filter_map(|(_, shim)| shim.container.as_ref());
            let mounted = containers.flat_map(|container| &container.mounts);
            let mounted = mounted.filter_map(|mount| match mount {
                MountSpec::Volume { volume, .. } => {
                    let directory = self.directories.get(&volume.name);
                    let identity = directory.and_then(|directory| directory.identity);
                    Some((volume, identity.unwrap_or(UNKNOWN)))
                }
                MountSpec::Bind { .. } | MountSpec::Tmpfs { .. } => None,
            });
            let mut found: BTreeMap<ResourceKey, u64> = BTreeMap::new();
            for (key, identity) in whole.chain(mounted) {
                if !self.volumes.contains_key(key) {
                    found.entry(key.clone()).or_insert(identity);
                }
            }
            for (key, identity) in found {
                self.volumes.set(key, identity);
            }
        }
        if self.records_hurt {
            let torn = self.networks.torn().is_some() || self.volumes.torn().is_some();
            let networks = self.bridges.keys().all(|key| self.networks.contains_key(key));
            let mut projects = self.instances.keys();
            let ids = projects.all(|key| self.id_bases.contains_key(&key.project));
            self.records_hurt = torn || !networks || !ids;
        }
    }

    fn found_network<'a>(
        &self,
        key: &ResourceKey,
        mut on_it: impl Iterator<Item = &'a Endpoint> + Clone,
    ) -> Option<NetworkSpec> {
        if let Some(network) = self.see_firewall().spec.networks.get(key) {
            return Some(NetworkSpec {
                key: key.clone(),
                subnet: network.subnet,
                gateway: network.gateway,
                internal: network.internal,
            });
        }
        let bridge = self.bridges.get(key).filter(|bridge| !bridge.renamed);
        let address = bridge.and_then(|bridge| bridge.addresses.first().copied());
        let (gateway, prefix) = address.or_else(|| {
            let mut ways_out = on_it.clone();
            ways_out.find_map(|endpoint| Some((endpoint.gateway?, endpoint.prefix)))
        })?;
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
        let inside = on_it.clone().next().is_some();
        Some(NetworkSpec {
            key: key.clone(),
            subnet: Subnet {
                address: Ipv4Addr::from(u32::from(gateway) & mask),
                prefix,
            },
            gateway,
            internal: inside && on_it.all(|endpoint| endpoint.gateway.is_none()),
        })
    }

    /// `None`: there is neither a supervisor nor anything left of it.
    fn see_place(&self, key: &InstanceKey, place: &Place) -> Option<Instance> {
        let Some(shim) = &place.shim else {
            return place.cgroup.is_some().then(|| lost(key));
        };
        let mut instance = Instance {
            sandbox: shim.sandbox.clone(),
            container: shim.container.as_deref().cloned(),
            state: match shim.run {
                Run::Created => State::Created,
                Run::Running { pid } => State::Running { pid },
                Run::Exited { code, at } => State::Exited { code, at },
            },
            drift: Vec::new(),
            broken: None,
            restarts: shim.restarts,
            streak: shim.streak,
            flaps: shim.flaps,
            started_at: shim.started_boot,
            started_wall: shim.started_wall,
            health: shim.health,
        };
        if shim.silent {
            instance.state = shim
                .pid_recorded
                .map_or(State::Created, |pid| State::Running { pid });
            instance.health = Health::None;
            return Some(instance);
        }
        self.sandbox_drift(place, &shim.sandbox, &mut instance.drift);
        for port in &shim.sandbox.ports {
            if !shim.ports.contains(port) {
                instance
                    .drift
                    .push(format!("port {} is not reserved", port.published));
            }
        }
        if let (Run::Running { .. }, Some(container)) = (&shim.run, &shim.container) {
            self.standing(key, place, container, &mut instance);
        }
        Some(instance)
    }

    /// What a running container stands on, compared with what it was given.
    fn standing(&self, key: &InstanceKey, place: &Place, container: &ContainerSpec, instance: &mut Instance) {
        if let Some(cgroup) = &place.cgroup {
            limits_drift(&cgroup.limits, &container.limits, &mut instance.drift);
            for stray in &cgroup.strayed {
                instance
                    .drift
                    .push(format!("process {stray} was moved out of its cgroup"));
            }
        }
        let Some(tree) = &place.tree else {
            return;
        };
        if !tree.overlay {
            instance.broken = Some("its root is not mounted any more".to_owned());
        } else if self.trees.get(key).and_then(|directory| directory.upper) != Some(tree.upper) {
            let name = format!("{}/{}-{}{}", key.project, key.service, key.index, key.slot);
            instance.broken = Some(format!("{STATE}/containers/{name}/upper was deleted"));
        } else if !self.unpacked(&container.image_digest) {
            let digest = &container.image_digest;
            instance.broken = Some(format!("{STATE}/images/layers/{digest} was deleted"));
        }
        for (index, mount) in container.mounts.iter().enumerate() {
            if tree.mounts.contains(&index) {
                continue;
            }
            let target = match mount {
                // Held: what is wrong with the volume is told there.
                MountSpec::Volume { volume, .. } if self.lost(volume).is_some() => continue,
                MountSpec::Volume { target, .. }
                | MountSpec::Bind { target, .. }
                | MountSpec::Tmpfs { target, .. } => target,
            };
            instance
                .drift
                .push(format!("{} is not mounted any more", target.display()));
        }
    }

    fn sandbox_drift(&self, place: &Place, spec: &SandboxSpec, drift: &mut Vec<String>) {
        let empty = Netns::default();
        let netns = place.netns.as_ref().unwrap_or(&empty);
        if !netns.loopback {
            drift.push("lo is down".to_owned());
        }
        let mut wants_default = true;
        for endpoint in &spec.endpoints {
            let name = &endpoint.interface;
            let default = endpoint.gateway.filter(|_| wants_default);
            wants_default &= default.is_none();
            let Some(pair) = netns.pairs.get(name) else {
                drift.push(format!("{name} is missing"));
                continue;
            };
            if !pair.inner.up {
                drift.push(format!("{name} is down"));
            }
            if pair.inner.mac != endpoint.mac {
                drift.push(format!("{name} has another MAC address"));
            }
            if pair.inner.mtu != MTU {
                drift.push(format!("{name} has an MTU of {}", pair.inner.mtu));
            }
            if !pair
                .inner
                .addresses
                .contains(&(endpoint.address, endpoint.prefix))
            {
                drift.push(format!("address {} is missing", endpoint.address));
            }
            if default.is_some() && pair.inner.way_out != default {
                drift.push("default route is missing".to_owned());
            }
            let bridge = self.bridges.get(&endpoint.network);
            // A bridge that is down has switched its ports off.
            let off = bridge.is_some_and(|bridge| pair.bridge == Some(bridge.index) && !bridge.up);
            let bridge = bridge.filter(|bridge| !bridge.renamed).map(|bridge| bridge.index);
            if pair.bridge.is_none() || pair.bridge != bridge {
                drift.push(format!("veth of {name} is not on its bridge"));
            } else if !pair.hairpin {
                drift.push(format!(
                    "the bridge port of {name} has another setting of hairpin"
                ));
            }
            if !pair.up {
                drift.push(format!("veth of {name} is down"));
            } else if off {
                drift.push(format!("the bridge port of {name} does not forward"));
            }
            if pair.mtu != MTU {
                drift.push(format!("veth of {name} has an MTU of {}", pair.mtu));
            }
        }
    }

    /// A skeleton that is not whole hides what the sets hold.
    fn see_firewall(&self) -> Firewall {
        match self.skeleton {
            Skeleton::Absent => Firewall {
                spec: FirewallSpec::default(),
                drift: Vec::new(),
            },
            Skeleton::Broken => Firewall {
                spec: FirewallSpec::default(),
                drift: vec!["table Bridge stead-8a5eda is missing".to_owned()],
            },
            Skeleton::Whole => {
                let mut drift = Vec::new();
                if !self.firewall.networks.is_empty() && !self.ip_forward {
                    drift.push("net.ipv4.ip_forward is off".to_owned());
                }
                for key in self.firewall.networks.keys() {
                    let Some(bridge) = self.bridges.get(key) else {
                        continue;
                    };
                    // Off for all of them, then.
                    if !self.ip_forward {
                        drift.push(format!("forwarding is off on the bridge of {key}"));
                    }
                    if !bridge.localnet {
                        drift.push(format!("route_localnet is off on the bridge of {key}"));
                    }
                }
                Firewall {
                    spec: self.firewall.clone(),
                    drift,
                }
            }
        }
    }

    pub fn unpacked(&self, digest: &str) -> bool {
        self.layers.get(digest) == Some(&super::objects::Layers::Whole)
    }

    /// What runs: pid by instance.
    pub fn pids(&self) -> BTreeMap<InstanceKey, u32> {
        let places = self.instances.iter();
        places
            .filter_map(|(key, place)| {
                let shim = place.shim.as_ref()?;
                match shim.run {
                    Run::Running { pid } => Some((key.clone(), pid)),
                    _ => None,
                }
            })
            .collect()
    }
}

fn unreadable<T>(part: &str) -> Fact<T> {
    Fact::Unknown(format!("{part}: Input/output error"))
}

fn damaged<T>(kind: &str, key: &impl ToString) -> Fact<T> {
    let name = key.to_string().replace('/', "%2F");
    Fact::Unknown(format!(
        "the record {STATE}/records/{kind}/{name}.json is damaged (EOF while parsing a string at line 1 column 5). \
         Restore it from a backup, or remove the file if the resource may be made again; nothing was changed"
    ))
}

/// What is left when the supervisor is gone: nothing is known of it but that it must go.
pub fn lost(key: &InstanceKey) -> Instance {
    Instance {
        sandbox: SandboxSpec {
            key: key.clone(),
            id_base: 0,
            endpoints: Vec::new(),
            ports: Vec::new(),
        },
        container: None,
        state: State::Lost,
        drift: Vec::new(),
        broken: None,
        restarts: 0,
        streak: 0,
        flaps: 0,
        started_at: None,
        started_wall: None,
        health: Health::None,
    }
}

fn limits_drift(found: &Limits, wanted: &Limits, drift: &mut Vec<String>) {
    for (file, found, wanted) in [
        ("memory.max", found.memory, wanted.memory),
        ("cpu.max", found.cpu, wanted.cpu),
        ("pids.max", found.pids, wanted.pids),
    ] {
        let text = |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
        if found != wanted {
            let (found, wanted) = (text(found), text(wanted));
            drift.push(format!("{file} is {found} instead of {wanted}"));
        }
    }
}

pub(super) fn bridge_drift(bridge: Option<&Bridge>, spec: &NetworkSpec) -> Vec<String> {
    let Some(bridge) = bridge else {
        return vec!["bridge is missing".to_owned()];
    };
    if bridge.renamed {
        return vec!["bridge is missing".to_owned()];
    }
    if !bridge.is_bridge {
        return vec!["its link is not a bridge".to_owned()];
    }
    let mut drift = Vec::new();
    let mut expect = |right: bool, what: &str| {
        if !right {
            drift.push(what.to_owned());
        }
    };
    expect(bridge.up, "bridge is down");
    expect(bridge.own_mac, "bridge has another MAC address");
    expect(bridge.alias, "bridge has lost its alias");
    expect(!bridge.spanning_tree, "bridge runs the spanning tree protocol");
    if bridge.mtu != MTU {
        drift.push(format!("bridge has an MTU of {}", bridge.mtu));
    }
    let own = (spec.gateway, spec.subnet.prefix);
    if !bridge.addresses.contains(&own) {
        drift.push(format!("address {}/{} is missing", own.0, own.1));
    }
    for (address, prefix) in bridge.addresses.iter().filter(|address| **address != own) {
        drift.push(format!("address {address}/{prefix} is not ours"));
    }
    if bridge.up && bridge.addresses.contains(&own) && !bridge.route {
        let subnet = spec.subnet;
        drift.push(format!(
            "route to {}/{} is missing",
            subnet.address, subnet.prefix
        ));
    }
    if !bridge.quiet_ipv6 {
        drift.push("IPv6 is on on the bridge".to_owned());
    }
    drift
}
