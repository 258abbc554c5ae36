//! One wanted instance against what is seen of it: the change, its cause, and what it takes.

mod ordered;

use std::borrow::Cow;

use super::{
    container::{self, Looks},
    orders::Order,
    slots::Pair,
    step::{Cause, Class},
    wanted::{self, Wanted},
};
use crate::{
    compare::Difference,
    key::{InstanceKey, Key},
    memory::Memory,
    observed::{Ended, Health, Image, Instance, Observed, State},
    restart::{self, Decision, Exit, Flap, Rules},
    spec::{ContainerSpec, PortBinding, SandboxSpec},
    time::Now,
};

use ordered::ASKED;
pub use ordered::OPERATOR;

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
    /// Start again as it was, in the same sandbox with the same upper directory; what runs is stopped before.
    Again {
        restarts: u32,
        streak: u32,
        flaps: u32,
        reason: String,
    },
    /// Start again, but later.
    Later { until: u64, reason: String },
    /// It runs, and its hooks are not done.
    Starting { reason: String },
    /// Stop what runs, and keep its sandbox.
    Stop,
    /// Remove what a lost supervisor has left, and start nothing.
    Clear,
    /// Whether it may start is not known: why.
    Unsure(String),
}

pub struct Verdict<'a> {
    pub change: Option<(Class, Cause)>,
    pub course: Course,
    /// The record of the running container must be rewritten.
    pub amend: bool,
    /// The sandbox must be made or brought to its specification.
    pub sandbox: bool,
    /// What to start; the error says why that is not known and what to do.
    pub target: Result<Cow<'a, ContainerSpec>, String>,
    /// It ended as wanted and for good, with this, and its sandbox is gone.
    pub ended: Option<i32>,
    /// It is not to run; the text is for people.
    pub stopped: Option<String>,
}

impl Verdict<'_> {
    /// It is as it shall be.
    pub fn is_settled(&self) -> bool {
        self.change.is_none()
            && self.course == Course::Rest
            && !self.amend
            && !self.sandbox
            && self.stopped.is_none()
            && self.target.is_ok()
    }

    /// What is seen of it will not be what runs.
    pub fn replaces(&self) -> bool {
        matches!(self.course, Course::Start | Course::Replace | Course::Rebuild)
    }

    /// Its sandbox must be made anew, although nothing of its own asks for it. Whether that is news.
    pub fn rebuild(&mut self, cause: Cause) -> bool {
        if matches!(self.course, Course::Rebuild | Course::Clear) || self.stopped.is_some() {
            return false;
        }
        self.change = Some((Class::Recreate, cause));
        self.course = Course::Rebuild;
        self.sandbox = true;
        true
    }

    /// Something is started.
    pub fn starts(&self) -> bool {
        self.replaces() || matches!(self.course, Course::Again { .. })
    }

    /// Why steps are taken, and which class they have in the plan.
    pub fn cause(&self) -> (Option<Class>, Cause) {
        let text = match (&self.change, &self.course) {
            (Some((class, cause)), _) => return (Some(*class), cause.clone()),
            (None, Course::Again { reason, .. }) => reason.clone(),
            (None, Course::Start | Course::Stop) => ASKED.to_owned(),
            (None, _) => return (None, wanted::noun("sandbox", None)),
        };
        let field = match self.course {
            Course::Again { .. } if text != ASKED => "exit",
            _ => OPERATOR,
        };
        (None, wanted::noun(field, Some(text)))
    }
}

