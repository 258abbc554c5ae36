//! Whom a change of manifests concerns, and what dependencies ask for: said once more, from the design and
//! not from the plan's own tables.

use std::collections::BTreeSet;

use model::types::{Condition, Mount, Namespace, Project, PullPolicy, Service};

use crate::{
    desired::{Desired, Intent, Target},
    key::InstanceKey,
    observed::{Fact, Health, Instance, Moment, Observed, State},
};

/// How many instances of a service are wanted.
pub fn scale(service: &Service) -> u32 {
    service.container.scale.unwrap_or(1)
}

/// An operator's order that covers this instance.
pub fn intents<'a>(desired: &'a Desired, key: &'a InstanceKey) -> impl Iterator<Item = &'a Intent> {
    let covers = |target: &Target| {
        target.project == key.project
            && target.service == key.service
            && target.index.is_none_or(|index| index == key.index)
    };
    desired
        .intents
        .iter()
        .filter(move |(target, _)| covers(target))
        .map(|(_, intent)| intent)
}

/// The service without what can be changed while it runs: limits, published ports, networks, restart
/// policy, healthcheck, labels, scale, and the order of starts.
pub fn fixed(service: &Service) -> Service {
    let mut fixed = service.clone();
    fixed.resources.cpus = None;
    fixed.resources.cpu_quota = None;
    fixed.resources.cpu_period = None;
    fixed.resources.mem_limit = None;
    fixed.resources.pids_limit = None;
    fixed.ports.clear();
    fixed.networks.clear();
    fixed.restart = Default::default();
    fixed.healthcheck = None;
    fixed.labels.clear();
    fixed.stop_grace_period = None;
    fixed.container.pre_stop.clear();
    fixed.depends_on.clear();
    fixed.container.pull_policy = None;
    fixed.container.scale = None;
    fixed.container.deploy = None;
    fixed
}

/// What `service` is to run of what its name stands for, as far as is known.
pub fn digest<'o>(observed: &'o Observed, service: &Service) -> Option<&'o str> {
    let image = observed.images.get(&service.image)?.known()?;
    let follows = matches!(
        service.container.pull_policy,
        Some(PullPolicy::Always | PullPolicy::Every(_))
    );
    let latest = image.latest.as_ref().filter(|_| follows);
    Some(latest.map_or(&image.digest, |latest| &latest.digest))
}

/// Whether a container of `service` that was started from `old` may be replaced for the sake of `new`.
pub fn affected(old: &Project, new: &Project, service: &str, digests: (&str, Option<&str>)) -> bool {
    let (Some(before), Some(after)) = (old.services.get(service), new.services.get(service)) else {
        return true;
    };
    let moved = digests.1.is_some_and(|now| now != digests.0);
    if moved || fixed(before) != fixed(after) {
        return true;
    }
    let volumes = before.volumes.iter().filter_map(|mount| match mount {
        Mount::Volume {
            source: Some(source), ..
        } => Some(source),
        _ => None,
    });
    let mut volumes = volumes.filter(|key| old.volumes.get(*key) != new.volumes.get(*key));
    let mut networks = before
        .networks
        .keys()
        .filter(|key| old.networks.get(*key) != new.networks.get(*key));
    volumes.next().is_some()
        || networks.next().is_some()
        || old.configs != new.configs
        || old.secrets != new.secrets
}

/// Who lives in the namespaces of another, which outlive its container, is not restarted with it.
fn lives_with(service: &Service, other: &str) -> bool {
    let spaces = &service.namespaces;
    let all = [&spaces.network_mode, &spaces.ipc, &spaces.pid];
    let mut all = all.into_iter().flatten();
    all.any(|space| matches!(space, Namespace::Service(with) if with == other))
}

/// The services that `service` is restarted with, directly or through others.
pub fn followed(project: &Project, service: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut next = vec![service.to_owned()];
    while let Some(name) = next.pop() {
        let Some(service) = project.services.get(&name) else {
            continue;
        };
        let dependencies = service.depends_on.iter();
        let followed = dependencies.filter(|(other, on)| on.restart && !lives_with(service, other));
        for (other, _) in followed {
            if found.insert(other.clone()) {
                next.push(other.clone());
            }
        }
    }
    found
}

/// A hook of its start is to come, or has failed.
fn starts(one: &Instance) -> bool {
    one.hook.is_some_and(|hook| hook.moment == Moment::PostStart)
}

/// A condition that holds for no instance of a dependency, for people.
pub fn unmet(project: &Project, service: &str, observed: &Observed) -> Option<String> {
    let (Fact::Known(instances), ended) = (&observed.instances, observed.ended.known()) else {
        return None;
    };
    let dependencies = &project.services.get(service)?.depends_on;
    dependencies.iter().find_map(|(name, dependency)| {
        let other = project.services.get(name)?;
        if !dependency.required || scale(other) == 0 {
            return None;
        }
        let of_it = |key: &InstanceKey| key.project == project.name && key.service == *name;
        let mut seen = instances.iter().filter(|(key, _)| of_it(key)).map(|(_, one)| one);
        let mut ends = ended.into_iter().flatten().filter(|(key, _)| of_it(key));
        let met = match dependency.condition {
            Condition::Started => {
                let started = |one: &Instance| {
                    matches!(one.state, State::Running { .. } | State::Exited { .. }) && !starts(one)
                };
                seen.any(started) || ends.next().is_some()
            }
            Condition::Healthy => {
                let healthy = |one: &Instance| {
                    let runs = matches!(one.state, State::Running { .. }) && !starts(one);
                    runs && one.health == Health::Healthy
                };
                seen.any(healthy)
            }
            Condition::CompletedSuccessfully => {
                seen.any(|one| matches!(one.state, State::Exited { code: 0, .. }))
                    || ends.any(|(_, end)| end.code == 0)
            }
        };
        (!met).then(|| format!("{name} is not {:?}", dependency.condition))
    })
}
