//! Which slots of each instance there shall be: the one that is wanted, the one beside it that serves until
//! then, and the ones whose turn has not come. All of it from what is seen; nothing is remembered.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::discriminant,
    net::Ipv4Addr,
};

use model::{
    fields::Fields,
    types::{Duration, FailureAction, Project, Service, UpdateConfig},
};

use super::{
    InFlight,
    action::Action,
    container, images,
    orders::{Order, Orders},
    step::{Cause, Class},
    verdict,
    wanted::{self, Wanted},
};
use crate::{
    compare::{self, Difference},
    key::{InstanceKey, Key, Slot},
    memory::{Again, Memory},
    observed::{Instance, Observed, State},
    rollout::{self, Config, Course, Progress},
    time::Now,
};

/// What all services of a pass are judged by.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    pub observed: &'a Observed,
    pub memory: &'a Memory,
    pub in_flight: &'a InFlight,
    pub orders: &'a Orders<'a>,
    pub now: Now,
}

/// A project, and what its manifest asks for.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// What is planned for.
    pub project: &'a Project,
    /// What the manifest says; another one than `project` while its revision is barred.
    pub manifest: &'a Project,
    pub revision: &'a str,
}

impl Asked<'_> {
    fn barred(&self) -> bool {
        !std::ptr::eq(self.project, self.manifest)
    }
}

/// One that stays as it is for now.
#[derive(Debug, Clone)]
pub struct Held {
    /// What will become of it and of the one that takes its place, and after what.
    pub changes: Vec<(InstanceKey, Class, Cause)>,
    pub why: String,
    pub until: Option<u64>,
}

/// The slot that a new one takes the place of.
#[derive(Debug, Clone)]
pub struct Pair {
    pub old: InstanceKey,
    /// The new one is ready: names and host ports are its own.
    pub flipped: bool,
    /// Why the old one goes.
    pub cause: Cause,
}

/// What a service comes to.
#[derive(Default)]
pub struct Seats {
    pub wanted: Vec<InstanceKey>,
    /// Some of `wanted`.
    pub held: BTreeMap<InstanceKey, Held>,
    /// By new slot; the old one is held, or to be removed.
    pub pairs: BTreeMap<InstanceKey, Pair>,
    /// Why it is stopped before it is started, although its manifest asks for the other order.
    pub alone: Option<String>,
    /// Updated ones that are watched, since when they are not settled yet.
    pub watched: Vec<(InstanceKey, String, Option<u64>)>,
    /// The revision has failed: why.
    pub back: Option<String>,
}

/// One index, as it is.
struct Seat<'a> {
    key: InstanceKey,
    seen: Option<&'a Instance>,
    other: Option<Other<'a>>,
    /// What of it is not as wanted; `None`: nothing, or there is no container.
    difference: Option<Difference>,
    current: bool,
}

/// The slot beside it.
struct Other<'a> {
    key: InstanceKey,
    seen: &'a Instance,
    difference: Option<Difference>,
}

/// The slots of `name`, for every index up to its scale.
pub fn seats(pass: Pass<'_>, asked: Asked<'_>, name: &str, service: &Service, fields: &Fields) -> Seats {
    let scale = wanted::scale(service);
    let mut seats = Seats::default();
    let update = update_config(service);
    let simple = scale == 1 && update.is_none() && !asked.barred();
    let Some(seen) = pass.observed.instances.known() else {
        let keys = (1..=scale).map(|index| slot_key(asked.project, name, index, Slot::A));
        seats.wanted = keys.collect();
        return seats;
    };
    let goal = Goal {
        wanted: Wanted {
            project: asked.project,
            service,
        },
        fields,
        digest: images::resolve(pass.observed, &service.image)
            .ok()
            .map(|image| &image.digest),
    };
    let mut all = Vec::new();
    for index in 1..=scale {
        let key = |slot| slot_key(asked.project, name, index, slot);
        let there: Vec<(InstanceKey, &Instance)> = [key(Slot::A), key(Slot::B)]
            .into_iter()
            .filter_map(|key| seen.get(&key).map(|seen| (key, seen)))
            .collect();
        if let (true, [] | [_]) = (simple, there.as_slice()) {
            let there = there.into_iter().next().map(|(key, _)| key);
            seats
                .wanted
                .push(there.unwrap_or_else(|| ended(pass, &goal, key)));
            continue;
        }
        all.push(seat(pass, there, key, &goal));
    }
    if all.is_empty() {
        return seats;
    }
    let plan = Rollout::new(pass, asked, name, service);
    plan.fill(all, &mut seats);
    seats
}

