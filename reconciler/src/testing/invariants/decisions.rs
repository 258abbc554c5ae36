//! What must hold for what the loop has decided: its orders, judged by what it knew and by what is wanted.

use std::sync::Arc;

use model::types::Project;

use super::{
    super::sim_host::{World, objects::Run},
    Origin, Violation, Watch, oracle, violated,
};
use crate::{
    converge::Round,
    desired::{Intent, Wish},
    execute::Order,
    key::{InstanceKey, Key},
    observed::{Fact, Health, Observed, State},
    plan::{action::Action, step::Step},
    spec::{ContainerSpec, FirewallSpec, MountSpec, NetworkSpec, SandboxSpec},
    status::{ProjectState, Status},
    time::Now,
};

/// Orders of one round: more than the lanes are wide cannot be.
const MOST_ORDERS: usize = 80;
/// Steps of one plan.
const MOST_STEPS: usize = 10_000;

/// What an order starts.
pub(super) struct Start<'a> {
    pub key: &'a InstanceKey,
    pub spec: &'a ContainerSpec,
    /// Something of it is to become another.
    pub changes: bool,
    pub fresh: bool,
    pub restarts: u32,
    pub streak: u32,
}

impl Watch {
    /// # Errors
    /// The first invariant that an order or the status breaks.
    pub fn decided(&mut self, world: &World, round: &Round, now: Now) -> Result<(), Violation> {
        if round.orders.len() > MOST_ORDERS || round.status.plan.steps.len() > MOST_STEPS {
            return violated("X1", format!("{} orders in one round", round.orders.len()));
        }
        if let Some(agent) = &mut self.agent {
            agent.decided(round)?;
        }
        for order in &round.orders {
            if let Order::Step { step, .. } = order {
                self.ordered(world, step, &round.status, now)?;
                self.updates(world, step, &round.status, now)?;
            }
            if let Some(agent) = &mut self.agent {
                agent.orders(order)?;
            }
        }
        if let Some(agent) = &self.agent {
            agent.attends()?;
        }
        self.barred(world)?;
        self.told(&round.status)
    }

