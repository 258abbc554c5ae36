//! An accident that can befall the host as it is now.

use std::net::Ipv4Addr;

use super::{
    super::{
        Random, World,
        effects::clash,
        namespaces::lends,
        objects::{Manner, Place},
    },
    Damage,
};
use crate::{
    key::{InstanceKey, ResourceKey},
    spec::Subnet,
};

/// Those of which each can be drawn, by number.
const KINDS: u64 = 50;

impl World {
    /// Something that can break now; `None`: what was drawn is not there. What it does lasts until it
    /// is repaired, or, where no agent can, until [`World::mend`].
    pub fn possible_damage(&self, random: &mut Random) -> Option<Damage> {
        let kind = random.below(KINDS);
        Some(match kind {
            0..=7 => {
                let key = pick(random, self.bridges.keys())?;
                match kind {
                    0 => Damage::BridgeDeleted(key),
                    1 => Damage::BridgeDown(key),
                    2 => Damage::BridgeAddressRemoved(key),
                    3 => Damage::BridgeAddressAdded(key, Ipv4Addr::new(192, 0, 2, 1)),
                    4 => Damage::BridgeMtu(key),
                    5 => Damage::BridgeMac(key),
                    6 => Damage::BridgeAlias(key),
                    _ => Damage::BridgeSpanningTree(key),
                }
            }
            8..=16 => {
                let (key, interface) = self.some_pair(random)?;
                match kind {
                    8 => Damage::VethDeleted(key, interface),
                    9 => Damage::VethDown(key, interface),
                    10 => Damage::VethOffBridge(key, interface),
                    11 => Damage::VethHairpin(key, interface),
                    12 => Damage::VethMtu(key, interface),
                    13 => Damage::InnerDown(key, interface),
                    14 => Damage::InnerAddressRemoved(key, interface),
                    15 => Damage::InnerRouteRemoved(key, interface),
                    _ => Damage::InnerMac(key, interface),
                }
            }
            17 => Damage::LoopbackDown(self.some_pair(random)?.0),
            18 => Damage::RulesFlushed,
            19 => Damage::RuleDeleted,
            20 => Damage::EndpointElementDeleted(pick(random, self.firewall.networks.keys())?),
            21 => Damage::PortElementDeleted,
            22 => Damage::ForwardingOff,
            23 => Damage::LocalnetOff(pick(random, self.bridges.keys())?),
            24 => Damage::UpperDeleted(pick(random, self.trees.keys())?),
            25 => Damage::LayersDeleted(pick(random, self.layers.keys())?),
            26 => Damage::VolumeMovedAway(self.some_volume(random)?.name),
            27 => Damage::VolumeReplaced(self.some_volume(random)?.name),
            28 => Damage::LimitsChanged(self.some_running(random)?),
            29 => Damage::ProcessStrayed(self.some_running(random)?),
            30 => Damage::DiskFull,
            31 => Damage::ShimKilled(pick(random, self.instances.keys())?),
            32 => Damage::ShimSilent(pick(random, self.instances.keys())?),
            33 => Damage::ProcessKilled(self.some_running(random)?, random.below(3) as i32),
            34 => Damage::ProcessStuck(self.some_running(random)?),
            35 => Damage::ZoneDeleted(pick(random, self.zones.keys())?),
            36 => Damage::ZoneChanged(pick(random, self.zones.keys())?),
            37 => {
                const PARTS: [&str; 5] = ["networks", "volumes", "instances", "firewall", "zones"];
                Damage::Unreadable(PARTS[random.below(PARTS.len() as u64) as usize])
            }
            38 => {
                let port = 8000 + random.below(16) as u16;
                return (!self.clashes(port)).then_some(Damage::PortTaken(port));
            }
            39 => Damage::RouteAdded(Subnet {
                // A quarter of what subnets come from.
                address: Ipv4Addr::new(10, 64 + 16 * random.below(4) as u8, 0, 0),
                prefix: 12,
            }),
            40 => Damage::NetworkRecordTorn(pick(random, self.networks.keys())?),
            41 => Damage::NetworkRecordDeleted(pick(random, self.networks.keys())?),
            42 => Damage::IdRecordDeleted(pick(random, self.id_bases.keys())?),
            43 => Damage::OverlayUnmounted(self.some_running(random)?),
            44 => Damage::BridgeRenamed(pick(random, self.bridges.keys())?),
            45 => Damage::BridgeIpv6(pick(random, self.bridges.keys())?),
            46 => Damage::BridgeRouteRemoved(pick(random, self.bridges.keys())?),
            47 => Damage::VolumeRecordDeleted(self.some_volume(random)?),
            48 => Damage::PauseKilled(self.some_lender(random)?),
            _ => {
                let key = self.some_running(random)?;
                let tree = self.instances.get(&key)?.tree.as_ref()?;
                let index = *tree.mounts.first()?;
                Damage::MountUnmounted(key, index)
            }
        })
    }

