//! What must hold for the update of a service: how many at once and how fast, that it stops where new ones
//! fail, and that names and host ports move only to what is ready.

use model::types::{FailureAction, Project, Service, UpdateConfig};

use super::{super::sim_host::World, Violation, Watch, oracle, violated};
use crate::{
    desired::Wish,
    key::{InstanceKey, Key, ResourceKey, Slot},
    observed::{Health, Hook, Instance, Moment, Observed, State},
    plan::{
        action::Action,
        step::{Class, Step},
    },
    spec::{FirewallSpec, RestartPolicy, Zone},
    status::Status,
    testing::sim_host::objects::{Place, Run},
    time::Now,
};

/// Milliseconds of running after which crashes before are forgotten.
const STEADY: u64 = 10_000;

fn update(service: &Service) -> Option<&UpdateConfig> {
    service.container.deploy.as_ref()?.update_config.as_ref()
}

fn time(time: Option<model::types::Duration>) -> u64 {
    time.map_or(0, model::types::Duration::as_millis)
}

fn of_start(hook: Hook) -> bool {
    hook.moment == Moment::PostStart
}

fn beside(key: &InstanceKey) -> InstanceKey {
    InstanceKey {
        slot: match key.slot {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        },
        ..key.clone()
    }
}

fn runs(place: Option<&Place>) -> bool {
    let shim = place.and_then(|place| place.shim.as_ref());
    shim.is_some_and(|shim| matches!(shim.run, Run::Running { .. }))
}

fn was_started(place: Option<&Place>) -> bool {
    let shim = place.and_then(|place| place.shim.as_ref());
    shim.is_some_and(|shim| shim.run != Run::Created)
}

impl Watch {
    /// U1, of an order.
    pub(super) fn updates(
        &mut self,
        world: &World,
        step: &Step,
        status: &Status,
        now: Now,
    ) -> Result<(), Violation> {
        if self.start_first.is_empty() && self.several.is_empty() {
            return Ok(());
        }
        match &step.action {
            Action::StopContainer { key, drain } => {
                self.drains(world, key, *drain, status)?;
                self.paced(world, key, step, status, now)
            }
            Action::EnsureSandbox(spec) => {
                let (new, old) = (
                    world.instances.get(&spec.key),
                    world.instances.get(&beside(&spec.key)),
                );
                // Its turn is given with the first step, and kept whatever comes between.
                match runs(new) || (new.is_none() && runs(old)) {
                    true => self.paced(world, &spec.key, step, status, now),
                    false => Ok(()),
                }
            }
            Action::SyncFirewall(spec) => self.ports_move(world, spec, &status.observed, now),
            Action::SyncNames { network, zone } => {
                let none = Zone::new();
                self.names_move(
                    world,
                    network,
                    zone.as_ref().unwrap_or(&none),
                    &status.observed,
                    now,
                )
            }
            _ => Ok(()),
        }
    }

    /// Which revision is in force, and whether it is the last good one.
    fn in_force(&self, world: &World, name: &str) -> Option<(String, bool)> {
        let Some(Wish::Run { revision, .. }) = self.desired.projects.get(name) else {
            return None;
        };
        let barred = world.kept.barred.get(name);
        let barred = barred.is_some_and(|barred| barred.revision == *revision);
        let good = world.kept.good.get(name);
        let good = good.is_some_and(|good| good.revision == *revision);
        Some((format!("{revision} {barred}"), barred || good))
    }

