//! What must hold whenever a step is begun: the rules of the house, each in the plainest words.

use std::collections::BTreeSet;

use model::types::{Condition, Service};

use super::{
    edits::{Edit, PROJECT},
    world::{NOW, Unreadable, World},
};
use crate::{
    desired::Wish,
    key::InstanceKey,
    observed::{Health, Instance, State},
    plan::{action::Action, step::Step},
    spec::FirewallSpec,
};

/// What a step may rely on when it is begun.
pub struct Moment<'a> {
    pub world: &'a World,
    pub edit: &'a Edit,
    /// Keys of the steps under way.
    pub flight: &'a [&'a Step],
    /// Processes that nobody has a reason to stop.
    pub settled: &'a BTreeSet<InstanceKey>,
}

/// The rule that is broken by beginning `step` now.
pub fn broken(step: &Step, moment: &Moment<'_>) -> Option<String> {
    let Moment {
        world,
        edit,
        flight,
        settled,
    } = moment;
    let action = &step.action;
    if flight.iter().any(|other| other.key == step.key) {
        return Some(format!("one at a time: {} is under way already", step.key));
    }
    if edit.frozen && step.key.project() == Some(PROJECT) {
        return Some(format!("left alone: {} of a project that is held", step.key));
    }
    if let Some(part) = world.unreadable
        && relies_on(action, part)
    {
        return Some(format!(
            "unknown is not absent: {part:?} cannot be read, and yet {}",
            step.key
        ));
    }
    if let Action::RemoveVolume(key) = action
        && !matches!(
            edit.desired.projects.get(&key.project),
            Some(Wish::Down { volumes: true })
        )
    {
        return Some(format!("consent: volume {key} is removed"));
    }
    if let Some(key) = process(action)
        && settled.contains(key)
        && wanted(key, edit).is_some()
    {
        return Some(format!("bystander: {key} is as it should be, and yet {action:?}"));
    }
    if let Some(why) = world.refuses(action) {
        return Some(format!("order: {why}"));
    }
    match action {
        Action::StartContainer { key, fresh, .. } => gates(key, edit, world)
            .or_else(|| too_early(key, *fresh, world))
            .or_else(|| finished(key, *fresh, edit, world)),
        Action::StopContainer { key, .. } => stop_order(key, edit, world),
        Action::SyncFirewall(spec) => firewall(spec, world),
        _ => None,
    }
}

/// Whose process `action` stops or starts.
fn process(action: &Action) -> Option<&InstanceKey> {
    match action {
        Action::StopContainer { key, .. }
        | Action::RemoveSandbox(key)
        | Action::StartContainer { key, .. } => Some(key),
        _ => None,
    }
}

fn relies_on(action: &Action, part: Unreadable) -> bool {
    match action {
        Action::StopContainer { .. } | Action::RemoveSandbox(_) | Action::EnsureSandbox(_) => {
            part == Unreadable::Instances
        }
        Action::StartContainer { spec, .. } => {
            part == Unreadable::Instances || (part == Unreadable::Volumes && !spec.mounts.is_empty())
        }
        Action::EnsureNetwork(_) => part == Unreadable::Networks,
        Action::RemoveNetwork(_) => matches!(part, Unreadable::Networks | Unreadable::Instances),
        Action::EnsureVolume(_) => part == Unreadable::Volumes,
        Action::RemoveVolume(_) => matches!(part, Unreadable::Volumes | Unreadable::Instances),
        Action::SyncFirewall(_) => matches!(part, Unreadable::Firewall | Unreadable::Instances),
        Action::SyncNames { .. } => matches!(part, Unreadable::Zones | Unreadable::Instances),
        Action::UpdateContainer { .. } | Action::UnpackImage { .. } | Action::PinImage { .. } => false,
    }
}

fn of<'w>(world: &'w World, service: &str) -> impl Iterator<Item = (&'w InstanceKey, &'w Instance)> {
    let own = move |(key, _): &(&InstanceKey, &Instance)| key.service == service;
    world.instances.iter().filter(own).collect::<Vec<_>>().into_iter()
}

