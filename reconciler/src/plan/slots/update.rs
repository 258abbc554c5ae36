//! The update of one service: how far each instance is, which may go on, and what the others wait for.

use std::{collections::BTreeMap, mem::discriminant};

use model::types::{Duration, FailureAction, Service};

use super::{Asked, Held, Pair, Pass, Seat, Seats, other, serves, strong, update_config};
use crate::{
    compare::{self, Difference},
    key::{InstanceKey, Key},
    memory::Again,
    observed::{Instance, State},
    plan::{
        action::Action,
        container,
        orders::Order,
        step::{Cause, Class},
        wanted,
    },
    rollout::{self, Config, Course, Progress},
};

fn time(milliseconds: u64) -> Duration {
    Duration(milliseconds.saturating_mul(1_000_000))
}

/// The update of one service.
pub struct Rollout<'a> {
    pass: Pass<'a>,
    asked: Asked<'a>,
    name: &'a str,
    config: Config,
    /// Asked for by its manifest.
    explicit: bool,
    /// What goes wrong with updated ones is the update's failure.
    counts: bool,
    can_return: bool,
    alone: Option<String>,
}

impl<'a> Rollout<'a> {
    pub fn new(pass: Pass<'a>, asked: Asked<'a>, name: &'a str, service: &'a Service) -> Self {
        let good = pass.memory.good.get(&asked.project.name);
        let newer = good.filter(|good| good.revision != asked.revision);
        let changed = newer.and_then(|good| {
            let before = good.project.services.get(name)?;
            let before = container::compared(&good.project, name, before);
            let after = container::compared(asked.project, name, service);
            strong(compare::compare(&before, &after, &[]))
        });
        let trial = pass
            .memory
            .on_trial(&asked.project.name, service, pass.observed)
            .is_some();
        let update = update_config(service);
        let config = match asked.barred() {
            true => Config::back(asked.manifest.services.get(name).unwrap_or(service)),
            false => Config::of(update),
        };
        Rollout {
            pass,
            asked,
            name,
            config,
            explicit: update.is_some(),
            counts: changed.is_some() || trial,
            can_return: (newer.is_some() || trial) && !asked.barred(),
            alone: match config.start_first {
                true => rollout::alone(asked.project, name, service),
                false => None,
            },
        }
    }

    pub fn fill(mut self, all: Vec<Seat<'_>>, seats: &mut Seats) {
        let good = self.pass.memory.good.get(&self.asked.project.name);
        let same = good.is_some_and(|good| good.revision == self.asked.revision);
        let by_hand = all.iter().any(|seat| {
            let field = seat
                .difference
                .as_ref()
                .map(|difference| difference.field.as_str());
            field.is_some_and(|field| field != "image.digest")
        });
        // There is nothing better to go to than what was good: no failure keeps from it.
        if self.asked.barred() || (same && by_hand) {
            self.config.action = FailureAction::Continue;
        }
        // Where some are outdated, the others are what this update has made of them.
        self.counts |= self.asked.barred() || all.iter().any(|seat| seat.difference.is_some());
        let progress: BTreeMap<u32, Progress> = all
            .iter()
            .map(|seat| (seat.key.index, self.progress(seat)))
            .collect();
        let input = rollout::Input {
            config: self.config,
            progress: &progress,
            can_return: self.can_return,
        };
        let decision = rollout::decide(input, self.pass.now.boot);
        let (why, until) = match &decision.course {
            Course::On => (self.turn(), decision.until),
            Course::Paused(why) => (
                format!(
                    "the update of {} is paused: {why}; it goes on once the manifest changes",
                    self.name
                ),
                None,
            ),
            Course::Back(why) => {
                seats.back = Some(format!("{} {why}", self.name));
                (
                    format!("{} {why}; the last good version follows", self.name),
                    None,
                )
            }
        };
        for seat in all {
            let index = seat.key.index;
            let progress = progress.get(&index);
            if let (true, true, Some(Progress::Updating { until })) = (self.explicit, self.counts, progress)
                && seat.current
                && seat.other.is_none()
            {
                let what = match until {
                    Some(_) => format!("is watched for {} after its start", time(self.config.monitor)),
                    None if runs(seat.seen) => "is watched until it is healthy".to_owned(),
                    None => "has not started yet".to_owned(),
                };
                seats.watched.push((seat.key.clone(), what, *until));
            }
            let due = !matches!(progress, Some(Progress::Outdated { .. })) || decision.now.contains(&index);
            self.place(seat, due, progress, (&why, until), seats);
        }
        seats.alone = self.alone;
    }

