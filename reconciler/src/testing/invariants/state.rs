//! What must hold in the world after every mutation. Only what was touched is looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::{
    super::sim_host::{
        World,
        objects::{Place, Run, Skeleton},
        touch,
    },
    Violation, Watch, violated,
};
use crate::spec::{PortBinding, Subnet};

/// Ids of one project.
const RANGE: u32 = 65_536;

impl Watch {
    /// # Errors
    /// The first invariant that does not hold any more.
    pub fn after(&mut self, world: &mut World) -> Result<(), Violation> {
        let touched = world.take_touched();
        if let Some(what) = world.violations.first() {
            let invariant = match what {
                what if what.contains("signalled") => "P2",
                what if what.contains("the namespaces of") => "J1",
                _ => "D1",
            };
            return violated(invariant, what.clone());
        }
        if touched & (touch::VOLUMES | touch::INSTANCES) != 0 {
            self.volumes(world)?;
            self.mounts(world)?;
        }
        if touched & touch::INSTANCES != 0 {
            self.one_each(world)?;
            given_once(world)?;
        }
        if touched & touch::NETWORKS != 0 {
            subnets(world)?;
        }
        if touched & (touch::INSTANCES | touch::FIREWALL | touch::NETWORKS) != 0 {
            isolated(world)?;
        }
        if touched & (touch::RECORDS | touch::INSTANCES | touch::NETWORKS) != 0 {
            recorded(world)?;
        }
        if touched & touch::FOREIGN != 0 {
            self.foreign(world)?;
        }
        Ok(())
    }

    /// V1: every volume that was ever whole is somewhere, with at least what was written.
    fn volumes(&mut self, world: &World) -> Result<(), Violation> {
        let directories = world.directories.values().chain(world.aside.values());
        for directory in directories {
            if let Some(identity) = directory.identity {
                let written = self.written.entry(identity).or_insert(0);
                if directory.written < *written
                    && !world.aside.values().any(|aside| aside.identity == Some(identity))
                {
                    return violated("V1", format!("volume {identity} has lost what services wrote"));
                }
                *written = (*written).max(directory.written);
            }
        }
        for (identity, written) in &self.written {
            let there = world
                .directories
                .values()
                .chain(world.aside.values())
                .any(|directory| directory.identity == Some(*identity));
            let fresh = *written == 0;
            if !there && !fresh && !world.removed_volumes.contains(identity) {
                return violated("V1", format!("volume {identity} is gone without consent"));
            }
        }
        if self.written.len() > 64 {
            self.written
                .retain(|identity, _| !world.removed_volumes.contains(identity));
        }
        Ok(())
    }

    /// V2: what a service sees under a name is what it saw there before.
    fn mounts(&mut self, world: &World) -> Result<(), Violation> {
        for (key, place) in &world.instances {
            let Some(tree) = &place.tree else { continue };
            for (volume, identity) in &tree.volumes {
                let first = *self.mounted.entry(volume.clone()).or_insert(*identity);
                if first == *identity {
                    continue;
                }
                if !world.removed_volumes.contains(&first) {
                    return violated("V2", format!("{key} runs on another {volume} than before"));
                }
                self.mounted.insert(volume.clone(), *identity);
            }
        }
        Ok(())
    }

    /// P1: and a container that lives without its supervisor counts, too.
    fn one_each(&self, world: &World) -> Result<(), Violation> {
        let mut before = None;
        for (key, place) in &world.instances {
            if place.processes.len() > 1 {
                return violated(
                    "P1",
                    format!("{key} has {} first processes", place.processes.len()),
                );
            }
            if place.processes.is_empty() {
                continue;
            }
            if let Some(Run::Running { pid }) = place.shim.as_ref().map(|shim| &shim.run)
                && !place.processes.iter().any(|process| process.pid == *pid)
            {
                return violated("P1", format!("{key} supervises {pid}, and something else runs"));
            }
            let one = (&key.project, &key.service, key.index);
            if before == Some(one)
                && !self
                    .start_first
                    .contains(&(key.project.clone(), key.service.clone()))
            {
                return violated("P1", format!("both slots of {key} run"));
            }
            before = Some(one);
        }
        Ok(())
    }

    /// N3
    fn foreign(&mut self, world: &World) -> Result<(), Violation> {
        match &self.foreign {
            Some(before) if *before != world.foreign => violated(
                "N3",
                format!("foreign objects were {before:?} and are {:?}", world.foreign),
            ),
            Some(_) => Ok(()),
            None => {
                self.foreign = Some(world.foreign.clone());
                Ok(())
            }
        }
    }
}

