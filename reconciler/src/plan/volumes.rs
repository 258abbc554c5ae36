//! Volumes that must be made, those that are lost, and those an operator agreed to remove.

use std::collections::BTreeMap;

use model::types::Project;

use super::{
    action::Action,
    draft::{Draft, Ready},
    step::Class,
    wanted::{self, Member, Wants},
};
use crate::{
    key::{InstanceKey, Key, ResourceKey},
    observed::Fact,
    spec::{ContainerSpec, MountSpec},
};

/// The volumes that `spec` mounts.
pub fn mounted(spec: &ContainerSpec) -> impl Iterator<Item = &ResourceKey> {
    spec.mounts.iter().filter_map(|mount| match mount {
        MountSpec::Volume { volume, .. } => Some(volume),
        MountSpec::Bind { .. } | MountSpec::Tmpfs { .. } => None,
    })
}

/// Who asks for a volume: a project, by its key in the file, or by a service that says nothing of it.
type By<'s> = (&'s Project, Result<&'s str, &'s str>);

/// What is not there of the volumes that wanted containers mount; `targets`: what those containers are.
pub fn volumes<'s>(
    draft: &mut Draft<'_>,
    wants: &'s Wants<'_>,
    targets: impl Iterator<Item = (&'s Member<'s>, &'s ContainerSpec)>,
) -> BTreeMap<ResourceKey, Ready> {
    let named = wants.volumes.iter();
    let mut all: Vec<(&ResourceKey, By<'_>)> = named
        .map(|(key, wanted)| (key, (wanted.project, Ok(wanted.name))))
        .collect();
    for (member, target) in targets {
        let by = (member.wanted.project, Err(&*member.key.service));
        all.extend(mounted(target).map(|volume| (volume, by)));
    }
    // Of several that say the same, the first: the file before its containers.
    all.sort_by_key(|(key, _)| *key);
    all.dedup_by_key(|(key, _)| *key);
    let observed = draft.observed;
    let mut there = observed.volumes.known().into_iter().flatten().peekable();
    let mut ready = BTreeMap::new();
    for (key, (project, named)) in all {
        // Both are in key order.
        while there.next_if(|(other, _)| *other < key).is_some() {}
        let lost = there.next_if(|(other, _)| *other == key);
        let lost = lost.map(|(_, volume)| &volume.lost);
        if lost == Some(&None) && !draft.making_volume(key) {
            continue;
        }
        let object = Key::Volume(key.clone());
        let one = match &observed.volumes {
            Fact::Unknown(why) => {
                let why = format!("the volumes could not be read: {why}");
                draft.wait(object, why, None)
            }
            Fact::Known(_) => match lost {
                // What is seen of it does not last.
                Some(None) => Ready::Blocked,
                Some(Some(_)) if planted!("lost-volume-used") => Ready::Now,
                Some(Some(why)) => {
                    let why = format!("volume {}: {why}; nothing starts on it", key.name);
                    draft.wait(object, why, None)
                }
                None => {
                    let field = match named {
                        Ok(volume) => format!("volumes.{volume}"),
                        Err(service) => format!("services.{service}.volumes"),
                    };
                    let cause = wanted::cause(project, field, None, None);
                    draft.change(object.clone(), Class::Create, &cause, None);
                    let action = Action::EnsureVolume(crate::spec::VolumeSpec { key: key.clone() });
                    draft.step(&object, action, &cause, Some(Class::Create), &[])
                }
            },
        };
        ready.insert(key.clone(), one);
    }
    ready
}

/// Removes the volumes of projects that were taken down with consent, once nothing is left on them.
pub fn remove<'k>(
    draft: &mut Draft<'_>,
    wants: &Wants<'_>,
    sandboxes: impl Iterator<Item = (&'k InstanceKey, Ready)> + Clone,
) {
    let consent = wants.consent();
    let Some(seen) = draft.observed.volumes.known() else {
        return;
    };
    let unknown = draft.observed.instances.known().is_none();
    for key in seen.keys().filter(|key| consent.contains(key.project.as_str())) {
        let object = Key::Volume(key.clone());
        let cause = wanted::noun("down", Some("--volumes".to_owned()));
        draft.change(object.clone(), Class::Remove, &cause, None);
        let sandboxes = sandboxes.clone();
        let mut needs: Vec<Ready> = sandboxes
            .filter(|(instance, _)| instance.project == key.project)
            .map(|(_, ready)| ready)
            .collect();
        if unknown {
            let why = "the containers could not be read; nothing is removed before they are";
            needs.push(draft.wait(object.clone(), why, None));
        }
        let action = Action::RemoveVolume(key.clone());
        draft.step(&object, action, &cause, Some(Class::Remove), &needs);
    }
}
