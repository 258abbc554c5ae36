//! The steps of wanted instances: sandbox, container, and what must be gone before.

mod gates;
mod sharing;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    action::Action,
    allocate::Allocation,
    container,
    draft::{Draft, Ready},
    firewall,
    images::Unpacked,
    spaces::Within,
    step::{Cause, Class},
    verdict::{Course, Verdict},
    volumes,
    wanted::{self, Member, Wanted, Wants},
};
use model::types::Project;

use crate::{
    key::{InstanceKey, Key, ResourceKey},
    observed::{Instance, State},
    spec::{ContainerSpec, SandboxSpec},
};
use gates::Gates;

/// What the steps of instances need, by what they need it of.
pub struct Ground<'a> {
    pub wants: &'a Wants<'a>,
    pub allocation: &'a Allocation<'a>,
    /// Of each wanted instance.
    pub verdicts: &'a [Verdict<'a>],
    pub unpacked: &'a Unpacked,
    pub networks: &'a BTreeMap<ResourceKey, Ready>,
    pub volumes: &'a BTreeMap<ResourceKey, Ready>,
    pub names: &'a BTreeMap<ResourceKey, Ready>,
    /// Networks and endpoints are kept apart.
    pub firewall: Ready,
    /// Sandboxes that go in this pass.
    pub removed: &'a BTreeMap<InstanceKey, Ready>,
    pub within: &'a Within<'a>,
}

/// What became of each wanted instance.
#[derive(Default)]
pub struct Instances {
    /// Sandboxes, as they shall be.
    pub sandboxes: Vec<Option<Ready>>,
    /// Starts; `Now` for what runs or has run as wanted.
    pub starts: Vec<Option<Ready>>,
    /// Stops of those who live in a process namespace that goes.
    stops: BTreeMap<InstanceKey, Ready>,
}

impl Instances {
    fn start(&mut self, place: usize, ready: Ready) {
        if let Some(start) = self.starts.get_mut(place) {
            *start = Some(ready);
        }
    }

    fn sandbox(&mut self, place: usize, ready: Ready) {
        if let Some(sandbox) = self.sandboxes.get_mut(place) {
            *sandbox = Some(ready);
        }
    }
}

/// Dependencies before their dependants; a cycle is cut at its first service.
pub fn in_order<'a>(projects: &BTreeMap<&'a str, &'a Project>) -> Vec<(&'a str, Wanted<'a>)> {
    let mut order = Vec::new();
    for project in projects.values() {
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
    let wants = ground.wants;
    let nothing = || vec![None; wants.instances.len()];
    let mut instances = Instances {
        sandboxes: nothing(),
        starts: nothing(),
        stops: BTreeMap::new(),
    };
    if let Err(why) = known(draft) {
        for Member { key, .. } in &wants.instances {
            draft.wait(Key::Instance(key.clone()), why.clone(), None);
        }
        return instances;
    }
    // Most are as they shall be: nothing is to be done with them, and nothing to be said.
    let mut left: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (place, (member, verdict)) in wants.instances.iter().zip(ground.verdicts).enumerate() {
        if rests(wants, member, verdict) {
            instances.sandbox(place, Ready::Now);
            instances.start(place, Ready::Now);
            sharing::unlent(draft, wants, member);
        } else {
            left.insert((&member.key.project, &member.key.service));
        }
    }
    for (name, wanted) in &wants.order {
        if !left.contains(&(&*wanted.project.name, *name)) {
            continue;
        }
        // What a service waits for is the same for all of its instances: those that start anew, and those
        // that start again as they were.
        let mut gates: [Option<Gates>; 2] = [None, None];
        for place in wants.of(&wanted.project.name, name) {
            let (Some(member), Some(verdict)) = (wants.instances.get(place), ground.verdicts.get(place))
            else {
                continue;
            };
            if rests(wants, member, verdict) {
                continue;
            }
            let anew = verdict.replaces();
            let [first, second] = &mut gates;
            let gates = match if anew { first } else { second } {
                _ if planted!("gate-ignored-on-revive") && !verdict.replaces() => &Gates::default(),
                _ if !verdict.starts() || verdict.stopped.is_some() => &Gates::default(),
                Some(gates) => gates,
                none => none.insert(Gates::of(draft, ground, &instances, *wanted, anew)),
            };
            instance(draft, ground, &mut instances, (place, member), verdict, gates);
        }
    }
    instances
}

/// Nothing is to be done with it, and nothing to be said.
pub fn rests(wants: &Wants<'_>, member: &Member<'_>, verdict: &Verdict<'_>) -> bool {
    verdict.is_settled() && !wants.pairs.contains_key(&member.key)
}

