//! The smallest host on which everything can go wrong: nothing but what an observation shows, cheap to
//! copy and to hash. A second model, in another style than the simulated host.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Debug, Write},
    hash::{DefaultHasher, Hasher},
    ops::Deref,
    sync::Arc,
};

use crate::{
    key::{InstanceKey, ResourceKey},
    observed::{
        Ended, Fact, Firewall, Health, Image, ImageConfig, Instance, Network, Observed, State, Volume,
    },
    plan::action::Action,
    spec::{FirewallSpec, MountSpec, PortBinding, SandboxSpec, Zone},
    time::Now,
};

/// The moment of every state: time passes by making everything older.
pub const NOW: Now = Now {
    boot: 1_000_000,
    wall: 1_700_000_000_000,
};

/// A value that is shared until it changes, with the hash of what it shows.
#[derive(Clone)]
pub struct Part<T>(Arc<(u64, T)>);

impl<T: Clone + Debug> Part<T> {
    pub fn new(value: T) -> Self {
        Part(Arc::new((digest(&value), value)))
    }

    pub fn edit(&mut self, change: impl FnOnce(&mut T)) {
        let mut value = self.0.1.clone();
        change(&mut value);
        *self = Part::new(value);
    }

    pub fn hash(&self) -> u64 {
        self.0.0
    }
}

impl<T> Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.1
    }
}

struct Digest(DefaultHasher);

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// A number for all that `value` shows: the same on every run.
pub fn digest(value: &impl Debug) -> u64 {
    let mut digest = Digest(DefaultHasher::new());
    // Writing into a hasher does not fail.
    let _ = write!(digest, "{value:?}");
    digest.0.finish()
}

/// What cannot be read for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    Images,
    Networks,
    Volumes,
    Instances,
    Firewall,
    Zones,
    Routes,
    IdBases,
}

#[derive(Clone)]
pub struct World {
    pub boots: u32,
    pub images: Part<BTreeMap<String, Image>>,
    pub networks: Part<BTreeMap<ResourceKey, Network>>,
    pub volumes: Part<BTreeMap<ResourceKey, Volume>>,
    pub instances: Part<BTreeMap<InstanceKey, Instance>>,
    pub ended: Part<BTreeMap<InstanceKey, Ended>>,
    pub firewall: Part<Firewall>,
    pub zones: Part<BTreeMap<ResourceKey, Arc<Zone>>>,
    pub id_bases: Part<BTreeMap<String, u32>>,
    pub unreadable: Option<Unreadable>,
}

impl World {
    /// A host with two images in reach, and nothing else.
    pub fn bare() -> Self {
        let image = |digest: &str, unpacked| {
            let config = ImageConfig {
                command: vec!["/app".to_owned()],
                ..ImageConfig::default()
            };
            Image::new(digest.to_owned(), unpacked, config)
        };
        let images = BTreeMap::from([
            ("app:1".to_owned(), image("sha256:aaaa", false)),
            ("app:2".to_owned(), image("sha256:bbbb", false)),
        ]);
        World {
            boots: 1,
            images: Part::new(images),
            networks: Part::new(BTreeMap::new()),
            volumes: Part::new(BTreeMap::new()),
            instances: Part::new(BTreeMap::new()),
            ended: Part::new(BTreeMap::new()),
            firewall: Part::new(Firewall {
                spec: FirewallSpec::default(),
                drift: Vec::new(),
            }),
            zones: Part::new(BTreeMap::new()),
            id_bases: Part::new(BTreeMap::new()),
            unreadable: None,
        }
    }

    pub fn feed(&self, hasher: &mut impl Hasher) {
        hasher.write_u32(self.boots);
        for part in [
            self.images.hash(),
            self.networks.hash(),
            self.volumes.hash(),
            self.instances.hash(),
            self.ended.hash(),
            self.firewall.hash(),
            self.zones.hash(),
            self.id_bases.hash(),
        ] {
            hasher.write_u64(part);
        }
        hasher.write_u8(self.unreadable.map_or(255, |part| part as u8));
    }

