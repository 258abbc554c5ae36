//! `depends_on`: whether a service may start, given what its dependencies are.

use model::types::Condition;

use crate::observed::{Health, Instance, State};

/// What a dependency is, as far as its dependants care.
#[derive(Debug, Clone, Copy)]
pub struct Dependency<'a> {
    pub seen: Option<&'a Instance>,
    /// It is about to be made or replaced: what is seen does not count.
    pub changing: bool,
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

/// Whether `condition` holds for `dependency`, called `name`.
pub fn gate(name: &str, condition: Condition, dependency: Dependency<'_>) -> Gate {
    let seen = dependency.seen.filter(|_| !dependency.changing);
    match condition {
        Condition::Started => match seen.map(|seen| &seen.state) {
            Some(State::Running { .. } | State::Exited { .. }) => Gate::Open,
            _ => Gate::OnStart,
        },
        Condition::Healthy => match seen {
            Some(seen) if seen.container.as_ref().is_some_and(|spec| spec.health.is_none()) => Gate::Stuck(
                format!("{name} has no healthcheck; give it one or depend on service_started"),
            ),
            Some(seen) => match (&seen.state, seen.health) {
                (State::Running { .. }, Health::Healthy) => Gate::Open,
                (State::Running { .. }, Health::Unhealthy) => {
                    Gate::Stuck(format!("{name} is unhealthy; see `stead logs`"))
                }
                _ => Gate::Shut,
            },
            None => Gate::Shut,
        },
        Condition::CompletedSuccessfully => match seen.map(|seen| &seen.state) {
            Some(State::Exited { code: 0, .. }) => Gate::Open,
            Some(State::Exited { code, .. }) => Gate::Stuck(format!(
                "{name} exited with {code} and must complete successfully; see `stead logs`"
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
