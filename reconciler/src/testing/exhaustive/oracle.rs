//! What the host shall be in the end, read straight from the manifest: no plan, no comparison, no steps.

use std::collections::BTreeSet;

use model::types::{Mount, Project, RestartPolicy, Service};

use super::{
    edits::{Edit, PROJECT},
    world::World,
};
use crate::{
    desired::Wish,
    key::InstanceKey,
    observed::{Instance, State},
};

/// One line for everything that is there, or that shall be.
type Facts = BTreeSet<String>;

/// How `world`, where nothing is left to be done, differs from what `edit` asks for.
pub fn difference(edit: &Edit, world: &World) -> Option<String> {
    if edit.frozen {
        return None;
    }
    let (is, shall) = (is(world), shall(edit, world));
    let more: Vec<&String> = is.difference(&shall).collect();
    let less: Vec<&String> = shall.difference(&is).collect();
    if more.is_empty() && less.is_empty() {
        return None;
    }
    Some(format!("at rest, but too much: {more:?}; missing: {less:?}"))
}

fn shall(edit: &Edit, world: &World) -> Facts {
    let mut facts = Facts::new();
    let wish = edit.desired.projects.get(PROJECT);
    if !matches!(wish, Some(Wish::Down { volumes: true })) {
        // Whatever was once kept is kept.
        facts.extend(world.volumes.keys().map(|key| format!("volume {}", key.name)));
    }
    let Some(Wish::Run { project, .. }) = wish else {
        return facts;
    };
    for (name, service) in &project.services {
        for index in 1..=service.container.scale.unwrap_or(1) {
            facts.extend(of_instance(project, name, index, service, world));
        }
    }
    facts
}

fn of_instance(project: &Project, name: &str, index: u32, service: &Service, world: &World) -> Facts {
    let mut facts = Facts::new();
    let one = format!("{name}/{index}");
    let over = world.instances.iter().any(|(key, instance)| {
        (key.service.as_str(), key.index) == (name, index)
            && service.restart == RestartPolicy::No
            && matches!(instance.state, State::Exited { .. })
    });
    let what = if over { "over" } else { "runs" };
    facts.insert(format!("{what} {one} {}", looks(service)));
    for mount in &service.volumes {
        if let Mount::Volume {
            source: Some(source), ..
        } = mount
        {
            facts.insert(format!("volume {}_{source}", project.name));
        }
    }
    for (network, attachment) in &service.networks {
        let internal = project
            .networks
            .get(network)
            .is_some_and(|network| network.internal);
        let full = format!("{}_{network}", project.name);
        facts.insert(format!("network {full} internal {internal}"));
        facts.insert(format!("{one} on {full}"));
        facts.insert(format!("rules for {one} on {full}, internal {internal}"));
        let own = format!("{}-{name}-{index}", project.name);
        for word in attachment.aliases.iter().chain([&name.to_owned(), &own]) {
            facts.insert(format!("name {word} of {one} on {full}"));
        }
    }
    for port in &service.ports {
        let published = port.published.map_or(0, |range| range.first);
        facts.insert(format!("port {published} to {one}:{}", port.target));
    }
    facts
}

fn looks(service: &Service) -> String {
    format!(
        "image {} env {:?} command {:?} labels {:?} restart {:?} probed {} memory {:?}",
        service.image,
        service.environment.get("A"),
        service.command,
        service.labels,
        service.restart,
        service.healthcheck.is_some(),
        service.resources.mem_limit,
    )
}

fn is(world: &World) -> Facts {
    let mut facts = Facts::new();
    for (key, volume) in world.volumes.iter() {
        let lost = if volume.lost.is_some() { "lost " } else { "" };
        facts.insert(format!("{lost}volume {}", key.name));
    }
    for (key, network) in world.networks.iter() {
        let drift = if network.drift.is_empty() { "" } else { "broken " };
        facts.insert(format!(
            "{drift}network {} internal {}",
            key.name, network.spec.internal
        ));
    }
    for (key, instance) in world.instances.iter() {
        facts.insert(instance_is(&label(key), instance, world));
        for end in &instance.sandbox.endpoints {
            let drift = if instance.drift.is_empty() {
                ""
            } else {
                "not rightly "
            };
            facts.insert(format!("{drift}{} on {}", label(key), end.network.name));
        }
    }
    let owner = |address| {
        let mut of = world.instances.iter().filter(|(_, instance)| {
            let mut ends = instance.sandbox.endpoints.iter();
            ends.any(|end| end.address == address)
        });
        of.next().map_or("nobody".to_owned(), |(key, _)| label(key))
    };
    for drift in &world.firewall.drift {
        facts.insert(format!("firewall: {drift}"));
    }
    for (key, network) in &world.firewall.spec.networks {
        for (address, _) in &network.endpoints {
            let (name, internal) = (owner(*address), network.internal);
            facts.insert(format!("rules for {name} on {}, internal {internal}", key.name));
        }
    }
    for (key, target) in &world.firewall.spec.ports {
        let name = owner(target.address);
        facts.insert(format!("port {} to {name}:{}", key.published, target.port));
    }
    for (key, zone) in world.zones.iter() {
        for (word, addresses) in &**zone {
            for address in addresses {
                facts.insert(format!("name {word} of {} on {}", owner(*address), key.name));
            }
        }
    }
    facts
}

fn label(key: &InstanceKey) -> String {
    format!("{}/{}", key.service, key.index)
}

fn instance_is(name: &str, instance: &Instance, world: &World) -> String {
    let state = match instance.state {
        State::Running { .. } => "runs",
        State::Exited { .. } => "over",
        State::Created => "made",
        State::Lost => "lost",
    };
    let Some(spec) = &instance.container else {
        return format!("{state} {name}, never started");
    };
    let image = world
        .images
        .iter()
        .find(|(_, image)| image.digest == spec.image_digest)
        .map_or("?", |(reference, _)| reference.as_str());
    let labels: std::collections::BTreeMap<&str, &String> = spec
        .fields
        .iter()
        .filter_map(|(field, value)| Some((field.strip_prefix("labels.")?, value)))
        .collect();
    let command = (spec.argv != ["/app"]).then_some(&spec.argv);
    format!(
        "{state} {name} image {image} env {:?} command {command:?} labels {labels:?} restart {:?} probed {} memory {:?}",
        spec.environment.get("A"),
        spec.restart,
        spec.health.is_some(),
        spec.limits.memory,
    )
}
