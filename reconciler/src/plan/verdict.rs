//! One wanted instance against what is seen of it: the change, its cause, and what it takes.

use model::types::RestartPolicy;

use super::{
    container,
    slots::Pair,
    step::{Cause, Class},
    wanted::{self, Wanted},
};
use crate::{
    compare,
    key::{InstanceKey, Key},
    memory::Memory,
    observed::{Image, Instance, State},
    restart::{self, Decision, Exit},
    spec::{ContainerSpec, PortBinding, SandboxSpec},
    time::Now,
};

/// What brings an instance to what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Course {
    /// The process is as it should be, or has ended for good.
    Rest,
    /// Make what is missing of the sandbox and start.
    Start,
    /// Stop what runs and start in the same sandbox.
    Replace,
    /// Remove the sandbox, make it again, start.
    Rebuild,
    /// Start again after an end, in the same sandbox with the same upper directory.
    Revive {
        restarts: u32,
        streak: u32,
        reason: String,
    },
    /// Start again, but later.
    Later { until: u64, reason: String },
}

pub struct Verdict {
    pub change: Option<(Class, Cause)>,
    pub course: Course,
    /// The record of the running container must be rewritten.
    pub amend: bool,
    /// The sandbox must be made or brought to its specification.
    pub sandbox: bool,
    /// What to start; the error says why that is not known and what to do.
    pub target: Result<ContainerSpec, String>,
}

impl Verdict {
    /// What is seen of it will not be what runs.
    pub fn replaces(&self) -> bool {
        matches!(self.course, Course::Start | Course::Replace | Course::Rebuild)
    }
}

/// What is known about one wanted instance.
pub struct Case<'a> {
    pub key: &'a InstanceKey,
    pub wanted: Wanted<'a>,
    pub seen: Option<&'a Instance>,
    pub image: Result<&'a Image, String>,
    pub sandbox: Result<&'a SandboxSpec, &'a String>,
    /// It stays as it is for now.
    pub held: bool,
    /// What it shall take the place of, and why.
    pub pair: Option<&'a Pair>,
    /// Host ports that lead to it already.
    pub led: &'a [PortBinding],
    /// Why the networks of this instance are about to change, if they are.
    pub network_cause: Option<Cause>,
}

pub fn judge(case: Case<'_>, memory: &Memory, now: Now) -> Verdict {
    let Wanted { project, service } = case.wanted;
    let name = &case.key.service;
    let begun = memory.begun.get(&Key::Instance(case.key.clone()));
    let mut fields = container::compared(project, service);
    let target = case
        .image
        .clone()
        .and_then(|image| container::container(project, case.key, service, fields.clone(), image));
    let mut ignored = None;
    match &case.image {
        Ok(image) => {
            fields.insert("image.digest".to_owned(), image.digest.clone());
        }
        Err(_) => ignored = Some("image.digest"),
    }
    let mut verdict = Verdict {
        change: None,
        course: Course::Rest,
        amend: false,
        sandbox: false,
        target,
    };
    let Some((seen, have)) = case.seen.and_then(|seen| Some((seen, seen.container.as_ref()?))) else {
        return absent(verdict, case, begun);
    };
    verdict.sandbox = case.sandbox.is_ok_and(|spec| *spec != seen.sandbox) || !seen.drift.is_empty();
    if case.held {
        return held(verdict, &case, seen, have, now);
    }
    if seen.state == State::Lost {
        let text = Some("its supervisor is gone".to_owned());
        verdict.change = Some((Class::Recreate, wanted::noun("shim", text)));
        verdict.course = Course::Rebuild;
        verdict.sandbox = true;
        return verdict;
    }
    let difference = compare::compare(&have.fields, &fields, ignored.as_slice());
    if let Some(difference) = difference {
        let field = format!("services.{name}.{}", difference.field);
        let cause = wanted::cause(project, field, difference.old, difference.new);
        verdict.change = Some((difference.class, cause));
        if difference.class == Class::Live {
            verdict.amend = true;
        } else {
            verdict.course = Course::Replace;
            return verdict;
        }
    } else if let (State::Exited { .. }, Some((Class::Restart, cause))) = (&seen.state, begun) {
        verdict.change = Some((Class::Restart, cause.clone()));
        verdict.course = Course::Replace;
        return verdict;
    } else if seen.state == State::Created {
        verdict.change = Some((Class::Create, created(case.key, case.wanted)));
        verdict.course = Course::Start;
        return verdict;
    } else if !seen.drift.is_empty() {
        let cause = wanted::noun("sandbox", Some(seen.drift.join(", ")));
        verdict.change = Some((Class::Live, cause));
    } else if verdict.sandbox && !follows(&case, seen) {
        let cause = case
            .network_cause
            .unwrap_or_else(|| wanted::noun("sandbox", Some("its endpoints or ports differ".to_owned())));
        verdict.change = Some((Class::Live, cause));
    }
    if verdict.target.is_err() && !verdict.amend {
        // The same as what runs, whether or not its image can be resolved right now.
        verdict.target = Ok(have.clone());
    }
    verdict.course = after_exit(case.key, seen, service.restart, now);
    verdict
}

