//! What is mounted in a container: its volumes, binds and tmpfs, those of its image, and those of other services.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use model::types::{Mount, Project, Service};

use crate::{
    derive,
    key::{InstanceKey, ResourceKey},
    observed::{ImageConfig, Observed},
    plan::{images, wanted},
    spec::MountSpec,
};

/// Its own, and those of the services in `volumes_from` where it has none itself. Those of a hook are the ones of
/// the service that it is of.
pub fn mounts(
    project: &Project,
    key: &InstanceKey,
    service: &Service,
    config: &ImageConfig,
    observed: &Observed,
) -> Result<Vec<MountSpec>, String> {
    let mut all = own(project, key, service, config);
    if let Some(of) = &service.container.pre_start_of
        && let Some(other) = project.services.get(of)
    {
        let image = images::resolve(observed, other)
            .map_err(|why| format!("the volumes of {of} are not known: {why}"))?;
        let theirs = InstanceKey {
            service: of.clone(),
            ..key.clone()
        };
        // Its own are those of its image only.
        let mut shared = mounts(project, &theirs, other, &image.config, observed)?;
        all.retain(|own| !shared.iter().any(|mount| mount.target() == own.target()));
        shared.append(&mut all);
        return Ok(shared);
    }
    for from in &service.container.volumes_from {
        let Some(other) = project.services.get(&from.service) else {
            continue;
        };
        let image = images::resolve(observed, other)
            .map_err(|why| format!("the volumes of {} are not known: {why}", from.service))?;
        // Anonymous volumes are those of its first container.
        let first = InstanceKey {
            service: from.service.clone(),
            index: 1,
            ..key.clone()
        };
        for mut mount in mounts(project, &first, other, &image.config, observed)? {
            let (read_only, target) = match &mut mount {
                MountSpec::Volume {
                    read_only, target, ..
                }
                | MountSpec::Bind {
                    read_only, target, ..
                } => (read_only, target),
                MountSpec::Tmpfs { .. } => continue,
            };
            *read_only |= from.read_only;
            if !all.iter().any(|own| own.target() == target) {
                all.push(mount);
            }
        }
    }
    Ok(all)
}

/// With what devices of vendors bring, which takes the place of others at its target.
pub fn with_edits(mut mounts: Vec<MountSpec>, service: &Service) -> Vec<MountSpec> {
    for mount in service.security.edits.iter().flat_map(|edits| &edits.mounts) {
        mounts.retain(|other| *other.target() != mount.target);
        mounts.push(MountSpec::Bind {
            source: mount.source.clone(),
            target: mount.target.clone(),
            read_only: mount.read_only,
            create_host_path: false,
            propagation: mount.propagation,
            recursive: mount.recursive,
        });
    }
    mounts
}

fn own(project: &Project, key: &InstanceKey, service: &Service, config: &ImageConfig) -> Vec<MountSpec> {
    let anonymous = |target: &Path| ResourceKey {
        project: project.name.clone(),
        name: format!(
            "{}_{}-{}-{}",
            project.name,
            key.service,
            key.index,
            derive::short(&target.to_string_lossy(), 8)
        ),
    };
    let mut mounts: Vec<MountSpec> = service
        .volumes
        .iter()
        .cloned()
        .map(|mount| match mount {
            Mount::Volume {
                source,
                target,
                read_only,
                nocopy,
                subpath,
            } => MountSpec::Volume {
                volume: source.map_or_else(|| anonymous(&target), |key| wanted::volume(project, &key)),
                target,
                read_only,
                nocopy,
                subpath,
            },
            Mount::Bind {
                source,
                target,
                read_only,
                create_host_path,
                propagation,
                recursive,
            } => MountSpec::Bind {
                source,
                target,
                read_only,
                create_host_path,
                propagation: propagation.unwrap_or_default(),
                recursive,
            },
            Mount::Tmpfs {
                target,
                size,
                mode,
                uid,
                gid,
                exec,
            } => MountSpec::Tmpfs {
                target,
                size,
                mode,
                uid,
                gid,
                exec,
            },
        })
        .collect();
    let covered: BTreeSet<&PathBuf> = service.volumes.iter().map(Mount::target).collect();
    for target in config.volumes.iter().map(PathBuf::from) {
        if !covered.contains(&target) {
            mounts.push(MountSpec::Volume {
                volume: anonymous(&target),
                target,
                read_only: false,
                nocopy: false,
                subpath: None,
            });
        }
    }
    mounts
}
