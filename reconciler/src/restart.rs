//! Whether and when a container that ended, or is unhealthy, is started again, and when that is worth an
//! alert. Pure; the moment is an input.

use model::types::{OnUnhealthy, RestartPolicy, Service};

use crate::{
    backoff,
    key::InstanceKey,
    observed::{Fault, Health, Instance, State, fault},
};

/// Milliseconds of running after which earlier crashes are forgotten, where the service says nothing else.
pub const STEADY: u64 = 10_000;
/// Restarts in a row from which on a container is said to keep ending.
pub const LOOP: u32 = 5;
/// Restarts in a row for being unhealthy, after which a container is left alone.
pub const FLAPS: u32 = 5;
/// Milliseconds since the start after which earlier restarts for being unhealthy are forgotten.
pub const CALM: u64 = 600_000;
/// The point of the back-off curve (12.8 s) that a container has at least to become healthy.
const PATIENCE: u32 = 7;
/// How a stop ends most programs: 128 + SIGTERM, 128 + SIGKILL.
const STOPPED: [i32; 2] = [143, 137];

/// What a service says about being started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    pub policy: RestartPolicy,
    /// Restarts in a row at most, whatever the policy.
    pub attempts: Option<u32>,
    /// Milliseconds before each restart; `None`: the back-off decides.
    pub delay: Option<u64>,
    /// Milliseconds of running after which a restart has succeeded.
    pub window: u64,
    /// Also when it runs and is unhealthy.
    pub unhealthy: bool,
}

impl Rules {
    /// A policy and nothing else.
    pub fn by(policy: RestartPolicy) -> Rules {
        Rules {
            policy,
            attempts: None,
            delay: None,
            window: STEADY,
            unhealthy: false,
        }
    }

    pub fn of(service: &Service) -> Rules {
        let deploy = service.container.deploy.as_ref();
        let time =
            |time: Option<model::types::Duration>| time.map(|time| time.as_millis()).filter(|time| *time > 0);
        Rules {
            policy: service.restart,
            attempts: deploy.and_then(|deploy| deploy.restart_attempts),
            delay: time(deploy.and_then(|deploy| deploy.restart_delay)),
            window: time(deploy.and_then(|deploy| deploy.restart_window)).unwrap_or(STEADY),
            unhealthy: service.container.on_unhealthy == Some(OnUnhealthy::Restart),
        }
    }

    /// Why an end with `code` is the last one, however often it was started before.
    fn last(self, code: i32) -> Option<&'static str> {
        match self.policy {
            // Between the stop of an unhealthy one and its start our agent may have ended.
            RestartPolicy::No if self.unhealthy && STOPPED.contains(&code) => None,
            RestartPolicy::No => Some("restart is \"no\""),
            RestartPolicy::OnFailure(_) if code == 0 && !planted!("success-is-failure") => {
                Some("restart is on-failure")
            }
            _ => None,
        }
    }

    /// Whether an end with `code` is the last one.
    pub fn ends(self, code: i32) -> bool {
        self.last(code).is_some()
    }

    fn limit(self) -> Option<u32> {
        match (self.policy, self.attempts) {
            (RestartPolicy::OnFailure(Some(limit)), None) => Some(limit),
            (RestartPolicy::OnFailure(Some(limit)), Some(other)) => Some(limit.min(other)),
            (_, attempts) => attempts,
        }
    }
}

/// One end of a container. Times are boot-clock milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Exit<'a> {
    /// Text form of the instance: the seed of the jitter.
    pub key: &'a str,
    pub rules: Rules,
    /// Exit status, or 128 + signal.
    pub code: i32,
    /// Restarts in a row before this end.
    pub streak: u32,
    pub started_at: Option<u64>,
    pub at: u64,
    /// Why it ended, where `code` does not say it.
    pub died: Option<&'a Fault>,
}

impl Exit<'_> {
    /// Restarts in a row that count.
    fn streak(&self) -> u32 {
        let ran = self
            .started_at
            .map_or(0, |started| self.at.saturating_sub(started));
        // A start that failed has not run, however long its hooks took.
        let started =
            !matches!(self.died, Some(Fault::PostStart { .. })) || planted!("hook-failure-forgiven");
        if started && ran >= self.rules.window && !planted!("streak-never-over") {
            0
        } else {
            self.streak
        }
    }
}

/// What follows, with the reason for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// `streak` is the count to start with.
    Now { streak: u32, reason: String },
    /// Not before `until` (boot-clock milliseconds).
    At { until: u64, reason: String },
    /// The policy asks for no restart.
    Never { reason: String },
    /// The policy asks for one, and allows no more.
    UsedUp { reason: String },
}

