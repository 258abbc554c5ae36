//! From what the loop and the intake know to what people and programs are shown. Pure.

pub mod faults;

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::diagnostic::{Diagnostic, Severity};
use reconciler::{
    desired::{Intent, Target},
    key::{InstanceKey, Key, Slot},
    observed::{Fact, Health, Instance, Observed, State},
    plan::{
        action::Action,
        step::{Change, Waiting},
    },
    spec::PortBinding,
    status::{ProjectState, ProjectStatus, Status},
    time::Now,
};

use super::wire;
use crate::{
    intake::{Report, Seen},
    orders::{self, Intents},
};

/// Wall-clock milliseconds as RFC 3339.
pub fn time(wall: u64) -> Option<String> {
    let milliseconds = i64::try_from(wall).ok()?;
    Timestamp::from_millisecond(milliseconds)
        .ok()
        .map(|time| time.to_string())
}

/// A moment on the boot clock as RFC 3339.
fn boot_time(boot: u64, now: Now) -> Option<String> {
    let wall = i128::from(now.wall) + i128::from(boot) - i128::from(now.boot);
    time(u64::try_from(wall).ok()?)
}

/// What is there, and what is wanted and not there yet.
pub fn instances(status: &Status, report: &Report) -> Vec<wire::Instance> {
    let mut rows = BTreeMap::new();
    for (project, seen) in &report.projects {
        let Some(wanted) = seen.project.as_ref().filter(|_| !seen.down) else {
            continue;
        };
        for (service, spec) in &wanted.services {
            let key = InstanceKey {
                project: project.clone(),
                service: service.clone(),
                index: 1,
                slot: Slot::A,
            };
            let mut row = blank(&key, status);
            row.image = spec.image.clone();
            if failed(&key, status) {
                row.state = "failed".into();
            }
            rows.insert((project.clone(), service.clone(), 1, Slot::A), row);
        }
    }
    if let Fact::Known(instances) = &status.observed.instances {
        for (key, instance) in instances {
            // One in the other slot is there in the place of the wanted one.
            rows.retain(|place, row| {
                row.state != "waiting"
                    || (&place.0, &place.1, place.2) != (&key.project, &key.service, key.index)
            });
            let place = (key.project.clone(), key.service.clone(), key.index, key.slot);
            let mut row = row(key, instance, status);
            if row.image.is_empty() {
                row.image = image(key, report);
            }
            rows.insert(place, row);
        }
    }
    // Whose sandbox is gone, and who is to stay as it ended.
    for (key, ended) in status.observed.ended.known().into_iter().flatten() {
        let comes = |change: &Change| matches!(&change.key, Key::Instance(other) if other == key);
        let own = rows.iter_mut().filter(|(place, row)| {
            row.state == "waiting" && (&place.0, &place.1, place.2) == (&key.project, &key.service, key.index)
        });
        for (_, row) in own.filter(|_| !status.plan.changes.iter().any(comes)) {
            row.state = "exited".into();
            row.exit_code = Some(ended.code);
            row.restarts = ended.restarts;
            row.faults = ended.died.iter().map(faults::row).collect();
            row.image_digest = Some(ended.container.image_digest.clone());
        }
    }
    let intents = orders::pending(report, &status.observed);
    let seen = status.observed.instances.known();
    let mut rows: Vec<wire::Instance> = rows
        .into_iter()
        .map(|((project, service, index, slot), mut row)| {
            let key = InstanceKey {
                project,
                service,
                index,
                slot,
            };
            if let Some(name) = name(&key, seen.and_then(|seen| seen.get(&key)), report) {
                row.name = name;
            }
            row.intent = orders::of(&intents, &key).map(|intent| word(intent).to_owned());
            row
        })
        .collect();
    rows.sort_by(|a, b| (&a.project, &a.service, a.index).cmp(&(&b.project, &b.service, b.index)));
    rows
}

/// An order as it is shown.
fn word(intent: &Intent) -> &'static str {
    match intent {
        Intent::Stop { .. } => "stop",
        Intent::Run { .. } => "start",
    }
}

