//! Operators' orders (`stop`, `start`, `restart`): whom they name, what they make of the intents on record, and
//! whether they are carried out. Pure.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use model::types::Project;
use reconciler::{
    desired::{Intent, Target},
    key::{InstanceKey, Slot},
    observed::{Instance, Observed, State},
    time::Now,
};
use serde::{Deserialize, Serialize};

use crate::intake::Report;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    Stop,
    Start,
    Restart,
}

/// By target; at most one each.
pub type Intents = BTreeMap<Target, Intent>;

/// Who is named by `PROJECT`, `PROJECT/SERVICE[/INDEX]`, or `SERVICE` where only one project has it.
///
/// # Errors
/// Nobody is, or it is not clear who.
pub fn targets(text: &str, report: &Report) -> anyhow::Result<Vec<Target>> {
    let parts: Vec<&str> = text.split('/').collect();
    let running = report.projects.iter().filter(|(_, seen)| !seen.down);
    let projects: BTreeMap<&str, _> = running
        .filter_map(|(name, seen)| Some((name.as_str(), seen.project.as_ref()?)))
        .collect();
    let target = |project: &str, service: &str, index| Target {
        project: project.to_owned(),
        service: service.to_owned(),
        index,
    };
    let (name, service, index) = match *parts.as_slice() {
        [name] => {
            if let Some(project) = projects.get(name) {
                let services = project.services.keys();
                return Ok(services.map(|service| target(name, service, None)).collect());
            }
            let mut having = projects
                .iter()
                .filter(|(_, project)| project.services.contains_key(name));
            match (having.next(), having.next()) {
                (Some((project, _)), None) => return Ok(vec![target(project, name, None)]),
                (Some((one, _)), Some((other, _))) => {
                    bail!("`{name}` is in several projects ({one}, {other}); write PROJECT/{name}")
                }
                (None, _) if report.projects.contains_key(name) => {
                    bail!("nothing of {name} is to run; `stead status {name}` says why")
                }
                (None, _) => {
                    bail!("there is no project or service `{name}`; `stead ps -a` shows what there is")
                }
            }
        }
        [name, service] => (name, service, None),
        [name, service, index] => match index.parse::<u32>() {
            Ok(index) if index > 0 => (name, service, Some(index)),
            _ => bail!("`{text}`: {index} is no index; they count from 1"),
        },
        _ => bail!("`{text}` is no target; write PROJECT/SERVICE[/INDEX]"),
    };
    let found = projects
        .get(name)
        .and_then(|project| project.services.get(service));
    match found {
        None => bail!("there is no service `{name}/{service}`; `stead ps -a` shows what there is"),
        Some(found) => match index {
            Some(index) if index > found.container.scale.unwrap_or(1) => {
                bail!("there is no `{text}`; `stead ps -a {name}` shows what there is")
            }
            index => Ok(vec![target(name, service, index)]),
        },
    }
}

/// What is on record once `order` is given for `target`. `scale`: how many there are of the service.
pub fn give(
    order: Order,
    target: &Target,
    scale: u32,
    before: &Intents,
    observed: &Observed,
    boot_id: &str,
    at: Now,
) -> Intents {
    let mut intents = before.clone();
    let whole = Target {
        index: None,
        ..target.clone()
    };
    let one = |index| Target {
        index: Some(index),
        ..target.clone()
    };
    let stopped = [target, &whole]
        .iter()
        .any(|target| matches!(before.get(target), Some(Intent::Stop { .. })));
    // What was said of all is said of each of the others.
    if target.index.is_some()
        && let Some(intent) = intents.remove(&whole)
    {
        for index in (1..=scale).map(Some).filter(|index| *index != target.index) {
            intents
                .entry(one(index.unwrap_or(1)))
                .or_insert_with(|| intent.clone());
        }
    }
    // What was said of one is overruled.
    intents.retain(|other, _| !covers(target, other));
    let run = Intent::Run {
        boot_id: boot_id.to_owned(),
        at,
    };
    match order {
        Order::Stop => {
            intents.insert(target.clone(), Intent::Stop { at });
        }
        Order::Restart => {
            intents.insert(target.clone(), run);
        }
        // Who runs is left alone.
        Order::Start if stopped || target.index.is_some() => {
            if stopped || !runs(observed, target, target.index.unwrap_or(1)) {
                intents.insert(target.clone(), run);
            }
        }
        Order::Start => {
            let still: BTreeSet<u32> = (1..=scale)
                .filter(|index| !runs(observed, target, *index))
                .collect();
            if still.len() == scale as usize {
                intents.insert(target.clone(), run);
            } else {
                intents.extend(still.into_iter().map(|index| (one(index), run.clone())));
            }
        }
    }
    intents
}

