//! From desired and observed to changes (the whole way) and steps (this pass).

pub mod action;
pub mod addresses;
mod allocate;
mod container;
mod draft;
mod firewall;
mod images;
mod instances;
mod names;
mod networks;
mod orders;
mod orphans;
mod presence;
mod render;
mod slots;
pub mod step;
mod verdict;
pub(crate) mod volumes;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    desired::Desired,
    key::{InstanceKey, Key, ResourceKey, Slot},
    memory::Memory,
    observed::{Ended, Fact, Observed},
    restart::Rules,
    time::Now,
};
use draft::{Draft, Ready};
use firewall::Stage;
use instances::Ground;
use orders::Orders;
use slots::Pass;
use step::{Plan, Step};
use verdict::{Case, Verdict};
use wanted::{Wanted, Wants};

pub(crate) use images::UNSEEN;
pub(crate) use render::from_manifest;
pub use render::{because, hash, json, line, render, word};
pub use verdict::OPERATOR;

/// Steps that were started and have not ended.
pub type InFlight = Vec<Step>;

/// What is to be done. Pure and total: asks nobody, reads no clock, never panics.
pub fn plan(desired: &Desired, observed: &Observed, memory: &Memory, in_flight: &InFlight, now: Now) -> Plan {
    let projects = wanted::projects(desired, memory);
    let order = instances::in_order(&projects);
    let orders = Orders::new(desired, &observed.boot_id, &order);
    let pass = Pass {
        observed,
        memory,
        in_flight,
        orders: &orders,
        now,
    };
    let wants = Wants::new(desired, projects, order, pass);
    let allocation = allocate::allocate(&wants, observed, in_flight);
    let mut draft = Draft::new(observed, memory, in_flight, now);

    let unpacked = images::images(&mut draft, &wants);
    let networks = networks::networks(&mut draft, &wants, &allocation);
    let verdicts = verdicts(&wants, observed, memory, &allocation, &networks, &orders, now);
    let volumes = volumes::volumes(&mut draft, &wants, instances::targets(&verdicts));
    let mut orphans = orphans::stop(&mut draft, &wants);
    let present = presence::present(&draft, &wants, &allocation, &verdicts);

    // What follows from another change is no change of its own.
    let explained: BTreeSet<String> = draft
        .plan
        .changes
        .iter()
        .filter_map(|change| change.key.project())
        .chain(
            verdicts
                .iter()
                .filter(|(_, verdict)| verdict.change.is_some())
                .map(|(key, _)| key.project.as_str()),
        )
        .map(str::to_owned)
        .collect();
    let firewall_at = |draft: &Draft<'_>, stage: &Stage<'_>| {
        let present = present.as_deref()?;
        observed.networks.known()?;
        Some(firewall::spec(draft, &wants, &allocation, present, stage))
    };
    let names = names::now(&mut draft, &wants, present.as_deref(), &explained);
    // A new slot that is ready: names lead to it, then host ports, then the old one is stopped.
    let flips = flips(&wants, &allocation, observed, &names.ready);
    let flipping: BTreeSet<&InstanceKey> = flips.keys().copied().collect();
    let led: Vec<Ready> = flips.values().flatten().copied().collect();
    let stage = Stage {
        flipping: flipping.clone(),
        ..Stage::default()
    };
    let first = firewall_at(&draft, &stage);
    let isolation = firewall::now(&mut draft, first.as_ref(), &networks.ready, &led, &explained);
    let taken = flips
        .into_iter()
        .map(|(key, mut needs)| {
            needs.push(isolation);
            (key, needs)
        })
        .collect();
    orphans.drain(&mut draft, &wants, &taken);

    // Who leaves: stopped above, then out of names and firewall, then removed.
    let stopped = orphans.stopped();
    let stops: Vec<Ready> = stopped
        .iter()
        .filter_map(|key| orphans.stops.get(*key))
        .copied()
        .collect();
    let mut then_names = names::then(&mut draft, &names, &stops);
    let without = Stage {
        stopped: stopped.clone(),
        settled: None,
        flipping: flipping.clone(),
    };
    let second = match without.stopped.is_empty() {
        true => None,
        false => firewall_at(&draft, &without),
    };
    let mut firewall = isolation;
    if let (Some(before), Some(after)) = (&first, &second) {
        let mut needs = stops.clone();
        needs.push(firewall);
        if let Some(ready) = firewall::then(&mut draft, before, after, &needs) {
            firewall = ready;
        }
    }
    let mut sandboxes = orphans.remove(&mut draft, &wants, firewall, &then_names);
    orphans::remains(&mut draft, &wants);

    let isolated: BTreeSet<InstanceKey> = wants
        .instances
        .keys()
        .filter(|key| firewall::isolates(&draft, &allocation, key))
        .cloned()
        .collect();
    let ground = Ground {
        wants: &wants,
        allocation: &allocation,
        verdicts: &verdicts,
        unpacked: &unpacked,
        networks: &networks.ready,
        volumes: &volumes,
        names: &names.ready,
        firewall: isolation,
        isolated: &isolated,
        removed: &sandboxes,
    };
    let instances = instances::instances(&mut draft, &ground);

    // Ports open once there is something behind them, and networks go once nobody is on them.
    let starting: BTreeSet<&InstanceKey> = instances
        .starts
        .iter()
        .filter(|(key, ready)| {
            **ready != Ready::Blocked
                && instances
                    .sandboxes
                    .get(*key)
                    .is_some_and(|ready| *ready != Ready::Blocked)
        })
        .map(|(key, _)| key)
        .collect();
    let last = Stage {
        stopped,
        settled: Some(starting.clone()),
        flipping,
    };
    let third = match starting.is_empty() {
        true => None,
        false => firewall_at(&draft, &last),
    };
    if let (Some(before), Some(after)) = (second.as_ref().or(first.as_ref()), &third) {
        let mut needs = vec![firewall];
        needs.extend(starting.iter().filter_map(|key| instances.starts.get(*key)));
        needs.extend(starting.iter().filter_map(|key| instances.sandboxes.get(*key)));
        if let Some(ready) = firewall::then(&mut draft, before, after, &needs) {
            firewall = ready;
        }
    }
    sandboxes.extend(instances.sandboxes.clone());
    then_names.retain(|key, _| !wants.networks.contains_key(key));
    orphans::networks(&mut draft, &wants, &sandboxes, firewall, &then_names);
    volumes::remove(&mut draft, &wants, &sandboxes);

    rollouts(&mut draft, &wants);

    let mut plan = draft.plan;
    plan.rollbacks = wants.rollbacks;
    plan.changes
        .sort_by(|a, b| (a.key.project(), &a.key).cmp(&(b.key.project(), &b.key)));
    plan
}

