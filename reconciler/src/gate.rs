//! `depends_on`: whether a service may start, given what its dependencies are.

use model::types::Condition;

use crate::observed::{Health, Instance, State, fault};

/// What one instance of a dependency is, as far as its dependants care.
#[derive(Debug, Clone, Copy)]
pub struct Dependency<'a> {
    pub project: &'a str,
    /// The service.
    pub name: &'a str,
    pub seen: Option<&'a Instance>,
    /// It is about to be made or replaced: what is seen does not count.
    pub changing: bool,
    /// It is not started again by itself.
    pub last: bool,
    /// Its start is done only when its hooks are.
    pub hooked: bool,
    /// It ended with this, as wanted and for good, and nothing is left of it.
    pub ended: Option<i32>,
    /// By an operator: with whom, and how it is started.
    pub stopped: Option<&'a str>,
    /// Why it cannot be started now.
    pub failed: Option<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// Opens with the dependency's start, which may be a step of this pass.
    OnStart,
    /// Opens later, by an event.
    Shut,
    /// Does not open by itself: why, and what to do.
    Stuck(String),
}

/// Whether `condition` holds for `dependency`.
pub fn gate(condition: Condition, dependency: Dependency<'_>) -> Gate {
    let Dependency { project, name, .. } = dependency;
    let seen = dependency.seen.filter(|_| !dependency.changing);
    let code = match seen.map(|seen| &seen.state) {
        Some(State::Exited { code, .. }) => Some(*code),
        Some(_) => None,
        None => dependency.ended,
    };
    if condition == Condition::CompletedSuccessfully
        && (code == Some(0) || (planted!("completed-with-an-error") && code.is_some()))
    {
        return Gate::Open;
    }
    if let Some(stopped) = dependency.stopped {
        return Gate::Stuck(format!("{name} is {stopped}"));
    }
    if let (None, None, Some(why)) = (seen, code, dependency.failed) {
        return Gate::Stuck(format!("{name} cannot start: {why}"));
    }
    let logs = format!("see `stead logs {project} {name}`");
    let starting = seen.is_some_and(Instance::is_starting);
    match condition {
        Condition::Started => match seen.map(|seen| &seen.state) {
            Some(State::Exited { code, .. }) if starting && dependency.last => {
                let ended = fault::ended(*code, seen.and_then(Instance::died));
                Gate::Stuck(format!("{name} {ended} and must have started; {logs}"))
            }
            _ if starting => Gate::Shut,
            Some(State::Running { .. }) => Gate::Open,
            _ if code.is_some() => Gate::Open,
            _ if dependency.hooked => Gate::Shut,
            _ => Gate::OnStart,
        },
        Condition::Healthy => match (seen, code) {
            (_, Some(code)) if dependency.last => {
                Gate::Stuck(format!("{name} exited with {code} and must be healthy; {logs}"))
            }
            (Some(seen), _) if seen.container.as_ref().is_some_and(|spec| spec.health.is_none()) => {
                Gate::Stuck(format!(
                    "{name} has no healthcheck; give it one or depend on service_started"
                ))
            }
            (Some(seen), _) => match (&seen.state, seen.health) {
                (State::Running { .. }, Health::Healthy) if !starting => Gate::Open,
                (State::Running { .. }, Health::Starting) if planted!("starting-is-healthy") => Gate::Open,
                (State::Running { .. }, Health::Unhealthy) => {
                    Gate::Stuck(format!("{name} is unhealthy; {logs}"))
                }
                _ => Gate::Shut,
            },
            (None, _) => Gate::Shut,
        },
        Condition::CompletedSuccessfully => match code {
            Some(code) if dependency.last => Gate::Stuck(format!(
                "{name} exited with {code} and must complete successfully; {logs}"
            )),
            _ => Gate::Shut,
        },
    }
}

/// `after db is healthy`
pub fn text(name: &str, condition: Condition) -> String {
    match condition {
        Condition::Started => format!("after {name} has started"),
        Condition::Healthy => format!("after {name} is healthy"),
        Condition::CompletedSuccessfully => format!("after {name} has completed"),
    }
}

#[cfg(test)]
mod tests;
