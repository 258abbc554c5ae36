//! From the last plan, what runs and what failed to the state of each project.

use std::collections::{BTreeMap, BTreeSet};

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
    ProjectStatus {
        state,
        tried,
        applied: facts.applied.get(name).cloned(),
        waiting,
        failures,
        next_attempt,
    }
}