/// What is known about one wanted instance.
pub struct Case<'a> {
    pub key: &'a InstanceKey,
    pub wanted: Wanted<'a>,
    pub rules: Rules,
    pub seen: Option<&'a Instance>,
    pub looks: &'a Looks<'a>,
    pub observed: &'a Observed,
    pub image: Result<&'a Image, String>,
    pub sandbox: Result<&'a SandboxSpec, &'a str>,
    /// It stays as it is for now.
    pub held: bool,
    /// What it shall take the place of, and why.
    pub pair: Option<&'a Pair>,
    /// Host ports that lead to it already.
    pub led: &'a [PortBinding],
    /// Why the networks of this instance are about to change, if they are.
    pub network_cause: Option<Cause>,
    /// Why its namespaces must be made anew, if they must: its sandbox cannot be changed to what it shall be.
    pub moved: Option<Cause>,
    /// How it ended, where nothing else is left of it.
    pub ended: Result<Option<&'a Ended>, &'a String>,
    pub order: Option<Order>,
}

pub fn judge<'a>(case: Case<'a>, memory: &Memory, now: Now) -> Verdict<'a> {
    let (key, seen, order) = (case.key, case.seen, case.order);
    let mut verdict = as_written(case, memory, now);
    match order {
        None => {}
        Some(Order::Stop { .. }) if planted!("operator-ignored") => {}
        Some(Order::Stop { one }) => ordered::stop(&mut verdict, key, one, seen),
        Some(Order::Run { at }) => {
            let last = seen.and_then(|seen| seen.started_at);
            if last.is_none_or(|started| started < at) {
                ordered::run(&mut verdict, seen);
            }
        }
    }
    verdict
}

fn supervisor_gone() -> Cause {
    wanted::noun("shim", Some("its supervisor is gone".to_owned()))
}

/// Without what an operator has ordered.
fn as_written<'a>(case: Case<'a>, memory: &Memory, now: Now) -> Verdict<'a> {
    let Wanted { project, service } = case.wanted;
    let begun = match memory.begun.is_empty() {
        true => None,
        false => memory.begun.get(&Key::Instance(case.key.clone())),
    };
    let begun = begun.filter(|_| !planted!("begun-forgotten"));
    let have = case.seen.and_then(|seen| seen.container.as_deref());
    let difference = have.and_then(|have| case.looks.difference(case.wanted, &have.fields));
    let target = match (have, &difference) {
        // The same as what runs, whether or not its image can be resolved right now.
        (Some(have), None) => Ok(Cow::Borrowed(have)),
        _ => {
            let made = case.image.clone().and_then(|image| {
                let fields = case.looks.after(case.wanted, have.map(|have| &have.fields));
                container::container(project, case.key, service, fields, image, case.observed)
            });
            made.map(Cow::Owned)
        }
    };
    let mut verdict = Verdict {
        change: None,
        course: Course::Rest,
        amend: false,
        sandbox: false,
        target,
        ended: None,
        stopped: None,
    };
    let Some((seen, have)) = case
        .seen
        .and_then(|seen| Some((seen, seen.container.as_deref()?)))
    else {
        return absent(verdict, case, begun);
    };
    verdict.sandbox = case.sandbox.is_ok_and(|spec| *spec != *seen.sandbox)
        || (!seen.drift.is_empty() && !planted!("drift-ignored"));
    if case.held {
        return held(verdict, &case, seen, have, begun, memory, now);
    }
    let recreated = |difference: &Difference| difference.class == Class::Recreate;
    if let Some(cause) = case
        .moved
        .as_ref()
        .filter(|_| !difference.as_ref().is_some_and(recreated))
    {
        verdict.change = Some((Class::Recreate, cause.clone()));
        verdict.course = Course::Rebuild;
        return verdict;
    }
    if let Some(difference) = difference {
        let class = difference.class;
        verdict.change = Some((class, differs(case.wanted, case.key, difference)));
        match class {
            Class::Live => match (&seen.state, begun) {
                // It was stopped to be started anew, and is not what ended by itself.
                (State::Exited { .. }, Some((Class::Restart, cause))) => {
                    verdict.change = Some((Class::Restart, cause.clone()));
                    verdict.course = Course::Replace;
                    return verdict;
                }
                _ => verdict.amend = true,
            },
            Class::Recreate => {
                verdict.course = Course::Rebuild;
                return verdict;
            }
            _ => {
                verdict.course = Course::Replace;
                return verdict;
            }
        }
    } else if let (State::Running { .. }, Some(why)) = (
        &seen.state,
        seen.broken.as_ref().filter(|_| !planted!("root-gone-ignored")),
    ) {
        verdict.change = Some((Class::Restart, wanted::noun("mounts", Some(why.clone()))));
        verdict.course = Course::Replace;
        return verdict;
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
    verdict.course = supervise(case.key, case.rules, seen, memory, now);
    verdict
}

