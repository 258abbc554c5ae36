//! The steps of wanted instances: sandbox, container, gates, and what must be gone before.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    action::Action,
    allocate::Allocation,
    draft::{Draft, Ready},
    images::Unpacked,
    step::{Cause, Class},
    verdict::{Course, Verdict},
    volumes,
    wanted::{self, Wanted, Wants},
};
use model::types::Project;

use crate::{
    gate::{self, Dependency, Gate},
    key::{InstanceKey, Key, ResourceKey},
    observed::State,
    spec::{ContainerSpec, SandboxSpec},
};

/// What the steps of instances need, by what they need it of.
pub struct Ground<'a> {
    pub wants: &'a Wants<'a>,
    pub allocation: &'a Allocation,
    pub verdicts: &'a BTreeMap<InstanceKey, Verdict>,
    pub unpacked: &'a Unpacked,
    pub networks: &'a BTreeMap<ResourceKey, Ready>,
    pub volumes: &'a BTreeMap<ResourceKey, Ready>,
    pub names: &'a BTreeMap<ResourceKey, Ready>,
    /// Networks and endpoints are kept apart.
    pub firewall: Ready,
    /// Whose endpoints the firewall knows already.
    pub isolated: &'a BTreeSet<InstanceKey>,
    /// Sandboxes that go in this pass.
    pub removed: &'a BTreeMap<InstanceKey, Ready>,
}

/// What became of the instances.
#[derive(Default)]
pub struct Instances {
    /// Sandboxes, as they shall be.
    pub sandboxes: BTreeMap<InstanceKey, Ready>,
    /// Starts; `Now` for what runs or has run as wanted.
    pub starts: BTreeMap<InstanceKey, Ready>,
}

/// Dependencies before their dependants; a cycle is cut at its first service.
pub fn in_order<'a>(wants: &Wants<'a>) -> Vec<(&'a str, Wanted<'a>)> {
    let mut order = Vec::new();
    for project in wants.projects.values() {
        let mut placed = BTreeSet::new();
        for name in project.services.keys() {
            place(name, project, &mut placed, &mut order);
        }
    }
    order
}

fn place<'a>(
    name: &str,
    project: &'a Project,
    placed: &mut BTreeSet<&'a str>,
    order: &mut Vec<(&'a str, Wanted<'a>)>,
) {
    let Some((name, service)) = project.services.get_key_value(name) else {
        return;
    };
    if !placed.insert(name) {
        return;
    }
    for dependency in service.depends_on.keys() {
        place(dependency, project, placed, order);
    }
    order.push((name, Wanted { project, service }));
}

pub fn instances(draft: &mut Draft<'_>, ground: &Ground<'_>) -> Instances {
    let mut instances = Instances::default();
    if let Err(why) = known(draft) {
        for key in ground.wants.instances.keys() {
            draft.wait(Key::Instance(key.clone()), why.clone(), None);
        }
        return instances;
    }
    for (name, wanted) in in_order(ground.wants) {
        for (key, _) in ground.wants.of(&wanted.project.name, name) {
            if let Some(verdict) = ground.verdicts.get(key) {
                instance(draft, ground, &mut instances, key, wanted, verdict);
            }
        }
    }
    instances
}

fn known(draft: &Draft<'_>) -> Result<(), String> {
    match &draft.observed.instances {
        crate::observed::Fact::Known(_) => Ok(()),
        crate::observed::Fact::Unknown(why) => Err(format!("the containers could not be read: {why}")),
    }
}

