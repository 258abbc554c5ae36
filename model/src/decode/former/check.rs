//! What only the whole project shows: references to nothing, cycles, clashes.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use crate::{
    decode::former::Declared,
    decode::former::table::nearest,
    report::Report,
    types::{Condition, Mount, Project, Service},
};

pub(crate) fn check(project: &Project, declared: &Declared, report: &mut Report) {
    for (name, service) in &project.services {
        let path = format!("services.{name}");
        networks(project, service, &path, declared, report);
        mounts(project, service, &path, report);
        dependencies(project, service, &path, report);
    }
    cycles(project, report);
    names(project, report);
}

fn networks(project: &Project, service: &Service, path: &str, declared: &Declared, report: &mut Report) {
    for key in service
        .networks
        .keys()
        .filter(|key| !project.networks.contains_key(*key))
    {
        let at = report.at(&format!("{path}.networks.{key}"));
        let hint = match known(report, key, declared.networks.keys().map(String::as_str)) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("declare it at the top level: `networks: {{ {key}: }}`"),
        };
        report.error(
            at,
            format!("`{path}.networks`: the network `{key}` is not declared"),
            hint,
        );
    }
}

/// The declared name that was probably meant, while there is room to say so.
fn known<'a>(report: &Report, wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if report.full() {
        None
    } else {
        nearest(wrong, names)
    }
}

fn mounts(project: &Project, service: &Service, path: &str, report: &mut Report) {
    let mut targets = BTreeMap::new();
    for (index, mount) in service.volumes.iter().enumerate() {
        let at = report.at(&format!("{path}.volumes.{index}"));
        if let Mount::Volume {
            source: Some(key), ..
        } = mount
            && !project.volumes.contains_key(key)
        {
            let hint = match known(report, key, project.volumes.keys().map(String::as_str)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!(
                    "declare it at the top level: `volumes: {{ {key}: }}`; a directory starts with `./`"
                ),
            };
            report.error(
                at,
                format!("`{path}.volumes`: the volume `{key}` is not declared"),
                hint,
            );
        }
        match targets.entry(mount.target()) {
            Entry::Vacant(entry) => {
                entry.insert(at);
            }
            Entry::Occupied(first) => {
                let target = mount.target().display();
                report.error(
                    at,
                    format!(
                        "`{path}`: something is already mounted on `{target}`, in line {}",
                        first.get().line
                    ),
                    "remove one of the two, or change its path",
                );
            }
        }
    }
}

fn dependencies(project: &Project, service: &Service, path: &str, report: &mut Report) {
    for (name, dependency) in &service.depends_on {
        let at = report.at(&format!("{path}.depends_on.{name}"));
        let Some(other) = project.services.get(name) else {
            let hint = match known(report, name, project.services.keys().map(String::as_str)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => "add the service, or remove the dependency".to_owned(),
            };
            report.error(
                at,
                format!("`{path}.depends_on`: there is no service `{name}`"),
                hint,
            );
            continue;
        };
        let disabled = other.healthcheck.as_ref().is_some_and(|check| {
            check
                .test
                .as_deref()
                .is_some_and(|test| test.first().is_some_and(|word| word == "NONE"))
        });
        // Without a `healthcheck` the image's may still count: that is known only later.
        if dependency.condition == Condition::Healthy && disabled {
            report.error(
                at,
                format!(
                    "`{path}.depends_on.{name}` waits for health, and `{name}` has its healthcheck disabled"
                ),
                format!("give `{name}` a healthcheck, or wait for `service_started`"),
            );
        }
    }
}

/// Reports each cycle once, at the dependency that closes it.
fn cycles(project: &Project, report: &mut Report) {
    let mut done = BTreeSet::new();
    for start in project.services.keys() {
        if done.contains(start.as_str()) {
            continue;
        }
        // The chain so far, each with the dependencies still to look at: no recursion, chains may be long.
        let mut chain: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut on_chain = BTreeSet::new();
        let next = |name: &str| -> Vec<&str> {
            project
                .services
                .get(name)
                .map(|s| s.depends_on.keys().rev().map(String::as_str).collect())
                .unwrap_or_default()
        };
        chain.push((start, next(start)));
        on_chain.insert(start.as_str());
        while let Some((name, rest)) = chain.last_mut() {
            let name = *name;
            let Some(dependency) = rest.pop() else {
                chain.pop();
                on_chain.remove(name);
                done.insert(name);
                continue;
            };
            if on_chain.contains(dependency) {
                let from = chain
                    .iter()
                    .position(|(name, _)| *name == dependency)
                    .unwrap_or(0);
                let mut names: Vec<&str> = chain[from..].iter().map(|(name, _)| *name).collect();
                names.push(dependency);
                let at = report.at(&format!("services.{name}.depends_on.{dependency}"));
                let message = if names.len() == 2 {
                    format!("`services.{name}` depends on itself")
                } else {
                    format!("`depends_on` goes in a circle: {}", shorten(&names))
                };
                report.error(at, message, "remove one of these dependencies");
            } else if !done.contains(dependency) && project.services.contains_key(dependency) {
                chain.push((dependency, next(dependency)));
                on_chain.insert(dependency);
            }
        }
    }
}

fn shorten(names: &[&str]) -> String {
    const MOST: usize = 12;
    if names.len() <= MOST {
        return names.join(" → ");
    }
    format!(
        "{} → … → {}",
        names[..MOST - 1].join(" → "),
        names[names.len() - 1]
    )
}

/// Two keys must not share one network or volume by accident.
fn names(project: &Project, report: &mut Report) {
    let networks = project
        .networks
        .iter()
        .map(|(key, network)| ("network", "networks", key, &network.name));
    let volumes = project
        .volumes
        .iter()
        .map(|(key, volume)| ("volume", "volumes", key, &volume.name));
    let mut seen = BTreeMap::new();
    for (kind, section, key, name) in networks.chain(volumes) {
        if let Some(first) = seen.insert((kind, name), key) {
            let at = report.at(&format!("{section}.{key}"));
            let message = format!("the {kind}s `{first}` and `{key}` have the same name `{name}`");
            report.error(
                at,
                message,
                "give them different names, or use one key in both places",
            );
        }
    }
}
