//! What nobody asks for any more: stopped in reverse order, taken out of names and firewall, removed.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    action::Action,
    container,
    draft::{Draft, Ready},
    spaces::Within,
    step::{Cause, Class},
    wanted::{self, Wants},
};
use crate::{
    key::{InstanceKey, Key, ResourceKey},
    observed::{Instance, State},
    spec::ContainerSpec,
};

/// The instances that go.
#[derive(Default)]
pub struct Orphans<'a> {
    gone: BTreeMap<&'a InstanceKey, &'a Instance>,
    /// Some of `gone`: what is being made of them right now.
    becoming: BTreeMap<&'a InstanceKey, &'a ContainerSpec>,
    /// By project and service: who of `gone` depends on it.
    dependants: BTreeMap<(&'a str, &'a str), Vec<&'a InstanceKey>>,
    /// Each one's stop; `Now` where nothing runs. Blocked also where others live in its sandbox for now.
    pub stops: BTreeMap<&'a InstanceKey, Ready>,
    /// The end of each one's container, whoever lives in its sandbox.
    ends: BTreeMap<&'a InstanceKey, Ready>,
}

/// Why an instance goes: fewer are wanted, its service is gone, or all of its project.
fn farewell(draft: &Draft<'_>, wants: &Wants<'_>, key: &InstanceKey) -> Cause {
    if let Some(pair) = wants.replaced.get(key).and_then(|new| wants.pairs.get(new)) {
        return pair.cause.clone();
    }
    let wanted = wants.projects.get(key.project.as_str());
    let service = wanted.and_then(|project| Some((*project, project.services.get(&key.service)?)));
    let scale = service.map(|(project, service)| (project, wanted::scale(service)));
    let Some((project, scale)) = scale.filter(|(_, scale)| key.index > *scale) else {
        return cause(wants, &key.project, format!("services.{}", key.service));
    };
    let new = Some(scale.to_string());
    // Once the first of them is gone, what is left does not say how many there were.
    if let Some((Class::Remove, cause)) = draft.memory.begun.get(&Key::Instance(key.clone()))
        && cause.new == new
    {
        return cause.clone();
    }
    let seen = draft.observed.instances.known();
    let last = seen.and_then(|seen| seen.range(wanted::every(&key.project, &key.service)).next_back());
    let old = last.map(|(last, _)| last.index.to_string());
    wanted::cause(project, format!("services.{}.scale", key.service), old, new)
}

fn cause(wants: &Wants<'_>, project: &str, field: String) -> Cause {
    if wants.runs(project) {
        wanted::noun(&field, None)
    } else {
        wanted::noun(wants.farewell(project), None)
    }
}

/// Stops what goes: a dependency after its dependants.
pub fn stop<'a>(draft: &mut Draft<'a>, wants: &Wants<'a>, within: &Within<'a>) -> Orphans<'a> {
    let mut orphans = Orphans::default();
    let others = wants.others.iter().copied();
    orphans.gone = others
        .filter(|(key, _)| !wants.left_alone(&key.project))
        .collect();
    let becoming = orphans.gone.keys();
    orphans.becoming = becoming
        .filter_map(|key| Some((*key, draft.becoming(key)?)))
        .collect();
    orphans.know_dependants();
    let mut left: BTreeSet<&InstanceKey> = orphans.gone.keys().copied().collect();
    while let Some(next) = orphans.next(&left) {
        left.remove(next);
        let instance = orphans.gone[next];
        let cause = farewell(draft, wants, next);
        let object = Key::Instance(next.clone());
        draft.change(object.clone(), Class::Remove, &cause, None);
        let ready = if wants.replaced.contains_key(next) {
            // Not before names and host ports lead to the one that takes its place.
            Ready::Blocked
        } else if orphans.becoming.contains_key(next) {
            Ready::Blocked
        } else if matches!(instance.state, State::Running { .. }) {
            let needs: Vec<Ready> = orphans
                .dependants(next)
                .filter_map(|dependant| orphans.ends.get(dependant))
                .copied()
                .collect();
            draft.step(
                &object,
                Action::StopContainer {
                    key: next.clone(),
                    drain: 0,
                },
                &cause,
                None,
                &needs,
            )
        } else {
            Ready::Now
        };
        orphans.ends.insert(next, ready);
        let stays = orphans.others_stay(draft, next, within);
        orphans
            .stops
            .insert(next, if stays { Ready::Blocked } else { ready });
    }
    orphans
}