fn instance(
    draft: &mut Draft<'_>,
    ground: &Ground<'_>,
    instances: &mut Instances,
    key: &InstanceKey,
    wanted: Wanted<'_>,
    verdict: &Verdict,
) {
    let object = Key::Instance(key.clone());
    let seen = draft.observed.instances.known().and_then(|seen| seen.get(key));
    let (gates, gate_text) = gates(draft, ground, instances, key, wanted, verdict);
    if let Some((class, cause)) = &verdict.change {
        let alone = ground.wants.alone.get(&(&*key.project, &*key.service));
        let alone = alone.map(|why| format!("stopped before it is started: {why}"));
        let text = verdict.replaces().then_some(gate_text.or(alone)).flatten();
        draft.change(object.clone(), *class, cause, text);
    }
    let (class, cause) = match (&verdict.change, &verdict.course) {
        (Some((class, cause)), _) => (Some(*class), cause.clone()),
        (None, Course::Revive { reason, .. }) => (None, wanted::noun("exit", Some(reason.clone()))),
        (None, _) => (None, wanted::noun("sandbox", None)),
    };
    if let Err(why) = &verdict.target
        && (verdict.change.is_some() || verdict.course != Course::Rest)
    {
        let why = format!("{} cannot start yet: {why}", key.service);
        draft.wait(object, why, None);
        // What is left of a lost one is cleared away all the same.
        if verdict.course == Course::Rebuild {
            let action = Action::RemoveSandbox(key.clone());
            draft.step(&Key::Instance(key.clone()), action, &cause, None, &[]);
        }
        instances.starts.insert(key.clone(), Ready::Blocked);
        return;
    }
    let completes_here = !verdict.amend && !verdict.replaces();
    let sandbox = sandbox(
        draft,
        ground,
        key,
        verdict,
        &cause,
        class.filter(|_| completes_here),
    );
    instances.sandboxes.insert(key.clone(), sandbox);
    let Ok(target) = &verdict.target else {
        instances.starts.insert(key.clone(), Ready::Now);
        return;
    };
    let mut needs = vec![sandbox];
    let networks = endpoints(ground, key);
    needs.extend(networks.filter_map(|network| ground.names.get(network)));
    if verdict.amend && !verdict.replaces() {
        let action = Action::UpdateContainer {
            key: key.clone(),
            spec: Box::new(target.clone()),
        };
        let ready = draft.step(&object, action, &cause, class, &needs);
        needs.push(ready);
    }
    needs.extend(gates);
    needs.extend(volumes::mounted(target).filter_map(|volume| ground.volumes.get(volume)));
    needs.extend(ground.unpacked.get(&target.image_digest));
    let start = |draft: &mut Draft<'_>, fresh, restarts, streak, completes, needs: &[Ready]| {
        let action = Action::StartContainer {
            key: key.clone(),
            spec: Box::new(target.clone()),
            fresh,
            restarts,
            streak,
            flaps: 0,
        };
        draft.step(&object, action, &cause, completes, needs)
    };
    let ready = match &verdict.course {
        Course::Rest => Ready::Now,
        Course::Start | Course::Rebuild => start(draft, true, 0, 0, class, &needs),
        Course::Replace => {
            if seen.is_some_and(|seen| matches!(seen.state, State::Running { .. })) {
                let object = Key::Instance(key.clone());
                let stop = draft.step(
                    &object,
                    Action::StopContainer {
                        key: key.clone(),
                        drain: 0,
                    },
                    &cause,
                    None,
                    &needs,
                );
                needs = vec![stop];
            }
            start(draft, true, 0, 0, class, &needs)
        }
        Course::Revive { restarts, streak, .. } => start(draft, false, *restarts, *streak, None, &needs),
        Course::Later { until, reason } => {
            draft.wait(Key::Instance(key.clone()), reason.clone(), Some(*until));
            // It has been started before: that is all `service_started` asks.
            Ready::Now
        }
    };
    instances.starts.insert(key.clone(), ready);
    take_over(draft, ground, key, ready);
}

fn endpoints<'g>(ground: &'g Ground<'_>, key: &InstanceKey) -> impl Iterator<Item = &'g ResourceKey> {
    let spec: Option<&SandboxSpec> = match ground.allocation.sandboxes.get(key) {
        Some(Ok(spec)) => Some(spec),
        _ => None,
    };
    spec.into_iter()
        .flat_map(|spec| spec.endpoints.iter().map(|endpoint| &endpoint.network))
}