/// New slots that take over now, each with the names that must lead to it before.
fn flips<'w>(
    wants: &'w Wants<'_>,
    allocation: &allocate::Allocation,
    observed: &Observed,
    names: &BTreeMap<ResourceKey, Ready>,
) -> BTreeMap<&'w InstanceKey, Vec<Ready>> {
    let seen = observed.instances.known();
    let ready = wants.pairs.iter().filter(|(_, pair)| pair.flipped);
    ready
        .filter_map(|(key, _)| {
            let sandbox = &seen?.get(key)?.sandbox;
            let networks = sandbox.endpoints.iter().map(|endpoint| &endpoint.network);
            let needs: Vec<Ready> = networks
                .map(|network| names.get(network).copied().unwrap_or(Ready::Blocked))
                .collect();
            // Host ports that lead there already stay.
            let stays = !allocation.led(sandbox).is_empty();
            (stays || !needs.contains(&Ready::Blocked)).then_some((key, needs))
        })
        .collect()
}

/// What is told of those who wait for their turn, or for the one that takes their place.
fn rollouts(draft: &mut Draft<'_>, wants: &Wants<'_>) {
    for (key, held) in &wants.held {
        for (key, class, cause) in &held.changes {
            let object = Key::Instance(key.clone());
            draft.change(object, *class, cause, Some(held.why.clone()));
        }
        draft.wait(Key::Instance(key.clone()), held.why.clone(), held.until);
    }
    for (key, what, until) in &wants.watched {
        let why = format!("{key} {what}");
        draft.wait(Key::Instance(key.clone()), why, *until);
    }
}

fn verdicts<'a>(
    wants: &'a Wants<'_>,
    observed: &'a Observed,
    memory: &Memory,
    allocation: &'a allocate::Allocation,
    networks: &networks::Networks,
    orders: &Orders<'_>,
    now: Now,
) -> BTreeMap<InstanceKey, Verdict<'a>> {
    let Some(seen) = observed.instances.known() else {
        return BTreeMap::new();
    };
    let mut verdicts = BTreeMap::new();
    for (name, wanted) in &wants.order {
        let (name, wanted) = (*name, *wanted);
        let Wanted { project, service } = wanted;
        let image = images::resolve(observed, &service.image);
        let Some(looks) = wants.fields.get(&(project.name.as_str(), name)) else {
            continue;
        };
        let rules = Rules::of(service);
        for (key, _) in wants.of(&project.name, name) {
            let sandbox = allocation
                .sandboxes
                .get(key)
                .map_or(Err("no address was chosen"), |sandbox| {
                    sandbox.as_ref().map_err(String::as_str)
                });
            let network_cause = sandbox.ok().and_then(|sandbox| {
                sandbox
                    .endpoints
                    .iter()
                    .find_map(|endpoint| networks.causes.get(&endpoint.network).cloned())
            });
            let case = Case {
                key,
                wanted,
                rules,
                seen: seen.get(key),
                looks,
                image: image.clone(),
                sandbox,
                held: wants.held.contains_key(key),
                pair: wants.pairs.get(key),
                led: seen.get(key).map_or(&[], |seen| allocation.led(&seen.sandbox)),
                network_cause,
                ended: ended(observed, key),
                order: orders.of(key),
            };
            verdicts.insert(key.clone(), verdict::judge(case, memory, now));
        }
    }
    verdicts
}

/// How the container of an instance ended, in whichever slot that was.
fn ended<'o>(observed: &'o Observed, key: &InstanceKey) -> Result<Option<&'o Ended>, &'o String> {
    let records = match &observed.ended {
        Fact::Known(records) => records,
        Fact::Unknown(why) => return Err(why),
    };
    let other = || InstanceKey {
        slot: match key.slot {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        },
        ..key.clone()
    };
    Ok(records
        .get(key)
        .or_else(|| (!records.is_empty()).then(|| records.get(&other())).flatten()))
}