fn known(draft: &Draft<'_>) -> Result<(), String> {
    match &draft.observed.instances {
        crate::observed::Fact::Known(_) => Ok(()),
        crate::observed::Fact::Unknown(_) if planted!("unknown-is-absent") => Ok(()),
        crate::observed::Fact::Unknown(why) => Err(format!("the containers could not be read: {why}")),
    }
}

fn instance(
    draft: &mut Draft<'_>,
    ground: &Ground<'_>,
    instances: &mut Instances,
    (place, member): (usize, &Member<'_>),
    verdict: &Verdict<'_>,
    gates: &Gates,
) {
    let (key, seen) = (&member.key, member.seen);
    let object = Key::Instance(key.clone());
    let state = seen.map(|seen| &seen.state);
    if let Some((class, cause)) = &verdict.change {
        let text = match &verdict.stopped {
            Some(why) => (!matches!(class, Class::Live | Class::Remove)).then(|| why.clone()),
            None => {
                let alone = ground.wants.alone.get(&(&*key.project, &*key.service));
                let alone = alone.map(|why| format!("stopped before it is started: {why}"));
                verdict.replaces().then(|| gates.text().or(alone)).flatten()
            }
        };
        draft.change(object.clone(), *class, cause, text);
    }
    let (class, cause) = verdict.cause();
    if let Some(why) = &verdict.stopped {
        draft.wait(object.clone(), why.clone(), None);
    }
    if let Some(why) = &gates.closed {
        draft.wait(object.clone(), why.clone(), None);
    }
    match &verdict.course {
        Course::Clear => {
            draft.step(&object, Action::RemoveSandbox(key.clone()), &cause, class, &[]);
        }
        Course::Unsure(why) => {
            draft.wait(object.clone(), why.clone(), None);
        }
        _ => {}
    }
    if let Course::Clear | Course::Unsure(_) = verdict.course {
        instances.start(place, Ready::Blocked);
        return;
    }
    if verdict.stopped.is_none()
        && let Err(why) = &verdict.target
        && (verdict.change.is_some() || verdict.course != Course::Rest)
    {
        let why = format!("{} cannot start yet: {why}", key.service);
        draft.wait(object.clone(), why, None);
        match seen {
            // What is left of a lost one is cleared away all the same.
            Some(seen) if seen.state == State::Lost => {
                draft.step(&object, Action::RemoveSandbox(key.clone()), &cause, None, &[]);
            }
            Some(seen) => repair(draft, ground, place, seen),
            None => {}
        }
        instances.start(place, Ready::Blocked);
        return;
    }
    let networks = endpoints(ground, place);
    let mut needs: Vec<Ready> = networks
        .filter_map(|network| ground.names.get(network))
        .copied()
        .collect();
    let mut before = gates.needs.clone();
    if let Ok(target) = &verdict.target {
        let made = |_: &&ResourceKey| !planted!("before-the-volume");
        before.extend(
            volumes::mounted(target)
                .filter(made)
                .filter_map(|volume| ground.volumes.get(volume)),
        );
        if !planted!("before-the-image") {
            before.extend(layers(draft, ground, &object, &target.image_digest));
        }
    }
    let stopped = instances.stops.get(key).copied();
    let stop = |draft: &mut Draft<'_>, needs: &[Ready]| {
        if let Some(stopped) = stopped {
            return stopped;
        }
        let action = Action::StopContainer {
            key: key.clone(),
            drain: 0,
        };
        draft.step(&object, action, &cause, None, needs)
    };
    let joined = sharing::joined(draft, ground, instances, place);
    let running = matches!(state, Some(State::Running { .. })) && !planted!("no-stop-before");
    let removed = (verdict.course == Course::Rebuild).then(|| {
        let mut first = Vec::new();
        // One that is whole goes once everything is there that the next one needs.
        if state != Some(&State::Lost) {
            first.extend(needs.iter().chain(&before).copied());
            first.push(ground.firewall);
            first.extend(endpoints(ground, place).filter_map(|network| ground.networks.get(network)));
            first.extend(joined.filter(|joined| *joined == Ready::Blocked));
            sharing::stop_dwellers(draft, ground, instances, key, &mut first);
        }
        if running {
            first = vec![stop(draft, &first)];
        }
        draft.step(&object, Action::RemoveSandbox(key.clone()), &cause, None, &first)
    });
    // As long as it cannot be made anew, it is kept whole.
    if removed == Some(Ready::Blocked)
        && let Some(seen) = seen.filter(|seen| seen.state != State::Lost)
    {
        repair(draft, ground, place, seen);
    }
    let here = class.filter(|class| *class == Class::Live && !verdict.amend);
    let wrong = verdict.sandbox || verdict.course == Course::Rebuild;
    // One that is stopped before it is made anew.
    if !wrong && !running && verdict.stopped.is_some() {
        seen.into_iter()
            .for_each(|seen| repair(draft, ground, place, seen));
    }
    let sandbox = sandbox(
        draft,
        ground,
        (place, member),
        wrong,
        (removed, joined),
        &cause,
        here,
    );
    instances.sandbox(place, sandbox);
    needs.insert(0, sandbox);
    // A sandbox that is there may be older than the rules that keep it apart.
    if verdict.starts() && sandbox == Ready::Now {
        needs.extend(isolated(draft, ground, ground.allocation.sandbox(place)));
        needs.extend(joined);
    }
    let Ok(target) = &verdict.target else {
        let blocked = verdict.stopped.is_some();
        let ready = if blocked { Ready::Blocked } else { Ready::Now };
        instances.start(place, ready);
        if verdict.course == Course::Stop {
            stop(draft, &[]);
        }
        return;
    };
    if verdict.amend && !verdict.replaces() {
        let action = Action::UpdateContainer {
            key: key.clone(),
            spec: Box::new(target.clone().into_owned()),
        };
        let ready = draft.step(&object, action, &cause, class, &needs);
        needs.push(ready);
    }
    needs.extend(before);
    let start = |draft: &mut Draft<'_>, fresh, restarts, streak, flaps, needs: &[Ready]| {
        let mut spec = target.clone().into_owned();
        container::furnish(member.wanted.project, member.wanted.service, &mut spec);
        let action = Action::StartContainer {
            key: key.clone(),
            spec: Box::new(spec),
            fresh,
            restarts,
            streak,
            flaps,
        };
        let completes = class.filter(|_| fresh);
        draft.step(&object, action, &cause, completes, needs)
    };
    let ready = match &verdict.course {
        Course::Rest | Course::Stop if verdict.stopped.is_some() => {
            if running {
                stop(draft, &[]);
            }
            Ready::Blocked
        }
        Course::Start | Course::Rebuild => start(draft, true, 0, 0, 0, &needs),
        Course::Replace => {
            if running {
                needs = vec![stop(draft, &needs)];
            }
            start(draft, true, 0, 0, 0, &needs)
        }
        Course::Again {
            restarts,
            streak,
            flaps,
            ..
        } => {
            needs.extend(sharing::leaves(draft, ground, member));
            if running {
                needs = vec![stop(draft, &needs)];
            }
            start(draft, false, *restarts, *streak, *flaps, &needs)
        }
        Course::Later { until, reason } => {
            draft.wait(object.clone(), reason.clone(), Some(*until));
            // It has been started before: that is all `service_started` asks.
            Ready::Now
        }
        Course::Starting { reason } => {
            draft.wait(object.clone(), reason.clone(), None);
            Ready::Blocked
        }
        Course::Rest | Course::Stop | Course::Clear | Course::Unsure(_) => Ready::Now,
    };
    instances.start(place, ready);
    take_over(draft, ground, key, ready);
}

