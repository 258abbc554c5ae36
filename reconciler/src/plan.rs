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
mod volumes;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    desired::Desired,
    key::{InstanceKey, Slot},
    memory::Memory,
    observed::{Ended, Fact, Observed},
    restart::Rules,
    time::Now,
};
use draft::{Draft, Ready};
use firewall::Stage;
use instances::Ground;
use orders::Orders;
use step::{Plan, Step};
use verdict::{Case, Verdict};
use wanted::{Wanted, Wants};

pub use render::{because, hash, json, line, render, word};

/// Steps that were started and have not ended.
pub type InFlight = Vec<Step>;

/// What is to be done. Pure and total: asks nobody, reads no clock, never panics.
pub fn plan(desired: &Desired, observed: &Observed, memory: &Memory, in_flight: &InFlight, now: Now) -> Plan {
    let wants = Wants::new(desired, memory, observed);
    let allocation = allocate::allocate(&wants, observed, in_flight);
    let mut draft = Draft::new(observed, memory, in_flight, now);

    let unpacked = images::images(&mut draft, &wants);
    let networks = networks::networks(&mut draft, &wants, &allocation);
    let orders = Orders::new(desired, &observed.boot_id, &wants);
    let verdicts = verdicts(&wants, observed, memory, &allocation, &networks, &orders, now);
    let volumes = volumes::volumes(&mut draft, &wants, instances::targets(&verdicts));
    let orphans = orphans::stop(&mut draft, &wants);
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
    let first = firewall_at(&draft, &Stage::default());
    let names = names::now(&mut draft, &wants, present.as_deref(), &explained);
    let isolation = firewall::now(&mut draft, first.as_ref(), &networks.ready, &explained);

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
    };
    let second = firewall_at(&draft, &without);
    let mut firewall = isolation;
    if let (Some(before), Some(after)) = (&first, &second) {
        let mut needs = stops.clone();
        needs.push(firewall);
        if let Some(ready) = firewall::then(&mut draft, before, after, &needs) {
            firewall = ready;
        }
    }
    let mut sandboxes = orphans.remove(&mut draft, &wants, firewall, &then_names);

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
    };
    let third = firewall_at(&draft, &last);
    if let (Some(before), Some(after)) = (&second, &third) {
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

    let mut plan = draft.plan;
    plan.changes
        .sort_by(|a, b| (a.key.project(), &a.key).cmp(&(b.key.project(), &b.key)));
    plan
}

fn verdicts(
    wants: &Wants<'_>,
    observed: &Observed,
    memory: &Memory,
    allocation: &allocate::Allocation,
    networks: &networks::Networks,
    orders: &Orders<'_>,
    now: Now,
) -> BTreeMap<InstanceKey, Verdict> {
    let Some(seen) = observed.instances.known() else {
        return BTreeMap::new();
    };
    let unplanned = "no address was chosen".to_owned();
    let mut verdicts = BTreeMap::new();
    // Of services whose dependants restart with them.
    let mut revisions: BTreeMap<(&str, &str), String> = BTreeMap::new();
    let order = instances::in_order(wants);
    let followed: BTreeSet<(&str, &str)> = order
        .iter()
        .flat_map(|(_, wanted)| {
            let on = wanted.service.depends_on.iter().filter(|(_, on)| on.restart);
            on.map(|(name, _)| (wanted.project.name.as_str(), name.as_str()))
        })
        .collect();
    for (name, wanted) in order {
        let Wanted { project, service } = wanted;
        let image = images::resolve(observed, &service.image);
        let mut fields = container::compared(project, service);
        let mut known = image.is_ok();
        for (on, _) in service.depends_on.iter().filter(|(_, on)| on.restart) {
            match revisions.get(&(project.name.as_str(), on.as_str())) {
                Some(revision) => {
                    fields.insert(container::revision_field(on), revision.clone());
                }
                None => known = false,
            }
        }
        if let (true, Ok(image), true) = (known, &image, followed.contains(&(project.name.as_str(), name))) {
            let mut fields = fields.clone();
            fields.insert("image.digest".to_owned(), image.digest.clone());
            revisions.insert((&project.name, name), container::revision(&fields));
        }
        let rules = Rules::of(service);
        for (key, _) in wants.of(&project.name, name) {
            let sandbox = allocation
                .sandboxes
                .get(key)
                .map_or(Err(&unplanned), |sandbox| sandbox.as_ref());
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
                fields: &fields,
                image: image.clone(),
                sandbox,
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
