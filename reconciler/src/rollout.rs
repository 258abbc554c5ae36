//! How the instances of one service are replaced: how many at a time, when the next ones, and what follows
//! when new ones fail. Pure; the moment is an input.

use std::collections::{BTreeMap, BTreeSet};

use model::types::{FailureAction, Namespace, Project, Service, UpdateConfig};

use crate::{
    observed::{Health, Instance, State},
    restart::STEADY,
    time::Now,
};

/// How a service is updated, every default filled in. Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// 0: all at once.
    pub parallelism: u32,
    pub delay: u64,
    pub monitor: u64,
    pub start_first: bool,
    pub action: FailureAction,
    /// Thousandths of the instances.
    pub ratio: u32,
}

impl Config {
    pub fn of(update: Option<&UpdateConfig>) -> Self {
        let none = UpdateConfig::default();
        let update = update.unwrap_or(&none);
        let time = |time: Option<model::types::Duration>| time.map_or(0, model::types::Duration::as_millis);
        Config {
            parallelism: update.parallelism.unwrap_or(1),
            delay: time(update.delay),
            monitor: time(update.monitor),
            start_first: update.start_first,
            action: update.failure_action.unwrap_or(FailureAction::Pause),
            ratio: update.max_failure_ratio.unwrap_or(0),
        }
    }

    /// How `service` goes back to the version before.
    pub fn back(service: &Service) -> Self {
        let deploy = service.container.deploy.as_ref();
        match deploy.and_then(|deploy| deploy.rollback_config.as_ref()) {
            Some(rollback) => Config::of(Some(rollback)),
            None => Config {
                delay: 0,
                monitor: 0,
                action: FailureAction::Continue,
                ..Config::of(deploy.and_then(|deploy| deploy.update_config.as_ref()))
            },
        }
    }
}

/// Whether an update of `service` that fails is taken back.
pub fn returns(service: &Service) -> bool {
    let deploy = service.container.deploy.as_ref();
    let update = deploy.and_then(|deploy| deploy.update_config.as_ref());
    update.and_then(|update| update.failure_action) == Some(FailureAction::Rollback)
}

/// How far the update of one instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// There is none of it: nothing is replaced when it starts.
    Absent,
    /// As it was. `down`: it does not run anyway.
    Outdated { down: bool },
    /// Being replaced, or not settled yet. `until`: when it is, if nothing happens.
    Updating { until: Option<u64> },
    /// As its update wants it, since this boot-clock millisecond.
    Updated { since: u64 },
    /// Updated, and not as it should be.
    Failed { why: String },
}

#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    pub config: Config,
    /// By index.
    pub progress: &'a BTreeMap<u32, Progress>,
    /// There is a version to go back to.
    pub can_return: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// May be made or replaced now.
    pub now: BTreeSet<u32>,
    /// When more may follow by the clock alone (boot-clock milliseconds).
    pub until: Option<u64>,
    pub course: Course,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Course {
    On,
    /// Nothing more is replaced before the manifest changes: why.
    Paused(String),
    /// The project goes back to its last good version: why.
    Back(String),
}

/// What of the update of one service may go on at `now` (boot-clock milliseconds).
pub fn decide(input: Input<'_>, now: u64) -> Decision {
    let Input { config, progress, .. } = input;
    let failed: Vec<String> = progress
        .iter()
        .filter_map(|(index, progress)| match progress {
            Progress::Failed { why } => Some(format!("container {index} {why}")),
            _ => None,
        })
        .collect();
    let absent = progress
        .iter()
        .filter(|(_, progress)| **progress == Progress::Absent)
        .map(|(index, _)| *index);
    let mut decision = Decision {
        now: absent.collect(),
        until: None,
        course: Course::On,
    };
    let tolerated = progress.len() as u64 * u64::from(config.ratio);
    if failed.len() as u64 * 1000 > tolerated && !planted!("ratio-ignored") {
        let why = failed.join(", ");
        match config.action {
            FailureAction::Continue => {}
            FailureAction::Rollback if input.can_return => {
                decision.course = Course::Back(why);
                return decision;
            }
            FailureAction::Rollback | FailureAction::Pause => {
                decision.course = Course::Paused(why);
                return decision;
            }
        }
    }
    // Each place of the group is free again `delay` after what was replaced there has settled.
    let mut busy: usize = 0;
    let mut until: Option<u64> = None;
    for progress in progress.values() {
        let free_at = match progress {
            Progress::Updating { until } => until.map(|until| until.saturating_add(config.delay)),
            Progress::Updated { since } => match since.saturating_add(config.delay) {
                over if over <= now => continue,
                over => Some(over),
            },
            Progress::Absent | Progress::Outdated { .. } | Progress::Failed { .. } => continue,
        };
        busy += 1;
        until = until.into_iter().chain(free_at).min();
    }
    let mut outdated: Vec<(bool, u32)> = progress
        .iter()
        .filter_map(|(index, progress)| match progress {
            Progress::Outdated { down } => Some((!down, *index)),
            _ => None,
        })
        .collect();
    // Who is down loses nothing.
    outdated.sort_unstable();
    let places = match config.parallelism {
        _ if planted!("parallelism-ignored") => outdated.len(),
        0 => outdated.len(),
        places => (places as usize).saturating_sub(busy),
    };
    if outdated.len() > places {
        decision.until = until;
    }
    decision
        .now
        .extend(outdated.into_iter().take(places).map(|(_, index)| index));
    decision
}

