//! From desired and observed to changes (the whole way) and steps (this pass).

pub mod action;
pub mod addresses;
mod allocate;
mod called;
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
mod spaces;
pub mod step;
mod verdict;
pub(crate) mod volumes;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    desired::Desired,
    key::{InstanceKey, Key, ResourceKey, Slot},
    memory::Memory,
    observed::{Ended, Fact, Instance, Observed, State},
    restart::Rules,
    spec::SandboxSpec,
    time::Now,
};
use draft::{Draft, Ready};
use firewall::Stage;
use instances::Ground;
use orders::Orders;
use slots::Pass;
use spaces::Within;
use step::{Cause, Plan, Step};
use verdict::{Case, Course, Verdict};
use wanted::{Member, Wants};

pub(crate) use images::UNSEEN;
pub(crate) use render::from_manifest;
pub use render::{because, hash, json, line, render, word};
pub use verdict::OPERATOR;

/// Steps that were started and have not ended.
pub type InFlight = Vec<Step>;

/// What is to be done. Pure and total: asks nobody, reads no clock, never panics.
pub fn plan(desired: &Desired, observed: &Observed, memory: &Memory, in_flight: &InFlight, now: Now) -> Plan {
    focused(None, desired, observed, memory, in_flight, now)
}

/// The same, where all projects but those of `focus` are known to be at rest: they are left alone.
pub fn focused(
    focus: Option<&BTreeSet<String>>,
    desired: &Desired,
    observed: &Observed,
    memory: &Memory,
    in_flight: &InFlight,
    now: Now,
) -> Plan {
    let projects = wanted::projects(focus, desired, memory);
    let order = instances::in_order(&projects);
    let orders = Orders::new(desired, &observed.boot_id, &order);
    let pass = Pass {
        observed,
        memory,
        in_flight,
        orders: &orders,
        now,
    };
    let looks = container::all_compared(&order, observed);
    let wants = Wants::new(desired, projects, order, &looks, pass);
    let allocation = allocate::allocate(&wants, observed, in_flight);
    let mut draft = Draft::new(observed, memory, in_flight, now);

    let unpacked = images::images(&mut draft, &wants, |reference| {
        images::is_kept(desired, observed, memory, reference)
    });
    let networks = networks::networks(&mut draft, &wants, &allocation);
    let verdicts = verdicts(&wants, observed, memory, &allocation, &networks, &orders, now);
    let targets = instances::targets(&wants, &verdicts);
    let volumes = volumes::volumes(&mut draft, &wants, targets);
    let within = Within::new(&draft);
    let mut orphans = orphans::stop(&mut draft, &wants, &within);
    let present = presence::present(&draft, &wants, &allocation, &verdicts, &within);

    // What follows from another change is no change of its own.
    let explained: BTreeSet<String> = draft
        .plan
        .changes
        .iter()
        .filter_map(|change| change.key.project())
        .chain(
            (wants.instances.iter().zip(&verdicts))
                .filter(|(_, verdict)| verdict.change.is_some())
                .map(|(member, _)| member.key.project.as_str()),
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
    let flips = flips(&wants, &allocation, &names.ready);
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
    let removed = orphans.remove(&mut draft, &wants, firewall, &then_names, &within);
    orphans::remains(&mut draft, &wants);

    let ground = Ground {
        wants: &wants,
        allocation: &allocation,
        verdicts: &verdicts,
        unpacked: &unpacked,
        networks: &networks.ready,
        volumes: &volumes,
        names: &names.ready,
        firewall: isolation,
        removed: &removed,
        within: &within,
    };
    let instances = instances::instances(&mut draft, &ground);

    // Ports open once there is something behind them, and networks go once nobody is on them. Who rests has
    // all of that already.
    let outcomes = instances.starts.iter().zip(&instances.sandboxes);
    let all = wants.instances.iter().zip(&verdicts).zip(outcomes);
    let starting: Vec<(&InstanceKey, [Ready; 2])> = all
        .filter(|((member, verdict), _)| !instances::rests(&wants, member, verdict))
        .filter_map(|((member, _), (start, sandbox))| Some((&member.key, [(*start)?, (*sandbox)?])))
        .filter(|(_, ready)| !ready.contains(&Ready::Blocked))
        .collect();
    let last = Stage {
        stopped,
        settled: Some(starting.iter().map(|(key, _)| *key).collect()),
        flipping,
    };
    let third = match starting.is_empty() {
        true => None,
        false => firewall_at(&draft, &last),
    };
    if let (Some(before), Some(after)) = (second.as_ref().or(first.as_ref()), &third) {
        let mut needs = vec![firewall];
        needs.extend(starting.iter().flat_map(|(_, ready)| ready));
        if let Some(ready) = firewall::then(&mut draft, before, after, &needs) {
            firewall = ready;
        }
    }
    then_names.retain(|key, _| !wants.networks.contains_key(key));
    let sandbox = |key: &InstanceKey| match wants.place(key) {
        Some(place) => instances.sandboxes.get(place).copied().flatten(),
        None => removed.get(key).copied(),
    };
    orphans::networks(&mut draft, &wants, sandbox, firewall, &then_names);
    let own = wants.instances.iter().zip(&instances.sandboxes);
    let own = own.filter_map(|(member, ready)| Some((&member.key, (*ready)?)));
    let sandboxes = removed.iter().map(|(key, ready)| (key, *ready)).chain(own);
    volumes::remove(&mut draft, &wants, sandboxes);

    rollouts(&mut draft, &wants);

    let mut plan = draft.plan;
    plan.restless = restless(&wants, &verdicts, &unpacked, observed);
    plan.rollbacks = wants.rollbacks;
    plan.changes
        .sort_by(|a, b| (a.key.project(), &a.key).cmp(&(b.key.project(), &b.key)));
    plan
}

/// Projects with an instance that is not wanted, or is not what it shall be, or may not be for long. Or that is
/// not there, having done its work: nothing but its manifest tells of the host ports that stay its own.
fn restless(
    wants: &Wants<'_>,
    verdicts: &[Verdict<'_>],
    unpacked: &images::Unpacked,
    observed: &Observed,
) -> BTreeSet<String> {
    let others = wants.others.iter().map(|(key, _)| *key);
    let others = others.filter(|key| !wants.left_alone(&key.project));
    let members = wants.instances.iter().zip(verdicts);
    let members = members.filter(|(member, verdict)| {
        let image = images::resolve(observed, member.wanted.service);
        member.seen.is_none()
            || !instances::rests(wants, member, verdict)
            || wants.held.contains_key(&member.key)
            || !image.is_ok_and(|image| unpacked.get(&image.digest) == Some(&Ready::Now))
    });
    let restless = others.chain(members.map(|(member, _)| &member.key));
    let mut names: Vec<&str> = restless.map(|key| key.project.as_str()).collect();
    names.dedup();
    names.into_iter().map(str::to_owned).collect()
}

/// New slots that take over now, each with the names that must lead to it before.
fn flips<'w>(
    wants: &'w Wants<'_>,
    allocation: &allocate::Allocation<'_>,
    names: &BTreeMap<ResourceKey, Ready>,
) -> BTreeMap<&'w InstanceKey, Vec<Ready>> {
    let ready = wants.pairs.iter().filter(|(_, pair)| pair.flipped);
    ready
        .filter_map(|(key, _)| {
            let member = wants.instances.get(wants.place(key)?)?;
            let sandbox = &member.seen?.sandbox;
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

/// Of each wanted instance; none while it is not known what there is.
fn verdicts<'a>(
    wants: &'a Wants<'_>,
    observed: &'a Observed,
    memory: &Memory,
    allocation: &'a allocate::Allocation<'_>,
    networks: &networks::Networks,
    orders: &Orders<'_>,
    now: Now,
) -> Vec<Verdict<'a>> {
    if observed.instances.known().is_none() {
        return Vec::new();
    }
    let members = wants.instances.iter().zip(&allocation.sandboxes);
    let verdicts = members.map(|(member, sandbox)| {
        let Member {
            key,
            wanted,
            looks,
            seen,
        } = member;
        let sandbox = sandbox.as_deref().map_err(String::as_str);
        let network_cause = sandbox.ok().and_then(|sandbox| {
            sandbox
                .endpoints
                .iter()
                .find_map(|endpoint| networks.causes.get(&endpoint.network).cloned())
        });
        let moved = seen.and_then(|seen| moved(wants, observed, allocation, key, seen, sandbox.ok()?));
        let case = Case {
            key,
            wanted: *wanted,
            rules: Rules::of(wanted.service),
            seen: *seen,
            looks,
            observed,
            image: images::resolve(observed, wanted.service),
            sandbox,
            held: wants.held.contains_key(key),
            pair: wants.pairs.get(key),
            led: seen.map_or(&[], |seen| allocation.led(&seen.sandbox)),
            network_cause,
            moved,
            ended: ended(observed, key),
            order: orders.of(key),
        };
        verdict::judge(case, memory, now)
    });
    let mut verdicts: Vec<_> = verdicts.collect();
    follow(wants, allocation, &mut verdicts);
    verdicts
}

/// Why the sandbox that is seen must be made anew: it lives in namespaces that it is not to live in.
fn moved(
    wants: &Wants<'_>,
    observed: &Observed,
    allocation: &allocate::Allocation<'_>,
    key: &InstanceKey,
    seen: &Instance,
    want: &SandboxSpec,
) -> Option<Cause> {
    if seen.state == State::Lost {
        return None;
    }
    let have = &seen.sandbox.spaces;
    if *have != want.spaces {
        return Some(spaces::cause(wants, &allocation.lent, key, have, &want.spaces));
    }
    if (have.lends_pid || have.lends_ipc.is_some())
        && seen.identity.is_empty()
        && !planted!("pause-end-unnoticed")
    {
        let text = "what holds the namespaces that it shares has ended";
        return Some(wanted::noun("sandbox", Some(text.to_owned())));
    }
    let lender = have.of.as_ref()?;
    let there = observed.instances.known()?.get(lender);
    let same = there.is_some_and(|there| seen.joined.as_deref() == Some(&there.identity));
    (!same && !planted!("lender-anew-unnoticed")).then(|| spaces::anew(lender))
}

/// Whose namespaces are another's is made anew with it.
fn follow(wants: &Wants<'_>, allocation: &allocate::Allocation<'_>, verdicts: &mut [Verdict<'_>]) {
    // Each turn finds those who share with one of the turn before.
    loop {
        let mut followed = false;
        for (place, member) in wants.instances.iter().enumerate() {
            let Some(lender) = allocation.sandbox(place).and_then(|spec| spec.spaces.of.as_ref()) else {
                continue;
            };
            let theirs = wants.place(lender).and_then(|place| verdicts.get(place));
            let rebuilt = theirs.is_some_and(|verdict| verdict.course == Course::Rebuild);
            if let (true, Some(_), Some(verdict)) = (rebuilt, member.seen, verdicts.get_mut(place)) {
                followed |= verdict.rebuild(spaces::anew(lender));
            }
        }
        if !followed {
            return;
        }
    }
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