impl<'a> Orphans<'a> {
    /// One on which nobody who is left depends. Containers of several versions may depend on each other in a
    /// circle: then one of that.
    fn next(&self, left: &BTreeSet<&'a InstanceKey>) -> Option<&'a InstanceKey> {
        let dependant =
            |key: &'a InstanceKey| self.dependants(key).find(|dependant| left.contains(dependant));
        let mut here = left.first().copied()?;
        let mut walked = BTreeSet::new();
        while walked.insert(here) {
            match dependant(here) {
                Some(dependant) => here = dependant,
                None => return Some(here),
            }
        }
        Some(here)
    }

    /// Somebody of its project runs in its namespaces, and will do so beyond this pass: nothing but its container
    /// goes.
    fn others_stay(&self, draft: &mut Draft<'_>, key: &InstanceKey, within: &Within<'a>) -> bool {
        let mut others = within.of(key).map(|(other, _)| other);
        let stays = |other: &&InstanceKey| {
            other.project == key.project && self.stops.get(*other).is_none_or(|stop| *stop == Ready::Blocked)
        };
        let Some(other) = others.find(stays).filter(|_| !planted!("lent-room-goes")) else {
            return false;
        };
        if !self.gone.contains_key(other) {
            let why = format!("waits until {other} is made anew or gone, which shares its namespaces");
            draft.wait(Key::Instance(key.clone()), why, None);
        }
        true
    }

    fn know_dependants(&mut self) {
        for (key, instance) in &self.gone {
            let spec = self.becoming.get(key).copied();
            let fields = spec.or(instance.container.as_deref()).map(|spec| &spec.fields);
            for service in fields.into_iter().flat_map(container::dependencies) {
                let dependants = self.dependants.entry((&key.project, service)).or_default();
                dependants.push(key);
            }
        }
    }

    fn dependants(&self, key: &'a InstanceKey) -> impl Iterator<Item = &'a InstanceKey> {
        let dependants = self.dependants.get(&(key.project.as_str(), key.service.as_str()));
        let others = dependants.into_iter().flatten().copied();
        others.filter(move |other| !planted!("stop-order-ignored") && *other != key)
    }

    /// Stops what another slot has taken the place of: `taken` says of which ones, and after what. Those
    /// who are still connected get as long as the process itself.
    pub fn drain(
        &mut self,
        draft: &mut Draft<'_>,
        wants: &Wants<'_>,
        taken: &BTreeMap<&InstanceKey, Vec<Ready>>,
    ) {
        for (key, instance) in &self.gone {
            let new = wants.replaced.get(*key);
            let Some(needs) = new.and_then(|new| taken.get(new)) else {
                continue;
            };
            let cause = farewell(draft, wants, key);
            let ready = match (&instance.state, &instance.container) {
                (State::Running { .. }, container) => {
                    let action = Action::StopContainer {
                        key: (*key).clone(),
                        drain: container
                            .as_ref()
                            .filter(|_| !planted!("drain-skipped"))
                            .map_or(0, |spec| spec.stop_grace),
                    };
                    draft.step(&Key::Instance((*key).clone()), action, &cause, None, needs)
                }
                _ if needs.contains(&Ready::Blocked) || self.becoming.contains_key(key) => Ready::Blocked,
                _ => Ready::Now,
            };
            self.stops.insert(key, ready);
        }
    }

    /// Stops that this pass carries out, or has no need of.
    pub fn stopped(&self) -> BTreeSet<&'a InstanceKey> {
        let stopped = self.stops.iter().filter(|(_, ready)| **ready != Ready::Blocked);
        stopped.map(|(key, _)| *key).collect()
    }

    /// Removes the sandboxes, after names and firewall are without them.
    pub fn remove(
        &self,
        draft: &mut Draft<'_>,
        wants: &Wants<'_>,
        firewall: Ready,
        names: &BTreeMap<ResourceKey, Ready>,
        within: &Within<'a>,
    ) -> BTreeMap<InstanceKey, Ready> {
        let mut removed = BTreeMap::new();
        for (key, instance) in &self.gone {
            let mut needs = vec![firewall];
            needs.extend(self.stops.get(key));
            // What others live in goes after they have ended.
            needs.extend(within.of(key).filter_map(|(other, _)| self.stops.get(other)));
            needs.extend(
                instance
                    .sandbox
                    .endpoints
                    .iter()
                    .filter_map(|endpoint| names.get(&endpoint.network)),
            );
            let cause = farewell(draft, wants, key);
            let action = Action::RemoveSandbox((*key).clone());
            let object = Key::Instance((*key).clone());
            let ready = draft.step(&object, action, &cause, Some(Class::Remove), &needs);
            removed.insert((*key).clone(), ready);
        }
        removed
    }
}

/// Removes what the disk still has of instances that nobody wants, after a boot or a removal that broke off.
pub fn remains(draft: &mut Draft<'_>, wants: &Wants<'_>) {
    let (Some(remains), Some(seen)) = (draft.observed.remains.known(), draft.observed.instances.known())
    else {
        return;
    };
    for key in remains {
        if wants.place(key).is_some() || wants.left_alone(&key.project) || seen.contains_key(key) {
            continue;
        }
        let cause = wanted::noun("remains", Some("of it are on the disk".to_owned()));
        let object = Key::Instance(key.clone());
        draft.change(object.clone(), Class::Remove, &cause, None);
        let action = Action::RemoveSandbox(key.clone());
        draft.step(&object, action, &cause, Some(Class::Remove), &[]);
    }
}

/// Removes networks that nobody wants, once no sandbox is on them. `ready`: sandboxes that are removed
/// or changed in this pass.
pub fn networks(
    draft: &mut Draft<'_>,
    wants: &Wants<'_>,
    sandboxes: impl Fn(&InstanceKey) -> Option<Ready>,
    firewall: Ready,
    names: &BTreeMap<ResourceKey, Ready>,
) {
    let (Some(seen), instances) = (draft.observed.networks.known(), draft.observed.instances.known()) else {
        return;
    };
    for key in seen.keys() {
        if wants.networks.contains_key(key) || wants.left_alone(&key.project) {
            continue;
        }
        let object = Key::Network(key.clone());
        let cause = cause(wants, &key.project, format!("networks.{}", key.name));
        draft.change(object.clone(), Class::Remove, &cause, None);
        let none = BTreeMap::new();
        let instances = instances.or(planted!("network-without-look").then_some(&none));
        let Some(instances) = instances else {
            let why = "the containers could not be read; nothing is removed before they are".to_owned();
            draft.wait(object, why, None);
            continue;
        };
        let mut needs = vec![firewall];
        needs.extend(names.get(key));
        for (instance, seen) in instances {
            if seen
                .sandbox
                .endpoints
                .iter()
                .any(|endpoint| endpoint.network == *key)
            {
                let ready = sandboxes(instance);
                let ready = ready.filter(|_| !wants.held.contains_key(instance));
                needs.push(ready.unwrap_or(Ready::Blocked));
            }
        }
        if draft
            .making_sandboxes()
            .any(|making| making.endpoints.iter().any(|endpoint| endpoint.network == *key))
        {
            needs.push(Ready::Blocked);
        }
        let action = Action::RemoveNetwork(key.clone());
        draft.step(&object, action, &cause, Some(Class::Remove), &needs);
    }
}
