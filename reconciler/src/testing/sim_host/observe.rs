//! From objects to what the plan compares, as the Linux backend derives it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    World,
    disk::Content,
    objects::{Bridge, MTU, Netns, Place, Run, Skeleton},
};
use crate::{
    key::{InstanceKey, ResourceKey},
    observed::{Ended, Fact, Firewall, Health, Image, Instance, Network, Observed, State, Volume},
    port::Scope,
    spec::{FirewallSpec, NetworkSpec, SandboxSpec},
};

impl World {
    /// Looks again at the parts in `scope` and replaces them in `observed`.
    pub fn look(&mut self, scope: &Scope, observed: &mut Observed) {
        self.steps += 1;
        let all = scope.all;
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
            self.hold_what_answers();
            observed.instances = self.read("instances", || {
                let places = self.instances.iter();
                places
                    .filter_map(|(key, place)| Some((key.clone(), self.see_place(key, place)?)))
                    .collect()
            });
            observed.ended = self.see_ended();
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
            if self.unreadable.contains("instances") {
                observed.instances = unreadable("instances");
                observed.ended = unreadable("instances");
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
            return damaged(key);
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
            *known = damaged(key);
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
            *known = damaged(key);
            return;
        }
        if self.unreadable.contains("volumes") {
            *known = unreadable("volumes");
            return;
        }
        let see = |key: &ResourceKey| Volume {
            lost: self.lost(key).map(str::to_owned),
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
            return Fact::Unknown(format!("the record of {project} is damaged"));
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

    /// While there is a sandbox, it says itself how its container ended.
    fn see_one_ended(&self, key: &InstanceKey) -> Option<Ended> {
        let has_sandbox = self.instances.get(key).is_some_and(|place| place.shim.is_some());
        if has_sandbox {
            return None;
        }
        self.ended.whole(key).cloned()
    }

    /// The agent connects to every supervisor that answers, and holds its namespace from then on.
    fn hold_what_answers(&mut self) {
        for place in self.instances.values_mut() {
            place.held |= place.shim.as_ref().is_some_and(|shim| !shim.silent);
        }
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
        if let (Some(container), Some(cgroup), Run::Running { .. }) =
            (&shim.container, &place.cgroup, &shim.run)
            && cgroup.limits != container.limits
        {
            instance.drift.push("its limits are not in force".to_owned());
        }
        Some(instance)
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
            let bridge = self.bridges.get(&endpoint.network).map(|bridge| bridge.index);
            if pair.bridge.is_none() || pair.bridge != bridge {
                drift.push(format!("veth of {name} is not on its bridge"));
            } else if !pair.hairpin {
                drift.push(format!("veth of {name} has lost its hairpin mode"));
            }
            if !pair.up {
                drift.push(format!("veth of {name} is down"));
            }
            if pair.mtu != MTU || pair.inner.mtu != MTU {
                drift.push(format!("{name} has another MTU"));
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
                drift: vec!["a rule is missing".to_owned()],
            },
            Skeleton::Whole => {
                let mut drift = Vec::new();
                if !self.firewall.networks.is_empty() && !self.ip_forward {
                    drift.push("net.ipv4.ip_forward is off".to_owned());
                }
                for key in self.firewall.networks.keys() {
                    if self.bridges.get(key).is_some_and(|bridge| !bridge.localnet) {
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

fn damaged<T>(key: &ResourceKey) -> Fact<T> {
    Fact::Unknown(format!("the record of {key} is damaged; nothing was changed"))
}

/// What is left when the supervisor is gone: nothing is known of it but that it must go.
fn lost(key: &InstanceKey) -> Instance {
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
        restarts: 0,
        streak: 0,
        flaps: 0,
        started_at: None,
        started_wall: None,
        health: Health::None,
    }
}

pub(super) fn bridge_drift(bridge: Option<&Bridge>, spec: &NetworkSpec) -> Vec<String> {
    let Some(bridge) = bridge else {
        return vec!["bridge is missing".to_owned()];
    };
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
    expect(bridge.mtu == MTU, "bridge has another MTU");
    let own = (spec.gateway, spec.subnet.prefix);
    if !bridge.addresses.contains(&own) {
        drift.push(format!("address {}/{} is missing", own.0, own.1));
    }
    for (address, prefix) in bridge.addresses.iter().filter(|address| **address != own) {
        drift.push(format!("address {address}/{prefix} is not ours"));
    }
    drift
}