fn update_config(service: &Service) -> Option<&UpdateConfig> {
    service.container.deploy.as_ref()?.update_config.as_ref()
}

fn slot_key(project: &Project, service: &str, index: u32, slot: Slot) -> InstanceKey {
    InstanceKey {
        project: project.name.clone(),
        service: service.to_owned(),
        index,
        slot,
    }
}

fn time(milliseconds: u64) -> Duration {
    Duration(milliseconds.saturating_mul(1_000_000))
}

/// The other of the two slots.
fn other(key: &InstanceKey) -> InstanceKey {
    InstanceKey {
        slot: match key.slot {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        },
        ..key.clone()
    }
}

/// Where there is nothing: the slot that was there last, as its exit record says.
fn ended(pass: Pass<'_>, goal: &Goal<'_>, key: impl Fn(Slot) -> InstanceKey) -> InstanceKey {
    let kept = |slot| pass.observed.ended.known()?.get(&key(slot));
    match (kept(Slot::A), kept(Slot::B)) {
        (None, Some(_)) => key(Slot::B),
        (Some(a), Some(b))
            if goal.difference(&a.container.fields).is_some()
                && goal.difference(&b.container.fields).is_none() =>
        {
            key(Slot::B)
        }
        _ => key(Slot::A),
    }
}

/// What the containers of a service shall be.
struct Goal<'a> {
    wanted: Wanted<'a>,
    /// What is compared, but for the digest.
    fields: &'a Fields,
    digest: Option<&'a String>,
}

impl Goal<'_> {
    /// What of `have` cannot be changed without a new process.
    fn difference(&self, have: &Fields) -> Option<Difference> {
        let mut want = self.fields.clone();
        verdict::keep_unknown_revisions(self.wanted, have, &mut want);
        let ignored = match self.digest {
            Some(digest) => {
                want.insert("image.digest".to_owned(), digest.clone());
                None
            }
            None => Some("image.digest"),
        };
        strong(have, &want, ignored)
    }
}

/// What cannot be changed without a new process.
fn strong(have: &Fields, want: &Fields, ignored: Option<&str>) -> Option<Difference> {
    let ignored: Vec<&str> = ignored.into_iter().collect();
    compare::compare(have, want, &ignored).filter(|difference| difference.class >= Class::Restart)
}

fn seat<'a>(
    pass: Pass<'_>,
    there: Vec<(InstanceKey, &'a Instance)>,
    key: impl Fn(Slot) -> InstanceKey,
    goal: &Goal<'_>,
) -> Seat<'a> {
    let difference = |seen: &Instance| goal.difference(&seen.container.as_ref()?.fields);
    let current = |seen: &Instance| seen.container.is_some() && difference(seen).is_none();
    let mut there = there.into_iter();
    match (there.next(), there.next()) {
        (Some(a), Some(b)) => {
            let b_is_wanted = match (current(a.1), current(b.1)) {
                (true, false) => false,
                (false, true) => true,
                // Both are, or none is: who serves stays, or serves until the other is done.
                (both, _) => both == serves(pass.observed, (&b.0, b.1), (&a.0, a.1)),
            };
            let (wanted, old) = if b_is_wanted { (b, a) } else { (a, b) };
            Seat {
                difference: difference(wanted.1),
                current: current(wanted.1),
                key: wanted.0,
                seen: Some(wanted.1),
                other: Some(Other {
                    key: old.0,
                    seen: old.1,
                    difference: difference(old.1),
                }),
            }
        }
        (Some((key, seen)), _) => Seat {
            difference: difference(seen),
            current: current(seen),
            key,
            seen: Some(seen),
            other: None,
        },
        (None, _) => Seat {
            key: ended(pass, goal, key),
            seen: None,
            other: None,
            difference: None,
            current: false,
        },
    }
}

