//! From the last plan, what runs and what failed to the state of each project.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use model::diagnostic::Span;

use super::{Failure, ProjectState, ProjectStatus};
use crate::{
    desired::{Desired, Intent, Wish},
    key::Key,
    memory::{Again, Barred, Memory},
    observed::{Observed, State},
    plan::{
        action::Action,
        step::{Plan, Step},
    },
    restart::{self, Rules},
    spec::FirewallSpec,
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
    /// Images that are being looked at, or will be: neither is who wants one of them.
    pub images: &'a BTreeSet<String>,
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
    let remains = facts.observed.remains.known().into_iter().flatten();
    names.extend(remains.map(|key| key.project.as_str()));
    let mut alerts = alerts(facts);
    let reached = reached(facts);
    names
        .into_iter()
        .map(|name| {
            let alerts = alerts.remove(name).unwrap_or_default();
            (name.to_owned(), project(facts, name, alerts, &reached))
        })
        .collect()
}

/// What keeps going wrong with instances that are as their manifest wants them, by project.
fn alerts<'a>(facts: &Facts<'a>) -> BTreeMap<&'a str, Vec<Failure>> {
    let mut alerts: BTreeMap<&str, Vec<Failure>> = BTreeMap::new();
    let now = facts.now;
    for (key, seen) in facts.observed.instances.known().into_iter().flatten() {
        // Most are well, and need no look into their project.
        let ended = matches!(seen.state, State::Exited { .. });
        if !ended && seen.streak < restart::LOOP && seen.flaps < restart::FLAPS {
            continue;
        }
        let wish = facts.desired.projects.get(&key.project);
        let project = wish.and_then(|wish| facts.memory.effective(&key.project, wish));
        let Some((project, service)) =
            project.and_then(|project| Some((project, project.services.get(&key.service)?)))
        else {
            continue;
        };
        let Some(message) = restart::alert(key, Rules::of(service), seen, now.boot) else {
            continue;
        };
        let object = Key::Instance(key.clone());
        let changes = facts.plan.changes.iter().any(|change| change.key == object);
        let mut intents = facts.desired.intents.iter();
        let stopped =
            intents.any(|(target, intent)| target.covers(key) && matches!(intent, Intent::Stop { .. }));
        if !changes && !stopped {
            let at = match seen.state {
                State::Exited { at, .. } => at,
                _ => seen.started_at.unwrap_or(now.boot),
            };
            alerts.entry(&key.project).or_default().push(Failure {
                key: object.to_string(),
                message,
                span: project.origin(&format!("services.{}", key.service)).cloned(),
                at: Now {
                    boot: at,
                    wall: now.wall.saturating_sub(now.boot.saturating_sub(at)),
                },
                attempts: seen.streak.max(seen.flaps),
            });
        }
    }
    alerts
}

static NOTHING: FirewallSpec = FirewallSpec {
    networks: BTreeMap::new(),
    ports: BTreeMap::new(),
};

/// The projects whose part of the firewall is about to change.
fn reached<'a>(facts: &Facts<'a>) -> BTreeSet<&'a str> {
    let steps = facts.running.iter().chain(&facts.plan.steps);
    let specs = steps.filter_map(|step| match &step.action {
        Action::SyncFirewall(spec) => Some(spec),
        _ => None,
    });
    let (seen, drift) = match facts.observed.firewall.known() {
        Some(seen) => (&seen.spec, !seen.drift.is_empty()),
        None => (&NOTHING, true),
    };
    let mut reached = BTreeSet::new();
    for spec in specs {
        let networks = || spec.networks.iter().chain(&seen.networks);
        let differing = networks().filter(|(key, _)| spec.networks.get(key) != seen.networks.get(key));
        reached.extend(differing.map(|(key, _)| key.project.as_str()));
        let ports = spec.ports.keys().chain(seen.ports.keys());
        let mut changed = ports
            .filter(|port| spec.ports.get(port) != seen.ports.get(port))
            .peekable();
        if changed.peek().is_some() {
            let owners: BTreeMap<Ipv4Addr, &str> = networks()
                .flat_map(|(key, network)| network.endpoints.iter().map(move |(address, _)| (key, address)))
                .map(|(key, address)| (*address, key.project.as_str()))
                .collect();
            for port in changed {
                let targets = [spec.ports.get(port), seen.ports.get(port)];
                let owner = targets
                    .into_iter()
                    .flatten()
                    .filter_map(|it| owners.get(&it.address));
                reached.extend(owner);
            }
        }
        // What is wrong with it is wrong for all.
        if drift || spec == seen {
            reached.extend(networks().map(|(key, _)| key.project.as_str()));
        }
    }
    reached
}

fn project(facts: &Facts<'_>, name: &str, alerts: Vec<Failure>, reached: &BTreeSet<&str>) -> ProjectStatus {
    let wish = facts.desired.projects.get(name);
    // That the firewall fails, or cannot be read, is everybody's affair.
    let concerns = |key: &Key| key.project().is_none_or(|project| project == name);
    let works = |step: &Step| match step.key.project() {
        Some(project) => project == name,
        None => reached.contains(name),
    };
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
    failures.extend(alerts);
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
        let (what, until) = match barred.images.is_empty() {
            true => (format!("revision {revision}"), "until the manifest changes"),
            false => (
                Barred::named(&barred.images),
                "until the tag moves on or the manifest changes",
            ),
        };
        let runs = match facts.memory.good.contains_key(name) {
            true => "the one before it runs",
            false => "which one was good before it is not known, and nothing is touched",
        };
        failures.insert(
            0,
            Failure {
                key: name.to_owned(),
                message: format!("{what} was rolled back: {}; {runs} {until}", barred.why),
                span: None,
                at: facts.now,
                attempts: 0,
            },
        );
    }
    let stands_still = waiting
        .iter()
        .any(|waiting| matches!(waiting.key, Key::Volume(_)) && waiting.until.is_none());
    // What waits for nobody waits for what runs: the image or the firewall of another project, too.
    let mut changes = facts.plan.changes.iter().filter(|change| own(&change.key));
    let next = changes.clone().any(|change| change.gate.is_none()) && waiting.is_empty();
    let project = wish.and_then(|wish| facts.memory.effective(name, wish));
    let mut services = project.into_iter().flat_map(|project| project.services.values());
    let looking = !facts.images.is_empty() && services.any(|service| facts.images.contains(&service.image));
    let busy = facts.looking
        || looking
        || facts.running.iter().any(works)
        || facts.plan.steps.iter().any(works)
        || (next && !facts.running.is_empty());
    let state = if !failures.is_empty() || stands_still {
        ProjectState::Degraded
    } else if busy {
        ProjectState::Working
    } else if !waiting.is_empty() || changes.next().is_some() {
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
