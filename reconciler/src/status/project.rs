//! From the last plan, what runs and what failed to the state of each project.

use std::collections::{BTreeMap, BTreeSet};

use model::diagnostic::Span;

use super::{Failure, ProjectState, ProjectStatus};
use crate::{
    desired::{Desired, Wish},
    key::Key,
    memory::{Again, Memory},
    observed::Observed,
    plan::step::{Plan, Step},
    time::Now,
};

/// What the loop knows after a pass.
pub struct Facts<'a> {
    pub desired: &'a Desired,
    pub observed: &'a Observed,
    pub memory: &'a Memory,
    pub plan: &'a Plan,
    pub running: &'a [Step],
    /// Something is being looked at: nobody is converged before it was seen.
    pub looking: bool,
    /// Last converged revision by project.
    pub applied: &'a BTreeMap<String, String>,
    pub now: Now,
}

/// Every project that is wanted or still has something on the host.
pub fn projects(facts: &Facts<'_>) -> BTreeMap<String, ProjectStatus> {
    let mut names: BTreeSet<&str> = facts.desired.projects.keys().map(String::as_str).collect();
    let instances = facts.observed.instances.known().into_iter().flatten();
    names.extend(instances.map(|(key, _)| key.project.as_str()));
    let networks = facts.observed.networks.known().into_iter().flatten();
    names.extend(networks.map(|(key, _)| key.project.as_str()));
    names
        .into_iter()
        .map(|name| (name.to_owned(), project(facts, name)))
        .collect()
}

fn project(facts: &Facts<'_>, name: &str) -> ProjectStatus {
    let wish = facts.desired.projects.get(name);
    // The firewall is everybody's.
    let concerns = |key: &Key| key.project().is_none_or(|project| project == name);
    let own = |key: &Key| key.project() == Some(name);
    let waiting: Vec<_> = facts
        .plan
        .waiting
        .iter()
        .filter(|waiting| concerns(&waiting.key))
        .cloned()
        .collect();
    let mut failures: Vec<Failure> = facts
        .memory
        .failures
        .iter()
        .filter(|(key, _)| concerns(key))
        .map(|(key, failed)| Failure {
            key: key.to_string(),
            message: failed.message.clone(),
            span: wish.and_then(|wish| place(wish, key, failed.field)),
            at: failed.at,
            attempts: failed.attempts,
        })
        .collect();
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.at.boot));
    if let Some(Wish::Hold { why }) = wish {
        failures.insert(
            0,
            Failure {
                key: name.to_owned(),
                message: why.clone(),
                span: None,
                at: facts.now,
                attempts: 0,
            },
        );
    }
    let barred = match wish {
        Some(Wish::Run { revision, .. }) => facts
            .memory
            .barred
            .get(name)
            .filter(|barred| barred.revision == *revision),
        _ => None,
    };
    if let Some(barred) = barred {
        let revision: String = barred.revision.chars().take(12).collect();
        failures.insert(
            0,
            Failure {
                key: name.to_owned(),
                message: format!(
                    "revision {revision} was rolled back: {}; change the manifest to try again",
                    barred.why
                ),
                span: None,
                at: facts.now,
                attempts: 0,
            },
        );
    }
    let stands_still = waiting
        .iter()
        .any(|waiting| matches!(waiting.key, Key::Volume(_)) && waiting.until.is_none());
    let busy = facts.looking
        || facts.running.iter().any(|step| concerns(&step.key))
        || facts.plan.steps.iter().any(|step| concerns(&step.key));
    let state = if !failures.is_empty() || stands_still {
        ProjectState::Degraded
    } else if busy {
        ProjectState::Working
    } else if !waiting.is_empty() || facts.plan.changes.iter().any(|change| own(&change.key)) {
        ProjectState::Waiting
    } else {
        ProjectState::Converged
    };
    let retries = facts
        .memory
        .failures
        .iter()
        .filter(|(key, _)| concerns(key))
        .filter_map(|(_, failed)| match failed.again {
            Again::At(until) => Some(until),
            Again::AfterChange | Again::Never => None,
        });
    let next_attempt = waiting
        .iter()
        .filter_map(|waiting| waiting.until)
        .chain(retries)
        .min();
    let tried = match wish {
        Some(Wish::Run { revision, .. }) => Some(revision.clone()),
        _ => None,
    };
    let quiet = !busy && waiting.is_empty() && !facts.plan.changes.iter().any(|change| own(&change.key));
    let applied = match (barred, facts.memory.good.get(name)) {
        (Some(_), Some(good)) if quiet => Some(good.revision.clone()),
        _ => facts.applied.get(name).cloned(),
    };
    ProjectStatus {
        state,
        tried,
        applied,
        waiting,
        failures,
        next_attempt,
    }
}

/// Where the manifest speaks of `key`, or of that field of it.
fn place(wish: &Wish, key: &Key, field: Option<&str>) -> Option<Span> {
    let Wish::Run { project, .. } = wish else {
        return None;
    };
    let path = match key {
        Key::Instance(key) => match field {
            Some(field) => format!("services.{}.{field}", key.service),
            None => format!("services.{}", key.service),
        },
        Key::Image { reference, .. } => {
            let (name, _) = project
                .services
                .iter()
                .find(|(_, service)| service.image == *reference)?;
            format!("services.{name}.image")
        }
        Key::Network(key) | Key::Names(key) => {
            let (name, _) = project
                .networks
                .iter()
                .find(|(_, network)| network.name == key.name)?;
            format!("networks.{name}")
        }
        Key::Volume(key) => {
            let (name, _) = project
                .volumes
                .iter()
                .find(|(_, volume)| volume.name == key.name)?;
            format!("volumes.{name}")
        }
        Key::Firewall => return None,
    };
    project.origin(&path).cloned()
}
