//! Operators' orders (`stop`, `start`, `restart`): whom they name, what they make of the intents on record, and
//! whether they are carried out. Pure.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use reconciler::{
    desired::{Intent, Target},
    key::InstanceKey,
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

/// Whether the host shows what was ordered. `scale`: how many are wanted of the service; `None`: it is gone.
pub fn is_done(target: &Target, intent: &Intent, scale: Option<u32>, observed: &Observed) -> bool {
    if observed.instances.known().is_none() {
        return false;
    }
    match intent {
        Intent::Stop { .. } => {
            !instances(observed, target).any(|(_, instance)| matches!(instance.state, State::Running { .. }))
        }
        Intent::Run { boot_id, at } => {
            let Some(scale) = scale else { return true };
            let wanted = match target.index {
                Some(index) => index..=index,
                None => 1..=scale,
            };
            // Every start of a later boot is later.
            let started = |instance: &Instance| {
                *boot_id != observed.boot_id || instance.started_at.is_some_and(|start| start >= at.boot)
            };
            wanted
                .into_iter()
                .all(|index| instances(observed, target).any(|(key, one)| key.index == index && started(one)))
        }
    }
}

/// How many of its service are wanted.
pub fn scale(report: &Report, target: &Target) -> Option<u32> {
    let project = report.projects.get(&target.project)?.project.as_ref()?;
    let service = project.services.get(&target.service)?;
    Some(service.container.scale.unwrap_or(1))
}

#[cfg(test)]
mod tests;