    /// What those who wait are told.
    fn turn(&self) -> String {
        let mut text = format!("waits for its turn: {} at a time", self.config.parallelism);
        if self.config.delay > 0 {
            text.push_str(&format!(", {} apart", time(self.config.delay)));
        }
        text
    }

    fn stopped(&self, seat: &Seat<'_>) -> bool {
        matches!(self.pass.orders.of(&seat.key), Some(Order::Stop { .. }))
    }

    fn progress(&self, seat: &Seat<'_>) -> Progress {
        // An operator has stopped it: it takes no place, and is what it shall be once it starts.
        if self.stopped(seat) {
            return Progress::Updated { since: 0 };
        }
        let now = self.pass.now.boot;
        let progress = match seat.seen {
            None => Progress::Absent,
            // It has not ended: it is stopped to be made anew, or was.
            Some(seen)
                if seat.current
                    && match seen.state {
                        State::Exited { .. } => self.begun(&seat.key) || self.halfway(&seat.key),
                        _ => self.stops(&seat.key),
                    } =>
            {
                Progress::Updating { until: None }
            }
            Some(seen) if seat.current => {
                let healthy = match seen.health {
                    crate::observed::Health::Healthy => self.pass.memory.settled.get(&seat.key).copied(),
                    _ => None,
                };
                match rollout::progress(seen, &self.config, healthy, self.counts, now) {
                    // It is not done before the one in whose place it is has gone.
                    Progress::Updated { .. } if seat.other.is_some() => Progress::Updating { until: None },
                    progress => progress,
                }
            }
            Some(_) if seat.other.is_some() => Progress::Updating { until: None },
            Some(seen) if seen.container.is_none() => Progress::Absent,
            Some(seen) => Progress::Outdated {
                down: !matches!(seen.state, State::Running { .. }),
            },
        };
        let new = match (&progress, self.beside(seat)) {
            (Progress::Outdated { .. }, true) => other(&seat.key),
            _ => seat.key.clone(),
        };
        match progress {
            Progress::Failed { .. } | Progress::Updated { .. } => progress,
            progress => match self.refused(&new) {
                Some(why) if self.counts => Progress::Failed { why },
                _ if self.halfway(&new) => Progress::Updating { until: None },
                _ if progress == Progress::Absent => progress,
                _ if self.begun(&new) => Progress::Updating { until: None },
                _ => progress,
            },
        }
    }

    /// It was replaced so far that nothing may be left of the one before.
    fn halfway(&self, key: &InstanceKey) -> bool {
        let begun = self.pass.memory.begun.get(&Key::Instance(key.clone()));
        begun.is_some_and(|(class, _)| matches!(class, Class::Restart | Class::Recreate))
    }

    /// Why `key` does not start, where that is not just one bad moment.
    fn refused(&self, key: &InstanceKey) -> Option<String> {
        const MOMENTS: u32 = 3;
        let failed = self.pass.memory.failures.get(&Key::Instance(key.clone()))?;
        let (stop, remove) = (
            Action::StopContainer {
                key: key.clone(),
                drain: 0,
            },
            Action::RemoveSandbox(key.clone()),
        );
        let before = [discriminant(&stop), discriminant(&remove)];
        let starting = failed.action.is_none_or(|action| !before.contains(&action));
        let lasting = failed.attempts >= MOMENTS || !matches!(failed.again, Again::At(_));
        (starting && lasting).then(|| format!("cannot start: {}", failed.message))
    }

    /// Its replacement is under way.
    fn begun(&self, key: &InstanceKey) -> bool {
        let object = Key::Instance(key.clone());
        self.pass.in_flight.iter().any(|step| {
            let revives = matches!(step.action, Action::StartContainer { fresh: false, .. });
            step.key == object && !revives
        })
    }