/// It stays what it is until its turn comes, or another one has taken its place.
fn held<'a>(
    mut verdict: Verdict<'a>,
    case: &Case<'_>,
    seen: &Instance,
    have: &'a ContainerSpec,
    begun: Option<&(Class, Cause)>,
    memory: &Memory,
    now: Now,
) -> Verdict<'a> {
    verdict.target = Ok(Cow::Borrowed(have));
    // As it is, but in namespaces that are there.
    if let Some(cause) = &case.moved {
        verdict.rebuild(cause.clone());
        return verdict;
    }
    if let (State::Exited { .. }, Some((Class::Restart, cause))) = (&seen.state, begun) {
        verdict.change = Some((Class::Restart, cause.clone()));
        verdict.course = Course::Replace;
        return verdict;
    }
    if !seen.drift.is_empty() {
        let cause = wanted::noun("sandbox", Some(seen.drift.join(", ")));
        verdict.change = Some((Class::Live, cause));
    }
    let rules = Rules {
        policy: have.restart,
        ..case.rules
    };
    verdict.course = supervise(case.key, rules, seen, memory, now);
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
        rest == *seen.sandbox
            && spec.ports.iter().all(had)
            && reserved.iter().all(|binding| spec.ports.contains(binding))
    })
}

/// Nothing was started yet, or the sandbox is gone.
fn absent<'a>(mut verdict: Verdict<'a>, case: Case<'_>, begun: Option<&(Class, Cause)>) -> Verdict<'a> {
    let lost = case.seen.is_some_and(|seen| seen.state == State::Lost);
    let finished = match begun {
        // The records of its slot are about earlier versions.
        _ if case.pair.is_some() => Finished::No,
        // Of one that was lost the exit record is what was before, and still true.
        Some((Class::Recreate, cause)) if *cause != supervisor_gone() => Finished::No,
        _ => finished(&case),
    };
    verdict.sandbox = case
        .seen
        .is_none_or(|seen| case.sandbox.is_ok_and(|spec| *spec != *seen.sandbox) || !seen.drift.is_empty());
    match &finished {
        Finished::Yes(code) if case.seen.is_none() => {
            verdict.ended = Some(*code);
            verdict.sandbox = false;
            return verdict;
        }
        Finished::Yes(_) if lost => {
            let text = Some("is gone; nothing ran any more".to_owned());
            verdict.change = Some((Class::Remove, wanted::noun("shim", text)));
            verdict.course = Course::Clear;
            verdict.sandbox = false;
            return verdict;
        }
        Finished::Unknown(why) => {
            verdict.course = Course::Unsure(why.clone());
            verdict.sandbox = false;
            return verdict;
        }
        _ => {}
    }
    let anew = lost || case.moved.is_some();
    verdict.course = if anew { Course::Rebuild } else { Course::Start };
    verdict.sandbox |= anew;
    if let Some(pair) = case.pair {
        verdict.change = Some((Class::Recreate, pair.cause.clone()));
        return verdict;
    }
    verdict.change = Some(match (begun, finished) {
        (Some((Class::Recreate, cause)), _) => (Class::Recreate, cause.clone()),
        // Nothing is known any more of what ran in it.
        _ if lost => (Class::Recreate, supervisor_gone()),
        (_, Finished::Outdated(difference)) => (Class::Restart, differs(case.wanted, case.key, difference)),
        _ => (Class::Create, created(case.key, case.wanted)),
    });
    verdict
}