/// When the layers of `digest` are there. What its reference stands for may not be known; they can be there
/// all the same, unless the last start found out that they are not.
fn layers(draft: &mut Draft<'_>, ground: &Ground<'_>, object: &Key, digest: &str) -> Option<Ready> {
    if let Some(ready) = ground.unpacked.get(digest) {
        return Some(*ready);
    }
    let failed = draft.memory.failures.get(object);
    let failed = failed.filter(|failed| failed.field == Some("image"))?;
    let why = failed.message.clone();
    Some(draft.wait(object.clone(), why, None))
}

/// What cannot become what it shall be now stays what it is: of that, what is damaged is put right.
fn repair(draft: &mut Draft<'_>, ground: &Ground<'_>, place: usize, seen: &Instance) {
    if seen.drift.is_empty() {
        return;
    }
    let endpoints = seen.sandbox.endpoints.iter();
    let networks = endpoints.filter_map(|endpoint| ground.networks.get(&endpoint.network));
    let mut needs: Vec<Ready> = networks.copied().collect();
    needs.extend(isolated(draft, ground, Some(&seen.sandbox)));
    let cause = wanted::noun("sandbox", Some(seen.drift.join(", ")));
    let action = Action::EnsureSandbox((*seen.sandbox).clone());
    let Some(member) = ground.wants.instances.get(place) else {
        return;
    };
    draft.step(&Key::Instance(member.key.clone()), action, &cause, None, &needs);
}