    /// Its end is under way.
    fn stops(&self, key: &InstanceKey) -> bool {
        self.pass.in_flight.iter().any(|step| match &step.action {
            Action::StopContainer { key: other, .. } | Action::RemoveSandbox(other) => other == key,
            _ => false,
        })
    }

    /// A new one is started beside it.
    fn beside(&self, seat: &Seat<'_>) -> bool {
        let runs = |seen: &Instance| matches!(seen.state, State::Running { .. });
        self.config.start_first && self.alone.is_none() && seat.seen.is_some_and(runs) && !self.stopped(seat)
    }

    fn cause(&self, difference: &Difference) -> Cause {
        let field = format!("services.{}.{}", self.name, difference.field);
        let (old, new) = (difference.old.clone(), difference.new.clone());
        wanted::cause(self.asked.project, field, old, new)
    }

    fn place(
        &self,
        seat: Seat<'_>,
        due: bool,
        progress: Option<&Progress>,
        waits: (&str, Option<u64>),
        seats: &mut Seats,
    ) {
        let beside = self.beside(&seat);
        let Seat {
            key,
            seen,
            other: old,
            difference,
            current,
        } = seat;
        let Some(old) = old else {
            seats.wanted.push(key.clone());
            let Some(difference) = difference else {
                return;
            };
            let cause = self.cause(&difference);
            let new = other(&key);
            if due && beside {
                self.pair(new, key, cause, Err((None, None)), seats);
            } else if !due {
                let changes = match beside {
                    true => vec![
                        (new, Class::Recreate, cause.clone()),
                        (key.clone(), Class::Remove, cause),
                    ],
                    false => vec![(key.clone(), difference.class, cause)],
                };
                let held = Held {
                    changes,
                    why: waits.0.to_owned(),
                    until: waits.1,
                };
                seats.held.insert(key, held);
            }
            return;
        };
        let cause = match &old.difference {
            Some(difference) => self.cause(difference),
            None => wanted::noun("slot", Some(format!("is not needed beside {key}"))),
        };
        let runs = |seen: &Instance| matches!(seen.state, State::Running { .. });
        let ready = match seen.filter(|_| current) {
            None => Err((None, None)),
            // There is nothing to take over, or nobody to take it over from, or it is taken over already, or
            // the new one has done its work, or the manifest does not ask for two of them any more.
            Some(seen) if rollout::finished(seen) => Ok(()),
            Some(_) if !self.config.start_first => Ok(()),
            Some(_) if old.seen.state == State::Created => Ok(()),
            Some(seen) if rollout::over(old.seen) && (runs(seen) || rollout::over(seen)) => Ok(()),
            Some(seen) if serves(self.pass.observed, (&key, seen), (&old.key, old.seen)) => Ok(()),
            Some(seen) => rollout::ready(seen, &self.config, self.pass.now.boot).map_err(|until| {
                let failed = progress.and_then(|progress| match progress {
                    Progress::Failed { why } => Some(why.as_str()),
                    _ => None,
                });
                (failed, until)
            }),
        };
        self.pair(key, old.key, cause, ready, seats);
    }

    fn pair(
        &self,
        new: InstanceKey,
        old: InstanceKey,
        cause: Cause,
        ready: Result<(), (Option<&str>, Option<u64>)>,
        seats: &mut Seats,
    ) {
        seats.wanted.push(new.clone());
        if let Err((failed, until)) = ready {
            let failed = failed.map_or(String::new(), |why| format!("; it {why}"));
            let held = Held {
                changes: vec![(old.clone(), Class::Remove, cause.clone())],
                why: format!("after {new} is ready{failed}"),
                until,
            };
            seats.held.insert(old.clone(), held);
            seats.wanted.push(old.clone());
        }
        let pair = Pair {
            old,
            flipped: ready.is_ok(),
            cause,
        };
        seats.pairs.insert(new, pair);
    }
}

fn runs(seen: Option<&Instance>) -> bool {
    seen.is_some_and(|seen| matches!(seen.state, State::Running { .. }) && !seen.is_starting())
}