/// Whether something has ended for good.
enum Finished {
    /// With this.
    Yes(i32),
    No,
    /// It has, and is to run again because of this.
    Outdated(Difference),
    Unknown(String),
}

/// What the exit record says about an instance of which nothing else is left.
fn finished(case: &Case<'_>) -> Finished {
    let ended = match case.ended {
        Ok(Some(ended)) => ended,
        Ok(None) => return Finished::No,
        // Who is started again after every end is not asked how it ended.
        Err(_) if !case.rules.ends(0) => return Finished::No,
        Err(why) => return Finished::Unknown(format!("the exit records could not be read: {why}")),
    };
    match case.looks.difference(case.wanted, &ended.container.fields) {
        Some(difference) if difference.class > Class::Live => Finished::Outdated(difference),
        _ if case.rules.ends(ended.code) && !planted!("job-run-twice") => Finished::Yes(ended.code),
        _ => Finished::No,
    }
}

fn differs(wanted: Wanted<'_>, key: &InstanceKey, difference: Difference) -> Cause {
    let field = format!("services.{}.{}", key.service, difference.field);
    // What a config holds is written where the config is.
    let source = difference.field.strip_suffix(".content");
    let source = source.filter(|source| source.starts_with("configs.") || source.starts_with("secrets."));
    let span = source.and_then(|source| wanted.project.origin(source).cloned());
    let mut cause = wanted::cause(wanted.project, field, difference.old, difference.new);
    cause.span = span.or(cause.span);
    cause
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

/// What the rules say about an instance that is as wanted.
fn supervise(key: &InstanceKey, rules: Rules, seen: &Instance, memory: &Memory, now: Now) -> Course {
    if let (State::Exited { .. }, Some(flaps)) = (&seen.state, memory.flapping.get(key)) {
        return Course::Again {
            restarts: seen.restarts.saturating_add(1),
            streak: seen.streak,
            flaps: *flaps,
            reason: format!("unhealthy; restart {flaps} of {}", restart::FLAPS),
        };
    }
    match seen.state {
        State::Exited { code, at } => {
            let key = key.to_string();
            let exit = Exit {
                key: &key,
                rules,
                code,
                streak: seen.streak,
                started_at: seen.started_at,
                at,
                died: seen.died(),
            };
            match restart::decide(exit, now.boot) {
                Decision::Now { streak, reason } => Course::Again {
                    restarts: if planted!("restarts-not-counted") {
                        1
                    } else {
                        seen.restarts.saturating_add(1)
                    },
                    streak,
                    flaps: seen.flaps,
                    reason,
                },
                Decision::At { until, reason } => Course::Later { until, reason },
                Decision::Never { .. } | Decision::UsedUp { .. } => Course::Rest,
            }
        }
        State::Running { .. } if rules.unhealthy && seen.health == Health::Unhealthy => {
            match restart::unhealthy(&key.to_string(), seen.flaps, seen.started_at, now.boot) {
                Flap::Now { flaps, reason } => Course::Again {
                    restarts: seen.restarts.saturating_add(1),
                    streak: seen.streak,
                    flaps,
                    reason,
                },
                Flap::At { until, reason } => Course::Later { until, reason },
                Flap::LeftAlone => Course::Rest,
            }
        }
        State::Running { .. } if seen.is_starting() => Course::Starting {
            reason: seen.hook.map_or_else(String::new, |hook| format!("{hook} runs")),
        },
        State::Running { .. } => match restart::steady_at(rules, seen, now.boot) {
            Some(until) => Course::Later {
                until,
                reason: format!(
                    "restarted {} times in a row; that is over once it has run for {} s",
                    seen.streak,
                    rules.window / 1000
                ),
            },
            None => Course::Rest,
        },
        State::Created | State::Lost => Course::Rest,
    }
}
