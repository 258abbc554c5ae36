//! From objects to what the plan compares, as the Linux backend derives it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    World,
    disk::Content,
    drift::bridge_drift,
    objects::{Place, Run, Skeleton},
    world::STATE,
};
use crate::{
    key::{InstanceKey, ResourceKey},
    observed::{Ended, Fact, Firewall, Health, Image, Instance, Network, Observed, State, Volume},
    port::Scope,
    spec::{FirewallSpec, NetworkSpec, Space},
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
        for (reference, ask) in &scope.images {
            let image = self.see_name(reference, *ask);
            let image = image.unwrap_or_else(|| self.see_image(reference));
            observed.images.insert(reference.clone(), image);
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

    /// `None`: there is neither a supervisor nor anything left of it.
    fn see_place(&self, key: &InstanceKey, place: &Place) -> Option<Instance> {
        let Some(shim) = &place.shim else {
            return place.cgroup.is_some().then(|| Instance::lost(key));
        };
        let mut instance = Instance {
            sandbox: shim.sandbox.clone(),
            container: shim.container.clone(),
            state: match shim.silent.as_ref().unwrap_or(&shim.run) {
                Run::Created => State::Created,
                Run::Running { pid } => State::Running { pid: *pid },
                Run::Exited { code, at } => State::Exited { code: *code, at: *at },
            },
            drift: Vec::new(),
            broken: None,
            identity: match shim.unpaused {
                true => String::new(),
                false => shim.pid.to_string(),
            },
            joined: shim.joined.map(|pid| pid.to_string()),
            restarts: shim.restarts,
            streak: shim.streak,
            flaps: shim.flaps,
            started_at: shim.started_boot,
            started_wall: shim.started_wall,
            health: shim.health,
            hook: shim.hook,
            faults: shim.died.iter().cloned().collect(),
        };
        if shim.silent.is_some() {
            if instance.health != Health::None {
                instance.health = Health::Starting;
            }
            return Some(instance);
        }
        if shim.sandbox.spaces.network == Space::Own {
            self.sandbox_drift(place, &shim.sandbox, &mut instance.drift);
        }
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

    /// A skeleton that is not whole hides what the sets hold.
    pub(super) fn see_firewall(&self) -> Firewall {
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
