//! Records that somebody has removed or damaged, made again from the host's own marks: networks from the firewall,
//! the bridges and the sandboxes, id ranges and volumes from the sandboxes and the identity files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    sync::PoisonError,
};

use reconciler::{
    key::{InstanceKey, ResourceKey},
    observed::{Fact, Instance},
    spec::{ContainerSpec, MountSpec, NetworkSpec, Subnet, VolumeSpec},
};

use super::{LinuxBackend, error::ApplyError};

impl LinuxBackend {
    /// Writes what is missing. What cannot be known stays away: operators' intents are files of the
    /// agent and nowhere on the host.
    pub(super) fn restore(&self, instances: &Fact<BTreeMap<InstanceKey, Instance>>) {
        let Fact::Known(instances) = instances else {
            return;
        };
        // Nothing is removed meanwhile: what is just going must not come back as a record.
        let _turn = self.removing.lock().unwrap_or_else(PoisonError::into_inner);
        let live: BTreeMap<&InstanceKey, &Instance> = instances
            .iter()
            .filter(|(key, _)| self.sandboxes.get(key).is_some())
            .collect();
        let parts = [
            ("networks", self.restore_networks(&live)),
            ("id ranges", self.restore_id_bases(&live)),
            ("volumes", self.restore_volumes(&live)),
        ];
        for (what, made) in parts {
            match made {
                Ok(made) if made.is_empty() => {}
                Ok(made) => tracing::warn!(
                    of = made.join(", "),
                    "records of {what} were missing or damaged and are made again from what is on this host; \
                     what an operator ordered (down, stop, start, restart) is not on it, and is lost if \
                     its files are gone, too"
                ),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "records of {what} cannot be made again");
                }
            }
        }
    }

    /// A volume that is nowhere is made, unless something runs on it: then it is lost, and its record
    /// with it.
    pub(super) fn ensure_volume(&self, spec: &VolumeSpec) -> Result<(), ApplyError> {
        let volume = &spec.key;
        if self.volumes.is_nowhere(volume)? {
            let mounts =
                |container: &ContainerSpec| volumes(container).any(|mounted| mounted.name == volume.name);
            let used = self.sandboxes.keys().iter().any(|key| {
                let state = self.state(key).ok();
                state.is_some_and(|state| state.record.container.as_ref().is_some_and(mounts))
            });
            if used {
                self.volumes.restore(&BTreeSet::from([volume.clone()]))?;
            }
        }
        self.volumes.ensure(spec).map(drop).map_err(Into::into)
    }

    fn restore_networks(&self, live: &BTreeMap<&InstanceKey, &Instance>) -> Result<Vec<String>, ApplyError> {
        let recorded = self.networks.undamaged()?;
        let endpoints = || live.values().flat_map(|instance| &instance.sandbox.endpoints);
        let known: BTreeSet<ResourceKey> = endpoints().map(|endpoint| endpoint.network.clone()).collect();
        let mut found = self.net.found_networks(&known)?;
        found.retain(|key, _| !recorded.contains_key(&key.to_string()));
        // With its bridge gone, too, who is on it says where it was; asked anew, for it may have been left.
        for key in known {
            if !recorded.contains_key(&key.to_string())
                && !found.contains_key(&key)
                && live.keys().any(|instance| self.is_on(instance, &key))
            {
                found.insert(key, None);
            }
        }
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let firewall = self.firewall.observe()?.spec.networks;
        let mut made = Vec::new();
        for (key, address) in found {
            let on_it = || endpoints().filter(|endpoint| endpoint.network == key);
            let spec = if let Some(network) = firewall.get(&key) {
                Some(NetworkSpec {
                    key: key.clone(),
                    subnet: network.subnet,
                    gateway: network.gateway,
                    internal: network.internal,
                })
            } else {
                let place = address
                    .or_else(|| on_it().find_map(|endpoint| Some((endpoint.gateway?, endpoint.prefix))));
                place.map(|(gateway, prefix)| NetworkSpec {
                    key: key.clone(),
                    subnet: Subnet::around(gateway, prefix),
                    gateway,
                    internal: on_it().next().is_some() && on_it().all(|endpoint| endpoint.gateway.is_none()),
                })
            };
            if let Some(spec) = spec {
                self.networks.put(&key.to_string(), &spec)?;
                made.push(key.to_string());
            }
        }
        Ok(made)
    }

    fn is_on(&self, instance: &InstanceKey, network: &ResourceKey) -> bool {
        self.state(instance).is_ok_and(|state| {
            let mut endpoints = state.record.assignment.sandbox.endpoints.iter();
            endpoints.any(|endpoint| endpoint.network == *network)
        })
    }

    fn restore_id_bases(&self, live: &BTreeMap<&InstanceKey, &Instance>) -> Result<Vec<String>, ApplyError> {
        let recorded = self.id_bases.undamaged()?;
        let mut found: BTreeMap<String, u32> = live
            .iter()
            .filter(|(_, instance)| !instance.sandbox.spaces.host_ids)
            .map(|(key, instance)| (key.project.clone(), instance.sandbox.id_base))
            .collect();
        // Of what does not run, the files tell: root inside owns them outside.
        let containers = self.layout.state.join("containers");
        for project in fs::read_dir(containers).into_iter().flatten().flatten() {
            let Ok(name) = project.file_name().into_string() else {
                continue;
            };
            let uppers = fs::read_dir(project.path()).into_iter().flatten().flatten();
            let owner = uppers
                .filter_map(|instance| fs::metadata(instance.path().join("upper")).ok())
                .map(|metadata| metadata.uid())
                .find(|owner| *owner != 0);
            if let Some(owner) = owner {
                found.entry(name).or_insert(owner);
            }
        }
        found.retain(|project, _| !recorded.contains_key(project));
        for (project, base) in &found {
            self.id_bases.put(project, base)?;
        }
        Ok(found.into_keys().collect())
    }

    fn restore_volumes(&self, live: &BTreeMap<&InstanceKey, &Instance>) -> Result<Vec<String>, ApplyError> {
        let containers = live.values().filter_map(|instance| instance.container.as_deref());
        let mounted = containers.flat_map(volumes).cloned().collect();
        let made = self.volumes.restore(&mounted)?;
        Ok(made.iter().map(ToString::to_string).collect())
    }
}

/// The volumes that a container mounts.
fn volumes(container: &ContainerSpec) -> impl Iterator<Item = &ResourceKey> {
    container.mounts.iter().filter_map(|mount| match mount {
        MountSpec::Volume { volume, .. } => Some(volume),
        MountSpec::Bind { .. } | MountSpec::Tmpfs { .. } => None,
    })
}