/// It stays what it is until its turn comes, or another one has taken its place.
fn held(mut verdict: Verdict, case: &Case<'_>, seen: &Instance, have: &ContainerSpec, now: Now) -> Verdict {
    verdict.target = Ok(have.clone());
    verdict.sandbox = !seen.drift.is_empty();
    if seen.state == State::Lost {
        let text = Some("its supervisor is gone".to_owned());
        verdict.change = Some((Class::Recreate, wanted::noun("shim", text)));
        verdict.course = Course::Rebuild;
        verdict.sandbox = true;
        return verdict;
    }
    if verdict.sandbox {
        let cause = wanted::noun("sandbox", Some(seen.drift.join(", ")));
        verdict.change = Some((Class::Live, cause));
    }
    verdict.course = after_exit(case.key, seen, have.restart, now);
    verdict
}

/// Its sandbox lacks nothing but the reservation of host ports that it has taken over.
fn follows(case: &Case<'_>, seen: &Instance) -> bool {
    let reserved = &seen.sandbox.ports;
    case.sandbox.is_ok_and(|spec| {
        let rest = SandboxSpec {
            ports: reserved.clone(),
            ..spec.clone()
        };
        let had = |binding| reserved.contains(binding) || case.led.contains(binding);
        rest == seen.sandbox
            && spec.ports.iter().all(had)
            && reserved.iter().all(|binding| spec.ports.contains(binding))
    })
}

fn absent(mut verdict: Verdict, case: Case<'_>, begun: Option<&(Class, Cause)>) -> Verdict {
    verdict.sandbox = case
        .seen
        .is_none_or(|seen| case.sandbox.is_ok_and(|spec| *spec != seen.sandbox) || !seen.drift.is_empty());
    verdict.course = Course::Start;
    if case.seen.is_some_and(|seen| seen.state == State::Lost) {
        verdict.course = Course::Rebuild;
        verdict.sandbox = true;
    }
    if let Some(pair) = case.pair.filter(|pair| !pair.flipped) {
        verdict.change = Some((Class::Recreate, pair.cause.clone()));
        return verdict;
    }
    verdict.change = Some(match begun {
        Some((Class::Recreate, cause)) => (Class::Recreate, cause.clone()),
        _ => (Class::Create, created(case.key, case.wanted)),
    });
    verdict
}

/// Why there is to be this instance: its service, or that there are several.
fn created(key: &InstanceKey, Wanted { project, service }: Wanted<'_>) -> Cause {
    let name = &key.service;
    match key.index {
        1 => wanted::cause(project, format!("services.{name}"), None, None),
        _ => {
            let scale = Some(wanted::scale(service).to_string());
            wanted::cause(project, format!("services.{name}.scale"), None, scale)
        }
    }
}

/// What the restart policy says about an instance that is as wanted.
pub fn after_exit(key: &InstanceKey, seen: &Instance, policy: RestartPolicy, now: Now) -> Course {
    let State::Exited { code, at } = seen.state else {
        return Course::Rest;
    };
    let key = key.to_string();
    let exit = Exit {
        key: &key,
        policy,
        code,
        streak: seen.streak,
        started_at: seen.started_at,
        at,
    };
    match restart::decide(exit, now.boot) {
        Decision::Now { streak, reason } => Course::Revive {
            restarts: seen.restarts.saturating_add(1),
            streak,
            reason,
        },
        Decision::At { until, reason } => Course::Later { until, reason },
        Decision::Never { .. } => Course::Rest,
    }
}