/// What is on record for these targets (`None`: all there is), and whether the host shows it.
pub fn ordered(status: &Status, report: &Report, of: Option<&[Target]>) -> Vec<wire::Ordered> {
    let all = report.intents.keys().cloned().collect::<Vec<_>>();
    of.unwrap_or(&all)
        .iter()
        .map(|target| {
            let intent = report.intents.get(target);
            let at = intent.map(|(Intent::Stop { at } | Intent::Run { at, .. })| at.wall);
            wire::Ordered {
                target: target.to_string(),
                intent: intent.map(|intent| word(intent).to_owned()),
                at: at.and_then(time),
                done: orders::is_done(
                    target,
                    &report.intents,
                    orders::project(report, target),
                    &status.observed,
                ),
            }
        })
        .collect()
}

/// As the manifest says.
fn image(key: &InstanceKey, report: &Report) -> String {
    let seen = report.projects.get(&key.project);
    let project = seen.and_then(|seen| seen.project.as_ref());
    let service = project.and_then(|project| project.services.get(&key.service));
    service.map(|service| service.image.clone()).unwrap_or_default()
}

/// As the manifest says, or else as it was started.
fn name(key: &InstanceKey, seen: Option<&Instance>, report: &Report) -> Option<String> {
    let project = report
        .projects
        .get(&key.project)
        .and_then(|seen| seen.project.as_ref());
    let service = project.and_then(|project| project.services.get(&key.service));
    let started = seen.and_then(|seen| seen.container.as_ref());
    match service {
        Some(service) => service.names.container_name.clone(),
        None => started.and_then(|container| container.fields.get("container_name").cloned()),
    }
}

fn blank(key: &InstanceKey, status: &Status) -> wire::Instance {
    wire::Instance {
        project: key.project.clone(),
        service: key.service.clone(),
        index: key.index,
        name: format!("{}-{}-{}", key.project, key.service, key.index),
        state: "waiting".into(),
        health: "none".into(),
        pid: None,
        exit_code: None,
        restarts: 0,
        image: String::new(),
        image_digest: None,
        started_at: None,
        addresses: BTreeMap::new(),
        ports: Vec::new(),
        revision: status
            .projects
            .get(&key.project)
            .and_then(|project| project.applied.clone()),
        intent: None,
        faults: Vec::new(),
        hook: None,
    }
}

fn row(key: &InstanceKey, instance: &Instance, status: &Status) -> wire::Instance {
    let container = instance.container.as_ref();
    let mut row = blank(key, status);
    row.state = state(key, instance, status).into();
    row.health = match instance.health {
        Health::None => "none",
        Health::Starting => "starting",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
    }
    .into();
    match instance.state {
        State::Running { pid } => {
            row.pid = Some(pid);
            row.hook = instance.hook.map(|hook| hook.to_string());
        }
        State::Exited { code, .. } => row.exit_code = Some(code),
        State::Created | State::Lost => {}
    }
    row.restarts = instance.restarts;
    row.faults = instance.faults.iter().map(faults::row).collect();
    row.image = container
        .and_then(|spec| spec.fields.get("image").cloned())
        .unwrap_or_default();
    row.image_digest = container.map(|spec| spec.image_digest.clone());
    row.started_at = instance.started_wall.and_then(time);
    for endpoint in &instance.sandbox.endpoints {
        let addresses = row.addresses.entry(endpoint.network.name.clone()).or_default();
        addresses.push(endpoint.address.to_string());
    }
    row.ports = instance.sandbox.ports.iter().map(port).collect();
    row
}

fn port(binding: &PortBinding) -> wire::Port {
    wire::Port {
        host_ip: binding.host_ip.to_string(),
        published: binding.published,
        target: binding.target,
        protocol: match binding.protocol {
            model::types::Protocol::Tcp => "tcp",
            model::types::Protocol::Udp => "udp",
        }
        .into(),
    }
}