fn wanted<'e>(key: &InstanceKey, edit: &'e Edit) -> Option<&'e Service> {
    let Some(Wish::Run { project, .. }) = edit.desired.projects.get(&key.project) else {
        return None;
    };
    let service = project.services.get(&key.service)?;
    (key.index <= service.container.scale.unwrap_or(1)).then_some(service)
}

fn gates(key: &InstanceKey, edit: &Edit, world: &World) -> Option<String> {
    let Some(service) = wanted(key, edit) else {
        return Some(format!("start: nobody wants {key}"));
    };
    for (name, dependency) in &service.depends_on {
        let open = of(world, name).any(|(_, other)| match dependency.condition {
            Condition::Started => other.container.is_some() && other.state != State::Lost,
            Condition::Healthy => {
                matches!(other.state, State::Running { .. }) && other.health == Health::Healthy
            }
            Condition::CompletedSuccessfully => matches!(other.state, State::Exited { code: 0, .. }),
        });
        if !open {
            return Some(format!(
                "gate: {key} is started, but {name} is not what it depends on"
            ));
        }
    }
    None
}

/// A restart comes no earlier than nine tenths of the curve.
fn too_early(key: &InstanceKey, fresh: bool, world: &World) -> Option<String> {
    let instance = world.instances.get(key)?;
    let State::Exited { at, .. } = instance.state else {
        return None;
    };
    let least = 90u64 << instance.streak.min(8);
    let waited = NOW.boot.saturating_sub(at);
    (!fresh && waited < least).then(|| format!("back-off: {key} is started again after {waited} ms"))
}

/// What has ended, and shall not be started again, is started only as something else.
fn finished(key: &InstanceKey, fresh: bool, edit: &Edit, world: &World) -> Option<String> {
    let Some(Wish::Run { project, .. }) = edit.desired.projects.get(&key.project) else {
        return None;
    };
    let restart = project.services.get(&key.service)?.restart;
    let instance = world.instances.get(key)?;
    let over = matches!(instance.state, State::Exited { .. }) && restart == crate::spec::RestartPolicy::No;
    (over && !fresh).then(|| format!("policy: {key} has ended and is started again"))
}

/// A dependency is stopped after those who depend on it.
fn stop_order(key: &InstanceKey, edit: &Edit, world: &World) -> Option<String> {
    if let Some(Wish::Run { .. }) = edit.desired.projects.get(&key.project) {
        return None;
    }
    let field = format!("depends_on.{}.condition", key.service);
    world
        .running()
        .find(|(other, instance)| {
            let spec = instance.container.as_deref();
            *other != key && spec.is_some_and(|spec| spec.fields.contains_key(&field))
        })
        .map(|(other, _)| format!("stop order: {key} is stopped while {other} depends on it"))
}

/// Ports lead to somebody who was started and has them reserved, or takes them over from the slot beside
/// it that has, or had until it went; and whoever runs stays reachable.
fn firewall(spec: &FirewallSpec, world: &World) -> Option<String> {
    for (port, target) in &spec.ports {
        let there = world.instances.iter().any(|(key, instance)| {
            let mut ends = instance.sandbox.endpoints.iter();
            let reserved = world.instances.iter().any(|(other, instance)| {
                let mut ports = instance.sandbox.ports.iter();
                (&other.project, &other.service, other.index) == (&key.project, &key.service, key.index)
                    && (instance.state == State::Lost || ports.any(|held| held.published == port.published))
            });
            let led = world.firewall.spec.ports.get(port) == Some(target);
            instance.container.is_some() && ends.any(|end| end.address == target.address) && (reserved || led)
        });
        if !there {
            return Some(format!("ports: {} leads to nobody", port.published));
        }
    }
    for (key, instance) in world.running() {
        for end in &instance.sandbox.endpoints {
            let kept = spec.networks.get(&end.network);
            if !kept.is_some_and(|network| network.endpoints.contains(&(end.address, end.mac))) {
                return Some(format!("isolation: {key} runs and is not in the firewall"));
            }
        }
    }
    None
}