fn sandbox(
    draft: &mut Draft<'_>,
    ground: &Ground<'_>,
    key: &InstanceKey,
    verdict: &Verdict,
    cause: &Cause,
    completes: Option<Class>,
) -> Ready {
    let object = Key::Instance(key.clone());
    let mut needs = Vec::new();
    if verdict.course == Course::Rebuild {
        needs.push(draft.step(&object, Action::RemoveSandbox(key.clone()), cause, None, &[]));
    }
    let mut spec = match ground.allocation.sandboxes.get(key) {
        Some(Ok(spec)) => spec.clone(),
        Some(Err(why)) => return draft.wait(object, why.clone(), None),
        None => return Ready::Blocked,
    };
    if !verdict.sandbox {
        return Ready::Now;
    }
    needs.extend(endpoints(ground, key).filter_map(|network| ground.networks.get(network)));
    if !ground.isolated.contains(key) {
        needs.push(ground.firewall);
    }
    // Who holds a host port that is wanted here: one that leaves goes first; one that stays gives it up
    // on its own, and so do we, so that two can swap.
    let mut contested = None;
    let beside = ground.wants.pairs.get(key).map(|pair| &pair.old);
    let holders = ground.allocation.holders.get(key).into_iter().flatten();
    // From the slot beside it, host ports are taken over once it is gone.
    for holder in holders.filter(|holder| Some(*holder) != beside) {
        match ground.removed.get(holder) {
            Some(removed) => needs.push(*removed),
            None => contested = Some(holder),
        }
    }
    if let Some(holder) = contested {
        let seen = draft.observed.instances.known();
        let held = |key: &InstanceKey| seen.and_then(|seen| seen.get(key)).map(|seen| &seen.sandbox);
        let why = format!("waits until {holder} has given up a host port");
        let mine = held(key).cloned();
        spec.ports
            .retain(|binding| mine.as_ref().is_some_and(|mine| mine.ports.contains(binding)));
        if mine.as_ref() != Some(&spec) && mine.is_some() {
            draft.step(&object, Action::EnsureSandbox(spec), cause, None, &needs);
        }
        return draft.wait(object, why, None);
    }
    draft.step(&object, Action::EnsureSandbox(spec), cause, completes, &needs)
}

/// The reservation of host ports that lead here already, once the slot that had it is gone.
fn take_over(draft: &mut Draft<'_>, ground: &Ground<'_>, key: &InstanceKey, start: Ready) {
    let old = ground
        .wants
        .pairs
        .get(key)
        .filter(|pair| pair.flipped)
        .map(|pair| &pair.old);
    let removed = old.and_then(|old| ground.removed.get(old));
    if let (Some(spec), Some(removed)) = (ground.allocation.taking_over.get(key), removed) {
        let cause = wanted::noun("ports", Some(format!("are those of {}", key.service)));
        let action = Action::EnsureSandbox(spec.clone());
        draft.step(
            &Key::Instance(key.clone()),
            action,
            &cause,
            None,
            &[*removed, start],
        );
    }
}

/// What each dependency of `key` lets it wait for, and the text of those that are not yet there.
fn gates(
    draft: &mut Draft<'_>,
    ground: &Ground<'_>,
    instances: &Instances,
    key: &InstanceKey,
    wanted: Wanted<'_>,
    verdict: &Verdict,
) -> (Vec<Ready>, Option<String>) {
    let starts = verdict.replaces() || matches!(verdict.course, Course::Revive { .. });
    let starts_anew = verdict.replaces();
    let mut needs = Vec::new();
    let mut texts = Vec::new();
    if !starts {
        return (needs, None);
    }
    for (name, dependency) in &wanted.service.depends_on {
        let text = gate::text(name, dependency.condition);
        let mut open = true;
        // Every one of its instances must be as the condition says.
        for (other, _) in ground.wants.of(&wanted.project.name, name) {
            // Of two slots, what is new waits for the new one, and what has just ended does not.
            let slot = match starts_anew {
                true => ground.wants.replaced.contains_key(other),
                false => ground.wants.pairs.get(other).is_some_and(|pair| !pair.flipped),
            };
            if slot {
                continue;
            }
            let Some(verdict) = ground.verdicts.get(other) else {
                continue;
            };
            let seen = draft.observed.instances.known().and_then(|seen| seen.get(other));
            let state = Dependency {
                seen,
                changing: verdict.replaces(),
            };
            let need = match gate::gate(name, dependency.condition, state) {
                Gate::Open => continue,
                Gate::OnStart => match instances.starts.get(other) {
                    Some(Ready::Blocked) | None => draft.wait(Key::Instance(key.clone()), text.clone(), None),
                    Some(ready) => *ready,
                },
                Gate::Shut => draft.wait(Key::Instance(key.clone()), text.clone(), None),
                Gate::Stuck(why) => draft.wait(Key::Instance(key.clone()), why, None),
            };
            needs.push(need);
            open = false;
        }
        if !open {
            texts.push(text);
        }
    }
    let text = (!texts.is_empty()).then(|| texts.join(", "));
    (needs, text)
}

/// The containers that are wanted, where that is known.
pub fn targets(
    verdicts: &BTreeMap<InstanceKey, Verdict>,
) -> impl Iterator<Item = (&InstanceKey, &ContainerSpec)> {
    verdicts
        .iter()
        .filter_map(|(key, verdict)| Some((key, verdict.target.as_ref().ok()?)))
}