    /// What a look at everything finds.
    pub fn observe(&self) -> Observed {
        fn read<T: Clone>(value: &T, unreadable: bool) -> Fact<T> {
            if unreadable {
                Fact::Unknown("Input/output error".to_owned())
            } else {
                Fact::Known(value.clone())
            }
        }
        let lost = |part| self.unreadable == Some(part);
        let images = self.images.iter().map(|(name, image)| {
            let fact = read(image, lost(Unreadable::Images));
            (name.clone(), fact)
        });
        Observed {
            boot_id: format!("boot-{}", self.boots),
            images: images.collect(),
            networks: read(&self.networks, lost(Unreadable::Networks)),
            volumes: read(&self.volumes, lost(Unreadable::Volumes)),
            instances: read(&self.instances, lost(Unreadable::Instances)),
            ended: read(&self.ended, lost(Unreadable::Instances)),
            remains: read(&BTreeSet::new(), lost(Unreadable::Instances)),
            firewall: read(&self.firewall, lost(Unreadable::Firewall)),
            zones: read(&self.zones, lost(Unreadable::Zones)),
            routes: read(&BTreeSet::new(), lost(Unreadable::Routes)),
            id_bases: read(&self.id_bases, lost(Unreadable::IdBases)),
        }
    }

    /// Why a correct plan does not order `action` here.
    pub fn refuses(&self, action: &Action) -> Option<String> {
        match action {
            Action::EnsureSandbox(spec) => self.refuses_sandbox(spec),
            Action::RemoveNetwork(key) => self
                .instances
                .iter()
                .find(|(_, instance)| instance.sandbox.endpoints.iter().any(|end| end.network == *key))
                .map(|(instance, _)| format!("{instance} is still on network {key}")),
            Action::StartContainer { key, spec, .. } => {
                let Some(instance) = self.instances.get(key) else {
                    return Some(format!("{key} has no sandbox to start in"));
                };
                if let State::Running { .. } | State::Lost = instance.state {
                    return Some(format!("{key} is started while it is {:?}", instance.state));
                }
                let image = |image: &Image| image.digest == spec.image_digest && image.unpacked;
                if !self.images.values().any(image) {
                    return Some(format!("{key} is started without its image"));
                }
                let volumes = spec.mounts.iter().filter_map(|mount| match mount {
                    MountSpec::Volume { volume, .. } => Some(volume),
                    MountSpec::Bind { .. } | MountSpec::Tmpfs { .. } => None,
                });
                let there = |volume| matches!(self.volumes.get(volume), Some(Volume { lost: None }));
                volumes
                    .into_iter()
                    .find(|volume| !there(*volume))
                    .map(|volume| format!("{key} is started without volume {volume}"))
            }
            Action::UpdateContainer { key, .. } => {
                let lost = self.instances.get(key)?.state == State::Lost;
                lost.then(|| format!("{key} is changed while it is lost"))
            }
            _ => None,
        }
    }

    fn refuses_sandbox(&self, spec: &SandboxSpec) -> Option<String> {
        let key = &spec.key;
        for end in &spec.endpoints {
            if !self.networks.contains_key(&end.network) {
                return Some(format!(
                    "{key} is put on network {}, which is not there",
                    end.network
                ));
            }
            let isolated = self.firewall.spec.networks.get(&end.network);
            if !isolated.is_some_and(|network| network.endpoints.contains(&(end.address, end.mac))) {
                return Some(format!("{key} is on {} before it is isolated", end.network));
            }
            let taken = self.instances.iter().find(|(other, instance)| {
                let own = instance.sandbox.endpoints.iter();
                *other != key && own.clone().any(|other| other.address == end.address)
            });
            if let Some((other, _)) = taken {
                return Some(format!("{key} gets {}, which is {other}'s", end.address));
            }
        }
        let clash = |a: &PortBinding, b: &PortBinding| {
            (a.published, a.protocol) == (b.published, b.protocol)
                && (a.host_ip == b.host_ip || a.host_ip.is_unspecified() || b.host_ip.is_unspecified())
        };
        self.instances
            .iter()
            .filter(|(other, _)| *other != key)
            .find(|(_, instance)| {
                let mut held = instance.sandbox.ports.iter();
                held.any(|held| spec.ports.iter().any(|port| clash(held, port)))
            })
            .map(|(other, _)| format!("{key} reserves a host port that {other} holds"))
    }

    /// How many effects `action` has, between which the agent may die.
    pub fn phases(action: &Action) -> u8 {
        match action {
            Action::EnsureSandbox(_) | Action::RemoveSandbox(_) => 2,
            _ => 1,
        }
    }