fn state(key: &InstanceKey, instance: &Instance, status: &Status) -> &'static str {
    let is_key = |other: &Key| matches!(other, Key::Instance(other) if other == key);
    let stopping = status.stopping.contains_key(key)
        || status.plan.steps.iter().any(|step| {
            matches!(&step.action, Action::StopContainer { key: other, .. } | Action::RemoveSandbox(other) if other == key)
        });
    let delayed = |waiting: &Waiting| is_key(&waiting.key) && waiting.until.is_some();
    match instance.state {
        State::Running { .. } if stopping => "stopping",
        State::Running { .. } => "running",
        State::Created if failed(key, status) => "failed",
        State::Created => "created",
        State::Exited { .. } if status.plan.waiting.iter().any(delayed) => "backoff",
        State::Exited { .. } if failed(key, status) => "failed",
        State::Exited { .. } => "exited",
        State::Lost => "failed",
    }
}

fn failed(key: &InstanceKey, status: &Status) -> bool {
    let text = Key::Instance(key.clone()).to_string();
    status
        .projects
        .get(&key.project)
        .is_some_and(|project| project.failures.iter().any(|failure| failure.key == text))
}

/// One entry for each project that has a manifest or is still being worked on.
pub fn projects(status: &Status, report: &Report) -> Vec<wire::Project> {
    let mut names: Vec<&String> = report.projects.keys().chain(status.projects.keys()).collect();
    names.sort();
    names.dedup();
    let intents = orders::pending(report, &status.observed);
    names
        .into_iter()
        .filter_map(|name| {
            let (seen, done) = (report.projects.get(name), status.projects.get(name));
            if seen.is_none() && objects(&status.observed, name, false).is_some_and(|left| left.is_empty()) {
                return None;
            }
            let mut row = project(name, seen, done, status.at);
            row.conditions.extend(ordered_of(name, &intents, report));
            row.conditions.extend(faults::conditions(name, status));
            Some(row)
        })
        .collect()
}

fn project(name: &str, seen: Option<&Seen>, done: Option<&ProjectStatus>, now: Now) -> wire::Project {
    let diagnostics: Vec<wire::Diagnostic> = seen
        .map(|seen| seen.diagnostics.iter().map(diagnostic).collect())
        .unwrap_or_default();
    let error = diagnostics
        .iter()
        .find(|diagnostic| diagnostic.severity == "error");
    let revision = wire::Revision {
        seen: seen.and_then(|seen| seen.revision.clone()),
        tried: done.and_then(|done| done.tried.clone()),
        applied: done.and_then(|done| done.applied.clone()),
    };
    let state = match done {
        _ if error.is_some() => ProjectState::Degraded,
        None => ProjectState::Working,
        // The loop has not come to this revision yet.
        Some(_)
            if revision.seen.is_some()
                && revision.seen != revision.tried
                && !seen.is_some_and(|s| s.down) =>
        {
            ProjectState::Working
        }
        Some(done) => done.state,
    };
    wire::Project {
        project: name.to_owned(),
        source: seen.map(|seen| seen.source.clone()),
        state: match state {
            ProjectState::Converged => "converged",
            ProjectState::Working => "working",
            ProjectState::Waiting => "waiting",
            ProjectState::Degraded => "degraded",
        }
        .into(),
        conditions: conditions(seen, done, error, state),
        revision,
        next_attempt: done
            .and_then(|done| done.next_attempt)
            .and_then(|boot| boot_time(boot, now)),
        diagnostics,
    }
}