    fn ordered(&mut self, world: &World, step: &Step, status: &Status, now: Now) -> Result<(), Violation> {
        let observed = &status.observed;
        match &step.action {
            Action::RemoveVolume(key) => {
                self.may_go(&key.project, step)?;
                match self.desired.projects.get(&key.project) {
                    Some(Wish::Down { volumes: true }) => Ok(()),
                    _ => violated("V1", format!("{key} is removed without consent")),
                }
            }
            Action::RemoveNetwork(key) => self.may_go(&key.project, step),
            Action::StopContainer { key, .. } => {
                self.may_go(&key.project, step)?;
                self.stop_order(world, key)?;
                self.spared(world, key, observed)
            }
            Action::RemoveSandbox(key) => {
                self.may_go(&key.project, step)?;
                self.spared(world, key, observed)
            }
            Action::StartContainer {
                key,
                spec,
                fresh,
                restarts,
                streak,
                ..
            } => {
                let object = Key::Instance(key.clone());
                let start = Start {
                    key,
                    spec,
                    changes: status.plan.changes.iter().any(|change| change.key == object),
                    fresh: *fresh,
                    restarts: *restarts,
                    streak: *streak,
                };
                self.start(world, &start, observed, now)
            }
            Action::UpdateContainer { key, spec } => {
                if let Some(project) = self.effective(world, &key.project) {
                    self.originate(key, project, spec, observed);
                }
                Ok(())
            }
            Action::EnsureNetwork(spec) => clear_of_routes(world, spec, observed),
            Action::SyncFirewall(spec) => leads_to_somebody(world, spec, observed),
            Action::EnsureSandbox(spec) => {
                leads_nowhere(world, spec, observed)?;
                self.joins(world, spec, status)?;
                let start = status.plan.steps.iter().find_map(|step| match &step.action {
                    Action::StartContainer {
                        key, spec: container, ..
                    } if *key == spec.key => Some(container),
                    _ => None,
                });
                match (self.effective(world, &spec.key.project), start) {
                    (Some(project), Some(start)) => self.finished(world, &project, &spec.key, start),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// G1: what was taken back stays so until the manifest is another, and no longer.
    fn barred(&self, world: &World) -> Result<(), Violation> {
        for (name, barred) in &world.kept.barred {
            if let Some(Wish::Run { revision, .. }) = self.desired.projects.get(name)
                && *revision != barred.revision
            {
                return violated(
                    "G1",
                    format!(
                        "{} of {name} is barred, and the manifest is another",
                        barred.revision
                    ),
                );
            }
        }
        Ok(())
    }

    /// G1
    fn may_go(&self, project: &str, step: &Step) -> Result<(), Violation> {
        let left_alone = match self.desired.projects.get(project) {
            Some(Wish::Hold { .. }) => true,
            Some(_) => false,
            None => self.desired.incomplete.is_some(),
        };
        match left_alone {
            true => violated(
                "G1",
                format!("{} goes, and nobody knows what is wanted", step.key),
            ),
            false => Ok(()),
        }
    }

    pub(super) fn wanted(&self, world: &World, key: &InstanceKey) -> bool {
        let project = self.effective(world, &key.project);
        project.is_some_and(|project| {
            let service = project.services.get(&key.service);
            service.is_some_and(|service| key.index <= oracle::scale(service))
        })
    }

    /// P3: what runs and is stopped or removed is affected by something.
    fn spared(&self, world: &World, key: &InstanceKey, observed: &Observed) -> Result<(), Violation> {
        let place = world.instances.get(key);
        let shim = place.and_then(|place| place.shim.as_ref());
        if !shim.is_some_and(|shim| matches!(shim.run, Run::Running { .. })) {
            return Ok(());
        }
        let Some(project) = self
            .effective(world, &key.project)
            .filter(|_| self.wanted(world, key))
        else {
            return Ok(());
        };
        let Some(origin) = self.origins.get(key) else {
            return Ok(());
        };
        // Of two slots one goes.
        let mut others = world.instances.iter().filter(|(other, _)| *other != key);
        if others.any(|(other, place)| {
            (&other.project, &other.service, other.index) == (&key.project, &key.service, key.index)
                && place.shim.as_ref().is_some_and(|shim| shim.run != Run::Created)
        }) {
            return Ok(());
        }
        let seen = observed.instances.known().and_then(|all| all.get(key));
        let hurt = seen.is_none_or(|seen| {
            seen.broken.is_some() || seen.health == Health::Unhealthy || seen.state == State::Lost
        });
        let moves = self.moves(&project, observed, key);
        if hurt || moves || oracle::intents(&self.desired, key).next().is_some() {
            return Ok(());
        }
        let mut names = oracle::followed(&project, &key.service);
        names.insert(key.service.clone());
        let service = project.services.get(&key.service);
        names.extend(service.and_then(|service| service.container.pre_start_of.clone()));
        let touched = names.iter().any(|name| {
            let of_it = |other: &&InstanceKey| other.project == key.project && other.service == *name;
            let intent = self
                .desired
                .intents
                .keys()
                .any(|target| target.project == key.project && target.service == *name);
            let service = project.services.get(name);
            let digest = service.and_then(|service| oracle::digest(observed, service));
            let mut origins = self.origins.iter().filter(|(other, _)| of_it(other));
            let followed = origin.followed.get(name);
            let moved = followed
                .is_some_and(|(then, was)| oracle::affected(then, &project, name, (was.as_str(), digest)));
            intent
                || moved
                || oracle::affected(&origin.project, &project, name, ("", None))
                || origins.any(|(_, origin)| {
                    let digests = (origin.spec.image_digest.as_str(), digest);
                    oracle::affected(&origin.project, &project, name, digests)
                })
        });
        // Its follower is restarted when it is, which may be before or after.
        if touched {
            return Ok(());
        }
        violated("P3", format!("{key} is not affected, and yet is replaced"))
    }

    /// D1, backwards: whoever depends on it has been stopped before.
    fn stop_order(&self, world: &World, key: &InstanceKey) -> Result<(), Violation> {
        if self.wanted(world, key) {
            return Ok(());
        }
        for other in world.pids().keys() {
            let goes =
                other.project == key.project && other.service != key.service && !self.wanted(world, other);
            if goes && depends(world, other, &key.service) && !circle(world, key, &other.service) {
                return violated(
                    "D1",
                    format!("{key} is stopped before {other}, which depends on it"),
                );
            }
        }
        Ok(())
    }

    fn start(
        &mut self,
        world: &World,
        start: &Start<'_>,
        observed: &Observed,
        now: Now,
    ) -> Result<(), Violation> {
        let key = start.key;
        let Some(project) = self.effective(world, &key.project) else {
            return violated("G1", format!("{key} is started, and nobody wants it"));
        };
        let stopped = oracle::intents(&self.desired, key).any(|intent| matches!(intent, Intent::Stop { .. }));
        if stopped {
            return violated("R1", format!("{key} is started, and an operator has stopped it"));
        }
        if let Fact::Known(volumes) = &observed.volumes {
            for mount in &start.spec.mounts {
                if let MountSpec::Volume { volume, .. } = mount
                    && let Some(why) = volumes.get(volume).and_then(|seen| seen.lost.as_ref())
                {
                    return violated("V2", format!("{key} is started on {volume}: {why}"));
                }
            }
        }
        if start.restarts == 0
            && let Some(unmet) = oracle::unmet(&project, &key.service, observed)
        {
            return violated("D1", format!("{key} is started, and {unmet}"));
        }
        self.starts_in(&project, key, observed)?;
        self.prepares(&project, start);
        self.revived(&project, start, observed, now)?;
        // One whose turn has not come is started again as it was.
        let same = self
            .origins
            .get(key)
            .is_some_and(|origin| *origin.spec == *start.spec);
        if same {
            return Ok(());
        }
        let as_before = self.earlier.get(key);
        if let Some(origin) = as_before.filter(|origin| *origin.spec == *start.spec) {
            self.origins.insert(key.clone(), origin.clone());
            return Ok(());
        }
        self.is_prepared(world, &project, key)?;
        if let Some(origin) = self.origins.get(key) {
            self.earlier.insert(key.clone(), origin.clone());
        }
        self.originate(key, project, start.spec, observed);
        Ok(())
    }

    fn originate(
        &mut self,
        key: &InstanceKey,
        project: Arc<Project>,
        spec: &ContainerSpec,
        observed: &Observed,
    ) {
        let digest = |name: &String| {
            let digest = oracle::digest(observed, project.services.get(name)?)?;
            Some(digest.to_owned())
        };
        let before = self.origins.get(key).map(|origin| &origin.followed);
        let followed = oracle::followed(&project, &key.service).into_iter();
        let followed = followed.filter_map(|name| {
            let now = digest(&name).map(|digest| (project.clone(), digest));
            let known = now.or_else(|| before?.get(&name).cloned())?;
            Some((name, known))
        });
        let origin = Origin {
            followed: followed.collect(),
            spec: Box::new(spec.clone()),
            project,
        };
        self.origins.insert(key.clone(), origin);
    }

    /// T1: what status says of a project fits what it says besides.
    fn told(&self, status: &Status) -> Result<(), Violation> {
        for (name, project) in &status.projects {
            if let Some(tried) = &project.tried
                && matches!(self.desired.projects.get(name), Some(Wish::Run { .. }))
                && !self.revisions.contains(&(name.clone(), tried.clone()))
            {
                return violated("G1", format!("{name} is at {tried}, which nobody ever wanted"));
            }
            let changes = status.plan.changes.iter();
            let mut own = changes.filter(|change| change.key.project() == Some(name));
            let unseen = status.observed.instances.known().is_none();
            let runs = match self.desired.projects.get(name) {
                Some(Wish::Run { project, .. }) => project
                    .services
                    .values()
                    .any(|service| oracle::scale(service) > 0),
                _ => false,
            };
            match project.state {
                ProjectState::Converged if unseen && runs => {
                    return violated(
                        "T1",
                        format!("{name} is said to be converged, and its containers cannot be read"),
                    );
                }
                ProjectState::Converged if own.next().is_some() => {
                    return violated(
                        "T1",
                        format!("{name} is said to be converged, and something changes"),
                    );
                }
                ProjectState::Waiting
                    if project.waiting.is_empty() && own.all(|change| change.gate.is_none()) =>
                {
                    return violated("T1", format!("{name} waits, and nobody says for what"));
                }
                ProjectState::Degraded if project.failures.is_empty() && project.waiting.is_empty() => {
                    return violated("T1", format!("{name} is degraded, and nobody says why"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// N1: a subnet that is chosen now is nobody's.
fn clear_of_routes(world: &World, spec: &NetworkSpec, observed: &Observed) -> Result<(), Violation> {
    let key = &spec.key;
    let known = observed
        .networks
        .known()
        .is_some_and(|seen| seen.contains_key(key));
    if known || world.bridges.contains_key(key) || world.networks.contains_key(key) {
        return Ok(());
    }
    let routes = observed.routes.known().into_iter().flatten();
    match routes
        .into_iter()
        .find(|route| route.prefix > 1 && route.overlaps(spec.subnet))
    {
        Some(route) => violated(
            "N1",
            format!("the subnet of {key} is part of {route:?}, which is not ours"),
        ),
        None => Ok(()),
    }
}

/// N2: a host port that leads elsewhere from now on leads to one who is there.
fn leads_to_somebody(world: &World, spec: &FirewallSpec, observed: &Observed) -> Result<(), Violation> {
    let Some(seen) = observed.instances.known() else {
        return Ok(());
    };
    for (port, target) in &spec.ports {
        if world.firewall.ports.get(port) == Some(target) {
            continue;
        }
        let mut endpoints = seen.values().flat_map(|one| &one.sandbox.endpoints);
        if !endpoints.any(|end| end.address == target.address) {
            let text = format!(
                "host port {} leads to {}, where nobody is",
                port.published, target.address
            );
            return violated("N2", text);
        }
    }
    Ok(())
}

/// N2: there is no way out of an internal network.
fn leads_nowhere(world: &World, spec: &SandboxSpec, observed: &Observed) -> Result<(), Violation> {
    let internal = |key| world.networks.whole(key).is_some_and(|network| network.internal);
    // What cannot become another now is put right as it was.
    let seen = observed.instances.known().and_then(|seen| seen.get(&spec.key));
    let before = seen.map_or(&[][..], |seen| &seen.sandbox.endpoints);
    let mut outside = spec
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.gateway.is_some() && !before.contains(endpoint));
    match outside.find(|endpoint| internal(&endpoint.network)) {
        Some(endpoint) => violated(
            "N2",
            format!(
                "{} has a way out through {}, which is internal",
                spec.key, endpoint.network
            ),
        ),
        None => Ok(()),
    }
}

/// Whether the container of `key` was given that it depends on `service`.
fn depends(world: &World, key: &InstanceKey, service: &str) -> bool {
    let shim = world.instances.get(key).and_then(|place| place.shim.as_ref());
    let container = shim.and_then(|shim| shim.container.as_ref());
    container.is_some_and(|container| {
        let field = format!("depends_on.{service}.condition");
        container.fields.contains_key(&field)
    })
}

/// Whether `key` depends on `service`, through whatever others.
fn circle(world: &World, key: &InstanceKey, service: &str) -> bool {
    let mut found: Vec<&InstanceKey> = vec![key];
    let mut next = 0;
    while let Some(one) = found.get(next).copied() {
        if depends(world, one, service) {
            return true;
        }
        let others = world
            .instances
            .keys()
            .filter(|other| other.project == key.project);
        let others = others.filter(|other| depends(world, one, &other.service));
        let others: Vec<&InstanceKey> = others.filter(|other| !found.contains(other)).collect();
        found.extend(others);
        next += 1;
    }
    false
}
