//! Everything that can happen to the small world once, from outside.

use std::sync::Arc;

use super::world::{NOW, Unreadable, World};
use crate::{
    key::{InstanceKey, ResourceKey},
    observed::{Health, Instance, State},
    spec::FirewallSpec,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    Exit(InstanceKey, i32),
    Unhealthy(InstanceKey),
    LoseShim(InstanceKey),
    /// Its root is gone under the process.
    Root(InstanceKey),
    /// An interface of it is gone.
    Interface(InstanceKey),
    /// The bridge is gone, and every interface is off it.
    Bridge(ResourceKey),
    /// Its kernel settings differ, nothing else.
    BridgeSetting(ResourceKey),
    Flush,
    ClosePorts,
    OpenIsolation,
    FirewallSetting,
    NoNames(ResourceKey),
    StrangeName(ResourceKey),
    LoseVolume(ResourceKey),
    Unreadable(Unreadable),
    Reboot,
}

/// What can happen to `world` now.
pub fn faults(world: &World) -> Vec<Fault> {
    let mut faults = vec![Fault::Reboot];
    for (key, instance) in world.instances.iter() {
        if let State::Running { .. } = instance.state {
            faults.extend([Fault::Exit(key.clone(), 0), Fault::Exit(key.clone(), 1)]);
            faults.push(Fault::Root(key.clone()));
            if instance.health != Health::None {
                faults.push(Fault::Unhealthy(key.clone()));
            }
        }
        if instance.state != State::Lost {
            faults.push(Fault::LoseShim(key.clone()));
        }
        faults.push(Fault::Interface(key.clone()));
    }
    for key in world.networks.keys() {
        faults.extend([Fault::Bridge(key.clone()), Fault::BridgeSetting(key.clone())]);
    }
    if world.firewall.spec != FirewallSpec::default() {
        faults.extend([Fault::Flush, Fault::OpenIsolation, Fault::FirewallSetting]);
    }
    if !world.firewall.spec.ports.is_empty() {
        faults.push(Fault::ClosePorts);
    }
    for key in world.zones.keys() {
        faults.extend([Fault::NoNames(key.clone()), Fault::StrangeName(key.clone())]);
    }
    faults.extend(world.volumes.keys().cloned().map(Fault::LoseVolume));
    let parts = [
        Unreadable::Images,
        Unreadable::Networks,
        Unreadable::Volumes,
        Unreadable::Instances,
        Unreadable::Firewall,
        Unreadable::Zones,
        Unreadable::Routes,
        Unreadable::IdBases,
    ];
    faults.extend(parts.map(Fault::Unreadable));
    faults
}

impl Fault {
    /// Whether the process of `key` may be stopped or started because of it.
    pub fn touches(&self, key: &InstanceKey) -> bool {
        match self {
            Fault::Exit(other, _) | Fault::LoseShim(other) | Fault::Root(other) => other == key,
            Fault::Reboot => true,
            _ => false,
        }
    }

    pub fn strike(&self, world: &mut World) {
        match self {
            Fault::Exit(key, code) => world.instances.edit(|instances| {
                if let Some(instance) = instances.get_mut(key) {
                    instance.state = State::Exited {
                        code: *code,
                        at: NOW.boot,
                    };
                    instance.health = Health::None;
                }
            }),
            Fault::Unhealthy(key) => world.instances.edit(|instances| {
                if let Some(instance) = instances.get_mut(key) {
                    instance.health = Health::Unhealthy;
                }
            }),
            Fault::LoseShim(key) => world.instances.edit(|instances| {
                if let Some(instance) = instances.get_mut(key) {
                    *instance = Instance::lost(key);
                }
            }),
            Fault::Root(key) => world.instances.edit(|instances| {
                if let Some(instance) = instances.get_mut(key) {
                    instance.broken = Some("its root is gone".to_owned());
                }
            }),
            Fault::Interface(key) => world.instances.edit(|instances| {
                if let Some(instance) = instances.get_mut(key) {
                    instance.drift = vec!["eth0 is missing".to_owned()];
                }
            }),
            Fault::Bridge(key) => bridge(world, key),
            Fault::BridgeSetting(key) => world.networks.edit(|networks| {
                if let Some(network) = networks.get_mut(key) {
                    network.drift = vec!["MTU is 1280".to_owned()];
                }
            }),
            Fault::Flush => world
                .firewall
                .edit(|firewall| firewall.spec = FirewallSpec::default()),
            Fault::ClosePorts => world.firewall.edit(|firewall| firewall.spec.ports.clear()),
            Fault::OpenIsolation => world.firewall.edit(|firewall| {
                for network in firewall.spec.networks.values_mut() {
                    network.endpoints.clear();
                }
            }),
            Fault::FirewallSetting => world.firewall.edit(|firewall| {
                firewall.drift = vec!["a chain is missing".to_owned()];
            }),
            Fault::NoNames(key) => world.zones.edit(|zones| {
                zones.remove(key);
            }),
            Fault::StrangeName(key) => world.zones.edit(|zones| {
                if let Some(zone) = zones.get_mut(key) {
                    Arc::make_mut(zone).insert("stranger".to_owned(), [[10, 64, 0, 99].into()].into());
                }
            }),
            Fault::LoseVolume(key) => world.volumes.edit(|volumes| {
                if let Some(volume) = volumes.get_mut(key) {
                    volume.lost = Some("its data is missing".to_owned());
                }
            }),
            Fault::Unreadable(part) => world.unreadable = Some(*part),
            Fault::Reboot => reboot(world),
        }
    }
}

fn bridge(world: &mut World, key: &ResourceKey) {
    world.networks.edit(|networks| {
        if let Some(network) = networks.get_mut(key) {
            network.drift = vec!["bridge is missing".to_owned()];
        }
    });
    world.instances.edit(|instances| {
        for instance in instances.values_mut() {
            if instance.sandbox.endpoints.iter().any(|end| end.network == *key) {
                instance.drift = vec!["eth0 is not on its bridge".to_owned()];
            }
        }
    });
}

/// Records, volumes and images stay.
fn reboot(world: &mut World) {
    let fresh = World::bare();
    *world = World {
        boots: world.boots + 1,
        images: world.images.clone(),
        volumes: world.volumes.clone(),
        id_bases: world.id_bases.clone(),
        ended: world.ended.clone(),
        ..fresh
    };
}

/// Whether something is away that comes back by itself, and the world once it has.
pub fn restored(world: &World) -> Option<World> {
    let mut world = world.clone();
    if world.unreadable.take().is_some() {
        return Some(world);
    }
    if world.volumes.values().all(|volume| volume.lost.is_none()) {
        return None;
    }
    world
        .volumes
        .edit(|volumes| volumes.values_mut().for_each(|volume| volume.lost = None));
    Some(world)
}