    /// One that runs is replaced: it is its turn, and those before it have come out well.
    fn paced(
        &mut self,
        world: &World,
        key: &InstanceKey,
        step: &Step,
        status: &Status,
        now: Now,
    ) -> Result<(), Violation> {
        let changes = || status.plan.changes.iter().filter(|change| change.key == step.key);
        let replaces = changes().any(|change| matches!(change.class, Class::Restart | Class::Recreate));
        let of_manifest = step.cause.field.starts_with("services.");
        // Of two slots the one that does not serve yet may become another at once.
        let alone = match &step.action {
            Action::StopContainer { key, .. } => !was_started(world.instances.get(&beside(key))),
            _ => true,
        };
        let replaces = replaces
            && alone
            && of_manifest
            && (runs(world.instances.get(key)) || runs(world.instances.get(&beside(key))));
        let (Some(project), Some((revision, settled))) = (
            self.effective(world, &key.project),
            self.in_force(world, &key.project),
        ) else {
            return Ok(());
        };
        let Some(service) = project.services.get(&key.service).filter(|_| replaces) else {
            return Ok(());
        };
        if oracle::scale(service) < 2 {
            return Ok(());
        }
        let Some(agent) = &mut self.agent else {
            return Ok(());
        };
        let name = (key.project.clone(), key.service.clone());
        let (of, replaced) = agent.replaced.entry(name).or_default();
        if *of != revision {
            *of = revision;
            replaced.clear();
        }
        // What was begun goes on.
        if replaced.contains_key(&key.index) {
            return Ok(());
        }
        replaced.insert(key.index, now.boot);
        let mut others = replaced.clone();
        others.remove(&key.index);
        // The way back is that of the manifest that was taken back.
        let manifest = match self.desired.projects.get(&key.project) {
            Some(Wish::Run { project, .. }) => project.services.get(&key.service),
            _ => None,
        };
        let update = manifest.and_then(update);
        let at_once = update.and_then(|update| update.parallelism).unwrap_or(1);
        let busy = others
            .keys()
            .filter(|index| self.is_busy(world, key, **index, service, settled, now));
        let busy: Vec<&u32> = busy.collect();
        if at_once > 0 && busy.len() >= at_once as usize {
            return violated(
                "U1",
                format!("{key} is replaced, {at_once} at a time, and {busy:?} of it are not done"),
            );
        }
        let action = update
            .and_then(|update| update.failure_action)
            .unwrap_or(FailureAction::Pause);
        if action == FailureAction::Continue || settled {
            return Ok(());
        }
        let Some(seen) = status.observed.instances.known() else {
            return Ok(());
        };
        let failed = seen.iter().find(|(other, seen)| {
            (&other.project, &other.service) == (&key.project, &key.service)
                && others
                    .get(&other.index)
                    .is_some_and(|since| seen.started_at > Some(*since))
                && oracle::intents(&self.desired, other).next().is_none()
                && !seen_beside(&status.observed, other)
                && self.made_of(other, &project)
                && (seen.health == Health::Unhealthy
                    || matches!(seen.state, State::Exited { code, .. } if code != 0))
        });
        match failed {
            Some((other, _)) => violated("U1", format!("{key} is replaced, although {other} has failed")),
            None => Ok(()),
        }
    }

    fn made_of(&self, key: &InstanceKey, project: &Project) -> bool {
        self.origins
            .get(key)
            .is_some_and(|origin| *origin.project == *project)
    }

    /// What took the place of `index` is not known to be well yet.
    fn is_busy(
        &self,
        world: &World,
        key: &InstanceKey,
        index: u32,
        service: &Service,
        settled: bool,
        now: Now,
    ) -> bool {
        let slots = [Slot::A, Slot::B].map(|slot| InstanceKey {
            index,
            slot,
            ..key.clone()
        });
        if oracle::intents(&self.desired, &slots[0]).next().is_some() {
            return false;
        }
        let Some(agent) = &self.agent else {
            return false;
        };
        // One that cannot be started has failed, and takes no place.
        if slots
            .iter()
            .any(|slot| agent.failures(&Key::Instance(slot.clone())) > 0)
        {
            return false;
        }
        // One that had to be restarted has failed, too: that the one before it goes at last changes nothing.
        let failed = |slot: &InstanceKey| {
            let shim = world.instances.get(slot).and_then(|place| place.shim.as_ref());
            shim.is_some_and(|shim| shim.restarts > 0 && matches!(shim.run, Run::Running { .. }))
        };
        let under_way = |slot: &InstanceKey| {
            let step = agent.running.get(&Key::Instance(slot.clone()));
            step.is_some_and(|step| step.replaces) && !failed(&beside(slot))
        };
        if slots.iter().any(under_way) {
            return true;
        }
        let shims = slots
            .iter()
            .filter_map(|slot| world.instances.get(slot)?.shim.as_ref());
        // So has one that has ended beside the one before it.
        if shims.clone().any(|shim| matches!(shim.run, Run::Exited { .. })) {
            return false;
        }
        let mut running = shims.filter(|shim| matches!(shim.run, Run::Running { .. }));
        let Some(shim) = running.next().filter(|_| running.next().is_none()) else {
            return false;
        };
        if shim.restarts > 0 || shim.health == Health::Unhealthy {
            return false;
        }
        let config = update(service).filter(|_| !settled);
        let rest = config.map_or(0, |config| time(config.monitor) + time(config.delay));
        let until = shim.started_boot.unwrap_or(0) + rest;
        shim.hook.is_some_and(of_start) || shim.health == Health::Starting || until > now.boot
    }

    /// Who is still connected to the one whose place was taken gets as long as its process itself.
    fn drains(&self, world: &World, key: &InstanceKey, drain: u64, status: &Status) -> Result<(), Violation> {
        // Who orders a restart has it at once, also of what is restarted with it.
        let project = self.effective(world, &key.project);
        if !self.served.contains(key) || project.is_some_and(|project| self.asked_for(&project, key)) {
            return Ok(());
        }
        let object = Key::Instance(key.clone());
        let mut changes = status.plan.changes.iter();
        let goes = changes.any(|change| change.key == object && change.class == Class::Remove);
        let seen = status.observed.instances.known();
        let (Some(old), Some(new)) = (
            seen.and_then(|seen| seen.get(key)),
            seen.and_then(|seen| seen.get(&beside(key))),
        ) else {
            return Ok(());
        };
        let running = |one: &Instance| matches!(one.state, State::Running { .. });
        if !goes || !running(old) || !running(new) || !self.side_by_side(world, key) {
            return Ok(());
        }
        let grace = old.container.as_ref().map_or(0, |container| container.stop_grace);
        match drain < grace {
            true => violated(
                "U1",
                format!("{key} is stopped before those connected to it are done"),
            ),
            false => Ok(()),
        }
    }