/// N1, of instances
fn given_once(world: &World) -> Result<(), Violation> {
    let mut addresses: BTreeSet<Ipv4Addr> = BTreeSet::new();
    let mut macs: BTreeSet<[u8; 6]> = BTreeSet::new();
    let mut ports: Vec<&PortBinding> = Vec::new();
    let mut ids: BTreeMap<&str, u32> = BTreeMap::new();
    let shims = world
        .instances
        .iter()
        .filter_map(|(key, place)| Some((key, place.shim.as_ref()?)));
    for (key, shim) in shims {
        for endpoint in &shim.sandbox.endpoints {
            if !addresses.insert(endpoint.address) {
                return violated(
                    "N1",
                    format!("{} is given to {key} and to another", endpoint.address),
                );
            }
            if !macs.insert(endpoint.mac) {
                return violated("N1", format!("the MAC address of {key} is another's, too"));
            }
        }
        for port in &shim.ports {
            let taken = |held: &&&PortBinding| {
                (held.published, held.protocol) == (port.published, port.protocol)
                    && (held.host_ip == port.host_ip
                        || held.host_ip.is_unspecified()
                        || port.host_ip.is_unspecified())
            };
            if ports.iter().any(|held| taken(&held)) || world.foreign_ports.contains(&port.published) {
                return violated(
                    "N1",
                    format!("host port {} of {key} is held twice", port.published),
                );
            }
            ports.push(port);
        }
        let base = shim.sandbox.id_base;
        for (project, other) in &ids {
            if *project != key.project && other.abs_diff(base) < RANGE {
                return violated("N1", format!("the ids of {key} are those of {project}, too"));
            }
        }
        ids.insert(&key.project, base);
    }
    Ok(())
}

/// N1, of networks
fn subnets(world: &World) -> Result<(), Violation> {
    let mut before: Vec<Subnet> = Vec::new();
    for key in world.bridges.keys() {
        let Some(spec) = world.networks.whole(key) else {
            continue;
        };
        if before.iter().any(|other| other.overlaps(spec.subnet)) {
            return violated("N1", format!("the subnet of {key} overlaps another's"));
        }
        before.push(spec.subnet);
    }
    Ok(())
}

/// N2: where the rules are as stead left them, nothing that runs is on a network that they do not know,
/// and no published port leads to an address that no container may use.
fn isolated(world: &World) -> Result<(), Violation> {
    if world.rules_hurt {
        return Ok(());
    }
    for (key, place) in &world.instances {
        if place.processes.is_empty() {
            continue;
        }
        for endpoint in reachable(inside(place, world), world) {
            if world.skeleton != Skeleton::Whole || !world.firewall.networks.contains_key(endpoint) {
                return violated("N2", format!("{key} can be reached on {endpoint} without rules"));
            }
        }
    }
    for (port, target) in &world.firewall.ports {
        let networks = world.firewall.networks.values();
        let mut endpoints = networks.flat_map(|network| network.endpoints.iter());
        if !endpoints.any(|(address, _)| *address == target.address) {
            let text = format!(
                "port {} leads to {}, which has no rules",
                port.published, target.address
            );
            return violated("N2", text);
        }
    }
    Ok(())
}

/// Where the network namespace is that something of this instance lives in.
fn inside<'a>(place: &'a Place, world: &'a World) -> &'a Place {
    let Some(shim) = place.shim.as_ref().filter(|shim| shim.lives.network != shim.pid) else {
        return place;
    };
    let mut places = world.instances.values();
    let owner = |place: &&Place| place.shim.as_ref().map(|owner| owner.pid) == Some(shim.lives.network);
    places.find(owner).unwrap_or(place)
}

/// The networks on which something of this instance can be reached.
fn reachable<'a>(place: &'a Place, world: &'a World) -> impl Iterator<Item = &'a crate::key::ResourceKey> {
    let endpoints = place.shim.iter().flat_map(|shim| shim.sandbox.endpoints.iter());
    endpoints
        .filter(|endpoint| {
            let pair = place
                .netns
                .as_ref()
                .and_then(|netns| netns.pairs.get(&endpoint.interface));
            let bridge = world.bridges.get(&endpoint.network);
            pair.is_some_and(|pair| {
                pair.up
                    && pair.inner.up
                    && pair.bridge.is_some()
                    && pair.bridge == bridge.map(|bridge| bridge.index)
            })
        })
        .map(|endpoint| &endpoint.network)
}

/// S1: no record is damaged but by others, and what exists is recorded before it does.
fn recorded(world: &World) -> Result<(), Violation> {
    if world.records_hurt {
        return Ok(());
    }
    if let Some(key) = world.networks.torn().or(world.volumes.torn()) {
        return violated("S1", format!("the record of {key} cannot be read"));
    }
    for key in world.bridges.keys() {
        if !world.networks.contains_key(key) {
            return violated("S1", format!("the bridge of {key} has no record"));
        }
    }
    for (key, place) in &world.instances {
        if let Some(shim) = &place.shim
            && world.id_bases.whole(&key.project) != Some(&shim.sandbox.id_base)
        {
            return violated("S1", format!("the ids of {key} are not those of its record"));
        }
    }
    Ok(())
}