    /// The first `phases` effects of `action`.
    pub fn apply(&mut self, action: &Action, phases: u8) {
        if phases == 0 {
            return;
        }
        match action {
            Action::UnpackImage { digest, .. } => self.images.edit(|images| {
                let same = images.values_mut().filter(|image| image.digest == *digest);
                same.for_each(|image| image.unpacked = true);
            }),
            // Its images are of no registry.
            Action::PinImage { .. } => {}
            Action::EnsureNetwork(spec) => {
                let new = self
                    .networks
                    .get(&spec.key)
                    .is_none_or(|had| !had.drift.is_empty());
                self.networks.edit(|networks| {
                    let network = Network {
                        spec: spec.clone(),
                        drift: Vec::new(),
                    };
                    networks.insert(spec.key.clone(), network);
                });
                if new && self.firewall.spec.networks.contains_key(&spec.key) {
                    let text = format!("route_localnet is off on {}", spec.key);
                    self.firewall.edit(|firewall| firewall.drift = vec![text]);
                }
            }
            Action::RemoveNetwork(key) => self.networks.edit(|networks| {
                networks.remove(key);
            }),
            Action::EnsureVolume(spec) => self.volumes.edit(|volumes| {
                volumes.entry(spec.key.clone()).or_insert(Volume { lost: None });
            }),
            Action::RemoveVolume(key) => self.volumes.edit(|volumes| {
                volumes.remove(key);
            }),
            Action::EnsureSandbox(spec) => {
                self.id_bases.edit(|bases| {
                    bases.insert(spec.key.project.clone(), spec.id_base);
                });
                if phases > 1 {
                    self.instances.edit(|instances| ensure(instances, spec));
                }
            }
            Action::RemoveSandbox(key) => self.instances.edit(|instances| {
                if phases > 1 {
                    instances.remove(key);
                } else if let Some(instance) = instances.get_mut(key) {
                    *instance = Instance::lost(key);
                }
            }),
            Action::SyncFirewall(spec) => {
                self.firewall = Part::new(Firewall {
                    spec: spec.clone(),
                    drift: Vec::new(),
                });
            }
            Action::SyncNames { network, zone } => self.zones.edit(|zones| {
                match zone {
                    Some(zone) => zones.insert(network.clone(), Arc::new(zone.clone())),
                    None => zones.remove(network),
                };
            }),
            Action::StartContainer { key, .. }
            | Action::StopContainer { key, .. }
            | Action::UpdateContainer { key, .. } => self.instances.edit(|instances| {
                if let Some(instance) = instances.get_mut(key) {
                    container(instance, action);
                }
            }),
        }
    }

    /// Everything is `milliseconds` older.
    pub fn pass(&mut self, milliseconds: u64) {
        self.instances.edit(|instances| {
            for instance in instances.values_mut() {
                if let State::Exited { at, .. } = &mut instance.state {
                    *at = at.saturating_sub(milliseconds);
                }
                if let Some(at) = &mut instance.started_at {
                    *at = at.saturating_sub(milliseconds);
                }
            }
        });
    }

    pub fn running(&self) -> impl Iterator<Item = (&InstanceKey, &Instance)> {
        self.instances
            .iter()
            .filter(|(_, instance)| matches!(instance.state, State::Running { .. }))
    }
}

fn ensure(instances: &mut BTreeMap<InstanceKey, Instance>, spec: &SandboxSpec) {
    let instance = instances.entry(spec.key.clone()).or_insert_with(|| Instance {
        sandbox: Arc::new(spec.clone()),
        container: None,
        state: State::Created,
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
    });
    instance.sandbox = Arc::new(spec.clone());
    instance.drift.clear();
}

fn container(instance: &mut Instance, action: &Action) {
    match action {
        Action::StartContainer {
            spec,
            restarts,
            streak,
            flaps,
            ..
        } => {
            instance.container = Some(Arc::new((**spec).clone()));
            // Who the process is does not matter: that it was stopped does, and that is looked at.
            instance.state = State::Running { pid: 7 };
            instance.broken = None;
            instance.restarts = *restarts;
            instance.streak = *streak;
            instance.flaps = *flaps;
            instance.started_at = Some(NOW.boot);
            instance.started_wall = Some(NOW.wall);
            instance.health = match spec.health {
                Some(_) => Health::Starting,
                None => Health::None,
            };
        }
        Action::UpdateContainer { spec, .. } => {
            if let State::Running { .. } = instance.state {
                instance.health = match (&spec.health, instance.health) {
                    (None, _) => Health::None,
                    (Some(_), Health::None) => Health::Starting,
                    (Some(_), health) => health,
                };
            }
            instance.container = Some(Arc::new((**spec).clone()));
        }
        _ => {
            if let State::Running { .. } = instance.state {
                instance.state = State::Exited {
                    code: 143,
                    at: NOW.boot,
                };
            }
        }
    }
}