    /// The service of `key` is to be updated with the new one beside the old one.
    fn side_by_side(&self, world: &World, key: &InstanceKey) -> bool {
        let Some(project) = self.effective(world, &key.project) else {
            return false;
        };
        let service = project.services.get(&key.service);
        service.is_some_and(|service| {
            key.index <= oracle::scale(service) && update(service).is_some_and(|update| update.start_first)
        })
    }

    /// Who takes over from one that runs is ready.
    fn takes_over(
        &self,
        world: &World,
        new: (&InstanceKey, &Instance),
        old: (&InstanceKey, &Instance),
        now: Now,
        what: &str,
    ) -> Result<(), Violation> {
        let running = |one: &Instance| matches!(one.state, State::Running { .. });
        if !running(old.1) || !self.side_by_side(world, new.0) {
            return Ok(());
        }
        let project = self.effective(world, &new.0.project);
        let service = project
            .as_ref()
            .and_then(|project| project.services.get(&new.0.service));
        let monitor = service.and_then(update).map_or(0, |update| time(update.monitor));
        let barred = self
            .in_force(world, &new.0.project)
            .is_some_and(|(_, settled)| settled);
        // One that has done its work is as ready as it will ever be.
        let lasts = new.1.container.as_ref().is_some_and(|container| {
            matches!(
                container.restart,
                RestartPolicy::Always | RestartPolicy::UnlessStopped
            )
        });
        if !lasts && matches!(new.1.state, State::Exited { code: 0, .. }) {
            return Ok(());
        }
        let since = new.1.started_at.unwrap_or(0);
        let ready = running(new.1)
            && !new.1.hook.is_some_and(of_start)
            && match new.1.health {
                Health::Healthy => true,
                Health::Starting | Health::Unhealthy => false,
                Health::None if barred => true,
                Health::None if new.1.streak > 0 => since + monitor.max(STEADY) <= now.boot,
                Health::None => since + monitor <= now.boot,
            };
        match ready {
            true => Ok(()),
            false => violated(
                "U1",
                format!("{what} moves from {} to {}, which is not ready", old.0, new.0),
            ),
        }
    }

    fn names_move(
        &mut self,
        world: &World,
        network: &ResourceKey,
        zone: &Zone,
        observed: &Observed,
        now: Now,
    ) -> Result<(), Violation> {
        let Some(seen) = observed.instances.known() else {
            return Ok(());
        };
        let none = Zone::new();
        let before = world.zones.get(network).map_or(&none, |zone| &**zone);
        let leads = |zone: &Zone, key: &InstanceKey, one: &Instance| {
            zone.get(&key.service).is_some_and(|addresses| {
                let mut endpoints = one.sandbox.endpoints.iter();
                endpoints.any(|end| end.network == *network && addresses.contains(&end.address))
            })
        };
        for (key, one) in seen.iter().filter(|(key, _)| key.project == network.project) {
            if leads(zone, key, one) {
                self.served.insert(key.clone());
            }
            let other = beside(key);
            // Names move first: half way back, its host ports have stayed where they were.
            let serves = |one: &Instance| {
                let mut endpoints = one.sandbox.endpoints.iter();
                endpoints.any(|end| {
                    world
                        .firewall
                        .ports
                        .values()
                        .any(|port| port.address == end.address)
                })
            };
            if let Some(new) = seen.get(&other)
                && !serves(new)
                && leads(before, key, one)
                && !leads(zone, key, one)
                && !leads(before, &other, new)
                && leads(zone, &other, new)
            {
                self.takes_over(world, (&other, new), (key, one), now, "the name")?;
            }
        }
        Ok(())
    }

    fn ports_move(
        &self,
        world: &World,
        spec: &FirewallSpec,
        observed: &Observed,
        now: Now,
    ) -> Result<(), Violation> {
        let Some(seen) = observed.instances.known() else {
            return Ok(());
        };
        for (port, target) in &spec.ports {
            let Some(before) = world.firewall.ports.get(port).filter(|before| *before != target) else {
                continue;
            };
            let of = |address| {
                seen.iter().find(|(_, one)| {
                    let mut endpoints = one.sandbox.endpoints.iter();
                    endpoints.any(|end| end.address == address)
                })
            };
            if let (Some(old), Some(new)) = (of(before.address), of(target.address))
                && *new.0 == beside(old.0)
            {
                let what = format!("host port {}", port.published);
                self.takes_over(world, new, old, now, &what)?;
            }
        }
        Ok(())
    }
}

fn seen_beside(observed: &Observed, key: &InstanceKey) -> bool {
    let seen = observed.instances.known();
    seen.is_some_and(|seen| seen.contains_key(&beside(key)))
}