    /// Ends what no agent can repair. One call ends one thing; false: nothing is left.
    pub fn mend(&mut self) -> bool {
        let Some(mending) = self.mending() else {
            return false;
        };
        self.damage(&mending);
        true
    }

    fn mending(&self) -> Option<Damage> {
        let silent = |place: &Place| place.shim.as_ref().is_some_and(|shim| shim.silent.is_some());
        let stuck = |place: &Place| {
            let mut processes = place.processes.iter();
            processes.any(|process| process.manner == Manner::Stuck)
        };
        let of = |holds: &dyn Fn(&Place) -> bool| {
            let mut places = self.instances.iter();
            places.find(|(_, place)| holds(place)).map(|(key, _)| key.clone())
        };
        if let Some(port) = self.foreign_ports.first() {
            return Some(Damage::PortFreed(*port));
        }
        if let Some(route) = self.routes.first() {
            return Some(Damage::RouteRemoved(*route));
        }
        if self.disk_full {
            return Some(Damage::DiskFreed);
        }
        if let Some(part) = self.unreadable.first() {
            return Some(Damage::Readable(part));
        }
        if let Some(key) = of(&silent) {
            return Some(Damage::ShimAnswers(key));
        }
        if let Some(key) = of(&stuck) {
            return Some(Damage::ProcessFree(key));
        }
        if let Some(key) = self.networks.torn() {
            return Some(Damage::NetworkRecordDeleted(key.clone()));
        }
        let name = self.aside.keys().next()?;
        Some(match self.directories.contains_key(name) {
            true => Damage::VolumeRestored(name.clone()),
            false => Damage::VolumePutBack(name.clone()),
        })
    }

    /// One that has its record and its data: without both, nobody can know that it ever was.
    fn some_volume(&self, random: &mut Random) -> Option<ResourceKey> {
        let key: ResourceKey = pick(random, self.volumes.keys())?;
        (self.directories.contains_key(&key.name) && self.lost(&key).is_none()).then_some(key)
    }

    fn some_pair(&self, random: &mut Random) -> Option<(InstanceKey, String)> {
        let key = pick(random, self.instances.keys())?;
        let netns = self.instances.get(&key)?.netns.as_ref()?;
        let interface = pick(random, netns.pairs.keys())?;
        Some((key, interface))
    }

    /// A port that somebody else could take now, among those that instances want.
    fn clashes(&self, port: u16) -> bool {
        self.instances.values().any(|place| {
            place.shim.as_ref().is_some_and(|shim| {
                shim.ports
                    .iter()
                    .any(|held| held.published == port && clash(held, held))
            })
        })
    }

    fn some_lender(&self, random: &mut Random) -> Option<InstanceKey> {
        let lender = |place: &Place| {
            place
                .shim
                .as_ref()
                .is_some_and(|shim| lends(&shim.sandbox.spaces))
        };
        let lenders = self.instances.iter().filter(|(_, place)| lender(place));
        pick(random, lenders.map(|(key, _)| key))
    }

    fn some_running(&self, random: &mut Random) -> Option<InstanceKey> {
        let key: InstanceKey = pick(random, self.instances.keys())?;
        self.runs(&key).then_some(key)
    }
}

fn pick<'a, T: Clone + 'a>(random: &mut Random, mut from: impl Iterator<Item = &'a T> + Clone) -> Option<T> {
    match from.clone().count() {
        0 => None,
        count => from.nth(random.below(count as u64) as usize).cloned(),
    }
}