fn conditions(
    seen: Option<&Seen>,
    done: Option<&ProjectStatus>,
    error: Option<&wire::Diagnostic>,
    state: ProjectState,
) -> Vec<wire::Condition> {
    let condition = |kind: &str, status, reason: &str, message: &str, since| wire::Condition {
        kind: kind.into(),
        status,
        reason: reason.into(),
        message: message.into(),
        since,
    };
    let mut all = vec![match (seen, error) {
        (Some(seen), Some(error)) => {
            let message = match seen {
                Seen {
                    revision: None,
                    project: Some(_),
                    down: false,
                    ..
                } => format!("{}; {}", error.message, wire::LAST_GOOD),
                _ => error.message.clone(),
            };
            condition("ManifestValid", false, "Error", &message, None)
        }
        (Some(_), None) => condition("ManifestValid", true, "Loaded", "", None),
        (None, _) => condition(
            "ManifestValid",
            false,
            "Removed",
            "the manifest is gone; the project goes",
            None,
        ),
    }];
    if seen.is_some_and(|seen| seen.down) {
        let message = "an operator took it down; `stead apply` or `stead up` brings it back";
        all.push(condition("Down", true, "Operator", message, None));
    }
    all.push(match state {
        ProjectState::Converged => condition("Converged", true, "NothingToDo", "", None),
        ProjectState::Working => condition("Converged", false, "Working", "", None),
        ProjectState::Waiting => condition("Converged", false, "Waiting", "", None),
        ProjectState::Degraded => condition("Converged", false, "Degraded", "", None),
    });
    for waiting in done.into_iter().flat_map(|done| &done.waiting) {
        all.push(condition(
            "Waiting",
            true,
            &waiting.key.to_string(),
            &waiting.why,
            None,
        ));
    }
    for failure in done.into_iter().flat_map(|done| &done.failures) {
        let place = failure.span.as_ref().map_or(String::new(), |span| {
            format!("{}:{}:{}: ", span.file.display(), span.line, span.column)
        });
        let attempt = match failure.attempts {
            0 => String::new(),
            attempts => format!(" (attempt {attempts})"),
        };
        let message = format!("{place}{}{attempt}", failure.message);
        all.push(condition("Failed", true, &failure.key, &message, None));
    }
    all
}

/// Orders of operators that hold, and those that are lost.
fn ordered_of(name: &str, intents: &Intents, report: &Report) -> Vec<wire::Condition> {
    let own = intents.iter().filter(|(target, _)| target.project == name);
    let own = own.map(|(target, intent)| {
        let (message, at) = match intent {
            Intent::Stop { at } => (
                format!("{target} was stopped by an operator; `stead start {target}` lets it run again"),
                at,
            ),
            Intent::Run { at, .. } => (format!("an operator ordered {target} to be started"), at),
        };
        wire::Condition {
            kind: "Intent".into(),
            status: true,
            reason: target.to_string(),
            message,
            since: time(at.wall),
        }
    });
    let lost = report.lost.iter().filter(|lost| lost.project == name);
    let lost = lost.map(|lost| wire::Condition {
        kind: "IntentLost".into(),
        status: true,
        reason: lost.path.display().to_string(),
        message: format!(
            "an operator's order is lost: {} is damaged ({}); give it again with `stead stop` or `stead start`, or remove that file",
            lost.path.display(),
            lost.why
        ),
        since: None,
    });
    own.chain(lost).collect()
}

pub fn diagnostic(diagnostic: &Diagnostic) -> wire::Diagnostic {
    wire::Diagnostic {
        file: diagnostic.span.file.clone(),
        line: diagnostic.span.line,
        column: diagnostic.span.column,
        severity: match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
        .into(),
        message: diagnostic.message.clone(),
        hint: diagnostic.hint.clone(),
    }
}

/// What the host has of a project; `None`: not known. Volumes outlive their project unless asked for.
pub fn objects(observed: &Observed, project: &str, volumes: bool) -> Option<Vec<String>> {
    let (instances, networks) = (observed.instances.known()?, observed.networks.known()?);
    let mut found: Vec<String> = Vec::new();
    let own = |name: &String| name == project;
    found.extend(
        instances
            .keys()
            .filter(|key| own(&key.project))
            .map(|key| format!("container {key}")),
    );
    found.extend(
        networks
            .keys()
            .filter(|key| own(&key.project))
            .map(|key| format!("network {key}")),
    );
    if volumes {
        let all = observed.volumes.known()?;
        found.extend(
            all.keys()
                .filter(|key| own(&key.project))
                .map(|key| format!("volume {key}")),
        );
    }
    Some(found)
}