/// What the rules say about `exit` at the moment `now` (boot-clock milliseconds).
pub fn decide(exit: Exit<'_>, now: u64) -> Decision {
    let rules = exit.rules;
    let streak = exit.streak();
    let ended = fault::ended(exit.code, exit.died);
    if let Some(why) = rules.last(exit.code) {
        let reason = format!("{ended}; {why}");
        return Decision::Never { reason };
    }
    if let Some(limit) = rules
        .limit()
        .filter(|limit| streak >= limit.saturating_add(u32::from(planted!("limit-one-more"))))
    {
        let reason = format!("{ended}, and its limit of {limit} restarts is used up");
        return Decision::UsedUp { reason };
    }
    let delay = rules.delay.unwrap_or_else(|| backoff::delay(exit.key, streak));
    let until = exit.at.saturating_add(delay);
    if now >= until || planted!("restart-at-once") {
        Decision::Now {
            streak: streak.saturating_add(1),
            reason: ended,
        }
    } else {
        Decision::At {
            until,
            reason: format!("{ended}; restart {} follows", streak.saturating_add(1)),
        }
    }
}

/// What follows for a container that runs and is unhealthy, where that is to be acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flap {
    /// `flaps` is the count to start with.
    Now {
        flaps: u32,
        reason: String,
    },
    /// Not before `until` (boot-clock milliseconds).
    At {
        until: u64,
        reason: String,
    },
    LeftAlone,
}

/// `flaps`: restarts in a row for being unhealthy. The time to become healthy grows with them.
pub fn unhealthy(key: &str, flaps: u32, started_at: Option<u64>, now: u64) -> Flap {
    if flaps >= FLAPS {
        return Flap::LeftAlone;
    }
    let started = started_at.unwrap_or(0);
    let flaps = if now.saturating_sub(started) >= CALM {
        0
    } else {
        flaps
    };
    let next = flaps.saturating_add(1);
    let until = started.saturating_add(backoff::delay(key, flaps.saturating_add(PATIENCE)));
    if now >= until {
        let reason = format!("unhealthy; restart {next} of {FLAPS}");
        Flap::Now { flaps: next, reason }
    } else {
        let reason = format!("unhealthy; restart {next} of {FLAPS} follows unless it becomes healthy");
        Flap::At { until, reason }
    }
}

/// Boot-clock milliseconds from which on a container that kept ending counts as running.
pub fn steady_at(rules: Rules, seen: &Instance, now: u64) -> Option<u64> {
    let running = matches!(seen.state, State::Running { .. });
    let steady = seen.started_at?.saturating_add(rules.window);
    (running && seen.streak >= LOOP && now < steady).then_some(steady)
}

/// What somebody must look at, with what to do, about an instance of a service with these rules.
pub fn alert(key: &InstanceKey, rules: Rules, seen: &Instance, now: u64) -> Option<String> {
    let InstanceKey { project, service, .. } = key;
    let logs = format!("see `stead logs {project} {service}`");
    if let State::Exited { code, at } = seen.state {
        let text = key.to_string();
        let exit = Exit {
            key: &text,
            rules,
            code,
            streak: seen.streak,
            started_at: seen.started_at,
            at,
            died: seen.died(),
        };
        let streak = exit.streak();
        let again = match decide(exit, now) {
            Decision::Never { reason } => {
                let failed = matches!(seen.died(), Some(Fault::PostStart { .. }));
                return failed.then(|| {
                    format!(
                        "{service} {reason}; {logs}, change the service, or `stead start {project}/{service}`"
                    )
                });
            }
            Decision::UsedUp { reason } => {
                return Some(format!(
                    "{service} {reason}; {logs}, change the service, or `stead start {project}/{service}`"
                ));
            }
            Decision::Now { .. } => "now".to_owned(),
            Decision::At { until, .. } => format!("in {} s", until.saturating_sub(now).div_ceil(1000)),
        };
        return (streak >= LOOP).then(|| {
            let times = streak.saturating_add(1);
            format!(
                "{service} keeps ending: {}, {times} times in a row; next try {again}; {logs}",
                fault::ended(code, seen.died())
            )
        });
    }
    if rules.unhealthy && seen.health == Health::Unhealthy && seen.flaps >= FLAPS {
        return Some(format!(
            "{service} is unhealthy after {FLAPS} restarts for that, and is left alone; {logs}, then \
             `stead restart {project}/{service}`"
        ));
    }
    steady_at(rules, seen, now).map(|_| {
        format!(
            "{service} keeps ending: restarted {} times in a row; {logs}",
            seen.streak
        )
    })
}

#[cfg(test)]
mod tests;
