//! Volumes that must be made, those that are lost, and those an operator agreed to remove.

use std::collections::BTreeMap;

use model::types::Project;

use super::{
    action::Action,
    draft::{Draft, Ready},
    step::Class,
    wanted::{self, Wants},
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

/// Every volume that a wanted container mounts; `targets`: what those containers are.
pub fn volumes<'s>(
    draft: &mut Draft<'_>,
    wants: &'s Wants<'_>,
    targets: impl Iterator<Item = (&'s InstanceKey, &'s ContainerSpec)>,
) -> BTreeMap<ResourceKey, Ready> {
    let mut by: BTreeMap<&ResourceKey, (&Project, Result<&str, &str>)> = BTreeMap::new();
    for (key, wanted) in &wants.volumes {
        by.insert(key, (wanted.project, Ok(wanted.name)));
    }
    for (instance, target) in targets {
        let Some(wanted) = wants.instances.get(instance) else {
            continue;
        };
        for volume in mounted(target) {
            by.entry(volume)
                .or_insert((wanted.project, Err(&instance.service)));
        }
    }
    let mut ready = BTreeMap::new();
    for (key, (project, named)) in by {
        let object = Key::Volume(key.clone());
        let one = match &draft.observed.volumes {
            Fact::Unknown(why) => {
                let why = format!("the volumes could not be read: {why}");
                draft.wait(object, why, None)
            }
            Fact::Known(seen) => match seen.get(key).map(|volume| &volume.lost) {
                // What is seen of it does not last.
                Some(None) if draft.busy(&object) => Ready::Blocked,
                Some(None) => Ready::Now,
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
pub fn remove(draft: &mut Draft<'_>, wants: &Wants<'_>, sandboxes: &BTreeMap<InstanceKey, Ready>) {
    let consent = wants.consent();
    let Some(seen) = draft.observed.volumes.known() else {
        return;
    };
    let unknown = draft.observed.instances.known().is_none();
    for key in seen.keys().filter(|key| consent.contains(key.project.as_str())) {
        let object = Key::Volume(key.clone());
        let cause = wanted::noun("down", Some("--volumes".to_owned()));
        draft.change(object.clone(), Class::Remove, &cause, None);
        let mut needs: Vec<Ready> = sandboxes
            .iter()
            .filter(|(instance, _)| instance.project == key.project)
            .map(|(_, ready)| *ready)
            .collect();
        if unknown {
            let why = "the containers could not be read; nothing is removed before they are";
            needs.push(draft.wait(object.clone(), why, None));
        }
        let action = Action::RemoveVolume(key.clone());
        draft.step(&object, action, &cause, Some(Class::Remove), &needs);
    }
}
