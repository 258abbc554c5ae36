//! Records that somebody has removed or damaged, made again from the host's own marks, as the Linux backend does it.

use std::collections::{BTreeMap, BTreeSet};

use super::{World, objects::UNKNOWN};
use crate::{
    key::ResourceKey,
    spec::{Endpoint, MountSpec, NetworkSpec, Subnet},
};

impl World {
    /// The agent connects to every supervisor that answers, and holds its namespace from then on.
    pub(super) fn hold_what_answers(&mut self) {
        for place in self.instances.values_mut() {
            place.held |= place.shim.as_ref().is_some_and(|shim| shim.silent.is_none());
        }
    }

    /// Records that somebody has removed or damaged are made again from the host's own marks.
    pub(super) fn restore(&mut self) {
        let mut answering = Vec::new();
        for (key, place) in &self.instances {
            if let Some(shim) = place.shim.as_ref().filter(|shim| shim.silent.is_none()) {
                answering.push((key, shim));
            }
        }
        let live = answering
            .iter()
            .map(|(key, shim)| (&key.project, shim.sandbox.id_base));
        let used = self.trees.iter().filter(|(_, tree)| tree.base != 0);
        for (project, base) in live.chain(used.map(|(key, tree)| (&key.project, tree.base))) {
            if self.id_bases.whole(project).is_none() {
                self.id_bases.set(project.clone(), base);
            }
        }
        let endpoints = || answering.iter().flat_map(|(_, shim)| &shim.sandbox.endpoints);
        let known = endpoints().map(|endpoint| &endpoint.network);
        // A bridge is known by its name and its alias.
        let marked = self.bridges.iter();
        let marked = marked.filter(|(_, bridge)| bridge.alias && !bridge.renamed);
        let missing: BTreeSet<&ResourceKey> = known
            .chain(marked.map(|(key, _)| key))
            .filter(|key| self.networks.whole(key).is_none())
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
            if self.volumes.whole(key).is_none() {
                found.entry(key.clone()).or_insert(identity);
            }
        }
        for (key, identity) in found {
            self.volumes.set(key, identity);
        }
        if self.records_hurt {
            let torn = self.networks.torn().is_some() || self.volumes.torn().is_some();
            let networks = self.bridges.keys().all(|key| self.networks.contains_key(key));
            let mut projects = self.instances.keys();
            let ids = projects.all(|key| self.id_bases.contains_key(&key.project));
            // What is being made just now may have written its record before it was deleted.
            let whole = !torn && networks && ids && self.under_way == 0;
            // What is decided right now was seen before.
            self.records_hurt = !(whole && self.records_whole);
            self.records_whole = whole && self.records_hurt;
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
        let inside = on_it.clone().next().is_some();
        Some(NetworkSpec {
            key: key.clone(),
            subnet: Subnet::around(gateway, prefix),
            gateway,
            internal: inside && on_it.all(|endpoint| endpoint.gateway.is_none()),
        })
    }
}
