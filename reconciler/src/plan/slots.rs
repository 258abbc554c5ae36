//! Which slots of each instance there shall be: the one that is wanted, the one beside it that serves until
//! then, and the ones whose turn has not come. All of it from what is seen; nothing is remembered.

mod update;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use model::{
    fields::Fields,
    types::{Project, Service, UpdateConfig},
};

use super::{
    InFlight,
    container::Looks,
    orders::Orders,
    step::{Cause, Class},
    wanted::{self, Wanted},
};
use crate::{
    compare::Difference,
    key::{InstanceKey, Slot},
    memory::Memory,
    observed::{Instance, Observed, State},
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

/// The slots of `name`, for every index up to its scale. `there`: its instances that are seen, in order.
pub fn seats(
    pass: Pass<'_>,
    asked: Asked<'_>,
    name: &str,
    service: &Service,
    looks: &Looks<'_>,
    there: &[(&InstanceKey, &Instance)],
) -> Seats {
    let scale = wanted::scale(service);
    let mut seats = Seats::default();
    let update = update_config(service);
    let simple = scale == 1 && update.is_none() && !asked.barred();
    if pass.observed.instances.known().is_none() {
        let keys = (1..=scale).map(|index| slot_key(asked.project, name, index, Slot::A));
        seats.wanted = keys.collect();
        return seats;
    }
    let goal = Goal {
        wanted: Wanted {
            project: asked.project,
            service,
        },
        looks,
    };
    let mut all = Vec::new();
    for index in 1..=scale {
        let key = |slot| slot_key(asked.project, name, index, slot);
        let start = there.partition_point(|(key, _)| key.index < index);
        let rest = there.get(start..).unwrap_or_default();
        let count = rest.partition_point(|(key, _)| key.index == index);
        let there = rest.get(..count).unwrap_or_default();
        if let (true, [] | [_]) = (simple, there) {
            let there = there.first().map(|(key, _)| (*key).clone());
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
    let plan = update::Rollout::new(pass, asked, name, service);
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
    looks: &'a Looks<'a>,
}

impl Goal<'_> {
    /// What of `have` cannot be changed without a new process.
    fn difference(&self, have: &Fields) -> Option<Difference> {
        strong(self.looks.difference(self.wanted, have))
    }
}

/// What cannot be changed without a new process.
fn strong(difference: Option<Difference>) -> Option<Difference> {
    difference.filter(|difference| difference.class >= Class::Restart)
}

fn seat<'a>(
    pass: Pass<'_>,
    there: &[(&InstanceKey, &'a Instance)],
    key: impl Fn(Slot) -> InstanceKey,
    goal: &Goal<'_>,
) -> Seat<'a> {
    let difference = |seen: &Instance| goal.difference(&seen.container.as_ref()?.fields);
    let current = |seen: &Instance| seen.container.is_some() && difference(seen).is_none();
    let mut there = there.iter().copied();
    match (there.next(), there.next()) {
        (Some(a), Some(b)) => {
            let b_is_wanted = match (current(a.1), current(b.1)) {
                (true, false) => false,
                (false, true) => true,
                // Both are, or none is: who serves stays, or serves until the other is done.
                (both, _) => both == serves(pass.observed, b, a),
            };
            let b_is_wanted = b_is_wanted ^ planted!("wrong-slot-goes");
            let (wanted, old) = if b_is_wanted { (b, a) } else { (a, b) };
            Seat {
                difference: difference(wanted.1),
                current: current(wanted.1),
                key: wanted.0.clone(),
                seen: Some(wanted.1),
                other: Some(Other {
                    key: old.0.clone(),
                    seen: old.1,
                    difference: difference(old.1),
                }),
            }
        }
        (Some((key, seen)), _) => Seat {
            difference: difference(seen),
            current: current(seen),
            key: key.clone(),
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