/// The step after which nobody else can use the addresses of `sandbox`, unless that is so already.
fn isolated(draft: &Draft<'_>, ground: &Ground<'_>, sandbox: Option<&SandboxSpec>) -> Option<Ready> {
    (!firewall::isolates(draft, ground.allocation, sandbox)).then_some(ground.firewall)
}

fn endpoints<'g>(ground: &'g Ground<'_>, place: usize) -> impl Iterator<Item = &'g ResourceKey> {
    let spec = ground.allocation.sandbox(place);
    spec.into_iter()
        .flat_map(|spec| spec.endpoints.iter().map(|endpoint| &endpoint.network))
}

/// `wrong`: it must be made, or brought to its specification.
fn sandbox(
    draft: &mut Draft<'_>,
    ground: &Ground<'_>,
    (place, member): (usize, &Member<'_>),
    wrong: bool,
    (removed, joined): (Option<Ready>, Option<Ready>),
    cause: &Cause,
    completes: Option<Class>,
) -> Ready {
    let key = &member.key;
    let object = Key::Instance(key.clone());
    // What is there has joined already.
    let anew = removed.is_some() || member.seen.is_none();
    let joined = joined.filter(|_| anew);
    let mut needs: Vec<Ready> = removed.into_iter().chain(joined).collect();
    let mut spec = match ground.allocation.sandboxes.get(place) {
        Some(Ok(spec)) if !wrong => {
            // Stopped, it is not made anew, and is on the networks that it was on.
            let as_it_was = member.seen.is_some_and(|seen| *seen.sandbox != **spec);
            return if as_it_was { Ready::Blocked } else { Ready::Now };
        }
        Some(Ok(spec)) => spec.clone().into_owned(),
        Some(Err(why)) => {
            if let Some(seen) = member.seen {
                repair(draft, ground, place, seen);
            }
            return draft.wait(object, why.clone(), None);
        }
        None => return Ready::Blocked,
    };
    needs.extend(endpoints(ground, place).filter_map(|network| ground.networks.get(network)));
    if !planted!("reserved-too-early") {
        needs.extend(isolated(draft, ground, ground.allocation.sandbox(place)));
    }
    // Who holds a host port that is wanted here: one that leaves goes first; one that stays gives it up
    // on its own, and so do we, so that two can swap.
    let mut contested = None;
    let beside = ground.wants.pairs.get(key).map(|pair| &pair.old);
    let holders = ground.allocation.holders.get(key).into_iter().flatten();
    // From the slot beside it, host ports are taken over once it is gone.
    for holder in holders.filter(|holder| Some(*holder) != beside) {
        match ground.removed.get(holder) {
            Some(Ready::Blocked) => {
                let why = format!("waits until {holder} is gone, which has a host port");
                return draft.wait(object, why, None);
            }
            Some(removed) => needs.push(*removed),
            None if planted!("holder-ignored") => {}
            None => contested = Some(holder),
        }
    }
    if let Some(holder) = contested {
        let why = format!("waits until {holder} has given up a host port");
        if let Some(mine) = member.seen {
            spec.ports.retain(|binding| mine.sandbox.ports.contains(binding));
            if *mine.sandbox != spec || !mine.drift.is_empty() {
                draft.step(&object, Action::EnsureSandbox(spec), cause, None, &needs);
            }
        }
        return draft.wait(object, why, None);
    }
    draft.step(&object, Action::EnsureSandbox(spec), cause, completes, &needs)
}

/// The reservation of host ports that lead here already, once the slot that had it is gone.
fn take_over(draft: &mut Draft<'_>, ground: &Ground<'_>, key: &InstanceKey, start: Ready) {
    let pair = ground.wants.pairs.get(key).filter(|pair| pair.flipped);
    let removed = pair.and_then(|pair| ground.removed.get(&pair.old));
    if let (Some(spec), Some(removed)) = (ground.allocation.taking_over.get(key), removed) {
        let cause = wanted::noun("ports", Some("follow who has them".to_owned()));
        let action = Action::EnsureSandbox(spec.clone());
        let needs = [*removed, start];
        draft.step(&Key::Instance(key.clone()), action, &cause, None, &needs);
    }
}

/// The containers that are wanted, where that is known.
pub fn targets<'v>(
    wants: &'v Wants<'v>,
    verdicts: &'v [Verdict<'_>],
) -> impl Iterator<Item = (&'v Member<'v>, &'v ContainerSpec)> {
    let all = wants.instances.iter().zip(verdicts);
    all.filter_map(|(member, verdict)| Some((member, verdict.target.as_deref().ok()?)))
}
