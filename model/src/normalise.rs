//! Defaults and names: what a declaration leaves to Compose is filled in.

use std::{collections::BTreeMap, path::Path};

use crate::{
    decode::Declared,
    types::{Attachment, Network, Project, Volume},
};

/// The key of the network of services that name none.
const DEFAULT: &str = "default";

/// Completes the declarations to a project. `origins` stays empty. A service's network that is not
/// declared gets no entry: `check` reports it.
pub(crate) fn normalise(name: &str, directory: &Path, declared: &Declared) -> Project {
    let mut services = declared.services.clone();
    let mut networks = BTreeMap::new();
    for service in services.values_mut() {
        if service.networks.is_empty() {
            service.networks.insert(DEFAULT.to_owned(), Attachment::default());
        }
        for key in service.networks.keys() {
            let (full, internal) = match declared.networks.get(key) {
                Some(network) => (network.name.clone(), network.internal),
                None if key == DEFAULT => (None, false),
                None => continue,
            };
            let full = full.unwrap_or_else(|| format!("{name}_{key}"));
            networks.insert(
                key.clone(),
                Network {
                    name: full,
                    internal,
                    ..Network::default()
                },
            );
        }
    }
    let volumes = declared.volumes.iter().map(|(key, volume)| {
        let full = volume.name.clone().unwrap_or_else(|| format!("{name}_{key}"));
        (
            key.clone(),
            Volume {
                name: full,
                ..Volume::default()
            },
        )
    });
    Project {
        name: name.to_owned(),
        services,
        networks,
        volumes: volumes.collect(),
        configs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        directory: directory.to_owned(),
        origins: BTreeMap::new(),
    }
}
