//! Whether a running instance is as its file says, part by part.

use std::collections::BTreeSet;

use super::Judge;
use crate::{
    key::InstanceKey,
    observed::{Fact, Image, Instance},
    spec::{MountSpec, RestartPolicy, Space},
    testing::generate::{Behaviour, IMAGES, RARE_IMAGE, Restart, Service, WORSE, WORSENS},
};

impl Judge<'_> {
    /// The first part of a running instance that is not as its file says.
    pub(super) fn differs(
        &self,
        name: &str,
        service: &Service,
        key: &InstanceKey,
        instance: &Instance,
    ) -> Option<String> {
        let Some(container) = &instance.container else {
            return Some("it has no container".to_owned());
        };
        let image = self.truth.images.get(service.image).and_then(Fact::known);
        // What a reference stood for when it was looked up stays, until somebody asks.
        let pinned = |image: &Image| {
            let known = IMAGES
                .iter()
                .chain([&RARE_IMAGE])
                .find(|(reference, _)| *reference == service.image);
            image.digest == container.image_digest
                || known.is_some_and(|(_, digest)| container.image_digest.starts_with(digest))
        };
        match self.digest(service, false) {
            Some(digest) if *container.image_digest != *digest => {
                return Some(format!("it runs {} instead of {digest}", container.image_digest));
            }
            None if !image.is_some_and(pinned) => return Some("its image is another".to_owned()),
            _ => {}
        }
        let worsens = self.digest(service, false) == Some(WORSE);
        let entry = container.argv.first().is_some_and(|word| word == WORSENS);
        if entry != worsens || Behaviour::of(&container.argv) != service.behaviour {
            return Some(format!("it runs {:?}", container.argv));
        }
        if container.environment.get("A") != Some(&service.env.to_string()) {
            return Some("its environment is another".to_owned());
        }
        if container.post_start.len() != service.post_start().len()
            || container.pre_stop.len() != service.hooks.pre_stop.len()
        {
            return Some("its hooks are others".to_owned());
        }
        if container.health.is_some() != service.health {
            return Some("its probe is another".to_owned());
        }
        let restart = match service.restart {
            Restart::No => RestartPolicy::No,
            Restart::Always => RestartPolicy::Always,
            Restart::UnlessStopped => RestartPolicy::UnlessStopped,
            Restart::OnFailure(limit) => RestartPolicy::OnFailure(limit),
        };
        if container.restart != restart || container.stop_grace != service.grace.unwrap_or(10_000) {
            return Some("its policies are others".to_owned());
        }
        let mounted: BTreeSet<&str> = container
            .mounts
            .iter()
            .filter_map(|mount| match mount {
                MountSpec::Volume { volume, .. } => volume.name.strip_prefix(name)?.strip_prefix('_'),
                _ => None,
            })
            .collect();
        if mounted != service.volumes.iter().copied().collect() {
            return Some(format!("it has the volumes {mounted:?}"));
        }
        let networks: BTreeSet<String> = match service.networks.as_slice() {
            _ if service.joins_a_network() => BTreeSet::new(),
            [] => [format!("{name}_default")].into(),
            networks => networks
                .iter()
                .map(|network| format!("{name}_{network}"))
                .collect(),
        };
        if let Some(what) = self.shares(service, key, instance) {
            return Some(what);
        }
        let endpoints = &instance.sandbox.endpoints;
        if networks
            != endpoints
                .iter()
                .map(|endpoint| endpoint.network.name.clone())
                .collect()
        {
            return Some("it is on other networks".to_owned());
        }
        if let Some(why) = &instance.broken {
            return Some(format!("it runs on what is broken: {why}"));
        }
        if !instance.drift.is_empty() {
            return Some(format!("it is damaged: {:?}", instance.drift));
        }
        if instance.sandbox.ports.len() != service.ports.len() {
            return Some("it has other ports".to_owned());
        }
        let firewall = self.truth.firewall.known()?;
        for binding in &instance.sandbox.ports {
            let leads = firewall.spec.ports.iter().any(|(publish, to)| {
                publish.published == binding.published
                    && publish.protocol == binding.protocol
                    && to.port == binding.target
                    && endpoints.iter().any(|endpoint| endpoint.address == to.address)
            });
            if !leads {
                return Some(format!("host port {} does not lead to it", binding.published));
            }
        }
        let zones = self.truth.zones.known()?;
        for endpoint in endpoints {
            let named = zones
                .get(&endpoint.network)
                .and_then(|zone| zone.get(&key.service))
                .is_some_and(|addresses| addresses.contains(&endpoint.address));
            if !named {
                return Some(format!("{} has no name for it", endpoint.network));
            }
        }
        None
    }

    /// What of its namespaces is not shared as its file says.
    fn shares(&self, service: &Service, key: &InstanceKey, instance: &Instance) -> Option<String> {
        let spaces = &instance.sandbox.spaces;
        let joined = |space| space == Space::Joined;
        let have = (joined(spaces.network), joined(spaces.ipc), joined(spaces.pid));
        let Some(sharing) = &service.sharing else {
            return (have != (false, false, false)).then(|| "it shares namespaces".to_owned());
        };
        if have != (sharing.network, sharing.ipc, sharing.pid) {
            return Some(format!("it shares {have:?} instead of {sharing:?}"));
        }
        let of = |other: &InstanceKey| {
            (&other.project, &other.service, other.index) == (&key.project, &sharing.with, 1)
        };
        let mut lenders = self.instances.iter().filter(|(other, _)| of(other));
        let present = lenders.any(|(_, lender)| {
            !lender.identity.is_empty() && instance.joined.as_ref() == Some(&lender.identity)
        });
        (!present).then(|| format!("it stands in a sandbox of {} that is gone", sharing.with))
    }
}