/// Whether an order for `one` is one for `other`, too.
fn covers(one: &Target, other: &Target) -> bool {
    one.project == other.project
        && one.service == other.service
        && (one.index.is_none() || one.index == other.index)
}

fn instances<'a>(
    observed: &'a Observed,
    target: &'a Target,
) -> impl Iterator<Item = (&'a InstanceKey, &'a Instance)> {
    observed
        .instances
        .known()
        .into_iter()
        .flatten()
        .filter(|(key, _)| {
            key.project == target.project
                && key.service == target.service
                && target.index.is_none_or(|index| index == key.index)
        })
}

fn runs(observed: &Observed, target: &Target, index: u32) -> bool {
    instances(observed, target)
        .any(|(key, instance)| key.index == index && matches!(instance.state, State::Running { .. }))
}

/// What an operator has ordered for one instance: its own order, or that for its service.
pub fn of<'a>(intents: &'a Intents, key: &InstanceKey) -> Option<&'a Intent> {
    let target = |index| Target {
        project: key.project.clone(),
        service: key.service.clone(),
        index,
    };
    let own = intents.get(&target(Some(key.index)));
    own.or_else(|| intents.get(&target(None)))
}

/// Whether the host shows what was ordered. `project`: as it is wanted; `None`: it is gone.
pub fn is_done(target: &Target, intents: &Intents, project: Option<&Project>, observed: &Observed) -> bool {
    let Some(intent) = intents.get(target) else {
        return true;
    };
    if observed.instances.known().is_none() {
        return false;
    }
    let (boot_id, at) = match intent {
        Intent::Stop { .. } => {
            let runs = |(_, one): (_, &Instance)| matches!(one.state, State::Running { .. });
            return !instances(observed, target).any(runs);
        }
        Intent::Run { boot_id, at } => (boot_id, at.boot),
    };
    // Every start of a later boot is later.
    let Some(project) = project.filter(|_| *boot_id == observed.boot_id) else {
        return true;
    };
    let started = |service: &str, index: u32| {
        let one = Target {
            service: service.to_owned(),
            index: Some(index),
            ..target.clone()
        };
        instances(observed, &one).any(|(_, one)| one.started_at.is_some_and(|start| start >= at))
    };
    let scale = |service: &str| {
        let service = project.services.get(service);
        service.map_or(0, |service| service.container.scale.unwrap_or(1))
    };
    let own = match target.index {
        Some(index) => index..=index,
        None => 1..=scale(&target.service),
    };
    let stopped = |service: &str, index: u32| {
        let key = InstanceKey {
            project: target.project.clone(),
            service: service.to_owned(),
            index,
            slot: Slot::A,
        };
        matches!(of(intents, &key), Some(Intent::Stop { .. }))
    };
    own.into_iter().all(|index| started(&target.service, index))
        && followers(project, &target.service).into_iter().all(|service| {
            (1..=scale(service)).all(|index| stopped(service, index) || started(service, index))
        })
}

/// Who is started anew when `service` is: `depends_on` with `restart: true`, and who depends on those so.
fn followers<'a>(project: &'a Project, service: &str) -> BTreeSet<&'a str> {
    let mut found: BTreeSet<&str> = BTreeSet::new();
    let mut next = vec![service];
    while let Some(of) = next.pop() {
        for (name, other) in &project.services {
            let follows = other.depends_on.get(of).is_some_and(|on| on.restart);
            if follows && found.insert(name) {
                next.push(name);
            }
        }
    }
    found
}

/// What is not carried out yet, and what holds until it is cleared.
pub fn pending(report: &Report, observed: &Observed) -> Intents {
    let mut intents = report.intents.clone();
    intents.retain(|target, intent| {
        matches!(intent, Intent::Stop { .. })
            || !is_done(target, &report.intents, project(report, target), observed)
    });
    intents
}

/// The project of a target as it is wanted.
pub fn project<'a>(report: &'a Report, target: &Target) -> Option<&'a Project> {
    let project = report.projects.get(&target.project)?.project.as_deref()?;
    project.services.contains_key(&target.service).then_some(project)
}

/// How many of its service are wanted.
pub fn scale(report: &Report, target: &Target) -> Option<u32> {
    let project = report.projects.get(&target.project)?.project.as_ref()?;
    let service = project.services.get(&target.service)?;
    Some(service.container.scale.unwrap_or(1))
}

#[cfg(test)]
mod tests;