fn addresses(seen: &Instance) -> BTreeSet<Ipv4Addr> {
    let endpoints = seen.sandbox.endpoints.iter();
    endpoints.map(|endpoint| endpoint.address).collect()
}

/// Whether host ports lead to `seen`, as the firewall stands.
pub fn published(observed: &Observed, seen: &Instance) -> bool {
    let own = addresses(seen);
    observed.firewall.known().is_some_and(|firewall| {
        let mut targets = firewall.spec.ports.values();
        targets.any(|target| own.contains(&target.address))
    })
}

fn named(observed: &Observed, seen: &Instance) -> bool {
    seen.sandbox.endpoints.iter().any(|endpoint| {
        let zone = observed
            .zones
            .known()
            .and_then(|zones| zones.get(&endpoint.network));
        zone.is_some_and(|zone| {
            zone.values()
                .any(|addresses| addresses.contains(&endpoint.address))
        })
    })
}

/// Whether names and host ports lead to `one` rather than to `two`.
fn serves(observed: &Observed, one: (&InstanceKey, &Instance), two: (&InstanceKey, &Instance)) -> bool {
    let signs: [fn(&Observed, &Instance) -> bool; 3] = [
        published,
        named,
        // Nothing leads to either: who has run for longer was there first.
        |_, seen| matches!(seen.state, State::Running { .. }),
    ];
    for sign in signs {
        match (sign(observed, one.1), sign(observed, two.1)) {
            (true, false) => return true,
            (false, true) => return false,
            _ => {}
        }
    }
    let since = |seen: &Instance| seen.started_at.unwrap_or(u64::MAX);
    (since(one.1), one.0) < (since(two.1), two.0)
}

/// The update of one service.
struct Rollout<'a> {
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
    fn new(pass: Pass<'a>, asked: Asked<'a>, name: &'a str, service: &'a Service) -> Self {
        let good = pass.memory.good.get(&asked.project.name);
        let newer = good.filter(|good| good.revision != asked.revision);
        let changed = newer.and_then(|good| {
            let before = good.project.services.get(name)?;
            let before = container::compared(&good.project, before);
            strong(&before, &container::compared(asked.project, service), None)
        });
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
            counts: changed.is_some(),
            can_return: newer.is_some() && !asked.barred(),
            alone: match config.start_first {
                true => rollout::alone(asked.project, name, service),
                false => None,
            },
        }
    }

    fn fill(mut self, all: Vec<Seat<'_>>, seats: &mut Seats) {
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
                    None => "is watched until it is healthy".to_owned(),
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
        self.pass.orders.of(&seat.key) == Some(Order::Stop)
    }

    fn progress(&self, seat: &Seat<'_>) -> Progress {
        // An operator has stopped it: it takes no place, and is what it shall be once it starts.
        if self.stopped(seat) {
            return Progress::Updated { since: 0 };
        }
        let now = self.pass.now.boot;
        let progress = match seat.seen {
            None => Progress::Absent,
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
                _ if progress == Progress::Absent => progress,
                _ if self.begun(&new) => Progress::Updating { until: None },
                _ => progress,
            },
        }
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
        let begun = self.pass.memory.begun.get(&object);
        begun.is_some_and(|(class, _)| matches!(class, Class::Restart | Class::Recreate))
            || self.pass.in_flight.iter().any(|step| {
                let revives = matches!(step.action, Action::StartContainer { fresh: false, .. });
                step.key == object && !revives
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
            // There is nothing to take over, or nobody to take it over from, or it is taken over already.
            Some(_) if old.seen.state == State::Created => Ok(()),
            Some(seen) if runs(seen) && rollout::over(old.seen) => Ok(()),
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