/// What an instance of the wanted version has come to. `healthy`: since when it is known to be healthy.
/// `counts`: what goes wrong with it is a failure of the update.
pub fn progress(seen: &Instance, config: &Config, healthy: Option<u64>, counts: bool, now: u64) -> Progress {
    let fail = |why: String| match counts {
        true => Progress::Failed { why },
        false => Progress::Updating { until: None },
    };
    match seen.state {
        State::Created | State::Lost => Progress::Updating { until: None },
        State::Exited { at, .. } if finished(seen) => Progress::Updated { since: at },
        State::Exited { code, .. } => fail(format!("ended with {code}")),
        State::Running { .. } if seen.is_starting() => Progress::Updating { until: None },
        State::Running { .. } => {
            let started = seen.started_at.unwrap_or(0);
            match seen.health {
                Health::Unhealthy => return fail("is unhealthy".to_owned()),
                _ if counts && seen.restarts > 0 => {
                    return fail(format!("had to be restarted {} times", seen.restarts));
                }
                Health::Starting => return Progress::Updating { until: None },
                Health::None | Health::Healthy => {}
            }
            let monitor = if planted!("monitor-ignored") {
                0
            } else {
                config.monitor
            };
            let since = started.saturating_add(monitor).max(healthy.unwrap_or_default());
            match since <= now {
                true => Progress::Updated { since },
                false => Progress::Updating { until: Some(since) },
            }
        }
    }
}

/// It has ended, and its restart policy leaves it at that.
pub fn over(seen: &Instance) -> bool {
    use model::types::RestartPolicy::{Always, No, OnFailure, UnlessStopped};
    let State::Exited { code, .. } = seen.state else {
        return false;
    };
    seen.container.as_ref().is_some_and(|spec| match spec.restart {
        No => true,
        OnFailure(_) => code == 0,
        Always | UnlessStopped => false,
    })
}

/// It has done what it was started for.
pub fn finished(seen: &Instance) -> bool {
    matches!(seen.state, State::Exited { code: 0, .. }) && over(seen)
}

/// Whether a new instance can take names and host ports over from the one beside it; `Err`: when it can by
/// the clock alone.
pub fn ready(seen: &Instance, config: &Config, now: u64) -> Result<(), Option<u64>> {
    if !matches!(seen.state, State::Running { .. }) || seen.is_starting() {
        return Err(None);
    }
    let proven = match seen.health {
        _ if planted!("update-before-ready") => return Ok(()),
        Health::Healthy => return Ok(()),
        Health::Starting | Health::Unhealthy => return Err(None),
        // Without a health check, running is all that shows.
        Health::None if seen.streak > 0 => config.monitor.max(STEADY),
        Health::None => config.monitor,
    };
    match seen.started_at.unwrap_or(0).saturating_add(proven) {
        at if at <= now => Ok(()),
        at => Err(Some(at)),
    }
}

/// Boot-clock milliseconds since when an instance with a health check is seen healthy. `known`: what was so
/// far.
pub fn healthy_since(seen: &Instance, known: Option<u64>, now: Now) -> Option<u64> {
    let running = matches!(seen.state, State::Running { .. });
    let started = seen.started_at.unwrap_or(0);
    (running && seen.health == Health::Healthy)
        .then(|| known.filter(|known| *known >= started).unwrap_or(now.boot))
}

/// Why no second instance of `name` can run beside the first: there is something that only one can have.
pub fn alone(project: &Project, name: &str, service: &Service) -> Option<String> {
    let networks = &service.networks;
    if let Some((network, _)) = networks
        .iter()
        .find(|(_, attachment)| attachment.ipv4_address.is_some() || attachment.ipv6_address.is_some())
    {
        return Some(format!("its static address in {network} cannot be had twice"));
    }
    if networks
        .values()
        .any(|attachment| attachment.mac_address.is_some())
    {
        return Some("its MAC address cannot be had twice".to_owned());
    }
    if let Some(container) = &service.names.container_name {
        return Some(format!("its container_name {container} cannot be had twice"));
    }
    if !service.security.devices.is_empty() {
        return Some("its devices cannot be had twice".to_owned());
    }
    match &service.namespaces.network_mode {
        Some(Namespace::Host) => return Some("it has the ports of the host's own network".to_owned()),
        Some(Namespace::Service(other) | Namespace::Container(other)) => {
            return Some(format!("it shares the network of {other}"));
        }
        _ => {}
    }
    let sharer = project.services.iter().find(|(other, service)| {
        let spaces = &service.namespaces;
        let shared = [&spaces.network_mode, &spaces.ipc, &spaces.pid, &spaces.uts];
        let ours =
            |space: &Option<Namespace>| matches!(space, Some(Namespace::Service(whose)) if whose == name);
        *other != name && shared.into_iter().any(ours)
    });
    sharer.map(|(other, _)| format!("{other} shares its namespaces"))
}

#[cfg(test)]
mod tests;
